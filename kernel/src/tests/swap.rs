//! Page-out to a swap device in the kernel's heap.

use super::{FRAMES, check, load, map, page, small_vm, space, store};
use crate::locks::SpinLock;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use bsdvm::{FaultError, PageBytes, PagerError, Prot, SwapDevice};

/// As many slots as there are frames.
struct HeapSwap(SpinLock<Vec<[u8; 4096]>>);

impl SwapDevice for HeapSwap {
    fn slots(&self) -> u32 {
        FRAMES
    }

    fn read(&self, slot: u32, page: &mut dyn PageBytes) -> Result<(), PagerError> {
        page.write(0, &self.0.lock()[slot as usize]);
        Ok(())
    }

    fn write(&self, slot: u32, page: &dyn PageBytes) -> Result<(), PagerError> {
        page.read(0, &mut self.0.lock()[slot as usize]);
        Ok(())
    }
}

/// One and a half times as many pages as there are frames are stored to and read back, twice.
pub(super) fn pages_go_out_and_come_back() {
    let vm = small_vm();
    let device = HeapSwap(SpinLock::new(vec![[0; 4096]; FRAMES as usize]));
    assert_eq!(vm.swap_on(Box::leak(Box::new(device))), Ok(()));
    let own = space(vm);
    let pages = u64::from(FRAMES) * 3 / 2;
    let at = map(own, pages * 4096, Prot::RW);
    let patiently = |act: &dyn Fn() -> Result<u8, FaultError>| {
        for _ in 0..64 {
            match act() {
                Err(FaultError::NoMemory) => _ = vm.pageout_step(32),
                other => return other,
            }
        }
        panic!("no memory comes back");
    };
    for round in 0..2 {
        for i in 0..pages {
            let byte = (i % 251) as u8 ^ round;
            let stored = patiently(&|| store(own, page(at, i), byte).map(|()| 0));
            assert_eq!(stored, Ok(0), "page {i}");
        }
        for i in 0..pages {
            let seen = patiently(&|| load(own, page(at, i)));
            assert_eq!(seen, Ok((i % 251) as u8 ^ round), "page {i}");
        }
        check(vm);
    }
    let c = vm.counters();
    assert!(c.page_out > 0 && c.page_in > 0, "{c:?}");
    own.release();
    assert_eq!(vm.counters().swap_used, 0);
}
