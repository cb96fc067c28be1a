//! Events: what the sink hears, in which order and in which words.

use crate::common::{
    Files, MemorySwap, PAGE, TestVm, anon, at, check, check_empty, map_at, pages, put, space,
};
use bsdvm::{
    Access, Advice, Behavior, Config, Event, Inherit, Mapping, Placement, Prot, Sharing, TraceSink,
    VirtAddr, Vm,
};
use bsdvm_sim::{Sim, SimConfig};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// Keeps every event, under a lock of its own.
#[derive(Default)]
struct Kept(Mutex<Vec<Event>>);

impl TraceSink for Kept {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Kept {
    /// The lines since the last call.
    fn lines(&self) -> Vec<String> {
        let events = std::mem::take(&mut *self.0.lock().unwrap());
        events.iter().map(Event::to_string).collect()
    }
}

fn traced() -> (TestVm, &'static Kept) {
    let kept: &'static Kept = Box::leak(Box::default());
    let config = Config {
        trace: Some(kept),
        ..Config::default()
    };
    (
        Vm::new(Sim::new(SimConfig::default()), config).unwrap(),
        kept,
    )
}

#[test]
fn faults_pages_and_spaces_are_told_in_order() {
    let (vm, kept) = traced();
    let swap = MemorySwap::leak(8);
    vm.swap_on(swap).unwrap();
    let files = Files::leak();
    let file = vm.object_create(files.pager(1), 2 * PAGE).unwrap();
    let s = space(&vm, 32);
    anon(s, 0, 2);
    let shared = Mapping::object(file, 0, Sharing::Shared, Prot::RW);
    map_at(s, 8, 2, shared).unwrap();
    let va = VirtAddr(at(0).0 + 8);
    s.fault(va, Access::Write).unwrap();
    s.fault(at(9), Access::Read).unwrap();
    put(s, 8, 1);
    s.clean(pages(8, 1), false).unwrap();
    let expected = [
        "1 create start=0x100000 end=0x120000 outcome=ok",
        "1 map prot=rw- max=rwx sharing=private object=- offset=0x0 at=0x100000 bytes=0x2000 outcome=ok",
        "1 map prot=rw- max=rwx sharing=shared object=1 offset=0x0 at=0x108000 bytes=0x2000 outcome=ok",
        "1 fault at=0x100008 access=Write for=Trap object=2 outcome=ZeroFill",
        "- page-in object=1 offset=0x0 from=Pager pages=2 outcome=ok",
        "1 fault at=0x109000 access=Read for=Trap object=1 outcome=PagedIn",
        "1 fault at=0x108000 access=Write for=Touch object=1 outcome=Resident",
        "- page-out object=1 offset=0x0 to=Pager pages=1 outcome=ok",
        "1 clean start=0x108000 end=0x109000 outcome=ok",
    ];
    assert_eq!(kept.lines(), expected);
    while vm.pageout_step(100) > 0 {}
    let child = vm.space(s.fork().unwrap());
    child.fault(at(0), Access::Write).unwrap();
    child.release();
    s.release();
    let expected = [
        "- page-out object=2 offset=0x0 to=Swap pages=1 outcome=ok",
        "2 create start=0x100000 end=0x120000 outcome=ok",
        "1 fork child=2 outcome=ok",
        "- page-in object=2 offset=0x0 from=Swap pages=1 outcome=ok",
        "2 fault at=0x100000 access=Write for=Trap object=3 outcome=Copied",
        "2 end outcome=ok",
        "1 end outcome=ok",
    ];
    assert_eq!(kept.lines(), expected);
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn every_verb_is_told() {
    let (vm, kept) = traced();
    let s = space(&vm, 64);
    anon(s, 0, 8);
    anon(s, 50, 2);
    kept.lines();
    s.protect_max(pages(1, 1), Prot::RW).unwrap();
    s.protect(pages(1, 1), Prot::READ).unwrap();
    s.inherit(pages(2, 1), Inherit::Share).unwrap();
    s.discard(pages(3, 1)).unwrap();
    s.move_(pages(4, 1), PAGE, Placement::At(at(16))).unwrap();
    s.remove(pages(5, 1)).unwrap();
    s.stack(at(40), 8 * PAGE, PAGE, Prot::RW).unwrap();
    s.fault(at(38), Access::Write).unwrap();
    let sub = vm.submap_create(s.id(), pages(50, 2)).unwrap();
    s.submap(pages(50, 2), sub).unwrap();
    let expected = [
        "1 protect-max start=0x101000 end=0x102000 prot=rw- outcome=ok",
        "1 protect start=0x101000 end=0x102000 prot=r-- outcome=ok",
        "1 inherit start=0x102000 end=0x103000 inherit=Share outcome=ok",
        "1 discard start=0x103000 end=0x104000 outcome=ok",
        "1 move start=0x104000 end=0x105000 at=0x110000 bytes=0x1000 outcome=ok",
        "1 remove start=0x105000 end=0x106000 outcome=ok",
        "1 stack start=0x127000 end=0x128000 prot=rw- outcome=ok",
        "1 grow start=0x120000 end=0x127000 outcome=ok",
        "1 fault at=0x126000 access=Write for=Trap object=2 outcome=ZeroFill",
        "2 create start=0x132000 end=0x134000 outcome=ok",
        "1 submap start=0x132000 end=0x134000 map=2 outcome=ok",
    ];
    assert_eq!(kept.lines(), expected);
    s.wire(pages(0, 1)).unwrap();
    s.unwire(pages(0, 1)).unwrap();
    let lines = kept.lines();
    assert_eq!(
        lines[1..],
        [
            "1 wire start=0x100000 end=0x101000 by=User outcome=ok",
            "1 unwire start=0x100000 end=0x101000 by=User outcome=ok",
        ]
    );
    assert!(lines[0].contains(" for=Wire "), "{}", lines[0]);
    s.wire_kernel(pages(0, 1)).unwrap();
    s.unwire_kernel(pages(0, 1)).unwrap();
    s.wire_quick(pages(0, 1)).unwrap();
    s.unwire_kernel(pages(0, 1)).unwrap();
    s.advise(pages(0, 1), Advice::Behavior(Behavior::Random))
        .unwrap();
    s.advise(pages(0, 1), Advice::NoCore).unwrap();
    let lines = kept.lines();
    let expected = [
        "1 wire start=0x100000 end=0x101000 by=Kernel outcome=ok",
        "1 unwire start=0x100000 end=0x101000 by=Kernel outcome=ok",
        "1 wire start=0x100000 end=0x101000 by=Quick outcome=ok",
        "1 unwire start=0x100000 end=0x101000 by=Kernel outcome=ok",
        "1 advise start=0x100000 end=0x101000 advice=Random outcome=ok",
        "1 advise start=0x100000 end=0x101000 advice=NoCore outcome=ok",
    ];
    let changes = lines.iter().filter(|line| !line.contains(" fault "));
    assert_eq!(changes.collect::<Vec<_>>(), expected);
    vm.space(sub).release();
    s.release();
    assert_eq!(kept.lines(), ["2 end outcome=ok", "1 end outcome=ok"]);
    check_empty(&vm);
}

#[test]
fn failures_are_told_with_their_names() {
    let (vm, kept) = traced();
    let files = Files::leak();
    let file = vm.object_create(files.pager(1), PAGE).unwrap();
    let s = space(&vm, 32);
    anon(s, 0, 1);
    let shared = Mapping::object(file, 0, Sharing::Shared, Prot::READ);
    map_at(s, 8, 2, shared).unwrap();
    kept.lines();
    map_at(s, 0, 1, shared).unwrap_err();
    s.protect(pages(0, 40), Prot::READ).unwrap();
    s.wire(pages(1, 1)).unwrap_err();
    s.fault(at(4), Access::Read).unwrap_err();
    s.fault(at(8), Access::Write).unwrap_err();
    s.fault(at(9), Access::Read).unwrap_err();
    files.fail_get.store(true, Ordering::Relaxed);
    s.fault(at(8), Access::Read).unwrap_err();
    vm.set_charge_limit(0);
    s.fork().unwrap_err();
    let expected = [
        "1 map prot=r-- max=rwx sharing=shared object=1 offset=0x0 at=- bytes=0x1000 outcome=Overlap",
        "1 protect start=0x100000 end=0x128000 prot=r-- outcome=ok",
        "1 wire start=0x101000 end=0x102000 by=User outcome=Hole",
        "1 fault at=0x104000 access=Read for=Trap object=- outcome=InvalidAddress",
        "1 fault at=0x108000 access=Write for=Trap object=- outcome=Protection",
        "1 fault at=0x109000 access=Read for=Trap object=- outcome=BeyondEnd",
        "- page-in object=1 offset=0x0 from=Pager pages=0 outcome=Io(5)",
        "1 fault at=0x108000 access=Read for=Trap object=- outcome=Pager(Io(5))",
        "2 create start=0x100000 end=0x120000 outcome=ok",
        "2 end outcome=ok",
        "1 fork child=- outcome=ChargeLimit",
    ];
    assert_eq!(kept.lines(), expected);
    check(&vm);
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}
