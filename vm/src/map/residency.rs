//! Residency: which pages are in memory.

use super::MapError;
use super::edit::covers;
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
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let map = self.rec().map.read();
        if !covers(self.vm, &map, range) {
            return Err(MapError::Hole);
        }
        for va in M::PAGE.pages(range) {
            let resident = map.find(self.vm, va).is_some_and(|handle| {
                let entry = map.get(self.vm, handle);
                entry
                    .object
                    .filter(|_| !entry.is_page_table())
                    .is_some_and(|object| self.vm.is_resident(object, entry.index_of::<M>(va)))
            });
            each(va, resident);
        }
        Ok(())
    }
}
