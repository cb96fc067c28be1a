//! Wire and unwire for the user (W01): the pages of a range stay in memory.
//!
//! The range is marked in transition, the map is unlocked, the pages are faulted in and wired one
//! by one, and the mark is taken away. Whoever fails half-way takes back what this call did and
//! nothing else.

use super::{Edit, Entry, EntryHandle, Flags, MapError, Need, map_channel};
use crate::fault::{FaultError, Purpose};
use crate::space::Space;
use bsdvm_machine::{Access, Machine, Prot, VirtAddr, VirtRange};

impl<'v, M: Machine> Space<'v, M> {
    /// Wires `range`, a range of whole pages without a hole, for its user (W01). A range that is
    /// wired by its user already stays wired once. Pages that are not in memory are brought in,
    /// whatever access they allow. A page that comes later, after its file was cut and grew again,
    /// is wired when it is touched.
    ///
    /// Errors: [`MapError::Hole`], [`MapError::InvalidAddress`], [`MapError::NoMemory`],
    /// [`MapError::Pager`], [`MapError::BeyondEnd`]; what this call did is undone then, and
    /// nothing else.
    pub fn wire(self, range: VirtRange) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let mut entries = 1;
        let mut edit = loop {
            // A shadow for each entry at most.
            let mut edit = self.edit(range, Need::CLIP.and(0, entries))?;
            if !edit.covers(range) {
                return Err(MapError::Hole);
            }
            let mut count = 0;
            edit.each(range, |_, _| count += 1);
            if count <= entries {
                break edit;
            }
            entries = count;
        };
        edit.clip_range(range);
        edit.each(range, |edit, handle| edit.begin_wiring(handle));
        drop(edit);
        let result = self.wire_pages(range);
        let upto = result.map_or_else(|(at, _)| at, |()| range.end());
        self.end_wiring(range, upto, result.is_err());
        result.map_err(|(_, why)| match why {
            FaultError::Pager(e) => MapError::Pager(e),
            FaultError::BeyondEnd => MapError::BeyondEnd,
            FaultError::NoMemory => MapError::NoMemory,
            _ => MapError::Hole,
        })
    }

    /// Ends the user's wiring of `range`, a range of whole pages. What is not wired stays so.
    ///
    /// Errors: [`MapError::Hole`], [`MapError::InvalidAddress`], [`MapError::NoMemory`]; nothing
    /// is changed then.
    pub fn unwire(self, range: VirtRange) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let mut edit = self.edit(range, Need::CLIP)?;
        if !edit.covers(range) {
            return Err(MapError::Hole);
        }
        edit.clip_range(range);
        edit.each(range, |edit, handle| {
            let entry = edit.get(handle);
            if entry.has(Flags::USER_WIRED) {
                if entry.wired == 1 {
                    edit.unwire_pages(&entry);
                }
                let entry = edit.get_mut(handle);
                entry.flags -= Flags::USER_WIRED;
                entry.wired -= 1;
            }
        });
        edit.simplify(range);
        Ok(())
    }

    /// Whether everything mapped from now on is wired (W04).
    pub fn set_wire_future(self, future: bool) {
        self.write_map().wire_future = future;
    }

    /// Faults in and wires each page of the entries that are being wired. Fails with the page
    /// that could not be had.
    fn wire_pages(self, range: VirtRange) -> Result<(), (VirtAddr, FaultError)> {
        for va in M::PAGE.pages(range) {
            let access = {
                let map = self.rec().map.read();
                // The range is in transition: it cannot have gone.
                let Some(handle) = map.find(self.vm, va) else {
                    continue;
                };
                let entry = map.get(self.vm, handle);
                if !entry.has(Flags::WIRING) {
                    continue;
                }
                wanted_access(entry)
            };
            self.fault_for(va, access, Purpose::Wire)
                .map_err(|why| (va, why))?;
        }
        Ok(())
    }

    /// Ends the transition. After a failure the entries that were being wired are not wired, and
    /// their pages below `upto` are given back.
    fn end_wiring(self, range: VirtRange, upto: VirtAddr, failed: bool) {
        let mut map = self.write_map();
        let mut wake = false;
        let mut at = map.find_at_or_above(self.vm, range.start());
        while let Some(handle) = at {
            let entry = *map.get(self.vm, handle);
            if entry.start >= range.end() {
                break;
            }
            at = entry.next;
            wake |= entry.has(Flags::NEEDS_WAKEUP);
            let undo = failed && entry.has(Flags::WIRING);
            if undo {
                let mut done = entry;
                done.end = entry.end.min(upto).max(entry.start);
                self.vm.unwire_entry_pages(&done);
            }
            let entry = map.get_mut(self.vm, handle);
            entry.flags -= Flags::IN_TRANSITION | Flags::NEEDS_WAKEUP | Flags::WIRING;
            if undo {
                entry.flags -= Flags::USER_WIRED;
                entry.wired -= 1;
            }
        }
        self.rec().stamp.bump();
        drop(map);
        if wake {
            self.vm.machine().wake(map_channel(self.handle));
        }
        self.merge(range);
    }

    /// Merges what can be merged around `range`; needs no records.
    fn merge(self, range: VirtRange) {
        if let Ok(mut edit) = self.edit(VirtRange::default(), Need::default()) {
            edit.simplify(range);
        }
    }
}

/// The access that brings a page of an entry in for good: a write where one may come, so that the
/// copy is made now.
fn wanted_access(entry: &Entry) -> Access {
    if entry.prot.contains(Prot::WRITE) && entry.is_private() {
        Access::Write
    } else {
        Access::Read
    }
}

impl<M: Machine> Edit<'_, M> {
    /// Marks an entry for wiring: in transition, counted, with an object and shadow of its own.
    fn begin_wiring(&mut self, handle: EntryHandle) {
        let entry = self.get(handle);
        if !entry.has(Flags::USER_WIRED) {
            if entry.wired == 0 {
                if entry.has(Flags::NEEDS_COPY) && entry.prot.contains(Prot::WRITE) {
                    self.make_shadow(handle);
                } else {
                    self.make_object(handle);
                }
                self.get_mut(handle).flags |= Flags::WIRING;
            }
            let entry = self.get_mut(handle);
            entry.wired += 1;
            entry.flags |= Flags::USER_WIRED;
        }
        self.get_mut(handle).flags |= Flags::IN_TRANSITION;
    }

    /// Gives back one wiring of each page of an entry.
    pub(crate) fn unwire_pages(&mut self, entry: &Entry) {
        self.vm.unwire_entry_pages(entry);
    }
}

impl<M: Machine> crate::Vm<M> {
    /// Gives back one wiring of each page that an entry shows. Under the map's lock.
    pub(crate) fn unwire_entry_pages(&self, entry: &Entry) {
        let Some(object) = entry.object else { return };
        for va in M::PAGE.pages(entry.range()) {
            self.unwire_page(object, entry.index_of::<M>(va));
        }
    }
}
