//! What a program says about its memory: `madvise`, `msync`, `mincore`.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::{HostFile, Platform};
use crate::space::{TASK_END, WIPED};
use crate::thread::Task;
use alloc::vec::Vec;
use bsdvm::{
    Access, Advice, Behavior, EntryInfo, Inherit, Machine, Prot, Sharing, VirtAddr, VirtRange,
};
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// How an entry is inherited when nothing was said.
fn natural(entry: &EntryInfo) -> Inherit {
    match entry.sharing {
        Sharing::Private => Inherit::Copy,
        Sharing::Shared => Inherit::Share,
    }
}

fn is_private_anonymous(entry: &EntryInfo) -> bool {
    entry.sharing == Sharing::Private && entry.file.is_none()
}

/// What the kernel provides, or what shows another memory by tables.
fn is_special(entry: &EntryInfo) -> bool {
    entry.provided || entry.page_directory.is_some()
}

fn refuse_locked(entry: &EntryInfo) -> Result<(), Errno> {
    match entry.user_wired || is_special(entry) {
        true => Err(Errno::EINVAL),
        false => Ok(()),
    }
}

/// The advice that is taken. No pages are merged, so that any may be said to be fit for it
/// (`MADV_MERGEABLE`); there are none to be poisoned, or to be put together on demand
/// (`MADV_COLLAPSE`).
const KNOWN: [u32; 22] = [
    abi::MADV_NORMAL,
    abi::MADV_RANDOM,
    abi::MADV_SEQUENTIAL,
    abi::MADV_WILLNEED,
    abi::MADV_DONTNEED,
    abi::MADV_FREE,
    abi::MADV_REMOVE,
    abi::MADV_DONTFORK,
    abi::MADV_DOFORK,
    abi::MADV_HUGEPAGE,
    abi::MADV_NOHUGEPAGE,
    abi::MADV_DONTDUMP,
    abi::MADV_DODUMP,
    abi::MADV_WIPEONFORK,
    abi::MADV_KEEPONFORK,
    abi::MADV_COLD,
    abi::MADV_PAGEOUT,
    abi::MADV_POPULATE_READ,
    abi::MADV_POPULATE_WRITE,
    abi::MADV_DONTNEED_LOCKED,
    abi::MADV_MERGEABLE,
    abi::MADV_UNMERGEABLE,
];

impl<P: Platform> Task<P> {
    pub(super) const ADVICE: Calls<P> = &[
        (abi::__NR_madvise, Self::madvise),
        (abi::__NR_msync, Self::msync),
        (abi::__NR_mincore, Self::mincore),
    ];

    pub(super) fn madvise(&mut self, [addr, len, advice, ..]: Args) -> Answer {
        let advice = advice as u32;
        if !KNOWN.contains(&advice) {
            return Err(Errno::EINVAL);
        }
        let range = self.space.pages(addr, len, Errno::EINVAL)?;
        match advice {
            abi::MADV_POPULATE_READ => self.advise_populate(range, Access::Read),
            abi::MADV_POPULATE_WRITE => self.advise_populate(range, Access::Write),
            abi::MADV_REMOVE => self.advise_remove(range),
            _ => self.each_piece_and_holes(range, |piece, entry| {
                self.advise_piece(piece, entry, advice)
            }),
        }
    }

    fn advise_piece(&self, piece: VirtRange, entry: &EntryInfo, advice: u32) -> Result<(), Errno> {
        let core = self.space.core();
        let advise = |advice| Ok(core.advise(piece, advice)?);
        match advice {
            abi::MADV_NORMAL => advise(Advice::Behavior(Behavior::Normal)),
            abi::MADV_RANDOM => advise(Advice::Behavior(Behavior::Random)),
            abi::MADV_SEQUENTIAL => advise(Advice::Behavior(Behavior::Sequential)),
            abi::MADV_WILLNEED => advise(Advice::WillNeed),
            abi::MADV_DONTDUMP => advise(Advice::NoCore),
            abi::MADV_DODUMP if is_special(entry) => Err(Errno::EINVAL),
            abi::MADV_DODUMP => advise(Advice::Core),
            abi::MADV_COLD => {
                refuse_locked(entry)?;
                advise(Advice::DontNeed)
            }
            abi::MADV_PAGEOUT => {
                refuse_locked(entry)?;
                advise(Advice::PageOut)
            }
            abi::MADV_DONTNEED => {
                refuse_locked(entry)?;
                Ok(core.discard(piece)?)
            }
            abi::MADV_DONTNEED_LOCKED if is_special(entry) => Err(Errno::EINVAL),
            abi::MADV_DONTNEED_LOCKED => self.space.discard(piece, entry),
            abi::MADV_FREE => {
                refuse_locked(entry)?;
                match is_private_anonymous(entry) {
                    true => advise(Advice::Free),
                    false => Err(Errno::EINVAL),
                }
            }
            abi::MADV_DONTFORK | abi::MADV_DOFORK | abi::MADV_WIPEONFORK | abi::MADV_KEEPONFORK => {
                self.advise_fork(piece, entry, advice)
            }
            // Huge pages are the machine's to choose.
            _ => Ok(()),
        }
    }

    /// What a child gets: nothing, zeroes, or what is natural, in this order. A mark keeps that it
    /// would be zeroes while it is nothing.
    fn advise_fork(&self, piece: VirtRange, entry: &EntryInfo, advice: u32) -> Result<(), Errno> {
        let mut nothing = entry.inherit == Inherit::None;
        let mut zeroes = entry.inherit == Inherit::Zero || entry.marks & WIPED != 0;
        match advice {
            abi::MADV_DONTFORK => nothing = true,
            abi::MADV_DOFORK if is_special(entry) => return Err(Errno::EINVAL),
            abi::MADV_DOFORK => nothing = false,
            abi::MADV_WIPEONFORK if !is_private_anonymous(entry) => return Err(Errno::EINVAL),
            abi::MADV_WIPEONFORK => zeroes = true,
            _ => zeroes = false,
        }
        let inherit = match (nothing, zeroes) {
            (true, _) => Inherit::None,
            (false, true) => Inherit::Zero,
            (false, false) => natural(entry),
        };
        let core = self.space.core();
        match (entry.marks & WIPED != 0, nothing && zeroes) {
            (false, true) => core.advise(piece, Advice::Mark(WIPED))?,
            (true, false) => core.advise(piece, Advice::Unmark(WIPED))?,
            _ => {}
        }
        Ok(core.inherit(piece, inherit)?)
    }

    fn advise_populate(&self, range: VirtRange, access: Access) -> Answer {
        let needs = access.needs();
        self.each_piece(range, |piece, entry| match entry.prot.contains(needs) {
            true => self.populate(piece, access),
            false => Err(Errno::EINVAL),
        })
    }

    /// `MADV_REMOVE`: a hole in the file that a shared mapping shows.
    fn advise_remove(&self, range: VirtRange) -> Answer {
        self.each_piece_and_holes(range, |piece, entry| {
            refuse_locked(entry)?;
            let (object, offset) = entry.file.ok_or(Errno::EINVAL)?;
            if entry.sharing != Sharing::Shared || !entry.max_prot.contains(Prot::WRITE) {
                return Err(Errno::EACCES);
            }
            let offset = offset + piece.start().bytes_above(entry.range.start());
            let object = self.sys.vm.object(object);
            if let Some(inode) = self.sys.memory_inodes.of_object(object.id()) {
                let seals = inode.seals.load(Ordering::SeqCst);
                if seals & (abi::F_SEAL_WRITE | abi::F_SEAL_FUTURE_WRITE) != 0 {
                    return Err(Errno::EPERM);
                }
            } else {
                let inode = self.sys.inodes.of_object(object.id());
                let writer = inode.and_then(|i| i.writer()).ok_or(Errno::EACCES)?;
                let mode = abi::FALLOC_FL_PUNCH_HOLE | abi::FALLOC_FL_KEEP_SIZE;
                writer.allocate(mode, offset, piece.len())?;
            }
            Ok(object.clear(offset, piece.len())?)
        })
    }

    fn msync(&mut self, [addr, len, flags, ..]: Args) -> Answer {
        let page = <P::Machine as Machine>::PAGE;
        let flags = flags as u32;
        let both = abi::MS_ASYNC | abi::MS_SYNC;
        if flags & !(both | abi::MS_INVALIDATE) != 0
            || page.within(addr) != 0
            || flags & both == both
        {
            return Err(Errno::EINVAL);
        }
        // What wraps round when it is rounded up is nothing to write.
        if len != 0 && page.round_up(len).unwrap_or(0) == 0 {
            return Ok(0);
        }
        let range = self.space.pages(addr, len, Errno::ENOMEM)?;
        let invalidate = flags & abi::MS_INVALIDATE != 0;
        let act = |piece: VirtRange, entry: &EntryInfo| {
            if invalidate && entry.user_wired {
                return Err(Errno::EBUSY);
            }
            if entry.sharing == Sharing::Shared && flags & abi::MS_SYNC != 0 {
                self.space.core().clean(piece, invalidate)?;
            }
            Ok(())
        };
        match flags {
            // Nothing is to be done, so a hole ends it.
            abi::MS_ASYNC => self.each_piece(range, act),
            _ => self.each_piece_and_holes(range, act),
        }
    }

    fn mincore(&mut self, [addr, len, out, ..]: Args) -> Answer {
        const CHUNK: u64 = 4096;
        let page = <P::Machine as Machine>::PAGE;
        if page.within(addr) != 0 {
            return Err(Errno::EINVAL);
        }
        let range = self.space.pages(addr, len, Errno::ENOMEM)?;
        let pages = page.index(range.len());
        if out.checked_add(pages).is_none_or(|end| end > TASK_END) {
            return Err(Errno::EFAULT);
        }
        let mut to = out;
        self.each_piece(range, |piece, _| {
            let mut at = piece.start();
            while at < piece.end() {
                let end = VirtAddr(at.0.saturating_add(CHUNK * page.bytes())).min(piece.end());
                let part = VirtRange::new(at, end).ok_or(Errno::ENOMEM)?;
                let mut bytes = Vec::new();
                let mut each = |_, resident| bytes.push(u8::from(resident));
                let told = self.space.core().residency(part, &mut each);
                told.map_err(|_| Errno::ENOMEM)?;
                self.write_user(to, &bytes)?;
                to += bytes.len() as u64;
                at = end;
            }
            Ok(())
        })
    }
}
