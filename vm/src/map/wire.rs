//! Wire and unwire (W01–W03): the pages of a range stay in memory.
//!
//! An entry counts its wirings: the user's at most once, the kernel's each. The pages of an entry
//! are wired by the first of them and let go by the last. The range is marked in transition, the map is unlocked, the pages are faulted in and wired one
//! by one, and the mark is taken away. Whoever fails half-way takes back what this call did and
//! nothing else.

use super::{Edit, Entry, EntryHandle, Flags, MapError, Need, map_channel};
use crate::fault::{FaultError, Purpose};
use crate::show::{Verb, WiredBy};
use crate::space::Space;
use bsdvm_machine::{Access, Machine, Prot, VirtAddr, VirtRange};

/// Who wires.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wirer {
    /// Once, however often.
    User,
    /// Each time.
    Kernel,
}

impl<'v, M: Machine> Space<'v, M> {
    /// Wires `range`, a range of whole pages without a hole, for its user (W01). A range that is
    /// wired by its user already stays wired once. Pages that are not in memory are brought in,
    /// whatever access they allow. A page that comes later, after its file was cut and grew again,
    /// is wired when it is touched.
    ///
    /// Errors: [`MapError::Hole`], [`MapError::InvalidAddress`], [`MapError::NoMemory`],
    /// [`MapError::InvalidArgument`] for a virtual page table, [`MapError::Submap`],
    /// [`MapError::Pager`], [`MapError::BeyondEnd`]; what this call did is undone then, and
    /// nothing else.
    pub fn wire(self, range: VirtRange) -> Result<(), MapError> {
        let done = self.wire_for(range, Wirer::User);
        self.trace_change(Verb::Wire(WiredBy::User), range, &done);
        done
    }

    /// Wires `range`, a range of whole pages without a hole, for its user, and brings no page in:
    /// each is wired when it is touched next. What is in memory is unmapped for that.
    ///
    /// Errors: those of [`Space::wire`] that are not a page's own; nothing is changed then.
    pub fn wire_on_fault(self, range: VirtRange) -> Result<(), MapError> {
        let done = self
            .begin_wiring(range, Wirer::User, true)
            .map(|()| self.end_wiring(range, range.end(), None));
        self.trace_change(Verb::Wire(WiredBy::User), range, &done);
        done
    }

    /// Wires `range`, a range of whole pages without a hole, once more for the kernel (W02):
    /// wirings are counted, and each is ended by an [`Space::unwire_kernel`] of its own.
    ///
    /// Errors: those of [`Space::wire`]; what this call did is undone then, and nothing else.
    pub fn wire_kernel(self, range: VirtRange) -> Result<(), MapError> {
        let done = self.wire_for(range, Wirer::Kernel);
        self.trace_change(Verb::Wire(WiredBy::Kernel), range, &done);
        done
    }

    /// Counts one wiring of the kernel for `range`, a range of whole pages without a hole, and
    /// brings no page in: the caller does that, and each page is wired when it is touched (W03).
    ///
    /// Errors: [`MapError::Hole`], [`MapError::InvalidAddress`], [`MapError::Submap`],
    /// [`MapError::NoMemory`], and [`MapError::Wired`] when part of the range is wired already;
    /// nothing is changed then.
    pub fn wire_quick(self, range: VirtRange) -> Result<(), MapError> {
        let done = self.wire_quietly(range);
        self.trace_change(Verb::Wire(WiredBy::Quick), range, &done);
        done
    }

    fn wire_quietly(self, range: VirtRange) -> Result<(), MapError> {
        let mut edit = self.edit_covered(range)?;
        let mut wired = false;
        edit.each(range, |edit, handle| wired |= edit.get(handle).wired > 0);
        if wired {
            return Err(MapError::Wired);
        }
        edit.clip_range(range);
        edit.each(range, |edit, handle| edit.get_mut(handle).wired = 1);
        edit.simplify(range);
        Ok(())
    }

    /// Marks the entries of a range as wired by `who` and in transition. With `unmap` those that
    /// were not wired lose their translations.
    fn begin_wiring(self, range: VirtRange, who: Wirer, unmap: bool) -> Result<(), MapError> {
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
            edit.refuse_submaps(range)?;
            if edit.has_table(range) {
                return Err(MapError::InvalidArgument);
            }
            let mut count = 0;
            edit.each(range, |_, _| count += 1);
            if count <= entries {
                break edit;
            }
            entries = count;
        };
        edit.clip_range(range);
        edit.each(range, |edit, handle| {
            edit.begin_wiring(handle, who);
            let entry = edit.get(handle);
            if unmap && entry.has(Flags::WIRING) {
                edit.unmap(entry.range());
            }
        });
        Ok(())
    }

    fn wire_for(self, range: VirtRange, who: Wirer) -> Result<(), MapError> {
        self.begin_wiring(range, who, false)?;
        let result = self.wire_pages(range);
        let upto = result.map_or_else(|(at, _)| at, |()| range.end());
        self.end_wiring(range, upto, result.is_err().then_some(who));
        result.map_err(|(_, why)| wiring_error(why))
    }

    /// Ends the user's wiring of `range`, a range of whole pages.
    ///
    /// Errors: [`MapError::NotWired`] when the user has not wired all of it, [`MapError::Hole`],
    /// [`MapError::InvalidAddress`], [`MapError::Submap`], [`MapError::NoMemory`]; nothing is
    /// changed then.
    pub fn unwire(self, range: VirtRange) -> Result<(), MapError> {
        let done = self.unwire_for(range, Wirer::User);
        self.trace_change(Verb::Unwire(WiredBy::User), range, &done);
        done
    }

    /// Ends one of the kernel's wirings of `range`, a range of whole pages (W02).
    ///
    /// Errors: [`MapError::NotWired`] when the kernel has not wired all of it, and those of
    /// [`Space::unwire`]; nothing is changed then.
    pub fn unwire_kernel(self, range: VirtRange) -> Result<(), MapError> {
        let done = self.unwire_for(range, Wirer::Kernel);
        self.trace_change(Verb::Unwire(WiredBy::Kernel), range, &done);
        done
    }

    fn unwire_for(self, range: VirtRange, who: Wirer) -> Result<(), MapError> {
        let mut edit = self.edit_covered(range)?;
        let mut wired = true;
        edit.each(range, |edit, handle| {
            wired &= edit.get(handle).is_wired_by(who);
        });
        if !wired {
            return Err(MapError::NotWired);
        }
        edit.clip_range(range);
        edit.each(range, |edit, handle| {
            let entry = edit.get(handle);
            if entry.wired == 1 {
                edit.unwire_pages(&entry);
            }
            edit.get_mut(handle).take_wiring(who);
        });
        edit.simplify(range);
        Ok(())
    }

    /// Locks the map to change the entries of `range`, which has no hole and no submap.
    fn edit_covered(self, range: VirtRange) -> Result<Edit<'v, M>, MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let mut edit = self.edit(range, Need::CLIP)?;
        if !edit.covers(range) {
            return Err(MapError::Hole);
        }
        edit.refuse_submaps(range)?;
        if edit.has_table(range) {
            return Err(MapError::InvalidArgument);
        }
        Ok(edit)
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

    /// Ends the transition. After a failure of `failed` the wirings that were counted are taken
    /// back, and the pages below `upto` that were wired are given back.
    fn end_wiring(self, range: VirtRange, upto: VirtAddr, failed: Option<Wirer>) {
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
            if failed.is_some() && entry.has(Flags::WIRING) {
                let mut done = entry;
                done.end = entry.end.min(upto).max(entry.start);
                self.vm.unwire_entry_pages(&done);
            }
            let entry = map.get_mut(self.vm, handle);
            if let Some(who) = failed
                && entry.has(Flags::COUNTED)
            {
                entry.take_wiring(who);
            }
            entry.flags -= Flags::IN_TRANSITION | Flags::NEEDS_WAKEUP;
            entry.flags -= Flags::WIRING | Flags::COUNTED;
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

fn wiring_error(why: FaultError) -> MapError {
    match why {
        FaultError::Pager(e) => MapError::Pager(e),
        FaultError::BeyondEnd => MapError::BeyondEnd,
        FaultError::NoMemory => MapError::NoMemory,
        _ => MapError::Hole,
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

impl Entry {
    fn is_wired_by(&self, who: Wirer) -> bool {
        let user = u32::from(self.has(Flags::USER_WIRED));
        match who {
            Wirer::User => user > 0,
            Wirer::Kernel => self.wired > user,
        }
    }

    /// Takes one wiring back.
    fn take_wiring(&mut self, who: Wirer) {
        self.wired -= 1;
        if who == Wirer::User {
            self.flags -= Flags::USER_WIRED;
        }
    }
}

impl<M: Machine> Edit<'_, M> {
    /// Marks an entry for wiring: in transition, counted, with an object and shadow of its own.
    fn begin_wiring(&mut self, handle: EntryHandle, who: Wirer) {
        let entry = self.get(handle);
        if who == Wirer::Kernel || !entry.has(Flags::USER_WIRED) {
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
            entry.flags |= Flags::COUNTED;
            if who == Wirer::User {
                entry.flags |= Flags::USER_WIRED;
            }
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
