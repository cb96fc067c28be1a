//! How much of memory and swap a space uses (S04): what is shown of a process, and what the
//! largest one is picked by.

use super::Space;
use crate::map::{Entry, EntryHandle, MapState};
use crate::object::ObjectState;
use bsdvm_machine::Machine;
use bsdvm_machine::sync::atomic::{AtomicU64, Ordering};

/// Numbers the counts, so that each can mark the objects that it has seen.
pub(crate) struct Counts(AtomicU64);

impl Counts {
    pub(crate) const fn new() -> Counts {
        Counts(AtomicU64::new(0))
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl<M: Machine> Space<'_, M> {
    /// Pages on swap that the space has a part in (S04): for each entry, what its front object has
    /// there in proportion to how much of the object the entry shows, rounded up.
    pub fn swap_count(self) -> u64 {
        let mut count = 0;
        self.each_object(&mut |_, entry, state| {
            let swapped = u128::from(state.pages.swapped);
            let size = u128::from(state.size::<M>().max(1));
            let part = (swapped * u128::from(entry.pages::<M>())).div_ceil(size);
            // An entry that reaches beyond the end of its object has all that there is.
            count += (part as u64).min(state.pages.swapped);
        });
        count
    }

    /// Pages in memory of the zero-filled objects that entries of the space have in front (S04).
    /// An object that several entries show counts once.
    pub fn anonymous_count(self) -> u64 {
        let ticket = self.vm.counts.next();
        let mut count = 0;
        self.each_object(&mut |map, entry, state| {
            if !state.is_anonymous() || state.counted == ticket {
                return;
            }
            // A count that began later may have marked the object over: then it is looked for
            // below.
            let unsure = state.counted > ticket;
            state.counted = state.counted.max(ticket);
            if !(unsure && self.shows_below(map, entry)) {
                count += state.pages.resident;
            }
        });
        count
    }

    /// Whether an entry below `entry` shows the same object.
    fn shows_below(self, map: &MapState, entry: &Entry) -> bool {
        let next = |handle: &EntryHandle| map.get(self.vm, *handle).prev;
        core::iter::successors(entry.prev, next)
            .any(|handle| map.get(self.vm, handle).object == entry.object)
    }

    /// Calls `f` for each entry that has an object.
    fn each_object(self, f: &mut dyn FnMut(&MapState, &Entry, &mut ObjectState)) {
        let map = self.rec().map.read();
        let mut at = map.find_at_or_above(self.vm, map.range.start());
        while let Some(handle) = at {
            let entry = map.get(self.vm, handle);
            at = entry.next;
            if let Some(object) = entry.object {
                f(&map, entry, &mut self.vm.lock_object(object));
            }
        }
    }
}
