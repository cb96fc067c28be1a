//! What page-out leaves alone though it meets it on a queue.

use crate::map::{Mapping, Placement};
use crate::page::{Bits, Queue, busy_channel};
use crate::{Config, Vm};
use bsdvm_machine::{Access, Frame, Prot, VirtAddr, VirtRange};
use bsdvm_sim::{Sim, SimConfig};

const BASE: VirtAddr = VirtAddr(0x10_0000);

/// Whether page-out takes the one page of a VM, which `change` has made something.
fn taken(change: impl FnOnce(&Vm<Sim<12>>, Frame)) -> bool {
    let machine = Sim::new(SimConfig {
        frames: 1000,
        ..SimConfig::default()
    });
    let vm = Vm::new(machine, Config::default()).unwrap();
    let id = vm
        .space_create(VirtRange::from_len(BASE, 1 << 20).unwrap())
        .unwrap();
    let space = vm.space(id);
    space
        .map(4096, Placement::At(BASE), Mapping::anonymous(Prot::RW))
        .unwrap();
    // Read only, so that it is clean and needs no swap.
    space.fault(BASE, Access::Read).unwrap();
    let object = space.entry(BASE).unwrap().object.unwrap();
    let frame = vm.chain_page(object.0, 0).unwrap();
    space.drop_translations(VirtRange::from_len(BASE, 4096).unwrap());
    vm.frames.page(frame).clear(Bits::DIRTY | Bits::REFERENCED);
    change(&vm, frame);
    let freed = vm.pageout_step(10);
    core::mem::forget(vm);
    freed == 1
}

#[test]
fn o03_busy_and_wired_pages_stay() {
    assert!(taken(|_, _| ()));
    assert!(!taken(|vm, f| vm.frames.page(f).set(Bits::BUSY)));
    assert!(!taken(|vm, f| assert!(vm.frames.wire(f))));
}

#[test]
fn o03_each_frame_has_a_channel_of_its_own() {
    assert_ne!(busy_channel(Frame(1)), busy_channel(Frame(2)));
    assert_ne!(busy_channel(Frame(0)).0, 0);
}

#[test]
fn a_page_that_was_not_used_becomes_inactive() {
    let inactive = |used: Bits| {
        let mut count = 0;
        taken(|vm, f| {
            vm.frames.page(f).set(used);
            super::policy::next(vm);
            count = vm.queues.count(Queue::Inactive);
        });
        count
    };
    assert_eq!(inactive(Bits::empty()), 1);
    assert_eq!(inactive(Bits::REFERENCED), 0);
}
