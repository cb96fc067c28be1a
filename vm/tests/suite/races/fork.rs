//! Copy on write and fork.

use super::*;

#[test]
fn two_sharers_write_the_same_copy_on_write_page_at_once() {
    let s = Stage::new(512);
    for round in 0..60 {
        let parent = s.space();
        anon(parent, 0, 1);
        s.store(parent, 0, 0, 7);
        let child = s.fork(parent.id());
        assert_eq!((s.load(parent, 0, 0), s.load(child, 1, 0)), (7, 7));
        let before = s.vm.counters();
        let gate = Barrier::new(2);
        std::thread::scope(|t| {
            for (cpu, space) in [parent, child].into_iter().enumerate() {
                let gate = &gate;
                t.spawn(move || {
                    s.vm.machine().set_cpu(cpu);
                    gate.wait();
                    s.store(space, cpu, 0, 100 * round + cpu as u64);
                });
            }
        });
        check(s.vm);
        for cpu in 0..2 {
            assert_eq!(s.load(parent, cpu, 0), 100 * round);
            assert_eq!(s.load(child, cpu, 0), 100 * round + 1);
        }
        let after = s.vm.counters();
        assert_eq!(after.cow_copied - before.cow_copied, 2, "each has its own");
        assert_eq!(after.cow_reused, before.cow_reused);
        s.end(&[parent, child], &[]);
    }
}

#[test]
fn a_fork_during_a_fault_on_a_file_shares_what_was_there() {
    let s = Stage::new(256);
    let file = s.file(2);
    let parent = s.space();
    map(
        parent,
        0,
        2,
        Mapping::object(file, 0, Sharing::Private, Prot::RW),
    );
    let forked = Slot::new();
    s.in_get({
        let forked = forked.clone();
        move || forked.put(parent.fork().unwrap())
    });
    s.store(parent, 0, 0, 5);
    let child = s.vm.space(forked.take());
    check(s.vm);
    assert_eq!((get(parent, 0), s.load(child, 1, 0)), (5, word(0)));
    s.store(child, 1, 0, 6);
    check(s.vm);
    assert_eq!((s.load(parent, 0, 0), get(child, 0)), (5, 6));
    s.end(&[parent, child], &[file]);
}

#[test]
fn a_fork_during_a_fault_on_swap_shares_what_was_there() {
    for write in [None, Some(9)] {
        let s = Stage::new(256);
        let parent = s.space();
        anon(parent, 0, 2);
        put(parent, 0, 1);
        put(parent, 1, 2);
        s.page_out_all();
        assert_eq!(s.vm.counters().swap_used, 2);
        let forked = Slot::new();
        s.in_swap_read({
            let forked = forked.clone();
            move || forked.put(parent.fork().unwrap())
        });
        let seen = touch(s.vm, parent.id(), 0, at(0), write).unwrap();
        assert_eq!(seen, write.unwrap_or(1));
        let child = s.vm.space(forked.take());
        check(s.vm);
        assert_eq!((get(parent, 0), s.load(child, 1, 0)), (seen, 1));
        s.store(child, 1, 1, 3);
        assert_eq!((get(parent, 1), get(child, 1)), (2, 3));
        check(s.vm);
        s.end(&[parent, child], &[]);
    }
}

#[test]
fn an_extension_during_a_fork_waits_for_its_end() {
    let s = Stage::new(256);
    let parent = s.space();
    anon(parent, 0, 2);
    put(parent, 1, 4);
    map(parent, 8, 1, shared_but_copied());
    put(parent, 8, 5);
    s.page_out_all();
    let before = s.vm.counters().transition_waits;
    let extender = Slot::new();
    // Fork copies the shared page at once, and reads it from swap with the map frozen.
    s.in_swap_read({
        let extender = extender.clone();
        move || {
            extender.put(s.spawn(move || parent.extend(end_of(1), PAGE)));
            s.until_somebody_waits_for_a_map(before);
            assert_eq!(parent.entry(at(2)).unwrap().range.start(), at(8));
        }
    });
    let child = s.fork(parent.id());
    extender.take().join().unwrap().unwrap();
    check(s.vm);
    assert!(parent.covered(pages(0, 3)), "the parent has the extension");
    assert!(!child.covered(pages(2, 1)), "the child was made before it");
    assert_eq!((get(child, 1), get(child, 8), get(parent, 2)), (4, 5, 0));
    put(parent, 8, 6);
    assert_eq!(get(child, 8), 5, "a copy, not shared");
    s.end(&[parent, child], &[]);
}

#[test]
fn a_fault_during_a_fork_waits_for_its_end() {
    let s = Stage::new(256);
    let parent = s.space();
    anon(parent, 0, 1);
    s.store(parent, 1, 0, 4);
    map(parent, 8, 1, shared_but_copied());
    put(parent, 8, 5);
    while s.vm.counters().swap_used < 1 || is_resident(parent, 8) {
        s.page_out_all();
    }
    s.load(parent, 1, 0);
    let before = s.vm.counters().transition_waits;
    let writer = Slot::new();
    s.in_swap_read({
        let writer = writer.clone();
        move || {
            writer.put(s.spawn(move || s.store(parent, 1, 0, 40)));
            s.until_somebody_waits_for_a_map(before);
        }
    });
    let child = s.fork(parent.id());
    writer.take().join().unwrap();
    check(s.vm);
    assert_eq!((get(parent, 0), get(child, 0)), (40, 4));
    s.end(&[parent, child], &[]);
}

#[test]
fn a_fork_of_a_forks_read_only_page_keeps_three_apart() {
    let s = Stage::new(256);
    let old = s.space();
    anon(old, 0, 1);
    s.store(old, 0, 0, 1);
    let middle = s.fork(old.id());
    assert_eq!(s.load(middle, 0, 0), 1);
    let young = s.fork(middle.id());
    assert_eq!(s.load(young, 1, 0), 1);
    check(s.vm);
    for (i, order) in [[0, 1, 2], [2, 1, 0], [1, 2, 0]].into_iter().enumerate() {
        for who in order {
            s.store([old, middle, young][who], 0, 0, (10 * i + who) as u64);
            check(s.vm);
        }
        for (who, space) in [old, middle, young].into_iter().enumerate() {
            assert_eq!(s.load(space, 1, 0), (10 * i + who) as u64);
        }
    }
    s.end(&[middle, old, young], &[]);
}

#[test]
fn a_wired_page_at_fork_is_copied_and_stays_where_it_is() {
    let s = Stage::new(256);
    let parent = s.space();
    anon(parent, 0, 4);
    for page in 0..4 {
        put(parent, page, 10 + page);
    }
    parent.wire(pages(1, 1)).unwrap();
    s.store(parent, 0, 1, 11);
    let wired = frame_of(parent, 1);
    let child = s.fork(parent.id());
    check(s.vm);
    // Three entries of one object at first: none may be split off with the wired page moved.
    assert_eq!(s.load(parent, 0, 1), 11);
    s.store(parent, 0, 1, 20);
    assert_eq!(frame_of(parent, 1), wired, "the wired page was not moved");
    assert_eq!(s.load(child, 1, 1), 11);
    assert_ne!(frame_of(child, 1), wired, "the child has a copy");
    assert_eq!(child.entry(at(1)).unwrap().wired, 0);
    s.page_out_all();
    assert!(is_resident(parent, 1) && !is_resident(child, 1));
    for page in [0, 2, 3] {
        assert_eq!(
            (get(parent, page), get(child, page)),
            (10 + page, 10 + page)
        );
    }
    check(s.vm);
    parent.unwire(pages(1, 1)).unwrap();
    s.end(&[parent, child], &[]);
}
