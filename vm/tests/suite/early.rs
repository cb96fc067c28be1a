//! Where entries come from (E01, E02).

use crate::common::{PAGE, TestVm, anon, at, check_empty, pages, space};
use bsdvm::{Config, Mapping, Placement, Prot, Vm};
use bsdvm_sim::{Sim, SimConfig};

fn vm_with(early: usize) -> TestVm {
    let machine = Sim::new(SimConfig {
        frames: 1000,
        ..SimConfig::default()
    });
    let config = Config {
        early: Vec::leak(vec![0; early]),
        ..Config::default()
    };
    Vm::new(machine, config).unwrap()
}

/// Frames that mapping ten ranges takes.
fn frames_taken(vm: &TestVm) -> u64 {
    let s = space(vm, 64);
    // Objects come from frames in any case.
    let objects = [(); 2].map(|()| vm.object_create_anonymous(PAGE).unwrap());
    objects.into_iter().for_each(|o| vm.object(o).release());
    let before = vm.counters().frames_free;
    for page in 0..10 {
        anon(s, page * 3, 1);
    }
    let taken = before - vm.counters().frames_free;
    s.remove(pages(0, 64)).unwrap();
    s.release();
    check_empty(vm);
    taken
}

#[test]
fn e01_the_first_entries_need_no_frame() {
    assert!(frames_taken(&vm_with(0)) > 0);
    // Memory that begins anywhere: a page is lost at each end.
    assert_eq!(frames_taken(&vm_with(16 * 4096 + 100)), 0);
    // Too little of it is harmless.
    for bytes in [1, 4096, 2 * 4096, 3 * 4096, 5 * 4096] {
        frames_taken(&vm_with(bytes));
    }
}

#[test]
fn e02_what_is_reserved_and_not_used_goes_back() {
    let vm = vm_with(0);
    let s = space(&vm, 64);
    let what = Mapping::anonymous(Prot::RW);
    s.map(PAGE, Placement::At(at(0)), what).unwrap();
    let step = || {
        s.protect(pages(0, 1), Prot::READ).unwrap();
        s.protect(pages(0, 1), Prot::RW).unwrap();
        s.map(PAGE, Placement::At(at(0)), what).unwrap_err();
    };
    step();
    let before = vm.counters();
    // Each reserves records for clipping at both ends, and uses none.
    for _ in 0..10_000 {
        step();
    }
    let after = vm.counters();
    assert_eq!(after.frames_free, before.frames_free, "reserves were lost");
    assert_eq!((after.entries, after.objects), (1, 0));
    s.release();
    check_empty(&vm);
}
