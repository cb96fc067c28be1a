//! Further ways to read, write and copy files: calls that others are made of.

use super::io::At;
use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::platform::{HostFile, Platform};
use crate::thread::Task;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// What is moved at once.
const CHUNK: u64 = 64 << 10;
const RWF_KNOWN: u32 = 0x1f;
const RWF_NOWAIT: u32 = 0x8;
const RWF_APPEND: u32 = 0x10;
const SPLICE_KNOWN: u32 = 0xf;
const SPLICE_NONBLOCK: u32 = 2;
/// `struct open_how`: flags, mode, resolve.
const OPEN_HOW: u64 = 24;
/// Flags of `open` that are known, and those that a path alone goes with.
const OPEN_KNOWN: u64 = 0x7ff_ffff & !0x3000_0000;
const PATH_KNOWN: u64 =
    (abi::O_PATH | abi::O_DIRECTORY | abi::O_NOFOLLOW | abi::O_CLOEXEC | abi::O_LARGEFILE) as u64;
const RESOLVE_KNOWN: u64 = 0x3f;
const NO_SYMLINKS: u64 = 4;

impl<P: Platform> Task<P> {
    pub(super) const COPIES: Calls<P> = &[
        (abi::__NR_preadv2, Self::preadv2),
        (abi::__NR_pwritev2, Self::pwritev2),
        (abi::__NR_copy_file_range, Self::copy_file_range),
        (abi::__NR_splice, Self::splice),
        (abi::__NR_tee, Self::tee),
        (abi::__NR_vmsplice, Self::vmsplice),
        (abi::__NR_sync_file_range, Self::sync_file_range),
        (abi::__NR_syncfs, Self::syncfs),
        (abi::__NR_readahead, Self::readahead),
        (abi::__NR_openat2, Self::openat2),
    ];

    fn preadv2(&mut self, [fd, iov, count, offset, _, flags]: Args) -> Answer {
        let flags = flags as u32;
        if flags & !RWF_KNOWN != 0 || flags & RWF_APPEND != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if flags & RWF_NOWAIT != 0 {
            self.check_ready(fd, abi::POLLIN)?;
        }
        match offset as i64 {
            -1 => self.readv([fd, iov, count, 0, 0, 0]),
            _ => self.preadv([fd, iov, count, offset, 0, 0]),
        }
    }

    fn pwritev2(&mut self, [fd, iov, count, offset, _, flags]: Args) -> Answer {
        let flags = flags as u32;
        if flags & !RWF_KNOWN != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let offset = if flags & RWF_APPEND != 0 && offset as i64 != -1 {
            self.file(fd)?.stat()?.size
        } else {
            offset
        };
        match offset as i64 {
            -1 => self.writev([fd, iov, count, 0, 0, 0]),
            _ => self.pwritev([fd, iov, count, offset, 0, 0]),
        }
    }

    /// `RWF_NOWAIT` of something that can wait.
    fn check_ready(&self, fd: u64, bits: u32) -> Result<(), Errno> {
        let file = self.file(fd)?;
        match &file.kind {
            Kind::Pipe(_) | Kind::Socket(_) if u32::from(file.poll(self)) & bits == 0 => {
                Err(Errno::EAGAIN)
            }
            _ => Ok(()),
        }
    }

    /// The same for a copy: one from before the beginning would run over the end of all offsets,
    /// which is looked at last.
    fn copy_offset(&self, at: u64) -> Result<Result<At, Errno>, Errno> {
        let negative = at != 0 && self.get::<i64>(at)? < 0;
        Ok(match negative {
            true => Err(Errno::EOVERFLOW),
            false => self.offset_at(at),
        })
    }

    fn offset_at(&self, at: u64) -> Result<At, Errno> {
        match at {
            0 => Ok(At::Own),
            at => At::absolute(self.get(at)?),
        }
    }

    fn store_offset(&self, to: u64, at: At) -> Result<(), Errno> {
        match at {
            At::Offset(end) if to != 0 => self.put(to, &end),
            _ => Ok(()),
        }
    }

    fn copy_file_range(&mut self, [from, from_at, to, to_at, len, flags]: Args) -> Answer {
        let (from, to) = (self.file(from)?, self.file(to)?);
        let (read, write) = (self.copy_offset(from_at)?, self.copy_offset(to_at)?);
        if flags as u32 != 0 {
            return Err(Errno::EINVAL);
        }
        for file in [&from, &to] {
            match &file.kind {
                Kind::Host(host) if host.is_directory() => return Err(Errno::EISDIR),
                Kind::Host(host) if host.is_regular() => {}
                Kind::Memory(_) => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        if !from.may_read() || !to.may_write() || to.flags() & abi::O_APPEND != 0 {
            return Err(Errno::EBADF);
        }
        let (mut read, mut write) = (read?, write?);
        let place = |at: At, f: &OpenFile<P>| match at {
            At::Own => f.position(),
            At::Offset(o) => o,
        };
        let (a, b) = (place(read, &from), place(write, &to));
        let same = from.lock_key() == to.lock_key();
        if same && a < b.saturating_add(len) && b < a.saturating_add(len) {
            return Err(Errno::EINVAL);
        }
        let done = self.pump((&from, &mut read), (&to, &mut write), len)?;
        self.store_offset(from_at, read)?;
        self.store_offset(to_at, write)?;
        Ok(done)
    }

    /// Moves up to `len` bytes from one file to another.
    fn pump(
        &self,
        (from, read): (&OpenFile<P>, &mut At),
        (to, write): (&OpenFile<P>, &mut At),
        len: u64,
    ) -> Answer {
        let mut done = 0;
        while done < len {
            let want = (len - done).min(CHUNK) as usize;
            let bytes = match self.read_some(from, *read, want) {
                Ok(bytes) => bytes,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            if bytes.is_empty() {
                break;
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let n = match self.write_some(to, *write, rest) {
                    Ok(n) => n,
                    Err(e) if done == 0 => return Err(e),
                    Err(_) => return Ok(done),
                };
                rest = &rest[n..];
                *write = write.further(n);
                *read = read.further(n);
                done += n as u64;
            }
            if bytes.len() < want {
                break;
            }
        }
        Ok(done)
    }

    fn splice(&mut self, [from, from_at, to, to_at, len, flags]: Args) -> Answer {
        if flags as u32 & !SPLICE_KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(0);
        }
        let (from, to) = (self.file(from)?, self.file(to)?);
        let is_pipe = |f: &OpenFile<P>| matches!(f.kind, Kind::Pipe(_));
        if !from.may_read() || !to.may_write() {
            return Err(Errno::EBADF);
        }
        let (from_pipe, to_pipe) = (is_pipe(&from), is_pipe(&to));
        if (from_pipe && from_at != 0) || (to_pipe && to_at != 0) {
            return Err(Errno::ESPIPE);
        }
        let appends = to.flags() & abi::O_APPEND != 0;
        if !to_pipe && (appends || !from_pipe) {
            return Err(Errno::EINVAL);
        }
        if let (Kind::Pipe(a), Kind::Pipe(b)) = (&from.kind, &to.kind)
            && a.id() == b.id()
        {
            return Err(Errno::EINVAL);
        }
        if flags as u32 & SPLICE_NONBLOCK != 0 && u32::from(from.poll(self)) & abi::POLLIN == 0 {
            return Err(Errno::EAGAIN);
        }
        let (mut read, mut write) = (self.offset_at(from_at)?, self.offset_at(to_at)?);
        // A pipe gives what it has; it takes no more than it holds.
        let len = len.min(CHUNK);
        let done = self.pump((&from, &mut read), (&to, &mut write), len)?;
        self.store_offset(from_at, read)?;
        self.store_offset(to_at, write)?;
        Ok(done)
    }

    fn tee(&mut self, [from, to, len, flags, ..]: Args) -> Answer {
        if flags as u32 & !SPLICE_KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(0);
        }
        let (from, to) = (self.file(from)?, self.file(to)?);
        let (Kind::Pipe(a), Kind::Pipe(b)) = (&from.kind, &to.kind) else {
            return Err(Errno::EINVAL);
        };
        if !from.may_read() || !to.may_write() {
            return Err(Errno::EBADF);
        }
        if a.id() == b.id() {
            return Err(Errno::EINVAL);
        }
        let nonblocking = flags as u32 & SPLICE_NONBLOCK != 0;
        let want = len.min(CHUNK) as usize;
        let bytes = self.wait_on(a.channel(), None, || match a.peek(want) {
            crate::fs::pipe::Attempt::Done(bytes) => Some(Ok(bytes)),
            crate::fs::pipe::Attempt::Broken => Some(Ok(Vec::new())),
            crate::fs::pipe::Attempt::Wait if nonblocking => Some(Err(Errno::EAGAIN)),
            crate::fs::pipe::Attempt::Wait => None,
        })??;
        if bytes.is_empty() {
            return Ok(0);
        }
        Ok(self.write_some(&to, At::Own, &bytes)? as u64)
    }

    /// Pages are copied, not given.
    fn vmsplice(&mut self, [fd, iov, count, flags, ..]: Args) -> Answer {
        if flags as u32 & !SPLICE_KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let file = self.file(fd)?;
        if !matches!(file.kind, Kind::Pipe(_)) {
            return Err(Errno::EBADF);
        }
        if file.may_write() {
            self.writev([fd, iov, count, 0, 0, 0])
        } else {
            self.readv([fd, iov, count, 0, 0, 0])
        }
    }

    fn sync_file_range(&mut self, [fd, offset, len, flags, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let end = (offset as i64).checked_add(len as i64);
        if flags as u32 & !7 != 0 || (offset as i64) < 0 || end.is_none_or(|e| e < offset as i64) {
            return Err(Errno::EINVAL);
        }
        match &file.kind {
            Kind::Host(host) if host.is_regular() => host.file.sync(true).map(|()| 0),
            Kind::Host(host) if host.is_directory() => Ok(0),
            Kind::Memory(_) => Ok(0),
            _ => Err(Errno::ESPIPE),
        }
    }

    fn syncfs(&mut self, [fd, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        if file.flags() & abi::O_PATH != 0 {
            return Err(Errno::EBADF);
        }
        match &file.kind {
            Kind::Host(host) if host.is_regular() => host.file.sync(false).map(|()| 0),
            _ => Ok(0),
        }
    }

    fn readahead(&mut self, [fd, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        if !file.may_read() {
            return Err(Errno::EBADF);
        }
        match &file.kind {
            Kind::Host(host) if host.is_regular() => Ok(0),
            Kind::Memory(_) => Ok(0),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Of what the resolution can be told, that links are not followed at all; the rest is the
    /// host's to check, and refused.
    fn openat2(&mut self, [dir, path, how, size, ..]: Args) -> Answer {
        if size < OPEN_HOW {
            return Err(Errno::EINVAL);
        }
        if size > 4096 {
            return Err(Errno::E2BIG);
        }
        let rest = self.bytes(how.wrapping_add(OPEN_HOW), (size - OPEN_HOW) as usize)?;
        if rest.iter().any(|&b| b != 0) {
            return Err(Errno::E2BIG);
        }
        let [flags, mode, resolve]: [u64; 3] = self.get(how)?;
        let creates = flags & u64::from(abi::O_CREAT) != 0
            || flags & u64::from(abi::O_TMPFILE) == u64::from(abi::O_TMPFILE);
        let path_only = flags & u64::from(abi::O_PATH) != 0;
        if flags & !OPEN_KNOWN != 0
            || resolve & !RESOLVE_KNOWN != 0
            || mode & !0o7777 != 0
            || (mode != 0 && !creates)
            || (path_only && flags & !PATH_KNOWN != 0)
            || resolve & 0x18 == 0x18
        {
            return Err(Errno::EINVAL);
        }
        let name = self.path(path)?;
        if resolve & !1 != 0 {
            self.check_resolution(dir, &name, resolve)?;
        }
        self.openat([dir, path, flags, mode, 0, 0])
    }

    /// What is asked of each step of a path, as far as it can be told from the outside.
    fn check_resolution(&self, dir: u64, path: &[u8], resolve: u64) -> Result<(), Errno> {
        const BENEATH: u64 = 8;
        const IN_ROOT: u64 = 0x10;
        const CACHED: u64 = 0x20;
        if resolve & CACHED != 0 {
            return Err(Errno::EAGAIN);
        }
        let absolute = path.first() == Some(&b'/');
        if resolve & BENEATH != 0 && absolute {
            return Err(Errno::EXDEV);
        }
        if resolve & IN_ROOT != 0 && absolute {
            return Err(Errno::EOPNOTSUPP);
        }
        let (mut depth, mut so_far) = (0i32, Vec::new());
        if absolute {
            so_far.push(b'/');
        }
        for part in path.split(|&b| b == b'/').filter(|p| !p.is_empty()) {
            so_far.extend_from_slice(part);
            depth += match part {
                b"." => 0,
                b".." => -1,
                _ => 1,
            };
            if depth < 0 && resolve & (BENEATH | IN_ROOT) != 0 {
                return Err(Errno::EXDEV);
            }
            let start = self.start_for(dir, &so_far)?;
            let links = resolve & (NO_SYMLINKS | BENEATH | IN_ROOT) != 0;
            if links && self.sys.platform.read_link(start.base()?, &so_far).is_ok() {
                let loops = resolve & NO_SYMLINKS != 0;
                return Err(if loops { Errno::ELOOP } else { Errno::EXDEV });
            }
            so_far.push(b'/');
        }
        Ok(())
    }
}
