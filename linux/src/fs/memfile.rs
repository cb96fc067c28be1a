//! Open files that are memory only: an object of the core with a name, seals and an offset.

use super::kernel_page::Made;
use super::meminode::MemInode;
use crate::errno::Errno;
use crate::platform::{FileStat, Moment, Platform};
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::{Object, ObjectId, Prot, Sharing};
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// The largest file, as on Linux.
pub(crate) const SIZE_MAX: u64 = i64::MAX as u64;

/// Seals that forbid what changes contents.
const NO_WRITES: u32 = abi::F_SEAL_WRITE | abi::F_SEAL_FUTURE_WRITE;
const ALL_SEALS: u32 =
    abi::F_SEAL_SEAL | abi::F_SEAL_SHRINK | abi::F_SEAL_GROW | NO_WRITES | F_SEAL_EXEC;
/// The mode stays without its executable bits.
pub(crate) const F_SEAL_EXEC: u32 = 0x20;

/// A file made by `memfd_create`.
pub(crate) struct MemFile<P: Platform> {
    sys: &'static Linux<P>,
    object: ObjectId,
    /// Who the file is, if it has a name and seals.
    inode: Option<Arc<MemInode>>,
    pub(crate) id: u64,
    /// The device that shows the pages to who maps the file, if the kernel provides them.
    pub(crate) provided: Option<ObjectId>,
    offset: Lock<P, u64, { rank::FILE }>,
}

impl<P: Platform> MemFile<P> {
    /// An empty file, which maps show as `path`.
    pub(crate) fn create(
        sys: &'static Linux<P>,
        path: Vec<u8>,
        mode: u32,
        seals: u32,
    ) -> Result<MemFile<P>, Errno> {
        let inode = sys.memory_inodes.create(sys, path, 0, (mode, seals))?;
        Ok(MemFile {
            sys,
            object: inode.object,
            id: inode.id,
            inode: Some(inode),
            provided: None,
            offset: Lock::<P, _, { rank::FILE }>::new(0),
        })
    }

    /// The page that the kernel provides.
    pub(crate) fn kernel_page(sys: &'static Linux<P>) -> Result<MemFile<P>, Errno> {
        let Made { memory, device } = sys.kernel_page.get(sys)?;
        if !sys.vm.object(memory).reference() {
            return Err(Errno::ENOMEM);
        }
        Ok(MemFile {
            sys,
            object: memory,
            inode: None,
            id: sys.next_id(),
            provided: Some(device),
            offset: Lock::<P, _, { rank::FILE }>::new(0),
        })
    }

    /// The same file, opened once more.
    pub(crate) fn reopen(&self) -> Result<MemFile<P>, Errno> {
        if !self.object().reference() {
            return Err(Errno::ENFILE);
        }
        Ok(MemFile {
            sys: self.sys,
            object: self.object,
            inode: self.inode.clone(),
            id: self.id,
            provided: self.provided,
            offset: Lock::<P, _, { rank::FILE }>::new(0),
        })
    }

    /// The permission bits.
    fn mode(&self) -> u32 {
        let inode = self.inode.as_ref();
        inode.map_or(0o777, |inode| inode.mode.load(Ordering::SeqCst))
    }

    /// The name of the file.
    pub(crate) fn path(&self) -> &[u8] {
        self.inode.as_ref().map_or(b"kpmap", |inode| &inode.path)
    }

    /// The seals; `None` for a file that has none.
    pub(crate) fn seals(&self) -> Option<u32> {
        let inode = self.inode.as_ref()?;
        Some(inode.seals.load(Ordering::SeqCst))
    }

    fn refuse(&self, seals: u32) -> Result<(), Errno> {
        match self.seals() {
            Some(set) if set & seals != 0 => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    /// `F_ADD_SEALS`. `writable` says whether somebody may write through a shared mapping.
    pub(crate) fn add_seals(
        &self,
        seals: u32,
        writable: impl FnOnce() -> bool,
    ) -> Result<(), Errno> {
        if seals & !ALL_SEALS != 0 {
            return Err(Errno::EINVAL);
        }
        let inode = self.inode.as_ref().ok_or(Errno::EINVAL)?;
        let old = inode.seals.load(Ordering::SeqCst);
        if old & abi::F_SEAL_SEAL != 0 {
            return Err(Errno::EPERM);
        }
        if seals & abi::F_SEAL_WRITE & !old != 0 && writable() {
            return Err(Errno::EBUSY);
        }
        let mut seals = seals;
        if seals & F_SEAL_EXEC != 0 && self.mode() & 0o111 != 0 {
            // What may be executed is not to be changed any more.
            seals |= abi::F_SEAL_SHRINK | abi::F_SEAL_GROW | NO_WRITES;
        }
        inode.seals.fetch_or(seals, Ordering::SeqCst);
        Ok(())
    }

    /// The most that a mapping may ever allow, which is refused if it is to be written now.
    pub(crate) fn mappable(&self, sharing: Sharing, prot: Prot) -> Result<Prot, Errno> {
        let sealed = self.seals().unwrap_or(0) & NO_WRITES != 0;
        match sharing {
            Sharing::Shared if sealed && prot.contains(Prot::WRITE) => Err(Errno::EPERM),
            Sharing::Shared if sealed => Ok(Prot::RX),
            _ => Ok(Prot::ALL),
        }
    }

    /// `fchmod`.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        if (self.mode() ^ mode) & 0o111 != 0 {
            self.refuse(F_SEAL_EXEC)?;
        }
        if let Some(inode) = &self.inode {
            inode.mode.store(mode & 0o7777, Ordering::SeqCst);
        }
        Ok(())
    }

    /// `fallocate`.
    pub(crate) fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        const KEEP_SIZE: u32 = abi::FALLOC_FL_KEEP_SIZE;
        const PUNCH_HOLE: u32 = abi::FALLOC_FL_PUNCH_HOLE;
        if mode & !(KEEP_SIZE | PUNCH_HOLE) != 0 || mode == PUNCH_HOLE {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        if end > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        if mode & PUNCH_HOLE != 0 {
            self.refuse(NO_WRITES)?;
            return Ok(self.object().clear(offset, len)?);
        }
        if mode == 0 && end > self.object().size() {
            self.truncate(end)?;
        }
        Ok(())
    }

    /// The object that holds its pages.
    pub(crate) fn object(&self) -> Object<'static, P::Machine> {
        self.sys.vm.object(self.object)
    }

    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        Ok(self.object().read(offset, buf)?)
    }

    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno::EFBIG)?;
        if end > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        self.refuse(NO_WRITES)?;
        if end > self.object().size() {
            self.refuse(abi::F_SEAL_GROW)?;
            self.object().set_size(end)?;
        }
        Ok(self.object().write(offset, bytes)?)
    }

    /// Reads at the file's own offset.
    pub(crate) fn read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        let at = *self.offset.lock();
        let n = self.read_at(at, buf)?;
        *self.offset.lock() = at.saturating_add(n as u64);
        Ok(n)
    }

    /// Writes at the file's own offset, or at its end.
    pub(crate) fn write(&self, bytes: &[u8], append: bool) -> Result<usize, Errno> {
        let at = if append {
            self.object().size()
        } else {
            *self.offset.lock()
        };
        let n = self.write_at(at, bytes)?;
        *self.offset.lock() = at.saturating_add(n as u64);
        Ok(n)
    }

    pub(crate) fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno> {
        let size = self.object().size();
        let mut at = self.offset.lock();
        let base = match whence {
            abi::SEEK_SET => 0,
            abi::SEEK_CUR => *at,
            abi::SEEK_END => size,
            abi::SEEK_DATA | abi::SEEK_HOLE => {
                // All of it is data, and the hole is behind its end.
                let from = u64::try_from(offset).ok().filter(|&o| o < size);
                let from = from.ok_or(Errno::ENXIO)?;
                *at = if whence == abi::SEEK_DATA { from } else { size };
                return Ok(*at);
            }
            _ => return Err(Errno::EINVAL),
        };
        *at = base
            .checked_add_signed(offset)
            .filter(|&a| a <= SIZE_MAX)
            .ok_or(Errno::EINVAL)?;
        Ok(*at)
    }

    pub(crate) fn truncate(&self, bytes: u64) -> Result<(), Errno> {
        if bytes > SIZE_MAX {
            return Err(Errno::EINVAL);
        }
        let now = self.object().size();
        if bytes < now {
            self.refuse(abi::F_SEAL_SHRINK)?;
        } else if bytes > now {
            self.refuse(abi::F_SEAL_GROW)?;
        }
        self.object().set_size(bytes)?;
        if bytes < now {
            self.sys.cut_private(self.object, bytes);
        }
        Ok(())
    }

    pub(crate) fn stat(&self) -> FileStat {
        FileStat {
            mask: abi::STATX_BASIC_STATS,
            block_size: Linux::<P>::PAGE_BYTES as u32,
            links: 0,
            mode: (abi::S_IFREG | self.mode()) as u16,
            ino: self.id,
            size: self.object().size(),
            blocks: self
                .object()
                .resident_pages()
                .saturating_mul(Linux::<P>::PAGE_BYTES / 512),
            dev: (0, 1),
            mtime: Moment::default(),
            ..FileStat::default()
        }
    }
}

impl<P: Platform> Drop for MemFile<P> {
    fn drop(&mut self) {
        self.object().release();
        self.sys.memory_inodes.sweep(self.sys);
    }
}
