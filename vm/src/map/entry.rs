//! One entry of a map: a range of addresses and what it means.

use super::page_table::TableEntry;
use crate::object::ObjectHandle;
use crate::slab::Handle;
use crate::space::SpaceHandle;
use bsdvm_machine::{Machine, Prot, VirtAddr, VirtRange};

pub(crate) type EntryHandle = Handle<Entry>;

/// What a child gets of a range at fork (M08).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Inherit {
    /// The same memory.
    Share,
    /// A copy, made on write.
    #[default]
    Copy,
    /// Nothing.
    None,
    /// Fresh zero-filled memory.
    Zero,
}

/// How a range is going to be used (M12), and so how much is read and entered with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Behavior {
    /// Nothing is known: some pages after it are read with a page, and neighbours that are in
    /// memory are entered.
    #[default]
    Normal,
    /// From front to back: more pages are read, and those that follow are entered.
    Sequential,
    /// Here and there: a page comes alone.
    Random,
}

/// Whether what is written can be seen by others that map the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Writes go to a copy.
    Private,
    /// Writes go to the object.
    Shared,
}

/// What stands behind an entry besides its object (E04). What a kind has more than others is in
/// its variant, so that nobody reads the one for the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Pages of the object, and nothing else.
    Normal,
    /// A stack, which grows downwards on faults below it by `reserve` bytes at most; without
    /// bound as [`Kind::OPEN_STACK`].
    Stack { reserve: u64 },
    /// Another map that says what is there (M06).
    Submap(SpaceHandle),
    /// A table in the object says which of its pages are shown where (M18).
    PageTable(TableEntry),
    /// Pages that the kernel provides (M19): of a device, and always shared with a child.
    Provided,
}

/// Pages below an open stack that stay free: a program that runs over its stack is to fault, and
/// not to write into its neighbour.
pub(crate) const GUARD_PAGES: u64 = 256;

/// A [`Kind`] in eight bytes: the upper three bits say which, the rest what it has more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Packed(u64);

impl Packed {
    const SHIFT: u32 = 61;
    const STACK: u64 = 1 << Self::SHIFT;
    const SUBMAP: u64 = 2 << Self::SHIFT;
    const PAGE_TABLE: u64 = 3 << Self::SHIFT;
    const PROVIDED: u64 = 4 << Self::SHIFT;
    const MORE: u64 = Self::STACK - 1;

    fn kind(self) -> Kind {
        let more = self.0 & Self::MORE;
        match self.0 & !Self::MORE {
            Self::STACK => Kind::Stack { reserve: more },
            Self::SUBMAP => Handle::from_raw(more as u32).map_or(Kind::Normal, Kind::Submap),
            Self::PAGE_TABLE => Kind::PageTable(TableEntry::from_bits_retain(more)),
            Self::PROVIDED => Kind::Provided,
            _ => Kind::Normal,
        }
    }
}

bitflags::bitflags! {
    /// Flags of an entry (E04).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Flags: u16 {
        /// Writes go to a copy.
        const COPY_ON_WRITE = 1;
        /// The object is not the entry's own: a write puts a shadow in front of it first.
        const NEEDS_COPY = 2;
        /// Writes are meant to be seen by others.
        const SHARED = 4;
        /// Somebody works on the range with the map unlocked: nobody merges or removes it.
        const IN_TRANSITION = 8;
        /// Somebody waits for the end of that work.
        const NEEDS_WAKEUP = 16;
        /// Wired by its user.
        const USER_WIRED = 32;
        /// Being wired by the operation that has the range in transition.
        const WIRING = 64;
        /// Nothing may be brought here by a fault: mappings are made by hand (K04).
        const NO_FAULT = 128;
        /// The operation that has the range in transition counted a wiring here.
        const COUNTED = 256;
        /// What is written here is left alone by a periodic sync (M12).
        const NO_SYNC = 512;
        /// Left out of core dumps (M12).
        const NO_CORE = 1024;
        /// The marks of whoever uses the map, for purposes of its own.
        const MARKS = 15 << 11;
    }
}

/// `prot`, and loads where the machine allows them with anything.
pub(crate) fn with_loads<M: Machine>(prot: Prot) -> Prot {
    if M::IMPLIES_LOADS && !prot.is_empty() {
        prot | Prot::READ
    } else {
        prot
    }
}

/// One entry. Guarded by the lock of its map.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) start: VirtAddr,
    pub(crate) end: VirtAddr,
    /// Place in the object, in pages.
    pub(crate) offset: u64,
    /// What [`Entry::kind`] says.
    pub(crate) kind: Packed,
    /// Pages of reservation that the entry carries until it has an object of its own.
    pub(crate) charge: u64,
    pub(crate) prev: Option<EntryHandle>,
    pub(crate) next: Option<EntryHandle>,
    pub(crate) object: Option<ObjectHandle>,
    /// How many wirings hold the range; the user's counts for one.
    pub(crate) wired: u32,
    pub(crate) flags: Flags,
    pub(crate) prot: Prot,
    pub(crate) max_prot: Prot,
    pub(crate) inherit: Inherit,
    pub(crate) behavior: Behavior,
}

const _: () = assert!(
    size_of::<Entry>() + 8 <= 72,
    "with its share of the tree an entry stays below 128 bytes"
);

impl Kind {
    /// The kind in eight bytes. Of a directory it keeps the bits that have a meaning there.
    pub(crate) const fn pack(self) -> Packed {
        Packed(match self {
            Kind::Normal => 0,
            Kind::Stack { reserve } => Packed::STACK | (reserve & Packed::MORE),
            Kind::Submap(space) => Packed::SUBMAP | space.raw() as u64,
            Kind::PageTable(directory) => {
                let meant = TableEntry::OF_DIRECTORY.bits();
                Packed::PAGE_TABLE | (directory.bits() & meant)
            }
            Kind::Provided => Packed::PROVIDED,
        })
    }

    /// The part of a stack above its lowest one: it has nothing left to grow by.
    pub(crate) const UPPER_STACK: Kind = Kind::Stack { reserve: 0 };

    /// A stack, or part of one, that grows wherever there is room below it.
    pub(crate) const OPEN_STACK: Kind = Kind::Stack {
        reserve: Packed::MORE,
    };

    /// Bytes that it may grow by.
    pub(crate) fn reserve(self) -> u64 {
        match self {
            Kind::Stack { reserve } => reserve,
            _ => 0,
        }
    }

    /// Bytes below that no mapping is placed in.
    pub(crate) fn kept_free<M: Machine>(self) -> u64 {
        match self {
            Kind::OPEN_STACK => M::PAGE.offset(GUARD_PAGES).unwrap_or(u64::MAX),
            kind => kind.reserve(),
        }
    }

    /// The kind at another address: a stack with a reserve does not grow where it was moved to.
    pub(crate) fn moved(self) -> Kind {
        match self {
            Kind::OPEN_STACK => self,
            Kind::Stack { .. } => Kind::Normal,
            kind => kind,
        }
    }

    /// The kind of the upper of two parts.
    pub(crate) fn of_upper(self) -> Kind {
        match self {
            Kind::OPEN_STACK => self,
            Kind::Stack { .. } => Kind::UPPER_STACK,
            kind => kind,
        }
    }

    /// Whether an entry of this kind can take in one of kind `next` that follows it.
    fn continues_in(self, next: Kind) -> bool {
        match (self, next) {
            (Kind::Normal, Kind::Normal) | (Kind::OPEN_STACK, Kind::OPEN_STACK) => true,
            // What is left for the lower one to grow by is the stack's; the upper one has none.
            (Kind::Stack { .. }, next) => next == Kind::UPPER_STACK,
            (Kind::PageTable(directory), next) => next == Kind::PageTable(directory),
            _ => false,
        }
    }
}

impl Flags {
    const MARKS_SHIFT: u32 = 11;

    /// The marks with these bits, of which there are four.
    pub(crate) fn of_marks(bits: u8) -> Flags {
        Flags::from_bits_truncate(u16::from(bits) << Self::MARKS_SHIFT) & Flags::MARKS
    }

    /// The bits of the marks.
    pub(crate) fn marks(self) -> u8 {
        ((self & Flags::MARKS).bits() >> Self::MARKS_SHIFT) as u8
    }

    /// Copied on write, and not copied yet.
    pub(crate) const COPIED: Flags = Flags::COPY_ON_WRITE.union(Flags::NEEDS_COPY);
}

impl Entry {
    pub(crate) const VACANT: Entry = Entry {
        start: VirtAddr(0),
        end: VirtAddr(0),
        offset: 0,
        kind: Kind::Normal.pack(),
        charge: 0,
        prev: None,
        next: None,
        object: None,
        wired: 0,
        flags: Flags::empty(),
        prot: Prot::NONE,
        max_prot: Prot::NONE,
        inherit: Inherit::Copy,
        behavior: Behavior::Normal,
    };

    pub(crate) fn range(&self) -> VirtRange {
        VirtRange::new(self.start, self.end).unwrap_or_default()
    }

    /// What translations of the entry may allow.
    pub(crate) fn reach<M: Machine>(&self) -> Prot {
        with_loads::<M>(self.prot)
    }

    /// The length in pages.
    pub(crate) fn pages<M: Machine>(&self) -> u64 {
        M::PAGE.index(self.end.bytes_above(self.start))
    }

    /// The page of the object that `va` maps.
    pub(crate) fn index_of<M: Machine>(&self, va: VirtAddr) -> u64 {
        self.offset + M::PAGE.index(va.bytes_above(self.start))
    }

    pub(crate) fn has(&self, flags: Flags) -> bool {
        self.flags.intersects(flags)
    }

    /// The map behind the entry, if it is a submap (M06).
    pub(crate) fn submap(&self) -> Option<SpaceHandle> {
        match self.kind() {
            Kind::Submap(space) => Some(space),
            _ => None,
        }
    }

    /// What stands behind the entry.
    pub(crate) fn kind(&self) -> Kind {
        self.kind.kind()
    }

    pub(crate) fn is_page_table(&self) -> bool {
        matches!(self.kind(), Kind::PageTable(_))
    }

    /// What a child gets: what the kernel provides is shared, whatever was said of it (M19).
    pub(crate) fn inheritance(&self) -> Inherit {
        match self.kind() {
            Kind::Provided => Inherit::Share,
            _ => self.inherit,
        }
    }

    pub(crate) fn is_private(&self) -> bool {
        !self.has(Flags::SHARED)
    }

    /// Whether this entry and `next`, which begins where it ends, can be one (E05).
    pub(crate) fn continues_in<M: Machine>(&self, next: &Entry) -> bool {
        self.end == next.start
            && self.object == next.object
            && (self.object.is_none() || self.offset + self.pages::<M>() == next.offset)
            && self.flags == next.flags
            && !self.has(Flags::IN_TRANSITION)
            && self.prot == next.prot
            && self.max_prot == next.max_prot
            && self.inherit == next.inherit
            && self.behavior == next.behavior
            && self.wired == next.wired
            && self.kind().continues_in(next.kind())
            && (self.charge == 0) == (next.charge == 0)
    }
}
