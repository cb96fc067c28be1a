//! Inherit (M08): what a child gets.

use super::{Inherit, MapError, Need};
use crate::show::Verb;
use crate::space::Space;
use bsdvm_machine::{Machine, VirtRange};

impl<M: Machine> Space<'_, M> {
    /// Sets what a child gets of `range`, a range of whole pages (M08). Holes are skipped.
    ///
    /// Errors: [`MapError::InvalidAddress`], [`MapError::Submap`], [`MapError::NoMemory`];
    /// [`MapError::InvalidArgument`] when a virtual page table is to be copied. Nothing is changed
    /// then.
    pub fn inherit(self, range: VirtRange, inherit: Inherit) -> Result<(), MapError> {
        let done = self.inherit_quietly(range, inherit);
        self.trace_change(Verb::Inherit(inherit), range, &done);
        done
    }

    fn inherit_quietly(self, range: VirtRange, inherit: Inherit) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let mut edit = self.edit(VirtRange::default(), Need::CLIP)?;
        let range = range.intersect(edit.map.range);
        edit.refuse_submaps(range)?;
        let copied = matches!(inherit, Inherit::Copy | Inherit::Zero);
        if copied && edit.has_table(range) {
            return Err(MapError::InvalidArgument);
        }
        edit.clip_range(range);
        edit.each(range, |edit, handle| edit.get_mut(handle).inherit = inherit);
        edit.simplify(range);
        Ok(())
    }
}
