//! Residency: which pages are in memory, and which are on swap.

use super::MapError;
use super::edit::covers;
use crate::Vm;
use crate::fault::Reach;
use crate::object::ObjectHandle;
use crate::space::Space;
use bsdvm_machine::{Machine, VirtAddr, VirtRange};
use core::ops::Range;

impl<M: Machine> Space<'_, M> {
    /// Tells `each` page of `range`, a range of whole pages, whether a fault on it would find it
    /// in memory.
    ///
    /// Errors: [`MapError::InvalidAddress`]; [`MapError::Hole`], with nothing told.
    pub fn residency(
        self,
        range: VirtRange,
        each: &mut dyn FnMut(VirtAddr, bool),
    ) -> Result<(), MapError> {
        self.check_covered(range)?;
        let mut rest = M::PAGE.pages(range);
        self.residents(range, &mut |resident| {
            for va in rest.by_ref().take_while(|&va| va < resident) {
                each(va, false);
            }
            each(resident, true);
        })?;
        for va in rest {
            each(va, false);
        }
        Ok(())
    }

    /// Tells `each` page of `range`, a range of whole pages, that a fault would find in memory,
    /// in ascending order. The time it takes depends on how many there are, and not on how large
    /// the range is; holes have none.
    ///
    /// Errors: [`MapError::InvalidAddress`].
    pub fn residents(
        self,
        range: VirtRange,
        each: &mut dyn FnMut(VirtAddr),
    ) -> Result<(), MapError> {
        self.each_used(range, &mut |va, object, index| {
            if self.vm.is_resident(object, index) {
                each(va);
            }
        })
    }

    /// Tells the pages of `range`, a range of whole pages, that a fault would read in from swap, and
    /// the slots that they are in (O06). The time it takes is that of [`Space::residents`].
    ///
    /// Errors: as for [`Space::residency`].
    pub fn swapped(
        self,
        range: VirtRange,
        each: &mut dyn FnMut(VirtAddr, u32),
    ) -> Result<(), MapError> {
        self.check_covered(range)?;
        self.each_used(range, &mut |va, object, index| {
            if let Some(slot) = self.vm.chain_slot(object, index) {
                each(va, slot);
            }
        })
    }

    fn check_covered(self, range: VirtRange) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let map = self.rec().map.read();
        if !covers(self.vm, &map, range) {
            return Err(MapError::Hole);
        }
        Ok(())
    }

    /// Tells `each` page of a range for which the chain behind it has something, in memory or on
    /// swap: the object that is mapped and the page's place in it.
    fn each_used(
        self,
        range: VirtRange,
        each: &mut dyn FnMut(VirtAddr, ObjectHandle, u64),
    ) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let map = self.rec().map.read();
        let mut at = range.start();
        while let Some(handle) = map.find_at_or_above(self.vm, at) {
            let entry = map.get(self.vm, handle);
            let start = at.max(entry.start);
            let end = range.end().min(entry.end);
            if start >= end {
                break;
            }
            let object = entry.object.filter(|_| !entry.is_page_table());
            if let Some(object) = object {
                let base = entry.index_of::<M>(start);
                let pages = M::PAGE.index(end.bytes_above(start));
                self.vm
                    .chain_used(object, base..base + pages, &mut |index| {
                        let va = VirtAddr(start.0 + (index - base) * M::PAGE.bytes());
                        each(va, object, index);
                    });
            }
            at = end;
        }
        Ok(())
    }
}

impl<M: Machine> Vm<M> {
    /// Tells `each` index of `range` at which an object of the chain of `object` has something.
    fn chain_used(&self, object: ObjectHandle, range: Range<u64>, each: &mut dyn FnMut(u64)) {
        let mut at = range.start;
        while let Some(index) = self.next_in_chain(object, at, range.end, Reach::Whole) {
            each(index);
            at = index + 1;
        }
    }
}
