//! `mremap`: mappings that change their place or their length. And `remap_file_pages`.

use super::memory_pieces::more_of;
use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::memfile::SIZE_MAX;
use crate::platform::Platform;
use crate::space::TASK_END;
use crate::thread::Task;
use alloc::vec::Vec;
use bsdvm::{EntryInfo, Machine, MapError, Mapping, Placement, Prot, Sharing, VirtAddr, VirtRange};
use linux_raw_sys::general as abi;

/// What is asked for, checked as far as numbers go.
struct Remap {
    addr: u64,
    old_len: u64,
    new_len: u64,
    may_move: bool,
    /// `MREMAP_FIXED`: there.
    to: Option<u64>,
    /// `MREMAP_DONTUNMAP`: the old place stays mapped, and empty. With the place that would be
    /// liked.
    keep: Option<u64>,
}

impl Remap {
    fn end(&self) -> u64 {
        self.addr.wrapping_add(self.old_len)
    }

    fn elsewhere(&self) -> bool {
        self.to.is_some() || self.keep.is_some()
    }
}

impl<P: Platform> Task<P> {
    pub(super) const MOVING: Calls<P> = &[
        (abi::__NR_mremap, Self::mremap),
        (abi::__NR_remap_file_pages, Self::remap_file_pages),
    ];

    fn mremap(&mut self, args: Args) -> Answer {
        let remap = Self::parse_remap(args)?;
        let done = if remap.to.is_some() && remap.old_len == remap.new_len {
            self.move_all(&remap)
        } else {
            self.remap_one(&remap)
        };
        self.sys.inodes.sweep(self.sys);
        done
    }

    fn parse_remap([addr, old_len, new_len, flags, to, _]: Args) -> Result<Remap, Errno> {
        let page = <P::Machine as Machine>::PAGE;
        let has = |flag: u32| flags & u64::from(flag) != 0;
        let known = abi::MREMAP_MAYMOVE | abi::MREMAP_FIXED | abi::MREMAP_DONTUNMAP;
        let old_len = page.round_up(old_len).unwrap_or(0);
        let new_len = page.round_up(new_len).unwrap_or(0);
        if flags & !u64::from(known) != 0 || page.within(addr) != 0 {
            return Err(Errno::EINVAL);
        }
        if new_len == 0 || new_len > TASK_END {
            return Err(Errno::EINVAL);
        }
        let remap = Remap {
            addr,
            old_len,
            new_len,
            may_move: has(abi::MREMAP_MAYMOVE),
            to: has(abi::MREMAP_FIXED).then_some(to),
            keep: has(abi::MREMAP_DONTUNMAP).then_some(to),
        };
        if remap.elsewhere() {
            let resized = remap.keep.is_some() && old_len != new_len;
            if to > TASK_END - new_len || page.within(to) != 0 || !remap.may_move || resized {
                return Err(Errno::EINVAL);
            }
            if remap.end() > to && to + new_len > addr {
                return Err(Errno::EINVAL);
            }
        }
        Ok(remap)
    }

    /// Moves whatever is mapped in the old range, with the holes between, without a change of
    /// length. The first page must be mapped.
    fn move_all(&self, remap: &Remap) -> Answer {
        let (start, end) = (VirtAddr(remap.addr), VirtAddr(remap.end()));
        if self.entry_at(start).is_none() {
            return Err(Errno::EFAULT);
        }
        let mut at = start;
        let mut first = None;
        while at < end {
            let Some(next) = self
                .space
                .core()
                .entry(at)
                .filter(|e| e.range.start() < end)
            else {
                break;
            };
            let from = next.range.start().max(at);
            let (_, mapped_to) = self.mapping_at(from).ok_or(Errno::EFAULT)?;
            let range = VirtRange::new(from, mapped_to.min(end)).ok_or(Errno::EFAULT)?;
            let to = remap.to.map(|to| VirtAddr(to + from.bytes_above(start)));
            let moved = self.move_mapping(range, range.len(), to, remap.keep)?;
            first.get_or_insert(moved);
            at = range.end();
        }
        first.ok_or(Errno::EFAULT)
    }

    /// Changes the length of one mapping, or part of one, and its place where it has to.
    fn remap_one(&self, remap: &Remap) -> Answer {
        let start = VirtAddr(remap.addr);
        let (entry, mapped_to) = self.mapping_at(start).ok_or(Errno::EFAULT)?;
        if !remap.elsewhere() && remap.old_len >= remap.new_len {
            return self.shrink(remap);
        }
        if remap.old_len == 0 && entry.sharing == Sharing::Private {
            return Err(Errno::EINVAL);
        }
        let shrinks = remap.old_len > remap.new_len;
        let old_len = remap.old_len.min(remap.new_len);
        if old_len > mapped_to.bytes_above(start) {
            return Err(Errno::EFAULT);
        }
        let more = remap.new_len.saturating_sub(remap.old_len);
        self.check_growth(&entry, start, remap.new_len, more)?;
        let to = match remap.to {
            Some(to) => Some(self.check_target(to, remap.new_len)?),
            None => None,
        };
        if remap.old_len == 0 {
            return self.duplicate(&entry, remap, to);
        }
        if shrinks {
            self.shrink(remap)?;
        }
        let old = VirtRange::from_len(start, old_len).ok_or(Errno::EFAULT)?;
        if to.is_none() && old.end() == mapped_to && self.grow_in_place(old.end(), more).is_ok() {
            return Ok(remap.addr);
        }
        if !remap.may_move {
            return Err(Errno::ENOMEM);
        }
        self.move_mapping(old, remap.new_len, to, remap.keep)
    }

    fn check_growth(
        &self,
        entry: &EntryInfo,
        start: VirtAddr,
        new_len: u64,
        more: u64,
    ) -> Result<(), Errno> {
        if more == 0 {
            return Ok(());
        }
        if let Some((_, offset)) = entry.file {
            let skip = start.bytes_above(entry.range.start());
            let end = offset
                .checked_add(skip)
                .and_then(|o| o.checked_add(new_len));
            if end.is_none_or(|end| end > SIZE_MAX) {
                return Err(Errno::EINVAL);
            }
        }
        if entry.page_directory.is_some() || entry.provided {
            return Err(Errno::EFAULT);
        }
        if entry.user_wired {
            self.check_lock_limit(more)?;
        }
        let data = entry.sharing == Sharing::Private && entry.prot.contains(Prot::WRITE);
        self.check_limits(more, 0, data && !entry.stack)
    }

    fn check_target(&self, to: u64, len: u64) -> Result<VirtAddr, Errno> {
        let range = self.space.pages(to, len, Errno::EINVAL)?;
        let user = self.sys.user_range();
        if range.start() < user.start() {
            return Err(Errno::EPERM);
        }
        if range.end() > user.end() {
            return Err(Errno::ENOMEM);
        }
        Ok(range.start())
    }

    fn shrink(&self, remap: &Remap) -> Answer {
        let keep = VirtAddr(remap.addr.wrapping_add(remap.new_len));
        if let Some(gone) = VirtRange::new(keep, VirtAddr(remap.end())).filter(|g| !g.is_empty()) {
            if gone.end().0 > TASK_END {
                return Err(Errno::EINVAL);
            }
            self.space.core().remove(self.clip(gone))?;
        }
        Ok(remap.addr)
    }

    /// Makes the mapping that ends at `end` longer.
    fn grow_in_place(&self, end: VirtAddr, more: u64) -> Result<(), Errno> {
        let last = self.entry_at(VirtAddr(end.0 - 1)).ok_or(Errno::EFAULT)?;
        let what = more_of(&last, last.range.len());
        self.space.core().map(more, Placement::At(end), what)?;
        self.make_alike(&last, VirtRange::from_len(end, more));
        Ok(())
    }

    /// Gives new memory what else its mapping has: advice, and locks.
    fn make_alike(&self, entry: &EntryInfo, range: Option<VirtRange>) {
        use bsdvm::{Advice, Behavior};
        let Some(range) = range.filter(|r| !r.is_empty()) else {
            return;
        };
        let core = self.space.core();
        if entry.behavior != Behavior::Normal {
            core.advise(range, Advice::Behavior(entry.behavior)).ok();
        }
        if entry.no_core {
            core.advise(range, Advice::NoCore).ok();
        }
        if entry.stack {
            core.open_stack(range).ok();
        }
        if entry.user_wired {
            self.lock_range(range, super::memory_lock::Pages::Now).ok();
        }
    }

    /// `old_len` 0: the same shared memory once more.
    fn duplicate(&self, entry: &EntryInfo, remap: &Remap, to: Option<VirtAddr>) -> Answer {
        if !remap.may_move {
            return Err(Errno::ENOMEM);
        }
        if to == Some(VirtAddr(remap.addr)) {
            // The place is cleared first, and what was to be shown again is gone.
            let gone = VirtRange::from_len(VirtAddr(remap.addr), remap.new_len);
            self.space.core().remove(gone.ok_or(Errno::EFAULT)?)?;
            return Err(Errno::EFAULT);
        }
        let skip = VirtAddr(remap.addr).bytes_above(entry.range.start());
        let what = more_of(entry, skip);
        let at = self
            .space
            .core()
            .map(remap.new_len, self.placement(to), what)?;
        self.make_alike(entry, VirtRange::from_len(at, remap.new_len));
        Ok(at.0)
    }

    fn placement(&self, to: Option<VirtAddr>) -> Placement {
        match to {
            Some(to) => Placement::Replace(to),
            None => Placement::TopDown {
                below: VirtAddr(self.space.bounds.lock().mmap_top),
                align: <P::Machine as Machine>::PAGE.bytes(),
            },
        }
    }

    /// Moves `old`, which has no hole, to a place of `len` bytes.
    fn move_mapping(
        &self,
        old: VirtRange,
        len: u64,
        to: Option<VirtAddr>,
        keep: Option<u64>,
    ) -> Answer {
        if let Some(to) = to {
            self.check_target(to.0, len)?;
        }
        let mut stay: Vec<(VirtRange, Mapping)> = Vec::new();
        if keep.is_some() {
            self.check_limits(old.len(), 0, false)?;
            self.each_piece(old, |piece, entry| {
                let skip = piece.start().bytes_above(entry.range.start());
                stay.push((piece, more_of(entry, skip)));
                Ok(())
            })
            .map_err(|_| Errno::EFAULT)?;
        }
        let last = self
            .entry_at(VirtAddr(old.end().0 - 1))
            .ok_or(Errno::EFAULT)?;
        let core = self.space.core();
        let liked = keep
            .filter(|_| to.is_none())
            .and_then(|at| self.hint(at, len));
        let liked = liked.map(|at| core.move_(old, len, Placement::At(at)));
        let moved = match liked {
            Some(Ok(at)) => Ok(at),
            _ => core.move_(old, len, self.placement(to)),
        };
        let at = moved.map_err(|e| match e {
            MapError::Hole => Errno::EFAULT,
            e => e.into(),
        })?;
        for (range, what) in stay {
            core.map(range.len(), Placement::At(range.start()), what)?;
        }
        let grown = at.checked_add(old.len()).zip(at.checked_add(len));
        let grown = grown.and_then(|(from, to)| VirtRange::new(from, to));
        self.make_alike(&last, grown);
        Ok(at.0)
    }

    /// Shows another part of a shared file in part of its mapping, as Linux does since it has
    /// given nonlinear mappings up: by a mapping of its own.
    fn remap_file_pages(&mut self, [addr, len, prot, page_offset, ..]: Args) -> Answer {
        let page = <P::Machine as Machine>::PAGE;
        let start = page.floor(VirtAddr(addr));
        let len = len & !(page.bytes() - 1);
        let range = VirtRange::from_len(start, len).filter(|r| !r.is_empty());
        let (Some(range), 0) = (range, prot) else {
            return Err(Errno::EINVAL);
        };
        let offset = page.offset(page_offset).ok_or(Errno::EINVAL)?;
        if offset.checked_add(len).is_none_or(|end| end > SIZE_MAX) {
            return Err(Errno::EINVAL);
        }
        let (entry, mapped_to) = self.mapping_at(start).ok_or(Errno::EINVAL)?;
        let (Sharing::Shared, Some((object, _))) = (entry.sharing, entry.file) else {
            return Err(Errno::EINVAL);
        };
        if range.end() > mapped_to {
            // The rest has to be the same file's, in the same way.
            let rest = VirtRange::new(mapped_to, range.end()).ok_or(Errno::EINVAL)?;
            self.each_piece(rest, |_, e| match e.file {
                Some((o, _)) if o == object && e.prot == entry.prot => Ok(()),
                _ => Err(Errno::EINVAL),
            })
            .map_err(|_| Errno::EINVAL)?;
        }
        let what = Mapping {
            backing: bsdvm::Backing::Object { object, offset },
            ..more_of(&entry, 0)
        };
        self.space
            .core()
            .map(len, Placement::Replace(start), what)?;
        Ok(0)
    }
}
