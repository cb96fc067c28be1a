//! bsdvm: the BSD/Mach virtual memory system as a library.
//!
//! The core is generic over one [`Machine`] and over nothing else, is `no_std`, and calls no
//! global allocator: it stands under one. Its rooms, from the bottom:
//!
//! # `slab/`: records
//! Type-stable slabs with 32-bit handles and reserves, in frames of their own.
//!
//! # `page/`: frames
//! One record a frame, free runs and magazines, queues, and who maps a frame.
//!
//! # `object/`: what owns pages
//! Resident pages, chains of shadows, references.
//!
//! # `pager/`: where pages come from and go to
//! [`PagerOps`], and swap.
//!
//! # `map/`: which address means what
//! Entries in a tree; a file for each verb.
//!
//! # `fault/`: from an address to a page
//! One struct, one loop.
//!
//! # `space/`: an address space
//! Fork, exit, counts, and the memory of a program read and written.
//!
//! # `kmem/`: the kernel's own memory
//! The kernel map, submaps, wired memory, zones.
//!
//! # `charge/`, `pageout/`, `show/`, `check.rs`
//! Reservation; frames taken back; what a person sees; the invariants of the whole.
//!
//! # Locks
//! The ladder is in `lock.rs`; a thread takes locks in ascending rank, and debug builds assert
//! it. No lock is held over a pager call, a sleep or a wait for a flush.
//!
//! # What is absent
//! The core knows nothing of files, error numbers or processes, and never dereferences a pointer
//! to a page.
//!
//! # Example
//! ```
//! use bsdvm::{Access, Config, Mapping, Placement, Prot, VirtAddr, VirtRange, Vm};
//! use bsdvm_sim::{Sim, SimConfig};
//!
//! let machine = Sim::<12>::new(SimConfig::default());
//! let vm = Vm::new(machine, Config::default())?;
//! let range = VirtRange::new(VirtAddr(0x1000), VirtAddr(0x1000_0000)).unwrap();
//! let id = vm.space_create(range).unwrap();
//! let space = vm.space(id);
//!
//! // Map 64 KiB wherever there is room, and write to it.
//! let place = Placement::FirstFit { from: range.start(), align: 4096 };
//! let at = space.map(64 << 10, place, Mapping::anonymous(Prot::RW)).unwrap();
//! space.write(at, b"hello").unwrap();
//!
//! // A child sees what was there, and keeps it.
//! let child = vm.space(space.fork().unwrap());
//! space.write(at, b"HELLO").unwrap();
//! let mut seen = [0; 5];
//! child.read(at, &mut seen).unwrap();
//! assert_eq!(&seen, b"hello");
//!
//! // A trap handler calls `fault`; the translation is in the machine's pmap then.
//! space.fault(at, Access::Read).unwrap();
//! child.release();
//! space.release();
//! assert_eq!(vm.counters().objects, 0);
//! # Ok::<(), bsdvm::BootError>(())
//! ```

#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod charge;
mod check;
mod fault;
mod kmem;
mod lock;
mod map;
mod object;
mod page;
mod pageout;
mod pager;
mod show;
#[allow(unsafe_code, reason = "the one home of unsafe code in the core")]
mod slab;
mod space;

pub use bsdvm_machine::{
    Access, Channel, Frame, FrameRun, Host, Machine, Memory, MemoryAttr, PageSize, Pmap, Prot,
    VirtAddr, VirtRange,
};
pub use check::CheckError;
pub use fault::{FaultError, Faulted, Prefault};
pub use kmem::{
    Fill, Find, KernelAlloc, KernelConfig, KernelMap, KernelWatch, Kmem, KmemError, Malloc, Paging,
    Physical, SettingError, SubmapName, Wait, WatchError, Zone, ZoneId,
};
pub use map::{
    Advice, Backing, Behavior, EntryInfo, GrowthLimits, Inherit, MapError, Mapping, Placement,
    Randomize, Sharing, TableEntry,
};
pub use object::{Grabbed, Object, ObjectError, ObjectId, ObjectKind};
pub use page::Within;
pub use pager::{DevicePage, PageBytes, Pager, PagerError, PagerOps, SwapDevice, SwapError};
pub use show::{
    Counters, Entries, Event, FaultFor, ObjectInfo, PageInfo, PagePlace, Pages, ShowMap, ShowSpace,
    ShownEntry, SpaceInfo, Store, TraceSink, Verb, WiredBy,
};
pub use space::{Image, Space, SpaceError, SpaceId, UserError};

use charge::Charge;
use map::Entry;
use object::ObjectRec;
use object::limbo::Flushes;
use object::radix;
use page::rmap::Rmap;
use page::{Frames, Queues};
use pager::Swap;
use show::CounterSet;
use slab::{Arena, Slab};
use space::{Counts, SpaceRec};

/// What a VM is made with.
#[derive(Default)]
pub struct Config {
    /// Use this many of the machine's frames at most; all of them when `None`.
    pub frame_limit: Option<u32>,
    /// Memory for the first entries and tree nodes of maps, so that a kernel's own map can be
    /// filled before frames are to be had (E01). Whole pages of it are used; eight are enough for
    /// some fifty entries. May be empty.
    pub early: &'static mut [u8],
    /// The most pages of zeroes that one write makes where a program writes to one page of private
    /// memory after another, a power of two, at most 64: the page itself and those that come next,
    /// more of them the longer it goes on so. 0 and 1: a page at a time.
    pub zero_run: u32,
    /// Who hears of events (faults, pages in and out, verbs); nobody when `None`.
    pub trace: Option<&'static dyn TraceSink>,
}

impl core::fmt::Debug for Config {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Config")
            .field("frame_limit", &self.frame_limit)
            .field("early", &self.early.len())
            .field("zero_run", &self.zero_run)
            .field("trace", &self.trace.is_some())
            .finish()
    }
}

/// Why a VM could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootError {
    /// The machine has too few frames for the table of pages and anything else.
    NoMemory,
}

impl core::fmt::Display for BootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the machine has too little memory")
    }
}

impl core::error::Error for BootError {}

/// Fewest frames that a VM is made with.
const FEWEST_FRAMES: u64 = 16;

/// A virtual memory system: everything above one machine. Several can live in one process.
pub struct Vm<M: Machine> {
    pub(crate) frames: Frames<M>,
    pub(crate) queues: Queues<M>,
    pub(crate) rmap: Rmap<M>,
    pub(crate) flushes: Flushes,
    pub(crate) objects: Slab<M, ObjectRec<M>>,
    pub(crate) spaces: Slab<M, SpaceRec<M>>,
    pub(crate) entries: Arena<M, Entry>,
    pub(crate) map_nodes: Arena<M, map::tree::Node>,
    pub(crate) page_nodes: Arena<M, radix::Node>,
    pub(crate) charge: Charge,
    pub(crate) swap: Swap<M>,
    pub(crate) laundry: pageout::Laundry,
    pub(crate) counters: CounterSet,
    pub(crate) kmem: kmem::State<M>,
    pub(crate) counts: Counts,
    trace: Option<&'static dyn TraceSink>,
    /// See [`Config::zero_run`].
    zero_run: u32,
}

impl<M: Machine> Vm<M> {
    /// Takes over the memory of `machine`.
    ///
    /// Errors: [`BootError::NoMemory`].
    pub fn new(machine: M, config: Config) -> Result<Vm<M>, BootError> {
        let vm = Vm {
            frames: Frames::new(machine),
            queues: Queues::new(),
            rmap: Rmap::new(),
            flushes: Flushes::new(),
            objects: Slab::new(),
            spaces: Slab::new(),
            entries: Arena::new(),
            map_nodes: Arena::new(),
            page_nodes: Arena::new(),
            charge: Charge::new(),
            swap: Swap::new(),
            laundry: pageout::Laundry::new(),
            counters: CounterSet::new(),
            kmem: kmem::State::new(),
            counts: Counts::new(),
            trace: config.trace,
            zero_run: config.zero_run,
        };
        if !vm.frames.boot(config.frame_limit.unwrap_or(u32::MAX))
            || vm.frames.total() < FEWEST_FRAMES
        {
            return Err(BootError::NoMemory);
        }
        vm.take_early(config.early);
        Ok(vm)
    }

    /// Gives early memory to the slabs of maps: a directory each, then six pages of tree nodes for
    /// each of entries, as one change of a map may need as many.
    fn take_early(&self, memory: &'static mut [u8]) {
        let size = M::PAGE.len();
        let skip = memory.as_ptr().align_offset(size).min(memory.len());
        let pages = memory[skip..].chunks_exact_mut(size);
        for (i, page) in pages.enumerate() {
            match i {
                0 => self.entries.give(page, Entry::VACANT),
                i if i > 1 && i % 7 == 2 => self.entries.give(page, Entry::VACANT),
                _ => self.map_nodes.give(page, map::tree::Node::EMPTY),
            }
        }
    }

    /// The machine below.
    pub fn machine(&self) -> &M {
        self.frames.machine()
    }

    /// Sets how many pages may be promised at a time (O08). Without a call there is no limit.
    pub fn set_charge_limit(&self, pages: u64) {
        self.charge.set_limit(pages);
    }

    /// Lets the `n`-th allocation of a record or frame from now on fail, once; 0 for none. For
    /// tests of failing paths.
    #[cfg(feature = "inject")]
    pub fn inject_failure(&self, n: u64) {
        self.frames.inject(n);
    }

    /// Allocations still to go before the one that fails; 0 when it has failed.
    #[cfg(feature = "inject")]
    pub fn injection_left(&self) -> u64 {
        self.frames.inject_left()
    }
}
