//! What a program says about its memory: `madvise`, `msync`, `mincore`.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::thread::Task;
use alloc::vec::Vec;
use bsdvm::{Access, Advice, Behavior, EntryInfo, Inherit, Machine, Sharing, VirtRange};
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

impl<P: Platform> Task<P> {
    pub(super) const ADVICE: Calls<P> = &[
        (abi::__NR_madvise, Self::madvise),
        (abi::__NR_msync, Self::msync),
        (abi::__NR_mincore, Self::mincore),
    ];

    fn madvise(&mut self, [addr, len, advice, ..]: Args) -> Answer {
        let range = self.space.pages(addr, len, Errno::EINVAL)?;
        let core = self.space.core();
        match advice as u32 {
            abi::MADV_MERGEABLE
            | abi::MADV_UNMERGEABLE
            | abi::MADV_HUGEPAGE
            | abi::MADV_NOHUGEPAGE => self.each_piece_and_holes(range, |_, _| Ok(())),
            abi::MADV_NORMAL => self.advise(range, Advice::Behavior(Behavior::Normal)),
            abi::MADV_RANDOM => self.advise(range, Advice::Behavior(Behavior::Random)),
            abi::MADV_SEQUENTIAL => self.advise(range, Advice::Behavior(Behavior::Sequential)),
            abi::MADV_WILLNEED => self.advise(range, Advice::WillNeed),
            abi::MADV_DONTDUMP => self.advise(range, Advice::NoCore),
            abi::MADV_DODUMP => self.advise(range, Advice::Core),
            abi::MADV_COLD | abi::MADV_PAGEOUT => self.advise(range, Advice::DontNeed),
            abi::MADV_DONTNEED => self.each_piece_and_holes(range, |piece, entry| {
                if entry.user_wired {
                    Err(Errno::EINVAL)
                } else {
                    Ok(core.discard(piece)?)
                }
            }),
            abi::MADV_FREE => self.each_piece_and_holes(range, |piece, entry| {
                if entry.user_wired || !is_private_anonymous(entry) {
                    return Err(Errno::EINVAL);
                }
                Ok(core.advise(piece, Advice::Free)?)
            }),
            abi::MADV_DONTFORK | abi::MADV_DOFORK | abi::MADV_WIPEONFORK | abi::MADV_KEEPONFORK => {
                self.advise_fork(range, advice as u32)
            }
            abi::MADV_POPULATE_READ => self.advise_populate(range, Access::Read),
            abi::MADV_POPULATE_WRITE => self.advise_populate(range, Access::Write),
            _ => Err(Errno::EINVAL),
        }
    }

    fn advise(&self, range: VirtRange, advice: Advice) -> Answer {
        self.each_piece_and_holes(range, |piece, _| {
            Ok(self.space.core().advise(piece, advice)?)
        })
    }

    fn advise_fork(&self, range: VirtRange, advice: u32) -> Answer {
        self.each_piece_and_holes(range, |piece, entry| {
            let inherit = match advice {
                abi::MADV_DONTFORK => Inherit::None,
                abi::MADV_WIPEONFORK if is_private_anonymous(entry) => Inherit::Zero,
                abi::MADV_WIPEONFORK => return Err(Errno::EINVAL),
                _ => natural(entry),
            };
            Ok(self.space.core().inherit(piece, inherit)?)
        })
    }

    fn advise_populate(&self, range: VirtRange, access: Access) -> Answer {
        self.each_piece(range, |piece, _| self.populate(piece, access))
    }

    fn msync(&mut self, [addr, len, flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        let both = abi::MS_ASYNC | abi::MS_SYNC;
        if flags & !(both | abi::MS_INVALIDATE) != 0 || flags & both == both {
            return Err(Errno::EINVAL);
        }
        let range = self.space.pages(addr, len, Errno::ENOMEM)?;
        let invalidate = flags & abi::MS_INVALIDATE != 0;
        self.each_piece_and_holes(range, |piece, entry| {
            if invalidate && entry.user_wired {
                return Err(Errno::EBUSY);
            }
            if entry.sharing == Sharing::Shared && flags & abi::MS_ASYNC == 0 {
                self.space.core().clean(piece, invalidate)?;
            }
            Ok(())
        })
    }

    fn mincore(&mut self, [addr, len, out, ..]: Args) -> Answer {
        const CHUNK: u64 = 4096;
        let range = self.space.pages(addr, len, Errno::ENOMEM)?;
        let page = <P::Machine as Machine>::PAGE;
        let mut at = range.start();
        let mut to = out;
        while at < range.end() {
            let end = at
                .checked_add(CHUNK * page.bytes())
                .unwrap_or(range.end())
                .min(range.end());
            let part = VirtRange::new(at, end).ok_or(Errno::ENOMEM)?;
            let mut bytes = Vec::new();
            let mut each = |_, resident| bytes.push(u8::from(resident));
            self.space
                .core()
                .residency(part, &mut each)
                .map_err(|_| Errno::ENOMEM)?;
            self.write_user(to, &bytes)?;
            to = to.checked_add(bytes.len() as u64).ok_or(Errno::EFAULT)?;
            at = end;
        }
        Ok(0)
    }
}
