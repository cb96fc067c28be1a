//! Submaps (M06): part of a map that another map says the contents of.
//!
//! ```text
//!   map      | entry |      submap       | entry |
//!                    |                   |
//!   its map          | entry |   | entry |          one pmap translates both
//! ```
//!
//! A lookup that meets a submap goes on in its map, with the lock of the first one gone: a submap
//! stays until its space ends. It has a map of its own and the pmap of the space that it was
//! carved from. Verbs refuse a range that a submap has part of; they are called on the submap.

use super::{Edit, EntryHandle, Flags, Kind, MapError, Need};
use crate::Vm;
use crate::show::Verb;
use crate::space::{Pmaps, Space, SpaceError, SpaceId};
use bsdvm_machine::{Machine, VirtRange};

impl<M: Machine> Vm<M> {
    /// Makes an empty map over `range` whose addresses are translated by the pmap of `parent`,
    /// with one reference and its hold. [`Space::submap`] puts it in its place.
    ///
    /// Errors: [`SpaceError::NoMemory`]; [`SpaceError::NoResources`] for a range outside of
    /// `parent`.
    pub fn submap_create(&self, parent: SpaceId, range: VirtRange) -> Result<SpaceId, SpaceError> {
        let parent = self.space(parent);
        if !parent.range().contains_range(range) {
            return Err(SpaceError::NoResources);
        }
        let mut records = self.reserve_space()?;
        self.begin_space(&mut records, range, Pmaps::Of(parent.home()))
    }
}

impl<M: Machine> Space<'_, M> {
    /// The addresses of the map.
    pub fn range(self) -> VirtRange {
        self.rec().map.read().range
    }

    /// Hands `range`, less than the whole of this map, to the map of `sub`, which covers just that
    /// range and was made for this space ([`Vm::submap_create`]); the entry takes a reference to
    /// it. The range is (part of) one entry that is fresh: without an object, a wiring or a stack
    /// in it, and not copied on write.
    ///
    /// Errors: [`MapError::Hole`] when the range is not of one entry,
    /// [`MapError::InvalidArgument`] for an entry or a map that will not do,
    /// [`MapError::NoMemory`]; nothing is changed then.
    pub fn submap(self, range: VirtRange, sub: SpaceId) -> Result<(), MapError> {
        let done = self.submap_quietly(range, sub);
        self.trace_change(Verb::Submap(sub), range, &done);
        done
    }

    fn submap_quietly(self, range: VirtRange, sub: SpaceId) -> Result<(), MapError> {
        let below = self.vm.space(sub);
        // A smaller one: so no map can be found in itself.
        let fits = range.len() < self.range().len()
            && below.home() == self.home()
            && below.range() == range
            && below.references() > 0;
        if !fits || range.is_empty() || !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidArgument);
        }
        let mut edit = self.edit(range, Need::default().and(2, 0))?;
        edit.check_fresh(range)?;
        edit.clip_range(range);
        let handle = edit
            .map
            .find(edit.vm, range.start())
            .ok_or(MapError::Hole)?;
        let entry = edit.get_mut(handle);
        entry.kind = Kind::Submap(below.handle).pack();
        let charge = core::mem::take(&mut entry.charge);
        edit.vm.charge.refund(charge);
        below.reference();
        Ok(())
    }

    /// Whether a submap has part of `range`.
    pub(crate) fn has_submap(self, range: VirtRange) -> bool {
        let map = self.rec().map.read();
        let mut at = map.find_at_or_above(self.vm, range.start());
        while let Some(handle) = at {
            let entry = map.get(self.vm, handle);
            if entry.start >= range.end() {
                return false;
            }
            if entry.submap().is_some() {
                return true;
            }
            at = entry.next;
        }
        false
    }

    /// Takes the submaps out of a map that ends, and gives up the references to them.
    pub(crate) fn end_submaps(self) {
        while let Ok(mut edit) = self.edit(VirtRange::default(), Need::default()) {
            let Some((handle, below)) = edit.first_submap() else {
                return;
            };
            edit.unlink(handle);
            drop(edit);
            Space {
                vm: self.vm,
                handle: below,
            }
            .release();
        }
    }
}

impl<M: Machine> Edit<'_, M> {
    /// That one entry has all of `range`, and that nothing was done with it yet.
    fn check_fresh(&self, range: VirtRange) -> Result<(), MapError> {
        let found = self
            .map
            .find(self.vm, range.start())
            .ok_or(MapError::Hole)?;
        let entry = self.get(found);
        if !entry.range().contains_range(range) {
            return Err(MapError::Hole);
        }
        let fresh = entry.object.is_none()
            && entry.kind() == Kind::Normal
            && entry.wired == 0
            && !entry.has(Flags::COPY_ON_WRITE | Flags::NEEDS_COPY);
        fresh.then_some(()).ok_or(MapError::InvalidArgument)
    }

    fn first_submap(&self) -> Option<(EntryHandle, crate::space::SpaceHandle)> {
        let mut at = self.map.find_at_or_above(self.vm, self.map.range.start());
        while let Some(handle) = at {
            let entry = self.get(handle);
            if let Some(below) = entry.submap() {
                return Some((handle, below));
            }
            at = entry.next;
        }
        None
    }

    /// Refuses a range that a submap has part of: what is there is not this map's to change.
    pub(crate) fn refuse_submaps(&self, range: VirtRange) -> Result<(), MapError> {
        let mut at = self.next_in(range.start(), range);
        while let Some(handle) = at {
            let entry = self.get(handle);
            if entry.submap().is_some() {
                return Err(MapError::Submap);
            }
            at = entry.next.filter(|&n| self.get(n).start < range.end());
        }
        Ok(())
    }
}
