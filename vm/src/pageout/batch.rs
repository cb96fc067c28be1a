//! What happens to the pages that page-out takes, a few at a time: one flush and, where they go to
//! swap, one call of the device for many.
//!
//! The pages of a batch are busy and on no queue, so that none of them comes back, moves, ends or
//! is looked at again meanwhile; their
//! objects are kept by references. A swap device never faults, a pager may: so it is called for
//! one page at a time, when the others of its batch have been let go.

use crate::Vm;
use crate::object::limbo::Limbo;
use crate::object::radix::Slot;
use crate::object::{Kind, ObjectHandle, ObjectId};
use crate::page::{Bits, Queue};
use crate::pager::{CLUSTER, Pager, PagerError, SlotRun};
use crate::show::{Event, Store};
use bsdvm_machine::{Frame, Machine, Usage};

/// What having been used lately does for a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It stays.
    Respected,
    /// Nothing.
    Ignored,
}

/// What became of a page on its way out.
#[derive(Clone, Copy)]
enum Fate {
    /// It has nothing that is not elsewhere.
    Clean,
    /// It differs from what swap has of it, and stays if it cannot be written.
    Dirty,
    /// It differs from what its pager has, and stays until that has written it.
    DirtyFor(Pager),
    /// It was written to a fresh slot.
    Written(u32),
}

/// A page on its way out: busy, unmapped, its object kept by a reference.
#[derive(Clone, Copy)]
struct Leaving {
    frame: Frame,
    object: ObjectHandle,
    index: u64,
    kind: Kind,
    /// The size of its object.
    bytes: u64,
    fate: Fate,
}

/// Pages on their way out together.
pub(super) struct Batch<'v, M: Machine> {
    vm: &'v Vm<M>,
    pages: [Option<Leaving>; CLUSTER],
    count: usize,
}

impl<'v, M: Machine> Batch<'v, M> {
    /// Makes busy and unmaps up to `most` of the pages that `next` names, those that can go now.
    /// No processor knows them any more afterwards.
    pub(super) fn gather(
        vm: &'v Vm<M>,
        most: u32,
        used: Use,
        next: &mut dyn FnMut() -> Option<Frame>,
    ) -> Batch<'v, M> {
        let mut batch = Batch {
            vm,
            pages: [None; CLUSTER],
            count: 0,
        };
        let most = CLUSTER.min(most as usize);
        let room = vm.swap.has_room();
        let mut limbo = Limbo::new(vm);
        while batch.count < most
            && let Some(frame) = next()
        {
            let leaving = vm.begin_page_out(frame, used, room, &mut limbo);
            batch.pages[batch.count] = leaving;
            batch.count += usize::from(leaving.is_some());
        }
        limbo.be_quiet();
        limbo.settle();
        for leaving in batch.each() {
            let dirty = vm.frames.page(leaving.frame).clear(Bits::DIRTY);
            leaving.fate = match leaving.kind {
                _ if dirty.is_empty() => Fate::Clean,
                Kind::Paged(pager) => Fate::DirtyFor(pager),
                _ => Fate::Dirty,
            };
        }
        batch
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Leaving> {
        self.pages[..self.count].iter_mut().flatten()
    }

    /// Writes what has to go to swap. No lock is held.
    pub(super) fn write(&mut self) -> &mut Self {
        let vm = self.vm;
        // Neighbours in an object become neighbours on swap, to be read in together.
        self.pages[..self.count].sort_unstable_by_key(|leaving| {
            leaving.map(|l| (!matches!(l.fate, Fate::Dirty), l.object.raw(), l.index))
        });
        let dirty = |l: &Option<Leaving>| l.is_some_and(|l| matches!(l.fate, Fate::Dirty));
        let count = self.pages.iter().take_while(|l| dirty(l)).count();
        let mut rest = &mut self.pages[..count];
        while !rest.is_empty() {
            let Some(run) = vm.swap_run(rest.len() as u32) else {
                break;
            };
            let (now, later) = rest.split_at_mut(run.count as usize);
            vm.write_run(run, now);
            rest = later;
        }
        self
    }

    /// Takes the pages that can go from their objects, frees them and lets go of the others; gives
    /// the number freed, and the frames of those that their pagers have to write.
    pub(super) fn end(mut self) -> (u32, Unwritten) {
        let vm = self.vm;
        let mut limbo = Limbo::new(vm);
        let mut unwritten = Unwritten::default();
        let mut freed = 0;
        for leaving in self.each() {
            if matches!(leaving.fate, Fate::DirtyFor(_)) {
                unwritten.add(leaving.frame);
            }
            freed += vm.end_page_out(leaving, &mut limbo);
        }
        limbo.settle();
        (freed, unwritten)
    }

    /// Writes the first page, if its pager has to. No lock is held.
    pub(super) fn write_paged(&mut self) -> &mut Self {
        let vm = self.vm;
        if let Some(l) = &mut self.pages[0]
            && let Fate::DirtyFor(pager) = l.fate
            && vm
                .put_page(l.object, pager, l.index, l.frame, l.bytes)
                .is_ok()
        {
            l.fate = Fate::Clean;
        }
        self
    }
}

/// Frames with pages that their pagers have to write before they can go.
#[derive(Default)]
pub(super) struct Unwritten {
    frames: [Option<Frame>; CLUSTER],
    count: usize,
}

impl Unwritten {
    fn add(&mut self, frame: Frame) {
        self.frames[self.count] = Some(frame);
        self.count += 1;
    }

    /// One after the other.
    pub(super) fn each(&self) -> impl Iterator<Item = Frame> {
        self.frames.iter().copied().flatten()
    }
}

impl<M: Machine> Vm<M> {
    /// Makes the page busy and unmaps it. `None` when it is not to go: it is in use, or has to go
    /// to swap where there is no room.
    fn begin_page_out(
        &self,
        frame: Frame,
        used: Use,
        room: bool,
        limbo: &mut Limbo<'_, M>,
    ) -> Option<Leaving> {
        let page = self.frames.page(frame);
        let (object, index) = page.identity()?;
        let state = self.lock_object(object);
        // The page may have changed hands before the lock was taken.
        if page.identity() != Some((object, index)) || page.is_busy() || page.wired() > 0 {
            return None;
        }
        if !room && !state.is_paged() && page.has(Bits::DIRTY) {
            return None;
        }
        self.gather_usage(frame, Usage::REFERENCED, limbo);
        let referenced = !page.clear(Bits::REFERENCED).is_empty();
        if referenced && used == Use::Respected {
            self.counters.reactivated.bump();
            self.queues.put(&self.frames, frame, Queue::Active);
            return None;
        }
        if !self.reference(object) {
            return None;
        }
        page.set(Bits::BUSY);
        self.queues.take(&self.frames, frame);
        self.unmap_page(frame, limbo);
        Some(Leaving {
            frame,
            object,
            index,
            kind: state.kind,
            bytes: state.bytes,
            fate: Fate::Clean,
        })
    }

    /// Up to `want` slots in a row. What pages in memory keep on swap is worth less than room.
    fn swap_run(&self, want: u32) -> Option<SlotRun> {
        let run = self.swap.alloc(&self.frames, want);
        run.or_else(|| match self.drop_swap_copies() {
            0 => None,
            _ => self.swap.alloc(&self.frames, want),
        })
    }

    /// Writes dirty pages to a run of slots. When that fails each is tried alone, so that a slot
    /// that is bad takes no other with it. No lock is held.
    fn write_run(&self, run: SlotRun, pages: &mut [Option<Leaving>]) {
        let frames = core::array::from_fn::<_, CLUSTER, _>(|i| {
            pages
                .get(i)
                .copied()
                .flatten()
                .map_or(Frame(0), |l| l.frame)
        });
        let count = pages.len().min(CLUSTER);
        let whole = self.write_slots(run.first, &frames[..count]);
        let alone = count > 1 && !matches!(whole, Ok(()) | Err(PagerError::NoSpace));
        for (i, leaving) in pages.iter_mut().flatten().enumerate() {
            let slot = run.first + i as u32;
            let written = match alone {
                true => self.write_slots(slot, &[leaving.frame]),
                false => whole,
            };
            self.trace(|| Event::PageOut {
                object: ObjectId(leaving.object),
                offset: M::PAGE.offset(leaving.index).unwrap_or(u64::MAX),
                to: Store::Swap,
                outcome: written,
            });
            match written {
                Ok(()) => {
                    self.counters.page_out.bump();
                    self.counters.swap_out.bump();
                    leaving.fate = Fate::Written(slot);
                }
                Err(PagerError::NoSpace) => self.swap.postpone(slot),
                Err(_) => self.swap.retire(slot),
            }
        }
    }

    fn write_slots(&self, first: u32, frames: &[Frame]) -> Result<(), PagerError> {
        self.counters.swap_writes.bump();
        self.swap.write(self.machine(), first, frames)
    }

    /// Lets every page in memory give up the slot that it keeps; gives how many did.
    fn drop_swap_copies(&self) -> u32 {
        let mut dropped = 0;
        for frame in self.frames.managed() {
            let page = self.frames.page(frame);
            let Some((object, index)) = page.identity().filter(|_| page.swap_slot().is_some())
            else {
                continue;
            };
            let mut limbo = Limbo::new(self);
            let _state = self.lock_object(object);
            if page.identity() == Some((object, index))
                && !page.is_busy()
                && let Some(slot) = self.take_slot(page)
            {
                page.set(Bits::DIRTY);
                limbo.add_slot(slot);
                dropped += 1;
            }
        }
        dropped
    }

    /// Takes the page from its object and frees it, if it can go; lets go of it. Gives the number
    /// freed.
    fn end_page_out(&self, leaving: &Leaving, limbo: &mut Limbo<'_, M>) -> u32 {
        let &Leaving {
            frame,
            object,
            index,
            fate,
            ..
        } = leaving;
        let page = self.frames.page(frame);
        let mut state = self.lock_object(object);
        let ours = page.identity() == Some((object, index));
        let mut freed = 0;
        match fate {
            Fate::Clean | Fate::Written(_) if ours => {
                let mut slot = self.take_slot(page);
                if let Fate::Written(fresh) = fate
                    && let Some(old) = slot.replace(fresh)
                {
                    limbo.add_slot(old);
                }
                match slot.map(Slot::Swapped) {
                    Some(slot) => state.pages.replace(&self.page_nodes, index, slot),
                    None => _ = state.pages.remove(&self.page_nodes, index),
                }
                page.clear_identity();
                freed = 1;
            }
            Fate::Written(slot) => limbo.add_slot(slot),
            Fate::Clean => {}
            Fate::Dirty | Fate::DirtyFor(_) => {
                page.set(Bits::DIRTY);
                if ours {
                    self.queues.put(&self.frames, frame, Queue::Active);
                }
            }
        }
        if !self.unbusy(frame) {
            limbo.add_frame(frame);
        }
        drop(state);
        self.release(object, limbo);
        freed
    }
}
