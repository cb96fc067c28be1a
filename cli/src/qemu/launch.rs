//! QEMU as a child that ends with us.
//!
//! Between us and QEMU is a short life of this very command (`bsdvm qemu`), which asks the host to
//! kill it when its parent dies, and becomes QEMU.

use crate::run::{Failure, OURS};
use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::thread::JoinHandle;

const PROGRAM: &str = "qemu-system-x86_64";

/// Memory that the kernel has for itself, in MiB: its heap, its image, the tables of its map and
/// what devices reach.
const KERNEL_MIB: u64 = 32;

/// The machine: small, with the devices on the memory bus, and nothing that the kernel has no use
/// for. One processor, and never the host's own virtualisation.
const MACHINE: [&str; 20] = [
    "-machine",
    "microvm,pit=off,pic=off,rtc=off,acpi=off,isa-serial=on",
    "-accel",
    "tcg",
    "-cpu",
    "max",
    "-smp",
    "1",
    "-no-user-config",
    "-nodefaults",
    "-display",
    "none",
    "-no-reboot",
    "-global",
    "virtio-mmio.force-legacy=false",
    "-device",
    "isa-debug-exit,iobase=0xf4,iosize=4",
    // What the kernel says of itself goes where QEMU's own errors go.
    "-chardev",
    "file,id=serial,path=/dev/stderr",
    "-serial",
];

/// The files of the host, and the link to us.
const DEVICES: [&str; 11] = [
    "chardev:serial",
    "-fsdev",
    "local,id=root,path=/,security_model=none,multidevs=remap",
    "-device",
    "virtio-9p-device,fsdev=root,mount_tag=root,event_idx=off,indirect_desc=off",
    "-chardev",
    "stdio,id=link,signal=off",
    "-device",
    "virtio-serial-device,max_ports=2,event_idx=off,indirect_desc=off",
    "-device",
    "virtserialport,chardev=link,nr=1",
];

/// Where QEMU is.
///
/// Errors: nowhere, and how to get it.
pub(crate) fn find() -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(PROGRAM))
        .find(|file| file.is_file());
    found.ok_or_else(|| {
        let line = format!("{PROGRAM} is not installed: apt-get install qemu-system-x86");
        Failure::new(line, OURS)
    })
}

/// What `bsdvm qemu` takes: whose child it is, and the command.
#[derive(Args, Debug)]
pub(crate) struct QemuArgs {
    parent: i32,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Becomes QEMU.
pub(crate) fn become_qemu(args: &QemuArgs) -> ExitCode {
    let asked = set_parent_process_death_signal(Some(Signal::KILL));
    let orphan = getppid().map(Pid::as_raw_pid) != Some(args.parent);
    if orphan {
        return ExitCode::FAILURE;
    }
    if let Err(e) = asked {
        eprintln!("bsdvm: {e}");
        return ExitCode::FAILURE;
    }
    let [program, rest @ ..] = args.command.as_slice() else {
        return ExitCode::FAILURE;
    };
    let error = Command::new(program).args(rest).exec();
    eprintln!("{}: {error}", program.to_string_lossy());
    ExitCode::FAILURE
}

/// A running QEMU.
#[derive(Debug)]
pub(crate) struct Machine {
    child: Child,
    errors: Option<JoinHandle<String>>,
}

impl Machine {
    /// Starts QEMU with this much memory for programs, in bytes.
    ///
    /// Errors: the host refuses.
    pub(crate) fn start(qemu: &Path, kernel: &Path, memory: u64) -> Result<Machine, Failure> {
        let failure = |e: std::io::Error| Failure::new(format!("{PROGRAM}: {e}"), OURS);
        let own = std::env::current_exe().map_err(failure)?;
        let mib = memory.div_ceil(1 << 20).saturating_add(KERNEL_MIB);
        let mut child = Command::new(own)
            .args(["qemu", &std::process::id().to_string(), "--"])
            .arg(qemu)
            .args(MACHINE)
            .args(DEVICES)
            .args(["-m", &format!("{mib}M"), "-kernel"])
            .arg(kernel)
            // The kernel makes its VM before it can ask.
            .args(["-append", &format!("memory={memory}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What a terminal sends to its foreground group is for us to pass on.
            .process_group(0)
            .spawn()
            .map_err(failure)?;
        let stderr = child.stderr.take();
        let errors = stderr.map(|mut stderr| {
            std::thread::spawn(move || {
                let mut said = Vec::new();
                // What was read before an error is all there is.
                let _ = stderr.read_to_end(&mut said);
                String::from_utf8_lossy(&said).into_owned()
            })
        });
        Ok(Machine { child, errors })
    }

    /// What goes to the kernel.
    pub(crate) fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// What comes from it.
    pub(crate) fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Ends it, if it did not end by itself. What it said beside the link.
    pub(crate) fn end(mut self) -> String {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let errors = self.errors.take();
        errors.and_then(|e| e.join().ok()).unwrap_or_default()
    }
}
