//! Pages under a range of the kernel's addresses: allocated, wired, entered.
//!
//! ```text
//!  insert the range, wired and in transition          under the map's lock
//!  for each page: a frame, zeroed if asked, into      nothing locked but the object for a moment;
//!    the object                                       sleeps, reclaims, or fails, as it may
//!  enter the translations by hand                     under the pmap's lock
//!  end the transition, merge with the neighbours      under the map's lock
//! ```
//!
//! A failure on the way frees the pages first and then the range; whoever waits for the range is
//! woken either way. Every `alloc` and `malloc` of wired memory is this, with other words on where
//! the frames come from and what happens when there is none.

use super::map::{Find, New};
use super::{KernelMap, Kmem, KmemError, SubmapName};
use crate::map::{Flags, MapError, Need, Placement, map_channel};
use crate::object::ObjectHandle;
use crate::object::limbo::Limbo;
use crate::page::{Class, Within};
use bsdvm_machine::{Frame, FrameRun, Machine, MemoryAttr, Prot, VirtAddr, VirtRange};

/// Whether an allocation may sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// It may not (`M_NOWAIT`): it takes the last frame if it has to, and fails when there is
    /// none.
    No,
    /// It may (`M_WAITOK`).
    Ok,
}

/// What is in memory that was allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// Zeroes.
    Zeroed,
    /// Whatever was in its frames.
    AsIs,
}

/// How memory is asked for (K09).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malloc {
    /// Whether the caller can sleep.
    pub wait: Wait,
    /// What it finds.
    pub fill: Fill,
}

/// Which frames memory for a device is made of (K05, K06).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Physical {
    /// Where they lie; alignment and boundary are looked at by [`KernelMap::alloc_contig`].
    pub within: Within,
    /// How they are cached.
    pub attr: MemoryAttr,
}

/// How long an allocation sleeps after the first round without room; the `n`th time `n` times as
/// long (K10).
const ROUND_NANOS: u64 = 250_000_000;

/// Where the frames come from.
#[derive(Clone, Copy)]
enum Source {
    /// Anywhere; who may wait waits.
    Any,
    /// Each within limits, with so many tries after the first.
    Within(Within),
    /// All adjacent, within limits.
    Contig(Within),
}

/// One range that is being filled.
struct Backing<'v, M: Machine> {
    map: KernelMap<'v, M>,
    range: VirtRange,
    object: ObjectHandle,
    how: Malloc,
    source: Source,
    attr: MemoryAttr,
}

impl<'v, M: Machine> KernelMap<'v, M> {
    /// Wired, zero-filled memory (K03). The range is inserted and then wired, page by page; waits
    /// for free pages.
    ///
    /// Errors: [`KmemError::InvalidArgument`], [`KmemError::NoSpace`]; [`KmemError::NoMemory`] for
    /// the records of the range.
    pub fn alloc(self, bytes: u64) -> Result<VirtAddr, KmemError> {
        let new = New {
            object: self.kmem().kernel_object(),
            flags: Flags::SHARED,
            ..New::BARE
        };
        let range = self.insert_for(bytes, new, Wait::Ok)?;
        loop {
            match self.space().wire_kernel(range) {
                Ok(()) => return Ok(range.start()),
                Err(MapError::NoMemory) => self.kmem().wait_for_pages(),
                Err(e) => {
                    self.remove(range);
                    return Err(e.into());
                }
            }
        }
    }

    /// As [`KernelMap::alloc`], with all pages put there before anything can fault on the range,
    /// as the document of 1996 has it (K03).
    ///
    /// Errors: those of [`KernelMap::alloc`].
    pub fn alloc_eager(self, bytes: u64) -> Result<VirtAddr, KmemError> {
        let how = Malloc {
            wait: Wait::Ok,
            fill: Fill::Zeroed,
        };
        self.alloc_from(bytes, how, Source::Any, MemoryAttr::WriteBack)
    }

    /// Wired memory of frames that each lie within `pages.within`, cached as `pages.attr` says
    /// (K05). When a frame is not to be had, memory within the limits is reclaimed once
    /// ([`Wait::No`]) or three times, harder each time.
    ///
    /// Errors: [`KmemError::InvalidArgument`], [`KmemError::NoSpace`], [`KmemError::NoMemory`].
    pub fn alloc_attr(
        self,
        bytes: u64,
        how: Malloc,
        pages: Physical,
    ) -> Result<VirtAddr, KmemError> {
        let within = Within {
            align: 1,
            boundary: 0,
            ..pages.within
        };
        self.alloc_from(bytes, how, Source::Within(within), pages.attr)
    }

    /// Wired memory of adjacent frames within `pages.within` (K06); otherwise as
    /// [`KernelMap::alloc_attr`].
    ///
    /// Errors: those of [`KernelMap::alloc_attr`].
    pub fn alloc_contig(
        self,
        bytes: u64,
        how: Malloc,
        pages: Physical,
    ) -> Result<VirtAddr, KmemError> {
        if pages.within.align == 0 {
            return Err(KmemError::InvalidArgument);
        }
        self.alloc_from(bytes, how, Source::Contig(pages.within), pages.attr)
    }

    fn alloc_from(
        self,
        bytes: u64,
        how: Malloc,
        source: Source,
        attr: MemoryAttr,
    ) -> Result<VirtAddr, KmemError> {
        let object = self.kmem().kernel_object().ok_or(KmemError::NoResources)?;
        let range = self.insert_for(bytes, New::backed(object), how.wait)?;
        let backing = Backing {
            map: self,
            range,
            object,
            how,
            source,
            attr,
        };
        backing.run()?;
        Ok(range.start())
    }

    /// Wired memory for the kernel's own allocator, from a map that is meant for it: the one named
    /// [`SubmapName::Kmem`], [`SubmapName::Mbuf`] or [`SubmapName::MbufCluster`] (K09). With
    /// [`Wait::No`] nothing sleeps. With [`Wait::Ok`] it waits for pages; when the map has no
    /// room, it announces low memory, looks again and sleeps a little longer each time, for as
    /// many rounds as [`super::KernelConfig::room_rounds`] says (K10). Neighbours become one entry
    /// (K12).
    ///
    /// Errors: [`KmemError::WrongMap`]; [`KmemError::MapFull`] at once for an mbuf map without
    /// room; [`KmemError::NoSpace`] without room; [`KmemError::NoMemory`] without pages;
    /// [`KmemError::InvalidArgument`].
    pub fn malloc(self, bytes: u64, how: Malloc) -> Result<VirtAddr, KmemError> {
        let (object, new) = self.malloc_object()?;
        let range = match self.insert_for(bytes, new, how.wait) {
            Err(KmemError::NoSpace) => self.wait_for_room(bytes, how.wait, new)?,
            done => done?,
        };
        self.fill(range, object, how)?;
        Ok(range.start())
    }

    /// Puts wired pages under `range`, a free range of whole pages of a map that `malloc` takes
    /// (K11). While it sleeps the range is in transition: nobody moves it, and whoever waits for
    /// it is woken at the end.
    ///
    /// Errors: [`KmemError::InvalidArgument`] for a range that is not aligned or not free;
    /// [`KmemError::NoMemory`] without pages, with all that it took freed and the range free
    /// again; [`KmemError::WrongMap`].
    pub fn back(self, range: VirtRange, how: Malloc) -> Result<(), KmemError> {
        let (object, new) = self.malloc_object()?;
        if !M::PAGE.is_aligned_range(range) {
            return Err(KmemError::InvalidArgument);
        }
        let place = Placement::At(range.start());
        self.insert_at(range.len(), place, new, how.wait.class())?;
        self.fill(range, object, how)
    }

    /// Inserts a range; who may wait waits for the memory that its records and tables need.
    fn insert_for(self, bytes: u64, new: New, wait: Wait) -> Result<VirtRange, KmemError> {
        loop {
            match self.insert(bytes, Find::Any, new, wait.class()) {
                Err(KmemError::NoMemory) if wait == Wait::Ok => self.kmem().wait_for_pages(),
                done => return done,
            }
        }
    }

    fn malloc_object(self) -> Result<(ObjectHandle, New), KmemError> {
        use SubmapName::{Kmem, Mbuf, MbufCluster};
        if !matches!(self.name(), Some(Kmem | Mbuf | MbufCluster)) {
            return Err(KmemError::WrongMap);
        }
        let object = self.kmem().kmem_object().ok_or(KmemError::NoResources)?;
        Ok((object, New::backed(object)))
    }

    fn fill(self, range: VirtRange, object: ObjectHandle, how: Malloc) -> Result<(), KmemError> {
        let backing = Backing {
            map: self,
            range,
            object,
            how,
            source: Source::Any,
            attr: MemoryAttr::WriteBack,
        };
        backing.run()
    }

    /// The map has no room: who may wait gets some rounds of asking others to give some back.
    fn wait_for_room(self, bytes: u64, wait: Wait, new: New) -> Result<VirtRange, KmemError> {
        if let Some(full) = self.report_full() {
            return Err(full);
        }
        let kmem = self.kmem();
        let machine = self.vm().machine();
        let rounds = match wait {
            Wait::No => 0,
            Wait::Ok => kmem.room_rounds(),
        };
        for round in 0..rounds {
            let ticket = machine.ticket(self.room_channel());
            kmem.announce_low_memory(round);
            kmem.reclaim();
            match self.insert_for(bytes, new, wait) {
                Err(KmemError::NoSpace) => {}
                done => return done,
            }
            let pause = ROUND_NANOS * u64::from(round + 1);
            let until = machine.now().saturating_add(pause);
            M::assert_none_held();
            machine.sleep(self.room_channel(), ticket, Some(until));
        }
        Err(KmemError::NoSpace)
    }

    /// Ends the transition of `range` and wakes who waits for it.
    pub(super) fn end_transition(self, range: VirtRange) {
        let space = self.space();
        let mut wake = false;
        // Nothing is reserved, so nothing can fail.
        if let Ok(mut edit) = space.edit(VirtRange::default(), Need::default()) {
            edit.each(range, |edit, handle| {
                let entry = edit.get_mut(handle);
                wake |= entry.has(Flags::NEEDS_WAKEUP);
                entry.flags -= Flags::IN_TRANSITION | Flags::NEEDS_WAKEUP;
            });
            edit.simplify(range);
        }
        if wake {
            self.vm().machine().wake(map_channel(space.handle));
        }
    }
}

impl New {
    /// A range that is going to be filled from `object`.
    fn backed(object: ObjectHandle) -> New {
        New {
            object: Some(object),
            flags: Flags::SHARED.union(Flags::IN_TRANSITION),
            wired: 1,
            anonymous: false,
        }
    }
}

impl Wait {
    /// How deep an allocation may reach.
    fn class(self) -> Class {
        match self {
            Wait::No => Class::Interrupt,
            Wait::Ok => Class::System,
        }
    }

    /// How often memory within limits is reclaimed for one frame or run.
    fn retries(self) -> u32 {
        match self {
            Wait::No => 1,
            Wait::Ok => 3,
        }
    }
}

impl<M: Machine> Backing<'_, M> {
    fn run(self) -> Result<(), KmemError> {
        let done = match self.source {
            Source::Contig(within) => self.put_run(within),
            _ => self.put_each(),
        };
        if done.is_err() {
            // The pages go before the range, which is still in transition.
            self.free_pages();
        }
        self.map.end_transition(self.range);
        if done.is_err() {
            self.map.remove(self.range);
        }
        done
    }

    /// A frame for each page, in turn.
    fn put_each(&self) -> Result<(), KmemError> {
        for va in M::PAGE.pages(self.range) {
            let frame = self.frame()?;
            self.put(va, frame)?;
            self.enter(va, FrameRun::one(frame))?;
        }
        Ok(())
    }

    /// One run for all pages.
    fn put_run(&self, within: Within) -> Result<(), KmemError> {
        let count = M::PAGE.index(self.range.len());
        let count = u32::try_from(count).map_err(|_| KmemError::NoMemory)?;
        let frames = &self.map.vm().frames;
        let run = self.retry(within, |class| frames.alloc_contig(class, count, within))?;
        for (i, va) in (0..count).zip(M::PAGE.pages(self.range)) {
            let frame = Frame(run.first.0 + i);
            if let Err(e) = self.put(va, frame) {
                // The frame that failed is free again; those after it were never put.
                frames.free_run(FrameRun {
                    first: Frame(frame.0 + 1),
                    count: count - i - 1,
                });
                return Err(e);
            }
        }
        self.enter(self.range.start(), run)
    }

    fn frame(&self) -> Result<Frame, KmemError> {
        let (vm, class) = (self.map.vm(), self.how.wait.class());
        match (self.source, self.how.wait) {
            (Source::Within(within) | Source::Contig(within), _) => {
                self.retry(within, |class| vm.frames.alloc_within(class, within))
            }
            (Source::Any, Wait::No) => vm.frames.alloc(class).ok_or(KmemError::NoMemory),
            (Source::Any, Wait::Ok) => Ok(self.map.kmem().wait_for_frame()),
        }
    }

    /// Asks for frames within limits, and again after each reclaim.
    fn retry<T>(&self, within: Within, take: impl Fn(Class) -> Option<T>) -> Result<T, KmemError> {
        let class = self.how.wait.class();
        for tries in 0..self.how.wait.retries() {
            if let Some(taken) = take(class) {
                return Ok(taken);
            }
            self.map.vm().reclaim_within(within, tries);
        }
        take(class).ok_or(KmemError::NoMemory)
    }

    /// Makes `frame` the page at `va`; frees it when that fails.
    fn put(&self, va: VirtAddr, frame: Frame) -> Result<(), KmemError> {
        let vm = self.map.vm();
        if self.how.fill == Fill::Zeroed {
            vm.machine().zero(frame);
        }
        let mut nodes = loop {
            match vm.reserve_page_nodes_as(self.how.wait.class(), 1) {
                Ok(nodes) => break nodes,
                Err(_) if self.how.wait == Wait::Ok => self.map.kmem().wait_for_pages(),
                Err(e) => {
                    vm.frames.free(frame);
                    return Err(e.into());
                }
            }
        };
        let index = self.map.kmem().index_of(va);
        let mut state = vm.lock_object(self.object);
        vm.insert_page(self.object, &mut state, &mut nodes, index, frame);
        Ok(())
    }

    fn enter(&self, va: VirtAddr, run: FrameRun) -> Result<(), KmemError> {
        let class = self.how.wait.class();
        loop {
            match self.map.enter(va, run, Prot::ALL, self.attr, class) {
                Err(KmemError::NoMemory) if self.how.wait == Wait::Ok => {
                    self.map.kmem().wait_for_pages();
                }
                done => return done,
            }
        }
    }

    /// Unmaps and frees what was put so far.
    fn free_pages(&self) {
        let vm = self.map.vm();
        let mut limbo = Limbo::new(vm);
        if let Ok(mut edit) = self.map.space().edit(VirtRange::default(), Need::default()) {
            edit.unmap(self.range);
        }
        let first = self.map.kmem().index_of(self.range.start());
        let end = first + M::PAGE.index(self.range.len());
        let mut state = vm.lock_object(self.object);
        vm.remove_pages(&mut state, first, end, &mut limbo);
    }
}

impl<M: Machine> Kmem<'_, M> {
    /// Sleeps until a page is free, and reclaims what can be: caches, zones, pages of programs.
    pub(super) fn wait_for_frame(self) -> Frame {
        loop {
            let reclaim = || {
                if self.vm.pageout_step(16) == 0 {
                    self.announce_low_memory(0);
                    self.reclaim();
                }
                false
            };
            if let Some(frame) = self.vm.frames.wait(Class::System, reclaim) {
                return frame;
            }
        }
    }

    pub(super) fn wait_for_pages(self) {
        let frame = self.wait_for_frame();
        self.vm.frames.free(frame);
    }
}
