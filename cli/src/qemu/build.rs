//! The kernel, built when it is not up to date.

use crate::run::{Failure, OURS};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Where the kernel's sources are: where this command was built from.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernel");
/// Where it is built, in the target folder of the workspace.
const TARGET_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/kernel");
const TARGET: &str = "x86_64-unknown-none";

/// What would send a nested `cargo` astray.
const UNWANTED: [&str; 5] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
];

fn failure(line: String) -> Failure {
    Failure::new(line, OURS)
}

/// The kernel's file.
///
/// Errors: it cannot be built, and why.
pub(crate) fn kernel() -> Result<PathBuf, Failure> {
    let sources = Path::new(SOURCES);
    let folder = Path::new(TARGET_DIR).join(TARGET).join("release");
    let kernel = folder.join("bsdvm-kernel");
    if is_current(&kernel, &folder.join("bsdvm-kernel.d"), sources) {
        return Ok(kernel);
    }
    if !sources.join("Cargo.toml").exists() {
        let line = format!("the kernel's sources are not at {} any more", show(sources));
        return Err(failure(line));
    }
    if !has_target() {
        let line = format!("Rust cannot build the kernel here: rustup target add {TARGET}");
        return Err(failure(line));
    }
    build(sources)?;
    Ok(kernel)
}

fn show(path: &Path) -> String {
    let short = path.canonicalize();
    short
        .as_deref()
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

/// Whether the kernel is younger than everything that it was built from, which `cargo` has listed.
fn is_current(kernel: &Path, list: &Path, sources: &Path) -> bool {
    let (Some(built), Ok(list)) = (changed(kernel), std::fs::read_to_string(list)) else {
        return false;
    };
    let listed = list.split_once(": ").map_or("", |(_, files)| files);
    let files: Vec<&Path> = listed.split_whitespace().map(Path::new).collect();
    let own = ["Cargo.toml", "Cargo.lock", "kernel.ld", "../Cargo.toml"];
    let own = own.iter().map(|name| sources.join(name));
    // Each crate's manifest lies above the folder of its `lib.rs`.
    let crates = files.iter().filter(|file| file.ends_with("lib.rs"));
    let manifests = crates.filter_map(|file| Some(file.parent()?.parent()?.join("Cargo.toml")));
    let young = |path: &Path| changed(path).is_some_and(|at| at <= built);
    !files.is_empty()
        && files.iter().all(|file| young(file))
        && own.chain(manifests).all(|file| young(&file))
}

/// Whether the compiler has the kernel's target.
fn has_target() -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    let output = rustc.output().ok();
    let path = output.and_then(|o| String::from_utf8(o.stdout).ok());
    path.is_some_and(|path| Path::new(path.trim()).is_dir())
}

fn build(sources: &Path) -> Result<(), Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--quiet", "--locked"])
        .args(["--target", TARGET, "--target-dir", TARGET_DIR])
        .arg("--manifest-path")
        .arg(sources.join("Cargo.toml"));
    UNWANTED.iter().for_each(|name| {
        command.env_remove(name);
    });
    let output = command
        .output()
        .map_err(|e| failure(format!("the kernel cannot be built: cargo: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(failure(format!(
        "the kernel cannot be built:\n{}",
        said.trim_end()
    )))
}
