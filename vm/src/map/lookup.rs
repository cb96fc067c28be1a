//! Look at entries: what is mapped where.

use super::TableEntry;
use super::edit::covers;
use super::entry::{Behavior, Entry, Flags, Inherit, Kind, Sharing};
use crate::object::{ObjectHandle, ObjectId};
use crate::space::{Space, SpaceId};
use bsdvm_machine::{Machine, Prot, VirtAddr, VirtRange};

/// What one entry says, as seen from outside (E04).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryInfo {
    /// The addresses.
    pub range: VirtRange,
    /// What is allowed now.
    pub prot: Prot,
    /// What can be allowed later.
    pub max_prot: Prot,
    /// What a child gets.
    pub inherit: Inherit,
    /// Whether writes are seen by others.
    pub sharing: Sharing,
    /// The object in front, once there is one.
    pub object: Option<ObjectId>,
    /// Where in that object the range begins, in bytes.
    pub offset: u64,
    /// How many wirings hold the range.
    pub wired: u32,
    /// Whether one of them is the user's.
    pub user_wired: bool,
    /// Whether what is written goes to a copy of the object that is, or was, another's.
    pub copy_on_write: bool,
    /// Whether the next write puts a shadow in front of the object.
    pub needs_copy: bool,
    /// Whether somebody works on the range with the map unlocked (E07).
    pub in_transition: bool,
    /// Whether faults bring nothing here: mappings are made by hand (K04).
    pub no_fault: bool,
    /// Whether the range grows downwards on faults below it.
    pub stack: bool,
    /// By how many bytes it still may.
    pub stack_reserve: u64,
    /// How the range is going to be used.
    pub behavior: Behavior,
    /// Whether a periodic sync leaves alone what is written here.
    pub no_sync: bool,
    /// Whether the range is left out of core dumps.
    pub no_core: bool,
    /// The marks of [`crate::Advice::Mark`].
    pub marks: u8,
    /// The map that says what is there, if this is a submap (M06).
    pub submap: Option<SpaceId>,
    /// The directory, if this is a virtual page table (M18).
    pub page_directory: Option<TableEntry>,
    /// Whether the kernel provides the pages (M19).
    pub provided: bool,
    /// The object at the end of the chain if it is a file's (behind a pager, or a file that is
    /// memory), and where in it the range begins, in
    /// bytes. The object stays alive only as long as the range is mapped.
    pub file: Option<(ObjectId, u64)>,
}

impl<M: Machine> Space<'_, M> {
    /// The entry that contains `va`, or the first one above it.
    pub fn entry(self, va: VirtAddr) -> Option<EntryInfo> {
        let map = self.rec().map.read();
        let handle = map.find_at_or_above(self.vm, va)?;
        Some(self.describe(map.get(self.vm, handle)))
    }

    pub(crate) fn describe(self, entry: &Entry) -> EntryInfo {
        let bytes = |pages: u64| M::PAGE.offset(pages).unwrap_or(u64::MAX);
        let file = entry
            .object
            .and_then(|object| self.vm.bottom_file(object, entry.offset));
        EntryInfo {
            range: entry.range(),
            prot: entry.prot,
            max_prot: entry.max_prot,
            inherit: entry.inherit,
            sharing: if entry.is_private() {
                Sharing::Private
            } else {
                Sharing::Shared
            },
            object: entry.object.map(ObjectId),
            offset: bytes(entry.offset),
            wired: entry.wired,
            behavior: entry.behavior,
            no_sync: entry.has(Flags::NO_SYNC),
            no_core: entry.has(Flags::NO_CORE),
            marks: entry.flags.marks(),
            user_wired: entry.has(Flags::USER_WIRED),
            copy_on_write: entry.has(Flags::COPY_ON_WRITE),
            needs_copy: entry.has(Flags::NEEDS_COPY),
            in_transition: entry.has(Flags::IN_TRANSITION),
            no_fault: entry.has(Flags::NO_FAULT),
            stack: matches!(entry.kind(), Kind::Stack { .. }),
            stack_reserve: entry.kind().reserve(),
            submap: entry.submap().map(SpaceId),
            page_directory: match entry.kind() {
                Kind::PageTable(directory) => Some(directory),
                _ => None,
            },
            provided: entry.kind() == Kind::Provided,
            file: file.map(|(object, offset)| (ObjectId(object), bytes(offset))),
        }
    }

    /// Whether every page of `range` is mapped.
    pub fn covered(self, range: VirtRange) -> bool {
        covers(self.vm, &self.rec().map.read(), range)
    }

    /// Whether every page of `range` is mapped and allows `prot` (M10).
    pub fn check_protection(self, range: VirtRange, prot: Prot) -> bool {
        self.all_entries(range, |entry| entry.prot.contains(prot))
    }

    /// Whether `range` has no hole and `holds` is true of every entry of it.
    pub(crate) fn all_entries(self, range: VirtRange, holds: impl Fn(&Entry) -> bool) -> bool {
        let map = self.rec().map.read();
        let mut at = range.start();
        while at < range.end() {
            let Some(handle) = map.find(self.vm, at) else {
                return false;
            };
            let entry = map.get(self.vm, handle);
            if !holds(entry) {
                return false;
            }
            at = entry.end;
        }
        true
    }

    /// Whether everything mapped from now on is wired.
    pub(crate) fn wires_all(self) -> bool {
        self.rec().map.read().wire_future
    }

    /// Bytes mapped.
    pub fn size(self) -> u64 {
        self.rec().map.read().bytes
    }

    /// Entries in the map.
    pub fn entries(self) -> u64 {
        self.rec().map.read().tree.len()
    }

    /// The version stamp of the map (M17).
    pub fn stamp(self) -> u64 {
        self.rec().stamp.read()
    }
}

impl<M: Machine> crate::Vm<M> {
    /// The object at the end of a chain, if it is a file's, and where in it page `offset`
    /// of `object` is.
    pub(crate) fn bottom_file(
        &self,
        object: ObjectHandle,
        offset: u64,
    ) -> Option<(ObjectHandle, u64)> {
        let mut at = (object, offset);
        let mut state = self.lock_object(object);
        while let Some(backing) = state.backing {
            at = (backing.object, at.1 + backing.offset);
            state = self.lock_backing(backing.object);
        }
        state.is_file().then_some(at)
    }
}
