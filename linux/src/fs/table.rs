//! Descriptors: small numbers that stand for open files.
//!
//! Files leave the table before they are dropped: to drop the last reference of one may write
//! pages back and wake others, which is done with no lock held.

use super::file::OpenFile;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// What a table never grows beyond, whatever the limit says.
const MOST: u64 = 1 << 20;

/// Whether a descriptor is closed by `exec`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnExec {
    Keep,
    Close,
}

impl OnExec {
    /// As `O_CLOEXEC` among `flags` says.
    pub(crate) fn from_flags(flags: u32) -> OnExec {
        if flags & abi::O_CLOEXEC != 0 {
            OnExec::Close
        } else {
            OnExec::Keep
        }
    }
}

struct Slot<P: Platform> {
    file: Arc<OpenFile<P>>,
    on_exec: OnExec,
}

impl<P: Platform> Clone for Slot<P> {
    fn clone(&self) -> Self {
        Slot {
            file: self.file.clone(),
            on_exec: self.on_exec,
        }
    }
}

/// A table of descriptors, which processes may share.
pub(crate) struct FdTable<P: Platform> {
    slots: Lock<P, Vec<Option<Slot<P>>>, { rank::FILES }>,
}

impl<P: Platform> FdTable<P> {
    /// An empty table.
    pub(crate) fn new() -> Self {
        FdTable {
            slots: Lock::<P, _, { rank::FILES }>::new(Vec::new()),
        }
    }

    /// The runner's own standard input, output and error.
    pub(crate) fn standard(sys: &'static Linux<P>) -> Self {
        let slot = |n| {
            let file = sys.platform.standard(n)?;
            let file = Arc::new(OpenFile::host(file).ok()?);
            Some(Slot {
                file,
                on_exec: OnExec::Keep,
            })
        };
        let slots = (0..3).map(slot).collect();
        FdTable {
            slots: Lock::<P, _, { rank::FILES }>::new(slots),
        }
    }

    /// The file behind `fd`.
    pub(crate) fn get(&self, fd: u32) -> Result<Arc<OpenFile<P>>, Errno> {
        let slots = self.slots.lock();
        let slot = slots.get(fd as usize).and_then(Option::as_ref);
        slot.map(|s| s.file.clone()).ok_or(Errno::EBADF)
    }

    /// Enters a file at the lowest free number from `lowest`, below `limit`.
    pub(crate) fn install(
        &self,
        file: Arc<OpenFile<P>>,
        on_exec: OnExec,
        lowest: u64,
        limit: u64,
    ) -> Result<u32, Errno> {
        let limit = limit.min(MOST);
        let mut slots = self.slots.lock();
        let free = (lowest..limit).find(|&n| slots.get(n as usize).is_none_or(Option::is_none));
        let n = free.ok_or(Errno::EMFILE)? as usize;
        if slots.len() <= n {
            slots.resize(n + 1, None);
        }
        slots[n] = Some(Slot { file, on_exec });
        Ok(n as u32)
    }

    /// Whether a number below `limit` is free, before a file is opened for it.
    pub(crate) fn check_room(&self, limit: u64) -> Result<(), Errno> {
        let slots = self.slots.lock();
        let full = slots.len() as u64 >= limit.min(MOST);
        if full && slots.iter().take(limit as usize).all(Option::is_some) {
            return Err(Errno::EMFILE);
        }
        Ok(())
    }

    /// How many numbers there is a place for, used or not: as a kernel's table grows, in powers
    /// of two.
    pub(crate) fn places(&self) -> u64 {
        const FIRST: u64 = 64;
        const SECOND: u64 = 256;
        match self.slots.lock().len() as u64 {
            0..=FIRST => FIRST,
            n => n.next_power_of_two().max(SECOND),
        }
    }

    /// Enters a file at `fd` and gives back what was there (`dup2`).
    pub(crate) fn replace(
        &self,
        fd: u32,
        file: Arc<OpenFile<P>>,
        on_exec: OnExec,
        limit: u64,
    ) -> Result<Option<Arc<OpenFile<P>>>, Errno> {
        if u64::from(fd) >= limit.min(MOST) {
            return Err(Errno::EBADF);
        }
        let n = fd as usize;
        let mut slots = self.slots.lock();
        if slots.len() <= n {
            slots.resize(n + 1, None);
        }
        let old = slots[n].replace(Slot { file, on_exec });
        Ok(old.map(|s| s.file))
    }

    /// Takes a file out.
    pub(crate) fn remove(&self, fd: u32) -> Result<Arc<OpenFile<P>>, Errno> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(fd as usize).and_then(Option::take);
        slot.map(|s| s.file).ok_or(Errno::EBADF)
    }

    /// Whether `fd` is closed by `exec`.
    pub(crate) fn on_exec(&self, fd: u32) -> Result<OnExec, Errno> {
        let slots = self.slots.lock();
        let slot = slots.get(fd as usize).and_then(Option::as_ref);
        slot.map(|s| s.on_exec).ok_or(Errno::EBADF)
    }

    /// Sets whether `fd` is closed by `exec`.
    pub(crate) fn set_on_exec(&self, fd: u32, on_exec: OnExec) -> Result<(), Errno> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(fd as usize).and_then(Option::as_mut);
        slot.ok_or(Errno::EBADF)?.on_exec = on_exec;
        Ok(())
    }

    /// A table with the same files for a forked child.
    pub(crate) fn forked(&self) -> FdTable<P> {
        let slots = self.slots.lock().clone();
        FdTable {
            slots: Lock::<P, _, { rank::FILES }>::new(slots),
        }
    }

    /// Takes out what `exec` closes.
    pub(crate) fn take_on_exec(&self) -> Vec<Arc<OpenFile<P>>> {
        self.take_where(|_, on_exec| on_exec == OnExec::Close)
    }

    /// Takes out every file with a number in `range` (`close_range`).
    pub(crate) fn take_range(
        &self,
        range: core::ops::RangeInclusive<u32>,
    ) -> Vec<Arc<OpenFile<P>>> {
        self.take_where(|fd, _| range.contains(&fd))
    }

    fn take_where(&self, which: impl Fn(u32, OnExec) -> bool) -> Vec<Arc<OpenFile<P>>> {
        let mut taken = Vec::new();
        for (fd, slot) in self.slots.lock().iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|s| which(fd as u32, s.on_exec)) {
                taken.extend(slot.take().map(|s| s.file));
            }
        }
        taken
    }

    /// The numbers in use.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        let slots = self.slots.lock();
        let used = slots.iter().enumerate().filter(|(_, s)| s.is_some());
        used.map(|(n, _)| n as u32).collect()
    }
}
