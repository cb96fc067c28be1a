//! The pages of an object, one by one.

use crate::Vm;
use crate::object::radix::Slot;
use crate::object::{Object, ObjectId};
use crate::page::Bits;
use bsdvm_machine::{Frame, Machine};
use core::fmt;

/// Where a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PagePlace {
    /// In memory, in this frame.
    Resident(Frame),
    /// In this slot of the swap space.
    Swapped(u32),
}

/// What one page says, as seen from outside (O03).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageInfo {
    /// Where in its object it lies, in bytes.
    pub offset: u64,
    /// Where it is.
    pub place: PagePlace,
    /// Whether the record says that it differs from what its pager has. A store through a
    /// translation is known here when that has gone or was asked.
    pub dirty: bool,
    /// Whether somebody works on it.
    pub busy: bool,
    /// How many wirings hold it.
    pub wired: u32,
}

/// `0x1000: frame 7, dirty, wired (1)`, or `0x2000: swap 3`.
impl fmt::Display for PageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            PagePlace::Resident(frame) => write!(f, "{:#x}: frame {}", self.offset, frame.0)?,
            PagePlace::Swapped(slot) => write!(f, "{:#x}: swap {slot}", self.offset)?,
        }
        if self.dirty {
            f.write_str(", dirty")?;
        }
        if self.busy {
            f.write_str(", busy")?;
        }
        match self.wired {
            0 => Ok(()),
            n => write!(f, ", wired ({n})"),
        }
    }
}

/// The pages of an object in ascending order, each copied when its turn comes.
pub struct Pages<'v, M: Machine> {
    vm: &'v Vm<M>,
    object: ObjectId,
    from: Option<u64>,
}

impl<M: Machine> Iterator for Pages<'_, M> {
    type Item = PageInfo;

    fn next(&mut self) -> Option<PageInfo> {
        let vm = self.vm;
        let state = vm.lock_object(self.object.0);
        let (index, slot) = state.pages.next(&vm.page_nodes, self.from?)?;
        self.from = index.checked_add(1);
        let offset = M::PAGE.offset(index).unwrap_or(u64::MAX);
        Some(match slot {
            Slot::Resident(frame) => {
                let page = vm.frames.page(frame);
                PageInfo {
                    offset,
                    place: PagePlace::Resident(frame),
                    dirty: page.has(Bits::DIRTY),
                    busy: page.is_busy(),
                    wired: page.wired(),
                }
            }
            Slot::Swapped(slot) => PageInfo {
                offset,
                place: PagePlace::Swapped(slot),
                dirty: false,
                busy: false,
                wired: 0,
            },
        })
    }
}

impl<'v, M: Machine> Object<'v, M> {
    /// The pages that the object has, in memory and on swap, one by one (O03). Those that come
    /// below the last one given are not seen. The caller keeps the object: by a reference, or by a
    /// mapping of it that nobody takes away meanwhile.
    pub fn pages(self) -> Pages<'v, M> {
        Pages {
            vm: self.vm(),
            object: self.id(),
            from: Some(0),
        }
    }
}
