//! A map of the kernel: ranges of addresses taken and given back, and submaps by name.

use super::{Kmem, KmemError};
use crate::Vm;
use crate::map::{Entry, Flags, Inherit, Need, Placement};
use crate::object::ObjectHandle;
use crate::page::Class;
use crate::slab::Handle;
use crate::space::{Space, SpaceId};
use bsdvm_machine::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use bsdvm_machine::{Channel, Machine, Prot, VirtAddr, VirtRange};

/// The submaps that the documents name (K01). A kernel makes the ones it wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SubmapName {
    /// What the kernel's allocator of small items lives on.
    Kmem,
    /// Arguments and environment of a program that starts.
    Exec,
    /// Headers of programs that start.
    ExecHeader,
    /// Buffers of pipes.
    Pipe,
    /// Buffers of files.
    Buffer,
    /// What `Buffer` and `Io` are carved from.
    Clean,
    /// Network buffers.
    Mbuf,
    /// Clusters of network buffers.
    MbufCluster,
    /// User areas of processes.
    U,
    /// Mappings of devices.
    Io,
    /// Physical input and output.
    Phys,
}

impl SubmapName {
    const ALL: [SubmapName; 11] = [
        SubmapName::Kmem,
        SubmapName::Exec,
        SubmapName::ExecHeader,
        SubmapName::Pipe,
        SubmapName::Buffer,
        SubmapName::Clean,
        SubmapName::Mbuf,
        SubmapName::MbufCluster,
        SubmapName::U,
        SubmapName::Io,
        SubmapName::Phys,
    ];

    /// Whether the map is one that nothing is ever given back to, so that waiting for room is in
    /// vain.
    fn only_fills(self) -> bool {
        matches!(self, SubmapName::Mbuf | SubmapName::MbufCluster)
    }
}

/// The submaps that have names, and which of them were found full.
pub(super) struct Names {
    maps: [AtomicU32; SubmapName::ALL.len()],
    full: [AtomicBool; SubmapName::ALL.len()],
}

impl Names {
    pub(super) const fn new() -> Names {
        Names {
            maps: [const { AtomicU32::new(0) }; SubmapName::ALL.len()],
            full: [const { AtomicBool::new(false) }; SubmapName::ALL.len()],
        }
    }

    /// Forgets all: the kernel map ends.
    pub(super) fn clear(&self) {
        self.maps.iter().for_each(|m| m.store(0, Ordering::Release));
        self.full
            .iter()
            .for_each(|f| f.store(false, Ordering::Release));
    }

    fn name_of(&self, map: u32) -> Option<SubmapName> {
        let at = self
            .maps
            .iter()
            .position(|m| m.load(Ordering::Acquire) == map)?;
        SubmapName::ALL.get(at).copied()
    }
}

/// Where in a map room is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Find {
    /// The lowest place.
    Any,
    /// The lowest place that a superpage can begin at.
    Superpage,
}

/// Whether what a submap maps can be paged out (K08).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paging {
    /// It can.
    Pageable,
    /// Everything in it is wired, from the moment it is mapped.
    Wired,
}

/// A map of the kernel: the kernel map, or a submap, which is an allocator of its own. It stays
/// as long as the kernel map does.
pub struct KernelMap<'v, M: Machine>(Space<'v, M>);

impl<M: Machine> Clone for KernelMap<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M: Machine> Copy for KernelMap<'_, M> {}

/// What is inserted in a map of the kernel.
#[derive(Clone, Copy)]
pub(super) struct New {
    /// Shows that object, at the place of the address.
    pub(super) object: Option<ObjectHandle>,
    pub(super) flags: Flags,
    pub(super) wired: u32,
    /// Memory of its own, charged.
    pub(super) anonymous: bool,
}

impl New {
    /// Addresses alone: nothing behind them.
    pub(super) const BARE: New = New {
        object: None,
        flags: Flags::empty(),
        wired: 0,
        anonymous: false,
    };
}

impl<'v, M: Machine> Kmem<'v, M> {
    /// Carves `bytes` bytes out of `parent` and makes them a map that goes by `name` (K01, K08).
    ///
    /// Errors: [`KmemError::Exists`] when the name is taken, and those of
    /// [`KernelMap::suballoc`].
    pub fn suballoc_named(
        self,
        name: SubmapName,
        parent: KernelMap<'v, M>,
        bytes: u64,
        find: Find,
        paging: Paging,
    ) -> Result<KernelMap<'v, M>, KmemError> {
        if self.named(name).is_some() {
            return Err(KmemError::Exists);
        }
        let map = parent.suballoc(bytes, find, paging)?;
        let names = &self.state().names;
        let raw = map.0.handle.raw();
        let slot = &names.maps[name as usize];
        let free = slot.compare_exchange(0, raw, Ordering::AcqRel, Ordering::Acquire);
        match free {
            Ok(_) => Ok(map),
            // Somebody else was faster: the range stays a submap without a name.
            Err(_) => Err(KmemError::Exists),
        }
    }

    /// The submap that goes by `name`.
    pub fn named(self, name: SubmapName) -> Option<KernelMap<'v, M>> {
        let raw = self.state().names.maps[name as usize].load(Ordering::Acquire);
        let handle = Handle::from_raw(raw)?;
        Some(KernelMap(Space {
            vm: self.vm,
            handle,
        }))
    }

    /// Whether the submap `name` was found full since something was last given back to it (K01).
    pub fn is_full(self, name: SubmapName) -> bool {
        self.state().names.full[name as usize].load(Ordering::Acquire)
    }
}

impl<'v, M: Machine> KernelMap<'v, M> {
    pub(super) fn new(space: Space<'v, M>) -> Self {
        KernelMap(space)
    }

    pub(super) fn vm(self) -> &'v Vm<M> {
        self.0.vm
    }

    pub(super) fn kmem(self) -> Kmem<'v, M> {
        Kmem { vm: self.0.vm }
    }

    /// The map as a space, for the verbs of maps.
    pub fn space(self) -> Space<'v, M> {
        self.0
    }

    /// The id, with which [`Kmem::submap`] finds the map again.
    pub fn id(self) -> SpaceId {
        self.0.id()
    }

    /// The name, if it has one.
    pub fn name(self) -> Option<SubmapName> {
        self.kmem().state().names.name_of(self.0.handle.raw())
    }

    /// Takes `bytes` bytes of addresses and puts pageable, zero-filled memory behind them (K02).
    /// Charged like the memory of a program.
    ///
    /// Errors: [`KmemError::InvalidArgument`] for no bytes, [`KmemError::NoSpace`],
    /// [`KmemError::NoMemory`], [`KmemError::ChargeLimit`].
    pub fn alloc_pageable(self, bytes: u64) -> Result<VirtAddr, KmemError> {
        let charge = M::PAGE.count(bytes);
        self.vm().charge.take(charge)?;
        self.insert_pageable(bytes)
            .inspect_err(|_| self.vm().charge.refund(charge))
    }

    /// As [`KernelMap::alloc_pageable`], for memory that is charged already. After a failure the
    /// charge is still the caller's.
    fn insert_pageable(self, bytes: u64) -> Result<VirtAddr, KmemError> {
        let new = New {
            anonymous: true,
            ..New::BARE
        };
        let range = self.insert(bytes, Find::Any, new, Class::System)?;
        let wire = self.0.wires_all();
        if wire && let Err(e) = self.0.wire_kernel(range) {
            // The charge goes with the range, and is the caller's to give back.
            self.vm().charge.force(M::PAGE.index(range.len()));
            self.remove(range);
            return Err(e.into());
        }
        Ok(range.start())
    }

    /// Takes `bytes` bytes of addresses with nothing behind them (K04): a fault there is a hard
    /// error, mappings are made by hand ([`KernelMap::qenter`]).
    ///
    /// Errors: [`KmemError::InvalidArgument`], [`KmemError::NoSpace`], [`KmemError::NoMemory`].
    pub fn alloc_nofault(self, bytes: u64) -> Result<VirtAddr, KmemError> {
        self.alloc_nofault_space(bytes, Find::Any)
    }

    /// As [`KernelMap::alloc_nofault`], at a place that the caller chooses the kind of (K04).
    ///
    /// Errors: those of [`KernelMap::alloc_nofault`].
    pub fn alloc_nofault_space(self, bytes: u64, find: Find) -> Result<VirtAddr, KmemError> {
        let new = New {
            flags: Flags::NO_FAULT,
            ..New::BARE
        };
        let range = self.insert(bytes, find, new, Class::System)?;
        Ok(range.start())
    }

    /// Carves `bytes` bytes out of this map and makes them a map of their own (K08). Not charged.
    ///
    /// Errors: [`KmemError::InvalidArgument`] for no bytes, or for the whole of the map;
    /// [`KmemError::NoSpace`], [`KmemError::NoMemory`].
    pub fn suballoc(
        self,
        bytes: u64,
        find: Find,
        paging: Paging,
    ) -> Result<KernelMap<'v, M>, KmemError> {
        let vm = self.vm();
        let range = self.insert(bytes, find, New::BARE, Class::System)?;
        let undo = |e: KmemError| {
            self.remove(range);
            e
        };
        let made = vm.submap_create(self.id(), range);
        let sub = vm.space(made.map_err(|e| undo(e.into()))?);
        sub.set_wire_future(paging == Paging::Wired);
        let done = self.0.submap(range, sub.id());
        // From here on the entry keeps it.
        sub.release();
        done.map_err(|e| undo(e.into()))?;
        Ok(KernelMap(sub))
    }

    /// Gives `bytes` bytes at `va`, both rounded outward to pages, back with all that is behind
    /// them (K07). Waits for nobody. Part of an allocation can be given back: what the split of an
    /// entry takes comes from the kernel's reserve when there is no free frame (E03).
    ///
    /// Errors: [`KmemError::InvalidArgument`] for a range that wraps, leaves the map or has part
    /// of a submap in it; nothing is given back then. [`KmemError::NoMemory`] when the reserve is
    /// used up, after 30 such splits in a row that left no free frame behind.
    pub fn free(self, va: VirtAddr, bytes: u64) -> Result<(), KmemError> {
        let range = self.outward(va, bytes)?;
        self.0.remove(range)?;
        self.kmem().restock();
        if let Some(name) = self.name() {
            self.kmem().state().names.full[name as usize].store(false, Ordering::Release);
        }
        Ok(())
    }

    /// The pages that `bytes` bytes at `va` are in, if the map has them.
    fn outward(self, va: VirtAddr, bytes: u64) -> Result<VirtRange, KmemError> {
        VirtRange::from_len(va, bytes)
            .and_then(|range| M::PAGE.outward(range))
            .filter(|&range| self.0.range().contains_range(range))
            .ok_or(KmemError::InvalidArgument)
    }

    /// As [`KernelMap::alloc_pageable`], and sleeps until there is room (K13). Somebody has to
    /// give room back by [`KernelMap::free_wakeup`].
    ///
    /// Errors: [`KmemError::NoSpace`] at once when the map is smaller than that;
    /// [`KmemError::ChargeLimit`], [`KmemError::InvalidArgument`], [`KmemError::NoMemory`].
    pub fn alloc_wait(self, bytes: u64) -> Result<VirtAddr, KmemError> {
        let (vm, charge) = (self.vm(), M::PAGE.count(bytes));
        vm.charge.take(charge)?;
        loop {
            // Taken before the map is looked at: room that is given back from now on ends the
            // sleep.
            let ticket = vm.machine().ticket(self.room_channel());
            match self.insert_pageable(bytes) {
                Ok(at) => return Ok(at),
                Err(KmemError::NoSpace) if self.0.range().len() >= bytes => {
                    M::assert_none_held();
                    vm.machine().sleep(self.room_channel(), ticket, None);
                }
                Err(e) => {
                    vm.charge.refund(charge);
                    return Err(e);
                }
            }
        }
    }

    /// As [`KernelMap::free`], and wakes who waits for room (K13).
    ///
    /// Errors: those of [`KernelMap::free`].
    pub fn free_wakeup(self, va: VirtAddr, bytes: u64) -> Result<(), KmemError> {
        self.free(va, bytes)?;
        self.vm().machine().wake(self.room_channel());
        Ok(())
    }

    /// The channel of those who wait for room in this map.
    pub(super) fn room_channel(self) -> Channel {
        Channel(0x4b00_0000_0000_0000 | u64::from(self.0.handle.raw()))
    }

    /// Reports that the map has no room, if it is one that only fills; the error for that.
    pub(super) fn report_full(self) -> Option<KmemError> {
        let name = self.name().filter(|name| name.only_fills())?;
        let names = &self.kmem().state().names;
        names.full[name as usize].store(true, Ordering::Release);
        self.kmem().announce_full(name);
        Some(KmemError::MapFull)
    }

    /// Finds room for `bytes` bytes and inserts `new` there; grows the tables up to it.
    pub(super) fn insert(
        self,
        bytes: u64,
        find: Find,
        new: New,
        class: Class,
    ) -> Result<VirtRange, KmemError> {
        let align = match find {
            Find::Any => M::PAGE.bytes(),
            Find::Superpage => self.kmem().state().superpage.load(Ordering::Acquire),
        };
        let from = self.0.range().start();
        self.insert_at(bytes, Placement::FirstFit { from, align }, new, class)
    }

    /// Inserts addresses alone at `range`.
    pub(super) fn take(self, range: VirtRange, flags: Flags) -> Result<VirtRange, KmemError> {
        let new = New { flags, ..New::BARE };
        let place = Placement::At(range.start());
        self.insert_at(range.len(), place, new, Class::System)
    }

    pub(super) fn insert_at(
        self,
        bytes: u64,
        place: Placement,
        new: New,
        class: Class,
    ) -> Result<VirtRange, KmemError> {
        let len = M::PAGE.round_up(bytes).filter(|&n| n > 0);
        let len = len.ok_or(KmemError::InvalidArgument)?;
        let objects = u32::from(new.anonymous);
        let mut edit = self
            .0
            .edit(VirtRange::default(), Need::default().and(1, objects))?;
        let range = edit.place(len, place)?;
        if let Some(object) = new.object
            && !self.vm().reference(object)
        {
            return Err(KmemError::NoMemory);
        }
        let entry = self.entry(range, new);
        let handle = edit.insert(entry);
        if new.anonymous {
            // In a map of the kernel nobody else makes one.
            edit.make_object(handle);
        }
        drop(edit);
        let grown = self.kmem().grow(range.end(), class);
        if let Err(e) = grown {
            // The caller's charge stays the caller's.
            let charge = if new.anonymous { M::PAGE.index(len) } else { 0 };
            self.vm().charge.force(charge);
            self.end_transition(range);
            self.remove(range);
            return Err(e);
        }
        Ok(range)
    }

    fn entry(self, range: VirtRange, new: New) -> Entry {
        let pages = M::PAGE.index(range.len());
        Entry {
            start: range.start(),
            end: range.end(),
            object: new.object,
            offset: new
                .object
                .map_or(0, |_| self.kmem().index_of(range.start())),
            charge: if new.anonymous { pages } else { 0 },
            flags: new.flags,
            wired: new.wired,
            prot: Prot::ALL,
            max_prot: Prot::ALL,
            inherit: Inherit::None,
            ..Entry::VACANT
        }
    }

    /// Removes a range that the caller has just inserted, and wakes who found no room beside it.
    pub(super) fn remove(self, range: VirtRange) {
        let gone = self.0.remove(range);
        debug_assert!(gone.is_ok(), "entries that begin and end with the range");
        self.kmem().restock();
        self.vm().machine().wake(self.room_channel());
    }

    /// Whether all of `range` is addresses with nothing behind them.
    pub(super) fn is_nofault(self, range: VirtRange) -> bool {
        self.0
            .all_entries(range, |entry| entry.has(Flags::NO_FAULT))
    }
}
