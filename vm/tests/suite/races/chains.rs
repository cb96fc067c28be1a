//! Chains that change while somebody is in them.

use super::*;

#[test]
fn a_sibling_exits_while_faults_walk_the_chain() {
    let s = Stage::new(512);
    for round in 0..40 {
        let parent = s.space();
        anon(parent, 0, 8);
        for page in 0..8 {
            put(parent, page, page);
        }
        let child = s.fork(parent.id());
        for page in 0..8 {
            put([parent, child][page as usize / 4], page, 100 + page);
        }
        if round % 2 == 0 {
            s.page_out_all();
        }
        let gate = Barrier::new(2);
        std::thread::scope(|t| {
            t.spawn(|| {
                s.vm.machine().set_cpu(1);
                gate.wait();
                for page in 0..8 {
                    assert_eq!(s.load(child, 1, page), page + page / 4 * 100);
                }
            });
            gate.wait();
            parent.release();
        });
        check(s.vm);
        assert_eq!(s.vm.counters().objects, 1, "what is left has collapsed");
        s.end(&[child], &[]);
    }
}

#[test]
fn a_sibling_exits_while_a_page_of_the_shared_object_is_read_in() {
    let s = Stage::new(256);
    let parent = s.space();
    anon(parent, 0, 2);
    put(parent, 0, 1);
    put(parent, 1, 2);
    let child = s.fork(parent.id());
    put(parent, 1, 3);
    s.page_out_all();
    assert_eq!(s.vm.counters().swap_used, 3);
    s.in_swap_read(move || child.release());
    assert_eq!(s.load(parent, 0, 0), 1);
    check(s.vm);
    assert_eq!(s.vm.counters().objects, 1, "collapsed by the last worker");
    assert_eq!(slots(s.vm), (2, 1), "the hidden page's slot is free");
    assert_eq!(s.load(parent, 0, 1), 3);
    s.end(&[parent], &[]);
}

#[test]
fn a_fork_does_not_split_off_a_page_that_is_being_read_in() {
    let s = Stage::new(256);
    let parent = s.space();
    anon(parent, 0, 4);
    for page in 0..4 {
        put(parent, page, 10 + page);
    }
    // Two entries of one object, which a fork would split.
    parent.protect(pages(2, 2), Prot::READ).unwrap();
    s.page_out_all();
    let forked = Slot::new();
    s.in_swap_read({
        let forked = forked.clone();
        move || forked.put(parent.fork().unwrap())
    });
    assert_eq!(s.load(parent, 0, 2), 12);
    let child = s.vm.space(forked.take());
    check(s.vm);
    for page in 0..4 {
        assert_eq!(
            (get(parent, page), get(child, page)),
            (10 + page, 10 + page)
        );
    }
    put(parent, 0, 1);
    assert_eq!(get(child, 0), 10);
    check(s.vm);
    s.end(&[parent, child], &[]);
}

#[test]
fn a_range_is_cut_to_pieces_while_its_file_is_read_ahead() {
    let s = Stage::new(256);
    let file = s.file(8);
    let space = s.space();
    map(
        space,
        0,
        8,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    );
    let forked = Slot::new();
    s.in_get({
        let forked = forked.clone();
        move || {
            space.remove(pages(1, 1)).unwrap();
            space.protect(pages(3, 1), Prot::READ).unwrap();
            s.vm.object(file).set_size(5 * PAGE).unwrap();
            forked.put(space.fork().unwrap());
        }
    });
    assert_eq!(s.load(space, 0, 0), word(0));
    let child = s.vm.space(forked.take());
    check(s.vm);
    assert_eq!(s.files.gets.load(Ordering::Relaxed), 1);
    assert_eq!(
        s.vm.object(file).resident_pages(),
        5,
        "those beyond the end went"
    );
    let beyond = touch(s.vm, space.id(), 0, at(6), None);
    assert_eq!(beyond, Err(FaultError::BeyondEnd));
    let unmapped = touch(s.vm, space.id(), 0, at(1), None);
    assert_eq!(unmapped, Err(FaultError::InvalidAddress));
    for page in [0, 2, 3, 4] {
        assert_eq!(
            (s.load(space, 0, page), get(child, page)),
            (word(page), word(page))
        );
    }
    assert_eq!(s.files.gets.load(Ordering::Relaxed), 1, "all came at once");
    s.end(&[space, child], &[file]);
}

/// A page behind the front is shown by several spaces, one of which wired it. The others copy it,
/// take it, and end: it stays where it is until the wiring ends.
#[test]
fn a_wired_mapping_of_a_shared_page_is_not_severed() {
    let s = Stage::new(256);
    let parent = s.space();
    anon(parent, 0, 1);
    s.store(parent, 0, 0, 1);
    let wirer = s.fork(parent.id());
    let other = s.fork(parent.id());
    wirer.protect(pages(0, 1), Prot::READ).unwrap();
    wirer.wire(pages(0, 1)).unwrap();
    assert_eq!(s.load(wirer, 1, 0), 1);
    let wired = frame_of(wirer, 0);
    s.store(parent, 0, 0, 2);
    check(s.vm);
    s.store(other, 0, 0, 3);
    check(s.vm);
    parent.release();
    check(s.vm);
    other.release();
    check(s.vm);
    s.page_out_all();
    assert!(is_resident(wirer, 0));
    assert_eq!(frame_of(wirer, 0), wired, "still mapped, and the same page");
    assert_eq!(s.load(wirer, 1, 0), 1);
    wirer.unwire(pages(0, 1)).unwrap();
    s.page_out_all();
    assert!(!is_resident(wirer, 0), "once unwired it may go");
    assert_eq!(get(wirer, 0), 1);
    s.end(&[wirer], &[]);
}

/// The front has one reference and nobody else sees what is behind it, but the two could not be
/// made one for want of a record: a write takes the page, and the old translations of it go.
#[test]
fn a_page_taken_from_behind_leaves_no_old_translation() {
    let s = Stage::new(256);
    let parent = s.space();
    anon(parent, 0, 2);
    s.store(parent, 0, 0, 1);
    s.store(parent, 0, 1, 2);
    let child = s.fork(parent.id());
    s.store(parent, 0, 1, 3);
    for cpu in 0..2 {
        assert_eq!((s.load(parent, cpu, 0), s.load(child, cpu, 0)), (1, 1));
    }
    s.vm.inject_failure(1);
    child.release();
    assert_eq!(s.vm.injection_left(), 0, "the collapse found no record");
    assert_eq!(s.vm.counters().objects, 2);
    check(s.vm);
    let before = s.vm.counters();
    s.store(parent, 1, 0, 4);
    check(s.vm);
    let after = s.vm.counters();
    assert_eq!(after.cow_reused - before.cow_reused, 1);
    for cpu in 0..2 {
        assert_eq!((s.load(parent, cpu, 0), s.load(parent, cpu, 1)), (4, 3));
    }
    s.end(&[parent], &[]);
}

#[test]
fn a_collapsed_object_leaks_no_swap() {
    let s = Stage::new(256);
    let parent = s.space();
    anon(parent, 0, 8);
    for page in 0..8 {
        put(parent, page, page);
    }
    s.page_out_all();
    let child = s.fork(parent.id());
    for page in 0..4 {
        put(parent, page, 100 + page);
    }
    for page in 2..6 {
        put(child, page, 200 + page);
    }
    s.page_out_all();
    check(s.vm);
    // 4 and 4 of their own, and of the first object all but those that both hide.
    assert_eq!(s.vm.counters().swap_used, 4 + 4 + 6);
    child.release();
    check(s.vm);
    assert_eq!((s.vm.counters().objects, s.vm.counters().swap_used), (1, 8));
    for page in 0..8 {
        assert_eq!(get(parent, page), if page < 4 { 100 + page } else { page });
    }
    s.end(&[parent], &[]);
}
