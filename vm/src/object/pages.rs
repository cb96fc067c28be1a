//! Put a page in, take it out; busy and done.

use super::limbo::Limbo;
use super::radix::{self, Slot};
use super::{ObjectHandle, ObjectState};
use crate::Vm;
use crate::page::{Bits, Class, Queue, busy_channel};
use crate::slab::{NoRecords, Reservation};
use bsdvm_machine::{Frame, Machine, Pmap, Ticket, Usage, VirtRange};

/// A page that is busy: where to wait for it. Taken under the object's lock.
#[must_use]
pub(crate) struct BusyWait {
    frame: Frame,
    ticket: Ticket,
}

impl<M: Machine> Vm<M> {
    /// Sets aside the nodes for putting `pages` pages into objects.
    pub(crate) fn reserve_page_nodes(
        &self,
        pages: u32,
    ) -> Result<Reservation<'_, M, radix::Node>, NoRecords> {
        self.reserve_page_nodes_as(Class::System, pages)
    }

    /// As [`Vm::reserve_page_nodes`], with frames of `class`.
    pub(crate) fn reserve_page_nodes_as(
        &self,
        class: Class,
        pages: u32,
    ) -> Result<Reservation<'_, M, radix::Node>, NoRecords> {
        self.page_nodes.reserve_as(
            class,
            &self.frames,
            pages * radix::NODES_PER_INSERT,
            radix::Node::EMPTY,
        )
    }

    /// Makes `frame` the page at `index`, where no resident page is; gives back the swap slot
    /// that was there. The page is put on the active queue, or wired where the object
    /// itself wires its pages. Under the object's lock.
    pub(crate) fn insert_page(
        &self,
        object: ObjectHandle,
        state: &mut ObjectState,
        from: &mut Reservation<'_, M, radix::Node>,
        index: u64,
        frame: Frame,
    ) -> Option<u32> {
        let old = state
            .pages
            .set(&self.page_nodes, from, index, Slot::Resident(frame));
        self.frames.page(frame).set_identity(object, index);
        if state.own_wirings() > 0 {
            let wired = self.frames.wire(frame);
            debug_assert!(wired, "a fresh page is not wired");
        } else {
            self.queues.put(&self.frames, frame, Queue::Active);
        }
        match old {
            Some(Slot::Swapped(slot)) => Some(slot),
            Some(Slot::Resident(_)) => {
                debug_assert!(false, "a page was there already");
                None
            }
            None => None,
        }
    }

    /// Takes a page that has left its object's tree out of the world: unmaps it everywhere, takes
    /// it off its queue and sends it to limbo. A busy page goes when its worker is done with it.
    pub(crate) fn expel(&self, frame: Frame, limbo: &mut Limbo<'_, M>) {
        let page = self.frames.page(frame);
        self.unmap_page(frame, limbo);
        self.queues.take(&self.frames, frame);
        if let Some(slot) = self.take_slot(page) {
            limbo.add_slot(slot);
        }
        page.clear_identity();
        if !page.is_busy() {
            limbo.add_frame(frame);
        }
    }

    /// Removes the pages and swap slots of `[first, end)` from an object. Under its lock.
    pub(crate) fn remove_pages(
        &self,
        state: &mut ObjectState,
        first: u64,
        end: u64,
        limbo: &mut Limbo<'_, M>,
    ) {
        let mut at = first;
        while let Some((index, slot)) = state.pages.next(&self.page_nodes, at) {
            if index >= end {
                return;
            }
            state.pages.remove(&self.page_nodes, index);
            match slot {
                Slot::Resident(frame) => self.expel(frame, limbo),
                Slot::Swapped(slot) => limbo.add_slot(slot),
            }
            at = index;
        }
    }

    /// Takes every translation of a page away. What was done through them goes into the page.
    pub(crate) fn unmap_page(&self, frame: Frame, limbo: &mut Limbo<'_, M>) {
        let page = self.frames.page(frame);
        while let Some(mapping) = self.rmap.nth(frame, page, 0) {
            let space = self.space_rec(mapping.space);
            let pmap = space.pmap.lock();
            // The mapping may have gone before the pmap was locked; then it is not recorded now.
            if let Some(pmap) = pmap.as_ref()
                && let Some(range) = VirtRange::from_len(mapping.va, M::PAGE.bytes())
                && pmap.extract(mapping.va).is_some_and(|t| t.frame == frame)
            {
                limbo.begin();
                let flush = pmap.remove(range, &mut |gone| {
                    self.translation_gone(mapping.space, gone);
                });
                limbo.add_flush(flush);
            }
        }
    }

    /// Bookkeeping for a translation that a pmap gave up. Under the pmap's lock.
    pub(crate) fn translation_gone(
        &self,
        space: crate::space::SpaceHandle,
        gone: bsdvm_machine::Removed,
    ) {
        if gone.kind == bsdvm_machine::Kind::Manual {
            return;
        }
        let page = self.frames.page(gone.frame);
        fold_usage(page, gone.usage);
        let mapping = crate::page::rmap::Mapping { space, va: gone.va };
        let known = self.rmap.delete(gone.frame, page, mapping);
        debug_assert!(known, "a managed translation is recorded: {mapping:?}");
    }

    /// Takes the hint that somebody wants the page. Under the object's lock; wait after letting
    /// go of every lock.
    pub(crate) fn busy_wait(&self, frame: Frame) -> BusyWait {
        self.frames.page(frame).set(Bits::WANTED);
        BusyWait {
            frame,
            ticket: self.machine().ticket(busy_channel(frame)),
        }
    }

    /// Sleeps until the worker on a page is done. No lock is held.
    pub(crate) fn wait_busy(&self, wait: BusyWait) {
        M::assert_none_held();
        self.machine()
            .sleep(busy_channel(wait.frame), wait.ticket, None);
    }

    /// Ends the work on a busy page and wakes who waits. Under the lock of the object that the
    /// page had when it was made busy. False when the page was expelled meanwhile: then the frame
    /// is the worker's to free.
    pub(crate) fn unbusy(&self, frame: Frame) -> bool {
        let page = self.frames.page(frame);
        if page.let_go() {
            self.machine().wake(busy_channel(frame));
        }
        page.identity().is_some()
    }
}

/// Folds what was done through a translation into the page.
pub(crate) fn fold_usage(page: &crate::page::Page, usage: Usage) {
    if usage.contains(Usage::MODIFIED) {
        page.set(Bits::DIRTY);
    }
    if usage.contains(Usage::REFERENCED) {
        page.set(Bits::REFERENCED);
    }
}
