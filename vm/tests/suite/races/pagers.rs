//! Pagers, transfers and sizes.

use super::*;

#[test]
fn a_page_is_written_from_a_mapping_of_itself() {
    let s = Stage::new(256);
    let file = s.file(2);
    let object = s.vm.object(file);
    let space = s.space();
    map(
        space,
        0,
        2,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    );
    // One page shifted by 8 bytes over itself, as write(2) from the mapping would do it.
    let mut buf = vec![0; PAGE as usize];
    space.read(at(0), &mut buf).unwrap();
    assert_eq!(object.write(8, &buf).unwrap(), buf.len());
    check(s.vm);
    let mut seen = [0; 16];
    space.read(at(0), &mut seen).unwrap();
    assert_eq!(seen[..8], word(0).to_le_bytes());
    assert_eq!(seen[8..], word(0).to_le_bytes());
    // The same through a private copy of it: the file sees what the copy holds.
    let other = s.space();
    map(
        other,
        0,
        1,
        Mapping::object(file, 0, Sharing::Private, Prot::RW),
    );
    s.store(other, 0, 0, 77);
    other.read(at(0), &mut buf).unwrap();
    object.write(0, &buf).unwrap();
    assert_eq!(s.load(space, 1, 0), 77);
    s.end(&[space, other], &[file]);
}

#[test]
fn a_pager_reads_other_pages_of_the_mapping_that_it_writes_out() {
    let s = Stage::new(256);
    let file = s.file(2);
    let space = s.space();
    map(
        space,
        0,
        2,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    );
    s.store(space, 0, 0, 1);
    s.store(space, 0, 1, 2);
    s.in_put(move || {
        // The page being written is busy; the next one is not, and may even be changed.
        assert_eq!(s.load(space, 1, 1), 2);
        s.store(space, 1, 1, 3);
    });
    space.clean(pages(0, 2), false).unwrap();
    check(s.vm);
    assert_eq!((s.on_disk(0), s.on_disk(1)), (1, 3));
    s.end(&[space], &[file]);
}

#[test]
fn a_store_during_the_write_of_a_page_makes_it_dirty_again() {
    let s = Stage::new(256);
    let file = s.file(1);
    let space = s.space();
    map(
        space,
        0,
        1,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    );
    s.store(space, 0, 0, 1);
    let wrote = Slot::new();
    s.in_put({
        let wrote = wrote.clone();
        move || {
            let bytes = 2u64.to_le_bytes();
            let stored = space.with_pmap(|p| s.vm.machine().store(p, 0, at(0), &bytes));
            wrote.put(stored.unwrap().is_ok());
        }
    });
    space.clean(pages(0, 1), true).unwrap();
    check(s.vm);
    assert!(wrote.take(), "the page stays mapped while it is written");
    assert_eq!(get(space, 0), 2);
    space.clean(pages(0, 1), true).unwrap();
    assert_eq!((s.on_disk(0), s.load(space, 0, 0)), (2, 2));
    s.end(&[space], &[file]);
}

#[test]
fn a_pager_may_itself_fault() {
    let s = Stage::new(256);
    let file = s.file(4);
    let (space, store) = (s.space(), s.space());
    anon(store, 0, 1);
    put(store, 0, 42);
    s.page_out_all();
    map(
        space,
        0,
        4,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    );
    let inner = s.file(4);
    map(
        store,
        8,
        4,
        Mapping::object(inner, 0, Sharing::Private, Prot::RW),
    );
    let seen = Slot::new();
    s.in_get({
        let seen = seen.clone();
        // From swap, from a file (another call to the same pager), and to a page of its own.
        move || {
            put(store, 9, 5);
            seen.put((get(store, 0), get(store, 8), get(store, 9)));
        }
    });
    assert_eq!(s.load(space, 0, 0), word(0));
    assert_eq!(seen.take(), (42, word(0), 5));
    check(s.vm);
    assert_eq!(s.files.gets.load(Ordering::Relaxed), 2);
    s.end(&[space, store], &[file, inner]);
}

#[test]
fn two_threads_page_in_a_page_once() {
    let s = Stage::new(256);
    let file = s.file(1);
    let (space, other) = (s.space(), s.space());
    for space in [space, other] {
        map(
            space,
            0,
            1,
            Mapping::object(file, 0, Sharing::Shared, Prot::RW),
        );
    }
    let before = s.vm.counters().faults;
    let second = Slot::new();
    s.in_get({
        let second = second.clone();
        move || {
            second.put(s.spawn(move || s.load(other, 1, 0)));
            until(|| s.vm.counters().faults >= before + 2);
        }
    });
    assert_eq!(s.load(space, 0, 0), word(0));
    assert_eq!(second.take().join().unwrap(), word(0));
    check(s.vm);
    assert_eq!(s.files.gets.load(Ordering::Relaxed), 1);
    assert_eq!(frame_of(space, 0), frame_of(other, 0));
    s.end(&[space, other], &[file]);
}

#[test]
fn a_waiter_tries_again_itself_when_a_page_in_fails() {
    let s = Stage::new(256);
    let file = s.file(1);
    let space = s.space();
    map(
        space,
        0,
        1,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    );
    let before = s.vm.counters().faults;
    let second = Slot::new();
    s.files.fail_get.store(true, Ordering::Relaxed);
    s.in_get({
        let second = second.clone();
        move || {
            // The one that waits gets its own answer, from its own call.
            s.in_get(move || s.files.fail_get.store(false, Ordering::Relaxed));
            second.put(s.spawn(move || s.load(space, 1, 0)));
            until(|| s.vm.counters().faults >= before + 2);
        }
    });
    let first = space.fault(at(0), Access::Read);
    assert!(matches!(first, Err(FaultError::Pager(_))), "{first:?}");
    assert_eq!(second.take().join().unwrap(), word(0));
    check(s.vm);
    s.end(&[space], &[file]);
}

#[test]
fn truncation_overtakes_a_page_in() {
    let s = Stage::new(256);
    let file = s.file(4);
    let space = s.space();
    map(
        space,
        0,
        4,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    );
    s.in_get(move || s.vm.object(file).set_size(2 * PAGE).unwrap());
    let cut = touch(s.vm, space.id(), 0, at(2), None);
    assert_eq!(cut, Err(FaultError::BeyondEnd));
    check(s.vm);
    let object = s.vm.object(file);
    assert_eq!(object.resident_pages(), 2, "those before the cut");
    object.set_size(0).unwrap();
    object.set_size(4 * PAGE).unwrap();
    // It shrinks and grows while the page is read: what was read is not shown.
    s.in_get(move || {
        let object = s.vm.object(file);
        object.set_size(0).unwrap();
        s.files.pages.lock().unwrap().clear();
        object.set_size(4 * PAGE).unwrap();
    });
    assert_eq!(s.load(space, 0, 0), 0);
    check(s.vm);
    s.end(&[space], &[file]);
}

#[test]
fn truncation_leaves_private_copies() {
    let s = Stage::new(256);
    let file = s.file(4);
    let space = s.space();
    map(
        space,
        0,
        4,
        Mapping::object(file, 0, Sharing::Private, Prot::RW),
    );
    s.store(space, 0, 2, 5);
    assert_eq!(s.load(space, 0, 3), word(3));
    s.vm.object(file).set_size(PAGE + 4).unwrap();
    check(s.vm);
    assert_eq!(s.load(space, 0, 2), 5, "the copy is the program's");
    let cut = touch(s.vm, space.id(), 0, at(3), None);
    assert_eq!(cut, Err(FaultError::BeyondEnd));
    assert_eq!(s.load(space, 0, 1), word(1) & 0xffff_ffff);
    s.end(&[space], &[file]);
}

#[test]
fn truncation_cuts_a_page_that_is_on_swap() {
    let s = Stage::new(256);
    let id = s.vm.object_create_anonymous(2 * PAGE).unwrap();
    let object = s.vm.object(id);
    object.write(0, &[7; 2 * PAGE as usize]).unwrap();
    s.page_out_all();
    assert_eq!(object.resident_pages(), 0);
    object.set_size(4).unwrap();
    object.set_size(2 * PAGE).unwrap();
    let mut seen = [1; 8];
    object.read(0, &mut seen).unwrap();
    assert_eq!(seen, [7, 7, 7, 7, 0, 0, 0, 0], "what was cut off is zero");
    object.read(PAGE, &mut seen).unwrap();
    assert_eq!(seen, [0; 8]);
    check(s.vm);
    s.end(&[], &[id]);
}

#[test]
fn a_write_to_a_shared_front_leaves_the_object_behind_alone() {
    let s = Stage::new(256);
    let parent = s.space();
    anon(parent, 0, 1);
    s.store(parent, 0, 0, 1);
    let copier = s.fork(parent.id());
    // A shadow in front of what the copier sees, shared by two.
    parent.inherit(pages(0, 1), Inherit::Share).unwrap();
    let sharer = s.fork(parent.id());
    let front = parent.entry(at(0)).unwrap().object.unwrap();
    s.vm.object(front).write(0, &2u64.to_le_bytes()).unwrap();
    check(s.vm);
    assert_eq!((s.load(parent, 0, 0), s.load(sharer, 1, 0)), (2, 2));
    assert_eq!(s.load(copier, 0, 0), 1, "its copy is its own");
    check(s.vm);
    s.end(&[parent, copier, sharer], &[]);
}
