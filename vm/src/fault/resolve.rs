//! Zero-fill, copy, reuse; enter. All under the locks of the map and of the chain.

use super::chain::{Chain, Found};
use super::{Fault, FaultError, Faulted, Next, Purpose};
use crate::map::{Entry, Flags};
use crate::page::rmap::Mapping;
use crate::page::{Bits, Class};
use bsdvm_machine::{
    Access, EnterError, Frame, FrameRun, Kind, Machine, MemoryAttr, Pmap, VirtAddr, VirtRange,
};

impl<'v, M: Machine> Fault<'v, '_, M> {
    /// Finds or makes the page and does with it what the fault is for.
    pub(super) fn resolve(
        &mut self,
        entry: &Entry,
        chain: &mut Chain<'v, M>,
    ) -> Result<Next, FaultError> {
        let vm = self.space.vm;
        let write = self.access == Access::Write;
        let found = chain.walk();
        let mut count = 1;
        let (frame, how) = match found {
            Found::Page(frame) if vm.frames.page(frame).is_busy() => {
                return Ok(Next::WaitBusy(vm.busy_wait(frame)));
            }
            Found::Page(frame) if write && chain.is_behind() => {
                match self.copy_or_reuse(entry, chain, frame) {
                    Some(done) => done,
                    None => return Ok(Next::NoFrame),
                }
            }
            Found::Page(frame) => (frame, Faulted::Resident),
            Found::Nothing => match self.zero_fill(entry, chain) {
                Some(run) => {
                    count = run.count;
                    (run.first, Faulted::ZeroFill)
                }
                None => return Ok(Next::NoFrame),
            },
            Found::Swapped(_) if !self.made_room && vm.is_tight() => return Ok(Next::MakeRoom),
            Found::Swapped(_) | Found::Pager(_) => {
                let job = vm.begin_page_in(chain.last(), found, &mut self.nodes, entry.behavior);
                return Ok(job.map_or(Next::NoFrame, Next::PageIn));
            }
            Found::Unfilled => {
                self.did = Some(Faulted::ZeroFill);
                let Some(frame) = self.take_frame() else {
                    return Ok(Next::NoFrame);
                };
                vm.fill_physical(chain.last(), &mut self.nodes, frame);
                return Ok(Next::Again);
            }
            Found::Device(question) => return self.device(entry, question),
            Found::BeyondEnd => return Err(FaultError::BeyondEnd),
            Found::TooLong => {
                debug_assert!(false, "a chain is too long");
                return Err(FaultError::NoMemory);
            }
        };
        if how != Faulted::Resident {
            self.did = Some(how);
        }
        let page = vm.frames.page(frame);
        page.set(Bits::REFERENCED);
        if write {
            if !entry.has(Flags::NO_SYNC) {
                page.clear(Bits::NO_SYNC);
            } else if !page.has(Bits::DIRTY) {
                page.set(Bits::NO_SYNC);
            }
            page.set(Bits::DIRTY);
            if let Some(slot) = vm.take_slot(page) {
                self.limbo.add_slot(slot);
            }
        }
        let behind = chain.is_behind() && !write;
        let run = FrameRun {
            first: frame,
            count,
        };
        self.finish(entry, chain, run, behind)
    }

    /// Wires, enters or visits the page, the first of `run`; those that were made with it are
    /// entered with it.
    fn finish(
        &mut self,
        entry: &Entry,
        chain: &mut Chain<'v, M>,
        run: FrameRun,
        behind: bool,
    ) -> Result<Next, FaultError> {
        let vm = self.space.vm;
        let frame = run.first;
        let page = vm.frames.page(frame);
        self.object = page.identity().map(|(object, _)| object);
        let settled = entry.wired > 0 && !entry.has(Flags::WIRING);
        let kernel = chain.front().state.is_kernel();
        let wire = match self.purpose {
            _ if kernel => false,
            Purpose::Wire => true,
            // A page that came after its range was wired.
            _ => settled && page.wired() == 0,
        };
        if let Purpose::Visit { with, .. } = &mut self.purpose {
            with(frame);
        } else if !entry.prot.is_empty() {
            // A clean page of a file is entered without write, so that the first write is seen.
            // So is one that a periodic sync does not see: it is to see what is written here. And
            // one that is on swap as well: it can leave unwritten for as long as nobody writes.
            let clean = !page.has(Bits::DIRTY);
            let hidden = page.has(Bits::NO_SYNC) && !entry.has(Flags::NO_SYNC);
            let seen = ((hidden || clean) && chain.front().state.is_paged())
                || (clean && page.swap_slot().is_some());
            let may_write = !behind && !entry.has(Flags::NEEDS_COPY) && !seen;
            let prot = Self::translation_prot(entry.prot, may_write);
            let kind = if kernel { Kind::Manual } else { Kind::Managed };
            let attr = MemoryAttr::WriteBack;
            if let Some(next) = self.enter(self.va, run, prot, attr, kind)? {
                return Ok(next);
            }
            let alone = entry.is_page_table() || matches!(self.purpose, Purpose::Wire);
            if self.access != Access::Write && !alone {
                self.enter_around(entry, chain);
            }
        }
        if wire {
            if !vm.frames.wire(frame) {
                return Err(FaultError::NoMemory);
            }
            vm.queues.take(&vm.frames, frame);
        }
        Ok(Next::Done(self.count()))
    }

    /// Counts what the fault did, and says it.
    fn count(&self) -> Faulted {
        let counters = &self.space.vm.counters;
        let how = self.did.unwrap_or(Faulted::Resident);
        match how {
            Faulted::ZeroFill => counters.zero_fill.bump(),
            Faulted::Copied => counters.cow_copied.bump(),
            Faulted::Reused => counters.cow_reused.bump(),
            Faulted::Resident => counters.resident_faults.bump(),
            // The pages were counted when they came.
            Faulted::PagedIn => {}
        }
        how
    }

    /// How deep the fault may reach: the kernel's own memory is the core's.
    pub(super) fn class(&self) -> Class {
        match self.space.is_system() {
            true => Class::System,
            false => Class::Normal,
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let spare = self.spare.take();
        spare.or_else(|| self.space.vm.frames.alloc(self.class()))
    }

    /// A fresh page, and those that come with it: in the front; one that is only read is the
    /// file's, where that is memory, so that what is written to the file later is seen.
    fn zero_fill(&mut self, entry: &Entry, chain: &mut Chain<'v, M>) -> Option<FrameRun> {
        let vm = self.space.vm;
        let run = match self.zero_run(entry, chain) {
            Some(run) => run,
            None => FrameRun::one(self.take_frame()?),
        };
        let of_file = self.access != Access::Write && chain.last().state.file;
        let link = match of_file {
            true => chain.last(),
            false => chain.front(),
        };
        for (index, frame) in (link.index..).zip(run.frames()) {
            vm.machine().zero(frame);
            vm.insert_page(link.object, &mut link.state, &mut self.nodes, index, frame);
        }
        (1..run.count).for_each(|_| vm.counters.zero_fill.bump());
        Some(run)
    }

    /// The page is behind the front and is to be written: the front gets it, or a copy.
    fn copy_or_reuse(
        &mut self,
        entry: &Entry,
        chain: &mut Chain<'v, M>,
        old: Frame,
    ) -> Option<(Frame, Faulted)> {
        let vm = self.space.vm;
        let old_page = vm.frames.page(old);
        if chain.is_ours_alone() && old_page.wired() == 0 {
            let last = chain.last();
            last.state.pages.remove(&vm.page_nodes, last.index);
            let front = chain.front();
            vm.insert_page(
                front.object,
                &mut front.state,
                &mut self.nodes,
                front.index,
                old,
            );
            old_page.set(Bits::DIRTY);
            return Some((old, Faulted::Reused));
        }
        let new = self.take_frame()?;
        vm.machine().copy(old, new);
        let front = chain.front();
        vm.insert_page(
            front.object,
            &mut front.state,
            &mut self.nodes,
            front.index,
            new,
        );
        let (front, index) = (front.object, front.index);
        if vm.references(front) > 1 {
            // Others look through the same front and must not see the old page any more.
            vm.unmap_page(old, &mut self.limbo);
        } else if matches!(self.purpose, Purpose::Visit { .. }) {
            // Nothing is entered in place of the old page, which must not be seen here any more.
            self.unmap_here();
        }
        if entry.wired > 0 && !entry.has(Flags::WIRING) && old_page.wired() > 0 {
            // The range is wired, so the wiring goes with the copy (`finish`).
            vm.unwire_frame(old, &chain.last().state);
        }
        if let Some((f, behind)) = chain.neighbours()
            && let Some(backing) = f.state.backing
        {
            vm.drop_unreachable(front, index, backing, &mut behind.state, &mut self.limbo);
        }
        Some((new, Faulted::Copied))
    }

    /// Takes away the translation at the fault's own address.
    fn unmap_here(&mut self) {
        let space = self.space;
        let Some(range) = VirtRange::from_len(self.va, M::PAGE.bytes()) else {
            return;
        };
        let home = space.home();
        let pmap = space.home_rec().pmap.lock();
        if let Some(pmap) = pmap.as_ref() {
            self.limbo.begin();
            let flush = pmap.remove(range, &mut |gone| {
                space.vm.translation_gone(home, gone);
            });
            self.limbo.add_flush(flush);
        }
    }

    /// Enters the translations of a run from `va` on and records them, if they are managed. `Some`
    /// when the loop has to help first.
    pub(super) fn enter(
        &mut self,
        va: VirtAddr,
        run: FrameRun,
        prot: bsdvm_machine::Prot,
        attr: MemoryAttr,
        kind: Kind,
    ) -> Result<Option<Next>, FaultError> {
        let space = self.space;
        let vm = space.vm;
        let home = space.home();
        let pmap = space.home_rec().pmap.lock();
        let Some(pmap) = pmap.as_ref() else {
            return Err(FaultError::InvalidAddress);
        };
        if pmap.extract(self.va).is_some() {
            self.limbo.begin();
        }
        let entered = pmap.enter(va, run, prot, attr, kind, &mut |gone| {
            vm.translation_gone(home, gone);
        });
        match entered {
            Ok(flush) => {
                self.limbo.add_flush(flush);
                if kind == Kind::Managed {
                    self.record(va, run);
                }
                Ok(None)
            }
            Err(EnterError::NeedFrames(count)) => Ok(Some(Next::TableFrames(count))),
            Err(EnterError::NoResources) if pmap.resident() > 0 => Ok(Some(Next::TooMany)),
            Err(EnterError::NoResources) => Err(FaultError::NoMemory),
            Err(EnterError::BadAddress) => Err(FaultError::InvalidAddress),
        }
    }

    /// Records who maps the frames of a run that was just entered.
    fn record(&mut self, va: VirtAddr, run: FrameRun) {
        let vm = self.space.vm;
        let space = self.space.home();
        let number = M::PAGE.index(va.0);
        for (number, frame) in (number..).zip(run.frames()) {
            let Some(va) = M::PAGE.offset(number).map(VirtAddr) else {
                return;
            };
            let page = vm.frames.page(frame);
            vm.rmap
                .add(frame, page, Mapping { space, va }, &mut self.chunks);
        }
    }
}
