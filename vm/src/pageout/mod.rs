//! Page-out: frames are taken from pages that were not used lately.
//!
//! One call, [`Vm::pageout_step`], which a test, a faulting thread or a daemon makes; nothing here
//! runs by itself. `batch.rs` is the mechanism: what happens to the pages that go, a few at a
//! time. `policy.rs` says which page is next.
//!
//! ```text
//!  active ──not referenced──> inactive ──not referenced──> unmap, flush
//!     ▲                           │                          │ clean: free
//!     └────────referenced─────────┘                          │ dirty: write to pager or swap, free
//! ```

mod batch;
mod policy;

use crate::Vm;
use crate::page::{Class, Within};
use crate::pager::CLUSTER;
use batch::{Batch, Use};
use bsdvm_machine::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use bsdvm_machine::{Channel, Frame, Machine};

/// Frames that are freed at a time when one is wanted: as many as a swap device takes in a few
/// calls, but no more than a small part of memory.
const RECLAIM: core::ops::RangeInclusive<u64> = 16..=128;
/// Pages that are mostly read from swap together.
const READ_AHEAD: u64 = CLUSTER as u64 / 2;
/// Frames that one call may need for records: of each kind one, and some kinds twice.
const KINDS: u64 = 12;
/// Looks at pages, at most, before the translations that went meanwhile are flushed.
const LOOKS: u64 = 256;
/// How often a step that freed nothing waits for those of others, at most.
const PATIENCE: u32 = 16;
/// The channel of those who wait for the steps of others.
const ENDED: Channel = Channel(0x4c00_0000_0000_0000);

/// The batches under way, so that who finds no page to take can wait for what others took.
pub(crate) struct Laundry {
    running: AtomicU32,
    /// Pages that were freed, ever.
    freed: AtomicU64,
}

impl Laundry {
    pub(crate) const fn new() -> Laundry {
        Laundry {
            running: AtomicU32::new(0),
            freed: AtomicU64::new(0),
        }
    }

    fn freed(&self) -> u64 {
        self.freed.load(Ordering::Acquire)
    }

    fn begin(&self) {
        self.running.fetch_add(1, Ordering::AcqRel);
    }

    fn end<M: Machine>(&self, machine: &M, freed: u32) {
        self.freed.fetch_add(u64::from(freed), Ordering::AcqRel);
        self.running.fetch_sub(1, Ordering::AcqRel);
        machine.wake(ENDED);
    }

    /// Sleeps until others have freed pages, or none of them is at it; gives how many were freed
    /// since `freed` was what is counted. No lock is held.
    fn wait<M: Machine>(&self, machine: &M, freed: u64) -> u32 {
        let more = || u32::try_from(self.freed() - freed).unwrap_or(u32::MAX);
        for _ in 0..PATIENCE {
            let ticket = machine.ticket(ENDED);
            if more() > 0 || self.running.load(Ordering::Acquire) == 0 {
                break;
            }
            machine.sleep(ENDED, ticket, None);
        }
        more()
    }
}

impl<M: Machine> Vm<M> {
    /// Looks at pages until `want` frames were freed or every page was looked at twice; gives the
    /// number freed (O07). When it can free none it waits for steps that others are at, and gives
    /// what those freed. Calls pagers: no lock is held by the caller.
    pub fn pageout_step(&self, want: u32) -> u32 {
        M::assert_none_held();
        let before = self.laundry.freed();
        let (mut freed, mut left) = (0, policy::budget(self));
        while freed < want && left > 0 {
            let mut looks = left.min(LOOKS);
            left -= looks;
            freed += self.launder(want - freed, Use::Respected, &mut || {
                looks = looks.checked_sub(1)?;
                policy::next(self)
            });
            left += looks;
        }
        match freed {
            0 => self.laundry.wait(self.machine(), before),
            freed => freed,
        }
    }

    /// A free frame, paging out as much as it takes. `None` when nothing can go. No lock is held.
    pub(crate) fn wait_frame(&self, class: Class) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.alloc(class) {
                return Some(frame);
            }
            let zones = || self.kmem().map_or(0, |kmem| kmem.reclaim());
            if self.pageout_step(self.reclaim()) == 0 && zones() == 0 {
                return self.frames.alloc(class);
            }
        }
    }

    /// Frames that are freed at a time.
    fn reclaim(&self) -> u32 {
        let part = self.frames.total() / 64;
        part.clamp(*RECLAIM.start(), *RECLAIM.end()) as u32
    }

    /// Whether so little is left that what is read from swap finds no room for what follows it, or
    /// that a call which needs records of every kind could find no frame for some.
    pub(crate) fn is_tight(&self) -> bool {
        let part = self.frames.total() / 64;
        self.frames.spare_count() < part.clamp(KINDS, 2 * READ_AHEAD)
    }

    /// Pages out where hardly a frame is left and swap has room: for who is about to do what needs
    /// records, and would rather not be told that there is no memory. Calls pagers: no lock is held
    /// by the caller.
    pub fn keep_room(&self) {
        if self.is_tight() && self.swap.has_room() {
            self.make_room();
        }
    }

    /// Pages out what is freed at a time, for pages that are about to come. No lock is held.
    pub(crate) fn make_room(&self) {
        self.pageout_step(self.reclaim());
    }

    /// Takes pages out of the frames that lie `within`, for who needs just those; gives the number
    /// freed. The first try leaves what was used lately, the second takes it too, and the third
    /// has low memory announced first (K05).
    pub(crate) fn reclaim_within(&self, within: Within, tries: u32) -> u32 {
        M::assert_none_held();
        if tries > 1
            && let Some(kmem) = self.kmem()
        {
            kmem.low_memory();
            kmem.reclaim();
        }
        let mut freed = 0;
        for _ in 0..=tries.min(1) {
            let frames = self.frames.managed();
            let mut frames = frames.filter(|f| within.low <= *f && *f <= within.high);
            freed += self.page_out(Use::Respected, &mut || frames.next());
        }
        freed
    }

    /// Takes the pages of frames out, as far as they can go now; gives the number freed. No lock
    /// is held.
    pub(crate) fn page_out_unneeded(&self, frames: &[Frame]) -> u32 {
        let mut frames = frames.iter().copied();
        self.page_out(Use::Ignored, &mut || frames.next())
    }

    fn page_out(&self, used: Use, next: &mut dyn FnMut() -> Option<Frame>) -> u32 {
        let (mut freed, mut ended) = (0, false);
        while !ended {
            freed += self.launder(u32::MAX, used, &mut || {
                let frame = next();
                ended |= frame.is_none();
                frame
            });
        }
        freed
    }

    /// Takes out up to `most` of the pages that `next` names, a batch of them; gives the number
    /// freed. No lock is held.
    fn launder(&self, most: u32, used: Use, next: &mut dyn FnMut() -> Option<Frame>) -> u32 {
        self.laundry.begin();
        let mut batch = Batch::gather(self, most, used, next);
        batch.write();
        let (mut freed, unwritten) = batch.end();
        self.laundry.end(self.machine(), freed);
        // A pager may fault on memory itself, so that it is called with one page in hand.
        for frame in unwritten.each() {
            let mut frame = Some(frame);
            let mut one = Batch::gather(self, 1, used, &mut || frame.take());
            one.write_paged();
            freed += one.end().0;
        }
        freed
    }
}

#[cfg(test)]
mod tests;
