//! Random operations on a VM and on the naive model, side by side.
//!
//! Translations are dropped, pages paged out and allocations failed at random; the invariants are
//! checked after every step. `BSDVM_MODEL_OPS` sets how many operations are done in all, on average (100,000
//! unless told), up to 120 in each world.

use crate::common::model::{FILE_PAGES, SPAN, World};
use crate::common::op::{Op, What, Where};
use crate::common::vm_with;
use bsdvm::Config;
use proptest::prelude::*;

const PER_WORLD: usize = 120;

fn cases() -> u32 {
    let ops = std::env::var("BSDVM_MODEL_OPS")
        .ok()
        .and_then(|v| v.parse::<usize>().ok())
        .unwrap_or(100_000);
    u32::try_from(ops.div_ceil(PER_WORLD / 2)).unwrap_or(u32::MAX)
}

fn place() -> impl Strategy<Value = Where> {
    prop_oneof![
        (0..SPAN).prop_map(Where::At),
        (0..SPAN).prop_map(Where::Replace),
        (0..SPAN).prop_map(Where::Up),
        (0..SPAN).prop_map(Where::Down),
    ]
}

fn what() -> impl Strategy<Value = What> {
    let file = (0..2usize, 0..FILE_PAGES - 8);
    prop_oneof![
        4 => Just(What::Anonymous),
        1 => Just(What::AnonymousShared),
        2 => file.clone().prop_map(|(file, from)| What::FilePrivate { file, from }),
        2 => file.prop_map(|(file, from)| What::FileShared { file, from }),
    ]
}

/// Mostly readable and writable, so that most accesses go through.
fn prot() -> impl Strategy<Value = u8> {
    prop_oneof![5 => Just(3u8), 2 => Just(1u8), 1 => 0..8u8]
}

fn map_op() -> impl Strategy<Value = Op> {
    let s = 0..4usize;
    let range = (0..SPAN, 1..9u64);
    prop_oneof![
        6 => (s.clone(), 1..9u64, place(), what(), prot())
            .prop_map(|(space, len, place, what, prot)| Op::Map { space, len, place, what, prot }),
        3 => (s.clone(), range.clone()).prop_map(|(space, (first, len))| Op::Remove { space, first, len }),
        3 => (s.clone(), range.clone(), prot())
            .prop_map(|(space, (first, len), prot)| Op::Protect { space, first, len, prot }),
        1 => (s.clone(), range.clone(), prot())
            .prop_map(|(space, (first, len), prot)| Op::ProtectMax { space, first, len, prot }),
        2 => (s.clone(), range.clone(), 0..4u8)
            .prop_map(|(space, (first, len), inherit)| Op::Inherit { space, first, len, inherit }),
        3 => (s.clone(), range.clone()).prop_map(|(space, (first, len))| Op::Discard { space, first, len }),
        2 => (s.clone(), range.clone()).prop_map(|(space, (first, len))| Op::Wire { space, first, len }),
        2 => (s.clone(), range.clone()).prop_map(|(space, (first, len))| Op::Unwire { space, first, len }),
        2 => (s.clone(), range.clone(), 1..9u64, place())
            .prop_map(|(space, (first, len), new_len, place)| Op::Move { space, first, len, new_len, place }),
        5 => s.clone().prop_map(|space| Op::Fork { space }),
        3 => s.clone().prop_map(|space| Op::Exit { space }),
        1 => Just(Op::Create),
        2 => (s.clone(), range.clone(), any::<bool>())
            .prop_map(|(space, (first, len), invalidate)| Op::Clean { space, first, len, invalidate }),
        2 => (s.clone(), range.clone()).prop_map(|(space, (first, len))| Op::Drop { space, first, len }),
        1 => (s, range).prop_map(|(space, (first, len))| Op::Residency { space, first, len }),
    ]
}

fn data_op() -> impl Strategy<Value = Op> {
    let s = 0..4usize;
    let spot = (0..SPAN, 0..4usize);
    let value = any::<u64>();
    prop_oneof![
        4 => (s.clone(), spot.clone(), value)
            .prop_map(|(space, (page, place), value)| Op::Write { space, page, place, value }),
        2 => (s.clone(), spot.clone()).prop_map(|(space, (page, place))| Op::Read { space, page, place }),
        8 => (s.clone(), 0..2usize, spot.clone(), value)
            .prop_map(|(space, cpu, (page, place), value)| Op::Store { space, cpu, page, place, value }),
        6 => (s, 0..2usize, spot.clone())
            .prop_map(|(space, cpu, (page, place))| Op::Load { space, cpu, page, place }),
        2 => (0..2usize, spot.clone(), value)
            .prop_map(|(file, (page, place), value)| Op::FileWrite { file, page, place, value }),
        1 => (0..2usize, spot).prop_map(|(file, (page, place))| Op::FileRead { file, page, place }),
        1 => (0..2usize, any::<u64>()).prop_map(|(file, bytes)| Op::Resize { file, bytes }),
        3 => (1..40u32).prop_map(|want| Op::PageOut { want }),
    ]
}

/// An operation, and which of its allocations fails (0: none).
fn step() -> impl Strategy<Value = (Op, u64)> {
    let op = prop_oneof![map_op(), data_op()];
    (op, prop_oneof![9 => Just(0u64), 1 => 1..8u64])
}

fn run(mut world: World, steps: &[(Op, u64)]) {
    for (op, fail) in steps {
        world.step(op, *fail);
    }
    world.end();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_core_agrees_with_the_model(steps in prop::collection::vec(step(), 1..=PER_WORLD)) {
        run(World::new(), &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases() / 4,
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    })]

    /// The same where a write makes several pages.
    #[test]
    fn it_agrees_with_runs_of_zeroes(steps in prop::collection::vec(step(), 1..=PER_WORLD)) {
        let config = Config { zero_run: 8, ..Config::default() };
        run(World::of(vm_with(3000, config)), &steps);
    }
}
