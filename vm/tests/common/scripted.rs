//! Scripted interleavings: pagers and swap that run somebody else's operation in the middle of a
//! transfer, and threads whose progress is seen in counters. Nothing here sleeps for a time.

use super::{Files, MemorySwap, PAGE, TestVm, at, check_empty, pages, vm};
use bsdvm::{
    Frame, ObjectId, PageBytes, PagerError, Pmap, Space, SpaceId, SwapDevice, VirtAddr, VirtRange,
};
use bsdvm_sim::Sim;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

type Hook = Box<dyn FnOnce() + Send>;

/// Swap in memory, whose next read or write runs something else first.
pub struct ScriptedSwap {
    memory: MemorySwap,
    pub on_read: Mutex<Option<Hook>>,
    pub on_write: Mutex<Option<Hook>>,
    pub reads: AtomicU64,
    pub writes: AtomicU64,
}

fn run(hook: &Mutex<Option<Hook>>) {
    let hook = hook.lock().unwrap().take();
    if let Some(hook) = hook {
        hook();
    }
}

impl SwapDevice for ScriptedSwap {
    fn slots(&self) -> u32 {
        self.memory.slots
    }

    fn read(&self, slot: u32, page: &mut dyn PageBytes) -> Result<(), PagerError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        run(&self.on_read);
        self.memory.read(slot, page)
    }

    fn write(&self, slot: u32, page: &dyn PageBytes) -> Result<(), PagerError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        run(&self.on_write);
        self.memory.write(slot, page)
    }

    fn discard(&self, first: u32, count: u32) {
        self.memory.discard(first, count);
    }
}

/// A VM that lives for ever, so that hooks and threads may name it, with files and swap.
#[derive(Clone, Copy)]
pub struct Stage {
    pub vm: &'static TestVm,
    pub files: &'static Files,
    pub swap: &'static ScriptedSwap,
}

impl Stage {
    pub fn new(frames: u32) -> Stage {
        let vm: &'static TestVm = Box::leak(Box::new(vm(frames)));
        let swap: &'static ScriptedSwap = Box::leak(Box::new(ScriptedSwap {
            memory: MemorySwap::new(512),
            on_read: Mutex::default(),
            on_write: Mutex::default(),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        }));
        vm.swap_on(swap).unwrap();
        Stage {
            vm,
            files: Files::leak(),
            swap,
        }
    }

    /// A file whose page `i` begins with [`word`]`(i)`.
    pub fn file(self, count: u64) -> ObjectId {
        for page in 0..count {
            let mut bytes = vec![0; PAGE as usize];
            bytes[..8].copy_from_slice(&word(page).to_le_bytes());
            self.files.pages.lock().unwrap().insert((0, page), bytes);
        }
        self.vm
            .object_create(self.files.pager(0), count * PAGE)
            .unwrap()
    }

    /// What the file holds at the start of a page.
    pub fn on_disk(self, page: u64) -> u64 {
        let pages = self.files.pages.lock().unwrap();
        u64::from_le_bytes(pages[&(0, page)][..8].try_into().unwrap())
    }

    pub fn space(self) -> Space<'static, Sim<12>> {
        super::space(self.vm, 64)
    }

    pub fn fork(self, parent: SpaceId) -> Space<'static, Sim<12>> {
        self.vm.space(self.vm.space(parent).fork().unwrap())
    }

    /// Runs `hook` in the middle of the next read of the file.
    pub fn in_get(self, hook: impl FnOnce() + Send + 'static) {
        *self.files.on_get.lock().unwrap() = once(hook);
    }

    /// Runs `hook` in the middle of the next write to the file.
    pub fn in_put(self, hook: impl FnOnce() + Send + 'static) {
        *self.files.on_put.lock().unwrap() = once(hook);
    }

    /// Runs `hook` in the middle of the next read from swap.
    pub fn in_swap_read(self, hook: impl FnOnce() + Send + 'static) {
        *self.swap.on_read.lock().unwrap() = Some(Box::new(hook));
    }

    /// Runs `hook` in the middle of the next write to swap.
    pub fn in_swap_write(self, hook: impl FnOnce() + Send + 'static) {
        *self.swap.on_write.lock().unwrap() = Some(Box::new(hook));
    }

    /// Every hook has run.
    pub fn all_ran(self) -> bool {
        self.files.on_get.lock().unwrap().is_none()
            && self.files.on_put.lock().unwrap().is_none()
            && self.swap.on_read.lock().unwrap().is_none()
            && self.swap.on_write.lock().unwrap().is_none()
    }

    /// Pages out all that can go.
    pub fn page_out_all(self) {
        while self.vm.pageout_step(u32::MAX) > 0 {}
    }

    /// A store by the program on processor `cpu`.
    pub fn store(self, space: Space<'_, Sim<12>>, cpu: usize, page: u64, value: u64) {
        super::touch(self.vm, space.id(), cpu, at(page), Some(value)).unwrap();
    }

    /// A load by the program on processor `cpu`.
    pub fn load(self, space: Space<'_, Sim<12>>, cpu: usize, page: u64) -> u64 {
        super::touch(self.vm, space.id(), cpu, at(page), None).unwrap()
    }

    /// Runs `f` on a thread of its own, on processor 1.
    pub fn spawn<R: Send + 'static>(self, f: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
        std::thread::spawn(move || {
            self.vm.machine().set_cpu(1);
            f()
        })
    }

    /// Waits, on the other side of a script, until somebody waits for a map.
    pub fn until_somebody_waits_for_a_map(self, before: u64) {
        until(|| self.vm.counters().transition_waits > before);
    }

    /// Ends everything, and checks that nothing is left.
    #[track_caller]
    pub fn end(self, spaces: &[Space<'_, Sim<12>>], objects: &[ObjectId]) {
        for space in spaces {
            space.release();
        }
        for object in objects {
            self.vm.object(*object).release();
        }
        assert!(self.all_ran(), "a hook of the script never ran");
        check_empty(self.vm);
    }
}

fn once(hook: impl FnOnce() + Send + 'static) -> Option<Box<dyn FnMut(u64) + Send>> {
    let mut hook = Some(hook);
    Some(Box::new(move |_| {
        if let Some(hook) = hook.take() {
            hook();
        }
    }))
}

/// Lets others run until `done`.
pub fn until(done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < 60, "nobody makes progress");
        std::thread::yield_now();
    }
}

/// Something that a hook or a thread leaves for the test.
pub struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Slot(self.0.clone())
    }
}

impl<T> Slot<T> {
    pub fn new() -> Slot<T> {
        Slot(Arc::default())
    }

    pub fn put(&self, value: T) {
        *self.0.lock().unwrap() = Some(value);
    }

    #[track_caller]
    pub fn take(&self) -> T {
        let value = self.0.lock().unwrap().take();
        value.expect("the hook has run")
    }
}

/// What page `i` of a file begins with.
pub fn word(page: u64) -> u64 {
    0xf11e_0000 + page
}

pub fn frame_of(space: Space<'_, Sim<12>>, page: u64) -> Option<Frame> {
    let translation = space.with_pmap(|p| p.extract(at(page))).flatten();
    translation.map(|t| t.frame)
}

pub fn is_resident(space: Space<'_, Sim<12>>, page: u64) -> bool {
    let mut found = false;
    space
        .residency(pages(page, 1), &mut |_, here| found = here)
        .unwrap();
    found
}

/// The range between two page numbers of the test's address range.
pub fn between(first: u64, end: u64) -> VirtRange {
    VirtRange::new(at(first), at(end)).unwrap()
}

/// The end of a page.
pub fn end_of(page: u64) -> VirtAddr {
    at(page + 1)
}
