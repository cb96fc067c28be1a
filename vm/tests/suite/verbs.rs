//! The verbs of maps, spaces and objects: behaviour, failing path, state after failure. A name
//! begins with the row of the capability that it shows.

use crate::common::{
    Files, MemorySwap, PAGE, anon, at, check, check_empty, draw, get, map_at, pages, put, space,
    touch, vm,
};
use bsdvm::{
    Access, FaultError, Faulted, Inherit, MapError, Mapping, Placement, Prot, Sharing, VirtAddr,
    VirtRange,
};
use std::sync::atomic::Ordering;

#[test]
fn m03_neighbours_that_agree_are_one_entry() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 2);
    anon(s, 4, 2);
    assert_eq!(draw(s, 8), "AA..BB..");
    anon(s, 2, 2);
    assert_eq!(draw(s, 8), "AAAAAA..");
    map_at(s, 6, 2, Mapping::anonymous(Prot::READ)).unwrap();
    assert_eq!(draw(s, 9), "AAAAAABB.");
    s.protect(pages(6, 2), Prot::RW).unwrap();
    assert_eq!(draw(s, 9), "AAAAAAAA.");
    assert_eq!((s.entries(), s.size()), (1, 8 * PAGE));
    s.release();
    check_empty(&vm);
}

#[test]
fn m03_an_entry_that_follows_extends_the_object() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 2);
    put(s, 0, 5);
    anon(s, 2, 2);
    assert_eq!(draw(s, 5), "AAAA.", "one entry");
    put(s, 3, 6);
    assert_eq!(vm.counters().objects, 1);
    // Only the entry differs: the object is shared.
    map_at(s, 4, 2, Mapping::anonymous(Prot::READ)).unwrap();
    assert_eq!(draw(s, 7), "AAAABB.");
    assert_eq!(vm.counters().objects, 1);
    let (a, b) = (s.entry(at(0)).unwrap(), s.entry(at(4)).unwrap());
    assert_eq!((a.object, b.offset), (b.object, 4 * PAGE));
    assert_eq!(get(s, 4), 0);
    check(&vm);
    // Once a child sees the object, what follows gets its own.
    let child = vm.space(s.fork().unwrap());
    anon(s, 6, 2);
    assert_eq!(get(s, 6), 0);
    assert_ne!(s.entry(at(6)).unwrap().object, b.object);
    child.release();
    s.release();
    check_empty(&vm);
}

#[test]
fn m03_bounds_and_overlap_have_their_own_errors() {
    let vm = vm(1000);
    let s = space(&vm, 16);
    anon(s, 4, 4);
    let rw = Mapping::anonymous(Prot::RW);
    for (first, count, error) in [
        (3, 2, MapError::Overlap),
        (7, 2, MapError::Overlap),
        (0, 16, MapError::Overlap),
        (15, 2, MapError::InvalidAddress),
        (100, 1, MapError::InvalidAddress),
    ] {
        assert_eq!(map_at(s, first, count, rw), Err(error), "{first}+{count}");
    }
    assert_eq!(
        s.map(0, Placement::At(at(0)), rw),
        Err(MapError::InvalidAddress)
    );
    assert_eq!(
        s.map(u64::MAX, Placement::At(at(0)), rw),
        Err(MapError::InvalidAddress)
    );
    assert_eq!(
        s.map(1 << 60, Placement::At(at(0)), rw),
        Err(MapError::InvalidAddress)
    );
    let odd = VirtAddr(at(0).0 + 1);
    assert_eq!(
        s.map(PAGE, Placement::At(odd), rw),
        Err(MapError::InvalidAddress)
    );
    assert_eq!(
        s.map(PAGE, Placement::Replace(odd), rw),
        Err(MapError::InvalidAddress)
    );
    let top = VirtAddr(!(PAGE - 1));
    assert_eq!(
        s.map(2 * PAGE, Placement::At(top), rw),
        Err(MapError::InvalidAddress)
    );
    let mut what = rw;
    what.max_prot = Prot::READ;
    assert_eq!(map_at(s, 0, 1, what), Err(MapError::Protection));
    assert_eq!(draw(s, 16), "....AAAA........");
    s.release();
    check_empty(&vm);
}

#[test]
fn m04_space_is_found_first_fit_with_any_alignment() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    let rw = Mapping::anonymous(Prot::RW);
    let find = |count: u64, place| s.map(count * PAGE, place, rw).inspect(|_| check(&vm));
    let up = |page: u64, align| Placement::FirstFit {
        from: at(page),
        align,
    };
    let down = |page: u64, align| Placement::TopDown {
        below: at(page),
        align,
    };
    anon(s, 0, 2);
    anon(s, 4, 2);
    assert_eq!(find(3, up(0, PAGE)), Ok(at(6)), "two pages are too few");
    assert_eq!(find(2, up(0, PAGE)), Ok(at(2)));
    // 3 pages is no power of two; the base is not a multiple of it.
    let three = find(1, up(10, 3 * PAGE)).unwrap();
    assert_eq!(
        (three.0 % (3 * PAGE), three >= at(10), three < at(13)),
        (0, true, true)
    );
    assert_eq!(find(1, up(0, 1 << 40)), Err(MapError::NoSpace));
    for align in [0, 1, PAGE + 1] {
        assert_eq!(
            find(1, up(0, align)),
            Err(MapError::InvalidArgument),
            "{align}"
        );
    }
    assert_eq!(find(1, up(1000, PAGE)), Err(MapError::NoSpace));
    assert_eq!(
        find(
            1,
            Placement::FirstFit {
                from: VirtAddr(u64::MAX),
                align: PAGE
            }
        ),
        Err(MapError::NoSpace)
    );
    assert_eq!(find(1, up(0, 1 << 63)), Err(MapError::NoSpace));
    assert_eq!(find(2, down(64, PAGE)), Ok(at(62)));
    assert_eq!(find(2, down(64, PAGE)), Ok(at(60)));
    assert_eq!(find(2, down(1 << 40, PAGE)), Ok(at(58)), "cut to the map");
    assert_eq!(find(64, down(64, PAGE)), Err(MapError::NoSpace));
    let aligned = find(1, down(50, 16 * PAGE)).unwrap();
    assert_eq!((aligned.0 % (16 * PAGE), aligned < at(50)), (0, true));
    s.release();
    check_empty(&vm);
}

#[test]
fn m04_the_reserve_of_a_stack_is_not_free() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    s.stack(at(32), 10 * PAGE, 2 * PAGE, Prot::RW).unwrap();
    let rw = Mapping::anonymous(Prot::RW);
    let place = Placement::TopDown {
        below: at(32),
        align: PAGE,
    };
    assert_eq!(s.map(PAGE, place, rw), Ok(at(21)));
    let place = Placement::FirstFit {
        from: at(20),
        align: PAGE,
    };
    assert_eq!(s.map(2 * PAGE, place, rw), Err(MapError::NoSpace));
    assert_eq!(s.map(PAGE, place, rw), Ok(at(20)));
    s.release();
    check_empty(&vm);
}

#[test]
fn m05_replace_leaves_no_hole_and_nothing_of_the_old() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 8);
    for page in 0..8 {
        put(s, page, 9);
    }
    let what = Mapping::anonymous(Prot::READ);
    s.map(4 * PAGE, Placement::Replace(at(2)), what).unwrap();
    assert_eq!(draw(s, 9), "AABBBBCC.");
    assert_eq!((get(s, 1), get(s, 2), get(s, 5), get(s, 6)), (9, 0, 0, 9));
    assert_eq!(vm.frames_in_use(), 4 + 2);
    s.release();
    check_empty(&vm);
}

#[test]
fn e06_clipping_shares_one_object() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 6);
    s.protect(pages(2, 2), Prot::READ).unwrap();
    assert_eq!(draw(s, 7), "AABBCC.");
    let object = |page| s.entry(at(page)).unwrap().object;
    assert!(object(0).is_some());
    assert_eq!((object(0), object(0)), (object(2), object(4)));
    assert_eq!(s.entry(at(4)).unwrap().offset, 4 * PAGE);
    s.protect(pages(2, 2), Prot::RW).unwrap();
    assert_eq!(draw(s, 7), "AAAAAA.");
    s.release();
    check_empty(&vm);
}

#[test]
fn m07_protect_is_all_or_nothing() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 2);
    anon(s, 4, 4);
    put(s, 4, 1);
    s.protect_max(pages(6, 1), Prot::READ).unwrap();
    assert_eq!(s.entry(at(6)).unwrap().prot, Prot::READ);
    assert_eq!(s.protect(pages(0, 8), Prot::RW), Err(MapError::Protection));
    assert_eq!(s.entry(at(0)).unwrap().prot, Prot::RW);
    // Holes are skipped, the range is cut to the map.
    s.protect(pages(0, 100), Prot::READ).unwrap();
    assert_eq!(draw(s, 9), "AA..BBCD.");
    assert_eq!(
        s.write(at(4), &[1]).unwrap_err().why,
        FaultError::Protection
    );
    assert_eq!(get(s, 4), 1);
    assert_eq!(s.protect_max(pages(0, 2), Prot::RX), Ok(()));
    assert_eq!(
        s.entry(at(0)).unwrap().prot,
        Prot::READ,
        "never more than before"
    );
    assert_eq!(
        s.protect(VirtRange::from_len(VirtAddr(1), PAGE).unwrap(), Prot::READ),
        Err(MapError::InvalidAddress)
    );
    assert!(s.check_protection(pages(0, 2), Prot::READ));
    assert!(!s.check_protection(pages(0, 2), Prot::WRITE));
    assert!(!s.check_protection(pages(0, 5), Prot::READ), "a hole");
    assert!(s.covered(pages(4, 4)) && !s.covered(pages(3, 2)));
    s.release();
    check_empty(&vm);
}

#[test]
fn m07_a_copy_on_write_page_never_becomes_writable_by_protect() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 2);
    put(s, 0, 1);
    let child = vm.space(s.fork().unwrap());
    s.protect(pages(0, 2), Prot::READ).unwrap();
    touch(&vm, s.id(), 0, at(0), None).unwrap();
    s.protect(pages(0, 2), Prot::RW).unwrap();
    check(&vm);
    touch(&vm, s.id(), 0, at(0), Some(2)).unwrap();
    assert_eq!((get(s, 0), get(child, 0)), (2, 1));
    child.release();
    s.release();
    check_empty(&vm);
}

#[test]
fn m08_inheritance_decides_what_a_child_gets() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 8);
    for page in 0..8 {
        put(s, page, 10 + page);
    }
    s.inherit(pages(0, 2), Inherit::Share).unwrap();
    s.inherit(pages(2, 2), Inherit::None).unwrap();
    s.inherit(pages(4, 2), Inherit::Zero).unwrap();
    let child = vm.space(s.fork().unwrap());
    assert_eq!(draw(child, 9), "AA..BBCC.");
    put(child, 0, 100);
    put(child, 6, 106);
    assert_eq!((get(s, 0), get(s, 6)), (100, 16));
    assert_eq!((get(child, 1), get(child, 4), get(child, 7)), (11, 0, 17));
    assert_eq!(
        child.read(at(2), &mut [0]).unwrap_err().why,
        FaultError::InvalidAddress
    );
    put(s, 7, 107);
    assert_eq!(get(child, 7), 17);
    child.release();
    s.release();
    check_empty(&vm);
}

#[test]
fn m08_a_copy_of_shared_memory_is_private_and_leaves_the_sharers_alone() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 2);
    put(s, 0, 1);
    s.inherit(pages(0, 2), Inherit::Share).unwrap();
    let sharer = vm.space(s.fork().unwrap());
    s.inherit(pages(0, 2), Inherit::Copy).unwrap();
    let copy = vm.space(s.fork().unwrap());
    put(s, 0, 2);
    assert_eq!((get(sharer, 0), get(copy, 0)), (2, 1));
    put(sharer, 0, 3);
    assert_eq!((get(s, 0), get(copy, 0)), (3, 1));
    put(copy, 0, 4);
    assert_eq!((get(s, 0), get(copy, 0)), (3, 4));
    for each in [s, sharer, copy] {
        each.release();
    }
    check_empty(&vm);
}

#[test]
fn m09_remove_frees_what_nobody_else_reaches() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 8);
    for page in 0..8 {
        touch(&vm, s.id(), 0, at(page), Some(page)).unwrap();
    }
    assert_eq!(vm.counters().charged_pages, 8);
    s.remove(pages(2, 2)).unwrap();
    assert_eq!(draw(s, 9), "AA..BBBB.");
    assert_eq!(vm.counters().charged_pages, 6);
    assert_eq!(s.resident(), 6);
    assert_eq!(
        touch(&vm, s.id(), 0, at(2), None),
        Err(FaultError::InvalidAddress)
    );
    s.remove(pages(6, 2)).unwrap();
    anon(s, 6, 2);
    assert_eq!(
        get(s, 7),
        0,
        "an object that is extended again is empty there"
    );
    s.remove(pages(0, 32)).unwrap();
    assert_eq!((s.entries(), s.size(), vm.counters().objects), (0, 0, 0));
    s.remove(pages(0, 100)).unwrap();
    let odd = VirtRange::from_len(VirtAddr(at(0).0 + 8), PAGE).unwrap();
    assert_eq!(s.remove(odd), Err(MapError::InvalidAddress));
    s.release();
    check_empty(&vm);
}

#[test]
fn m11_clean_writes_files_and_refuses_holes() {
    let vm = vm(1000);
    let files = Files::leak();
    let file = vm.object_create(files.pager(3), 4 * PAGE - 100).unwrap();
    let s = space(&vm, 32);
    let map =
        |first, sharing| map_at(s, first, 4, Mapping::object(file, 0, sharing, Prot::RW)).unwrap();
    map(0, Sharing::Shared);
    map(8, Sharing::Private);
    put(s, 1, 7);
    put(s, 3, 8);
    put(s, 8, 9);
    assert_eq!(s.clean(pages(0, 5), false), Err(MapError::Hole));
    assert_eq!(files.puts.load(Ordering::Relaxed), 0);
    s.clean(pages(0, 2), false).unwrap();
    assert_eq!(
        files.puts.load(Ordering::Relaxed),
        1,
        "one dirty page in the range"
    );
    s.clean(pages(0, 4), false).unwrap();
    s.clean(pages(8, 4), false).unwrap();
    assert_eq!(
        files.puts.load(Ordering::Relaxed),
        2,
        "private copies are not written"
    );
    let kept = vm.object(file).resident_pages();
    assert!(kept >= 2, "cleaning alone drops nothing: {kept}");
    let word = |page: u64| files.pages.lock().unwrap()[&(3, page)][..8].to_vec();
    assert_eq!(
        (word(1), word(3)),
        (7u64.to_le_bytes().to_vec(), 8u64.to_le_bytes().to_vec())
    );
    // The end of the last page is no part of the file.
    touch(&vm, s.id(), 0, VirtAddr(at(4).0 - 8), Some(u64::MAX)).unwrap();
    s.clean(pages(0, 4), false).unwrap();
    assert_eq!(files.pages.lock().unwrap()[&(3, 3)][4088..], [0; 8]);
    // A store through a translation is seen again after each clean.
    touch(&vm, s.id(), 1, at(1), Some(17)).unwrap();
    s.clean(pages(0, 4), true).unwrap();
    assert_eq!(word(1), 17u64.to_le_bytes());
    assert_eq!(
        vm.object(file).resident_pages(),
        0,
        "clean pages are dropped on demand"
    );
    assert_eq!((get(s, 1), get(s, 8)), (17, 9));
    s.release();
    vm.object(file).release();
    check_empty(&vm);
    assert_eq!(files.closed.load(Ordering::Relaxed), 1);
}

#[test]
fn m13_discard_brings_no_older_data_back() {
    let vm = vm(1000);
    let files = Files::leak();
    files
        .pages
        .lock()
        .unwrap()
        .insert((0, 1), vec![5; PAGE as usize]);
    let file = vm.object_create(files.pager(0), 4 * PAGE).unwrap();
    let s = space(&vm, 32);
    anon(s, 0, 4);
    map_at(
        s,
        8,
        4,
        Mapping::object(file, 0, Sharing::Private, Prot::RW),
    )
    .unwrap();
    map_at(
        s,
        16,
        4,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    )
    .unwrap();
    put(s, 1, 11);
    put(s, 9, 12);
    let child = vm.space(s.fork().unwrap());
    put(s, 1, 21);
    put(s, 9, 22);
    put(s, 18, 23);
    s.discard(pages(0, 32)).unwrap();
    check(&vm);
    assert_eq!((get(s, 1), get(s, 9)), (0, 0x0505_0505_0505_0505));
    assert_eq!(get(s, 18), 23, "shared memory keeps what was written");
    assert_eq!((get(child, 1), get(child, 9)), (11, 12));
    child.discard(pages(1, 1)).unwrap();
    assert_eq!((get(child, 1), draw(child, 5)), (0, "ABCC.".into()));
    child.release();
    assert_eq!(get(s, 1), 0);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn m16_lookups_check_access_and_force_copies_for_debuggers() {
    let vm = vm(1000);
    let files = Files::leak();
    let file = vm.object_create(files.pager(0), 4 * PAGE).unwrap();
    let s = space(&vm, 32);
    map_at(
        s,
        0,
        2,
        Mapping::object(file, 0, Sharing::Private, Prot::RX),
    )
    .unwrap();
    assert_eq!(s.fault(at(0), Access::Write), Err(FaultError::Protection));
    assert_eq!(s.fault(at(0), Access::Execute), Ok(Faulted::PagedIn));
    assert_eq!(s.fault(at(1), Access::Execute), Ok(Faulted::Resident));
    s.write_forced(at(0), &[0xcc]).unwrap();
    let mut byte = [0];
    s.read(at(0), &mut byte).unwrap();
    vm.object(file).read(0, &mut [1]).unwrap();
    assert_eq!((byte[0], s.entry(at(0)).unwrap().prot), (0xcc, Prot::RX));
    let mut original = [9];
    vm.object(file).read(0, &mut original).unwrap();
    assert_eq!(original, [0], "the file is not changed");
    s.protect_max(pages(0, 2), Prot::READ).unwrap();
    assert_eq!(
        s.write_forced(at(0), &[1]).unwrap_err().why,
        FaultError::Protection
    );
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn m17_every_change_bumps_the_stamp() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    let mut last = s.stamp();
    let mut changed = |what: &str| {
        assert!(s.stamp() > last, "{what}");
        last = s.stamp();
    };
    anon(s, 0, 8);
    changed("map");
    s.protect(pages(0, 2), Prot::READ).unwrap();
    changed("protect");
    s.wire(pages(3, 1)).unwrap();
    changed("wire");
    let child = vm.space(s.fork().unwrap());
    changed("fork");
    s.remove(pages(0, 1)).unwrap();
    changed("remove");
    get(s, 4);
    assert_eq!(s.stamp(), last, "a read changes nothing");
    child.release();
    s.release();
    check_empty(&vm);
}

#[test]
fn w01_user_wiring_counts_once_and_pages_stay() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(64)).unwrap();
    let s = space(&vm, 32);
    anon(s, 0, 8);
    put(s, 1, 7);
    s.wire(pages(0, 4)).unwrap();
    s.wire(pages(2, 4)).unwrap();
    let info = s.entry(at(3)).unwrap();
    assert_eq!((info.wired, info.user_wired), (1, true));
    check(&vm);
    for page in 0..8 {
        put(s, page, page);
    }
    for _ in 0..4 {
        vm.pageout_step(100);
    }
    assert_eq!(vm.counters().swap_used, 2, "all but the wired ones went");
    let mut resident = Vec::new();
    s.residency(pages(0, 8), &mut |_, r| resident.push(r))
        .unwrap();
    assert_eq!(resident, [true, true, true, true, true, true, false, false]);
    assert_eq!(s.wire(pages(6, 4)), Err(MapError::Hole));
    assert_eq!(s.discard(pages(0, 1)), Err(MapError::Wired));
    assert_eq!(s.unwire(pages(0, 8)), Err(MapError::NotWired));
    assert!(s.entry(at(3)).unwrap().user_wired, "nothing changed");
    s.unwire(pages(0, 6)).unwrap();
    assert_eq!(draw(s, 9), "AAAAAAAA.");
    for _ in 0..4 {
        vm.pageout_step(100);
    }
    assert_eq!(vm.counters().swap_used, 8);
    assert_eq!(s.unwire(pages(7, 2)), Err(MapError::Hole));
    assert_eq!(s.unwire(pages(0, 8)), Err(MapError::NotWired));
    s.release();
    check_empty(&vm);
}

#[test]
fn w01_removing_a_wired_range_unwires_it() {
    let vm = vm(1000);
    let files = Files::leak();
    let file = vm.object_create(files.pager(0), 4 * PAGE).unwrap();
    let s = space(&vm, 32);
    map_at(s, 0, 4, Mapping::object(file, 0, Sharing::Shared, Prot::RW)).unwrap();
    let other = space(&vm, 32);
    map_at(
        other,
        0,
        4,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    )
    .unwrap();
    s.wire(pages(0, 4)).unwrap();
    other.wire(pages(0, 2)).unwrap();
    s.release();
    vm.pageout_step(10);
    vm.pageout_step(10);
    assert_eq!(vm.object(file).resident_pages(), 2, "the other's stay");
    other.remove(pages(0, 4)).unwrap();
    vm.pageout_step(10);
    assert_eq!(vm.object(file).resident_pages(), 0);
    other.release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn w04_what_is_mapped_later_is_wired() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    s.set_wire_future(true);
    anon(s, 0, 4);
    assert_eq!(vm.counters().zero_fill, 4);
    assert!(s.entry(at(0)).unwrap().user_wired);
    s.stack(at(60), 40 * PAGE, PAGE, Prot::RW).unwrap();
    assert!(s.grow_stack(at(50)).unwrap());
    assert!(s.entry(at(50)).unwrap().user_wired);
    s.set_wire_future(false);
    anon(s, 8, 1);
    assert!(!s.entry(at(8)).unwrap().user_wired);
    s.release();
    check_empty(&vm);
}

#[test]
fn w05_a_wired_page_is_copied_at_fork() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(64)).unwrap();
    let s = space(&vm, 32);
    anon(s, 0, 4);
    put(s, 0, 1);
    s.wire(pages(0, 4)).unwrap();
    touch(&vm, s.id(), 0, at(0), Some(2)).unwrap();
    let before = vm.counters();
    let child = vm.space(s.fork().unwrap());
    assert_eq!(vm.frames_in_use(), 8 + 1, "four pages each");
    let info = child.entry(at(0)).unwrap();
    assert_eq!((info.wired, info.needs_copy), (0, false));
    touch(&vm, s.id(), 0, at(0), Some(3)).unwrap();
    put(child, 1, 4);
    assert_eq!((get(s, 0), get(child, 0), get(s, 1)), (3, 2, 0));
    assert_eq!(vm.counters().cow_copied, before.cow_copied);
    vm.pageout_step(100);
    vm.pageout_step(100);
    assert_eq!(
        vm.counters().swap_used,
        4,
        "the child's pages, and no wired one"
    );
    child.release();
    s.release();
    check_empty(&vm);
}

/// A copy of shared memory that looks at another place of what is behind it.
#[test]
fn m08_a_copy_of_part_of_what_is_shared_shows_that_part() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 8);
    for page in 0..8 {
        put(s, page, 10 + page);
    }
    let first = vm.space(s.fork().unwrap());
    s.inherit(pages(4, 4), Inherit::Share).unwrap();
    let sharer = vm.space(s.fork().unwrap());
    put(sharer, 6, 99);
    s.inherit(pages(4, 4), Inherit::Copy).unwrap();
    let copy = vm.space(s.fork().unwrap());
    check(&vm);
    put(s, 5, 50);
    put(copy, 7, 70);
    let all = |s| [3, 4, 5, 6, 7].map(|p| get(s, p));
    assert_eq!(all(copy), [13, 14, 15, 99, 70]);
    assert_eq!(all(sharer), [13, 14, 50, 99, 17]);
    assert_eq!(all(first), [13, 14, 15, 16, 17]);
    for each in [first, sharer, copy, s] {
        each.release();
        check(&vm);
    }
    check_empty(&vm);
}

/// A sparse range of 2^30 pages: only what is there is looked at, in a chain as well.
#[test]
fn residents_of_a_huge_range_are_told_by_themselves() {
    let vm = vm(64);
    let s = space(&vm, 1 << 31);
    anon(s, 4, 1 << 30);
    for page in [4, 9, 1 << 20, (1 << 30) + 3] {
        put(s, page, page);
    }
    let child = vm.space(s.fork().unwrap());
    put(child, 9, 1);
    put(child, 77, 1);
    let told = |s: bsdvm::Space<'_, _>, range| {
        let mut told = Vec::new();
        s.residents(range, &mut |va| told.push(va)).unwrap();
        told
    };
    assert_eq!(
        told(child, pages(0, 1 << 31)),
        [at(4), at(9), at(77), at(1 << 20), at((1 << 30) + 3)]
    );
    assert_eq!(
        told(s, pages(5, 100)),
        [at(9)],
        "holes and ends are kept to"
    );
    assert_eq!(told(s, pages(0, 4)), []);
    child.release();
    check(&vm);
}
