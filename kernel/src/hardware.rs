//! The page tables of this processor: what [`bsdvm_x86_64`] stands on.

use crate::machine::Bare;
use crate::memory;
use bsdvm::{Frame, VirtAddr};
use bsdvm_x86_64::{Entry, Flushes, Forget, Hardware, PAGE, X86Pmap};
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

/// The name of the kernel's own pmap in flushes.
pub(crate) const KERNEL_PMAP: u64 = 0;

/// The root that the processor has loaded, and the name of its pmap. What it remembers of user
/// addresses is of that pmap only, since a change of the root makes it forget the rest.
static LOADED: AtomicU64 = AtomicU64::new(0);
static LOADED_PMAP: AtomicU64 = AtomicU64::new(KERNEL_PMAP);

/// Loads a root table, by its physical address.
pub(crate) fn load_root(physical: u64) {
    let frame = PhysFrame::containing_address(x86_64::PhysAddr::new(physical));
    // SAFETY: every root has the kernel's half.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
    LOADED.store(physical, Ordering::Relaxed);
}

/// Loads the space of `pmap`, if it is not loaded.
pub(crate) fn enter(pmap: &X86Pmap<Bare>) {
    let root = pmap.root().map_or_else(memory::root, memory::physical);
    LOADED_PMAP.store(pmap.id(), Ordering::Relaxed);
    if LOADED.load(Ordering::Relaxed) != root {
        load_root(root);
    }
}

fn entry(table: Frame, index: usize) -> &'static AtomicU64 {
    assert!(index < bsdvm_x86_64::ENTRIES, "entry {index} of a table");
    // SAFETY: within the table's frame, which the processor and this trait reach by single
    // accesses only.
    unsafe { memory::at::<AtomicU64>(table).add(index).as_ref() }
}

impl Hardware for Bare {
    fn load(&self, table: Frame, index: usize) -> Entry {
        Entry(entry(table, index).load(Ordering::SeqCst))
    }

    fn store(&self, table: Frame, index: usize, new: Entry) {
        entry(table, index).store(new.0, Ordering::SeqCst);
    }

    fn swap(&self, table: Frame, index: usize, new: Entry) -> Entry {
        Entry(entry(table, index).swap(new.0, Ordering::SeqCst))
    }

    fn compare_exchange(
        &self,
        table: Frame,
        index: usize,
        old: Entry,
        new: Entry,
    ) -> Result<(), Entry> {
        let done =
            entry(table, index).compare_exchange(old.0, new.0, Ordering::SeqCst, Ordering::SeqCst);
        done.map(|_| ()).map_err(Entry)
    }

    fn flush(&self, work: &Flushes) {
        if work.everything() {
            // Switching global pages off and on makes the processor forget those, too.
            tlb::flush_all();
            forget_global();
        }
        for what in work.list() {
            forget(what);
        }
        if work.tables() {
            // Roots may be among them, and what was remembered of the way to an entry.
            LOADED_PMAP.store(KERNEL_PMAP, Ordering::Relaxed);
            load_root(memory::root());
        }
    }

    fn kernel_root(&self) -> Option<Frame> {
        Some(memory::ROOT)
    }

    fn physical(&self, frame: Frame) -> u64 {
        memory::physical(frame)
    }

    fn frame(&self, physical: u64) -> Frame {
        memory::frame(physical)
    }
}

fn forget(what: Forget) {
    let loaded = LOADED_PMAP.load(Ordering::Relaxed);
    match what {
        Forget::Pages { pmap, range } if pmap == loaded || pmap == KERNEL_PMAP => {
            for VirtAddr(va) in PAGE.pages(range) {
                tlb::flush(x86_64::VirtAddr::new_truncate(va));
            }
        }
        Forget::Pmap(KERNEL_PMAP) => forget_global(),
        Forget::Pmap(pmap) if pmap == loaded => tlb::flush_all(),
        Forget::Pages { .. } | Forget::Pmap(_) => {}
    }
}

fn forget_global() {
    use x86_64::registers::control::{Cr4, Cr4Flags};
    let flags = Cr4::read();
    // SAFETY: global pages off and on again changes nothing but what is remembered.
    unsafe {
        Cr4::write(flags - Cr4Flags::PAGE_GLOBAL);
        Cr4::write(flags);
    }
}
