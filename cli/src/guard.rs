//! The guard of the terminal: puts it right again when the runner is killed.
//!
//! A program may leave its terminal in any state when it ends by itself, as it may natively. But a
//! runner that gets `SIGKILL` ends a program that had no say in it, so a process of its own waits
//! for that: it holds the other end of a pipe, which says a word before an ordinary end and
//! nothing before any other. It is there only while standard input, output or error is a
//! terminal.

use bsdvm_host::HostPlatform;
use bsdvm_linux::platform::{HostFile, Platform, TerminalAnswer, TerminalCall};
use clap::Args;
use std::io::{Read, Write, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ChildStdin, Command, ExitCode, Stdio};

/// What the hidden verb `guard` takes.
#[derive(Args, Debug)]
pub(crate) struct GuardArgs {
    /// The settings to go back to: `struct termios` as hexadecimal digits
    settings: String,
}

/// The runner's side. Dropped when the runner ends by itself.
pub(crate) struct Guard {
    pipe: ChildStdin,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A guard that is gone has nothing to be told.
        let _ = self.pipe.write_all(b".");
    }
}

/// Starts a guard, if there is a terminal to be guarded. A host that refuses leaves us without.
pub(crate) fn start(platform: &HostPlatform) -> Option<Guard> {
    let settings = (0..3).find_map(|n| Some((n, settings(platform, n)?)));
    let (number, settings) = settings?;
    let digits: String = settings.iter().map(|b| format!("{b:02x}")).collect();
    let mut guard = Command::new("/proc/self/exe");
    guard.args(["guard", &digits]).stdin(Stdio::piped());
    guard.stdout(Stdio::from(terminal(number)?));
    guard.stderr(Stdio::null()).current_dir("/");
    let pipe = guard.spawn().ok()?.stdin.take()?;
    Some(Guard { pipe })
}

/// The settings of a standard descriptor that is a terminal.
fn settings(platform: &HostPlatform, number: u32) -> Option<[u8; 36]> {
    match platform.standard(number)?.terminal(TerminalCall::Get) {
        Ok(TerminalAnswer::Termios(settings)) => Some(settings),
        _ => None,
    }
}

fn terminal(number: u32) -> Option<OwnedFd> {
    let fd = match number {
        0 => stdin().as_fd().try_clone_to_owned(),
        1 => std::io::stdout().as_fd().try_clone_to_owned(),
        _ => std::io::stderr().as_fd().try_clone_to_owned(),
    };
    fd.ok()
}

/// The guard's side: standard input is the pipe, standard output the terminal.
pub(crate) fn guard(args: &GuardArgs) -> ExitCode {
    // Of another session: the terminal's keys and job control are nothing to it.
    let _ = rustix::process::setsid();
    let Some(settings) = parse(&args.settings) else {
        return ExitCode::FAILURE;
    };
    let mut word = [0];
    if !matches!(stdin().read(&mut word), Ok(0)) {
        return ExitCode::SUCCESS;
    }
    let platform = HostPlatform::new();
    let set = |file: &<HostPlatform as Platform>::File| {
        file.terminal(TerminalCall::Set(0, settings)).is_ok()
    };
    match platform.standard(1) {
        Some(file) if set(&file) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn parse(digits: &str) -> Option<[u8; 36]> {
    let mut settings = [0; 36];
    if digits.len() != settings.len() * 2 || !digits.is_ascii() {
        return None;
    }
    for (i, byte) in settings.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[i * 2..i * 2 + 2], 16).ok()?;
    }
    Some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_36_bytes_in_hexadecimal() {
        assert_eq!(parse(&"0a".repeat(36)), Some([10; 36]));
        assert_eq!(parse(&"0a".repeat(35)), None);
        assert_eq!(parse(&"0x".repeat(36)), None);
        assert_eq!(parse(&"é".repeat(36)), None);
    }
}
