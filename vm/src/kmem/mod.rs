//! The kernel's own memory: its map, submaps, and everything that allocates from them.
//!
//! ```text
//!  kernel map  | in use | zero region |  kmem submap  |  exec submap  |  …  free  … |
//!                                            |
//!                              zones of small items, magazines
//! ```
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the state; building the kernel map (K14), the zero region (K15) |
//! | `map.rs` | a map of the kernel: address ranges, submaps (K01, K02, K04, K07, K08, K13) |
//! | `back.rs` | pages under an address range, wired and entered (K03, K05, K06, K09–K12) |
//! | `manual.rs` | mappings made by hand (O09), growth of the tables (K18) |
//! | `event.rs` | who hears that memory or a map is short (K16) |
//! | `setting.rs` | the tunables, by name (K17) |
//! | `zone.rs` | items of one size from wired pages, with magazines (O10) |
//! | `global.rs` | the allocator of Rust on top of the zones |
//!
//! Wired memory comes from two objects over the whole of the kernel's addresses, so that the place
//! of a page in its object is its address: no two ranges show the same page. Its translations are
//! made by hand and stay until the memory is freed: a kernel can touch it with no fault to follow.
//!
//! The maps of the kernel draw entries and tree nodes from a reserve when no frame can be had
//! (E03), so that memory can be given back in a world that has none. What grows here grows by
//! frames, never by an allocator that stands on it: nothing recurs.
//!
//! Locks: none is held over anything that this room calls. What a range is being filled with is
//! kept by its entry being in transition.

mod back;
mod event;
#[allow(unsafe_code, reason = "an allocator of Rust is unsafe by its trait")]
mod global;
mod manual;
mod map;
mod setting;
mod zone;

pub use back::{Fill, Malloc, Physical, Wait};
pub use event::{KernelWatch, WatchError};
pub use global::KernelAlloc;
pub use map::{Find, KernelMap, Paging, SubmapName};
pub use setting::SettingError;
pub use zone::{Zone, ZoneId};

use crate::charge::LimitReached;
use crate::map::{Entry, Flags, MapError};
use crate::object::limbo::Limbo;
use crate::object::{Kind, ObjectHandle};
use crate::page::Class;
use crate::slab::{Handle, NoRecords, Stock};
use crate::space::{Space, SpaceError, SpaceHandle, SpaceId};
use crate::{Vm, lock};
use bsdvm_machine::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use bsdvm_machine::{Frame, Machine, MemoryAttr, Prot, VirtAddr, VirtRange};

/// Entries and tree nodes that are kept for maps of the kernel. A change of a map takes two
/// entries, and may take as many nodes as the tree is high, twice.
const ENTRY_STOCK: u32 = 64;
const NODE_STOCK: u32 = 64;

/// How the kernel's memory is laid out.
#[derive(Clone, Copy, Debug)]
pub struct KernelConfig {
    /// The addresses of the kernel map; cut to what the machine has for the kernel.
    pub range: VirtRange,
    /// Bytes at the start of it that are in use already: the kernel itself, and all that was
    /// allocated while it booted.
    pub in_use: u64,
    /// Bytes of the zero region (K15); none for 0.
    pub zero_region: u64,
    /// Bytes of a superpage, which [`Find::Superpage`] aligns to.
    pub superpage: u64,
    /// How often an allocation that may wait announces low memory and looks again when a map has
    /// no room (K10). 0 fails at once, as the document of 1996 has it.
    pub room_rounds: u32,
}

impl KernelConfig {
    /// All of the machine's kernel addresses, none of them in use, with a zero region and
    /// superpages of 2 MiB and 8 rounds.
    pub fn of(machine: &impl Machine) -> KernelConfig {
        KernelConfig {
            range: machine.kernel_range(),
            in_use: 0,
            zero_region: 2 << 20,
            superpage: 2 << 20,
            room_rounds: 8,
        }
    }
}

/// Why the kernel got no memory. Everything is as it was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KmemError {
    /// A length, alignment or address makes no sense, or what is at it is something else.
    InvalidArgument,
    /// No address range is long enough; a caller that may wait has waited.
    NoSpace,
    /// No pages, or no memory for records.
    NoMemory,
    /// The map is not one that this call is meant for (K09).
    WrongMap,
    /// An mbuf or cluster map is full (K01).
    MapFull,
    /// The limit on reservations would be passed.
    ChargeLimit,
    /// The kernel map is there already, or a name of a submap is taken.
    Exists,
    /// The machine has no addresses, or no pmap, for the kernel.
    NoResources,
}

impl From<NoRecords> for KmemError {
    fn from(_: NoRecords) -> KmemError {
        KmemError::NoMemory
    }
}

impl From<LimitReached> for KmemError {
    fn from(_: LimitReached) -> KmemError {
        KmemError::ChargeLimit
    }
}

impl From<MapError> for KmemError {
    fn from(e: MapError) -> KmemError {
        match e {
            MapError::NoSpace => KmemError::NoSpace,
            MapError::NoMemory => KmemError::NoMemory,
            MapError::ChargeLimit => KmemError::ChargeLimit,
            MapError::Exiting => KmemError::NoResources,
            _ => KmemError::InvalidArgument,
        }
    }
}

impl From<SpaceError> for KmemError {
    fn from(e: SpaceError) -> KmemError {
        match e {
            SpaceError::NoMemory => KmemError::NoMemory,
            _ => KmemError::NoResources,
        }
    }
}

/// What a VM knows of its kernel's memory. Fields without a word on it are written when the kernel
/// map is built and read only afterwards.
pub(crate) struct State<M: Machine> {
    /// The reserve (E03).
    pub(crate) entries: Stock,
    pub(crate) nodes: Stock,
    /// The kernel map; 0 as long as there is none.
    map: AtomicU32,
    /// The object of `alloc` and its kin, and that of `malloc`.
    kernel_object: AtomicU32,
    kmem_object: AtomicU32,
    lowest: AtomicU64,
    /// The page that the zero region shows, plus one; 0 for none.
    zero_frame: AtomicU32,
    zero_start: AtomicU64,
    zero_bytes: AtomicU64,
    superpage: AtomicU64,
    room_rounds: AtomicU32,
    /// The address up to which the tables that all spaces share exist. Only grows.
    grown: AtomicU64,
    names: map::Names,
    watchers: event::Watchers<M>,
    pub(crate) zones: zone::Zones<M>,
    /// Settings (K17). Written by anybody.
    pub(crate) randomize_mmap: AtomicBool,
    pub(crate) map_relock: AtomicBool,
}

impl<M: Machine> State<M> {
    pub(crate) const fn new() -> Self {
        State {
            entries: Stock::new(),
            nodes: Stock::new(),
            map: AtomicU32::new(0),
            kernel_object: AtomicU32::new(0),
            kmem_object: AtomicU32::new(0),
            lowest: AtomicU64::new(0),
            zero_frame: AtomicU32::new(0),
            zero_start: AtomicU64::new(0),
            zero_bytes: AtomicU64::new(0),
            superpage: AtomicU64::new(0),
            room_rounds: AtomicU32::new(0),
            grown: AtomicU64::new(0),
            names: map::Names::new(),
            watchers: event::Watchers::new(),
            zones: zone::Zones::new(),
            randomize_mmap: AtomicBool::new(false),
            map_relock: AtomicBool::new(true),
        }
    }
}

/// The kernel's memory of one VM, to work with.
pub struct Kmem<'v, M: Machine> {
    pub(super) vm: &'v Vm<M>,
}

impl<M: Machine> Clone for Kmem<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M: Machine> Copy for Kmem<'_, M> {}

impl<M: Machine> Vm<M> {
    /// Builds the kernel map (K14) with its zero region (K15): `config.range`, the first part of
    /// which is marked as in use and can be neither faulted on nor taken. Once for each VM, before
    /// anybody else uses the kernel's memory.
    ///
    /// Errors: [`KmemError::Exists`]; [`KmemError::NoResources`] where the machine has nothing for
    /// a kernel; [`KmemError::InvalidArgument`] for sizes that do not fit;
    /// [`KmemError::NoMemory`]. Nothing is there then.
    pub fn kmem_init(&self, config: KernelConfig) -> Result<Kmem<'_, M>, KmemError> {
        let kmem = Kmem { vm: self };
        if self.kmem().is_some() {
            return Err(KmemError::Exists);
        }
        let page = M::PAGE;
        let sizes = [config.in_use, config.zero_region, config.superpage];
        if sizes.iter().any(|&n| page.within(n) != 0) || config.superpage == 0 {
            return Err(KmemError::InvalidArgument);
        }
        let mut objects = self.reserve_objects(2)?;
        let space = self.space(self.space_create_kernel(config.range)?);
        let range = space.range();
        let state = &self.kmem;
        state.lowest.store(range.start().0, Ordering::Release);
        state.grown.store(range.start().0, Ordering::Release);
        state.superpage.store(config.superpage, Ordering::Release);
        state
            .room_rounds
            .store(config.room_rounds, Ordering::Release);
        for object in [&state.kernel_object, &state.kmem_object] {
            let made = self.new_kernel_object(&mut objects, range.len());
            object.store(made.raw(), Ordering::Release);
        }
        self.entries.set_stock(&state.entries, ENTRY_STOCK);
        self.map_nodes.set_stock(&state.nodes, NODE_STOCK);
        state.map.store(space.handle.raw(), Ordering::Release);
        kmem.restock();
        kmem.mark_in_use(config.in_use)
            .and_then(|()| kmem.make_zero_region(config.zero_region))
            .inspect_err(|_| kmem.end())?;
        Ok(kmem)
    }

    /// The kernel's memory, once there is a kernel map.
    pub fn kmem(&self) -> Option<Kmem<'_, M>> {
        (self.kmem.map.load(Ordering::Acquire) != 0).then_some(Kmem { vm: self })
    }
}

impl<'v, M: Machine> Kmem<'v, M> {
    fn state(self) -> &'v State<M> {
        &self.vm.kmem
    }

    /// The kernel map.
    pub fn map(self) -> KernelMap<'v, M> {
        let handle: Option<SpaceHandle> =
            Handle::from_raw(self.state().map.load(Ordering::Acquire));
        // There is one for as long as there is a `Kmem`: `end` takes the last.
        let Some(handle) = handle else {
            unreachable!("the kernel map has ended")
        };
        KernelMap::new(Space {
            vm: self.vm,
            handle,
        })
    }

    /// A space of the kernel's: the kernel map, or a submap of it.
    pub fn submap(self, id: SpaceId) -> KernelMap<'v, M> {
        KernelMap::new(self.vm.space(id))
    }

    /// The zero region (K15): addresses that read as zero, all by one page. Empty when there is
    /// none.
    pub fn zero_region(self) -> VirtRange {
        let state = self.state();
        let start = VirtAddr(state.zero_start.load(Ordering::Acquire));
        let bytes = state.zero_bytes.load(Ordering::Acquire);
        VirtRange::from_len(start, bytes).unwrap_or_default()
    }

    pub(super) fn kernel_object(self) -> Option<ObjectHandle> {
        Handle::from_raw(self.state().kernel_object.load(Ordering::Acquire))
    }

    pub(super) fn kmem_object(self) -> Option<ObjectHandle> {
        Handle::from_raw(self.state().kmem_object.load(Ordering::Acquire))
    }

    pub(super) fn room_rounds(self) -> u32 {
        self.state().room_rounds.load(Ordering::Acquire)
    }

    /// The place of an address in the objects of the kernel, in pages.
    pub(super) fn index_of(self, va: VirtAddr) -> u64 {
        let lowest = VirtAddr(self.state().lowest.load(Ordering::Acquire));
        M::PAGE.index(va.bytes_above(lowest))
    }

    /// Makes up for what was drawn from the reserve (E03).
    pub(super) fn restock(self) {
        let (vm, state) = (self.vm, self.state());
        vm.entries
            .restock(&state.entries, &vm.frames, Entry::VACANT);
        vm.map_nodes
            .restock(&state.nodes, &vm.frames, crate::map::tree::Node::EMPTY);
    }

    fn mark_in_use(self, bytes: u64) -> Result<(), KmemError> {
        if bytes == 0 {
            return Ok(());
        }
        let map = self.map();
        let range = VirtRange::from_len(map.space().range().start(), bytes);
        let range = range.ok_or(KmemError::InvalidArgument)?;
        map.take(range, Flags::NO_FAULT).map(drop)
    }

    fn make_zero_region(self, bytes: u64) -> Result<(), KmemError> {
        if bytes == 0 {
            return Ok(());
        }
        let vm = self.vm;
        let state = self.state();
        let frame = vm.frames.alloc(Class::System).ok_or(KmemError::NoMemory)?;
        vm.machine().zero(frame);
        state.zero_frame.store(frame.0 + 1, Ordering::Release);
        let map = self.map();
        let at = map.alloc_nofault(bytes)?;
        let range = VirtRange::from_len(at, bytes).ok_or(KmemError::InvalidArgument)?;
        for va in M::PAGE.pages(range) {
            map.qenter(va, &[frame], Prot::READ, MemoryAttr::WriteBack)?;
        }
        map.space().protect_max(range, Prot::READ)?;
        state.zero_start.store(at.0, Ordering::Release);
        state.zero_bytes.store(bytes, Ordering::Release);
        Ok(())
    }

    /// Takes the kernel's memory down: the map, its submaps and all that is in them. For a VM that
    /// ends; nobody uses the kernel's memory any more.
    pub fn end(self) {
        let vm = self.vm;
        let state = self.state();
        self.end_zones();
        state.names.clear();
        self.map().space().release();
        state.map.store(0, Ordering::Release);
        vm.entries.set_stock(&state.entries, 0);
        vm.map_nodes.set_stock(&state.nodes, 0);
        let mut limbo = Limbo::new(vm);
        for object in [&state.kernel_object, &state.kmem_object] {
            if let Some(object) = Handle::from_raw(object.swap(0, Ordering::AcqRel)) {
                vm.release(object, &mut limbo);
            }
        }
        limbo.settle();
        if let Some(frame) = state.zero_frame.swap(0, Ordering::AcqRel).checked_sub(1) {
            vm.frames.free(Frame(frame));
        }
        state.zero_bytes.store(0, Ordering::Release);
    }
}

impl<M: Machine> Vm<M> {
    fn new_kernel_object(
        &self,
        from: &mut crate::slab::Reservation<'_, M, crate::object::ObjectRec<M>>,
        bytes: u64,
    ) -> ObjectHandle {
        self.new_object(from, Kind::Kernel, bytes, 0)
    }
}
