//! Who the files are that are memory: those of `memfd_create`, and what shared anonymous mappings
//! show.
//!
//! Such a file lives as long as a descriptor or a mapping shows it. The table keeps one reference
//! to its object; when nobody else does, a sweep lets go of it.

use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::ObjectId;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A file that is memory.
pub(crate) struct MemInode {
    pub(crate) object: ObjectId,
    /// Its name in maps.
    pub(crate) path: Vec<u8>,
    /// Its inode number.
    pub(crate) id: u64,
    /// The permission bits.
    pub(crate) mode: AtomicU32,
    /// `F_SEAL_*`.
    pub(crate) seals: AtomicU32,
}

/// Every file that is memory, by the number of its object.
pub(crate) struct MemInodes<P: Platform> {
    table: Lock<P, BTreeMap<u32, Arc<MemInode>>, { rank::INODES }>,
    /// How often a sweep was put off.
    put_off: AtomicU64,
}

impl<P: Platform> MemInodes<P> {
    pub(crate) fn new() -> Self {
        MemInodes {
            table: Lock::<P, _, { rank::INODES }>::new(BTreeMap::new()),
            put_off: AtomicU64::new(0),
        }
    }

    /// A new file of `bytes` zeroes. The caller has a reference to its object.
    pub(crate) fn create(
        &self,
        sys: &Linux<P>,
        path: Vec<u8>,
        bytes: u64,
        (mode, seals): (u32, u32),
    ) -> Result<Arc<MemInode>, Errno> {
        let object = sys.vm.object_create_memory_file(bytes)?;
        if !sys.vm.object(object).reference() {
            sys.vm.object(object).release();
            return Err(Errno::ENOMEM);
        }
        let inode = Arc::new(MemInode {
            object,
            path,
            id: sys.next_id(),
            mode: AtomicU32::new(mode),
            seals: AtomicU32::new(seals),
        });
        self.table.lock().insert(object.number(), inode.clone());
        Ok(inode)
    }

    /// The file whose object is `object`.
    pub(crate) fn of_object(&self, object: ObjectId) -> Option<Arc<MemInode>> {
        let table = self.table.lock();
        let found = table.get(&object.number());
        found.filter(|inode| inode.object == object).cloned()
    }

    /// As [`MemInodes::sweep`], put off where there are many: each is looked at.
    pub(crate) fn sweep_soon(&self, sys: &Linux<P>) {
        const AT_ONCE: u64 = 64;
        let put_off = self.put_off.fetch_add(1, Ordering::Relaxed);
        if put_off >= self.table.lock().len() as u64 / AT_ONCE {
            self.sweep(sys);
        }
    }

    /// Lets go of the files that nobody shows any more.
    pub(crate) fn sweep(&self, sys: &Linux<P>) {
        self.put_off.store(0, Ordering::Relaxed);
        let mut gone = Vec::new();
        let mut table = self.table.lock();
        table.retain(|_, inode| {
            let used = sys.vm.object(inode.object).references() > 1;
            if !used {
                gone.push(inode.object);
            }
            used
        });
        drop(table);
        for object in gone {
            sys.vm.object(object).release();
        }
    }
}
