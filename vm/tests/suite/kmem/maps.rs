//! Maps of the kernel: building, submaps, address ranges, mappings by hand, settings.

use super::*;
use bsdvm::{Access, FaultError, Frame, KmemError, MapError, MemoryAttr, Pmap, Prot, SettingError};
use std::sync::Mutex;

#[test]
fn k14_kmem_init_marks_what_is_in_use() {
    let vm = vm_with_kernel(500, 1024);
    assert!(vm.kmem().is_none());
    let config = KernelConfig {
        in_use: 16 * PAGE,
        zero_region: 0,
        ..KernelConfig::of(vm.machine())
    };
    let kmem = vm.kmem_init(config).unwrap();
    assert_eq!(draw(kmem.map(), 18), "AAAAAAAAAAAAAAAA..");
    assert_eq!(kmem.map().space().range(), range(0, 1024));
    // What is in use can be neither faulted on nor taken.
    let space = kmem.map().space();
    assert_eq!(space.fault(at(3), Access::Read), Err(FaultError::NoFault));
    assert_eq!(kmem.map().alloc_nofault(PAGE), Ok(at(16)));
    assert_eq!(vm.kmem_init(config).map(drop), Err(KmemError::Exists));
    assert_eq!(vm.counters().charged_pages, 0);
    end(&vm);

    // It can be built again; what does not fit is refused and leaves nothing behind.
    for (in_use, superpage, why) in [
        (PAGE / 2, 2 << 20, KmemError::InvalidArgument),
        (1025 * PAGE, 2 << 20, KmemError::InvalidArgument),
        (0, 0, KmemError::InvalidArgument),
    ] {
        let bad = KernelConfig {
            in_use,
            superpage,
            ..config
        };
        assert_eq!(vm.kmem_init(bad).map(drop), Err(why));
        assert!(vm.kmem().is_none());
        crate::common::check_empty(&vm);
    }
    let none = vm_with_kernel(500, 0);
    let refused = none.kmem_init(KernelConfig {
        zero_region: 0,
        ..KernelConfig::of(none.machine())
    });
    assert_eq!(
        refused.map(|k| k.map().alloc(PAGE)),
        Ok(Err(KmemError::NoSpace))
    );
    end(&none);
}

#[test]
fn k15_the_zero_region_is_one_page_and_stays_read_only() {
    let vm = vm_with_kernel(500, 1024);
    let config = KernelConfig {
        zero_region: 256 * PAGE,
        ..KernelConfig::of(vm.machine())
    };
    let before = vm.counters().frames_free;
    let kmem = vm.kmem_init(config).unwrap();
    let zeroes = kmem.zero_region();
    assert_eq!(zeroes.len(), 256 * PAGE);
    for page in [0, 100, 255] {
        assert_eq!(load(&vm, VirtAddr(zeroes.start().0 + page * PAGE)), Some(0));
    }
    assert!(!store(&vm, zeroes.start(), 1), "it is read-only");
    let entry = kmem.map().space().entry(zeroes.start()).unwrap();
    assert_eq!((entry.prot, entry.max_prot), (Prot::READ, Prot::READ));
    let raised = kmem.map().space().protect(zeroes, Prot::RW);
    assert_eq!(
        raised,
        Err(MapError::Protection),
        "its maximum is lowered too"
    );
    let used = before - vm.counters().frames_free;
    assert!(
        used < 64,
        "{used} frames for 256 pages of zeroes and all records"
    );
    let frames = kmem.map().space().with_pmap(|pmap| {
        let at = |page| pmap.extract(VirtAddr(zeroes.start().0 + page * PAGE));
        (at(0).map(|t| t.frame), at(255).map(|t| t.frame))
    });
    assert!(frames.is_some_and(|(a, b)| a == b), "one page behind all");
    end(&vm);
}

#[test]
fn k01_named_submaps_are_allocators_of_their_own() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    assert_eq!(kmem.named(SubmapName::Exec).map(|m| m.id()), None);
    let exec = named(kmem, SubmapName::Exec, 8);
    let pipe = named(kmem, SubmapName::Pipe, 4);
    assert_eq!(draw(kmem.map(), 13), "AAAAAAAABBBB.");
    assert_eq!(kmem.named(SubmapName::Exec).unwrap().id(), exec.id());
    assert_eq!(
        (exec.name(), pipe.name()),
        (Some(SubmapName::Exec), Some(SubmapName::Pipe))
    );
    assert_eq!(kmem.map().name(), None);
    let again = kmem.suballoc_named(
        SubmapName::Exec,
        kmem.map(),
        PAGE,
        Find::Any,
        Paging::Pageable,
    );
    assert_eq!(again.map(drop), Err(KmemError::Exists));

    // Each has its own room.
    assert_eq!(pipe.alloc_nofault(4 * PAGE), Ok(at(8)));
    assert_eq!(pipe.alloc_nofault(PAGE), Err(KmemError::NoSpace));
    assert_eq!(exec.alloc_nofault(PAGE), Ok(at(0)));
    assert_eq!(kmem.map().alloc_nofault(PAGE), Ok(at(12)));
    pipe.free(at(8), PAGE).unwrap();
    assert_eq!(pipe.alloc_nofault(PAGE), Ok(at(8)));
    check(&vm);

    // A submap of a submap.
    let clean = named(kmem, SubmapName::Clean, 16);
    let buffer = kmem
        .suballoc_named(
            SubmapName::Buffer,
            clean,
            8 * PAGE,
            Find::Any,
            Paging::Pageable,
        )
        .unwrap();
    let got = buffer.alloc(2 * PAGE).unwrap();
    assert_eq!(got, clean.space().range().start());
    assert_eq!(load(&vm, got), Some(0));
    kmem.map().space().write(got, &7u64.to_le_bytes()).unwrap();
    assert_eq!(load(&vm, got), Some(7), "lookups pass through both");
    end(&vm);
}

static FULL: Mutex<Vec<SubmapName>> = Mutex::new(Vec::new());

struct Reports;

impl bsdvm::KernelWatch for Reports {
    fn map_full(&self, name: SubmapName) {
        FULL.lock().unwrap().push(name);
    }
}

#[test]
fn k01_a_full_mbuf_map_fails_at_once_and_reports_each_time() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    kmem.watch(&Reports).unwrap();
    let mbuf = named(kmem, SubmapName::Mbuf, 4);
    let cluster = named(kmem, SubmapName::MbufCluster, 2);
    let got = mbuf.malloc(3 * PAGE, WAIT).unwrap();
    let announced = vm.counters().low_memory;
    for _ in 0..2 {
        assert_eq!(mbuf.malloc(2 * PAGE, WAIT), Err(KmemError::MapFull));
    }
    assert_eq!(cluster.malloc(3 * PAGE, NOWAIT), Err(KmemError::MapFull));
    let seen = FULL.lock().unwrap().clone();
    assert_eq!(
        seen,
        [SubmapName::Mbuf, SubmapName::Mbuf, SubmapName::MbufCluster]
    );
    assert_eq!(
        vm.counters().low_memory,
        announced,
        "nobody waited or asked for memory"
    );
    assert!(kmem.is_full(SubmapName::Mbuf) && kmem.is_full(SubmapName::MbufCluster));
    mbuf.free(got, PAGE).unwrap();
    assert!(!kmem.is_full(SubmapName::Mbuf));
    assert_eq!(mbuf.malloc(PAGE, WAIT), Ok(got));
    kmem.unwatch(&Reports).unwrap();
    assert!(kmem.unwatch(&Reports).is_err());
    end(&vm);
}

#[test]
fn k02_pageable_memory_of_the_kernel_is_paged() {
    let vm = vm_with_kernel(500, 1024);
    vm.swap_on(crate::common::MemorySwap::leak(64)).unwrap();
    let kmem = kernel(&vm);
    let map = kmem.map();
    let got = map.alloc_pageable(8 * PAGE).unwrap();
    assert_eq!(got, at(0));
    assert_eq!(vm.counters().charged_pages, 8);
    assert_eq!(
        load(&vm, got),
        None,
        "nothing is there before it is touched"
    );
    for page in 0..8 {
        crate::common::touch(&vm, map.id(), 0, at(page), Some(page + 1)).unwrap();
    }
    for _ in 0..4 {
        vm.pageout_step(100);
    }
    assert_eq!(vm.counters().swap_used, 8);
    check(&vm);
    for page in 0..8 {
        assert_eq!(
            crate::common::touch(&vm, map.id(), 0, at(page), None),
            Ok(page + 1)
        );
    }
    let sub = named(kmem, SubmapName::Pipe, 4);
    let inner = sub.alloc_pageable(2 * PAGE).unwrap();
    crate::common::touch(&vm, map.id(), 0, inner, Some(5)).unwrap();

    // No room, and nothing promised for it.
    assert_eq!(sub.alloc_pageable(3 * PAGE), Err(KmemError::NoSpace));
    assert_eq!(sub.alloc_pageable(0), Err(KmemError::InvalidArgument));
    assert_eq!(vm.counters().charged_pages, 10);
    vm.set_charge_limit(11);
    assert_eq!(sub.alloc_pageable(2 * PAGE), Err(KmemError::ChargeLimit));
    assert_eq!(vm.counters().charged_pages, 10);
    map.free(got, 8 * PAGE).unwrap();
    assert_eq!(
        (vm.counters().charged_pages, vm.counters().swap_used),
        (2, 0)
    );
    end(&vm);
}

#[test]
fn k04_nofault_ranges_take_mappings_by_hand_only() {
    let vm = vm_with_kernel(500, 4096);
    let kmem = kernel(&vm);
    let map = kmem.map();
    let one = map.alloc_nofault(PAGE).unwrap();
    let got = map.alloc_nofault_space(4 * PAGE, Find::Superpage).unwrap();
    assert_eq!(one, at(0));
    assert_eq!(got, at(512), "where a superpage can begin");
    let space = map.space();
    for access in [Access::Read, Access::Write] {
        assert_eq!(space.fault(got, access), Err(FaultError::NoFault));
    }
    assert_eq!(
        space.read(got, &mut [0; 8]).map_err(|e| e.why),
        Err(FaultError::NoFault)
    );

    // Frames of somebody else, mapped by hand in an order of the caller's.
    let frames: Vec<Frame> = (0..3)
        .map(|_| kmem.frame_alloc(Fill::Zeroed).unwrap())
        .collect();
    map.qenter(
        got,
        &[frames[2], frames[0], frames[1]],
        Prot::RW,
        MemoryAttr::Uncached,
    )
    .unwrap();
    assert!(store(&vm, VirtAddr(got.0 + PAGE), 9));
    let mut bytes = [0; 8];
    bsdvm::Memory::read(vm.machine(), frames[0], 0, &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes), 9);
    let attr = space.with_pmap(|pmap| pmap.attr(got)).unwrap();
    assert_eq!(attr, Some(MemoryAttr::Uncached));
    space.drop_translations(range(0, 8));
    assert_eq!(
        load(&vm, VirtAddr(got.0 + PAGE)),
        Some(9),
        "they stay until they are removed"
    );
    check(&vm);

    map.qremove(VirtRange::from_len(got, 2 * PAGE).unwrap())
        .unwrap();
    assert_eq!(load(&vm, got), None);
    assert_eq!(load(&vm, VirtAddr(got.0 + 2 * PAGE)), Some(0));
    // Removing the range takes what is still mapped with it (a fault of the document).
    map.free(got, 4 * PAGE).unwrap();
    assert_eq!(load(&vm, VirtAddr(got.0 + 2 * PAGE)), None);
    check(&vm);

    // Elsewhere nothing is mapped by hand.
    let other = map.alloc(PAGE).unwrap();
    for va in [other, at(3000), VirtAddr(one.0 + 8)] {
        let done = map.qenter(va, &frames[..1], Prot::RW, MemoryAttr::WriteBack);
        assert_eq!(done, Err(KmemError::InvalidArgument));
    }
    assert_eq!(map.qremove(range(0, 2)), Err(KmemError::InvalidArgument));
    frames.into_iter().for_each(|f| kmem.frame_free(f));
    end(&vm);
}

#[test]
fn k07_free_rounds_outward_and_frees_the_middle() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    let map = kmem.map();
    let got = map.alloc(8 * PAGE).unwrap();
    let free = vm.counters().frames_free;
    map.free(VirtAddr(got.0 + 2 * PAGE + 100), PAGE).unwrap();
    assert_eq!(draw(map, 9), "AA..BBBB.");
    assert_eq!(vm.counters().frames_free, free + 2);
    assert_eq!(load(&vm, at(2)), None);
    assert_eq!(load(&vm, at(4)), Some(0));
    map.free(at(0), 8 * PAGE).unwrap();
    assert_eq!(draw(map, 9), ".........");
    for (va, bytes) in [
        (VirtAddr(LOW - PAGE), 2 * PAGE),
        (at(1023), 2 * PAGE),
        (VirtAddr(u64::MAX - 10), 100),
        (VirtAddr(0), PAGE),
    ] {
        assert_eq!(map.free(va, bytes), Err(KmemError::InvalidArgument));
    }
    let sub = map.suballoc(2 * PAGE, Find::Any, Paging::Pageable).unwrap();
    assert_eq!(
        map.free(at(0), PAGE),
        Err(KmemError::InvalidArgument),
        "a submap stays"
    );
    assert_eq!(sub.space().references(), 1);
    end(&vm);
}

#[test]
fn k08_suballoc_carves_a_map_that_is_not_charged() {
    let vm = vm_with_kernel(500, 4096);
    let kmem = kernel(&vm);
    let map = kmem.map();
    map.alloc_nofault(PAGE).unwrap();
    vm.set_charge_limit(0);
    let any = map
        .suballoc(3 * PAGE - 5, Find::Any, Paging::Pageable)
        .unwrap();
    assert_eq!(any.space().range(), range(1, 3), "whole pages");
    let large = map
        .suballoc(4 * PAGE, Find::Superpage, Paging::Pageable)
        .unwrap();
    assert_eq!(large.space().range().start(), at(512));
    assert_eq!(vm.counters().charged_pages, 0);
    let spaces = vm.counters().spaces;
    for (bytes, why) in [
        (0, KmemError::InvalidArgument),
        (4096 * PAGE, KmemError::NoSpace),
    ] {
        let failed = map.suballoc(bytes, Find::Any, Paging::Pageable);
        assert_eq!(failed.map(drop), Err(why));
    }
    assert_eq!((vm.counters().spaces, map.space().entries()), (spaces, 3));
    vm.set_charge_limit(u64::MAX);

    // What a map that is not pageable has is wired.
    vm.swap_on(crate::common::MemorySwap::leak(64)).unwrap();
    let wired = map.suballoc(4 * PAGE, Find::Any, Paging::Wired).unwrap();
    let got = wired.alloc_pageable(2 * PAGE).unwrap();
    let open = any.alloc_pageable(2 * PAGE).unwrap();
    crate::common::touch(&vm, map.id(), 0, open, Some(1)).unwrap();
    crate::common::touch(&vm, map.id(), 0, got, Some(1)).unwrap();
    for _ in 0..4 {
        vm.pageout_step(100);
    }
    assert_eq!(vm.counters().swap_used, 1);
    assert_eq!(wired.space().entry(got).unwrap().wired, 1);
    end(&vm);
}

#[test]
fn k17_the_bounds_and_tunables_can_be_read_by_name() {
    let vm = vm_with_kernel(500, 1024);
    assert_eq!(vm.setting("vm.min_kernel_address"), Some(0));
    let kmem = kernel(&vm);
    assert_eq!(vm.setting("vm.min_kernel_address"), Some(LOW));
    assert_eq!(vm.setting("vm.max_kernel_address"), Some(at(1024).0));
    for name in TestVm::SETTINGS {
        assert!(vm.setting(name).is_some(), "{name}");
    }
    for name in ["vm.randomize_mmap", "vm.map_relock_enable"] {
        let was = vm.setting(name).unwrap();
        vm.set_setting(name, 1 - was).unwrap();
        assert_eq!(vm.setting(name), Some(1 - was));
        assert_eq!(vm.set_setting(name, 2), Err(SettingError::InvalidValue));
    }
    let refused = vm.set_setting("vm.min_kernel_address", 1);
    assert_eq!(refused, Err(SettingError::ReadOnly));
    assert_eq!(vm.setting("vm.min_kernel_address"), Some(LOW));
    assert_eq!(vm.setting("vm.nothing"), None);
    assert_eq!(vm.set_setting("vm.nothing", 2), Err(SettingError::Unknown));
    assert_eq!(vm.set_setting("vm.nothing", 1), Err(SettingError::Unknown));
    let before = vm.counters().low_memory;
    vm.set_setting("debug.vm_lowmem", 0).unwrap();
    vm.set_setting("debug.vm_lowmem", 1).unwrap();
    assert_eq!(vm.counters().low_memory, before + 1);
    let _ = kmem;
    end(&vm);
}

#[test]
fn k18_tables_grow_with_the_kernel_map() {
    // An upper table of the simulated machine holds 1 GiB.
    const GIB: u64 = 1 << 18;
    let vm = vm_with_kernel(500, 8 * GIB);
    let kmem = kernel(&vm);
    let map = kmem.map();
    assert_eq!(kmem.grown(), at(0));
    map.alloc(PAGE).unwrap();
    assert_eq!(kmem.grown(), at(1));
    map.alloc_nofault(3 * GIB * PAGE).unwrap();
    assert_eq!(kmem.grown(), at(3 * GIB + 1));
    let far = map.alloc(PAGE).unwrap();
    assert_eq!(load(&vm, far), Some(0));
    check(&vm);

    // No frame for a table: nothing is taken.
    let user = fill_memory(&vm);
    while kmem.frame_alloc(Fill::AsIs).is_ok() {}
    let entries = map.space().entries();
    assert_eq!(map.alloc_nofault(2 * GIB * PAGE), Err(KmemError::NoMemory));
    assert_eq!(map.space().entries(), entries);
    assert_eq!(kmem.grown(), at(3 * GIB + 2));
    vm.space(user).release();
    assert!(map.alloc_nofault(2 * GIB * PAGE).is_ok());
    check(&vm);
}

#[test]
fn e06_in_a_map_of_the_kernel_a_clip_makes_no_object() {
    let vm = vm_with_kernel(500, 1024);
    let kmem = kernel(&vm);
    let map = kmem.map();
    map.alloc_nofault(8 * PAGE).unwrap();
    let objects = vm.counters().objects;
    map.free(at(2), PAGE).unwrap();
    map.space().protect(range(4, 2), Prot::READ).unwrap();
    assert_eq!(draw(map, 9), "AA.BCCDD.");
    assert_eq!(vm.counters().objects, objects);
    assert_eq!(machine_page(), PAGE);
    end(&vm);
}
