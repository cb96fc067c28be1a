//! Steps of a verb: run in order, timed, counted, ended by the first failure.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// A step that failed, with the status for the shell.
#[derive(Debug)]
pub(crate) struct Failed(u8);

/// What a verb returns: the first failure ends it.
pub(crate) type Outcome = Result<(), Failed>;

/// The steps of one verb so far.
pub(crate) struct Steps {
    root: PathBuf,
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Steps {
    pub(crate) fn new(root: PathBuf) -> Steps {
        Steps {
            root,
            passed: 0,
            failed: 0,
            skipped: 0,
        }
    }

    /// The folder of the workspace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether `path` exists in the workspace.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Runs `command` in the folder of the workspace.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) -> Outcome {
        let root = self.root.clone();
        self.step(name, || {
            let status = command.current_dir(root).status();
            match status {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => {
                    let code = status.code().and_then(|c| u8::try_from(c).ok());
                    Err((status.to_string(), code.unwrap_or(1)))
                }
                Err(e) => Err((format!("{command:?}: {e}"), 127)),
            }
        })
    }

    /// Runs `check`, whose failures are lines to print.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Vec<String>) -> Outcome {
        self.step(name, || match check() {
            lines if lines.is_empty() => Ok(()),
            lines => Err((lines.join("\n"), 1)),
        })
    }

    /// Says that a step cannot run here, and why.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        self.skipped += 1;
        println!("== {name}: skipped: {why}");
    }

    fn step(&mut self, name: &str, body: impl FnOnce() -> Result<(), (String, u8)>) -> Outcome {
        println!("== {name}");
        let start = Instant::now();
        let result = body();
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("== {name}: ok, {seconds:.1} s");
                Ok(())
            }
            Err((why, status)) => {
                self.failed += 1;
                println!("{why}\n== {name}: FAILED after {seconds:.1} s");
                Err(Failed(status))
            }
        }
    }

    /// Prints the count of steps and gives the status for the shell.
    pub(crate) fn finish(self, done: Outcome) -> ExitCode {
        let skipped = match self.skipped {
            0 => String::new(),
            n => format!(", {n} skipped"),
        };
        println!("{} passed, {} failed{skipped}", self.passed, self.failed);
        match done {
            Ok(()) if self.failed == 0 => ExitCode::SUCCESS,
            Ok(()) => ExitCode::FAILURE,
            Err(Failed(status)) => ExitCode::from(status.max(1)),
        }
    }
}

/// `cargo` with `arguments`, split at spaces.
pub(crate) fn cargo(arguments: &str) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments.split_whitespace());
    command
}

/// `cargo` with `arguments` and `--cfg checker`, in a target folder of its own so that ordinary
/// builds stay.
pub(crate) fn checked(checker: &str, arguments: &str) -> Command {
    let mut command = cargo(arguments);
    command.env("RUSTFLAGS", format!("--cfg {checker}"));
    command.env("CARGO_TARGET_DIR", format!("target/{checker}"));
    command
}
