//! `--trace`: every event, in the format that `docs/trace.md` promises.

mod common;

use common::{bsdvm, busybox, counted, guest, status, text};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    let name = format!("{name}.{}", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Runs `program` with `--trace` and `--stats`; gives the lines and the table.
fn traced(name: &str, program: &[&str]) -> (Vec<String>, String) {
    let file = file(name);
    let path = file.to_str().unwrap();
    let output = bsdvm(&["--stats", "--trace", path], program);
    assert_eq!(status(&output), 0, "{}", text(&output.stderr));
    let lines = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let lines = lines.lines().map(str::to_owned).collect();
    (lines, text(&output.stderr))
}

fn with(lines: &[String], what: &str) -> usize {
    lines.iter().filter(|l| l.contains(what)).count()
}

/// Pages in the lines of an event.
fn pages(lines: &[String], event: &str) -> usize {
    let lines = lines.iter().filter(|l| l.contains(&format!(" {event} ")));
    let pages = lines.filter_map(|l| {
        l.split(" pages=")
            .nth(1)?
            .split(' ')
            .next()?
            .parse::<usize>()
            .ok()
    });
    pages.sum()
}

#[test]
fn a_program_that_touches_n_pages_shows_n_zero_fill_events() {
    let acts = guest("acts");
    let run = |n: &str| traced(&format!("touch-{n}"), &[acts.to_str().unwrap(), "touch", n]);
    let zero_filled = |lines: &[String]| with(lines, "outcome=ZeroFill");
    let none = zero_filled(&run("0").0);
    for n in [1, 10, 1000] {
        let (lines, table) = run(&n.to_string());
        assert_eq!(zero_filled(&lines) - none, n);
        // The trace and the counters say the same.
        assert_eq!(zero_filled(&lines), counted(&table, "demand-zero faults"));
        assert_eq!(with(&lines, " fault "), counted(&table, "faults"));
        assert_eq!(pages(&lines, "page-in"), counted(&table, "pages read in"));
    }
}

/// The fields of each event as the document lists them.
fn documented() -> BTreeMap<String, Vec<String>> {
    let text = include_str!("../../docs/trace.md");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('`');
        let (event, fields) = (cells.next()?, cells.nth(1)?);
        let fields = fields.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let whole = fields.last().is_some_and(|field| field == "outcome");
        whole.then(|| (event.to_owned(), fields))
    });
    rows.collect()
}

#[test]
fn each_line_is_as_the_document_says() {
    let documented = documented();
    assert!(documented.len() > 15, "{documented:?}");
    let script = "echo a | cat; ls / >/dev/null; (exit 3); true";
    let (lines, table) = traced("format", &[busybox(), "sh", "-c", script]);
    let mut seen = BTreeSet::new();
    for (line, number) in lines.iter().zip(1..) {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], number.to_string(), "numbered in order");
        assert!(words[1] == "-" || words[1].parse::<u32>().is_ok(), "{line}");
        let fields = words[3..].iter().map(|w| w.split_once('=').expect(line).0);
        let fields: Vec<&str> = fields.collect();
        assert_eq!(documented.get(words[2]).expect(line), &fields, "{line}");
        seen.insert(words[2]);
    }
    for event in [
        "create", "map", "fault", "page-in", "fork", "remove", "protect", "end",
    ] {
        assert!(seen.contains(event), "no {event}");
    }
    assert_eq!(with(&lines, " fork "), counted(&table, "forks"));
    // Every space that was made has ended.
    assert_eq!(with(&lines, " create "), with(&lines, " end "));
}

#[test]
fn a_file_that_cannot_be_written_is_refused() {
    for bad in ["/no/such/folder/trace", "/"] {
        let output = bsdvm(&["--trace", bad], &[busybox(), "echo", "ran"]);
        let said = text(&output.stderr);
        assert!(
            said.starts_with(&format!("bsdvm: --trace {bad}: ")),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!((text(&output.stdout).as_str(), status(&output)), ("", 125));
    }
    // A disk that is full is seen late: the program has run, and the line says what is missing.
    let output = bsdvm(&["--trace", "/dev/full"], &[busybox(), "echo", "ran"]);
    let said = text(&output.stderr);
    assert!(
        said.starts_with("bsdvm: --trace /dev/full: No space left"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(
        (text(&output.stdout).as_str(), status(&output)),
        ("ran\n", 125)
    );
}
