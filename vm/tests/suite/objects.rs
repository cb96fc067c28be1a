//! Spaces, stacks and objects: behaviour, failing path, state after failure. A name begins with the row of the capability
//! that it shows.

use crate::common::{
    Files, PAGE, anon, at, check, check_empty, get, map_at, pages, put, space, touch, vm,
};
use bsdvm::{
    Access, Backing, FaultError, Faulted, Inherit, MapError, Mapping, ObjectError, Placement, Prot,
    Sharing, Space, SpaceError, VirtAddr,
};
use bsdvm_sim::Sim;

#[test]
fn s02_contents_go_with_the_last_reference_and_the_rest_with_the_last_hold() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 4);
    put(s, 0, 1);
    s.reference();
    s.release();
    assert_eq!((s.references(), get(s, 0)), (1, 1));
    s.hold();
    s.release_exit();
    assert_eq!(
        (s.references(), s.entries(), vm.counters().objects),
        (0, 0, 0)
    );
    assert_eq!(vm.counters().spaces, 1);
    assert_eq!(
        map_at(s, 0, 1, Mapping::anonymous(Prot::RW)),
        Err(MapError::Exiting)
    );
    assert_eq!(
        s.fault(at(0), Access::Read),
        Err(FaultError::InvalidAddress)
    );
    check(&vm);
    s.unhold();
    assert_eq!(vm.counters().spaces, 1);
    s.unhold();
    check_empty(&vm);
}

#[test]
fn s08_a_stack_keeps_its_room() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 2, 2);
    for (top, max, error) in [
        (at(64), 61 * PAGE, MapError::Overlap),
        (at(65), 4 * PAGE, MapError::InvalidAddress),
        (VirtAddr(at(60).0 + 1), PAGE, MapError::InvalidAddress),
        (at(60), 0, MapError::InvalidAddress),
        (at(60), u64::MAX, MapError::InvalidAddress),
        (at(1), 4 * PAGE, MapError::InvalidAddress),
    ] {
        assert_eq!(s.stack(top, max, PAGE, Prot::RW), Err(error));
    }
    assert_eq!(
        s.stack(at(64), 16 * PAGE + 1, PAGE, Prot::RW),
        Ok(pages(63, 1))
    );
    let info = s.entry(at(63)).unwrap();
    assert_eq!((info.stack, info.stack_reserve), (true, 16 * PAGE));
    // Larger than its room: all of it at once.
    assert_eq!(
        s.stack(at(40), 2 * PAGE, 9 * PAGE, Prot::RW),
        Ok(pages(38, 2))
    );
    s.release();
    check_empty(&vm);
}

#[test]
fn s09_a_stack_grows_on_faults_and_keeps_what_it_is() {
    let vm = vm(1000);
    let s = space(&vm, 128);
    s.stack(at(128), 100 * PAGE, PAGE, Prot::RW).unwrap();
    assert_eq!(touch(&vm, s.id(), 0, at(126), Some(5)), Ok(5));
    let info = s.entry(at(126)).unwrap();
    assert_eq!(
        (info.range, info.stack, info.prot),
        (pages(95, 33), true, Prot::RW)
    );
    assert_eq!(info.stack_reserve, (100 - 33) * PAGE);
    put(s, 30, 6);
    assert_eq!(s.entry(at(30)).unwrap().range.start(), at(30));
    assert!(!s.grow_stack(at(27)).unwrap(), "beyond its room");
    assert!(s.grow_stack(at(40)).unwrap(), "nothing is to grow");
    put(s, 28, 7);
    assert_eq!(
        s.write(at(27), &[1]).unwrap_err().why,
        FaultError::InvalidAddress
    );
    assert_eq!(s.entry(at(28)).unwrap().stack_reserve, 0);
    s.release();
    check_empty(&vm);
}

#[test]
fn s09_a_neighbour_in_the_way_stops_a_stack() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    s.stack(at(64), 40 * PAGE, PAGE, Prot::RW).unwrap();
    anon(s, 50, 2);
    put(s, 55, 1);
    assert_eq!(
        s.entry(at(55)).unwrap().range,
        pages(52, 12),
        "up to the neighbour"
    );
    assert_eq!(get(s, 50), 0);
    assert_eq!(
        s.write(at(49), &[1]).unwrap_err().why,
        FaultError::InvalidAddress
    );
    s.release();
    check_empty(&vm);
}

#[test]
fn o06_truncation_takes_pages_and_mappings() {
    let vm = vm(1000);
    let files = Files::leak();
    for page in 0..4 {
        files
            .pages
            .lock()
            .unwrap()
            .insert((0, page), vec![7; PAGE as usize]);
    }
    let file = vm.object_create(files.pager(0), 4 * PAGE).unwrap();
    let s = space(&vm, 32);
    map_at(s, 0, 4, Mapping::object(file, 0, Sharing::Shared, Prot::RW)).unwrap();
    for page in 0..4 {
        touch(&vm, s.id(), 0, at(page), None).unwrap();
    }
    vm.object(file).set_size(PAGE + 8).unwrap();
    check(&vm);
    assert_eq!(vm.object(file).size(), PAGE + 8);
    assert_eq!(
        touch(&vm, s.id(), 0, at(2), None),
        Err(FaultError::BeyondEnd)
    );
    assert_eq!(
        touch(&vm, s.id(), 0, at(1), None),
        Ok(0x0707_0707_0707_0707)
    );
    assert_eq!(
        touch(&vm, s.id(), 0, VirtAddr(at(1).0 + 8), None),
        Ok(0),
        "the rest is zero"
    );
    // What is written behind the end does not come to light when the file grows.
    touch(&vm, s.id(), 0, VirtAddr(at(1).0 + 8), Some(99)).unwrap();
    vm.object(file).set_size(3 * PAGE).unwrap();
    assert_eq!(touch(&vm, s.id(), 0, VirtAddr(at(1).0 + 8), None), Ok(0));
    assert_eq!(s.wire(pages(0, 4)), Err(MapError::BeyondEnd));
    check(&vm);
    let mut bytes = [0; 64];
    assert_eq!(vm.object(file).read(3 * PAGE - 4, &mut bytes), Ok(4));
    assert_eq!(vm.object(file).read(9 * PAGE, &mut bytes), Ok(0));
    assert_eq!(vm.object(file).write(3 * PAGE - 4, &[1; 64]), Ok(4));
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn o11_objects_are_read_and_written_coherently_with_mappings() {
    let vm = vm(1000);
    let object = vm.object_create_anonymous(4 * PAGE).unwrap();
    let o = vm.object(object);
    let s = space(&vm, 32);
    map_at(
        s,
        0,
        4,
        Mapping::object(object, 0, Sharing::Shared, Prot::RW),
    )
    .unwrap();
    map_at(
        s,
        8,
        4,
        Mapping::object(object, PAGE, Sharing::Shared, Prot::READ),
    )
    .unwrap();
    assert_eq!(o.references(), 3);
    let mut bytes = [1; 8];
    assert_eq!(o.read(PAGE, &mut bytes), Ok(8));
    assert_eq!(
        (bytes, o.resident_pages()),
        ([0; 8], 0),
        "a hole is not filled by reading"
    );
    o.write(PAGE - 4, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    assert_eq!(get(s, 8), u64::from_le_bytes([5, 6, 7, 8, 0, 0, 0, 0]));
    touch(&vm, s.id(), 0, at(1), Some(77)).unwrap();
    o.read(PAGE, &mut bytes).unwrap();
    assert_eq!(u64::from_le_bytes(bytes), 77);
    assert!(o.reference());
    o.release();
    o.release();
    assert_eq!(get(s, 1), 77, "the mappings keep it");
    s.release();
    check_empty(&vm);
}

#[test]
fn o11_words_are_exchanged_in_one_piece_and_keys_name_them() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 2);
    s.inherit(pages(1, 1), Inherit::Share).unwrap();
    assert_eq!(s.compare_exchange_u32(at(0), 0, 5).unwrap(), Ok(0));
    assert_eq!(s.compare_exchange_u32(at(0), 0, 6).unwrap(), Err(5));
    assert_eq!(s.load_u32(at(0)), Ok(5));
    assert!(s.load_u32(VirtAddr(at(0).0 + 2)).is_err());
    assert!(s.load_u32(at(9)).is_err());
    put(s, 1, 1);
    let child = vm.space(s.fork().unwrap());
    let key = |s: Space<'_, Sim<12>>, page, sharing| {
        s.futex_key(VirtAddr(at(page).0 + 4), sharing).unwrap()
    };
    assert_eq!(key(s, 1, Sharing::Shared), key(child, 1, Sharing::Shared));
    assert_ne!(key(s, 1, Sharing::Private), key(child, 1, Sharing::Private));
    assert_ne!(
        key(s, 0, Sharing::Shared),
        key(child, 0, Sharing::Shared),
        "private memory"
    );
    assert_ne!(
        key(s, 1, Sharing::Shared),
        s.futex_key(at(1), Sharing::Shared).unwrap()
    );
    assert_eq!(
        s.futex_key(at(9), Sharing::Shared),
        Err(FaultError::InvalidAddress)
    );
    child.release();
    s.release();
    check_empty(&vm);
}

#[test]
fn o08_the_limit_on_reservations_holds() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    vm.set_charge_limit(10);
    anon(s, 0, 8);
    assert_eq!(
        map_at(s, 10, 3, Mapping::anonymous(Prot::RW)),
        Err(MapError::ChargeLimit)
    );
    assert_eq!(s.fork(), Err(SpaceError::ChargeLimit));
    assert_eq!(
        vm.object_create_anonymous(3 * PAGE),
        Err(ObjectError::ChargeLimit)
    );
    assert_eq!(
        s.stack(at(60), 8 * PAGE, 3 * PAGE, Prot::RW),
        Err(MapError::ChargeLimit)
    );
    let object = vm.object_create_anonymous(PAGE).unwrap();
    assert_eq!(
        vm.object(object).set_size(4 * PAGE),
        Err(ObjectError::ChargeLimit)
    );
    vm.object(object).set_size(2 * PAGE).unwrap();
    assert_eq!(vm.counters().charged_pages, 10);
    vm.object(object).release();
    check(&vm);
    s.move_(pages(0, 8), 10 * PAGE, Placement::At(at(20)))
        .unwrap();
    assert_eq!(
        s.move_(pages(20, 10), 11 * PAGE, Placement::At(at(40))),
        Err(MapError::ChargeLimit)
    );
    s.release();
    check_empty(&vm);
}

#[test]
fn faults_count_what_they_do() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 8);
    for page in 0..5 {
        assert_eq!(s.fault(at(page), Access::Write), Ok(Faulted::ZeroFill));
    }
    assert_eq!(s.fault(at(0), Access::Read), Ok(Faulted::Resident));
    let c = vm.counters();
    assert_eq!((c.zero_fill, c.resident_faults, c.faults), (5, 1, 6));
    let child = vm.space(s.fork().unwrap());
    assert_eq!(s.fault(at(0), Access::Write), Ok(Faulted::Copied));
    assert_eq!(child.fault(at(0), Access::Write), Ok(Faulted::Copied));
    child.release();
    assert_eq!(
        s.fault(at(1), Access::Write),
        Ok(Faulted::Resident),
        "ours again"
    );
    let c = vm.counters();
    assert_eq!((c.cow_copied, c.forks), (2, 1));
    s.release();
    check_empty(&vm);
}

#[test]
fn a_mapping_of_an_object_that_has_ended_is_refused() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    let object = vm.object_create_anonymous(PAGE).unwrap();
    vm.object(object).release();
    let what = Mapping::object(object, 0, Sharing::Shared, Prot::RW);
    assert_eq!(map_at(s, 0, 1, what), Err(MapError::InvalidArgument));
    assert!(!vm.object(object).reference());
    let file = vm.object_create(Files::leak().pager(0), PAGE).unwrap();
    for offset in [1, u64::MAX - PAGE + 1] {
        let mut what = Mapping::object(file, 0, Sharing::Shared, Prot::RW);
        what.backing = Backing::Object {
            object: file,
            offset,
        };
        assert_eq!(
            map_at(s, 0, 2, what),
            Err(MapError::InvalidArgument),
            "{offset}"
        );
    }
    vm.object(file).release();
    s.release();
    check_empty(&vm);
}

/// A copy of a file's page needs two frames, one after the other. With next to none left the fault
/// still ends, one way or the other.
#[test]
fn o05_a_copy_of_a_file_page_ends_when_memory_is_short() {
    for frames in 40..120 {
        let machine = Sim::new(bsdvm_sim::SimConfig {
            frames,
            ..bsdvm_sim::SimConfig::default()
        });
        let Ok(vm) = bsdvm::Vm::new(machine, bsdvm::Config::default()) else {
            continue;
        };
        let files = Files::leak();
        let file = vm.object_create(files.pager(0), 64 * PAGE).unwrap();
        let Ok(id) = vm.space_create(pages(0, 64)) else {
            continue;
        };
        let s = vm.space(id);
        let what = Mapping::object(file, 0, Sharing::Private, Prot::RW);
        if map_at(s, 0, 64, what).is_ok() {
            for page in 0..64 {
                let done = touch(&vm, id, 0, at(page), Some(page));
                assert!(
                    matches!(done, Ok(_) | Err(FaultError::NoMemory)),
                    "{done:?}"
                );
            }
        }
        s.release();
        vm.object(file).release();
        check_empty(&vm);
    }
}

/// A read of a file's page enters those around it that are in memory: an aligned window of 16,
/// cut to the entry, without what a private copy hides, and never for writing.
#[test]
fn o05_neighbours_of_a_page_that_is_read_are_entered() {
    let vm = vm(1000);
    let files = Files::leak();
    let file = vm.object_create(files.pager(0), 64 * PAGE).unwrap();
    for page in 0..64 {
        vm.object(file).read(page * PAGE, &mut [0]).unwrap();
    }
    let s = space(&vm, 128);
    map_at(
        s,
        0,
        40,
        Mapping::object(file, 0, Sharing::Private, Prot::RW),
    )
    .unwrap();
    put(s, 18, 7);
    // The window is aligned to addresses, whatever the place in the file.
    let window = 16 - (at(0).0 / PAGE) % 16;
    assert_eq!(window, 16, "the map begins with a window");
    s.fault(at(20), Access::Read).unwrap();
    assert_eq!(s.resident(), 15, "sixteen without the one that is hidden");
    assert_eq!(touch(&vm, s.id(), 0, at(16), None), Ok(0));
    assert_eq!(s.resident(), 15, "nothing more was needed");
    s.fault(at(39), Access::Read).unwrap();
    assert_eq!(s.resident(), 15 + 8, "cut to the entry");
    check(&vm);
    touch(&vm, s.id(), 0, at(17), Some(5)).unwrap();
    let mut byte = [1];
    vm.object(file).read(17 * PAGE, &mut byte).unwrap();
    assert_eq!((byte[0], get(s, 17), get(s, 18)), (0, 5, 7));
    // A write enters itself alone.
    s.fault(at(2), Access::Write).unwrap();
    assert_eq!(s.resident(), 15 + 8 + 1);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

/// A page that comes after its range was wired is wired when it is touched.
#[test]
fn w01_a_page_that_comes_later_is_wired_too() {
    let vm = vm(1000);
    let file = vm.object_create(Files::leak().pager(0), 2 * PAGE).unwrap();
    let s = space(&vm, 32);
    map_at(s, 0, 2, Mapping::object(file, 0, Sharing::Shared, Prot::RW)).unwrap();
    s.wire(pages(0, 2)).unwrap();
    vm.object(file).set_size(0).unwrap();
    vm.object(file).set_size(2 * PAGE).unwrap();
    touch(&vm, s.id(), 0, at(0), None).unwrap();
    touch(&vm, s.id(), 0, at(1), Some(1)).unwrap();
    check(&vm);
    for _ in 0..4 {
        vm.pageout_step(100);
    }
    assert_eq!(vm.object(file).resident_pages(), 2);
    s.unwire(pages(0, 2)).unwrap();
    for _ in 0..4 {
        vm.pageout_step(100);
    }
    assert_eq!(vm.object(file).resident_pages(), 0);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

/// A machine that can enter nothing, with nothing entered that could make room.
#[test]
fn o09_a_machine_that_refuses_everything_is_out_of_memory() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 2);
    let injector = vm.machine().injector();
    injector.fail_nth(bsdvm_sim::InjectKind::PmapEnter, 1);
    assert_eq!(s.fault(at(0), Access::Write), Err(FaultError::NoMemory));
    injector.clear();
    s.fault(at(0), Access::Write).unwrap();
    // With something entered, that goes, and comes again when it is wanted.
    injector.fail_nth(bsdvm_sim::InjectKind::PmapEnter, 1);
    s.fault(at(1), Access::Write).unwrap();
    injector.clear();
    assert_eq!(s.resident(), 1);
    check(&vm);
    s.release();
    check_empty(&vm);
}

/// What an anonymous object is charged follows its size.
#[test]
fn o08_the_charge_of_an_object_follows_its_size() {
    let vm = vm(1000);
    let object = vm.object_create_anonymous(7 * PAGE).unwrap();
    for pages in [2, 5, 0, 3, 3, 9, 4] {
        vm.object(object).set_size(pages * PAGE).unwrap();
        assert_eq!(vm.counters().charged_pages, pages);
        check(&vm);
    }
    vm.object(object).release();
    check_empty(&vm);
}

/// The page of a wired range may lie behind its front, at another place there: it is the one that
/// is unwired.
#[test]
fn w01_unwiring_finds_pages_behind_the_front() {
    let vm = vm(1000);
    let file = vm.object_create(Files::leak().pager(0), 16 * PAGE).unwrap();
    let s = space(&vm, 32);
    map_at(
        s,
        0,
        4,
        Mapping::object(file, 3 * PAGE, Sharing::Private, Prot::RW),
    )
    .unwrap();
    put(s, 0, 1);
    s.protect(pages(0, 4), Prot::READ).unwrap();
    s.wire(pages(0, 4)).unwrap();
    for _ in 0..4 {
        vm.pageout_step(100);
    }
    assert_eq!(
        vm.object(file).resident_pages(),
        3,
        "those that are not copied"
    );
    s.unwire(pages(0, 4)).unwrap();
    check(&vm);
    for _ in 0..4 {
        vm.pageout_step(100);
    }
    assert_eq!(vm.object(file).resident_pages(), 0);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

/// Each of many entries may need a shadow of its own when they are wired together.
#[test]
fn w01_many_entries_that_need_copies_are_wired_together() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 8);
    for page in 0..8 {
        put(s, page, page);
    }
    for page in [1, 3, 5, 7] {
        s.protect_max(pages(page, 1), Prot::RW).unwrap();
    }
    assert_eq!(s.entries(), 8);
    let child = vm.space(s.fork().unwrap());
    s.wire(pages(0, 8)).unwrap();
    check(&vm);
    for page in 0..8 {
        put(s, page, 100);
        assert_eq!(get(child, page), page);
    }
    child.release();
    s.release();
    check_empty(&vm);
}
