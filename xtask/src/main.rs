//! Chores of the project, one command for each: `cargo xtask VERB`.
//!
//! Each verb is a file. A verb is a list of steps ([`steps`]): each prints its name, its output
//! and its time; the first that fails ends the verb with its status; the last line counts them.

mod bench;
mod fuzz;
mod pack;
mod qemu;
mod rows;
mod setup;
mod soak;
mod steps;
mod test;
mod tidy;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use steps::Steps;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the project")]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Sets up what is missing, then checks all there is to check in a few minutes.
    Test,
    /// The long ones: big models, fuzzing, mutants.
    Soak(soak::Soak),
    /// The kernel's own tests, in QEMU.
    Qemu,
    /// The rules of the house.
    Tidy(tidy::Tidy),
    /// What the core has to be able to do, row by row, with the tests that show it.
    Rows,
    /// Packs what people take, and builds it from the packages.
    Pack,
    /// Benchmarks.
    Bench(bench::Bench),
    /// Fuzzes one target, or each in turn.
    Fuzz(fuzz::Fuzz),
}

fn main() -> ExitCode {
    let mut steps = Steps::new(root());
    let done = match Command::parse().verb {
        Verb::Test => test::run(&mut steps),
        Verb::Soak(args) => soak::run(&mut steps, &args),
        Verb::Qemu => setup::kernel(&mut steps).and_then(|()| qemu::run(&mut steps)),
        Verb::Tidy(args) => tidy::run(&mut steps, &args),
        Verb::Rows => rows::run(&mut steps),
        Verb::Pack => pack::run(&mut steps),
        Verb::Bench(args) => bench::run(&mut steps, &args),
        Verb::Fuzz(args) => fuzz::run(&mut steps, &args),
    };
    steps.finish(done)
}

/// The folder of the workspace: the one above this package.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}
