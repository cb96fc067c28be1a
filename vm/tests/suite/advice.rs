//! Advice, mappings that are entered ahead, hints. A name begins with the row of the capability
//! that it shows.

use crate::common::scripted::{Stage, frame_of, is_resident, word};
use crate::common::{
    MemorySwap, PAGE, TestVm, anon, at, check, check_empty, draw, get, map_at, pages, put, space,
    touch, vm,
};
use bsdvm::{
    Access, Advice, Behavior, Faulted, Machine, MapError, Mapping, ObjectId, Placement, Prefault,
    Prot, Randomize, Sharing, VirtAddr, VirtRange,
};

const RANDOM: Advice = Advice::Behavior(Behavior::Random);
const SEQUENTIAL: Advice = Advice::Behavior(Behavior::Sequential);

fn shared(object: ObjectId) -> Mapping {
    Mapping::object(object, 0, Sharing::Shared, Prot::RW)
}

fn private(object: ObjectId) -> Mapping {
    Mapping::object(object, 0, Sharing::Private, Prot::RW)
}

#[test]
fn m12_advice_stands_in_the_entries_of_the_range() {
    let vm = vm(1000);
    let s = space(&vm, 16);
    anon(s, 0, 6);
    anon(s, 8, 4);
    assert_eq!(
        s.advise(pages(4, 6), SEQUENTIAL),
        Ok(()),
        "holes are skipped"
    );
    assert_eq!(draw(s, 13), "AAAABB..CCDD.");
    let of = |page| s.entry(at(page)).unwrap().behavior;
    assert_eq!(
        [0, 4, 8, 10].map(of),
        [
            Behavior::Normal,
            Behavior::Sequential,
            Behavior::Sequential,
            Behavior::Normal
        ]
    );
    s.advise(pages(0, 6), Advice::NoCore).unwrap();
    s.advise(pages(4, 1), Advice::NoSync).unwrap();
    let info = s.entry(at(4)).unwrap();
    assert_eq!(
        (info.no_core, info.no_sync, info.range),
        (true, true, pages(4, 1))
    );
    let info = s.entry(at(8)).unwrap();
    assert!(!info.no_core && !info.no_sync);
    // Each is taken back, and the entries are one again; the range is cut to the map.
    let far = VirtRange::new(VirtAddr(0), VirtAddr(1 << 46)).unwrap();
    for advice in [
        Advice::Core,
        Advice::AutoSync,
        Advice::Behavior(Behavior::Normal),
    ] {
        assert_eq!(s.advise(far, advice), Ok(()));
    }
    assert_eq!(draw(s, 13), "AAAAAA..BBBB.");
    let info = s.entry(at(4)).unwrap();
    assert!(!info.no_core && !info.no_sync);
    s.release();
    check_empty(&vm);
}

#[test]
fn m12_advice_that_cannot_be_taken_changes_nothing() {
    let vm = vm(1000);
    let s = space(&vm, 16);
    anon(s, 0, 8);
    let crooked = VirtRange::new(at(1), VirtAddr(at(2).0 + 1)).unwrap();
    for advice in [RANDOM, Advice::NoCore, Advice::Free, Advice::WillNeed] {
        let stamp = s.stamp();
        assert_eq!(s.advise(crooked, advice), Err(MapError::InvalidAddress));
        assert_eq!((s.stamp(), s.entries()), (stamp, 1));
    }
    // Fill the slabs, so that a clip needs a frame.
    let mut filled = 0;
    while filled < 400 {
        vm.inject_failure(1);
        let clipped = s.advise(pages(2 + filled % 2, 1), RANDOM);
        if vm.injection_left() == 0 {
            assert_eq!(clipped, Err(MapError::NoMemory));
            assert_eq!((s.entries(), draw(s, 3)), (1, "AAA".into()));
            break;
        }
        vm.inject_failure(0);
        s.advise(pages(0, 16), Advice::Behavior(Behavior::Normal))
            .unwrap();
        let other = space(&vm, 64);
        (0..32).for_each(|page| anon(other, 2 * page, 1));
        filled += 1;
    }
    assert!(filled < 400, "no advice ever failed");
    check(&vm);
}

#[test]
fn m12_the_order_of_use_decides_what_comes_with_a_page() {
    for (advice, read, entered) in [
        (Advice::Behavior(Behavior::Normal), 16, 0..16),
        (SEQUENTIAL, 29, 3..19),
        (RANDOM, 1, 3..4),
    ] {
        let stage = Stage::new(1000);
        let file = stage.file(64);
        let s = stage.space();
        map_at(s, 0, 64, shared(file)).unwrap();
        s.advise(pages(0, 64), advice).unwrap();
        s.fault(at(3), Access::Read).unwrap();
        assert_eq!(stage.vm.object(file).resident_pages(), read, "{advice:?}");
        // With everything in memory, what is entered with a page?
        (0..64).for_each(|page| {
            stage.vm.object(file).read(page * PAGE, &mut [0]).unwrap();
        });
        s.drop_translations(pages(0, 64));
        // An aligned window, or one that begins here.
        s.fault(at(3), Access::Read).unwrap();
        let here: Vec<u64> = (0..64).filter(|&p| frame_of(s, p).is_some()).collect();
        assert_eq!(here, entered.collect::<Vec<_>>(), "{advice:?}");
        stage.end(&[s], &[file]);
    }
}

#[test]
fn m12_a_periodic_sync_leaves_alone_what_it_is_to() {
    let stage = Stage::new(1000);
    let file = stage.file(4);
    let s = stage.space();
    map_at(s, 0, 4, shared(file)).unwrap();
    map_at(s, 10, 4, shared(file)).unwrap();
    s.advise(pages(0, 4), Advice::NoSync).unwrap();
    for page in 0..3 {
        stage.store(s, 0, page, 100 + page);
    }
    stage.store(s, 1, 13, 103);
    // A store elsewhere to the same page is to be seen.
    stage.load(s, 1, 11);
    stage.store(s, 1, 11, 111);
    stage.vm.object(file).write(2 * PAGE, &[122]).unwrap();
    stage.vm.object(file).sync().unwrap();
    let on_disk = || [0, 1, 2, 3].map(|page| stage.on_disk(page));
    assert_eq!(on_disk(), [word(0), 111, 122, 103]);
    // What a caller asks for is written, and it is dirty still if nothing was.
    assert_eq!(get(s, 0), 100);
    s.clean(pages(0, 1), false).unwrap();
    assert_eq!(on_disk(), [100, 111, 122, 103]);
    // Advised otherwise, it is synced from then on.
    stage.store(s, 0, 0, 200);
    stage.vm.object(file).sync().unwrap();
    assert_eq!(stage.on_disk(0), 100);
    s.advise(pages(0, 4), Advice::AutoSync).unwrap();
    s.drop_translations(pages(0, 4));
    stage.store(s, 0, 0, 201);
    stage.vm.object(file).sync().unwrap();
    assert_eq!(stage.on_disk(0), 201);
    check(stage.vm);
    stage.end(&[s], &[file]);
}

#[test]
fn m12_a_sync_that_fails_keeps_the_page_dirty() {
    let stage = Stage::new(1000);
    let file = stage.file(1);
    stage.vm.object(file).write(0, &[9]).unwrap();
    stage
        .files
        .fail_put
        .store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(stage.vm.object(file).sync().is_err());
    stage
        .files
        .fail_put
        .store(false, std::sync::atomic::Ordering::Relaxed);
    stage.vm.object(file).sync().unwrap();
    assert_eq!(stage.on_disk(0) & 0xff, 9);
    stage.end(&[], &[file]);
}

#[test]
fn m12_invalidating_takes_translations_and_nothing_else() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 4);
    anon(s, 6, 2);
    for page in [0, 1, 2, 3, 6] {
        touch(&vm, s.id(), 0, at(page), Some(page)).unwrap();
    }
    s.wire(pages(6, 1)).unwrap();
    s.advise(pages(1, 6), Advice::Invalidate).unwrap();
    let entered = [0, 1, 2, 3, 6].map(|page| frame_of(s, page).is_some());
    assert_eq!(entered, [true, false, false, false, false]);
    assert_eq!(s.entry(at(6)).unwrap().wired, 1);
    assert_eq!(draw(s, 9), "AAAA..BC.", "nothing was clipped by it");
    for page in [0, 1, 2, 3, 6] {
        assert_eq!(touch(&vm, s.id(), 1, at(page), None), Ok(page));
    }
    check(&vm);
    s.release();
    check_empty(&vm);
}

#[test]
fn m12_submaps_are_skipped() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 12);
    let sub = vm.space(vm.submap_create(s.id(), pages(4, 4)).unwrap());
    s.submap(pages(4, 4), sub.id()).unwrap();
    anon(sub, 4, 2);
    put(sub, 4, 7);
    touch(&vm, s.id(), 0, at(4), None).unwrap();
    let before = s.entry(at(4)).unwrap();
    for advice in [RANDOM, Advice::NoCore, Advice::Invalidate, Advice::Free] {
        assert_eq!(s.advise(pages(2, 4), advice), Ok(()));
    }
    assert_eq!(s.entry(at(4)).unwrap(), before);
    assert_eq!(draw(s, 12), "AABBCCCCDDDD");
    assert!(frame_of(s, 4).is_some());
    assert_eq!(get(sub, 4), 7);
    sub.release();
    s.release();
    check_empty(&vm);
}

#[test]
fn m13_what_is_needed_is_entered_ahead() {
    let stage = Stage::new(1000);
    let file = stage.file(40);
    let s = stage.space();
    map_at(s, 0, 40, shared(file)).unwrap();
    for page in [0, 20, 39] {
        s.advise(pages(0, 40), RANDOM).unwrap();
        s.fault(at(page), Access::Read).unwrap();
    }
    anon(s, 50, 4);
    put(s, 51, 5);
    s.drop_translations(pages(0, 64));
    touch(stage.vm, s.id(), 0, at(51), Some(5)).unwrap();
    let stamp = s.stamp();
    s.advise(pages(0, 64), Advice::WillNeed).unwrap();
    assert_eq!(s.stamp(), stamp, "the map is only read");
    let entered: Vec<u64> = (0..64).filter(|&p| frame_of(s, p).is_some()).collect();
    assert_eq!(entered, [0, 20, 39, 51]);
    assert_eq!(
        stage.vm.object(file).resident_pages(),
        3,
        "nothing is read in"
    );
    let faults = stage.vm.counters().faults;
    stage.store(s, 0, 51, 6);
    assert_eq!(stage.vm.counters().faults, faults, "what was entered stays");
    // A write is still a fault: the page becomes dirty, or is copied.
    stage.store(s, 0, 20, 1);
    stage.vm.object(file).clean(0, 40 * PAGE).unwrap();
    assert_eq!(stage.on_disk(20), 1);
    check(stage.vm);
    stage.end(&[s], &[file]);
}

#[test]
fn m13_what_is_not_needed_is_the_next_to_go() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(100)).unwrap();
    let s = space(&vm, 64);
    anon(s, 0, 32);
    for page in 0..32 {
        touch(&vm, s.id(), 0, at(page), Some(page)).unwrap();
    }
    let stamp = s.stamp();
    s.advise(pages(20, 4), Advice::DontNeed).unwrap();
    assert_eq!(s.stamp(), stamp, "the map is only read");
    assert_eq!(vm.pageout_step(4), 4);
    let gone: Vec<u64> = (0..32).filter(|&page| !is_resident(s, page)).collect();
    assert_eq!(gone, [20, 21, 22, 23]);
    assert_eq!(get(s, 21), 21, "contents stay");
    check(&vm);
    s.release();
    check_empty(&vm);
}

#[test]
fn m13_freed_pages_are_dropped_unless_they_are_written_again() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(100)).unwrap();
    let s = space(&vm, 64);
    anon(s, 0, 8);
    for page in 0..8 {
        touch(&vm, s.id(), 0, at(page), Some(page + 1)).unwrap();
    }
    s.wire(pages(7, 1)).unwrap();
    // One of them is on swap: the slot is given back at once.
    s.advise(pages(6, 1), Advice::DontNeed).unwrap();
    assert_eq!(vm.pageout_step(1), 1);
    assert_eq!(vm.counters().swap_used, 1);
    let stamp = s.stamp();
    s.advise(pages(1, 7), Advice::Free).unwrap();
    assert_eq!((s.stamp(), vm.counters().swap_used), (stamp, 0));
    assert_eq!(get(s, 6), 0);
    assert_eq!(get(s, 2), 3, "nobody needed the frame yet");
    touch(&vm, s.id(), 1, at(3), Some(33)).unwrap();
    put(s, 4, 44);
    let written = vm.counters().page_out;
    while vm.pageout_step(1000) > 0 {}
    let now = [0, 1, 2, 3, 4, 5, 6, 7].map(|page| get(s, page));
    assert_eq!(now, [1, 0, 0, 33, 44, 0, 0, 8]);
    assert_eq!(vm.counters().page_out, written + 3, "0, 3 and 4");
    check(&vm);
    s.release();
    check_empty(&vm);
}

/// `MADV_FREE` above a shadowed page must never bring older data back.
#[test]
fn m13_freeing_brings_no_older_data_back() {
    let stage = Stage::new(1000);
    let file = stage.file(4);
    let s = stage.space();
    anon(s, 0, 4);
    put(s, 0, 1);
    put(s, 1, 1);
    map_at(s, 10, 4, private(file)).unwrap();
    put(s, 11, 1);
    let child = stage.fork(s.id());
    // As long as it lives, the page from before is there behind the two others.
    let witness = stage.fork(s.id());
    put(s, 0, 2);
    put(child, 0, 3);
    for space in [s, child] {
        space.advise(pages(0, 64), Advice::Free).unwrap();
    }
    stage.page_out_all();
    for (space, own) in [(s, 2), (child, 3)] {
        let now = get(space, 0);
        assert!(now == own || now == 0, "{now} was written before {own}");
        // What both still share is nobody's alone to free.
        assert_eq!(
            (get(space, 1), get(space, 11), get(space, 10)),
            (1, 1, word(0))
        );
    }
    assert_eq!(get(witness, 0), 1);
    check(stage.vm);
    // Alone again, it is.
    child.release();
    witness.release();
    s.advise(pages(0, 4), Advice::Free).unwrap();
    stage.page_out_all();
    assert!([0, 2].contains(&get(s, 0)));
    stage.end(&[s], &[file]);
}

#[test]
fn m13_shared_memory_is_not_freed() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(100)).unwrap();
    let object = vm.object_create_anonymous(2 * PAGE).unwrap();
    let s = space(&vm, 64);
    map_at(s, 0, 2, shared(object)).unwrap();
    put(s, 0, 5);
    let anonymous = Mapping {
        sharing: Sharing::Shared,
        ..Mapping::anonymous(Prot::RW)
    };
    map_at(s, 4, 1, anonymous).unwrap();
    put(s, 4, 6);
    s.advise(pages(0, 6), Advice::Free).unwrap();
    while vm.pageout_step(1000) > 0 {}
    assert_eq!((get(s, 0), get(s, 4)), (5, 6));
    s.release();
    vm.object(object).release();
    check_empty(&vm);
}

/// A page that somebody works on is not freed under him: a device is writing to it.
#[test]
fn m13_a_page_in_use_is_not_freed() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(100)).unwrap();
    let s = space(&vm, 64);
    anon(s, 0, 2);
    put(s, 0, 1);
    let object = vm.object(s.entry(at(0)).unwrap().object.unwrap());
    let grabbed = object.grab(0, Access::Write).unwrap();
    s.advise(pages(0, 2), Advice::Free).unwrap();
    bsdvm::Memory::write(vm.machine(), grabbed.frame(), 0, &[9]);
    drop(grabbed);
    while vm.pageout_step(1000) > 0 {}
    assert_eq!(get(s, 0), 9);
    s.release();
    check_empty(&vm);
}

/// The document counts pages and bytes in 32 bits: beyond 2 GiB it advises the wrong range.
#[test]
fn m13_advice_reaches_beyond_two_gibibytes() {
    let vm = vm(1000);
    let id = vm.space_create(vm.machine().user_range()).unwrap();
    let s = vm.space(id);
    let place = Placement::FirstFit {
        from: VirtAddr(0),
        align: PAGE,
    };
    let base = s.map(1 << 40, place, Mapping::anonymous(Prot::RW)).unwrap();
    let page = |gib: u64| base.checked_add(gib << 30).unwrap();
    let places = [0, 1, 3, 5, 9, 500, 1023];
    for gib in places {
        s.write(page(gib), &[1]).unwrap();
    }
    let all = VirtRange::from_len(base, 1 << 40).unwrap();
    s.drop_translations(all);
    let most = VirtRange::new(page(2), page(1023)).unwrap();
    s.advise(most, Advice::WillNeed).unwrap();
    let entered = |gib: &u64| s.with_pmap(|p| bsdvm::Pmap::extract(p, page(*gib)).is_some());
    let found: Vec<u64> = places
        .into_iter()
        .filter(|g| entered(g) == Some(true))
        .collect();
    assert_eq!(found, [3, 5, 9, 500]);
    s.advise(most, Advice::Free).unwrap();
    while vm.pageout_step(1000) > 0 {}
    let left: Vec<u64> = places
        .into_iter()
        .filter(|&gib| {
            let mut byte = [0];
            s.read(page(gib), &mut byte).unwrap();
            byte == [1]
        })
        .collect();
    assert_eq!(left, [0, 1, 1023], "there is no swap: what is dirty stays");
    s.release();
    check_empty(&vm);
}

fn ahead(vm: &TestVm, file: ObjectId, count: u64, prefault: Prefault) -> Vec<u64> {
    let s = space(vm, 256);
    s.map_ahead(count * PAGE, Placement::At(at(0)), private(file), prefault)
        .unwrap();
    let faults = vm.counters().faults;
    let entered: Vec<u64> = (0..256).filter(|&p| frame_of(s, p).is_some()).collect();
    for &page in &entered {
        assert_eq!(touch(vm, s.id(), 0, at(page), None), Ok(word(page)));
    }
    assert_eq!(vm.counters().faults, faults, "no fault is left to take");
    // Private: a store is seen by nobody else.
    if let Some(&page) = entered.first() {
        touch(vm, s.id(), 0, at(page), Some(1)).unwrap();
        let mut bytes = [0; 8];
        vm.object(file).read(page * PAGE, &mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), word(page));
    }
    check(vm);
    s.release();
    entered
}

#[test]
fn m14_a_mapping_is_entered_ahead_of_the_faults() {
    let stage = Stage::new(1000);
    let file = stage.file(200);
    let none = ahead(stage.vm, file, 200, Prefault::Full);
    assert_eq!(none, [], "nothing is in memory, and nothing is read in");
    for page in (0..200).step_by(7) {
        stage
            .vm
            .object(file)
            .write(page * PAGE, &word(page).to_le_bytes())
            .unwrap();
    }
    let resident: Vec<u64> = (0..200)
        .filter(|&page| {
            let s = stage.space();
            let what = Mapping::object(file, page * PAGE, Sharing::Shared, Prot::READ);
            map_at(s, 0, 1, what).unwrap();
            let here = is_resident(s, 0);
            s.release();
            here
        })
        .collect();
    assert!(resident.len() > 100);
    assert_eq!(ahead(stage.vm, file, 200, Prefault::Full), resident);
    assert_eq!(
        ahead(stage.vm, file, 200, Prefault::Partial),
        resident[..96]
    );
    let short: Vec<u64> = resident.iter().copied().filter(|&page| page < 30).collect();
    assert_eq!(ahead(stage.vm, file, 30, Prefault::Partial), short);
    stage.end(&[], &[file]);
}

#[test]
fn m14_what_cannot_be_mapped_is_not_entered() {
    let stage = Stage::new(1000);
    let file = stage.file(4);
    stage.vm.object(file).read(0, &mut [0]).unwrap();
    let s = stage.space();
    anon(s, 2, 1);
    let refused = s.map_ahead(4 * PAGE, Placement::At(at(0)), shared(file), Prefault::Full);
    assert_eq!(refused, Err(MapError::Overlap));
    assert_eq!(s.resident(), 0);
    // Nothing allowed, nothing entered; and a failure to enter is none of the mapping's.
    let closed = Mapping::object(file, 0, Sharing::Shared, Prot::NONE);
    s.map_ahead(4 * PAGE, Placement::At(at(10)), closed, Prefault::Full)
        .unwrap();
    assert_eq!(s.resident(), 0);
    for n in 1..20 {
        stage.vm.inject_failure(n);
        let mapped = s.map_ahead(
            4 * PAGE,
            Placement::At(at(20)),
            shared(file),
            Prefault::Full,
        );
        stage.vm.inject_failure(0);
        check(stage.vm);
        if mapped.is_ok() {
            s.remove(pages(20, 4)).unwrap();
        }
    }
    stage.end(&[s], &[file]);
}

#[test]
fn m15_a_hint_keeps_away_from_the_heap() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    let program = VirtRange::new(VirtAddr(0x40_0000), VirtAddr(0x80_0001)).unwrap();
    let heap_end = VirtAddr(0x80_1000);
    for (wish, hint) in [
        (None, heap_end),
        (Some(0x40_0000), heap_end),
        (Some(0x80_0000), heap_end),
        (Some(0x80_0001), VirtAddr(0x80_0001)),
        (Some(0x3f_ffff), VirtAddr(0x3f_ffff)),
        (Some(0x7fff_0000_0000), VirtAddr(0x7fff_0000_0000)),
    ] {
        assert_eq!(s.hint(wish.map(VirtAddr), program), hint, "{wish:x?}");
    }
    assert_eq!(vm.randomize(), Randomize::Off);
    vm.set_randomize(Randomize::On);
    assert_eq!(vm.randomize(), Randomize::On);
    let hints: std::collections::BTreeSet<u64> = (0..64).map(|_| s.hint(None, program).0).collect();
    assert!(hints.len() > 32, "they differ");
    for hint in hints {
        assert_eq!(hint % PAGE, 0);
        assert!((heap_end.0..heap_end.0 + (256 << 20)).contains(&hint));
    }
    // A wish is no less one for it.
    assert_eq!(s.hint(Some(VirtAddr(0x40_0000)), program), heap_end);
    assert_eq!(s.hint(Some(VirtAddr(0x1000)), program), VirtAddr(0x1000));
    // At the end of all addresses nothing overflows.
    let top = VirtRange::new(VirtAddr(0), VirtAddr(u64::MAX)).unwrap();
    assert!(s.hint(None, top).0 >= u64::MAX - PAGE);
    s.release();
    check_empty(&vm);
}

#[test]
fn m16_faults_go_on_after_advice_at_any_moment() {
    let stage = Stage::new(1000);
    let file = stage.file(8);
    let s = stage.space();
    let id = s.id();
    map_at(s, 0, 8, shared(file)).unwrap();
    // In the middle of reading a page in, the range is advised, invalidated and freed.
    stage.in_get(move || {
        let s = stage.vm.space(id);
        for advice in [RANDOM, Advice::Invalidate, Advice::Free, Advice::DontNeed] {
            s.advise(pages(0, 8), advice).unwrap();
        }
        s.advise(pages(0, 8), Advice::WillNeed).unwrap();
        assert_eq!(s.resident(), 0, "nothing of it is there yet");
    });
    assert_eq!(s.fault(at(2), Access::Read), Ok(Faulted::PagedIn));
    assert_eq!(get(s, 2), word(2));
    stage.end(&[s], &[file]);
}
