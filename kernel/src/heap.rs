//! The kernel's VM, and its heap on top of it.
//!
//! ```text
//!  Box, Vec, …  ->  Heap (counts)  ->  bsdvm::KernelAlloc  ->  zones, the submap `Kmem`  ->  Vm
//! ```
//!
//! The VM lies in the image and is there before anything allocates: it takes nothing from the heap
//! that stands on it. The heap grows by pages of the VM and is as large as memory is; when there is
//! none left, Rust's handler for that ends the kernel with its line.

use crate::locks::HELD_LOCKS;
use crate::machine::Bare;
use bsdvm::{Config, Find, KernelAlloc, KernelConfig, KernelWatch, Kmem, Paging, SubmapName, Vm};
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Addresses of the heap. Memory ends first on machines that this is tried on.
const HEAP_BYTES: u64 = 256 << 20;
/// Bytes that were given up before a safe point collects them.
const PATIENCE: usize = 512 << 10;

struct Place(UnsafeCell<MaybeUninit<Vm<Bare>>>);

// SAFETY: written once, by the only processor, before it is read.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new(MaybeUninit::uninit()));
static READY: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static HEAP: Heap = Heap {
    below: KernelAlloc::new(),
    allocations: AtomicU64::new(0),
    given_up: AtomicUsize::new(0),
};

struct Heap {
    below: KernelAlloc<Bare>,
    allocations: AtomicU64,
    /// Bytes given up since the last time that they were collected.
    given_up: AtomicUsize,
}

/// Makes the VM with so many frames and the heap on it.
///
/// Panics when there is too little memory for them.
pub(crate) fn init(frames: u32) {
    build(frames);
    let kmem = match vm().kmem_init(KernelConfig {
        zero_region: 0,
        ..KernelConfig::of(&Bare)
    }) {
        Ok(kmem) => kmem,
        Err(e) => panic!("no kernel map: {e:?}"),
    };
    let name = SubmapName::Kmem;
    let submap = kmem.suballoc_named(name, kmem.map(), HEAP_BYTES, Find::Any, Paging::Pageable);
    let installed = submap.and_then(|_| HEAP.below.install(vm()));
    if let Err(e) = installed {
        panic!("no heap: {e:?}");
    }
    if kmem.watch(&HEAP).is_err() {
        panic!("nobody watches over the heap");
    }
}

/// Makes the VM in its place. A function of its own: it needs the stack only while it runs.
#[inline(never)]
fn build(frames: u32) {
    let config = Config {
        frame_limit: Some(frames),
        ..Config::default()
    };
    match Vm::new(Bare, config) {
        // SAFETY: nobody has a reference yet.
        Ok(vm) => unsafe { (*PLACE.0.get()).write(vm) },
        Err(e) => panic!("no VM: {e}"),
    };
    READY.store(true, Ordering::Release);
}

/// The VM. There is one.
///
/// Panics before [`init`].
pub(crate) fn vm() -> &'static Vm<Bare> {
    assert!(READY.load(Ordering::Acquire), "there is no VM yet");
    // SAFETY: `build` wrote it, and nobody writes it again.
    unsafe { (*PLACE.0.get()).assume_init_ref() }
}

/// The kernel's own memory.
pub(crate) fn kmem() -> Kmem<'static, Bare> {
    match vm().kmem() {
        Some(kmem) => kmem,
        None => panic!("there is no kernel map yet"),
    }
}

/// How often something was allocated since boot.
pub(crate) fn allocations() -> u64 {
    HEAP.allocations.load(Ordering::Relaxed)
}

/// Gives what was given up back to the VM; the number of pages. Nobody holds a lock.
pub(crate) fn collect() -> u64 {
    HEAP.given_up.store(0, Ordering::Relaxed);
    HEAP.below.collect()
}

/// A safe point of a thread: collects when much was given up. Nobody holds a lock.
pub(crate) fn tidy() {
    if HEAP.given_up.load(Ordering::Relaxed) >= PATIENCE {
        collect();
    }
}

/// A safe point of a processor with nothing to do: collects what there is. Nobody holds a lock.
pub(crate) fn tidy_idle() {
    if HEAP.given_up.load(Ordering::Relaxed) > 0 {
        collect();
    }
}

impl KernelWatch for Heap {
    fn low_memory(&self, _round: u32) {
        // Locks of the kernel itself have no rank: the core cannot know of them.
        if HELD_LOCKS.load(Ordering::Relaxed) == 0 {
            collect();
        }
    }
}

// SAFETY: what `KernelAlloc` gives and takes; the rest counts.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        let block = unsafe { self.below.alloc(layout) };
        if !block.is_null() || HELD_LOCKS.load(Ordering::Relaxed) != 0 || collect() == 0 {
            return block;
        }
        // SAFETY: the caller's promise.
        unsafe { self.below.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.given_up.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { self.below.dealloc(block, layout) };
    }
}
