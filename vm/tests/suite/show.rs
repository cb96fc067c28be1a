//! What a person sees: maps, spaces and counters as text, word by word.

use crate::common::scripted::{Slot, Stage};
use crate::common::{
    Files, MemorySwap, PAGE, anon, at, check_empty, map_at, pages, put, space, vm,
};
use bsdvm::{
    Access, Advice, Behavior, Config, Find, Inherit, KernelConfig, Mapping, ObjectKind, Paging,
    Prot, Sharing, Space, VirtAddr, VirtRange, Vm,
};
use bsdvm_sim::{Sim, SimConfig};
use std::sync::atomic::Ordering;

/// The lines of a map, with `#` for the numbers of entries and the version: how often a change
/// bumps that and which record it takes is not for these tests to say.
#[track_caller]
fn shown(space: Space<'_, Sim<12>>) -> Vec<String> {
    let text = space.show().to_string();
    assert!(text.ends_with('\n'));
    let mut entries = space.show().entries();
    let lines = text.lines().map(|line| {
        if let Some((line, _)) = line.split_once("version=") {
            return format!("{line}version=#");
        }
        let Some((indent, rest)) = line.split_once("map entry ") else {
            return line.to_owned();
        };
        let (number, rest) = rest.split_once(':').expect("a number");
        if indent.len() == 2 {
            let entry = entries.next().expect("a line for each entry");
            assert_eq!(number, entry.number.to_string());
        }
        format!("{indent}map entry #:{rest}")
    });
    let lines = lines.collect();
    assert!(entries.next().is_none(), "each entry has a line");
    assert!(text.contains(&format!("version={}\n", space.stamp())));
    lines
}

#[test]
fn d01_every_column_of_a_map() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(64)).unwrap();
    let files = Files::leak();
    let file = vm.object_create(files.pager(0x5f), 6 * PAGE).unwrap();
    let s = space(&vm, 64);
    let private = Mapping::object(file, 2 * PAGE, Sharing::Private, Prot::RW);
    map_at(s, 0, 4, private).unwrap();
    put(s, 1, 7);
    let limited = Mapping {
        max_prot: Prot::RX,
        inherit: Inherit::None,
        ..Mapping::object(file, PAGE, Sharing::Shared, Prot::READ)
    };
    map_at(s, 5, 1, limited).unwrap();
    map_at(s, 6, 2, private).unwrap();
    anon(s, 8, 3);
    put(s, 8, 1);
    put(s, 9, 1);
    s.inherit(pages(8, 3), Inherit::Zero).unwrap();
    let child = vm.space(s.fork().unwrap());
    // What was written goes to swap; the file's pages are clean.
    while vm.pageout_step(1000) > 0 {}
    assert_eq!(vm.counters().swap_used, 3);
    put(s, 2, 8);
    anon(s, 20, 2);
    s.wire(pages(20, 2)).unwrap();
    s.inherit(pages(20, 2), Inherit::Share).unwrap();
    s.stack(at(48), 8 * PAGE, 2 * PAGE, Prot::RW).unwrap();
    for advice in [Advice::Behavior(Behavior::Sequential), Advice::NoSync] {
        s.advise(pages(5, 1), advice).unwrap();
    }
    for advice in [Advice::Behavior(Behavior::Random), Advice::NoCore] {
        s.advise(pages(8, 3), advice).unwrap();
    }
    let expected = [
        "Task map 1: pmap=1, nentries=6, version=#",
        "  map entry #: start=0x100000, end=0x104000",
        "   prot=3/7/copy, object=4, offset=0x0, copy (done)",
        "    Object 4: type=default, size=0x4000, res=1, swap=0, ref=1, sref=0, one mapping, \
         backing=2+0x0",
        "      Object 2: type=swap, size=0x4000, res=0, swap=1, ref=2, sref=1, backing=1+0x2000",
        "        Object 1: type=vnode(0x5f), size=0x6000, res=6, swap=0, ref=5, sref=1",
        "  map entry #: start=0x105000, end=0x106000",
        "   prot=1/5/none, object=1, offset=0x1000, sequential, no sync",
        "    Object 1: type=vnode(0x5f), size=0x6000, res=6, swap=0, ref=5, sref=1",
        // The same object in front as in the entry below: it is not shown again.
        "  map entry #: start=0x106000, end=0x108000",
        "   prot=3/7/copy, object=1, offset=0x2000, copy (needed)",
        "  map entry #: start=0x108000, end=0x10b000",
        "   prot=3/7/zero, object=3, offset=0x0, random, no core",
        "    Object 3: type=swap, size=0x3000, res=0, swap=2, ref=1, sref=0, one mapping",
        "  map entry #: start=0x114000, end=0x116000",
        "   prot=3/7/share, wired (1, user), object=5, offset=0x0",
        "    Object 5: type=default, size=0x2000, res=2, swap=0, ref=1, sref=0, one mapping",
        "  map entry #: start=0x12e000, end=0x130000",
        "   prot=3/7/copy, object=0, offset=0x0, stack (0x6000 left)",
    ];
    assert_eq!(shown(s), expected);
    child.release();
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn d01_submaps_are_indented_and_shown_once() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 1);
    anon(s, 4, 8);
    let sub = vm.submap_create(s.id(), pages(6, 4)).unwrap();
    s.submap(pages(6, 4), sub).unwrap();
    let below = vm.space(sub);
    map_at(below, 7, 2, Mapping::anonymous(Prot::READ)).unwrap();
    below.fault(at(7), Access::Read).unwrap();
    let expected = [
        "Task map 1: pmap=1, nentries=4, version=#",
        "  map entry #: start=0x100000, end=0x101000",
        "   prot=3/7/copy, object=0, offset=0x0",
        "  map entry #: start=0x104000, end=0x106000",
        "   prot=3/7/copy, object=0, offset=0x0",
        "  map entry #: start=0x106000, end=0x10a000",
        "   prot=3/7/copy, share=2, offset=0x0",
        "    Task map 2: pmap=1, nentries=1, version=#",
        "      map entry #: start=0x107000, end=0x109000",
        "       prot=1/7/copy, object=1, offset=0x0",
        "        Object 1: type=default, size=0x2000, res=1, swap=0, ref=1, sref=0, one mapping",
        "  map entry #: start=0x10a000, end=0x10c000",
        "   prot=3/7/copy, object=0, offset=0x0",
    ];
    assert_eq!(shown(s), expected);
    assert_eq!(shown(below).len(), 4, "and by itself");
    assert_eq!((below.holds(), s.holds()), (2, 1), "as before");
    below.release();
    s.release();
    check_empty(&vm);
}

#[test]
fn d01_the_map_of_the_kernel() {
    let low = VirtAddr(0xffff_8000_0000_0000);
    let machine = Sim::new(SimConfig {
        kernel: VirtRange::from_len(low, 256 * PAGE).unwrap(),
        ..SimConfig::default()
    });
    let vm = Vm::new(machine, Config::default()).unwrap();
    let config = KernelConfig {
        zero_region: 0,
        ..KernelConfig::of(vm.machine())
    };
    let kmem = vm.kmem_init(config).unwrap();
    let kernel = kmem.map();
    kernel.alloc(2 * PAGE).unwrap();
    kernel.alloc_nofault(PAGE).unwrap();
    let map = kernel
        .suballoc(4 * PAGE, Find::Any, Paging::Pageable)
        .unwrap();
    map.alloc_pageable(PAGE).unwrap();
    let expected = [
        "Task map 1: pmap=1, nentries=3, version=#",
        "  map entry #: start=0xffff800000000000, end=0xffff800000002000",
        "   prot=7/7/none, wired (1), object=1, offset=0x0",
        "    Object 1: type=kernel, size=0x100000, res=2, swap=0, ref=2, sref=0",
        "  map entry #: start=0xffff800000002000, end=0xffff800000003000",
        "   prot=7/7/none, object=0, offset=0x0, no fault",
        "  map entry #: start=0xffff800000003000, end=0xffff800000007000",
        "   prot=7/7/none, share=2, offset=0x0",
        "    Task map 2: pmap=1, nentries=1, version=#",
        "      map entry #: start=0xffff800000003000, end=0xffff800000004000",
        "       prot=7/7/none, object=3, offset=0x0",
        "        Object 3: type=default, size=0x1000, res=0, swap=0, ref=1, sref=0, one mapping",
    ];
    assert_eq!(shown(kernel.space()), expected);
    kmem.end();
    check_empty(&vm);
}

#[test]
fn d01_maps_in_maps_are_followed_four_deep() {
    let vm = vm(1000);
    let s = space(&vm, 8);
    let mut chain = vec![s];
    for count in (2..8).rev() {
        let above = chain[chain.len() - 1];
        anon(above, 0, count);
        let sub = vm.submap_create(s.id(), pages(0, count)).unwrap();
        above.submap(pages(0, count), sub).unwrap();
        chain.push(vm.space(sub));
    }
    let lines = shown(s);
    let maps: Vec<_> = lines.iter().filter(|l| l.contains("Task map")).collect();
    assert_eq!(maps.len(), 5);
    let last = "                Task map 5: pmap=1, nentries=1, version=#";
    assert_eq!(maps[4], last);
    assert!(
        lines.last().unwrap().contains(", share=6, "),
        "not followed"
    );
    chain.iter().for_each(|space| space.release());
    check_empty(&vm);
}

#[test]
fn d01_programs_see_the_same_as_people() {
    let vm = vm(100);
    let files = Files::leak();
    let file = vm.object_create(files.pager(9), 2 * PAGE).unwrap();
    let s = space(&vm, 16);
    anon(s, 0, 1);
    let private = Mapping::object(file, PAGE, Sharing::Private, Prot::RW);
    map_at(s, 4, 1, private).unwrap();
    put(s, 4, 1);
    let entries: Vec<_> = s.show().entries().collect();
    assert_eq!(entries.len(), 2);
    assert_eq!(Some(entries[0].info), s.entry(at(0)));
    assert_eq!(Some(entries[1].info), s.entry(at(4)));
    assert_eq!(entries[0].objects().count(), 0, "no page, no object");
    let chain: Vec<_> = entries[1].objects().collect();
    assert_eq!(chain[0].kind, ObjectKind::Default);
    assert_eq!(chain[0].backing, Some((file, PAGE)));
    assert_eq!((chain[1].object, chain[1].kind), (file, ObjectKind::Vnode));
    assert_eq!((chain[0].shadows, chain[1].shadows), (0, 1));
    // One that is made above what was given is seen, one below is not.
    let mut rest = s.show().entries();
    assert_eq!(rest.next().unwrap().info.range, pages(0, 1));
    s.remove(pages(0, 1)).unwrap();
    anon(s, 2, 1);
    assert_eq!(rest.next().unwrap().info.range, pages(2, 1));
    s.remove(pages(4, 1)).unwrap();
    assert!(rest.next().is_none());
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn d01_an_empty_map_and_one_that_has_ended() {
    let vm = vm(100);
    let s = space(&vm, 16);
    assert_eq!(shown(s), ["Task map 1: pmap=1, nentries=0, version=#"]);
    anon(s, 0, 1);
    put(s, 0, 1);
    assert_eq!(shown(s).len(), 4);
    s.hold();
    s.release();
    assert_eq!(shown(s), ["Task map 1: pmap=1, nentries=0, version=#"]);
    s.unhold();
    check_empty(&vm);
}

#[test]
fn d01_a_range_in_transition_is_said_to_be_so() {
    let s = Stage::new(256);
    let file = s.file(2);
    let space = s.space();
    let shared = Mapping::object(file, 0, Sharing::Shared, Prot::RW);
    map_at(space, 0, 2, shared).unwrap();
    let seen = Slot::new();
    s.in_get({
        let seen = seen.clone();
        move || seen.put(shown(space))
    });
    space.wire(pages(0, 2)).unwrap();
    let line = "   prot=3/7/share, wired (1, user), object=1, offset=0x0";
    assert_eq!(seen.take()[2], format!("{line}, in transition"));
    assert_eq!(shown(space)[2], line);
    s.end(&[space], &[file]);
}

#[test]
fn d01_pages_of_an_object_one_by_one() {
    let vm = vm(200);
    vm.swap_on(MemorySwap::leak(8)).unwrap();
    let s = space(&vm, 16);
    anon(s, 0, 8);
    put(s, 1, 1);
    put(s, 6, 1);
    while vm.pageout_step(100) > 0 {}
    s.wire(pages(1, 1)).unwrap();
    s.fault(at(3), Access::Read).unwrap();
    let object = vm.object(s.entry(at(3)).unwrap().object.unwrap());
    let seen: Vec<_> = object.pages().map(|p| (p.offset / PAGE, p.wired)).collect();
    assert_eq!(seen, [(1, 1), (3, 0), (6, 0)]);
    let lines: Vec<String> = object.pages().map(|p| p.to_string()).collect();
    assert!(lines[0].starts_with("0x1000: frame "), "{}", lines[0]);
    assert!(lines[0].ends_with(", dirty, wired (1)"), "{}", lines[0]);
    assert!(lines[1].starts_with("0x3000: frame "), "{}", lines[1]);
    assert!(!lines[1].contains(", "), "clean: {}", lines[1]);
    assert!(lines[2].starts_with("0x6000: swap "), "{}", lines[2]);
    s.unwire(pages(1, 1)).unwrap();
    s.release();
    check_empty(&vm);
}

#[test]
fn d02_a_space_with_its_map_and_pmap() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(8)).unwrap();
    let first = space(&vm, 8);
    let s = space(&vm, 32);
    anon(s, 0, 5);
    anon(s, 8, 2);
    (0..4).for_each(|page| put(s, page, 1));
    while vm.pageout_step(1000) > 0 {}
    // One page comes back, and none with it.
    s.advise(pages(0, 5), Advice::Behavior(Behavior::Random))
        .unwrap();
    s.fault(at(0), Access::Read).unwrap();
    put(s, 8, 1);
    for page in [9, 4] {
        s.fault(at(page), Access::Write).unwrap();
    }
    for _ in 0..4 {
        s.hold();
    }
    s.reference();
    let line = "vmspace = 2, ref = 2, hold = 6, map = 0x100000-0x120000, size = 0x7000, \
                anon = 4, swap = 3, pmap = 2, resident = 3";
    let text = s.show_space().to_string();
    assert_eq!(text, format!("{line}\n{}", s.show()));
    let info = s.info();
    assert_eq!(info.to_string(), line);
    assert_eq!((info.entries, info.stamp), (2, s.stamp()));
    // The contents end, the structure stays as long as it is held.
    s.release();
    s.release();
    let line = "vmspace = 2, ref = 0, hold = 4, map = 0x100000-0x120000, size = 0x0, \
                anon = 0, swap = 0, pmap = 2, resident = 0";
    assert_eq!(s.show_space().to_string().lines().next(), Some(line));
    for _ in 0..4 {
        s.unhold();
    }
    first.release();
    check_empty(&vm);
}

#[test]
fn d03_counters_count_what_they_say() {
    let vm = vm(1000);
    let swap = MemorySwap::leak(64);
    vm.swap_on(swap).unwrap();
    let files = Files::leak();
    let file = vm.object_create(files.pager(1), 3 * PAGE).unwrap();
    let s = space(&vm, 64);
    let shared = Mapping::object(file, 0, Sharing::Shared, Prot::RW);
    map_at(s, 0, 3, shared).unwrap();
    s.fault(at(0), Access::Read).unwrap();
    let c = vm.counters();
    assert_eq!((c.page_in, c.swap_in, c.page_out), (3, 0, 0), "read ahead");
    anon(s, 8, 5);
    s.advise(pages(8, 5), Advice::Behavior(Behavior::Random))
        .unwrap();
    (8..13).for_each(|page| put(s, page, page));
    s.wire(pages(8, 1)).unwrap();
    let c = vm.counters();
    assert_eq!((c.zero_fill, c.wired, c.active), (5, 1, 7));
    assert_eq!((c.reactivated, c.page_out), (0, 0));
    // What was used is kept once; then all but the wired page goes, four to swap.
    while vm.pageout_step(1000) > 0 {}
    let c = vm.counters();
    assert!((1..=7).contains(&c.reactivated), "{}", c.reactivated);
    assert_eq!((c.page_out, c.swap_out), (4, 4), "the file's were clean");
    assert_eq!((c.swap_used, c.swap_total), (4, 64));
    assert_eq!((c.active + c.inactive + c.laundry, c.wired), (0, 1));
    put(s, 9, 1);
    let c = vm.counters();
    assert_eq!((c.page_in, c.swap_in, c.swap_used), (4, 1, 3));
    assert_eq!((c.swap_reads, c.swap_writes), (1, 1), "four pages at once");
    let child = vm.space(s.fork().unwrap());
    put(s, 9, 2);
    child.release();
    let c = vm.counters();
    assert_eq!((c.forks, c.cow_copied), (1, 1));
    assert_eq!((c.page_size, c.frames_total), (PAGE, c.frames_total));
    // A swap that fails is not counted.
    swap.fail.store(true, Ordering::Relaxed);
    assert!(s.fault(at(10), Access::Read).is_err());
    let after = vm.counters();
    assert_eq!(
        (after.faults, after.page_in, after.swap_in),
        (c.faults + 1, c.page_in, c.swap_in)
    );
    swap.fail.store(false, Ordering::Relaxed);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn d03_meeting_a_transition_and_waiting_for_it() {
    let s = Stage::new(256);
    let file = s.file(2);
    let space = s.space();
    let shared = Mapping::object(file, 0, Sharing::Shared, Prot::RW);
    map_at(space, 0, 2, shared).unwrap();
    let remover = Slot::new();
    s.in_get({
        let remover = remover.clone();
        move || {
            // What is beside the range has nothing to wait for, but cannot be merged with it.
            anon(space, 2, 1);
            space.protect(pages(2, 1), Prot::READ).unwrap();
            let c = s.vm.counters();
            assert_eq!(c.transition_waits, 0);
            assert!(c.transition_collisions > 0, "met, and left alone");
            remover.put(s.spawn(move || space.remove(pages(0, 2))));
            s.until_somebody_waits_for_a_map(0);
        }
    });
    space.wire(pages(0, 2)).unwrap();
    remover.take().join().unwrap().unwrap();
    let c = s.vm.counters();
    assert_eq!(c.transition_waits, 1);
    assert!(c.transition_collisions >= 2);
    s.end(&[space], &[file]);
}

#[test]
fn d03_counters_as_text_have_a_line_each() {
    let vm = vm(200);
    let s = space(&vm, 16);
    anon(s, 0, 2);
    put(s, 0, 1);
    let counters = vm.counters();
    let text = counters.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), counters.each().count());
    assert_eq!(lines[0], format!("{:>12}  faults", counters.faults));
    assert!(
        lines.contains(&"           1  demand-zero faults"),
        "{text}"
    );
    assert!(lines.contains(&"        4096  bytes in a page"), "{text}");
    let names: std::collections::BTreeSet<&str> = counters.each().map(|c| c.0).collect();
    assert_eq!(names.len(), lines.len(), "each name once");
    s.release();
    check_empty(&vm);
}
