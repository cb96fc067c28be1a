//! Guests that misbehave on purpose: the runner ends with their status, says nothing of itself, and
//! nothing is left. `--check` is on in all of them.

mod common;

use common::{bsdvm_for, guest, length, native, status, text};

/// Random calls of one program.
const CALLS: u64 = 5_000;

/// Runs the guest; gives what it said.
fn hostile(seconds: u64, options: &[&str], arguments: &[&str]) -> String {
    let program = guest("hostile").to_string_lossy().into_owned();
    let command: Vec<&str> = [program.as_str()]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    let got = bsdvm_for(seconds, options, &command);
    assert_eq!(text(&got.stderr), "", "{arguments:?}");
    assert_eq!(status(&got), 0, "{arguments:?}");
    text(&got.stdout)
}

#[test]
fn bad_arguments_of_every_call_harm_the_caller_alone() {
    let said = hostile(60, &[], &["arguments"]);
    assert_eq!(said, "hostile: every argument was bad\n");
}

#[test]
fn buffers_may_be_pulled_away_under_a_call() {
    let seconds = length("BSDVM_RACE_SECONDS", 4);
    let said = hostile(seconds, &[], &["races", &seconds.to_string()]);
    assert_eq!(said, "hostile: the buffers were pulled away\n");
}

#[test]
fn random_calls_harm_the_caller_alone() {
    let calls = length("BSDVM_FUZZ_CALLS", 2 * CALLS);
    for seed in 1..=calls.div_ceil(CALLS) {
        let said = hostile(60, &[], &["fuzz", &seed.to_string(), &CALLS.to_string()]);
        assert_eq!(
            said,
            format!("hostile: {CALLS} random calls\n"),
            "seed {seed}"
        );
    }
}

#[test]
fn nobody_sees_what_others_left_in_memory() {
    let said = hostile(0, &[], &["secrets"]);
    let program = guest("hostile");
    let expected = native(&[program.as_os_str(), "secrets".as_ref()]);
    assert_eq!(said, text(&expected.stdout));
    // So little memory that what was freed comes again at once.
    assert_eq!(hostile(0, &["--memory", "24M"], &["secrets"]), said);
}
