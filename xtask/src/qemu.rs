//! `cargo xtask qemu`: the kernel's own tests, in QEMU.

use crate::setup;
use crate::steps::{Outcome, Steps, cargo};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const TARGET: &str = "x86_64-unknown-none";
/// The build with every assertion on.
const PROFILE: &str = "checked";
/// What ends a run that hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// The status of QEMU when the kernel ended as it should, and when it failed and said why.
const GOOD: i32 = 33;
const FAILED: i32 = 35;

/// How the kernel is started: its command line, the status that it ends with, and words of the
/// last line that it says.
const RUNS: [(&str, i32, &str); 6] = [
    ("test", GOOD, "tests passed"),
    ("panic", FAILED, "kernel panic at src/tests/ends.rs"),
    ("overflow", FAILED, "(double fault) in the kernel at "),
    (
        "thread-overflow",
        FAILED,
        "(double fault) in the kernel at ",
    ),
    ("full-heap", FAILED, "memory allocation of "),
    ("double-fault", FAILED, "(double fault) in the kernel at "),
];

/// The machine: that of `bsdvm run --machine qemu`, without its devices. The serial port is
/// standard output.
const MACHINE: &str = "-machine microvm,pit=off,pic=off,rtc=off,acpi=off,isa-serial=on \
    -accel tcg -cpu max -smp 1 -m 160M -no-user-config -nodefaults -display none -no-reboot \
    -device isa-debug-exit,iobase=0xf4,iosize=4 \
    -chardev stdio,id=serial,signal=off -serial chardev:serial -kernel";

/// Why the kernel cannot be tested here, if it cannot.
fn missing(steps: &Steps) -> Option<&'static str> {
    if !steps.has("kernel/Cargo.toml") {
        Some("there is no kernel")
    } else if !setup::has_qemu() {
        Some("QEMU is not installed: apt-get install qemu-system-x86")
    } else if !setup::has_target(TARGET) {
        Some("the target is not installed: rustup target add x86_64-unknown-none")
    } else {
        None
    }
}

/// Checks and tests the kernel, or says why not.
pub(crate) fn run(steps: &mut Steps) -> Outcome {
    if let Some(why) = missing(steps) {
        steps.skip("kernel", why);
        return Ok(());
    }
    let place = format!(
        "--manifest-path kernel/Cargo.toml --target {TARGET} --target-dir target/kernel \
         --locked --profile {PROFILE}"
    );
    let manifest = "fmt --manifest-path kernel/Cargo.toml --check";
    steps.command("kernel: format", &mut cargo(manifest))?;
    let mut clippy = cargo(&format!("clippy {place} -- -D warnings"));
    steps.command("kernel: clippy", &mut clippy)?;
    steps.command("kernel: build", &mut cargo(&format!("build {place}")))?;
    let kernel = format!("target/kernel/{TARGET}/{PROFILE}/bsdvm-kernel");
    let kernel = steps.root().join(kernel);
    RUNS.iter().try_for_each(|(line, status, words)| {
        steps.check(&format!("kernel in QEMU: {line}"), || {
            match boot(&kernel, line, *status, words) {
                Ok(()) => Vec::new(),
                Err(why) => vec![why],
            }
        })
    })
}

/// Starts the kernel with a command line and waits for its end.
fn boot(kernel: &Path, line: &str, status: i32, words: &str) -> Result<(), String> {
    let mut qemu = Command::new(setup::QEMU);
    qemu.args(MACHINE.split_whitespace())
        .arg(kernel)
        .args(["-append", line])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = qemu.spawn().map_err(|e| e.to_string())?;
    let pieces = listen(&mut child);
    let mut said = String::new();
    let end = loop {
        match pieces.recv_timeout(LIMIT.saturating_sub(start.elapsed())) {
            Ok(piece) => {
                print!("{piece}");
                said.push_str(&piece);
            }
            // It has closed its output: it ends, or has ended.
            Err(RecvTimeoutError::Disconnected) => break child.wait(),
            Err(RecvTimeoutError::Timeout) => {
                // It may end at the same moment.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no end after {} s", LIMIT.as_secs()));
            }
        }
    };
    match end.map_err(|e| e.to_string())?.code() {
        Some(code) if code == status => {}
        other => return Err(format!("QEMU ended with {other:?}")),
    }
    match said.lines().next_back() {
        Some(last) if last.contains(words) => Ok(()),
        other => Err(format!("the last line is {other:?}")),
    }
}

/// What the child says, as it says it.
fn listen(child: &mut Child) -> Receiver<String> {
    let (send, receive) = channel();
    if let Some(mut out) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..n]).into_owned();
                if send.send(text).is_err() {
                    break;
                }
            }
        });
    }
    receive
}
