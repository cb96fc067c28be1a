//! The allocator on the simulated machine, whose kernel addresses are no memory: blocks are taken
//! and small ones given back, and nothing touches them. The kernel's own tests do.

extern crate std;

use super::*;
use crate::{Config, Find, KernelConfig, Paging};
use bsdvm_sim::{Sim, SimConfig};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

fn vm() -> &'static Vm<Sim<12>> {
    let machine = Sim::new(SimConfig {
        frames: 1000,
        ..SimConfig::default()
    });
    let vm = Vm::new(machine, Config::default()).unwrap();
    let vm: &'static Vm<Sim<12>> = Box::leak(Box::new(vm));
    let config = KernelConfig {
        zero_region: 0,
        ..KernelConfig::of(vm.machine())
    };
    vm.kmem_init(config).unwrap();
    vm
}

fn with_map(vm: &'static Vm<Sim<12>>, pages: u64) {
    let kmem = vm.kmem().unwrap();
    kmem.suballoc_named(
        SubmapName::Kmem,
        kmem.map(),
        pages * 4096,
        Find::Any,
        Paging::Pageable,
    )
    .unwrap();
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

#[test]
fn o10_an_allocator_is_installed_once_and_has_nothing_before() {
    let alloc = KernelAlloc::<Sim<12>>::new();
    // SAFETY: the layout is not empty.
    assert!(unsafe { alloc.alloc(layout(8, 8)) }.is_null());
    assert_eq!(alloc.collect(), 0);
    let vm = vm();
    assert_eq!(alloc.install(vm), Err(KmemError::WrongMap));
    with_map(vm, 64);
    alloc.install(vm).unwrap();
    assert_eq!(alloc.install(vm), Err(KmemError::Exists));
}

#[test]
fn o10_blocks_are_aligned_and_apart() {
    let vm = vm();
    with_map(vm, 128);
    let alloc = KernelAlloc::<Sim<12>>::new();
    alloc.install(vm).unwrap();
    let mut blocks = BTreeMap::new();
    for size in [1, 16, 17, 100, 512, 2048, 2049, 4096, 5000, 20_000] {
        for align in [1, 8, 64, 4096] {
            let layout = layout(size, align);
            // SAFETY: no layout is empty.
            let block = unsafe { alloc.alloc(layout) }.addr();
            assert!(block != 0 && block.is_multiple_of(align), "{layout:?}");
            let below = blocks.range(..=block).next_back();
            assert!(below.is_none_or(|(at, (size, _))| at + size <= block));
            let above = blocks.range(block..).next();
            assert!(above.is_none_or(|(at, _)| block + size <= *at));
            blocks.insert(block, (size, layout));
        }
    }
    vm.check().unwrap();
    // SAFETY: no layout is empty.
    let refused = unsafe { alloc.alloc(layout(100, 8192)) };
    assert!(refused.is_null(), "no alignment beyond a page");
    // SAFETY: no layout is empty.
    let refused = unsafe { alloc.alloc(layout(1 << 20, 1)) };
    assert!(refused.is_null(), "no room");
}

#[test]
fn o10_small_blocks_go_back_and_their_pages_when_they_are_collected() {
    let vm = vm();
    with_map(vm, 128);
    let alloc = KernelAlloc::<Sim<12>>::new();
    alloc.install(vm).unwrap();
    let map = vm.kmem().unwrap().named(SubmapName::Kmem).unwrap();
    let small = layout(1000, 8);
    let blocks: Vec<_> = (0..200)
        // SAFETY: the layout is not empty.
        .map(|_| unsafe { alloc.alloc(small) })
        .collect();
    assert!(blocks.iter().all(|block| !block.is_null()));
    let pages = |map: KernelMap<'_, Sim<12>>| map.space().size() / 4096;
    let taken = pages(map);
    assert!(taken >= 50);
    for block in blocks {
        // SAFETY: the block is of this allocator and layout, and is given back once.
        unsafe { alloc.dealloc(block, small) };
    }
    assert_eq!(pages(map), taken, "nothing goes with locks held");
    assert_eq!(alloc.collect(), taken);
    assert_eq!(pages(map), 0);
    vm.check().unwrap();
}
