//! `cargo xtask test`: all there is to check in a few minutes.

use crate::rows::{self, Missing};
use crate::steps::{Outcome, Steps, cargo, checked};
use crate::{pack, qemu, setup, tidy};
use std::process::Command;

/// Packages whose tests run in release builds too: what is `unsafe`, timed or raced there differs.
const RELEASE: &str = "-p bsdvm -p bsdvm-sim -p bsdvm-x86_64";

/// Tests under a checker of interleavings: the checker, package, folder and test.
const CHECKED: [(&str, &str, &str, &str); 5] = [
    ("shuttle", "bsdvm", "vm", "shuttle"),
    ("shuttle", "bsdvm", "vm", "shuttle_kmem"),
    ("shuttle", "bsdvm", "vm", "shuttle_rows"),
    ("shuttle", "bsdvm-sim", "machines/sim", "shuttle"),
    ("loom", "bsdvm-sim", "machines/sim", "loom"),
];

/// Tests under loom that stand beside what they test, because it is nobody's to see from outside:
/// package, and the part of their names that they share.
const LOOM_WITHIN: [(&str, &str); 1] = [("bsdvm", "loom::")];

/// Tests under Miri: package, folder, test.
const MIRI: [(&str, &str, &str); 2] = [
    ("bsdvm", "vm", "miri"),
    ("bsdvm-sim", "machines/sim", "basics"),
];

/// Runs every check.
pub(crate) fn run(steps: &mut Steps) -> Outcome {
    setup::run(steps)?;
    steps.command("format", &mut cargo("fmt --all --check"))?;
    let mut clippy = cargo("clippy --workspace --all-targets -- -D warnings");
    steps.command("clippy", &mut clippy)?;
    tidy::run(steps, &tidy::Tidy::default())?;
    let (output, tested) = steps.output("tests", &mut cargo("test --workspace"));
    tested?;
    rows::judge(steps, &output, Missing::Listed)?;
    let mut release = cargo(&format!("test --release {RELEASE}"));
    steps.command("tests, release", &mut release)?;
    qemu::run(steps)?;
    // The command has the name of the core, and would write its pages over the core's.
    let mut doc = cargo("doc --no-deps --workspace --exclude bsdvm-cli");
    steps.command("documentation", doc.env("RUSTDOCFLAGS", "-Dwarnings"))?;
    pack::run(steps)?;
    interleavings(steps, |command| command)?;
    miri(steps)
}

/// The tests under shuttle and loom that exist, each command as `set` leaves it.
pub(crate) fn interleavings(
    steps: &mut Steps,
    set: impl Fn(&mut Command) -> &mut Command,
) -> Outcome {
    for (checker, package, folder, test) in CHECKED {
        if steps.has(&format!("{folder}/tests/{test}.rs")) {
            let arguments = format!("test --release -p {package} --test {test}");
            let mut command = checked(checker, &arguments);
            steps.command(&format!("{checker}: {package}"), set(&mut command))?;
        }
    }
    for (package, names) in LOOM_WITHIN {
        let arguments = format!("test --release -p {package} --lib {names}");
        let mut command = checked("loom", &arguments);
        steps.command(&format!("loom: {package}, within"), set(&mut command))?;
    }
    Ok(())
}

fn miri(steps: &mut Steps) -> Outcome {
    if !setup::has_miri() {
        steps.skip("miri", "the nightly toolchain has no Miri");
        return Ok(());
    }
    for (package, folder, test) in MIRI {
        if steps.has(&format!("{folder}/tests/{test}.rs")) {
            let mut miri = cargo(&format!("+nightly miri test -p {package} --test {test}"));
            // The pagers of tests are `'static`, and so never freed.
            miri.env("CARGO_TARGET_DIR", "target/miri")
                .env("MIRIFLAGS", "-Zmiri-ignore-leaks");
            steps.command(&format!("miri: {package}"), &mut miri)?;
        }
    }
    Ok(())
}
