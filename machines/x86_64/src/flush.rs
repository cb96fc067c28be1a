//! A bounded list of what processors must forget.
//!
//! A few ranges are remembered one by one. When the list is full, the ranges of one pmap become
//! "all of that pmap"; with too many pmaps for that, the list becomes "everything".

use crate::PAGE;
use crate::hardware::Hardware;
use bsdvm_machine::{Flush, VirtAddr, VirtRange};

/// How many ranges are remembered one by one.
pub const RANGES: usize = 8;

/// One thing to forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forget {
    /// Some pages of one pmap.
    Pages {
        /// The pmap's number.
        pmap: u64,
        /// The pages.
        range: VirtRange,
    },
    /// All pages of one pmap.
    Pmap(u64),
}

impl Forget {
    fn pmap(self) -> u64 {
        match self {
            Forget::Pages { pmap, .. } | Forget::Pmap(pmap) => pmap,
        }
    }
}

/// What processors must forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flushes {
    /// The first places are taken, the others `None`.
    list: [Option<Forget>; RANGES],
    everything: bool,
    tables: bool,
}

impl Flushes {
    /// Whether there is nothing to forget.
    pub fn is_empty(&self) -> bool {
        self.list[0].is_none() && !self.everything
    }

    /// Whether every translation of every pmap must go, whatever the list says.
    pub fn everything(&self) -> bool {
        self.everything
    }

    /// Whether tables went too, roots among them: what a processor remembers of the way to an
    /// entry must go as well.
    pub fn tables(&self) -> bool {
        self.tables
    }

    /// What to forget, where it is not everything.
    pub fn list(&self) -> impl Iterator<Item = Forget> + '_ {
        self.list.iter().flatten().copied()
    }

    /// Adds the page at `va` of `pmap`.
    pub fn add_page(&mut self, pmap: u64, va: VirtAddr) {
        let last = self.list.iter_mut().rev().flatten().next();
        if let Some(Forget::Pages { pmap: p, range }) = last
            && *p == pmap
            && range.end() == va
            && let Some(longer) = VirtRange::from_len(range.start(), range.len() + PAGE.bytes())
        {
            *range = longer;
            return;
        }
        match VirtRange::from_len(va, PAGE.bytes()) {
            Some(range) => self.add(Forget::Pages { pmap, range }),
            None => self.add(Forget::Pmap(pmap)),
        }
    }

    /// Adds all of `pmap` and its tables, which are gone.
    pub fn add_tables(&mut self, pmap: u64) {
        self.tables = true;
        self.add(Forget::Pmap(pmap));
    }

    /// Adds what `other` has.
    pub fn join(&mut self, other: &Flushes) {
        self.everything |= other.everything;
        self.tables |= other.tables;
        other.list().for_each(|what| self.add(what));
    }

    fn add(&mut self, what: Forget) {
        let pmap = what.pmap();
        if self.everything || self.list().any(|have| have == Forget::Pmap(pmap)) {
            return;
        }
        let free = self.list.iter_mut().find(|place| place.is_none());
        match (what, free) {
            (Forget::Pages { .. }, Some(free)) => *free = Some(what),
            _ => self.widen(pmap),
        }
    }

    /// Puts all of `pmap` in place of its ranges.
    fn widen(&mut self, pmap: u64) {
        let mut kept = [None; RANGES];
        let others = self
            .list
            .iter()
            .flatten()
            .filter(|have| have.pmap() != pmap);
        let mut count = 0;
        for (place, have) in kept.iter_mut().zip(others) {
            *place = Some(*have);
            count += 1;
        }
        self.list = kept;
        match self.list.get_mut(count) {
            Some(place) => *place = Some(Forget::Pmap(pmap)),
            None => {
                self.everything = true;
                self.list = [None; RANGES];
            }
        }
    }
}

/// The work that a change of translations leaves behind.
///
/// To drop one with work left is a fault of the caller; since a translation that lives too long
/// is worse than a slow drop, the drop does the work.
#[must_use = "a frame may be reused only after the flush has been waited for"]
pub struct X86Flush<H: Hardware> {
    hardware: Option<H>,
    work: Flushes,
}

impl<H: Hardware> X86Flush<H> {
    pub(crate) fn new(hardware: &H, work: Flushes) -> X86Flush<H> {
        X86Flush {
            hardware: (!work.is_empty()).then(|| hardware.clone()),
            work,
        }
    }

    fn finish(&mut self) {
        if let Some(hardware) = self.hardware.take() {
            hardware.flush(&self.work);
        }
    }
}

impl<H: Hardware> Default for X86Flush<H> {
    fn default() -> Self {
        X86Flush {
            hardware: None,
            work: Flushes::default(),
        }
    }
}

impl<H: Hardware> Flush for X86Flush<H> {
    fn join(&mut self, mut other: Self) {
        if let Some(hardware) = other.hardware.take() {
            self.work.join(&other.work);
            self.hardware.get_or_insert(hardware);
        }
    }

    fn wait(mut self) {
        self.finish();
    }

    fn is_done(&self) -> bool {
        self.hardware.is_none()
    }
}

impl<H: Hardware> Drop for X86Flush<H> {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
#[path = "flush_tests.rs"]
mod tests;
