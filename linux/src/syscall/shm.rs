//! System V shared memory: `shmget`, `shmat`, `shmdt`, `shmctl`.

use super::{Answer, Args, Calls};
use crate::creds::cap;
use crate::errno::Errno;
use crate::ipc::shm::{LOCKED, SegmentStat};
use crate::ipc::{IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, READ, Request, WRITE};
use crate::platform::Platform;
use crate::system::Linux;
use crate::thread::Task;
use bsdvm::{Inherit, Machine, Mapping, ObjectId, Placement, Prot, Sharing, VirtAddr};
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

const SHM_HUGETLB: u32 = 0o4000;
const SHM_RDONLY: u32 = 0o10000;
/// In `shmget`; the same bit is `SHM_RDONLY` in `shmat`.
const SHM_NORESERVE: u32 = 0o10000;
const SHM_RND: u32 = 0o20000;
const SHM_REMAP: u32 = 0o40000;
const SHM_EXEC: u32 = 0o100000;
const SHM_LOCK: u32 = 11;
const SHM_UNLOCK: u32 = 12;
const SHM_STAT: u32 = 13;
const SHM_INFO: u32 = 14;
const SHM_STAT_ANY: u32 = 15;
const RLIMIT_MEMLOCK: u32 = 8;

impl<P: Platform> Task<P> {
    pub(super) const SHM: Calls<P> = &[
        (abi::__NR_shmget, Self::shmget),
        (abi::__NR_shmat, Self::shmat),
        (abi::__NR_shmdt, Self::shmdt),
        (abi::__NR_shmctl, Self::shmctl),
    ];

    fn shmget(&mut self, [key, bytes, flags, ..]: Args) -> Answer {
        let creds = self.creds();
        let flags = flags as u32;
        let request = Request {
            key: key as i32,
            flags,
        };
        let segments = &self.sys.segments;
        let page = Linux::<P>::PAGE_BYTES;
        let id = segments.table.lock().obtain(
            request,
            &creds,
            |s| {
                if s.bytes < bytes {
                    Err(Errno::EINVAL)
                } else {
                    Ok(())
                }
            },
            |table| {
                segments.check(table, bytes)?;
                // There are no huge pages to make one of.
                if flags & SHM_HUGETLB != 0 {
                    return Err(Errno::ENOMEM);
                }
                let reserve = flags & SHM_NORESERVE == 0;
                let c = self.sys.vm.counters();
                if reserve && bytes.div_ceil(page) > c.frames_total + c.swap_total {
                    return Err(Errno::ENOMEM);
                }
                segments.make(self.sys, bytes, self.process.pid)
            },
        )?;
        Ok(id as u64)
    }

    fn shmat(&mut self, [id, addr, flags, ..]: Args) -> Answer {
        let (id, flags) = (id as i32, flags as u32);
        let addr = self.attach_address(addr, flags)?;
        let creds = self.creds();
        let read_only = flags & SHM_RDONLY != 0;
        let (mut prot, mut wanted) = if read_only {
            (Prot::READ, READ)
        } else {
            (Prot::RW, READ | WRITE)
        };
        if flags & SHM_EXEC != 0 {
            prot |= Prot::RX;
            wanted |= 0o111;
        }
        let segments = &self.sys.segments;
        let held = segments.hold(self.sys, id, |perm| perm.check(&creds, wanted))?;
        let mapping = Mapping {
            inherit: Inherit::Share,
            max_prot: if read_only { Prot::RX } else { Prot::ALL },
            ..Mapping::object(held.object, 0, Sharing::Shared, prot)
        };
        let at = self.attach(addr, held.bytes, flags, mapping)?;
        drop(held);
        segments.attached(self.sys, id, self.process.pid);
        self.sys.inodes.sweep(self.sys);
        Ok(at.0)
    }

    /// Where the caller wants it; `None` is anywhere.
    fn attach_address(&self, addr: u64, flags: u32) -> Result<Option<u64>, Errno> {
        let page = Linux::<P>::PAGE_BYTES;
        let remap = flags & SHM_REMAP != 0;
        if addr == 0 {
            return if remap { Err(Errno::EINVAL) } else { Ok(None) };
        }
        let rest = addr % page;
        if rest != 0 && flags & SHM_RND == 0 {
            return Err(Errno::EINVAL);
        }
        match addr - rest {
            0 if remap => Err(Errno::EINVAL),
            // Rounded down to nothing: anywhere will do, as on Linux.
            0 => Ok(None),
            at => Ok(Some(at)),
        }
    }

    fn attach(
        &self,
        addr: Option<u64>,
        bytes: u64,
        flags: u32,
        mapping: Mapping,
    ) -> Result<VirtAddr, Errno> {
        let page = <P::Machine as Machine>::PAGE;
        let len = page.round_up(bytes).ok_or(Errno::ENOMEM)?;
        let core = self.space.core();
        let Some(addr) = addr else {
            let below = VirtAddr(self.space.bounds.lock().mmap_top);
            let align = page.bytes();
            return Ok(core.map(len, Placement::TopDown { below, align }, mapping)?);
        };
        let range = self.space.pages(addr, len, Errno::EINVAL)?;
        let placement = if flags & SHM_REMAP != 0 {
            Placement::Replace(range.start())
        } else {
            Placement::At(range.start())
        };
        core.map(len, placement, mapping)
            .map_err(|e| match Errno::from(e) {
                Errno::EEXIST => Errno::EINVAL,
                other => other,
            })
    }

    fn shmdt(&mut self, [addr, ..]: Args) -> Answer {
        let page = <P::Machine as Machine>::PAGE;
        if !page.is_aligned(VirtAddr(addr)) {
            return Err(Errno::EINVAL);
        }
        let mut found: Option<(ObjectId, u64)> = None;
        let mut at = VirtAddr(addr);
        let end = |found: Option<(ObjectId, u64)>| {
            found.map_or(u64::MAX, |(_, bytes)| addr.saturating_add(bytes))
        };
        while at.0 < end(found) {
            let Some(entry) = self.space.core().entry(at) else {
                break;
            };
            let start = entry.range.start();
            at = entry.range.end();
            let shared = entry.sharing == Sharing::Shared && start.0 >= addr;
            let Some(object) = entry.object.filter(|_| shared) else {
                continue;
            };
            let is_it = match found {
                Some((known, bytes)) => known == object && start.0 - addr < bytes,
                None => self.sys.segments.of_object(object).is_some(),
            };
            if !is_it || start.0 - addr != entry.offset {
                continue;
            }
            found = Some((object, self.sys.vm.object(object).size()));
            self.space.core().remove(entry.range)?;
        }
        self.sys.segments.sweep(self.sys, self.process.pid);
        found.map(|_| 0).ok_or(Errno::EINVAL)
    }

    fn shmctl(&mut self, [id, command, to, ..]: Args) -> Answer {
        let (id, command) = (id as i32, command as u32);
        if id < 0 || (command as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        let creds = self.creds();
        let segments = &self.sys.segments;
        match command {
            IPC_INFO => self.segment_limits(to),
            SHM_INFO => self.segment_figures(to),
            IPC_STAT => {
                let stat = {
                    let mut table = segments.table.lock();
                    let entry = table.get(id)?;
                    entry.perm.check(&creds, READ)?;
                    segments.stat(self.sys, entry)
                };
                self.put(to, &stat).map(|()| 0)
            }
            SHM_STAT | SHM_STAT_ANY => {
                let (id, stat) = {
                    let mut table = segments.table.lock();
                    let (id, entry) = table.at_place(id)?;
                    if command == SHM_STAT {
                        entry.perm.check(&creds, READ)?;
                    }
                    (id, segments.stat(self.sys, entry))
                };
                self.put(to, &stat).map(|()| id as u64)
            }
            IPC_SET => {
                let new: SegmentStat = self.get(to)?;
                let mut table = segments.table.lock();
                let entry = table.get(id)?;
                entry.perm.check_owner(&creds)?;
                entry.perm.update(&new.perm)?;
                segments.changed(self.sys, entry);
                Ok(0)
            }
            IPC_RMID => segments
                .remove(self.sys, id, |perm| perm.check_owner(&creds))
                .map(|()| 0),
            SHM_LOCK | SHM_UNLOCK => {
                let limit = self.process.limit(RLIMIT_MEMLOCK);
                let mut table = segments.table.lock();
                let entry = table.get(id)?;
                let own = entry.perm.is_owned_by(&creds) && (command == SHM_UNLOCK || limit > 0);
                if !own && !creds.capable(cap::IPC_LOCK) {
                    return Err(Errno::EPERM);
                }
                entry.perm.mode &= !LOCKED;
                if command == SHM_LOCK {
                    entry.perm.mode |= LOCKED;
                }
                Ok(0)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// `struct shminfo64`.
    fn segment_limits(&self, to: u64) -> Answer {
        let segments = &self.sys.segments;
        let largest = segments.largest.load(Ordering::Relaxed);
        let pages = segments.pages.load(Ordering::Relaxed);
        let (most, highest) = {
            let table = segments.table.lock();
            (u64::from(table.most), table.highest())
        };
        self.put(to, &[largest, 1, most, most, pages, 0, 0, 0, 0])?;
        Ok(u64::from(highest))
    }

    /// `struct shm_info`.
    fn segment_figures(&self, to: u64) -> Answer {
        let page = Linux::<P>::PAGE_BYTES;
        let (used, pages, resident, highest) = {
            let table = self.sys.segments.table.lock();
            let sizes = table.all().map(|(_, e)| e.value.bytes.div_ceil(page));
            let resident = table
                .all()
                .map(|(_, e)| self.sys.vm.object(e.value.object).resident_pages());
            (table.len(), sizes.sum(), resident.sum(), table.highest())
        };
        self.put(to, &[used as u64, pages, resident, 0, 0, 0])?;
        Ok(u64::from(highest))
    }
}

/// The part of a map that a segment's line names.
pub(crate) fn name(key: i32) -> alloc::string::String {
    alloc::format!("/SYSV{key:08x} (deleted)")
}
