//! `--swap`: programs larger than memory end as they do natively, and see where their pages are.

mod common;

use common::{bsdvm, bsdvm_for, counted, guest, length, native, same_with, status, text};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Memory, and programs of three times as much.
const TIGHT: [&str; 4] = ["--memory", "16M", "--swap", "256M"];
const MUCH: &str = "48";

fn swap(what: &str, much: &str) -> Vec<String> {
    let program = guest("swap").to_string_lossy().into_owned();
    vec![program, what.to_owned(), much.to_owned()]
}

#[test]
fn memory_of_every_kind_comes_back_as_it_was() {
    for what in ["private", "copies", "shared", "threads"] {
        same_with(&TIGHT, &swap(what, MUCH));
    }
}

/// The numbers of `--stats`, of a run of `command` in memory that is short.
fn stats(command: &[String]) -> impl Fn(&str) -> usize + use<> {
    let options = [&TIGHT[..], &["--stats"]].concat();
    let output = bsdvm(&options, command);
    assert_eq!(status(&output), 0, "{}", text(&output.stderr));
    let table = text(&output.stderr);
    move |what| counted(&table, what)
}

#[test]
fn pages_go_and_come_many_at_a_time() {
    let counted = stats(&swap("private", MUCH));
    let (out, writes) = (counted("of them to swap"), counted("writes to swap"));
    let (back, reads) = (counted("of them from swap"), counted("reads of swap"));
    // Pages that go unwritten fill part of many batches.
    assert!(out >= 8 * 1024 && writes * 8 <= out, "{out} in {writes}");
    // A third of what is read is read at random, and so are some pages twice.
    assert!(back >= 8 * 1024 && reads * 2 <= back, "{back} in {reads}");
    assert_eq!(counted("swap slots used"), 0);
}

#[test]
fn a_program_finds_out_what_is_on_swap() {
    let output = bsdvm(&TIGHT, &swap("seen", MUCH));
    let expected = "swap 1\nas meminfo 1\na locked one 22\ncold 0\nout 0\n\
                    VmSwap 48 kB, Swap 48 kB\n0000000000001111\npagemap 01 10\nback 0\n\
                    major faults 1\nVmSwap 0 kB\nlocked stays 1111\nmuch 0, locked 0\n";
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    assert_eq!(status(&output), 0);
    let figures = "cat /proc/swaps; grep Swap /proc/meminfo";
    let output = bsdvm(&["--swap", "64M"], &["/bin/sh", "-c", figures]);
    let told = text(&output.stdout);
    let words: Vec<&str> = told.split_whitespace().collect();
    let expected = "Filename Type Size Used Priority /swap\\040(deleted) file 65536 0 -2 SwapCached: 0 kB \
                    SwapTotal: 65536 kB SwapFree: 65536 kB";
    assert_eq!(words.join(" "), expected);
}

#[test]
fn programs_with_much_data_end_as_they_do_natively() {
    let sort = "seq 1 700000 | awk '{ print ($1 * 7919) % 1000003, $1 }' | sort -n -S 100M | cksum";
    same_with(&TIGHT, &["/bin/sh", "-c", sort]);
    let strings = "words = [str(i) * 3 for i in range(300000)]\n\
                   words.sort(key=lambda w: w[::-1])\n\
                   print(len(words), words[0], words[-1], sum(map(len, words)))";
    same_with(
        &["--memory", "24M", "--swap", "256M"],
        &["python3", "-c", strings],
    );
}

#[test]
fn random_memory_calls_answer_as_ever_where_memory_is_short() {
    let program = guest("memdiff").to_string_lossy().into_owned();
    let options = ["--memory", "2M", "--swap", "64M"];
    for seed in 1001..=1000 + length("BSDVM_SWAP_SEEDS", 4) {
        same_with(
            &options,
            &[program.clone(), seed.to_string(), "300".to_owned()],
        );
    }
}

/// Four threads and two that fork, where their pages come and go.
#[test]
fn threads_change_a_space_whose_pages_come_and_go() {
    let seconds = length("BSDVM_SWAP_SECONDS", 5);
    let program = guest("crowd").to_string_lossy().into_owned();
    let got = bsdvm_for(
        seconds,
        &["--memory", "4M", "--swap", "64M"],
        &[program, seconds.to_string(), "4".into()],
    );
    assert_eq!(text(&got.stderr), "");
    assert_eq!(text(&got.stdout), "crowd: every word is where it belongs\n");
    assert_eq!(status(&got), 0);
}

#[test]
fn with_memory_and_swap_gone_the_largest_is_killed_and_named() {
    let greedy = swap("private", "64").join(" ");
    let script = format!("{greedy}; echo $?; echo still here");
    let options = ["--memory", "16M", "--swap", "16M"];
    let output = bsdvm(&options, &["/bin/sh", "-c", &script]);
    let said = text(&output.stderr);
    let first = said.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("bsdvm: out of memory (16M and 16M of swap): killed process "),
        "{said}"
    );
    assert!(first.ends_with("(swap)"), "{said}");
    assert_eq!(text(&output.stdout), "137\nstill here\n");
}

/// A write that the host refuses for ever: the pages stay, and what fits in memory goes on.
#[test]
fn a_disk_that_cannot_be_written_loses_nothing() {
    let deny = guest("deny").to_string_lossy().into_owned();
    let run = env!("CARGO_BIN_EXE_bsdvm");
    let pwrite64 = "18";
    let mut command = vec![deny.as_str(), pwrite64, run, "run", "--check"];
    command.extend(TIGHT);
    let fits = swap("private", "8");
    let output = native(
        &[
            &command[..],
            &fits.iter().map(String::as_str).collect::<Vec<_>>(),
        ]
        .concat(),
    );
    assert_eq!(output.stdout, native(&fits).stdout);
    assert_eq!((text(&output.stderr).as_str(), status(&output)), ("", 0));
    let large = swap("private", MUCH);
    let large: Vec<&str> = large.iter().map(String::as_str).collect();
    let output = native(&[&command[..], &large].concat());
    assert!(text(&output.stderr).starts_with("bsdvm: out of memory"));
    assert_eq!(status(&output), 137);
}

/// The file behind the runner's back cut to nothing: what was there cannot be read.
#[test]
fn what_cannot_be_read_back_is_a_bus_error() {
    let mut runner = Command::new(env!("CARGO_BIN_EXE_bsdvm"))
        .args(["run", "--check"])
        .args(TIGHT)
        .arg("--")
        .args(swap("wait", "8"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(runner.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "out\n");
    let open = std::fs::read_dir(format!("/proc/{}/fd", runner.id())).unwrap();
    let unnamed = open.flatten().find(|entry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        target.ends_with("(deleted)") && !target.contains("memfd:")
    });
    let file = unnamed.expect("a file without a name").path();
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.set_len(0).unwrap();
    runner.stdin.take().unwrap().write_all(b"x").unwrap();
    let output = runner.wait_with_output().unwrap();
    assert_eq!(status(&output), 128 + 7, "SIGBUS");
}
