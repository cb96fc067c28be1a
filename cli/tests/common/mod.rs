//! Running programs natively and under `bsdvm`.

// Each test program uses its own part of this.
#![allow(dead_code, unreachable_pub)]

pub mod pty;
pub mod stubs;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::Mutex;

/// How long one program may take, in seconds, beside what a test asks it to take: a hang is a
/// failure.
const LIMIT: u64 = 60;

/// A length that the soak sets: the value of a variable, or what an ordinary run takes.
pub fn length(variable: &str, ordinary: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(ordinary)
}

/// Runs a command to its end, within the limit and `more` seconds.
fn bounded(program: &OsStr, more: u64) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["-k", "5", &(LIMIT + more).to_string()])
        .arg(program)
        .env("LC_ALL", "C");
    command
}

fn run(mut command: Command) -> Output {
    let output = command.output().expect("coreutils' timeout starts");
    assert_ne!(output.status.code(), Some(124), "{command:?} hangs");
    output
}

/// `bsdvm run --check` with further options.
pub fn bsdvm<S: AsRef<OsStr>>(options: &[&str], program: &[S]) -> Output {
    bsdvm_for(0, options, program)
}

/// The same for a program that takes `seconds`.
pub fn bsdvm_for<S: AsRef<OsStr>>(seconds: u64, options: &[&str], program: &[S]) -> Output {
    let mut command = bounded(env!("CARGO_BIN_EXE_bsdvm").as_ref(), seconds);
    command
        .args(["run", "--check"])
        .args(options)
        .arg("--")
        .args(program);
    run(command)
}

/// The program itself.
pub fn native<S: AsRef<OsStr>>(program: &[S]) -> Output {
    let mut command = bounded(program[0].as_ref(), 0);
    command.args(&program[1..]);
    run(command)
}

/// The status, or the number of the signal as a negative one.
pub fn ended(status: ExitStatus) -> i32 {
    let killed = || -status.signal().expect("an end");
    status.code().unwrap_or_else(killed)
}

/// The status as a shell gives it.
pub fn status(output: &Output) -> i32 {
    let code = output.status.code();
    code.unwrap_or_else(|| 128 + output.status.signal().expect("an end"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A number of the table of `--stats`.
pub fn counted(table: &str, what: &str) -> usize {
    let line = table.lines().find(|l| l.ends_with(&format!("  {what}")));
    let number = line.and_then(|l| l.split_whitespace().next());
    number.expect("the counter").parse().expect("a number")
}

/// Asserts that a program says and ends the same natively and under `bsdvm`.
pub fn same<S: AsRef<OsStr>>(program: &[S]) {
    same_with(&[], program);
}

/// The same with options of `bsdvm`.
pub fn same_with<S: AsRef<OsStr>>(options: &[&str], program: &[S]) {
    let shown: Vec<_> = program
        .iter()
        .map(|p| p.as_ref().to_string_lossy())
        .collect();
    let (got, expected) = (bsdvm(options, program), native(program));
    // All three in one comparison: what went wrong is most often said on the other stream.
    let told = |o: &Output| (text(&o.stdout), text(&o.stderr), ended(o.status));
    assert_eq!(told(&got), told(&expected), "of {shown:?}");
}

/// Debian's static busybox. The set-up of the tests installs it.
pub fn busybox() -> &'static str {
    let path = "/bin/busybox";
    assert!(
        Path::new(path).exists(),
        "busybox is missing: apt-get install busybox-static"
    );
    path
}

/// A guest program of `tests/guests`, compiled once in each test program.
pub fn guest(name: &str) -> PathBuf {
    static DONE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut done = DONE.lock().unwrap_or_else(|e| e.into_inner());
    if done.insert(name.to_owned()) {
        let source = format!("{}/tests/guests/{name}.c", env!("CARGO_MANIFEST_DIR"));
        // A name of its own while it is written: other test programs may do the same.
        let draft = out.join(format!("{name}.{}", std::process::id()));
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-w", "-pthread", "-static", "-o"])
            .arg(&draft)
            .arg(source);
        assert!(cc.status().expect("a C compiler").success(), "{name}.c");
        std::fs::rename(&draft, out.join(name)).expect("rename");
    }
    out.join(name)
}
