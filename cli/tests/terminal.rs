//! Terminals: job control, keys that mean signals, and what is left when the runner is killed.

mod common;

use common::pty::Session;
use common::stubs::{below, mappings_of_ours};
use rustix::termios::LocalModes;
use std::process::Command;

const BSDVM: &str = env!("CARGO_BIN_EXE_bsdvm");
const PROMPT: &str = "ready> ";
const INTERRUPT: &str = "\x03";
const SUSPEND: &str = "\x1a";
const END: &str = "\x04";

/// Waits until a job is stopped.
const STOPPED: &str = "until jobs -s | grep -q .; do sleep 0.05; done";

/// What is waited for, and what is typed then.
type Step<'a> = (&'a str, &'a str);

/// The transcript of a session, natively and under `bsdvm`, with the numbers of jobs' processes
/// taken out.
fn same_session(program: &[&str], steps: &[Step]) {
    let transcript = |command: Vec<&str>| {
        let mut session = Session::start(&command);
        let mut seen = 0;
        for (shown, keys) in steps {
            session.wait_for(shown);
            // The runner leads the session; natively the program does, which has no stub.
            let stubs = below(session.pid());
            seen += stubs.into_iter().map(mappings_of_ours).sum::<usize>();
            session.type_keys(keys);
        }
        let (text, status) = session.end();
        (without_numbers(&text), status, seen)
    };
    let expected = transcript(program.to_vec());
    let got = transcript([&[BSDVM, "run", "--check", "--"][..], program].concat());
    assert_eq!(got.0, expected.0);
    assert_eq!(got.1, expected.1);
    assert!(got.2 > 0 && expected.2 == 0, "no page was seen in a stub");
}

/// `[1] 4711` is how a shell tells the process of a job.
fn without_numbers(text: &str) -> String {
    let line = |line: &str| match line.split_once("] ") {
        Some((job, pid)) if job.starts_with('[') && pid.trim().parse::<u32>().is_ok() => {
            format!("{job}] PID")
        }
        _ => line.to_owned(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_interactive_shell_with_job_control_says_the_same() {
    let steps = [
        (
            PROMPT,
            "echo hello; tty > /dev/null && echo on a terminal\n",
        ),
        // Interrupted and quit, in the foreground.
        (PROMPT, "sh -c 'echo go; exec sleep 100'\n"),
        ("\r\ngo\r\n", INTERRUPT),
        (PROMPT, "echo $?\n"),
        (
            PROMPT,
            "sh -c 'trap \"echo caught; exit 4\" INT; echo go; read x'\n",
        ),
        ("\r\ngo\r\n", INTERRUPT),
        (PROMPT, "echo $?\n"),
        // Suspended, and back in the foreground.
        (PROMPT, "sh -c 'echo go; exec cat'\n"),
        ("\r\ngo\r\n", "a line\n"),
        ("a line\r\na line\r\n", SUSPEND),
        (PROMPT, "jobs\n"),
        (PROMPT, "fg\n"),
        ("exec cat'\r\n", "more\n"),
        ("more\r\nmore\r\n", END),
        // A job in the background, killed.
        (PROMPT, "sleep 100 &\n"),
        (PROMPT, "jobs\n"),
        (PROMPT, "kill %1; wait %1; echo $?\n"),
        // One that reads is stopped, and goes on in the foreground.
        (PROMPT, &format!("(read x; echo got $x) & {STOPPED}\n")),
        (PROMPT, "fg > /dev/null\n"),
        ("/dev/null\r\n", "abc\n"),
        // One that writes, where that is not allowed.
        (
            PROMPT,
            &format!("stty tostop; (echo out) & {STOPPED}; stty -tostop\n"),
        ),
        (PROMPT, "fg > /dev/null\n"),
        // A pipeline is suspended whole, and continued in the background.
        (PROMPT, "sh -c 'echo go; exec sleep 100' | cat\n"),
        ("\r\ngo\r\n", SUSPEND),
        (PROMPT, "bg > /dev/null; kill %1; wait %1; echo $?\n"),
        (PROMPT, "cat /dev/tty\n"),
        ("/dev/tty\r\n", "typed\n"),
        ("typed\r\ntyped\r\n", END),
        (PROMPT, "exit 3\n"),
    ];
    same_session(&["bash", "--norc", "--noediting", "-i"], &steps);
}

#[test]
fn a_shell_that_edits_its_lines_does_too() {
    let steps = [
        (PROMPT, "echo rigt\x08ht\n"),
        (PROMPT, "\x10\n"),
        (PROMPT, "stty size\n"),
        (PROMPT, END),
    ];
    same_session(&["bash", "--norc", "-i"], &steps);
}

#[test]
fn a_terminal_within_the_terminal_has_its_own_jobs() {
    // A guest opens a pseudo-terminal and runs a shell on it: it writes the keys that reach that.
    let steps = [
        (
            PROMPT,
            "python3 -c 'import pty; pty.spawn([\"bash\", \"--norc\", \"--noediting\", \"-i\"])'\n",
        ),
        (PROMPT, "sh -c 'echo go; exec sleep 100'\n"),
        ("\r\ngo\r\n", INTERRUPT),
        (PROMPT, "echo $?\n"),
        (PROMPT, "sh -c 'echo go; exec cat'\n"),
        ("\r\ngo\r\n", SUSPEND),
        (PROMPT, "fg\n"),
        ("exec cat'\r\n", "x\n"),
        ("x\r\nx\r\n", INTERRUPT),
        (PROMPT, "exit 5\n"),
        (PROMPT, "exit 6\n"),
    ];
    same_session(&["bash", "--norc", "--noediting", "-i"], &steps);
}

#[test]
fn the_user_suspends_the_runner_with_its_program() {
    // The outer shell is the host's own.
    let run = format!("{BSDVM} run --check -- sh -c 'echo go; exec cat'\n");
    let native = "sh -c 'echo go; exec cat'\n".to_owned();
    let session = |line: &str| {
        let mut session = Session::start(&["bash", "--norc", "--noediting", "-i"]);
        let steps = [
            (PROMPT, line),
            ("\r\ngo\r\n", SUSPEND),
            (PROMPT, "jobs | cut -c 1-12\n"),
            (PROMPT, "fg\n"),
            ("exec cat'\r\n", "x\n"),
            ("x\r\nx\r\n", INTERRUPT),
            (PROMPT, "echo $?\n"),
            (PROMPT, "exit\n"),
        ];
        for (shown, keys) in steps {
            session.wait_for(shown);
            session.type_keys(keys);
        }
        let text = session.end().0;
        // Behind the line that starts it, which is not the same, and the notice that repeats it.
        let rest = text.split_once("\r\ngo\r\n").unwrap().1.to_owned();
        let kept = rest.lines().filter(|l| !l.contains("exec cat"));
        // A shell begins a new line for what an interruption killed; the runner ends with 130.
        kept.collect::<Vec<_>>().join("\n").replace("^C\n", "^C")
    };
    assert_eq!(session(&run), session(&native));
}

#[test]
fn a_runner_that_is_killed_leaves_the_terminal_as_it_was() {
    let mut session = Session::start(&[
        "bash",
        "--norc",
        "--noediting",
        "-c",
        &format!(
            "{BSDVM} run -- sh -c 'stty raw -echo; echo go; exec sleep 100'; echo ended; read x"
        ),
    ]);
    session.wait_for("go");
    assert!(!session.settings().local_modes.contains(LocalModes::ECHO));
    let runner = Command::new("pgrep")
        .args(["-P", &session.pid().to_string()])
        .output();
    let runner = String::from_utf8(runner.expect("pgrep").stdout).unwrap();
    let killed = Command::new("kill").args(["-9", runner.trim()]).status();
    assert!(killed.expect("kill").success());
    session.wait_for("ended");
    // Whoever puts it right again is another process.
    let mut tries = 0;
    while !session
        .settings()
        .local_modes
        .contains(LocalModes::ECHO | LocalModes::ICANON)
    {
        assert!(tries < 500, "the terminal stays as the program left it");
        tries += 1;
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    session.type_keys("x\n");
    session.end();
}
