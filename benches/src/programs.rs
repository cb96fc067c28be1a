//! Whole programs: what one says about itself, and how long one takes, natively, under `bsdvm` and,
//! where it is installed, under gVisor.

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
    /// By gVisor's `runsc` with its platform `ptrace`, the one that every version of it has.
    Gvisor,
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
        Under::Gvisor => {
            let mut command = Command::new("runsc");
            let options = ["--platform=ptrace", "--network=none", "--ignore-cgroups"];
            command.args(options).arg("do").arg(&program[0]);
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

/// Whether gVisor is here and lets us run something.
pub fn has_gvisor() -> bool {
    round(Under::Gvisor, Clock::Whole, &["/bin/true".into()]).is_ok()
}

/// Runs `program` under each of `all` in turn, [`ROUNDS`] times after one that does not count.
pub fn compare<const N: usize>(
    all: [Under; N],
    clock: Clock,
    program: &[OsString],
) -> io::Result<[Stat; N]> {
    let mut times = [const { Vec::new() }; N];
    for turn in 0..=ROUNDS {
        for (under, times) in all.iter().zip(&mut times) {
            let ns = round(*under, clock, program)?;
            if turn > 0 {
                times.push(ns);
            }
        }
    }
    Ok(times.each_ref().map(|t| Stat::of(t)))
}
