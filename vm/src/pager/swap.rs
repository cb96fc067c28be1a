//! Swap: where anonymous pages go.
//!
//! A slot holds one page. Which slot a page is in stands in its object's tree in place of the
//! frame, so there is no other record of it: when an object goes, its slots go with it.

use crate::Vm;
use crate::fault::FrameBytes;
use crate::lock::{self, Mutex};
use crate::page::Frames;
use crate::pager::{PageBytes, PagerError};
use crate::slab::{NoRecords, Reservation, Slab};
use bsdvm_machine::sync::atomic::{AtomicU64, Ordering};
use bsdvm_machine::{Frame, Machine};

/// A place to swap to. Slots are numbered from 0 and hold a page each.
pub trait SwapDevice: Sync {
    /// The number of slots, below 2^31.
    fn slots(&self) -> u32;
    /// Reads slot `slot` to `page`.
    fn read(&self, slot: u32, page: &mut dyn PageBytes) -> Result<(), PagerError>;
    /// Writes `page` to slot `slot`.
    fn write(&self, slot: u32, page: &dyn PageBytes) -> Result<(), PagerError>;
}

const WORDS: usize = 8;
const PER_RECORD: u32 = 64 * WORDS as u32;

/// Which of [`PER_RECORD`] slots are in use. Guarded by the swap lock.
pub(crate) struct SlotBits([AtomicU64; WORDS]);

impl SlotBits {
    fn vacant() -> SlotBits {
        SlotBits([const { AtomicU64::new(0) }; WORDS])
    }
}

struct State {
    device: Option<&'static dyn SwapDevice>,
    slots: u32,
    used: u32,
    /// Where the search for a free slot goes on.
    next: u32,
}

/// The swap space of one VM.
pub(crate) struct Swap<M: Machine> {
    state: Mutex<M, State, { lock::SWAP }>,
    bits: Slab<M, SlotBits>,
}

impl<M: Machine> Swap<M> {
    pub(crate) const fn new() -> Self {
        Swap {
            state: Mutex::new(State {
                device: None,
                slots: 0,
                used: 0,
                next: 0,
            }),
            bits: Slab::new(),
        }
    }

    /// Sets aside and takes the records for `slots` slots: the slab holds nothing else, so they
    /// are the first.
    fn prepare(&self, frames: &Frames<M>, slots: u32) -> Result<(), NoRecords> {
        let records = slots.div_ceil(PER_RECORD);
        let mut from: Reservation<'_, M, SlotBits> =
            self.bits.reserve(frames, records, SlotBits::vacant)?;
        for _ in 0..records {
            self.bits.alloc(&mut from);
        }
        Ok(())
    }

    fn word(&self, slot: u32) -> (&AtomicU64, u64) {
        let record = self
            .bits
            .get(Slab::<M, SlotBits>::handle(slot / PER_RECORD));
        let within = slot % PER_RECORD;
        (&record.0[within as usize / 64], 1 << (within % 64))
    }

    /// A free slot, which is the caller's.
    pub(crate) fn alloc(&self) -> Option<u32> {
        let mut state = self.state.lock();
        if state.used == state.slots {
            return None;
        }
        for i in 0..state.slots {
            let slot = (state.next + i) % state.slots;
            let (word, bit) = self.word(slot);
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
                state.used += 1;
                state.next = slot + 1;
                return Some(slot);
            }
        }
        None
    }

    /// Gives a slot back.
    pub(crate) fn free(&self, slot: u32) {
        let mut state = self.state.lock();
        let (word, bit) = self.word(slot);
        let was = word.fetch_and(!bit, Ordering::Relaxed);
        debug_assert!(was & bit != 0, "a slot is freed once");
        state.used -= 1;
    }

    /// Slots in use, and all slots.
    pub(crate) fn usage(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.used, state.slots)
    }

    /// Frames that the table of slots holds.
    pub(crate) fn frames(&self) -> u32 {
        self.bits.frames()
    }

    fn device(&self) -> Result<&'static dyn SwapDevice, PagerError> {
        self.state.lock().device.ok_or(PagerError::NoSpace)
    }

    /// Reads a slot to a busy page. No lock is held.
    pub(crate) fn read(&self, machine: &M, slot: u32, frame: Frame) -> Result<(), PagerError> {
        M::assert_none_held();
        self.device()?
            .read(slot, &mut FrameBytes { machine, frame })
    }

    /// Writes a busy page to a slot. No lock is held.
    pub(crate) fn write(&self, machine: &M, slot: u32, frame: Frame) -> Result<(), PagerError> {
        M::assert_none_held();
        self.device()?.write(slot, &FrameBytes { machine, frame })
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
    /// Lets anonymous pages go to `device` from now on (O06). One device can be added.
    ///
    /// Errors: [`SwapError`].
    pub fn swap_on(&self, device: &'static dyn SwapDevice) -> Result<(), SwapError> {
        let slots = device.slots().min(1 << 30);
        if self.swap.state.lock().device.is_some() {
            return Err(SwapError::InUse);
        }
        self.swap
            .prepare(&self.frames, slots)
            .map_err(|_| SwapError::NoMemory)?;
        let mut state = self.swap.state.lock();
        if state.device.is_some() {
            return Err(SwapError::InUse);
        }
        state.device = Some(device);
        state.slots = slots;
        Ok(())
    }
}
