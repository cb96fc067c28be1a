//! `cargo xtask rows`: what the core has to be able to do, row by row, with the tests that show it.
//!
//! `list.rs` has the rows. A test belongs to a row by its name, `m07_…` to M07; `found.rs` finds
//! them in the sources, `results.rs` reads how they ended.

mod found;
mod list;
mod results;

use crate::steps::{Outcome, Steps, cargo};
use crate::tidy::tree::Tree;
use found::Test;
use list::{Due, NOT_YET, ROWS, Row};
use results::{End, Results};
use std::fmt::Write;

/// What a row without tests means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Missing {
    /// A failure, whichever row it is.
    Fails,
    /// A failure but for the rows that are listed as not there yet, which must have none.
    Listed,
}

/// Runs the tests of rows and no others, and judges every row.
pub(crate) fn run(steps: &mut Steps) -> Outcome {
    let tree = Tree::read(steps.root());
    let tests = found::tests(&tree);
    let mut command = cargo("test --no-fail-fast --tests");
    for package in found::packages(&tree, &tests) {
        command.args(["--package", &package]);
    }
    command.arg("--").args(tests.iter().map(|t| &t.name));
    let (output, ran) = steps.output("rows: tests", &mut command);
    judge(steps, &output, Missing::Fails).and(ran)
}

/// Prints the table of rows and judges them by what `cargo test` printed.
pub(crate) fn judge(steps: &mut Steps, output: &str, missing: Missing) -> Outcome {
    let tests = found::tests(&Tree::read(steps.root()));
    let results = Results::read(output);
    steps.check("rows", || {
        print!("{}", table(&tests, &results));
        broken(&tests, &results, missing)
    })
}

/// The tests of one row, with their ends.
fn of<'a>(
    row: &Row,
    tests: &'a [Test],
    results: &'a Results,
) -> impl Iterator<Item = (&'a Test, End)> {
    let tag = row.tag;
    let own = tests.iter().filter(move |t| t.tag == tag);
    own.map(|t| (t, results.of(&t.name)))
}

/// How many tests of a row ended so.
fn count(row: &Row, tests: &[Test], results: &Results, end: End) -> usize {
    of(row, tests, results).filter(|(_, e)| *e == end).count()
}

/// Rows with their counts, each followed by its tests.
fn table(tests: &[Test], results: &Results) -> String {
    let mut out = format!("{:4} {:56} passed failed not run\n", "row", "title");
    for row in &ROWS {
        let [passed, failed, rest] =
            [End::Passed, End::Failed, End::NotRun].map(|end| count(row, tests, results, end));
        let title = match row.due {
            Due::Now => row.title.to_owned(),
            Due::But(what) => format!("{} (not due: {what})", row.title),
            Due::Later(what) => format!("{} (not due: comes with {what})", row.title),
        };
        let _ = writeln!(
            out,
            "{:4} {title:56} {passed:6} {failed:6} {rest:7}",
            row.tag
        );
        for (test, end) in of(row, tests, results) {
            let end = match end {
                End::Passed => "passed",
                End::Failed => "FAILED",
                End::NotRun => "not run",
            };
            let _ = writeln!(out, "     {end:7} {}  {}", test.name, test.path);
        }
    }
    out
}

/// One line for each row that is not as it should be, and each test that belongs to none.
fn broken(tests: &[Test], results: &Results, missing: Missing) -> Vec<String> {
    let rows = ROWS.iter().filter_map(|row| {
        let tag = row.tag;
        let all = of(row, tests, results).count();
        let [passed, failed] =
            [End::Passed, End::Failed].map(|end| count(row, tests, results, end));
        let listed = missing == Missing::Listed && NOT_YET.contains(&tag);
        let due = !matches!(row.due, Due::Later(_));
        match (failed, passed, all) {
            (1.., _, _) => Some(format!("{tag}: {failed} failed")),
            (0, 0, 1..) if due => Some(format!("{tag}: none of its tests ran")),
            (0, 0, 0) if due && !listed => Some(format!("{tag}: no test")),
            (_, _, 1..) if listed => Some(format!(
                "{tag}: has tests: take it out of NOT_YET in xtask/src/rows/list.rs"
            )),
            _ => None,
        }
    });
    let stray = tests
        .iter()
        .filter(|test| !ROWS.iter().any(|row| row.tag == test.tag));
    let stray = stray.map(|test| format!("{}: {} names no row", test.path, test.name));
    rows.chain(stray).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str) -> Test {
        Test {
            tag: name[..3].to_uppercase(),
            name: name.to_owned(),
            path: "vm/tests/x.rs".to_owned(),
        }
    }

    #[test]
    fn rows_are_judged_by_their_tests() {
        // Every row passes but the ones that the test is about.
        let plain = |row: &&Row| !["K01", "K02", "M08", "M09", "O07"].contains(&row.tag);
        let names = ROWS.iter().filter(plain);
        let names = names.map(|row| format!("{}_x", row.tag.to_lowercase()));
        let mut names: Vec<String> = names.collect();
        let mut output: String = names.iter().map(|n| format!("test {n} ... ok\n")).collect();
        output.push_str("test k02_x ... ignored\ntest m09_a ... ok\ntest m09_b ... FAILED\n");
        names.extend(["k02_x", "m09_a", "m09_b", "k99_x"].map(str::to_owned));
        let tests: Vec<Test> = names.iter().map(|n| test(n)).collect();
        let results = Results::read(&output);
        let expected = [
            "K01: no test",
            "K02: none of its tests ran",
            "M08: no test",
            "M09: 1 failed",
            "vm/tests/x.rs: k99_x names no row",
        ];
        assert_eq!(broken(&tests, &results, Missing::Fails), expected);
        let listed = broken(&tests, &results, Missing::Listed);
        assert!(!listed.contains(&"K01: no test".to_owned()) || !NOT_YET.contains(&"K01"));
        assert!(listed.contains(&"M08: no test".to_owned()));
        let grown = listed.iter().filter(|l| l.contains("take it out"));
        let there = NOT_YET.iter().filter(|t| !["K01", "K02"].contains(t));
        assert_eq!(grown.count(), there.count());
        let table = table(&tests, &results);
        assert!(table.contains("\n     FAILED  m09_b  vm/tests/x.rs\n"));
    }
}
