//! Files that are memory: `memfd_create`, and the seals that `fcntl` sets.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::fs::memfile::{F_SEAL_EXEC, MemFile};
use crate::fs::table::OnExec;
use crate::platform::Platform;
use crate::process::Life;
use crate::space::AddressSpace;
use crate::system::Linux;
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::{EntryInfo, Machine, ObjectId, Prot, Sharing, VirtAddr, VirtRange};
use linux_raw_sys::general as abi;

const NAME_MAX: usize = 249;
const HUGE_SIZES: u32 = 0x3f << 26;

impl<P: Platform> Task<P> {
    pub(super) const MEMORY_FILES: Calls<P> = &[(abi::__NR_memfd_create, Self::memfd_create)];

    fn memfd_create(&mut self, [name, flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        let has = |flag: u32| flags & flag != 0;
        let plain = abi::MFD_CLOEXEC | abi::MFD_ALLOW_SEALING;
        let exec = abi::MFD_NOEXEC_SEAL | abi::MFD_EXEC;
        let huge = if has(abi::MFD_HUGETLB) {
            abi::MFD_HUGETLB | HUGE_SIZES
        } else {
            0
        };
        if flags & !(plain | exec | huge) != 0 || flags & exec == exec {
            return Err(Errno::EINVAL);
        }
        let name = self.string(name, NAME_MAX + 1, Errno::EINVAL)?;
        if huge != 0 {
            // There are no huge pages.
            return Err(Errno::ENODEV);
        }
        let mut seals = abi::F_SEAL_SEAL;
        let mut mode = 0o777;
        if has(abi::MFD_ALLOW_SEALING) || has(abi::MFD_NOEXEC_SEAL) {
            seals = 0;
        }
        if has(abi::MFD_NOEXEC_SEAL) {
            seals |= F_SEAL_EXEC;
            mode = 0o666;
        }
        let path = [b"/memfd:", &name[..], b" (deleted)"].concat();
        let file = OpenFile::memory(MemFile::create(self.sys, path, mode, seals)?);
        let close = has(abi::MFD_CLOEXEC);
        let on_exec = if close { OnExec::Close } else { OnExec::Keep };
        self.install(Arc::new(file), on_exec)
    }

    /// `F_ADD_SEALS`.
    pub(super) fn add_seals(&self, file: &OpenFile<P>, seals: u32) -> Answer {
        let Kind::Memory(memory) = &file.kind else {
            return Err(Errno::EINVAL);
        };
        if !file.may_write() {
            return Err(Errno::EPERM);
        }
        let writable = || self.is_writable(memory.object().id());
        memory.add_seals(seals, writable).map(|()| 0)
    }

    /// Whether any process has a shared mapping of the object that may be written.
    fn is_writable(&self, object: ObjectId) -> bool {
        let mut writable = false;
        self.sys.each_showing(object, |_, entry, _| {
            let shared = entry.sharing == Sharing::Shared;
            writable |= shared && entry.max_prot.contains(Prot::WRITE);
        });
        writable
    }
}

impl<P: Platform> Linux<P> {
    /// Calls `act` for each mapping that shows a file, with its place in the file.
    fn each_showing(
        &self,
        object: ObjectId,
        mut act: impl FnMut(&AddressSpace<P>, &EntryInfo, u64),
    ) {
        let spaces: Vec<_> = {
            let table = self.processes.lock();
            let alive = table.records.values().filter(|r| r.life == Life::Alive);
            alive.filter_map(|r| r.process.space()).collect()
        };
        for space in spaces {
            let mut at = VirtAddr(0);
            while let Some(entry) = space.core().entry(at).filter(|e| e.range.end() > at) {
                if let Some((_, offset)) = entry.file.filter(|(shown, _)| *shown == object) {
                    act(&space, &entry, offset);
                }
                at = entry.range.end();
            }
        }
    }

    /// A file has been cut to `size` bytes: private copies of what lay beyond go with it.
    pub(crate) fn cut_private(&self, object: ObjectId, size: u64) {
        let page = <P::Machine as Machine>::PAGE;
        let Some(size) = page.round_up(size) else {
            return;
        };
        self.each_showing(object, |space, entry, offset| {
            let kept = size.saturating_sub(offset).min(entry.range.len());
            let from = VirtAddr(entry.range.start().0 + kept);
            let gone = VirtRange::new(from, entry.range.end()).unwrap_or_default();
            if entry.sharing == Sharing::Private && !gone.is_empty() {
                space.discard(gone, entry).ok();
            }
        });
    }
}
