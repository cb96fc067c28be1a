//! Every row: a capability that the core has to have, by its tag.

/// Whether a row has to have tests that pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// It has.
    Now,
    /// It has, but for a part that waits: which.
    But(&'static str),
    /// It waits for something else: for what. Its tests are listed all the same.
    Later(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// The first letters of the names of its tests, in upper case.
    pub(super) tag: &'static str,
    /// What it is about.
    pub(super) title: &'static str,
    pub(super) due: Due,
}

/// Rows that are due and have no test yet. This list may only shrink: a row in it that has tests
/// has to go, and a row outside of it that has none fails `cargo xtask test`.
pub(super) const NOT_YET: &[&str] = &[];

const fn row(tag: &'static str, title: &'static str) -> Row {
    Row {
        tag,
        title,
        due: Due::Now,
    }
}

impl Row {
    const fn but(self, due: Due) -> Row {
        Row { due, ..self }
    }
}

const SWAP: &str = "limits and swap";

/// The rows, in order.
pub(super) const ROWS: [Row; 72] = [
    row("K01", "submaps of the kernel map, and what a full one does"),
    row("K02", "kmem_alloc_pageable"),
    row("K03", "kmem_alloc: wired, zeroed, eager or late"),
    row("K04", "kmem_alloc_nofault: addresses without pages"),
    row("K05", "kmem_alloc_attr: range-limited pages"),
    row("K06", "kmem_alloc_contig: contiguous runs"),
    row("K07", "kmem_free never fails"),
    row("K08", "kmem_suballoc: carve a child map"),
    row("K09", "kmem_malloc: NOWAIT and WAITOK"),
    row(
        "K10",
        "kmem_malloc without addresses: rounds, then an error",
    ),
    row("K11", "kmem_back: pages under a reserved range"),
    row("K12", "neighbouring allocations fold into one entry"),
    row("K13", "kmem_alloc_wait and kmem_free_wakeup"),
    row("K14", "kmem_init: the kernel map"),
    row("K15", "zero region"),
    row("K16", "low-memory event"),
    row("K17", "tunables that can be read and set"),
    row("K18", "kernel page tables grow"),
    row("E01", "early boot: entries from a static pool"),
    row("E02", "entries reserved before the lock"),
    row("E03", "kernel reserve of entries"),
    row("E04", "what an entry holds"),
    row("E05", "merge with neighbours"),
    row("E06", "clip at a start or an end"),
    row("E07", "ranges in transition"),
    row("M01", "create a map"),
    row("M02", "lookup, also by many at once"),
    row("M03", "insert and coalesce"),
    row("M04", "find space"),
    row("M05", "find space and insert as one"),
    row("M06", "submap"),
    row("M07", "protect"),
    row("M08", "inherit"),
    row("M09", "remove"),
    row("M10", "check protection"),
    row("M11", "clean"),
    row("M12", "advice in the entry"),
    row("M13", "advice in the object"),
    row("M14", "prefault at insert"),
    row("M15", "hint for a new mapping"),
    row("M16", "lookup for a fault"),
    row("M17", "version stamp"),
    row("M18", "virtual page tables"),
    row("M19", "user-kernel shared maps"),
    row("W01", "user wiring"),
    row("W02", "kernel wiring"),
    row("W03", "quick wiring"),
    row("W04", "wire-future"),
    row("W05", "wired pages are copied at fork"),
    row("S01", "make a space"),
    row("S02", "references and holds"),
    row("S03", "exit order"),
    row("S04", "swap and anonymous counts"),
    row("S05", "fork: share, copy, none"),
    row("S06", "split at fork"),
    row("S07", "exec and unshare"),
    row("S08", "stacks"),
    row("S09", "stack growth"),
    row("O01", "objects of every kind"),
    row("O02", "chains stay short"),
    row("O03", "pages, queues and classes"),
    row("O04", "physical allocator"),
    row("O05", "fault"),
    row("O06", "pagers and truncation").but(Due::But("swap backends")),
    row("O07", "page-out").but(Due::Later(SWAP)),
    row("O08", "reservation").but(Due::Later(SWAP)),
    row("O09", "pmap"),
    row("O10", "kernel objects and zones"),
    row("O11", "objects used directly"),
    row("D01", "show map"),
    row("D02", "procvm"),
    row("D03", "counters"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole_and_ordered() {
        let series = [
            ('K', 18),
            ('E', 7),
            ('M', 19),
            ('W', 5),
            ('S', 9),
            ('O', 11),
            ('D', 3),
        ];
        let numbered = series.iter().flat_map(|(letter, last)| {
            let tags = 1..=*last;
            tags.map(move |n: u32| format!("{letter}{n:02}"))
        });
        let wanted: Vec<String> = numbered.collect();
        let tags: Vec<&str> = ROWS.iter().map(|row| row.tag).collect();
        assert_eq!(tags, wanted);
        for tag in NOT_YET {
            let row = ROWS.iter().find(|row| row.tag == *tag);
            let due = row.map(|row| row.due);
            assert!(due == Some(Due::Now), "{tag} is not due");
        }
    }
}
