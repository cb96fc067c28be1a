//! Whole programs: what one says about itself, and how long one takes, natively and under `bsdvm`.

use crate::rounds::{ROUNDS, Stat};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// How a program is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Under {
    /// By `bsdvm run`.
    Ours,
    /// By this Linux.
    Native,
}

/// What a round of a program is measured by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// The nanoseconds from its start to its end.
    Whole,
    /// The number that it prints.
    Printed,
}

/// The command `bsdvm`, which lies beside the benchmarks.
fn bsdvm() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("bsdvm"))
}

fn round(under: Under, clock: Clock, program: &[OsString]) -> io::Result<f64> {
    let mut command = match under {
        Under::Native => Command::new(&program[0]),
        Under::Ours => {
            let mut command = Command::new(bsdvm()?);
            command.args(["run", "--"]).arg(&program[0]);
            command
        }
    };
    command.args(&program[1..]).stdin(Stdio::null());
    let start = Instant::now();
    let output = command.stderr(Stdio::inherit()).output()?;
    let whole = start.elapsed().as_nanos() as f64;
    if !output.status.success() {
        return Err(io::Error::other(format!("{command:?}: {}", output.status)));
    }
    match clock {
        Clock::Whole => Ok(whole),
        Clock::Printed => {
            let text = String::from_utf8_lossy(&output.stdout);
            text.trim().parse().map_err(io::Error::other)
        }
    }
}

/// Runs `program` under us and natively in turn, [`ROUNDS`] times after one that does not count.
pub fn compare(clock: Clock, program: &[OsString]) -> io::Result<[Stat; 2]> {
    let (mut ours, mut native) = (Vec::new(), Vec::new());
    for turn in 0..=ROUNDS {
        for (under, times) in [(Under::Ours, &mut ours), (Under::Native, &mut native)] {
            let ns = round(under, clock, program)?;
            if turn > 0 {
                times.push(ns);
            }
        }
    }
    Ok([Stat::of(&ours), Stat::of(&native)])
}
