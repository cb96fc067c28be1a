//! Map: find a place, insert, coalesce, replace (M03, M04, M05).

use super::entry::{Inherit, Sharing};
use super::tree::Query;
use super::{Edit, Entry, EntryHandle, Flags, Kind, Need, TableEntry};
use crate::fault::Prefault;
use crate::object::{ObjectHandle, ObjectId};
use crate::pager::PagerError;
use crate::show::Event;
use crate::slab::{Handle, NoRecords};
use crate::space::Space;
use bsdvm_machine::{Machine, Prot, VirtAddr, VirtRange};

/// Why a verb on a map failed. Nothing was changed unless the verb says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// The range is empty, not aligned to pages, wraps, or lies outside of the map.
    InvalidAddress,
    /// Something is mapped there.
    Overlap,
    /// No free range is long enough.
    NoSpace,
    /// No memory for the records of the change, or for the pages that it needs.
    NoMemory,
    /// The maximum protection does not allow it.
    Protection,
    /// Part of the range is not mapped.
    Hole,
    /// The limit on reservations would be passed.
    ChargeLimit,
    /// An argument makes no sense: an alignment of 0, for example.
    InvalidArgument,
    /// The range is wired.
    Wired,
    /// Part of the range is not wired.
    NotWired,
    /// The pager failed.
    Pager(PagerError),
    /// A page lies beyond the end of its object.
    BeyondEnd,
    /// The space has ended.
    Exiting,
    /// A submap has part of the range: it says what is there, and stays (M06).
    Submap,
}

impl From<NoRecords> for MapError {
    fn from(_: NoRecords) -> MapError {
        MapError::NoMemory
    }
}

/// What a mapping shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MappingBacking {
    /// Zero-filled memory of its own.
    Anonymous,
    /// An object, from a byte offset that is aligned to pages. The map takes a reference of its
    /// own.
    Object {
        /// Which object.
        object: ObjectId,
        /// Where in it, in bytes.
        offset: u64,
    },
    /// The pages of an object that a table in it names (M18): the range shows what the tables
    /// have from byte `offset` on, once [`Space::set_page_directory`] has said where they are.
    /// Shared, and never copied.
    PageTable {
        /// Which object.
        object: ObjectId,
        /// Where in what the tables translate the range begins, in bytes.
        offset: u64,
    },
    /// Pages that the kernel provides (M19): those of a device, from byte `offset` of it. Shared
    /// with every child, whatever its inheritance, and never merged with a neighbour.
    Provided {
        /// Which device.
        object: ObjectId,
        /// Where in it, in bytes.
        offset: u64,
    },
}

impl MappingBacking {
    /// The object and the byte offset, if there is one.
    fn object(self) -> Option<(ObjectId, u64)> {
        match self {
            MappingBacking::Anonymous => None,
            MappingBacking::Object { object, offset }
            | MappingBacking::PageTable { object, offset }
            | MappingBacking::Provided { object, offset } => Some((object, offset)),
        }
    }

    fn kind(self) -> Kind {
        match self {
            MappingBacking::Anonymous | MappingBacking::Object { .. } => Kind::Normal,
            MappingBacking::PageTable { .. } => Kind::PageTable(TableEntry::default()),
            MappingBacking::Provided { .. } => Kind::Provided,
        }
    }
}

/// What to map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// What it shows.
    pub backing: MappingBacking,
    /// Whether writes are seen by others.
    pub sharing: Sharing,
    /// What is allowed now.
    pub prot: Prot,
    /// What can be allowed later.
    pub max_prot: Prot,
    /// What a child gets.
    pub inherit: Inherit,
}

impl Mapping {
    /// Private zero-filled memory.
    pub const fn anonymous(prot: Prot) -> Mapping {
        Mapping {
            backing: MappingBacking::Anonymous,
            sharing: Sharing::Private,
            prot,
            max_prot: Prot::ALL,
            inherit: Inherit::Copy,
        }
    }

    /// An object from byte `offset`. A shared mapping is inherited by sharing.
    pub const fn object(object: ObjectId, offset: u64, sharing: Sharing, prot: Prot) -> Mapping {
        Mapping {
            backing: MappingBacking::Object { object, offset },
            sharing,
            prot,
            max_prot: Prot::ALL,
            inherit: match sharing {
                Sharing::Shared => Inherit::Share,
                Sharing::Private => Inherit::Copy,
            },
        }
    }
}

/// Where to map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Here; [`MapError::Overlap`] when something is there.
    At(VirtAddr),
    /// Here, in place of whatever is there. There is never a moment with a hole.
    Replace(VirtAddr),
    /// The lowest free place at or above `from`, aligned to `align` bytes (any number of whole
    /// pages, 0 refused).
    FirstFit {
        /// Lowest address.
        from: VirtAddr,
        /// Alignment in bytes.
        align: u64,
    },
    /// The highest free place that ends at or below `below`.
    TopDown {
        /// Highest end.
        below: VirtAddr,
        /// Alignment in bytes.
        align: u64,
    },
}

impl<'v, M: Machine> Space<'v, M> {
    /// Maps `bytes` bytes (rounded up to pages) at a place; gives its address (M03–M05).
    ///
    /// Errors: [`MapError::InvalidAddress`] for an empty or wrapping length and a place outside
    /// of the map, [`MapError::Overlap`], [`MapError::NoSpace`], [`MapError::InvalidArgument`]
    /// for a bad alignment, an unaligned offset, an object that has ended, or a device that is to
    /// be private,
    /// [`MapError::Protection`] when `prot` is more than `max_prot`, [`MapError::ChargeLimit`],
    /// [`MapError::NoMemory`], [`MapError::Exiting`], [`MapError::Submap`].
    pub fn map(self, bytes: u64, place: Placement, what: Mapping) -> Result<VirtAddr, MapError> {
        let done = self.map_quietly(bytes, place, what);
        self.vm.trace(|| Event::Map {
            space: self.id(),
            bytes,
            what,
            outcome: done,
        });
        done
    }

    fn map_quietly(
        self,
        bytes: u64,
        place: Placement,
        what: Mapping,
    ) -> Result<VirtAddr, MapError> {
        let page = M::PAGE;
        let len = page
            .round_up(bytes)
            .filter(|&n| n > 0)
            .ok_or(MapError::InvalidAddress)?;
        let offset = offset_of::<M>(what, len)?;
        let fixed = fixed_range::<M>(place, len)?;
        let mut edit = self.edit(fixed, Need::CLIP.and(1, 0))?;
        let range = edit.place(len, place)?;
        edit.refuse_submaps(range)?;
        let charge = match (what.backing.object(), what.sharing) {
            (Some(_), Sharing::Shared) => 0,
            _ => page.index(len),
        };
        edit.vm
            .charge
            .take(charge)
            .map_err(|_| MapError::ChargeLimit)?;
        let object = what.backing.object().map(|(object, _)| object.0);
        if object.is_some_and(|object| !edit.can_map(object, what)) {
            edit.vm.charge.refund(charge);
            return Err(MapError::InvalidArgument);
        }
        if let Placement::Replace(_) = place {
            edit.clip_range(range);
            edit.delete_clipped(range);
        }
        edit.insert(new_entry(range, what, object, offset, charge));
        let wire = edit.map.wire_future && what.backing.kind() == Kind::Normal;
        drop(edit);
        if wire && !what.prot.is_empty() {
            self.wire_new(range)?;
        }
        Ok(range.start())
    }

    /// Maps as [`Space::map`] does, and enters what is in memory of it already (M14). That is done
    /// with the map locked for reading alone, as other threads may use it meanwhile; what cannot
    /// be entered is left to faults.
    ///
    /// Errors: those of [`Space::map`].
    pub fn map_ahead(
        self,
        bytes: u64,
        place: Placement,
        what: Mapping,
        prefault: Prefault,
    ) -> Result<VirtAddr, MapError> {
        let at = self.map(bytes, place, what)?;
        let len = M::PAGE.round_up(bytes).unwrap_or(bytes);
        if let Some(range) = VirtRange::from_len(at, len) {
            self.enter_resident(range, prefault);
        }
        Ok(at)
    }

    /// Wires what was just mapped in a space that wires everything; takes it away again when that
    /// fails.
    fn wire_new(self, range: VirtRange) -> Result<(), MapError> {
        self.wire(range).inspect_err(|_| {
            let _ = self.remove(range);
        })
    }
}

/// Where in its object a mapping of `len` bytes begins, in pages; refuses what cannot be.
fn offset_of<M: Machine>(what: Mapping, len: u64) -> Result<u64, MapError> {
    let page = M::PAGE;
    if !what.max_prot.contains(what.prot) {
        return Err(MapError::Protection);
    }
    let bytes = what.backing.object().map_or(0, |(_, offset)| offset);
    if page.within(bytes) != 0 {
        return Err(MapError::InvalidArgument);
    }
    let offset = page.index(bytes);
    offset
        .checked_add(page.index(len))
        .and_then(|end| page.offset(end))
        .ok_or(MapError::InvalidArgument)?;
    Ok(offset)
}

/// The range that a placement names; empty when it leaves the choice to the map.
fn fixed_range<M: Machine>(place: Placement, len: u64) -> Result<VirtRange, MapError> {
    match place {
        Placement::At(at) | Placement::Replace(at) if M::PAGE.is_aligned(at) => {
            VirtRange::from_len(at, len).ok_or(MapError::InvalidAddress)
        }
        Placement::At(_) | Placement::Replace(_) => Err(MapError::InvalidAddress),
        Placement::FirstFit { .. } | Placement::TopDown { .. } => Ok(VirtRange::default()),
    }
}

fn new_entry(
    range: VirtRange,
    what: Mapping,
    object: Option<ObjectHandle>,
    offset: u64,
    charge: u64,
) -> Entry {
    let flags = match (what.sharing, object) {
        (Sharing::Shared, _) => Flags::SHARED,
        (Sharing::Private, Some(_)) => Flags::COPIED,
        (Sharing::Private, None) => Flags::empty(),
    };
    Entry {
        start: range.start(),
        end: range.end(),
        offset,
        charge,
        object,
        flags,
        prot: what.prot,
        max_prot: what.max_prot,
        inherit: what.inherit,
        kind: what.backing.kind().pack(),
        ..Entry::VACANT
    }
}

impl<M: Machine> Edit<'_, M> {
    /// Takes a reference to an object that is to be mapped. False when it has ended, and when it
    /// cannot be mapped so: a device is never copied, the kernel provides devices, and tables lie
    /// in memory that is shared.
    fn can_map(&self, object: ObjectHandle, what: Mapping) -> bool {
        let shared = what.sharing == Sharing::Shared;
        let copied = matches!(what.inherit, Inherit::Copy | Inherit::Zero);
        let device = self.vm.lock_object(object).is_device();
        let fits = match what.backing.kind() {
            Kind::PageTable(_) => shared && !device && !copied,
            Kind::Provided => shared && device,
            _ => shared || !device,
        };
        fits && self.vm.reference(object)
    }

    /// Finds where `len` bytes go. Nothing is changed.
    pub(crate) fn place(&self, len: u64, place: Placement) -> Result<VirtRange, MapError> {
        if self.map.exiting {
            return Err(MapError::Exiting);
        }
        let start = match place {
            Placement::At(at) | Placement::Replace(at) => at,
            Placement::FirstFit { from, align } => self
                .fit(len, from, self.map.range.end(), align, Way::Up)?
                .ok_or(MapError::NoSpace)?,
            Placement::TopDown { below, align } => self
                .fit(len, self.map.range.start(), below, align, Way::Down)?
                .ok_or(MapError::NoSpace)?,
        };
        let range = VirtRange::from_len(start, len).ok_or(MapError::InvalidAddress)?;
        if !self.map.range.contains_range(range) {
            return Err(MapError::InvalidAddress);
        }
        if matches!(place, Placement::At(_)) && self.next_in(start, range).is_some() {
            return Err(MapError::Overlap);
        }
        Ok(range)
    }

    fn fit(
        &self,
        len: u64,
        low: VirtAddr,
        high: VirtAddr,
        align: u64,
        way: Way,
    ) -> Result<Option<VirtAddr>, MapError> {
        if align == 0 || M::PAGE.within(align) != 0 {
            return Err(MapError::InvalidArgument);
        }
        let map = &*self.map;
        let Some(low) = M::PAGE.ceil(low.max(map.range.start())) else {
            return Ok(None);
        };
        // The growth area of a stack is not free.
        let ceiling = |start: u64| match map.tree.floor(&self.vm.map_nodes, start) {
            Some(found) if found.start == start => Handle::from_raw(found.id)
                .map_or(start, |h: EntryHandle| {
                    start.saturating_sub(map.get(self.vm, h).kind().kept_free::<M>())
                }),
            _ => start,
        };
        let query = Query {
            low: low.0,
            high: M::PAGE.floor(high.min(map.range.end())).0,
            len,
            align,
            ceiling: &ceiling,
        };
        let min = map.range.start().0;
        Ok(match way {
            Way::Up => map.tree.first_fit(&self.vm.map_nodes, min, &query),
            Way::Down => map.tree.last_fit(&self.vm.map_nodes, min, &query),
        }
        .map(VirtAddr))
    }

    /// Adds an entry to a free range: extends a neighbour where it can (M03), but in maps of the
    /// kernel, where an entry without an object is addresses alone.
    pub(crate) fn insert(&mut self, mut new: Entry) -> EntryHandle {
        let range = new.range();
        if new.object.is_none()
            && !self.system
            && let Some(prev) = self.map.find_below(self.vm, new.start)
        {
            let before = self.get(prev);
            if before.end == new.start && self.extends(&before, &new) {
                // The object of the entry before reaches on: the new entry shares it.
                if let Some(object) = before.object
                    && self.vm.reference(object)
                {
                    new.object = Some(object);
                    new.offset = before.offset + before.pages::<M>();
                    let mut state = self.vm.lock_object(object);
                    state.bytes = M::PAGE
                        .offset(new.offset + new.pages::<M>())
                        .unwrap_or(u64::MAX);
                    state.charge += core::mem::take(&mut new.charge);
                }
            }
        }
        let handle = self.link(new);
        self.simplify(range);
        self.map.find(self.vm, range.start()).unwrap_or(handle)
    }

    /// Whether the object of `before` can be made longer for `new` (coalesce): it is anonymous,
    /// nobody else refers to it, nothing is behind it, and it has nothing after the entry.
    fn extends(&self, before: &Entry, new: &Entry) -> bool {
        let Some(object) = before.object else {
            return false;
        };
        if before.flags != new.flags || before.wired != 0 || self.vm.references(object) != 1 {
            return false;
        }
        let end = before.offset + before.pages::<M>();
        let state = self.vm.lock_object(object);
        state.is_anonymous()
            && state.backing.is_none()
            && state.one_mapping
            && state.pages.next(&self.vm.page_nodes, end).is_none()
    }
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}
