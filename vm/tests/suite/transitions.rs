//! Ranges in transition (E07): somebody works on them with the map unlocked. What others may do
//! meanwhile is done by the pager that the work has called.

use crate::common::{
    Files, PAGE, TestVm, anon, at, check, check_empty, draw, get, map_at, pages, put, space, vm,
};
use bsdvm::{Advice, Behavior, Inherit, MapError, Mapping, PagerError, Prot, Sharing, SpaceId};
use std::sync::atomic::{AtomicU64, Ordering};

fn leak(vm: TestVm) -> &'static TestVm {
    Box::leak(Box::new(vm))
}

/// A space with pages 0 to 7 of a file, shared, between two of memory: `A BBBBBBBB C`, with holes.
fn scene() -> (&'static TestVm, &'static Files, bsdvm::ObjectId, SpaceId) {
    let vm = leak(vm(1000));
    let files = Files::leak();
    let file = vm.object_create(files.pager(0), 8 * PAGE).unwrap();
    let s = space(vm, 32);
    anon(s, 0, 1);
    map_at(s, 2, 8, Mapping::object(file, 0, Sharing::Shared, Prot::RW)).unwrap();
    anon(s, 11, 1);
    (vm, files, file, s.id())
}

/// Calls `act` while the next page is read.
fn meanwhile(files: &Files, act: impl FnOnce() + Send + 'static) {
    let mut act = Some(act);
    *files.on_get.lock().unwrap() = Some(Box::new(move |_| {
        if let Some(act) = act.take() {
            act();
        }
    }));
}

fn end(vm: &TestVm, file: bsdvm::ObjectId, id: SpaceId) {
    check(vm);
    vm.space(id).release();
    vm.object(file).release();
    check_empty(vm);
}

#[test]
fn e07_others_clip_a_range_in_transition_and_its_holder_finds_it_again() {
    let (vm, files, file, id) = scene();
    let s = vm.space(id);
    meanwhile(files, move || {
        let s = vm.space(id);
        assert_eq!(draw(s, 12), "A.BBBBCCCC.D", "clipped for the work");
        s.protect(pages(3, 1), Prot::READ).unwrap();
        s.inherit(pages(4, 1), Inherit::None).unwrap();
        s.advise(pages(5, 1), Advice::Behavior(Behavior::Random))
            .unwrap();
        assert_eq!(draw(s, 12), "A.BCDEFFFF.G");
        // They agree again, and stay apart as long as the work lasts.
        s.protect(pages(3, 1), Prot::RW).unwrap();
        s.inherit(pages(4, 1), Inherit::Share).unwrap();
        s.advise(pages(5, 1), Advice::Behavior(Behavior::Normal))
            .unwrap();
        assert_eq!(draw(s, 12), "A.BCDEFFFF.G", "never merged");
    });
    s.wire(pages(2, 4)).unwrap();
    assert_eq!(draw(s, 12), "A.BBBBCCCC.D", "merged when the work is done");
    for page in 2..6 {
        assert!(s.entry(at(page)).unwrap().user_wired);
    }
    check(vm);
    s.unwire(pages(2, 4)).unwrap();
    assert_eq!(draw(s, 12), "A.BBBBBBBB.C");
    end(vm, file, id);
}

#[test]
fn e07_a_fork_meanwhile_inherits_no_mark() {
    let (vm, files, file, id) = scene();
    let s = vm.space(id);
    put(s, 0, 5);
    meanwhile(files, move || {
        // Were the mark inherited, the child's end would wait for ever.
        let child = vm.space(vm.space(id).fork().unwrap());
        assert_eq!(get(child, 0), 5);
        let entry = child.entry(at(3)).unwrap();
        assert_eq!((entry.wired, entry.user_wired), (0, false));
        child.remove(pages(2, 8)).unwrap();
        child.release();
    });
    s.wire(pages(2, 4)).unwrap();
    end(vm, file, id);
}

#[test]
fn e07_delete_wire_and_unwire_sleep_until_the_work_is_done() {
    type Verb = fn(&TestVm, SpaceId) -> Result<(), MapError>;
    let verbs: [(Verb, Result<(), MapError>, &str); 5] = [
        (
            |vm, id| vm.space(id).remove(pages(4, 4)),
            Ok(()),
            "A.BB....CC.D",
        ),
        (
            |vm, id| vm.space(id).wire(pages(4, 4)),
            Ok(()),
            "A.BBBBBBCC.D",
        ),
        (
            |vm, id| vm.space(id).unwire(pages(4, 2)),
            Ok(()),
            "A.BBCCCCCC.D",
        ),
        (
            |vm, id| vm.space(id).wire_quick(pages(4, 4)),
            Err(MapError::Wired),
            "A.BBBBCCCC.D",
        ),
        (
            |vm, id| vm.space(id).wire_kernel(pages(4, 4)),
            Ok(()),
            "A.BBCCDDEE.F",
        ),
    ];
    for (number, (verb, outcome, after)) in verbs.into_iter().enumerate() {
        let (vm, files, file, id) = scene();
        let s = vm.space(id);
        let order: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        let other = std::sync::Mutex::new(None);
        let other: &'static _ = Box::leak(Box::new(other));
        meanwhile(files, move || {
            let waits = vm.counters().transition_waits;
            let thread = std::thread::spawn(move || {
                let done = verb(vm, id);
                order.fetch_or(2, Ordering::SeqCst);
                done
            });
            while vm.counters().transition_waits == waits {
                assert!(!thread.is_finished(), "verb {number} did not wait");
                std::thread::yield_now();
            }
            assert_eq!(order.fetch_or(1, Ordering::SeqCst), 0);
            *other.lock().unwrap() = Some(thread);
        });
        s.wire(pages(2, 4)).unwrap();
        let thread = other.lock().unwrap().take().expect("the pager was called");
        assert_eq!(thread.join().unwrap(), outcome, "verb {number}");
        assert_eq!(order.load(Ordering::SeqCst), 3);
        assert_eq!(draw(s, 12), after, "verb {number}");
        end(vm, file, id);
    }
}

#[test]
fn e07_a_failure_takes_the_clips_back() {
    let (vm, files, file, id) = scene();
    let s = vm.space(id);
    let before = draw(s, 12);
    assert_eq!(
        s.wire(pages(4, 8)),
        Err(MapError::Hole),
        "holes are refused"
    );
    assert_eq!(draw(s, 12), before, "nothing was clipped");
    files.fail_get.store(true, Ordering::Relaxed);
    let failed = Err(MapError::Pager(PagerError::Io(5)));
    assert_eq!(s.wire(pages(4, 3)), failed);
    assert_eq!(s.wire_kernel(pages(4, 3)), failed);
    assert_eq!(draw(s, 12), before, "clipped, and merged again");
    assert_eq!(s.entry(at(5)).unwrap().wired, 0);
    check(vm);
    // No record for the second clip: the first is not made either.
    files.fail_get.store(false, Ordering::Relaxed);
    for n in 1.. {
        vm.inject_failure(n);
        let done = s.wire(pages(4, 3));
        let hit = vm.injection_left() == 0;
        vm.inject_failure(0);
        if !hit {
            assert_eq!(done, Ok(()));
            break;
        }
        match done {
            Ok(()) => s.unwire(pages(4, 3)).unwrap(),
            Err(e) => assert_eq!(e, MapError::NoMemory),
        }
        assert_eq!(draw(s, 12), before, "failure {n}");
        check(vm);
    }
    end(vm, file, id);
}
