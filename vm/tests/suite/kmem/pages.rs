//! Wired memory: where its pages come from, what is in them, and that failures leave nothing.

use super::*;
use bsdvm::{Frame, KmemError, MemoryAttr, Physical, Pmap, SpaceId, Within};

/// The frame that the kernel sees at `va`.
fn frame_at(vm: &TestVm, va: VirtAddr) -> Option<Frame> {
    let space = vm.kmem().unwrap().map().space();
    space
        .with_pmap(|pmap| pmap.extract(va).map(|t| t.frame))
        .unwrap()
}

fn anywhere(low: u32, high: u32) -> Physical {
    Physical {
        within: Within {
            low: Frame(low),
            high: Frame(high),
            ..Within::ANY
        },
        attr: MemoryAttr::WriteBack,
    }
}

/// Leaves what it wrote in every free frame, so that memory which is not zeroed shows it.
fn dirty_memory(vm: &TestVm) {
    let user = fill_memory(vm);
    let space = vm.space(user);
    let mut page = 0;
    while space
        .residency(crate::common::pages(page, 1), &mut |_, _| ())
        .is_ok()
        && space
            .write(crate::common::at(page), &[0xa5; PAGE as usize])
            .is_ok()
    {
        page += 1;
    }
    space.release();
}

#[test]
fn k03_alloc_is_wired_and_zero() {
    let vm = vm_with_kernel(500, 1024);
    vm.swap_on(crate::common::MemorySwap::leak(1000)).unwrap();
    dirty_memory(&vm);
    let kmem = kernel(&vm);
    let map = kmem.map();
    let one = map.alloc(4 * PAGE).unwrap();
    let two = map.alloc_eager(4 * PAGE).unwrap();
    for page in 0..8 {
        assert_eq!(load(&vm, at(page)), Some(0), "page {page}");
        assert!(store(&vm, at(page), page + 1));
    }
    assert_eq!((one, two), (at(0), at(4)));
    assert_eq!(draw(map, 9), "AAAAAAAA.", "both ways make the same");
    assert_eq!(map.space().entry(at(0)).unwrap().wired, 1);
    assert_eq!(vm.counters().charged_pages, 0);
    check(&vm);

    // It never leaves, and no translation of it is ever dropped.
    for _ in 0..4 {
        vm.pageout_step(1000);
    }
    map.space().drop_translations(range(0, 0));
    for page in 0..8 {
        assert_eq!(load(&vm, at(page)), Some(page + 1));
    }
    map.free(at(0), 8 * PAGE).unwrap();
    assert_eq!(map.alloc_eager(8 * PAGE), Ok(at(0)));
    assert_eq!(load(&vm, at(3)), Some(0), "no stale data");
    assert_eq!(map.alloc(0), Err(KmemError::InvalidArgument));
    assert_eq!(map.alloc(1024 * PAGE), Err(KmemError::NoSpace));
    assert_eq!(map.alloc_eager(u64::MAX), Err(KmemError::InvalidArgument));
    end(&vm);
}

#[test]
fn k05_alloc_attr_keeps_to_its_limits() {
    let vm = vm_with_kernel(500, 1024);
    dirty_memory(&vm);
    let kmem = kernel(&vm);
    let map = kmem.map();
    let pages = Physical {
        attr: MemoryAttr::WriteCombining,
        ..anywhere(200, 215)
    };
    let raw = Malloc {
        fill: Fill::AsIs,
        ..NOWAIT
    };
    let left = map.alloc_attr(PAGE, raw, pages).unwrap();
    assert_ne!(load(&vm, left), Some(0), "not zeroed when not asked");
    map.free(left, PAGE).unwrap();
    let got = map.alloc_attr(6 * PAGE, WAIT, pages).unwrap();
    for page in 0..6 {
        let va = VirtAddr(got.0 + page * PAGE);
        let frame = frame_at(&vm, va).unwrap();
        assert!((200..=215).contains(&frame.0), "{frame:?}");
        assert_eq!(load(&vm, va), Some(0), "zeroed when asked");
        let attr = map.space().with_pmap(|pmap| pmap.attr(va)).unwrap();
        assert_eq!(attr, Some(MemoryAttr::WriteCombining));
    }
    check(&vm);
    // Ten frames of the range are left at most: an eleventh page fails, and gives the ten back.
    let before = (vm.frames_in_use(), vm.counters().entries);
    for how in [WAIT, NOWAIT] {
        assert_eq!(
            map.alloc_attr(11 * PAGE, how, pages),
            Err(KmemError::NoMemory)
        );
    }
    assert_eq!((vm.frames_in_use(), vm.counters().entries), before);
    assert_eq!(draw(map, 8), "AAAAAA..");
    end(&vm);
}

#[test]
fn k05_a_shortage_within_the_limits_is_reclaimed_and_tried_again() {
    let vm = vm_with_kernel(200, 1024);
    vm.swap_on(crate::common::MemorySwap::leak(1000)).unwrap();
    let kmem = kernel(&vm);
    let map = kmem.map();
    // Programs have every frame, all just used.
    let user = vm.space_create(crate::common::pages(0, 1000)).unwrap();
    let space = vm.space(user);
    crate::common::anon(space, 0, 1000);
    let mut page = 0;
    while vm.counters().frames_free > 8 {
        crate::common::touch(&vm, user, 0, crate::common::at(page), Some(page)).unwrap();
        page += 1;
    }
    let low = vm.counters().low_memory;
    let got = map.alloc_attr(2 * PAGE, WAIT, anywhere(100, 119)).unwrap();
    assert!((100..=119).contains(&frame_at(&vm, got).unwrap().0));
    assert!(vm.counters().swap_used > 0, "pages of programs made room");
    assert!(
        vm.counters().swap_used <= 20,
        "and only those within the limits"
    );
    assert_eq!(vm.counters().low_memory, low, "no third try was needed");

    // Wired frames cannot be had; the tries end, the last one with an announcement.
    space.wire(crate::common::pages(0, page)).unwrap();
    let before = vm.counters();
    let failed = map.alloc_attr(19 * PAGE, WAIT, anywhere(100, 119));
    assert_eq!(failed, Err(KmemError::NoMemory));
    assert_eq!(vm.counters().low_memory, before.low_memory + 1);
    let failed = map.alloc_attr(19 * PAGE, NOWAIT, anywhere(100, 119));
    assert_eq!(failed, Err(KmemError::NoMemory));
    assert_eq!(
        vm.counters().low_memory,
        before.low_memory + 1,
        "one retry, and no more"
    );
    assert_eq!(vm.counters().entries, before.entries);
    check(&vm);
    space.release();
    end(&vm);
}

#[test]
fn k06_alloc_contig_is_contiguous_aligned_and_within_its_boundary() {
    let vm = vm_with_kernel(500, 1024);
    dirty_memory(&vm);
    let kmem = kernel(&vm);
    let map = kmem.map();
    let ask = |align, boundary, low, high| Physical {
        within: Within {
            low: Frame(low),
            high: Frame(high),
            align,
            boundary,
        },
        attr: MemoryAttr::Uncached,
    };
    for (count, pages) in [
        (5, ask(16, 0, 100, 400)),
        (7, ask(1, 8, 0, u32::MAX)),
        (3, ask(10, 0, 33, 300)),
    ] {
        let got = map.alloc_contig(count * PAGE, WAIT, pages).unwrap();
        let first = frame_at(&vm, got).unwrap().0;
        let Within {
            low,
            high,
            align,
            boundary,
        } = pages.within;
        assert!(first.is_multiple_of(align), "{first}");
        assert!(low.0 <= first && first + count as u32 - 1 <= high.0);
        let last = first + count as u32 - 1;
        assert_eq!(first.checked_div(boundary), last.checked_div(boundary));
        for page in 0..count {
            let va = VirtAddr(got.0 + page * PAGE);
            assert_eq!(frame_at(&vm, va), Some(Frame(first + page as u32)));
            assert_eq!(load(&vm, va), Some(0));
        }
    }
    check(&vm);
    let before = (vm.frames_in_use(), vm.counters().entries);
    for (pages, why) in [
        (ask(0, 0, 0, u32::MAX), KmemError::InvalidArgument),
        (ask(1, 0, 100, 120), KmemError::NoMemory),
        (ask(1, 16, 0, u32::MAX), KmemError::NoMemory),
    ] {
        assert_eq!(map.alloc_contig(40 * PAGE, WAIT, pages), Err(why));
        assert_eq!(map.alloc_contig(40 * PAGE, NOWAIT, pages), Err(why));
    }
    assert_eq!((vm.frames_in_use(), vm.counters().entries), before);
    end(&vm);
}

#[test]
fn k06_programs_make_room_for_a_run() {
    let vm = vm_with_kernel(200, 1024);
    vm.swap_on(crate::common::MemorySwap::leak(1000)).unwrap();
    let kmem = kernel(&vm);
    let user = vm.space_create(crate::common::pages(0, 1000)).unwrap();
    crate::common::anon(vm.space(user), 0, 1000);
    let mut page = 0;
    while vm.counters().frames_free > 8 {
        crate::common::touch(&vm, user, 0, crate::common::at(page), Some(page)).unwrap();
        page += 1;
    }
    let pages = Physical {
        within: Within {
            align: 16,
            ..Within::ANY
        },
        attr: MemoryAttr::WriteBack,
    };
    let got = kmem.map().alloc_contig(16 * PAGE, WAIT, pages).unwrap();
    let first = frame_at(&vm, got).unwrap().0;
    assert!(first.is_multiple_of(16));
    for page in 0..page {
        assert_eq!(
            crate::common::touch(&vm, user, 0, crate::common::at(page), None),
            Ok(page)
        );
    }
    vm.space(user).release();
    end(&vm);
}

#[test]
fn k09_malloc_takes_only_the_maps_meant_for_it() {
    let vm = vm_with_kernel(500, 1024);
    dirty_memory(&vm);
    let kmem = kernel(&vm);
    let exec = named(kmem, SubmapName::Exec, 8);
    assert_eq!(exec.malloc(PAGE, NOWAIT), Err(KmemError::WrongMap));
    assert_eq!(kmem.map().malloc(PAGE, WAIT), Err(KmemError::WrongMap));
    assert_eq!(exec.back(range(0, 1), WAIT), Err(KmemError::WrongMap));
    let map = malloc_map(kmem, 16);
    let got = map.malloc(2 * PAGE - 10, NOWAIT).unwrap();
    assert_eq!(load(&vm, VirtAddr(got.0 + PAGE)), Some(0));
    let raw = Malloc {
        fill: Fill::AsIs,
        ..WAIT
    };
    let raw = map.malloc(PAGE, raw).unwrap();
    assert_ne!(load(&vm, raw), Some(0));
    assert!(store(&vm, raw, 3));
    assert_eq!(map.malloc(0, WAIT), Err(KmemError::InvalidArgument));
    assert_eq!(map.space().entry(got).unwrap().wired, 1);
    assert_eq!(vm.counters().charged_pages, 0);
    end(&vm);
}

/// Everything but the interrupt reserve is in use.
fn use_up(vm: &TestVm) -> (SpaceId, Vec<Frame>) {
    let user = fill_memory(vm);
    let kmem = vm.kmem().unwrap();
    let mut frames = Vec::new();
    while let Ok(frame) = kmem.frame_alloc(Fill::AsIs) {
        frames.push(frame);
    }
    (user, frames)
}

#[test]
fn k09_kmem_malloc_nowait_unwinds() {
    let vm = vm_with_kernel(2000, 1024);
    let kmem = kernel(&vm);
    let map = malloc_map(kmem, 64);
    let kept = map.malloc(PAGE, NOWAIT).unwrap();
    let (user, frames) = use_up(&vm);
    let reserve = vm.counters().frames_free;
    assert!(reserve > 4, "the interrupt reserve is left: {reserve}");
    let before = vm.counters();
    let asked = (reserve + 1) * PAGE;
    assert_eq!(map.malloc(asked, NOWAIT), Err(KmemError::NoMemory));
    let after = vm.counters();
    assert_eq!(
        after.frames_free, before.frames_free,
        "every page is free again"
    );
    assert_eq!(after.entries, before.entries);
    assert_eq!(draw(map, 64).matches('A').count(), 1);
    assert_eq!(load(&vm, VirtAddr(kept.0 + PAGE)), None, "and unmapped");
    check(&vm);
    // The reserve itself can be had, and by nobody who may wait.
    let got = map.malloc(2 * PAGE, NOWAIT).unwrap();
    assert_eq!(load(&vm, got), Some(0));
    assert!(kmem.frame_alloc(Fill::AsIs).is_err());
    vm.space(user).release();
    frames.into_iter().for_each(|f| kmem.frame_free(f));
    end(&vm);
}

#[test]
fn k09_a_failure_anywhere_leaves_nothing() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    let map = malloc_map(kmem, 64);
    kmem.map().alloc(PAGE).unwrap();
    let contig = |m: KernelMap<'_, Sim<12>>| m.alloc_contig(4 * PAGE, NOWAIT, anywhere(0, 9999));
    let attr = |m: KernelMap<'_, Sim<12>>| m.alloc_attr(4 * PAGE, NOWAIT, anywhere(0, 9999));
    type Call<'a> = &'a dyn Fn(KernelMap<'_, Sim<12>>) -> Result<VirtAddr, KmemError>;
    let calls: [(&str, Call<'_>); 6] = [
        ("malloc", &|m| m.malloc(4 * PAGE, NOWAIT)),
        ("contig", &contig),
        ("attr", &attr),
        ("nofault", &|m| m.alloc_nofault(4 * PAGE)),
        ("pageable", &|m| m.alloc_pageable(4 * PAGE)),
        ("suballoc", &|m| {
            let sub = m.suballoc(PAGE, Find::Any, Paging::Pageable)?;
            Ok(sub.space().range().start())
        }),
    ];
    for (name, call) in calls {
        let mut failed = 0;
        for n in 1.. {
            let before = (vm.counters(), draw(map, 64));
            vm.inject_failure(n);
            let done = call(map);
            let hit = vm.injection_left() == 0;
            vm.inject_failure(0);
            check(&vm);
            match done {
                Ok(at) if !hit => {
                    if name != "suballoc" {
                        map.free(at, 4 * PAGE).unwrap();
                    }
                    break;
                }
                // The reserve, or another frame, was there in its place.
                Ok(at) => {
                    if name != "suballoc" {
                        map.free(at, 4 * PAGE).unwrap();
                    }
                }
                Err(e) => {
                    failed += 1;
                    assert_eq!(e, KmemError::NoMemory, "{name} {n}");
                    let after = (vm.counters(), draw(map, 64));
                    assert_eq!(after.1, before.1, "{name} {n}");
                    assert_eq!(after.0.objects, before.0.objects, "{name} {n}");
                    assert_eq!(after.0.spaces, before.0.spaces, "{name} {n}");
                    assert_eq!(after.0.charged_pages, before.0.charged_pages, "{name} {n}");
                }
            }
            assert!(n < 1000, "{name} never succeeds");
        }
        assert!(
            failed > 0 || name == "nofault",
            "{name} was never made to fail"
        );
    }
    end(&vm);
}

#[test]
fn k11_back_puts_pages_under_a_range() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    let map = malloc_map(kmem, 64);
    map.back(range(8, 4), WAIT).unwrap();
    assert_eq!(draw(map, 13), "........AAAA.");
    assert_eq!(load(&vm, at(11)), Some(0));
    for (taken, why) in [
        (range(6, 4), KmemError::InvalidArgument),
        (range(62, 4), KmemError::InvalidArgument),
        (range(0, 0), KmemError::InvalidArgument),
    ] {
        assert_eq!(map.back(taken, NOWAIT), Err(why));
    }
    let odd = VirtRange::from_len(VirtAddr(LOW + 8), PAGE).unwrap();
    assert_eq!(map.back(odd, WAIT), Err(KmemError::InvalidArgument));

    // No pages is not "no space", and the range is free again.
    let (user, frames) = use_up(&vm);
    assert_eq!(map.back(range(12, 40), NOWAIT), Err(KmemError::NoMemory));
    assert_eq!(draw(map, 13), "........AAAA.");
    check(&vm);
    vm.space(user).release();
    frames.into_iter().for_each(|f| kmem.frame_free(f));
    map.back(range(12, 40), NOWAIT).unwrap();
    assert_eq!(draw(map, 13), "........AAAAA");
    end(&vm);
}

#[test]
fn k12_neighbouring_mallocs_are_one_entry() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    let map = malloc_map(kmem, 64);
    let got: Vec<_> = (0..8)
        .map(|_| map.malloc(2 * PAGE, NOWAIT).unwrap())
        .collect();
    assert_eq!(draw(map, 17), "AAAAAAAAAAAAAAAA.");
    assert_eq!(map.space().entries(), 1);
    map.free(got[3], 2 * PAGE).unwrap();
    assert_eq!(draw(map, 17), "AAAAAA..BBBBBBBB.");
    assert_eq!(map.malloc(PAGE, NOWAIT), Ok(got[3]));
    assert_eq!(draw(map, 17), "AAAAAAA.BBBBBBBB.");
    assert_eq!(map.malloc(PAGE, NOWAIT), Ok(VirtAddr(got[3].0 + PAGE)));
    assert_eq!(map.space().entries(), 1);
    end(&vm);
}

#[test]
fn e03_memory_is_given_back_in_a_world_without_a_free_frame() {
    let vm = vm_with_kernel(3000, 4096);
    let kmem = kernel(&vm);
    let map = malloc_map(kmem, 2048);
    let mut got = Vec::new();
    let user = vm.space_create(crate::common::pages(0, 8)).unwrap();
    while let Ok(at) = map.malloc(PAGE, NOWAIT) {
        got.push(at);
    }
    assert!(got.len() > 1500, "{}", got.len());
    let full = map.malloc(PAGE, NOWAIT);
    assert!(matches!(
        full,
        Err(KmemError::NoMemory | KmemError::NoSpace)
    ));
    let mut hoard = Vec::new();
    while let Ok(at) = kmem.map().alloc_attr(PAGE, NOWAIT, anywhere(0, u32::MAX)) {
        hoard.push(at);
    }
    assert_eq!(vm.counters().frames_free, 0);
    // Every second page of one entry: each is the middle of it. What they set free makes up for
    // what they drew.
    let entries = map.space().entries();
    for pair in got.chunks_exact(2) {
        map.free(pair[0], PAGE).unwrap();
    }
    assert!(
        map.space().entries() > entries + 700,
        "{}",
        map.space().entries()
    );
    check(&vm);
    // A program's map has no such right.
    hoard
        .into_iter()
        .for_each(|at| kmem.map().free(at, PAGE).unwrap());
    vm.space(user).release();
    end(&vm);
}
