//! What the tests under shuttle share: one VM that many threads work on, each interleaving chosen
//! by the checker.

use super::{PAGE, TestVm, anon, at, check, check_empty, pages, put, touch};
use bsdvm::{
    Config, FaultError, KernelConfig, Kmem, Mapping, ObjectId, PageBytes, Pager, PagerError,
    PagerOps, Placement, Prot, Sharing, Space, SpaceId, SwapDevice, Vm,
};
use bsdvm_sim::{Sim, SimConfig};
use shuttle::thread;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Tries `body` with threads switched at random, and with few switches at chosen places: as many
/// interleavings with each as `BSDVM_SHUTTLE_RUNS` says, or `usual`.
pub fn explore(usual: usize, body: fn()) {
    let set = std::env::var("BSDVM_SHUTTLE_RUNS").ok();
    let runs = set.and_then(|n| n.parse().ok()).unwrap_or(usual);
    shuttle::check_random(body, runs);
    shuttle::check_pct(body, runs, 3);
}

/// A file and swap space that keep the first word of each page. No lock is held over a switch.
#[derive(Default)]
pub struct Disk {
    words: Mutex<HashMap<u64, u64>>,
    pub gets: AtomicU64,
}

const SWAP: u64 = 1 << 32;

impl Disk {
    fn read(&self, place: u64, page: &mut dyn PageBytes) {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let word = words.get(&place).copied().unwrap_or(0);
        drop(words);
        page.write(0, &word.to_le_bytes());
    }

    fn write(&self, place: u64, page: &dyn PageBytes) {
        let mut bytes = [0; 8];
        page.read(0, &mut bytes);
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.insert(place, u64::from_le_bytes(bytes));
    }
}

impl PagerOps for Disk {
    fn get(
        &self,
        _: u64,
        offset: u64,
        pages: &mut [&mut dyn PageBytes],
    ) -> Result<usize, PagerError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        for (i, page) in pages.iter_mut().enumerate() {
            self.read(offset / PAGE + i as u64, *page);
        }
        Ok(pages.len())
    }

    fn put(&self, _: u64, offset: u64, page: &dyn PageBytes, _: usize) -> Result<(), PagerError> {
        self.write(offset / PAGE, page);
        Ok(())
    }
}

impl SwapDevice for Disk {
    fn slots(&self) -> u32 {
        128
    }

    fn read(&self, slot: u32, page: &mut dyn PageBytes) -> Result<(), PagerError> {
        Disk::read(self, SWAP + u64::from(slot), page);
        Ok(())
    }

    fn write(&self, slot: u32, page: &dyn PageBytes) -> Result<(), PagerError> {
        Disk::write(self, SWAP + u64::from(slot), page);
        Ok(())
    }
}

/// One VM that every thread knows, on eight processors.
#[derive(Clone)]
pub struct World {
    pub vm: Arc<TestVm>,
    pub disk: &'static Disk,
}

pub type Part = Box<dyn FnOnce(&World) + Send>;

pub fn part(f: impl FnOnce(&World) + Send + 'static) -> Part {
    Box::new(f)
}

impl World {
    pub fn new(frames: u32) -> World {
        let machine = Sim::new(SimConfig {
            frames,
            cpus: 8,
            ..SimConfig::default()
        });
        let vm = Arc::new(Vm::new(machine, Config::default()).expect("enough frames"));
        let disk: &'static Disk = Box::leak(Box::default());
        vm.swap_on(disk).unwrap();
        World { vm, disk }
    }

    /// The kernel's memory, without a zero region.
    pub fn kernel(&self) -> Kmem<'_, Sim<12>> {
        let config = KernelConfig {
            zero_region: 0,
            ..KernelConfig::of(self.vm.machine())
        };
        let done = self.vm.kmem().map_or_else(|| self.vm.kmem_init(config), Ok);
        done.expect("a kernel map")
    }

    /// A file of `count` pages, page `i` of which begins with `10 + i`.
    pub fn file(&self, count: u64) -> ObjectId {
        for page in 0..count {
            self.disk.words.lock().unwrap().insert(page, 10 + page);
        }
        let pager = Pager {
            ops: self.disk,
            cookie: 0,
        };
        self.vm.object_create(pager, count * PAGE).unwrap()
    }

    pub fn space(&self) -> SpaceId {
        self.vm.space_create(pages(0, 32)).unwrap()
    }

    pub fn at(&self, id: SpaceId) -> Space<'_, Sim<12>> {
        self.vm.space(id)
    }

    /// A space with `values` in anonymous pages.
    pub fn with(&self, values: &[u64]) -> SpaceId {
        let id = self.space();
        anon(self.at(id), 0, values.len() as u64);
        for (page, &value) in values.iter().enumerate() {
            put(self.at(id), page as u64, value);
        }
        id
    }

    pub fn map(&self, id: SpaceId, count: u64, object: ObjectId, sharing: Sharing) {
        let what = Mapping::object(object, 0, sharing, Prot::RW);
        let place = Placement::At(at(0));
        self.at(id).map(count * PAGE, place, what).unwrap();
    }

    pub fn store(&self, id: SpaceId, cpu: usize, page: u64, value: u64) -> Result<u64, FaultError> {
        touch(&self.vm, id, cpu, at(page), Some(value))
    }

    pub fn load(&self, id: SpaceId, cpu: usize, page: u64) -> Result<u64, FaultError> {
        touch(&self.vm, id, cpu, at(page), None)
    }

    pub fn page_out_all(&self) {
        while self.vm.pageout_step(u32::MAX) > 0 {}
    }

    /// Runs every part on a thread and a processor of its own, part 0 on processor 0, and checks.
    pub fn together(&self, parts: Vec<Part>) {
        let threads: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(cpu, part)| {
                let world = self.clone();
                thread::spawn(move || {
                    world.vm.machine().set_cpu(cpu);
                    part(&world);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        check(&self.vm);
    }

    pub fn end(&self, spaces: &[SpaceId], objects: &[ObjectId]) {
        for &id in spaces {
            self.at(id).release();
        }
        for &id in objects {
            self.vm.object(id).release();
        }
        if let Some(kmem) = self.vm.kmem() {
            kmem.end();
        }
        check_empty(&self.vm);
    }
}
