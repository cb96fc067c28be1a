//! Swap: where anonymous pages go.
//!
//! A slot holds one page. Which slot a page is in stands in its object's tree in place of the
//! frame, so there is no other record of it: when an object goes, its slots go with it. A page
//! that was read in keeps its slot, in its own record, while it is what the slot has: it can leave
//! again without being written ([`crate::page::Page::swap_slot`]).
//!
//! Pages go out and come in by clusters: runs of slots, one call of the device for each. The
//! table of slots grows with what is used, so that a large device costs a small memory little.

use crate::Vm;
use crate::fault::FrameBytes;
use crate::lock::{self, Mutex};
use crate::page::{Frames, Page};
use crate::pager::{PageBytes, PagerError};
use crate::slab::{NoRecords, Reservation, Slab};
use bsdvm_machine::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use bsdvm_machine::{Frame, Machine};

/// Pages that are written or read by one call of a device, at most.
pub(crate) const CLUSTER: usize = 32;

/// A place to swap to. Slots are numbered from 0 and hold a page each.
///
/// It is called with no lock held, by several threads at a time, and never twice at a time for
/// one slot. Unlike a pager it may not fault on memory that can be paged out: it is what makes
/// room there.
pub trait SwapDevice: Sync {
    /// The number of slots, below 2^31.
    fn slots(&self) -> u32;

    /// Reads slot `slot` to `page`.
    fn read(&self, slot: u32, page: &mut dyn PageBytes) -> Result<(), PagerError>;

    /// Writes `page` to slot `slot`.
    ///
    /// Errors: [`PagerError::NoSpace`] for a slot that can be tried again later; after any other
    /// error the slot is not used again. The page stays in memory.
    fn write(&self, slot: u32, page: &dyn PageBytes) -> Result<(), PagerError>;

    /// Reads the slots from `first` on, one to each of `pages`. A device that can read several at
    /// once does so here.
    ///
    /// Errors: as the pages' own; any of them may have been read then.
    fn read_cluster(&self, first: u32, pages: &mut [&mut dyn PageBytes]) -> Result<(), PagerError> {
        let mut slots = first..;
        let mut read = |page: &mut &mut dyn PageBytes| match slots.next() {
            Some(slot) => self.read(slot, &mut **page),
            None => Err(PagerError::Io(0)),
        };
        pages.iter_mut().try_for_each(&mut read)
    }

    /// Writes `pages` to the slots from `first` on. A device that can write several at once does
    /// so here.
    ///
    /// Errors: as the pages' own; any of them may have been written then. The pages are tried one
    /// by one afterwards, but after [`PagerError::NoSpace`].
    fn write_cluster(&self, first: u32, pages: &[&dyn PageBytes]) -> Result<(), PagerError> {
        let mut each = (first..).zip(pages);
        each.try_for_each(|(slot, page)| self.write(slot, *page))
    }

    /// Nothing of the `count` slots from `first` on is needed any more: what they take may be
    /// given back.
    fn discard(&self, first: u32, count: u32) {
        let _ = (first, count);
    }
}

/// How often nothing is written, when a device had no space, before it is tried again.
const POSTPONED: u32 = 64;

const WORDS: usize = 8;
const PER_RECORD: u32 = 64 * WORDS as u32;

/// Which of [`PER_RECORD`] slots are in use. Guarded by the swap lock.
pub(crate) struct SlotBits {
    words: [AtomicU64; WORDS],
    /// Bits that are set.
    used: AtomicU32,
    /// Whether the device may have something for one of the slots: 0 or 1.
    written: AtomicU32,
}

impl SlotBits {
    fn vacant() -> SlotBits {
        SlotBits {
            words: [const { AtomicU64::new(0) }; WORDS],
            used: AtomicU32::new(0),
            written: AtomicU32::new(0),
        }
    }

    fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether the device holds what nobody needs, and nothing else.
    fn is_stale(&self) -> bool {
        self.used() == 0 && self.written.load(Ordering::Relaxed) != 0
    }

    /// The longest run of free slots below `end` that lies in one word, no longer than `want`: its
    /// first slot and its length, 0 when there is none.
    fn longest_run(&self, end: u32, want: u32) -> (u32, u32) {
        let mut best = (0, 0);
        let words = (0..end).step_by(64).zip(&self.words);
        for (base, word) in words {
            let beyond = u64::MAX.checked_shl(end - base).unwrap_or(0);
            let (at, length) = longest_run(!(word.load(Ordering::Relaxed) | beyond), want);
            if length > best.1 {
                best = (base + at, length);
            }
            if best.1 == want {
                break;
            }
        }
        best
    }
}

/// The longest run of ones in `bits`, or the first of `want`: its first bit and its length.
fn longest_run(bits: u64, want: u32) -> (u32, u32) {
    let (mut best, mut at, mut left) = ((0, 0), 0, bits);
    while left != 0 && best.1 < want {
        at += left.trailing_zeros();
        let length = (!(bits >> at)).trailing_zeros();
        if length > best.1 {
            best = (at, length.min(want));
        }
        at += length;
        left = bits.checked_shr(at).unwrap_or(0);
    }
    best
}

/// Slots that follow on one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlotRun {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

struct State {
    device: Option<&'static dyn SwapDevice>,
    slots: u32,
    /// Slots that have a record.
    ready: u32,
    used: u32,
    /// Slots that the device failed to write.
    bad: u32,
    /// The record that is being discarded: no slot of it is given out.
    discarding: Option<u32>,
    /// How often [`Swap::has_room`] is still to say no, as the device had no space.
    postponed: u32,
}

impl State {
    fn free(&self) -> u32 {
        self.slots - self.used - self.bad
    }
}

/// The swap space of one VM.
pub(crate) struct Swap<M: Machine> {
    state: Mutex<M, State, { lock::SWAP }>,
    bits: Slab<M, SlotBits>,
    /// Slots that pages in memory keep.
    kept: AtomicU64,
}

impl<M: Machine> Swap<M> {
    pub(crate) const fn new() -> Self {
        Swap {
            state: Mutex::new(State {
                device: None,
                slots: 0,
                ready: 0,
                used: 0,
                bad: 0,
                discarding: None,
                postponed: 0,
            }),
            bits: Slab::new(),
            kept: AtomicU64::new(0),
        }
    }

    /// Adds records for some more of `slots` slots, as many as a frame holds. The slab holds
    /// nothing else, so the records that there are are numbered in order. False when all slots
    /// have one, or no frame can be had.
    fn grow(&self, frames: &Frames<M>, slots: u32) -> bool {
        let missing = slots - self.state.lock().ready;
        let records = missing.div_ceil(PER_RECORD);
        let records = records.min(Slab::<M, SlotBits>::PER_FRAME);
        let reserved: Result<Reservation<'_, M, SlotBits>, NoRecords> =
            self.bits.reserve(frames, records, SlotBits::vacant);
        let (Ok(mut from), true) = (reserved, records > 0) else {
            return false;
        };
        for _ in 0..records {
            self.bits.alloc(&mut from);
        }
        let mut state = self.state.lock();
        state.ready = state.ready.saturating_add(records * PER_RECORD).min(slots);
        true
    }

    fn record(&self, number: u32) -> &SlotBits {
        self.bits.get(Slab::<M, SlotBits>::handle(number))
    }

    /// Up to `want` free slots, at most [`CLUSTER`], which follow on one another and are the
    /// caller's. No lock is held.
    pub(crate) fn alloc(&self, frames: &Frames<M>, want: u32) -> Option<SlotRun> {
        let want = want.min(CLUSTER as u32);
        let whole = self.take_run(want, want);
        if whole.is_some() {
            return whole;
        }
        // More slots are better than pieces of runs, while there are some.
        let slots = self.state.lock().slots;
        self.grow(frames, slots);
        self.take_run(want, 1)
    }

    /// Takes the first run of `want` free slots, or the longest one that has `least`.
    fn take_run(&self, want: u32, least: u32) -> Option<SlotRun> {
        let mut state = self.state.lock();
        if state.free() == 0 {
            return None;
        }
        let mut best = (0, 0);
        for number in 0..state.ready.div_ceil(PER_RECORD) {
            let base = number * PER_RECORD;
            let record = self.record(number);
            if record.used() == PER_RECORD || state.discarding == Some(number) {
                continue;
            }
            let end = (state.ready - base).min(PER_RECORD);
            let (at, length) = record.longest_run(end, want);
            if length > best.1 {
                best = (base + at, length);
            }
            if length == want {
                break;
            }
        }
        let (first, count) = best;
        if count < least.max(1) {
            return None;
        }
        let record = self.record(first / PER_RECORD);
        let within = first % PER_RECORD;
        let mask = (u64::MAX >> (64 - count)) << (within % 64);
        record.words[within as usize / 64].fetch_or(mask, Ordering::Relaxed);
        record.used.fetch_add(count, Ordering::Relaxed);
        record.written.store(1, Ordering::Relaxed);
        state.used += count;
        Some(SlotRun { first, count })
    }

    /// Gives a slot back. Whether something can be discarded now ([`Swap::discard`]).
    pub(crate) fn free(&self, slot: u32) -> bool {
        let mut state = self.state.lock();
        let record = self.record(slot / PER_RECORD);
        let within = slot % PER_RECORD;
        let bit = 1 << (within % 64);
        let was = record.words[within as usize / 64].fetch_and(!bit, Ordering::Relaxed);
        debug_assert!(was & bit != 0, "a slot is freed once");
        record.used.fetch_sub(1, Ordering::Relaxed);
        state.used -= 1;
        state.postponed = 0;
        record.is_stale()
    }

    /// Gives a slot back that there was no space to write to: that is tried again when a slot has
    /// become free, or a while later.
    pub(crate) fn postpone(&self, slot: u32) {
        self.free(slot);
        self.state.lock().postponed = POSTPONED;
    }

    /// The caller's slot cannot be written: it is not used again.
    pub(crate) fn retire(&self, slot: u32) {
        debug_assert!(slot < self.state.lock().ready, "a slot that is there");
        let mut state = self.state.lock();
        state.used -= 1;
        state.bad += 1;
    }

    /// Lets the device give back what the slots of whole records take that are all free. While
    /// that lasts they cannot be given out, so it is done where many others can be. No lock is
    /// held.
    pub(crate) fn discard(&self) {
        M::assert_none_held();
        while let Some((device, number, count)) = self.begin_discard() {
            device.discard(number * PER_RECORD, count);
            self.state.lock().discarding = None;
        }
    }

    fn begin_discard(&self) -> Option<(&'static dyn SwapDevice, u32, u32)> {
        let mut state = self.state.lock();
        if state.discarding.is_some() || state.free() < 2 * PER_RECORD {
            return None;
        }
        let mut numbers = 0..state.ready.div_ceil(PER_RECORD);
        let number = numbers.find(|&number| self.record(number).is_stale())?;
        self.record(number).written.store(0, Ordering::Relaxed);
        state.discarding = Some(number);
        let count = (state.ready - number * PER_RECORD).min(PER_RECORD);
        Some((state.device?, number, count))
    }

    /// Slots in use, and all slots that can be.
    pub(crate) fn usage(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.used, state.slots - state.bad)
    }

    /// Slots in use that have what a page in memory has.
    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Whether a page can be written, as far as is known.
    pub(crate) fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        let postponed = state.postponed;
        state.postponed = postponed.saturating_sub(1);
        postponed == 0 && state.free() > 0
    }

    /// Whether so much is free that a page in memory may keep its slot.
    pub(crate) fn has_plenty(&self) -> bool {
        let state = self.state.lock();
        state.free() > state.slots / 2
    }

    /// Frames that the table of slots holds.
    pub(crate) fn frames(&self) -> u32 {
        self.bits.frames()
    }

    fn device(&self) -> Result<&'static dyn SwapDevice, PagerError> {
        self.state.lock().device.ok_or(PagerError::NoSpace)
    }

    /// Reads the slots from `first` on to busy pages, at most [`CLUSTER`]. No lock is held.
    pub(crate) fn read(&self, machine: &M, first: u32, frames: &[Frame]) -> Result<(), PagerError> {
        M::assert_none_held();
        let frames = &frames[..frames.len().min(CLUSTER)];
        let bytes = |i: usize| FrameBytes {
            machine,
            frame: frames[i.min(frames.len() - 1)],
        };
        let device = self.device()?;
        match frames {
            [] => Ok(()),
            &[frame] => device.read(first, &mut FrameBytes { machine, frame }),
            _ => {
                let mut bytes: [_; CLUSTER] = core::array::from_fn(bytes);
                let mut pages = bytes.each_mut().map(|b| b as &mut dyn PageBytes);
                device.read_cluster(first, &mut pages[..frames.len()])
            }
        }
    }

    /// Writes busy pages, at most [`CLUSTER`], to the slots from `first` on. No lock is held.
    pub(crate) fn write(
        &self,
        machine: &M,
        first: u32,
        frames: &[Frame],
    ) -> Result<(), PagerError> {
        M::assert_none_held();
        let frames = &frames[..frames.len().min(CLUSTER)];
        let bytes = |i: usize| FrameBytes {
            machine,
            frame: frames[i.min(frames.len() - 1)],
        };
        let device = self.device()?;
        match frames {
            [] => Ok(()),
            &[frame] => device.write(first, &FrameBytes { machine, frame }),
            _ => {
                let bytes: [_; CLUSTER] = core::array::from_fn(bytes);
                let pages = bytes.each_ref().map(|b| b as &dyn PageBytes);
                device.write_cluster(first, &pages[..frames.len()])
            }
        }
    }
}

/// Why a swap device could not be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwapError {
    /// There is one already.
    InUse,
    /// No memory for the table of its slots.
    NoMemory,
}

impl<M: Machine> Vm<M> {
    /// Lets a page keep the slot that it was read from. Under the lock of its object.
    pub(crate) fn keep_slot(&self, page: &Page, slot: u32) {
        page.set_swap_slot(Some(slot));
        self.swap.kept.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the slot that a page kept; it is the caller's. Under the lock of its object.
    pub(crate) fn take_slot(&self, page: &Page) -> Option<u32> {
        let slot = page.swap_slot()?;
        page.set_swap_slot(None);
        self.swap.kept.fetch_sub(1, Ordering::Relaxed);
        Some(slot)
    }

    /// Lets anonymous pages go to `device` from now on (O06). One device can be added.
    ///
    /// Errors: [`SwapError`].
    pub fn swap_on(&self, device: &'static dyn SwapDevice) -> Result<(), SwapError> {
        let slots = device.slots().min(1 << 30);
        if self.swap.state.lock().device.is_some() {
            return Err(SwapError::InUse);
        }
        if slots > 0 && !self.swap.grow(&self.frames, slots) {
            return Err(SwapError::NoMemory);
        }
        let mut state = self.swap.state.lock();
        if state.device.is_some() {
            return Err(SwapError::InUse);
        }
        state.device = Some(device);
        state.slots = slots;
        state.ready = state.ready.min(slots);
        Ok(())
    }
}
