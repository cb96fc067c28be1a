//! Descriptors: opening, closing, duplicating, and what is asked of an open file.

use super::{Answer, Args, Calls};
use crate::creds::cap;
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::fs::memfile::MemFile;
use crate::fs::path::{Own, is_own_terminal};
use crate::fs::pipe::Pipe;
use crate::fs::proc::Node;
use crate::fs::table::OnExec;
use crate::platform::{DirEntry, HostFile, Platform};
use crate::terminal::pty_path;
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;
use linux_raw_sys::ioctl;

const RLIMIT_NOFILE: u32 = 7;
const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

impl<P: Platform> Task<P> {
    pub(super) const FILE: Calls<P> = &[
        (abi::__NR_open, Self::open),
        (abi::__NR_openat, Self::openat),
        (abi::__NR_creat, Self::creat),
        (abi::__NR_close, Self::close),
        (abi::__NR_close_range, Self::close_range),
        (abi::__NR_lseek, Self::lseek),
        (abi::__NR_dup, Self::dup),
        (abi::__NR_dup2, Self::dup2),
        (abi::__NR_dup3, Self::dup3),
        (abi::__NR_ioctl, Self::ioctl),
        (abi::__NR_pipe, Self::pipe),
        (abi::__NR_pipe2, Self::pipe2),
        (abi::__NR_ftruncate, Self::ftruncate),
        (abi::__NR_truncate, Self::truncate),
        (abi::__NR_fsync, Self::fsync),
        (abi::__NR_fdatasync, Self::fdatasync),
        (abi::__NR_fallocate, Self::fallocate),
        (abi::__NR_fadvise64, Self::fadvise),
        (abi::__NR_getdents64, Self::getdents),
        (abi::__NR_getdents, Self::old_getdents),
    ];

    pub(super) fn descriptor_limit(&self) -> u64 {
        self.process.limit(RLIMIT_NOFILE)
    }

    /// Gives a file the lowest free descriptor.
    pub(super) fn install(&self, file: Arc<OpenFile<P>>, on_exec: OnExec) -> Answer {
        let limit = self.descriptor_limit();
        let fd = self.process.files().install(file, on_exec, 0, limit)?;
        Ok(u64::from(fd))
    }

    fn open(&mut self, [path, flags, mode, ..]: Args) -> Answer {
        self.openat([abi::AT_FDCWD as u64, path, flags, mode, 0, 0])
    }

    fn creat(&mut self, [path, mode, ..]: Args) -> Answer {
        let flags = abi::O_CREAT | abi::O_WRONLY | abi::O_TRUNC;
        self.openat([abi::AT_FDCWD as u64, path, u64::from(flags), mode, 0, 0])
    }

    pub(super) fn openat(&mut self, [dir, path, flags, mode, ..]: Args) -> Answer {
        let path = self.path(path)?;
        let flags = flags as u32;
        let on_exec = OnExec::from_flags(flags);
        self.process.files().check_room(self.descriptor_limit())?;
        let file = match self.own_path_at(dir, &path) {
            None if is_own_terminal(&path) => Arc::new(self.open_own_terminal(flags)?),
            Some((own, full)) => self.open_own(&own, &full, flags)?,
            None => Arc::new(self.open_host(dir, &path, flags, mode as u32)?),
        };
        self.install(file, on_exec)
    }

    pub(super) fn open_host(
        &self,
        dir: u64,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<OpenFile<P>, Errno> {
        let start = self.start_for(dir, path)?;
        let umask = self.process.umask();
        let new = abi::O_CREAT | abi::O_EXCL;
        if flags & abi::O_ACCMODE != abi::O_RDONLY && flags & (new | abi::O_PATH) != new {
            self.sys.refuse_executed(start.base()?, path)?;
        }
        let mode = mode & 0o7777 & !umask;
        let (base, wanted) = (start.base()?, flags & !abi::O_CLOEXEC);
        let file = match self.may_wait_for_end(base, path, flags) {
            true => self.open_fifo(base, path, wanted, mode)?,
            false => self.sys.platform.open(base, path, wanted, mode)?,
        };
        let file = OpenFile::host(file)?.opened(self.sys)?;
        if let Some(host) = file.as_host()
            && flags & abi::O_NOCTTY == 0
            && file.may_read()
        {
            self.adopt_terminal(host);
        }
        if flags & abi::O_TRUNC != 0 {
            // Its pages, if it has any, are told of the new size.
            if let Some(inode) = file
                .as_host()
                .and_then(|h| self.sys.inodes.existing(self.sys, h.key))
            {
                inode.refresh()?;
            }
        }
        if flags & abi::O_NONBLOCK != 0 {
            file.set_flags(file.flags() | abi::O_NONBLOCK)?;
        }
        Ok(file)
    }

    /// `/dev/tty`: the terminal of the caller's session.
    fn open_own_terminal(&self, flags: u32) -> Result<OpenFile<P>, Errno> {
        let device = self.controlling().ok_or(Errno::ENXIO)?.device;
        let runners = self.sys.platform.standing().terminal == Some(device);
        let path = match runners {
            true => b"/dev/tty".to_vec(),
            false => pty_path(device).ok_or(Errno::ENXIO)?,
        };
        let kept = flags & !(abi::O_CREAT | abi::O_EXCL);
        self.open_host(abi::AT_FDCWD as u64, &path, kept | abi::O_NOCTTY, 0)
    }

    fn open_own(&self, own: &Own, path: &[u8], flags: u32) -> Result<Arc<OpenFile<P>>, Errno> {
        if flags & (abi::O_CREAT | abi::O_EXCL) == abi::O_CREAT | abi::O_EXCL {
            return Err(Errno::EEXIST);
        }
        if let Own::Fd(fd) = own {
            let file = self.file(u64::from(*fd)).map_err(|_| Errno::ENOENT)?;
            // The same open file: its offset is shared, which a second opening would not do.
            return Ok(file.reopen(flags)?.map_or(file, Arc::new));
        }
        if *own == Own::KernelPage {
            if flags & abi::O_ACCMODE != abi::O_RDONLY {
                return Err(Errno::EACCES);
            }
            let page = MemFile::kernel_page(self.sys)?;
            return Ok(Arc::new(OpenFile::kernel_page(page)));
        }
        let access = flags & abi::O_ACCMODE;
        let node = self.node(own)?;
        let may_be_directory = matches!(node, Node::Dir(_) | Node::Host(_) | Node::Link(_));
        if flags & abi::O_DIRECTORY != 0 && !may_be_directory {
            return Err(Errno::ENOTDIR);
        }
        let kept = flags & (abi::O_ACCMODE | abi::O_NONBLOCK | abi::O_APPEND);
        let named = path.to_vec();
        let file = match node {
            Node::Text(_, None) | Node::Raw(_, None)
                if access != abi::O_RDONLY && !self.capable(cap::DAC_OVERRIDE) =>
            {
                return Err(Errno::EACCES);
            }
            Node::Text(text, take) => OpenFile::text(named, text, take, kept),
            // Not even by the superuser.
            Node::Order(_) if access != abi::O_WRONLY => return Err(Errno::EACCES),
            Node::Order(take) => {
                let empty = alloc::boxed::Box::new(|| Err(Errno::EINVAL));
                OpenFile::text(named, empty, Some(take), kept)
            }
            Node::Raw(read, write) => OpenFile::raw(named, read, write, kept),
            Node::Dir(_) if access != abi::O_RDONLY => return Err(Errno::EISDIR),
            Node::Dir(names) => OpenFile::listing(named, names),
            Node::Host(_) if access != abi::O_RDONLY => return Err(Errno::EACCES),
            Node::Host(at) => {
                let flags = flags & !(abi::O_CLOEXEC | abi::O_CREAT);
                OpenFile::host(self.sys.platform.open(None, &at, flags, 0)?)?
            }
            Node::Link(_) if flags & abi::O_NOFOLLOW != 0 => return Err(Errno::ELOOP),
            Node::Link(to) => return self.open_link(own, &to, flags),
        };
        Ok(Arc::new(file))
    }

    /// Opens what a link of ours leads to.
    fn open_link(&self, own: &Own, to: &[u8], flags: u32) -> Result<Arc<OpenFile<P>>, Errno> {
        if let Own::SelfLink | Own::ThreadLink = own {
            let to = [b"/proc/", to].concat();
            let (own, path) = self
                .own_path_at(abi::AT_FDCWD as u64, &to)
                .ok_or(Errno::ENOENT)?;
            return self.open_own(&own, &path, flags);
        }
        if let Some(file) = self.descriptor_of(own)? {
            return Ok(file);
        }
        let file = self
            .sys
            .platform
            .open(None, to, flags & !abi::O_CLOEXEC, 0)?;
        Ok(Arc::new(OpenFile::host(file)?))
    }

    /// The open file that `/proc/PID/fd/N` stands for.
    fn descriptor_of(&self, own: &Own) -> Result<Option<Arc<OpenFile<P>>>, Errno> {
        let Own::Process(pid, name) = own else {
            return Ok(None);
        };
        let number = name.strip_prefix(b"fd/").map(core::str::from_utf8);
        let Some(Ok(number)) = number else {
            return Ok(None);
        };
        let fd = number.parse().map_err(|_| Errno::ENOENT)?;
        let files = self.process_with(*pid)?.files();
        files.get(fd).map(Some).map_err(|_| Errno::ENOENT)
    }

    fn close(&mut self, [fd, ..]: Args) -> Answer {
        let files = self.process.files();
        let file = files.remove(fd as u32)?;
        self.sys.closed_by(&file, self.process.pid);
        drop(file);
        self.sys.inodes.sweep(self.sys);
        Ok(0)
    }

    fn close_range(&mut self, [first, last, flags, ..]: Args) -> Answer {
        let (first, last) = (first as u32, last as u32);
        if first > last {
            return Err(Errno::EINVAL);
        }
        let flags = flags as u32;
        if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 {
            return Err(Errno::EINVAL);
        }
        if flags & CLOSE_RANGE_UNSHARE != 0 {
            self.process.unshare_files();
        }
        let files = self.process.files();
        if flags & CLOSE_RANGE_CLOEXEC == 0 {
            self.closed_all(files.take_range(first..=last));
        } else {
            for fd in files.numbers() {
                if (first..=last).contains(&fd) {
                    files.set_on_exec(fd, OnExec::Close)?;
                }
            }
        }
        self.sys.inodes.sweep(self.sys);
        Ok(0)
    }

    /// What was closed goes, and this process's locks of it.
    pub(super) fn closed_all(&self, files: Vec<Arc<OpenFile<P>>>) {
        for file in &files {
            self.sys.closed_by(file, self.process.pid);
        }
        drop(files);
    }

    fn lseek(&mut self, [fd, offset, whence, ..]: Args) -> Answer {
        self.file(fd)?.seek(offset as i64, whence as u32)
    }

    fn dup(&mut self, [fd, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        self.install(file, OnExec::Keep)
    }

    fn dup2(&mut self, [from, to, ..]: Args) -> Answer {
        if from as u32 == to as u32 {
            return self.file(from).map(|_| u64::from(to as u32));
        }
        self.dup3([from, to, 0, 0, 0, 0])
    }

    fn dup3(&mut self, [from, to, flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        if from as u32 == to as u32 || flags & !abi::O_CLOEXEC != 0 {
            return Err(Errno::EINVAL);
        }
        let file = self.file(from)?;
        let limit = self.descriptor_limit();
        let files = self.process.files();
        let old = files.replace(to as u32, file, OnExec::from_flags(flags), limit)?;
        if let Some(old) = old {
            self.sys.closed_by(&old, self.process.pid);
            drop(old);
            self.sys.inodes.sweep(self.sys);
        }
        Ok(u64::from(to as u32))
    }

    fn ioctl(&mut self, [fd, request, arg, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let files = self.process.files();
        match request as u32 {
            ioctl::FIOCLEX => files.set_on_exec(fd as u32, OnExec::Close).map(|()| 0),
            ioctl::FIONCLEX => files.set_on_exec(fd as u32, OnExec::Keep).map(|()| 0),
            ioctl::FIONBIO => {
                let on: u32 = self.get(arg)?;
                let bit = if on != 0 { abi::O_NONBLOCK } else { 0 };
                file.set_flags(file.flags() & !abi::O_NONBLOCK | bit)
                    .map(|()| 0)
            }
            ioctl::FIOASYNC => {
                let on: u32 = self.get(arg)?;
                let bit = if on != 0 { abi::FASYNC } else { 0 };
                file.set_flags(file.flags() & !abi::FASYNC | bit)
                    .map(|()| 0)
            }
            ioctl::FIGETBSZ if matches!(file.kind, Kind::Host(_) | Kind::Memory(_)) => {
                self.put(arg, &file.stat()?.block_size).map(|()| 0)
            }
            request => match &file.kind {
                Kind::Host(host) => self.terminal(host, request, arg),
                Kind::Pipe(pipe) if request == ioctl::FIONREAD => {
                    self.put(arg, &(pipe.readable() as u32)).map(|()| 0)
                }
                Kind::Socket(socket) if request == ioctl::FIONREAD => {
                    if socket.state.lock().listening.is_some() {
                        return Err(Errno::EINVAL);
                    }
                    let n = socket.inbox.readable(!socket.kind.connects());
                    self.put(arg, &(n as u32)).map(|()| 0)
                }
                _ => Err(Errno::ENOTTY),
            },
        }
    }

    fn pipe(&mut self, [to, ..]: Args) -> Answer {
        self.pipe2([to, 0, 0, 0, 0, 0])
    }

    fn pipe2(&mut self, [to, flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        if flags & !(abi::O_CLOEXEC | abi::O_NONBLOCK | abi::O_DIRECT) != 0 {
            return Err(Errno::EINVAL);
        }
        let (reader, writer) = Pipe::create(self.sys);
        let on_exec = OnExec::from_flags(flags);
        let status = flags & abi::O_NONBLOCK;
        let reader = Arc::new(OpenFile::pipe(reader, abi::O_RDONLY | status));
        let writer = Arc::new(OpenFile::pipe(writer, abi::O_WRONLY | status));
        let first = self.install(reader, on_exec)?;
        let files = self.process.files();
        let both = self.install(writer, on_exec).and_then(|second| {
            let stored = self.put(to, &[first as u32, second as u32]);
            stored.inspect_err(|_| drop(files.remove(second as u32)))
        });
        if let Err(e) = both {
            drop(files.remove(first as u32));
            return Err(e);
        }
        Ok(0)
    }

    fn ftruncate(&mut self, [fd, len, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        if (len as i64) < 0 {
            return Err(Errno::EINVAL);
        }
        if file.flags() & abi::O_PATH != 0 {
            return Err(Errno::EBADF);
        }
        if file.may_write() {
            self.check_size(len)?;
        }
        file.truncate(self.sys, len).map(|()| 0)
    }

    fn truncate(&mut self, [path, len, ..]: Args) -> Answer {
        let path = self.path(path)?;
        if (len as i64) < 0 {
            return Err(Errno::EINVAL);
        }
        let file = self.open_host(abi::AT_FDCWD as u64, &path, abi::O_WRONLY, 0)?;
        self.check_size(len)?;
        file.truncate(self.sys, len).map(|()| 0)
    }

    fn fsync(&mut self, [fd, ..]: Args) -> Answer {
        self.sync_file(fd, false)
    }

    fn fdatasync(&mut self, [fd, ..]: Args) -> Answer {
        self.sync_file(fd, true)
    }

    fn sync_file(&self, fd: u64, data_only: bool) -> Answer {
        let file = self.file(fd)?;
        match &file.kind {
            Kind::Host(host) => {
                if let Some(inode) = self.sys.inodes.existing(self.sys, host.key) {
                    inode.object().clean(0, inode.object().size())?;
                }
                host.file.sync(data_only).map(|()| 0)
            }
            Kind::Memory(_) => Ok(0),
            _ => Err(Errno::EINVAL),
        }
    }

    fn fallocate(&mut self, [fd, mode, offset, len, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        if (offset as i64) < 0 || (len as i64) <= 0 {
            return Err(Errno::EINVAL);
        }
        if !file.may_write() {
            return Err(Errno::EBADF);
        }
        if matches!(file.kind, Kind::Host(_) | Kind::Memory(_)) {
            self.check_size(offset.saturating_add(len))?;
        }
        match &file.kind {
            Kind::Host(host) => {
                host.file.allocate(mode as u32, offset, len)?;
                if let Some(inode) = self.sys.inodes.existing(self.sys, host.key) {
                    inode.refresh()?;
                }
                Ok(0)
            }
            Kind::Memory(memory) => memory.allocate(mode as u32, offset, len).map(|()| 0),
            Kind::Pipe(_) => Err(Errno::ESPIPE),
            _ => Err(Errno::ENODEV),
        }
    }

    /// Advice about a file is the host's to take; here it is looked at only.
    fn fadvise(&mut self, [fd, _, len, advice, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        if matches!(file.kind, Kind::Pipe(_)) {
            return Err(Errno::ESPIPE);
        }
        if (len as i64) < 0 || advice as u32 > abi::POSIX_FADV_NOREUSE {
            return Err(Errno::EINVAL);
        }
        Ok(0)
    }

    /// The entries of a directory of which `size` bytes each fit in `room`.
    fn some_entries(&self, file: &OpenFile<P>, room: usize) -> Result<Vec<DirEntry>, Errno> {
        match &file.kind {
            Kind::Host(host) if host.is_directory() => host.file.entries(room),
            Kind::Listing(listing) => Ok(listing.entries(room)),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The record of old: number, offset, length, name, and its kind in the last byte.
    fn old_getdents(&mut self, [fd, to, len, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let room = (len as u32).min(1 << 16) as usize;
        let before = file.position();
        let mut out: Vec<u8> = Vec::new();
        for entry in self.some_entries(&file, room)? {
            let start = out.len();
            let size = entry.record_bytes();
            out.extend_from_slice(&entry.ino.to_le_bytes());
            out.extend_from_slice(&entry.next.to_le_bytes());
            out.extend_from_slice(&(size as u16).to_le_bytes());
            out.extend_from_slice(&entry.name);
            out.resize(start + size, 0);
            out[start + size - 1] = entry.kind;
        }
        if out.len() > room {
            return Err(Errno::EINVAL);
        }
        self.put_entries(&file, before, to, &out)
    }

    /// Stores entries that begin at the offset `before`; one that finds no place is not read.
    fn put_entries(&self, file: &OpenFile<P>, before: u64, to: u64, out: &[u8]) -> Answer {
        if let Err(e) = self.write_user(to, out) {
            file.seek(before as i64, abi::SEEK_SET)?;
            return Err(e);
        }
        Ok(out.len() as u64)
    }

    fn getdents(&mut self, [fd, to, len, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let room = (len as u32).min(1 << 16) as usize;
        let before = file.position();
        let entries = self.some_entries(&file, room)?;
        let mut out = Vec::new();
        for entry in entries {
            let size = entry.record_bytes();
            if out.len() + size > room {
                return if out.is_empty() {
                    Err(Errno::EINVAL)
                } else {
                    Err(Errno::EIO)
                };
            }
            let end = out.len() + size;
            out.extend_from_slice(&entry.ino.to_le_bytes());
            out.extend_from_slice(&entry.next.to_le_bytes());
            out.extend_from_slice(&(size as u16).to_le_bytes());
            out.push(entry.kind);
            out.extend_from_slice(&entry.name);
            out.resize(end, 0);
        }
        self.put_entries(&file, before, to, &out)
    }
}
