//! Hint: where a mapping may go that names no place, or one where the heap is to grow (M15).

use crate::Vm;
use crate::space::Space;
use bsdvm_machine::sync::atomic::Ordering;
use bsdvm_machine::{Machine, VirtAddr, VirtRange};

/// How far beyond the heap a random place lies at most, in bytes.
const SPREAD: u64 = 256 << 20;

/// Whether mappings that name no place go to a random one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Randomize {
    /// They begin where the heap ends.
    Off,
    /// They begin up to 256 MiB behind.
    On,
}

impl<M: Machine> Vm<M> {
    /// Sets where mappings that name no place go (`vm.randomize_mmap`). They begin where the heap
    /// ends unless it is called.
    pub fn set_randomize(&self, randomize: Randomize) {
        self.kmem
            .randomize_mmap
            .store(randomize == Randomize::On, Ordering::Relaxed);
    }

    /// Where mappings that name no place go.
    pub fn randomize(&self) -> Randomize {
        match self.kmem.randomize_mmap.load(Ordering::Relaxed) {
            true => Randomize::On,
            false => Randomize::Off,
        }
    }
}

impl<M: Machine> Space<'_, M> {
    /// Where the search for the place of a new mapping begins (M15), for
    /// [`crate::Placement::FirstFit`]. `wish` is what the program asks for, `program` reaches from
    /// its text to the highest address that its heap may grow to. A wish within it, or none, gives
    /// the end of the heap, none a random place behind it if that is set
    /// ([`Vm::set_randomize`]); any other wish stays as it is. Aligned to pages, but for a wish.
    pub fn hint(self, wish: Option<VirtAddr>, program: VirtRange) -> VirtAddr {
        let page = M::PAGE;
        let behind = page.ceil(program.end()).unwrap_or(program.end());
        match wish {
            Some(wish) if !program.contains(wish) => wish,
            Some(_) => behind,
            None if self.vm.randomize() == Randomize::Off => behind,
            None => {
                let offset = page.index(self.vm.machine().random() % SPREAD);
                let offset = page.offset(offset).unwrap_or(0);
                behind.checked_add(offset).unwrap_or(behind)
            }
        }
    }
}
