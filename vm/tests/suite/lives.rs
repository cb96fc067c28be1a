//! What becomes of a space: split at fork, exec and unshare, stacks that grow. A name begins with
//! the row of the capability that it shows.

use crate::common::scripted::{Stage, frame_of, word};
use crate::common::{
    MemorySwap, PAGE, anon, at, check, check_empty, draw, get, map_at, pages, put, slots, space,
    touch, vm,
};
use bsdvm::{
    Access, FaultError, Faulted, GrowthLimits, Image, MapError, Mapping, Prot, Sharing, SpaceError,
};

/// Memory of two entries in one object, some of it on swap. The document splits nothing, as
/// zero-filled objects have no handle.
#[test]
fn s06_a_fork_gives_each_entry_its_own_pages_and_swap() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(100)).unwrap();
    let s = space(&vm, 64);
    anon(s, 0, 4);
    put(s, 0, 10);
    put(s, 1, 11);
    map_at(s, 4, 4, Mapping::anonymous(Prot::ALL)).unwrap();
    put(s, 4, 14);
    let objects = || [0, 4].map(|page| s.entry(at(page)).unwrap().object.unwrap());
    assert_eq!(objects()[0], objects()[1], "it grew over both");
    while vm.pageout_step(1000) > 0 {}
    assert_eq!(vm.counters().swap_used, 3);
    get(s, 1);
    let child = vm.space(s.fork().unwrap());
    let [low, high] = objects();
    assert_ne!(low, high);
    assert_eq!(slots(&vm), (3, 2), "slots moved, none was copied");
    // What one entry had goes with it, while the other lives on.
    for space in [s, child] {
        space.remove(pages(4, 4)).unwrap();
    }
    assert_eq!(slots(&vm), (2, 2));
    check(&vm);
    for space in [s, child] {
        assert_eq!([0, 1, 2].map(|page| get(space, page)), [10, 11, 0]);
        space.release();
    }
    check_empty(&vm);
}

#[test]
fn s06_a_split_keeps_what_is_behind() {
    let stage = Stage::new(1000);
    let file = stage.file(8);
    let s = stage.space();
    let private = Mapping::object(file, 0, Sharing::Private, Prot::RW);
    map_at(s, 0, 8, private).unwrap();
    put(s, 1, 21);
    put(s, 6, 26);
    s.protect(pages(3, 2), Prot::ALL).unwrap();
    let object = |page| s.entry(at(page)).unwrap().object;
    assert_eq!((object(0), object(3)), (object(5), object(5)));
    let child = stage.fork(s.id());
    // The last one keeps the object.
    assert!(object(0) != object(3) && object(3) != object(5) && object(0) != object(5));
    for space in [s, child] {
        let all: Vec<u64> = (0..8).map(|page| get(space, page)).collect();
        let expected = [word(0), 21, word(2), word(3), word(4), word(5), 26, word(7)];
        assert_eq!(all, expected);
    }
    put(s, 5, 35);
    assert_eq!((get(child, 5), get(s, 5)), (word(5), 35));
    assert_eq!(s.entry(at(4)).unwrap().file, Some((file, 3 * PAGE)));
    check(stage.vm);
    stage.end(&[s, child], &[file]);
}

#[test]
fn s06_a_wired_page_is_not_moved_by_a_split() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 4);
    put(s, 0, 1);
    map_at(s, 4, 4, Mapping::anonymous(Prot::ALL)).unwrap();
    put(s, 4, 2);
    s.wire(pages(4, 4)).unwrap();
    touch(&vm, s.id(), 0, at(4), Some(2)).unwrap();
    let (frame, object) = (frame_of(s, 4), s.entry(at(4)).unwrap().object);
    let child = vm.space(s.fork().unwrap());
    assert_eq!(s.entry(at(4)).unwrap().object, object);
    put(child, 4, 3);
    put(s, 0, 5);
    assert_eq!((get(s, 4), get(child, 4), get(child, 0)), (2, 3, 1));
    assert_eq!(s.fault(at(4), Access::Write), Ok(Faulted::Resident));
    assert_eq!(frame_of(s, 4), frame);
    check(&vm);
    for space in [s, child] {
        space.release();
    }
    check_empty(&vm);
}

#[test]
fn s07_exec_puts_a_fresh_space_in_place_before_the_old_one_goes() {
    let vm = vm(1000);
    let old = space(&vm, 64);
    anon(old, 0, 4);
    put(old, 0, 1);
    let mut current = old.id();
    let image = Image::Fresh(pages(0, 32));
    let new = old.exec(image, |new| {
        assert_eq!(get(old, 0), 1, "the old one lives");
        assert_eq!((new.entries(), new.references()), (0, 1));
        current = new.id();
    });
    assert_eq!(new, Ok(current));
    assert_eq!(vm.counters().spaces, 1, "the old one is gone");
    let new = vm.space(current);
    assert_eq!(new.range(), pages(0, 32));
    new.release();
    check_empty(&vm);
}

#[test]
fn s07_exec_of_a_resident_program_forks_it() {
    let vm = vm(1000);
    let resident = space(&vm, 64);
    anon(resident, 0, 4);
    put(resident, 2, 7);
    let old = space(&vm, 64);
    anon(old, 0, 1);
    // Another process shares the old space, which stays for it.
    old.reference();
    let new = vm.space(old.exec(Image::Resident(resident.id()), |_| ()).unwrap());
    put(new, 2, 8);
    assert_eq!((get(resident, 2), get(new, 2)), (7, 8));
    assert_eq!((old.references(), old.entries()), (1, 1));
    check(&vm);
    for space in [resident, old, new] {
        space.release();
    }
    check_empty(&vm);
}

#[test]
fn s07_a_space_of_ones_own_is_made_only_where_it_is_shared() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 4);
    put(s, 0, 1);
    let id = s.id();
    let alone = s.unshare(|_| panic!("nothing is to be put in place"));
    assert_eq!((alone, vm.counters().forks), (Ok(id), 0));
    s.reference();
    let mut current = id;
    let own = s.unshare(|new| current = new.id()).unwrap();
    assert_eq!(own, current);
    assert_eq!(s.references(), 1, "the caller's is given up");
    let own = vm.space(own);
    put(own, 0, 2);
    assert_eq!((get(s, 0), get(own, 0)), (1, 2));
    for space in [s, own] {
        space.release();
    }
    check_empty(&vm);
}

#[test]
fn s07_a_space_that_cannot_be_made_changes_nothing() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 8);
    put(s, 0, 1);
    s.reference();
    vm.set_charge_limit(vm.counters().charged_pages);
    let never = |_: bsdvm::Space<'_, _>| panic!("nothing is to be put in place");
    assert_eq!(s.unshare(never), Err(SpaceError::ChargeLimit));
    let resident = s.exec(Image::Resident(s.id()), never);
    assert_eq!(resident, Err(SpaceError::ChargeLimit));
    assert_eq!((s.references(), get(s, 0)), (2, 1));
    assert_eq!((vm.counters().spaces, vm.counters().forks), (1, 0));
    s.release();
    s.release();
    check_empty(&vm);
}

/// The document panics where a neighbour that agrees would take the stack's entry in.
#[test]
fn s08_a_stack_beside_a_mapping_that_agrees_with_it() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 60, 2);
    s.stack(at(60), 8 * PAGE, 2 * PAGE, Prot::RW).unwrap();
    s.stack(at(64), 2 * PAGE, PAGE, Prot::RW).unwrap();
    assert_eq!(draw(s, 64), format!("{}AABB.C", ".".repeat(58)));
    put(s, 53, 1);
    put(s, 62, 1);
    assert_eq!(s.entry(at(53)).unwrap().range, pages(52, 8));
    s.release();
    check_empty(&vm);
}

#[test]
fn s09_growth_keeps_to_the_limits_of_the_space() {
    let vm = vm(1000);
    let s = space(&vm, 128);
    s.stack(at(128), 100 * PAGE, PAGE, Prot::RW).unwrap();
    // No multiple of a page: what is over does not count.
    s.set_growth_limits(GrowthLimits {
        stack: 10 * PAGE + 5,
        space: u64::MAX,
    });
    touch(&vm, s.id(), 0, at(126), Some(1)).unwrap();
    let range = s.entry(at(126)).unwrap().range;
    assert_eq!(range, pages(118, 10), "not by the whole unit");
    assert_eq!(s.grow_stack(at(117)), Err(MapError::NoSpace));
    let refused = touch(&vm, s.id(), 0, at(117), Some(1));
    assert_eq!(refused, Err(FaultError::InvalidAddress));
    let info = s.entry(at(118)).unwrap();
    assert_eq!(info.stack_reserve, 90 * PAGE, "it keeps its room");
    check(&vm);
    // A child keeps to them, too; they can be raised again.
    let child = vm.space(s.fork().unwrap());
    assert_eq!(child.grow_stack(at(117)), Err(MapError::NoSpace));
    s.set_growth_limits(GrowthLimits {
        stack: u64::MAX,
        space: 20 * PAGE + 4095,
    });
    anon(s, 0, 5);
    put(s, 117, 1);
    assert_eq!(s.size(), 20 * PAGE);
    assert_eq!(s.entry(at(117)).unwrap().range.start(), at(113));
    assert_eq!(s.grow_stack(at(112)), Err(MapError::NoSpace));
    s.set_growth_limits(GrowthLimits::NONE);
    assert_eq!(s.grow_stack(at(112)), Ok(true));
    assert_eq!(s.entry(at(112)).unwrap().range.start(), at(81));
    for space in [s, child] {
        space.release();
    }
    check_empty(&vm);
}

/// A stack of several entries is one stack.
#[test]
fn s09_the_limit_counts_all_of_a_stack() {
    let vm = vm(1000);
    let s = space(&vm, 128);
    s.stack(at(128), 100 * PAGE, 6 * PAGE, Prot::RW).unwrap();
    s.protect(pages(124, 2), Prot::READ).unwrap();
    assert_eq!(s.entries(), 3);
    s.set_growth_limits(GrowthLimits {
        stack: 8 * PAGE,
        space: u64::MAX,
    });
    put(s, 121, 1);
    assert_eq!(s.size(), 8 * PAGE);
    assert_eq!(s.grow_stack(at(119)), Err(MapError::NoSpace));
    s.release();
    check_empty(&vm);
}

/// The document wires with the map locked, and does not look whether it could.
#[test]
fn s09_a_stack_that_cannot_be_wired_is_as_it_was() {
    let vm = vm(300);
    let s = space(&vm, 1024);
    s.stack(at(1024), 1000 * PAGE, PAGE, Prot::RW).unwrap();
    put(s, 1023, 9);
    s.set_wire_future(true);
    let before = s.entry(at(1023)).unwrap();
    assert_eq!(s.grow_stack(at(400)), Err(MapError::NoMemory));
    assert_eq!(s.entry(at(0)), Some(before), "it needs more than there is");
    check(&vm);
    let write = s.write(at(400), &[1]).unwrap_err();
    assert_eq!(write.why, FaultError::NoMemory);
    assert_eq!(s.entry(at(0)), Some(before));
    // It can grow by less, and that is wired.
    put(s, 1020, 8);
    let info = s.entry(at(1020)).unwrap();
    assert_eq!((info.range, info.wired), (pages(991, 32), 1));
    assert_eq!((get(s, 1020), get(s, 1023)), (8, 9));
    // So is a stack that is made.
    assert_eq!(
        s.stack(at(600), 500 * PAGE, 500 * PAGE, Prot::RW),
        Err(MapError::NoMemory)
    );
    assert_eq!(s.entry(at(0)).unwrap().range, pages(991, 32));
    check(&vm);
    s.release();
    check_empty(&vm);
}
