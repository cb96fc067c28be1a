//! Residency: which pages are in memory, and which are on swap.

use super::MapError;
use super::edit::covers;
use crate::object::ObjectHandle;
use crate::space::Space;
use bsdvm_machine::{Machine, VirtAddr, VirtRange};

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
        self.each_shown(range, &mut |va, shown| {
            let resident = shown.is_some_and(|(object, index)| self.vm.is_resident(object, index));
            each(va, resident);
        })
    }

    /// Tells the pages of `range`, a range of whole pages, that a fault would read in from swap, and
    /// the slots that they are in (O06).
    ///
    /// Errors: as for [`Space::residency`].
    pub fn swapped(
        self,
        range: VirtRange,
        each: &mut dyn FnMut(VirtAddr, u32),
    ) -> Result<(), MapError> {
        self.each_shown(range, &mut |va, shown| {
            let slot = shown.and_then(|(object, index)| self.vm.chain_slot(object, index));
            if let Some(slot) = slot {
                each(va, slot);
            }
        })
    }

    /// Tells `each` page of a range what is mapped there: the object and the page's place in it.
    fn each_shown(
        self,
        range: VirtRange,
        each: &mut dyn FnMut(VirtAddr, Option<(ObjectHandle, u64)>),
    ) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let map = self.rec().map.read();
        if !covers(self.vm, &map, range) {
            return Err(MapError::Hole);
        }
        for va in M::PAGE.pages(range) {
            let shown = map.find(self.vm, va).and_then(|handle| {
                let entry = map.get(self.vm, handle);
                let object = entry.object.filter(|_| !entry.is_page_table())?;
                Some((object, entry.index_of::<M>(va)))
            });
            each(va, shown);
        }
        Ok(())
    }
}
