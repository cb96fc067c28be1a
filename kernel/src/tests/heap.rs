//! The heap on the core's kernel memory.

use super::swap::{check_bytes, swap_space};
use super::{check, load, map, page, small_vm, space, store};
use crate::heap;
use alloc::vec::Vec;
use bsdvm::Prot;

/// The core forks, faults, copies and pages out with no allocation from the heap that stands on
/// it.
pub(super) fn the_core_allocates_nothing() {
    let vm = small_vm();
    swap_space();
    let before = (heap::allocations(), vm.counters());
    let own = space(vm);
    let at = map(own, 64 * 4096, Prot::RW);
    (0..64).for_each(|i| assert_eq!(store(own, page(at, i), 1), Ok(())));
    let child = match own.fork() {
        Ok(id) => vm.space(id),
        Err(e) => panic!("no fork: {e:?}"),
    };
    assert_eq!(store(child, at, 2), Ok(()));
    assert_eq!((load(own, at), load(child, at)), (Ok(1), Ok(2)));
    check_bytes(vm, 1);
    child.release();
    own.release();
    let after = vm.counters();
    assert!(after.page_out > before.1.page_out && after.cow_copied > before.1.cow_copied);
    assert_eq!(heap::allocations(), before.0, "allocations of the core");
    let kept = core::hint::black_box(alloc::boxed::Box::new(1));
    assert_eq!(heap::allocations(), before.0 + *kept, "nobody counts");
}

/// Small and large values take pages from the VM and keep what is stored in them; the pages are
/// back after they were dropped and collected.
pub(super) fn grows_and_gives_back() {
    const MIB: u64 = 256;
    let vm = small_vm();
    heap::collect();
    let free = || vm.counters().frames_free;
    let before = free();
    let mut small: Vec<alloc::boxed::Box<[u64; 8]>> = Vec::new();
    (0..16_384).for_each(|i| small.push(alloc::boxed::Box::new([i; 8])));
    let large: Vec<Vec<u8>> = (0..8).map(|i| alloc::vec![i; 128 << 10]).collect();
    assert!(free() + 2 * MIB <= before, "2 MiB came from somewhere else");
    assert!((0..).zip(&small).all(|(i, b)| b.iter().all(|w| *w == i)));
    assert!((0..).zip(&large).all(|(i, v)| v.iter().all(|b| *b == i)));
    drop((small, large));
    assert!(free() + 2 * MIB <= before, "pages go before a safe point");
    assert!(heap::collect() >= 2 * MIB);
    // Tables and records that were made on the way stay.
    assert!(free() + 64 >= before, "{} free, {before} before", free());
    check(vm);
}

/// Who asks whether there is room is told that there is none, and the heap goes on.
pub(super) fn a_full_heap_says_no() {
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(1024);
    let refused = loop {
        let mut block = Vec::new();
        if block.try_reserve_exact(1 << 20).is_err() {
            break blocks.len();
        }
        blocks.push(block);
    };
    assert!((1..256).contains(&refused), "{refused} MiB");
    drop(blocks);
    assert!(heap::collect() > 0);
    let mut again: Vec<u8> = Vec::new();
    assert!(again.try_reserve_exact(1 << 20).is_ok());
    check(small_vm());
}
