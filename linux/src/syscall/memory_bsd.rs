//! The documents' calls that Linux lacks, by private numbers: `minherit`, `mcontrol`,
//! `vpagetable`.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::thread::Task;
use bsdvm::{
    Advice, Backing, Behavior, Inherit, Machine, Mapping, Placement, Prot, Sharing, TableEntry,
    VirtAddr, VirtRange,
};

/// `minherit(addr, len, inherit)`.
const NR_MINHERIT: u32 = 1250;
/// `mcontrol(addr, len, behaviour, value)`, whose behaviours are DragonFly's.
const NR_MCONTROL: u32 = 1251;
/// `vpagetable(addr, len, fd, offset)`.
const NR_VPAGETABLE: u32 = 1252;

/// `MADV_SETMAP`: the one behaviour that has a value.
const SETMAP: u64 = 11;

/// The advice that DragonFly gives a number.
fn advice(behaviour: u64) -> Option<Advice> {
    Some(match behaviour {
        0 => Advice::Behavior(Behavior::Normal),
        1 => Advice::Behavior(Behavior::Random),
        2 => Advice::Behavior(Behavior::Sequential),
        3 => Advice::WillNeed,
        4 => Advice::DontNeed,
        5 => Advice::Free,
        6 => Advice::NoSync,
        7 => Advice::AutoSync,
        8 => Advice::NoCore,
        9 => Advice::Core,
        10 => Advice::Invalidate,
        _ => return None,
    })
}

impl<P: Platform> Task<P> {
    pub(super) const BSD: Calls<P> = &[
        (NR_MINHERIT, Self::minherit),
        (NR_MCONTROL, Self::mcontrol),
        (NR_VPAGETABLE, Self::vpagetable),
    ];

    fn minherit(&mut self, [addr, len, inherit, ..]: Args) -> Answer {
        let inherit = match inherit {
            0 => Inherit::Share,
            1 => Inherit::Copy,
            2 => Inherit::None,
            3 => Inherit::Zero,
            _ => return Err(Errno::EINVAL),
        };
        let range = self.space.pages(addr, len, Errno::EINVAL)?;
        self.space.core().inherit(self.clip(range), inherit)?;
        Ok(0)
    }

    /// Advice about the pages that a range touches; holes are skipped.
    fn mcontrol(&mut self, [addr, len, behaviour, value, ..]: Args) -> Answer {
        let page = <P::Machine as Machine>::PAGE;
        let range = VirtRange::from_len(VirtAddr(addr), len)
            .and_then(|range| page.outward(range))
            .ok_or(Errno::EINVAL)?;
        let range = self.clip(range);
        let core = self.space.core();
        if behaviour == SETMAP {
            core.set_page_directory(range, TableEntry::from_bits_retain(value))?;
        } else {
            core.advise(range, advice(behaviour).ok_or(Errno::EINVAL)?)?;
        }
        Ok(0)
    }

    /// Maps a file that is open for reading and writing as a virtual page table: at `addr`, in
    /// place of what is there, or anywhere for 0. It shows nothing before `mcontrol` has said
    /// where its tables begin.
    fn vpagetable(&mut self, [addr, len, fd, offset, ..]: Args) -> Answer {
        let page = <P::Machine as Machine>::PAGE;
        if page.within(offset) != 0 || page.within(addr) != 0 || len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page.round_up(len).ok_or(Errno::ENOMEM)?;
        let file = self.file(fd)?;
        let shown = self.shown_file(file, 0, Sharing::Shared, Prot::RW)?;
        let Backing::Object { object, .. } = shown.what.backing else {
            return Err(Errno::ENODEV);
        };
        let what = Mapping {
            backing: Backing::PageTable { object, offset },
            inherit: Inherit::Share,
            ..Mapping::object(object, 0, Sharing::Shared, Prot::RW)
        };
        let place = match addr {
            0 => Placement::TopDown {
                below: VirtAddr(self.space.bounds.lock().mmap_top),
                align: page.bytes(),
            },
            addr => Placement::Replace(VirtAddr(addr)),
        };
        let at = self.space.core().map(len, place, what)?;
        Ok(at.0)
    }
}
