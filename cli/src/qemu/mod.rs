//! `bsdvm run --machine qemu`: the same program on the kernel of `kernel/`, in QEMU.
//!
//! * [`build`]: the kernel, built when it is not up to date;
//! * [`launch`]: QEMU as a child that ends with us;
//! * [`serve`]: what the kernel asks of us over the link while it runs.
//!
//! QEMU never uses `/dev/kvm`.

mod build;
pub(crate) mod launch;
mod serve;

use crate::guard;
use crate::interrupt;
use crate::run::{self, Failure, OURS, RunArgs};
use bsdvm::Counters;
use bsdvm_host::HostPlatform;
use bsdvm_link::{Boot, Ending, Outcome};
use bsdvm_linux::platform::Platform;
use bsdvm_linux::{Errno, ExitStatus, Program};
use launch::Machine;
use serve::Server;
use std::os::unix::ffi::OsStringExt;

/// Runs `program`; gives its status.
pub(crate) fn run(args: &RunArgs, program: Program, shown: &str) -> Result<ExitStatus, Failure> {
    let qemu = launch::find()?;
    let kernel = build::kernel()?;
    let host = HostPlatform::new();
    let _guard = guard::start(&host);
    let boot = boot(args, program, &host);
    let mut machine = Machine::start(&qemu, &kernel, args.memory.bytes)?;
    let server = Server::new(host, boot, machine.take_input());
    let passer = server.passer();
    let ignored = bsdvm_host::standing().ignored;
    interrupt::pass_on(&interrupt::ENDING, ignored, move |number| {
        passer.pass(number)
    });
    let ending = server.serve(machine.take_output());
    interrupt::ended();
    let said = machine.end();
    match ending {
        Some(ending) => status(args, shown, ending),
        None => Err(failed(&said)),
    }
}

/// The kernel, or QEMU, ended without a word over the link: what it said elsewhere.
fn failed(said: &str) -> Failure {
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    let line = lines.next_back().unwrap_or("it said nothing");
    Failure::new(format!("the kernel in QEMU failed: {line}"), OURS)
}

fn status(args: &RunArgs, shown: &str, ending: Ending) -> Result<ExitStatus, Failure> {
    let status = match ending.outcome {
        Outcome::Status(code) => ExitStatus::Code(code),
        Outcome::Killed(number) => ExitStatus::Signal(number),
        Outcome::NotStarted(number) => return Err(run::not_started(shown, Errno(number))),
        Outcome::NoMemory => return Err(run::too_small(&args.memory)),
        Outcome::Broken(what) => return Err(run::broken(&what)),
    };
    let counters = Counters::from(&ending.counts);
    let given = counters.frames_total.saturating_mul(4096);
    run::report(args, ending.map, &counters, given);
    Ok(status)
}

/// What the kernel is to know.
fn boot(args: &RunArgs, program: Program, host: &HostPlatform) -> Boot {
    let id = host.identity();
    let name = host.system_name();
    let mut seed = [0; 8];
    host.random(&mut seed);
    let directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
    Boot {
        memory: args.memory.bytes,
        memory_text: args.memory.text.clone(),
        verbose: args.verbose,
        map: args.map,
        check: args.check,
        path: program.path,
        args: program.args,
        env: program.env,
        directory: directory.into_os_string().into_vec(),
        ids: [id.uid, id.euid, id.gid, id.egid],
        groups: id.groups,
        system_name: [
            name.system,
            name.node,
            name.release,
            name.version,
            name.machine,
            name.domain,
        ],
        limits: std::array::from_fn(|i| host.limit(i as u32)),
        wall_clock: host.wall_clock(),
        seed: u64::from_ne_bytes(seed),
        open: [0, 1, 2].map(|n| host.standard(n).is_some()),
    }
}
