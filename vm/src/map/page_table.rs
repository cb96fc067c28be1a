//! Virtual page tables (M18): a range whose translation is a table that its user keeps in the
//! object itself.
//!
//! ```text
//!  page of the range: 36 bits      9   |   9   |   9   |   9          (pages of 4 KiB)
//!                                  │       │       │       │
//!  directory ──> table ──[i]──> table ─[i]─> table ─[i]─> table ─[i]─> page of the object
//! ```
//!
//! The page of the range is the number of the page from the start of the range, plus the offset
//! that it was mapped with. Each of the four levels takes as many bits of it as a page has
//! entries. An entry ([`TableEntry`]) names a page of the object: the next table, or the page
//! that is shown. [`TableEntry::LARGE`] above the last level ends the walk: the remaining bits
//! are added to the page that the entry names. The directory is an entry, too: it names the first
//! table, and is not valid as long as nobody has set one.
//!
//! Tables are pages of the object like others: written through any mapping of it, paged out and
//! in. A fault reads them (`fault/table.rs`), and sets [`TableEntry::ACCESSED`] on its way and
//! [`TableEntry::MODIFIED`] where it ends in a store; until there was one the page is entered
//! without the right to write, so that the first store is seen. What was entered stays until
//! [`crate::Advice::Invalidate`] takes it away, as on a processor.

use super::{Edit, Kind, MapError, Need};
use crate::show::Verb;
use crate::space::Space;
use bsdvm_machine::{Machine, VirtRange};

bitflags::bitflags! {
    /// An entry of a virtual page table: 64 bits, little end first. Bits 12 to 51 are the byte
    /// offset in the object of the page that it names (with larger pages the lower of them are 0);
    /// those that have no name are the user's.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct TableEntry: u64 {
        /// There is something here.
        const VALID = 1;
        /// Stores are allowed; asked on each level.
        const WRITABLE = 1 << 1;
        /// Somebody went through here. Set by faults, cleared by the user.
        const ACCESSED = 1 << 5;
        /// Somebody stored here. Set by faults on the last level, cleared by the user.
        const MODIFIED = 1 << 6;
        /// The last level of the walk.
        const LARGE = 1 << 7;
        /// The byte offset.
        const OFFSET = 0x000f_ffff_ffff_f000;
        const _ = !0;
    }
}

impl TableEntry {
    /// An entry that names the page at byte `offset` of the object.
    pub const fn to(offset: u64, flags: TableEntry) -> TableEntry {
        TableEntry::from_bits_retain(offset & TableEntry::OFFSET.bits()).union(flags)
    }

    /// What a directory can say.
    pub(crate) const OF_DIRECTORY: TableEntry = TableEntry::VALID
        .union(TableEntry::WRITABLE)
        .union(TableEntry::LARGE)
        .union(TableEntry::OFFSET);

    /// The byte offset of the page that it names.
    pub const fn offset(self) -> u64 {
        self.intersection(TableEntry::OFFSET).bits()
    }
}

/// Levels of tables.
pub(crate) const LEVELS: u32 = 4;

impl<M: Machine> Space<'_, M> {
    /// Sets the directory of the virtual page tables in `range`, a range of whole pages (M12,
    /// M18), and takes their translations away. Holes are skipped. Bits that mean nothing in a
    /// directory are not kept.
    ///
    /// Errors: [`MapError::InvalidArgument`] when something else is mapped in part of the range;
    /// [`MapError::InvalidAddress`], [`MapError::Submap`], [`MapError::NoMemory`]; nothing is
    /// changed then.
    pub fn set_page_directory(
        self,
        range: VirtRange,
        directory: TableEntry,
    ) -> Result<(), MapError> {
        let done = self.set_directory_quietly(range, directory);
        self.trace_change(Verb::SetPageDirectory(directory), range, &done);
        done
    }

    fn set_directory_quietly(
        self,
        range: VirtRange,
        directory: TableEntry,
    ) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        let mut edit = self.edit(VirtRange::default(), Need::CLIP)?;
        let range = range.intersect(edit.map.range);
        edit.refuse_submaps(range)?;
        let mut tables = true;
        edit.each(range, |edit, handle| {
            tables &= edit.get(handle).is_page_table();
        });
        if !tables {
            return Err(MapError::InvalidArgument);
        }
        edit.clip_range(range);
        edit.unmap(range);
        edit.each(range, |edit, handle| {
            edit.get_mut(handle).kind = Kind::PageTable(directory).pack();
        });
        edit.simplify(range);
        Ok(())
    }
}

impl<M: Machine> Edit<'_, M> {
    /// Whether part of `range` is a virtual page table, whose pages are not where its addresses
    /// say.
    pub(crate) fn has_table(&mut self, range: VirtRange) -> bool {
        let mut table = false;
        self.each(range, |edit, handle| {
            table |= edit.get(handle).is_page_table();
        });
        table
    }
}
