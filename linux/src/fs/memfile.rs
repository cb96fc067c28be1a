//! Files that are memory only: an anonymous object of the core with a name and an offset.

use super::kernel_page::Made;
use crate::errno::Errno;
use crate::platform::{FileStat, Moment, Platform};
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::vec::Vec;
use bsdvm::{Object, ObjectId};
use linux_raw_sys::general as abi;

/// The largest file, as on Linux.
pub(crate) const SIZE_MAX: u64 = i64::MAX as u64;

/// A file made by `memfd_create`.
pub(crate) struct MemFile<P: Platform> {
    sys: &'static Linux<P>,
    object: ObjectId,
    pub(crate) name: Vec<u8>,
    pub(crate) id: u64,
    /// The device that shows the pages to who maps the file, if the kernel provides them.
    pub(crate) provided: Option<ObjectId>,
    offset: Lock<P, u64, { rank::FILE }>,
}

impl<P: Platform> MemFile<P> {
    /// An empty file.
    pub(crate) fn create(sys: &'static Linux<P>, name: Vec<u8>) -> Result<MemFile<P>, Errno> {
        let object = sys.vm.object_create_anonymous(0)?;
        Ok(MemFile {
            sys,
            object,
            name,
            id: sys.next_id(),
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
            name: b"kpmap".to_vec(),
            id: sys.next_id(),
            provided: Some(device),
            offset: Lock::<P, _, { rank::FILE }>::new(0),
        })
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
        if end > self.object().size() {
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
        Ok(self.object().set_size(bytes)?)
    }

    pub(crate) fn stat(&self) -> FileStat {
        FileStat {
            mask: abi::STATX_BASIC_STATS,
            block_size: Linux::<P>::PAGE_BYTES as u32,
            links: 0,
            mode: (abi::S_IFREG | 0o777) as u16,
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
    }
}
