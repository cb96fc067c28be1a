//! Files that are made when they are read: text, bytes at offsets, and directories of ours.

use super::proc::{Lister, Maker, Names, Reader, Taker, Writer};
use crate::errno::Errno;
use crate::platform::{DirEntry, Platform};
use crate::{Lock, rank};
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// Text of ours, such as `/proc/self/maps`: made anew whenever it is read from its beginning.
pub(crate) struct TextFile<P: Platform> {
    make: Maker,
    take: Option<Taker>,
    made: Lock<P, Vec<u8>, { rank::FILE }>,
    name: Vec<u8>,
    offset: Lock<P, u64, { rank::FILE }>,
}

/// A file of ours that is read and written at offsets, such as `/proc/self/pagemap`.
pub(crate) struct RawFile<P: Platform> {
    read: Reader,
    write: Option<Writer>,
    name: Vec<u8>,
    offset: Lock<P, u64, { rank::FILE }>,
}

/// A directory of ours: its names are taken when it is read from its beginning.
pub(crate) struct Listing<P: Platform> {
    list: Lister,
    names: Lock<P, Names, { rank::FILE }>,
    name: Vec<u8>,
    next: Lock<P, usize, { rank::FILE }>,
}

impl<P: Platform> Listing<P> {
    pub(super) fn new(name: Vec<u8>, list: Lister) -> Self {
        Listing {
            list,
            names: Lock::<P, _, { rank::FILE }>::new(Names::new()),
            name,
            next: Lock::<P, _, { rank::FILE }>::new(0),
        }
    }

    /// Its path.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// As many entries as fit in `bytes` as `linux_dirent64`, from where the last call ended.
    pub(crate) fn entries(&self, bytes: usize) -> Vec<DirEntry> {
        if *self.next.lock() == 0 {
            let names = (self.list)();
            *self.names.lock() = names;
        }
        let names = self.names.lock().clone();
        let mut next = self.next.lock();
        let mut out = Vec::new();
        let mut room = bytes;
        for (i, (name, kind)) in names.iter().enumerate().skip(*next) {
            let entry = DirEntry {
                ino: i as u64 + 1,
                next: i as u64 + 1,
                kind: *kind,
                name: name.clone(),
            };
            match room.checked_sub(entry.record_bytes()) {
                Some(left) => room = left,
                None => break,
            }
            out.push(entry);
            *next = i + 1;
        }
        out
    }

    pub(super) fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno> {
        let mut next = self.next.lock();
        let base = match whence {
            abi::SEEK_SET => 0,
            abi::SEEK_CUR => *next,
            _ => return Err(Errno::EINVAL),
        };
        let to = (base as u64).checked_add_signed(offset);
        *next = to.ok_or(Errno::EINVAL)? as usize;
        Ok(*next as u64)
    }
}

impl<P: Platform> TextFile<P> {
    pub(super) fn new(name: Vec<u8>, make: Maker, take: Option<Taker>) -> Self {
        TextFile {
            make,
            take,
            made: Lock::<P, _, { rank::FILE }>::new(Vec::new()),
            name,
            offset: Lock::<P, _, { rank::FILE }>::new(0),
        }
    }

    /// Its path.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        if offset == 0 {
            let text = (self.make)()?;
            *self.made.lock() = text;
        }
        let text = self.made.lock();
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(text.len());
        let n = buf.len().min(text.len() - from);
        buf[..n].copy_from_slice(&text[from..from + n]);
        Ok(n)
    }

    pub(crate) fn read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        let at = *self.offset.lock();
        let n = self.read_at(at, buf)?;
        *self.offset.lock() = at + n as u64;
        Ok(n)
    }

    /// Takes what is written, wherever.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        (self.take.as_ref().ok_or(Errno::EINVAL)?)(bytes)?;
        Ok(bytes.len())
    }

    pub(super) fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno> {
        let mut at = self.offset.lock();
        let base = match whence {
            abi::SEEK_SET => 0,
            abi::SEEK_CUR => *at,
            _ => return Err(Errno::EINVAL),
        };
        *at = base.checked_add_signed(offset).ok_or(Errno::EINVAL)?;
        Ok(*at)
    }
}

impl<P: Platform> RawFile<P> {
    pub(super) fn new(name: Vec<u8>, read: Reader, write: Option<Writer>) -> Self {
        RawFile {
            read,
            write,
            name,
            offset: Lock::<P, _, { rank::FILE }>::new(0),
        }
    }

    /// Its path.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        (self.read)(offset, buf)
    }

    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        (self.write.as_ref().ok_or(Errno::EINVAL)?)(offset, bytes)
    }

    /// Reads at its own offset.
    pub(crate) fn read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        let at = *self.offset.lock();
        let n = self.read_at(at, buf)?;
        *self.offset.lock() = at.saturating_add(n as u64);
        Ok(n)
    }

    /// Writes at its own offset.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let at = *self.offset.lock();
        let n = self.write_at(at, bytes)?;
        *self.offset.lock() = at.saturating_add(n as u64);
        Ok(n)
    }

    /// Any offset, as a number without sign, is one of an address.
    pub(super) fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno> {
        let mut at = self.offset.lock();
        *at = match whence {
            abi::SEEK_SET => offset as u64,
            abi::SEEK_CUR => at.wrapping_add_signed(offset),
            _ => return Err(Errno::EINVAL),
        };
        Ok(*at)
    }
}
