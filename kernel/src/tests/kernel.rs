//! The core's kernel memory at addresses of this kernel, touched by the kernel itself.

use super::{check, load, map, small_vm, space, store};
use crate::hardware;
use crate::heap;
use crate::traps::{Probe, probe};
use bsdvm::{KernelMap, Prot, VirtAddr};

use crate::machine::Bare;

const PAGES: u64 = 5;

/// Stores a byte to kernel memory; `None` where it faults.
fn kernel_store(va: VirtAddr, byte: u8) -> Option<()> {
    // SAFETY: memory of the core's kernel map, which no Rust object lies in.
    unsafe { probe(va.0, Probe::Store(byte)) }.map(drop)
}

fn kernel_load(va: VirtAddr) -> Option<u8> {
    // SAFETY: a load changes nothing.
    unsafe { probe(va.0, Probe::Load) }
}

fn take(map: KernelMap<'static, Bare>) -> VirtAddr {
    match map.alloc(PAGES * 4096) {
        Ok(va) => va,
        Err(e) => panic!("no kernel memory: {e:?}"),
    }
}

/// Wired memory is there without a fault, in every space, zeroed; freed memory is gone.
pub(super) fn wired_memory_is_seen_in_every_space() {
    let vm = small_vm();
    // A space that is older than the memory and loaded when it is taken.
    let own = space(vm);
    let data = map(own, 4096, Prot::RW);
    assert_eq!(store(own, data, 1), Ok(()));
    own.with_pmap(hardware::enter);
    let kmem = heap::kmem();
    let at = take(kmem.map());
    let each = || (0..PAGES).map(|i| VirtAddr(at.0 + i * 4096));
    for va in each() {
        assert_eq!(kernel_load(va), Some(0), "{va:?} is not there");
        assert_eq!(kernel_store(va, va.0 as u8 | 5), Some(()));
    }
    let other = space(vm);
    let elsewhere = map(other, 4096, Prot::RW);
    assert_eq!(store(other, elsewhere, 2), Ok(()));
    other.with_pmap(hardware::enter);
    each().for_each(|va| assert_eq!(kernel_load(va), Some(va.0 as u8 | 5)));
    assert_eq!(load(own, data), Ok(1));
    assert_eq!(kmem.map().free(at, PAGES * 4096), Ok(()));
    each().for_each(|va| assert_eq!(kernel_load(va), None, "{va:?} is still there"));
    check(vm);
    own.release();
    other.release();
}
