//! Swap: clusters, slots that pages keep, devices that fail or are full, and who waits for whom. A
//! name begins with the row of the capability that it shows.

use crate::common::scripted::is_resident;
use crate::common::{
    MemorySwap, PAGE, TestVm, anon, at, check, check_empty, get, map_at, pages, put, slots, space,
    touch, vm,
};
use bsdvm::{Access, Advice, Behavior, FaultError, Mapping, PagerError, Prot, Sharing, UserError};
use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::Ordering;

fn page_out_all(vm: &TestVm) {
    while vm.pageout_step(1000) > 0 {}
}

/// A VM with swap, and the device.
fn swapping(frames: u32, slots: u32) -> (TestVm, &'static MemorySwap) {
    let (vm, swap) = (vm(frames), MemorySwap::leak(slots));
    vm.swap_on(swap).unwrap();
    (vm, swap)
}

#[test]
fn o06_pages_go_and_come_by_clusters() {
    let (vm, _) = swapping(1000, 200);
    let s = space(&vm, 128);
    anon(s, 0, 128);
    (0..128).for_each(|page| put(s, page, page));
    page_out_all(&vm);
    let c = vm.counters();
    assert_eq!((c.swap_out, c.swap_writes), (128, 4));
    assert!((0..128).all(|page| get(s, page) == page));
    let c = vm.counters();
    assert_eq!((c.swap_in, c.swap_reads), (128, 8), "16 at a time");
    // Those that are used at random come alone.
    page_out_all(&vm);
    s.advise(pages(0, 128), Advice::Behavior(Behavior::Random))
        .unwrap();
    assert_eq!((get(s, 40), get(s, 90)), (40, 90));
    assert_eq!(vm.counters().swap_in, 130);
    check(&vm);
    s.release();
    check_empty(&vm);
}

/// Pages of two spaces that took turns are apart on swap no more than in their objects.
#[test]
fn o06_a_cluster_is_in_the_order_of_the_objects() {
    let (vm, _) = swapping(1000, 200);
    let (a, b) = (space(&vm, 16), space(&vm, 16));
    anon(a, 0, 16);
    anon(b, 0, 16);
    for page in (0..16).rev() {
        put(a, page, page);
        put(b, page, 100 + page);
    }
    page_out_all(&vm);
    assert!((0..16).all(|page| get(b, page) == 100 + page));
    let c = vm.counters();
    assert_eq!((c.swap_writes, c.swap_in, c.swap_reads), (1, 16, 1));
    a.release();
    b.release();
    check_empty(&vm);
}

#[test]
fn o06_a_page_that_is_only_read_is_not_written_again() {
    let (vm, _) = swapping(1000, 200);
    let s = space(&vm, 64);
    anon(s, 0, 8);
    (0..8).for_each(|page| put(s, page, page));
    page_out_all(&vm);
    for page in 0..8 {
        assert_eq!(touch(&vm, s.id(), 0, at(page), None), Ok(page));
    }
    assert_eq!(slots(&vm), (8, 8));
    check(&vm);
    touch(&vm, s.id(), 1, at(3), Some(33)).unwrap();
    assert_eq!(slots(&vm), (7, 7), "what swap has is worth nothing now");
    page_out_all(&vm);
    assert_eq!((vm.counters().swap_out, slots(&vm)), (9, (8, 0)));
    for page in 0..8 {
        let expected = if page == 3 { 33 } else { page };
        assert_eq!(get(s, page), expected);
    }
    check(&vm);
    s.release();
    check_empty(&vm);
}

/// Whatever becomes of a page that swap has a copy of, the copy is not seen instead.
#[test]
fn o06_a_copy_on_swap_never_brings_older_data_back() {
    let (vm, _) = swapping(1000, 200);
    let s = space(&vm, 64);
    let back = |first: u64, count: u64| {
        page_out_all(&vm);
        (first..first + count).for_each(|page| assert_ne!(get(s, page), 0));
        assert!(slots(&vm).1 >= count);
    };
    // Dropped on advice.
    anon(s, 0, 4);
    (0..4).for_each(|page| put(s, page, 1 + page));
    back(0, 4);
    s.advise(pages(0, 4), Advice::Free).unwrap();
    page_out_all(&vm);
    assert!((0..4).all(|page| get(s, page) == 0));
    // Cut in the middle.
    let object = vm.object_create_anonymous(2 * PAGE).unwrap();
    let object = vm.object(object);
    object.write(0, &[7; 2 * PAGE as usize]).unwrap();
    page_out_all(&vm);
    let mut word = [0; 8];
    object.read(PAGE, &mut word).unwrap();
    object.set_size(PAGE + 4).unwrap();
    page_out_all(&vm);
    object.set_size(2 * PAGE).unwrap();
    object.read(PAGE, &mut word).unwrap();
    assert_eq!(word, [7, 7, 7, 7, 0, 0, 0, 0]);
    object.release();
    // Shared by fork, written by both.
    put(s, 0, 5);
    back(0, 1);
    let child = vm.space(s.fork().unwrap());
    put(child, 0, 6);
    put(s, 0, 7);
    page_out_all(&vm);
    assert_eq!((get(child, 0), get(s, 0)), (6, 7));
    check(&vm);
    child.release();
    s.release();
    check_empty(&vm);
}

#[test]
fn o06_slots_that_pages_keep_are_given_up_for_room() {
    let (vm, _) = swapping(1000, 16);
    let s = space(&vm, 64);
    anon(s, 0, 20);
    (0..6).for_each(|page| put(s, page, page));
    page_out_all(&vm);
    assert!((0..6).all(|page| get(s, page) == page));
    assert_eq!(slots(&vm), (6, 6));
    s.wire(pages(0, 6)).unwrap();
    (6..20).for_each(|page| put(s, page, page));
    page_out_all(&vm);
    assert!(
        (6..20).all(|page| !is_resident(s, page)),
        "14 need 14 slots"
    );
    assert_eq!(slots(&vm), (14, 0));
    s.unwire(pages(0, 6)).unwrap();
    assert!((0..20).all(|page| get(s, page) == page));
    check(&vm);
    s.release();
    check_empty(&vm);
}

#[test]
fn o06_a_slot_that_cannot_be_written_is_not_used_again() {
    let (vm, swap) = swapping(1000, 64);
    swap.broken.lock().unwrap().extend([1, 5]);
    let s = space(&vm, 64);
    anon(s, 0, 8);
    (0..8).for_each(|page| put(s, page, page));
    page_out_all(&vm);
    check(&vm);
    let c = vm.counters();
    assert_eq!((c.swap_used, c.swap_total, c.swap_out), (8, 62, 8));
    assert!((0..8).all(|page| !is_resident(s, page)), "there are others");
    let written: BTreeSet<u32> = swap.pages.lock().unwrap().keys().copied().collect();
    assert_eq!(written, BTreeSet::from([0, 2, 3, 4, 6, 7, 8, 9]));
    assert!((0..8).all(|page| get(s, page) == page));
    s.release();
    check_empty(&vm);
}

#[test]
fn o06_a_device_without_space_is_tried_again_later() {
    let (vm, swap) = swapping(1000, 64);
    swap.room.store(3, Ordering::Relaxed);
    let s = space(&vm, 64);
    anon(s, 0, 8);
    (0..8).for_each(|page| put(s, page, page));
    page_out_all(&vm);
    check(&vm);
    assert!((0..8).all(|page| get(s, page) == page), "nothing is lost");
    swap.room.store(usize::MAX, Ordering::Relaxed);
    // Not at once: a full disk is not asked for each page.
    for _ in 0..100 {
        vm.pageout_step(1000);
    }
    assert!((0..8).all(|page| !is_resident(s, page)));
    assert_eq!(vm.counters().swap_total, 64, "no slot is worse for it");
    assert!((0..8).all(|page| get(s, page) == page));
    s.release();
    check_empty(&vm);
}

#[test]
fn o06_a_page_beside_one_that_cannot_be_read_comes() {
    let (vm, swap) = swapping(1000, 64);
    let s = space(&vm, 64);
    anon(s, 0, 8);
    (0..8).for_each(|page| put(s, page, page));
    page_out_all(&vm);
    swap.broken.lock().unwrap().insert(4);
    assert_eq!(get(s, 2), 2);
    let failed = s.fault(at(4), Access::Read);
    assert_eq!(failed, Err(FaultError::Pager(PagerError::Io(5))));
    check(&vm);
    assert!(
        [0, 1, 3, 5, 6, 7]
            .into_iter()
            .all(|page| get(s, page) == page)
    );
    // What is there once more is not lost.
    swap.broken.lock().unwrap().clear();
    assert_eq!(get(s, 4), 4);
    s.release();
    check_empty(&vm);
}

#[test]
fn o06_what_nobody_needs_is_given_back_to_the_device() {
    let (vm, swap) = swapping(2000, 4096);
    let s = space(&vm, 1500);
    anon(s, 0, 1500);
    (0..1500).for_each(|page| put(s, page, page));
    page_out_all(&vm);
    assert_eq!(swap.pages.lock().unwrap().len(), 1500);
    s.remove(pages(0, 1400)).unwrap();
    let kept = swap.pages.lock().unwrap().len();
    assert!((100..=1500 - 512).contains(&kept), "{kept}");
    assert!((1400..1500).all(|page| get(s, page) == page));
    check(&vm);
    s.release();
    check_empty(&vm);
}

/// The table of slots is as large as what is used of them.
#[test]
fn o06_a_large_device_costs_a_small_memory_little() {
    let (vm, _) = swapping(300, 1 << 30);
    assert_eq!(vm.counters().swap_total, 1 << 30);
    let before = vm.counters().frames_free;
    let s = space(&vm, 4096);
    anon(s, 0, 4096);
    (0..4096).for_each(|page| put(s, page, page));
    assert!((0..4096).all(|page| get(s, page) == page));
    check(&vm);
    s.release();
    assert!(before - vm.counters().frames_free < 100, "slabs keep some");
    check_empty(&vm);
}

#[test]
fn o07_pages_are_taken_out_when_that_is_asked_for() {
    let (vm, _) = swapping(1000, 64);
    let s = space(&vm, 64);
    anon(s, 0, 16);
    (0..16).for_each(|page| put(s, page, page));
    s.wire(pages(4, 2)).unwrap();
    let child = vm.space(s.fork().unwrap());
    assert_eq!(touch(&vm, s.id(), 0, at(8), None), Ok(8));
    assert_eq!(touch(&vm, child.id(), 0, at(8), None), Ok(8));
    s.advise(pages(0, 12), Advice::PageOut).unwrap();
    let here = || -> Vec<u64> { (0..16).filter(|&page| is_resident(s, page)).collect() };
    // The wired ones stay, and the one that both have mapped.
    assert_eq!(here(), [4, 5, 8, 12, 13, 14, 15]);
    child.release();
    s.advise(pages(0, 12), Advice::PageOut).unwrap();
    assert_eq!(here(), [4, 5, 12, 13, 14, 15]);
    let mut on_swap = Vec::new();
    s.swapped(pages(0, 16), &mut |va, _| on_swap.push(va))
        .unwrap();
    let expected = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11].map(at);
    assert_eq!(on_swap, expected);
    assert!((0..16).all(|page| get(s, page) == page));
    check(&vm);
    s.release();
    check_empty(&vm);
}

/// Tries until there is memory. While somebody takes pages out there is some to come.
fn insist(vm: &TestVm, mut act: impl FnMut() -> Result<(), UserError>) {
    while let Err(e) = act() {
        assert_eq!(e.why, FaultError::NoMemory);
        assert!(vm.pageout_step(16) > 0, "everything can go to swap");
    }
}

/// Each of some threads uses as much memory as there is: whoever finds nothing to take waits for
/// what the others are taking out.
#[test]
fn o07_threads_that_need_room_at_once_all_get_it() {
    let (vm, _) = swapping(220, 4000);
    let ids: Vec<_> = (0..4)
        .map(|_| {
            let s = space(&vm, 300);
            anon(s, 0, 300);
            s.id()
        })
        .collect();
    let start = Barrier::new(ids.len());
    std::thread::scope(|scope| {
        for (n, &id) in ids.iter().enumerate() {
            let (vm, start) = (&vm, &start);
            scope.spawn(move || {
                vm.machine().set_cpu(n % 2);
                let s = vm.space(id);
                start.wait();
                for round in 0..4_u64 {
                    for page in 0..300_u64 {
                        let word = (page * 10 + round).to_le_bytes();
                        insist(vm, || s.write(at(page), &word));
                    }
                    for page in (0..300_u64).rev() {
                        let mut word = [0; 8];
                        insist(vm, || s.read(at(page), &mut word));
                        assert_eq!(u64::from_le_bytes(word), page * 10 + round);
                    }
                }
            });
        }
    });
    check(&vm);
    ids.into_iter().for_each(|id| vm.space(id).release());
    check_empty(&vm);
}

#[test]
fn o08_what_is_promised_does_not_depend_on_where_pages_are() {
    let (vm, _) = swapping(1000, 64);
    let s = space(&vm, 64);
    vm.set_charge_limit(20);
    anon(s, 0, 16);
    (0..16).for_each(|page| put(s, page, page));
    page_out_all(&vm);
    assert_eq!(vm.counters().charged_pages, 16);
    assert_eq!(get(s, 3), 3);
    assert_eq!(vm.counters().charged_pages, 16);
    s.remove(pages(0, 8)).unwrap();
    assert_eq!(
        (vm.counters().charged_pages, vm.counters().swap_used),
        (8, 8)
    );
    s.release();
    check_empty(&vm);
}

#[test]
fn o06_pages_that_come_in_order_are_entered_together() {
    let (vm, _) = swapping(1000, 200);
    let s = space(&vm, 64);
    anon(s, 0, 64);
    let visit = |page: u64| touch(&vm, s.id(), 0, at(page), None);
    (0..64).for_each(|page| put(s, page, page));
    page_out_all(&vm);
    let before = vm.counters().faults;
    assert!((0..64).all(|page| visit(page) == Ok(page)));
    // The first ones may be there by chance; then there is a fault for each cluster.
    assert_eq!(vm.counters().faults - before, 16 + 3);
    // What was entered ahead may not be stored to unseen.
    touch(&vm, s.id(), 0, at(40), Some(7)).unwrap();
    page_out_all(&vm);
    assert_eq!((visit(40), visit(39)), (Ok(7), Ok(39)));
    check(&vm);
    // The same backwards.
    page_out_all(&vm);
    let before = vm.counters();
    assert!((41..64).rev().all(|page| visit(page) == Ok(page)));
    let c = vm.counters();
    assert_eq!(c.swap_reads - before.swap_reads, 2);
    // The cluster at the end a page at a time, then the other at once.
    assert_eq!(c.faults - before.faults, 16 + 1);
    // A page whose neighbours are not in use is entered alone.
    page_out_all(&vm);
    assert_eq!((visit(20), s.resident()), (Ok(20), 1));
    check(&vm);
    s.release();
    check_empty(&vm);
}

/// Memory that is cleaned with what is clean dropped: swap has the same contents, but nobody would
/// look for them there.
#[test]
fn o06_cleaning_memory_drops_nothing_of_it() {
    let (vm, _) = swapping(1000, 200);
    let file = vm.object_create_memory_file(4 * PAGE).unwrap();
    let s = space(&vm, 16);
    let what = Mapping::object(file, 0, Sharing::Shared, Prot::RW);
    map_at(s, 0, 4, what).unwrap();
    (0..4).for_each(|page| put(s, page, 10 + page));
    page_out_all(&vm);
    assert!((0..4).all(|page| get(s, page) == 10 + page));
    assert_eq!(vm.counters().swap_cached, 4);
    s.clean(pages(0, 4), true).unwrap();
    assert!((0..4).all(|page| get(s, page) == 10 + page));
    check(&vm);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}
