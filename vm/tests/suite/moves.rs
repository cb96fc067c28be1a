//! Move and extend: entries change their address and keep their contents.

use crate::common::{
    Files, PAGE, anon, at, check, check_empty, draw, get, map_at, pages, put, space, touch, vm,
};
use bsdvm::{Access, FaultError, Inherit, MapError, Mapping, Placement, Prot, Sharing};
use std::sync::atomic::Ordering;

#[test]
fn moving_keeps_contents_and_growing_adds_zeroes() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 4);
    for page in 0..4 {
        touch(&vm, s.id(), 0, at(page), Some(page + 1)).unwrap();
    }
    assert_eq!(
        s.move_(pages(0, 4), 6 * PAGE, Placement::At(at(10))),
        Ok(at(10))
    );
    assert_eq!(draw(s, 17).trim_end_matches('.'), "..........AAAAAA");
    assert_eq!((get(s, 10), get(s, 13), get(s, 15)), (1, 4, 0));
    assert_eq!(
        touch(&vm, s.id(), 0, at(0), None),
        Err(FaultError::InvalidAddress)
    );
    assert_eq!(
        s.move_(pages(10, 6), 2 * PAGE, Placement::Replace(at(0))),
        Ok(at(0))
    );
    assert_eq!((draw(s, 17).trim_end_matches('.'), get(s, 1)), ("AA", 2));
    let up = Placement::FirstFit {
        from: at(1),
        align: PAGE,
    };
    assert_eq!(s.move_(pages(0, 2), 2 * PAGE, up), Ok(at(2)));
    for (from, bytes, place, error) in [
        (pages(2, 3), PAGE, Placement::At(at(20)), MapError::Hole),
        (
            pages(2, 2),
            2 * PAGE,
            Placement::At(at(3)),
            MapError::Overlap,
        ),
        (
            pages(2, 2),
            2 * PAGE,
            Placement::Replace(at(3)),
            MapError::InvalidAddress,
        ),
        (
            pages(2, 2),
            0,
            Placement::At(at(20)),
            MapError::InvalidAddress,
        ),
        (
            pages(2, 0),
            PAGE,
            Placement::At(at(20)),
            MapError::InvalidAddress,
        ),
        (
            pages(2, 2),
            70 * PAGE,
            Placement::Replace(at(4)),
            MapError::InvalidAddress,
        ),
    ] {
        assert_eq!(s.move_(from, bytes, place), Err(error), "{from:?}");
    }
    assert_eq!((get(s, 2), get(s, 3)), (1, 2));
    s.release();
    check_empty(&vm);
}

#[test]
fn extending_goes_on_with_what_is_there() {
    let vm = vm(1000);
    let files = Files::leak();
    files
        .pages
        .lock()
        .unwrap()
        .insert((0, 2), vec![3; PAGE as usize]);
    let file = vm.object_create(files.pager(0), 8 * PAGE).unwrap();
    let s = space(&vm, 64);
    map_at(
        s,
        0,
        2,
        Mapping::object(file, 0, Sharing::Private, Prot::RW),
    )
    .unwrap();
    put(s, 1, 1);
    s.extend(at(2), PAGE).unwrap();
    assert_eq!(get(s, 2), 0x0303_0303_0303_0303);
    put(s, 2, 4);
    assert_eq!(files.puts.load(Ordering::Relaxed), 0);
    map_at(
        s,
        10,
        2,
        Mapping::object(file, 0, Sharing::Shared, Prot::RW),
    )
    .unwrap();
    s.extend(at(12), PAGE).unwrap();
    assert_eq!(
        (get(s, 12), draw(s, 14)),
        (
            0x0303_0303_0303_0303,
            "AAA.......BBB.".replace("AAA", "AAB").replace("BBB", "CCC")
        )
    );
    assert_eq!(s.extend(at(5), PAGE), Err(MapError::Hole));
    anon(s, 13, 1);
    assert_eq!(s.extend(at(13), PAGE), Err(MapError::Overlap));
    let shared = Mapping {
        sharing: Sharing::Shared,
        inherit: Inherit::Share,
        ..Mapping::anonymous(Prot::RW)
    };
    map_at(s, 20, 2, shared).unwrap();
    put(s, 21, 9);
    s.extend(at(22), PAGE).unwrap();
    assert_eq!(s.fault(at(22), Access::Read), Err(FaultError::BeyondEnd));
    let child = vm.space(s.fork().unwrap());
    put(child, 21, 7);
    assert_eq!(get(s, 21), 7);
    child.release();
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

/// What a move adds behind the last entry is more of what that maps, and nothing else of it: no
/// wiring, no stack.
#[test]
fn moving_a_file_or_shared_memory_goes_on_with_it() {
    let vm = vm(1000);
    let files = Files::leak();
    for page in 0..8 {
        files
            .pages
            .lock()
            .unwrap()
            .insert((0, page), vec![page as u8 + 1; PAGE as usize]);
    }
    let word = |page: u64| u64::from_le_bytes([page as u8 + 1; 8]);
    let file = vm.object_create(files.pager(0), 8 * PAGE).unwrap();
    let s = space(&vm, 128);
    let charged = || vm.counters().charged_pages;
    let what = |sharing| Mapping::object(file, 0, sharing, Prot::RW);

    // A private file: the copy moves, what is added shows the file and is copied on write.
    map_at(s, 0, 2, what(Sharing::Private)).unwrap();
    put(s, 1, 99);
    s.move_(pages(0, 2), 4 * PAGE, Placement::At(at(10)))
        .unwrap();
    assert_eq!(
        [0, 1, 2, 3].map(|p| get(s, 10 + p)),
        [word(0), 99, word(2), word(3)]
    );
    put(s, 12, 5);
    assert!(s.entry(at(13)).unwrap().file.is_some());
    assert_eq!(charged(), 4);
    check(&vm);

    // A shared one: what is added is written to the file.
    map_at(s, 20, 2, what(Sharing::Shared)).unwrap();
    s.wire(pages(20, 2)).unwrap();
    s.move_(pages(20, 2), 4 * PAGE, Placement::At(at(30)))
        .unwrap();
    assert_eq!(get(s, 33), word(3));
    put(s, 33, 7);
    let mut bytes = [0; 8];
    vm.object(file).read(3 * PAGE, &mut bytes).unwrap();
    assert_eq!((u64::from_le_bytes(bytes), charged()), (7, 4));
    let (old, new) = (s.entry(at(30)).unwrap(), s.entry(at(32)).unwrap());
    assert_eq!((old.wired, new.wired, new.user_wired), (1, 0, false));
    assert_eq!((new.sharing, new.offset), (Sharing::Shared, 2 * PAGE));
    check(&vm);

    // Shared memory without a file goes on in the same object, for every sharer, and has nothing
    // beyond the end of it.
    let shared = Mapping {
        sharing: Sharing::Shared,
        inherit: Inherit::Share,
        ..Mapping::anonymous(Prot::RW)
    };
    map_at(s, 40, 2, shared).unwrap();
    put(s, 41, 1);
    s.move_(pages(40, 2), 3 * PAGE, Placement::At(at(50)))
        .unwrap();
    assert_eq!(s.fault(at(52), Access::Write), Err(FaultError::BeyondEnd));
    assert_eq!(
        (get(s, 51), s.entry(at(52)).unwrap().inherit),
        (1, Inherit::Share)
    );
    let child = vm.space(s.fork().unwrap());
    put(child, 51, 3);
    assert_eq!(get(s, 51), 3);
    child.release();

    // A stack that moves does not grow where it is now, nor does what is added.
    s.stack(at(120), 20 * PAGE, PAGE, Prot::RW).unwrap();
    s.move_(pages(119, 1), 2 * PAGE, Placement::At(at(80)))
        .unwrap();
    for page in [80, 81] {
        let info = s.entry(at(page)).unwrap();
        assert_eq!((info.stack, info.stack_reserve), (false, 0), "{page}");
    }
    assert!(!s.grow_stack(at(79)).unwrap());
    check(&vm);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

/// The part of a range that is cut off by a move goes, and only that.
#[test]
fn moving_less_than_there_is_frees_the_rest() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 8);
    for page in 0..8 {
        put(s, page, page + 1);
    }
    s.move_(pages(2, 4), 2 * PAGE, Placement::At(at(20)))
        .unwrap();
    assert_eq!(draw(s, 23), "AA....BB............CC.");
    assert_eq!((get(s, 20), get(s, 21), get(s, 7), get(s, 1)), (3, 4, 8, 2));
    assert_eq!((vm.frames_in_use(), vm.counters().charged_pages), (6, 6));
    s.release();
    check_empty(&vm);
}

/// However many entries a range has, they move together.
#[test]
fn moving_many_entries_moves_each() {
    let vm = vm(1000);
    let s = space(&vm, 256);
    anon(s, 0, 60);
    for page in 0..60 {
        put(s, page, page + 1);
    }
    for page in (0..60).step_by(2) {
        s.protect(pages(page, 1), Prot::READ).unwrap();
    }
    assert_eq!(s.entries(), 60);
    s.move_(pages(0, 60), 60 * PAGE, Placement::At(at(100)))
        .unwrap();
    check(&vm);
    assert_eq!(s.entries(), 60);
    for page in 0..60 {
        assert_eq!(get(s, 100 + page), page + 1);
    }
    s.release();
    check_empty(&vm);
}
