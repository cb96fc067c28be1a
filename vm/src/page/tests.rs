use super::*;
use crate::{Config, FaultError, MapError, Mapping, Placement, Prot, Vm};
use bsdvm_machine::{FrameRun, Machine, VirtAddr, VirtRange};
use bsdvm_sim::{Sim, SimConfig};
use proptest::prelude::*;

extern crate std;
use std::collections::BTreeSet;
use std::vec::Vec;

pub(super) fn frames(count: u32) -> Frames<Sim> {
    let frames = Frames::new(Sim::new(SimConfig {
        frames: count,
        cpus: 3,
        ..SimConfig::default()
    }));
    assert!(frames.boot(count));
    frames
}

/// Frames that stay in a magazine at most when all are free.
const MAGAZINE: u64 = 64;

fn free_each(frames: &Frames<Sim>, run: FrameRun) {
    run.frames().for_each(|frame| frames.free(frame));
}

/// Takes every frame, and frees them in ascending order: the last ones stay in the magazine, the
/// others are to merge. Gives the order of the largest run that they make.
fn merged_order(frames: &Frames<Sim>) -> u32 {
    let mut all: Vec<u32> = core::iter::from_fn(|| frames.alloc(Class::Interrupt))
        .map(|frame| frame.0)
        .collect();
    all.sort_unstable();
    assert_eq!(all.len() as u64, frames.total(), "none is lost");
    assert!(all.is_sorted_by(|a, b| a < b), "none is there twice");
    all.iter().for_each(|&frame| frames.free(Frame(frame)));
    let (start, end) = (
        u64::from(all[0]),
        all.len() as u64 - MAGAZINE + u64::from(all[0]),
    );
    let fits = |order: &u32| start.next_multiple_of(1 << order) + (1 << order) <= end;
    (0..10).rev().find(fits).unwrap_or(0)
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Alloc(usize),
    Run(u32),
    Free(usize),
    Cpu(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3usize).prop_map(Op::Alloc),
        1 => (0..8u32).prop_map(Op::Run),
        6 => any::<usize>().prop_map(Op::Free),
        1 => (0..3usize).prop_map(Op::Cpu),
    ]
}

fn run(count: u32, ops: &[Op]) {
    let frames = frames(count);
    let total = frames.free_count();
    let mut out: Vec<FrameRun> = Vec::new();
    let mut taken = BTreeSet::new();
    for op in ops {
        let free = frames.free_count();
        match *op {
            Op::Alloc(class) => {
                let class = [Class::Normal, Class::System, Class::Interrupt][class];
                if let Some(frame) = frames.alloc(class) {
                    out.push(FrameRun::one(frame));
                    assert!(taken.insert(frame.0), "{frame:?} was handed out twice");
                } else {
                    let reserve = (total / 64).min(64);
                    assert!(free <= reserve, "refused with {free} free");
                }
            }
            Op::Run(order) => {
                if let Some(run) = frames.alloc_run(order) {
                    assert_eq!((run.count, run.first.0 % run.count), (1 << order, 0));
                    assert!(run.frames().all(|f| taken.insert(f.0)), "{run:?} twice");
                    out.push(run);
                }
            }
            Op::Free(which) => {
                if !out.is_empty() {
                    let run = out.swap_remove(which % out.len());
                    run.frames().for_each(|f| assert!(taken.remove(&f.0)));
                    free_each(&frames, run);
                }
            }
            Op::Cpu(cpu) => frames.machine().set_cpu(cpu),
        }
        assert_eq!(frames.free_count(), total - taken.len() as u64);
        assert_eq!(frames.recount(), frames.free_count());
    }
    for run in out {
        free_each(&frames, run);
    }
    frames.machine().set_cpu(0);
    assert_eq!((frames.free_count(), frames.recount()), (total, total));
    let order = merged_order(&frames);
    if total > (1 << order) + total / 64 {
        let run = frames
            .alloc_run(order)
            .map(|run| (run.count, run.first.0 % run.count));
        assert_eq!(run, Some((1 << order, 0)), "free frames merge again");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 200 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn o04_frames_are_handed_out_once_and_come_back(
        count in 100..700u32,
        ops in prop::collection::vec(op(), 1..400),
    ) {
        run(count, &ops);
    }
}

#[test]
fn o03_each_class_leaves_the_reserve_of_the_one_below() {
    let frames = frames(2000);
    let total = frames.total();
    let reserve = total / 64;
    let mut left = Vec::new();
    for class in [Class::Normal, Class::System, Class::Interrupt] {
        while frames.alloc(class).is_some() {}
        left.push(frames.free_count());
    }
    assert_eq!(left, [reserve.min(64), reserve.min(16), 0]);
}

#[test]
fn o04_a_frame_is_found_in_the_magazine_of_another_processor() {
    let frames = frames(64);
    frames.machine().set_cpu(1);
    let mut all = Vec::new();
    while let Some(frame) = frames.alloc(Class::Interrupt) {
        all.push(frame);
    }
    let count = all.len() as u64;
    assert_eq!(count, frames.total());
    all.into_iter().for_each(|frame| frames.free(frame));
    frames.machine().set_cpu(0);
    assert_eq!(
        (0..).map_while(|_| frames.alloc(Class::Interrupt)).count() as u64,
        count
    );
}

/// The wire count of a page is full: one wiring more is refused, and undone.
#[test]
fn o03_a_wire_count_does_not_overflow() {
    let machine = Sim::<12>::new(SimConfig::default());
    let vm = Vm::new(machine, Config::default()).unwrap();
    let range = VirtRange::new(VirtAddr(0x10_0000), VirtAddr(0x20_0000)).unwrap();
    let space = vm.space(vm.space_create(range).unwrap());
    let object = vm
        .object_create_anonymous(2 * Sim::<12>::PAGE.bytes())
        .unwrap();
    vm.object(object).write(4096, &[1]).unwrap();
    let what = Mapping::object(object, 0, crate::Sharing::Shared, Prot::RW);
    space
        .map(2 * 4096, Placement::At(range.start()), what)
        .unwrap();
    let frame = vm.chain_page(object.0, 1).unwrap();
    let page = vm.frames.page(frame);
    let most = (1 << (32 - WIRE_SHIFT)) - 1;
    let both = VirtRange::from_len(range.start(), 2 * 4096).unwrap();
    // As if that many other ranges had wired it, but for one.
    vm.queues.take(&vm.frames, frame);
    (1..most).for_each(|_| assert!(vm.frames.wire(frame)));
    assert_eq!(space.wire(both), Ok(()));
    assert_eq!(page.wired(), most);
    let other = vm.space(vm.space_create(range).unwrap());
    other
        .map(2 * 4096, Placement::At(range.start()), what)
        .unwrap();
    assert_eq!(other.wire(both), Err(MapError::NoMemory));
    assert_eq!(page.wired(), most);
    assert_eq!(other.entry(range.start()).unwrap().wired, 0);
    let first = vm.chain_page(object.0, 0).unwrap();
    assert_eq!(
        vm.frames.page(first).wired(),
        1,
        "what came before is undone"
    );
    let flags = page.bits();
    assert!(
        !flags.intersects(Bits::BUSY),
        "the count does not run into the flags"
    );
    vm.check().unwrap();
    space.unwire(both).unwrap();
    assert_eq!(page.wired(), most - 1);
    assert_eq!(other.wire(both), Ok(()));
    assert_eq!(page.wired(), most);
    let read = other.fault(range.start(), bsdvm_machine::Access::Read);
    assert!(!matches!(read, Err(FaultError::NoMemory)));
    (1..most).for_each(|_| assert!(!vm.frames.unwire(frame, 0)));
    other.unwire(both).unwrap();
    vm.check().unwrap();
    for space in [space, other] {
        space.release();
    }
    vm.object(object).release();
    vm.check().unwrap();
    assert_eq!(vm.frames_in_use(), 0);
}
