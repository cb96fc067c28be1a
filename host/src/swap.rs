//! Swap on a file of the host.
//!
//! The file has no name and is as large as what was ever on it at a time: a slot that was never
//! written is a hole, and what is given back becomes one again. So a size far beyond the disk's is
//! no mistake; a disk that is full leaves pages in memory.

use bsdvm::{PageBytes, PagerError, SwapDevice};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where swap lies when nothing is said: on a disk, as `/tmp` is often memory.
const DEFAULT: &str = "/var/tmp";
/// Buffers that are kept for the next clusters.
const BUFFERS: usize = 4;

/// Why there is no file to swap to.
#[derive(Debug)]
pub struct SwapFileError {
    directory: PathBuf,
    why: Errno,
}

impl fmt::Display for SwapFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = std::io::Error::from(self.why);
        write!(f, "no file in {}: {why}", self.directory.display())
    }
}

impl std::error::Error for SwapFileError {}

/// A file without a name to swap to. It goes with its last descriptor, which is this.
#[derive(Debug)]
pub struct SwapFile {
    file: OwnedFd,
    slots: u32,
    page: usize,
    /// Buffers of clusters, as many as were needed at a time.
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl SwapFile {
    /// A file for `bytes` bytes, in pages of `page` bytes, in the directory that `TMPDIR` names,
    /// or in `/var/tmp`. It takes nothing yet. What does not fill a page is left out, and so is
    /// what lies beyond 2^31 pages.
    ///
    /// Errors: what the host says of the directory.
    pub fn temporary(bytes: u64, page: usize) -> Result<SwapFile, SwapFileError> {
        let directory = std::env::var_os("TMPDIR").filter(|d| !d.is_empty());
        let directory = directory.unwrap_or_else(|| OsString::from(DEFAULT));
        Self::within(&directory, bytes, page)
    }

    fn within(directory: &OsStr, bytes: u64, page: usize) -> Result<SwapFile, SwapFileError> {
        let directory = Path::new(directory);
        let file = unnamed(directory).map_err(|why| SwapFileError {
            directory: directory.to_owned(),
            why,
        })?;
        Ok(Self::on(file, bytes, page))
    }

    /// The same on a file that is there.
    pub fn on(file: OwnedFd, bytes: u64, page: usize) -> SwapFile {
        let most = (1 << 31) - 1;
        SwapFile {
            file,
            slots: u32::try_from(bytes / page as u64).unwrap_or(most).min(most),
            page,
            buffers: Mutex::default(),
        }
    }

    fn offset(&self, slot: u32) -> u64 {
        u64::from(slot) * self.page as u64
    }

    /// Calls `act` with a buffer of `pages` pages.
    fn with_buffer<T>(&self, pages: usize, act: impl FnOnce(&mut [u8]) -> T) -> T {
        let buffers = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = buffers().pop().unwrap_or_default();
        let bytes = pages * self.page;
        if buffer.len() < bytes {
            buffer.resize(bytes, 0);
        }
        let done = act(&mut buffer[..bytes]);
        let mut buffers = buffers();
        if buffers.len() < BUFFERS {
            buffers.push(buffer);
        }
        done
    }

    fn read_all(&self, slot: u32, buffer: &mut [u8]) -> Result<(), PagerError> {
        let (mut at, mut left) = (self.offset(slot), buffer);
        while !left.is_empty() {
            match rustix::io::pread(&self.file, &mut *left, at) {
                // Somebody has cut the file.
                Ok(0) => return Err(PagerError::Io(Errno::IO.raw_os_error())),
                Ok(n) => {
                    at += n as u64;
                    left = &mut left[n..];
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(PagerError::Io(e.raw_os_error())),
            }
        }
        Ok(())
    }

    fn write_all(&self, slot: u32, buffer: &[u8]) -> Result<(), PagerError> {
        let (mut at, mut left) = (self.offset(slot), buffer);
        while !left.is_empty() {
            match rustix::io::pwrite(&self.file, left, at) {
                Ok(0) => return Err(PagerError::NoSpace),
                Ok(n) => {
                    at += n as u64;
                    left = &left[n..];
                }
                Err(Errno::INTR) => {}
                // The disk, a quota, the largest file: later there may be room.
                Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => return Err(PagerError::NoSpace),
                Err(e) => return Err(PagerError::Io(e.raw_os_error())),
            }
        }
        Ok(())
    }
}

impl SwapDevice for SwapFile {
    fn slots(&self) -> u32 {
        self.slots
    }

    fn read(&self, slot: u32, page: &mut dyn PageBytes) -> Result<(), PagerError> {
        self.read_cluster(slot, &mut [page])
    }

    fn write(&self, slot: u32, page: &dyn PageBytes) -> Result<(), PagerError> {
        self.write_cluster(slot, &[page])
    }

    fn read_cluster(&self, first: u32, pages: &mut [&mut dyn PageBytes]) -> Result<(), PagerError> {
        self.with_buffer(pages.len(), |buffer| {
            self.read_all(first, buffer)?;
            for (page, bytes) in pages.iter_mut().zip(buffer.chunks_exact(self.page)) {
                page.write(0, bytes);
            }
            Ok(())
        })
    }

    fn write_cluster(&self, first: u32, pages: &[&dyn PageBytes]) -> Result<(), PagerError> {
        self.with_buffer(pages.len(), |buffer| {
            for (page, bytes) in pages.iter().zip(buffer.chunks_exact_mut(self.page)) {
                page.read(0, bytes);
            }
            self.write_all(first, buffer)
        })
    }

    fn discard(&self, first: u32, count: u32) {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // A file system without holes keeps the room; it is written over in time.
        let _ = rustix::fs::fallocate(&self.file, hole, self.offset(first), self.offset(count));
    }
}

/// A file in `directory` that has no name, or has it no more.
fn unnamed(directory: &Path) -> Result<OwnedFd, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let never_named = OFlags::TMPFILE | OFlags::EXCL;
    match rustix::fs::open(directory, flags | never_named, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        opened => return opened,
    }
    let mut random = [0; 8];
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let path = directory.join(format!("bsdvm-swap.{:016x}", u64::from_ne_bytes(random)));
    let file = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
    rustix::fs::unlinkat(CWD, &path, rustix::fs::AtFlags::empty())?;
    Ok(file)
}
