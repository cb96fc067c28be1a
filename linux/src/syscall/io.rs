//! Reading and writing.

use super::{Answer, Args, Calls};
use crate::blocking::Unfinished;
use crate::errno::Errno;
use crate::fs::event::EventCounter;
use crate::fs::file::{HostOpen, Kind, OpenFile};
use crate::fs::pipe::{Attempt, PipeEnd};
use crate::fs::socket::SocketKind;
use crate::fs::special::Special;
use crate::platform::{HostFile, Platform};
use crate::signal::SigInfo;
use crate::space::TASK_END;
use crate::thread::Task;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// `MAX_RW_COUNT`: what one call moves at most.
const MOST: u64 = 0x7fff_f000;
/// What is moved at once.
const CHUNK: usize = 128 << 10;
const IOV_MAX: u64 = 1024;
const RLIMIT_FSIZE: u32 = 1;

/// Where in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// At the file's own offset, which moves.
    Own,
    /// At this byte; the offset stays.
    Offset(u64),
}

impl At {
    pub(super) fn absolute(offset: u64) -> Result<At, Errno> {
        if (offset as i64) < 0 {
            Err(Errno::EINVAL)
        } else {
            Ok(At::Offset(offset))
        }
    }

    pub(super) fn further(self, bytes: usize) -> At {
        match self {
            At::Own => At::Own,
            At::Offset(at) => At::Offset(at.saturating_add(bytes as u64)),
        }
    }
}

impl<P: Platform> Task<P> {
    pub(super) const IO: Calls<P> = &[
        (abi::__NR_read, Self::read),
        (abi::__NR_write, Self::write),
        (abi::__NR_pread64, Self::pread),
        (abi::__NR_pwrite64, Self::pwrite),
        (abi::__NR_readv, Self::readv),
        (abi::__NR_writev, Self::writev),
        (abi::__NR_preadv, Self::preadv),
        (abi::__NR_pwritev, Self::pwritev),
        (abi::__NR_sendfile, Self::sendfile),
    ];

    fn read(&mut self, [fd, to, len, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        self.read_to(&file, At::Own, to, len)
    }

    fn write(&mut self, [fd, from, len, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        self.write_from(&file, At::Own, from, len)
    }

    fn pread(&mut self, [fd, to, len, offset, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        self.read_to(&file, At::absolute(offset)?, to, len)
    }

    fn pwrite(&mut self, [fd, from, len, offset, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        self.write_from(&file, At::absolute(offset)?, from, len)
    }

    pub(super) fn readv(&mut self, [fd, iov, count, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        self.each_vector(iov, count, At::Own, |at, base, len| {
            self.read_to(&file, at, base, len)
        })
    }

    pub(super) fn writev(&mut self, [fd, iov, count, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        self.each_vector(iov, count, At::Own, |at, base, len| {
            self.write_from(&file, at, base, len)
        })
    }

    pub(super) fn preadv(&mut self, [fd, iov, count, offset, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let at = At::absolute(offset)?;
        self.each_vector(iov, count, at, |at, base, len| {
            self.read_to(&file, at, base, len)
        })
    }

    pub(super) fn pwritev(&mut self, [fd, iov, count, offset, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let at = At::absolute(offset)?;
        self.each_vector(iov, count, at, |at, base, len| {
            self.write_from(&file, at, base, len)
        })
    }

    /// A list of buffers: address and length of each.
    pub(super) fn vectors(&self, iov: u64, count: u64) -> Result<Vec<(u64, u64)>, Errno> {
        if count > IOV_MAX {
            return Err(Errno::EINVAL);
        }
        let raw = self.bytes(iov, count as usize * 16)?;
        let word = |i: usize| {
            let bytes = raw.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        let vectors: Vec<(u64, u64)> = (0..count as usize)
            .map(|i| (word(i * 2), word(i * 2 + 1)))
            .collect();
        if vectors.iter().any(|v| v.1 > i64::MAX as u64) {
            return Err(Errno::EINVAL);
        }
        Ok(vectors)
    }

    /// Carries `act` out for each of a list of buffers, until one is not filled.
    fn each_vector(
        &self,
        iov: u64,
        count: u64,
        mut at: At,
        act: impl Fn(At, u64, u64) -> Answer,
    ) -> Answer {
        let vectors = self.vectors(iov, count)?;
        for &(base, len) in &vectors {
            check_place(base, len)?;
        }
        let mut done = 0u64;
        for (base, len) in vectors {
            if len == 0 {
                continue;
            }
            match act(at, base, len) {
                Ok(n) => {
                    done += n;
                    at = at.further(n as usize);
                    if n < len {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn read_to(&self, file: &OpenFile<P>, mut at: At, to: u64, len: u64) -> Answer {
        if !file.may_read() {
            return Err(Errno::EBADF);
        }
        check_place(to, len)?;
        let len = len.min(MOST);
        let mut done = 0u64;
        loop {
            let want = (len - done).min(at_once(file)) as usize;
            let place = to.checked_add(done).ok_or(Errno::EFAULT)?;
            let room = self.writable(place, want);
            if room == 0 && want > 0 {
                return self.read_nothing(file, at, done);
            }
            let bytes = match self.read_some(file, at, room) {
                Ok(bytes) => bytes,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            let written = self.write_up_to(place, &bytes);
            let n = written.unwrap_or(0);
            if n < bytes.len() && matches!(at, At::Own) {
                let back = (bytes.len() - n) as i64;
                file.seek(-back, abi::SEEK_CUR).ok();
            }
            match written {
                Err(e) if done == 0 && !bytes.is_empty() => return Err(e),
                _ => done += n as u64,
            }
            at = at.further(n);
            if n < want || done == len || !fills(file) {
                break;
            }
        }
        Ok(done)
    }

    /// What a read says that has nowhere to put anything, after `done` bytes: nothing at the end
    /// of a file is well put anywhere.
    fn read_nothing(&self, file: &OpenFile<P>, at: At, done: u64) -> Answer {
        if done > 0 {
            return Ok(done);
        }
        let left = match (&file.kind, at) {
            (Kind::Host(host), _) if host.is_directory() => return Err(Errno::EISDIR),
            (Kind::Memory(_), _) => true,
            (Kind::Host(host), _) => host.is_regular(),
            _ => false,
        };
        if left {
            let at = match at {
                At::Own => file.seek(0, abi::SEEK_CUR)?,
                At::Offset(o) => o,
            };
            if at >= file.stat()?.size {
                return Ok(0);
            }
        }
        Err(Errno::EFAULT)
    }

    /// Reads once.
    pub(super) fn read_some(
        &self,
        file: &OpenFile<P>,
        at: At,
        want: usize,
    ) -> Result<Vec<u8>, Errno> {
        let mut buf = vec![0; want];
        let n = match (&file.kind, at) {
            (Kind::Pipe(end), At::Own) => return self.read_pipe(file.is_nonblocking(), end, want),
            (Kind::Socket(socket), At::Own) => return self.read_socket(file, socket, want),
            (Kind::Event(event), At::Own) => self.read_event(file, event, &mut buf)?,
            (Kind::Special(special), At::Own) => self.read_special(file, &**special, &mut buf)?,
            (Kind::Epoll(_), _) => return Err(Errno::EINVAL),
            (
                Kind::Pipe(_) | Kind::Socket(_) | Kind::Event(_) | Kind::Special(_),
                At::Offset(_),
            ) => {
                return Err(Errno::ESPIPE);
            }
            (Kind::Host(host), At::Own) => self.read_host(file, host, &mut buf)?,
            (Kind::Host(host), At::Offset(o)) => host.read_at(self.sys, o, &mut buf)?,
            (Kind::Memory(memory), At::Own) => memory.read(&mut buf)?,
            (Kind::Memory(memory), At::Offset(o)) => memory.read_at(o, &mut buf)?,
            (Kind::Listing(_), _) => return Err(Errno::EISDIR),
            (Kind::Text(text), At::Own) => text.read(&mut buf)?,
            (Kind::Text(text), At::Offset(o)) => text.read_at(o, &mut buf)?,
            (Kind::Raw(raw), At::Own) => raw.read(&mut buf)?,
            (Kind::Raw(raw), At::Offset(o)) => raw.read_at(o, &mut buf)?,
        };
        buf.truncate(n);
        Ok(buf)
    }

    fn read_pipe(
        &self,
        nonblocking: bool,
        end: &PipeEnd<P>,
        want: usize,
    ) -> Result<Vec<u8>, Errno> {
        let attempt = || match end.take(want) {
            Attempt::Done(bytes) => Some(Ok(bytes)),
            Attempt::Broken => Some(Ok(Vec::new())),
            Attempt::Wait if nonblocking => Some(Err(Errno::EAGAIN)),
            Attempt::Wait => None,
        };
        self.wait_on(end.channel(), None, attempt)?
    }

    fn read_host(
        &self,
        file: &OpenFile<P>,
        host: &HostOpen<P>,
        buf: &mut [u8],
    ) -> Result<usize, Errno> {
        if host.is_directory() {
            return Err(Errno::EISDIR);
        }
        if !host.waits() {
            return host.read(self.sys, buf);
        }
        self.job_control(host, abi::SIGTTIN)?;
        loop {
            self.wait_host(file, host, abi::POLLIN)?;
            match host.file.read(buf) {
                // Somebody else was faster.
                Err(Errno::EAGAIN) if !file.is_nonblocking() => {}
                read => return read,
            }
        }
    }

    /// Waits until a file of the host has something to read or room to write.
    fn wait_host(&self, file: &OpenFile<P>, host: &HostOpen<P>, bits: u32) -> Result<(), Errno> {
        let deadline = file.is_nonblocking().then_some(0);
        loop {
            let kicker = self.thread.kicker();
            let files = [(&*host.file, bits as u16)];
            self.thread.waiting.store(true, Ordering::Relaxed);
            let ready = self.sys.platform.wait_files(&kicker, &files, deadline);
            self.thread.waiting.store(false, Ordering::Relaxed);
            let ready = ready?;
            if ready.iter().any(|&b| b != 0) {
                return Ok(());
            }
            if file.is_nonblocking() {
                // One without a writer is at its end, which only reading it tells.
                let reads = host.kind == abi::S_IFIFO && bits == abi::POLLIN;
                let asks = reads && host.file.flags()? & abi::O_NONBLOCK != 0;
                return if asks { Ok(()) } else { Err(Errno::EAGAIN) };
            }
            if self.is_interrupted() {
                return Err(Unfinished::Signal.into());
            }
        }
    }

    fn write_from(&self, file: &OpenFile<P>, mut at: At, from: u64, len: u64) -> Answer {
        if !file.may_write() {
            return Err(Errno::EBADF);
        }
        check_place(from, len)?;
        let len = len.min(MOST);
        let mut done = 0u64;
        loop {
            let want = (len - done).min(at_once(file)) as usize;
            let place = from.checked_add(done).ok_or(Errno::EFAULT)?;
            let written = self
                .bytes_up_to(place, want)
                .and_then(|b| self.write_some(file, at, &b));
            match written {
                Ok(n) => {
                    done += n as u64;
                    at = at.further(n);
                    if n == 0 || done >= len || (n < want && fills(file)) {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Writes once.
    pub(super) fn write_some(
        &self,
        file: &OpenFile<P>,
        at: At,
        bytes: &[u8],
    ) -> Result<usize, Errno> {
        let bytes = self.within_limit(file, at, bytes)?;
        let append = file.flags() & abi::O_APPEND != 0;
        match (&file.kind, at) {
            (Kind::Pipe(end), At::Own) => {
                self.broken_pipe(self.write_pipe(file.is_nonblocking(), end, bytes))
            }
            (Kind::Socket(socket), At::Own) => {
                let written = self.write_socket(file, socket, bytes.to_vec());
                match socket.kind {
                    SocketKind::Stream => self.broken_pipe(written),
                    _ => written,
                }
            }
            (Kind::Event(event), At::Own) => self.write_event(file, event, bytes),
            (Kind::Epoll(_) | Kind::Special(_), _) => Err(Errno::EINVAL),
            (Kind::Pipe(_) | Kind::Socket(_) | Kind::Event(_), At::Offset(_)) => Err(Errno::ESPIPE),
            (Kind::Host(host), At::Own) => {
                if host.waits() {
                    self.job_control_of_output(host)?;
                    self.wait_host(file, host, abi::POLLOUT)?;
                }
                let written = host.write(self.sys, bytes);
                if let Ok(n) = written {
                    self.sys.typed(host, &bytes[..n]);
                }
                self.broken_pipe(written)
            }
            (Kind::Host(host), At::Offset(o)) => host.write_at(self.sys, o, bytes),
            (Kind::Memory(memory), At::Own) => memory.write(bytes, append),
            (Kind::Memory(memory), At::Offset(o)) => memory.write_at(o, bytes),
            (Kind::Text(text), _) => text.write(bytes),
            (Kind::Raw(raw), At::Own) => raw.write(bytes),
            (Kind::Raw(raw), At::Offset(o)) => raw.write_at(o, bytes),
            (Kind::Listing(_), _) => Err(Errno::EINVAL),
        }
    }

    /// What of `bytes` may be written without a file becoming larger than allowed.
    fn within_limit<'b>(
        &self,
        file: &OpenFile<P>,
        at: At,
        bytes: &'b [u8],
    ) -> Result<&'b [u8], Errno> {
        let has_size = match &file.kind {
            Kind::Host(host) => host.is_regular(),
            Kind::Memory(_) => true,
            _ => false,
        };
        let limit = self.process.limit(RLIMIT_FSIZE);
        if !has_size || limit == u64::MAX {
            return Ok(bytes);
        }
        let from = match at {
            At::Offset(o) => o,
            At::Own if file.flags() & abi::O_APPEND != 0 => file.stat()?.size,
            At::Own => file.position(),
        };
        match limit.checked_sub(from) {
            None | Some(0) if !bytes.is_empty() => Err(self.too_large()),
            Some(room) => Ok(&bytes[..bytes.len().min(room as usize)]),
            None => Ok(bytes),
        }
    }

    /// `SIGXFSZ`, and the error that goes with it.
    pub(super) fn too_large(&self) -> Errno {
        let info = SigInfo::sent(abi::SIGXFSZ, 0, self.process.pid, 0);
        self.sys.signal_thread(None, self.thread.tid(), info).ok();
        Errno::EFBIG
    }

    /// Refuses a size beyond the limit of files.
    pub(super) fn check_size(&self, bytes: u64) -> Result<(), Errno> {
        if bytes > self.process.limit(RLIMIT_FSIZE) && bytes <= i64::MAX as u64 {
            return Err(self.too_large());
        }
        Ok(())
    }

    fn write_pipe(
        &self,
        nonblocking: bool,
        end: &PipeEnd<P>,
        bytes: &[u8],
    ) -> Result<usize, Errno> {
        let attempt = || match end.add(bytes) {
            Attempt::Done(n) => Some(Ok(n)),
            Attempt::Broken => Some(Err(Errno::EPIPE)),
            Attempt::Wait if nonblocking => Some(Err(Errno::EAGAIN)),
            Attempt::Wait => None,
        };
        self.wait_on(end.channel(), None, attempt)?
    }

    fn read_special(
        &self,
        file: &OpenFile<P>,
        special: &dyn Special<P>,
        buf: &mut [u8],
    ) -> Result<usize, Errno> {
        loop {
            let (channel, due) = (special.channel(self), special.due(self));
            let read = self.wait_on(channel, due, || match special.read(self, buf) {
                None if file.is_nonblocking() => Some(Err(Errno::EAGAIN)),
                other => other,
            });
            match read {
                Ok(result) => return result,
                // It is due now, or was set anew.
                Err(Unfinished::Deadline) => {}
                Err(Unfinished::Signal) => return Err(Errno::RESTART),
            }
        }
    }

    fn read_event(
        &self,
        file: &OpenFile<P>,
        event: &EventCounter<P>,
        buf: &mut [u8],
    ) -> Result<usize, Errno> {
        let place = buf.get_mut(..8).ok_or(Errno::EINVAL)?;
        let attempt = || match event.take() {
            Some(count) => Some(Ok(count)),
            None if file.is_nonblocking() => Some(Err(Errno::EAGAIN)),
            None => None,
        };
        let count = self.wait_on(event.channel(), None, attempt)??;
        place.copy_from_slice(&count.to_le_bytes());
        Ok(8)
    }

    fn write_event(
        &self,
        file: &OpenFile<P>,
        event: &EventCounter<P>,
        bytes: &[u8],
    ) -> Result<usize, Errno> {
        let number = bytes.get(..8).and_then(|b| b.try_into().ok());
        let number = number.map(u64::from_le_bytes).ok_or(Errno::EINVAL)?;
        if number == u64::MAX {
            return Err(Errno::EINVAL);
        }
        let attempt = || match event.add(number) {
            Some(()) => Some(Ok(8)),
            None if file.is_nonblocking() => Some(Err(Errno::EAGAIN)),
            None => None,
        };
        self.wait_on(event.channel(), None, attempt)?
    }

    /// `SIGPIPE` for whoever writes to a pipe that nobody reads.
    pub(super) fn broken_pipe(&self, result: Result<usize, Errno>) -> Result<usize, Errno> {
        if result == Err(Errno::EPIPE) {
            let info = SigInfo::sent(abi::SIGPIPE, 0, self.process.pid, 0);
            self.sys.signal_thread(None, self.thread.tid(), info).ok();
        }
        result
    }

    fn sendfile(&mut self, [to, from, offset, len, ..]: Args) -> Answer {
        let (to, from) = (self.file(to)?, self.file(from)?);
        if !to.may_write() || !from.may_read() {
            return Err(Errno::EBADF);
        }
        if matches!(from.kind, Kind::Pipe(_)) || to.flags() & abi::O_APPEND != 0 {
            return Err(Errno::EINVAL);
        }
        let mut at = if offset == 0 {
            At::Own
        } else {
            At::absolute(self.get(offset)?)?
        };
        let len = len.min(MOST);
        let mut done = 0u64;
        while done < len {
            let want = (len - done).min(CHUNK as u64) as usize;
            let bytes = self.read_some(&from, at, want)?;
            if bytes.is_empty() {
                break;
            }
            let n = self.write_all(&to, &bytes)?;
            done += n as u64;
            at = at.further(n);
            if n < bytes.len() {
                break;
            }
        }
        if let At::Offset(end) = at {
            self.put(offset, &end)?;
        }
        Ok(done)
    }

    fn write_all(&self, to: &OpenFile<P>, bytes: &[u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_some(to, At::Own, &bytes[done..]) {
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}

/// Refuses a buffer that no program can have, however much of it would be used.
fn check_place(base: u64, len: u64) -> Result<(), Errno> {
    let end = base.checked_add(len).ok_or(Errno::EFAULT)?;
    if end > TASK_END {
        return Err(Errno::EFAULT);
    }
    Ok(())
}

/// What is moved at once: a message is one piece.
fn at_once<P: Platform>(file: &OpenFile<P>) -> u64 {
    const MESSAGE: u64 = 1 << 20;
    match &file.kind {
        Kind::Socket(socket) if socket.kind.has_messages() => MESSAGE,
        _ => CHUNK as u64,
    }
}

/// Whether a short transfer means the end, so that a long one goes on.
fn fills<P: Platform>(file: &OpenFile<P>) -> bool {
    match &file.kind {
        Kind::Host(host) => !host.waits(),
        Kind::Memory(_) | Kind::Text(_) => true,
        Kind::Raw(_) => false,
        Kind::Pipe(_) | Kind::Socket(_) | Kind::Event(_) => false,
        Kind::Listing(_) | Kind::Epoll(_) | Kind::Special(_) => false,
    }
}
