//! Create, reference, release, end.

use super::io::Clean;
use super::limbo::Limbo;
use super::radix::{Radix, Slot};
use super::{Kind, ObjectGuard, ObjectHandle, ObjectRec, ObjectState};
use crate::lock::Mutex;
use crate::pager::Pager;
use crate::slab::{NoRecords, Reservation};
use crate::{Vm, slab};
use bsdvm_machine::Machine;
use bsdvm_machine::sync::atomic::{AtomicU32, Ordering};

/// References that one object can have: far below overflow, so that a loop of `fetch_add` by many
/// threads cannot reach it.
const MOST: u32 = u32::MAX / 2;
/// References that callers can take one by one. The rest is for entries, shadows and workers,
/// which are fewer, as each has a record or a frame: the core's own references do not fail.
pub(crate) const MOST_OF_CALLERS: u32 = MOST / 2;

/// One reference more, if there is one and there are fewer than `most`: a count that has come to
/// 0 stays there.
fn add_reference(refs: &AtomicU32, most: u32) -> bool {
    refs.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
        (n > 0 && n < most).then_some(n + 1)
    })
    .is_ok()
}

/// One reference less; gives how many there were.
fn drop_reference(refs: &AtomicU32) -> u32 {
    refs.fetch_sub(1, Ordering::AcqRel)
}

impl<M: Machine> Vm<M> {
    fn vacant_object(&self) -> ObjectRec<M> {
        ObjectRec {
            refs: AtomicU32::new(0),
            sibling_next: AtomicU32::new(0),
            sibling_prev: AtomicU32::new(0),
            next_dead: AtomicU32::new(0),
            state: Mutex::new(ObjectState {
                kind: Kind::Dead,
                bytes: 0,
                pages: Radix::new(self.page_nodes.owner()),
                backing: None,
                shadows: None,
                shadow_count: 0,
                file: false,
                one_mapping: false,
                charge: 0,
                revokes: 0,
                counted: 0,
            }),
        }
    }

    /// Sets `count` object records aside.
    pub(crate) fn reserve_objects(
        &self,
        count: u32,
    ) -> Result<Reservation<'_, M, ObjectRec<M>>, NoRecords> {
        self.objects
            .reserve(&self.frames, count, || self.vacant_object())
    }

    pub(crate) fn object_rec(&self, object: ObjectHandle) -> &ObjectRec<M> {
        self.objects.get(slab::cast(object))
    }

    /// Locks an object. The caller holds no object lock.
    pub(crate) fn lock_object(&self, object: ObjectHandle) -> ObjectGuard<'_, M> {
        self.object_rec(object).state.lock()
    }

    /// Locks an object while the lock of one that shadows it is held.
    pub(crate) fn lock_backing(&self, object: ObjectHandle) -> ObjectGuard<'_, M> {
        self.object_rec(object).state.lock_nested()
    }

    /// A new anonymous object of `pages` pages with one reference, which carries `charge`.
    pub(crate) fn new_anonymous(
        &self,
        from: &mut Reservation<'_, M, ObjectRec<M>>,
        pages: u64,
        charge: u64,
    ) -> ObjectHandle {
        let bytes = M::PAGE.offset(pages).unwrap_or(u64::MAX);
        self.new_object(from, Kind::Anonymous, bytes, charge)
    }

    /// A new object of `bytes` bytes behind `pager`, with one reference.
    pub(crate) fn new_paged(
        &self,
        from: &mut Reservation<'_, M, ObjectRec<M>>,
        pager: Pager,
        bytes: u64,
    ) -> ObjectHandle {
        self.new_object(from, Kind::Paged(pager), bytes, 0)
    }

    pub(crate) fn new_object(
        &self,
        from: &mut Reservation<'_, M, ObjectRec<M>>,
        kind: Kind,
        bytes: u64,
        charge: u64,
    ) -> ObjectHandle {
        let handle = slab::cast(self.objects.alloc(from));
        let rec = self.object_rec(handle);
        let mut state = rec.state.lock_nested();
        debug_assert!(state.pages.is_empty(), "a free object has no pages");
        state.kind = kind;
        state.bytes = bytes;
        state.backing = None;
        state.shadows = None;
        state.shadow_count = 0;
        state.file = false;
        state.one_mapping = matches!(kind, Kind::Anonymous);
        state.charge = charge;
        state.revokes += 1;
        rec.refs.store(1, Ordering::Release);
        handle
    }

    /// One reference more, by somebody who knows that the object lives. False when the count is
    /// full.
    #[must_use]
    pub(crate) fn reference(&self, object: ObjectHandle) -> bool {
        self.reference_up_to(object, MOST)
    }

    /// One reference more, if there are fewer than `most`.
    #[must_use]
    pub(crate) fn reference_up_to(&self, object: ObjectHandle, most: u32) -> bool {
        add_reference(&self.object_rec(object).refs, most)
    }

    /// References of an object.
    pub(crate) fn references(&self, object: ObjectHandle) -> u32 {
        self.object_rec(object).refs.load(Ordering::Acquire)
    }

    /// One reference less; with the last one the object ends. An anonymous object ends here and
    /// its pages go to `limbo`; one behind a pager goes there whole, since its dirty pages have to
    /// be written with no lock held. The caller holds no object lock.
    pub(crate) fn release(&self, object: ObjectHandle, limbo: &mut Limbo<'_, M>) {
        let mut next = Some(object);
        while let Some(object) = next.take() {
            match drop_reference(&self.object_rec(object).refs) {
                1 => next = self.end(object, limbo),
                2 => self.collapse_behind(object, limbo),
                _ => {}
            }
        }
    }

    /// Ends an object without references; gives the backing object, whose reference is now the
    /// caller's to release.
    fn end(&self, object: ObjectHandle, limbo: &mut Limbo<'_, M>) -> Option<ObjectHandle> {
        let mut state = self.lock_object(object);
        if matches!(state.kind, Kind::Paged(_) | Kind::Device(..)) {
            drop(state);
            limbo.add_dead(object);
            return None;
        }
        self.drain(&mut state, limbo);
        let backing = self.leave_backing(object, &mut state);
        self.charge.refund(core::mem::take(&mut state.charge));
        state.kind = Kind::Dead;
        drop(state);
        self.objects.free(slab::cast(object));
        backing
    }

    /// Ends an object behind a pager: writes its dirty pages, frees all. No lock is held.
    pub(crate) fn end_paged(&self, object: ObjectHandle) {
        // Nobody refers to the object, so nobody adds a page. A failing write loses the page, as
        // there is nobody left to tell.
        let _ = self.clean_pages(object, 0, u64::MAX, Clean::All);
        let mut limbo = Limbo::new(self);
        let mut state = self.lock_object(object);
        let (Kind::Paged(pager) | Kind::Device(pager, _)) = state.kind else {
            return;
        };
        self.drain(&mut state, &mut limbo);
        state.kind = Kind::Dead;
        drop(state);
        limbo.settle();
        pager.ops.closed(pager.cookie);
        self.objects.free(slab::cast(object));
    }

    /// Takes every page and swap slot out of an object that ends.
    fn drain(&self, state: &mut ObjectState, limbo: &mut Limbo<'_, M>) {
        while let Some((index, slot)) = state.pages.next(&self.page_nodes, 0) {
            state.pages.remove(&self.page_nodes, index);
            match slot {
                Slot::Resident(frame) => self.expel(frame, limbo),
                Slot::Swapped(slot) => limbo.add_slot(slot),
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom;
#[cfg(test)]
mod tests;
