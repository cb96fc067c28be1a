//! The allocator of Rust on top of the kernel's memory.
//!
//! [`KernelAlloc`] is what a kernel names in `#[global_allocator]`. Small layouts come from zones
//! of powers of two, large ones from whole pages of [`SubmapName::Kmem`]; nothing sleeps, and a
//! layout that cannot be had is a null pointer, as Rust wants it. The core itself allocates
//! nothing from it: it stands below.
//!
//! It works where the kernel's addresses are memory that the code can touch: in a kernel, or on a
//! machine that maps them into the process. Memory is given back to the map, which needs
//! processors to forget, only where the kernel says so ([`KernelAlloc::collect`]): a value may be
//! dropped with locks held. Until then a page whose items are all free waits in its zone, and a
//! large block in a list that is kept in the blocks themselves.
//!
//! Besides `slab/`, this file is the only one in the core with unsafe code.

use super::{Fill, KernelMap, Kmem, KmemError, Malloc, SubmapName, Wait, Zone, ZoneId};
use crate::Vm;
use bsdvm_machine::sync::atomic::{AtomicU32, Ordering};
use bsdvm_machine::{Machine, VirtAddr};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicPtr;

/// The smallest class of items, as a power of two.
const SMALLEST: u32 = 4;
/// Classes of items; the largest is half a page of 64 KiB.
const CLASSES: usize = 12;

/// A large block that was given up and not collected yet. It lies in the block.
struct Freed {
    next: *mut Freed,
    bytes: usize,
}

/// An allocator for Rust's collections from the kernel's memory (O10). Before
/// [`KernelAlloc::install`] it has none.
pub struct KernelAlloc<M: Machine> {
    vm: AtomicPtr<Vm<M>>,
    zones: [AtomicU32; CLASSES],
    freed: AtomicPtr<Freed>,
}

impl<M: Machine> KernelAlloc<M> {
    /// An allocator without memory.
    pub const fn new() -> Self {
        KernelAlloc {
            vm: AtomicPtr::new(ptr::null_mut()),
            zones: [const { AtomicU32::new(0) }; CLASSES],
            freed: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// From now on memory comes from the kernel map of `vm`, which has a submap named
    /// [`SubmapName::Kmem`]. Once.
    ///
    /// Errors: [`KmemError::Exists`] when it was called before; [`KmemError::WrongMap`] without
    /// that submap; [`KmemError::NoMemory`].
    pub fn install(&self, vm: &'static Vm<M>) -> Result<(), KmemError> {
        let kmem = vm.kmem().ok_or(KmemError::WrongMap)?;
        kmem.named(SubmapName::Kmem).ok_or(KmemError::WrongMap)?;
        if self.vm().is_some() {
            return Err(KmemError::Exists);
        }
        for (class, slot) in self.zones.iter().enumerate() {
            let bytes = 1 << (SMALLEST as usize + class);
            if bytes <= M::PAGE.bytes() / 2 {
                let zone = kmem.zone_create(bytes, bytes)?;
                slot.store(zone.id().raw(), Ordering::Release);
            }
        }
        self.vm
            .store(ptr::from_ref(vm).cast_mut(), Ordering::Release);
        Ok(())
    }

    /// Gives back what was given up: large blocks, and the pages of zones that have no item in
    /// use. The caller holds no lock: the end of a system call, an idle processor, a
    /// [`super::KernelWatch`]. Gives the number of pages.
    pub fn collect(&self) -> u64 {
        let Some((kmem, map)) = self.kmem() else {
            return 0;
        };
        let mut pages = 0;
        let mut at = self.freed.swap(ptr::null_mut(), Ordering::AcqRel);
        while let Some(block) = NonNull::new(at) {
            // SAFETY: a block in the list was given up by its owner and lies in memory of the
            // kernel map that nobody else refers to; `give_up` wrote a `Freed` at its start, and
            // the swap made the list ours alone.
            let Freed { next, bytes } = unsafe { block.read() };
            at = next;
            let va = VirtAddr(block.addr().get() as u64);
            if map.free_wakeup(va, bytes as u64).is_ok() {
                pages += M::PAGE.count(bytes as u64);
            }
        }
        pages + u64::from(kmem.reclaim())
    }

    fn vm(&self) -> Option<&'static Vm<M>> {
        let vm = NonNull::new(self.vm.load(Ordering::Acquire))?;
        // SAFETY: `install` stored the address of a `&'static Vm<M>`, and nothing else is stored.
        Some(unsafe { vm.as_ref() })
    }

    fn kmem(&self) -> Option<(Kmem<'static, M>, KernelMap<'static, M>)> {
        let kmem = self.vm()?.kmem()?;
        Some((kmem, kmem.named(SubmapName::Kmem)?))
    }

    /// The zone for a layout; `None` for a large one.
    fn zone(&self, kmem: Kmem<'static, M>, layout: Layout) -> Option<Zone<'static, M>> {
        let bytes = layout.size().max(layout.align()).max(1 << SMALLEST);
        let class = bytes.next_power_of_two().trailing_zeros() - SMALLEST;
        let id = self.zones.get(class as usize)?.load(Ordering::Acquire);
        kmem.zone(ZoneId::from_raw(id)?)
    }

    fn take(&self, layout: Layout) -> Option<VirtAddr> {
        const HOW: Malloc = Malloc {
            wait: Wait::No,
            fill: Fill::AsIs,
        };
        let (kmem, map) = self.kmem()?;
        if let Some(zone) = self.zone(kmem, layout) {
            return zone.alloc(HOW).ok();
        }
        if layout.align() as u64 > M::PAGE.bytes() {
            return None;
        }
        map.malloc(layout.size() as u64, HOW).ok()
    }

    fn give_up(&self, block: NonNull<u8>, bytes: usize) {
        let block: NonNull<Freed> = block.cast();
        let mut next = self.freed.load(Ordering::Relaxed);
        loop {
            // SAFETY: the block is of at least half a page, aligned to a page, and its owner gave
            // it up: nobody else reads or writes it.
            unsafe { block.write(Freed { next, bytes }) };
            let new = block.as_ptr();
            let pushed =
                self.freed
                    .compare_exchange_weak(next, new, Ordering::Release, Ordering::Relaxed);
            match pushed {
                Ok(_) => return,
                Err(now) => next = now,
            }
        }
    }
}

impl<M: Machine> Default for KernelAlloc<M> {
    fn default() -> Self {
        KernelAlloc::new()
    }
}

// SAFETY: `take` gives addresses of wired memory of the kernel map, of at least the size and the
// alignment that were asked for (an item of a zone lies at a multiple of its power of two, a large
// block at a page), and each to one caller until it is given back: `KernelMap::malloc` and
// `Zone::alloc` hand nothing out twice. Nothing here unwinds: errors are null pointers.
unsafe impl<M: Machine> GlobalAlloc for KernelAlloc<M> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(va) => ptr::with_exposed_provenance_mut(va.0 as usize),
            None => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (Some(block), Some((kmem, _))) = (NonNull::new(block), self.kmem()) else {
            return;
        };
        match self.zone(kmem, layout) {
            Some(zone) => {
                let freed = zone.free_later(VirtAddr(block.addr().get() as u64));
                debug_assert!(freed.is_ok(), "a block of another allocator");
            }
            None => self.give_up(block, layout.size()),
        }
    }
}

#[cfg(test)]
mod tests;
