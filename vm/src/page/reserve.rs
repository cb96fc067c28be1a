//! Free frames: a magazine per processor over buddy lists of runs, with reserves by class.
//!
//! A magazine holds up to [`MAGAZINE`] single frames and is filled by a run, so that frames taken
//! one after another are neighbours. The buddy lists hold runs of 2^order frames, their first
//! frame's record being the list node; a run is named by its first frame.
//!
//! How many frames are free is known in parts, one for the lists and one for each magazine, so
//! that an allocation writes nothing that other processors write. A frame on its way from one part
//! to another counts in neither.

mod contig;

use super::Page;
use crate::lock::{self, Mutex};
use crate::slab::Slab;
use bsdvm_machine::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use bsdvm_machine::{Channel, Frame, FrameRun, Machine};
pub use contig::Within;

/// Frames in a full magazine.
const MAGAZINE: usize = 64;
/// Frames moved between a magazine and the buddy lists at a time, as an order.
const REFILL: u32 = 5;
/// Magazines; processors share them beyond that.
const MAGAZINES: usize = 16;
/// Runs reach 2^(ORDERS-1) frames.
const ORDERS: usize = 16;
/// The channel of those who wait for a free frame.
const FREED: Channel = Channel(0x4e00_0000_0000_0000);
/// No frame.
const NONE: u32 = u32::MAX;

/// Who asks for a frame, and so how deep the reserve may be drawn down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Programs: leaves both reserves alone.
    Normal,
    /// The core itself, and page-out: leaves the interrupt reserve alone.
    System,
    /// Where waiting is forbidden: takes the last frame.
    Interrupt,
}

/// A processor's own frames, on a cache line that others leave alone.
#[repr(align(64))]
struct Magazine<M: Machine> {
    stack: Mutex<M, Stack, { lock::MAGAZINE }>,
    /// How many frames the stack holds. Written under its lock.
    count: AtomicU32,
}

struct Stack {
    frames: [u32; MAGAZINE],
    count: usize,
}

impl<M: Machine> Magazine<M> {
    /// The frame on top; when there is none, `refill` is asked for some first.
    fn pop(&self, refill: impl FnOnce(&mut Stack)) -> Option<u32> {
        let mut stack = self.stack.lock();
        if stack.count == 0 {
            refill(&mut stack);
        }
        let top = stack.count.checked_sub(1)?;
        stack.count = top;
        self.note(&stack);
        Some(stack.frames[top])
    }

    fn note(&self, stack: &Stack) {
        self.count.store(stack.count as u32, Ordering::Relaxed);
    }
}

struct Buddy {
    heads: [u32; ORDERS],
}

/// The largest runs, first frame and order, that `[first, end)` can be parted into.
fn largest(first: u32, end: u32) -> impl Iterator<Item = (u32, usize)> {
    let mut at = first;
    core::iter::from_fn(move || {
        let left = (at < end).then(|| end - at)?;
        let order = (at.trailing_zeros().min(left.ilog2()) as usize).min(ORDERS - 1);
        at += 1 << order;
        Some((at - (1 << order), order))
    })
}

/// Every frame of the machine, and which are free.
pub(crate) struct Frames<M: Machine> {
    machine: M,
    pages: Slab<M, Page>,
    magazines: [Magazine<M>; MAGAZINES],
    buddy: Mutex<M, Buddy, { lock::BUDDY }>,
    /// Frames in the buddy lists. Written under their lock.
    in_lists: AtomicU64,
    /// The first frame that can be a page, and the one after the last.
    start: AtomicU32,
    end: AtomicU32,
    /// Free frames that `Normal` and `System` leave.
    reserve_system: AtomicU64,
    reserve_interrupt: AtomicU64,
    /// Frames that are wired.
    wired: AtomicU64,
    /// How many wait for a free frame. Looked at under the lock that a frame is freed with.
    wanted: AtomicU32,
    /// Fails the allocation that brings it from 1 to 0; for tests of failing paths.
    #[cfg(feature = "inject")]
    inject: AtomicU64,
}

impl<M: Machine> Frames<M> {
    pub(crate) fn new(machine: M) -> Self {
        Frames {
            machine,
            pages: Slab::new(),
            magazines: [const {
                Magazine {
                    stack: Mutex::new(Stack {
                        frames: [0; MAGAZINE],
                        count: 0,
                    }),
                    count: AtomicU32::new(0),
                }
            }; MAGAZINES],
            buddy: Mutex::new(Buddy {
                heads: [NONE; ORDERS],
            }),
            in_lists: AtomicU64::new(0),
            start: AtomicU32::new(0),
            end: AtomicU32::new(0),
            reserve_system: AtomicU64::new(0),
            reserve_interrupt: AtomicU64::new(0),
            wired: AtomicU64::new(0),
            wanted: AtomicU32::new(0),
            #[cfg(feature = "inject")]
            inject: AtomicU64::new(0),
        }
    }

    /// Builds the table of pages in the first frames and frees the others, `limit` in all.
    /// False when there are too few.
    pub(crate) fn boot(&self, limit: u32) -> bool {
        let total = self.machine.frames().min(limit);
        let chunks = total.div_ceil(Slab::<M, Page>::PER_FRAME);
        let mut next = 0;
        let mut take = || {
            next += 1;
            let frame = Frame(next - 1);
            (next < total).then(|| {
                let zero = self.machine.is_zero(frame);
                (self.machine.record_memory(frame), zero)
            })
        };
        for _ in 0..chunks {
            let Some((memory, zero)) = take() else {
                return false;
            };
            while !self.pages.extend(memory, zero, Page::vacant) {
                let Some((directory, _)) = take() else {
                    return false;
                };
                if !self.pages.extend_directory(directory) {
                    return false;
                }
            }
        }
        if next >= total {
            return false;
        }
        self.start.store(next, Ordering::Relaxed);
        self.end.store(total, Ordering::Relaxed);
        self.give_largest(&mut self.buddy.lock(), next, total);
        let reserve = u64::from(total - next) / 64;
        self.reserve_interrupt
            .store(reserve.min(16), Ordering::Relaxed);
        self.reserve_system
            .store(reserve.min(64), Ordering::Relaxed);
        true
    }

    pub(crate) fn machine(&self) -> &M {
        &self.machine
    }

    /// The record of `frame`.
    #[inline]
    pub(crate) fn page(&self, frame: Frame) -> &Page {
        self.pages.get(Slab::<M, Page>::handle(frame.0))
    }

    /// Frames that are free: at least so many, and exactly while nobody takes or gives.
    pub(crate) fn free_count(&self) -> u64 {
        let magazines = self.magazines.iter();
        let held = magazines.map(|m| u64::from(m.count.load(Ordering::Relaxed)));
        self.in_lists.load(Ordering::Relaxed) + held.sum::<u64>()
    }

    /// Free frames that programs may have.
    pub(crate) fn spare_count(&self) -> u64 {
        let keep = self.kept_from(Class::Normal);
        self.free_count().saturating_sub(keep)
    }

    /// Whether so much is free that a guess may take some of it.
    pub(crate) fn has_plenty(&self) -> bool {
        self.in_lists.load(Ordering::Relaxed) > self.total() / 4
    }

    /// Frames that can be free: all but the table of pages.
    pub(crate) fn total(&self) -> u64 {
        let (start, end) = self.bounds();
        u64::from(end - start)
    }

    /// One frame, contents undefined. `None` when the class may take no more.
    pub(crate) fn alloc(&self, class: Class) -> Option<Frame> {
        if self.injected_failure() {
            return None;
        }
        let keep = self.kept_from(class);
        // Most of the time the lists alone hold more.
        if self.in_lists.load(Ordering::Relaxed) <= keep && self.free_count() <= keep {
            return None;
        }
        let magazine = self.magazine();
        let mut moved = false;
        let own = magazine.pop(|stack| {
            self.refill(stack);
            moved = stack.count > 0;
        });
        if moved {
            // On their way the frames were not counted: who waits may have missed them.
            self.wake_waiters();
        }
        own.or_else(|| self.steal()).map(Frame)
    }

    /// Gives back a frame that nothing maps and nobody names.
    pub(crate) fn free(&self, frame: Frame) {
        debug_assert!(
            !self.page(frame).is_mapped(),
            "a mapped frame must not be freed"
        );
        self.reset(frame);
        let magazine = self.magazine();
        let mut stack = magazine.stack.lock();
        if stack.count == MAGAZINE {
            self.drain(&mut stack, MAGAZINE / 2);
        }
        let at = stack.count;
        stack.frames[at] = frame.0;
        stack.count += 1;
        magazine.note(&stack);
        drop(stack);
        self.wake_waiters();
    }

    /// Makes the record of `frame` that of a free one.
    fn reset(&self, frame: Frame) {
        if self.page(frame).reset() {
            self.wired.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// One wiring more for the page in `frame`; false when its count is full.
    pub(crate) fn wire(&self, frame: Frame) -> bool {
        let before = self.page(frame).wire();
        if before == Some(0) {
            self.wired.fetch_add(1, Ordering::Relaxed);
        }
        before.is_some()
    }

    /// One wiring less for the page in `frame`; whether that was the last. A page that has no more
    /// than `keep` keeps them.
    pub(crate) fn unwire(&self, frame: Frame, keep: u32) -> bool {
        let last = self.page(frame).unwire(keep) == Some(0);
        if last {
            self.wired.fetch_sub(1, Ordering::Relaxed);
        }
        last
    }

    /// How many frames are wired.
    pub(crate) fn wired_count(&self) -> u64 {
        self.wired.load(Ordering::Relaxed)
    }

    /// A free frame was added, or moved: wakes who waits for one. The lock that it was added under
    /// came after a waiter's or before it ([`Frames::wait`]).
    fn wake_waiters(&self) {
        if self.wanted.load(Ordering::Relaxed) > 0 {
            self.machine.wake(FREED);
        }
    }

    /// Takes and lets go of every lock that frames are freed under.
    fn pass_locks(&self) {
        for magazine in &self.magazines {
            drop(magazine.stack.lock());
        }
        drop(self.buddy.lock());
    }

    /// A frame, as soon as one is free that `class` may take. `None` when `give_up` says so, which
    /// is asked before each sleep. No lock is held.
    pub(crate) fn wait(&self, class: Class, mut give_up: impl FnMut() -> bool) -> Option<Frame> {
        self.wanted.fetch_add(1, Ordering::Relaxed);
        let frame = loop {
            let ticket = self.machine.ticket(FREED);
            // Whoever frees takes one of these locks: before, and the frame is seen here, or
            // afterwards, and sees that it is wanted.
            self.pass_locks();
            if let Some(frame) = self.alloc(class) {
                break Some(frame);
            }
            if give_up() {
                break None;
            }
            M::assert_none_held();
            self.machine.sleep(FREED, ticket, None);
        };
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        frame
    }

    /// `2^order` adjacent frames, aligned to their number. `None` when there is no such run.
    pub(crate) fn alloc_run(&self, order: u32) -> Option<FrameRun> {
        if self.injected_failure() || order as usize >= ORDERS {
            return None;
        }
        let count = 1 << order;
        if self.free_count() <= self.reserve_system.load(Ordering::Relaxed) + u64::from(count) {
            return None;
        }
        let first = self.take_run(order)?;
        Some(FrameRun {
            first: Frame(first),
            count,
        })
    }

    /// Frames that stay free whatever `class` asks for.
    fn kept_from(&self, class: Class) -> u64 {
        match class {
            Class::Normal => self.reserve_system.load(Ordering::Relaxed),
            Class::System => self.reserve_interrupt.load(Ordering::Relaxed),
            Class::Interrupt => 0,
        }
    }

    fn magazine(&self) -> &Magazine<M> {
        &self.magazines[self.machine.cpu() % MAGAZINES]
    }

    /// Fills an empty magazine with a run, its lowest frame on top.
    fn refill(&self, stack: &mut Stack) {
        for order in (0..=REFILL).rev() {
            if let Some(first) = self.take_run(order) {
                for frame in (first..first + (1 << order)).rev() {
                    stack.frames[stack.count] = frame;
                    stack.count += 1;
                }
                return;
            }
        }
    }

    fn drain(&self, stack: &mut Stack, count: usize) {
        self.give(stack.frames[..count].iter().copied());
        stack.frames.copy_within(count.., 0);
        stack.count -= count;
    }

    /// A frame from another processor's magazine.
    fn steal(&self) -> Option<u32> {
        self.magazines.iter().find_map(|m| m.pop(|_| ()))
    }

    fn take_run(&self, order: u32) -> Option<u32> {
        let mut buddy = self.buddy.lock();
        let from = (order as usize..ORDERS).find(|&o| buddy.heads[o] != NONE)?;
        let first = buddy.heads[from];
        self.unlink(&mut buddy, first, from);
        for half in (order as usize..from).rev() {
            self.link(&mut buddy, first + (1 << half), half);
        }
        self.in_lists.fetch_sub(1 << order, Ordering::Relaxed);
        Some(first)
    }

    /// Puts frames in the lists.
    fn give(&self, frames: impl ExactSizeIterator<Item = u32>) {
        let mut buddy = self.buddy.lock();
        self.in_lists
            .fetch_add(frames.len() as u64, Ordering::Relaxed);
        for frame in frames {
            self.join(&mut buddy, frame, 0);
        }
    }

    /// Puts `[first, end)`, none of it in the lists and none of it to be joined, there in the
    /// largest runs that begin and end where a run may.
    fn give_largest(&self, buddy: &mut Buddy, first: u32, end: u32) {
        for (first, order) in largest(first, end) {
            self.link(buddy, first, order);
        }
        self.in_lists
            .fetch_add(u64::from(end - first), Ordering::Relaxed);
    }

    /// Puts a run in the lists, together with its buddies.
    fn join(&self, buddy: &mut Buddy, first: u32, order: usize) {
        let (mut first, mut order) = (first, order);
        while order + 1 < ORDERS {
            let other = first ^ (1 << order);
            if !self.is_free_run(other, order) {
                break;
            }
            self.unlink(buddy, other, order);
            first &= !(1 << order);
            order += 1;
        }
        self.link(buddy, first, order);
    }

    fn is_free_run(&self, first: u32, order: usize) -> bool {
        let (start, end) = self.bounds();
        if first < start || u64::from(first) + (1 << order) > u64::from(end) {
            return false;
        }
        let page = self.page(Frame(first));
        page.run.load(Ordering::Relaxed) == order as u32 + 1
    }

    /// The first frame that can be a page, and the one after the last.
    fn bounds(&self) -> (u32, u32) {
        (
            self.start.load(Ordering::Relaxed),
            self.end.load(Ordering::Relaxed),
        )
    }

    fn link(&self, buddy: &mut Buddy, first: u32, order: usize) {
        let page = self.page(Frame(first));
        let head = buddy.heads[order];
        page.run.store(order as u32 + 1, Ordering::Relaxed);
        page.next.store(head, Ordering::Relaxed);
        page.prev.store(NONE, Ordering::Relaxed);
        if head != NONE {
            self.page(Frame(head)).prev.store(first, Ordering::Relaxed);
        }
        buddy.heads[order] = first;
    }

    fn unlink(&self, buddy: &mut Buddy, first: u32, order: usize) {
        let page = self.page(Frame(first));
        let (next, prev) = (
            page.next.load(Ordering::Relaxed),
            page.prev.load(Ordering::Relaxed),
        );
        if prev == NONE {
            buddy.heads[order] = next;
        } else {
            self.page(Frame(prev)).next.store(next, Ordering::Relaxed);
        }
        if next != NONE {
            self.page(Frame(next)).prev.store(prev, Ordering::Relaxed);
        }
        page.run.store(0, Ordering::Relaxed);
    }

    /// Counts the free frames anew, lists and magazines: for `check`.
    pub(crate) fn recount(&self) -> u64 {
        let mut count = 0;
        for m in &self.magazines {
            count += m.stack.lock().count as u64;
        }
        let buddy = self.buddy.lock();
        for (order, &head) in buddy.heads.iter().enumerate() {
            let mut at = head;
            while at != NONE {
                count += 1 << order;
                at = self.page(Frame(at)).next.load(Ordering::Relaxed);
            }
        }
        count
    }

    /// Miscounts the free frames: for the test of `check`.
    #[cfg(test)]
    pub(crate) fn miscount(&self) {
        self.in_lists.fetch_add(1, Ordering::Relaxed);
    }

    /// Miscounts the wired frames: for the test of `check`.
    #[cfg(test)]
    pub(crate) fn miscount_wired(&self) {
        self.wired.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether `frame` can be a page.
    pub(crate) fn is_managed(&self, frame: Frame) -> bool {
        let (start, end) = self.bounds();
        (start..end).contains(&frame.0)
    }

    /// Whether `frame` lies beyond those that the core manages and keeps its table in.
    pub(crate) fn is_beyond(&self, frame: Frame) -> bool {
        frame.0 >= self.bounds().1
    }

    /// The frames that can be pages: those after the table of pages.
    pub(crate) fn managed(&self) -> impl Iterator<Item = Frame> {
        let (start, end) = self.bounds();
        (start..end).map(Frame)
    }

    /// Whether this allocation is the one that a test wants to fail.
    #[inline]
    pub(crate) fn injected_failure(&self) -> bool {
        #[cfg(feature = "inject")]
        {
            self.inject
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                == Ok(1)
        }
        #[cfg(not(feature = "inject"))]
        false
    }

    /// Lets the `n`-th allocation from now on fail, once; 0 for none.
    #[cfg(feature = "inject")]
    pub(crate) fn inject(&self, n: u64) {
        self.inject.store(n, Ordering::Relaxed);
    }

    /// Allocations still to go before the one that fails: 0 when it has failed or none will.
    #[cfg(feature = "inject")]
    pub(crate) fn inject_left(&self) -> u64 {
        self.inject.load(Ordering::Relaxed)
    }
}
