//! Remove (M09): unwire, then unmap, then free.

use super::{Edit, Flags, MapError, Need};
use crate::show::Verb;
use crate::space::Space;
use bsdvm_machine::{Machine, VirtRange};

/// Whether entries that go may have translations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Translations {
    There,
    Gone,
}

impl<M: Machine> Space<'_, M> {
    /// Removes whatever is mapped in `range`, a range of whole pages (M09). Holes are fine. Waits
    /// for entries that are in transition.
    ///
    /// Errors: [`MapError::InvalidAddress`] for a range that is not aligned;
    /// [`MapError::Submap`]; [`MapError::NoMemory`] when the records for splitting an entry cannot be had.
    pub fn remove(self, range: VirtRange) -> Result<(), MapError> {
        let done = self.remove_quietly(range);
        self.trace_change(Verb::Remove, range, &done);
        done
    }

    fn remove_quietly(self, range: VirtRange) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let mut edit = self.edit(range, Need::CLIP)?;
        let range = range.intersect(edit.map.range);
        edit.refuse_submaps(range)?;
        edit.clip_range(range);
        edit.delete_clipped(range);
        Ok(())
    }
}

impl<M: Machine> Edit<'_, M> {
    /// Removes the entries of `range`, which begin and end with it.
    pub(crate) fn delete_clipped(&mut self, range: VirtRange) {
        self.delete(range, Translations::There);
    }

    /// Removes all entries of a map that ends (S03). Where nothing is wired the translations go
    /// first, all at once; where something is, each entry is unwired before its own go.
    pub(crate) fn delete_all(&mut self) {
        let all = self.map.range;
        let mut wired = false;
        self.each(all, |edit, handle| wired |= edit.get(handle).wired > 0);
        if wired {
            self.delete(all, Translations::There);
        } else {
            self.unmap(all);
            self.delete(all, Translations::Gone);
        }
    }

    fn delete(&mut self, range: VirtRange, translations: Translations) {
        while let Some(handle) = self.next_in(range.start(), range) {
            let entry = self.get(handle);
            if entry.wired > 0 {
                self.unwire_pages(&entry);
            }
            if translations == Translations::There {
                self.unmap(entry.range());
            }
            self.unlink(handle);
            self.vm.charge.refund(entry.charge);
            if let Some(object) = entry.object {
                self.free_own_pages(&entry);
                self.vm.release(object, &mut self.limbo);
            }
        }
    }

    /// Frees the pages of an entry that goes while others of the same map still use its object:
    /// nobody else can reach them.
    fn free_own_pages(&mut self, entry: &super::Entry) {
        let Some(object) = entry.object else { return };
        let mut state = self.vm.lock_object(object);
        if state.is_kernel() {
            let end = entry.offset + entry.pages::<M>();
            self.vm
                .remove_pages(&mut state, entry.offset, end, &mut self.limbo);
            return;
        }
        if !state.is_anonymous()
            || !state.one_mapping
            || self.vm.references(object) < 2
            || entry.has(Flags::NEEDS_COPY)
        {
            return;
        }
        let pages = entry.pages::<M>();
        let end = entry.offset + pages;
        self.vm
            .remove_pages(&mut state, entry.offset, end, &mut self.limbo);
        let charge = pages.min(state.charge);
        state.charge -= charge;
        self.vm.charge.refund(charge);
        if end >= state.size::<M>() && entry.offset < state.size::<M>() {
            state.bytes = M::PAGE.offset(entry.offset).unwrap_or(u64::MAX);
        }
    }
}
