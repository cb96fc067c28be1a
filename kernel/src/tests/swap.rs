//! Page-out to frames of the machine that the VM does not have.

use super::{check, load, map, page, small_vm, space, spare_frames, store};
use crate::machine::Bare;
use bsdvm::{FaultError, Frame, Memory, PageBytes, PagerError, Prot, SwapDevice, Vm};
use core::sync::atomic::{AtomicBool, Ordering};

/// As many slots as are used.
const SLOTS: u32 = 8192;

struct FrameSwap;

fn frame(slot: u32) -> Frame {
    Frame(spare_frames().start + slot)
}

impl SwapDevice for FrameSwap {
    fn slots(&self) -> u32 {
        SLOTS
    }

    fn read(&self, slot: u32, page: &mut dyn PageBytes) -> Result<(), PagerError> {
        let mut bytes = [0; 4096];
        Bare.read(frame(slot), 0, &mut bytes);
        page.write(0, &bytes);
        Ok(())
    }

    fn write(&self, slot: u32, page: &dyn PageBytes) -> Result<(), PagerError> {
        let mut bytes = [0; 4096];
        page.read(0, &mut bytes);
        Bare.write(frame(slot), 0, &bytes);
        Ok(())
    }
}

/// Lets the VM page out.
pub(super) fn swap_space() {
    static ON: AtomicBool = AtomicBool::new(false);
    if !ON.swap(true, Ordering::Relaxed) {
        assert!(spare_frames().len() >= SLOTS as usize, "too few frames");
        assert_eq!(small_vm().swap_on(&FrameSwap), Ok(()));
    }
}

/// Stores to a quarter more pages than there are frames and reads them back, in so many rounds.
pub(super) fn check_bytes(vm: &'static Vm<Bare>, rounds: u8) {
    let own = space(vm);
    let pages = vm.counters().frames_total * 5 / 4;
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
    for round in 0..rounds {
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
    own.release();
}

/// More pages than there are frames keep what is stored, twice.
pub(super) fn pages_go_out_and_come_back() {
    let vm = small_vm();
    swap_space();
    let before = vm.counters();
    check_bytes(vm, 2);
    let c = vm.counters();
    assert!(
        c.page_out > before.page_out && c.page_in > before.page_in,
        "{c:?}"
    );
    assert_eq!(c.swap_used, 0);
}
