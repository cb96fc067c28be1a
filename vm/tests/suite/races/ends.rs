//! Page-out, and things that end meanwhile.

use super::*;

#[test]
fn a_mapping_is_removed_while_its_page_is_written_out() {
    let s = Stage::new(256);
    let file = s.file(2);
    let space = s.space();
    map(
        space,
        0,
        1,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    );
    anon(space, 4, 1);
    s.store(space, 0, 0, 1);
    s.in_put(move || space.remove(pages(0, 1)).unwrap());
    s.page_out_all();
    check(s.vm);
    assert_eq!((s.on_disk(0), s.vm.object(file).resident_pages()), (1, 0));
    s.store(space, 0, 4, 2);
    s.in_swap_write(move || space.remove(pages(4, 1)).unwrap());
    s.page_out_all();
    check(s.vm);
    assert_eq!((s.vm.counters().swap_used, s.vm.counters().objects), (0, 1));
    s.end(&[space], &[file]);
}

#[test]
fn an_object_ends_while_its_page_is_written_out() {
    let s = Stage::new(256);
    let file = s.file(1);
    s.vm.object(file).write(0, &[9]).unwrap();
    s.in_put(move || s.vm.object(file).release());
    s.page_out_all();
    check(s.vm);
    assert_eq!(s.files.closed.load(Ordering::Relaxed), 1);
    assert_eq!(s.on_disk(0), word(0) - (word(0) & 0xff) + 9);
    let space = s.space();
    anon(space, 0, 2);
    put(space, 0, 1);
    put(space, 1, 1);
    s.in_swap_write(move || space.release());
    s.page_out_all();
    s.end(&[], &[]);
}

#[test]
fn a_space_ends_while_a_fault_waits_for_its_busy_page() {
    let s = Stage::new(256);
    let file = s.file(1);
    let space = s.space();
    map(
        space,
        0,
        1,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    );
    space.hold();
    let before = s.vm.counters().faults;
    let second = Slot::new();
    s.in_get({
        let second = second.clone();
        move || {
            second.put(s.spawn(move || space.fault(at(0), Access::Read)));
            until(|| s.vm.counters().faults >= before + 2);
            space.release_exit();
            s.vm.object(file).release();
        }
    });
    let gone = Err(FaultError::InvalidAddress);
    assert_eq!(space.fault(at(0), Access::Read), gone);
    assert_eq!(second.take().join().unwrap(), gone);
    check(s.vm);
    assert_eq!(s.files.closed.load(Ordering::Relaxed), 1);
    space.unhold();
    space.unhold();
    s.end(&[], &[]);
}

#[test]
fn a_space_ends_while_its_own_page_comes_from_swap() {
    let s = Stage::new(256);
    let space = s.space();
    anon(space, 0, 1);
    put(space, 0, 1);
    s.page_out_all();
    space.hold();
    s.in_swap_read(move || space.release_exit());
    let gone = Err(FaultError::InvalidAddress);
    assert_eq!(space.fault(at(0), Access::Write), gone);
    space.unhold();
    space.unhold();
    s.end(&[], &[]);
}

#[test]
fn a_dead_object_takes_no_reference() {
    let s = Stage::new(256);
    let id = s.vm.object_create_anonymous(PAGE).unwrap();
    let object = s.vm.object(id);
    assert!(object.reference());
    assert_eq!(object.references(), 2);
    object.release();
    object.release();
    assert!(!object.reference());
    let space = s.space();
    let what = Mapping::object(id, 0, Sharing::Shared, Prot::RW);
    let mapped = space.map(PAGE, Placement::At(at(0)), what);
    assert_eq!(mapped, Err(MapError::InvalidArgument));
    s.end(&[space], &[]);
}
