//! The kernel's memory, ranges in transition, submaps and virtual page tables under a checker that
//! chooses the interleaving: `RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle cargo test
//! -p bsdvm --test shuttle_kmem --release`. A sleep that nobody ends shows as a deadlock.

#![cfg(shuttle)]

mod common;

use bsdvm::{
    Advice, Backing, FaultError, Fill, Find, Frame, Inherit, KernelMap, KmemError, Malloc,
    MapError, Mapping, MemoryAttr, ObjectId, Paging, Physical, Prot, Sharing, SubmapName,
    TableEntry, VirtAddr, VirtRange, Wait, Within,
};
use bsdvm_sim::Sim;
use common::world::{Part, World, explore, part};
use common::{PAGE, at, check, get, map_at, pages, put, touch};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

const WAIT: Malloc = Malloc {
    wait: Wait::Ok,
    fill: Fill::Zeroed,
};
const NOWAIT: Malloc = Malloc {
    wait: Wait::No,
    fill: Fill::AsIs,
};

/// Interleavings of each test with each scheduler.
const RUNS: usize = 250;

/// Makes the submap `name`, of `count` pages.
fn submap(w: &World, name: SubmapName, count: u64) -> KernelMap<'_, Sim<12>> {
    let kmem = w.kernel();
    kmem.suballoc_named(name, kmem.map(), count * PAGE, Find::Any, Paging::Pageable)
        .expect("a submap")
}

fn named(w: &World, name: SubmapName) -> KernelMap<'_, Sim<12>> {
    w.kernel().named(name).expect("a submap of that name")
}

fn kmem_map(w: &World) -> KernelMap<'_, Sim<12>> {
    named(w, SubmapName::Kmem)
}

/// `count` pages of a map from page `first` on.
fn part_of(map: KernelMap<'_, Sim<12>>, first: u64, count: u64) -> VirtRange {
    let start = VirtAddr(map.space().range().start().0 + first * PAGE);
    VirtRange::from_len(start, count * PAGE).expect("in the map")
}

/// A store of the kernel's to pageable memory.
fn kernel_store(w: &World, cpu: usize, va: VirtAddr, value: u64) -> Result<u64, FaultError> {
    touch(&w.vm, w.kernel().map().id(), cpu, va, Some(value))
}

fn kernel_load(w: &World, cpu: usize, va: VirtAddr) -> Result<u64, FaultError> {
    touch(&w.vm, w.kernel().map().id(), cpu, va, None)
}

/// Frames that somebody keeps from all others.
type Hoard = Arc<Mutex<Vec<Frame>>>;

/// Takes every frame that who may wait can have.
fn take_all(w: &World) -> Hoard {
    let kmem = w.kernel();
    let all = std::iter::from_fn(|| kmem.frame_alloc(Fill::AsIs).ok());
    Arc::new(Mutex::new(all.collect()))
}

/// Gives `count` frames back, one by one.
fn give(w: &World, hoard: &Hoard, count: usize) {
    for _ in 0..count {
        let frame = hoard.lock().unwrap().pop();
        let Some(frame) = frame else { return };
        w.kernel().frame_free(frame);
    }
}

/// A world with the kernel's map of `count` pages, in which everything that grows once has grown,
/// and which has no free frame left.
fn exhausted(count: u64) -> (World, Hoard) {
    let w = World::new(128);
    let map = submap(&w, SubmapName::Kmem, count);
    let got = map.malloc(count * PAGE, WAIT).unwrap();
    (0..count).for_each(|page| map.free(VirtAddr(got.0 + page * PAGE), PAGE).unwrap());
    let got = map.alloc_pageable(count * PAGE).unwrap();
    map.free(got, count * PAGE).unwrap();
    let hoard = take_all(&w);
    (w, hoard)
}

#[test]
fn k13_who_waits_for_room_is_woken() {
    explore(RUNS, || {
        let w = World::new(128);
        let full = submap(&w, SubmapName::Exec, 4).alloc_wait(4 * PAGE);
        let full = full.unwrap();
        let wait = |count: u64| {
            part(move |w| {
                let map = named(w, SubmapName::Exec);
                let got = map.alloc_wait(count * PAGE).unwrap();
                let cpu = count as usize;
                assert_eq!(kernel_load(w, cpu, got), Ok(0));
                kernel_store(w, cpu, got, count).unwrap();
                assert_eq!(kernel_load(w, cpu, got), Ok(count));
                map.free_wakeup(got, count * PAGE).unwrap();
            })
        };
        w.together(vec![
            part(move |w| {
                for page in [1, 3, 0, 2] {
                    let va = VirtAddr(full.0 + page * PAGE);
                    named(w, SubmapName::Exec).free_wakeup(va, PAGE).unwrap();
                }
            }),
            wait(1),
            wait(2),
            wait(3),
        ]);
        assert_eq!(named(&w, SubmapName::Exec).space().entries(), 0);
        w.end(&[], &[]);
    });
}

/// What is taken and cannot be filled is given back: room for who waits like any other.
#[test]
fn k13_room_that_a_failure_gives_back_ends_a_wait() {
    explore(RUNS, || {
        let (w, hoard) = exhausted(8);
        let wait = || {
            part(|w| {
                let map = kmem_map(w);
                let got = map.alloc_wait(8 * PAGE).unwrap();
                map.free_wakeup(got, 8 * PAGE).unwrap();
            })
        };
        w.together(vec![
            part(|w| {
                let map = kmem_map(w);
                let done = map.back(part_of(map, 0, 8), NOWAIT);
                let expected = [Err(KmemError::NoMemory), Err(KmemError::InvalidArgument)];
                assert!(expected.contains(&done), "{done:?}");
            }),
            wait(),
            wait(),
        ]);
        assert_eq!(kmem_map(&w).space().entries(), 0);
        give(&w, &hoard, usize::MAX);
        w.end(&[], &[]);
    });
}

#[test]
fn k09_who_waits_for_pages_gets_each_that_is_given() {
    explore(RUNS, || {
        let (w, hoard) = exhausted(8);
        let hungry = |count: u64| {
            part(move |w| {
                let got = kmem_map(w).malloc(count * PAGE, WAIT).unwrap();
                let last = VirtAddr(got.0 + (count - 1) * PAGE);
                assert_eq!(kernel_load(w, 1, last), Ok(0));
                kernel_store(w, 1, last, 5).unwrap();
            })
        };
        let giver = || {
            let hoard = hoard.clone();
            part(move |w| give(w, &hoard, 6))
        };
        w.together(vec![hungry(3), hungry(1), giver(), giver()]);
        let kmem = kmem_map(&w);
        let used = (0..8).filter(|&page| {
            let range = part_of(kmem, page, 1);
            let entry = kmem.space().entry(range.start());
            entry.is_some_and(|e| e.range.contains_range(range))
        });
        assert_eq!(used.count(), 4);
        give(&w, &hoard, usize::MAX);
        w.end(&[], &[]);
    });
}

/// Frames that are moved, not freed, are free frames that whoever waits has to see.
#[test]
fn k09_frames_on_their_way_to_a_magazine_are_not_missed() {
    explore(RUNS, || {
        let (w, hoard) = exhausted(8);
        // Neighbours, which move together.
        let mut frames = hoard.lock().unwrap();
        frames.sort_unstable_by_key(|frame| frame.0);
        let run = frames
            .windows(8)
            .position(|run| run[0].0 % 8 == 0 && run[7].0 == run[0].0 + 7)
            .expect("a run");
        let run: Vec<_> = frames.drain(run..run + 8).collect();
        drop(frames);
        run.into_iter()
            .for_each(|frame| w.kernel().frame_free(frame));
        // A search in vain leaves all free frames in the lists.
        let nowhere = Physical {
            within: Within {
                low: Frame(1 << 20),
                ..Within::ANY
            },
            attr: MemoryAttr::WriteBack,
        };
        let none = kmem_map(&w).alloc_contig(PAGE, NOWAIT, nowhere);
        assert_eq!(none, Err(KmemError::NoMemory));
        let taken = Arc::new(Mutex::new(Vec::new()));
        let take = || {
            let taken = taken.clone();
            part(move |w| {
                let frame = w.kernel().frame_alloc(Fill::AsIs);
                taken.lock().unwrap().extend(frame);
            })
        };
        w.together(vec![
            take(),
            part(|w| drop(kmem_map(w).malloc(PAGE, WAIT).unwrap())),
        ]);
        for frame in taken.lock().unwrap().drain(..) {
            w.kernel().frame_free(frame);
        }
        give(&w, &hoard, usize::MAX);
        w.end(&[], &[]);
    });
}

/// The range is in transition while it waits for frames: who frees or protects part of it waits.
#[test]
fn k11_a_range_that_is_being_filled_meets_verbs() {
    explore(RUNS, || {
        let (w, hoard) = exhausted(8);
        w.together(vec![
            part(|w| {
                let map = kmem_map(w);
                map.back(part_of(map, 0, 4), WAIT).unwrap();
            }),
            part(|w| {
                let map = kmem_map(w);
                map.free(part_of(map, 1, 1).start(), PAGE).unwrap();
            }),
            part(|w| {
                let map = kmem_map(w);
                let done = map.space().protect(part_of(map, 2, 1), Prot::READ);
                assert!(matches!(done, Ok(()) | Err(MapError::Hole)), "{done:?}");
            }),
            part(|w| {
                let map = kmem_map(w);
                for page in 0..4 {
                    let va = part_of(map, page, 1).start();
                    if let Some(entry) = map.space().entry(va).filter(|e| e.range.contains(va)) {
                        assert_eq!(entry.wired, 1);
                    }
                }
            }),
            part({
                let hoard = hoard.clone();
                move |w| give(w, &hoard, 12)
            }),
        ]);
        let map = kmem_map(&w);
        let there = |page| {
            let va = part_of(map, page, 1).start();
            map.space().entry(va).is_some_and(|e| e.range.contains(va))
        };
        assert!([0, 2, 3].into_iter().all(there));
        assert_eq!(kernel_load(&w, 0, part_of(map, 3, 1).start()), Ok(0));
        give(&w, &hoard, usize::MAX);
        map.free(part_of(map, 0, 4).start(), 4 * PAGE).unwrap();
        assert_eq!(map.space().entries(), 0);
        w.end(&[], &[]);
    });
}

/// Two that want the same range: one has it, and when it fails the other may.
#[test]
fn k11_two_fill_one_range() {
    explore(RUNS, || {
        let (w, hoard) = exhausted(4);
        let got = Arc::new(Mutex::new(0));
        let fill = |how: Malloc| {
            let got = got.clone();
            part(move |w| {
                let map = kmem_map(w);
                match map.back(part_of(map, 0, 4), how) {
                    Ok(()) => {
                        *got.lock().unwrap() += 1;
                        map.free_wakeup(part_of(map, 0, 4).start(), 4 * PAGE)
                            .unwrap();
                    }
                    Err(e) => assert!(
                        matches!(e, KmemError::NoMemory | KmemError::NoSpace)
                            || e == KmemError::InvalidArgument,
                        "{e:?}"
                    ),
                }
            })
        };
        let giver = {
            let hoard = hoard.clone();
            part(move |w| give(w, &hoard, 12))
        };
        w.together(vec![fill(NOWAIT), fill(WAIT), fill(NOWAIT), giver]);
        assert_eq!(kmem_map(&w).space().entries(), 0);
        give(&w, &hoard, usize::MAX);
        w.end(&[], &[]);
    });
}

#[test]
fn w02_wirings_of_the_kernel_and_the_user_overlap() {
    explore(RUNS, || {
        let w = World::new(160);
        let id = w.with(&[1, 2, 3, 4]);
        w.page_out_all();
        let child = Arc::new(Mutex::new(None));
        w.together(vec![
            part(move |w| w.at(id).wire(pages(0, 3)).unwrap()),
            part(move |w| w.at(id).wire_kernel(pages(1, 3)).unwrap()),
            part(move |w| {
                w.at(id).wire_kernel(pages(0, 2)).unwrap();
                assert!(w.at(id).entry(at(0)).unwrap().wired > 0);
                w.at(id).unwire_kernel(pages(0, 2)).unwrap();
            }),
            part({
                let child = child.clone();
                move |w| {
                    let made = w.at(id).fork().unwrap();
                    w.store(made, 3, 1, 20).unwrap();
                    assert_eq!(w.load(made, 3, 0), Ok(1));
                    *child.lock().unwrap() = Some(made);
                }
            }),
            part(|w| drop(w.vm.pageout_step(4))),
            part(move |w| drop(w.store(id, 5, 2, 30).unwrap())),
        ]);
        let child = child.lock().unwrap().take().unwrap();
        let wired = [0, 1, 2, 3].map(|page| w.at(id).entry(at(page)).unwrap().wired);
        assert_eq!(wired, [1, 2, 2, 1]);
        assert_eq!([0, 1, 3].map(|page| get(w.at(id), page)), [1, 2, 4]);
        assert_eq!((get(w.at(id), 2), get(w.at(child), 1)), (30, 20));
        w.page_out_all();
        let mut resident = 0;
        let mut count = |_: VirtAddr, r: bool| resident += u32::from(r);
        w.at(id).residency(pages(0, 4), &mut count).unwrap();
        assert_eq!(resident, 4, "wired pages stay");
        w.at(id).unwire(pages(0, 3)).unwrap();
        w.at(id).unwire_kernel(pages(1, 3)).unwrap();
        w.page_out_all();
        check(&w.vm);
        w.end(&[id, child], &[]);
    });
}

/// Wirings of ranges that go, and of pages that cannot be had: each takes back what it did.
#[test]
fn w02_wirings_that_fail_meet_others() {
    explore(RUNS, || {
        let w = World::new(160);
        let file = w.file(2);
        let id = w.with(&[1, 2]);
        // The last page lies beyond the end of the file.
        let what = Mapping::object(file, 0, Sharing::Shared, Prot::RW);
        map_at(w.at(id), 2, 3, what).unwrap();
        w.page_out_all();
        w.together(vec![
            part(move |w| {
                let done = w.at(id).wire(pages(1, 4));
                assert!(matches!(done, Err(MapError::BeyondEnd | MapError::Hole)));
            }),
            part(move |w| {
                let done = w.at(id).wire_kernel(pages(0, 3));
                if done.is_ok() {
                    let undone = w.at(id).unwire_kernel(pages(0, 3));
                    // What was removed meanwhile took its wiring along.
                    assert!(matches!(undone, Ok(()) | Err(MapError::Hole)));
                    if undone.is_err() {
                        w.at(id).unwire_kernel(pages(1, 2)).unwrap();
                    }
                } else {
                    assert_eq!(done, Err(MapError::Hole));
                }
            }),
            part(move |w| w.at(id).remove(pages(0, 1)).unwrap()),
            part(move |w| {
                let child = w.at(id).fork().unwrap();
                assert_eq!(w.load(child, 3, 1), Ok(2));
                w.at(child).release();
            }),
        ]);
        for page in 1..5 {
            assert_eq!(w.at(id).entry(at(page)).unwrap().wired, 0, "page {page}");
        }
        w.page_out_all();
        check(&w.vm);
        w.end(&[id], &[file]);
    });
}

/// Nobody has an item that somebody else has, on whichever processor it was freed.
#[test]
fn o10_zones_on_several_processors_meet_reclaim() {
    explore(RUNS, || {
        let w = World::new(128);
        submap(&w, SubmapName::Kmem, 16);
        let zone = w.kernel().zone_create(2048, 2048).unwrap().id();
        let out = Arc::new(Mutex::new(BTreeSet::new()));
        let user = |cpu: usize, how: Malloc| {
            let out = out.clone();
            part(move |w| {
                let zone = w.kernel().zone(zone).unwrap();
                for _ in 0..2 {
                    let mine = [0, 1, 2].map(|_| {
                        let item = zone.alloc(how).unwrap();
                        assert!(out.lock().unwrap().insert(item.0), "{item:?} is used twice");
                        item
                    });
                    w.vm.machine().set_cpu((cpu + 1) % 4);
                    for item in mine {
                        out.lock().unwrap().remove(&item.0);
                        zone.free(item).unwrap();
                    }
                }
            })
        };
        w.together(vec![
            user(0, NOWAIT),
            user(1, WAIT),
            user(2, NOWAIT),
            part(|w| {
                w.kernel().reclaim();
                w.kernel().reclaim();
            }),
        ]);
        let zone = w.kernel().zone(zone).unwrap();
        zone.destroy().unwrap();
        assert_eq!(kmem_map(&w).space().entries(), 0, "every page is back");
        w.end(&[], &[]);
    });
}

/// Page-out may reclaim at any moment, also while a zone ends.
#[test]
fn o10_the_end_of_a_zone_meets_reclaim() {
    explore(RUNS, || {
        let w = World::new(128);
        submap(&w, SubmapName::Kmem, 16);
        let zone = w.kernel().zone_create(2048, 2048).unwrap();
        let items = [0; 5].map(|_| zone.alloc(NOWAIT).unwrap());
        items.into_iter().for_each(|item| zone.free(item).unwrap());
        let zone = zone.id();
        w.together(vec![
            part(move |w| w.kernel().zone(zone).unwrap().destroy().unwrap()),
            part(|w| drop(w.kernel().reclaim())),
            part(|w| {
                let other = w.kernel().zone_create(1024, 1024).unwrap();
                let item = other.alloc(NOWAIT).unwrap();
                other.free(item).unwrap();
                other.destroy().unwrap();
            }),
        ]);
        assert_eq!(kmem_map(&w).space().entries(), 0, "every page is back");
        w.end(&[], &[]);
    });
}

/// Faults find the pages of a submap by the map above it while the submap changes.
#[test]
fn m06_faults_through_a_submap_meet_its_verbs() {
    explore(RUNS, || {
        let w = World::new(128);
        let id = w.space();
        map_at(w.at(id), 0, 4, Mapping::anonymous(Prot::NONE)).unwrap();
        let sub = w.vm.submap_create(id, pages(0, 4)).unwrap();
        w.at(id).submap(pages(0, 4), sub).unwrap();
        map_at(w.at(sub), 0, 2, Mapping::anonymous(Prot::RW)).unwrap();
        put(w.at(id), 0, 1);
        put(w.at(id), 1, 2);
        w.together(vec![
            part(move |w| {
                for value in 5..8 {
                    let done = w.store(id, 0, 0, value);
                    assert!(matches!(done, Ok(_) | Err(FaultError::InvalidAddress)));
                    assert_eq!(w.load(id, 0, 1), Ok(2));
                }
            }),
            part(move |w| {
                w.at(sub).remove(pages(0, 1)).unwrap();
                assert_eq!(w.load(id, 1, 0), Err(FaultError::InvalidAddress));
            }),
            part(move |w| {
                map_at(w.at(sub), 2, 2, Mapping::anonymous(Prot::RW)).unwrap();
                w.store(id, 2, 3, 9).unwrap();
                assert_eq!(w.load(id, 2, 3), Ok(9));
                assert_eq!(w.at(id).remove(pages(2, 2)), Err(MapError::Submap));
            }),
            part(|w| drop(w.vm.pageout_step(4))),
        ]);
        assert_eq!((get(w.at(id), 1), get(w.at(sub), 3)), (2, 9));
        assert_eq!(w.load(id, 3, 0), Err(FaultError::InvalidAddress));
        w.end(&[sub, id], &[]);
    });
}

const VALID: TableEntry = TableEntry::VALID;
const RW: TableEntry = TableEntry::VALID.union(TableEntry::WRITABLE);

fn entry(page: u64, flags: TableEntry) -> TableEntry {
    TableEntry::to(page * PAGE, flags)
}

fn write_entry(w: &World, object: ObjectId, page: u64, slot: u64, value: TableEntry) {
    let bytes = value.bits().to_le_bytes();
    let written = w.vm.object(object).write(page * PAGE + slot * 8, &bytes);
    written.unwrap();
}

/// An object whose pages 1 to 4 are tables that show, for virtual page 0, page 10. The swap space
/// here keeps just the first entry of a table.
fn object_with_tables(w: &World) -> ObjectId {
    let object = w.vm.object_create_anonymous(32 * PAGE).unwrap();
    for level in 1..4 {
        write_entry(w, object, level, 0, entry(level + 1, RW));
    }
    write_entry(w, object, 4, 0, entry(10, RW));
    for page in 9..14u64 {
        let bytes = page.to_le_bytes();
        w.vm.object(object).write(page * PAGE, &bytes).unwrap();
    }
    object
}

/// A mapping of what the tables of `object` translate.
fn table(object: ObjectId) -> Mapping {
    Mapping {
        backing: Backing::PageTable { object, offset: 0 },
        inherit: Inherit::Share,
        ..Mapping::object(object, 0, Sharing::Shared, Prot::RW)
    }
}

/// What a table shows after a change and its invalidation, or after a new directory, is the new
/// page and no other.
#[test]
fn m18_tables_meet_new_directories_and_invalidation() {
    explore(RUNS, || {
        let w = World::new(160);
        let object = object_with_tables(&w);
        let id = w.space();
        map_at(w.at(id), 0, 8, table(object)).unwrap();
        let set = move |w: &World, to| w.at(id).set_page_directory(pages(0, 8), to).unwrap();
        set(&w, entry(1, RW));
        let look = |cpu: usize| -> Part {
            part(move |w| {
                for _ in 0..3 {
                    let seen = w.load(id, cpu, 0);
                    assert!(matches!(seen, Ok(10 | 11 | 12)), "{seen:?}");
                }
            })
        };
        w.together(vec![
            look(0),
            look(1),
            part(move |w| {
                write_entry(w, object, 4, 0, entry(11, VALID));
                w.at(id).advise(pages(0, 8), Advice::Invalidate).unwrap();
                let seen = w.load(id, 2, 0);
                assert!(matches!(seen, Ok(11 | 12)), "{seen:?}");
            }),
            part(move |w| {
                // All that lies from page 12 on, without tables.
                set(w, entry(12, RW | TableEntry::LARGE));
                assert_eq!(w.load(id, 3, 0), Ok(12));
                assert_eq!(w.load(id, 3, 1), Ok(13));
            }),
            part(|w| drop(w.vm.pageout_step(8))),
        ]);
        for cpu in 0..5 {
            assert_eq!(w.load(id, cpu, 0), Ok(12));
        }
        w.end(&[id], &[object]);
    });
}

/// A table is read where it lies, not in a frame that it has left.
#[test]
fn m18_walks_meet_the_page_out_of_a_table() {
    explore(RUNS, || {
        let w = World::new(160);
        let object = object_with_tables(&w);
        let (id, other) = (w.space(), w.space());
        map_at(w.at(id), 0, 8, table(object)).unwrap();
        map_at(w.at(other), 0, 24, Mapping::anonymous(Prot::RW)).unwrap();
        w.at(id)
            .set_page_directory(pages(0, 8), entry(1, RW))
            .unwrap();
        w.together(vec![
            part(move |w| {
                for _ in 0..3 {
                    w.at(id).advise(pages(0, 8), Advice::Invalidate).unwrap();
                    assert_eq!(w.load(id, 0, 0), Ok(10));
                }
            }),
            part(move |w| {
                // What looks like an entry, in the frames that the tables had.
                let value = entry(11, RW).bits();
                w.page_out_all();
                for page in 0..24 {
                    w.store(other, 1, page, value).unwrap();
                }
                for page in 0..24 {
                    assert_eq!(w.load(other, 1, page), Ok(value), "somebody else's bits");
                }
            }),
        ]);
        w.end(&[id, other], &[object]);
    });
}
