//! The seam between the bsdvm core and the machine below it.
//!
//! A port implements the traits of this crate and nothing else:
//!
//! * [`addr`]: addresses, frames and ranges, the only address arithmetic in the project;
//! * [`prot`]: protections, access kinds and memory attributes;
//! * [`pmap`]: translations of one address space ([`Pmap`]) and the flush that follows a change;
//! * [`memory`]: the contents of physical frames ([`Memory`]);
//! * [`sync`]: locks with ranks, atomics, waiting and waking ([`Locks`], [`Wait`]);
//! * [`host`]: time, processors and chance ([`Host`]);
//! * [`conformance`]: the tests that every machine must pass.
//!
//! [`Machine`] ties them together; the core is generic over one `M: Machine` and over nothing
//! else. The crate is `no_std`, allocates nothing and contains no unsafe code.
//!
//! What is absent: maps, objects, processes, files and error numbers. A machine knows addresses
//! and frames only.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(loom)]
extern crate std;

pub mod addr;
pub mod conformance;
pub mod host;
pub mod memory;
pub mod pmap;
pub mod prot;
pub mod sync;

pub use addr::{Frame, FrameRun, PageSize, VirtAddr, VirtRange};
pub use host::Host;
pub use memory::Memory;
pub use pmap::{EnterError, Flush, Kind, Pmap, Removed, Translation, Usage};
pub use prot::{Access, MemoryAttr, Prot};
pub use sync::{Channel, Locks, Ticket, Wait};

/// A machine: everything that the core asks of the world below it.
///
/// Methods take `&self` and there are no statics, so that two machines can live in one process.
pub trait Machine: Memory + Host + Locks + Wait + Sized + Send + Sync + 'static {
    /// The size of a page. A constant of the machine; 4, 16 and 64 KiB are in use.
    const PAGE: PageSize;

    /// Whether translations that allow stores or fetches allow loads too, so that memory which is
    /// to be written alone can be read as well.
    const IMPLIES_LOADS: bool = false;

    /// The translations of one address space.
    type Pmap: Pmap;

    /// Makes an empty pmap for user addresses.
    ///
    /// Errors: [`EnterError::NoResources`] when the machine has none to give (a host that refuses
    /// another process, for example). Frames that the pmap itself needs are asked for later, by
    /// [`EnterError::NeedFrames`].
    fn pmap_create(&self) -> Result<Self::Pmap, EnterError>;

    /// The range of addresses that a user pmap can translate.
    fn user_range(&self) -> VirtRange;

    /// The range of kernel addresses that the core may manage through
    /// [`Machine::pmap_kernel`]; empty where the machine has none to give.
    fn kernel_range(&self) -> VirtRange {
        VirtRange::default()
    }

    /// Makes the pmap of the kernel, whose translations hold in every space. Asked for once.
    ///
    /// Errors: as for [`Machine::pmap_create`]; [`EnterError::NoResources`] where
    /// [`Machine::kernel_range`] is empty.
    fn pmap_kernel(&self) -> Result<Self::Pmap, EnterError> {
        Err(EnterError::NoResources)
    }
}
