//! Stacks: room for the maximum, memory for what is used (S08, S09).

use super::{Edit, Entry, EntryHandle, Inherit, Kind, MapError, Need};
use crate::show::Verb;
use crate::space::Space;
use bsdvm_machine::{Machine, Prot, VirtAddr, VirtRange};

/// How much a stack grows at a time, in pages, where there is room.
const GROWTH_PAGES: u64 = 32;

impl<'v, M: Machine> Space<'v, M> {
    /// Makes a stack that ends at `top`: maps `initial` bytes and keeps the rest of `max` bytes
    /// below free for it to grow by (S08). Gives the range that is mapped.
    ///
    /// Errors: [`MapError::Overlap`] when the whole of it is not free,
    /// [`MapError::InvalidAddress`], [`MapError::NoMemory`], [`MapError::ChargeLimit`],
    /// [`MapError::Exiting`].
    pub fn stack(
        self,
        top: VirtAddr,
        max: u64,
        initial: u64,
        prot: Prot,
    ) -> Result<VirtRange, MapError> {
        let done = self.stack_quietly(top, max, initial, prot);
        let range = done.ok().or_else(|| VirtRange::new(top, top));
        let outcome = done.map(|_| ());
        self.trace_change(Verb::Stack(prot), range.unwrap_or_default(), &outcome);
        done
    }

    fn stack_quietly(
        self,
        top: VirtAddr,
        max: u64,
        initial: u64,
        prot: Prot,
    ) -> Result<VirtRange, MapError> {
        let page = M::PAGE;
        let max = page.round_up(max).ok_or(MapError::InvalidAddress)?;
        let initial = page
            .round_up(initial.max(1))
            .ok_or(MapError::InvalidAddress)?
            .min(max);
        let bottom = top
            .checked_sub(max)
            .filter(|_| page.is_aligned(top) && max > 0)
            .ok_or(MapError::InvalidAddress)?;
        let start = VirtAddr(top.0 - initial);
        let mut edit = self.edit(VirtRange::default(), Need::CLIP.and(1, 0))?;
        edit.place(max, super::Placement::At(bottom))?;
        let charge = page.index(initial);
        edit.vm
            .charge
            .take(charge)
            .map_err(|_| MapError::ChargeLimit)?;
        edit.link(Entry {
            start,
            end: top,
            charge,
            prot,
            max_prot: Prot::ALL,
            inherit: Inherit::Copy,
            kind: Kind::Stack {
                reserve: max - initial,
            },
            ..Entry::VACANT
        });
        let wire = edit.map.wire_future;
        drop(edit);
        let range = VirtRange::new(start, top).unwrap_or_default();
        if wire {
            self.wire(range)?;
        }
        Ok(range)
    }

    /// Grows the stack whose reserve `va` lies in so far that it holds `va`, by the growth unit
    /// where there is room (S09). True when there is something mapped at `va` now, false when no
    /// stack can grow there.
    ///
    /// Errors: those of [`Space::stack`].
    pub fn grow_stack(self, va: VirtAddr) -> Result<bool, MapError> {
        let Some((range, wire)) = self.grow_stack_entry(va)? else {
            return Ok(self.covered(one_page::<M>(va)));
        };
        self.trace_change(Verb::Grow, range, &Ok(()));
        if wire {
            self.wire(range)?;
        }
        Ok(true)
    }

    fn grow_stack_entry(self, va: VirtAddr) -> Result<Option<(VirtRange, bool)>, MapError> {
        if self.stack_above(va).is_none() {
            return Ok(None);
        }
        let mut edit = self.edit(VirtRange::default(), Need::CLIP.and(1, 1))?;
        let Some((handle, entry)) = edit.stack_above(va) else {
            return Ok(None);
        };
        let page = M::PAGE;
        let least = entry.start.bytes_above(page.floor(va));
        let unit = page.offset(GROWTH_PAGES).unwrap_or(least);
        // A neighbour may have been mapped into the reserve since.
        let floor = edit
            .map
            .find_below(edit.vm, entry.start)
            .map_or(edit.map.range.start(), |h| edit.get(h).end);
        let room = entry.start.bytes_above(floor).min(entry.kind.reserve());
        if edit.map.exiting || least > room {
            return Ok(None);
        }
        let grow = least.max(unit).min(room);
        let charge = page.index(grow);
        edit.vm
            .charge
            .take(charge)
            .map_err(|_| MapError::ChargeLimit)?;
        let start = VirtAddr(entry.start.0 - grow);
        let range = VirtRange::new(start, entry.start).unwrap_or_default();
        edit.get_mut(handle).kind = Kind::UPPER_STACK;
        edit.link(Entry {
            start,
            end: entry.start,
            charge,
            prot: entry.prot,
            max_prot: entry.max_prot,
            inherit: entry.inherit,
            kind: Kind::Stack {
                reserve: room - grow,
            },
            ..Entry::VACANT
        });
        let wire = edit.map.wire_future;
        edit.simplify(range);
        Ok(Some((range, wire)))
    }

    fn stack_above(self, va: VirtAddr) -> Option<Entry> {
        let map = self.rec().map.read();
        let handle = map.find_at_or_above(self.vm, va)?;
        let entry = *map.get(self.vm, handle);
        (entry.start.bytes_above(va) <= entry.kind.reserve() && va < entry.start).then_some(entry)
    }
}

fn one_page<M: Machine>(va: VirtAddr) -> VirtRange {
    let start = M::PAGE.floor(va);
    VirtRange::from_len(start, M::PAGE.bytes()).unwrap_or_default()
}

impl<M: Machine> Edit<'_, M> {
    fn stack_above(&self, va: VirtAddr) -> Option<(EntryHandle, Entry)> {
        let handle = self.map.find_at_or_above(self.vm, va)?;
        let entry = self.get(handle);
        (va < entry.start && entry.start.bytes_above(va) <= entry.kind.reserve())
            .then_some((handle, entry))
    }
}
