//! Mappings: `mmap`, `munmap`, `brk`.
//!
//! The checks and their order are Linux's: what is wrong with the place comes before what is wrong
//! with the file.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::fs::inode::InodeRef;
use crate::fs::memfile::SIZE_MAX;
use crate::platform::{HostFile, Platform};
use crate::space::TASK_END;
use crate::thread::Task;
use alloc::sync::Arc;
use bsdvm::{
    Backing, Inherit, Machine, MapError, Mapping, ObjectId, Placement, Prot, Sharing, VirtAddr,
    VirtRange,
};
use linux_raw_sys::general as abi;

/// Pages below a stack that no hint may take.
const GUARD: u64 = 256 * 4096;
/// Where `MAP_32BIT` looks.
const LOW: (u64, u64) = (0x4000_0000, 0x8000_0000);
/// The flags that were there before `MAP_SHARED_VALIDATE`: nobody minds them.
const LEGACY: u32 = abi::MAP_SHARED
    | abi::MAP_PRIVATE
    | abi::MAP_FIXED
    | abi::MAP_ANONYMOUS
    | abi::MAP_DENYWRITE
    | abi::MAP_EXECUTABLE
    | abi::MAP_UNINITIALIZED
    | abi::MAP_GROWSDOWN
    | abi::MAP_LOCKED
    | abi::MAP_NORESERVE
    | abi::MAP_POPULATE
    | abi::MAP_NONBLOCK
    | abi::MAP_STACK
    | abi::MAP_HUGETLB
    | abi::MAP_32BIT
    | MAP_ABOVE4G
    | HUGE_SIZES;
const MAP_ABOVE4G: u32 = 0x80;
/// Memory that may be lost, and that a child gets empty.
const MAP_DROPPABLE: u32 = 8;
const HUGE_SHIFT: u32 = 26;
const HUGE_SIZES: u32 = 0x3f << HUGE_SHIFT;
/// `statfs`'s flag for a file system from which nothing may be executed.
const ST_NOEXEC: u64 = 8;
/// What shared anonymous memory is called in maps.
const SHARED_NAME: &[u8] = b"/dev/zero (deleted)";

/// The core's protection for Linux's bits.
pub(super) fn protection(bits: u64) -> Prot {
    let mut prot = Prot::NONE;
    let bits = bits as u32;
    for (bit, p) in [
        (abi::PROT_READ, Prot::READ),
        (abi::PROT_WRITE, Prot::WRITE),
        (abi::PROT_EXEC, Prot::EXEC),
    ] {
        if bits & bit != 0 {
            prot |= p;
        }
    }
    prot
}

/// What a mapping shows, and who keeps it until the map has its own reference.
pub(super) struct Shown<P: Platform> {
    pub(super) what: Mapping,
    _inode: Option<InodeRef<P>>,
    _file: Option<Arc<OpenFile<P>>>,
}

impl<P: Platform> Task<P> {
    pub(super) const MEMORY: Calls<P> = &[
        (abi::__NR_mmap, Self::mmap),
        (abi::__NR_munmap, Self::munmap),
        (abi::__NR_brk, Self::brk),
    ];

    fn mmap(&mut self, [addr, len, prot, flags, fd, offset]: Args) -> Answer {
        let page = <P::Machine as Machine>::PAGE;
        let flags = flags as u32;
        if page.within(offset) != 0 {
            return Err(Errno::EINVAL);
        }
        let file = match flags & abi::MAP_ANONYMOUS {
            0 => Some(self.open_file(fd)?),
            _ => None,
        };
        if flags & abi::MAP_HUGETLB != 0 {
            return Err(huge(flags, file.is_some()));
        }
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page.round_up(len).ok_or(Errno::ENOMEM)?;
        self.check_map_count()?;
        self.check_place(addr, len, flags)?;
        let locked = flags & abi::MAP_LOCKED != 0;
        if locked && !self.may_lock() {
            return Err(Errno::EPERM);
        }
        let prot = protection(prot);
        if locked || self.space.bounds.lock().lock_future.is_some() {
            self.check_lock_limit(len)?;
        }
        let mapped = self.map_shown(file, (addr, len), prot, flags, offset);
        // A mapping in a free place takes the last use from nothing.
        if mapped.is_err() || flags & abi::MAP_FIXED != 0 {
            self.sys.inodes.sweep(self.sys);
        }
        let at = mapped?;
        if flags & abi::MAP_GROWSDOWN != 0
            && let Some(range) = VirtRange::from_len(at, len)
        {
            self.space.core().open_stack(range)?;
        }
        self.after_mapping(at, len, flags);
        Ok(at.0)
    }

    /// Maps a file or anonymous memory.
    fn map_shown(
        &self,
        file: Option<Arc<OpenFile<P>>>,
        (addr, len): (u64, u64),
        prot: Prot,
        flags: u32,
        offset: u64,
    ) -> Result<VirtAddr, Errno> {
        let end = offset.checked_add(len).filter(|&end| end <= SIZE_MAX);
        if file.is_some() && end.is_none() {
            return Err(Errno::EOVERFLOW);
        }
        let sharing = match (flags & abi::MAP_TYPE, &file) {
            (abi::MAP_SHARED, _) => Sharing::Shared,
            (abi::MAP_PRIVATE, _) => Sharing::Private,
            (abi::MAP_SHARED_VALIDATE, Some(_)) if flags & !(LEGACY | abi::MAP_TYPE) != 0 => {
                return Err(Errno::EOPNOTSUPP);
            }
            (abi::MAP_SHARED_VALIDATE, Some(_)) => Sharing::Shared,
            (MAP_DROPPABLE, None) if flags & (abi::MAP_LOCKED | abi::MAP_GROWSDOWN) == 0 => {
                Sharing::Private
            }
            _ => return Err(Errno::EINVAL),
        };
        if flags & abi::MAP_GROWSDOWN != 0 && (file.is_some() || sharing == Sharing::Shared) {
            return Err(Errno::EINVAL);
        }
        let data = sharing == Sharing::Private && prot.contains(Prot::WRITE);
        let data = data && flags & abi::MAP_GROWSDOWN == 0;
        let shown = match file {
            None if sharing == Sharing::Shared => {
                return self.map_shared((addr, len), prot, flags, 0);
            }
            None => Shown {
                what: Mapping {
                    inherit: match flags & abi::MAP_TYPE {
                        MAP_DROPPABLE => Inherit::Zero,
                        _ => Inherit::Copy,
                    },
                    ..Mapping::anonymous(prot)
                },
                _inode: None,
                _file: None,
            },
            Some(file) => {
                if self.is_zero_device(&file) && sharing == Sharing::Shared {
                    self.check_access(&file, sharing, prot)?;
                    return self.map_shared((addr, len), prot, flags, offset);
                }
                self.shown_file(file, offset, sharing, prot)?
            }
        };
        self.check_limits(len, self.replaced(addr, len, flags), data)?;
        self.place(addr, len, flags, shown.what)
    }

    /// Shared anonymous memory: a file of its own, which nobody can open, as long as the mapping
    /// is now.
    fn map_shared(
        &self,
        (addr, len): (u64, u64),
        prot: Prot,
        flags: u32,
        offset: u64,
    ) -> Result<VirtAddr, Errno> {
        self.check_limits(len, self.replaced(addr, len, flags), false)?;
        let inode =
            self.sys
                .memory_inodes
                .create(self.sys, SHARED_NAME.to_vec(), len, (0o777, 0))?;
        let what = of_object(inode.object, offset, Sharing::Shared, prot, Prot::ALL);
        let placed = self.place(addr, len, flags, what);
        self.sys.vm.object(inode.object).release();
        placed
    }

    fn is_zero_device(&self, file: &OpenFile<P>) -> bool {
        matches!(&file.kind, Kind::Host(host) if host.is_zero_device())
    }

    /// The open file behind a descriptor, unless it is only a path (`O_PATH`).
    pub(super) fn open_file(&self, fd: u64) -> Result<Arc<OpenFile<P>>, Errno> {
        let file = self.file(fd)?;
        match file.flags() & abi::O_PATH {
            0 => Ok(file),
            _ => Err(Errno::EBADF),
        }
    }

    /// Whether a file was opened in a way that allows the mapping.
    fn check_access(&self, file: &OpenFile<P>, sharing: Sharing, prot: Prot) -> Result<(), Errno> {
        let writes = sharing == Sharing::Shared && prot.contains(Prot::WRITE);
        if (writes && !file.may_write()) || !file.may_read() {
            return Err(Errno::EACCES);
        }
        Ok(())
    }

    /// The mapping that shows a file, after the checks that Linux makes.
    pub(super) fn shown_file(
        &self,
        file: Arc<OpenFile<P>>,
        offset: u64,
        sharing: Sharing,
        prot: Prot,
    ) -> Result<Shown<P>, Errno> {
        self.check_access(&file, sharing, prot)?;
        let mut most = Prot::ALL;
        if sharing == Sharing::Shared && !file.may_write() {
            most = Prot::RX;
        }
        let mut inode = None;
        let what = match &file.kind {
            Kind::Host(host) if host.is_zero_device() => Mapping::anonymous(prot),
            Kind::Host(host) if host.is_regular() => {
                if host.file.statfs().is_ok_and(|fs| fs.flags & ST_NOEXEC != 0) {
                    if prot.contains(Prot::EXEC) {
                        return Err(Errno::EPERM);
                    }
                    most -= Prot::EXEC;
                }
                let found = host.inode(self.sys)?;
                if sharing == Sharing::Shared && file.may_write() {
                    found.allow_writes(&host.file);
                }
                let object = found.object().id();
                inode = Some(found);
                of_object(object, offset, sharing, prot, most)
            }
            Kind::Memory(memory) if memory.provided.is_some() => {
                let device = memory.provided.filter(|_| sharing == Sharing::Shared);
                let object = device.ok_or(Errno::EINVAL)?;
                Mapping {
                    backing: Backing::Provided { object, offset },
                    ..of_object(object, offset, sharing, prot, Prot::RX)
                }
            }
            Kind::Memory(memory) => {
                let most = most & memory.mappable(sharing, prot)?;
                of_object(memory.object().id(), offset, sharing, prot, most)
            }
            _ => return Err(Errno::ENODEV),
        };
        Ok(Shown {
            what,
            _inode: inode,
            _file: Some(file),
        })
    }

    /// What Linux says of a place before it looks at what is to be mapped there.
    fn check_place(&self, addr: u64, len: u64, flags: u32) -> Result<(), Errno> {
        if len > TASK_END {
            return Err(Errno::ENOMEM);
        }
        if flags & (abi::MAP_FIXED | abi::MAP_FIXED_NOREPLACE) == 0 {
            return Ok(());
        }
        let range = self.space.pages(addr, len, Errno::ENOMEM);
        if addr > TASK_END - len {
            return Err(Errno::ENOMEM);
        }
        let range = range?;
        let user = self.sys.user_range();
        if range.start() < user.start() {
            return Err(Errno::EPERM);
        }
        if range.end() > user.end() {
            return Err(Errno::ENOMEM);
        }
        if flags & abi::MAP_FIXED_NOREPLACE != 0 && self.mapped_in(range) > 0 {
            return Err(Errno::EEXIST);
        }
        Ok(())
    }

    /// Maps where the flags want it: exactly there, there if free, or as high as possible.
    fn place(&self, addr: u64, len: u64, flags: u32, what: Mapping) -> Result<VirtAddr, Errno> {
        let page = <P::Machine as Machine>::PAGE;
        let core = self.space.core();
        let at = VirtAddr(addr);
        if flags & abi::MAP_FIXED_NOREPLACE != 0 {
            return Ok(core.map(len, Placement::At(at), what)?);
        }
        if flags & abi::MAP_FIXED != 0 {
            return Ok(core.map(len, Placement::Replace(at), what)?);
        }
        if let Some(hint) = self.hint(addr, len) {
            match core.map(len, Placement::At(hint), what) {
                Err(MapError::Overlap | MapError::InvalidAddress | MapError::NoSpace) => {}
                other => return Ok(other?),
            }
        }
        if flags & abi::MAP_32BIT != 0 {
            return self.place_low(len, what);
        }
        let below = VirtAddr(self.space.bounds.lock().mmap_top);
        let align = page.bytes();
        Ok(core.map(len, Placement::TopDown { below, align }, what)?)
    }

    /// The place that a hint means, unless a stack above wants it for its guard.
    pub(super) fn hint(&self, addr: u64, len: u64) -> Option<VirtAddr> {
        let page = <P::Machine as Machine>::PAGE;
        let hint = page.floor(VirtAddr(addr));
        if hint.0 == 0 {
            return None;
        }
        let hint = hint.max(self.sys.user_range().start());
        let end = hint.checked_add(len)?;
        let above = self.space.core().entry(hint);
        let guarded = above.is_some_and(|entry| {
            entry.stack && entry.range.start().0.saturating_sub(GUARD) < end.0
        });
        (!guarded).then_some(hint)
    }

    fn place_low(&self, len: u64, what: Mapping) -> Result<VirtAddr, Errno> {
        let core = self.space.core();
        let from = VirtAddr(LOW.0);
        let align = <P::Machine as Machine>::PAGE.bytes();
        let at = core.map(len, Placement::FirstFit { from, align }, what)?;
        if at.0.saturating_add(len) <= LOW.1 {
            return Ok(at);
        }
        core.remove(VirtRange::from_len(at, len).ok_or(Errno::ENOMEM)?)?;
        Err(Errno::ENOMEM)
    }

    /// Bytes that a mapping at a fixed place takes the place of.
    fn replaced(&self, addr: u64, len: u64, flags: u32) -> u64 {
        match VirtRange::from_len(VirtAddr(addr), len) {
            Some(range) if flags & abi::MAP_FIXED != 0 && self.is_limited() => {
                self.mapped_in(range)
            }
            _ => 0,
        }
    }

    /// `MAP_LOCKED`, `MAP_POPULATE`, and `mlockall(MCL_FUTURE)`: failures are not told.
    pub(super) fn after_mapping(&self, at: VirtAddr, len: u64, flags: u32) {
        const POPULATE: u32 = abi::MAP_POPULATE | abi::MAP_NONBLOCK;
        let Some(range) = VirtRange::from_len(at, len) else {
            return;
        };
        let future = self.space.bounds.lock().lock_future;
        if flags & abi::MAP_LOCKED != 0 {
            self.lock_range(range, super::memory_lock::Pages::Now).ok();
        } else if let Some(pages) = future {
            self.lock_range(range, pages).ok();
        } else if flags & POPULATE == abi::MAP_POPULATE {
            self.each_piece(range, |piece, entry| self.bring_in(piece, entry))
                .ok();
        }
    }

    fn munmap(&mut self, [addr, len, ..]: Args) -> Answer {
        let range = self.space.pages(addr, len, Errno::EINVAL)?;
        if range.is_empty() {
            return Err(Errno::EINVAL);
        }
        self.check_hole(range)?;
        self.space.core().remove(self.clip(range))?;
        self.sys.inodes.sweep_soon(self.sys);
        Ok(0)
    }

    /// The part of a range that a guest can have at all.
    pub(super) fn clip(&self, range: VirtRange) -> VirtRange {
        range.intersect(self.sys.user_range())
    }

    fn brk(&mut self, [wanted, ..]: Args) -> Answer {
        let now = self.space.bounds.lock().brk;
        Ok(self.set_break(now, wanted).unwrap_or(now))
    }

    /// Moves the break from `now`; `None` when it cannot be where it is wanted.
    fn set_break(&self, now: u64, wanted: u64) -> Option<u64> {
        let page = <P::Machine as Machine>::PAGE;
        let (start, data) = {
            let bounds = self.space.bounds.lock();
            (
                bounds.brk_start,
                bounds.data.1.saturating_sub(bounds.data.0),
            )
        };
        let (old_end, new_end) = (page.round_up(now)?, page.round_up(wanted)?);
        let limit = self.process.limit(abi::RLIMIT_DATA);
        let heap = wanted.checked_sub(start)?;
        if limit != u64::MAX && heap.saturating_add(data) > limit {
            return None;
        }
        let core = self.space.core();
        if new_end > old_end {
            let more = new_end - old_end;
            let place = self.space.pages(old_end, more, Errno::ENOMEM).ok()?;
            // The heap keeps a page away from what follows it.
            let apart = VirtRange::from_len(place.end(), page.bytes())?;
            if self.mapped_in(apart) > 0 || self.hint(old_end, more).is_none() {
                return None;
            }
            if self.space.bounds.lock().lock_future.is_some() {
                self.check_lock_limit(more).ok()?;
            }
            self.check_limits(more, 0, true).ok()?;
            let what = Mapping::anonymous(Prot::RW);
            core.map(more, Placement::At(place.start()), what).ok()?;
            self.after_mapping(place.start(), more, 0);
        } else if new_end < old_end {
            let gone = VirtRange::new(VirtAddr(new_end), VirtAddr(old_end))?;
            core.remove(gone).ok()?;
        }
        self.space.bounds.lock().brk = wanted;
        Some(wanted)
    }
}

/// What a host without huge pages in its pool says to who wants some.
fn huge(flags: u32, file: bool) -> Errno {
    let size = flags >> HUGE_SHIFT;
    if !file && matches!(size, 0 | 21 | 30) {
        Errno::ENOMEM
    } else {
        Errno::EINVAL
    }
}

pub(super) fn of_object(
    object: ObjectId,
    offset: u64,
    sharing: Sharing,
    prot: Prot,
    max_prot: Prot,
) -> Mapping {
    Mapping {
        max_prot,
        inherit: match sharing {
            Sharing::Private => Inherit::Copy,
            Sharing::Shared => Inherit::Share,
        },
        ..Mapping::object(object, offset, sharing, prot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protections_are_what_was_asked_for() {
        assert_eq!(protection(0), Prot::NONE);
        assert_eq!(protection(1), Prot::READ);
        assert_eq!(protection(2), Prot::WRITE);
        assert_eq!(protection(4), Prot::EXEC);
        assert_eq!(protection(7), Prot::ALL);
    }
}
