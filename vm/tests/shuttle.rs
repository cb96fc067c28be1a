//! Whole operations against each other under a checker that chooses the interleaving:
//! `RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle cargo test -p bsdvm --test shuttle
//! --release`. A lost wake-up shows as a deadlock, a livelock as too many steps.

#![cfg(shuttle)]

mod common;

use bsdvm::{Access, FaultError, MapError, Mapping, ObjectId, Placement, Prot, Sharing, SpaceId};
use common::world::{World, explore, part};
use common::{PAGE, anon, at, check, get, pages, put, touch};
use shuttle::rand::{Rng, RngCore, thread_rng};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
#[test]
fn two_faults_on_an_empty_page_fill_it_once() {
    explore(300, || {
        let w = World::new(96);
        let id = w.space();
        anon(w.at(id), 0, 1);
        let before = w.vm.counters().zero_fill;
        w.together(vec![
            part(move |w| drop(w.store(id, 0, 0, 1).unwrap())),
            part(move |w| {
                touch(&w.vm, id, 1, at(0).checked_add(8).unwrap(), Some(2)).unwrap();
            }),
        ]);
        assert_eq!(w.vm.counters().zero_fill, before + 1);
        assert_eq!(w.load(id, 2, 0), Ok(1));
        let second = touch(&w.vm, id, 2, at(0).checked_add(8).unwrap(), None);
        assert_eq!(second, Ok(2));
        w.end(&[id], &[]);
    });
}

#[test]
fn two_faults_on_a_page_of_a_file_read_it_once() {
    explore(300, || {
        let w = World::new(96);
        let file = w.file(1);
        let (one, two) = (w.space(), w.space());
        w.map(one, 1, file, Sharing::Shared);
        w.map(two, 1, file, Sharing::Private);
        w.together(vec![
            part(move |w| assert_eq!(w.load(one, 0, 0), Ok(10))),
            part(move |w| assert_eq!(w.load(two, 1, 0), Ok(10))),
        ]);
        assert_eq!(w.disk.gets.load(Ordering::Relaxed), 1);
        w.end(&[one, two], &[file]);
    });
}

#[test]
fn two_sharers_write_one_page() {
    explore(300, || {
        let w = World::new(96);
        let parent = w.with(&[1]);
        let child = w.at(parent).fork().unwrap();
        assert_eq!((w.load(parent, 0, 0), w.load(child, 1, 0)), (Ok(1), Ok(1)));
        w.together(vec![
            part(move |w| drop(w.store(parent, 0, 0, 2).unwrap())),
            part(move |w| drop(w.store(child, 1, 0, 3).unwrap())),
        ]);
        for cpu in 0..2 {
            assert_eq!(
                (w.load(parent, cpu, 0), w.load(child, cpu, 0)),
                (Ok(2), Ok(3))
            );
        }
        w.end(&[parent, child], &[]);
    });
}

#[test]
fn a_fork_meets_stores() {
    explore(300, || {
        let w = World::new(96);
        let parent = w.with(&[1, 2]);
        let child = Arc::new(Mutex::new(None));
        w.together(vec![
            part(move |w| {
                w.store(parent, 0, 0, 11).unwrap();
                w.store(parent, 0, 1, 12).unwrap();
            }),
            part({
                let child = child.clone();
                move |w| {
                    let id = w.at(parent).fork().unwrap();
                    let seen = [0, 1].map(|page| w.load(id, 1, page).unwrap());
                    assert!([[1, 2], [11, 2], [11, 12]].contains(&seen), "{seen:?}");
                    w.store(id, 1, 0, 30).unwrap();
                    *child.lock().unwrap() = Some((id, seen));
                }
            }),
        ]);
        let (child, seen) = child.lock().unwrap().take().unwrap();
        assert_eq!(
            (w.load(child, 1, 0), w.load(child, 1, 1)),
            (Ok(30), Ok(seen[1]))
        );
        assert_eq!(
            (w.load(parent, 0, 0), w.load(parent, 0, 1)),
            (Ok(11), Ok(12))
        );
        w.end(&[parent, child], &[]);
    });
}

#[test]
fn two_forks_of_one_parent_meet_a_store() {
    explore(300, || {
        let w = World::new(96);
        let parent = w.with(&[1]);
        let children = Arc::new(Mutex::new(Vec::new()));
        let fork = |children: &Arc<Mutex<Vec<SpaceId>>>| {
            let children = children.clone();
            part(move |w| {
                let id = w.at(parent).fork().unwrap();
                children.lock().unwrap().push(id);
            })
        };
        w.together(vec![
            part(move |w| drop(w.store(parent, 0, 0, 2).unwrap())),
            fork(&children),
            fork(&children),
        ]);
        assert_eq!(w.load(parent, 0, 0), Ok(2));
        let mut all = children.lock().unwrap().clone();
        for (i, &id) in all.iter().enumerate() {
            let seen = w.load(id, 1, 0).unwrap();
            assert!(seen == 1 || seen == 2, "{seen}");
            w.store(id, 1, 0, 10 + i as u64).unwrap();
        }
        assert_eq!(
            (w.load(all[0], 0, 0), w.load(all[1], 0, 0)),
            (Ok(10), Ok(11))
        );
        assert_eq!(w.load(parent, 0, 0), Ok(2));
        all.push(parent);
        w.end(&all, &[]);
    });
}

/// Fork reads a page from swap with the map frozen; who waits for it is woken.
#[test]
fn an_extension_and_a_fault_meet_a_fork() {
    explore(300, || {
        let w = World::new(96);
        let parent = w.with(&[1]);
        let shared = Mapping {
            sharing: Sharing::Shared,
            ..Mapping::anonymous(Prot::RW)
        };
        w.at(parent)
            .map(PAGE, Placement::At(at(8)), shared)
            .unwrap();
        put(w.at(parent), 8, 5);
        w.page_out_all();
        let child = Arc::new(Mutex::new(None));
        w.together(vec![
            part({
                let child = child.clone();
                move |w| *child.lock().unwrap() = Some(w.at(parent).fork().unwrap())
            }),
            part(move |w| w.at(parent).extend(at(1), PAGE).unwrap()),
            part(move |w| drop(w.store(parent, 2, 0, 2).unwrap())),
        ]);
        let child = child.lock().unwrap().take().unwrap();
        assert!(w.at(parent).covered(pages(0, 2)));
        assert_eq!((get(w.at(child), 8), get(w.at(parent), 0)), (5, 2));
        w.end(&[parent, child], &[]);
    });
}

#[test]
fn a_fault_meets_a_removal() {
    explore(300, || {
        let w = World::new(96);
        let id = w.with(&[1, 2]);
        w.together(vec![
            part(move |w| {
                for value in 5..8 {
                    let stored = w.store(id, 0, 0, value);
                    assert!(matches!(stored, Ok(_) | Err(FaultError::InvalidAddress)));
                }
            }),
            part(move |w| {
                w.at(id).remove(pages(0, 1)).unwrap();
                assert_eq!(w.load(id, 1, 0), Err(FaultError::InvalidAddress));
                // Whoever has the frame now does not see the store.
                anon(w.at(id), 8, 1);
                w.store(id, 1, 8, 90).unwrap();
                assert_eq!(w.load(id, 1, 8), Ok(90));
            }),
        ]);
        assert_eq!((w.load(id, 0, 8), w.load(id, 0, 1)), (Ok(90), Ok(2)));
        w.end(&[id], &[]);
    });
}

#[test]
fn page_out_meets_faults() {
    explore(300, || {
        let w = World::new(96);
        let id = w.with(&[1, 2]);
        w.together(vec![
            part(move |w| {
                for value in 5..8 {
                    w.store(id, 0, 0, value).unwrap();
                    assert_eq!(w.load(id, 0, 0), Ok(value));
                    assert_eq!(w.load(id, 0, 1), Ok(2));
                }
            }),
            part(|w| {
                w.vm.pageout_step(4);
                w.vm.pageout_step(4);
            }),
            part(|w| drop(w.vm.pageout_step(4))),
        ]);
        assert_eq!((w.load(id, 1, 0), w.load(id, 1, 1)), (Ok(7), Ok(2)));
        w.end(&[id], &[]);
    });
}

#[test]
fn page_out_meets_an_exit() {
    explore(300, || {
        let w = World::new(96);
        let parent = w.with(&[1, 2, 3]);
        let child = w.at(parent).fork().unwrap();
        put(w.at(child), 0, 10);
        w.together(vec![
            part(move |w| w.at(parent).release()),
            part(|w| drop(w.vm.pageout_step(8))),
            part(move |w| assert_eq!(w.load(child, 2, 1), Ok(2))),
        ]);
        assert_eq!([0, 1, 2].map(|p| get(w.at(child), p)), [10, 2, 3]);
        w.page_out_all();
        check(&w.vm);
        w.end(&[child], &[]);
    });
}

#[test]
fn wiring_meets_a_removal_and_a_fault() {
    explore(300, || {
        let w = World::new(96);
        let id = w.with(&[1, 2]);
        w.page_out_all();
        w.together(vec![
            part(move |w| {
                let wired = w.at(id).wire(pages(0, 2));
                assert!(matches!(wired, Ok(()) | Err(MapError::Hole)), "{wired:?}");
            }),
            part(move |w| w.at(id).remove(pages(0, 1)).unwrap()),
            part(move |w| drop(w.store(id, 2, 1, 3).unwrap())),
            part(|w| drop(w.vm.pageout_step(4))),
        ]);
        let wired = w.at(id).entry(at(1)).unwrap().wired;
        w.page_out_all();
        check(&w.vm);
        let mut resident = false;
        w.at(id)
            .residency(pages(1, 1), &mut |_, r| resident = r)
            .unwrap();
        assert_eq!(resident, wired == 1, "wired pages stay");
        assert_eq!(w.load(id, 1, 1), Ok(3));
        w.end(&[id], &[]);
    });
}

#[test]
fn a_collapse_meets_faults_and_page_out() {
    explore(300, || {
        let w = World::new(96);
        let parent = w.with(&[1, 2, 3]);
        let child = w.at(parent).fork().unwrap();
        put(w.at(parent), 0, 10);
        put(w.at(child), 1, 20);
        w.vm.pageout_step(2);
        w.together(vec![
            part(move |w| w.at(child).release()),
            part(move |w| {
                assert_eq!(w.load(parent, 1, 1), Ok(2));
                w.store(parent, 1, 2, 30).unwrap();
                assert_eq!(w.load(parent, 1, 0), Ok(10));
            }),
            part(|w| drop(w.vm.pageout_step(4))),
        ]);
        assert_eq!(w.vm.counters().objects, 1, "nothing is left behind");
        assert_eq!([0, 1, 2].map(|p| get(w.at(parent), p)), [10, 2, 30]);
        w.end(&[parent], &[]);
    });
}

#[test]
fn two_exits_and_a_write_meet_on_one_chain() {
    explore(300, || {
        let w = World::new(96);
        let old = w.with(&[1, 2]);
        let middle = w.at(old).fork().unwrap();
        put(w.at(middle), 0, 3);
        let young = w.at(middle).fork().unwrap();
        put(w.at(middle), 0, 4);
        w.together(vec![
            part(move |w| w.at(old).release()),
            part(move |w| w.at(middle).release()),
            part(move |w| {
                w.store(young, 2, 1, 5).unwrap();
                assert_eq!(w.load(young, 2, 0), Ok(3));
            }),
        ]);
        assert_eq!((get(w.at(young), 0), get(w.at(young), 1)), (3, 5));
        w.end(&[young], &[]);
    });
}

#[test]
fn truncation_meets_faults() {
    explore(300, || {
        let w = World::new(96);
        let file = w.file(2);
        let id = w.space();
        w.map(id, 2, file, Sharing::Shared);
        w.together(vec![
            part(move |w| w.vm.object(file).set_size(PAGE).unwrap()),
            part(move |w| {
                let seen = w.load(id, 1, 1);
                assert!(
                    matches!(seen, Ok(11) | Err(FaultError::BeyondEnd)),
                    "{seen:?}"
                );
                let stored = w.store(id, 1, 1, 5);
                assert!(matches!(stored, Ok(_) | Err(FaultError::BeyondEnd)));
            }),
            part(move |w| {
                w.store(id, 2, 0, 4).unwrap();
                w.vm.object(file).clean(0, 2 * PAGE).unwrap();
            }),
        ]);
        assert_eq!(w.load(id, 0, 1), Err(FaultError::BeyondEnd));
        assert_eq!(
            (w.load(id, 0, 0), w.vm.object(file).resident_pages()),
            (Ok(4), 1)
        );
        w.end(&[id], &[file]);
    });
}

#[test]
fn discard_meets_faults_and_page_out() {
    explore(300, || {
        let w = World::new(96);
        let id = w.with(&[1]);
        w.together(vec![
            part(move |w| w.at(id).discard(pages(0, 1)).unwrap()),
            part(move |w| {
                let seen = w.load(id, 1, 0).unwrap();
                assert!(seen == 1 || seen == 0);
                let again = w.load(id, 1, 0).unwrap();
                assert!(again <= seen, "what was given up came back");
            }),
            part(|w| drop(w.vm.pageout_step(4))),
        ]);
        assert_eq!(w.load(id, 0, 0), Ok(0));
        w.end(&[id], &[]);
    });
}

/// Stores until they fail; nothing is stored after the protection has changed.
#[test]
fn protection_meets_stores() {
    explore(300, || {
        let w = World::new(96);
        let id = w.with(&[1]);
        w.together(vec![
            part(move |w| {
                w.at(id).protect(pages(0, 1), Prot::READ).unwrap();
                let seen = w.load(id, 0, 0);
                assert_eq!(w.store(id, 0, 0, 9), Err(FaultError::Protection));
                assert_eq!(w.load(id, 0, 0), seen, "a store came after it");
            }),
            part(move |w| {
                for value in 2..5 {
                    match w.store(id, 1, 0, value) {
                        Ok(_) => assert_eq!(w.load(id, 1, 0), Ok(value)),
                        Err(e) => return assert_eq!(e, FaultError::Protection),
                    }
                }
            }),
        ]);
        w.end(&[id], &[]);
    });
}

#[test]
fn cleaning_with_dropping_loses_no_store() {
    explore(300, || {
        let w = World::new(96);
        let file = w.file(1);
        let id = w.space();
        w.map(id, 1, file, Sharing::Shared);
        w.store(id, 0, 0, 1).unwrap();
        w.together(vec![
            part(move |w| w.at(id).clean(pages(0, 1), true).unwrap()),
            part(move |w| {
                // Now and then, so that the page is clean when it is looked at.
                for value in 2..20 {
                    w.store(id, 1, 0, value).unwrap();
                    (0..10).for_each(|_| assert_eq!(w.load(id, 1, 0), Ok(value)));
                }
            }),
        ]);
        assert_eq!(w.load(id, 0, 0), Ok(19));
        w.at(id).clean(pages(0, 1), true).unwrap();
        assert_eq!(w.load(id, 0, 0), Ok(19));
        w.end(&[id], &[file]);
    });
}

#[test]
fn faults_meet_with_no_frame_free() {
    explore(300, || {
        const COUNT: u64 = 24;
        let w = World::new(80);
        let (one, two) = (w.space(), w.space());
        for id in [one, two] {
            anon(w.at(id), 0, COUNT);
            (0..COUNT).for_each(|page| put(w.at(id), page, 1));
        }
        assert!(w.vm.counters().page_out > 0, "not all of it fits");
        let hungry = |id: SpaceId, cpu: usize| {
            part(move |w| {
                for page in 0..COUNT {
                    w.store(id, cpu, page, 100 * cpu as u64 + page).unwrap();
                }
            })
        };
        w.together(vec![hungry(one, 0), hungry(two, 1)]);
        for page in 0..COUNT {
            assert_eq!(w.load(one, 2, page), Ok(page));
            assert_eq!(w.load(two, 3, page), Ok(100 + page));
        }
        w.end(&[one, two], &[]);
    });
}

/// A space ends while others still hold its structure and fault.
#[test]
fn an_exit_meets_a_fault_on_a_busy_page() {
    explore(300, || {
        let w = World::new(96);
        let file = w.file(1);
        let id = w.space();
        w.map(id, 1, file, Sharing::Shared);
        let fault = || {
            part(move |w| {
                let done = w.at(id).fault(at(0), Access::Read);
                assert!(matches!(done, Ok(_) | Err(FaultError::InvalidAddress)));
                w.at(id).unhold();
            })
        };
        w.at(id).hold();
        w.at(id).hold();
        w.together(vec![part(move |w| w.at(id).release()), fault(), fault()]);
        w.end(&[], &[file]);
    });
}

/// Translations may be dropped at any moment; a page that goes out then waits until no processor
/// remembers them, like one whose translations it drops itself.
#[test]
fn page_out_meets_dropped_translations_and_stores() {
    explore(300, || {
        let w = World::new(96);
        let id = w.with(&[1]);
        let other = w.space();
        anon(w.at(other), 0, 1);
        w.store(id, 2, 0, 2).unwrap();
        w.together(vec![
            part(move |w| w.at(id).drop_translations(pages(0, 1))),
            part(move |w| {
                for _ in 0..3 {
                    w.vm.pageout_step(1);
                }
                assert_eq!(w.load(other, 1, 0), Ok(0));
                assert_eq!(w.load(other, 1, 0), Ok(0), "another's store");
            }),
            part(move |w| {
                for value in 3..6 {
                    w.store(id, 2, 0, value).unwrap();
                    assert_eq!(w.load(id, 2, 0), Ok(value));
                }
            }),
        ]);
        assert_eq!((w.load(id, 0, 0), w.load(other, 0, 0)), (Ok(5), Ok(0)));
        w.end(&[id, other], &[]);
    });
}

/// What a child sees does not change any more when the fork has returned, even if somebody else
/// was about to take write access from the parent.
#[test]
fn a_fork_meets_a_protection_and_stores() {
    explore(300, || {
        let w = World::new(96);
        let parent = w.with(&[1]);
        w.store(parent, 2, 0, 2).unwrap();
        let child = Arc::new(Mutex::new(None));
        w.together(vec![
            part(move |w| w.at(parent).protect(pages(0, 1), Prot::READ).unwrap()),
            part({
                let child = child.clone();
                move |w| {
                    let id = w.at(parent).fork().unwrap();
                    let seen = get(w.at(id), 0);
                    *child.lock().unwrap() = Some((id, seen));
                }
            }),
            part(move |w| {
                for value in 3..6 {
                    if w.store(parent, 2, 0, value).is_err() {
                        return;
                    }
                }
            }),
        ]);
        let (child, seen) = child.lock().unwrap().take().unwrap();
        assert_eq!(get(w.at(child), 0), seen, "a store came after the fork");
        w.end(&[parent, child], &[]);
    });
}

/// One operation chosen at random on `id`; whatever it answers, the invariants hold afterwards.
fn anything(w: &World, id: SpaceId, cpu: usize, file: ObjectId) {
    let mut random = thread_rng();
    let page = random.gen_range(0..6);
    let range = pages(page, random.gen_range(1..3));
    let space = w.at(id);
    match random.gen_range(0..16) {
        0..4 => drop(w.store(id, cpu, page, u64::from(random.next_u32()))),
        4 => drop(w.load(id, cpu, page)),
        5 => {
            let Ok(child) = space.fork() else { return };
            let before = w.load(child, cpu, page);
            let _ = w.store(child, cpu, (page + 1) % 6, 5);
            if w.at(child)
                .entry(at(page))
                .is_some_and(|e| e.sharing == Sharing::Private && e.file.is_none())
            {
                assert_eq!(
                    w.load(child, cpu, page),
                    before,
                    "somebody else wrote to a copy"
                );
            }
            w.at(child).release();
        }
        6 => drop(space.remove(range)),
        7 => drop(space.protect(range, Prot::READ)),
        8 => drop(space.protect(range, Prot::RW)),
        9 => drop(space.discard(range)),
        10 => drop(space.wire(range)),
        11 => drop(space.unwire(range)),
        12 => drop(w.vm.pageout_step(3)),
        13 => {
            let _ = space.map(
                range.len(),
                Placement::Replace(range.start()),
                Mapping::anonymous(Prot::RW),
            );
        }
        14 => drop(w.vm.object(file).set_size(PAGE * (page % 3))),
        _ => {
            let _ = space.clean(range, true);
            space.drop_translations(range);
        }
    }
}

#[test]
fn anything_meets_anything() {
    explore(300, || {
        let w = World::new(128);
        let file = w.file(2);
        let one = w.with(&[1, 2, 3]);
        for (first, sharing) in [(3, Sharing::Shared), (5, Sharing::Private)] {
            let what = Mapping::object(file, 0, sharing, Prot::RW);
            let count = 2 - first / 5;
            w.at(one)
                .map(count * PAGE, Placement::At(at(first)), what)
                .unwrap();
        }
        let two = w.at(one).fork().unwrap();
        w.together(
            [(0, one), (1, two), (2, one)]
                .into_iter()
                .map(|(cpu, id)| part(move |w| (0..4).for_each(|_| anything(w, id, cpu, file))))
                .collect(),
        );
        w.end(&[one, two], &[file]);
    });
}
