//! Wirings of the kernel, counted and quick, beside those of the user (W01–W03).

use crate::common::{
    Files, MemorySwap, PAGE, TestVm, anon, at, check, check_empty, draw, get, map_at, pages, put,
    space, vm,
};
use bsdvm::{MapError, Mapping, PagerError, Prot, Sharing};
use std::sync::atomic::Ordering;

/// Pages out all that can go.
fn squeeze(vm: &TestVm) {
    for _ in 0..4 {
        vm.pageout_step(1000);
    }
}

#[test]
fn w02_kernel_wirings_are_counted() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(64)).unwrap();
    let s = space(&vm, 32);
    anon(s, 0, 8);
    (0..8).for_each(|page| put(s, page, page));
    s.wire_kernel(pages(0, 6)).unwrap();
    s.wire_kernel(pages(4, 4)).unwrap();
    s.wire(pages(2, 4)).unwrap();
    assert_eq!(draw(s, 9), "AABBCCDD.");
    let wired = |page| s.entry(at(page)).unwrap().wired;
    assert_eq!([wired(0), wired(2), wired(4), wired(6)], [1, 2, 3, 1]);
    check(&vm);

    // The user's wiring ends and the kernel's stay, each until it is ended.
    s.unwire(pages(2, 4)).unwrap();
    assert_eq!([wired(0), wired(2), wired(4), wired(6)], [1, 1, 2, 1]);
    assert_eq!(s.unwire(pages(2, 4)), Err(MapError::NotWired));
    s.unwire_kernel(pages(0, 6)).unwrap();
    assert_eq!([wired(0), wired(2), wired(4), wired(6)], [0, 0, 1, 1]);
    squeeze(&vm);
    assert_eq!(
        vm.counters().swap_used,
        4,
        "the four that are not wired went"
    );
    check(&vm);

    // Not wholly wired: nothing changes.
    assert_eq!(s.unwire_kernel(pages(3, 5)), Err(MapError::NotWired));
    assert_eq!([wired(0), wired(2), wired(4), wired(6)], [0, 0, 1, 1]);
    assert_eq!(s.unwire_kernel(pages(7, 2)), Err(MapError::Hole));
    s.unwire_kernel(pages(4, 4)).unwrap();
    assert_eq!(draw(s, 9), "AAAAAAAA.");
    squeeze(&vm);
    assert_eq!(vm.counters().swap_used, 8);
    (0..8).for_each(|page| assert_eq!(get(s, page), page));
    s.release();
    check_empty(&vm);
}

#[test]
fn w02_a_failing_page_undoes_this_call_and_nothing_else() {
    let vm = vm(1000);
    let files = Files::leak();
    let file = vm.object_create(files.pager(0), 4 * PAGE).unwrap();
    let s = space(&vm, 32);
    anon(s, 0, 4);
    map_at(s, 4, 4, Mapping::object(file, 0, Sharing::Shared, Prot::RW)).unwrap();
    s.wire(pages(1, 1)).unwrap();
    s.wire_kernel(pages(2, 1)).unwrap();
    files.fail_get.store(true, Ordering::Relaxed);
    let failed = Err(MapError::Pager(PagerError::Io(5)));
    assert_eq!(s.wire_kernel(pages(0, 8)), failed);
    let seen = |page| {
        let entry = s.entry(at(page)).unwrap();
        (entry.wired, entry.user_wired)
    };
    let before = [(0, false), (1, true), (1, false), (0, false)];
    assert_eq!([seen(0), seen(1), seen(2), seen(3)], before);
    assert_eq!(
        s.wire(pages(0, 8)),
        failed,
        "the user's call is undone as well"
    );
    assert_eq!([seen(0), seen(1), seen(2), seen(3)], before);
    assert_eq!(seen(4), (0, false));
    check(&vm);

    // The pages that were wired on the way can go again; those of before cannot.
    vm.swap_on(MemorySwap::leak(64)).unwrap();
    (0..4).for_each(|page| put(s, page, page));
    squeeze(&vm);
    assert_eq!(vm.counters().swap_used, 2);

    files.fail_get.store(false, Ordering::Relaxed);
    s.wire_kernel(pages(0, 8)).unwrap();
    check(&vm);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn w03_quick_wiring_brings_nothing_in() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(64)).unwrap();
    let s = space(&vm, 32);
    anon(s, 0, 8);
    let before = vm.counters();
    s.wire_quick(pages(2, 4)).unwrap();
    assert_eq!(draw(s, 9), "AABBBBCC.");
    assert_eq!(
        vm.counters().faults,
        before.faults,
        "no page was brought in"
    );
    assert_eq!(s.entry(at(2)).unwrap().wired, 1);

    // The caller loads the pages; they are wired then.
    (0..8).for_each(|page| put(s, page, page));
    squeeze(&vm);
    assert_eq!(vm.counters().swap_used, 4);
    check(&vm);

    // A hole, or a wiring that is there already: refused, and nothing is clipped.
    assert_eq!(s.wire_quick(pages(7, 2)), Err(MapError::Hole));
    assert_eq!(s.wire_quick(pages(1, 2)), Err(MapError::Wired));
    assert_eq!(draw(s, 9), "AABBBBCC.");
    s.unwire_kernel(pages(2, 4)).unwrap();
    assert_eq!(draw(s, 9), "AAAAAAAA.");
    squeeze(&vm);
    assert_eq!(vm.counters().swap_used, 8);
    s.release();
    check_empty(&vm);
}
