//! Each invariant is broken on purpose, and `check` says which.

extern crate std;

use crate::map::{Flags, Mapping, Placement};
use crate::object::Kind;
use crate::object::radix::Slot;
use crate::page::{Bits, Queue, rmap};
use crate::{Config, Space, Vm};
use bsdvm_machine::sync::atomic::Ordering;
use bsdvm_machine::{Access, Frame, FrameRun, MemoryAttr, Pmap, Prot, VirtAddr, VirtRange};
use bsdvm_sim::{Sim, SimConfig};

type TestVm = Vm<Sim<12>>;
const BASE: u64 = 0x10_0000;

/// A VM with one space: four pages mapped at [`BASE`], touched and entered, and four more.
fn scene() -> (TestVm, crate::SpaceId) {
    let machine = Sim::new(SimConfig {
        frames: 1000,
        ..SimConfig::default()
    });
    let vm = Vm::new(machine, Config::default()).unwrap();
    let range = VirtRange::from_len(VirtAddr(BASE), 64 << 12).unwrap();
    let id = vm.space_create(range).unwrap();
    let space = vm.space(id);
    let what = Mapping::anonymous(Prot::RW);
    for at in [BASE, BASE + (8 << 12)] {
        space
            .map(4 << 12, Placement::At(VirtAddr(at)), what)
            .unwrap();
    }
    for page in 0..4 {
        space
            .fault(VirtAddr(BASE + (page << 12)), Access::Write)
            .unwrap();
    }
    assert_eq!(vm.check(), Ok(()));
    (vm, id)
}

/// Changes the first entry.
fn entry(space: Space<'_, Sim<12>>, change: impl FnOnce(&mut crate::map::Entry)) {
    let mut map = space.rec().map.write();
    let handle = map.find(space.vm, VirtAddr(BASE)).unwrap();
    change(map.get_mut(space.vm, handle));
}

/// The first entry's object and the frame of its first page.
fn page(space: Space<'_, Sim<12>>) -> (crate::object::ObjectHandle, Frame) {
    let map = space.rec().map.read();
    let handle = map.find(space.vm, VirtAddr(BASE)).unwrap();
    let object = map.get(space.vm, handle).object.unwrap();
    (object, space.vm.chain_page(object, 0).unwrap())
}

/// Breaks something and asserts what `check` says of it. The world is not used any more then.
#[track_caller]
fn broken(what: &str, breaking: impl FnOnce(&TestVm, Space<'_, Sim<12>>)) {
    let (vm, id) = scene();
    breaking(&vm, vm.space(id));
    assert_eq!(vm.check().map_err(|e| e.0), Err(what));
    // Its parts do not agree: ending it would say so again.
    std::mem::forget(vm);
}

#[test]
fn entries_are_checked() {
    broken("entry: the tree has another range", |_, s| {
        entry(s, |e| e.end = VirtAddr(BASE + (2 << 12)));
    });
    broken("entry: the link to the one below is wrong", |vm, s| {
        let mut map = s.rec().map.write();
        let handle = map.find(vm, VirtAddr(BASE + (8 << 12))).unwrap();
        map.get_mut(vm, handle).prev = None;
    });
    broken("entry: more allowed than the maximum", |_, s| {
        entry(s, |e| e.max_prot = Prot::READ);
    });
    for flag in [Flags::IN_TRANSITION, Flags::WIRING, Flags::NEEDS_WAKEUP] {
        broken("entry: a transition never ended", |_, s| {
            entry(s, |e| e.flags |= flag);
        });
    }
    broken("entry: the user's wiring is not counted", |_, s| {
        entry(s, |e| e.flags |= Flags::USER_WIRED);
    });
    broken("entry: part of it is charged", |_, s| {
        entry(s, |e| e.charge = 1);
    });
    broken("entry: its object has ended", |vm, s| {
        let object = page(s).0;
        vm.object_rec(object).refs.store(0, Ordering::Relaxed);
    });
    broken("entry: outside of the map", |_, s| {
        let mut map = s.rec().map.write();
        map.range = VirtRange::from_len(VirtAddr(BASE), 9 << 12).unwrap();
    });
}

#[test]
fn maps_are_checked() {
    broken("map: the size differs", |_, s| {
        s.rec().map.write().bytes += 1;
    });
    broken("map: a fork never ended", |_, s| {
        s.rec().map.write().frozen = true;
    });
    broken("entries: a record belongs to no map", |vm, _| {
        let mut owner = vm.entries.owner();
        let vacant = crate::map::Entry::VACANT;
        let mut from = vm.entries.reserve(&vm.frames, 1, vacant).unwrap();
        vm.entries.alloc(&mut from, &mut owner, vacant);
    });
}

#[test]
fn sums_are_checked() {
    broken("charge: the sum differs", |vm, _| vm.charge.force(1));
    broken("objects: a record is lost", |vm, _| {
        let mut from = vm.reserve_objects(1).unwrap();
        vm.objects.alloc(&mut from);
    });
    broken("frames: the free count differs", |vm, _| {
        vm.frames.miscount();
    });
    broken("frames: the number of wired ones differs", |vm, _| {
        vm.frames.miscount_wired();
    });
    broken("object: the page counts differ", |vm, s| {
        vm.lock_object(page(s).0).pages.resident += 1;
    });
    broken("object: ended with references", |vm, s| {
        vm.lock_object(page(s).0).kind = Kind::Dead;
    });
    broken("object: too few shadows", |vm, s| {
        vm.lock_object(page(s).0).shadow_count += 1;
    });
    broken("object: too many shadows", |vm, s| {
        let mut from = vm.reserve_objects(1).unwrap();
        let (object, _) = page(s);
        let other = vm.new_anonymous(&mut from, 1, 0);
        vm.lock_object(object).shadows = Some(other);
    });
}

#[test]
fn pages_are_checked() {
    broken("page: busy for ever", |vm, s| {
        vm.frames.page(page(s).1).set(Bits::BUSY);
        s.drop_translations(vm.machine_range());
    });
    broken("page: another identity than its place", |vm, s| {
        let (object, frame) = page(s);
        s.drop_translations(vm.machine_range());
        vm.frames.page(frame).set_identity(object, 9);
    });
    broken("page: on a queue though wired, or on none", |vm, s| {
        vm.queues.take(&vm.frames, page(s).1);
    });
    broken("page: on a queue though wired, or on none", |vm, s| {
        assert!(vm.frames.wire(page(s).1));
    });
    broken("page: its object does not have it", |vm, s| {
        let frame = vm.frames.alloc(crate::page::Class::Normal).unwrap();
        vm.frames.page(frame).set_identity(page(s).0, 20);
        vm.queues.put(&vm.frames, frame, Queue::Active);
    });
    broken("page: mapped by a wired entry and not wired", |_, s| {
        entry(s, |e| e.wired = 1);
    });
}

#[test]
fn translations_are_checked() {
    let mapping = |s: Space<'_, Sim<12>>, page: u64| rmap::Mapping {
        space: s.handle,
        va: VirtAddr(BASE + (page << 12)),
    };
    broken("rmap: a translation is not recorded", |vm, s| {
        let frame = page(s).1;
        assert!(vm.rmap.delete(frame, vm.frames.page(frame), mapping(s, 0)));
    });
    broken("rmap: a mapping without a translation", |vm, s| {
        let frame = page(s).1;
        let mut from = vm
            .rmap
            .chunks
            .reserve(&vm.frames, 1, rmap::Chunk::vacant)
            .unwrap();
        vm.rmap
            .add(frame, vm.frames.page(frame), mapping(s, 9), &mut from);
    });
    broken("pmap: a page that has to be copied is writable", |_, s| {
        entry(s, |e| e.flags |= Flags::NEEDS_COPY);
    });
    broken("pmap: more allowed than the entry does", |_, s| {
        entry(s, |e| e.prot = Prot::READ);
    });
    broken(
        "pmap: a translation shows another page than the chain",
        |vm, s| {
            let (object, frame) = page(s);
            let mut state = vm.lock_object(object);
            let other = state.pages.get(&vm.page_nodes, 1).unwrap();
            state.pages.replace(&vm.page_nodes, 0, other);
            assert_ne!(other, Slot::Resident(frame));
        },
    );
    for (page, what) in [
        (6, "pmap: a translation without an entry"),
        (8, "pmap: a translation without an object"),
    ] {
        broken(what, |vm, s| {
            let frame = vm.frames.alloc(crate::page::Class::Normal).unwrap();
            s.with_pmap(|pmap| {
                let _ = pmap
                    .enter(
                        VirtAddr(BASE + (page << 12)),
                        FrameRun::one(frame),
                        Prot::READ,
                        MemoryAttr::WriteBack,
                        bsdvm_machine::Kind::Managed,
                        &mut |_| (),
                    )
                    .unwrap();
            });
        });
    }
}

/// A translation that was entered by hand is the caller's business.
#[test]
fn manual_translations_are_left_alone() {
    let (vm, id) = scene();
    let frame = vm.frames.alloc(crate::page::Class::Normal).unwrap();
    let at = VirtAddr(BASE + (20 << 12));
    vm.space(id).with_pmap(|pmap| {
        let _ = pmap
            .enter(
                at,
                FrameRun::one(frame),
                Prot::READ,
                MemoryAttr::WriteBack,
                bsdvm_machine::Kind::Manual,
                &mut |_| (),
            )
            .unwrap();
    });
    assert_eq!(vm.check(), Ok(()));
    vm.space(id)
        .drop_translations(VirtRange::from_len(at, 4096).unwrap());
    vm.frames.free(frame);
    vm.space(id).release();
    assert_eq!(vm.frames_in_use(), 0);
}

#[test]
fn swap_slots_are_checked() {
    struct Device;
    impl crate::SwapDevice for Device {
        fn slots(&self) -> u32 {
            8
        }
        fn read(&self, _: u32, _: &mut dyn crate::PageBytes) -> Result<(), crate::PagerError> {
            Ok(())
        }
        fn write(&self, _: u32, _: &dyn crate::PageBytes) -> Result<(), crate::PagerError> {
            Ok(())
        }
    }
    broken("swap: a slot is lost", |vm, _| {
        vm.swap_on(&Device).unwrap();
        assert_eq!(vm.check(), Ok(()));
        vm.swap.alloc(&vm.frames, 1).unwrap();
    });
    broken("swap: the number of slots kept differs", |vm, s| {
        vm.swap_on(&Device).unwrap();
        let run = vm.swap.alloc(&vm.frames, 1).unwrap();
        let page = vm.frames.page(page(s).1);
        vm.keep_slot(page, run.first);
        assert_eq!(vm.check(), Ok(()));
        page.set_swap_slot(None);
    });
}

impl TestVm {
    fn machine_range(&self) -> VirtRange {
        use bsdvm_machine::Machine;
        self.machine().user_range()
    }
}
