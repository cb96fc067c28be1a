//! Memory calls drawn at random, natively and under `bsdvm run --check`: line for line the same
//! results, error numbers, contents, faults and maps.

mod common;

use common::{bsdvm, guest, native, status, text};

/// Calls of each run.
const ROUNDS: &str = "600";

/// How many seeds to try; the soak tries more.
fn seeds() -> u64 {
    let asked = std::env::var("BSDVM_MEMORY_SEEDS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(24)
}

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
    for seed in 1..=seeds() {
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
