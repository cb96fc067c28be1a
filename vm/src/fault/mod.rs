//! Faults: from an address to a page and its translation.
//!
//! ```text
//!  the chain, front first:      front ──> … ──> object at the level where the page is
//!
//!  access   found at            what is done                                    outcome
//!  ------   -----------------   --------------------------------------------   ---------
//!  any      front               enter it                                        Resident
//!  read     behind the front    enter it without write                          Resident
//!  write    behind, others see  copy it to the front, enter the copy            Copied
//!  write    behind, only ours   move it to the front, enter it                  Reused
//!  any      nowhere             zero a frame in the front, enter it             ZeroFill
//!  any      a pager or swap     read it in with nothing locked, look again      PagedIn
//!  any      busy                wait with nothing locked, look again
//!  any      a device            ask it with nothing locked, enter its frame         Resident
//! ```
//!
//! One struct, [`Fault`], holds what is known; one loop, [`Fault::run`], tries until it is done.
//! An attempt takes the map for reading, then the objects of the chain front before backing, then
//! the pmap, and lets go of all of them at its end; what needs the outside is a [`Next`] for the
//! loop, which acts with no lock held and tries again.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the loop, and every transition between locked and not |
//! | `chain.rs` | the locked chain and the walk along it |
//! | `resolve.rs` | zero-fill, copy, reuse; enter |
//! | `ahead.rs` | enter what is in memory ahead of the faults |
//! | `zeroes.rs` | how many pages of zeroes a write makes |
//! | `around.rs` | enter the neighbours of a page of a file, or from swap, that is read |
//! | `copy.rs` | copy a whole chain, for fork |
//! | `table.rs` | the walk through a virtual page table |
//! | `touch.rs` | a page of one object, without a map |
//! | `pagein.rs` | read a page in from its pager or from swap, and those that come with it |
//! | `device.rs` | the frame of a device |
//!
//! Refused: to keep a fault's place by busy pages alone and enter the translation after the map
//! was unlocked. Entering under the map's read lock makes remove, protect and fork atomic against
//! faults, and costs nothing while faults share that lock.

mod ahead;
mod around;
mod chain;
mod copy;
mod device;
mod pagein;
mod resolve;
mod table;
mod touch;
mod zeroes;

use crate::map::{Flags, Kind, MapError, Need, map_channel, with_loads};
use crate::object::limbo::Limbo;
use crate::object::pages::BusyWait;
use crate::object::radix;
use crate::object::{ObjectHandle, ObjectId};
use crate::page::Class;
use crate::page::rmap;
use crate::pager::PagerError;
use crate::show::{Event, FaultFor};
use crate::slab::{NoRecords, Reservation};
use crate::space::{Space, SpaceHandle};
pub use ahead::Prefault;
use bsdvm_machine::{Access, Frame, Machine, Pmap, Prot, Ticket, VirtAddr, VirtRange};
use chain::Chain;
pub(crate) use chain::Link;
pub(crate) use copy::Reach;
use device::{Answer, Question};
pub(crate) use pagein::FrameBytes;
use pagein::PageIn;
use table::Walked;
pub(crate) use touch::Touch;

/// Why a fault cannot be resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError {
    /// Nothing is mapped there.
    InvalidAddress,
    /// What is mapped there does not allow the access.
    Protection,
    /// The page lies beyond the end of its object.
    BeyondEnd,
    /// The pager could not bring the page.
    Pager(PagerError),
    /// No frame can be had, and nothing can be paged out.
    NoMemory,
    /// Mappings there are made by hand: a fault is a mistake of the kernel (K04).
    NoFault,
}

/// What a fault did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Faulted {
    /// A fresh page was zeroed.
    ZeroFill,
    /// The page was in memory and has been entered.
    Resident,
    /// The page was copied on write.
    Copied,
    /// The page was ours alone and was taken instead of copied.
    Reused,
    /// The page was read in.
    PagedIn,
}

/// What a page is wanted for.
pub(crate) enum Purpose<'a> {
    /// To be entered in the pmap.
    Enter,
    /// To be wired.
    Wire,
    /// To be touched by the caller, who is given the frame under the object's lock.
    Visit {
        with: &'a mut dyn FnMut(Frame),
        /// Against the maximum protection: debuggers and exec.
        force: bool,
    },
}

/// What the loop does between two attempts, with no lock held.
pub(crate) enum Next {
    Done(Faulted),
    /// The entry needs an object or shadow of its own first.
    Prepare,
    /// A fork holds the map.
    WaitMap(Ticket),
    /// Somebody works on the page.
    WaitBusy(BusyWait),
    PageIn(PageIn),
    /// A device knows which frame it is.
    Ask(Question),
    /// Something was put in place: look again.
    Again,
    /// The pmap needs frames for its tables.
    TableFrames(u32),
    /// The pmap has too many translations.
    TooMany,
    /// No frame is free.
    NoFrame,
    /// Frames are free, but not for what is to come along.
    MakeRoom,
    /// A submap says what is there.
    Submap(SpaceHandle),
}

/// One fault under way.
pub(crate) struct Fault<'v, 'a, M: Machine> {
    pub(super) space: Space<'v, M>,
    /// The page's address.
    pub(super) va: VirtAddr,
    pub(super) access: Access,
    pub(super) purpose: Purpose<'a>,
    /// What was done for the page so far, when the page came before its translation could be
    /// entered.
    pub(super) did: Option<Faulted>,
    /// The object that has the page, once it is found.
    pub(super) object: Option<ObjectHandle>,
    /// A frame that was waited for. Kept for the page itself: were it taken for something on the
    /// way, a fault that needs two could chase its own tail for ever when memory is short.
    pub(super) spare: Option<Frame>,
    /// Whether room was made for pages that are read ahead: once is enough, as it may take away what
    /// the fault brought.
    pub(super) made_room: bool,
    /// What a device said.
    pub(super) answer: Option<Answer>,
    pub(super) nodes: Reservation<'v, M, radix::Node>,
    pub(super) chunks: Reservation<'v, M, rmap::Chunk>,
    pub(super) limbo: Limbo<'v, M>,
}

impl From<NoRecords> for FaultError {
    fn from(_: NoRecords) -> FaultError {
        FaultError::NoMemory
    }
}

impl<'v, M: Machine> Space<'v, M> {
    /// Resolves a page fault of kind `access` at `va` (O05): brings the page and enters its
    /// translation. Grows stacks (S09). Sleeps for busy pages and calls pagers: no lock is held
    /// by the caller.
    ///
    /// Errors: [`FaultError`].
    pub fn fault(self, va: VirtAddr, access: Access) -> Result<Faulted, FaultError> {
        self.fault_for(va, access, Purpose::Enter)
    }

    pub(crate) fn fault_for(
        self,
        va: VirtAddr,
        access: Access,
        purpose: Purpose<'_>,
    ) -> Result<Faulted, FaultError> {
        let why = FaultFor::of(&purpose);
        let mut object = None;
        let outcome = self.fault_quietly(va, access, purpose, &mut object);
        self.vm.trace(|| Event::Fault {
            space: self.id(),
            va,
            access,
            purpose: why,
            object: object.map(ObjectId),
            outcome,
        });
        outcome
    }

    /// Resolves a fault, and says which object has the page.
    fn fault_quietly(
        self,
        va: VirtAddr,
        access: Access,
        purpose: Purpose<'_>,
        object: &mut Option<ObjectHandle>,
    ) -> Result<Faulted, FaultError> {
        let vm = self.vm;
        vm.counters.faults.bump();
        let mut fault = Fault {
            space: self,
            va: M::PAGE.floor(va),
            access,
            purpose,
            did: None,
            object: None,
            spare: None,
            made_room: false,
            answer: None,
            nodes: vm.reserve_page_nodes(1)?,
            chunks: reserve_chunks(vm, access)?,
            limbo: Limbo::new(vm),
        };
        let done = match fault.run() {
            Err(FaultError::InvalidAddress) => match self.grow_stack(va) {
                Ok(true) => fault.run(),
                Ok(false) | Err(MapError::NoSpace) => Err(FaultError::InvalidAddress),
                Err(_) => Err(FaultError::NoMemory),
            },
            done => done,
        };
        if let Some(frame) = fault.spare.take() {
            vm.frames.free(frame);
        }
        *object = fault.object;
        done
    }
}

impl<'v, M: Machine> Fault<'v, '_, M> {
    /// Tries until the fault is resolved. Every wait and every call to the outside is here.
    fn run(&mut self) -> Result<Faulted, FaultError> {
        let vm = self.space.vm;
        loop {
            let next = self.attempt();
            // The locks of the attempt are gone: what it set free can go.
            self.limbo.settle();
            match next? {
                Next::Done(how) => return Ok(how),
                Next::Prepare => self.prepare()?,
                Next::WaitMap(ticket) => self.space.wait_map(ticket),
                Next::WaitBusy(wait) => vm.wait_busy(wait),
                Next::PageIn(job) => {
                    self.did = Some(Faulted::PagedIn);
                    vm.page_in(job, &mut self.limbo)
                        .map_err(FaultError::Pager)?;
                }
                Next::Ask(question) => {
                    let answer = vm.ask_device(question, &mut self.limbo);
                    self.answer = answer.map_err(FaultError::Pager)?;
                }
                Next::Again => {}
                Next::TableFrames(count) => self.donate(count)?,
                Next::Submap(below) => self.space = Space { vm, handle: below },
                Next::TooMany => self.space.drop_translations(vm.machine().user_range()),
                Next::MakeRoom => {
                    self.made_room = true;
                    vm.make_room();
                }
                Next::NoFrame => {
                    let frame = vm.wait_frame(self.class());
                    let frame = frame.ok_or(FaultError::NoMemory)?;
                    // The spare is for the page itself; what is on the way needs one more.
                    if let Some(more) = self.spare.replace(frame) {
                        vm.frames.free(more);
                    }
                }
            }
            self.refill()?;
        }
    }

    /// Sets aside again what the attempt used.
    fn refill(&mut self) -> Result<(), FaultError> {
        let vm = self.space.vm;
        if self.nodes.left() < radix::NODES_PER_INSERT {
            self.nodes = vm.reserve_page_nodes(1)?;
        }
        Ok(())
    }

    /// One attempt, under the map's read lock from the lookup to the entered translation.
    fn attempt(&mut self) -> Result<Next, FaultError> {
        let space = self.space;
        let vm = space.vm;
        let map = space.rec().map.read();
        if map.frozen {
            return Ok(Next::WaitMap(
                vm.machine().ticket(map_channel(space.handle)),
            ));
        }
        let handle = map.find(vm, self.va).ok_or(FaultError::InvalidAddress)?;
        let mut entry = *map.get(vm, handle);
        entry.prot = entry.reach::<M>();
        if let Some(below) = entry.submap() {
            return Ok(Next::Submap(below));
        }
        if entry.has(Flags::NO_FAULT) {
            return Err(FaultError::NoFault);
        }
        let allowed = match self.purpose {
            Purpose::Visit { force: true, .. } => with_loads::<M>(entry.max_prot),
            // Wiring brings pages in whatever they allow.
            Purpose::Wire => Prot::ALL,
            _ => entry.prot,
        };
        if !allowed.allows(self.access) {
            return Err(FaultError::Protection);
        }
        let write = self.access == Access::Write;
        let Some(object) = entry.object else {
            // Nobody but the kernel makes objects in its maps (M16).
            return match space.is_system() {
                true => Err(FaultError::NoFault),
                false => Ok(Next::Prepare),
            };
        };
        if write && entry.has(Flags::NEEDS_COPY) {
            return Ok(Next::Prepare);
        }
        let index = match entry.kind() {
            Kind::PageTable(directory) => match self.walk_table(&entry, object, directory)? {
                Walked::Page(index) => index,
                Walked::Wait(next) => return Ok(next),
            },
            _ => entry.index_of::<M>(self.va),
        };
        if entry.is_page_table() && !write {
            // The first store is to be seen.
            entry.prot -= Prot::WRITE;
        }
        let mut chain = Chain::lock(vm, object, index);
        self.resolve(&entry, &mut chain)
    }

    /// Gives the entry an object, or a shadow where a write needs one.
    fn prepare(&mut self) -> Result<(), FaultError> {
        let need = Need::default().and(0, 1);
        let mut edit = self
            .space
            .edit(VirtRange::default(), need)
            .map_err(|_| FaultError::NoMemory)?;
        let Some(handle) = edit.map.find(edit.vm, self.va) else {
            return Err(FaultError::InvalidAddress);
        };
        let entry = edit.get(handle);
        if entry.object.is_none() {
            edit.make_object(handle);
        } else if entry.has(Flags::NEEDS_COPY) && self.access == Access::Write {
            edit.make_shadow(handle);
        }
        Ok(())
    }

    /// Gives the pmap frames for its tables.
    fn donate(&mut self, count: u32) -> Result<(), FaultError> {
        let vm = self.space.vm;
        for _ in 0..count {
            let frame = vm.wait_frame(Class::System).ok_or(FaultError::NoMemory)?;
            let taken = self.space.with_pmap(|pmap| pmap.donate(frame));
            if taken.is_none() {
                vm.frames.free(frame);
                return Err(FaultError::InvalidAddress);
            }
        }
        Ok(())
    }

    /// What the translation may allow: never a write that has to be seen first.
    pub(super) fn translation_prot(prot: Prot, may_write: bool) -> Prot {
        if may_write { prot } else { prot - Prot::WRITE }
    }
}

/// Sets aside a chunk for the page that is wanted; for a read also for those around it, if they
/// can be had.
fn reserve_chunks<M: Machine>(
    vm: &crate::Vm<M>,
    access: Access,
) -> Result<Reservation<'_, M, rmap::Chunk>, NoRecords> {
    let reserve = |count| {
        vm.rmap
            .chunks
            .reserve(&vm.frames, count, rmap::Chunk::vacant)
    };
    if access == Access::Write {
        return reserve(1);
    }
    reserve(around::PAGES as u32).or_else(|_| reserve(1))
}
