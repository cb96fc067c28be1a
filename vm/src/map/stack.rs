//! Stacks: room for the maximum, memory for what is used (S08, S09).

use super::entry::GUARD_PAGES;
use super::{Edit, Entry, EntryHandle, Flags, Inherit, Kind, MapError, Need};
use crate::show::Verb;
use crate::space::Space;
use bsdvm_machine::{Machine, Prot, VirtAddr, VirtRange};

/// How much a stack grows at a time, in pages, where there is room.
const GROWTH_PAGES: u64 = 32;

/// How far the stacks of a space may grow, in bytes; what is over whole pages does not count.
/// Kept by the space, as stacks grow on accesses that are nobody's call: they hold for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrowthLimits {
    /// The most that one stack may have mapped.
    pub stack: u64,
    /// The most that the space may have mapped after growth.
    pub space: u64,
}

impl GrowthLimits {
    /// No limits.
    pub const NONE: GrowthLimits = GrowthLimits {
        stack: u64::MAX,
        space: u64::MAX,
    };

    /// How much a stack that has `stack` bytes may grow by in a space of `space` bytes.
    fn room<M: Machine>(self, stack: u64, space: u64) -> u64 {
        let whole = |limit: u64, used: u64| {
            let pages = M::PAGE.index(limit).saturating_sub(M::PAGE.index(used));
            M::PAGE.offset(pages).unwrap_or(u64::MAX)
        };
        whole(self.stack, stack).min(whole(self.space, space))
    }
}

/// What a stack has grown by.
struct Grown {
    range: VirtRange,
    /// What it could grow by before.
    reserve: u64,
    wire: bool,
}

impl<'v, M: Machine> Space<'v, M> {
    /// Makes a stack that ends at `top`: maps `initial` bytes and keeps the rest of `max` bytes
    /// below free for it to grow by (S08). Gives the range that is mapped.
    ///
    /// Errors: [`MapError::Overlap`] when the whole of it is not free,
    /// [`MapError::InvalidAddress`], [`MapError::NoMemory`], [`MapError::ChargeLimit`],
    /// [`MapError::Exiting`]; those of [`Space::wire`] where everything mapped is wired. Nothing is
    /// mapped then.
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
            }
            .pack(),
            ..Entry::VACANT
        });
        let wire = edit.map.wire_future;
        drop(edit);
        let range = VirtRange::new(start, top).unwrap_or_default();
        if wire {
            self.wire(range).inspect_err(|_| {
                let _ = self.remove(range);
            })?;
        }
        Ok(range)
    }

    /// Makes an open stack of the private memory in `range`, a range of whole pages: it grows down
    /// on faults below it wherever there is room, as far as the limits allow
    /// ([`Space::set_growth_limits`]), and stays 256 pages away from what can be accessed below. As
    /// many are kept free when a place is chosen for a mapping. What is split off it grows too,
    /// and so does what is moved. Holes and whatever else is mapped are skipped.
    ///
    /// Errors: [`MapError::InvalidAddress`], [`MapError::NoMemory`]; nothing is changed then.
    pub fn open_stack(self, range: VirtRange) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let mut edit = self.edit(range, Need::CLIP)?;
        edit.clip_range(range);
        edit.each(range, |edit, handle| {
            let entry = edit.get_mut(handle);
            if entry.kind() == Kind::Normal && entry.is_private() {
                entry.kind = Kind::OPEN_STACK.pack();
            }
        });
        edit.simplify(range);
        Ok(())
    }

    /// Sets how far stacks may grow from now on (S09). A child inherits it.
    pub fn set_growth_limits(self, limits: GrowthLimits) {
        self.write_map().limits = limits;
    }

    /// Grows the stack whose reserve `va` lies in so far that it holds `va`, by the growth unit
    /// where there is room (S09). True when there is something mapped at `va` now, false when no
    /// stack can grow there. What was grown is wired, with the map unlocked, where everything
    /// mapped is.
    ///
    /// Errors: [`MapError::NoSpace`] when the limits forbid it ([`Space::set_growth_limits`]),
    /// otherwise those of [`Space::stack`]; the stack is as it was then.
    pub fn grow_stack(self, va: VirtAddr) -> Result<bool, MapError> {
        let Some(grown) = self.grow_stack_entry(va)? else {
            return Ok(self.covered(one_page::<M>(va)));
        };
        self.trace_change(Verb::Grow, grown.range, &Ok(()));
        if grown.wire
            && let Err(e) = self.wire(grown.range)
        {
            self.undo_growth(&grown);
            return Err(e);
        }
        Ok(true)
    }

    /// Takes away what a stack has grown by, unless it has grown further since.
    fn undo_growth(self, grown: &Grown) {
        let range = grown.range;
        let Ok(mut edit) = self.edit(range, Need::CLIP) else {
            return;
        };
        let lowest = edit.map.find(edit.vm, range.start());
        if lowest.is_none_or(|handle| edit.get(handle).start != range.start()) {
            return;
        }
        edit.clip_range(range);
        edit.delete_clipped(range);
        if let Some(handle) = edit.map.find(edit.vm, range.end()) {
            edit.get_mut(handle).kind = Kind::Stack {
                reserve: grown.reserve,
            }
            .pack();
        }
    }

    fn grow_stack_entry(self, va: VirtAddr) -> Result<Option<Grown>, MapError> {
        if self.stack_above(va).is_none() {
            return Ok(None);
        }
        let mut edit = self.edit(VirtRange::default(), Need::CLIP.and(1, 1))?;
        let Some((handle, entry)) = edit.stack_above(va) else {
            return Ok(None);
        };
        let page = M::PAGE;
        let least = entry.start.bytes_above(page.floor(va));
        let open = entry.kind() == Kind::OPEN_STACK;
        let size = edit.stack_size(handle);
        let unit = match open {
            // As little as can be seen, but not so little that a deep stack is all small pieces.
            true => page.offset((page.index(size) / 64).clamp(1, GROWTH_PAGES)),
            false => page.offset(GROWTH_PAGES),
        };
        let unit = unit.unwrap_or(least);
        let floor = edit.floor_of_growth(&entry);
        let room = entry.start.bytes_above(floor).min(entry.kind().reserve());
        if edit.map.exiting || least > room {
            return Ok(None);
        }
        let allowed = edit.map.limits.room::<M>(size, edit.map.bytes);
        if least > allowed {
            return Err(MapError::NoSpace);
        }
        let grow = least.max(unit).min(room).min(allowed);
        let charge = page.index(grow);
        edit.vm
            .charge
            .take(charge)
            .map_err(|_| MapError::ChargeLimit)?;
        let start = VirtAddr(entry.start.0 - grow);
        let range = VirtRange::new(start, entry.start).unwrap_or_default();
        let kind = match open {
            true => entry.kind(),
            false => Kind::Stack {
                reserve: room - grow,
            },
        };
        edit.get_mut(handle).kind = kind.of_upper().pack();
        edit.link(Entry {
            start,
            end: entry.start,
            charge,
            prot: entry.prot,
            max_prot: entry.max_prot,
            inherit: entry.inherit,
            behavior: entry.behavior,
            flags: entry.flags & Flags::NO_CORE,
            kind: kind.pack(),
            ..Entry::VACANT
        });
        let wire = edit.map.wire_future || entry.has(Flags::USER_WIRED);
        edit.simplify(range);
        Ok(Some(Grown {
            range,
            reserve: entry.kind().reserve(),
            wire,
        }))
    }

    fn stack_above(self, va: VirtAddr) -> Option<Entry> {
        let map = self.rec().map.read();
        let handle = map.find_at_or_above(self.vm, va)?;
        let entry = *map.get(self.vm, handle);
        (entry.start.bytes_above(va) <= entry.kind().reserve() && va < entry.start).then_some(entry)
    }
}

fn one_page<M: Machine>(va: VirtAddr) -> VirtRange {
    let start = M::PAGE.floor(va);
    VirtRange::from_len(start, M::PAGE.bytes()).unwrap_or_default()
}

impl<M: Machine> Edit<'_, M> {
    /// How far down the stack that begins with `lowest` may grow: a neighbour may be in its
    /// reserve, and one that can be reached keeps its distance from an open stack.
    fn floor_of_growth(&self, lowest: &Entry) -> VirtAddr {
        let bottom = self.map.range.start();
        let Some(below) = self.map.find_below(self.vm, lowest.start) else {
            return bottom;
        };
        let below = self.get(below);
        let apart = lowest.kind() == Kind::OPEN_STACK
            && !below.prot.is_empty()
            && !matches!(below.kind(), Kind::Stack { .. });
        let guard = M::PAGE.offset(GUARD_PAGES).filter(|_| apart).unwrap_or(0);
        let floor = below.end.checked_add(guard).unwrap_or(lowest.start);
        floor.min(lowest.start)
    }

    /// Bytes of the stack whose lowest entry is `lowest`.
    fn stack_size(&self, lowest: EntryHandle) -> u64 {
        let first = self.get(lowest);
        let mut last = first;
        while let Some(next) = last.next.map(|next| self.get(next))
            && next.start == last.end
            && matches!(next.kind(), Kind::UPPER_STACK | Kind::OPEN_STACK)
        {
            last = next;
        }
        last.end.bytes_above(first.start)
    }

    fn stack_above(&self, va: VirtAddr) -> Option<(EntryHandle, Entry)> {
        let handle = self.map.find_at_or_above(self.vm, va)?;
        let entry = self.get(handle);
        (va < entry.start && entry.start.bytes_above(va) <= entry.kind().reserve())
            .then_some((handle, entry))
    }
}
