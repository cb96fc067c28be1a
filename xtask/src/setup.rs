//! What the checks need and a fresh machine may lack.
//!
//! Nothing is installed that is there already, and what cannot be installed is said; the steps
//! that need it are skipped then.

use crate::steps::{Outcome, Steps, cargo};
use std::path::Path;
use std::process::{Command, Stdio};

/// Debian packages, by a program that each brings.
const PACKAGES: [(&str, &str); 11] = [
    ("busybox", "busybox-static"),
    ("gcc", "build-essential"),
    ("musl-gcc", "musl-tools"),
    ("git", "git"),
    ("perl", "perl"),
    ("python3", "python3"),
    ("sqlite3", "sqlite3"),
    ("xz", "xz-utils"),
    ("setsid", "util-linux"),
    ("pgrep", "procps"),
    (QEMU, "qemu-system-x86"),
];

/// The machine that the kernel runs in.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// What the kernel is compiled for.
const TARGET: &str = "x86_64-unknown-none";

/// Components of the toolchain in use, by a program that each brings.
const COMPONENTS: [(&str, &str); 2] = [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")];

/// Sets up what is missing.
pub(crate) fn run(steps: &mut Steps) -> Outcome {
    packages(steps, &PACKAGES)?;
    components(steps)?;
    target(steps)?;
    if !has_nightly() {
        steps.skip("set-up: miri", "no nightly toolchain");
    } else if !has_miri() {
        let mut rustup = Command::new("rustup");
        rustup.args(["+nightly", "component", "add", "miri", "rust-src"]);
        steps.command("set-up: miri", &mut rustup)?;
    }
    Ok(())
}

/// Sets up what the kernel alone needs.
pub(crate) fn kernel(steps: &mut Steps) -> Outcome {
    packages(steps, &[(QEMU, "qemu-system-x86")])?;
    target(steps)
}

fn packages(steps: &mut Steps, wanted: &[(&str, &str)]) -> Outcome {
    let missing = wanted.iter().filter(|(program, _)| !on_path(program));
    let missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let name = format!("set-up: {}", missing.join(" "));
    if !is_root() || !on_path("apt-get") {
        steps.skip(&name, "needs root and apt-get; install it by hand");
        return Ok(());
    }
    let apt_get = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    steps.command("set-up: package lists", apt_get().arg("update"))?;
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends"]);
    steps.command(&name, install.args(missing))
}

fn components(steps: &mut Steps) -> Outcome {
    for (program, component) in COMPONENTS {
        if !on_path(program) {
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add", component]);
            steps.command(&format!("set-up: {component}"), &mut rustup)?;
        }
    }
    Ok(())
}

fn target(steps: &mut Steps) -> Outcome {
    if has_target(TARGET) {
        return Ok(());
    }
    if !on_path("rustup") {
        steps.skip(
            &format!("set-up: {TARGET}"),
            "needs rustup; install it by hand",
        );
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]);
    steps.command(&format!("set-up: {TARGET}"), &mut rustup)
}

/// Whether QEMU is there.
pub(crate) fn has_qemu() -> bool {
    on_path(QEMU)
}

/// Whether the compiler has the libraries of `target`.
pub(crate) fn has_target(target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    let output = rustc.output().ok();
    let path = output.and_then(|o| String::from_utf8(o.stdout).ok());
    path.is_some_and(|path| Path::new(path.trim()).is_dir())
}

/// Whether a nightly toolchain is there.
pub(crate) fn has_nightly() -> bool {
    quiet(cargo("+nightly --version"))
}

/// Whether the nightly toolchain has Miri.
pub(crate) fn has_miri() -> bool {
    quiet(cargo("+nightly miri --version"))
}

/// Whether cargo has the subcommand `name`.
pub(crate) fn has_subcommand(name: &str) -> bool {
    on_path(&format!("cargo-{name}"))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn is_root() -> bool {
    // The owner of the process's own folder in /proc is its effective user.
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self")
        .metadata()
        .is_ok_and(|m| m.uid() == 0)
}

fn quiet(mut command: Command) -> bool {
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
