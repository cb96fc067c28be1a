//! The table that `--stats` prints.

use bsdvm::Counters;
use std::fmt::Write;

/// One line for each counter, name and number.
pub(crate) fn table(c: &Counters, allocated_bytes: u64) -> String {
    let rows = [
        ("faults", c.faults),
        ("demand-zero faults", c.zero_fill),
        ("resident faults", c.resident_faults),
        ("copied on write", c.cow_copied),
        ("reused on write", c.cow_reused),
        ("pages read in", c.page_in),
        ("pages written out", c.page_out),
        ("forks", c.forks),
        ("frames in all", c.frames_total),
        ("frames free", c.frames_free),
        ("spaces", c.spaces),
        ("objects", c.objects),
        ("pages charged", c.charged_pages),
        ("bytes of memory that the host gave", allocated_bytes),
    ];
    let mut out = String::new();
    for (name, number) in rows {
        let _ = writeln!(out, "{number:>12}  {name}");
    }
    out
}
