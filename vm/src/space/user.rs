//! Reading and writing the memory of a program, page by page, as its own accesses would be: through
//! the translation where the pmap has one that allows it, by a fault where not.

use super::Space;
use crate::fault::{FaultError, Purpose};
use crate::map::Sharing;
use crate::page::Bits;
use bsdvm_machine::{Access, Frame, Kind, Machine, Pmap, VirtAddr};

/// A transfer that ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserError {
    /// Bytes transferred before.
    pub done: usize,
    /// Why the next page could not be had.
    pub why: FaultError,
}

impl<M: Machine> Space<'_, M> {
    /// Reads `buf.len()` bytes at `va`, as the program could.
    ///
    /// Errors: [`UserError`]; the bytes before the page that failed are in `buf`.
    pub fn read(self, va: VirtAddr, buf: &mut [u8]) -> Result<(), UserError> {
        let machine = self.vm.machine();
        self.each_page(
            va,
            buf.len(),
            Access::Read,
            false,
            &mut |frame, at, done, n| {
                machine.read(frame, at, &mut buf[done..done + n]);
            },
        )
    }

    /// Writes `buf` at `va`, as the program could.
    ///
    /// Errors: [`UserError`]; the bytes before the page that failed are written.
    pub fn write(self, va: VirtAddr, buf: &[u8]) -> Result<(), UserError> {
        let machine = self.vm.machine();
        self.each_page(
            va,
            buf.len(),
            Access::Write,
            false,
            &mut |frame, at, done, n| {
                machine.write(frame, at, &buf[done..done + n]);
            },
        )
    }

    /// Writes `buf` at `va` where the maximum protection allows it, whatever is allowed now: for
    /// debuggers and program loaders. Private memory is copied first, as for a write (M16).
    ///
    /// Errors: as for [`Space::write`].
    pub fn write_forced(self, va: VirtAddr, buf: &[u8]) -> Result<(), UserError> {
        let machine = self.vm.machine();
        self.each_page(
            va,
            buf.len(),
            Access::Write,
            true,
            &mut |frame, at, done, n| {
                machine.write(frame, at, &buf[done..done + n]);
            },
        )
    }

    /// Reads the aligned 32-bit word at `va` in one piece.
    ///
    /// Errors: [`UserError`]; [`FaultError::InvalidAddress`] for a word that is not aligned.
    pub fn load_u32(self, va: VirtAddr) -> Result<u32, UserError> {
        let machine = self.vm.machine();
        let mut value = 0;
        self.word(va, Access::Read, &mut |frame, at| {
            value = machine.load_u32(frame, at);
        })?;
        Ok(value)
    }

    /// Replaces the aligned 32-bit word at `va` by `new` if it is `old`, in one piece: `Ok(old)`
    /// if it was, `Err` with what it is.
    ///
    /// Errors: as for [`Space::load_u32`].
    pub fn compare_exchange_u32(
        self,
        va: VirtAddr,
        old: u32,
        new: u32,
    ) -> Result<Result<u32, u32>, UserError> {
        let machine = self.vm.machine();
        let mut value = Err(0);
        self.word(va, Access::Write, &mut |frame, at| {
            value = machine.compare_exchange_u32(frame, at, old, new);
        })?;
        Ok(value)
    }

    fn word(
        self,
        va: VirtAddr,
        access: Access,
        with: &mut dyn FnMut(Frame, usize),
    ) -> Result<(), UserError> {
        if !va.0.is_multiple_of(4) {
            return Err(UserError {
                done: 0,
                why: FaultError::InvalidAddress,
            });
        }
        self.each_page(va, 4, access, false, &mut |frame, at, _, _| with(frame, at))
    }

    /// Calls `with` (frame, place in it, bytes done, bytes now) for each page that `len` bytes at
    /// `va` touch.
    fn each_page(
        self,
        va: VirtAddr,
        len: usize,
        access: Access,
        force: bool,
        with: &mut dyn FnMut(Frame, usize, usize, usize),
    ) -> Result<(), UserError> {
        let mut done = 0;
        while done < len {
            let fail = |why| UserError { done, why };
            let at = va
                .checked_add(done as u64)
                .ok_or(fail(FaultError::InvalidAddress))?;
            let within = M::PAGE.within(at.0);
            let now = (M::PAGE.len() - within).min(len - done);
            let visit = &mut |frame| with(frame, within, done, now);
            if force || !self.translated(at, access, visit) {
                let purpose = Purpose::Visit { with: visit, force };
                self.fault_for(at, access, purpose).map_err(fail)?;
            }
            done += now;
        }
        Ok(())
    }

    /// Calls `visit` with the frame of the page at `va`, if the pmap has a translation that allows
    /// the access: then nothing is left to decide. The pmap stays locked meanwhile, so that the
    /// frame stays what it is. Whether it did.
    fn translated(self, va: VirtAddr, access: Access, visit: &mut dyn FnMut(Frame)) -> bool {
        let used = match access {
            Access::Write => Bits::REFERENCED | Bits::DIRTY,
            _ => Bits::REFERENCED,
        };
        let done = self.with_pmap(|pmap| {
            let here = pmap.extract(M::PAGE.floor(va));
            let here = here.filter(|t| t.kind == Kind::Managed && t.prot.allows(access));
            here.inspect(|t| {
                self.vm.frames.page(t.frame).set(used);
                visit(t.frame);
            })
        });
        done.flatten().is_some()
    }

    /// What identifies the word at `va` among all that may wait for it (O11): the space and
    /// address for private use, the object and byte offset for use across spaces.
    ///
    /// Errors: [`FaultError::InvalidAddress`] when nothing is mapped there.
    pub fn futex_key(self, va: VirtAddr, sharing: Sharing) -> Result<(u64, u64), FaultError> {
        let private = (u64::from(self.handle.raw()), va.0);
        if sharing == Sharing::Private {
            return Ok(private);
        }
        let map = self.rec().map.read();
        let handle = map.find(self.vm, va).ok_or(FaultError::InvalidAddress)?;
        let entry = map.get(self.vm, handle);
        match entry.object {
            Some(object) if !entry.is_private() && !entry.is_page_table() => {
                let index = entry.index_of::<M>(va);
                let offset = M::PAGE.offset(index).unwrap_or(u64::MAX);
                let within = M::PAGE.within(va.0) as u64;
                Ok((1 << 32 | u64::from(object.raw()), offset + within))
            }
            _ => Ok(private),
        }
    }
}
