//! `cargo xtask soak`: the checks that take long, in proportion to `--scale`.
//!
//! The tests read their length from the environment; what is set there already is kept.

use crate::steps::{Outcome, Steps, cargo};
use crate::{fuzz, setup, test};
use clap::Args;
use std::process::Command;

/// How long to soak.
#[derive(Args)]
pub(crate) struct Soak {
    /// How many times the usual length each part takes.
    #[arg(long, default_value_t = 1)]
    scale: u64,
    /// Seconds for each fuzz target.
    #[arg(long, default_value_t = 300)]
    fuzz_seconds: u64,
    /// Tries one in this many mutants of the core; 0: none.
    #[arg(long, default_value_t = 17)]
    mutants: u64,
}

/// The lengths of the tests: variable, and value at scale 1.
const KNOBS: [(&str, u64); 9] = [
    // Operations of a model run.
    ("BSDVM_MODEL_OPS", 1_000_000),
    // Cases of each property test.
    ("PROPTEST_CASES", 20_000),
    // Interleavings of each shuttle test.
    ("BSDVM_SHUTTLE_RUNS", 20_000),
    // Programs of random memory calls.
    ("BSDVM_MEMORY_SEEDS", 2_000),
    // Seconds of threads that change a space while others fork.
    ("BSDVM_CROWD_SECONDS", 600),
    // The same where memory is short and the rest is on swap.
    ("BSDVM_SWAP_SEEDS", 500),
    ("BSDVM_SWAP_SECONDS", 300),
    // Seconds of buffers that change under the calls that use them.
    ("BSDVM_RACE_SECONDS", 300),
    // Random system calls.
    ("BSDVM_FUZZ_CALLS", 1_000_000),
];

/// Runs the long checks.
pub(crate) fn run(steps: &mut Steps, args: &Soak) -> Outcome {
    let mut tests = cargo("test --release --workspace");
    steps.command("long tests", knobs(&mut tests, args.scale))?;
    test::interleavings(steps, |command| knobs(command, args.scale))?;
    if steps.has("fuzz/Cargo.toml") {
        fuzz::all(steps, args.fuzz_seconds.saturating_mul(args.scale))?;
    }
    mutants(steps, args.mutants)
}

fn knobs(command: &mut Command, scale: u64) -> &mut Command {
    for (name, value) in KNOBS {
        if std::env::var_os(name).is_none() {
            command.env(name, value.saturating_mul(scale).to_string());
        }
    }
    command
}

fn mutants(steps: &mut Steps, one_in: u64) -> Outcome {
    if one_in == 0 {
        return Ok(());
    }
    if !setup::has_subcommand("mutants") {
        steps.skip("mutants", "cargo-mutants is not installed");
        return Ok(());
    }
    // Every `one_in`th of the list: the same ones in every run, and some of each file.
    let arguments = format!(
        "mutants --package bsdvm --test-package bsdvm --sharding round-robin --shard 0/{one_in} \
         --timeout 120 --output target"
    );
    let mut mutants = cargo(&arguments);
    // As many operations as find what is to be found; each mutant pays for them.
    steps.command("mutants", mutants.env("BSDVM_MODEL_OPS", "20000"))
}
