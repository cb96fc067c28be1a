//! Tables as the documents want them.

use crate::rounds::Stat;

/// A number with three digits that count.
pub fn number(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e4 => format!("{:.1} k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// How many times `ours` takes of what `theirs` does.
pub fn ratio(ours: Stat, theirs: Stat) -> String {
    match ours.to(&theirs) {
        small if small < 0.02 => format!("1/{:.0}", small.recip()),
        ratio => format!("{ratio:.2}×"),
    }
}

/// Median, least and most.
pub fn stat(stat: Stat) -> String {
    let Stat {
        median, min, max, ..
    } = stat;
    format!("{} ({}–{})", number(median), number(min), number(max))
}

/// Prints one row.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// Prints the head of a table.
pub fn head(title: &str, cells: &[&str]) {
    println!("\n### {title}\n");
    println!("| {} |", cells.join(" | "));
    println!("|{}", "---|".repeat(cells.len()));
}

/// Prints a row for one comparison: the ratios of the first contender to each other one, then the
/// nanoseconds of all.
pub fn comparison(what: &str, stats: &[(&str, Stat)]) {
    let Some(&(_, ours)) = stats.first() else {
        return;
    };
    let mut cells = vec![what.to_owned()];
    cells.extend(stats[1..].iter().map(|&(_, s)| ratio(ours, s)));
    cells.extend(stats.iter().map(|&(_, s)| stat(s)));
    row(&cells);
}
