//! What each operation of the core costs: locks, records and frames as counts, and time, on real
//! x86-64 page tables in plain memory.

use bsdvm::bench::records;
use bsdvm::{
    Access, Config, Machine, Mapping, Placement, Prot, Space, SpaceId, VirtAddr, VirtRange, Vm,
};
use bsdvm_benches::counted::{Counted, Counts};
use bsdvm_benches::rounds::{ROUNDS, Stat};
use bsdvm_benches::table;
use bsdvm_x86_64::PlainMachine;
use std::time::Instant;

const PAGE: u64 = 4096;
const BASE: VirtAddr = VirtAddr(0x1000_0000);
/// Pages of the large mapping.
const PAGES: u64 = 4096;
/// Operations where each is one.
const TIMES: u64 = 2000;
const FRAMES: u32 = 40_000;

/// What one phase of one round cost, for each operation.
#[derive(Clone, Default)]
struct Phase {
    name: &'static str,
    times: Vec<f64>,
    locks: f64,
    zeroed: f64,
    copied: f64,
    records: [f64; 4],
}

/// The phases in order, over all rounds.
#[derive(Default)]
struct Phases {
    all: Vec<Phase>,
    next: usize,
}

impl Phases {
    fn phase<M: Machine>(
        &mut self,
        name: &'static str,
        operations: u64,
        vm: &Vm<M>,
        counts: &dyn Fn(&M) -> Counts,
        body: impl FnOnce(),
    ) {
        let (before, records_before) = (counts(vm.machine()), records(vm));
        let start = Instant::now();
        body();
        let ns = start.elapsed().as_nanos() as f64;
        let (after, records_after) = (counts(vm.machine()), records(vm));
        if self.all.len() == self.next {
            self.all.push(Phase {
                name,
                ..Phase::default()
            });
        }
        let phase = &mut self.all[self.next];
        self.next += 1;
        let each = |n: f64| n / operations as f64 + 0.0;
        phase.times.push(each(ns));
        phase.locks = each((after.locks - before.locks) as f64);
        phase.zeroed = each((after.zeroed - before.zeroed) as f64);
        phase.copied = each((after.copied - before.copied) as f64);
        phase.records = std::array::from_fn(|i| {
            each(f64::from(records_after[i]) - f64::from(records_before[i]))
        });
    }
}

fn at(page: u64) -> VirtAddr {
    VirtAddr(BASE.0 + page * PAGE)
}

fn range(page: u64, pages: u64) -> VirtRange {
    VirtRange::from_len(at(page), pages * PAGE).expect("a range")
}

fn anonymous<M: Machine>(space: Space<'_, M>, page: u64, pages: u64) {
    let place = Placement::At(at(page));
    let mapping = Mapping::anonymous(Prot::RW);
    space.map(pages * PAGE, place, mapping).expect("room");
}

fn fault_all<M: Machine>(space: Space<'_, M>, access: Access) {
    for page in 0..PAGES {
        space.fault(at(page), access).expect("a page");
    }
}

/// Does every phase once.
fn round<M: Machine>(vm: &Vm<M>, phases: &mut Phases, counts: &dyn Fn(&M) -> Counts) {
    phases.next = 0;
    let new_space = || -> SpaceId { vm.space_create(range(0, 1 << 20)).expect("a space") };
    let space = vm.space(new_space());
    let mut run = |name, operations, body: &mut dyn FnMut()| {
        phases.phase(name, operations, vm, counts, body);
    };
    anonymous(space, 0, PAGES);
    run("demand-zero fault, a page", PAGES, &mut || {
        fault_all(space, Access::Write);
    });
    space.drop_translations(range(0, PAGES));
    run("fault on a page in memory", PAGES, &mut || {
        fault_all(space, Access::Write);
    });
    let mut child = None;
    run("fork, each of 4096 pages", PAGES, &mut || {
        child = space.fork().ok();
    });
    let child = vm.space(child.expect("a child"));
    run("copy-on-write fault, a page", PAGES, &mut || {
        fault_all(child, Access::Write);
    });
    run("exit, each of 4096 pages", PAGES, &mut || child.release());
    run("write fault of the sole owner, a page", PAGES, &mut || {
        fault_all(space, Access::Write);
    });
    run("unmap, each of 4096 pages", PAGES, &mut || {
        space.remove(range(0, PAGES)).expect("unmapped");
    });
    run("map + unmap a page", TIMES, &mut || {
        for _ in 0..TIMES {
            anonymous(space, 0, 1);
            space.remove(range(0, 1)).expect("unmapped");
        }
    });
    run("map + fault + unmap a page", TIMES, &mut || {
        for _ in 0..TIMES {
            anonymous(space, 0, 1);
            space.fault(at(0), Access::Write).expect("a page");
            space.remove(range(0, 1)).expect("unmapped");
        }
    });
    anonymous(space, 0, 3);
    run("protect the middle page and back", TIMES, &mut || {
        for _ in 0..TIMES {
            space.protect(range(1, 1), Prot::READ).expect("protected");
            space.protect(range(1, 1), Prot::RW).expect("protected");
        }
    });
    space.remove(range(0, 3)).expect("unmapped");
    run("fork + exit, nothing mapped", TIMES, &mut || {
        for _ in 0..TIMES {
            vm.space(space.fork().expect("a child")).release();
        }
    });
    run("map a page, each of 2000 apart", TIMES, &mut || {
        (0..TIMES).for_each(|i| anonymous(space, 2 * i, 1));
    });
    run("unmap a page, each of 2000 apart", TIMES, &mut || {
        for i in 0..TIMES {
            space.remove(range(2 * i, 1)).expect("unmapped");
        }
    });
    space.release();
}

fn main() {
    let timed = Vm::new(PlainMachine::new(FRAMES, 1), Config::default()).expect("memory");
    let machine = Counted::new(PlainMachine::new(FRAMES, 1));
    let counted = Vm::new(machine, Config::default()).expect("memory");
    let (mut times, mut counts) = (Phases::default(), Phases::default());
    for i in 0..=ROUNDS {
        round(&timed, &mut times, &|_| Counts::default());
        round(&counted, &mut counts, &Counted::counts);
        if i == 0 {
            times = Phases::default();
        }
    }
    table::head(
        "Operations of the core",
        &[
            "operation",
            "locks",
            "frames cleared",
            "frames copied",
            "records kept: entries, tree nodes, index nodes, objects",
            "ns, tables in plain memory",
        ],
    );
    for (time, count) in times.all.iter().zip(&counts.all) {
        let short = |n: f64| {
            let text = format!("{:.2}", (n * 100.0).round() / 100.0 + 0.0);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        table::row(&[
            time.name.to_owned(),
            short(count.locks),
            short(count.zeroed),
            short(count.copied),
            count.records.map(short).join(", "),
            table::stat(Stat::of(&time.times)),
        ]);
    }
    table::head("Sizes of records", &["record", "bytes"]);
    for (name, bytes) in bsdvm::bench::SIZES {
        table::row(&[name.to_owned(), bytes.to_string()]);
    }
}
