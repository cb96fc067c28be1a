//! The memory is ours: what the VM says of it is what the program and the host see.

mod common;

use common::stubs::{self, mappings_of_ours, parent};
use common::{bsdvm, busybox, guest, status, text};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn the_map_that_a_program_reads_is_the_one_that_we_print() {
    let acts = guest("acts");
    let output = bsdvm(&["--map"], &[acts.to_str().unwrap(), "maps"]);
    assert_eq!(text(&output.stdout), text(&output.stderr));
    let map = text(&output.stdout);
    assert!(
        map.contains("[heap]") && map.contains("[stack]") && map.contains("acts"),
        "{map}"
    );
}

fn zero_filled(pages: u32) -> u64 {
    let acts = guest("acts");
    let output = bsdvm(
        &["--stats"],
        &[acts.to_str().unwrap(), "touch", &pages.to_string()],
    );
    let table = text(&output.stderr);
    let line = table
        .lines()
        .find(|l| l.contains("demand-zero faults"))
        .expect("the counter");
    line.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number")
}

#[test]
fn a_program_that_touches_n_pages_shows_n_demand_zero_faults() {
    let none = zero_filled(0);
    for n in [1, 10, 1000] {
        assert_eq!(zero_filled(n) - none, u64::from(n));
    }
}

#[test]
fn call_1250_takes_effect() {
    let acts = guest("acts");
    let output = bsdvm(&[], &[acts.to_str().unwrap(), "inherit"]);
    assert_eq!(text(&output.stdout), "0 99 0\n-1 -1\n");
}

#[test]
fn m18_a_guest_keeps_page_tables_of_its_own() {
    let acts = guest("acts");
    let output = bsdvm(&[], &[acts.to_str().unwrap(), "tables"]);
    let expected = "0\n0\n1010\n23\n5 63\n5 0 1111\n-1 1\n-1 1\n11\n";
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn m19_a_guest_and_its_child_see_a_page_of_the_kernel() {
    let acts = guest("acts");
    let output = bsdvm(&[], &[acts.to_str().unwrap(), "kpmap"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "1 -1\n1\n1\n1\n1\n0\n1\n");
}

/// A guest that sleeps, and the processes below its runner.
fn sleeper() -> (Child, Vec<u32>) {
    // Whoever asked for it kills it and waits for it.
    #[allow(clippy::zombie_processes)]
    let child = Command::new(env!("CARGO_BIN_EXE_bsdvm"))
        .args([
            "run",
            "--",
            busybox(),
            "sh",
            "-c",
            "echo ready; exec busybox sleep 50",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let below = stubs::below(child.id());
        // The zygote and the guest's stub.
        if below.len() >= 2 {
            std::thread::sleep(Duration::from_millis(300));
            return (child, stubs::below(below_root(&below)));
        }
        assert!(Instant::now() < deadline, "no stub appears");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The parent of the stubs.
fn below_root(stubs: &[u32]) -> u32 {
    parent(stubs[0]).expect("a stub has a parent")
}

#[test]
fn a_runner_that_is_killed_leaves_no_process_behind() {
    let (mut runner, stubs) = sleeper();
    runner.kill().unwrap();
    runner.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while stubs.iter().any(|&p| stubs::runs(p)) {
        assert!(
            Instant::now() < deadline,
            "stubs outlive their runner: {stubs:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_guests_process_holds_no_memory_but_ours() {
    let (mut runner, stubs) = sleeper();
    let seen: usize = stubs.iter().map(|&stub| mappings_of_ours(stub)).sum();
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert!(seen > 0, "no page of the guest was seen");
}

#[test]
fn memory_that_was_given_never_exceeds_what_was_asked_for() {
    let acts = guest("acts");
    let acts = acts.to_str().unwrap();
    for (pages, expected) in [("4096", 0), ("16384", 137)] {
        let output = bsdvm(&["--memory", "32M", "--stats"], &[acts, "touch", pages]);
        let table = text(&output.stderr);
        let line = table
            .lines()
            .find(|l| l.contains("that the host gave"))
            .expect("the line");
        let given: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        assert!(given <= 32 << 20, "{given}");
        assert_eq!(status(&output), expected);
    }
}
