//! An open file of the host.

use crate::files::walk::Place;
use crate::locks::SpinLock;
use crate::ninep::SetAttr;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{DirEntry, FileStat};
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general as abi;

/// An open file of the host; clones share its offset, as duplicates of a descriptor do.
#[derive(Clone)]
pub(crate) struct NineFile(Arc<Inner>);

struct Inner {
    place: Place,
    flags: AtomicU32,
    offset: SpinLock<u64>,
    /// What was last known of it.
    known: SpinLock<Known>,
}

struct Known {
    stat: FileStat,
    /// Nobody has asked since it was opened: it still holds.
    fresh: bool,
}

impl NineFile {
    /// A file that was opened with `flags` and is known to be this.
    pub(crate) fn new(place: Place, flags: u32, stat: FileStat) -> NineFile {
        NineFile(Arc::new(Inner {
            place,
            flags: AtomicU32::new(flags),
            offset: SpinLock::new(0),
            known: SpinLock::new(Known { stat, fresh: true }),
        }))
    }

    pub(crate) fn place(&self) -> &Place {
        &self.0.place
    }

    pub(crate) fn flags(&self) -> u32 {
        self.0.flags.load(Ordering::Relaxed)
    }

    pub(crate) fn set_flags(&self, flags: u32) {
        self.0.flags.store(flags, Ordering::Relaxed);
    }

    fn may(&self, access: u32) -> Result<(), Errno> {
        let flags = self.flags();
        let mode = flags & abi::O_ACCMODE;
        if flags & abi::O_PATH != 0 || (mode != access && mode != abi::O_RDWR) {
            return Err(Errno::EBADF);
        }
        Ok(())
    }

    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        self.may(abi::O_RDONLY)?;
        if self.place().qid.is_directory() {
            return Err(Errno::EISDIR);
        }
        self.place().fid.read(offset, buf)
    }

    pub(crate) fn read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        let offset = *self.0.offset.lock();
        let n = self.read_at(offset, buf)?;
        *self.0.offset.lock() = offset + n as u64;
        Ok(n)
    }

    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        self.may(abi::O_WRONLY)?;
        let n = self.place().fid.write(offset, bytes)?;
        let mut known = self.0.known.lock();
        known.fresh = false;
        known.stat.size = known.stat.size.max(offset + n as u64);
        Ok(n)
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let offset = match self.flags() & abi::O_APPEND {
            0 => *self.0.offset.lock(),
            _ => self.stat()?.size,
        };
        let n = self.write_at(offset, bytes)?;
        *self.0.offset.lock() = offset + n as u64;
        Ok(n)
    }

    /// What the server says; of a file that has lost its last name, what was known last.
    pub(crate) fn stat(&self) -> Result<FileStat, Errno> {
        {
            let mut known = self.0.known.lock();
            if core::mem::take(&mut known.fresh) {
                return Ok(known.stat);
            }
        }
        match self.place().fid.stat() {
            Ok(stat) => {
                self.0.known.lock().stat = stat;
                Ok(stat)
            }
            Err(Errno::ENOENT) => Ok(FileStat {
                links: 0,
                ..self.0.known.lock().stat
            }),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn set(&self, set: &SetAttr) -> Result<(), Errno> {
        self.place().fid.set(set)?;
        let mut known = self.0.known.lock();
        known.fresh = false;
        known.stat.size = set.size.unwrap_or(known.stat.size);
        Ok(())
    }

    pub(crate) fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno> {
        let size = match whence {
            abi::SEEK_SET | abi::SEEK_CUR => 0,
            _ => self.stat()?.size,
        };
        let from = u64::try_from(offset);
        let mut at = self.0.offset.lock();
        let to = match whence {
            abi::SEEK_SET => from.map_err(|_| Errno::EINVAL)?,
            abi::SEEK_CUR => at.checked_add_signed(offset).ok_or(Errno::EINVAL)?,
            abi::SEEK_END => size.checked_add_signed(offset).ok_or(Errno::EINVAL)?,
            // Holes are not told: all of the file is data.
            abi::SEEK_DATA => from.ok().filter(|o| *o < size).ok_or(Errno::ENXIO)?,
            abi::SEEK_HOLE => from
                .ok()
                .filter(|o| *o < size)
                .map(|_| size)
                .ok_or(Errno::ENXIO)?,
            _ => return Err(Errno::EINVAL),
        };
        *at = to;
        Ok(to)
    }

    /// As many entries of the directory as fit in `bytes` as `linux_dirent64`.
    pub(crate) fn entries(&self, bytes: usize) -> Result<Vec<DirEntry>, Errno> {
        if !self.place().qid.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        let offset = *self.0.offset.lock();
        let found = self.place().fid.entries(offset, bytes)?;
        let mut room = bytes;
        let mut fits = |entry: &DirEntry| match room.checked_sub(entry.record_bytes()) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        };
        let any = !found.is_empty();
        let taken: Vec<DirEntry> = found.into_iter().take_while(|e| fits(e)).collect();
        match taken.last() {
            Some(last) => *self.0.offset.lock() = last.next,
            None if any => return Err(Errno::EINVAL),
            None => {}
        }
        Ok(taken)
    }
}
