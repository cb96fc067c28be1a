//! A chosen part for Miri: every unsafe path of the slabs, through the public API, on a small
//! machine. Files and swap of a test live for ever, so leaks are not looked for:
//! `MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks" cargo +nightly miri test -p bsdvm
//! --test miri`.

mod common;

use bsdvm::{Access, Mapping, Placement, Prot, Sharing};
use common::{
    Files, MemorySwap, PAGE, anon, at, check, check_empty, get, pages, put, space, touch, vm,
};

const FRAMES: u32 = 96;

#[test]
fn map_fault_fork_write_both_sides_exit() {
    let vm = vm(FRAMES);
    let parent = space(&vm, 16);
    anon(parent, 0, 4);
    put(parent, 0, 1);
    touch(&vm, parent.id(), 0, at(1), Some(2)).unwrap();
    let child = vm.space(parent.fork().unwrap());
    put(parent, 0, 3);
    touch(&vm, child.id(), 1, at(1), Some(4)).unwrap();
    assert_eq!([0, 1, 2].map(|p| get(parent, p)), [3, 2, 0]);
    assert_eq!([0, 1, 2].map(|p| get(child, p)), [1, 4, 0]);
    check(&vm);
    parent.release();
    assert_eq!([0, 1, 2].map(|p| get(child, p)), [1, 4, 0]);
    child.release();
    check_empty(&vm);
}

#[test]
fn page_out_and_in() {
    let vm = vm(FRAMES);
    vm.swap_on(MemorySwap::leak(16)).unwrap();
    let space = space(&vm, 16);
    anon(space, 0, 3);
    (0..3).for_each(|page| put(space, page, page + 7));
    while vm.pageout_step(u32::MAX) > 0 {}
    assert_eq!(vm.counters().swap_used, 3);
    check(&vm);
    (0..3).for_each(|page| assert_eq!(get(space, page), page + 7));
    space.release();
    check_empty(&vm);
}

#[test]
fn wire_clip_move_and_discard() {
    let vm = vm(FRAMES);
    let space = space(&vm, 32);
    anon(space, 0, 6);
    (0..6).for_each(|page| put(space, page, page));
    space.wire(pages(2, 1)).unwrap();
    assert_eq!(space.entries(), 3);
    space.protect(pages(4, 1), Prot::READ).unwrap();
    space.unwire(pages(2, 1)).unwrap();
    let to = space
        .move_(pages(1, 4), 5 * PAGE, Placement::At(at(16)))
        .unwrap();
    assert_eq!(to, at(16));
    (1..5).for_each(|page| assert_eq!(get(space, page + 15), page));
    space.discard(pages(17, 1)).unwrap();
    assert_eq!((get(space, 17), get(space, 18)), (0, 3));
    check(&vm);
    space.release();
    check_empty(&vm);
}

/// Enough entries that the tree splits its nodes, and that slabs grow.
#[test]
fn many_entries_and_a_far_page() {
    let vm = vm(FRAMES);
    let space = space(&vm, 1 << 24);
    for i in 0..40 {
        anon(space, 2 * i, 1);
    }
    assert_eq!(space.entries(), 40);
    let far = (1 << 23) + 5;
    anon(space, 1 << 23, 64);
    put(space, far, 9);
    put(space, 0, 8);
    check(&vm);
    for i in (0..40).rev().step_by(2) {
        space.remove(pages(2 * i, 1)).unwrap();
    }
    assert_eq!((get(space, far), get(space, 0)), (9, 8));
    check(&vm);
    space.release();
    check_empty(&vm);
}

#[test]
fn a_file_that_is_shared_written_and_cut() {
    let vm = vm(FRAMES);
    let files = Files::leak();
    let file = vm.object_create(files.pager(0), 4 * PAGE).unwrap();
    let (one, two) = (space(&vm, 8), space(&vm, 8));
    for (space, sharing) in [(one, Sharing::Shared), (two, Sharing::Private)] {
        let what = Mapping::object(file, 0, sharing, Prot::RW);
        space.map(4 * PAGE, Placement::At(at(0)), what).unwrap();
    }
    put(one, 1, 5);
    assert_eq!(get(two, 1), 5);
    put(two, 1, 6);
    one.clean(pages(0, 4), true).unwrap();
    vm.object(file).set_size(PAGE).unwrap();
    assert!(one.fault(at(1), Access::Read).is_err());
    assert_eq!(get(two, 1), 6);
    check(&vm);
    one.release();
    two.release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn two_threads_fault_and_fork() {
    let vm = vm(FRAMES);
    let parent = space(&vm, 16);
    anon(parent, 0, 4);
    put(parent, 0, 1);
    std::thread::scope(|t| {
        for cpu in 0..2 {
            let vm = &vm;
            t.spawn(move || {
                vm.machine().set_cpu(cpu);
                let page = cpu as u64 + 1;
                touch(vm, parent.id(), cpu, at(page), Some(page)).unwrap();
                let child = vm.space(parent.fork().unwrap());
                touch(vm, child.id(), cpu, at(0), Some(9)).unwrap();
                assert_eq!(get(child, page), page);
                child.release();
            });
        }
    });
    check(&vm);
    assert_eq!([0, 1, 2].map(|p| get(parent, p)), [1, 1, 2]);
    parent.release();
    check_empty(&vm);
}
