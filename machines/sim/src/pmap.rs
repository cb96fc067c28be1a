//! Translations of one address space.
//!
//! The table is an ordered map; that a real one is made of frames shows only in what it asks for:
//! 512 pages share a leaf table, and a leaf table takes a donated frame.
//!
//! The table's own lock stands for the processor's page walker, which sets usage bits while the
//! core works. It is never held while a closure of the caller runs.

use crate::flush::SimFlush;
use crate::inject;
use crate::trace::Event;
use crate::{Shared, locks};
use bsdvm_machine::{
    Access, EnterError, Flush, Frame, FrameRun, Kind, MemoryAttr, Pmap, Prot, Removed, Translation,
    Usage, VirtAddr, VirtRange,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Pages that share a leaf table.
pub const LEAF_PAGES: u64 = 512;

/// Pages that share one of the kernel's upper tables.
pub const SHARED_PAGES: u64 = LEAF_PAGES * 512;

/// One translation as the table has it.
#[derive(Clone, Copy)]
pub(crate) struct Pte {
    pub(crate) frame: Frame,
    pub(crate) prot: Prot,
    pub(crate) usage: Usage,
    kind: Kind,
    attr: MemoryAttr,
}

#[derive(Default)]
struct Table {
    ptes: BTreeMap<u64, Pte>,
    /// The leaf tables: the frame of each and how many translations it holds, by page number
    /// divided by [`LEAF_PAGES`].
    leaves: BTreeMap<u64, (Frame, u64)>,
    /// Donated frames that no leaf table uses yet.
    spare: Vec<Frame>,
    /// The tables above the leaf tables that the kernel's pmap shares with all others: they are
    /// made by `grow`, and nothing can be entered where there is none.
    shared: Vec<Frame>,
}

/// What handles, flushes and processors share of a pmap.
pub(crate) struct Inner {
    pub(crate) id: u64,
    pub(crate) shared: Arc<Shared>,
    range: VirtRange,
    kind: Whose,
    table: Mutex<Table>,
}

/// Whose addresses a pmap translates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    User,
    Kernel,
}

/// The translations of one simulated address space.
pub struct SimPmap {
    inner: Arc<Inner>,
}

impl Inner {
    /// The translation of page number `page` for `access`, with `usage` added to its bits.
    /// Errors: whether a translation was there.
    pub(crate) fn walk(&self, page: u64, access: Access, usage: Usage) -> Result<Pte, bool> {
        let mut table = self.table.lock();
        let pte = table.ptes.get_mut(&page).ok_or(false)?;
        if !pte.prot.allows(access) {
            return Err(true);
        }
        pte.usage |= usage;
        Ok(*pte)
    }

    /// The translation of page number `page`, without a trace of the question.
    pub(crate) fn peek(&self, page: u64) -> Option<Pte> {
        self.table.lock().ptes.get(&page).copied()
    }

    /// Where a frame of `run` is mapped.
    pub(crate) fn find_frame(&self, run: FrameRun) -> Option<VirtAddr> {
        let table = self.table.lock();
        let found = table.ptes.iter().find(|(_, pte)| run.contains(pte.frame));
        found.map(|(page, _)| self.va(*page))
    }

    fn va(&self, page: u64) -> VirtAddr {
        VirtAddr(page << self.shared.page.shift())
    }

    fn pages(&self, range: VirtRange) -> Range<u64> {
        let page = self.shared.page;
        debug_assert!(page.is_aligned_range(range), "{range:?} is not of pages");
        page.index(range.start().0)..page.index(range.end().0)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.pmaps.lock().remove(&self.id);
        for tlb in &self.shared.tlbs {
            tlb.lock().forget(self.id, 0..u64::MAX);
        }
    }
}

impl Table {
    /// How many frames are missing to hold translations for all of `pages`.
    fn missing(&self, pages: &Range<u64>) -> u64 {
        if pages.is_empty() {
            return 0;
        }
        let leaves = pages.start / LEAF_PAGES..(pages.end - 1) / LEAF_PAGES + 1;
        let wanted = leaves.end - leaves.start;
        let have = self.leaves.range(leaves).count() + self.spare.len();
        wanted.saturating_sub(have as u64)
    }

    /// Puts `pte` in place of what page number `page` had, which is given back. The leaf table
    /// exists or there is a spare frame for it.
    fn put(&mut self, page: u64, pte: Pte) -> Option<Pte> {
        let old = self.ptes.insert(page, pte);
        let Table { leaves, spare, .. } = self;
        let leaf = leaves.entry(page / LEAF_PAGES).or_insert_with(|| {
            let frame = spare.pop();
            (frame.expect("missing() counted the frames"), 0)
        });
        leaf.1 += u64::from(old.is_none());
        old
    }

    fn take(&mut self, page: u64) -> Option<Pte> {
        let old = self.ptes.remove(&page)?;
        if let Some(leaf) = self.leaves.get_mut(&(page / LEAF_PAGES)) {
            leaf.1 -= 1;
        }
        Some(old)
    }
}

impl Pte {
    fn removed(self, va: VirtAddr) -> Removed {
        Removed {
            va,
            frame: self.frame,
            kind: self.kind,
            usage: self.usage,
        }
    }

    fn translation(self) -> Translation {
        Translation {
            frame: self.frame,
            prot: self.prot,
            kind: self.kind,
            usage: self.usage,
        }
    }

    /// Whether a processor that remembers this translation must forget it when `new` takes its
    /// place. The same frame with more rights needs nothing, since a processor looks again before
    /// it faults; a remembered store would hide the next one from the table, and a remembered load
    /// hides references until the next flush, as on hardware.
    fn outlived_by(self, new: Pte) -> bool {
        self.frame != new.frame
            || self.attr != new.attr
            || !new.prot.contains(self.prot)
            || self.usage.contains(Usage::MODIFIED)
    }
}

impl SimPmap {
    pub(crate) fn new(shared: &Arc<Shared>, range: VirtRange, kind: Whose) -> SimPmap {
        let id = shared.next_pmap.fetch_add(1, Ordering::Relaxed);
        let inner = Arc::new(Inner {
            id,
            shared: shared.clone(),
            range,
            kind,
            table: Mutex::default(),
        });
        shared.pmaps.lock().insert(id, Arc::downgrade(&inner));
        SimPmap { inner }
    }

    /// The number of this pmap: each of a machine has another.
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// How many donated frames the pmap holds, in use or spare.
    pub fn table_frames(&self) -> usize {
        let table = self.inner.table.lock();
        table.leaves.len() + table.spare.len() + table.shared.len()
    }

    /// The memory attribute of the page at `va`, if it is mapped.
    pub fn attr(&self, va: VirtAddr) -> Option<MemoryAttr> {
        let page = self.inner.shared.page.index(va.0);
        self.inner.peek(page).map(|pte| pte.attr)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The page numbers of `count` pages at `va`, if the pmap can translate them.
    fn target(&self, va: VirtAddr, count: u32) -> Result<Range<u64>, EnterError> {
        let page = self.inner.shared.page;
        debug_assert!(page.is_aligned(va), "{va:?} is not the start of a page");
        let bytes = u64::from(count) << page.shift();
        match VirtRange::from_len(va, bytes) {
            Some(range) if self.reaches(range) => Ok(self.inner.pages(range)),
            _ => Err(EnterError::BadAddress),
        }
    }

    /// Whether `range` can be translated: it is the pmap's, and its upper tables exist.
    fn reaches(&self, range: VirtRange) -> bool {
        let inner = &self.inner;
        let grown = || self.upper_tables(range.end()) <= inner.table.lock().shared.len() as u64;
        inner.range.contains_range(range) && (inner.kind == Whose::User || grown())
    }

    /// How many upper tables hold all addresses below `end`.
    fn upper_tables(&self, end: VirtAddr) -> u64 {
        let page = self.inner.shared.page;
        let pages = page.count(end.bytes_above(self.inner.range.start()));
        pages.div_ceil(SHARED_PAGES)
    }

    fn injected(&self) -> Result<(), EnterError> {
        let injector = &self.inner.shared.injector;
        if injector.hit(inject::Kind::PmapEnter) {
            return Err(EnterError::NoResources);
        }
        if injector.hit(inject::Kind::NeedFrames) {
            return Err(EnterError::NeedFrames(1));
        }
        Ok(())
    }
}

impl Pmap for SimPmap {
    type Flush = SimFlush;

    fn enter(
        &self,
        va: VirtAddr,
        run: FrameRun,
        prot: Prot,
        attr: MemoryAttr,
        kind: Kind,
        replaced: &mut dyn FnMut(Removed),
    ) -> Result<SimFlush, EnterError> {
        locks::switch_point();
        let pages = self.target(va, run.count)?;
        self.inner.shared.memory.check(run);
        self.injected()?;
        let mut flush = SimFlush::default();
        let mut told = Vec::new();
        {
            let mut table = self.inner.table.lock();
            let missing = table.missing(&pages);
            if missing > 0 {
                return Err(EnterError::NeedFrames(missing as u32));
            }
            for (page, frame) in pages.zip(run.frames()) {
                let new = Pte {
                    frame,
                    prot,
                    usage: Usage::empty(),
                    kind,
                    attr,
                };
                let Some(old) = table.put(page, new) else {
                    continue;
                };
                told.push(old.removed(self.inner.va(page)));
                if old.outlived_by(new) {
                    flush.add(&self.inner, page);
                }
            }
        }
        told.into_iter().for_each(replaced);
        self.inner.shared.trace.add(|| Event::Enter {
            pmap: self.inner.id,
            va,
            run,
            prot,
            kind,
        });
        Ok(flush)
    }

    fn remove(&self, range: VirtRange, gone: &mut dyn FnMut(Removed)) -> SimFlush {
        locks::switch_point();
        let mut flush = SimFlush::default();
        let mut told = Vec::new();
        {
            let mut table = self.inner.table.lock();
            let pages: Vec<u64> = table
                .ptes
                .range(self.inner.pages(range))
                .map(|(page, _)| *page)
                .collect();
            for page in pages {
                let Some(old) = table.take(page) else {
                    continue;
                };
                told.push(old.removed(self.inner.va(page)));
                flush.add(&self.inner, page);
            }
        }
        self.inner.shared.trace.add(|| Event::Remove {
            pmap: self.inner.id,
            range,
            pages: told.len() as u64,
        });
        told.into_iter().for_each(gone);
        flush
    }

    fn protect(&self, range: VirtRange, prot: Prot) -> SimFlush {
        locks::switch_point();
        let mut flush = SimFlush::default();
        let mut table = self.inner.table.lock();
        for (page, pte) in table.ptes.range_mut(self.inner.pages(range)) {
            if !prot.contains(pte.prot) {
                pte.prot &= prot;
                flush.add(&self.inner, *page);
            }
        }
        self.inner.shared.trace.add(|| Event::Protect {
            pmap: self.inner.id,
            range,
            prot,
        });
        flush
    }

    fn extract(&self, va: VirtAddr) -> Option<Translation> {
        let page = self.inner.shared.page.index(va.0);
        self.inner.peek(page).map(Pte::translation)
    }

    fn scan(&self, range: VirtRange, seen: &mut dyn FnMut(VirtAddr, Translation)) {
        let found: Vec<_> = {
            let table = self.inner.table.lock();
            let ptes = table.ptes.range(self.inner.pages(range));
            ptes.map(|(page, pte)| (*page, *pte)).collect()
        };
        for (page, pte) in found {
            seen(self.inner.va(page), pte.translation());
        }
    }

    fn take_usage(&self, va: VirtAddr, which: Usage) -> (Usage, SimFlush) {
        locks::switch_point();
        let page = self.inner.shared.page.index(va.0);
        let mut flush = SimFlush::default();
        let mut table = self.inner.table.lock();
        let Some(pte) = table.ptes.get_mut(&page) else {
            return (Usage::empty(), flush);
        };
        let taken = pte.usage & which;
        pte.usage -= taken;
        if !taken.is_empty() {
            flush.add(&self.inner, page);
        }
        (taken, flush)
    }

    /// Copies managed translations of pages that `self` does not map, as far as leaf tables and
    /// spare frames reach.
    fn copy(
        &self,
        from: &SimPmap,
        range: VirtRange,
        entered: &mut dyn FnMut(VirtAddr, Frame),
    ) -> SimFlush {
        locks::switch_point();
        let mut found = Vec::new();
        from.scan(range, &mut |va, t| found.push((va, t)));
        found.retain(|(va, t)| {
            let page = self.inner.shared.page.index(va.0);
            let mut table = self.inner.table.lock();
            let free = self.inner.range.contains(*va) && !table.ptes.contains_key(&page);
            let fits = free && t.kind == Kind::Managed && table.missing(&(page..page + 1)) == 0;
            if fits {
                let pte = Pte {
                    frame: t.frame,
                    prot: t.prot - Prot::WRITE,
                    usage: Usage::empty(),
                    kind: Kind::Managed,
                    attr: from.attr(*va).unwrap_or_default(),
                };
                table.put(page, pte);
            }
            fits
        });
        for (va, t) in found {
            entered(va, t.frame);
        }
        SimFlush::default()
    }

    fn grow(&self, end: VirtAddr) -> Result<(), EnterError> {
        if self.inner.kind == Whose::User {
            return Ok(());
        }
        let mut table = self.inner.table.lock();
        let missing = self
            .upper_tables(end)
            .saturating_sub(table.shared.len() as u64) as usize;
        if missing > table.spare.len() {
            let more = missing - table.spare.len();
            return Err(EnterError::NeedFrames(more as u32));
        }
        let keep = table.spare.len() - missing;
        let Table { spare, shared, .. } = &mut *table;
        shared.extend(spare.drain(keep..));
        Ok(())
    }

    fn donate(&self, frame: Frame) {
        self.inner.shared.memory.check(FrameRun::one(frame));
        self.inner.table.lock().spare.push(frame);
    }

    fn reclaim(&self, back: &mut dyn FnMut(Frame)) -> SimFlush {
        locks::switch_point();
        let mut given = Vec::new();
        {
            let mut table = self.inner.table.lock();
            given.append(&mut table.spare);
            if table.ptes.is_empty() {
                given.append(&mut table.shared);
            }
            table.leaves.retain(|_, (frame, live)| {
                if *live == 0 {
                    given.push(*frame);
                }
                *live > 0
            });
        }
        given.into_iter().for_each(back);
        SimFlush::default()
    }

    fn resident(&self) -> u64 {
        self.inner.table.lock().ptes.len() as u64
    }
}

/// A pmap that ends takes its translations out of every processor. What is left in it by then was
/// forgotten by the core: the frames behind it, and those of its tables.
impl Drop for SimPmap {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let (resident, frames) = (self.resident(), self.table_frames());
        if resident > 0 || frames > 0 {
            let shared = &self.inner.shared;
            let lost = (resident, frames as u64);
            shared.lost.lock().push(lost);
        }
    }
}

/// Joins flushes of several operations.
impl FromIterator<SimFlush> for SimFlush {
    fn from_iter<I: IntoIterator<Item = SimFlush>>(flushes: I) -> SimFlush {
        let mut all = SimFlush::default();
        for f in flushes {
            all.join(f);
        }
        all
    }
}
