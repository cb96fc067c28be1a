//! Pages: what is known of each, how they come, change hands and go. A name begins with the row of
//! the capability that it shows.

use crate::common::scripted::{Stage, frame_of, is_resident, until, word};
use crate::common::{
    MemorySwap, PAGE, anon, at, check, check_empty, get, map_at, pages, put, space, touch, vm,
};
use bsdvm::{
    Access, FaultError, Faulted, Mapping, ObjectId, PageBytes, Pager, PagerError, PagerOps, Prot,
    Sharing,
};
use std::sync::atomic::{AtomicU64, Ordering};

fn shared(object: ObjectId) -> Mapping {
    Mapping::object(object, 0, Sharing::Shared, Prot::RW)
}

#[test]
fn o03_a_page_changes_its_object_and_keeps_its_frame() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 4);
    touch(&vm, s.id(), 0, at(0), Some(1)).unwrap();
    touch(&vm, s.id(), 0, at(1), Some(2)).unwrap();
    let frames = [0, 1].map(|page| frame_of(s, page));
    let before = s.entry(at(0)).unwrap().object;
    let child = vm.space(s.fork().unwrap());
    put(s, 2, 3);
    child.release();
    // The object behind, which nobody else sees any more, gives its pages to the one in front.
    assert_ne!(s.entry(at(0)).unwrap().object, before);
    assert_eq!(vm.counters().objects, 1);
    for (page, frame) in frames.into_iter().enumerate() {
        let page = page as u64;
        assert_eq!(
            touch(&vm, s.id(), 0, at(page), Some(10 + page)),
            Ok(10 + page)
        );
        assert_eq!(frame_of(s, page), frame, "moved, not copied");
    }
    check(&vm);
    s.release();
    check_empty(&vm);
}

#[test]
fn o03_who_wants_a_busy_page_waits_and_is_woken() {
    let stage = Stage::new(1000);
    let vm = stage.vm;
    let object = vm.object_create_anonymous(PAGE).unwrap();
    let s = stage.space();
    let id = s.id();
    map_at(s, 0, 1, shared(object)).unwrap();
    put(s, 0, 1);
    s.drop_translations(pages(0, 1));
    let page = vm.object(object).grab(0, Access::Write).unwrap();
    let faults = vm.counters().faults;
    let waiters: Vec<_> = (0..3)
        .map(|_| stage.spawn(move || get(vm.space(id), 0)))
        .collect();
    until(|| vm.counters().faults == faults + 3);
    bsdvm::Memory::write(vm.machine(), page.frame(), 0, &2u64.to_le_bytes());
    drop(page);
    for waiter in waiters {
        assert_eq!(
            waiter.join().unwrap(),
            2,
            "nobody looked before it was let go"
        );
    }
    stage.end(&[s], &[object]);
}

#[test]
fn o03_only_dirty_pages_are_written() {
    let stage = Stage::new(1000);
    let file = stage.file(8);
    let s = stage.space();
    map_at(s, 0, 8, shared(file)).unwrap();
    (0..8).for_each(|page| assert_eq!(stage.load(s, 0, page), word(page)));
    stage.store(s, 0, 3, 33);
    stage.store(s, 1, 5, 55);
    let puts = || stage.files.puts.load(Ordering::Relaxed);
    s.clean(pages(0, 8), false).unwrap();
    assert_eq!((puts(), stage.on_disk(3), stage.on_disk(5)), (2, 33, 55));
    s.clean(pages(0, 8), false).unwrap();
    assert_eq!(puts(), 2, "they are clean");
    // A store through the translation that is still there is seen.
    stage.store(s, 0, 3, 34);
    stage.page_out_all();
    assert_eq!((puts(), stage.on_disk(3)), (3, 34));
    assert_eq!(stage.vm.object(file).resident_pages(), 0);
    stage.end(&[s], &[file]);
}

#[test]
fn o05_a_fault_does_what_the_page_needs() {
    let stage = Stage::new(1000);
    let file = stage.file(4);
    let s = stage.space();
    anon(s, 0, 4);
    map_at(
        s,
        10,
        4,
        Mapping::object(file, 0, Sharing::Private, Prot::RW),
    )
    .unwrap();
    assert_eq!(s.fault(at(0), Access::Write), Ok(Faulted::ZeroFill));
    assert_eq!(s.fault(at(0), Access::Write), Ok(Faulted::Resident));
    assert_eq!(s.fault(at(10), Access::Read), Ok(Faulted::PagedIn));
    assert_eq!(
        s.fault(at(11), Access::Read),
        Ok(Faulted::Resident),
        "read ahead"
    );
    assert_eq!(s.fault(at(10), Access::Write), Ok(Faulted::Copied));
    let child = stage.fork(s.id());
    assert_eq!(s.fault(at(0), Access::Write), Ok(Faulted::Copied));
    s.release();
    // Ours alone now: taken, not copied.
    assert_eq!(child.fault(at(0), Access::Write), Ok(Faulted::Resident));
    assert_eq!(
        child.fault(at(20), Access::Read),
        Err(FaultError::InvalidAddress)
    );
    child.protect(pages(0, 1), Prot::READ).unwrap();
    assert_eq!(
        child.fault(at(0), Access::Write),
        Err(FaultError::Protection)
    );
    check(stage.vm);
    stage.end(&[child], &[file]);
}

#[test]
fn o05_a_page_that_is_ours_alone_is_taken_instead_of_copied() {
    let stage = Stage::new(1000);
    let s = stage.space();
    anon(s, 0, 2);
    stage.store(s, 0, 0, 7);
    let frame = frame_of(s, 0);
    let child = stage.fork(s.id());
    // The child's shadow is in front of what only it sees when the parent has gone.
    stage.store(child, 0, 1, 1);
    s.release();
    let copied = stage.vm.counters().cow_copied;
    stage.store(child, 0, 0, 8);
    assert_eq!(stage.vm.counters().cow_copied, copied);
    assert_eq!(frame_of(child, 0), frame);
    stage.end(&[child], &[]);
}

#[test]
fn o06_private_and_shared_mappings_of_a_file_see_what_they_should() {
    let stage = Stage::new(1000);
    let file = stage.file(4);
    let (a, b) = (stage.space(), stage.space());
    map_at(a, 0, 4, shared(file)).unwrap();
    map_at(b, 0, 4, shared(file)).unwrap();
    map_at(
        b,
        10,
        4,
        Mapping::object(file, 0, Sharing::Private, Prot::RW),
    )
    .unwrap();
    assert_eq!(get(b, 10), word(0));
    put(a, 0, 1);
    assert_eq!((get(b, 0), get(b, 10)), (1, 1), "not copied yet");
    put(b, 10, 2);
    put(a, 0, 3);
    assert_eq!((get(b, 0), get(b, 10)), (3, 2));
    stage.page_out_all();
    assert_eq!(stage.on_disk(0), 3);
    assert_eq!((get(a, 0), get(b, 10)), (3, 2), "the copy went to swap");
    check(stage.vm);
    stage.end(&[a, b], &[file]);
}

#[test]
fn o06_a_page_that_cannot_be_read_or_written_is_told_and_kept() {
    let stage = Stage::new(1000);
    let file = stage.file(4);
    let s = stage.space();
    map_at(s, 0, 4, shared(file)).unwrap();
    stage.files.fail_get.store(true, Ordering::Relaxed);
    let failed = s.fault(at(1), Access::Read);
    assert_eq!(failed, Err(FaultError::Pager(PagerError::Io(5))));
    assert_eq!(stage.vm.object(file).resident_pages(), 0);
    check(stage.vm);
    stage.files.fail_get.store(false, Ordering::Relaxed);
    stage.store(s, 0, 1, 5);
    stage.files.fail_put.store(true, Ordering::Relaxed);
    stage.page_out_all();
    assert!(is_resident(s, 1), "a page that cannot be written stays");
    assert_eq!(get(s, 1), 5);
    stage.files.fail_put.store(false, Ordering::Relaxed);
    stage.page_out_all();
    assert_eq!(stage.on_disk(1), 5);
    stage.end(&[s], &[file]);
}

/// A pager of the user's own, which gives one page at a time, numbered, and fails for the fifth.
#[derive(Default)]
struct Numbers {
    closed: AtomicU64,
}

impl PagerOps for Numbers {
    fn get(
        &self,
        cookie: u64,
        offset: u64,
        pages: &mut [&mut dyn PageBytes],
    ) -> Result<usize, PagerError> {
        if offset / PAGE == 4 {
            return Err(PagerError::Io(cookie as i32));
        }
        pages[0].write(0, &(cookie + offset / PAGE).to_le_bytes());
        Ok(1)
    }

    fn put(&self, _: u64, _: u64, _: &dyn PageBytes, _: usize) -> Result<(), PagerError> {
        Err(PagerError::NoSpace)
    }

    fn closed(&self, _: u64) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn o06_a_pager_of_the_users_own_is_asked_as_it_is_to_be() {
    let vm = vm(1000);
    let numbers: &'static Numbers = Box::leak(Box::default());
    let pager = Pager {
        ops: numbers,
        cookie: 100,
    };
    let object = vm.object_create(pager, 8 * PAGE).unwrap();
    let s = space(&vm, 64);
    map_at(s, 0, 8, shared(object)).unwrap();
    assert_eq!([0, 1, 3, 7].map(|page| get(s, page)), [100, 101, 103, 107]);
    assert_eq!(
        vm.object(object).resident_pages(),
        5,
        "2 came with 3; what did not come is not there, and 4 kept 7 from nothing"
    );
    let fifth = s.fault(at(4), Access::Read);
    assert_eq!(fifth, Err(FaultError::Pager(PagerError::Io(100))));
    put(s, 0, 1);
    let cleaned = vm.object(object).clean(0, PAGE);
    assert_eq!(cleaned, Err(bsdvm::ObjectError::Pager(PagerError::NoSpace)));
    assert_eq!(get(s, 0), 1);
    s.release();
    vm.object(object).release();
    assert_eq!(numbers.closed.load(Ordering::Relaxed), 1);
    check_empty(&vm);
}

#[test]
fn o06_memory_goes_to_swap_when_there_is_some() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 8);
    (0..8).for_each(|page| put(s, page, page));
    while vm.pageout_step(1000) > 0 {}
    assert_eq!(vm.counters().swap_used, 0);
    assert!(
        (0..8).all(|page| is_resident(s, page)),
        "there is nowhere to go"
    );
    let swap = MemorySwap::leak(5);
    vm.swap_on(swap).unwrap();
    assert_eq!(vm.swap_on(swap), Err(bsdvm::SwapError::InUse));
    while vm.pageout_step(1000) > 0 {}
    assert_eq!(vm.counters().swap_used, 5, "as much as it holds");
    swap.fail.store(true, Ordering::Relaxed);
    let gone = (0..8).find(|&page| !is_resident(s, page)).unwrap();
    let failed = s.fault(at(gone), Access::Read);
    assert_eq!(failed, Err(FaultError::Pager(PagerError::Io(5))));
    swap.fail.store(false, Ordering::Relaxed);
    assert!((0..8).all(|page| get(s, page) == page));
    s.release();
    check_empty(&vm);
}

#[test]
fn o09_what_is_done_through_any_translation_is_known() {
    let stage = Stage::new(1000);
    let file = stage.file(2);
    let (a, b) = (stage.space(), stage.space());
    map_at(a, 0, 2, shared(file)).unwrap();
    map_at(b, 7, 2, shared(file)).unwrap();
    stage.store(a, 0, 0, 1);
    stage.store(b, 1, 7, 2);
    stage.vm.object(file).clean(0, PAGE).unwrap();
    assert_eq!(stage.on_disk(0), 2);
    // Both translations still allow stores; either is seen.
    stage.store(b, 1, 7, 3);
    stage.vm.object(file).clean(0, PAGE).unwrap();
    assert_eq!(stage.on_disk(0), 3);
    stage.store(a, 0, 0, 4);
    stage.vm.object(file).clean(0, PAGE).unwrap();
    assert_eq!(stage.on_disk(0), 4);
    stage.end(&[a, b], &[file]);
}

/// The other processor keeps what it knows until it is told to forget.
#[test]
fn o09_no_processor_goes_on_with_what_was_taken_away() {
    let stage = Stage::new(1000);
    let vm = stage.vm;
    let s = stage.space();
    anon(s, 0, 4);
    for cpu in 0..2 {
        (0..4).for_each(|page| stage.store(s, cpu, page, 1));
    }
    s.protect(pages(0, 1), Prot::READ).unwrap();
    let store = |page| touch(vm, s.id(), 1, at(page), Some(2));
    assert_eq!(store(0), Err(FaultError::Protection));
    s.remove(pages(1, 1)).unwrap();
    assert_eq!(store(1), Err(FaultError::InvalidAddress));
    let child = stage.fork(s.id());
    stage.store(s, 1, 2, 5);
    assert_eq!(get(child, 2), 1, "the store came after the fork");
    stage.page_out_all();
    stage.store(s, 1, 3, 6);
    assert_eq!((get(s, 3), get(child, 3)), (6, 1));
    check(vm);
    stage.end(&[s, child], &[]);
}
