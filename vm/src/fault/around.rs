//! Enter the neighbours of a page of a file that is read (M14, O05): they are in memory, the next
//! reads are likely to want them, and entering them now costs less than a fault each. And those of
//! a page that was read from swap, where pages are used in order.

use super::chain::Chain;
use super::{Fault, Faulted};
use crate::map::{Behavior, Entry};
use crate::object::radix::Slot;
use bsdvm_machine::{Frame, FrameRun, Kind, Machine, MemoryAttr, Pmap, VirtAddr};

/// Pages that are entered together, the one that is wanted included: a window that is aligned in
/// the file, as those that are read in, or what follows where pages are used in order.
pub(super) const PAGES: u64 = 16;

impl<'v, M: Machine> Fault<'v, '_, M> {
    /// Enters, without write access, what the last object of the chain has in memory around the
    /// page, where no object in front of it hides it and nothing is entered yet. A hint: it stops
    /// at the first thing that would need more than it has.
    pub(super) fn enter_around(&mut self, entry: &Entry, chain: &mut Chain<'v, M>) {
        if entry.wired > 0 {
            return;
        }
        let here = M::PAGE.index(self.va.0);
        let window = match (entry.behavior, chain.last().state.is_paged()) {
            (Behavior::Random, _) => return,
            (Behavior::Normal, true) => here.saturating_sub(chain.last().index % PAGES),
            (Behavior::Sequential, true) => here,
            (_, false) => match self.goes_on_from(here) {
                Some(window) => window,
                None => return,
            },
        };
        // Neighbours in neighbouring frames, entered in one go.
        let mut run: Option<(u64, FrameRun)> = None;
        for number in window..window + PAGES {
            if number == here {
                continue;
            }
            let Some(frame) = self.neighbour(entry, chain, number) else {
                continue;
            };
            match &mut run {
                Some((first, run))
                    if *first + u64::from(run.count) == number
                        && run.first.0 + run.count == frame.0 =>
                {
                    run.count += 1;
                }
                _ => {
                    let before = run.replace((number, FrameRun::one(frame)));
                    if !self.enter_neighbours(entry, before) {
                        return;
                    }
                }
            }
        }
        self.enter_neighbours(entry, run);
    }

    /// The frame of page `number`, if it is to be entered.
    fn neighbour(&self, entry: &Entry, chain: &Chain<'v, M>, number: u64) -> Option<Frame> {
        let here = M::PAGE.index(self.va.0);
        let va = M::PAGE.offset(number).map(VirtAddr)?;
        if !entry.range().contains(va) {
            return None;
        }
        let frame = chain.visible(number.wrapping_sub(here))?;
        let known = self.space.with_pmap(|pmap| pmap.extract(va).is_some());
        (known == Some(false)).then_some(frame)
    }

    /// Enters a run from page number `first` on. Whether it did, and more may be.
    fn enter_neighbours(&mut self, entry: &Entry, run: Option<(u64, FrameRun)>) -> bool {
        let Some((first, run)) = run else {
            return true;
        };
        let Some(va) = M::PAGE.offset(first).map(VirtAddr) else {
            return false;
        };
        if self.chunks.left() < run.count {
            return false;
        }
        let prot = Self::translation_prot(entry.prot, false);
        let entered = self.enter(va, run, prot, MemoryAttr::WriteBack, Kind::Managed);
        matches!(entered, Ok(None))
    }
}

impl<M: Machine> Fault<'_, '_, M> {
    /// Where the window begins for the page `here` that came from swap with its neighbours: at the
    /// page, if the one below is in use, or so that it ends there, if the one above is. Otherwise
    /// pages are not used in order, and there is none.
    fn goes_on_from(&self, here: u64) -> Option<u64> {
        if self.did != Some(Faulted::PagedIn) {
            return None;
        }
        let entered = |number: Option<u64>| {
            let va = number.and_then(|n| M::PAGE.offset(n)).map(VirtAddr);
            let known = |va| self.space.with_pmap(|pmap| pmap.extract(va).is_some());
            va.and_then(known) == Some(true)
        };
        if entered(here.checked_sub(1)) {
            return Some(here);
        }
        entered(here.checked_add(1)).then(|| (here + 1).saturating_sub(PAGES))
    }
}

impl<M: Machine> Chain<'_, M> {
    /// The page in memory of the last object, `away` pages from the one that was found (counting
    /// with wrap-around), if nothing in front hides it and nobody works on it.
    fn visible(&self, away: u64) -> Option<Frame> {
        let vm = self.vm();
        let mut links = self.links().rev();
        let last = links.next()?;
        let index = last.index.checked_add_signed(away as i64)?;
        if index >= last.state.size::<M>() {
            return None;
        }
        let Some(Slot::Resident(frame)) = last.state.pages.get(&vm.page_nodes, index) else {
            return None;
        };
        let hidden = links.any(|link| {
            link.index
                .checked_add_signed(away as i64)
                .is_none_or(|i| link.state.pages.get(&vm.page_nodes, i).is_some())
        });
        (!hidden && !vm.frames.page(frame).is_busy()).then_some(frame)
    }
}
