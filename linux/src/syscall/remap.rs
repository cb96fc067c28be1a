//! Two calls about mappings that are not the caller's to see as others are: `remap_file_pages`,
//! and `process_madvise` for another process.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::thread::Task;
use alloc::sync::Arc;
use bsdvm::{
    Access, Advice, EntryInfo, Inherit, Machine, Mapping, Placement, Sharing, VirtAddr, VirtRange,
};
use linux_raw_sys::general as abi;

impl<P: Platform> Task<P> {
    pub(super) const REMAP: Calls<P> = &[
        (abi::__NR_remap_file_pages, Self::remap_file_pages),
        (abi::__NR_process_madvise, Self::process_madvise),
    ];

    /// Shows other pages of a file that is mapped shared, at the same place.
    fn remap_file_pages(&mut self, [start, size, prot, page_offset, _, _]: Args) -> Answer {
        let page = <P::Machine as Machine>::PAGE;
        let start = start & !(page.bytes() - 1);
        let size = size & !(page.bytes() - 1);
        let end = start.checked_add(size).filter(|_| size > 0 && prot == 0);
        let end = end.ok_or(Errno::EINVAL)?;
        let offset = page_offset.checked_mul(page.bytes());
        let offset = offset.filter(|o| o.checked_add(size).is_some());
        let offset = offset.ok_or(Errno::EINVAL)?;
        let core = self.space.core();
        let range = VirtRange::new(VirtAddr(start), VirtAddr(end)).ok_or(Errno::EINVAL)?;
        if !core.covered(range) {
            return Err(Errno::EINVAL);
        }
        let mut at = VirtAddr(start);
        let mut first: Option<EntryInfo> = None;
        while at < range.end() {
            let entry = self.shown_at(at)?;
            if entry.sharing != Sharing::Shared || entry.object.is_none() {
                return Err(Errno::EINVAL);
            }
            if first.is_some_and(|f| f.object != entry.object || f.prot != entry.prot) {
                return Err(Errno::EINVAL);
            }
            first.get_or_insert(entry);
            at = entry.range.end();
        }
        let entry = first.ok_or(Errno::EINVAL)?;
        let object = entry.object.ok_or(Errno::EINVAL)?;
        if entry.file.is_none() && self.sys.vm.object(object).references() < 2 {
            // Memory without a file loses what no mapping shows: it could not come back.
            return Err(Errno::EINVAL);
        }
        let mapping = Mapping {
            inherit: Inherit::Share,
            max_prot: entry.max_prot,
            ..Mapping::object(object, offset, Sharing::Shared, entry.prot)
        };
        core.map(size, Placement::Replace(VirtAddr(start)), mapping)?;
        Ok(0)
    }

    /// The entry at an address, with an object.
    fn shown_at(&self, at: VirtAddr) -> Result<EntryInfo, Errno> {
        let core = self.space.core();
        let entry = core.entry(at).ok_or(Errno::EINVAL)?;
        if entry.object.is_some() {
            return Ok(entry);
        }
        // Memory without a file has none before its first fault.
        core.fault(at, Access::Read).map_err(|_| Errno::EINVAL)?;
        core.entry(at).ok_or(Errno::EINVAL)
    }

    fn process_madvise(&mut self, [fd, iov, count, advice, flags, _]: Args) -> Answer {
        if flags as u32 != 0 {
            return Err(Errno::EINVAL);
        }
        let vectors = self.vectors(iov, count)?;
        let process = self.process_of(fd)?;
        let advice = match advice as u32 {
            abi::MADV_COLD | abi::MADV_PAGEOUT => Advice::DontNeed,
            abi::MADV_WILLNEED => Advice::WillNeed,
            _ => return Err(Errno::EINVAL),
        };
        let other = process.creds.lock().clone();
        let mine = process.pid == self.process.pid;
        let creds = self.creds();
        let allowed = creds.may_attach(&other) && creds.capable(crate::creds::cap::SYS_NICE);
        if !mine && !allowed {
            return Err(Errno::EPERM);
        }
        let space = process.space().ok_or(Errno::ESRCH)?;
        let mut done = 0;
        for (base, len) in vectors {
            match self.advise_there(&space, base, len, advice) {
                Ok(()) => done += len,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn advise_there(
        &self,
        space: &Arc<AddressSpace<P>>,
        base: u64,
        len: u64,
        advice: Advice,
    ) -> Result<(), Errno> {
        let range = space.pages(base, len, Errno::EINVAL)?;
        if range.is_empty() {
            return Ok(());
        }
        if !space.core().covered(range) {
            return Err(Errno::ENOMEM);
        }
        Ok(space.core().advise(range, advice)?)
    }
}
