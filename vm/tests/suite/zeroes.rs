//! Writes that make several pages of zeroes at once (`Config::zero_run`).

use crate::common::scripted::{frame_of, is_resident};
use crate::common::{
    TestVm, anon, at, check, check_empty, get, map_at, pages, put, space, touch, vm_with,
};
use bsdvm::{Advice, Behavior, Config, Mapping, Prot, Sharing, Space};
use bsdvm_sim::Sim;

type TestSpace<'v> = Space<'v, Sim<12>>;

fn vm(frames: u32) -> TestVm {
    let config = Config {
        zero_run: 8,
        ..Config::default()
    };
    vm_with(frames, config)
}

/// The program stores to a page.
fn store(vm: &TestVm, s: TestSpace<'_>, page: u64) {
    touch(vm, s.id(), 0, at(page), Some(page + 1)).unwrap();
}

/// What is in memory: `E` is entered, `m` is not.
fn drawn(s: TestSpace<'_>, first: u64, count: u64) -> String {
    let letter = |page| match (is_resident(s, page), frame_of(s, page)) {
        (true, Some(_)) => 'E',
        (true, None) => 'm',
        _ => '.',
    };
    (first..first + count).map(letter).collect()
}

#[test]
fn pages_that_are_written_in_order_come_in_growing_runs() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 20);
    let steps = [
        (0, "E..................."),
        (1, "EEE................."),
        (3, "EEEEEEE............."),
        (7, "EEEEEEEEEEEEEEE....."),
        // A power of two, and within the entry.
        (15, "EEEEEEEEEEEEEEEEEEE."),
        (19, "EEEEEEEEEEEEEEEEEEEE"),
    ];
    for (page, expected) in steps {
        store(&vm, s, page);
        assert_eq!(drawn(s, 0, 20), expected, "after a store to page {page}");
        check(&vm);
    }
    let (zeroed, faults) = (vm.counters().zero_fill, vm.counters().faults);
    assert_eq!(zeroed, 20, "each page is counted");
    for page in 0..20 {
        let expected = if steps.iter().any(|s| s.0 == page) {
            page + 1
        } else {
            0
        };
        assert_eq!(touch(&vm, s.id(), 1, at(page), None), Ok(expected));
        store(&vm, s, page);
    }
    assert_eq!(vm.counters().faults, faults, "no page faults again");
    let frames = |page| frame_of(s, page).unwrap().0;
    assert_eq!(
        frames(14),
        frames(7) + 7,
        "the frames of a run are neighbours"
    );
    // What is thrown away comes anew, as zeroes.
    s.discard(pages(4, 12)).unwrap();
    assert_eq!(get(s, 9), 0);
    check(&vm);
    s.release();
    check_empty(&vm);
}

#[test]
fn a_run_stops_where_a_page_is() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 32);
    // So that the tables of the machine are there.
    store(&vm, s, 31);
    [0, 1, 2, 3, 6].into_iter().for_each(|page| put(s, page, 7));
    store(&vm, s, 4);
    assert_eq!(drawn(s, 0, 10), "mmmmEEm...");
    assert_eq!((get(s, 5), get(s, 6)), (0, 7));
    check(&vm);
}

#[test]
fn advice_says_how_many() {
    let vm = vm(1000);
    let s = space(&vm, 64);
    anon(s, 0, 32);
    s.advise(pages(0, 8), Advice::Behavior(Behavior::Random))
        .unwrap();
    s.advise(pages(16, 16), Advice::Behavior(Behavior::Sequential))
        .unwrap();
    (0..4).for_each(|page| store(&vm, s, page));
    store(&vm, s, 20);
    assert_eq!(drawn(s, 0, 32), "EEEE................EEEEEEEE....");
    check(&vm);
}

/// Shared, wired, read, asked for by the kernel, behind a fork: a page at a time.
#[test]
fn where_it_could_be_seen_a_page_comes_alone() {
    let vm = vm(1000);
    let s = space(&vm, 128);
    let shared = Mapping {
        sharing: Sharing::Shared,
        ..Mapping::anonymous(Prot::RW)
    };
    map_at(s, 0, 8, shared).unwrap();
    (0..3).for_each(|page| store(&vm, s, page));
    anon(s, 16, 8);
    (16..19).for_each(|page| put(s, page, 1));
    anon(s, 32, 8);
    for page in 32..35 {
        touch(&vm, s.id(), 0, at(page), None).unwrap();
    }
    anon(s, 48, 16);
    (48..52).for_each(|page| put(s, page, 1));
    let child = vm.space(s.fork().unwrap());
    store(&vm, child, 52);
    let parts = [0, 16, 32].map(|first| drawn(s, first, 8));
    assert_eq!(parts, ["EEE.....", "mmm.....", "EEE....."]);
    assert_eq!(drawn(child, 48, 8), "mmmmE...");
    check(&vm);
    child.release();
    s.release();
    check_empty(&vm);
}

#[test]
fn short_memory_is_not_spent_on_guesses() {
    let vm = vm(400);
    let s = space(&vm, 512);
    anon(s, 0, 400);
    let mut page = 0;
    while vm.counters().frames_free * 4 > vm.counters().frames_total {
        put(s, page, 1);
        page += 1;
    }
    for next in page..page + 8 {
        store(&vm, s, next);
        assert!(!is_resident(s, next + 1), "page {next}");
    }
    check(&vm);
}
