//! A toy kernel: everything that a port of bsdvm has to do, and nothing else.
//!
//! `machine.rs` is the machine: the seam, implemented. Here is what a kernel does with it: make a
//! VM and spaces, answer traps, fork, page out, print what there is. `docs/porting.md` goes through
//! it step by step.

#![forbid(unsafe_code)]

mod machine;

use bsdvm::{
    Access, Config, FaultError, Fill, Find, KernelConfig, Kmem, KmemError, Malloc, MapError,
    Mapping, PageBytes, PagerError, Paging, Placement, Prot, Space, SpaceError, SubmapName,
    SwapDevice, VirtAddr, VirtRange, Vm, Wait,
};
use bsdvm_machine::conformance::{Probe, ProbeFault};
use machine::Toy;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Mutex;

/// What a program gets for a fault that cannot be resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Signal {
    /// There is nothing, or it may not be done.
    Segv,
    /// The contents cannot be had: past the end of a file, or a device that failed.
    Bus,
    /// There is no memory.
    Kill,
}

/// The trap handler: the program goes on where it was, or gets a signal.
fn trap(space: Space<'_, Toy>, va: VirtAddr, access: Access) -> Result<(), Signal> {
    match space.fault(va, access) {
        Ok(_) => Ok(()),
        Err(FaultError::InvalidAddress | FaultError::Protection) => Err(Signal::Segv),
        Err(FaultError::NoMemory) => Err(Signal::Kill),
        Err(_) => Err(Signal::Bus),
    }
}

/// Runs one access of a program: it traps until it works.
fn run<R>(
    space: Space<'_, Toy>,
    mut access: impl FnMut(&machine::ToyPmap) -> Result<R, ProbeFault>,
) -> Result<R, Signal> {
    loop {
        match space.with_pmap(&mut access).ok_or(Signal::Kill)? {
            Ok(done) => return Ok(done),
            Err(fault) => trap(space, fault.va, fault.access)?,
        }
    }
}

/// A program stores a byte.
fn store(vm: &Vm<Toy>, space: Space<'_, Toy>, va: VirtAddr, byte: u8) -> Result<(), Signal> {
    run(space, |pmap| vm.machine().store(pmap, va, byte))
}

/// A program loads a byte.
fn load(vm: &Vm<Toy>, space: Space<'_, Toy>, va: VirtAddr) -> Result<u8, Signal> {
    run(space, |pmap| vm.machine().load(pmap, va))
}

/// A disk to swap to.
#[derive(Default)]
struct Disk(Mutex<HashMap<u32, Vec<u8>>>);

impl SwapDevice for Disk {
    fn slots(&self) -> u32 {
        64
    }

    fn read(&self, slot: u32, page: &mut dyn PageBytes) -> Result<(), PagerError> {
        let disk = self.0.lock().map_err(|_| PagerError::Io(5))?;
        page.write(0, disk.get(&slot).ok_or(PagerError::Io(5))?);
        Ok(())
    }

    fn write(&self, slot: u32, page: &dyn PageBytes) -> Result<(), PagerError> {
        let mut bytes = vec![0; page.len()];
        page.read(0, &mut bytes);
        let mut disk = self.0.lock().map_err(|_| PagerError::Io(5))?;
        disk.insert(slot, bytes);
        Ok(())
    }
}

/// Why the kernel stopped.
#[derive(Debug)]
#[expect(dead_code, reason = "what is in it is printed")]
enum Stopped {
    /// There was no VM.
    Boot,
    Kmem(KmemError),
    Map(MapError),
    Space(SpaceError),
    Signal(Signal),
    /// A program saw something else than what it wrote.
    Contents,
    /// Something is left at the end, or an invariant does not hold.
    Left,
    Console,
}

impl From<KmemError> for Stopped {
    fn from(why: KmemError) -> Stopped {
        Stopped::Kmem(why)
    }
}

impl From<MapError> for Stopped {
    fn from(why: MapError) -> Stopped {
        Stopped::Map(why)
    }
}

impl From<SpaceError> for Stopped {
    fn from(why: SpaceError) -> Stopped {
        Stopped::Space(why)
    }
}

impl From<Signal> for Stopped {
    fn from(why: Signal) -> Stopped {
        Stopped::Signal(why)
    }
}

impl From<fmt::Error> for Stopped {
    fn from(_: fmt::Error) -> Stopped {
        Stopped::Console
    }
}

fn expect(holds: bool) -> Result<(), Stopped> {
    holds.then_some(()).ok_or(Stopped::Contents)
}

/// Boots, uses memory of its own, runs two programs, and ends with nothing left.
fn kernel(console: &mut dyn Write) -> Result<(), Stopped> {
    // The VM takes all of the machine's memory, and has a disk to swap to.
    let vm = Vm::new(Toy::new(128), Config::default()).map_err(|_| Stopped::Boot)?;
    vm.swap_on(Box::leak(Box::<Disk>::default()))
        .map_err(|_| Stopped::Boot)?;
    let kmem = vm.kmem_init(KernelConfig::of(vm.machine()))?;
    kernel_memory(&vm, kmem, console)?;
    programs(&vm, console)?;
    kmem.end();
    let counters = vm.counters();
    writeln!(console, "-- all has ended\n{counters}")?;
    let left = counters.spaces + counters.objects + counters.entries + counters.swap_used;
    if left > 0 || vm.frames_in_use() > 0 || vm.check().is_err() {
        return Err(Stopped::Left);
    }
    Ok(())
}

/// The kernel's own memory: wired pages that it touches without a fault, a submap, and items of
/// one size.
fn kernel_memory(
    vm: &Vm<Toy>,
    kmem: Kmem<'_, Toy>,
    console: &mut dyn Write,
) -> Result<(), Stopped> {
    let pages = kmem.map().alloc(2 * 4096)?;
    let kernel = kmem.map().space();
    let stored = kernel.with_pmap(|pmap| vm.machine().store(pmap, pages, 7));
    expect(stored == Some(Ok(())))?;
    let bytes = 64 * 4096;
    let name = SubmapName::Kmem;
    let map = kmem.suballoc_named(name, kmem.map(), bytes, Find::Any, Paging::Pageable)?;
    let zone = kmem.zone_create(64, 8)?;
    let item = zone.alloc(Malloc {
        wait: Wait::Ok,
        fill: Fill::Zeroed,
    })?;
    expect(map.space().range().contains(item))?;
    writeln!(console, "-- the kernel has memory\n{}", kernel.show())?;
    zone.free(item)?;
    zone.destroy()?;
    kmem.map().free(pages, 2 * 4096)?;
    Ok(())
}

/// Two programs, the second a fork of the first.
fn programs(vm: &Vm<Toy>, console: &mut dyn Write) -> Result<(), Stopped> {
    // A space, and memory in it wherever there is room.
    let range = VirtRange::new(VirtAddr(0x1_0000), VirtAddr(0x100_0000)).ok_or(Stopped::Boot)?;
    let parent = vm.space(vm.space_create(range)?);
    let place = Placement::FirstFit {
        from: range.start(),
        align: 4096,
    };
    let heap = parent.map(8 * 4096, place, Mapping::anonymous(Prot::RW))?;
    let page = |n: u64| VirtAddr(heap.0 + n * 4096);

    // It writes: each page traps once, and is zero-filled.
    for n in 0..4 {
        store(vm, parent, page(n), n as u8 + 1)?;
    }
    writeln!(
        console,
        "-- four pages were written\n{}",
        parent.show_space()
    )?;

    // It forks. Both see what was there; what one writes the other does not see.
    let child = vm.space(parent.fork()?);
    store(vm, child, page(0), 99)?;
    expect(load(vm, parent, page(0))? == 1 && load(vm, child, page(0))? == 99)?;
    expect(load(vm, child, page(3))? == 4)?;
    writeln!(console, "-- the child wrote one of them\n{}", child.show())?;

    // What it may not do is a signal, and nothing else.
    expect(store(vm, parent, VirtAddr(0xdead_0000), 0) == Err(Signal::Segv))?;
    let last = VirtRange::new(page(7), page(8)).ok_or(Stopped::Boot)?;
    parent.protect(last, Prot::READ)?;
    expect(store(vm, parent, page(7), 0) == Err(Signal::Segv))?;

    // Memory gets short: the pages go to the disk, and come back when they are used.
    while vm.pageout_step(128) > 0 {}
    expect(vm.counters().swap_used == 5)?;
    writeln!(console, "-- all pages went to swap\n{}", child.show())?;
    expect(load(vm, child, page(0))? == 99 && load(vm, parent, page(3))? == 4)?;
    child.release();
    parent.release();
    Ok(())
}

fn main() -> Result<(), Stopped> {
    let mut console = String::new();
    let done = kernel(&mut console);
    print!("{console}");
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use bsdvm_machine::Frame;
    use bsdvm_machine::conformance;

    #[test]
    fn the_machine_conforms() {
        let machine = Toy::new(conformance::FRAMES as u32);
        let mut next = 0..;
        conformance::run(&machine, &mut || Frame(next.next().unwrap_or_default()));
    }

    #[test]
    fn a_machine_fits_in_three_hundred_lines() {
        let lines = include_str!("machine.rs").lines().count();
        assert!(lines <= 300, "{lines}");
    }

    #[test]
    fn the_kernel_runs() {
        let mut console = String::new();
        kernel(&mut console).expect("the kernel ran to its end");
        assert!(
            console.contains("type=swap, size=0x8000, res=0"),
            "{console}"
        );
    }
}
