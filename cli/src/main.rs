//! The `bsdvm` command. One file for each verb; this one takes the command line apart.

mod ending;
mod guard;
mod interrupt;
mod lookup;
mod qemu;
mod run;
mod size;
mod stats;
mod trace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs programs on the bsdvm virtual memory system.
#[derive(Parser, Debug)]
#[command(name = "bsdvm", version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Run an unmodified Linux program with all of its memory managed by this VM
    ///
    /// The exit status is the program's; a signal that killed the program kills the runner too. It
    /// is 127 when there is no such program, 126 when it cannot be executed, 125 when the machine
    /// cannot be made.
    Run(run::RunArgs),
    /// Become QEMU, and end with the runner
    #[command(hide = true)]
    Qemu(qemu::launch::QemuArgs),
    /// Put the terminal right when the runner is killed
    #[command(hide = true)]
    Guard(guard::GuardArgs),
}

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Run(args) => run::run(&args),
        Verb::Qemu(args) => qemu::launch::become_qemu(&args),
        Verb::Guard(args) => guard::guard(&args),
    }
}
