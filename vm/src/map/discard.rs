//! Discard: give contents up. Private memory reads as it did when it was mapped, zero or the
//! file's; shared memory is only unmapped.

use super::{Edit, Entry, EntryHandle, Flags, MapError, Need};
use crate::show::Verb;
use crate::space::Space;
use bsdvm_machine::{Machine, VirtRange};

impl<M: Machine> Space<'_, M> {
    /// Gives the contents of `range`, a range of whole pages, up. Holes are skipped.
    ///
    /// Errors: [`MapError::Wired`] when part of it is wired, [`MapError::InvalidAddress`],
    /// [`MapError::Submap`], [`MapError::NoMemory`]; nothing is changed then.
    pub fn discard(self, range: VirtRange) -> Result<(), MapError> {
        let done = self.discard_quietly(range);
        self.trace_change(Verb::Discard, range, &done);
        done
    }

    fn discard_quietly(self, range: VirtRange) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let mut edit = self.edit(range, Need::CLIP)?;
        let range = range.intersect(edit.map.range);
        edit.refuse_submaps(range)?;
        if edit.has_table(range) {
            return Err(MapError::InvalidArgument);
        }
        let mut wired = false;
        edit.each(range, |edit, handle| wired |= edit.get(handle).wired > 0);
        if wired {
            return Err(MapError::Wired);
        }
        // Only entries whose object is shared with a fork or has something behind it need to
        // begin and end with the range; the others give up pages in place.
        for at in [range.start(), range.end()] {
            if let Some(handle) = edit.map.find(edit.vm, at)
                && !edit.in_place(&edit.get(handle))
            {
                edit.clip(at);
            }
        }
        edit.unmap(range);
        edit.each(range, |edit, handle| {
            let entry = edit.get(handle);
            if entry.is_private() {
                if edit.in_place(&entry) {
                    edit.drop_pages(&entry, range);
                } else {
                    edit.begin_again(handle);
                }
            }
        });
        edit.simplify(range);
        Ok(())
    }
}

impl<M: Machine> Edit<'_, M> {
    /// Whether pages that an entry's object loses are simply zero-filled again, and nobody else
    /// misses them.
    fn in_place(&self, entry: &Entry) -> bool {
        let Some(object) = entry.object else {
            return true;
        };
        if !entry.is_private() {
            return true;
        }
        let state = self.vm.lock_object(object);
        self.vm.is_own_memory(entry, object, &state)
    }

    fn drop_pages(&mut self, entry: &Entry, range: VirtRange) {
        let Some(object) = entry.object else { return };
        let part = entry.range().intersect(range);
        let mut state = self.vm.lock_object(object);
        let first = entry.index_of::<M>(part.start());
        let end = first + M::PAGE.index(part.len());
        self.vm
            .remove_pages(&mut state, first, end, &mut self.limbo);
    }

    /// Gives a private entry what it had when it was mapped: the object at the bottom of its chain
    /// if that is not anonymous, nothing otherwise.
    fn begin_again(&mut self, handle: EntryHandle) {
        let vm = self.vm;
        let entry = self.get(handle);
        let Some(object) = entry.object else { return };
        let file = vm.bottom_file(object, entry.offset);
        let kept = file.is_some_and(|(object, _)| vm.reference(object));
        // What the object carried for this range is the entry's again.
        let pages = entry.pages::<M>();
        if entry.charge == 0 {
            vm.take_charge_from(object, pages);
        }
        let change = self.get_mut(handle);
        change.charge = pages;
        match file.filter(|_| kept) {
            Some((object, offset)) => {
                change.object = Some(object);
                change.offset = offset;
                change.flags |= Flags::COPIED;
            }
            None => {
                change.object = None;
                change.offset = 0;
                change.flags -= Flags::COPIED;
            }
        }
        vm.release(object, &mut self.limbo);
    }
}
