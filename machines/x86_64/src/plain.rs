//! A whole machine with its page tables in plain memory, for tests on the host.
//!
//! Frames are pages of atomics, and tables lie in frames as on the real machine. Each simulated
//! processor remembers the entries that it used until [`Hardware::flush`] takes them away, so that
//! a flush that was forgotten shows. Locks have no ranks here: the simulated machine checks those.

use crate::entry::Entry;
use crate::flush::{Flushes, Forget};
use crate::hardware::Hardware;
use crate::pmap::X86Pmap;
use crate::walk::{Mode, walk};
use crate::{ENTRIES, PAGE, USER};
use bsdvm_machine::conformance::{Probe, ProbeFault};
use bsdvm_machine::{
    Access, Channel, EnterError, Frame, Host, Locks, Machine, Memory, PageSize, Ticket, Usage,
    VirtAddr, VirtRange, Wait,
};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One frame.
#[repr(align(4096))]
struct Page([AtomicU64; ENTRIES]);

/// What a processor remembers: entries of level 1 by pmap and page number.
type Tlb = BTreeMap<(u64, u64), Entry>;

struct Shared {
    pages: Box<[Page]>,
    tlbs: Box<[Mutex<Tlb>]>,
    next_pmap: AtomicU64,
    random: AtomicU64,
    start: Instant,
    wakes: Mutex<u64>,
    woken: Condvar,
}

/// A machine of x86-64 page tables in plain memory. A handle: clones stand for the same machine.
#[derive(Clone)]
pub struct PlainMachine {
    shared: Arc<Shared>,
}

impl PlainMachine {
    /// A machine of `frames` empty frames and `cpus` processors, at least one.
    pub fn new(frames: u32, cpus: usize) -> PlainMachine {
        let page = || Page(std::array::from_fn(|_| AtomicU64::new(0)));
        PlainMachine {
            shared: Arc::new(Shared {
                pages: (0..frames).map(|_| page()).collect(),
                tlbs: (0..cpus.max(1)).map(|_| Mutex::default()).collect(),
                next_pmap: AtomicU64::new(1),
                random: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
                start: Instant::now(),
                wakes: Mutex::new(0),
                woken: Condvar::new(),
            }),
        }
    }

    fn words(&self, frame: Frame) -> &[AtomicU64; ENTRIES] {
        &self.shared.pages[frame.0 as usize].0
    }

    /// Does `body` with the frame at `va`, as a program of the space of `pmap` on processor `cpu`
    /// reaches it. Errors: the program would trap.
    pub fn reach<T>(
        &self,
        pmap: &X86Pmap<PlainMachine>,
        cpu: usize,
        va: VirtAddr,
        access: Access,
        body: impl FnOnce(Frame, usize) -> T,
    ) -> Result<T, ProbeFault> {
        // Held over the access: a flush waits for the accesses under way.
        let mut tlb = self.shared.tlbs[cpu].lock();
        let key = (pmap.id(), PAGE.index(va.0));
        let known = tlb.get(&key).filter(|e| {
            let clean_store = access == Access::Write && !e.usage().contains(Usage::MODIFIED);
            e.allows(access) && !clean_store
        });
        let entry = match known {
            Some(entry) => *entry,
            None => {
                tlb.remove(&key);
                let root = pmap.root().ok_or(ProbeFault { va, access })?;
                let entry = walk(self, root, va, access, Mode::User);
                let entry = entry.map_err(|_| ProbeFault { va, access })?;
                tlb.insert(key, entry);
                entry
            }
        };
        Ok(body(self.frame(entry.physical()), PAGE.within(va.0)))
    }
}

impl Hardware for PlainMachine {
    fn load(&self, table: Frame, index: usize) -> Entry {
        Entry(self.words(table)[index].load(Ordering::SeqCst))
    }

    fn store(&self, table: Frame, index: usize, entry: Entry) {
        self.words(table)[index].store(entry.0, Ordering::SeqCst);
    }

    fn swap(&self, table: Frame, index: usize, entry: Entry) -> Entry {
        Entry(self.words(table)[index].swap(entry.0, Ordering::SeqCst))
    }

    fn compare_exchange(
        &self,
        table: Frame,
        index: usize,
        old: Entry,
        new: Entry,
    ) -> Result<(), Entry> {
        let word = &self.words(table)[index];
        let done = word.compare_exchange(old.0, new.0, Ordering::SeqCst, Ordering::SeqCst);
        done.map(|_| ()).map_err(Entry)
    }

    fn flush(&self, work: &Flushes) {
        for tlb in &self.shared.tlbs {
            let mut tlb = tlb.lock();
            if work.everything() {
                tlb.clear();
            }
            for what in work.list() {
                tlb.retain(|(pmap, page), _| match what {
                    Forget::Pmap(p) => *pmap != p,
                    Forget::Pages { pmap: p, range } => {
                        *pmap != p || !range.contains(VirtAddr(page << PAGE.shift()))
                    }
                });
            }
        }
    }
}

impl Machine for PlainMachine {
    const PAGE: PageSize = PAGE;
    const IMPLIES_LOADS: bool = true;
    type Pmap = X86Pmap<PlainMachine>;

    fn pmap_create(&self) -> Result<Self::Pmap, EnterError> {
        let id = self.shared.next_pmap.fetch_add(1, Ordering::Relaxed);
        Ok(X86Pmap::user(self.clone(), id))
    }

    fn user_range(&self) -> VirtRange {
        USER
    }
}

impl Memory for PlainMachine {
    fn frames(&self) -> u32 {
        self.shared.pages.len() as u32
    }

    fn zero(&self, frame: Frame) {
        for word in self.words(frame) {
            word.store(0, Ordering::Release);
        }
    }

    fn copy(&self, from: Frame, to: Frame) {
        for (f, t) in self.words(from).iter().zip(self.words(to)) {
            t.store(f.load(Ordering::Acquire), Ordering::Release);
        }
    }

    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]) {
        let words = self.words(frame);
        for (at, byte) in (offset..).zip(buf) {
            *byte = words[at / 8].load(Ordering::Acquire).to_le_bytes()[at % 8];
        }
    }

    fn write(&self, frame: Frame, offset: usize, buf: &[u8]) {
        let words = self.words(frame);
        for (at, byte) in (offset..).zip(buf) {
            change(&words[at / 8], |old| {
                let mut bytes = old.to_le_bytes();
                bytes[at % 8] = *byte;
                Some(u64::from_le_bytes(bytes))
            });
        }
    }

    fn load_u32(&self, frame: Frame, offset: usize) -> u32 {
        assert!(offset.is_multiple_of(4), "word at {offset} is not aligned");
        let word = self.words(frame)[offset / 8].load(Ordering::SeqCst);
        (word >> half(offset)) as u32
    }

    fn compare_exchange_u32(
        &self,
        frame: Frame,
        offset: usize,
        old: u32,
        new: u32,
    ) -> Result<u32, u32> {
        assert!(offset.is_multiple_of(4), "word at {offset} is not aligned");
        let shift = half(offset);
        let was = change(&self.words(frame)[offset / 8], |word| {
            let mask = u64::from(u32::MAX) << shift;
            let here = (word & mask) >> shift == u64::from(old);
            here.then_some(word & !mask | u64::from(new) << shift)
        });
        match (was >> shift) as u32 {
            was if was == old => Ok(was),
            was => Err(was),
        }
    }

    fn record_memory(&self, frame: Frame) -> NonNull<u8> {
        NonNull::from(&self.shared.pages[frame.0 as usize]).cast()
    }
}

/// How far the 32-bit word at `offset` is shifted in its 64-bit one.
fn half(offset: usize) -> u32 {
    (offset % 8) as u32 * 8
}

/// Replaces a word by what `by` makes of it, in one piece, and gives back what it was.
fn change(word: &AtomicU64, by: impl FnMut(u64) -> Option<u64>) -> u64 {
    match word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, by) {
        Ok(was) | Err(was) => was,
    }
}

impl Host for PlainMachine {
    fn now(&self) -> u64 {
        self.shared.start.elapsed().as_nanos() as u64
    }

    fn cpu(&self) -> usize {
        0
    }

    fn cpus(&self) -> usize {
        self.shared.tlbs.len()
    }

    fn random(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15u64;
        let z = self.shared.random.fetch_add(step, Ordering::Relaxed);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Locks for PlainMachine {
    type RawMutex = parking_lot::RawMutex;
    type RawRwLock = parking_lot::RawRwLock;
}

/// One count of wake-ups serves all channels: a sleeper may be woken early.
impl Wait for PlainMachine {
    fn ticket(&self, _channel: Channel) -> Ticket {
        Ticket(*self.shared.wakes.lock())
    }

    fn sleep(&self, _channel: Channel, ticket: Ticket, deadline: Option<u64>) {
        let mut wakes = self.shared.wakes.lock();
        while *wakes == ticket.0 {
            let Some(deadline) = deadline else {
                self.shared.woken.wait(&mut wakes);
                continue;
            };
            let left = Duration::from_nanos(deadline.saturating_sub(self.now()));
            if left.is_zero() {
                return;
            }
            self.shared.woken.wait_for(&mut wakes, left);
        }
    }

    fn wake(&self, _channel: Channel) {
        *self.shared.wakes.lock() += 1;
        self.shared.woken.notify_all();
    }
}

impl Probe for PlainMachine {
    fn load(&self, pmap: &Self::Pmap, va: VirtAddr) -> Result<u8, ProbeFault> {
        self.reach(pmap, 0, va, Access::Read, |frame, at| {
            let mut byte = [0];
            self.read(frame, at, &mut byte);
            byte[0]
        })
    }

    fn store(&self, pmap: &Self::Pmap, va: VirtAddr, value: u8) -> Result<(), ProbeFault> {
        self.reach(pmap, 0, va, Access::Write, |frame, at| {
            self.write(frame, at, &[value])
        })
    }

    fn fetch(&self, pmap: &Self::Pmap, va: VirtAddr) -> Result<(), ProbeFault> {
        self.reach(pmap, 0, va, Access::Execute, |_, _| ())
    }
}
