//! Enter what is in memory ahead of the faults (M13, M14): at a mapping, and on advice.
//!
//! Nothing is read in and no write is allowed, so nothing is decided here that a fault would
//! decide. It is a hint: it stops at the first thing that would have to be waited for.

use super::chain::{Chain, Found};
use super::copy::Reach;
use super::{Fault, Next, Purpose, reserve_chunks};
use crate::map::{Entry, Flags};
use crate::object::ObjectHandle;
use crate::page::Class;
use crate::space::Space;
use bsdvm_machine::{Access, FrameRun, Kind, Machine, MemoryAttr, Pmap, VirtAddr, VirtRange};

/// Pages that are entered at most where only part of a mapping is.
const PART: u64 = 96;

/// How much of a mapping is entered ahead of the faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefault {
    /// Everything that is in memory (`MAP_PREFAULT`).
    Full,
    /// The first 96 pages that are in memory (`MAP_PREFAULT_PARTIAL`).
    Partial,
}

/// Where entering ahead goes on.
enum Step {
    /// At an address; with how many pages were entered.
    On(VirtAddr, u64),
    /// At the same place, when the pmap has been given frames for its tables.
    Donate(u32),
    Stop,
}

impl<'v, M: Machine> Space<'v, M> {
    /// Enters, without write access, the pages of `range` that are in memory and not entered yet.
    pub(crate) fn enter_resident(self, range: VirtRange, prefault: Prefault) {
        let mut left = match prefault {
            Prefault::Full => u64::MAX,
            Prefault::Partial => PART,
        };
        let mut at = range.start();
        while left > 0 && at < range.end() {
            // Records for a few pages at a time.
            let Some(mut fault) = self.ahead(at) else {
                return;
            };
            while left > 0 && at < range.end() && fault.chunks.left() > 0 {
                let step = fault.enter_next(at, range.end());
                fault.limbo.settle();
                match step {
                    Step::On(next, entered) => {
                        at = next;
                        left -= entered;
                    }
                    Step::Donate(count) if fault.donate_free(count) => {}
                    Step::Donate(_) | Step::Stop => return,
                }
            }
        }
    }

    /// A fault that is nobody's, for entering; `None` when records cannot be had.
    fn ahead(self, va: VirtAddr) -> Option<Fault<'v, 'static, M>> {
        let vm = self.vm;
        Some(Fault {
            space: self,
            va,
            access: Access::Read,
            purpose: Purpose::Enter,
            did: None,
            spare: None,
            made_room: false,
            answer: None,
            object: None,
            nodes: vm.reserve_page_nodes(0).ok()?,
            chunks: reserve_chunks(vm, Access::Read).ok()?,
            limbo: crate::object::limbo::Limbo::new(vm),
        })
    }
}

impl<M: Machine> Fault<'_, '_, M> {
    /// Enters the first page at or above `at` that can be, under the locks of the map and of the
    /// page's chain.
    fn enter_next(&mut self, at: VirtAddr, end: VirtAddr) -> Step {
        let space = self.space;
        let vm = space.vm;
        let map = space.rec().map.read();
        let found = map.find_at_or_above(vm, at).filter(|_| !map.frozen);
        let Some(entry) = found.map(|handle| *map.get(vm, handle)) else {
            return Step::Stop;
        };
        if entry.start >= end {
            return Step::Stop;
        }
        let part = VirtRange::new(entry.start.max(at), entry.end.min(end)).unwrap_or_default();
        let Some((object, va)) = self.next_page(&entry, part) else {
            return Step::On(part.end(), 0);
        };
        self.va = va;
        let next = va.checked_add(M::PAGE.bytes()).unwrap_or(part.end());
        let mut chain = Chain::lock(vm, object, entry.index_of::<M>(va));
        let frame = match chain.walk() {
            Found::Page(frame) if !vm.frames.page(frame).is_busy() => frame,
            _ => return Step::On(next, 0),
        };
        if space.with_pmap(|pmap| pmap.extract(va).is_some()) != Some(false) {
            return Step::On(next, 0);
        }
        let prot = Self::translation_prot(entry.reach::<M>(), false);
        match self.enter(
            va,
            FrameRun::one(frame),
            prot,
            MemoryAttr::WriteBack,
            Kind::Managed,
        ) {
            Ok(None) => Step::On(next, 1),
            Ok(Some(Next::TableFrames(count))) => Step::Donate(count),
            _ => Step::Stop,
        }
    }

    /// The address of the first page of `part` of an entry that may be in memory, and the object.
    /// `None` where nothing is, or nothing is to be entered.
    fn next_page(&self, entry: &Entry, part: VirtRange) -> Option<(ObjectHandle, VirtAddr)> {
        let vm = self.space.vm;
        let object = entry.object?;
        let closed =
            entry.submap().is_some() || entry.is_page_table() || entry.has(Flags::NO_FAULT);
        // What is wired was entered when it was wired.
        if closed || entry.prot.is_empty() || entry.wired > 0 {
            return None;
        }
        if vm.lock_object(object).is_kernel() {
            return None;
        }
        let first = entry.index_of::<M>(part.start());
        let end = first + M::PAGE.index(part.len());
        let index = vm.next_in_chain(object, first, end, Reach::Whole)?;
        let away = M::PAGE.offset(index - first)?;
        Some((object, part.start().checked_add(away)?))
    }

    /// Gives the pmap frames for its tables, if some are free.
    fn donate_free(&mut self, count: u32) -> bool {
        let vm = self.space.vm;
        (0..count).all(|_| {
            let Some(frame) = vm.frames.alloc(Class::Normal) else {
                return false;
            };
            let taken = self.space.with_pmap(|pmap| pmap.donate(frame)).is_some();
            if !taken {
                vm.frames.free(frame);
            }
            taken
        })
    }
}
