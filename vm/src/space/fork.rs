//! Fork (S05, S06).
//!
//! ```text
//!  before   parent entry ──> A
//!
//!  after    parent entry ──needs copy──> A <──needs copy── child entry
//!
//!  parent   parent entry ──> S ──> A <──needs copy── child entry
//!  writes
//! ```
//!
//! Three steps:
//!
//! 1. Freeze the parent's map, take write access from what is going to be copied on write, unlock
//!    and wait for the flush: from here on no thread of the parent changes a page.
//! 2. With nothing locked, copy the ranges that cannot be shared: wired ones (W05), those that
//!    others write to, and those whose chain is as long as a chain may be.
//! 3. With everything reserved, lock both maps and commit; thaw.
//!
//! A failure in step 2 thaws and leaves the parent as it was, but for translations, which are a
//! cache.

use super::{Space, SpaceError, SpaceId};
use crate::map::{Edit, Entry, Flags, Inherit, MapError, Need, map_channel};
use crate::object::limbo::Limbo;
use crate::object::shadow::MAX_CHAIN;
use crate::show::Event;
use bsdvm_machine::{Machine, Pmap, Prot, VirtAddr, VirtRange};

/// What a fork is going to need, counted while the map is frozen.
#[derive(Clone, Copy, Default)]
struct Plan {
    entries: u32,
    objects: u32,
    /// Submaps, and memory of the kernel: what cannot be inherited.
    submaps: u32,
    /// Pages to be promised at most.
    charge: u64,
}

/// What a child does not inherit of an entry's flags.
const OWN: Flags = Flags::IN_TRANSITION
    .union(Flags::NEEDS_WAKEUP)
    .union(Flags::USER_WIRED)
    .union(Flags::WIRING)
    .union(Flags::COUNTED);

impl From<MapError> for SpaceError {
    fn from(e: MapError) -> SpaceError {
        match e {
            MapError::ChargeLimit => SpaceError::ChargeLimit,
            MapError::Exiting => SpaceError::Exiting,
            MapError::Submap => SpaceError::Submap,
            _ => SpaceError::NoMemory,
        }
    }
}

impl<'v, M: Machine> Space<'v, M> {
    /// Makes a copy of the space as the inheritance of its entries says (S05): shared ranges are
    /// shared, copied ones are copied on write, wired ones at once. The child has one reference
    /// and its hold. Every translation that the parent may not write through any more is gone
    /// when this returns.
    ///
    /// Errors: [`SpaceError`]; the parent is as it was then.
    pub fn fork(self) -> Result<SpaceId, SpaceError> {
        let outcome = self.fork_quietly();
        self.vm.trace(|| Event::Fork {
            space: self.id(),
            outcome,
        });
        outcome
    }

    fn fork_quietly(self) -> Result<SpaceId, SpaceError> {
        let vm = self.vm;
        let range = self.range();
        if self.has_submap(range) {
            return Err(SpaceError::Submap);
        }
        let child = vm.space_create(range)?;
        let limits = self.rec().map.read().limits;
        vm.space_rec(child.0).map.write().limits = limits;
        let plan = self.freeze();
        let result = match plan.submaps {
            0 => self.fill_child(vm.space(child), plan),
            _ => Err(SpaceError::Submap),
        };
        self.thaw();
        match result {
            Ok(()) => {
                vm.counters.forks.bump();
                Ok(child)
            }
            Err(e) => {
                vm.space(child).release();
                Err(e)
            }
        }
    }

    /// Step 1.
    fn freeze(self) -> Plan {
        let vm = self.vm;
        let mut plan = Plan::default();
        let mut limbo = Limbo::new(vm);
        let mut map = self.write_map();
        map.frozen = true;
        self.rec().stamp.bump();
        let pmap = self.rec().pmap.lock();
        // Somebody else may have taken write access away and not have waited yet.
        limbo.be_quiet();
        limbo.begin();
        let mut at = map.find_at_or_above(vm, VirtAddr(0));
        while let Some(handle) = at {
            let entry = map.get(vm, handle);
            at = entry.next;
            plan.add::<M>(entry);
            if let Some(pmap) = pmap.as_ref()
                && entry.inheritance() == Inherit::Copy
                && entry.prot.contains(Prot::WRITE)
                && !entry.has(Flags::NEEDS_COPY)
            {
                limbo.add_flush(pmap.protect(entry.range(), entry.prot - Prot::WRITE));
            }
        }
        drop(pmap);
        drop(map);
        limbo.settle();
        plan
    }

    fn thaw(self) {
        let mut map = self.rec().map.write();
        map.frozen = false;
        self.rec().stamp.bump();
        drop(map);
        self.vm.machine().wake(map_channel(self.handle));
    }

    /// Steps 2 and 3.
    fn fill_child(self, child: Space<'v, M>, plan: Plan) -> Result<(), SpaceError> {
        let vm = self.vm;
        vm.charge
            .take(plan.charge)
            .map_err(|_| SpaceError::ChargeLimit)?;
        let mut unused = plan.charge;
        let result = self
            .copy_at_once(child, &mut unused)
            .and_then(|()| self.commit(child, plan, &mut unused));
        vm.charge.refund(unused);
        result
    }

    /// Step 2: the ranges that are copied now.
    fn copy_at_once(self, child: Space<'v, M>, unused: &mut u64) -> Result<(), SpaceError> {
        let vm = self.vm;
        let mut from = VirtAddr(0);
        while let Some(entry) = self.frozen_entry(from) {
            from = entry.end;
            let Some(object) = entry.object else { continue };
            // Others write to a shared object directly, so copying on write would not do.
            let copied = vm.inheritance(&entry) == Inherit::Copy
                && (entry.wired > 0 || !entry.is_private() || vm.chain_length(object) >= MAX_CHAIN);
            if !copied {
                continue;
            }
            let pages = entry.pages::<M>();
            let need = Need::default().and(1, 0);
            let copy = vm.copy_chain(&entry, object)?;
            *unused -= pages;
            match child.edit(VirtRange::default(), need) {
                Ok(mut edit) => {
                    edit.link(Entry {
                        object: Some(copy),
                        offset: 0,
                        charge: 0,
                        wired: 0,
                        flags: entry.flags - OWN - Flags::NEEDS_COPY - Flags::SHARED,
                        ..entry
                    });
                }
                Err(e) => {
                    vm.release(copy, &mut Limbo::new(vm));
                    return Err(e.into());
                }
            }
        }
        Ok(())
    }

    /// The entry at or above `from`, in a map that is frozen by the caller.
    fn frozen_entry(self, from: VirtAddr) -> Option<Entry> {
        let map = self.rec().map.read();
        let handle = map.find_at_or_above(self.vm, from)?;
        Some(*map.get(self.vm, handle))
    }

    /// Step 3.
    fn commit(self, child: Space<'v, M>, plan: Plan, unused: &mut u64) -> Result<(), SpaceError> {
        let mut new = child.edit(VirtRange::default(), Need::fill(plan.entries))?;
        let mut old = self.edit_frozen(plan.objects)?;
        let mut from = VirtAddr(0);
        while let Some(handle) = old.map.find_at_or_above(old.vm, from) {
            let entry = old.get(handle);
            from = entry.end;
            if new.map.find(new.vm, entry.start).is_some() {
                continue;
            }
            let inherited = match old.vm.inheritance(&entry) {
                Inherit::None => continue,
                Inherit::Zero => Entry {
                    object: None,
                    offset: 0,
                    charge: entry.pages::<M>(),
                    flags: entry.flags - Flags::COPIED,
                    ..entry
                },
                Inherit::Share => old.share(handle),
                Inherit::Copy => old.copy_on_write(handle, unused),
            };
            *unused -= inherited.charge;
            new.link(Entry {
                wired: 0,
                flags: inherited.flags - OWN,
                ..inherited
            });
            if inherited.object.is_some() {
                self.copy_translations(child, entry.range(), &mut old.limbo);
            }
        }
        // Unlocked first: nobody waits in the parent's limbo with the child's map locked.
        drop(new);
        Ok(())
    }

    /// Locks the map that the caller has frozen.
    fn edit_frozen(self, objects: u32) -> Result<Edit<'v, M>, SpaceError> {
        let vm = self.vm;
        let objects = vm.reserve_objects(objects)?;
        let entries = vm.entries.reserve(&vm.frames, 0, Entry::VACANT)?;
        let nodes = vm
            .map_nodes
            .reserve(&vm.frames, 0, crate::map::tree::Node::EMPTY)?;
        let map = self.rec().map.write_nested();
        Ok(Edit::new(self, map, entries, nodes, objects))
    }
}

impl<M: Machine> crate::Vm<M> {
    /// What a child gets of an entry: a device cannot be copied, and is shared instead.
    fn inheritance(&self, entry: &Entry) -> Inherit {
        let device = |object| self.lock_object(object).is_device();
        match entry.inheritance() {
            Inherit::Copy if !entry.is_private() && entry.object.is_some_and(device) => {
                Inherit::Share
            }
            other => other,
        }
    }
}

impl Plan {
    fn add<M: Machine>(&mut self, entry: &Entry) {
        let pages = entry.pages::<M>();
        self.entries += 1;
        self.submaps += u32::from(entry.submap().is_some());
        match entry.inheritance() {
            Inherit::None => {}
            Inherit::Zero => self.charge += pages,
            Inherit::Share => self.objects += 1,
            // The child's copy, and the parent's when it writes first; a split takes an object.
            Inherit::Copy => {
                self.objects += 1;
                self.charge += 2 * pages;
            }
        }
    }
}

impl<M: Machine> Edit<'_, M> {
    /// What the child gets of an entry that it shares: the same object, which is made first where
    /// there is none.
    fn share(&mut self, handle: crate::map::EntryHandle) -> Entry {
        let vm = self.vm;
        if self.get(handle).has(Flags::NEEDS_COPY) {
            self.make_shadow(handle);
        } else {
            self.make_object(handle);
        }
        self.get_mut(handle).flags |= Flags::SHARED;
        let entry = self.get(handle);
        if let Some(object) = entry.object {
            let counted = vm.reference(object);
            debug_assert!(counted, "an entry keeps its object");
            vm.lock_object(object).one_mapping = false;
        }
        Entry { charge: 0, ..entry }
    }

    /// What the child gets of an entry that it copies: the same object, which neither writes to
    /// any more.
    fn copy_on_write(&mut self, handle: crate::map::EntryHandle, unused: &mut u64) -> Entry {
        let vm = self.vm;
        let entry = self.get(handle);
        let pages = entry.pages::<M>();
        let Some(object) = entry.object else {
            return Entry {
                charge: pages,
                flags: entry.flags - Flags::SHARED,
                ..entry
            };
        };
        if !entry.has(Flags::NEEDS_COPY)
            && self.objects.left() > 0
            && let Some(own) = vm.split(
                &mut self.objects,
                object,
                entry.offset,
                pages,
                &mut self.limbo,
            )
        {
            let entry = self.get_mut(handle);
            entry.object = Some(own);
            entry.offset = 0;
        }
        let entry = self.get(handle);
        if let Some(object) = entry.object {
            let counted = vm.reference(object);
            debug_assert!(counted, "an entry keeps its object");
            vm.lock_object(object).one_mapping = false;
        }
        let copied = entry.flags | Flags::COPIED;
        let parent = self.get_mut(handle);
        parent.flags = copied;
        if !entry.has(Flags::NEEDS_COPY) && entry.charge == 0 {
            parent.charge = pages;
            *unused -= pages;
        }
        Entry {
            charge: pages,
            flags: copied,
            ..entry
        }
    }
}
