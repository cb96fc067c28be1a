//! `bsdvm run`: choose a machine, put the parts together, run one program.

use crate::ending;
use crate::guard;
use crate::interrupt::{self, TooEarly};
use crate::lookup::{self, NotFound};
use crate::qemu;
use crate::size::{self, Size};
use crate::stats;
use crate::trace::TraceFile;
use bsdvm::{BootError, Config, Counters, Machine, TraceSink, Vm};
use bsdvm_host::{HostPlatform, SwapFile};
use bsdvm_hosted::Hosted;
use bsdvm_linux::{Errno, ExitStatus, Linux, Options, Platform, Program};
use clap::{Args, ValueEnum};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

/// No such program.
const MISSING: u8 = 127;
/// It is there, but cannot be executed.
const UNFIT: u8 = 126;
/// The machine cannot be made, or this system failed.
pub(crate) const OURS: u8 = 125;

/// Pages that one fault makes, at most: an order for a run costs little more than one for a page.
const ZERO_RUN: u32 = 16;

/// The machines that a program can run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum MachineName {
    /// An ordinary process of this host: real memory, real faults
    Hosted,
    /// A small kernel on page tables of its own, in QEMU
    Qemu,
}

/// What `bsdvm run` takes.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Size of memory: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size::parse)]
    pub(crate) memory: Size,
    /// Let memory that is not used lately go to a file of at most SIZE: it has no name, lies in
    /// $TMPDIR or /var/tmp, and takes what is on it (hosted machine only)
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    swap: Option<Size>,
    /// Print what the VM counted to standard error at the end
    #[arg(long)]
    pub(crate) stats: bool,
    /// Print the program's last memory map to standard error at the end
    #[arg(long)]
    pub(crate) map: bool,
    /// Write one line about each event (faults, pages in and out, mappings) to FILE
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Check every invariant of the VM at the end, and that everything was given back
    #[arg(long)]
    pub(crate) check: bool,
    /// Say one line about each unknown system call and each fault that becomes a signal
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The machine to run on
    #[arg(long, value_enum, default_value = "hosted")]
    machine: MachineName,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// A failure: the line to say and the status to end with.
pub(crate) struct Failure {
    line: String,
    status: u8,
}

impl Failure {
    pub(crate) fn new(line: impl Into<String>, status: u8) -> Failure {
        Failure {
            line: line.into(),
            status,
        }
    }
}

/// Runs the program, and ends as it did: with its status, or by the signal that killed it.
pub(crate) fn run(args: &RunArgs) -> ExitCode {
    match attempt(args) {
        Ok(ExitStatus::Signal(number)) => ending::by_signal(number.into()),
        Ok(ExitStatus::Code(code)) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("bsdvm: {}", failure.line);
            ExitCode::from(failure.status)
        }
    }
}

fn attempt(args: &RunArgs) -> Result<ExitStatus, Failure> {
    let name = args
        .command
        .first()
        .map_or(OsStr::new(""), OsString::as_os_str);
    let shown = name.to_string_lossy().into_owned();
    let path = lookup::find(name, std::env::var_os("PATH").as_deref()).map_err(|e| match e {
        NotFound::Missing => Failure::new(format!("{shown}: no such program"), MISSING),
        NotFound::Unfit(why) => Failure::new(format!("{shown}: {why}"), UNFIT),
    })?;
    let program = Program {
        path: path.into_os_string().into_vec(),
        args: args.command.iter().map(|a| a.as_bytes().to_vec()).collect(),
        env: environment(),
    };
    match args.machine {
        MachineName::Hosted => hosted(args, program, &shown),
        MachineName::Qemu if args.trace.is_some() => {
            let why = "--trace: only the hosted machine can write one";
            Err(Failure::new(why.to_owned(), OURS))
        }
        MachineName::Qemu if args.swap.is_some() => {
            let why = "--swap: only the hosted machine has a disk to swap to";
            Err(Failure::new(why.to_owned(), OURS))
        }
        MachineName::Qemu => qemu::run(args, program, &shown),
    }
}

/// Runs the program inside this process.
fn hosted(args: &RunArgs, program: Program, shown: &str) -> Result<ExitStatus, Failure> {
    let trace = trace_file(args)?;
    let linux = system(args, trace)?;
    let _guard = guard::start(&linux.platform);
    let ignored = linux.platform.standing().ignored;
    interrupt::pass_on(&interrupt::ALL, ignored, |number| {
        linux.pass_signal(number).map_err(|_| TooEarly)
    });
    let status = linux.run(program);
    interrupt::ended();
    let traced = finish(args, trace);
    let status = status.map_err(|e| match linux.platform.take_refusal() {
        Some(why) => Failure::new(format!("{shown}: {why}"), OURS),
        None => not_started(shown, e),
    })?;
    let given = linux.vm.machine().allocated_bytes();
    report(args, linux.last_map(), &linux.vm.counters(), given);
    traced?;
    if args.check {
        check(linux)?;
    }
    Ok(status)
}

/// The environment as `NAME=VALUE`.
fn environment() -> Vec<Vec<u8>> {
    let line =
        |(name, value): (OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    std::env::vars_os().map(line).collect()
}

/// The file of `--trace`.
fn trace_file(args: &RunArgs) -> Result<Option<&'static TraceFile>, Failure> {
    let Some(path) = &args.trace else {
        return Ok(None);
    };
    let file = TraceFile::create(path).map_err(|e| trace_failure(args, &e))?;
    // The VM lives to the end of the process, and so does who listens to it.
    Ok(Some(Box::leak(Box::new(file))))
}

/// Ends the trace. What could not be written is said now.
fn finish(args: &RunArgs, trace: Option<&TraceFile>) -> Result<(), Failure> {
    let done = trace.map_or(Ok(()), TraceFile::finish);
    done.map_err(|e| trace_failure(args, &e))
}

fn trace_failure(args: &RunArgs, why: &std::io::Error) -> Failure {
    let path = args.trace.as_deref().unwrap_or("".as_ref());
    Failure::new(format!("--trace {}: {why}", path.display()), OURS)
}

fn system(
    args: &RunArgs,
    trace: Option<&'static TraceFile>,
) -> Result<&'static Linux<HostPlatform>, Failure> {
    // A file that may not grow is an error to be told, not an end.
    let told = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, told);
    // First of all: it lifts the limits that would hold for the machine's memory too.
    let platform = HostPlatform::new();
    let size = &args.memory;
    let machine = Hosted::new(size.bytes).map_err(|e| bad_memory(size, &e.to_string()))?;
    let config = Config {
        // A trace shows each page with its own fault.
        zero_run: if trace.is_some() { 1 } else { ZERO_RUN },
        trace: trace.map(|file| file as &dyn TraceSink),
        ..Config::default()
    };
    let vm = Vm::new(machine, config).map_err(|BootError::NoMemory| too_small(size))?;
    let options = Options {
        verbose: args.verbose,
        keep_map: args.map,
        memory: match &args.swap {
            Some(swap) => format!("{} and {} of swap", size.text, swap.text),
            None => size.text.clone(),
        },
    };
    // It lives as long as the system, which is never freed.
    let vm = Box::leak(Box::new(vm));
    if let Some(size) = &args.swap {
        let file = swap_file(size)?;
        let added = vm.swap_on(Box::leak(Box::new(file)));
        added.map_err(|_| bad_swap(size, "too little memory for its table"))?;
    }
    Ok(Linux::new(vm, platform, options))
}

/// The file of `--swap`.
fn swap_file(size: &Size) -> Result<SwapFile, Failure> {
    let page = Hosted::PAGE;
    if size.bytes < page.bytes() {
        return Err(bad_swap(size, "smaller than a page"));
    }
    let file = SwapFile::temporary(size.bytes, page.len());
    file.map_err(|e| bad_swap(size, &e.to_string()))
}

fn bad_swap(size: &Size, why: &str) -> Failure {
    Failure::new(format!("--swap {}: {why}", size.text), OURS)
}

fn bad_memory(size: &Size, why: &str) -> Failure {
    Failure::new(format!("--memory {}: {why}", size.text), OURS)
}

/// There is too little memory for anything.
pub(crate) fn too_small(size: &Size) -> Failure {
    bad_memory(size, "too small to run anything in")
}

/// The program could not be started.
pub(crate) fn not_started(shown: &str, errno: Errno) -> Failure {
    let status = match errno {
        Errno::ENOENT => MISSING,
        Errno::ENOMEM => OURS,
        _ => UNFIT,
    };
    Failure::new(format!("{shown}: {}", errno.message()), status)
}

/// Prints what was asked for about a program that has ended; `given` is the memory that the host
/// gave, in bytes.
pub(crate) fn report(args: &RunArgs, map: Option<String>, counters: &Counters, given: u64) {
    if let Some(map) = map {
        eprint!("{map}");
    }
    if args.stats {
        eprint!("{}", stats::table(counters, given));
    }
}

/// This system found itself broken.
pub(crate) fn broken(what: &str) -> Failure {
    Failure::new(format!("internal: {what}"), OURS)
}

/// Every space, object, entry and charge is back, and every invariant holds: that counts the
/// frames too, those that the slabs keep for later records among them.
fn check(linux: &Linux<HostPlatform>) -> Result<(), Failure> {
    linux.vm.check().map_err(|e| broken(&format!("{e:?}")))?;
    let c = linux.vm.counters();
    let left = [
        ("spaces", c.spaces),
        ("objects", c.objects),
        ("entries", c.entries),
        ("pages charged", c.charged_pages),
    ];
    for (what, number) in left {
        if number != 0 {
            return Err(broken(&format!("{number} {what} left at the end")));
        }
    }
    Ok(())
}
