//! What the tests share: a world of one VM on the simulated machine, with files and swap.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each test binary uses a part"
)]

pub mod model;
pub mod op;
pub mod scripted;
#[cfg(shuttle)]
pub mod world;

use bsdvm::{
    Config, MapError, Mapping, PageBytes, Pager, PagerError, PagerOps, Placement, Prot, Space,
    SpaceId, SwapDevice, VirtAddr, VirtRange, Vm,
};
use bsdvm_sim::{Sim, SimConfig};
use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub type TestVm = Vm<Sim<12>>;
pub const PAGE: u64 = 4096;

/// Called with the byte offset of a get or put, once.
pub type Hook = Box<dyn FnMut(u64) + Send>;

/// Files in memory, by cookie.
#[derive(Default)]
pub struct Files {
    pub pages: Mutex<HashMap<(u64, u64), Vec<u8>>>,
    pub fail_get: AtomicBool,
    pub fail_put: AtomicBool,
    pub gets: AtomicU64,
    pub puts: AtomicU64,
    pub closed: AtomicU64,
    /// Called at the start of each get and put: a test's hook for scripted interleavings.
    pub on_get: Mutex<Option<Hook>>,
    pub on_put: Mutex<Option<Hook>>,
}

impl Files {
    pub fn leak() -> &'static Files {
        Box::leak(Box::default())
    }

    pub fn pager(&'static self, cookie: u64) -> Pager {
        Pager { ops: self, cookie }
    }
}

impl PagerOps for Files {
    fn get(
        &self,
        cookie: u64,
        offset: u64,
        pages: &mut [&mut dyn PageBytes],
    ) -> Result<usize, PagerError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        let hook = self.on_get.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook(offset);
        }
        if self.fail_get.load(Ordering::Relaxed) {
            return Err(PagerError::Io(5));
        }
        let contents = self.pages.lock().unwrap();
        for (i, page) in pages.iter_mut().enumerate() {
            if let Some(bytes) = contents.get(&(cookie, offset / PAGE + i as u64)) {
                page.write(0, bytes);
            }
        }
        Ok(pages.len())
    }

    fn put(
        &self,
        cookie: u64,
        offset: u64,
        page: &dyn PageBytes,
        len: usize,
    ) -> Result<(), PagerError> {
        self.puts.fetch_add(1, Ordering::Relaxed);
        let hook = self.on_put.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook(offset);
        }
        if self.fail_put.load(Ordering::Relaxed) {
            return Err(PagerError::Io(5));
        }
        let mut bytes = vec![0; page.len()];
        page.read(0, &mut bytes);
        bytes[len..].fill(0);
        self.pages
            .lock()
            .unwrap()
            .insert((cookie, offset / PAGE), bytes);
        Ok(())
    }

    fn closed(&self, _cookie: u64) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Swap in memory.
pub struct MemorySwap {
    pub slots: u32,
    pub pages: Mutex<HashMap<u32, Vec<u8>>>,
    pub fail: AtomicBool,
    /// Slots that cannot be read or written.
    pub broken: Mutex<BTreeSet<u32>>,
    /// How many pages it takes, if that is less than its slots.
    pub room: AtomicUsize,
}

impl MemorySwap {
    pub fn new(slots: u32) -> MemorySwap {
        MemorySwap {
            slots,
            pages: Mutex::default(),
            fail: AtomicBool::new(false),
            broken: Mutex::default(),
            room: AtomicUsize::new(usize::MAX),
        }
    }

    pub fn leak(slots: u32) -> &'static MemorySwap {
        Box::leak(Box::new(MemorySwap::new(slots)))
    }

    fn fails(&self, slot: u32) -> Result<(), PagerError> {
        match self.fail.load(Ordering::Relaxed) || self.broken.lock().unwrap().contains(&slot) {
            true => Err(PagerError::Io(5)),
            false => Ok(()),
        }
    }
}

impl SwapDevice for MemorySwap {
    fn slots(&self) -> u32 {
        self.slots
    }

    fn read(&self, slot: u32, page: &mut dyn PageBytes) -> Result<(), PagerError> {
        self.fails(slot)?;
        page.write(0, &self.pages.lock().unwrap()[&slot]);
        Ok(())
    }

    fn write(&self, slot: u32, page: &dyn PageBytes) -> Result<(), PagerError> {
        self.fails(slot)?;
        let mut bytes = vec![0; page.len()];
        page.read(0, &mut bytes);
        let mut pages = self.pages.lock().unwrap();
        if pages.len() >= self.room.load(Ordering::Relaxed) && !pages.contains_key(&slot) {
            return Err(PagerError::NoSpace);
        }
        pages.insert(slot, bytes);
        Ok(())
    }

    fn discard(&self, first: u32, count: u32) {
        let mut pages = self.pages.lock().unwrap();
        pages.retain(|slot, _| !(first..first + count).contains(slot));
    }
}

/// A VM with `frames` frames on a machine with two processors.
pub fn vm(frames: u32) -> TestVm {
    vm_with(frames, Config::default())
}

/// The same, made with `config`.
pub fn vm_with(frames: u32, config: Config) -> TestVm {
    let machine = Sim::new(SimConfig {
        frames,
        cpus: 2,
        ..SimConfig::default()
    });
    Vm::new(machine, config).expect("enough frames")
}

pub const BASE: u64 = 0x10_0000;

pub fn at(page: u64) -> VirtAddr {
    VirtAddr(BASE + page * PAGE)
}

pub fn pages(first: u64, count: u64) -> VirtRange {
    VirtRange::from_len(at(first), count * PAGE).unwrap()
}

/// A space over `count` pages from [`BASE`].
pub fn space(vm: &TestVm, count: u64) -> Space<'_, Sim<12>> {
    vm.space(vm.space_create(pages(0, count)).expect("a space"))
}

/// Maps `count` pages of something at page `first`.
pub fn map_at(
    space: Space<'_, Sim<12>>,
    first: u64,
    count: u64,
    what: Mapping,
) -> Result<VirtAddr, MapError> {
    space.map(count * PAGE, Placement::At(at(first)), what)
}

/// Maps `count` pages of zero-filled memory at page `first`.
pub fn anon(space: Space<'_, Sim<12>>, first: u64, count: u64) {
    space
        .map(
            count * PAGE,
            Placement::At(at(first)),
            Mapping::anonymous(Prot::RW),
        )
        .expect("a free range");
}

/// Draws a space, a letter for each page: `.` nothing, else one letter for each entry in turn.
pub fn draw(space: Space<'_, Sim<12>>, count: u64) -> String {
    let mut text = String::new();
    let mut entries: Vec<VirtAddr> = Vec::new();
    for page in 0..count {
        match space.entry(at(page)).filter(|i| i.range.contains(at(page))) {
            None => text.push('.'),
            Some(info) => {
                if entries.last() != Some(&info.range.start()) {
                    entries.push(info.range.start());
                }
                text.push(char::from(b'A' + entries.len() as u8 - 1));
            }
        }
    }
    text
}

pub fn put(space: Space<'_, Sim<12>>, page: u64, value: u64) {
    space
        .write(at(page), &value.to_le_bytes())
        .expect("a write");
}

pub fn get(space: Space<'_, Sim<12>>, page: u64) -> u64 {
    let mut bytes = [0; 8];
    space.read(at(page), &mut bytes).expect("a read");
    u64::from_le_bytes(bytes)
}

/// Checks the invariants and that no processor can reach a page that it should not.
#[track_caller]
pub fn check(vm: &TestVm) {
    if let Err(e) = vm.check() {
        panic!("{}", e.0);
    }
    assert_eq!(
        vm.machine().stale_frames(),
        [],
        "a flush was not waited for"
    );
}

/// Swap slots in use, and those of them that have what a page in memory has.
pub fn slots(vm: &TestVm) -> (u64, u64) {
    let c = vm.counters();
    (c.swap_used, c.swap_cached)
}

/// Nothing is left: every frame, record and charge is back.
#[track_caller]
pub fn check_empty(vm: &TestVm) {
    check(vm);
    let c = vm.counters();
    assert_eq!((c.spaces, c.objects, c.entries), (0, 0, 0), "records left");
    assert_eq!(
        (c.charged_pages, c.swap_used),
        (0, 0),
        "charges or slots left"
    );
    assert_eq!(vm.frames_in_use(), 0, "frames left");
}

/// A load or store as a program on processor `cpu` would do it: through the TLB, with faults.
pub fn touch(
    vm: &TestVm,
    id: SpaceId,
    cpu: usize,
    va: VirtAddr,
    write: Option<u64>,
) -> Result<u64, bsdvm::FaultError> {
    let space = vm.space(id);
    let machine = vm.machine();
    let mut bytes = write.unwrap_or(0).to_le_bytes();
    for _ in 0..16 {
        let done = space.with_pmap(|pmap| match write {
            Some(_) => machine.store(pmap, cpu, va, &bytes),
            None => machine.load(pmap, cpu, va, &mut bytes),
        });
        match done.expect("the space lives") {
            Ok(()) => return Ok(u64::from_le_bytes(bytes)),
            Err(fault) => {
                space.fault(fault.va, fault.access)?;
            }
        }
    }
    panic!("a fault that never ends at {va:?}");
}
