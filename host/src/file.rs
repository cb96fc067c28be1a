//! Open files of the host.

use crate::path::{from_statfs, from_statx};
use crate::{errno, terminal};
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{DirEntry, FileStat, FsStat, HostFile, TerminalAnswer, TerminalCall};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::WatchFlags;
use rustix::fs::{AtFlags, FallocateFlags, Gid, Mode, OFlags, RawDir, SeekFrom, StatxFlags, Uid};
use rustix::pipe::SpliceFlags;
use std::mem::MaybeUninit;

const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

/// A file of the host.
#[derive(Debug)]
pub struct OpenHostFile {
    fd: OwnedFd,
}

impl OpenHostFile {
    pub(crate) fn new(fd: OwnedFd) -> OpenHostFile {
        OpenHostFile { fd }
    }
}

impl AsFd for OpenHostFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn seek_from(offset: i64, whence: u32) -> Result<SeekFrom, Errno> {
    match whence {
        // The host says what is before the beginning: of some devices everything is.
        0 => Ok(SeekFrom::Start(offset as u64)),
        1 => Ok(SeekFrom::Current(offset)),
        2 => Ok(SeekFrom::End(offset)),
        SEEK_DATA => u64::try_from(offset)
            .map(SeekFrom::Data)
            .map_err(|_| Errno::ENXIO),
        SEEK_HOLE => u64::try_from(offset)
            .map(SeekFrom::Hole)
            .map_err(|_| Errno::ENXIO),
        _ => Err(Errno::EINVAL),
    }
}

impl HostFile for OpenHostFile {
    fn read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.fd, buf).map_err(errno)
    }

    fn write(&self, buf: &[u8]) -> Result<usize, Errno> {
        rustix::io::write(&self.fd, buf).map_err(errno)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::pread(&self.fd, buf, offset).map_err(errno)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<usize, Errno> {
        rustix::io::pwrite(&self.fd, buf, offset).map_err(errno)
    }

    fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno> {
        rustix::fs::seek(&self.fd, seek_from(offset, whence)?).map_err(errno)
    }

    fn stat(&self) -> Result<FileStat, Errno> {
        let all = StatxFlags::ALL | StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(&self.fd, c"", AtFlags::EMPTY_PATH, all).map_err(errno)?;
        Ok(from_statx(&stat))
    }

    fn truncate(&self, bytes: u64) -> Result<(), Errno> {
        rustix::fs::ftruncate(&self.fd, bytes).map_err(errno)
    }

    fn sync(&self, data_only: bool) -> Result<(), Errno> {
        let done = if data_only {
            rustix::fs::fdatasync(&self.fd)
        } else {
            rustix::fs::fsync(&self.fd)
        };
        done.map_err(errno)
    }

    fn allocate(&self, mode: u32, offset: u64, bytes: u64) -> Result<(), Errno> {
        let mode = FallocateFlags::from_bits_retain(mode);
        rustix::fs::fallocate(&self.fd, mode, offset, bytes).map_err(errno)
    }

    fn entries(&self, bytes: usize) -> Result<Vec<DirEntry>, Errno> {
        let mut buf = vec![MaybeUninit::uninit(); bytes];
        let mut dir = RawDir::new(&self.fd, &mut buf);
        let mut entries = Vec::new();
        // The first entry asks the host; the rest of what it gave is taken without asking again.
        while let Some(entry) = dir.next() {
            let entry = entry.map_err(errno)?;
            entries.push(DirEntry {
                ino: entry.ino(),
                next: entry.next_entry_cookie(),
                kind: kind_number(entry.file_type()),
                name: entry.file_name().to_bytes().to_vec(),
            });
            if dir.is_buffer_empty() {
                break;
            }
        }
        Ok(entries)
    }

    fn path(&self) -> Result<Vec<u8>, Errno> {
        let link = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let path = rustix::fs::readlink(link, Vec::new()).map_err(errno)?;
        Ok(path.into_bytes())
    }

    fn statfs(&self) -> Result<FsStat, Errno> {
        rustix::fs::fstatfs(&self.fd)
            .map(|s| from_statfs(&s))
            .map_err(errno)
    }

    fn chmod(&self, mode: u32) -> Result<(), Errno> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode)).map_err(errno)
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        rustix::fs::fchown(&self.fd, uid, gid).map_err(errno)
    }

    fn terminal(&self, call: TerminalCall) -> Result<TerminalAnswer, Errno> {
        terminal::ask(self.fd.as_fd(), call)
    }

    fn xattr(&self, name: &[u8], buf: &mut [u8]) -> Result<usize, Errno> {
        let got = if buf.is_empty() {
            rustix::fs::fgetxattr_query(&self.fd, name)
        } else {
            rustix::fs::fgetxattr(&self.fd, name, buf)
        };
        got.map_err(errno)
    }

    fn flags(&self) -> Result<u32, Errno> {
        rustix::fs::fcntl_getfl(&self.fd)
            .map(|f| f.bits())
            .map_err(errno)
    }

    fn set_flags(&self, flags: u32) -> Result<(), Errno> {
        rustix::fs::fcntl_setfl(&self.fd, OFlags::from_bits_retain(flags)).map_err(errno)
    }

    fn has_writer(&self) -> Result<bool, Errno> {
        let mut seen = [PollFd::new(&self.fd, PollFlags::IN)];
        rustix::event::poll(&mut seen, Some(&Timespec::default())).map_err(errno)?;
        if !seen[0].revents().is_empty() {
            return Ok(true);
        }
        // Without a writer there is nothing to wait for: a copy of nothing is made at once.
        let (_reader, writer) = rustix::pipe::pipe().map_err(errno)?;
        match rustix::pipe::tee(&self.fd, &writer, 1, SpliceFlags::NONBLOCK) {
            Ok(copied) => Ok(copied > 0),
            Err(rustix::io::Errno::AGAIN) => Ok(true),
            Err(e) => Err(errno(e)),
        }
    }

    fn watch(&self, path: &[u8], mask: u32) -> Result<u32, Errno> {
        let mask = WatchFlags::from_bits_retain(mask);
        let number = rustix::fs::inotify::add_watch(&self.fd, path, mask).map_err(errno)?;
        Ok(number as u32)
    }

    fn unwatch(&self, number: u32) -> Result<(), Errno> {
        rustix::fs::inotify::remove_watch(&self.fd, number as i32).map_err(errno)
    }

    fn duplicate(&self) -> Result<OpenHostFile, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.fd, 3)
            .map(OpenHostFile::new)
            .map_err(errno)
    }
}

/// `d_type`: the type bits of a mode, moved down.
fn kind_number(kind: rustix::fs::FileType) -> u8 {
    if kind == rustix::fs::FileType::Unknown {
        0
    } else {
        (kind.as_raw_mode() >> 12) as u8
    }
}
