//! Keeping memory resident: `mlock` and its relatives.

use super::{Answer, Args, Calls};
use crate::creds::cap;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::space::ON_FAULT;
use crate::thread::Task;
use bsdvm::{Advice, EntryInfo, Machine, MapError, VirtAddr, VirtRange};
use linux_raw_sys::general as abi;

/// When the pages of a locked range come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pages {
    /// With the call.
    Now,
    /// When they are touched.
    OnFault,
}

impl<P: Platform> Task<P> {
    pub(super) const LOCKING: Calls<P> = &[
        (abi::__NR_mlock, Self::mlock),
        (abi::__NR_mlock2, Self::mlock2),
        (abi::__NR_munlock, Self::munlock),
        (abi::__NR_mlockall, Self::mlockall),
        (abi::__NR_munlockall, Self::munlockall),
    ];

    /// Whether no limit on locked memory holds.
    fn may_lock_all(&self) -> bool {
        self.capable(cap::IPC_LOCK)
    }

    /// Whether anything may be locked at all.
    pub(super) fn may_lock(&self) -> bool {
        self.process.limit(abi::RLIMIT_MEMLOCK) != 0 || self.may_lock_all()
    }

    /// Whether `more` bytes may be locked by what maps them.
    pub(super) fn check_lock_limit(&self, more: u64) -> Result<(), Errno> {
        let limit = self.process.limit(abi::RLIMIT_MEMLOCK);
        if limit == u64::MAX || self.may_lock_all() {
            return Ok(());
        }
        match self.space.locked_bytes().saturating_add(more) > limit {
            true => Err(Errno::EAGAIN),
            false => Ok(()),
        }
    }

    /// The pages that hold a range; addresses need not be aligned.
    fn outward(&self, addr: u64, len: u64) -> Result<VirtRange, Errno> {
        let page = <P::Machine as Machine>::PAGE;
        let start = page.floor(VirtAddr(addr));
        let len = len.wrapping_add(page.within(addr) as u64);
        // A length that wraps is no length.
        let len = page.round_up(len).unwrap_or(0);
        VirtRange::from_len(start, len).ok_or(Errno::EINVAL)
    }

    fn mlock(&mut self, [addr, len, ..]: Args) -> Answer {
        self.lock(addr, len, Pages::Now)
    }

    fn mlock2(&mut self, [addr, len, flags, ..]: Args) -> Answer {
        match flags as u32 {
            0 => self.lock(addr, len, Pages::Now),
            abi::MLOCK_ONFAULT => self.lock(addr, len, Pages::OnFault),
            _ => Err(Errno::EINVAL),
        }
    }

    fn lock(&self, addr: u64, len: u64, pages: Pages) -> Answer {
        if !self.may_lock() {
            return Err(Errno::EPERM);
        }
        let range = self.outward(addr, len);
        let limit = self.process.limit(abi::RLIMIT_MEMLOCK);
        if limit != u64::MAX && !self.may_lock_all() {
            let wanted = range.map_or(0, |r| r.len());
            let mut locked = 0;
            if let Ok(range) = range {
                self.each_piece_and_holes(range, |piece, entry| {
                    locked += if entry.user_wired { piece.len() } else { 0 };
                    Ok(())
                })
                .ok();
            }
            if self.space.locked_bytes() + wanted - locked > limit {
                return Err(Errno::ENOMEM);
            }
        }
        self.lock_range(range?, pages)
    }

    /// Locks a range as far as there is no hole, and tells of pages that could not be had at the
    /// end. Where there is a hole none is brought in.
    pub(super) fn lock_range(&self, range: VirtRange, pages: Pages) -> Answer {
        let mut bring = match self.space.core().covered(range) {
            true => pages,
            false => Pages::OnFault,
        };
        let mut failed = None;
        self.each_piece(range, |piece, entry| {
            failed = failed.or(self.lock_piece(piece, entry, pages, bring)?);
            if failed.is_some() {
                // Behind the first page that cannot be had none is brought in.
                bring = Pages::OnFault;
            }
            Ok(())
        })?;
        failed.map_or(Ok(0), Err)
    }

    /// Locks part of an entry, and brings it in unless that is left to faults for good (`pages`) or
    /// for now (`bring`). `Ok(Some)`: it is locked, but not all of it is in memory.
    fn lock_piece(
        &self,
        piece: VirtRange,
        entry: &EntryInfo,
        pages: Pages,
        bring: Pages,
    ) -> Result<Option<Errno>, Errno> {
        let core = self.space.core();
        if entry.provided || entry.page_directory.is_some() {
            return Ok(None);
        }
        match (pages, entry.marks & ON_FAULT != 0) {
            (Pages::OnFault, false) => core.advise(piece, Advice::Mark(ON_FAULT))?,
            (Pages::Now, true) => core.advise(piece, Advice::Unmark(ON_FAULT))?,
            _ => {}
        }
        if bring == Pages::OnFault || entry.prot.is_empty() {
            core.wire_on_fault(piece)?;
            return Ok(match bring {
                Pages::OnFault => None,
                Pages::Now => Some(Errno::ENOMEM),
            });
        }
        if entry.user_wired {
            let failed = self.bring_in(piece, entry).err();
            return Ok(failed.map(|_| Errno::ENOMEM));
        }
        let mut tries = 0;
        loop {
            match core.wire(piece) {
                Ok(()) => return Ok(None),
                Err(MapError::NoMemory) if tries < 8 => self.find_memory(&mut tries)?,
                Err(_) => break,
            }
        }
        core.wire_on_fault(piece)?;
        Ok(self.bring_in(piece, entry).err().map(|why| match why {
            Errno::ENOMEM => Errno::EAGAIN,
            _ => Errno::ENOMEM,
        }))
    }

    fn munlock(&mut self, [addr, len, ..]: Args) -> Answer {
        let range = self.outward(addr, len)?;
        self.each_piece(range, |piece, entry| match entry.user_wired {
            true => self.unwire(piece, entry),
            false => Ok(()),
        })
    }

    /// Ends the wiring of a piece; what another thread has ended meanwhile is ended.
    fn unwire(&self, piece: VirtRange, entry: &EntryInfo) -> Result<(), Errno> {
        let core = self.space.core();
        if entry.marks & ON_FAULT != 0 {
            core.advise(piece, Advice::Unmark(ON_FAULT))?;
        }
        match core.unwire(piece) {
            Err(MapError::NotWired) => Ok(()),
            done => Ok(done?),
        }
    }

    fn mlockall(&mut self, [flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        let kinds = abi::MCL_CURRENT | abi::MCL_FUTURE;
        if flags & !(kinds | abi::MCL_ONFAULT) != 0 || flags & kinds == 0 {
            return Err(Errno::EINVAL);
        }
        if !self.may_lock() {
            return Err(Errno::EPERM);
        }
        let current = flags & abi::MCL_CURRENT != 0;
        let limit = self.process.limit(abi::RLIMIT_MEMLOCK);
        if current && !self.may_lock_all() && self.space.core().size() > limit {
            return Err(Errno::ENOMEM);
        }
        let pages = match flags & abi::MCL_ONFAULT {
            0 => Pages::Now,
            _ => Pages::OnFault,
        };
        let future = (flags & abi::MCL_FUTURE != 0).then_some(pages);
        self.space.bounds.lock().lock_future = future;
        if current {
            // What cannot be had (no access allowed, for one) is passed over, as on Linux.
            self.each_entry(|entry| {
                self.lock_piece(entry.range, entry, pages, pages).ok();
            });
        }
        Ok(0)
    }

    fn munlockall(&mut self, _: Args) -> Answer {
        self.space.bounds.lock().lock_future = None;
        let mut done = Ok(0);
        self.each_entry(|entry| {
            if entry.user_wired
                && let Err(e) = self.unwire(entry.range, entry)
            {
                done = Err(e);
            }
        });
        done
    }
}
