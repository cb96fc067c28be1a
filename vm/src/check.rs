//! The invariants of the whole system, recomputed from nothing and compared.
//!
//! [`Vm::check`] is for tests, between two steps: no other thread is in the VM meanwhile.

use crate::Vm;
use crate::map::{Entry, Flags};
use crate::object::radix::Slot;
use crate::object::{Kind, ObjectHandle};
use crate::page::rmap::Mapping;
use crate::slab::{Handle, cast};
use crate::space::SpaceHandle;
use bsdvm_machine::sync::atomic::Ordering;
use bsdvm_machine::{Frame, Machine, Pmap, Prot, VirtAddr, VirtRange};

/// An invariant that does not hold, in words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckError(pub &'static str);

type Check = Result<(), CheckError>;

fn ensure(holds: bool, what: &'static str) -> Check {
    if holds { Ok(()) } else { Err(CheckError(what)) }
}

/// Sums over everything, to be compared with what the VM keeps.
#[derive(Default)]
struct Sums {
    charge: u64,
    entries: u64,
    pages: u64,
    /// Frames that say that they are pages.
    framed: u64,
    swapped: u64,
    /// Slots that pages in memory keep.
    kept: u64,
    wired: u64,
    mappings: u64,
    objects: u64,
}

impl<M: Machine> Vm<M> {
    /// Recomputes every invariant.
    ///
    /// Errors: the first that does not hold.
    pub fn check(&self) -> Result<(), CheckError> {
        let mut sums = Sums::default();
        for (handle, rec) in self.spaces.each() {
            if rec.holds.load(Ordering::Relaxed) > 0 {
                self.check_space(cast(handle), &mut sums)?;
            }
        }
        for (handle, rec) in self.objects.each() {
            if rec.refs.load(Ordering::Relaxed) > 0 {
                self.check_object(cast(handle), &mut sums)?;
            }
        }
        for frame in self.frames.managed() {
            self.check_frame(frame, &mut sums)?;
        }
        ensure(sums.mappings == 0, "rmap: a mapping without a translation")?;
        ensure(
            sums.framed == sums.pages,
            "frames: the number of pages differs",
        )?;
        ensure(
            sums.wired == self.frames.wired_count(),
            "frames: the number of wired ones differs",
        )?;
        ensure(
            sums.charge == self.charge.pages(),
            "charge: the sum differs",
        )?;
        ensure(
            sums.entries == u64::from(self.entries.live()),
            "entries: a record belongs to no map",
        )?;
        ensure(
            sums.objects == u64::from(self.objects.live()),
            "objects: a record is lost",
        )?;
        ensure(
            sums.kept == self.swap.kept(),
            "swap: the number of slots kept differs",
        )?;
        ensure(
            sums.swapped + sums.kept == u64::from(self.swap.usage().0),
            "swap: a slot is lost",
        )?;
        self.check_frames(&sums)
    }

    /// Every frame is free, a page, a record of a slab, or a table of a pmap; the free ones are
    /// counted right. Frames of pmaps are the machine's to count.
    fn check_frames(&self, sums: &Sums) -> Check {
        let free = self.frames.recount();
        ensure(
            free == self.frames.free_count(),
            "frames: the free count differs",
        )?;
        let known = free + sums.pages + u64::from(self.slab_frames());
        ensure(
            known <= self.frames.total(),
            "frames: more in use than there are",
        )
    }

    /// Frames that the slabs hold.
    fn slab_frames(&self) -> u32 {
        self.objects.frames()
            + self.spaces.frames()
            + self.entries.frames()
            + self.map_nodes.frames()
            + self.page_nodes.frames()
            + self.rmap.chunks.frames()
            + self.swap.frames()
            + self.kmem.zones.frames()
    }

    /// Frames that are neither free nor held by slabs: pages, and tables of pmaps. With no space
    /// and no object left it is 0; a test asserts that nothing has leaked.
    pub fn frames_in_use(&self) -> u64 {
        self.frames.total() - self.frames.free_count() - u64::from(self.slab_frames())
    }

    fn check_space(&self, space: SpaceHandle, sums: &mut Sums) -> Check {
        let rec = self.space_rec(space);
        let map = rec.map.read();
        let mut bytes = 0;
        let mut below: Option<(u32, VirtAddr)> = None;
        let mut outcome = Ok(());
        map.tree
            .verify(&self.map_nodes, &mut |found| {
                if outcome.is_ok() {
                    let entry = Handle::from_raw(found.id).map(|h| *map.get(self, h));
                    outcome = self.check_entry(entry, found, below, &map, sums);
                }
                bytes += found.end - found.start;
                below = Some((found.id, VirtAddr(found.end)));
            })
            .map_err(CheckError)?;
        outcome?;
        ensure(bytes == map.bytes, "map: the size differs")?;
        ensure(!map.frozen, "map: a fork never ended")?;
        self.check_translations(space, &map, sums)
    }

    /// Looks at the translations of a space a few at a time: the lock of the pmap comes after
    /// those of objects.
    fn check_translations(
        &self,
        space: SpaceHandle,
        map: &crate::map::MapState,
        sums: &mut Sums,
    ) -> Check {
        const BATCH: usize = 64;
        let mut from = map.range;
        loop {
            let mut batch = [None; BATCH];
            let mut count = 0;
            if let Some(pmap) = self.space_rec(space).pmap.lock().as_ref() {
                pmap.scan(from, &mut |va, t| {
                    if count < BATCH {
                        batch[count] = Some((va, t));
                    }
                    count += 1;
                });
            }
            for (va, t) in batch.into_iter().flatten() {
                self.check_translation(space, map, va, t)?;
                sums.mappings += u64::from(t.kind == bsdvm_machine::Kind::Managed);
                let next = VirtAddr(va.0 + M::PAGE.bytes());
                from = VirtRange::new(next, from.end()).unwrap_or_default();
            }
            if count <= BATCH {
                return Ok(());
            }
        }
    }

    fn check_entry(
        &self,
        entry: Option<Entry>,
        found: crate::map::tree::Found,
        below: Option<(u32, VirtAddr)>,
        map: &crate::map::MapState,
        sums: &mut Sums,
    ) -> Check {
        let Some(entry) = entry else {
            return Err(CheckError("tree: an entry without a number"));
        };
        sums.entries += 1;
        sums.charge += entry.charge;
        ensure(
            entry.start.0 == found.start && entry.end.0 == found.end,
            "entry: the tree has another range",
        )?;
        ensure(!entry.range().is_empty(), "entry: an empty range")?;
        ensure(
            M::PAGE.is_aligned_range(entry.range()),
            "entry: not aligned to pages",
        )?;
        ensure(
            map.range.contains_range(entry.range()),
            "entry: outside of the map",
        )?;
        ensure(
            entry.prev.map(Handle::raw) == below.map(|b| b.0),
            "entry: the link to the one below is wrong",
        )?;
        ensure(
            entry.max_prot.contains(entry.prot),
            "entry: more allowed than the maximum",
        )?;
        ensure(
            !entry.has(Flags::IN_TRANSITION | Flags::WIRING | Flags::COUNTED | Flags::NEEDS_WAKEUP),
            "entry: a transition never ended",
        )?;
        ensure(
            entry.wired >= u32::from(entry.has(Flags::USER_WIRED)),
            "entry: the user's wiring is not counted",
        )?;
        ensure(
            entry.charge == 0 || entry.charge == entry.pages::<M>(),
            "entry: part of it is charged",
        )?;
        if let Some(below) = entry.submap() {
            let rec = self.space_rec(below);
            ensure(
                rec.refs.load(Ordering::Relaxed) > 0,
                "entry: its submap has ended",
            )?;
            ensure(entry.object.is_none(), "entry: a submap with an object")?;
        }
        if let Some(object) = entry.object {
            ensure(self.references(object) > 0, "entry: its object has ended")?;
        }
        Ok(())
    }

    /// A translation shows what the chain shows, and allows no more than the entry.
    fn check_translation(
        &self,
        space: SpaceHandle,
        map: &crate::map::MapState,
        va: VirtAddr,
        t: bsdvm_machine::Translation,
    ) -> Check {
        if t.kind == bsdvm_machine::Kind::Manual {
            return Ok(());
        }
        let Some(handle) = map.find(self, va) else {
            return Err(CheckError("pmap: a translation without an entry"));
        };
        let entry = map.get(self, handle);
        if let Some(below) = entry.submap() {
            let submap = self.space_rec(below).map.read_nested();
            return self.check_translation(space, &submap, va, t);
        }
        let Some(object) = entry.object else {
            return Err(CheckError("pmap: a translation without an object"));
        };
        let index = entry.index_of::<M>(va);
        // A device has no page to compare with.
        let device = self.lock_object(object).is_device();
        let shown = match entry.is_page_table() {
            // The table may have changed since, but it cannot name another object's page.
            true => self.frames.page(t.frame).identity().map(|(o, _)| o) == Some(object),
            false => self.chain_page(object, index) == Some(t.frame),
        };
        ensure(
            device || shown,
            "pmap: a translation shows another page than the chain",
        )?;
        ensure(
            entry.reach::<M>().contains(t.prot),
            "pmap: more allowed than the entry does",
        )?;
        let page = self.frames.page(t.frame);
        ensure(
            entry.wired == 0 || page.wired() > 0,
            "page: mapped by a wired entry and not wired",
        )?;
        let front = page.identity().map(|(o, _)| o) == Some(object);
        ensure(
            !t.prot.contains(Prot::WRITE) || device || (front && !entry.has(Flags::NEEDS_COPY)),
            "pmap: a page that has to be copied is writable",
        )?;
        ensure(
            self.rmap.has(t.frame, page, Mapping { space, va }),
            "rmap: a translation is not recorded",
        )
    }

    fn check_object(&self, object: ObjectHandle, sums: &mut Sums) -> Check {
        let state = self.lock_object(object);
        sums.objects += 1;
        sums.charge += state.charge;
        ensure(
            !matches!(state.kind, Kind::Dead),
            "object: ended with references",
        )?;
        let kernel = matches!(state.kind, Kind::Kernel);
        let (mut resident, mut swapped, mut at) = (0, 0, 0);
        let size = state.size::<M>();
        while let Some((index, slot)) = state.pages.next(&self.page_nodes, at) {
            at = index + 1;
            ensure(index < size, "page: beyond the end of its object")?;
            match slot {
                Slot::Resident(frame) => {
                    resident += 1;
                    ensure(
                        self.frames.page(frame).identity() == Some((object, index)),
                        "page: another identity than its place",
                    )?;
                    sums.kept += u64::from(self.frames.page(frame).swap_slot().is_some());
                    ensure(
                        !kernel || self.frames.page(frame).wired() > 0,
                        "page: the kernel's own and not wired",
                    )?;
                }
                Slot::Swapped(_) => swapped += 1,
            }
        }
        ensure(
            (resident, swapped) == (state.pages.resident, state.pages.swapped),
            "object: the page counts differ",
        )?;
        sums.pages += resident;
        sums.swapped += swapped;
        self.check_shadows(object, &state)
    }

    /// The list of shadows is right, and no one else thinks that it shadows this object.
    fn check_shadows(&self, object: ObjectHandle, state: &crate::object::ObjectState) -> Check {
        let mut count = 0;
        let mut at = state.shadows;
        while let Some(front) = at {
            count += 1;
            ensure(count <= state.shadow_count, "object: too many shadows")?;
            let rec = self.object_rec(front);
            at = Handle::from_raw(rec.sibling_next.load(Ordering::Relaxed));
        }
        ensure(count == state.shadow_count, "object: too few shadows")?;
        ensure(
            self.references(object) >= state.shadow_count,
            "object: a shadow without a reference",
        )
    }

    fn check_frame(&self, frame: Frame, sums: &mut Sums) -> Check {
        let page = self.frames.page(frame);
        let mapped = self.rmap.count(frame, page);
        ensure(
            sums.mappings >= mapped,
            "rmap: a mapping without a translation",
        )?;
        sums.mappings -= mapped;
        sums.wired += u64::from(page.wired() > 0);
        let Some((object, index)) = page.identity() else {
            return ensure(mapped == 0, "page: a frame that is no page is mapped");
        };
        sums.framed += 1;
        ensure(!page.is_busy(), "page: busy for ever")?;
        let state = self.lock_object(object);
        ensure(
            state.pages.get(&self.page_nodes, index) == Some(Slot::Resident(frame)),
            "page: its object does not have it",
        )?;
        ensure(
            page.is_queued() == (page.wired() == 0),
            "page: on a queue though wired, or on none",
        )
    }
}

#[cfg(test)]
mod tests;
