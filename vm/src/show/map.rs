//! `show map` (D01): every entry of a map, with the objects behind it.
//!
//! ```text
//! Task map 1: pmap=1, nentries=1, version=9
//!   map entry 3: start=0x100000, end=0x104000
//!    prot=3/7/copy, wired (1, user), object=5, offset=0x0, copy (done)
//!     Object 5: type=default, size=0x4000, res=4, swap=0, ref=1, sref=0, backing=2+0x1000
//!       Object 2: type=swap, size=0x8000, res=1, swap=2, ref=2, sref=2
//! ```
//!
//! The columns are those of the system that this one follows. Protections are sums of 1 (read), 2
//! (write) and 4 (execute): what is allowed now, and what can be allowed. What has no number
//! prints as 0. A submap has `share=`, the number of its map, which is shown below it. Objects and
//! maps that the entry below has in front too are not shown again.

use super::chain::{Chain, ObjectInfo};
use super::space::SpaceInfo;
use crate::map::{Behavior, EntryInfo, Inherit};
use crate::object::ObjectId;
use crate::space::{Space, SpaceId};
use bsdvm_machine::{Machine, VirtAddr};
use core::fmt;

/// One entry, with the chain of its objects.
#[derive(Clone, Copy, Debug)]
pub struct ShownEntry {
    /// The number of its record: it stays while the entry does, and may come again later.
    pub number: u32,
    /// What the entry says.
    pub info: EntryInfo,
    chain: Chain,
}

impl ShownEntry {
    /// The objects behind the entry, front first; none while the entry has no object.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectInfo> {
        self.chain.iter()
    }
}

/// The entries of a map in ascending order, each copied when its turn comes. Entries that come
/// into being below the last one given are not seen.
pub struct Entries<'v, M: Machine> {
    space: Space<'v, M>,
    from: VirtAddr,
}

impl<M: Machine> Iterator for Entries<'_, M> {
    type Item = ShownEntry;

    fn next(&mut self) -> Option<ShownEntry> {
        let vm = self.space.vm;
        let map = self.space.rec().map.read();
        let handle = map.find_at_or_above(vm, self.from)?;
        let entry = map.get(vm, handle);
        let shown = ShownEntry {
            number: handle.raw(),
            info: self.space.describe(entry),
            chain: entry
                .object
                .map_or(Chain::EMPTY, |front| vm.copy_of_chain(front)),
        };
        self.from = shown.info.range.end();
        Some(shown)
    }
}

/// A map as text (D01): see [`Space::show`].
pub struct ShowMap<'v, M: Machine>(Space<'v, M>);

impl<'v, M: Machine> ShowMap<'v, M> {
    /// The entries one by one, for programs.
    pub fn entries(&self) -> Entries<'v, M> {
        Entries {
            space: self.0,
            from: VirtAddr(0),
        }
    }
}

impl<'v, M: Machine> Space<'v, M> {
    /// The map as text: every entry with range, protections, inheritance, wiring, object, offset
    /// and state of the copy, the objects behind it, and submaps (D01). Each line ends with a
    /// line feed. An entry in transition is said to be so. A space that has ended has no entries.
    ///
    /// The map is locked while one entry is copied, and not while it is printed: what others do
    /// meanwhile may be seen in part. The caller holds the space.
    pub fn show(self) -> ShowMap<'v, M> {
        ShowMap(self)
    }
}

impl<M: Machine> fmt::Display for ShowMap<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_map(f, self.0, 0)
    }
}

/// Maps in maps that are followed: a caller can make submaps that lead to each other.
const DEEPEST: usize = 4;

/// Writes a map that `depth` maps lead to.
pub(super) fn write_map<M: Machine>(
    f: &mut fmt::Formatter<'_>,
    space: Space<'_, M>,
    depth: usize,
) -> fmt::Result {
    let indent = 4 * depth;
    let info = SpaceInfo::of(space);
    writeln!(
        f,
        "{:indent$}Task map {}: pmap={}, nentries={}, version={}",
        "", info.number, info.pmap, info.entries, info.stamp
    )?;
    let indent = indent + 2;
    let mut below: Option<EntryInfo> = None;
    for entry in space.show().entries() {
        write_entry(f, &entry, indent)?;
        match entry.info.submap {
            Some(sub) if depth < DEEPEST && below.is_none_or(|b| b.submap != Some(sub)) => {
                write_submap(f, space, &entry.info, depth + 1)?;
            }
            Some(_) => {}
            None if below.is_none_or(|b| b.object != entry.info.object) => {
                write_objects(f, &entry, indent + 2)?;
            }
            None => {}
        }
        below = Some(entry.info);
    }
    Ok(())
}

/// Writes the map behind a submap, if it is still there: it is held meanwhile.
fn write_submap<M: Machine>(
    f: &mut fmt::Formatter<'_>,
    space: Space<'_, M>,
    entry: &EntryInfo,
    depth: usize,
) -> fmt::Result {
    let vm = space.vm;
    let map = space.rec().map.read();
    let now = map.find(vm, entry.range.start());
    let now = now.and_then(|handle| map.get(vm, handle).submap());
    let Some(sub) = now.filter(|sub| entry.submap == Some(SpaceId(*sub))) else {
        return Ok(());
    };
    let sub = vm.space(SpaceId(sub));
    sub.hold();
    drop(map);
    let written = write_map(f, sub, depth);
    sub.unhold();
    written
}

/// Two lines for an entry.
fn write_entry(f: &mut fmt::Formatter<'_>, entry: &ShownEntry, indent: usize) -> fmt::Result {
    let info = &entry.info;
    writeln!(
        f,
        "{:indent$}map entry {}: start={:#x}, end={:#x}",
        "",
        entry.number,
        info.range.start().0,
        info.range.end().0
    )?;
    let inherit = match info.inherit {
        Inherit::Share => "share",
        Inherit::Copy => "copy",
        Inherit::None => "none",
        Inherit::Zero => "zero",
    };
    write!(
        f,
        "{:indent$} prot={:x}/{:x}/{inherit}",
        "",
        info.prot.bits(),
        info.max_prot.bits()
    )?;
    match (info.wired, info.user_wired) {
        (0, _) => {}
        (n, true) => write!(f, ", wired ({n}, user)")?,
        (n, false) => write!(f, ", wired ({n})")?,
    }
    match info.submap {
        Some(sub) => write!(f, ", share={}", sub.number())?,
        None => write!(f, ", object={}", info.object.map_or(0, ObjectId::number))?,
    }
    write!(f, ", offset={:#x}", info.offset)?;
    if info.copy_on_write {
        let copy = if info.needs_copy { "needed" } else { "done" };
        write!(f, ", copy ({copy})")?;
    }
    write_marks(f, info)?;
    f.write_str("\n")
}

/// What else an entry says, where it is not what most say.
fn write_marks(f: &mut fmt::Formatter<'_>, info: &EntryInfo) -> fmt::Result {
    if info.stack {
        write!(f, ", stack ({:#x} left)", info.stack_reserve)?;
    }
    if let Some(directory) = info.page_directory {
        write!(f, ", page table ({:#x})", directory.bits())?;
    }
    if info.provided {
        f.write_str(", uksmap")?;
    }
    f.write_str(match info.behavior {
        Behavior::Normal => "",
        Behavior::Sequential => ", sequential",
        Behavior::Random => ", random",
    })?;
    let marks = [
        (info.no_sync, ", no sync"),
        (info.no_core, ", no core"),
        (info.no_fault, ", no fault"),
        (info.in_transition, ", in transition"),
    ];
    let set = marks.iter().filter(|(set, _)| *set);
    set.map(|(_, mark)| *mark)
        .try_for_each(|mark| f.write_str(mark))
}

/// A line for each object behind an entry, each further to the right than the one before it.
fn write_objects(f: &mut fmt::Formatter<'_>, entry: &ShownEntry, indent: usize) -> fmt::Result {
    for (depth, object) in entry.objects().enumerate() {
        let indent = indent + 2 * depth;
        writeln!(f, "{:indent$}{object}", "")?;
    }
    Ok(())
}
