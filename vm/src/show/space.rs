//! `procvm` (D02): a space, its map and its pmap.

use super::map::write_map;
use crate::space::Space;
use bsdvm_machine::{Machine, VirtRange};
use core::fmt;

/// What a space says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceInfo {
    /// Its number: that of its id.
    pub number: u32,
    /// References: 0 once the contents have gone.
    pub references: u32,
    /// Holds, those of references among them.
    pub holds: u32,
    /// The addresses that can be mapped.
    pub range: VirtRange,
    /// Bytes mapped.
    pub size: u64,
    /// Entries in the map.
    pub entries: u64,
    /// The version stamp of the map.
    pub stamp: u64,
    /// Pages in memory of the zero-filled objects that entries have in front (S04).
    pub anonymous: u64,
    /// Pages on swap that the space has a part in (S04).
    pub swapped: u64,
    /// The number of the space whose pmap translates the addresses.
    pub pmap: u32,
    /// Pages that this pmap maps.
    pub resident: u64,
}

impl SpaceInfo {
    pub(super) fn of<M: Machine>(space: Space<'_, M>) -> SpaceInfo {
        let resident = space.resident();
        let (anonymous, swapped) = (space.anonymous_count(), space.swap_count());
        let rec = space.rec();
        let map = rec.map.read();
        SpaceInfo {
            number: space.id().number(),
            references: space.references(),
            holds: space.holds(),
            range: map.range,
            size: map.bytes,
            entries: map.tree.len(),
            stamp: rec.stamp.read(),
            anonymous,
            swapped,
            pmap: space.home().raw(),
            resident,
        }
    }
}

/// `vmspace = 1, ref = 1, hold = 2, map = 0x100000-0x120000, size = 0x4000, anon = 3, swap = 1,
/// pmap = 1, resident = 3`, on one line.
impl fmt::Display for SpaceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "vmspace = {}, ref = {}, hold = {}, map = {:#x}-{:#x}, size = {:#x}, \
             anon = {}, swap = {}, pmap = {}, resident = {}",
            self.number,
            self.references,
            self.holds,
            self.range.start().0,
            self.range.end().0,
            self.size,
            self.anonymous,
            self.swapped,
            self.pmap,
            self.resident
        )
    }
}

/// A space as text (D02): see [`Space::show_space`].
pub struct ShowSpace<'v, M: Machine>(Space<'v, M>);

impl<'v, M: Machine> Space<'v, M> {
    /// What the space says of itself: counts, map and pmap in numbers (D02). The caller holds the
    /// space.
    pub fn info(self) -> SpaceInfo {
        SpaceInfo::of(self)
    }

    /// The space as text, as `procvm` prints it: a line of [`SpaceInfo`], then the map (D02).
    /// Whose space it is, is for the caller to say: the core knows no processes. The locks are
    /// taken as [`Space::show`] takes them. The caller holds the space.
    pub fn show_space(self) -> ShowSpace<'v, M> {
        ShowSpace(self)
    }
}

impl<M: Machine> fmt::Display for ShowSpace<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.0.info())?;
        write_map(f, self.0, 0)
    }
}
