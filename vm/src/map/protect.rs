//! Protect (M07): all or nothing against the maximum protection.

use super::{MapError, Need, with_loads};
use crate::show::Verb;
use crate::space::Space;
use bsdvm_machine::{Machine, Prot, VirtRange};

/// Which protection is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Now,
    Maximum,
}

impl<M: Machine> Space<'_, M> {
    /// Sets what `range`, a range of whole pages, allows (M07). Holes are skipped. Translations
    /// are lowered at once and raised by the next fault; a copy-on-write page never becomes
    /// writable here.
    ///
    /// Errors: [`MapError::Protection`] when an entry's maximum does not allow it, and
    /// [`MapError::InvalidAddress`], [`MapError::Submap`], [`MapError::NoMemory`]; nothing is
    /// changed then.
    pub fn protect(self, range: VirtRange, prot: Prot) -> Result<(), MapError> {
        let done = self.set_prot(range, prot, Which::Now);
        self.trace_change(Verb::Protect(prot), range, &done);
        done
    }

    /// Lowers what `range` can ever allow, and what it allows now (M07, `set_max`).
    ///
    /// Errors: as for [`Space::protect`].
    pub fn protect_max(self, range: VirtRange, prot: Prot) -> Result<(), MapError> {
        let done = self.set_prot(range, prot, Which::Maximum);
        self.trace_change(Verb::ProtectMax(prot), range, &done);
        done
    }

    fn set_prot(self, range: VirtRange, prot: Prot, which: Which) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let mut edit = self.edit(VirtRange::default(), Need::CLIP)?;
        let range = range.intersect(edit.map.range);
        edit.refuse_submaps(range)?;
        let mut allowed = true;
        edit.each(range, |edit, handle| {
            allowed &= edit.get(handle).max_prot.contains(prot);
        });
        if !allowed {
            return Err(MapError::Protection);
        }
        edit.clip_range(range);
        edit.each(range, |edit, handle| {
            let old = edit.get(handle);
            let new = match which {
                Which::Now => prot,
                Which::Maximum => old.prot & prot,
            };
            let entry = edit.get_mut(handle);
            entry.prot = new;
            if which == Which::Maximum {
                entry.max_prot = prot;
            }
            if !new.contains(old.prot) {
                edit.lower(old.range(), with_loads::<M>(new));
            }
        });
        edit.simplify(range);
        Ok(())
    }
}
