//! The runner's own limits: what guests find as theirs, and what is lifted for the runner.
//!
//! They are read as text: a host that keeps the call from us (a container's filter) still lets us
//! read our own `/proc`.

use rustix::process::{Resource as R, Rlimit, setrlimit};

/// Soft and hard limits by number, as Linux counts them on x86-64; `u64::MAX` is none.
pub(crate) type Limits = [(u64, u64); 16];

/// `RLIMIT_NOFILE`.
const FILES: usize = 7;

/// The limits that would end the runner for what its guests do, by their numbers.
const LIFTED: [(R, usize); 5] = [
    (R::Cpu, 0),
    (R::Fsize, 1),
    (R::Data, 2),
    (R::Nproc, 6),
    (R::As, 9),
];

/// Those of the calling process.
pub(crate) fn own() -> Limits {
    parse(&std::fs::read_to_string("/proc/self/limits").unwrap_or_default())
}

/// The lines below the heading are in the order of the numbers, each a name of some words and
/// two values.
fn parse(text: &str) -> Limits {
    const NAME: usize = 26;
    let mut limits = [(u64::MAX, u64::MAX); 16];
    for (limit, line) in limits.iter_mut().zip(text.lines().skip(1)) {
        let values = line.get(NAME..).unwrap_or_default();
        let mut values = values.split_whitespace();
        let mut next = || values.next()?.parse().ok();
        // What is no number is no limit.
        *limit = (next().unwrap_or(u64::MAX), next().unwrap_or(u64::MAX));
    }
    limits
}

/// All guest processes share our descriptors: we take as many as we may have. And the limits of
/// guests are ours to keep: the runner, whose work is theirs, is not to die of them. A host that
/// refuses leaves what was.
pub(crate) fn lift(limits: &Limits) {
    let value = |n: u64| (n != u64::MAX).then_some(n);
    let most = |index: usize| {
        let maximum = value(limits[index].1);
        Rlimit {
            current: maximum,
            maximum,
        }
    };
    let none = Rlimit {
        current: None,
        maximum: None,
    };
    let _ = setrlimit(R::Nofile, most(FILES));
    for (resource, index) in LIFTED {
        let _ = setrlimit(resource, none).or_else(|_| setrlimit(resource, most(index)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_in_order() {
        let text = "\
Limit                     Soft Limit           Hard Limit           Units     \n\
Max cpu time              unlimited            unlimited            seconds   \n\
Max file size             4096                 unlimited            bytes     \n";
        let limits = parse(text);
        assert_eq!(limits[0], (u64::MAX, u64::MAX));
        assert_eq!(limits[1], (4096, u64::MAX));
        assert_eq!(limits[15], (u64::MAX, u64::MAX));
        assert_eq!(parse(""), [(u64::MAX, u64::MAX); 16]);
        // Ours has the descriptors that this test has.
        assert!(own()[FILES].0 >= 3);
    }
}
