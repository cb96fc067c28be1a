//! Zones: items of one size (O10).

use super::*;
use bsdvm::KmemError;
use std::collections::BTreeSet;

#[test]
fn o10_items_are_apart_aligned_and_zeroed() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    let map = malloc_map(kmem, 256);
    for (bytes, align, item) in [(1, 1, 16), (24, 8, 24), (100, 64, 128), (2048, 2048, 2048)] {
        let zone = kmem.zone_create(bytes, align).unwrap();
        assert_eq!(zone.item_bytes(), item);
        let mut seen = BTreeSet::new();
        for _ in 0..300 {
            let got = zone.alloc(NOWAIT).unwrap();
            assert!(got.0.is_multiple_of(align));
            assert!(map.space().range().contains(got));
            let below = seen.range(..got.0).next_back();
            assert!(below.is_none_or(|b| b + item <= got.0));
            assert!(
                seen.range(got.0..)
                    .next()
                    .is_none_or(|a| got.0 + item <= *a)
            );
            assert_eq!(load(&vm, got), Some(0));
            assert!(store(&vm, got, u64::MAX));
            seen.insert(got.0);
        }
        let per_page = PAGE / item;
        assert!(u64::from(zone.pages()) <= 300u64.div_ceil(per_page) + 1);
        seen.iter().for_each(|at| zone.free(VirtAddr(*at)).unwrap());
        check(&vm);
        let again = zone.alloc(NOWAIT).unwrap();
        assert_eq!(load(&vm, again), Some(0), "zeroed again");
        zone.free(again).unwrap();
        zone.destroy().unwrap();
        assert_eq!(map.space().entries(), 0, "every page is back");
    }
    for (bytes, align) in [(2049, 1), (8, 3), (8, 0), (8, 8192)] {
        let failed = kmem.zone_create(bytes, align);
        assert_eq!(failed.map(drop), Err(KmemError::InvalidArgument));
    }
    end(&vm);
}

#[test]
fn o10_pages_without_an_item_go_back_under_pressure() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    malloc_map(kmem, 512);
    let zone = kmem.zone_create(512, 512).unwrap();
    assert_eq!(kmem.zone(zone.id()).unwrap().item_bytes(), 512);
    let items: Vec<_> = (0..80).map(|_| zone.alloc(NOWAIT).unwrap()).collect();
    assert_eq!(zone.pages(), 10);
    items[8..].iter().for_each(|&item| zone.free(item).unwrap());
    let kept = zone.pages();
    assert!(
        (2..=6).contains(&kept),
        "a page and the magazine are kept: {kept}"
    );
    assert_eq!(zone.destroy(), Err(KmemError::Exists), "items are in use");

    // A program that needs the last frame gets it.
    let before = vm.counters().frames_free;
    let user = fill_memory(&vm);
    assert_eq!(zone.pages(), 1, "{before} frames were free");
    check(&vm);
    vm.space(user).release();
    items[..8].iter().for_each(|&item| zone.free(item).unwrap());
    assert_eq!(kmem.reclaim(), 1);
    assert_eq!(zone.pages(), 0);
    assert_eq!(kmem.reclaim(), 0);
    zone.destroy().unwrap();
    end(&vm);
}

#[test]
fn o10_what_is_freed_with_locks_held_goes_later() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    malloc_map(kmem, 64);
    let zone = kmem.zone_create(1024, 1024).unwrap();
    let items: Vec<_> = (0..64).map(|_| zone.alloc(NOWAIT).unwrap()).collect();
    assert_eq!(zone.pages(), 16);
    for &item in &items {
        zone.free_later(item).unwrap();
    }
    assert_eq!(zone.free_later(at(1000)), Err(KmemError::InvalidArgument));
    assert_eq!(zone.pages(), 16, "every page is kept");
    zone.destroy().unwrap();
    check(&vm);
    end(&vm);
}

#[test]
fn o10_zones_come_and_go() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    malloc_map(kmem, 64);
    // A record takes much of a frame: were one lost each time, there would be no more.
    for _ in 0..2000 {
        let zone = kmem.zone_create(64, 64).unwrap();
        let item = zone.alloc(NOWAIT).unwrap();
        zone.free(item).unwrap();
        zone.destroy().unwrap();
    }
    end(&vm);
}

#[test]
fn o10_what_is_no_item_is_refused() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    let zone = kmem.zone_create(64, 64).unwrap();
    assert_eq!(
        zone.alloc(NOWAIT),
        Err(KmemError::WrongMap),
        "no map named for it"
    );
    let map = malloc_map(kmem, 8);
    let other = kmem.zone_create(64, 64).unwrap();
    let item = zone.alloc(NOWAIT).unwrap();
    let strange = other.alloc(NOWAIT).unwrap();
    let page = map.malloc(PAGE, NOWAIT).unwrap();
    for at in [VirtAddr(item.0 + 8), strange, page, VirtAddr(0), at(1000)] {
        assert_eq!(zone.free(at), Err(KmemError::InvalidArgument), "{at:?}");
    }
    zone.free(item).unwrap();
    // The map is full: typed, and the items that there are stay.
    let rest: Vec<_> = std::iter::from_fn(|| zone.alloc(NOWAIT).ok()).collect();
    assert_eq!(zone.alloc(NOWAIT), Err(KmemError::NoSpace));
    assert_eq!(rest.len() as u64, 6 * PAGE / 64);
    check(&vm);
    end(&vm);
}
