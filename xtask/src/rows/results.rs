//! What a run of tests said, as libtest prints it.

use std::collections::BTreeMap;

/// How a test ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum End {
    /// It was not run: ignored, or part of another run.
    NotRun,
    /// It passed.
    Passed,
    /// It failed.
    Failed,
}

/// The ends of tests, by the last part of their names.
#[derive(Debug, Default)]
pub(super) struct Results(BTreeMap<String, End>);

impl Results {
    /// Reads what `cargo test` printed to its standard output.
    pub(super) fn read(output: &str) -> Results {
        let mut results = Results::default();
        for (name, end) in output.lines().filter_map(line) {
            // A test that two programs have counts by its worse end.
            let known = results.0.entry(name.to_owned()).or_insert(end);
            *known = (*known).max(end);
        }
        results
    }

    /// How the test of this name ended.
    pub(super) fn of(&self, name: &str) -> End {
        self.0.get(name).copied().unwrap_or(End::NotRun)
    }
}

/// The name, without its modules, and the end in a line such as `test map::m01_x ... ok`.
fn line(line: &str) -> Option<(&str, End)> {
    let (name, end) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let end = match end.split([' ', ',']).next()? {
        "ok" => End::Passed,
        "FAILED" => End::Failed,
        "ignored" => End::NotRun,
        _ => return None,
    };
    let name = name.split(" - ").next()?;
    Some((name.rsplit("::").next()?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libtest_prints_is_understood() {
        let output = "running 6 tests\n\
            test m01_a ... ok\n\
            test map::tests::m02_b - should panic ... ok\n\
            test m03_c ... FAILED\n\
            test m04_d ... ignored, needs a thing\n\
            test m05_e ... ok <0.010s>\n\
            test src/lib.rs - (line 38) ... ok\n\
            test m05_e ... FAILED\n\
            test m01_a ... ignored\n\
            test result: FAILED. 3 passed; 1 failed\n";
        let results = Results::read(output);
        let ends = ["m01_a", "m02_b", "m03_c", "m04_d", "m05_e", "m06_f"].map(|n| results.of(n));
        use End::{Failed, NotRun, Passed};
        assert_eq!(ends, [Passed, Passed, Failed, NotRun, Failed, NotRun]);
    }
}
