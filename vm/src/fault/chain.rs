//! The locked chain of a fault and the walk along it.

use super::device::Question;
use crate::Vm;
use crate::object::radix::Slot;
use crate::object::{Kind, ObjectGuard, ObjectHandle};
use crate::pager::Pager;
use bsdvm_machine::{Frame, Machine};

/// Links that a chain can have: one more than fork and shadow can make
/// ([`crate::object::shadow::MAX_CHAIN`]), with room to spare.
const LINKS: usize = 12;

/// One object of the chain, locked.
pub(crate) struct Link<'v, M: Machine> {
    pub(crate) object: ObjectHandle,
    /// The page's index in this object.
    pub(crate) index: u64,
    pub(crate) state: ObjectGuard<'v, M>,
}

/// The objects from the front to the one that the walk has reached, all locked.
pub(super) struct Chain<'v, M: Machine> {
    vm: &'v Vm<M>,
    links: [Option<Link<'v, M>>; LINKS],
    length: usize,
}

/// What the walk found at the end of the locked chain.
pub(super) enum Found {
    /// A page in memory.
    Page(Frame),
    /// A page on swap.
    Swapped(u32),
    /// A page that the pager of the last object has.
    Pager(Pager),
    /// A page of the last object, physical memory, that nobody has touched yet.
    Unfilled,
    /// A page of a device.
    Device(Question),
    /// A place beyond the end of the last object.
    BeyondEnd,
    /// Nothing, anywhere.
    Nothing,
    /// A chain that is longer than any can be.
    TooLong,
}

impl<'v, M: Machine> Chain<'v, M> {
    /// Locks the front.
    pub(super) fn lock(vm: &'v Vm<M>, object: ObjectHandle, index: u64) -> Self {
        let mut chain = Chain {
            vm,
            links: [const { None }; LINKS],
            length: 1,
        };
        chain.links[0] = Some(Link {
            object,
            index,
            state: vm.lock_object(object),
        });
        chain
    }

    /// Walks until the page is found, locking as it goes.
    pub(super) fn walk(&mut self) -> Found {
        loop {
            let vm = self.vm;
            let link = self.last();
            match link.state.pages.get(&vm.page_nodes, link.index) {
                Some(Slot::Resident(frame)) => return Found::Page(frame),
                Some(Slot::Swapped(slot)) => return Found::Swapped(slot),
                None => {}
            }
            let found = match link.state.kind {
                Kind::Paged(pager) => Some(Found::Pager(pager)),
                Kind::Physical => Some(Found::Unfilled),
                Kind::Device(pager, owned) => Some(Found::Device(Question {
                    object: link.object,
                    index: link.index,
                    revokes: link.state.revokes,
                    pager,
                    owned,
                })),
                Kind::Anonymous | Kind::Kernel | Kind::Dead => None,
            };
            if link.index >= link.state.size::<M>() {
                return Found::BeyondEnd;
            }
            if let Some(found) = found {
                return found;
            }
            let Some(backing) = link.state.backing else {
                return Found::Nothing;
            };
            let index = link.index + backing.offset;
            if self.length == LINKS {
                return Found::TooLong;
            }
            self.links[self.length] = Some(Link {
                object: backing.object,
                index,
                state: vm.lock_backing(backing.object),
            });
            self.length += 1;
        }
    }

    pub(super) fn vm(&self) -> &'v Vm<M> {
        self.vm
    }

    /// The locked objects, front first.
    pub(super) fn links(&self) -> impl DoubleEndedIterator<Item = &Link<'v, M>> {
        self.links[..self.length].iter().flatten()
    }

    fn link(&mut self, at: usize) -> &mut Link<'v, M> {
        match &mut self.links[at] {
            Some(link) => link,
            None => unreachable!("links below the length are there"),
        }
    }

    pub(super) fn front(&mut self) -> &mut Link<'v, M> {
        self.link(0)
    }

    /// The object that the walk has reached.
    pub(super) fn last(&mut self) -> &mut Link<'v, M> {
        self.link(self.length - 1)
    }

    /// Whether the walk has left the front.
    pub(super) fn is_behind(&self) -> bool {
        self.length > 1
    }

    /// Whether nobody but this chain can see the last object.
    pub(super) fn is_ours_alone(&self) -> bool {
        self.links[1..self.length]
            .iter()
            .flatten()
            .all(|link| link.state.is_anonymous() && self.vm.references(link.object) == 1)
    }

    /// The last object, when it is the one right behind the front, and the front.
    pub(super) fn neighbours(&mut self) -> Option<(&mut Link<'v, M>, &mut Link<'v, M>)> {
        match &mut self.links {
            [Some(front), Some(behind), ..] if self.length == 2 => Some((front, behind)),
            _ => None,
        }
    }
}
