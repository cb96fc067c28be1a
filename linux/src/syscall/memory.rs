//! Mappings: `mmap` and what changes them.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::fs::inode::InodeRef;
use crate::fs::memfile::{MemFile, SIZE_MAX};
use crate::fs::table::OnExec;
use crate::platform::Platform;
use crate::thread::Task;
use alloc::sync::Arc;
use bsdvm::{
    Access, Backing, EntryInfo, Inherit, Machine, MapError, Mapping, ObjectId, Placement, Prot,
    Sharing, VirtAddr, VirtRange,
};
use linux_raw_sys::general as abi;

const MEMFD_NAME_MAX: usize = 249;
/// How far a `MAP_GROWSDOWN` mapping may grow where there is room.
const GROWTH: u64 = 8 << 20;
const PROT_KNOWN: u32 =
    abi::PROT_READ | abi::PROT_WRITE | abi::PROT_EXEC | abi::PROT_SEM | abi::PROT_GROWSDOWN;

/// The core's protection for Linux's bits. On x86 what can be written or executed can be read.
pub(super) fn protection(bits: u64) -> Prot {
    let mut prot = Prot::NONE;
    let bits = bits as u32;
    for (bit, p) in [
        (abi::PROT_READ, Prot::READ),
        (abi::PROT_WRITE, Prot::RW),
        (abi::PROT_EXEC, Prot::RX),
    ] {
        if bits & bit != 0 {
            prot |= p;
        }
    }
    prot
}

/// What a mapping shows. The inode is kept until the map has its own reference.
pub(super) struct Shown<P: Platform> {
    pub(super) what: Mapping,
    _inode: Option<InodeRef<P>>,
}

impl<P: Platform> Task<P> {
    pub(super) const MEMORY: Calls<P> = &[
        (abi::__NR_mmap, Self::mmap),
        (abi::__NR_munmap, Self::munmap),
        (abi::__NR_mprotect, Self::mprotect),
        (abi::__NR_brk, Self::brk),
        (abi::__NR_mremap, Self::mremap),
        (abi::__NR_memfd_create, Self::memfd_create),
    ];

    fn mmap(&mut self, [addr, len, prot, flags, fd, offset]: Args) -> Answer {
        let page = <P::Machine as Machine>::PAGE;
        if page.within(offset) != 0 || len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page.round_up(len).ok_or(Errno::ENOMEM)?;
        if len > self.sys.user_range().len() {
            return Err(Errno::ENOMEM);
        }
        if offset.checked_add(len).is_none_or(|end| end > SIZE_MAX) {
            return Err(Errno::EOVERFLOW);
        }
        let flags = flags as u32;
        let sharing = match flags & abi::MAP_TYPE {
            abi::MAP_SHARED | abi::MAP_SHARED_VALIDATE => Sharing::Shared,
            abi::MAP_PRIVATE => Sharing::Private,
            _ => return Err(Errno::EINVAL),
        };
        let prot = protection(prot);
        let shown = if flags & abi::MAP_ANONYMOUS != 0 {
            Shown {
                what: anonymous(sharing, prot),
                _inode: None,
            }
        } else {
            self.shown_file(&*self.file(fd)?, offset, sharing, prot)?
        };
        let at = if flags & abi::MAP_GROWSDOWN != 0 && flags & abi::MAP_ANONYMOUS != 0 {
            self.map_growing(addr, len, flags, prot)?
        } else {
            self.place(addr, len, flags, shown.what)?
        };
        self.after_mapping(at, len, flags);
        Ok(at.0)
    }

    /// The mapping that shows a file, after the checks that Linux makes.
    pub(super) fn shown_file(
        &self,
        file: &OpenFile<P>,
        offset: u64,
        sharing: Sharing,
        prot: Prot,
    ) -> Result<Shown<P>, Errno> {
        let writes = sharing == Sharing::Shared && prot.contains(Prot::WRITE);
        if !file.may_read() || (writes && !file.may_write()) {
            return Err(if file.flags() & abi::O_PATH != 0 {
                Errno::EBADF
            } else {
                Errno::EACCES
            });
        }
        let shared_max = if file.may_write() {
            Prot::ALL
        } else {
            Prot::RX
        };
        match &file.kind {
            Kind::Host(host) if host.is_zero_device() => Ok(Shown {
                what: anonymous(sharing, prot),
                _inode: None,
            }),
            Kind::Host(host) if host.is_regular() => {
                let inode = host.inode(self.sys)?;
                if sharing == Sharing::Shared && file.may_write() {
                    inode.allow_writes(&host.file);
                }
                let what = of_object(inode.object().id(), offset, sharing, prot, shared_max);
                Ok(Shown {
                    what,
                    _inode: Some(inode),
                })
            }
            Kind::Memory(memory) if memory.provided.is_some() => {
                let device = memory.provided.filter(|_| sharing == Sharing::Shared);
                let object = device.ok_or(Errno::EINVAL)?;
                let what = of_object(object, offset, sharing, prot, Prot::RX);
                let what = Mapping {
                    backing: Backing::Provided { object, offset },
                    ..what
                };
                Ok(Shown { what, _inode: None })
            }
            Kind::Memory(memory) => {
                let object = memory.object().id();
                let what = of_object(object, offset, sharing, prot, shared_max);
                Ok(Shown { what, _inode: None })
            }
            _ => Err(Errno::ENODEV),
        }
    }

    /// Maps where the flags want it: exactly there, there if free, or as high as possible.
    fn place(&self, addr: u64, len: u64, flags: u32, what: Mapping) -> Result<VirtAddr, Errno> {
        let page = <P::Machine as Machine>::PAGE;
        let core = self.space.core();
        if flags & (abi::MAP_FIXED | abi::MAP_FIXED_NOREPLACE) != 0 {
            let range = self.space.pages(addr, len, Errno::ENOMEM)?;
            if range.start() < self.sys.user_range().start() {
                return Err(Errno::EPERM);
            }
            let at = range.start();
            return Ok(if flags & abi::MAP_FIXED_NOREPLACE != 0 {
                core.map(len, Placement::At(at), what)?
            } else {
                let at = core.map(len, Placement::Replace(at), what)?;
                self.sys.inodes.sweep(self.sys);
                at
            });
        }
        let hint = page.ceil(VirtAddr(addr)).filter(|h| h.0 != 0);
        if let Some(hint) = hint {
            match core.map(len, Placement::At(hint), what) {
                Err(MapError::Overlap | MapError::InvalidAddress | MapError::NoSpace) => {}
                other => return Ok(other?),
            }
        }
        let below = VirtAddr(self.space.bounds.lock().mmap_top);
        Ok(core.map(
            len,
            Placement::TopDown {
                below,
                align: page.bytes(),
            },
            what,
        )?)
    }

    /// A mapping that grows downwards: a stack of the core, with as much room as there is.
    fn map_growing(&self, addr: u64, len: u64, flags: u32, prot: Prot) -> Result<VirtAddr, Errno> {
        let core = self.space.core();
        let at = self.place(addr, len, flags, anonymous(Sharing::Private, prot))?;
        let range = VirtRange::from_len(at, len).ok_or(Errno::ENOMEM)?;
        core.remove(range)?;
        let mut reserve = len.saturating_add(GROWTH);
        while reserve > len {
            if core.stack(range.end(), reserve, len, prot).is_ok() {
                return Ok(at);
            }
            reserve = len + (reserve - len) / 2 / 4096 * 4096;
        }
        core.stack(range.end(), len, len, prot)?;
        Ok(at)
    }

    /// `MAP_LOCKED`, `MAP_POPULATE`, and `mlockall(MCL_FUTURE)`: failures are not told.
    fn after_mapping(&self, at: VirtAddr, len: u64, flags: u32) {
        let Some(range) = VirtRange::from_len(at, len) else {
            return;
        };
        if flags & abi::MAP_LOCKED != 0 || self.space.bounds.lock().lock_future {
            self.space.core().wire(range).ok();
        } else if flags & abi::MAP_POPULATE != 0 {
            self.populate(range, Access::Read).ok();
        }
    }

    /// Faults every page in.
    pub(super) fn populate(&self, range: VirtRange, access: Access) -> Result<(), Errno> {
        for va in <P::Machine as Machine>::PAGE.pages(range) {
            self.space
                .core()
                .fault(va, access)
                .map_err(|_| Errno::EFAULT)?;
        }
        Ok(())
    }

    fn munmap(&mut self, [addr, len, ..]: Args) -> Answer {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let range = self.space.pages(addr, len, Errno::EINVAL)?;
        self.space.core().remove(self.clip(range))?;
        self.sys.inodes.sweep(self.sys);
        Ok(0)
    }

    /// The part of a range that a guest can have at all.
    pub(super) fn clip(&self, range: VirtRange) -> VirtRange {
        range.intersect(self.sys.user_range())
    }

    fn mprotect(&mut self, [addr, len, prot, ..]: Args) -> Answer {
        if prot as u32 & !(PROT_KNOWN | abi::PROT_GROWSUP) != 0 {
            return Err(Errno::EINVAL);
        }
        let range = self.space.pages(addr, len, Errno::ENOMEM)?;
        let prot = protection(prot);
        let core = self.space.core();
        if core.covered(range) && core.protect(range, prot).is_ok() {
            return Ok(0);
        }
        // Piece by piece, so that what lies before a hole or a refusal is done.
        self.each_piece(range, |piece, _| Ok(core.protect(piece, prot)?))
    }

    /// Calls `act` for the part of each entry in the range, in ascending order, and stops at the
    /// first hole with `ENOMEM`.
    pub(super) fn each_piece(
        &self,
        range: VirtRange,
        mut act: impl FnMut(VirtRange, &EntryInfo) -> Result<(), Errno>,
    ) -> Answer {
        let mut at = range.start();
        while at < range.end() {
            let entry = self.space.core().entry(at).ok_or(Errno::ENOMEM)?;
            let piece = entry.range.intersect(range);
            if entry.range.start() > at || piece.is_empty() {
                return Err(Errno::ENOMEM);
            }
            let piece = VirtRange::new(at, piece.end()).ok_or(Errno::ENOMEM)?;
            act(piece, &entry)?;
            at = piece.end();
        }
        Ok(0)
    }

    /// As [`Task::each_piece`], but goes on behind holes and tells of them at the end.
    pub(super) fn each_piece_and_holes(
        &self,
        range: VirtRange,
        mut act: impl FnMut(VirtRange, &EntryInfo) -> Result<(), Errno>,
    ) -> Answer {
        let mut at = range.start();
        let mut result = Ok(0);
        while at < range.end() {
            let next = self
                .space
                .core()
                .entry(at)
                .filter(|e| e.range.start() < range.end());
            let Some(entry) = next else {
                return Err(Errno::ENOMEM);
            };
            let start = entry.range.start().max(at);
            if start > at {
                result = Err(Errno::ENOMEM);
            }
            let end = entry.range.end().min(range.end());
            let piece = VirtRange::new(start, end).filter(|p| !p.is_empty());
            let piece = piece.ok_or(Errno::ENOMEM)?;
            act(piece, &entry)?;
            at = end;
        }
        result
    }

    fn brk(&mut self, [wanted, ..]: Args) -> Answer {
        let page = <P::Machine as Machine>::PAGE;
        let (start, now) = {
            let bounds = self.space.bounds.lock();
            (bounds.brk_start, bounds.brk)
        };
        let (Some(old_end), Some(new_end)) = (page.round_up(now), page.round_up(wanted)) else {
            return Ok(now);
        };
        if wanted < start || new_end > self.sys.user_range().end().0 {
            return Ok(now);
        }
        let core = self.space.core();
        let done = if new_end > old_end {
            let what = Mapping::anonymous(Prot::RW);
            core.map(new_end - old_end, Placement::At(VirtAddr(old_end)), what)
                .is_ok()
        } else {
            VirtRange::new(VirtAddr(new_end), VirtAddr(old_end))
                .is_some_and(|gone| gone.is_empty() || core.remove(gone).is_ok())
        };
        if !done {
            return Ok(now);
        }
        self.space.bounds.lock().brk = wanted;
        Ok(wanted)
    }

    fn mremap(&mut self, [addr, old_len, new_len, flags, to, _]: Args) -> Answer {
        let page = <P::Machine as Machine>::PAGE;
        let known = abi::MREMAP_MAYMOVE | abi::MREMAP_FIXED;
        let flags = flags as u32;
        let fixed = flags & abi::MREMAP_FIXED != 0;
        let may_move = flags & abi::MREMAP_MAYMOVE != 0;
        if flags & !known != 0 || (fixed && !may_move) || new_len == 0 || old_len == 0 {
            return Err(Errno::EINVAL);
        }
        let old = self.space.pages(addr, old_len, Errno::EINVAL)?;
        let new_len = page.round_up(new_len).ok_or(Errno::EINVAL)?;
        let core = self.space.core();
        let one = self.is_one_mapping(old);
        if fixed {
            let new = self.space.pages(to, new_len, Errno::EINVAL)?;
            if new.overlaps(old) {
                return Err(Errno::EINVAL);
            }
            if !one {
                return Err(Errno::EFAULT);
            }
            let at = core.move_(old, new_len, Placement::Replace(new.start()))?;
            self.sys.inodes.sweep(self.sys);
            return Ok(at.0);
        }
        if !one {
            return Err(Errno::EFAULT);
        }
        self.resize(old, new_len, may_move)
    }

    /// Whether the range is what Linux would keep as one mapping. The core may keep it in several
    /// entries, where they have objects of their own.
    fn is_one_mapping(&self, range: VirtRange) -> bool {
        let mut before: Option<EntryInfo> = None;
        let walked = self.each_piece(range, |_, entry| match before.replace(*entry) {
            Some(b) if !continues(&b, entry) => Err(Errno::EFAULT),
            _ => Ok(()),
        });
        walked.is_ok()
    }

    fn resize(&self, old: VirtRange, new_len: u64, may_move: bool) -> Answer {
        let page = <P::Machine as Machine>::PAGE;
        let core = self.space.core();
        if new_len <= old.len() {
            let keep = VirtRange::from_len(old.start(), new_len).ok_or(Errno::EINVAL)?;
            if let Some(gone) = VirtRange::new(keep.end(), old.end()).filter(|g| !g.is_empty()) {
                core.remove(gone)?;
                self.sys.inodes.sweep(self.sys);
            }
            return Ok(old.start().0);
        }
        if core.extend(old.end(), new_len - old.len()).is_ok() {
            return Ok(old.start().0);
        }
        if !may_move {
            return Err(Errno::ENOMEM);
        }
        let below = VirtAddr(self.space.bounds.lock().mmap_top);
        let placement = Placement::TopDown {
            below,
            align: page.bytes(),
        };
        Ok(core.move_(old, new_len, placement)?.0)
    }

    fn memfd_create(&mut self, [name, flags, ..]: Args) -> Answer {
        let known =
            abi::MFD_CLOEXEC | abi::MFD_ALLOW_SEALING | abi::MFD_NOEXEC_SEAL | abi::MFD_EXEC;
        if flags as u32 & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let name = self.string(name, MEMFD_NAME_MAX + 1, Errno::EINVAL)?;
        let file = OpenFile::memory(MemFile::create(self.sys, name)?);
        let close = flags as u32 & abi::MFD_CLOEXEC != 0;
        self.install(
            Arc::new(file),
            if close { OnExec::Close } else { OnExec::Keep },
        )
    }
}

/// Whether `b`, which follows `a`, maps more of the same in the same way.
fn continues(a: &EntryInfo, b: &EntryInfo) -> bool {
    let file = match (a.file, b.file) {
        (None, None) => true,
        (Some((x, at)), Some((y, then))) => x == y && at.checked_add(a.range.len()) == Some(then),
        _ => false,
    };
    file && (a.prot, a.max_prot, a.sharing, a.inherit) == (b.prot, b.max_prot, b.sharing, b.inherit)
}

fn anonymous(sharing: Sharing, prot: Prot) -> Mapping {
    let inherit = match sharing {
        Sharing::Private => Inherit::Copy,
        Sharing::Shared => Inherit::Share,
    };
    Mapping {
        sharing,
        inherit,
        ..Mapping::anonymous(prot)
    }
}

fn of_object(
    object: ObjectId,
    offset: u64,
    sharing: Sharing,
    prot: Prot,
    shared_max: Prot,
) -> Mapping {
    let mapping = Mapping::object(object, offset, sharing, prot);
    match sharing {
        Sharing::Private => Mapping {
            max_prot: Prot::ALL,
            inherit: Inherit::Copy,
            ..mapping
        },
        Sharing::Shared => Mapping {
            max_prot: shared_max,
            inherit: Inherit::Share,
            ..mapping
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_written_or_executed_can_be_read() {
        assert_eq!(protection(0), Prot::NONE);
        assert_eq!(protection(1), Prot::READ);
        assert_eq!(protection(2), Prot::RW);
        assert_eq!(protection(4), Prot::RX);
        assert_eq!(protection(7), Prot::ALL);
    }
}
