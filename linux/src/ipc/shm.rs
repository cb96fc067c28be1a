//! Shared memory segments: an anonymous object of the core each, which lives until it is removed
//! and nobody has it attached any more.
//!
//! Who has it attached is known to the core: each mapping is a reference to the object, beside the
//! one of the table. So what is attached follows `fork`, `exec`, `munmap` and ends by itself.

use super::{Entry, Perm, Table};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::vec::Vec;
use bsdvm::ObjectId;
use core::sync::atomic::{AtomicU64, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SHM_DEST` of a mode: to be removed with its last use.
pub(crate) const DEST: u32 = 0o1000;
/// `SHM_LOCKED` of a mode.
pub(crate) const LOCKED: u32 = 0o2000;
/// `SHMMNI`.
const SEGMENTS: u32 = 4096;
/// `SHMMAX` and `SHMALL`: no limit to speak of.
const NO_LIMIT: u64 = u64::MAX - (1 << 24);
const SECOND: u64 = 1_000_000_000;

/// A segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) object: ObjectId,
    pub(crate) bytes: u64,
    attached_at: u64,
    detached_at: u64,
    changed_at: u64,
    creator: u32,
    last: u32,
    /// How often it was attached at the last look.
    seen: u32,
}

/// `struct shmid64_ds`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct SegmentStat {
    pub(crate) perm: Perm,
    pub(crate) bytes: u64,
    pub(crate) attached_at: u64,
    pub(crate) detached_at: u64,
    pub(crate) changed_at: u64,
    pub(crate) creator: u32,
    pub(crate) last: u32,
    pub(crate) attached: u64,
    unused: [u64; 2],
}

/// Every segment.
pub(crate) struct Segments<P: Platform> {
    pub(crate) table: Lock<P, Table<Segment>, { rank::IPC }>,
    /// `/proc/sys/kernel/shmmax` in bytes.
    pub(crate) largest: AtomicU64,
    /// `/proc/sys/kernel/shmall` in pages.
    pub(crate) pages: AtomicU64,
}

/// A segment that is being attached: it stays until this goes.
pub(crate) struct Held<P: Platform> {
    sys: &'static Linux<P>,
    pub(crate) object: ObjectId,
    pub(crate) bytes: u64,
}

impl<P: Platform> Drop for Held<P> {
    fn drop(&mut self) {
        self.sys.vm.object(self.object).release();
    }
}

impl<P: Platform> Segments<P> {
    pub(crate) fn new() -> Self {
        Segments {
            table: Lock::<P, _, { rank::IPC }>::new(Table::new(SEGMENTS)),
            largest: AtomicU64::new(NO_LIMIT),
            pages: AtomicU64::new(NO_LIMIT),
        }
    }

    /// Whether there may be one more of so many bytes.
    pub(crate) fn check(&self, table: &Table<Segment>, bytes: u64) -> Result<(), Errno> {
        let page = Linux::<P>::PAGE_BYTES;
        if bytes == 0 || bytes > self.largest.load(Ordering::Relaxed) {
            return Err(Errno::EINVAL);
        }
        let pages = |bytes: u64| bytes.div_ceil(page);
        let used: u64 = table.all().map(|(_, e)| pages(e.value.bytes)).sum();
        let all = used.checked_add(pages(bytes)).ok_or(Errno::ENOSPC)?;
        if all > self.pages.load(Ordering::Relaxed) || table.len() >= table.most as usize {
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    /// A new segment; nothing of it is in the table yet.
    pub(crate) fn make(&self, sys: &Linux<P>, bytes: u64, creator: u32) -> Result<Segment, Errno> {
        let page = Linux::<P>::PAGE_BYTES;
        let size = bytes.checked_next_multiple_of(page).ok_or(Errno::ENOSPC)?;
        Ok(Segment {
            object: sys.vm.object_create_memory_file(size)?,
            bytes,
            attached_at: 0,
            detached_at: 0,
            changed_at: sys.platform.wall_clock() / SECOND,
            creator,
            last: 0,
            seen: 0,
        })
    }

    /// Holds segment `id` for being attached, after `check`.
    pub(crate) fn hold(
        &self,
        sys: &'static Linux<P>,
        id: i32,
        check: impl FnOnce(&Perm) -> Result<(), Errno>,
    ) -> Result<Held<P>, Errno> {
        let mut table = self.table.lock();
        let entry = table.get(id)?;
        check(&entry.perm)?;
        let (object, bytes) = (entry.value.object, entry.value.bytes);
        if !sys.vm.object(object).reference() {
            return Err(Errno::EIDRM);
        }
        Ok(Held { sys, object, bytes })
    }

    /// Notes that process `pid` attached segment `id`.
    pub(crate) fn attached(&self, sys: &Linux<P>, id: i32, pid: u32) {
        let now = sys.platform.wall_clock() / SECOND;
        let mut table = self.table.lock();
        if let Ok(entry) = table.get(id) {
            entry.value.attached_at = now;
            entry.value.last = pid;
            entry.value.seen = attached(sys, &entry.value);
        }
    }

    /// Notes that process `pid` forked, so that what it has attached is attached once more.
    pub(crate) fn forked(&self, sys: &Linux<P>, pid: u32) {
        let mut table = self.table.lock();
        for entry in table.entries.values_mut() {
            let count = attached(sys, &entry.value);
            if count > entry.value.seen {
                (entry.value.seen, entry.value.last) = (count, pid);
            }
        }
    }

    /// What `IPC_STAT` tells.
    pub(crate) fn stat(&self, sys: &Linux<P>, entry: &Entry<Segment>) -> SegmentStat {
        let s = &entry.value;
        SegmentStat {
            perm: entry.perm,
            bytes: s.bytes,
            attached_at: s.attached_at,
            detached_at: s.detached_at,
            changed_at: s.changed_at,
            creator: s.creator,
            last: s.last,
            attached: u64::from(attached(sys, s)),
            unused: [0; 2],
        }
    }

    /// Notes that an owner changed it.
    pub(crate) fn changed(&self, sys: &Linux<P>, entry: &mut Entry<Segment>) {
        entry.value.changed_at = sys.platform.wall_clock() / SECOND;
    }

    /// `IPC_RMID`: at once when it is attached nowhere, otherwise with its last use.
    pub(crate) fn remove(
        &self,
        sys: &Linux<P>,
        id: i32,
        check: impl FnOnce(&Perm) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut table = self.table.lock();
        let entry = table.get(id)?;
        check(&entry.perm)?;
        entry.perm.mode |= DEST;
        entry.perm.key = super::IPC_PRIVATE;
        drop(table);
        self.sweep(sys, 0);
        Ok(())
    }

    /// Notes what is attached less often than it was, by process `pid` if that is known, and
    /// frees what is to go and attached nowhere.
    pub(crate) fn sweep(&self, sys: &Linux<P>, pid: u32) {
        let mut gone = Vec::new();
        {
            let mut table = self.table.lock();
            if table.len() == 0 {
                return;
            }
            let now = sys.platform.wall_clock() / SECOND;
            for entry in table.entries.values_mut() {
                let s = &mut entry.value;
                let count = attached(sys, s);
                if count < s.seen {
                    s.detached_at = now;
                    if pid != 0 {
                        s.last = pid;
                    }
                }
                s.seen = count;
            }
            let done: Vec<i32> = table
                .all()
                .filter(|(_, e)| e.perm.mode & DEST != 0 && attached(sys, &e.value) == 0)
                .map(|(id, _)| id)
                .collect();
            for id in done {
                gone.extend(table.remove(id));
            }
        }
        for entry in gone {
            sys.vm.object(entry.value.object).release();
        }
    }

    /// Frees every segment: nobody is left.
    pub(crate) fn end(&self, sys: &Linux<P>) {
        let entries = core::mem::take(&mut self.table.lock().entries);
        for entry in entries.into_values() {
            sys.vm.object(entry.value.object).release();
        }
    }

    /// Key and number of the segment whose object this is: for the names in a map.
    pub(crate) fn of_object(&self, object: ObjectId) -> Option<(i32, i32)> {
        let table = self.table.lock();
        let found = table.all().find(|(_, e)| e.value.object == object);
        found.map(|(id, e)| (e.perm.key, id))
    }
}

/// How often a segment is attached: once for each mapping.
pub(crate) fn attached<P: Platform>(sys: &Linux<P>, segment: &Segment) -> u32 {
    sys.vm.object(segment.object).references().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_record_is_112_bytes() {
        assert_eq!(size_of::<SegmentStat>(), 112);
    }
}
