//! Page tables against an ordered map, by random operations.

use bsdvm_machine::conformance::Probe;
use bsdvm_machine::*;
use bsdvm_x86_64::{Flushes, Hardware, PlainMachine, X86Pmap};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Frames to map lie below, frames for tables above.
const DATA: u32 = 16;
const TABLES: u32 = 64;

/// Page numbers where operations begin: beside the edges of tables of each level.
const BASES: [u64; 6] = [1, 510, 513, (1 << 18) - 2, (1 << 27) - 2, (1 << 35) - 10];

#[derive(Clone, Debug)]
enum Op {
    Enter(u64, FrameRun, Prot, Kind),
    Remove(u64, u64),
    Protect(u64, u64, Prot),
    TakeUsage(u64, Usage),
    Load(u64),
    Store(u64),
    Reclaim,
}

fn prots() -> impl Strategy<Value = Prot> {
    prop::sample::select(vec![Prot::NONE, Prot::READ, Prot::RW, Prot::RX, Prot::ALL])
}

fn pages() -> impl Strategy<Value = u64> {
    (prop::sample::select(BASES.to_vec()), 0u64..6).prop_map(|(base, i)| base + i)
}

fn ops() -> impl Strategy<Value = Op> {
    let run = (0..DATA - 4, 1u32..5).prop_map(|(first, count)| FrameRun {
        first: Frame(first),
        count,
    });
    let kind = prop::sample::select(vec![Kind::Managed, Kind::Manual]);
    let usage = (0u8..4).prop_map(Usage::from_bits_truncate);
    prop_oneof![
        4 => (pages(), run, prots(), kind).prop_map(|(p, r, a, k)| Op::Enter(p, r, a, k)),
        2 => (pages(), 0u64..700).prop_map(|(p, n)| Op::Remove(p, n)),
        2 => (pages(), 0u64..700, prots()).prop_map(|(p, n, a)| Op::Protect(p, n, a)),
        2 => (pages(), usage).prop_map(|(p, u)| Op::TakeUsage(p, u)),
        3 => pages().prop_map(Op::Load),
        3 => pages().prop_map(Op::Store),
        1 => Just(Op::Reclaim),
    ]
}

struct World {
    machine: PlainMachine,
    pmap: X86Pmap<PlainMachine>,
    spare: Vec<Frame>,
    model: BTreeMap<u64, Translation>,
}

fn va(page: u64) -> VirtAddr {
    VirtAddr(page << 12)
}

fn range(page: u64, count: u64) -> VirtRange {
    let end = (page + count).min((1 << 35) - 1);
    VirtRange::new(va(page), va(end)).unwrap()
}

impl World {
    fn new() -> World {
        let machine = PlainMachine::new(DATA + TABLES, 1);
        let pmap = machine.pmap_create().unwrap();
        World {
            machine,
            pmap,
            spare: (DATA..DATA + TABLES).map(Frame).collect(),
            model: BTreeMap::new(),
        }
    }

    fn enter(&mut self, page: u64, run: FrameRun, prot: Prot, kind: Kind) {
        let mut told = Vec::new();
        loop {
            let attr = MemoryAttr::WriteBack;
            let tell = &mut |r| told.push(r);
            match self.pmap.enter(va(page), run, prot, attr, kind, tell) {
                Ok(flush) => break flush.wait(),
                Err(EnterError::NeedFrames(n)) => {
                    for frame in self.spare.drain(self.spare.len() - n as usize..) {
                        self.pmap.donate(frame);
                    }
                }
                Err(e) => panic!("{e:?}"),
            }
        }
        let mut replaced = Vec::new();
        for (page, frame) in (page..).zip(run.frames()) {
            let new = Translation {
                frame,
                prot,
                kind,
                usage: Usage::empty(),
            };
            let old = self.model.insert(page, new);
            replaced.extend(old.map(|old| removed(page, old)));
        }
        assert_eq!(told, replaced);
        // More rights for the same frame need no flush; a processor that remembers the frame then
        // uses it without a mark. Here each use is to be seen.
        let offset = |r: &Removed| (r.va.0 >> 12) - page;
        if replaced
            .iter()
            .any(|r| run.get(offset(r) as u32) == Some(r.frame))
        {
            let mut all = Flushes::default();
            all.add_tables(self.pmap.id());
            self.machine.flush(&all);
        }
    }

    fn remove(&mut self, page: u64, count: u64) {
        let mut told = Vec::new();
        self.pmap
            .remove(range(page, count), &mut |r| told.push(r))
            .wait();
        let gone: Vec<_> = self
            .model
            .range(page..page + count)
            .map(|(p, t)| (*p, *t))
            .collect();
        self.model.retain(|p, _| !(page..page + count).contains(p));
        let gone: Vec<_> = gone.into_iter().map(|(p, t)| removed(p, t)).collect();
        assert_eq!(told, gone);
    }

    fn touch(&mut self, page: u64, access: Access, done: bool) {
        let allowed = self.model.get(&page).is_some_and(|t| t.prot.allows(access));
        assert_eq!(done, allowed, "{access:?} of page {page}");
        if let Some(t) = self.model.get_mut(&page).filter(|_| done) {
            t.usage |= match access {
                Access::Write => Usage::all(),
                _ => Usage::REFERENCED,
            };
        }
    }

    fn reclaim(&mut self) {
        let spare = &mut self.spare;
        self.pmap.reclaim(&mut |frame| spare.push(frame)).wait();
        let mut once = self.spare.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), self.spare.len(), "a frame came back twice");
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Enter(page, run, prot, kind) => {
                let room = ((1u64 << 35) - 1 - page).min(u64::from(run.count)) as u32;
                self.enter(page, FrameRun { count: room, ..run }, prot, kind);
            }
            Op::Remove(page, count) => self.remove(page, count),
            Op::Protect(page, count, prot) => {
                self.pmap.protect(range(page, count), prot).wait();
                for (_, t) in self.model.range_mut(page..page + count) {
                    t.prot &= prot;
                    if !t.prot.contains(Prot::READ) {
                        t.prot = Prot::NONE;
                    }
                }
            }
            Op::TakeUsage(page, which) => {
                let (taken, flush) = self.pmap.take_usage(va(page), which);
                flush.wait();
                let t = self.model.get_mut(&page);
                let had = t.map_or(Usage::empty(), |t| {
                    let had = t.usage & which;
                    t.usage -= which;
                    had
                });
                assert_eq!(taken, had);
            }
            Op::Load(page) => {
                let done = Probe::load(&self.machine, &self.pmap, va(page)).is_ok();
                self.touch(page, Access::Read, done);
            }
            Op::Store(page) => {
                let done = Probe::store(&self.machine, &self.pmap, va(page), 1).is_ok();
                self.touch(page, Access::Write, done);
            }
            Op::Reclaim => self.reclaim(),
        }
    }

    fn check(&self) {
        let mut seen = Vec::new();
        self.pmap.scan(self.machine.user_range(), &mut |va, t| {
            seen.push((va.0 >> 12, t))
        });
        let model: Vec<_> = self.model.iter().map(|(p, t)| (*p, *t)).collect();
        assert_eq!(seen, model);
        assert_eq!(self.pmap.resident(), model.len() as u64);
    }
}

fn removed(page: u64, t: Translation) -> Removed {
    Removed {
        va: va(page),
        frame: t.frame,
        kind: t.kind,
        usage: t.usage,
    }
}

proptest! {
    #[test]
    fn page_tables_do_what_the_model_does(ops in prop::collection::vec(ops(), 1..60)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
            world.check();
        }
        world.remove(1, (1 << 35) - 2);
        world.reclaim();
        assert_eq!(world.spare.len(), TABLES as usize);
    }
}
