//! Move and extend: entries change their address and keep their contents.

use super::entry::Sharing;
use super::insert::MappingBacking;
use super::{Edit, MapError, Mapping, Need, Placement};
use crate::show::Event;
use crate::space::Space;
use bsdvm_machine::{Machine, VirtAddr, VirtRange};

impl<'v, M: Machine> Space<'v, M> {
    /// Moves the entries of `from`, a range of whole pages without a hole, to a place of `bytes`
    /// bytes; gives its address. A place that is longer than `from` is filled up with more of what
    /// the last entry maps; one that is shorter loses the rest of `from`. With
    /// [`Placement::Replace`] what is there goes; the place may not overlap `from`.
    ///
    /// Errors: [`MapError::Hole`], [`MapError::InvalidAddress`], [`MapError::Overlap`],
    /// [`MapError::NoSpace`], [`MapError::NoMemory`], [`MapError::ChargeLimit`],
    /// [`MapError::Submap`]; nothing is changed then.
    pub fn move_(
        self,
        from: VirtRange,
        bytes: u64,
        place: Placement,
    ) -> Result<VirtAddr, MapError> {
        let done = self.move_quietly(from, bytes, place);
        self.vm.trace(|| Event::Move {
            space: self.id(),
            from,
            bytes,
            outcome: done,
        });
        done
    }

    fn move_quietly(
        self,
        from: VirtRange,
        bytes: u64,
        place: Placement,
    ) -> Result<VirtAddr, MapError> {
        let len = M::PAGE
            .round_up(bytes)
            .filter(|&n| n > 0)
            .ok_or(MapError::InvalidAddress)?;
        if !M::PAGE.is_aligned_range(from) || from.is_empty() {
            return Err(MapError::InvalidAddress);
        }
        let mut edit = self.edit_to_move(from)?;
        if !edit.covers(from) {
            return Err(MapError::Hole);
        }
        edit.refuse_submaps(from)?;
        let to = edit.place(len, place)?;
        if to.overlaps(from) || !M::PAGE.is_aligned(to.start()) {
            return Err(MapError::InvalidAddress);
        }
        edit.refuse_submaps(to)?;
        let more = edit.more_after(from, len)?;
        if let Some(more) = more {
            edit.take_for(more)?;
        }
        edit.clip_range(from);
        if let Placement::Replace(_) = place {
            edit.clip_range(to);
            edit.delete_clipped(to);
        }
        let keep = VirtRange::from_len(from.start(), from.len().min(len)).unwrap_or(from);
        edit.clip(keep.end());
        if let Some(rest) = VirtRange::new(keep.end(), from.end()) {
            edit.delete_clipped(rest);
        }
        edit.relink(keep, to.start());
        if let Some(more) = more {
            let start = to.start().checked_add(keep.len()).unwrap_or(to.end());
            edit.insert(super::Entry {
                start,
                end: to.end(),
                ..more
            });
        }
        edit.simplify(to);
        edit.simplify(from);
        Ok(to.start())
    }

    /// Locks the map with a record set aside for each entry of `from`.
    fn edit_to_move(self, from: VirtRange) -> Result<Edit<'v, M>, MapError> {
        let whole = VirtRange::new(VirtAddr(0), VirtAddr(u64::MAX)).unwrap_or_default();
        let mut entries = 1;
        loop {
            let mut edit = self.edit(whole, Need::CLIP.and(4 + entries, 2))?;
            let mut count = 0;
            edit.each(from, |_, _| count += 1);
            if count <= entries {
                return Ok(edit);
            }
            entries = count;
        }
    }

    /// Makes the mapping that ends at `end` longer by `bytes` bytes, in place, with more of what
    /// it maps (M03).
    ///
    /// Errors: [`MapError::Hole`] when nothing ends there, [`MapError::Overlap`] when something
    /// follows, and those of [`Space::map`]; nothing is changed then.
    pub fn extend(self, end: VirtAddr, bytes: u64) -> Result<(), MapError> {
        let page = VirtAddr(end.0.saturating_sub(1));
        let last = self.entry(page).ok_or(MapError::Hole)?;
        if last.range.end() != end {
            return Err(MapError::Hole);
        }
        let backing = match (last.file, last.object, last.sharing) {
            (Some((object, offset)), _, _) => MappingBacking::Object {
                object,
                offset: offset + last.range.len(),
            },
            (None, Some(object), Sharing::Shared) => MappingBacking::Object {
                object,
                offset: last.offset + last.range.len(),
            },
            _ => MappingBacking::Anonymous,
        };
        let what = Mapping {
            backing,
            sharing: last.sharing,
            prot: last.prot,
            max_prot: last.max_prot,
            inherit: last.inherit,
        };
        self.map(bytes, Placement::At(end), what).map(|_| ())
    }
}

impl<M: Machine> Edit<'_, M> {
    /// What follows the last entry of `from` when it becomes `len` bytes long: an entry without
    /// its range, or `None` when it does not grow.
    fn more_after(&self, from: VirtRange, len: u64) -> Result<Option<super::Entry>, MapError> {
        let grow = len.saturating_sub(from.len());
        let last = VirtAddr(from.end().0 - 1);
        if grow == 0 {
            return Ok(None);
        }
        let handle = self.map.find(self.vm, last).ok_or(MapError::Hole)?;
        let entry = self.get(handle);
        let file = entry
            .object
            .and_then(|o| self.vm.bottom_file(o, entry.index_of::<M>(from.end())));
        let mut more = super::Entry {
            wired: 0,
            kind: entry.kind().moved().pack(),
            charge: M::PAGE.index(grow),
            object: None,
            flags: entry.flags - super::Flags::USER_WIRED,
            ..entry
        };
        match (file, entry.object) {
            (Some((object, offset)), _) => {
                more.object = Some(object);
                more.offset = offset;
                if entry.is_private() {
                    more.flags |= super::Flags::COPIED;
                } else {
                    more.charge = 0;
                }
            }
            (None, Some(object)) if !entry.is_private() => {
                more.object = Some(object);
                more.offset = entry.index_of::<M>(from.end());
                more.charge = 0;
            }
            _ => more.flags -= super::Flags::COPIED,
        }
        Ok(Some(more))
    }

    /// Takes the charge and the reference that an entry is going to carry.
    fn take_for(&self, entry: super::Entry) -> Result<(), MapError> {
        self.vm
            .charge
            .take(entry.charge)
            .map_err(|_| MapError::ChargeLimit)?;
        match entry.object {
            Some(object) if !self.vm.reference(object) => {
                self.vm.charge.refund(entry.charge);
                Err(MapError::NoMemory)
            }
            _ => Ok(()),
        }
    }

    /// Gives the entries of `from`, which begin and end with it, new addresses from `to` on.
    fn relink(&mut self, from: VirtRange, to: VirtAddr) {
        self.unmap(from);
        while let Some(handle) = self.next_in(from.start(), from) {
            let mut entry = self.unlink(handle);
            let below = entry.start.bytes_above(from.start());
            let len = entry.range().len();
            entry.start = VirtAddr(to.0 + below);
            entry.end = VirtAddr(to.0 + below + len);
            entry.kind = entry.kind().moved().pack();
            self.link(entry);
        }
    }
}
