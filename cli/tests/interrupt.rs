//! Signals that are sent to the runner reach the program, and its status is the runner's.

mod common;

use common::{busybox, ended, text};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A shell in a runner, which has said `ready`.
fn shell(script: &str) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bsdvm"));
    command.args(["run", "--check", "--", busybox(), "sh", "-c", script]);
    command.stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, out)
}

fn send(signal: &str, child: &Child) {
    let pid = child.id().to_string();
    let mut kill = Command::new("kill");
    assert!(kill.args(["-s", signal, &pid]).status().unwrap().success());
}

/// What is left of the output, and the status; a signal that killed the runner is negative.
fn end(mut child: Child, mut out: BufReader<ChildStdout>) -> (String, i32) {
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    (text(&rest), ended(child.wait().unwrap()))
}

#[test]
fn an_interruption_ends_the_program_and_the_runner_like_it() {
    for (signal, status) in [("INT", -2), ("TERM", -15), ("HUP", -1)] {
        let (child, out) = shell("echo ready; exec busybox sleep 50");
        send(signal, &child);
        assert_eq!(end(child, out), (String::new(), status), "{signal}");
    }
}

#[test]
fn a_program_may_catch_an_interruption() {
    let script =
        "trap 'echo caught; exit 5' INT TERM; echo ready; while :; do busybox sleep 0.05; done";
    for signal in ["INT", "TERM"] {
        let (child, out) = shell(script);
        send(signal, &child);
        assert_eq!(end(child, out), ("caught\n".to_owned(), 5), "{signal}");
    }
}

#[test]
fn an_interruption_reaches_the_whole_foreground_group() {
    let script = "trap 'echo mine' INT; echo ready; busybox sleep 50; echo $?";
    let (child, out) = shell(script);
    std::thread::sleep(std::time::Duration::from_millis(300));
    send("INT", &child);
    assert_eq!(end(child, out), ("mine\n130\n".to_owned(), 0));
}

#[test]
fn a_loop_that_computes_is_interrupted() {
    let (child, out) = shell("echo ready; while :; do :; done");
    send("INT", &child);
    assert_eq!(end(child, out), (String::new(), -2));
}
