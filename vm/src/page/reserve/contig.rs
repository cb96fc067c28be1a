//! Runs of any length, within limits: a range of frames, an alignment, a boundary (O04).
//!
//! A run need not lie in one run of the lists: neighbouring free runs that are no buddies make one,
//! too. First a few of the runs that are long enough are looked at, which finds what ordinary limits ask
//! for at once; then every frame of the range in ascending order, which finds whatever is there.
//! Free frames in magazines are in no list; when nothing else is found, the magazines are emptied
//! and the range is looked at once more.
//!
//! The lists are locked all the while. A search that fails costs one look at each frame of the
//! range: it is meant for memory of devices, not for every day.

use super::{Buddy, Class, Frames, NONE, ORDERS, largest};
use bsdvm_machine::sync::atomic::Ordering;
use bsdvm_machine::{Frame, FrameRun, Machine};

/// Runs of each order that are looked at before the range is.
const TRIES: usize = 16;

/// Where a run of frames may lie. All in frames: whoever has physical addresses divides by the
/// page size, rounding limits inwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Within {
    /// The lowest frame that may be part of it.
    pub low: Frame,
    /// The highest frame that may be part of it.
    pub high: Frame,
    /// Its first frame is a multiple of this, a power of two or not. Nothing fits 0.
    pub align: u32,
    /// It holds no two frames on different sides of a multiple of this; 0 for no such limit.
    pub boundary: u32,
}

impl Within {
    /// Anywhere.
    pub const ANY: Within = Within {
        low: Frame(0),
        high: Frame(u32::MAX),
        align: 1,
        boundary: 0,
    };

    /// Whether any run of `count` frames can lie within.
    fn allows(&self, count: u32) -> bool {
        count > 0 && self.align > 0 && (self.boundary == 0 || count <= self.boundary)
    }

    /// The first place in `[start, end)` for `count` frames.
    fn place(&self, count: u32, start: u32, end: u32) -> Option<u32> {
        let (align, boundary) = (u64::from(self.align), u64::from(self.boundary));
        let count = u64::from(count);
        let end = u64::from(end).min(u64::from(self.high.0) + 1);
        let mut at = u64::from(start.max(self.low.0)).next_multiple_of(align);
        while at + count <= end {
            let last = at + count - 1;
            if boundary == 0 || at / boundary == last / boundary {
                return u32::try_from(at).ok();
            }
            at = (last / boundary * boundary).next_multiple_of(align);
        }
        None
    }
}

impl<M: Machine> Frames<M> {
    /// `count` adjacent frames that lie `within`, contents undefined. `None` when there is no such
    /// run, when `class` may not take so many, or when `within` fits none.
    pub(crate) fn alloc_contig(
        &self,
        class: Class,
        count: u32,
        within: Within,
    ) -> Option<FrameRun> {
        if self.injected_failure() || !within.allows(count) {
            return None;
        }
        if self.free_count() < self.kept_from(class) + u64::from(count) {
            return None;
        }
        let first = self.take_contig(count, within).or_else(|| {
            self.drain_all();
            self.take_contig(count, within)
        })?;
        Some(FrameRun {
            first: Frame(first),
            count,
        })
    }

    /// One frame that lies `within`, contents undefined. `None` as with [`Frames::alloc_contig`].
    pub(crate) fn alloc_within(&self, class: Class, within: Within) -> Option<Frame> {
        self.alloc_contig(class, 1, within).map(|run| run.first)
    }

    /// Gives back frames that nothing maps and nobody names: a run, or part of one. They go to the
    /// lists, where they merge, not to a magazine.
    pub(crate) fn free_run(&self, run: FrameRun) {
        for frame in run.frames() {
            debug_assert!(
                !self.page(frame).is_mapped(),
                "a mapped frame must not be freed"
            );
            self.reset(frame);
        }
        let first = run.first.0;
        let mut buddy = self.buddy.lock();
        for (first, order) in largest(first, first + run.count) {
            self.join(&mut buddy, first, order);
        }
        self.in_lists
            .fetch_add(u64::from(run.count), Ordering::Relaxed);
        drop(buddy);
        self.wake_waiters();
    }

    fn take_contig(&self, count: u32, within: Within) -> Option<u32> {
        let mut buddy = self.buddy.lock();
        let first = self
            .in_long_runs(&buddy, count, within)
            .or_else(|| self.in_range(count, within))?;
        self.carve(&mut buddy, first, first + count);
        Some(first)
    }

    /// A place in one of the first few of the runs that are long enough, short ones first.
    fn in_long_runs(&self, buddy: &Buddy, count: u32, within: Within) -> Option<u32> {
        (0..ORDERS)
            .filter(|&order| count <= 1 << order)
            .find_map(|order| {
                let run = |at: u32| (at != NONE).then_some(at);
                let next = |&at: &u32| run(self.page(Frame(at)).next());
                core::iter::successors(run(buddy.heads[order]), next)
                    .take(TRIES)
                    .find_map(|at| within.place(count, at, at + (1 << order)))
            })
    }

    /// The lowest place in the range, over the stretches that free runs make. With the lists locked.
    fn in_range(&self, count: u32, within: Within) -> Option<u32> {
        let (start, end) = self.bounds();
        let mut at = start.max(within.low.0);
        let end = u64::from(end).min(u64::from(within.high.0) + 1);
        while u64::from(at) < end {
            let stretch = at;
            while let Some((first, order)) = self.free_run_of(at).filter(|_| u64::from(at) < end) {
                at = first + (1 << order);
            }
            if let Some(place) = within.place(count, stretch, at) {
                return Some(place);
            }
            at += 1;
        }
        None
    }

    /// The run of the lists that `frame` is part of: its first frame and order.
    fn free_run_of(&self, frame: u32) -> Option<(u32, usize)> {
        (0..ORDERS)
            .map(|order| (frame & !((1 << order) - 1), order))
            .find(|&(first, order)| self.is_free_run(first, order))
    }

    /// Takes `[first, end)`, all of it in the lists, out of them.
    fn carve(&self, buddy: &mut Buddy, first: u32, end: u32) {
        let mut at = first;
        while let Some((run, order)) = self.free_run_of(at).filter(|_| at < end) {
            self.unlink(buddy, run, order);
            self.in_lists.fetch_sub(1 << order, Ordering::Relaxed);
            at = run + (1 << order);
            self.give_largest(buddy, run, run.max(first));
            self.give_largest(buddy, at.min(end), at);
        }
        debug_assert!(at >= end, "what is taken is free");
    }

    /// Moves the frames of every magazine to the lists.
    fn drain_all(&self) {
        for magazine in &self.magazines {
            let mut stack = magazine.stack.lock();
            let count = stack.count;
            self.drain(&mut stack, count);
            magazine.note(&stack);
        }
    }
}

#[cfg(test)]
mod tests;
