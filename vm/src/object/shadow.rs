//! Chains of objects, and their only editor: shadow, collapse, bypass, split.
//!
//! ```text
//! entry ──> front ──backing──> middle ──backing──> bottom
//!             │ offset o          ▲
//!             │                   └── sibling: another object that shadows `middle`
//!             page i of front hides page i + o of middle
//! ```
//!
//! * **shadow**: a new front for an entry that may not write to its object.
//! * **collapse**: an object that one shadow alone refers to gives it its pages and ends.
//! * **bypass**: an object that shadows refer to and nobody else can gain no page; a front that
//!   hides all of its pages goes past it.
//! * **split**: an object that one map's entries share gives an entry its own pages.
//!
//! All of them take locks front before backing, and none sleeps. None is needed for contents to
//! be right: one that lacks records leaves the chain as it is.

use super::limbo::Limbo;
use super::radix::Slot;
use super::{Backing, ObjectGuard, ObjectHandle, ObjectRec, ObjectState};
use crate::Vm;
use crate::page::Bits;
use crate::slab::{Handle, Reservation, cast, raw_of};
use bsdvm_machine::Machine;
use bsdvm_machine::sync::atomic::Ordering;

/// Objects in one chain, front included. A fork that would make a longer one copies instead.
pub(crate) const MAX_CHAIN: usize = 8;

impl<M: Machine> Vm<M> {
    /// Puts `front` at the head of the list of objects that shadow `backing`.
    fn join_siblings(&self, backing: &mut ObjectState, front: ObjectHandle) {
        let rec = self.object_rec(front);
        rec.sibling_prev.store(0, Ordering::Relaxed);
        rec.sibling_next
            .store(raw_of(backing.shadows), Ordering::Relaxed);
        if let Some(next) = backing.shadows {
            self.object_rec(next)
                .sibling_prev
                .store(front.raw(), Ordering::Relaxed);
        }
        backing.shadows = Some(front);
        backing.shadow_count += 1;
        backing.one_mapping = false;
    }

    fn leave_siblings(&self, backing: &mut ObjectState, front: ObjectHandle) {
        let rec = self.object_rec(front);
        let next = Handle::from_raw(rec.sibling_next.load(Ordering::Relaxed));
        let prev = Handle::from_raw(rec.sibling_prev.load(Ordering::Relaxed));
        match prev {
            Some(prev) => self
                .object_rec(prev)
                .sibling_next
                .store(raw_of(next), Ordering::Relaxed),
            None => backing.shadows = next,
        }
        if let Some(next) = next {
            self.object_rec(next)
                .sibling_prev
                .store(raw_of(prev), Ordering::Relaxed);
        }
        backing.shadow_count -= 1;
    }

    /// Takes an object off its backing object; gives the latter, whose reference is now the
    /// caller's.
    pub(crate) fn leave_backing(
        &self,
        object: ObjectHandle,
        state: &mut ObjectState,
    ) -> Option<ObjectHandle> {
        let backing = state.backing.take()?;
        let mut behind = self.lock_backing(backing.object);
        self.leave_siblings(&mut behind, object);
        Some(backing.object)
    }

    /// A new object of `pages` pages with one reference, in front of `behind` at `offset` pages.
    /// The caller's reference to `behind` becomes the new object's.
    pub(crate) fn shadow(
        &self,
        from: &mut Reservation<'_, M, ObjectRec<M>>,
        behind: ObjectHandle,
        offset: u64,
        pages: u64,
        charge: u64,
    ) -> ObjectHandle {
        let front = self.new_anonymous(from, pages, charge);
        let mut state = self.lock_object(front);
        state.backing = Some(Backing {
            object: behind,
            offset,
        });
        self.join_siblings(&mut self.lock_backing(behind), front);
        front
    }

    /// Objects in the chain that begins with `object`.
    pub(crate) fn chain_length(&self, object: ObjectHandle) -> usize {
        let mut length = 1;
        let mut state = self.lock_object(object);
        while let Some(backing) = state.backing {
            length += 1;
            state = self.lock_backing(backing.object);
        }
        length
    }

    /// `object` has one reference left: if it is a shadow's, the two become one.
    pub(crate) fn collapse_behind(&self, object: ObjectHandle, limbo: &mut Limbo<'_, M>) {
        let state = self.lock_object(object);
        if !state.is_anonymous() || state.shadow_count != 1 || self.references(object) != 1 {
            return;
        }
        let Some(front) = state.shadows else { return };
        if !self.reference(front) {
            return;
        }
        drop(state);
        self.collapse(front, limbo);
        self.release(front, limbo);
    }

    /// Shortens the chain behind `front` as far as it can: swallows backing objects that nobody
    /// else refers to, goes past those that `front` hides.
    pub(crate) fn collapse(&self, front: ObjectHandle, limbo: &mut Limbo<'_, M>) {
        loop {
            let mut state = self.lock_object(front);
            let Some(backing) = state.backing else { return };
            let mut behind = self.lock_backing(backing.object);
            if !behind.is_anonymous() || !state.is_anonymous() {
                return;
            }
            let refs = &self.object_rec(backing.object).refs;
            // Whoever finds `behind` in a list of shadows may take a reference meanwhile.
            let last = refs.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Acquire);
            let references = self.references(backing.object);
            if last.is_ok() {
                if !self.absorb(front, &mut state, backing, &mut behind, limbo) {
                    refs.store(1, Ordering::Release);
                    return;
                }
                self.swallow(front, &mut state, backing, behind);
            } else if references == behind.shadow_count
                && self.hides(&state, backing, &behind)
                && self.go_past(front, &mut state, backing, &mut behind)
            {
                drop(behind);
                drop(state);
                self.release(backing.object, limbo);
            } else {
                return;
            }
        }
    }

    /// Moves the pages of `behind` that `front` can see into it; the others go. Nobody but
    /// `front` refers to `behind`, so none of its pages is busy. False when records ran out.
    fn absorb(
        &self,
        front: ObjectHandle,
        state: &mut ObjectState,
        backing: Backing,
        behind: &mut ObjectState,
        limbo: &mut Limbo<'_, M>,
    ) -> bool {
        let size = state.size::<M>();
        while let Some((index, slot)) = behind.pages.next(&self.page_nodes, 0) {
            let seen = index
                .checked_sub(backing.offset)
                .filter(|&i| i < size && state.pages.get(&self.page_nodes, i).is_none());
            let Some(to) = seen else {
                behind.pages.remove(&self.page_nodes, index);
                match slot {
                    Slot::Resident(frame) => self.expel(frame, limbo),
                    Slot::Swapped(slot) => limbo.add_slot(slot),
                }
                continue;
            };
            let Ok(mut nodes) = self.reserve_page_nodes(1) else {
                return false;
            };
            behind.pages.remove(&self.page_nodes, index);
            state.pages.set(&self.page_nodes, &mut nodes, to, slot);
            if let Slot::Resident(frame) = slot {
                self.rename(frame, front, to);
            }
        }
        true
    }

    /// Gives a page a new place. Under the locks of both objects.
    pub(crate) fn rename(&self, frame: bsdvm_machine::Frame, to: ObjectHandle, index: u64) {
        let page = self.frames.page(frame);
        page.set_identity(to, index);
        page.set(Bits::DIRTY);
    }

    /// Ends `behind`, which has no pages and no reference left; `front` takes its place in the
    /// chain.
    fn swallow(
        &self,
        front: ObjectHandle,
        state: &mut ObjectState,
        backing: Backing,
        mut behind: ObjectGuard<'_, M>,
    ) {
        self.leave_siblings(&mut behind, front);
        state.backing = behind.backing.take().map(|b| {
            let mut next = self.lock_backing(b.object);
            self.leave_siblings(&mut next, backing.object);
            self.join_siblings(&mut next, front);
            Backing {
                object: b.object,
                offset: b.offset + backing.offset,
            }
        });
        self.charge.refund(core::mem::take(&mut behind.charge));
        behind.kind = super::Kind::Dead;
        drop(behind);
        self.objects.free(cast(backing.object));
    }

    /// Whether `front` has every page that it could see in `behind`.
    fn hides(&self, front: &ObjectState, backing: Backing, behind: &ObjectState) -> bool {
        // Cheap first: with fewer pages it cannot hide them, unless they lie outside of its
        // window, and then the walk is not worth its time.
        if front.held() < behind.held() {
            return false;
        }
        let size = front.size::<M>();
        let mut at = backing.offset;
        while let Some((index, _)) = behind.pages.next(&self.page_nodes, at) {
            let i = index - backing.offset;
            if i >= size {
                break;
            }
            if front.pages.get(&self.page_nodes, i).is_none() {
                return false;
            }
            at = index + 1;
        }
        true
    }

    /// Takes `front` from `behind` to what is behind that. The reference to `behind` is the
    /// caller's to release.
    fn go_past(
        &self,
        front: ObjectHandle,
        state: &mut ObjectState,
        backing: Backing,
        behind: &mut ObjectState,
    ) -> bool {
        if let Some(b) = behind.backing {
            if !self.reference(b.object) {
                return false;
            }
            self.join_after_leaving(behind, front, b.object);
            state.backing = Some(Backing {
                object: b.object,
                offset: b.offset + backing.offset,
            });
        } else {
            self.leave_siblings(behind, front);
            state.backing = None;
        }
        true
    }

    fn join_after_leaving(
        &self,
        behind: &mut ObjectState,
        front: ObjectHandle,
        next: ObjectHandle,
    ) {
        self.leave_siblings(behind, front);
        self.join_siblings(&mut self.lock_backing(next), front);
    }

    /// After `front` got a page of its own at `index`: if the backing object has two shadows and
    /// nobody else refers to it, and the other hides the page too, nobody can reach the page
    /// behind, and it goes.
    pub(crate) fn drop_unreachable(
        &self,
        front: ObjectHandle,
        index: u64,
        backing: Backing,
        behind: &mut ObjectState,
        limbo: &mut Limbo<'_, M>,
    ) {
        let place = index + backing.offset;
        if !behind.is_anonymous()
            || behind.shadow_count != 2
            || self.references(backing.object) != 2
        {
            return;
        }
        let other = match behind.shadows {
            Some(s) if s == front => {
                Handle::from_raw(self.object_rec(s).sibling_next.load(Ordering::Relaxed))
            }
            other => other,
        };
        // The other one's lock comes before the one that is held, so it is only tried.
        let Some(sibling) = other.and_then(|o| self.object_rec(o).state.try_lock()) else {
            return;
        };
        let Some(window) = sibling.backing else {
            return;
        };
        let hidden = match place.checked_sub(window.offset) {
            Some(i) if i < sibling.size::<M>() => sibling.pages.get(&self.page_nodes, i).is_some(),
            _ => true,
        };
        let wired = matches!(
            behind.pages.get(&self.page_nodes, place),
            Some(Slot::Resident(f)) if self.frames.page(f).wired() > 0
        );
        if hidden && !wired {
            self.remove_pages(behind, place, place + 1, limbo);
        }
    }

    /// Gives an entry that maps `pages` pages from `offset` of `object`, together with other
    /// entries of the same map, an object of its own with those pages. The caller's reference to
    /// `object` is released. `None`, and nothing changed, when it cannot be or need not be.
    pub(crate) fn split(
        &self,
        from: &mut Reservation<'_, M, ObjectRec<M>>,
        object: ObjectHandle,
        offset: u64,
        pages: u64,
        limbo: &mut Limbo<'_, M>,
    ) -> Option<ObjectHandle> {
        let mut state = self.lock_object(object);
        if !state.is_anonymous() || !state.one_mapping || self.references(object) < 2 {
            return None;
        }
        let count = self.movable_pages(&state, offset, pages)?;
        let nodes = 2 * count.min(pages / 64 + 2) + 18;
        let mut nodes = self
            .page_nodes
            .reserve(
                &self.frames,
                u32::try_from(nodes).ok()?,
                super::radix::Node::EMPTY,
            )
            .ok()?;
        if let Some(b) = state.backing
            && !self.reference(b.object)
        {
            return None;
        }
        let charge = pages.min(state.charge);
        let new = self.new_anonymous(from, pages, charge);
        state.charge -= charge;
        let mut fresh = self.object_rec(new).state.lock_nested();
        if let Some(b) = state.backing {
            fresh.backing = Some(Backing {
                object: b.object,
                offset: b.offset + offset,
            });
            self.join_siblings(&mut self.lock_backing(b.object), new);
        }
        let mut at = offset;
        while let Some((index, slot)) = state.pages.next(&self.page_nodes, at) {
            if index >= offset + pages {
                break;
            }
            state.pages.remove(&self.page_nodes, index);
            let to = index - offset;
            fresh.pages.set(&self.page_nodes, &mut nodes, to, slot);
            if let Slot::Resident(frame) = slot {
                self.rename(frame, new, to);
            }
            at = index + 1;
        }
        drop(fresh);
        drop(state);
        self.release(object, limbo);
        Some(new)
    }

    /// How many pages and swap slots lie in a range, if all of them can be moved: a busy page
    /// belongs to its worker, and a wired page is never moved.
    fn movable_pages(&self, state: &ObjectState, offset: u64, pages: u64) -> Option<u64> {
        let (mut at, mut count) = (offset, 0);
        while let Some((index, slot)) = state.pages.next(&self.page_nodes, at) {
            if index >= offset + pages {
                break;
            }
            if let Slot::Resident(frame) = slot {
                let page = self.frames.page(frame);
                if page.is_busy() || page.wired() > 0 {
                    return None;
                }
            }
            count += 1;
            at = index + 1;
        }
        Some(count)
    }
}

#[cfg(test)]
mod tests;
