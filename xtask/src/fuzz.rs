//! `cargo xtask fuzz`: the fuzz targets, each for a bounded time.

use crate::setup;
use crate::steps::{Outcome, Steps, cargo};
use clap::Args;

/// What to fuzz, and how long.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// The target; without it, each in turn.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Fuzzes what was asked for.
pub(crate) fn run(steps: &mut Steps, args: &Fuzz) -> Outcome {
    match &args.target {
        Some(target) if is_ready(steps) => one(steps, target, args.seconds),
        Some(_) => Ok(()),
        None => all(steps, args.seconds),
    }
}

/// Fuzzes each target for `seconds`.
pub(crate) fn all(steps: &mut Steps, seconds: u64) -> Outcome {
    if !is_ready(steps) {
        return Ok(());
    }
    targets(steps)
        .iter()
        .try_for_each(|target| one(steps, target, seconds))
}

fn one(steps: &mut Steps, target: &str, seconds: u64) -> Outcome {
    // No address sanitizer: what is looked for is a wrong answer, and without it ten times as much
    // is tried. Worlds leak their files and swap: hence the bound on memory.
    let arguments = format!(
        "+nightly fuzz run --sanitizer none {target} -- -max_total_time={seconds} \
         -max_len=1600 -rss_limit_mb=8192"
    );
    steps.command(&format!("fuzz: {target}"), &mut cargo(&arguments))
}

fn is_ready(steps: &mut Steps) -> bool {
    let why = if !steps.has("fuzz/fuzz_targets") {
        "there are no targets"
    } else if !setup::has_subcommand("fuzz") {
        "cargo-fuzz is not installed"
    } else if !setup::has_nightly() {
        "no nightly toolchain"
    } else {
        return true;
    };
    steps.skip("fuzz", why);
    false
}

/// The targets by name, in order.
fn targets(steps: &Steps) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(steps.root().join("fuzz/fuzz_targets")) else {
        return Vec::new();
    };
    let paths = files.flatten().map(|file| file.path());
    let sources = paths.filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let mut names: Vec<String> = sources
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}
