//! The toy machine: frames are boxes of bytes, translations are a tree, and the processor looks
//! each access up in it. It has one processor and no cache of translations, so that a flush has
//! nothing to wait for.

use bsdvm_machine::conformance::{Probe, ProbeFault};
use bsdvm_machine::{
    Access, Channel, EnterError, Flush, Frame, FrameRun, Host, Kind, Locks, Machine, Memory,
    MemoryAttr, PageSize, Pmap, Prot, Removed, Ticket, Translation, Usage, VirtAddr, VirtRange,
    Wait,
};
use parking_lot::{Mutex, RawMutex, RawRwLock};
use std::collections::BTreeMap;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Instant;

const PAGE: usize = 4096;

/// A page that the core keeps records in.
#[repr(align(4096))]
struct RecordPage(#[expect(dead_code, reason = "reached by its address")] [u8; PAGE]);

/// The machine.
pub(crate) struct Toy {
    memory: Vec<Mutex<Box<[u8; PAGE]>>>,
    /// A page beside each frame, used in its place while the frame holds records of the core.
    records: Vec<AtomicPtr<u8>>,
    start: Instant,
}

impl Toy {
    /// A machine with `frames` frames of memory.
    pub(crate) fn new(frames: u32) -> Toy {
        // Records are never freed: they stay where they are for as long as the machine lives.
        let page = || Box::leak(Box::new(RecordPage([0; PAGE])));
        let record = |_| AtomicPtr::new(ptr::from_mut(page()).cast());
        Toy {
            memory: (0..frames)
                .map(|_| Mutex::new(Box::new([0; PAGE])))
                .collect(),
            records: (0..frames).map(record).collect(),
            start: Instant::now(),
        }
    }

    fn bytes<R>(&self, frame: Frame, f: impl FnOnce(&mut [u8; PAGE]) -> R) -> R {
        f(&mut self.memory[frame.0 as usize].lock())
    }
}

impl Machine for Toy {
    const PAGE: PageSize = PageSize::KIB4;
    type Pmap = ToyPmap;

    fn pmap_create(&self) -> Result<ToyPmap, EnterError> {
        Ok(ToyPmap::over(self.user_range()))
    }

    fn user_range(&self) -> VirtRange {
        // The lower half but for the first and the last page.
        let range = VirtRange::new(VirtAddr(1 << 12), VirtAddr((1 << 47) - (1 << 12)));
        range.unwrap_or_default()
    }

    fn kernel_range(&self) -> VirtRange {
        VirtRange::from_len(VirtAddr(0xffff_8000_0000_0000), 64 << 20).unwrap_or_default()
    }

    fn pmap_kernel(&self) -> Result<ToyPmap, EnterError> {
        Ok(ToyPmap::over(self.kernel_range()))
    }
}

impl Memory for Toy {
    fn frames(&self) -> u32 {
        self.memory.len() as u32
    }
    fn zero(&self, frame: Frame) {
        self.bytes(frame, |bytes| bytes.fill(0));
    }
    fn copy(&self, from: Frame, to: Frame) {
        let source = self.bytes(from, |bytes| *bytes);
        self.bytes(to, |bytes| *bytes = source);
    }
    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]) {
        self.bytes(frame, |b| buf.copy_from_slice(&b[offset..][..buf.len()]));
    }
    fn write(&self, frame: Frame, offset: usize, buf: &[u8]) {
        self.bytes(frame, |b| b[offset..][..buf.len()].copy_from_slice(buf));
    }

    fn load_u32(&self, frame: Frame, offset: usize) -> u32 {
        let mut word = [0; 4];
        self.read(frame, offset, &mut word);
        u32::from_ne_bytes(word)
    }

    fn compare_exchange_u32(
        &self,
        frame: Frame,
        offset: usize,
        old: u32,
        new: u32,
    ) -> Result<u32, u32> {
        self.bytes(frame, |bytes| {
            let word = &mut bytes[offset..offset + 4];
            let seen = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            if seen != old {
                return Err(seen);
            }
            word.copy_from_slice(&new.to_ne_bytes());
            Ok(old)
        })
    }

    fn record_memory(&self, frame: Frame) -> NonNull<u8> {
        let page = &self.records[frame.0 as usize];
        NonNull::new(page.load(Ordering::Relaxed)).expect("the address of a box")
    }
}

impl Host for Toy {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
    fn cpu(&self) -> usize {
        0
    }
    fn cpus(&self) -> usize {
        1
    }
    fn random(&self) -> u64 {
        self.now().wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Locks for Toy {
    type RawMutex = RawMutex;
    type RawRwLock = RawRwLock;
}

/// A sleep may end early, and who slept looks again: here it always does.
impl Wait for Toy {
    fn ticket(&self, _: Channel) -> Ticket {
        Ticket(0)
    }
    fn sleep(&self, _: Channel, _: Ticket, _: Option<u64>) {
        std::thread::yield_now();
    }
    fn wake(&self, _: Channel) {}
}

/// Translations of one space, by address.
pub(crate) struct ToyPmap {
    range: VirtRange,
    slots: Mutex<BTreeMap<u64, Translation>>,
    /// Frames that were given for tables: this machine keeps its tables elsewhere.
    donated: Mutex<Vec<Frame>>,
}

/// Nothing to wait for.
#[derive(Default)]
pub(crate) struct Done;

impl Flush for Done {
    fn join(&mut self, _: Done) {}
    fn wait(self) {}
    fn is_done(&self) -> bool {
        true
    }
}

fn gone(va: u64, t: Translation) -> Removed {
    Removed {
        va: VirtAddr(va),
        frame: t.frame,
        kind: t.kind,
        usage: t.usage,
    }
}

impl ToyPmap {
    fn over(range: VirtRange) -> ToyPmap {
        ToyPmap {
            range,
            slots: Mutex::default(),
            donated: Mutex::default(),
        }
    }

    /// One access of the processor: the frame and the place in it, or the fault.
    fn access(&self, va: VirtAddr, access: Access) -> Result<(Frame, usize), ProbeFault> {
        let page = Toy::PAGE.floor(va).0;
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&page).filter(|t| t.prot.allows(access));
        let slot = slot.ok_or(ProbeFault { va, access })?;
        slot.usage |= Usage::REFERENCED;
        if access == Access::Write {
            slot.usage |= Usage::MODIFIED;
        }
        Ok((slot.frame, Toy::PAGE.within(va.0)))
    }
}

impl Pmap for ToyPmap {
    type Flush = Done;

    fn enter(
        &self,
        va: VirtAddr,
        run: FrameRun,
        prot: Prot,
        _: MemoryAttr,
        kind: Kind,
        replaced: &mut dyn FnMut(Removed),
    ) -> Result<Done, EnterError> {
        let range = VirtRange::from_len(va, u64::from(run.count) * PAGE as u64);
        let range = range.filter(|range| self.range.contains_range(*range));
        let pages = Toy::PAGE.pages(range.ok_or(EnterError::BadAddress)?);
        let mut slots = self.slots.lock();
        for (page, frame) in pages.zip(run.frames()) {
            let usage = Usage::empty();
            let new = Translation {
                frame,
                prot,
                kind,
                usage,
            };
            if let Some(old) = slots.insert(page.0, new) {
                replaced(gone(page.0, old));
            }
        }
        Ok(Done)
    }

    fn remove(&self, range: VirtRange, told: &mut dyn FnMut(Removed)) -> Done {
        let mut slots = self.slots.lock();
        let mut above = slots.split_off(&range.start().0);
        slots.append(&mut above.split_off(&range.end().0));
        above.into_iter().for_each(|(va, t)| told(gone(va, t)));
        Done
    }

    fn protect(&self, range: VirtRange, prot: Prot) -> Done {
        let within = range.start().0..range.end().0;
        let slots = &mut *self.slots.lock();
        slots.range_mut(within).for_each(|(_, t)| t.prot &= prot);
        Done
    }

    fn extract(&self, va: VirtAddr) -> Option<Translation> {
        self.slots.lock().get(&va.0).copied()
    }

    fn scan(&self, range: VirtRange, seen: &mut dyn FnMut(VirtAddr, Translation)) {
        let within = range.start().0..range.end().0;
        let slots = self.slots.lock();
        (slots.range(within)).for_each(|(va, t)| seen(VirtAddr(*va), *t));
    }

    fn take_usage(&self, va: VirtAddr, which: Usage) -> (Usage, Done) {
        let (mut slots, mut none) = (self.slots.lock(), Usage::empty());
        let usage = slots.get_mut(&va.0).map_or(&mut none, |t| &mut t.usage);
        let taken = *usage & which;
        *usage -= which;
        (taken, Done)
    }

    fn donate(&self, frame: Frame) {
        self.donated.lock().push(frame);
    }
    fn reclaim(&self, back: &mut dyn FnMut(Frame)) -> Done {
        self.donated.lock().drain(..).for_each(back);
        Done
    }
    fn resident(&self) -> u64 {
        self.slots.lock().len() as u64
    }
}

/// The processor: what a program does with memory.
impl Probe for Toy {
    fn load(&self, pmap: &ToyPmap, va: VirtAddr) -> Result<u8, ProbeFault> {
        let (frame, at) = pmap.access(va, Access::Read)?;
        Ok(self.bytes(frame, |bytes| bytes[at]))
    }

    fn store(&self, pmap: &ToyPmap, va: VirtAddr, value: u8) -> Result<(), ProbeFault> {
        let (frame, at) = pmap.access(va, Access::Write)?;
        self.bytes(frame, |bytes| bytes[at] = value);
        Ok(())
    }

    fn fetch(&self, pmap: &ToyPmap, va: VirtAddr) -> Result<(), ProbeFault> {
        pmap.access(va, Access::Execute).map(|_| ())
    }
}
