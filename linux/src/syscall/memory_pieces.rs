//! Ranges entry by entry, as the calls of Linux go through its own: piece by piece, with holes
//! told of. And the limits on what may be mapped.

use super::Answer;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::space::continues;
use crate::system::Linux;
use crate::thread::Task;
use bsdvm::{Access, Backing, EntryInfo, FaultError, Mapping, Prot, Sharing, VirtAddr, VirtRange};
use linux_raw_sys::general as abi;

/// What one more page of an entry shows, `skip` bytes after its beginning.
pub(super) fn more_of(entry: &EntryInfo, skip: u64) -> Mapping {
    let shared = entry.object.filter(|_| entry.sharing == Sharing::Shared);
    let backing = match (entry.file, shared) {
        (Some((object, offset)), _) => Backing::Object {
            object,
            offset: offset.saturating_add(skip),
        },
        (None, Some(object)) => Backing::Object {
            object,
            offset: entry.offset.saturating_add(skip),
        },
        (None, None) => Backing::Anonymous,
    };
    Mapping {
        backing,
        sharing: entry.sharing,
        prot: entry.prot,
        max_prot: entry.max_prot,
        inherit: entry.inherit,
    }
}

impl<P: Platform> Task<P> {
    /// The entry that contains `at`.
    pub(super) fn entry_at(&self, at: VirtAddr) -> Option<EntryInfo> {
        let entry = self.space.core().entry(at)?;
        (entry.range.start() <= at && at < entry.range.end()).then_some(entry)
    }

    /// The entry that contains `at`, and where what it maps ends: the core may keep in several
    /// entries what Linux would keep as one mapping.
    pub(super) fn mapping_at(&self, at: VirtAddr) -> Option<(EntryInfo, VirtAddr)> {
        let first = self.entry_at(at)?;
        let mut last = first;
        while let Some(next) = self.entry_at(last.range.end())
            && continues(&last, &next)
        {
            last = next;
        }
        Some((first, last.range.end()))
    }

    /// Where the mapping begins that an entry is part of.
    pub(super) fn start_of(&self, entry: &EntryInfo) -> VirtAddr {
        let mut first = *entry;
        while let Some(below) = first
            .range
            .start()
            .checked_sub(1)
            .and_then(|at| self.entry_at(at))
            && continues(&below, &first)
        {
            first = below;
        }
        first.range.start()
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
            let entry = self.entry_at(at).ok_or(Errno::ENOMEM)?;
            let end = entry.range.end().min(range.end());
            let piece = VirtRange::new(at, end).ok_or(Errno::ENOMEM)?;
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
            let next = self.space.core().entry(at);
            let Some(entry) = next.filter(|e| e.range.start() < range.end()) else {
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

    /// Bytes that are mapped in a range.
    pub(super) fn mapped_in(&self, range: VirtRange) -> u64 {
        let mut bytes = 0;
        self.each_piece_and_holes(range, |piece, _| {
            bytes += piece.len();
            Ok(())
        })
        .ok();
        bytes
    }

    /// Faults every page of a piece in, written where a write would copy it, so that no fault is
    /// left to come.
    ///
    /// Errors: `EFAULT` for a page that cannot be had, or that nothing may be done with.
    pub(super) fn bring_in(&self, piece: VirtRange, entry: &EntryInfo) -> Result<(), Errno> {
        let writes = entry.prot.contains(Prot::WRITE) && entry.sharing == Sharing::Private;
        let access = match entry.prot.is_empty() {
            true => return Err(Errno::EFAULT),
            false if writes => Access::Write,
            false => Access::Read,
        };
        self.populate(piece, access)
    }

    /// Faults every page in.
    pub(super) fn populate(&self, range: VirtRange, access: Access) -> Result<(), Errno> {
        let mut at = range.start();
        let mut tries = 0;
        while at < range.end() {
            match self.space.core().fault(at, access) {
                Ok(_) => {
                    tries = 0;
                    at = at
                        .checked_add(Linux::<P>::PAGE_BYTES)
                        .ok_or(Errno::EFAULT)?;
                }
                Err(FaultError::NoMemory) => self.find_memory(&mut tries)?,
                Err(FaultError::Protection) => return Err(Errno::EINVAL),
                Err(_) => return Err(Errno::EFAULT),
            }
            if self.must_end() {
                return Err(Errno::EINTR);
            }
        }
        Ok(())
    }

    /// Whether there is a limit on what may be mapped.
    pub(super) fn is_limited(&self) -> bool {
        self.process.limit(abi::RLIMIT_AS) != u64::MAX
            || self.process.limit(abi::RLIMIT_DATA) != u64::MAX
    }

    /// Whether the limits allow `more` bytes in place of `less`; `data`: they can be written and
    /// are the process's own.
    pub(super) fn check_limits(&self, more: u64, less: u64, data: bool) -> Result<(), Errno> {
        let more = more.saturating_sub(less);
        let limit = self.process.limit(abi::RLIMIT_AS);
        if limit != u64::MAX {
            Self::check_limit(self.space.core().size(), more, limit)?;
        }
        match data {
            true => self
                .check_data_limit(more)
                .and_then(|()| self.check_commitment(more)),
            false => Ok(()),
        }
    }

    /// Whether `more` bytes may be promised where no more is to be promised than there is
    /// (`vm.overcommit_memory` 2).
    fn check_commitment(&self, more: u64) -> Result<(), Errno> {
        const NEVER: i64 = 2;
        let settings = &self.sys.settings;
        if settings.number("vm/overcommit_memory") != NEVER {
            return Ok(());
        }
        let counters = self.sys.vm.counters();
        let percent = u64::try_from(settings.number("vm/overcommit_ratio")).unwrap_or(0);
        let most = counters.frames_total / 100 * percent;
        let pages = more / Linux::<P>::PAGE_BYTES;
        match counters.charged_pages.saturating_add(pages) > most {
            true => Err(Errno::ENOMEM),
            false => Ok(()),
        }
    }

    /// Whether `more` bytes that can be written may become the process's own.
    pub(super) fn check_data_limit(&self, more: u64) -> Result<(), Errno> {
        match self.process.limit(abi::RLIMIT_DATA) {
            u64::MAX => Ok(()),
            limit => Self::check_limit(self.data_bytes(), more, limit),
        }
    }

    /// Whether there are at least `most` mappings, as Linux would count them: the core may keep
    /// one in several entries.
    fn has_mappings(&self, most: u64) -> bool {
        let provided = u64::from(self.sys.platform.vdso(self.sys.vm).is_some());
        if self.space.core().entries() + provided < most {
            return false;
        }
        let (mut count, mut last) = (provided, None);
        self.each_entry(|entry| {
            if !last.is_some_and(|l| continues(&l, entry)) {
                count += 1;
            }
            last = Some(*entry);
        });
        count >= most
    }

    /// `vm.max_map_count`.
    fn most_mappings(&self) -> u64 {
        u64::try_from(self.sys.settings.number("vm/max_map_count")).unwrap_or(0)
    }

    /// Refuses one more mapping where there are more than may be.
    pub(super) fn check_map_count(&self) -> Result<(), Errno> {
        match self.has_mappings(self.most_mappings() + 1) {
            true => Err(Errno::ENOMEM),
            false => Ok(()),
        }
    }

    /// Refuses to make two of one mapping, by a hole in its middle, where there are as many as may
    /// be.
    pub(super) fn check_hole(&self, hole: VirtRange) -> Result<(), Errno> {
        let most = self.most_mappings();
        if self.space.core().entries() + 1 < most {
            return Ok(());
        }
        let Some((entry, end)) = self.mapping_at(hole.start()) else {
            return Ok(());
        };
        let inside = self.start_of(&entry) < hole.start() && hole.end() < end;
        match inside && self.has_mappings(most) {
            true => Err(Errno::ENOMEM),
            false => Ok(()),
        }
    }

    fn check_limit(used: u64, more: u64, limit: u64) -> Result<(), Errno> {
        let page = Linux::<P>::PAGE_BYTES;
        match (used / page).saturating_add(more / page) > limit / page {
            true => Err(Errno::ENOMEM),
            false => Ok(()),
        }
    }

    /// Bytes of private memory that can be written, stacks apart.
    fn data_bytes(&self) -> u64 {
        let mut bytes = 0;
        self.each_entry(|entry| {
            let data = entry.sharing == Sharing::Private && entry.prot.contains(Prot::WRITE);
            if data && !entry.stack {
                bytes += entry.range.len();
            }
        });
        bytes
    }

    /// Calls `act` for each entry there is.
    pub(super) fn each_entry(&self, mut act: impl FnMut(&EntryInfo)) {
        let mut at = VirtAddr(0);
        while let Some(entry) = self.space.core().entry(at) {
            if entry.range.end() <= at {
                break;
            }
            act(&entry);
            at = entry.range.end();
        }
    }
}
