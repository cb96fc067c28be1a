//! The frame of every verb that changes a map: reserve, lock, clip, change, merge, unlock.
//!
//! Everything that can fail happens before the lock is taken ([`Need`]); under it an [`Edit`]
//! only commits. What the change sets free goes to the edit's limbo, which settles after the lock
//! is gone.

use super::tree::{NODES_PER_INSERT, Node};
use super::{Entry, EntryHandle, Flags, MapError, MapState, map_channel};
use crate::Vm;
use crate::lock::{self, WriteGuard};
use crate::object::limbo::Limbo;
use crate::object::{ObjectHandle, ObjectRec};
use crate::slab::{Reservation, raw_of};
use crate::space::{Space, SpaceHandle, SpaceRec};
use bsdvm_machine::{Machine, Pmap, VirtAddr, VirtRange};

/// What an edit may use at most.
#[derive(Clone, Copy, Default)]
pub(crate) struct Need {
    pub(crate) entries: u32,
    pub(crate) objects: u32,
    /// Entries are inserted in ascending order in an empty map, which needs few tree nodes.
    pub(crate) bulk: bool,
}

impl Need {
    /// For filling an empty map with `entries` entries in ascending order.
    pub(crate) const fn fill(entries: u32) -> Need {
        Need {
            entries,
            objects: 0,
            bulk: true,
        }
    }

    fn nodes(self) -> u32 {
        if self.bulk {
            // Ascending insertions leave nodes nearly full, on each level.
            self.entries / 8 + 2 * NODES_PER_INSERT
        } else {
            self.entries * NODES_PER_INSERT
        }
    }

    /// For clipping both ends of a range: two entries, and an object for an entry without one.
    pub(crate) const CLIP: Need = Need {
        entries: 2,
        objects: 2,
        bulk: false,
    };

    pub(crate) const fn and(self, entries: u32, objects: u32) -> Need {
        Need {
            entries: self.entries + entries,
            objects: self.objects + objects,
            bulk: self.bulk,
        }
    }
}

/// Entries and tree nodes set aside.
type MapRecords<'v, M> = (Reservation<'v, M, Entry>, Reservation<'v, M, Node>);

/// A map locked for change. Fields are dropped in order: the lock first, what was not used of the
/// reserves then, and the limbo last.
pub(crate) struct Edit<'v, M: Machine> {
    pub(crate) map: WriteGuard<'v, M, MapState, { lock::MAP }>,
    pub(crate) vm: &'v Vm<M>,
    /// The space whose pmap translates this map's addresses, and its record.
    home: SpaceHandle,
    home_rec: &'v SpaceRec<M>,
    /// Whether the map is one of the kernel's own.
    pub(super) system: bool,
    pub(crate) entries: Reservation<'v, M, Entry>,
    pub(crate) nodes: Reservation<'v, M, Node>,
    pub(crate) objects: Reservation<'v, M, ObjectRec<M>>,
    pub(crate) limbo: Limbo<'v, M>,
}

impl<'v, M: Machine> Space<'v, M> {
    /// Locks the map for writing when no fork is under way.
    pub(crate) fn write_map(self) -> WriteGuard<'v, M, MapState, { lock::MAP }> {
        loop {
            let map = self.rec().map.write();
            if !map.frozen {
                return map;
            }
            let ticket = self.vm.machine().ticket(map_channel(self.handle));
            drop(map);
            self.wait_map(ticket);
        }
    }

    /// Sleeps until something ends that holds (part of) the map. No lock is held.
    pub(crate) fn wait_map(self, ticket: bsdvm_machine::Ticket) {
        M::assert_none_held();
        self.vm.counters.transition_collisions.bump();
        self.vm.counters.transition_waits.bump();
        self.vm
            .machine()
            .sleep(map_channel(self.handle), ticket, None);
    }

    /// Sets records aside for a change. Maps of the kernel draw on its reserve (E03).
    fn reserve_for(self, need: Need) -> Result<MapRecords<'v, M>, MapError> {
        const EMPTY: Node = Node::EMPTY;
        let vm = self.vm;
        let (frames, entries, nodes) = (&vm.frames, need.entries, need.nodes());
        if self.is_system() {
            let (of_entries, of_nodes) = (&vm.kmem.entries, &vm.kmem.nodes);
            let got = vm
                .entries
                .reserve_or_draw(of_entries, frames, entries, Entry::VACANT)?;
            let nodes = vm
                .map_nodes
                .reserve_or_draw(of_nodes, frames, nodes, EMPTY)?;
            return Ok((got, nodes));
        }
        let entries = vm.entries.reserve(frames, entries, Entry::VACANT)?;
        Ok((entries, vm.map_nodes.reserve(frames, nodes, EMPTY)?))
    }

    /// Reserves, locks, and waits until no entry in `range` is in transition.
    pub(crate) fn edit(self, range: VirtRange, need: Need) -> Result<Edit<'v, M>, MapError> {
        let vm = self.vm;
        let (entries, nodes) = self.reserve_for(need)?;
        let objects = vm.reserve_objects(need.objects)?;
        loop {
            let mut map = self.write_map();
            let Some(busy) = in_transition(vm, &map, range) else {
                self.rec().stamp.bump();
                return Ok(Edit::new(self, map, entries, nodes, objects));
            };
            map.get_mut(vm, busy).flags |= Flags::NEEDS_WAKEUP;
            let ticket = vm.machine().ticket(map_channel(self.handle));
            drop(map);
            self.wait_map(ticket);
        }
    }
}

/// The first entry of a range that is in transition.
fn in_transition<M: Machine>(vm: &Vm<M>, map: &MapState, range: VirtRange) -> Option<EntryHandle> {
    let mut at = map.find_at_or_above(vm, range.start());
    while let Some(handle) = at {
        let entry = map.get(vm, handle);
        if entry.start >= range.end() {
            return None;
        }
        if entry.has(Flags::IN_TRANSITION) {
            return Some(handle);
        }
        at = entry.next;
    }
    None
}

impl<'v, M: Machine> Edit<'v, M> {
    pub(crate) fn new(
        space: Space<'v, M>,
        map: WriteGuard<'v, M, MapState, { lock::MAP }>,
        entries: Reservation<'v, M, Entry>,
        nodes: Reservation<'v, M, Node>,
        objects: Reservation<'v, M, ObjectRec<M>>,
    ) -> Self {
        Edit {
            map,
            vm: space.vm,
            home: space.home(),
            home_rec: space.home_rec(),
            system: space.is_system(),
            entries,
            nodes,
            objects,
            limbo: Limbo::new(space.vm),
        }
    }

    pub(crate) fn get(&self, entry: EntryHandle) -> Entry {
        *self.map.get(self.vm, entry)
    }

    pub(crate) fn get_mut(&mut self, entry: EntryHandle) -> &mut Entry {
        self.map.get_mut(self.vm, entry)
    }

    /// Adds `entry`, which overlaps no other, to the map.
    pub(crate) fn link(&mut self, mut entry: Entry) -> EntryHandle {
        let vm = self.vm;
        entry.prev = self.map.find_below(vm, entry.start);
        entry.next = match entry.prev {
            Some(prev) => self.get(prev).next,
            None => self.map.find_at_or_above(vm, entry.start),
        };
        let map = &mut *self.map;
        let handle = vm.entries.alloc(&mut self.entries, &mut map.owner, entry);
        if let Some(prev) = entry.prev {
            map.get_mut(vm, prev).next = Some(handle);
        }
        if let Some(next) = entry.next {
            map.get_mut(vm, next).prev = Some(handle);
        }
        map.tree.insert(
            &vm.map_nodes,
            &mut self.nodes,
            entry.start.0,
            entry.end.0,
            raw_of(Some(handle)),
        );
        map.bytes += entry.end.bytes_above(entry.start);
        handle
    }

    /// Takes an entry out of the map and gives what it was. Its object reference and charge are
    /// the caller's now.
    pub(crate) fn unlink(&mut self, handle: EntryHandle) -> Entry {
        let vm = self.vm;
        let entry = self.get(handle);
        let map = &mut *self.map;
        if let Some(prev) = entry.prev {
            map.get_mut(vm, prev).next = entry.next;
        }
        if let Some(next) = entry.next {
            map.get_mut(vm, next).prev = entry.prev;
        }
        let known = map.tree.remove(&vm.map_nodes, entry.start.0);
        debug_assert!(known, "an entry of the map is in its tree");
        map.bytes -= entry.end.bytes_above(entry.start);
        vm.entries.free(&mut map.owner, handle);
        entry
    }

    /// Moves the ends of an entry; its offset follows the start.
    pub(crate) fn resize(&mut self, handle: EntryHandle, start: VirtAddr, end: VirtAddr) {
        let vm = self.vm;
        let old = self.get(handle);
        let map = &mut *self.map;
        map.tree.resize(&vm.map_nodes, old.start.0, start.0, end.0);
        map.bytes = map.bytes - old.end.bytes_above(old.start) + end.bytes_above(start);
        let entry = map.get_mut(vm, handle);
        if entry.object.is_some() {
            entry.offset = entry.offset + M::PAGE.index(start.bytes_above(old.start))
                - M::PAGE.index(old.start.bytes_above(start));
        }
        entry.start = start;
        entry.end = end;
    }

    /// Gives an entry without an object one (the charge moves along), so that what becomes of the
    /// entry shares it.
    pub(crate) fn make_object(&mut self, handle: EntryHandle) {
        let vm = self.vm;
        let entry = self.get(handle);
        if entry.object.is_none() {
            let object = vm.new_anonymous(&mut self.objects, entry.pages::<M>(), entry.charge);
            let entry = self.get_mut(handle);
            entry.object = Some(object);
            entry.offset = 0;
            entry.charge = 0;
        }
    }

    /// Gives an entry that needs a copy a shadow of its own, or its object if nobody else has it.
    pub(crate) fn make_shadow(&mut self, handle: EntryHandle) {
        let vm = self.vm;
        let entry = self.get(handle);
        let Some(object) = entry.object else {
            return self.make_object(handle);
        };
        if !entry.has(Flags::NEEDS_COPY) {
            return;
        }
        let (object, offset) = if self.own_again(object) {
            // The object carries a charge of its own since it was made.
            vm.charge.refund(entry.charge);
            (object, entry.offset)
        } else {
            let pages = entry.pages::<M>();
            let front = vm.shadow(&mut self.objects, object, entry.offset, pages, entry.charge);
            (front, 0)
        };
        let entry = self.get_mut(handle);
        entry.object = Some(object);
        entry.offset = offset;
        entry.charge = 0;
        entry.flags -= Flags::NEEDS_COPY;
    }

    /// Whether the entry that asks is the only one left that refers to an anonymous object.
    fn own_again(&self, object: ObjectHandle) -> bool {
        let mut state = self.vm.lock_object(object);
        let sole = state.is_anonymous() && self.vm.references(object) == 1;
        if sole {
            state.one_mapping = true;
        }
        sole
    }

    /// Splits the entry that contains `at` strictly inside (E06). The upper part keeps the handle
    /// of the entry's end: the new entry is the lower part.
    pub(crate) fn clip(&mut self, at: VirtAddr) {
        let Some(handle) = self.map.find(self.vm, at) else {
            return;
        };
        if self.get(handle).start == at {
            return;
        }
        self.make_object_before_clip(handle);
        let whole = self.get(handle);
        let mut lower = whole;
        lower.end = at;
        let below = M::PAGE.index(at.bytes_above(whole.start));
        lower.charge = if whole.charge > 0 { below } else { 0 };
        if let Some(object) = whole.object {
            // Two entries of one object: it lives, by the entry that is being clipped.
            let counted = self.vm.reference(object);
            debug_assert!(counted, "far fewer entries than references");
        }
        self.resize(handle, at, whole.end);
        let upper = self.get_mut(handle);
        upper.kind = whole.kind().of_upper().pack();
        upper.charge = whole.charge - lower.charge;
        self.link(lower);
    }

    fn make_object_before_clip(&mut self, handle: EntryHandle) {
        if self.objects.left() > 0 && !self.system {
            self.make_object(handle);
        }
    }

    /// Clips at both ends of `range`.
    pub(crate) fn clip_range(&mut self, range: VirtRange) {
        self.clip(range.start());
        self.clip(range.end());
    }

    /// The entries that overlap `range`, by the address from which to go on: none may be removed
    /// but the one that was just given.
    pub(crate) fn next_in(&self, from: VirtAddr, range: VirtRange) -> Option<EntryHandle> {
        let handle = self.map.find_at_or_above(self.vm, from)?;
        (self.map.get(self.vm, handle).start < range.end()).then_some(handle)
    }

    /// Calls `f` for each entry that overlaps `range`, in ascending order. `f` may change the
    /// entry but not its range, and may not remove it.
    pub(crate) fn each(&mut self, range: VirtRange, mut f: impl FnMut(&mut Self, EntryHandle)) {
        let mut at = self.next_in(range.start(), range);
        while let Some(handle) = at {
            f(self, handle);
            at = self
                .get(handle)
                .next
                .filter(|&n| self.get(n).start < range.end());
        }
    }

    /// Whether `range` has no hole.
    pub(crate) fn covers(&self, range: VirtRange) -> bool {
        covers(self.vm, &self.map, range)
    }

    /// Merges the entries in and beside `range` where they agree (E05).
    pub(crate) fn simplify(&mut self, range: VirtRange) {
        let mut at = self
            .map
            .find_below(self.vm, range.start())
            .or_else(|| self.map.find_at_or_above(self.vm, range.start()));
        while let Some(handle) = at {
            let entry = self.get(handle);
            let Some(next) = entry.next else { return };
            if entry.start >= range.end() {
                return;
            }
            let after = self.get(next);
            if entry.continues_in::<M>(&after) {
                self.merge(handle, next);
            } else {
                if entry.has(Flags::IN_TRANSITION) {
                    self.vm.counters.transition_collisions.bump();
                }
                at = Some(next);
            }
        }
    }

    /// Makes `upper`, which continues `lower`, part of it.
    fn merge(&mut self, lower: EntryHandle, upper: EntryHandle) {
        let gone = self.unlink(upper);
        let entry = self.get(lower);
        self.resize(lower, entry.start, gone.end);
        self.get_mut(lower).charge += gone.charge;
        if let Some(object) = gone.object {
            // The lower entry refers to it too, so this is not the last reference.
            self.vm.release(object, &mut self.limbo);
        }
    }

    /// Takes away the translations of `range`.
    pub(crate) fn unmap(&mut self, range: VirtRange) {
        let vm = self.vm;
        let home = self.home;
        let pmap = self.home_rec.pmap.lock();
        if let Some(pmap) = pmap.as_ref() {
            self.limbo.be_quiet();
            self.limbo.begin();
            let flush = pmap.remove(range, &mut |gone| vm.translation_gone(home, gone));
            self.limbo.add_flush(flush);
        }
    }

    /// Lowers the translations of `range`.
    pub(crate) fn lower(&mut self, range: VirtRange, prot: bsdvm_machine::Prot) {
        let pmap = self.home_rec.pmap.lock();
        if let Some(pmap) = pmap.as_ref() {
            self.limbo.be_quiet();
            self.limbo.begin();
            self.limbo.add_flush(pmap.protect(range, prot));
        }
    }
}

/// Whether `range` has no hole.
pub(crate) fn covers<M: Machine>(vm: &Vm<M>, map: &MapState, range: VirtRange) -> bool {
    let mut at = range.start();
    while at < range.end() {
        match map.find(vm, at) {
            Some(handle) => at = map.get(vm, handle).end,
            None => return false,
        }
    }
    true
}
