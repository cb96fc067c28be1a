//! Mappings made by hand (O09, K04), and the tables that every space shares (K18).

use super::{Fill, KernelMap, Kmem, KmemError};
use crate::object::limbo::Limbo;
use crate::page::Class;
use bsdvm_machine::sync::atomic::Ordering;
use bsdvm_machine::{
    EnterError, Frame, FrameRun, Kind, Machine, MemoryAttr, Pmap, Prot, VirtAddr, VirtRange,
};

impl<M: Machine> KernelMap<'_, M> {
    /// Maps `frames` at `va` and the pages after it, by hand (`pmap_qenter`): the mappings stay
    /// until [`KernelMap::qremove`] or the end of the range. What was mapped there is replaced.
    /// The range is one of [`KernelMap::alloc_nofault`]; the frames stay the caller's.
    ///
    /// Errors: [`KmemError::InvalidArgument`] for an address that is not aligned or not such a
    /// range's; [`KmemError::NoMemory`] when the tables need frames that cannot be had. Nothing is
    /// mapped then that was not before.
    pub fn qenter(
        self,
        va: VirtAddr,
        frames: &[Frame],
        prot: Prot,
        attr: MemoryAttr,
    ) -> Result<(), KmemError> {
        let bytes = M::PAGE.offset(frames.len() as u64);
        let range = bytes.and_then(|n| VirtRange::from_len(va, n));
        let range = range.ok_or(KmemError::InvalidArgument)?;
        self.check_manual(range)?;
        for (i, &frame) in frames.iter().enumerate() {
            let va = VirtAddr(va.0 + i as u64 * M::PAGE.bytes());
            let entered = self.enter(va, FrameRun::one(frame), prot, attr, Class::System);
            if let Err(e) = entered {
                self.unmap(VirtRange::new(range.start(), va).unwrap_or_default());
                return Err(e);
            }
        }
        Ok(())
    }

    /// Takes the mappings of `range`, a range of whole pages, away (`pmap_qremove`), and waits
    /// until no processor has one. Pages that are not mapped are passed over.
    ///
    /// Errors: [`KmemError::InvalidArgument`], as for [`KernelMap::qenter`].
    pub fn qremove(self, range: VirtRange) -> Result<(), KmemError> {
        self.check_manual(range)?;
        self.unmap(range);
        Ok(())
    }

    /// That all of `range` may be mapped by hand.
    fn check_manual(self, range: VirtRange) -> Result<(), KmemError> {
        let aligned = M::PAGE.is_aligned_range(range);
        match aligned && self.is_nofault(range) {
            true => Ok(()),
            false => Err(KmemError::InvalidArgument),
        }
    }

    fn unmap(self, range: VirtRange) {
        let vm = self.vm();
        let mut limbo = Limbo::new(vm);
        let pmap = self.space().home_rec().pmap.lock();
        if let Some(pmap) = pmap.as_ref() {
            limbo.begin();
            let flush = pmap.remove(range, &mut |gone| {
                debug_assert_eq!(gone.kind, Kind::Manual, "mapped by hand");
            });
            limbo.add_flush(flush);
        }
    }

    /// Enters a translation by hand, and gives the pmap what frames it needs of `class`. No lock
    /// is held.
    pub(super) fn enter(
        self,
        va: VirtAddr,
        run: FrameRun,
        prot: Prot,
        attr: MemoryAttr,
        class: Class,
    ) -> Result<(), KmemError> {
        let vm = self.vm();
        loop {
            let mut limbo = Limbo::new(vm);
            let pmap = self.space().home_rec().pmap.lock();
            let Some(pmap) = pmap.as_ref() else {
                return Err(KmemError::NoResources);
            };
            limbo.begin();
            match pmap.enter(va, run, prot, attr, Kind::Manual, &mut |_| ()) {
                Ok(flush) => {
                    limbo.add_flush(flush);
                    return Ok(());
                }
                Err(EnterError::NeedFrames(count)) => {
                    for _ in 0..count {
                        let frame = vm.frames.alloc(class).ok_or(KmemError::NoMemory)?;
                        pmap.donate(frame);
                    }
                }
                Err(EnterError::NoResources) => return Err(KmemError::NoResources),
                Err(EnterError::BadAddress) => return Err(KmemError::InvalidArgument),
            }
        }
    }
}

impl<M: Machine> Kmem<'_, M> {
    /// Makes the tables that every space shares for the kernel's addresses below `end` (K18).
    pub(super) fn grow(self, end: VirtAddr, class: Class) -> Result<(), KmemError> {
        let (vm, grown) = (self.vm, &self.state().grown);
        while grown.load(Ordering::Acquire) < end.0 {
            let pmap = self.map().space().home_rec().pmap.lock();
            let Some(pmap) = pmap.as_ref() else {
                return Err(KmemError::NoResources);
            };
            match pmap.grow(end) {
                Ok(()) => {
                    grown.fetch_max(end.0, Ordering::AcqRel);
                }
                Err(EnterError::NeedFrames(count)) => {
                    for _ in 0..count {
                        let frame = vm.frames.alloc(class).ok_or(KmemError::NoMemory)?;
                        pmap.donate(frame);
                    }
                }
                Err(_) => return Err(KmemError::NoResources),
            }
        }
        Ok(())
    }

    /// A frame of no object, for mappings by hand: the caller's until [`Kmem::frame_free`].
    ///
    /// Errors: [`KmemError::NoMemory`].
    pub fn frame_alloc(self, fill: Fill) -> Result<Frame, KmemError> {
        let frame = self.vm.frames.alloc(Class::System);
        let frame = frame.ok_or(KmemError::NoMemory)?;
        if fill == Fill::Zeroed {
            self.vm.machine().zero(frame);
        }
        Ok(frame)
    }

    /// Gives back a frame of [`Kmem::frame_alloc`], which nothing maps any more.
    pub fn frame_free(self, frame: Frame) {
        self.vm.frames.free(frame);
    }

    /// The address up to which the tables that every space shares exist.
    pub fn grown(self) -> VirtAddr {
        VirtAddr(self.state().grown.load(Ordering::Acquire))
    }
}
