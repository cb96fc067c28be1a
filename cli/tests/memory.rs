//! Memory under stress: calls drawn at random, natively and under `bsdvm run --check`, line for
//! line the same results, error numbers, contents, faults and maps; and threads that change one
//! space while others fork.

mod common;

use common::{bsdvm, bsdvm_for, guest, length, native, same, status, text};

/// Calls of each run.
const ROUNDS: &str = "600";

/// The first line that differs, with those before it.
fn difference(expected: &str, got: &str) -> String {
    let pairs = expected.lines().zip(got.lines());
    let same = pairs.take_while(|(a, b)| a == b).count();
    let before: Vec<_> = expected.lines().take(same).collect();
    format!(
        "{}\nnatively {:?}\nhere     {:?}",
        before[same.saturating_sub(20)..].join("\n"),
        expected.lines().nth(same),
        got.lines().nth(same)
    )
}

#[test]
fn random_memory_calls_answer_as_the_hosts_do() {
    let program = guest("memdiff").to_string_lossy().into_owned();
    for seed in 1..=length("BSDVM_MEMORY_SEEDS", 24) {
        let command = [program.clone(), seed.to_string(), ROUNDS.to_owned()];
        let (expected, got) = (native(&command), bsdvm(&[], &command));
        let (expected_text, got_text) = (text(&expected.stdout), text(&got.stdout));
        assert!(
            got_text == expected_text,
            "seed {seed}:\n{}",
            difference(&expected_text, &got_text)
        );
        assert_eq!(text(&got.stderr), "", "seed {seed}");
        assert_eq!((status(&expected), status(&got)), (0, 0), "seed {seed}");
    }
}

#[test]
fn limits_seals_flags_and_tails_answer_as_the_hosts_do() {
    same(&[guest("answers")]);
}

/// Four threads fault, map, unmap, protect, advise and move while two others fork.
fn crowd(seconds: u64, options: &[&str]) {
    let program = guest("crowd").to_string_lossy().into_owned();
    let got = bsdvm_for(
        seconds,
        options,
        &[program, seconds.to_string(), "4".into()],
    );
    assert_eq!(text(&got.stderr), "");
    assert_eq!(text(&got.stdout), "crowd: every word is where it belongs\n");
    assert_eq!(status(&got), 0);
}

#[test]
fn threads_change_a_space_while_others_fork() {
    crowd(length("BSDVM_CROWD_SECONDS", 20), &[]);
}
