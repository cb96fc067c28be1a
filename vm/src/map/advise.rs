//! Advise: what a program says about how it uses a range (M12, M13).
//!
//! Advice about a range stands in its entries, which are clipped to it, with the map locked for
//! writing. Advice about pages goes to the objects, with the map locked for reading alone, a few
//! pages at a time. Holes and submaps are skipped, ranges cut to the map.

use super::{Behavior, Edit, Entry, EntryHandle, Flags, MapError, Need, map_channel};
use crate::Vm;
use crate::fault::Prefault;
use crate::object::limbo::Limbo;
use crate::object::radix::Slot;
use crate::object::{ObjectHandle, ObjectState};
use crate::page::{Bits, Queue};
use crate::show::Verb;
use crate::space::Space;
use bsdvm_machine::{Frame, Machine, Usage, VirtAddr, VirtRange};

/// Pages that are looked at before the locks are let go.
const BATCH: usize = 64;

/// What a program says about a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// It is used in this order.
    Behavior(Behavior),
    /// A periodic sync ([`crate::Object::sync`]) is to leave alone what is written here. What is
    /// written elsewhere to the same page is not.
    NoSync,
    /// It is not any more.
    AutoSync,
    /// A core dump is to leave it out.
    NoCore,
    /// It is to have it in.
    Core,
    /// It gets these marks, bits 0 to 3. They mean nothing to the core: they are kept with the
    /// range, and a child gets them.
    Mark(u8),
    /// It loses these marks.
    Unmark(u8),
    /// The translations are stale: they go, and faults make them anew.
    Invalidate,
    /// It is going to be used: what is in memory is entered.
    WillNeed,
    /// It is not going to be used soon: its pages are the next to be paged out. Contents stay.
    DontNeed,
    /// The same, and those that are mapped nowhere else are paged out now.
    PageOut,
    /// Its contents are not needed, but where they are written again: private zero-filled pages
    /// may be dropped instead of paged out, and read as zeroes then. Pages that have older
    /// contents behind them are left alone, as those must not be seen again.
    Free,
}

/// What becomes of the pages of a range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    Unneeded,
    Leaving,
    Freed,
}

/// Pages to be paged out once nothing is locked.
struct Chosen {
    frames: [Frame; BATCH],
    count: usize,
}

impl<M: Machine> Space<'_, M> {
    /// Takes advice about `range`, a range of whole pages (M12, M13).
    ///
    /// Errors: [`MapError::InvalidAddress`]; [`MapError::NoMemory`] for advice that stands in
    /// entries. Nothing is changed then.
    pub fn advise(self, range: VirtRange, advice: Advice) -> Result<(), MapError> {
        let done = self.advise_quietly(range, advice);
        self.trace_change(Verb::Advise(advice), range, &done);
        done
    }

    fn advise_quietly(self, range: VirtRange, advice: Advice) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let range = range.intersect(self.range());
        let set = |flags: Flags, clear: Flags| {
            self.advise_entries(range, move |entry| {
                entry.flags = (entry.flags | flags) - clear;
            })
        };
        let none = Flags::empty();
        match advice {
            Advice::Behavior(behavior) => {
                return self.advise_entries(range, |entry| entry.behavior = behavior);
            }
            Advice::NoSync => return set(Flags::NO_SYNC, none),
            Advice::AutoSync => return set(none, Flags::NO_SYNC),
            Advice::NoCore => return set(Flags::NO_CORE, none),
            Advice::Core => return set(none, Flags::NO_CORE),
            Advice::Mark(bits) => return set(Flags::of_marks(bits), none),
            Advice::Unmark(bits) => return set(none, Flags::of_marks(bits)),
            Advice::Invalidate => return self.invalidate(range),
            Advice::WillNeed => self.enter_resident(range, Prefault::Full),
            Advice::DontNeed => self.advise_pages(range, Pages::Unneeded),
            Advice::PageOut => self.advise_pages(range, Pages::Leaving),
            Advice::Free => self.advise_pages(range, Pages::Freed),
        }
        Ok(())
    }

    fn advise_entries(self, range: VirtRange, change: impl Fn(&mut Entry)) -> Result<(), MapError> {
        let mut edit = self.edit(VirtRange::default(), Need::CLIP)?;
        for at in [range.start(), range.end()] {
            let found = edit.map.find(edit.vm, at);
            if found.is_some_and(|handle| edit.get(handle).submap().is_none()) {
                edit.clip(at);
            }
        }
        edit.each(range, |edit, handle| {
            if edit.get(handle).submap().is_none() {
                change(edit.get_mut(handle));
            }
        });
        edit.simplify(range);
        Ok(())
    }

    /// Takes the translations of `range` away, but for those that no fault would make again.
    fn invalidate(self, range: VirtRange) -> Result<(), MapError> {
        let mut edit = self.edit(VirtRange::default(), Need::default())?;
        edit.each(range, |edit, handle| {
            if edit.is_faulted(handle) {
                let part = edit.get(handle).range().intersect(range);
                edit.unmap(part);
            }
        });
        Ok(())
    }

    fn advise_pages(self, range: VirtRange, pages: Pages) {
        let mut at = Some(range.start());
        while let Some(from) = at.filter(|at| *at < range.end()) {
            let mut chosen = Chosen {
                frames: [Frame(0); BATCH],
                count: 0,
            };
            at = self.advise_some(from, range.end(), pages, &mut chosen);
            self.vm.page_out_unneeded(&chosen.frames[..chosen.count]);
        }
    }

    /// Sees to a few pages at or above `at`; gives where to go on. Nothing is locked when the
    /// translations have been flushed.
    fn advise_some(
        self,
        at: VirtAddr,
        end: VirtAddr,
        pages: Pages,
        chosen: &mut Chosen,
    ) -> Option<VirtAddr> {
        let vm = self.vm;
        let mut limbo = Limbo::new(vm);
        let map = self.rec().map.read();
        if map.frozen {
            let ticket = vm.machine().ticket(map_channel(self.handle));
            drop(map);
            self.wait_map(ticket);
            return Some(at);
        }
        let entry = *map.get(vm, map.find_at_or_above(vm, at)?);
        let part = VirtRange::new(entry.start.max(at), entry.end.min(end))?;
        let (Some(object), None, false) = (entry.object, entry.submap(), entry.is_page_table())
        else {
            return Some(part.end());
        };
        let first = entry.index_of::<M>(part.start());
        let last = first + M::PAGE.index(part.len());
        let mut state = vm.lock_object(object);
        let useful = match pages {
            Pages::Unneeded | Pages::Leaving => !state.is_kernel(),
            Pages::Freed => entry.is_private() && vm.is_own_memory(&entry, object, &state),
        };
        if !useful {
            return Some(part.end());
        }
        let mut index = first;
        for _ in 0..BATCH {
            let next = state.pages.next(&vm.page_nodes, index);
            let Some((found, slot)) = next.filter(|&(found, _)| found < last) else {
                return Some(part.end());
            };
            index = found + 1;
            let frame = vm.advise_page(&mut state, found, slot, pages, &mut limbo);
            if let Some(frame) = frame.filter(|_| pages == Pages::Leaving) {
                chosen.frames[chosen.count] = frame;
                chosen.count += 1;
            }
        }
        part.start().checked_add(M::PAGE.offset(index - first)?)
    }
}

impl<M: Machine> Vm<M> {
    /// Whether what an entry shows is zero-filled memory that nobody else sees, with nothing
    /// behind it: pages that go are simply zero-filled again. Under the object's lock.
    pub(crate) fn is_own_memory(
        &self,
        entry: &Entry,
        object: ObjectHandle,
        state: &ObjectState,
    ) -> bool {
        !entry.has(Flags::NEEDS_COPY)
            && state.is_anonymous()
            && state.backing.is_none()
            && (state.one_mapping || self.references(object) == 1)
    }

    /// Sees to one page; gives its frame if nobody, or one space alone, maps it.
    fn advise_page(
        &self,
        state: &mut ObjectState,
        index: u64,
        slot: Slot,
        pages: Pages,
        limbo: &mut Limbo<'_, M>,
    ) -> Option<Frame> {
        let frame = match slot {
            Slot::Resident(frame) => frame,
            Slot::Swapped(slot) => {
                if pages == Pages::Freed {
                    state.pages.remove(&self.page_nodes, index);
                    limbo.add_slot(slot);
                }
                return None;
            }
        };
        let page = self.frames.page(frame);
        if page.is_busy() || page.wired() > 0 {
            return None;
        }
        let (usage, bits) = match pages {
            Pages::Unneeded | Pages::Leaving => (Usage::REFERENCED, Bits::REFERENCED),
            // Clean, it is dropped when its turn comes; a later write makes it dirty.
            Pages::Freed => (Usage::all(), Bits::REFERENCED | Bits::DIRTY),
        };
        self.gather_usage(frame, usage, limbo);
        page.clear(bits);
        if pages == Pages::Freed
            && let Some(slot) = self.take_slot(page)
        {
            limbo.add_slot(slot);
        }
        self.queues.put(&self.frames, frame, Queue::Inactive);
        self.rmap.nth(frame, page, 1).is_none().then_some(frame)
    }
}

impl<M: Machine> Edit<'_, M> {
    /// Whether faults make the translations of an entry.
    fn is_faulted(&self, handle: EntryHandle) -> bool {
        let entry = self.get(handle);
        let kernel = |object| self.vm.lock_object(object).is_kernel();
        entry.submap().is_none() && !entry.has(Flags::NO_FAULT) && !entry.object.is_some_and(kernel)
    }
}
