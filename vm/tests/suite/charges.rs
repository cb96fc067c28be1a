//! Who carries what is promised (O08), and that giving contents up in place splits nothing.

use crate::common::{
    Files, PAGE, anon, at, check, check_empty, draw, get, map_at, pages, put, space, vm,
};
use bsdvm::{Inherit, Mapping, Prot, Sharing};

#[test]
fn o08_each_side_of_a_fork_carries_what_it_may_come_to_need() {
    let vm = vm(1000);
    let charged = || vm.counters().charged_pages;
    let s = space(&vm, 32);
    anon(s, 0, 4);
    put(s, 1, 1);
    assert_eq!(charged(), 4);
    let first = vm.space(s.fork().unwrap());
    assert_eq!(charged(), 12, "the object, and a copy for each of the two");
    check(&vm);
    let second = vm.space(s.fork().unwrap());
    assert_eq!(
        charged(),
        16,
        "a third copy; the parent's is promised already"
    );
    put(s, 1, 2);
    put(first, 1, 3);
    assert_eq!(
        charged(),
        16,
        "copies that are made carry what their entries did"
    );
    check(&vm);
    first.release();
    second.release();
    check(&vm);
    put(s, 0, 2);
    assert_eq!(get(s, 1), 2);
    s.release();
    check_empty(&vm);
}

#[test]
fn o08_zero_filled_memory_of_a_child_is_charged() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 4);
    put(s, 0, 1);
    s.inherit(pages(0, 4), Inherit::Zero).unwrap();
    assert_eq!(vm.counters().charged_pages, 4);
    let child = vm.space(s.fork().unwrap());
    assert_eq!(vm.counters().charged_pages, 8);
    assert_eq!(get(child, 0), 0);
    check(&vm);
    child.release();
    assert_eq!(vm.counters().charged_pages, 4);
    s.release();
    check_empty(&vm);
}

#[test]
fn discarding_in_place_splits_nothing() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 12);
    (0..12).for_each(|page| put(s, page, page + 1));
    // Two entries of one object, which nobody else sees.
    s.protect(pages(8, 4), Prot::READ).unwrap();
    assert_eq!(draw(s, 13), "AAAAAAAABBBB.");
    s.discard(pages(2, 2)).unwrap();
    s.discard(pages(9, 1)).unwrap();
    assert_eq!(draw(s, 13), "AAAAAAAABBBB.");
    let seen: Vec<u64> = (0..12).map(|page| get(s, page)).collect();
    assert_eq!(seen, [1, 2, 0, 0, 5, 6, 7, 8, 9, 0, 11, 12]);
    check(&vm);

    // One entry whose object a handle outside refers to, too: others would miss the pages.
    let shared = vm.object_create_anonymous(4 * PAGE).unwrap();
    vm.object(shared).write(0, &[7]).unwrap();
    map_at(
        s,
        20,
        4,
        Mapping::object(shared, 0, Sharing::Private, Prot::RW),
    )
    .unwrap();
    put(s, 20, 9);
    s.discard(pages(20, 1)).unwrap();
    let mut byte = [0];
    vm.object(shared).read(0, &mut byte).unwrap();
    assert_eq!(byte, [7], "what is not this map's stays");
    check(&vm);

    let files = Files::leak();
    let file = vm.object_create(files.pager(0), 4 * PAGE).unwrap();
    map_at(
        s,
        24,
        4,
        Mapping::object(file, 0, Sharing::Private, Prot::RW),
    )
    .unwrap();
    put(s, 25, 9);
    s.discard(pages(25, 1)).unwrap();
    assert_eq!(get(s, 25), 0, "the file's again");
    assert!(s.entry(at(25)).unwrap().file.is_some());
    s.release();
    vm.object(file).release();
    vm.object(shared).release();
    check_empty(&vm);
}

#[test]
fn m09_of_two_entries_of_one_object_one_goes_with_its_pages() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 8);
    (0..8).for_each(|page| put(s, page, page));
    s.protect(pages(4, 4), Prot::READ).unwrap();
    assert_eq!(draw(s, 9), "AAAABBBB.");
    s.drop_translations(pages(0, 8));
    let (frames, charged) = (vm.counters().frames_free, vm.counters().charged_pages);
    s.remove(pages(4, 4)).unwrap();
    assert_eq!(vm.counters().frames_free, frames + 4);
    assert_eq!(vm.counters().charged_pages, charged - 4);
    check(&vm);
    // What follows takes their place in the object.
    anon(s, 4, 4);
    assert_eq!((draw(s, 9), get(s, 5)), ("AAAAAAAA.".to_owned(), 0));
    s.release();
    check_empty(&vm);
}

#[test]
fn m03_what_follows_memory_that_was_cut_does_not_show_what_was_there() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    let shared = Mapping {
        sharing: Sharing::Shared,
        inherit: Inherit::Share,
        ..Mapping::anonymous(Prot::RW)
    };
    map_at(s, 0, 8, shared).unwrap();
    (0..8).for_each(|page| put(s, page, page + 1));
    // A child had it too, so that the pages that are cut off stay in the object.
    vm.space(s.fork().unwrap()).release();
    s.remove(pages(4, 4)).unwrap();
    map_at(s, 4, 4, shared).unwrap();
    let seen: Vec<u64> = (0..8).map(|page| get(s, page)).collect();
    assert_eq!(seen, [1, 2, 3, 4, 0, 0, 0, 0]);
    check(&vm);
    s.release();
    check_empty(&vm);
}
