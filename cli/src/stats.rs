//! The table that `--stats` prints.

use bsdvm::Counters;

/// One line for each counter, name and number.
pub(crate) fn table(c: &Counters, allocated_bytes: u64) -> String {
    format!("{c}{allocated_bytes:>12}  bytes of memory that the host gave\n")
}
