//! Keeping memory resident: `mlock` and its relatives.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::thread::Task;
use bsdvm::{Machine, MapError, VirtAddr, VirtRange};
use linux_raw_sys::general as abi;

impl<P: Platform> Task<P> {
    pub(super) const LOCKING: Calls<P> = &[
        (abi::__NR_mlock, Self::mlock),
        (abi::__NR_mlock2, Self::mlock2),
        (abi::__NR_munlock, Self::munlock),
        (abi::__NR_mlockall, Self::mlockall),
        (abi::__NR_munlockall, Self::munlockall),
    ];

    /// The pages that hold a range; addresses need not be aligned.
    fn outward(&self, addr: u64, len: u64) -> Result<VirtRange, Errno> {
        let page = <P::Machine as Machine>::PAGE;
        let range = VirtRange::from_len(VirtAddr(addr), len).ok_or(Errno::EINVAL)?;
        page.outward(range).ok_or(Errno::EINVAL)
    }

    fn mlock(&mut self, [addr, len, ..]: Args) -> Answer {
        let range = self.outward(addr, len)?;
        self.each_piece(range, |piece, _| Ok(self.space.core().wire(piece)?))
    }

    fn mlock2(&mut self, args @ [_, _, flags, ..]: Args) -> Answer {
        if flags as u32 & !abi::MLOCK_ONFAULT != 0 {
            return Err(Errno::EINVAL);
        }
        self.mlock(args)
    }

    fn munlock(&mut self, [addr, len, ..]: Args) -> Answer {
        let range = self.outward(addr, len)?;
        self.each_piece(range, |piece, entry| match entry.user_wired {
            true => self.unwire(piece),
            false => Ok(()),
        })
    }

    /// Ends the wiring of a piece; what another thread has ended meanwhile is ended.
    fn unwire(&self, piece: VirtRange) -> Result<(), Errno> {
        match self.space.core().unwire(piece) {
            Err(MapError::NotWired) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Calls `act` for each entry there is.
    fn each_entry(&self, mut act: impl FnMut(VirtRange) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut at = VirtAddr(0);
        while let Some(entry) = self.space.core().entry(at) {
            if entry.range.end() <= at {
                break;
            }
            act(entry.range)?;
            at = entry.range.end();
        }
        Ok(())
    }

    fn mlockall(&mut self, [flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        let kinds = abi::MCL_CURRENT | abi::MCL_FUTURE;
        if flags & !(kinds | abi::MCL_ONFAULT) != 0 || flags & kinds == 0 {
            return Err(Errno::EINVAL);
        }
        let future = flags & abi::MCL_FUTURE != 0;
        self.space.bounds.lock().lock_future = future;
        self.space.core().set_wire_future(future);
        if flags & abi::MCL_CURRENT != 0 {
            // What cannot be wired (no access allowed, for one) is passed over, as on Linux.
            self.each_entry(|range| {
                self.space.core().wire(range).ok();
                Ok(())
            })?;
        }
        Ok(0)
    }

    fn munlockall(&mut self, _: Args) -> Answer {
        self.space.bounds.lock().lock_future = false;
        self.space.core().set_wire_future(false);
        self.each_entry(|range| self.unwire(range))?;
        Ok(0)
    }
}
