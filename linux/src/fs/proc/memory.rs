//! What `/proc` says about the memory of a process: sums, mapping by mapping, page by page.
//!
//! A page counts as there when a fault on it would find it in memory, except that pages of files
//! count only where they are mapped: that is how Linux counts them.

use super::Node;
use super::process::Whose;
use crate::errno::Errno;
use crate::maps;
use crate::platform::Platform;
use crate::process::Process;
use crate::space::{AddressSpace, ON_FAULT, WIPED};
use crate::system::Linux;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bsdvm::{Behavior, EntryInfo, Inherit, Pmap, Prot, Sharing, VirtAddr, VirtRange};
use core::fmt::Write;

/// Sums over a process's space.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) mapped_bytes: u64,
    /// Pages.
    pub(super) resident: u64,
}

impl Figures {
    pub(super) fn of<P: Platform>(process: &Process<P>) -> Figures {
        process.space().map_or(Figures::default(), |s| Figures {
            mapped_bytes: s.core().size(),
            resident: s.core().resident(),
        })
    }
}

/// Pages of one mapping.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    there: u64,
    anonymous: u64,
    dirty: u64,
    locked: u64,
    swapped: u64,
}

impl Counted {
    fn with(self, o: Counted) -> Counted {
        Counted {
            there: self.there + o.there,
            anonymous: self.anonymous + o.anonymous,
            dirty: self.dirty + o.dirty,
            locked: self.locked + o.locked,
            swapped: self.swapped + o.swapped,
        }
    }
}

fn is_anonymous(entry: &EntryInfo) -> bool {
    entry.sharing == Sharing::Private && entry.file.is_none()
}

/// Tells each page of an entry that is there, in ascending order.
fn pages<P: Platform>(
    space: &AddressSpace<P>,
    range: VirtRange,
    entry: &EntryInfo,
    each: &mut dyn FnMut(VirtAddr),
) {
    let core = space.core();
    let mut there = BTreeSet::new();
    core.with_pmap(|pmap| {
        pmap.scan(range, &mut |va, _| {
            there.insert(va);
        });
    });
    if entry.file.is_none() {
        core.residents(range, &mut |va| {
            there.insert(va);
        })
        .ok();
    }
    there.into_iter().for_each(each);
}

fn count<P: Platform>(space: &AddressSpace<P>, entry: &EntryInfo) -> Counted {
    let mut counted = Counted::default();
    pages(space, entry.range, entry, &mut |_| counted.there += 1);
    let writable = entry.prot.contains(Prot::WRITE);
    if is_anonymous(entry) {
        counted.anonymous = counted.there;
    }
    if is_anonymous(entry) || (entry.file.is_none() && writable) {
        counted.dirty = counted.there;
    }
    if entry.wired > 0 || entry.user_wired {
        counted.locked = counted.there;
    }
    counted.swapped = swapped(space, entry);
    counted
}

/// Pages of an entry that are on swap: private ones, and those of memory that is shared.
fn swapped<P: Platform>(space: &AddressSpace<P>, entry: &EntryInfo) -> u64 {
    let mut count = 0;
    space
        .core()
        .swapped(entry.range, &mut |_, _| count += 1)
        .ok();
    count
}

/// The lines that follow a mapping's, or all together.
fn lines(c: &Counted, shared: bool, out: &mut String) {
    let kib = 4;
    let clean = c.there - c.dirty;
    let (shared_clean, shared_dirty, private_clean, private_dirty) = if shared {
        (clean, c.dirty, 0, 0)
    } else {
        (0, 0, clean, c.dirty)
    };
    let rows = [
        ("Rss", c.there),
        ("Pss", c.there),
        ("Pss_Dirty", c.dirty),
        ("Shared_Clean", shared_clean),
        ("Shared_Dirty", shared_dirty),
        ("Private_Clean", private_clean),
        ("Private_Dirty", private_dirty),
        ("Referenced", c.there),
        ("Anonymous", c.anonymous),
        ("KSM", 0),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", c.swapped),
        ("SwapPss", c.swapped),
        ("Locked", c.locked),
    ];
    for (name, pages) in rows {
        let label = format!("{name}:");
        let _ = writeln!(out, "{label:<16}{:>8} kB", pages * kib);
    }
}

fn each_entry<P: Platform>(space: &AddressSpace<P>, mut act: impl FnMut(&EntryInfo)) {
    let mut at = VirtAddr(0);
    while let Some(entry) = space.core().entry(at) {
        act(&entry);
        if entry.range.end() <= at {
            break;
        }
        at = entry.range.end();
    }
}

/// `smaps`.
pub(super) fn smaps<P: Platform>(sys: &Linux<P>, space: &AddressSpace<P>) -> String {
    let bounds = space.bounds.lock().clone();
    let mut out = String::new();
    maps::each(space, |entry, parts| {
        maps::line(sys, &bounds, entry, &mut out);
        let kib = entry.range.len() / 1024;
        let _ = write!(
            out,
            "Size:           {kib:>8} kB\nKernelPageSize: {0:>8} kB\nMMUPageSize:    {0:>8} kB\n",
            4
        );
        let counted = parts.iter().map(|part| count(space, part));
        lines(
            &counted.fold(Counted::default(), Counted::with),
            entry.sharing == Sharing::Shared,
            &mut out,
        );
        let _ = writeln!(out, "THPeligible:           0\nVmFlags: {}", flags(entry));
    });
    out
}

/// The two letters of each property.
fn flags(entry: &EntryInfo) -> String {
    let shared = entry.sharing == Sharing::Shared;
    let has = |p| entry.prot.contains(p);
    let may = |p| entry.max_prot.contains(p);
    let rows = [
        (has(Prot::READ), "rd"),
        (has(Prot::WRITE), "wr"),
        (has(Prot::EXEC), "ex"),
        (shared, "sh"),
        (may(Prot::READ), "mr"),
        (may(Prot::WRITE), "mw"),
        (may(Prot::EXEC), "me"),
        (shared, "ms"),
        (entry.stack, "gd"),
        (entry.user_wired, "lo"),
        (entry.behavior == Behavior::Sequential, "sr"),
        (entry.behavior == Behavior::Random, "rr"),
        (entry.inherit == Inherit::None, "dc"),
        (entry.user_wired && entry.marks & ON_FAULT != 0, "lf"),
        (has(Prot::WRITE) && !shared, "ac"),
        (
            entry.inherit == Inherit::Zero || entry.marks & WIPED != 0,
            "wf",
        ),
        (entry.no_core, "dd"),
    ];
    let on = rows.iter().filter(|(on, _)| *on);
    on.map(|(_, letters)| format!("{letters} ")).collect()
}

/// `smaps_rollup`.
pub(super) fn rollup<P: Platform>(sys: &Linux<P>, space: &AddressSpace<P>) -> String {
    let (mut sum, mut first, mut last) = (Counted::default(), None, 0);
    each_entry(space, |entry| {
        sum = sum.with(count(space, entry));
        first.get_or_insert(entry.range.start().0);
        last = entry.range.end().0;
    });
    let _ = sys;
    let mut out = format!(
        "{:08x}-{last:08x} ---p 00000000 00:00 0                    [rollup]\n",
        first.unwrap_or(0)
    );
    let mut body = String::new();
    lines(&sum, false, &mut body);
    for line in body.lines() {
        out.push_str(line);
        out.push('\n');
        if line.starts_with("Pss_Dirty") {
            let file = (sum.there - sum.anonymous) * 4;
            let _ = write!(
                out,
                "Pss_Anon:       {:>8} kB\nPss_File:       {file:>8} kB\nPss_Shmem:      {:>8} kB\n",
                sum.anonymous * 4,
                0
            );
        }
    }
    out
}

/// Bytes of a space by use.
#[derive(Default)]
struct Uses {
    data: u64,
    stack: u64,
    program: u64,
    libraries: u64,
    shared: u64,
    locked: u64,
}

fn uses<P: Platform>(space: &AddressSpace<P>) -> Uses {
    let bounds = space.bounds.lock().clone();
    let mut uses = Uses::default();
    each_entry(space, |entry| {
        let bytes = entry.range.len();
        let start = entry.range.start().0;
        if entry.user_wired {
            uses.locked += bytes;
        }
        if entry.stack {
            uses.stack += bytes;
        } else if entry.sharing == Sharing::Shared {
            uses.shared += bytes;
        } else if entry.prot.contains(Prot::WRITE) {
            uses.data += bytes;
        } else if entry.prot.contains(Prot::EXEC) {
            if (bounds.code.0..bounds.code.1.max(1)).contains(&start) {
                uses.program += bytes;
            } else {
                uses.libraries += bytes;
            }
        }
    });
    uses
}

/// The lines about memory of `status`.
pub(super) fn status<P: Platform>(sys: &Linux<P>, process: &Process<P>) -> String {
    let Some(space) = process.space() else {
        return String::new();
    };
    let uses = uses(&space);
    let figures = Figures::of(process);
    let kib = Linux::<P>::PAGE_BYTES / 1024;
    let most = process.used.lock().most_pages.max(figures.resident);
    let mut sum = Counted::default();
    each_entry(&space, |entry| {
        if is_anonymous(entry) {
            sum = sum.with(count(&space, entry));
        }
    });
    let anonymous = sum.anonymous.min(figures.resident);
    let _ = sys;
    let rows = [
        ("VmPeak", figures.mapped_bytes / 1024),
        ("VmSize", figures.mapped_bytes / 1024),
        ("VmLck", uses.locked / 1024),
        ("VmPin", 0),
        ("VmHWM", most * kib),
        ("VmRSS", figures.resident * kib),
        ("RssAnon", anonymous * kib),
        ("RssFile", (figures.resident - anonymous) * kib),
        ("RssShmem", 0),
        ("VmData", uses.data / 1024),
        ("VmStk", uses.stack / 1024),
        ("VmExe", uses.program / 1024),
        ("VmLib", uses.libraries / 1024),
        ("VmPTE", figures.resident.div_ceil(512) * kib),
        ("VmSwap", sum.swapped * kib),
        ("HugetlbPages", 0),
    ];
    let mut out = String::new();
    for (name, n) in rows {
        let _ = writeln!(out, "{name}:\t{n:8} kB");
    }
    out.push_str("CoreDumping:\t0\nTHP_enabled:\t0\nuntag_mask:\t0xffffffffffffffff\n");
    out
}

/// `statm`: pages mapped, resident, shared; of the program; of libraries; of data; of nothing.
pub(super) fn statm<P: Platform>(sys: &Linux<P>, process: &Process<P>) -> String {
    let _ = sys;
    let Some(space) = process.space() else {
        return "0 0 0 0 0 0 0\n".into();
    };
    let figures = Figures::of(process);
    let uses = uses(&space);
    let page = Linux::<P>::PAGE_BYTES;
    let mut files = 0;
    each_entry(&space, |entry| {
        if !is_anonymous(entry) {
            files += count(&space, entry).there;
        }
    });
    format!(
        "{} {} {} {} 0 {} 0\n",
        figures.mapped_bytes / page,
        figures.resident,
        files.min(figures.resident),
        uses.program / page,
        (uses.data + uses.stack) / page
    )
}

/// `pagemap`: a word of 64 bits for each page of the space.
pub(super) fn pagemap<P: Platform>(whose: Whose<P>) -> Node {
    Node::Raw(
        Box::new(move |offset, buf| {
            if offset % 8 != 0 || buf.len() % 8 != 0 {
                return Err(Errno::EINVAL);
            }
            let Some(space) = whose.process.space() else {
                return Ok(0);
            };
            let words = page_words(whose.sys, &space, offset / 8, buf.len() / 8);
            for (place, word) in buf.chunks_exact_mut(8).zip(&words) {
                place.copy_from_slice(&word.to_le_bytes());
            }
            Ok(words.len() * 8)
        }),
        None,
    )
}

fn page_words<P: Platform>(
    sys: &Linux<P>,
    space: &AddressSpace<P>,
    first: u64,
    count: usize,
) -> Vec<u64> {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const SHARED: u64 = 1 << 61;
    const EXCLUSIVE: u64 = 1 << 56;
    const SOFT_DIRTY: u64 = 1 << 55;
    let page = Linux::<P>::PAGE_BYTES;
    let end = sys.user_range().end().0 / page;
    let last = first.saturating_add(count as u64).min(end);
    let mut words = alloc::vec![0u64; last.saturating_sub(first) as usize];
    let Some(asked) = VirtRange::new(VirtAddr(first * page), VirtAddr(last * page)) else {
        return Vec::new();
    };
    each_entry_in(space, asked, &mut |range, entry| {
        let anonymous = is_anonymous(entry);
        let mut each = |va: VirtAddr| {
            let place = words.get_mut((va.0 / page - first) as usize);
            let Some(word) = place else {
                return;
            };
            let frame = space.core().with_pmap(|pmap| pmap.extract(va)).flatten();
            *word = PRESENT | frame.map_or(0, |t| u64::from(t.frame.0));
            *word |= if anonymous {
                EXCLUSIVE | SOFT_DIRTY
            } else {
                SHARED | SOFT_DIRTY
            };
        };
        pages(space, range, entry, &mut each);
        if anonymous {
            // The kind of swap in the lower 5 bits, the slot above.
            let mut each = |va: VirtAddr, slot: u32| {
                if let Some(word) = words.get_mut((va.0 / page - first) as usize) {
                    *word = SWAPPED | SOFT_DIRTY | u64::from(slot) << 5;
                }
            };
            space.core().swapped(range, &mut each).ok();
        }
    });
    words
}

/// The part of each entry that lies in a range.
fn each_entry_in<P: Platform>(
    space: &AddressSpace<P>,
    range: VirtRange,
    act: &mut dyn FnMut(VirtRange, &EntryInfo),
) {
    let mut at = range.start();
    while at < range.end() {
        let next = space.core().entry(at);
        let Some(entry) = next.filter(|e| e.range.start() < range.end()) else {
            break;
        };
        let piece = entry.range.intersect(range);
        if !piece.is_empty() {
            act(piece, &entry);
        }
        if entry.range.end() <= at {
            break;
        }
        at = entry.range.end();
    }
}

/// `mem`: the memory itself.
pub(super) fn mem<P: Platform>(whose: Whose<P>) -> Node {
    let writer = whose.clone();
    Node::Raw(
        Box::new(move |offset, buf| {
            let Some(space) = whose.process.space() else {
                return Ok(0);
            };
            let page = Linux::<P>::PAGE_BYTES;
            let whole = buf.len().min((page - offset % page) as usize);
            let buf = &mut buf[..whole];
            space.copy_in(offset, buf).map_err(|_| Errno::EIO)?;
            Ok(buf.len())
        }),
        Some(Box::new(move |offset, bytes| {
            let Some(space) = writer.process.space() else {
                return Ok(0);
            };
            let page = Linux::<P>::PAGE_BYTES;
            let bytes = &bytes[..bytes.len().min((page - offset % page) as usize)];
            let core = space.core();
            core.write_forced(VirtAddr(offset), bytes)
                .map_err(|_| Errno::EIO)?;
            Ok(bytes.len())
        })),
    )
}
