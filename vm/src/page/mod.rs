//! Frames and what is known of each: one [`Page`] record a frame.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the record, its states |
//! | `reserve.rs` | free frames: classes, runs, magazines ([`Frames`]) |
//! | `reserve/contig.rs` | runs of any length, within limits |
//! | `queue.rs` | active, inactive and laundry queues |
//! | `rmap.rs` | who maps a frame |
//!
//! A frame is free, holds records of the core (wired, no object), or is a page of an object.
//! A page's identity (object, index) changes only under the lock of its object, and with the page
//! busy or about to be freed. Busy means that somebody works on the page with no lock held (a
//! pager, page-out): whoever needs it waits on its channel and looks again.

mod queue;
mod reserve;
pub(crate) mod rmap;

use crate::object::ObjectHandle;
use crate::slab::Handle;
use bsdvm_machine::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use bsdvm_machine::{Channel, Frame};
pub(crate) use queue::{Queue, Queues};
pub use reserve::Within;
pub(crate) use reserve::{Class, Frames};

/// What is known of one frame. 40 bytes.
pub(crate) struct Page {
    /// [`Bits`] and, above them, the wire count.
    state: AtomicU32,
    /// The object, 0 for none. Guarded by that object's lock.
    object: AtomicU32,
    /// The page's index in the object. Guarded by the object's lock.
    index: AtomicU64,
    /// Links of the queue, free list or list of dead frames that the page is on, guarded by the
    /// lock of that list. A page of the kernel that is a zone's has the zone's slab in `prev`.
    next: AtomicU32,
    prev: AtomicU32,
    /// First mapping, packed ([`rmap`]), 0 for none. Guarded by the page's rmap stripe.
    map_first: AtomicU64,
    /// Further mappings, the handle of a chunk. Guarded by the page's rmap stripe.
    map_more: AtomicU32,
    /// One more than the order of a free run in the buddy lists, while the frame is its first:
    /// guarded by the lock of the lists. For a page of an object the swap slot that has the same
    /// contents, marked by [`COPIED`], 0 for none: guarded by the object's lock.
    run: AtomicU32,
}

// The atomics of a checker are larger.
const _: () = assert!(
    size_of::<Page>() <= 40 || cfg!(any(shuttle, loom)),
    "the goal is 40 bytes a frame"
);

bitflags::bitflags! {
    /// Flags of a page.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Bits: u32 {
        /// Somebody works on the page with no lock held.
        const BUSY = 1;
        /// Somebody waits for it.
        const WANTED = 2;
        /// Differs from what the pager has.
        const DIRTY = 4;
        /// Used since page-out last looked.
        const REFERENCED = 8;
        /// Written through entries alone that no periodic sync is to see (M12).
        const NO_SYNC = 32;
        /// The number of the queue.
        const QUEUE = 0b11 << 8;
    }
}

/// Marks a swap slot in [`Page::run`]: no order is as large.
const COPIED: u32 = 1 << 31;

const WIRE_SHIFT: u32 = 12;
const WIRE_ONE: u32 = 1 << WIRE_SHIFT;

impl Page {
    pub(crate) const fn vacant() -> Page {
        Page {
            state: AtomicU32::new(0),
            object: AtomicU32::new(0),
            index: AtomicU64::new(0),
            next: AtomicU32::new(0),
            prev: AtomicU32::new(0),
            map_first: AtomicU64::new(0),
            map_more: AtomicU32::new(0),
            run: AtomicU32::new(0),
        }
    }

    fn bits(&self) -> Bits {
        Bits::from_bits_truncate(self.state.load(Ordering::Acquire))
    }

    pub(crate) fn has(&self, bits: Bits) -> bool {
        self.bits().intersects(bits)
    }

    pub(crate) fn set(&self, bits: Bits) {
        self.state.fetch_or(bits.bits(), Ordering::AcqRel);
    }

    /// Clears `bits`; gives back those that were set.
    pub(crate) fn clear(&self, bits: Bits) -> Bits {
        Bits::from_bits_truncate(self.state.fetch_and(!bits.bits(), Ordering::AcqRel))
            .intersection(bits)
    }

    /// Ends the work on the page; whether somebody waits for it.
    pub(crate) fn let_go(&self) -> bool {
        self.clear(Bits::BUSY | Bits::WANTED).contains(Bits::WANTED)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.has(Bits::BUSY)
    }

    /// The object and the page's index in it. Certain only under that object's lock.
    pub(crate) fn identity(&self) -> Option<(ObjectHandle, u64)> {
        let object = Handle::from_raw(self.object.load(Ordering::Acquire))?;
        Some((object, self.index.load(Ordering::Acquire)))
    }

    /// Makes the page one of `object`. Under the object's lock.
    pub(crate) fn set_identity(&self, object: ObjectHandle, index: u64) {
        self.index.store(index, Ordering::Release);
        self.object.store(object.raw(), Ordering::Release);
    }

    /// Takes the page from its object. Under the object's lock.
    pub(crate) fn clear_identity(&self) {
        self.object.store(0, Ordering::Release);
    }

    /// The swap slot that the page was read from and that has its contents as long as it is clean.
    /// Under the object's lock.
    pub(crate) fn swap_slot(&self) -> Option<u32> {
        let run = self.run.load(Ordering::Relaxed);
        (run & COPIED != 0).then_some(run & !COPIED)
    }

    /// Lets the page keep the slot that it was read from, or takes it away. Under the object's lock.
    pub(crate) fn set_swap_slot(&self, slot: Option<u32>) {
        let run = slot.map_or(0, |slot| slot | COPIED);
        self.run.store(run, Ordering::Relaxed);
    }

    /// How many wirings hold the page.
    pub(crate) fn wired(&self) -> u32 {
        self.state.load(Ordering::Acquire) >> WIRE_SHIFT
    }

    /// One wiring more; gives how many there were. `None` when the count is full.
    fn wire(&self) -> Option<u32> {
        let more = |state: u32| state.checked_add(WIRE_ONE);
        let before = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        before.map_or(None, |state| Some(state >> WIRE_SHIFT))
    }

    /// One wiring less; gives what is left. `None` for a page that has no more than `keep`, which
    /// it keeps.
    fn unwire(&self, keep: u32) -> Option<u32> {
        let less = |state: u32| (state >> WIRE_SHIFT > keep).then(|| state - WIRE_ONE);
        self.state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
            .map_or(None, |before| Some((before >> WIRE_SHIFT) - 1))
    }

    /// Whether the page is on a queue.
    pub(crate) fn is_queued(&self) -> bool {
        self.has(Bits::QUEUE)
    }

    /// Whether anything maps the page.
    pub(crate) fn is_mapped(&self) -> bool {
        self.map_first.load(Ordering::Acquire) != 0 || self.map_more.load(Ordering::Acquire) != 0
    }

    /// The slab of a zone whose page this is, 0 for none. A page of the kernel is on no list, so
    /// that the link is free for it.
    pub(crate) fn zone_slab(&self) -> u32 {
        self.prev.load(Ordering::Acquire)
    }

    pub(crate) fn set_zone_slab(&self, slab: u32) {
        self.prev.store(slab, Ordering::Release);
    }

    /// The next in a list of frames that nobody else knows.
    pub(crate) fn next(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    pub(crate) fn set_next(&self, next: u32) {
        self.next.store(next, Ordering::Relaxed);
    }

    /// Takes away everything of the record that a free frame does not have. Whether it was wired.
    fn reset(&self) -> bool {
        debug_assert!(self.swap_slot().is_none(), "a slot goes before its page");
        let wired = self.wired() > 0;
        self.state.store(0, Ordering::Release);
        self.object.store(0, Ordering::Release);
        wired
    }
}

/// The channel that waiters for a busy page sleep on.
pub(crate) fn busy_channel(frame: Frame) -> Channel {
    Channel(0x5000_0000_0000_0000 | u64::from(frame.0))
}

#[cfg(all(test, loom))]
mod loom;
#[cfg(test)]
pub(crate) mod tests;
