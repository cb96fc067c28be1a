//! The translations of one address space, in four levels of tables.
//!
//! ```text
//!   va: 47 ..... 39 | 38 ..... 30 | 29 ..... 21 | 20 ..... 12 | 11 .. 0
//!        level 4     level 3       level 2       level 1       byte
//!        (root) ───▶ table ──────▶ table ──────▶ table ──────▶ frame
//! ```
//!
//! A table is a donated frame. Donated frames wait in a list inside themselves: entry 0 of each
//! names the next. An empty table stays where it is until [`Pmap::reclaim`].
//!
//! Calls on one pmap come one at a time, so the fields below are atomic only because a shared
//! reference reaches them. The processor's walker runs beside every call: an entry that may be
//! present is changed in one piece, so that no A or D bit is lost.

use crate::entry::{Bits, Entry};
use crate::flush::{Flushes, X86Flush};
use crate::hardware::Hardware;
use crate::{ENTRIES, KERNEL, LEVELS, PAGE, USER};
use bsdvm_machine::{
    EnterError, Frame, FrameRun, Kind, MemoryAttr, Pmap, Prot, Removed, Translation, Usage,
    VirtAddr, VirtRange,
};
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// In place of a frame: none.
const NONE: u32 = u32::MAX;

/// Bits of a page number that choose an entry.
const INDEX_BITS: u32 = ENTRIES.ilog2();

/// Bits of a page number that the tables look at: what lies above is a copy of the highest.
const PAGE_BITS: u32 = LEVELS * INDEX_BITS;

/// What to do where a table is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Nothing is mapped below: pass over it.
    Skip,
    /// Make it of a donated frame, of which there are enough.
    Make,
}

/// The translations of one address space.
pub struct X86Pmap<H: Hardware> {
    hardware: H,
    id: u64,
    range: VirtRange,
    user: bool,
    root: AtomicU32,
    /// The first of the donated frames that no table uses, and their number.
    spare: AtomicU32,
    spares: AtomicU32,
    resident: AtomicU64,
}

impl<H: Hardware> X86Pmap<H> {
    /// An empty pmap for programs. Its root is made of a donated frame with the first entry. `id`
    /// is its name in [`Flushes`] and belongs to no other pmap of the machine.
    pub fn user(hardware: H, id: u64) -> X86Pmap<H> {
        X86Pmap::new(hardware, id, USER, None)
    }

    /// The pmap of the kernel, for the addresses of `range` within [`KERNEL`], on a root that
    /// exists already and stays. Every entry of the root that the range needs should exist
    /// ([`X86Pmap::prepare`]) before a user pmap copies them.
    ///
    /// Panics when `range` is not one of kernel addresses.
    pub fn kernel(hardware: H, id: u64, root: Frame, range: VirtRange) -> X86Pmap<H> {
        assert!(
            KERNEL.contains_range(range),
            "{range:?} is not the kernel's"
        );
        X86Pmap::new(hardware, id, range, Some(root))
    }

    fn new(hardware: H, id: u64, range: VirtRange, root: Option<Frame>) -> X86Pmap<H> {
        X86Pmap {
            hardware,
            id,
            range,
            user: root.is_none(),
            root: AtomicU32::new(root.map_or(NONE, |f| f.0)),
            spare: AtomicU32::new(NONE),
            spares: AtomicU32::new(0),
            resident: AtomicU64::new(0),
        }
    }

    /// The pmap's name in [`Flushes`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The frame of the root table, which a processor loads to run in this space: `None` as long
    /// as nothing was entered. It comes with the first entry and may go with a reclaim; so look
    /// again at each return to a program, and load the kernel's root where there is none.
    pub fn root(&self) -> Option<Frame> {
        frame_of(self.root.load(Relaxed))
    }

    /// Makes the entries of a kernel root for all of its range.
    ///
    /// Errors: [`EnterError::NeedFrames`], as for `enter`.
    pub fn prepare(&self) -> Result<(), EnterError> {
        self.prepare_range(self.range)
    }

    /// Makes the entries of the root for `range`.
    fn prepare_range(&self, range: VirtRange) -> Result<(), EnterError> {
        let pages = page_numbers(range);
        let (Some(root), false) = (self.root(), pages.is_empty()) else {
            return Ok(());
        };
        let absent = |i: &usize| !self.hardware.load(root, *i).is_present();
        let missing = indices(LEVELS, &pages).filter(absent).count();
        self.ask_for(missing as u64)?;
        for i in indices(LEVELS, &pages).filter(absent) {
            self.make_table(root, i);
        }
        Ok(())
    }

    /// The page numbers of `count` pages from `va`, if the pmap translates them.
    fn target(&self, va: VirtAddr, count: u32) -> Result<Range<u64>, EnterError> {
        debug_assert!(PAGE.is_aligned(va), "{va:?} is not the start of a page");
        let range = VirtRange::from_len(va, u64::from(count) << PAGE.shift());
        match range {
            Some(range) if self.range.contains_range(range) => Ok(page_numbers(range)),
            _ => Err(EnterError::BadAddress),
        }
    }

    /// The pages of `range` that the pmap can translate at all.
    fn within(&self, range: VirtRange) -> Range<u64> {
        page_numbers(range.intersect(self.range))
    }

    /// The address of page number `page`, as the processor wants it.
    fn va(&self, page: u64) -> VirtAddr {
        let unused = 64 - PAGE_BITS;
        let extended = ((page << unused) as i64 >> unused) as u64;
        VirtAddr(extended << PAGE.shift())
    }

    /// The table that an entry above level 1 leads to.
    fn child(&self, table: Frame, index: usize) -> Option<Frame> {
        let entry = self.hardware.load(table, index);
        let large = entry.bits().contains(Bits::PAT_OR_LARGE);
        assert!(
            !large,
            "{table:?} entry {index} is a large page, which nothing here makes"
        );
        entry
            .is_present()
            .then(|| self.hardware.frame(entry.physical()))
    }

    /// How many tables are missing below `table`, itself of `level` and perhaps missing, to map
    /// all of `pages`.
    fn missing_below(&self, table: Option<Frame>, level: u32, pages: &Range<u64>) -> u64 {
        if level == 1 || pages.is_empty() {
            return 0;
        }
        let mut missing = 0;
        for i in indices(level, pages) {
            let child = table.and_then(|t| self.child(t, i));
            missing += u64::from(child.is_none());
            missing += self.missing_below(child, level - 1, &part(level, i, pages));
        }
        missing
    }

    /// Checks that the donated frames suffice for `missing` tables.
    fn ask_for(&self, missing: u64) -> Result<(), EnterError> {
        let have = u64::from(self.spares.load(Relaxed));
        match missing.checked_sub(have) {
            None | Some(0) => Ok(()),
            Some(more) => Err(EnterError::NeedFrames(
                u32::try_from(more).unwrap_or(u32::MAX),
            )),
        }
    }

    /// Takes a donated frame.
    fn take_spare(&self) -> Option<Frame> {
        let frame = frame_of(self.spare.load(Relaxed))?;
        let next = self.hardware.load(frame, 0).0;
        self.spare.store(next as u32, Relaxed);
        self.spares.fetch_sub(1, Relaxed);
        Some(frame)
    }

    /// Makes an empty table of a donated frame.
    fn new_table(&self) -> Option<Frame> {
        let frame = self.take_spare()?;
        for i in 0..ENTRIES {
            self.hardware.store(frame, i, Entry::EMPTY);
        }
        Some(frame)
    }

    /// Makes the table behind entry `index` of `table`.
    fn make_table(&self, table: Frame, index: usize) -> Option<Frame> {
        let frame = self.new_table()?;
        let entry = Entry::table(self.hardware.physical(frame), self.user);
        self.hardware.swap(table, index, entry);
        Some(frame)
    }

    /// The root; where `missing` says so and there is none, a new one with the kernel's half.
    fn root_for(&self, missing: Missing) -> Option<Frame> {
        if self.root().is_some() || missing == Missing::Skip {
            return self.root();
        }
        let root = self.new_table()?;
        if let Some(kernel) = self.hardware.kernel_root() {
            for i in ENTRIES / 2..ENTRIES {
                let entry = self.hardware.load(kernel, i);
                self.hardware.store(root, i, entry);
            }
        }
        self.root.store(root.0, Relaxed);
        Some(root)
    }

    /// Visits the entries of level 1 of `pages` in ascending order: table, index, page number.
    fn visit(&self, pages: Range<u64>, missing: Missing, see: &mut dyn FnMut(Frame, usize, u64)) {
        if !pages.is_empty()
            && let Some(root) = self.root_for(missing)
        {
            self.visit_table(root, LEVELS, &pages, missing, see);
        }
    }

    fn visit_table(
        &self,
        table: Frame,
        level: u32,
        pages: &Range<u64>,
        missing: Missing,
        see: &mut dyn FnMut(Frame, usize, u64),
    ) {
        for i in indices(level, pages) {
            let below = part(level, i, pages);
            if level == 1 {
                see(table, i, below.start);
                continue;
            }
            let child = match (self.child(table, i), missing) {
                (None, Missing::Make) => self.make_table(table, i),
                (child, _) => child,
            };
            if let Some(child) = child {
                self.visit_table(child, level - 1, &below, missing, see);
            }
        }
    }

    /// Visits the translations of `range` in ascending order: table, index, page number.
    fn visit_valid(&self, range: VirtRange, see: &mut dyn FnMut(Frame, usize, u64)) {
        self.visit(self.within(range), Missing::Skip, &mut |table, i, page| {
            if self.hardware.load(table, i).is_valid() {
                see(table, i, page);
            }
        });
    }

    /// Where the entry of the page at `va` lies, if there is a table for it.
    fn slot(&self, va: VirtAddr) -> Option<(Frame, usize)> {
        let page = self.range.contains(va).then(|| number(va))?;
        let mut table = self.root()?;
        for level in (2..=LEVELS).rev() {
            table = self.child(table, index(level, page))?;
        }
        Some((table, index(1, page)))
    }

    fn removed(&self, page: u64, entry: Entry) -> Removed {
        Removed {
            va: self.va(page),
            frame: self.hardware.frame(entry.physical()),
            kind: entry.kind(),
            usage: entry.usage(),
        }
    }

    fn translation(&self, entry: Entry) -> Translation {
        Translation {
            frame: self.hardware.frame(entry.physical()),
            prot: entry.prot(),
            kind: entry.kind(),
            usage: entry.usage(),
        }
    }

    fn flush(&self, work: Flushes) -> X86Flush<H> {
        X86Flush::new(&self.hardware, work)
    }

    /// Takes the empty tables behind `entries` of `table` out of it and gives them back. Tells
    /// whether those entries are all empty after it.
    fn prune(
        &self,
        table: Frame,
        level: u32,
        entries: Range<usize>,
        back: &mut dyn FnMut(Frame),
    ) -> bool {
        let mut empty = true;
        for i in entries {
            if level == 1 {
                empty &= !self.hardware.load(table, i).is_valid();
                continue;
            }
            let Some(child) = self.child(table, i) else {
                continue;
            };
            // The kernel's root is copied by others: what it leads to stays.
            let pinned = level == LEVELS && !self.user;
            if self.prune(child, level - 1, 0..ENTRIES, back) && !pinned {
                self.hardware.swap(table, i, Entry::EMPTY);
                back(child);
            } else {
                empty = false;
            }
        }
        empty
    }
}

impl<H: Hardware> Pmap for X86Pmap<H> {
    type Flush = X86Flush<H>;

    fn enter(
        &self,
        va: VirtAddr,
        run: FrameRun,
        prot: Prot,
        attr: MemoryAttr,
        kind: Kind,
        replaced: &mut dyn FnMut(Removed),
    ) -> Result<X86Flush<H>, EnterError> {
        let pages = self.target(va, run.count)?;
        if pages.is_empty() {
            return Ok(X86Flush::default());
        }
        let root = self.root();
        let missing = self.missing_below(root, LEVELS, &pages) + u64::from(root.is_none());
        self.ask_for(missing)?;
        let mut work = Flushes::default();
        let mut frames = run.frames();
        self.visit(pages, Missing::Make, &mut |table, i, page| {
            let Some(frame) = frames.next() else { return };
            let physical = self.hardware.physical(frame);
            let new = Entry::leaf(physical, prot, attr, kind, self.user);
            let old = self.hardware.swap(table, i, new);
            if !old.is_valid() {
                self.resident.fetch_add(1, Relaxed);
                return;
            }
            replaced(self.removed(page, old));
            if old.outlived_by(new) {
                work.add_page(self.id, self.va(page));
            }
        });
        Ok(self.flush(work))
    }

    fn remove(&self, range: VirtRange, gone: &mut dyn FnMut(Removed)) -> X86Flush<H> {
        let mut work = Flushes::default();
        self.visit_valid(range, &mut |table, i, page| {
            let old = self.hardware.swap(table, i, Entry::EMPTY);
            self.resident.fetch_sub(1, Relaxed);
            if old.is_present() {
                work.add_page(self.id, self.va(page));
            }
            gone(self.removed(page, old));
        });
        self.flush(work)
    }

    fn protect(&self, range: VirtRange, prot: Prot) -> X86Flush<H> {
        let mut work = Flushes::default();
        self.visit_valid(range, &mut |table, i, page| {
            let lower = |e: Entry| {
                let less = e.prot() & prot;
                (less != e.prot()).then(|| e.with_prot(less))
            };
            let (old, new) = self.hardware.update(table, i, lower);
            if old != new {
                work.add_page(self.id, self.va(page));
            }
        });
        self.flush(work)
    }

    fn extract(&self, va: VirtAddr) -> Option<Translation> {
        let (table, i) = self.slot(va)?;
        let entry = self.hardware.load(table, i);
        entry.is_valid().then(|| self.translation(entry))
    }

    fn scan(&self, range: VirtRange, seen: &mut dyn FnMut(VirtAddr, Translation)) {
        self.visit_valid(range, &mut |table, i, page| {
            let entry = self.hardware.load(table, i);
            seen(self.va(page), self.translation(entry));
        });
    }

    fn take_usage(&self, va: VirtAddr, which: Usage) -> (Usage, X86Flush<H>) {
        let Some((table, i)) = self.slot(va) else {
            return (Usage::empty(), X86Flush::default());
        };
        let clear = |e: Entry| (e.is_valid()).then(|| e.without_usage(which));
        let (old, _) = self.hardware.update(table, i, clear);
        if !old.is_valid() {
            return (Usage::empty(), X86Flush::default());
        }
        let taken = old.usage() & which;
        let mut work = Flushes::default();
        if !taken.is_empty() && old.is_present() {
            work.add_page(self.id, PAGE.floor(va));
        }
        (taken, self.flush(work))
    }

    fn donate(&self, frame: Frame) {
        let next = self.spare.load(Relaxed);
        self.hardware.store(frame, 0, Entry(u64::from(next)));
        self.spare.store(frame.0, Relaxed);
        self.spares.fetch_add(1, Relaxed);
    }

    fn grow(&self, end: VirtAddr) -> Result<(), EnterError> {
        let below = VirtRange::new(self.range.start(), end.min(self.range.end()));
        match below {
            Some(below) if !self.user => self.prepare_range(below),
            _ => Ok(()),
        }
    }

    fn reclaim(&self, back: &mut dyn FnMut(Frame)) -> X86Flush<H> {
        let mut work = Flushes::default();
        // Spare frames first, as they must not be read after they were given back.
        while let Some(frame) = self.take_spare() {
            back(frame);
        }
        if let Some(root) = self.root() {
            let entries = match page_numbers(self.range) {
                pages if pages.is_empty() => 0..0,
                pages => indices(LEVELS, &pages),
            };
            let mut pruned = 0u32;
            let empty = self.prune(root, LEVELS, entries, &mut |frame| {
                pruned += 1;
                back(frame);
            });
            if empty && self.user {
                self.root.store(NONE, Relaxed);
                pruned += 1;
                back(root);
            }
            if pruned > 0 {
                work.add_tables(self.id);
            }
        }
        self.flush(work)
    }

    fn resident(&self) -> u64 {
        self.resident.load(Relaxed)
    }
}

fn frame_of(number: u32) -> Option<Frame> {
    (number != NONE).then_some(Frame(number))
}

/// The number of the page at `va`, of the bits that the tables look at.
fn number(va: VirtAddr) -> u64 {
    PAGE.index(va.0) & ((1 << PAGE_BITS) - 1)
}

/// The page numbers of `range`, which lies in one half of the addresses.
fn page_numbers(range: VirtRange) -> Range<u64> {
    debug_assert!(PAGE.is_aligned_range(range), "{range:?} is not of pages");
    let first = number(range.start());
    first..first + PAGE.index(range.len())
}

/// How far a page number is shifted to choose an entry of a table of `level`.
fn shift(level: u32) -> u32 {
    (level - 1) * INDEX_BITS
}

/// The entry of a table of `level` that leads to `page`.
fn index(level: u32, page: u64) -> usize {
    (page >> shift(level)) as usize % ENTRIES
}

/// The entries of a table of `level` that lead to `pages`, which are not empty and all below it.
fn indices(level: u32, pages: &Range<u64>) -> Range<usize> {
    index(level, pages.start)..index(level, pages.end - 1) + 1
}

/// Those of `pages`, all below one table of `level`, that lie below its entry `i`.
fn part(level: u32, i: usize, pages: &Range<u64>) -> Range<u64> {
    let above = shift(level) + INDEX_BITS;
    let first = (pages.start >> above << above) + ((i as u64) << shift(level));
    first.max(pages.start)..(first + (1 << shift(level))).min(pages.end)
}
