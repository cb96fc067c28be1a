//! Host files that have pages: one object of the core for each (device, inode), and its pager.
//!
//! An inode comes into being with its first mapping. From then on its object's pages are what
//! `read` sees and what `write` changes, beside the file itself. The table holds one reference to
//! the object. When nobody else does and no open file uses the inode, a sweep writes its dirty
//! pages back and lets go of it; meanwhile it is `leaving`, and who wants the same file waits.

use crate::blocking::inode_channel;
use crate::errno::Errno;
use crate::platform::{FileStat, HostFile, Platform};
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use bsdvm::{Object, ObjectId, PageBytes, Pager, PagerError, PagerOps};
use core::sync::atomic::{AtomicU64, Ordering};

/// What makes a file the same file: device (major, minor) and inode number.
pub(crate) type Key = (u32, u32, u64);

/// The key of the file that `stat` describes.
pub(crate) fn key_of(stat: &FileStat) -> Key {
    (stat.dev.0, stat.dev.1, stat.ino)
}

/// A host file with an object.
pub(crate) struct Inode<P: Platform> {
    pub(crate) key: Key,
    object: ObjectId,
    /// Under which name it was mapped first.
    pub(crate) path: Vec<u8>,
    reader: Arc<P::File>,
    writer: Lock<P, Option<Arc<P::File>>, { rank::FILE }>,
}

impl<P: Platform> Inode<P> {
    /// The file as somebody opened it to write.
    pub(crate) fn writer(&self) -> Option<Arc<P::File>> {
        self.writer.lock().clone()
    }

    /// The path that leads to the file now, or the first one it was mapped under.
    pub(crate) fn path_now(&self) -> Vec<u8> {
        self.reader.path().unwrap_or_else(|_| self.path.clone())
    }
}

struct Entry<P: Platform> {
    inode: Arc<Inode<P>>,
    /// Open files and calls under way that use it.
    users: u32,
    leaving: bool,
}

struct Table<P: Platform> {
    by_key: BTreeMap<Key, Entry<P>>,
    /// What the pager knows an inode by.
    files: BTreeMap<u64, Backing<P>>,
}

/// What the pager needs of an inode: it is there before the object and until after it.
struct Backing<P: Platform> {
    reader: Arc<P::File>,
    inode: Option<Arc<Inode<P>>>,
}

/// The inodes that have pages, and their pager.
pub(crate) struct Inodes<P: Platform> {
    table: Lock<P, Table<P>, { rank::INODES }>,
    next_cookie: AtomicU64,
}

/// A use of an inode: as long as it is there the object stays.
pub(crate) struct InodeRef<P: Platform> {
    sys: &'static Linux<P>,
    inode: Arc<Inode<P>>,
}

impl<P: Platform> core::ops::Deref for InodeRef<P> {
    type Target = Inode<P>;
    fn deref(&self) -> &Inode<P> {
        &self.inode
    }
}

impl<P: Platform> Drop for InodeRef<P> {
    fn drop(&mut self) {
        let mut table = self.sys.inodes.table.lock();
        if let Some(entry) = table.by_key.get_mut(&self.inode.key) {
            entry.users -= 1;
        }
    }
}

impl<P: Platform> InodeRef<P> {
    /// The file's object.
    pub(crate) fn object(&self) -> Object<'static, P::Machine> {
        self.sys.vm.object(self.inode.object)
    }

    /// Gives the object the size that the file has now; others may have changed it.
    pub(crate) fn refresh(&self) -> Result<u64, Errno> {
        let size = self.inode.reader.stat()?.size;
        let before = self.object().size();
        if size != before {
            self.object().set_size(size)?;
        }
        if size < before {
            self.sys.cut_private(self.inode.object, size);
        }
        Ok(size)
    }

    /// Remembers a file that may write, for the pager.
    pub(crate) fn allow_writes(&self, file: &Arc<P::File>) {
        self.inode.writer.lock().get_or_insert_with(|| file.clone());
    }

    /// Another use of the same.
    pub(crate) fn again(&self) -> InodeRef<P> {
        let mut table = self.sys.inodes.table.lock();
        if let Some(entry) = table.by_key.get_mut(&self.inode.key) {
            entry.users += 1;
        }
        drop(table);
        InodeRef {
            sys: self.sys,
            inode: self.inode.clone(),
        }
    }
}

enum Found<P: Platform> {
    Yes(InodeRef<P>),
    No,
    Leaving,
}

impl<P: Platform> Inodes<P> {
    pub(crate) fn new() -> Self {
        let table = Table {
            by_key: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        Inodes {
            table: Lock::<P, _, { rank::INODES }>::new(table),
            next_cookie: AtomicU64::new(1),
        }
    }

    fn find(&self, sys: &'static Linux<P>, key: Key) -> Found<P> {
        match self.table.lock().by_key.get_mut(&key) {
            None => Found::No,
            Some(entry) if entry.leaving => Found::Leaving,
            Some(entry) => {
                entry.users += 1;
                Found::Yes(InodeRef {
                    sys,
                    inode: entry.inode.clone(),
                })
            }
        }
    }

    /// The inode of a file if it has pages now.
    pub(crate) fn existing(&self, sys: &'static Linux<P>, key: Key) -> Option<InodeRef<P>> {
        loop {
            let ticket = sys.ticket(inode_channel());
            match self.find(sys, key) {
                Found::Yes(inode) => return Some(inode),
                Found::No => return None,
                Found::Leaving => sys.sleep(inode_channel(), ticket, None),
            }
        }
    }

    /// The inode of `file`, made if need be.
    pub(crate) fn obtain(
        &'static self,
        sys: &'static Linux<P>,
        file: &Arc<P::File>,
    ) -> Result<InodeRef<P>, Errno> {
        let stat = file.stat()?;
        let key = key_of(&stat);
        loop {
            if let Some(found) = self.existing(sys, key) {
                found.refresh()?;
                return Ok(found);
            }
            if let Some(made) = self.create(sys, file, &stat)? {
                return Ok(made);
            }
        }
    }

    /// Makes an inode; `None` when somebody else was faster.
    fn create(
        &'static self,
        sys: &'static Linux<P>,
        file: &Arc<P::File>,
        stat: &FileStat,
    ) -> Result<Option<InodeRef<P>>, Errno> {
        let key = key_of(stat);
        let cookie = self.next_cookie.fetch_add(1, Ordering::Relaxed);
        let backing = Backing {
            reader: file.clone(),
            inode: None,
        };
        self.table.lock().files.insert(cookie, backing);
        let pager = Pager { ops: self, cookie };
        let object = match sys.vm.object_create(pager, stat.size) {
            Ok(object) => object,
            Err(e) => {
                self.table.lock().files.remove(&cookie);
                return Err(e.into());
            }
        };
        let inode = Arc::new(Inode {
            key,
            object,
            path: file.path().unwrap_or_default(),
            reader: file.clone(),
            writer: Lock::<P, _, { rank::FILE }>::new(None),
        });
        let mut table = self.table.lock();
        if table.by_key.contains_key(&key) {
            drop(table);
            sys.vm.object(object).release();
            return Ok(None);
        }
        if let Some(backing) = table.files.get_mut(&cookie) {
            backing.inode = Some(inode.clone());
        }
        let entry = Entry {
            inode: inode.clone(),
            users: 1,
            leaving: false,
        };
        table.by_key.insert(key, entry);
        Ok(Some(InodeRef { sys, inode }))
    }

    /// The inode whose object is `object`: for the names in a map.
    pub(crate) fn of_object(&self, object: ObjectId) -> Option<Arc<Inode<P>>> {
        let table = self.table.lock();
        table
            .by_key
            .values()
            .find(|e| e.inode.object == object)
            .map(|e| e.inode.clone())
    }

    /// Lets go of the objects that nobody uses any more, segments of shared memory included. Called after something may have lost its
    /// last use: a mapping, a file, a process.
    pub(crate) fn sweep(&self, sys: &Linux<P>) {
        sys.memory_inodes.sweep(sys);
        self.sweep_files(sys);
    }

    /// The same, where what is memory only may wait.
    pub(crate) fn sweep_soon(&self, sys: &Linux<P>) {
        sys.memory_inodes.sweep_soon(sys);
        self.sweep_files(sys);
    }

    fn sweep_files(&self, sys: &Linux<P>) {
        sys.segments.sweep(sys, 0);
        let mut leaving = Vec::new();
        for entry in self.table.lock().by_key.values_mut() {
            let object = sys.vm.object(entry.inode.object);
            if entry.users == 0 && !entry.leaving && object.references() <= 1 {
                entry.leaving = true;
                leaving.push(entry.inode.clone());
            }
        }
        for inode in &leaving {
            self.let_go(sys, inode);
        }
        if !leaving.is_empty() {
            sys.wake(inode_channel());
        }
    }

    fn let_go(&self, sys: &Linux<P>, inode: &Arc<Inode<P>>) {
        let object = sys.vm.object(inode.object);
        if inode.writer.lock().is_some() {
            let bytes = object.size();
            if let Err(e) = object.clean(0, bytes) {
                let path = alloc::string::String::from_utf8_lossy(&inode.path);
                sys.platform
                    .message(&format!("bsdvm: {path}: pages were not written: {e:?}"));
            }
        }
        object.release();
        self.table.lock().by_key.remove(&inode.key);
    }

    /// The pages of files that are in memory.
    pub(crate) fn resident(&self, sys: &Linux<P>) -> u64 {
        let table = self.table.lock();
        let objects = table.by_key.values().map(|e| e.inode.object);
        objects.map(|o| sys.vm.object(o).resident_pages()).sum()
    }

    fn reader(&self, cookie: u64) -> Option<Arc<P::File>> {
        self.table
            .lock()
            .files
            .get(&cookie)
            .map(|b| b.reader.clone())
    }

    fn writer(&self, cookie: u64) -> Option<Arc<P::File>> {
        let inode = self.table.lock().files.get(&cookie)?.inode.clone()?;

        inode.writer.lock().clone()
    }
}

fn io(e: Errno) -> PagerError {
    if e == Errno::ENOSPC {
        PagerError::NoSpace
    } else {
        PagerError::Io(e.0)
    }
}

/// Reads at `offset` until `buf` is full or the file ends.
fn read_fully<F: HostFile>(file: &F, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset.checked_add(done as u64).ok_or(Errno::EOVERFLOW)?;
        match file.read_at(at, &mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Pages that are read together: few enough to be in the processor's cache still when they are
/// written where they belong.
const GROUP: usize = 8;

impl<P: Platform> PagerOps for Inodes<P> {
    fn get(
        &self,
        cookie: u64,
        offset: u64,
        pages: &mut [&mut dyn PageBytes],
    ) -> Result<usize, PagerError> {
        let file = self.reader(cookie).ok_or(PagerError::Io(Errno::EIO.0))?;
        let page = Linux::<P>::PAGE_BYTES as usize;
        let mut bytes = vec![0; page * pages.len().min(GROUP)];
        let mut done = 0;
        for group in pages.chunks_mut(GROUP) {
            let bytes = &mut bytes[..page * group.len()];
            let place = offset.saturating_add((page * done) as u64);
            let got = match read_fully(&*file, place, bytes) {
                Err(e) if done == 0 => return Err(io(e)),
                Err(_) => break,
                Ok(got) => got,
            };
            for (to, from) in group.iter_mut().zip(bytes[..got].chunks(page)) {
                to.write(0, from);
            }
            done += group.len();
        }
        Ok(done)
    }

    fn put(
        &self,
        cookie: u64,
        offset: u64,
        page: &dyn PageBytes,
        len: usize,
    ) -> Result<(), PagerError> {
        let file = self.writer(cookie).ok_or(PagerError::Io(Errno::EIO.0))?;
        let mut bytes = vec![0; len.min(page.len())];
        page.read(0, &mut bytes);
        let mut done = 0;
        while done < bytes.len() {
            match file.write_at(offset.saturating_add(done as u64), &bytes[done..]) {
                Ok(0) => return Err(PagerError::Io(Errno::EIO.0)),
                Ok(n) => done += n,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(io(e)),
            }
        }
        Ok(())
    }

    fn closed(&self, cookie: u64) {
        let gone = self.table.lock().files.remove(&cookie);
        drop(gone);
    }
}
