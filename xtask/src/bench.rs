//! `cargo xtask bench`: the benchmarks.

use crate::steps::{Outcome, Steps, cargo};
use clap::Args;

/// What to measure.
#[derive(Args)]
pub(crate) struct Bench {
    /// Runs only benchmarks whose name holds this.
    filter: Option<String>,
    /// The package.
    #[arg(short, long, default_value = "bsdvm")]
    package: String,
}

/// Measures.
pub(crate) fn run(steps: &mut Steps, args: &Bench) -> Outcome {
    let mut bench = cargo("bench --package");
    bench.arg(&args.package);
    if let Some(filter) = &args.filter {
        bench.arg("--").arg(filter);
    }
    steps.command(&format!("benchmarks of {}", args.package), &mut bench)
}
