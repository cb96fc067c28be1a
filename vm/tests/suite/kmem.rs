//! The kernel's own memory, row by row (K01–K18, E03, O10): behaviour, failing path, state after
//! failure.

#[path = "kmem/maps.rs"]
mod maps;
#[path = "kmem/pages.rs"]
mod pages;
#[path = "kmem/waits.rs"]
mod waits;
#[path = "kmem/zones.rs"]
mod zones;

use crate::common::{PAGE, TestVm, check};
use bsdvm::{
    Config, Fill, Find, KernelConfig, KernelMap, Kmem, Machine, Malloc, Paging, SubmapName,
    VirtAddr, VirtRange, Vm, Wait,
};
use bsdvm_sim::{Sim, SimConfig};

/// Where the kernel's addresses begin here.
const LOW: u64 = 0xffff_8000_0000_0000;

const WAIT: Malloc = Malloc {
    wait: Wait::Ok,
    fill: Fill::Zeroed,
};
const NOWAIT: Malloc = Malloc {
    wait: Wait::No,
    fill: Fill::Zeroed,
};

/// A machine of `frames` frames with `kernel` pages of kernel addresses.
fn vm_with_kernel(frames: u32, kernel: u64) -> TestVm {
    let range = VirtRange::from_len(VirtAddr(LOW), kernel * PAGE).unwrap();
    let machine = Sim::new(SimConfig {
        frames,
        cpus: 2,
        kernel: range,
        ..SimConfig::default()
    });
    Vm::new(machine, Config::default()).expect("enough frames")
}

/// A kernel map without a zero region, nothing in use.
fn kernel(vm: &TestVm) -> Kmem<'_, Sim<12>> {
    let config = KernelConfig {
        zero_region: 0,
        ..KernelConfig::of(vm.machine())
    };
    vm.kmem_init(config).expect("a kernel map")
}

/// The submap of `malloc`, of `pages` pages.
fn malloc_map<'v>(kmem: Kmem<'v, Sim<12>>, pages: u64) -> KernelMap<'v, Sim<12>> {
    named(kmem, SubmapName::Kmem, pages)
}

fn named<'v>(kmem: Kmem<'v, Sim<12>>, name: SubmapName, pages: u64) -> KernelMap<'v, Sim<12>> {
    kmem.suballoc_named(name, kmem.map(), pages * PAGE, Find::Any, Paging::Pageable)
        .expect("a submap")
}

fn at(page: u64) -> VirtAddr {
    VirtAddr(LOW + page * PAGE)
}

fn range(first: u64, count: u64) -> VirtRange {
    VirtRange::from_len(at(first), count * PAGE).unwrap()
}

/// Reads what the kernel sees at `va`, by its own translation: no fault is taken.
fn load(vm: &TestVm, va: VirtAddr) -> Option<u64> {
    let mut bytes = [0; 8];
    let kmem = vm.kmem().expect("a kernel");
    let seen = kmem
        .map()
        .space()
        .with_pmap(|pmap| vm.machine().load(pmap, 0, va, &mut bytes));
    seen.expect("a pmap")
        .is_ok()
        .then(|| u64::from_le_bytes(bytes))
}

/// Writes by the kernel's own translation. False when there is none that allows it.
fn store(vm: &TestVm, va: VirtAddr, value: u64) -> bool {
    let kmem = vm.kmem().expect("a kernel");
    let stored = kmem
        .map()
        .space()
        .with_pmap(|pmap| vm.machine().store(pmap, 0, va, &value.to_le_bytes()));
    stored.expect("a pmap").is_ok()
}

/// Draws the first `count` pages of a map: `.` nothing, else one letter for each entry in turn.
fn draw(map: KernelMap<'_, Sim<12>>, count: u64) -> String {
    let start = map.space().range().start();
    let mut last = None;
    let mut letter = b'A' - 1;
    (0..count)
        .map(|page| {
            let va = VirtAddr(start.0 + page * PAGE);
            let entry = map.space().entry(va).filter(|i| i.range.contains(va));
            let found = entry.map(|i| i.range.start());
            if found.is_some() && found != last {
                letter += 1;
            }
            last = found;
            found.map_or('.', |_| char::from(letter))
        })
        .collect()
}

/// Ends the kernel's memory; everything is back.
#[track_caller]
fn end(vm: &TestVm) {
    check(vm);
    vm.kmem().expect("a kernel").end();
    crate::common::check_empty(vm);
}

/// Takes every frame that programs may have.
fn fill_memory(vm: &TestVm) -> bsdvm::SpaceId {
    let user = vm.space_create(crate::common::pages(0, 1 << 20)).unwrap();
    let space = vm.space(user);
    crate::common::anon(space, 0, 1 << 20);
    let mut page = 0;
    while space
        .fault(crate::common::at(page), bsdvm::Access::Write)
        .is_ok()
    {
        page += 1;
    }
    user
}

fn machine_page() -> u64 {
    <Sim<12> as Machine>::PAGE.bytes()
}
