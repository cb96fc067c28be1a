//! Maps and their entries: creation, lookups, what entries hold, when they are one. A name begins
//! with the row of the capability that it shows.

use crate::common::{
    Files, PAGE, anon, at, check, check_empty, draw, get, map_at, pages, put, space, vm,
};
use bsdvm::{
    Access, Advice, Behavior, Inherit, Machine, MapError, Mapping, ObjectId, Placement, Prot,
    Sharing, SpaceError, VirtAddr, VirtRange,
};
use bsdvm_sim::Sim;
use std::sync::atomic::{AtomicBool, Ordering};

type Space<'v> = bsdvm::Space<'v, Sim<12>>;

#[test]
fn m01_a_map_is_made_over_its_range_and_no_more() {
    let vm = vm(1000);
    let s = space(&vm, 8);
    assert_eq!((s.range(), s.entries(), s.size()), (pages(0, 8), 0, 0));
    for (first, count) in [(7, 2), (8, 1)] {
        let outside = map_at(s, first, count, Mapping::anonymous(Prot::RW));
        assert_eq!(outside, Err(MapError::InvalidAddress));
    }
    anon(s, 0, 8);
    assert_eq!(draw(s, 9), "AAAAAAAA.");
    let any = Placement::FirstFit {
        from: VirtAddr(0),
        align: PAGE,
    };
    let full = s.map(PAGE, any, Mapping::anonymous(Prot::RW));
    assert_eq!(full, Err(MapError::NoSpace));
    // What the machine cannot translate is cut off.
    let all = VirtRange::new(VirtAddr(0), VirtAddr(u64::MAX)).unwrap();
    let wide = vm.space(vm.space_create(all).unwrap());
    assert_eq!(wide.range(), vm.machine().user_range());
    // Two maps over the same addresses are two.
    let other = space(&vm, 8);
    anon(other, 0, 1);
    put(s, 0, 1);
    put(other, 0, 2);
    assert_eq!((get(s, 0), get(other, 0)), (1, 2));
    for space in [s, wide, other] {
        space.release();
    }
    check_empty(&vm);
}

#[test]
fn m01_a_machine_that_has_no_pmap_left_makes_no_map() {
    let vm = vm(1000);
    vm.machine()
        .injector()
        .fail_nth(bsdvm_sim::inject::Kind::PmapCreate, 1);
    let refused = vm.space_create(pages(0, 8));
    assert_eq!(refused, Err(SpaceError::NoResources));
    assert_eq!(vm.counters().spaces, 0);
    let s = space(&vm, 8);
    s.release();
    check_empty(&vm);
}

#[test]
fn m02_a_lookup_gives_the_entry_or_the_next_above() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 2, 2);
    anon(s, 8, 1);
    let found = |page| s.entry(at(page)).map(|info| info.range);
    assert_eq!(found(0), Some(pages(2, 2)));
    assert_eq!(found(3), Some(pages(2, 2)));
    assert_eq!(found(4), Some(pages(8, 1)));
    assert_eq!(found(9), None);
    let last = VirtAddr(at(9).0 - 1);
    assert_eq!(s.entry(last).map(|info| info.range), Some(pages(8, 1)));
    s.remove(pages(2, 1)).unwrap();
    assert_eq!(found(0), Some(pages(3, 1)), "never what was there before");
    assert!(s.covered(pages(3, 1)) && !s.covered(pages(3, 2)));
    s.release();
    check_empty(&vm);
}

/// The document keeps a hint for lookups, written under a shared lock, and has it switched off. Our
/// tree is a few steps deep and needs none: many readers agree with each other and with a writer.
#[test]
fn m02_lookups_are_right_while_others_look_and_change() {
    let vm = vm(2000);
    let s = space(&vm, 256);
    for page in (0..256).step_by(4) {
        anon(s, page, 1);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..3u64 {
            let done = &done;
            scope.spawn(move || {
                let mut page = seed * 64;
                while !done.load(Ordering::Relaxed) {
                    page = (page + 4 + seed * 4) % 256;
                    let info = s.entry(at(page)).expect("it is never removed");
                    assert!(info.range.contains(at(page)), "an entry of {page}");
                    assert!(s.covered(pages(page, 1)));
                    assert_eq!(
                        s.entry(at(page + 2))
                            .map(|i| i.range.contains(at(page + 2))),
                        { (page + 2 < 253).then_some(false) }
                    );
                }
            });
        }
        for _ in 0..200 {
            for page in (1..256).step_by(8) {
                map_at(s, page, 1, Mapping::anonymous(Prot::READ)).unwrap();
            }
            for page in (1..256).step_by(8) {
                s.remove(pages(page, 1)).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    check(&vm);
    s.release();
    check_empty(&vm);
}

#[test]
fn m10_protection_is_checked_over_a_whole_range() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 4);
    map_at(s, 4, 2, Mapping::anonymous(Prot::READ)).unwrap();
    map_at(s, 6, 1, Mapping::anonymous(Prot::ALL)).unwrap();
    let can = |first, count, prot| s.check_protection(pages(first, count), prot);
    assert!(can(0, 7, Prot::READ));
    assert!(can(0, 4, Prot::RW) && can(6, 1, Prot::RW));
    assert!(
        !can(0, 5, Prot::RW) && !can(5, 2, Prot::RW),
        "one entry does not"
    );
    assert!(!can(0, 8, Prot::READ) && !can(7, 1, Prot::NONE), "a hole");
    assert!(can(6, 1, Prot::ALL) && !can(0, 1, Prot::ALL));
    assert!(can(3, 0, Prot::ALL), "of nothing everything is allowed");
    // Inside of a page counts as the page.
    let part = VirtRange::new(VirtAddr(at(3).0 + 5), VirtAddr(at(4).0 + 1)).unwrap();
    assert!(s.check_protection(part, Prot::READ) && !s.check_protection(part, Prot::RW));
    s.protect(pages(4, 2), Prot::RW).unwrap();
    assert!(can(0, 7, Prot::RW));
    s.remove(pages(2, 1)).unwrap();
    assert!(!can(0, 7, Prot::READ));
    s.release();
    check_empty(&vm);
}

#[test]
fn e04_an_entry_holds_all_that_it_is_to() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    let file = vm.object_create(Files::leak().pager(0), 16 * PAGE).unwrap();
    let what = Mapping {
        max_prot: Prot::RW,
        inherit: Inherit::None,
        ..Mapping::object(file, 2 * PAGE, Sharing::Private, Prot::READ)
    };
    map_at(s, 4, 4, what).unwrap();
    let info = s.entry(at(4)).unwrap();
    assert_eq!(
        (info.range, info.prot, info.max_prot),
        (pages(4, 4), Prot::READ, Prot::RW)
    );
    assert_eq!(
        (info.inherit, info.sharing),
        (Inherit::None, Sharing::Private)
    );
    assert_eq!((info.object, info.offset), (Some(file), 2 * PAGE));
    assert_eq!(info.file, Some((file, 2 * PAGE)));
    assert!(info.needs_copy && !info.stack && !info.user_wired);
    assert_eq!((info.wired, info.submap, info.stack_reserve), (0, None, 0));
    assert_eq!(info.behavior, Behavior::Normal);
    assert!(!info.no_sync && !info.no_core);
    // A write makes the copy; the offset is that of the new object.
    s.protect(pages(4, 4), Prot::RW).unwrap();
    put(s, 5, 1);
    let info = s.entry(at(4)).unwrap();
    assert!(!info.needs_copy && info.object != Some(file));
    assert_eq!((info.offset, info.file), (0, Some((file, 2 * PAGE))));
    s.wire(pages(4, 4)).unwrap();
    let info = s.entry(at(4)).unwrap();
    assert_eq!((info.wired, info.user_wired), (1, true));
    // No more than the maximum, whoever asks.
    assert_eq!(s.protect(pages(4, 4), Prot::ALL), Err(MapError::Protection));
    let more = Mapping {
        prot: Prot::ALL,
        ..what
    };
    assert_eq!(map_at(s, 20, 1, more), Err(MapError::Protection));
    assert_eq!(s.entries(), 1);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

/// Something that can be changed of part of an entry, and changed back.
type Change = (
    &'static str,
    fn(Space<'_>, VirtRange),
    fn(Space<'_>, VirtRange),
);

#[test]
fn e05_entries_are_one_only_where_every_attribute_agrees() {
    let changes: [Change; 6] = [
        (
            "protection",
            |s, r| s.protect(r, Prot::READ).unwrap(),
            |s, r| s.protect(r, Prot::RW).unwrap(),
        ),
        (
            "inheritance",
            |s, r| s.inherit(r, Inherit::None).unwrap(),
            |s, r| s.inherit(r, Inherit::Copy).unwrap(),
        ),
        (
            "wiring",
            |s, r| s.wire(r).unwrap(),
            |s, r| s.unwire(r).unwrap(),
        ),
        (
            "behavior",
            |s, r| s.advise(r, Advice::Behavior(Behavior::Random)).unwrap(),
            |s, r| s.advise(r, Advice::Behavior(Behavior::Normal)).unwrap(),
        ),
        (
            "no sync",
            |s, r| s.advise(r, Advice::NoSync).unwrap(),
            |s, r| s.advise(r, Advice::AutoSync).unwrap(),
        ),
        (
            "no core",
            |s, r| s.advise(r, Advice::NoCore).unwrap(),
            |s, r| s.advise(r, Advice::Core).unwrap(),
        ),
    ];
    let vm = vm(1000);
    for (name, change, back) in changes {
        for part in [pages(2, 2), pages(0, 2), pages(4, 4)] {
            let s = space(&vm, 16);
            anon(s, 0, 8);
            put(s, 3, 3);
            change(s, part);
            let whole = |s: Space<'_>| draw(s, 9) == "AAAAAAAA.";
            assert!(!whole(s), "{name} of {part:?}");
            assert_eq!(s.size(), 8 * PAGE);
            check(&vm);
            back(s, part);
            assert!(whole(s), "{name} of {part:?} again");
            assert_eq!(get(s, 3), 3);
            check(&vm);
            s.release();
        }
    }
    check_empty(&vm);
}

#[test]
fn e05_the_maximum_stays_lowered_and_keeps_entries_apart() {
    let vm = vm(1000);
    let s = space(&vm, 16);
    anon(s, 0, 4);
    s.protect_max(pages(2, 2), Prot::RW).unwrap();
    assert_eq!(draw(s, 5), "AABB.");
    s.protect_max(pages(0, 2), Prot::RW).unwrap();
    assert_eq!(draw(s, 5), "AAAA.");
    s.release();
    check_empty(&vm);
}

#[test]
fn e05_offsets_have_to_continue() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    let file = vm.object_create(Files::leak().pager(0), 16 * PAGE).unwrap();
    let part = |offset: u64| Mapping::object(file, offset * PAGE, Sharing::Shared, Prot::RW);
    map_at(s, 0, 2, part(0)).unwrap();
    map_at(s, 2, 2, part(2)).unwrap();
    assert_eq!(draw(s, 5), "AAAA.");
    map_at(s, 4, 2, part(5)).unwrap();
    assert_eq!(draw(s, 7), "AAAABB.");
    map_at(s, 8, 2, part(0)).unwrap();
    map_at(s, 6, 2, part(7)).unwrap();
    assert_eq!(draw(s, 11), "AAAABBBBCC.");
    // The same object, private here and shared there.
    let private = Mapping::object(file, 2 * PAGE, Sharing::Private, Prot::RW);
    map_at(s, 10, 2, private).unwrap();
    assert_eq!(draw(s, 13), "AAAABBBBCCDD.");
    assert_eq!(
        vm.object(file).references(),
        5,
        "one an entry, one the test's"
    );
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

/// What a stack may still grow by belongs to its lowest entry: the document looks at it without its
/// kind, and loses it when entries merge.
#[test]
fn e05_the_reserve_of_a_stack_survives_merging() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    s.stack(at(64), 40 * PAGE, 8 * PAGE, Prot::RW).unwrap();
    let reserve = |page| s.entry(at(page)).unwrap().stack_reserve / PAGE;
    assert_eq!(reserve(56), 32);
    s.protect(pages(60, 2), Prot::READ).unwrap();
    assert_eq!((reserve(56), reserve(60), reserve(62)), (32, 0, 0));
    s.protect(pages(60, 2), Prot::RW).unwrap();
    assert_eq!((s.entries(), reserve(56)), (1, 32));
    // A mapping below, in the reserve, stays apart. The upper part has had an object since it was
    // clipped, which cannot grow downwards.
    anon(s, 50, 2);
    put(s, 53, 1);
    let drawn = format!("{}AABBBBCCCCCCCC", ".".repeat(50));
    assert_eq!(draw(s, 64), drawn);
    assert_eq!((reserve(50), reserve(52), reserve(56)), (0, 0, 0));
    s.release();
    check_empty(&vm);
}

/// Every attribute goes with both parts of an entry that is clipped.
#[test]
fn e06_both_parts_of_an_entry_are_what_it_was() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    let file = vm.object_create(Files::leak().pager(0), 16 * PAGE).unwrap();
    let what = Mapping {
        inherit: Inherit::None,
        ..Mapping::object(file, 3 * PAGE, Sharing::Shared, Prot::RW)
    };
    map_at(s, 0, 8, what).unwrap();
    s.advise(pages(0, 8), Advice::Behavior(Behavior::Sequential))
        .unwrap();
    s.advise(pages(0, 8), Advice::NoCore).unwrap();
    let whole = s.entry(at(0)).unwrap();
    s.remove(pages(3, 2)).unwrap();
    let (low, high) = (s.entry(at(0)).unwrap(), s.entry(at(5)).unwrap());
    assert_eq!((low.range, low.offset), (pages(0, 3), 3 * PAGE));
    assert_eq!((high.range, high.offset), (pages(5, 3), 8 * PAGE));
    for part in [low, high] {
        assert_eq!(
            bsdvm::EntryInfo {
                range: whole.range,
                offset: whole.offset,
                file: whole.file,
                ..part
            },
            whole
        );
    }
    s.fault(at(6), Access::Read).unwrap();
    let object: ObjectId = high.object.unwrap();
    assert_eq!(object, file);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}
