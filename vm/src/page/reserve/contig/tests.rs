use super::*;
use crate::page::tests::frames;
use bsdvm_sim::Sim;
use proptest::prelude::*;

extern crate std;
use std::collections::BTreeSet;
use std::vec::Vec;

/// The frames that are free, and what a run must be.
struct Model(BTreeSet<u32>);

fn fits(run: FrameRun, within: Within) -> bool {
    let (first, last) = (run.first.0, run.first.0 + run.count - 1);
    let bound = |frame: u32| frame.checked_div(within.boundary).unwrap_or(0);
    first >= within.low.0
        && last <= within.high.0
        && first.checked_rem(within.align) == Some(0)
        && bound(first) == bound(last)
}

impl Model {
    fn has_room(&self, count: u32, within: Within) -> bool {
        let run = |&first: &u32| FrameRun {
            first: Frame(first),
            count,
        };
        count > 0
            && self.0.iter().any(|first| {
                run(first).frames().all(|f| self.0.contains(&f.0)) && fits(run(first), within)
            })
    }

    fn take(&mut self, run: FrameRun) {
        assert!(run.frames().all(|f| self.0.remove(&f.0)), "{run:?} twice");
    }

    fn give(&mut self, run: FrameRun) {
        assert!(run.frames().all(|f| self.0.insert(f.0)));
    }
}

#[derive(Clone, Debug)]
enum Op {
    Alloc,
    Contig(u32, Within),
    /// Frees one of the runs, all of it or two parts, one by one or as runs.
    Free(usize, u32),
    FreeOne(usize),
    Cpu(usize),
}

fn within(frames: u32) -> impl Strategy<Value = Within> {
    let small = 0..40u32;
    (
        0..frames,
        0..frames,
        small.clone(),
        small,
        any::<[bool; 3]>(),
    )
        .prop_map(
            |(low, high, align, boundary, [narrow, aligned, bounded])| Within {
                low: if narrow { Frame(low) } else { Frame(0) },
                high: if narrow { Frame(high) } else { Frame(u32::MAX) },
                align: if aligned { align } else { 1 },
                boundary: if bounded { boundary } else { 0 },
            },
        )
}

fn op(frames: u32) -> impl Strategy<Value = Op> {
    let count = prop_oneof![4 => 0..12u32, 1 => 0..frames];
    prop_oneof![
        8 => Just(Op::Alloc),
        4 => (count, within(frames)).prop_map(|(count, within)| Op::Contig(count, within)),
        3 => (any::<usize>(), any::<u32>()).prop_map(|(which, part)| Op::Free(which, part)),
        5 => any::<usize>().prop_map(Op::FreeOne),
        1 => (0..3usize).prop_map(Op::Cpu),
    ]
}

fn all_free(frames: &Frames<Sim>) -> Model {
    Model(frames.managed().map(|frame| frame.0).collect())
}

fn run(frames: &Frames<Sim>, ops: Vec<Op>) {
    let mut model = all_free(frames);
    let (mut runs, mut ones) = (Vec::new(), Vec::new());
    for op in ops {
        match op {
            Op::Alloc => {
                if let Some(frame) = frames.alloc(Class::Interrupt) {
                    model.take(FrameRun::one(frame));
                    ones.push(frame);
                }
            }
            Op::Contig(count, within) => {
                let run = frames.alloc_contig(Class::Interrupt, count, within);
                assert_eq!(run.is_some(), model.has_room(count, within), "{within:?}");
                if let Some(run) = run {
                    assert_eq!(run.count, count);
                    assert!(fits(run, within), "{run:?} is not {within:?}");
                    model.take(run);
                    runs.push(run);
                }
            }
            Op::Free(which, part) if !runs.is_empty() => {
                let run: FrameRun = runs.swap_remove(which % runs.len());
                model.give(run);
                let (first, rest) = parts(run, part % run.count);
                frames.free_run(rest);
                frames.free_run(first);
            }
            Op::FreeOne(which) if !ones.is_empty() => {
                let frame = ones.swap_remove(which % ones.len());
                model.give(FrameRun::one(frame));
                frames.free(frame);
            }
            Op::Cpu(cpu) => frames.machine().set_cpu(cpu),
            Op::Free(..) | Op::FreeOne(_) => (),
        }
        assert_eq!(frames.free_count(), model.0.len() as u64);
        assert_eq!(frames.recount(), frames.free_count());
    }
    runs.into_iter().for_each(|run| frames.free_run(run));
    ones.into_iter().for_each(|frame| frames.free(frame));
    let total = frames.total() as u32;
    let all = frames.alloc_contig(Class::Interrupt, total, Within::ANY);
    assert_eq!(all.map(|run| run.count), Some(total), "all of it is there");
}

fn parts(run: FrameRun, at: u32) -> (FrameRun, FrameRun) {
    let first = FrameRun { count: at, ..run };
    let rest = FrameRun {
        first: Frame(run.first.0 + at),
        count: run.count - at,
    };
    (first, rest)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// A run is found exactly when a look at every frame finds one, and is what was asked for.
    #[test]
    fn o04_runs_are_found_when_there_are_some(
        (count, ops) in (100..500u32)
            .prop_flat_map(|n| (Just(n), prop::collection::vec(op(n), 1..200))),
    ) {
        run(&frames(count), ops);
    }
}

#[test]
fn o04_a_run_spans_free_runs_that_are_no_buddies() {
    let frames = frames(256);
    let mut all: Vec<u32> = core::iter::from_fn(|| frames.alloc(Class::Interrupt))
        .map(|frame| frame.0)
        .collect();
    all.sort_unstable();
    // Seven neighbours with a multiple of four in their middle: no run of the lists holds five.
    let first = all[0].next_multiple_of(8) + 1;
    let seven = FrameRun {
        first: Frame(first),
        count: 7,
    };
    frames.free_run(seven);
    assert_eq!(frames.alloc_run(3), None);
    assert_eq!(
        frames.alloc_contig(Class::Interrupt, 8, Within::ANY),
        None,
        "there are seven"
    );
    assert_eq!(frames.free_count(), 7, "a failure takes nothing");
    let run = frames.alloc_contig(Class::Interrupt, 7, Within::ANY);
    assert_eq!(run, Some(seven));
    assert_eq!((frames.free_count(), frames.recount()), (0, 0));
}

#[test]
fn o04_frames_in_magazines_are_found() {
    let frames = frames(128);
    let within = |frame| Within {
        low: frame,
        high: frame,
        ..Within::ANY
    };
    let frame = frames.alloc(Class::Normal).unwrap();
    assert_eq!(frames.alloc_within(Class::Interrupt, within(frame)), None);
    frames.machine().set_cpu(2);
    frames.free(frame);
    frames.machine().set_cpu(0);
    assert_eq!(
        frames.alloc_within(Class::Interrupt, within(frame)),
        Some(frame)
    );
    assert_eq!(frames.recount(), frames.total() - 1);
}

#[test]
fn o04_limits_that_nothing_fits_are_refused() {
    let frames = frames(256);
    let total = frames.free_count();
    let table = Frame(0);
    let beyond = Frame(256);
    let refused = [
        (0, Within::ANY),
        (
            1,
            Within {
                align: 0,
                ..Within::ANY
            },
        ),
        (
            5,
            Within {
                boundary: 4,
                ..Within::ANY
            },
        ),
        (
            1,
            Within {
                high: table,
                ..Within::ANY
            },
        ),
        (
            1,
            Within {
                low: beyond,
                ..Within::ANY
            },
        ),
        (
            1,
            Within {
                low: Frame(200),
                high: Frame(199),
                ..Within::ANY
            },
        ),
        (
            1,
            Within {
                low: Frame(129),
                align: u32::MAX,
                ..Within::ANY
            },
        ),
        (u32::MAX, Within::ANY),
        (
            65,
            Within {
                low: Frame(129),
                align: 64,
                ..Within::ANY
            },
        ),
    ];
    for (count, within) in refused {
        let run = frames.alloc_contig(Class::Interrupt, count, within);
        assert_eq!(run, None, "{count} frames {within:?}");
        assert_eq!((frames.free_count(), frames.recount()), (total, total));
    }
    let boundary = Within {
        boundary: 4,
        align: 4,
        ..Within::ANY
    };
    let run = frames.alloc_contig(Class::Normal, 4, boundary).unwrap();
    assert_eq!((run.count, run.first.0 % 4), (4, 0));
}

/// A run counts with all its frames against the reserve of its class.
#[test]
fn o04_a_run_leaves_the_reserve_of_its_class() {
    for class in [Class::Normal, Class::System, Class::Interrupt] {
        let frames = frames(2000);
        let total = frames.total();
        let keep = match class {
            Class::Normal => (total / 64).min(64),
            Class::System => (total / 64).min(16),
            Class::Interrupt => 0,
        };
        let most = (total - keep) as u32;
        assert_eq!(frames.alloc_contig(class, most + 1, Within::ANY), None);
        assert_eq!(frames.free_count(), total);
        let run = frames.alloc_contig(class, most, Within::ANY);
        assert_eq!(run.map(|run| run.count), Some(most), "{class:?}");
        assert_eq!(frames.alloc_within(class, Within::ANY), None);
        assert_eq!(frames.free_count(), keep);
    }
}

#[test]
fn o04_an_injected_failure_takes_nothing() {
    let frames = frames(256);
    let total = frames.free_count();
    frames.inject(2);
    let run = frames.alloc_contig(Class::Normal, 3, Within::ANY).unwrap();
    assert_eq!(frames.alloc_contig(Class::Normal, 3, Within::ANY), None);
    assert_eq!(frames.inject_left(), 0);
    assert_eq!(frames.free_count(), total - 3);
    frames.free_run(run);
    assert_eq!((frames.free_count(), frames.recount()), (total, total));
}
