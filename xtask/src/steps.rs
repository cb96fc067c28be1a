//! Steps of a verb: run in order, timed, counted, ended by the first failure.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
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
        self.step(name, || match command.current_dir(root).status() {
            Ok(status) => ended(status),
            Err(e) => Err((format!("{command:?}: {e}"), 127)),
        })
    }

    /// Runs `command` as [`Steps::command`] does, and gives what it prints to its standard output,
    /// which is shown too.
    pub(crate) fn output(&mut self, name: &str, command: &mut Command) -> (String, Outcome) {
        let root = self.root.clone();
        let mut text = String::new();
        let outcome = self.step(name, || {
            let shown = format!("{command:?}");
            let failed = |e: std::io::Error| (format!("{shown}: {e}"), 127);
            let command = command.current_dir(root).stdout(Stdio::piped());
            let mut child = command.spawn().map_err(failed)?;
            for line in child.stdout.take().into_iter().flat_map(lines) {
                println!("{line}");
                text.push_str(&line);
                text.push('\n');
            }
            ended(child.wait().map_err(failed)?)
        });
        (text, outcome)
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

/// What a step has to say of a command that ended so.
fn ended(status: ExitStatus) -> Result<(), (String, u8)> {
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|c| u8::try_from(c).ok());
    Err((status.to_string(), code.unwrap_or(1)))
}

/// The lines of a stream, whatever bytes they have.
fn lines(stream: impl Read) -> impl Iterator<Item = String> {
    let lines = BufReader::new(stream).split(b'\n').map_while(Result::ok);
    lines.map(|line| String::from_utf8_lossy(&line).into_owned())
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
