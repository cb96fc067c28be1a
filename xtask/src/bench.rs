//! `cargo xtask bench`: the benchmarks, and their tables in the documentation.

use crate::steps::{Outcome, Steps, cargo};
use clap::Args;
use std::path::Path;
use std::process::Stdio;

/// The programs, in the order of their tables.
const PROGRAMS: [&str; 5] = ["maps", "pages", "core", "hosted", "programs"];
/// Where the tables go.
const DOCUMENT: &str = "docs/performance.md";
/// What stands before and after them there.
const MARKERS: [&str; 2] = ["<!-- tables: begin -->\n", "<!-- tables: end -->"];

/// What to measure.
#[derive(Args)]
pub(crate) struct Bench {
    /// Runs only this program: maps, pages, core, hosted or programs.
    program: Option<String>,
    /// Puts the tables in `docs/performance.md`; for all programs only.
    #[arg(long, conflicts_with = "program")]
    write: bool,
}

/// Measures.
pub(crate) fn run(steps: &mut Steps, args: &Bench) -> Outcome {
    let mut build = cargo("build --release --package bsdvm-benches --package bsdvm-cli");
    steps.command("benchmarks: build", &mut build)?;
    let mut tables = String::new();
    for program in PROGRAMS {
        if args.program.as_ref().is_none_or(|p| p == program) {
            let root = steps.root().to_path_buf();
            steps.check(&format!("benchmarks: {program}"), || {
                match output(&root, program) {
                    Ok(text) => {
                        print!("{text}");
                        tables.push_str(&text);
                        Vec::new()
                    }
                    Err(why) => vec![why],
                }
            })?;
        }
    }
    if args.write {
        let path = steps.root().join(DOCUMENT);
        steps.check(DOCUMENT, || match write(&path, &tables) {
            Ok(()) => Vec::new(),
            Err(why) => vec![why],
        })?;
    }
    Ok(())
}

fn output(root: &Path, program: &str) -> Result<String, String> {
    let mut run = cargo("run --quiet --release --package bsdvm-benches --bin");
    let run = run.arg(program).current_dir(root).stderr(Stdio::inherit());
    let output = run.output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(output.status.to_string());
    }
    String::from_utf8(output.stdout).map_err(|e| e.to_string())
}

fn write(path: &Path, tables: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let text = between(&text, tables).ok_or("no place for the tables")?;
    std::fs::write(path, text).map_err(|e| e.to_string())
}

/// `text` with `tables` between the markers; `None` where a marker is missing.
fn between(text: &str, tables: &str) -> Option<String> {
    let (before, rest) = text.split_once(MARKERS[0])?;
    let (_, after) = rest.split_once(MARKERS[1])?;
    let [begin, end] = MARKERS;
    Some(format!("{before}{begin}{tables}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_replace_what_stood_between_the_markers() {
        let [begin, end] = MARKERS;
        let text = format!("a\n{begin}old{end}\nb");
        let new = between(&text, "| 1 |\n");
        assert_eq!(new, Some(format!("a\n{begin}| 1 |\n\n{end}\nb")));
        assert_eq!(between("a", "b"), None);
    }
}
