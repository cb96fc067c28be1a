//! Wiring, and those who meet it.

use super::*;

#[test]
fn a_range_that_is_being_wired_is_removed_after_it() {
    let s = Stage::new(256);
    let file = s.file(2);
    let space = s.space();
    map(
        space,
        0,
        2,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    );
    let before = s.vm.counters().transition_waits;
    let remover = Slot::new();
    s.in_get({
        let remover = remover.clone();
        move || {
            remover.put(s.spawn(move || space.remove(pages(0, 2))));
            s.until_somebody_waits_for_a_map(before);
            assert!(space.covered(pages(0, 2)));
        }
    });
    space.wire(pages(0, 2)).unwrap();
    remover.take().join().unwrap().unwrap();
    check(s.vm);
    assert_eq!(space.size(), 0);
    s.page_out_all();
    assert_eq!(s.vm.object(file).resident_pages(), 0, "nothing is wired");
    s.end(&[space], &[file]);
}

#[test]
fn a_fork_while_a_range_is_being_wired_copies_it() {
    let s = Stage::new(256);
    let file = s.file(2);
    let parent = s.space();
    map(
        parent,
        0,
        2,
        Mapping::object(file, 0, Sharing::Private, Prot::RW),
    );
    put(parent, 1, 8);
    s.vm.object(file).clean(0, 2 * PAGE).unwrap();
    s.page_out_all();
    let forked = Slot::new();
    s.in_get({
        let forked = forked.clone();
        move || forked.put(parent.fork().unwrap())
    });
    parent.wire(pages(0, 2)).unwrap();
    let child = s.vm.space(forked.take());
    check(s.vm);
    s.page_out_all();
    assert!(is_resident(parent, 0) && is_resident(parent, 1));
    assert_eq!(child.entry(at(0)).unwrap().wired, 0);
    put(parent, 0, 9);
    assert_eq!([0, 1].map(|p| get(child, p)), [word(0), 8]);
    assert_eq!([0, 1].map(|p| get(parent, p)), [9, 8]);
    check(s.vm);
    s.end(&[parent, child], &[file]);
}

#[test]
fn a_wiring_that_fails_half_way_leaves_nobody_wired() {
    let s = Stage::new(256);
    let file = s.file(48);
    let space = s.space();
    map(
        space,
        0,
        48,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    );
    // The first cluster comes, the second does not.
    s.in_get(move || s.in_get(move || s.files.fail_get.store(true, Ordering::Relaxed)));
    let failed = space.wire(pages(0, 48));
    assert!(matches!(failed, Err(MapError::Pager(_))), "{failed:?}");
    s.files.fail_get.store(false, Ordering::Relaxed);
    check(s.vm);
    assert_eq!(space.entry(at(0)).unwrap().wired, 0);
    s.page_out_all();
    assert_eq!(
        s.vm.object(file).resident_pages(),
        0,
        "nothing stayed wired"
    );
    s.end(&[space], &[file]);
}
