//! Open file descriptions: what descriptors share over `dup` and `fork`.

use super::busy::{InUse, Use};
use super::epoll::Epoll;
use super::event::EventCounter;
use super::inode::{InodeRef, Key, key_of};
use super::locks::Owner;
use super::made::{Listing, RawFile, TextFile};
use super::memfile::MemFile;
use super::pipe::PipeEnd;
use super::proc::{Lister, Maker, Reader, Taker, Writer};
use super::socket::Socket;
use super::special::Special;
use super::told::Told;
use crate::errno::Errno;
use crate::platform::{FileStat, HostFile, Moment, Platform};
use crate::system::Linux;
use crate::terminal::MasterEnd;
use crate::thread::Task;
use crate::{Lock, rank};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general as abi;

/// A file of the host.
pub(crate) struct HostOpen<P: Platform> {
    pub(crate) file: Arc<P::File>,
    pub(crate) key: Key,
    /// The type bits of its mode.
    pub(crate) kind: u32,
    pub(crate) rdev: (u32, u32),
    /// What hangs a terminal up, if this is a master.
    pub(crate) master: Option<MasterEnd<P>>,
    /// Kept while it can be written, so that nobody executes it.
    _written: Option<InUse<P>>,
    /// Its inode, once this description has mapped it.
    inode: Lock<P, Option<InodeRef<P>>, { rank::FILE }>,
}

/// What is open.
pub(crate) enum Kind<P: Platform> {
    Host(HostOpen<P>),
    Pipe(PipeEnd<P>),
    Memory(MemFile<P>),
    Text(TextFile<P>),
    Raw(RawFile<P>),
    Listing(Listing<P>),
    Event(EventCounter<P>),
    Epoll(Epoll<P>),
    Socket(Arc<Socket<P>>),
    Special(Box<dyn Special<P>>),
}

/// An open file.
pub(crate) struct OpenFile<P: Platform> {
    pub(crate) kind: Kind<P>,
    flags: AtomicU32,
    pub(crate) told: Lock<P, Told, { rank::FILE }>,
    /// Its number and the system, once it has locks of its file.
    locker: Lock<P, Option<(&'static Linux<P>, u64)>, { rank::FILE }>,
}

impl<P: Platform> Drop for OpenFile<P> {
    fn drop(&mut self) {
        let locker = *self.locker.lock();
        if let Some((sys, number)) = locker {
            sys.release_locks(Owner::Open(number));
        }
    }
}

/// The flags that `F_SETFL` changes.
const SETTABLE: u32 =
    abi::O_APPEND | abi::O_NONBLOCK | abi::O_NOATIME | abi::O_DIRECT | abi::FASYNC;

impl<P: Platform> OpenFile<P> {
    fn with(kind: Kind<P>, flags: u32) -> OpenFile<P> {
        OpenFile {
            kind,
            flags: AtomicU32::new(flags),
            told: Lock::<P, _, { rank::FILE }>::new(Told::default()),
            locker: Lock::<P, _, { rank::FILE }>::new(None),
        }
    }

    /// A file of the host, open already.
    pub(crate) fn host(file: P::File) -> Result<OpenFile<P>, Errno> {
        let stat = file.stat()?;
        let flags = file.flags()?;
        let host = HostOpen {
            file: Arc::new(file),
            key: key_of(&stat),
            kind: stat.kind(),
            rdev: stat.rdev,
            master: None,
            _written: None,
            inode: Lock::<P, _, { rank::FILE }>::new(None),
        };
        Ok(OpenFile::with(Kind::Host(host), flags))
    }

    /// The same, with what closing it does: if it is the master of a terminal, or written.
    ///
    /// Errors: `ETXTBSY` for what is executed.
    pub(crate) fn opened(mut self, sys: &'static Linux<P>) -> Result<OpenFile<P>, Errno> {
        let writes = self.may_write();
        if let Kind::Host(host) = &mut self.kind {
            host.master = host.master_end(sys);
            if writes && host.is_regular() {
                host._written = Some(sys.use_file(host.key, Use::Written)?);
            }
        }
        Ok(self)
    }

    /// Something of ours that is read and written, with further status flags.
    pub(crate) fn own(kind: Kind<P>, flags: u32) -> OpenFile<P> {
        OpenFile::with(kind, abi::O_RDWR | flags)
    }

    /// Something that is opened in a way of its own.
    pub(crate) fn special(kind: Kind<P>, flags: u32) -> OpenFile<P> {
        OpenFile::with(kind, flags)
    }

    pub(crate) fn pipe(end: PipeEnd<P>, flags: u32) -> OpenFile<P> {
        OpenFile::with(Kind::Pipe(end), flags)
    }

    pub(crate) fn memory(file: MemFile<P>) -> OpenFile<P> {
        OpenFile::with(Kind::Memory(file), abi::O_RDWR | abi::O_LARGEFILE)
    }

    /// A file that is memory, opened once more with `flags`; `None` for any other.
    ///
    /// Errors: those of cutting it, if that is asked for.
    pub(crate) fn reopen(&self, flags: u32) -> Result<Option<OpenFile<P>>, Errno> {
        let Kind::Memory(memory) = &self.kind else {
            return Ok(None);
        };
        let writes = flags & abi::O_ACCMODE != abi::O_RDONLY;
        if writes && memory.provided.is_some() {
            return Err(Errno::EACCES);
        }
        let again = memory.reopen()?;
        if flags & abi::O_TRUNC != 0 {
            again.truncate(0)?;
        }
        let kept = flags & (abi::O_ACCMODE | SETTABLE);
        Ok(Some(OpenFile::with(
            Kind::Memory(again),
            kept | abi::O_LARGEFILE,
        )))
    }

    /// The page that the kernel provides, to be read.
    pub(crate) fn kernel_page(file: MemFile<P>) -> OpenFile<P> {
        OpenFile::with(Kind::Memory(file), abi::O_RDONLY | abi::O_LARGEFILE)
    }

    pub(crate) fn text(name: Vec<u8>, make: Maker, take: Option<Taker>, flags: u32) -> OpenFile<P> {
        let file = TextFile::new(name, make, take);
        OpenFile::with(Kind::Text(file), flags | abi::O_LARGEFILE)
    }

    pub(crate) fn raw(
        name: Vec<u8>,
        read: Reader,
        write: Option<Writer>,
        flags: u32,
    ) -> OpenFile<P> {
        let file = RawFile::new(name, read, write);
        OpenFile::with(Kind::Raw(file), flags | abi::O_LARGEFILE)
    }

    /// A directory of ours with the names and kinds that `list` makes.
    pub(crate) fn listing(name: Vec<u8>, list: Lister) -> OpenFile<P> {
        let listing = Listing::new(name, list);
        OpenFile::with(Kind::Listing(listing), abi::O_RDONLY | abi::O_DIRECTORY)
    }

    /// What its locks know it by.
    pub(crate) fn number(&self, sys: &'static Linux<P>) -> u64 {
        let mut locker = self.locker.lock();
        locker.get_or_insert_with(|| (sys, sys.next_id())).1
    }

    /// The status flags.
    pub(crate) fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    pub(crate) fn set_flags(&self, wanted: u32) -> Result<(), Errno> {
        let flags = self.flags() & !SETTABLE | wanted & SETTABLE;
        if let Kind::Host(host) = &self.kind {
            // Waiting and telling are ours to do: the host's file keeps the way in which it waits.
            let way = host.file.flags()? & abi::O_NONBLOCK;
            let kept = flags & !(abi::O_NONBLOCK | abi::FASYNC);
            host.file.set_flags(kept | way)?;
        }
        self.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn is_nonblocking(&self) -> bool {
        self.flags() & abi::O_NONBLOCK != 0
    }

    pub(crate) fn may_read(&self) -> bool {
        self.flags() & (abi::O_ACCMODE | abi::O_PATH) != abi::O_WRONLY
            && self.flags() & abi::O_PATH == 0
    }

    pub(crate) fn may_write(&self) -> bool {
        self.flags() & abi::O_ACCMODE != abi::O_RDONLY && self.flags() & abi::O_PATH == 0
    }

    /// The host's file, for calls that need one.
    pub(crate) fn as_host(&self) -> Option<&HostOpen<P>> {
        match &self.kind {
            Kind::Host(host) => Some(host),
            _ => None,
        }
    }

    pub(crate) fn stat(&self) -> Result<FileStat, Errno> {
        match &self.kind {
            Kind::Host(host) => host.file.stat(),
            Kind::Memory(file) => Ok(file.stat()),
            Kind::Pipe(pipe) => Ok(made_up(abi::S_IFIFO | 0o600, pipe.id(), 0)),
            Kind::Text(_) | Kind::Raw(_) => Ok(made_up(abi::S_IFREG | 0o444, 1, 0)),
            Kind::Listing(_) => Ok(made_up(abi::S_IFDIR | 0o500, 1, 0)),
            Kind::Socket(socket) => Ok(made_up(abi::S_IFSOCK | 0o777, socket.id(), 0)),
            Kind::Special(special) => Ok(special.stat()),
            Kind::Event(_) | Kind::Epoll(_) => Ok(made_up(0o600, 1, 0)),
        }
    }

    /// `lseek`.
    pub(crate) fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno> {
        match &self.kind {
            Kind::Host(host) => host.file.seek(offset, whence),
            Kind::Memory(file) => file.seek(offset, whence),
            Kind::Text(text) => text.seek(offset, whence),
            Kind::Raw(raw) => raw.seek(offset, whence),
            Kind::Listing(listing) => listing.seek(offset, whence),
            Kind::Pipe(_) | Kind::Socket(_) => Err(Errno::ESPIPE),
            // They are where they are, as on Linux.
            Kind::Special(_) | Kind::Event(_) | Kind::Epoll(_) => Ok(0),
        }
    }

    /// `ftruncate`.
    pub(crate) fn truncate(&self, sys: &'static Linux<P>, bytes: u64) -> Result<(), Errno> {
        if !self.may_write() || bytes > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        match &self.kind {
            Kind::Host(host) => {
                host.file.truncate(bytes)?;
                if let Some(inode) = sys.inodes.existing(sys, host.key) {
                    inode.refresh()?;
                }
                Ok(())
            }
            Kind::Memory(file) => file.truncate(bytes),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The name for `/proc/self/fd` and for maps.
    pub(crate) fn name(&self) -> Result<Vec<u8>, Errno> {
        match &self.kind {
            Kind::Host(host) => host.file.path(),
            Kind::Pipe(pipe) => Ok(format!("pipe:[{}]", pipe.id()).into_bytes()),
            Kind::Memory(file) => Ok(file.path().to_vec()),
            Kind::Text(text) => Ok(text.name().to_vec()),
            Kind::Raw(raw) => Ok(raw.name().to_vec()),
            Kind::Listing(listing) => Ok(listing.name().to_vec()),
            Kind::Socket(socket) => Ok(format!("socket:[{}]", socket.id()).into_bytes()),
            Kind::Event(_) => Ok(b"anon_inode:[eventfd]".to_vec()),
            Kind::Epoll(_) => Ok(b"anon_inode:[eventpoll]".to_vec()),
            Kind::Special(special) => Ok(special.name().as_bytes().to_vec()),
        }
    }

    /// How often something of ours has changed, from 1; nothing of the host's is counted.
    pub(crate) fn changes(&self) -> u64 {
        match &self.kind {
            Kind::Pipe(pipe) => pipe.changes(),
            Kind::Socket(socket) => socket.changes(),
            Kind::Event(event) => event.changes(),
            Kind::Special(special) => special.changes(),
            Kind::Epoll(list) => list.changes(),
            _ => 0,
        }
    }

    /// Where it is read next, for `/proc/self/fdinfo`.
    pub(crate) fn position(&self) -> u64 {
        self.seek(0, abi::SEEK_CUR).unwrap_or(0)
    }

    /// Further lines of `/proc/self/fdinfo`, as `task` sees them.
    pub(crate) fn info(&self, task: &Task<P>) -> String {
        match &self.kind {
            Kind::Special(special) => special.info(task),
            Kind::Event(event) => format!("eventfd-count: {:>16x}\n", event.count()),
            _ => String::new(),
        }
    }

    /// When it becomes ready by itself.
    pub(crate) fn due(&self, task: &Task<P>) -> Option<u64> {
        match &self.kind {
            Kind::Special(special) => special.due(task),
            Kind::Epoll(list) => list.due(task),
            _ => None,
        }
    }

    /// The bits of `poll` for what is ours, as `task` sees it.
    pub(crate) fn poll(&self, task: &Task<P>) -> u16 {
        const READY: u32 = abi::POLLIN | abi::POLLRDNORM | abi::POLLOUT | abi::POLLWRNORM;
        match &self.kind {
            Kind::Pipe(pipe) => pipe.poll(),
            Kind::Socket(socket) => socket.poll(),
            Kind::Event(event) => event.poll(),
            Kind::Special(special) => special.poll(task),
            Kind::Epoll(list) => list.poll(task),
            Kind::Host(_) => 0,
            Kind::Memory(_) | Kind::Text(_) | Kind::Raw(_) | Kind::Listing(_) => READY as u16,
        }
    }
}

/// The `stat` of something that no file system has.
pub(crate) fn made_up(mode: u32, ino: u64, size: u64) -> FileStat {
    FileStat {
        mask: abi::STATX_BASIC_STATS,
        block_size: 4096,
        links: 1,
        mode: mode as u16,
        ino,
        size,
        mtime: Moment::default(),
        dev: (0, 2),
        ..FileStat::default()
    }
}

impl<P: Platform> HostOpen<P> {
    /// Whether it has pages: an ordinary file.
    pub(crate) fn is_regular(&self) -> bool {
        self.kind == abi::S_IFREG
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == abi::S_IFDIR
    }

    /// Whether reading and writing may have to wait. The memory devices (`/dev/zero` and its
    /// kin, major number 1) never do.
    pub(crate) fn waits(&self) -> bool {
        match self.kind {
            abi::S_IFCHR => self.rdev.0 != 1,
            // What has no type at all is a queue of events, or the like.
            kind => matches!(kind, 0 | abi::S_IFIFO | abi::S_IFSOCK),
        }
    }

    /// `/dev/zero`, whose mappings are plain memory.
    pub(crate) fn is_zero_device(&self) -> bool {
        self.kind == abi::S_IFCHR && self.rdev == (1, 5)
    }

    /// The file's inode, made with the first mapping.
    pub(crate) fn inode(&self, sys: &'static Linux<P>) -> Result<InodeRef<P>, Errno> {
        let known = self.inode.lock().is_some();
        if let Some(found) = known.then(|| sys.inodes.existing(sys, self.key)).flatten() {
            found.refresh()?;
            return Ok(found);
        }
        let made = sys.inodes.obtain(sys, &self.file)?;
        let kept = made.again();
        let old = self.inode.lock().replace(kept);
        drop(old);
        Ok(made)
    }

    /// Reads at an offset: the pages, if there are any, are what the file is.
    pub(crate) fn read_at(
        &self,
        sys: &'static Linux<P>,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, Errno> {
        match self.pages(sys)? {
            Some(inode) => Ok(inode.object().read(offset, buf)?),
            None => self.file.read_at(offset, buf),
        }
    }

    /// Reads at the file's own offset.
    pub(crate) fn read(&self, sys: &'static Linux<P>, buf: &mut [u8]) -> Result<usize, Errno> {
        let Some(inode) = self.pages(sys)? else {
            return self.file.read(buf);
        };
        let at = self.file.seek(0, abi::SEEK_CUR)?;
        let n = inode.object().read(at, buf)?;
        self.file.seek(n as i64, abi::SEEK_CUR)?;
        Ok(n)
    }

    /// Writes at an offset, to the file and to its pages.
    pub(crate) fn write_at(
        &self,
        sys: &'static Linux<P>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, Errno> {
        let n = self.file.write_at(offset, bytes)?;
        self.update_pages(sys, offset, &bytes[..n])?;
        Ok(n)
    }

    /// Writes at the file's own offset, to the file and to its pages.
    pub(crate) fn write(&self, sys: &'static Linux<P>, bytes: &[u8]) -> Result<usize, Errno> {
        let n = self.file.write(bytes)?;
        if self.is_regular() && sys.inodes.existing(sys, self.key).is_some() {
            // The offset is now behind what was written, also when it was appended.
            let end = self.file.seek(0, abi::SEEK_CUR)?;
            self.update_pages(sys, end.saturating_sub(n as u64), &bytes[..n])?;
        }
        Ok(n)
    }

    fn pages(&self, sys: &'static Linux<P>) -> Result<Option<InodeRef<P>>, Errno> {
        if !self.is_regular() {
            return Ok(None);
        }
        let inode = sys.inodes.existing(sys, self.key);
        if let Some(inode) = &inode {
            inode.refresh()?;
        }
        Ok(inode)
    }

    fn update_pages(&self, sys: &'static Linux<P>, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        if let Some(inode) = self.pages(sys)? {
            inode.allow_writes(&self.file);
            inode.object().write(offset, bytes)?;
        }
        Ok(())
    }
}
