//! What Linux's rules need beyond the documents' verbs: files that are memory, open stacks, wiring
//! when touched, marks.

use crate::common::{
    PAGE, TestVm, anon, at, check, check_empty, draw, get, map_at, pages, put, space, touch, vm,
};
use bsdvm::{
    Access, Advice, FaultError, GrowthLimits, MapError, Mapping, ObjectId, Placement, Prot, Sharing,
};

/// A file of `count` pages that is memory; page n holds n + 1.
fn memory_file(vm: &TestVm, count: u64) -> ObjectId {
    let file = vm.object_create_memory_file(count * PAGE).unwrap();
    for page in 0..count {
        let value = (page + 1).to_le_bytes();
        vm.object(file).write(page * PAGE, &value).unwrap();
    }
    file
}

#[test]
fn private_memory_of_a_memory_file_shows_it_again_when_given_up() {
    let vm = vm(1000);
    let s = space(&vm, 16);
    let file = memory_file(&vm, 4);
    let what = Mapping::object(file, 0, Sharing::Private, Prot::RW);
    map_at(s, 0, 4, what).unwrap();
    // The mapping alone is left: what it wrote does not become the file's.
    vm.object(file).release();
    put(s, 1, 77);
    assert_eq!([get(s, 0), get(s, 1)], [1, 77]);
    assert_eq!(s.entry(at(0)).unwrap().file, Some((file, 0)));
    s.discard(pages(0, 4)).unwrap();
    assert_eq!([get(s, 0), get(s, 1), get(s, 3)], [1, 2, 4]);
    check(&vm);
    s.release();
    check_empty(&vm);
}

#[test]
fn what_is_read_of_a_memory_file_is_the_files() {
    let vm = vm(1000);
    let s = space(&vm, 16);
    let file = vm.object_create_memory_file(2 * PAGE).unwrap();
    let what = Mapping::object(file, 0, Sharing::Private, Prot::RW);
    map_at(s, 0, 2, what).unwrap();
    // The second page gives the entry a front of its own.
    put(s, 1, 5);
    assert_eq!(touch(&vm, s.id(), 0, at(0), None), Ok(0));
    vm.object(file).write(0, &9u64.to_le_bytes()).unwrap();
    assert_eq!(touch(&vm, s.id(), 0, at(0), None), Ok(9));
    vm.object(file).release();
    s.release();
    check_empty(&vm);
}

#[test]
fn a_wired_mapping_of_a_memory_file_is_forked_with_the_file_behind() {
    let vm = vm(1000);
    let s = space(&vm, 16);
    let file = memory_file(&vm, 4);
    let what = Mapping::object(file, 0, Sharing::Private, Prot::RW);
    map_at(s, 0, 4, what).unwrap();
    put(s, 2, 50);
    s.wire_on_fault(pages(0, 4)).unwrap();
    let child = vm.space(s.fork().unwrap());
    assert_eq!(child.entry(at(0)).unwrap().file, Some((file, 0)));
    assert_eq!([get(child, 0), get(child, 2)], [1, 50]);
    vm.object(file).write(0, &8u64.to_le_bytes()).unwrap();
    assert_eq!(get(child, 0), 8, "it was never written here");
    put(child, 2, 51);
    assert_eq!(get(s, 2), 50);
    child.discard(pages(0, 4)).unwrap();
    assert_eq!(get(child, 2), 3);
    check(&vm);
    for space in [s, child] {
        space.release();
    }
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn cleared_bytes_are_zero_everywhere() {
    let vm = vm(1000);
    let s = space(&vm, 16);
    let file = vm.object_create_memory_file(4 * PAGE).unwrap();
    let object = vm.object(file);
    object.write(0, &[7; 4 * PAGE as usize]).unwrap();
    map_at(s, 0, 4, Mapping::object(file, 0, Sharing::Shared, Prot::RW)).unwrap();
    touch(&vm, s.id(), 0, at(1), None).unwrap();
    object.clear(100, 2 * PAGE).unwrap();
    assert_eq!(touch(&vm, s.id(), 0, at(1), None), Ok(0));
    assert_eq!(object.resident_pages(), 3 + 1, "one went and was touched");
    let mut bytes = vec![0; 4 * PAGE as usize];
    object.read(0, &mut bytes).unwrap();
    let end = 100 + 2 * PAGE as usize;
    assert!(bytes[..100].iter().all(|&b| b == 7));
    assert!(bytes[100..end].iter().all(|&b| b == 0));
    assert!(bytes[end..].iter().all(|&b| b == 7));
    // Within a page, and beyond the end.
    object.clear(3 * PAGE + 10, 5).unwrap();
    object.clear(9 * PAGE, PAGE).unwrap();
    object.read(3 * PAGE, &mut bytes[..16]).unwrap();
    assert_eq!(
        bytes[..16],
        [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 7]
    );
    assert_eq!(object.size(), 4 * PAGE);
    check(&vm);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn an_open_stack_grows_to_the_page_and_as_far_as_its_guard() {
    let vm = vm(4000);
    let s = space(&vm, 1024);
    anon(s, 1000, 4);
    s.open_stack(pages(1000, 4)).unwrap();
    touch(&vm, s.id(), 0, at(990), Some(1)).unwrap();
    assert_eq!(s.entry(at(990)).unwrap().range.start(), at(990));
    // What can be accessed below keeps it away, what cannot does not.
    anon(s, 700, 10);
    let refused = touch(&vm, s.id(), 0, at(965), Some(1));
    assert_eq!(refused, Err(FaultError::InvalidAddress));
    touch(&vm, s.id(), 0, at(966), Some(1)).unwrap();
    s.protect(pages(700, 10), Prot::NONE).unwrap();
    touch(&vm, s.id(), 0, at(710), Some(1)).unwrap();
    check(&vm);
    s.release();
    check_empty(&vm);
}

#[test]
fn parts_of_an_open_stack_grow_on_and_no_place_is_chosen_below() {
    let vm = vm(4000);
    let s = space(&vm, 1024);
    anon(s, 1000, 8);
    s.open_stack(pages(1000, 8)).unwrap();
    s.remove(pages(1002, 2)).unwrap();
    touch(&vm, s.id(), 0, at(1003), Some(1)).unwrap();
    touch(&vm, s.id(), 0, at(1002), Some(1)).unwrap();
    let place = Placement::TopDown {
        below: at(1000),
        align: PAGE,
    };
    let what = Mapping::anonymous(Prot::RW);
    assert_eq!(s.map(PAGE, place, what), Ok(at(1000 - 257)));
    s.remove(pages(1000 - 257, 1)).unwrap();
    // It keeps to the limits, and the child's does.
    s.set_growth_limits(GrowthLimits {
        stack: 8 * PAGE,
        space: u64::MAX,
    });
    assert_eq!(s.grow_stack(at(999)), Err(MapError::NoSpace));
    let child = vm.space(s.fork().unwrap());
    assert_eq!(child.grow_stack(at(999)), Err(MapError::NoSpace));
    s.set_growth_limits(GrowthLimits::NONE);
    assert_eq!(s.grow_stack(at(999)), Ok(true));
    assert!(s.entry(at(999)).unwrap().stack);
    // Where it goes it stays a stack.
    s.move_(pages(999, 1), PAGE, Placement::At(at(500)))
        .unwrap();
    assert_eq!(s.grow_stack(at(499)), Ok(true));
    check(&vm);
    for space in [s, child] {
        space.release();
    }
    check_empty(&vm);
}

#[test]
fn a_deep_open_stack_is_of_few_entries() {
    let vm = vm(4000);
    let s = space(&vm, 4096);
    anon(s, 4000, 33);
    s.open_stack(pages(4000, 33)).unwrap();
    for page in (2000..4000).rev() {
        touch(&vm, s.id(), 0, at(page), Some(page)).unwrap();
    }
    assert!(s.entries() < 300, "{} entries", s.entries());
    s.release();
    check_empty(&vm);
}

#[test]
fn a_locked_stack_grows_locked() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 60, 4);
    s.open_stack(pages(60, 4)).unwrap();
    s.wire(pages(60, 4)).unwrap();
    touch(&vm, s.id(), 0, at(58), Some(1)).unwrap();
    assert!(s.entry(at(58)).unwrap().user_wired);
    check(&vm);
    s.release();
    check_empty(&vm);
}

#[test]
fn pages_are_wired_when_they_are_touched() {
    let vm = vm(1000);
    let s = space(&vm, 16);
    anon(s, 0, 8);
    put(s, 0, 1);
    touch(&vm, s.id(), 0, at(0), None).unwrap();
    let faults = vm.counters().faults;
    s.wire_on_fault(pages(0, 4)).unwrap();
    assert_eq!(vm.counters().faults, faults, "nothing is brought in");
    let entry = s.entry(at(0)).unwrap();
    assert_eq!((entry.range, entry.user_wired), (pages(0, 4), true));
    check(&vm);
    // Also what was in memory and entered.
    touch(&vm, s.id(), 0, at(0), None).unwrap();
    touch(&vm, s.id(), 0, at(2), Some(3)).unwrap();
    check(&vm);
    assert_eq!(s.discard(pages(0, 1)), Err(MapError::Wired));
    s.unwire(pages(0, 4)).unwrap();
    assert_eq!(draw(s, 8), "AAAAAAAA");
    assert_eq!(s.wire_on_fault(pages(7, 2)), Err(MapError::Hole));
    check(&vm);
    s.release();
    check_empty(&vm);
}

#[test]
fn marks_stay_with_a_range_and_go_to_the_child() {
    let vm = vm(1000);
    let s = space(&vm, 16);
    anon(s, 0, 8);
    s.advise(pages(2, 2), Advice::Mark(5)).unwrap();
    assert_eq!(draw(s, 8), "AABBCCCC");
    let marks = |space: bsdvm::Space<'_, _>, page| space.entry(at(page)).unwrap().marks;
    assert_eq!([marks(s, 0), marks(s, 2), marks(s, 4)], [0, 5, 0]);
    s.advise(pages(0, 8), Advice::Unmark(1)).unwrap();
    assert_eq!(marks(s, 2), 4);
    s.advise(pages(0, 8), Advice::Unmark(15)).unwrap();
    assert_eq!(draw(s, 8), "AAAAAAAA");
    s.advise(pages(2, 2), Advice::Mark(10)).unwrap();
    let child = vm.space(s.fork().unwrap());
    assert_eq!([marks(child, 2), marks(child, 4)], [10, 0]);
    for space in [s, child] {
        space.release();
    }
    check_empty(&vm);
}

#[test]
fn memory_that_may_only_be_written_cannot_be_read_where_the_machine_can_tell() {
    let vm = vm(1000);
    let s = space(&vm, 16);
    map_at(s, 0, 1, Mapping::anonymous(Prot::WRITE)).unwrap();
    // The simulated machine can; those that cannot say so (`Machine::IMPLIES_LOADS`).
    assert!(s.fault(at(0), Access::Write).is_ok());
    assert_eq!(s.fault(at(0), Access::Read), Err(FaultError::Protection));
    s.release();
    check_empty(&vm);
}
