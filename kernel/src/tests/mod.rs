//! What the kernel checks about itself when it is started with `test` on its command line: the
//! machine, the core on this machine's page tables, and programs' threads.
//!
//! Each test is a function that panics when it fails. Tests run in order and say so on the serial
//! port; a failure ends the kernel.

mod core;
pub(crate) mod ends;
mod guests;
#[path = "heap.rs"]
mod heap_tests;
mod kernel;
mod swap;
mod waiting;

use crate::exit::{End, exit};
use crate::heap;
use crate::machine::Bare;
use crate::serial::say;
use bsdvm::{
    Access, FaultError, Frame, Mapping, Memory, Placement, Prot, Space, VirtAddr, VirtRange, Vm,
};
use bsdvm_machine::conformance::{self, Probe};

/// A test: its name, and what panics when it fails.
type Test = (&'static str, fn());

const TESTS: [Test; 20] = [
    ("conformance", conform),
    ("core::zero_fill", core::zero_fill),
    ("core::fork_copies_on_write", core::fork_copies_on_write),
    ("core::removed_is_gone", core::removed_is_gone),
    (
        "core::many_removed_pages_are_gone",
        core::many_removed_pages_are_gone,
    ),
    ("core::protection_holds", core::protection_holds),
    ("core::translations_come_back", core::translations_come_back),
    (
        "core::all_memory_is_reachable",
        core::all_memory_is_reachable,
    ),
    (
        "kernel::wired_memory_is_seen_in_every_space",
        kernel::wired_memory_is_seen_in_every_space,
    ),
    (
        "swap::pages_go_out_and_come_back",
        swap::pages_go_out_and_come_back,
    ),
    (
        "heap::the_core_allocates_nothing",
        heap_tests::the_core_allocates_nothing,
    ),
    (
        "heap::grows_and_gives_back",
        heap_tests::grows_and_gives_back,
    ),
    ("heap::a_full_heap_says_no", heap_tests::a_full_heap_says_no),
    ("waiting::turns_are_taken", waiting::turns_are_taken),
    (
        "waiting::deadlines_end_sleeps",
        waiting::deadlines_end_sleeps,
    ),
    ("guests::a_call_comes_through", guests::a_call_comes_through),
    ("guests::faults_are_told", guests::faults_are_told),
    ("guests::exceptions_are_told", guests::exceptions_are_told),
    (
        "guests::a_loop_is_interrupted",
        guests::a_loop_is_interrupted,
    ),
    (
        "guests::vector_registers_are_kept",
        guests::vector_registers_are_kept,
    ),
];

/// Runs every test.
pub(crate) fn run() -> ! {
    for (name, test) in TESTS {
        say!("test {name}");
        test();
    }
    say!("{} tests passed", TESTS.len());
    exit(End::Good)
}

/// What every machine must pass. The frames are the last ones.
fn conform() {
    let mut next = Bare.frames();
    conformance::run(&Bare, &mut || {
        next -= 1;
        Frame(next)
    });
}

/// The space of a test.
const RANGE: VirtRange = match VirtRange::new(VirtAddr(0x10_0000), VirtAddr(0x7000_0000_0000)) {
    Some(range) => range,
    None => panic!("a range that runs backwards"),
};

/// The kernel's VM, which has little memory in tests.
fn small_vm() -> &'static Vm<Bare> {
    heap::vm()
}

/// Frames of the machine that the VM does not have: from the first to the end.
fn spare_frames() -> ::core::ops::Range<u32> {
    crate::run::frames(b"")..Bare.frames()
}

/// An empty space.
fn space(vm: &'static Vm<Bare>) -> Space<'static, Bare> {
    match vm.space_create(RANGE) {
        Ok(id) => vm.space(id),
        Err(e) => panic!("no space: {e:?}"),
    }
}

/// Maps anonymous memory.
fn map(space: Space<'_, Bare>, bytes: u64, prot: Prot) -> VirtAddr {
    let place = Placement::FirstFit {
        from: RANGE.start(),
        align: 4096,
    };
    match space.map(bytes, place, Mapping::anonymous(prot)) {
        Ok(at) => at,
        Err(e) => panic!("nothing is mapped: {e:?}"),
    }
}

/// Makes an access as a program does: tries, has the fault resolved, tries again.
fn access(
    space: Space<'_, Bare>,
    va: VirtAddr,
    access: Access,
    attempt: impl Fn(&<Bare as bsdvm::Machine>::Pmap) -> Option<u8>,
) -> Result<u8, FaultError> {
    for _ in 0..8 {
        if let Some(Some(byte)) = space.with_pmap(&attempt) {
            return Ok(byte);
        }
        space.fault(va, access)?;
    }
    panic!("{access:?} of {va:?} faults again and again");
}

/// Loads a byte as a program does.
fn load(space: Space<'_, Bare>, va: VirtAddr) -> Result<u8, FaultError> {
    access(space, va, Access::Read, |pmap| Bare.load(pmap, va).ok())
}

/// Stores a byte as a program does.
fn store(space: Space<'_, Bare>, va: VirtAddr, byte: u8) -> Result<(), FaultError> {
    let store = |pmap: &_| Bare.store(pmap, va, byte).ok().map(|()| 0);
    access(space, va, Access::Write, store).map(drop)
}

/// The address `pages` pages above `va`.
fn page(va: VirtAddr, pages: u64) -> VirtAddr {
    VirtAddr(va.0 + pages * 4096)
}

/// Every invariant of the VM holds.
fn check(vm: &Vm<Bare>) {
    if let Err(e) = vm.check() {
        panic!("the VM is broken: {e:?}");
    }
}
