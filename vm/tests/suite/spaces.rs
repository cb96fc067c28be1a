//! Address spaces: creation, end, counts, fork, replacement, stacks. A name begins with the row of
//! the capability that it shows.

use crate::common::scripted::frame_of;
use crate::common::{
    MemorySwap, PAGE, TestVm, anon, at, check, check_empty, draw, get, map_at, pages, put, space,
    touch, vm,
};
use bsdvm::{
    Access, Advice, Behavior, GrowthLimits, Inherit, MapError, Mapping, Prot, Sharing, SpaceError,
    VirtAddr,
};
use bsdvm_sim::Event;

#[test]
fn s01_records_of_spaces_are_used_again() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    let id = s.id();
    s.set_wire_future(true);
    s.set_growth_limits(GrowthLimits { stack: 0, space: 0 });
    anon(s, 0, 4);
    s.release();
    let mut free = None;
    for _ in 0..100 {
        let s = space(&vm, 32);
        assert_eq!(s.id(), id, "the record is the same");
        assert_eq!((s.references(), s.entries(), s.resident()), (1, 0, 0));
        // Nothing of what it was before is left.
        s.stack(at(32), 8 * PAGE, PAGE, Prot::RW).unwrap();
        put(s, 30, 1);
        assert_eq!(s.entry(at(30)).unwrap().wired, 0);
        assert_eq!(
            map_at(s, 40, 1, Mapping::anonymous(Prot::RW)),
            Err(MapError::InvalidAddress)
        );
        s.release();
        let now = vm.counters().frames_free;
        assert_eq!(*free.get_or_insert(now), now, "nothing is lost on the way");
    }
    check_empty(&vm);
}

#[test]
fn s01_a_space_that_cannot_be_had_leaves_nothing() {
    let vm = vm(1000);
    let s = space(&vm, 8);
    for n in 1.. {
        vm.inject_failure(n);
        let made = vm.space_create(pages(0, 8));
        let failed = vm.injection_left() == 0;
        vm.inject_failure(0);
        assert_eq!(made.is_err(), failed, "every failure is told");
        if let Ok(id) = made {
            vm.space(id).release();
            break;
        }
        assert_eq!(made, Err(SpaceError::NoMemory));
        check(&vm);
    }
    s.release();
    check_empty(&vm);
}

/// The ranges whose translations were taken away, and how many there were.
fn removals(vm: &TestVm) -> Vec<(u64, u64)> {
    let events = vm.machine().trace_take();
    let removed = events.iter().filter_map(|event| match event {
        Event::Remove { range, pages, .. } => Some((range.len() / PAGE, *pages)),
        _ => None,
    });
    removed.collect()
}

#[test]
fn s03_translations_go_all_at_once_unless_something_is_wired() {
    let vm = vm(1000);
    let fill = || {
        let s = space(&vm, 64);
        for first in [0, 10, 20] {
            anon(s, first, 2);
            s.fault(at(first), Access::Write).unwrap();
        }
        s
    };
    let s = fill();
    vm.machine().trace_start();
    s.release();
    assert_eq!(removals(&vm), [(64, 3)], "one for all of the space");
    check_empty(&vm);
    let s = fill();
    s.wire(pages(10, 2)).unwrap();
    vm.machine().trace_start();
    s.release();
    assert_eq!(
        removals(&vm),
        [(2, 1), (2, 2), (2, 1)],
        "one for each entry"
    );
    check_empty(&vm);
}

#[test]
fn s04_swap_counts_in_proportion_to_what_is_mapped() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(100)).unwrap();
    let object = vm.object_create_anonymous(8 * PAGE).unwrap();
    let s = space(&vm, 64);
    assert_eq!((s.swap_count(), s.anonymous_count()), (0, 0));
    map_at(
        s,
        0,
        8,
        Mapping::object(object, 0, Sharing::Shared, Prot::RW),
    )
    .unwrap();
    (0..8).for_each(|page| put(s, page, page));
    assert_eq!((s.swap_count(), s.anonymous_count()), (0, 8));
    s.drop_translations(pages(0, 8));
    while vm.pageout_step(1000) > 0 {}
    assert_eq!(vm.counters().swap_used, 8);
    assert_eq!((s.swap_count(), s.anonymous_count()), (8, 0));
    s.remove(pages(2, 6)).unwrap();
    assert_eq!(s.swap_count(), 2, "a quarter of it is shown");
    map_at(
        s,
        20,
        3,
        Mapping::object(object, 0, Sharing::Shared, Prot::RW),
    )
    .unwrap();
    assert_eq!(s.swap_count(), 5);
    // One page comes back, and none with it.
    s.advise(pages(0, 2), Advice::Behavior(Behavior::Random))
        .unwrap();
    get(s, 0);
    assert_eq!(
        (s.swap_count(), s.anonymous_count()),
        (5, 1),
        "7/4 and 21/8, rounded up"
    );
    s.release();
    vm.object(object).release();
    check_empty(&vm);
}

/// The document's count multiplies in 32 bits, and goes negative.
#[test]
fn s04_a_count_of_swap_does_not_overflow() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(100)).unwrap();
    let huge = 1 << 40;
    let object = vm.object_create_anonymous(huge).unwrap();
    let s = vm.space(
        vm.space_create(bsdvm::Machine::user_range(vm.machine()))
            .unwrap(),
    );
    let what = Mapping::object(object, 0, Sharing::Shared, Prot::RW);
    let place = bsdvm::Placement::FirstFit {
        from: VirtAddr(0),
        align: PAGE,
    };
    s.map(huge, place, what).unwrap();
    for i in 0..9 {
        vm.object(object).write(i << 36, &[1]).unwrap();
    }
    while vm.pageout_step(1000) > 0 {}
    assert_eq!(s.swap_count(), 9);
    s.release();
    vm.object(object).release();
    check_empty(&vm);
}

#[test]
fn s04_an_object_that_several_entries_show_counts_once() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 8);
    (0..8).for_each(|page| put(s, page, page));
    // One object, five entries.
    s.protect(pages(2, 1), Prot::READ).unwrap();
    s.protect(pages(5, 1), Prot::READ).unwrap();
    assert_eq!(draw(s, 8), "AABCCDEE");
    assert_eq!(s.anonymous_count(), 8);
    assert_eq!(s.anonymous_count(), 8, "each count is a new one");
    let child = vm.space(s.fork().unwrap());
    assert_eq!((s.anonymous_count(), child.anonymous_count()), (8, 8));
    // A file is nobody's anonymous memory.
    let file = vm
        .object_create(crate::common::Files::leak().pager(0), PAGE)
        .unwrap();
    map_at(
        s,
        20,
        1,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    )
    .unwrap();
    put(s, 20, 1);
    assert_eq!(s.anonymous_count(), 8);
    for space in [s, child] {
        space.release();
    }
    vm.object(file).release();
    check_empty(&vm);
}

/// Counts that run at once mark each other's objects over, and are right all the same.
#[test]
fn s04_counts_at_the_same_time_are_right() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 32);
    (0..32).for_each(|page| put(s, page, page));
    (0..16).for_each(|i| s.protect(pages(2 * i, 1), Prot::READ).unwrap());
    assert_eq!(s.entries(), 32);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..2000).for_each(|_| assert_eq!(s.anonymous_count(), 32)));
        }
    });
    s.release();
    check_empty(&vm);
}

#[test]
fn s05_a_child_gets_translations_of_what_it_shares_and_copies() {
    let vm = vm(1000);
    let s = space(&vm, 128);
    for (first, count) in [(0, 4), (10, 4), (20, 4), (64, 64)] {
        anon(s, first, count);
    }
    s.inherit(pages(10, 4), Inherit::Share).unwrap();
    s.inherit(pages(20, 4), Inherit::Zero).unwrap();
    for page in [0, 1, 10, 11, 20, 64] {
        touch(&vm, s.id(), 0, at(page), Some(page)).unwrap();
    }
    let child = vm.space(s.fork().unwrap());
    check(&vm);
    let faults = vm.counters().faults;
    for page in [0, 1, 10, 11] {
        let both = (frame_of(child, page), frame_of(s, page));
        assert_eq!(both.0, both.1, "page {page}");
        assert_eq!(touch(&vm, child.id(), 1, at(page), None), Ok(page));
    }
    assert_eq!(vm.counters().faults, faults, "none of them faulted");
    assert_eq!(child.resident(), 4, "a long entry is left to faults");
    assert_eq!([20, 64].map(|page| get(child, page)), [0, 64]);
    // Nothing that the child writes is seen by the parent, but for what they share.
    for page in [0, 1, 10, 11] {
        touch(&vm, child.id(), 1, at(page), Some(100 + page)).unwrap();
    }
    assert_eq!([0, 1, 10, 11].map(|page| get(s, page)), [0, 1, 110, 111]);
    check(&vm);
    for space in [s, child] {
        space.release();
    }
    check_empty(&vm);
}

/// Where tables or records cannot be had, nothing is copied, and the fork goes well.
#[test]
fn s05_a_fork_goes_well_without_copied_translations() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 4);
    for page in 0..4 {
        touch(&vm, s.id(), 0, at(page), Some(page)).unwrap();
    }
    let mut forks = 0;
    for n in 1.. {
        vm.inject_failure(n);
        let made = s.fork();
        let failed = vm.injection_left() == 0;
        vm.inject_failure(0);
        check(&vm);
        if let Ok(child) = made {
            forks += 1;
            let child = vm.space(child);
            assert_eq!([0, 1, 2, 3].map(|page| get(child, page)), [0, 1, 2, 3]);
            child.release();
        }
        if !failed {
            break;
        }
    }
    assert!(forks > 1, "not every failure is the fork's");
    s.release();
    check_empty(&vm);
}

#[test]
fn s05_what_cannot_be_forked_leaves_the_parent_alone() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 8);
    put(s, 0, 1);
    vm.set_charge_limit(vm.counters().charged_pages + 3);
    assert_eq!(s.fork(), Err(SpaceError::ChargeLimit));
    assert_eq!((get(s, 0), vm.counters().spaces), (1, 1));
    vm.set_charge_limit(u64::MAX);
    put(s, 0, 2);
    check(&vm);
    s.release();
    check_empty(&vm);
}

/// The document counts entries that are not inherited in the size of the child.
#[test]
fn s05_a_child_is_as_large_as_what_it_inherits() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 10);
    s.inherit(pages(0, 4), Inherit::None).unwrap();
    let child = vm.space(s.fork().unwrap());
    assert_eq!((child.size(), s.size()), (6 * PAGE, 10 * PAGE));
    assert_eq!(draw(child, 11), "....AAAAAA.");
    for space in [s, child] {
        space.release();
    }
    check_empty(&vm);
}
