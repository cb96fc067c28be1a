//! The walk through a virtual page table (M18), under the map's read lock. The format is in
//! `map/page_table.rs`.

use super::chain::{Chain, Found};
use super::{Fault, FaultError, Next};
use crate::map::{Behavior, Entry, LEVELS, TableEntry};
use crate::object::ObjectHandle;
use crate::page::Bits;
use bsdvm_machine::{Access, Frame, Machine};

/// Bytes of an entry.
const ENTRY: u64 = size_of::<TableEntry>() as u64;

/// Where a walk ended.
pub(super) enum Walked {
    /// At this page of the object.
    Page(u64),
    /// At something that the loop has to see to first.
    Wait(Next),
}

impl<M: Machine> Fault<'_, '_, M> {
    /// The page of `object` that the tables of an entry show at the fault's address.
    ///
    /// Errors: [`FaultError::InvalidAddress`] where an entry is not valid,
    /// [`FaultError::Protection`] where one does not allow a store, [`FaultError::BeyondEnd`] for
    /// a table beyond the end of the object.
    pub(super) fn walk_table(
        &mut self,
        entry: &Entry,
        object: ObjectHandle,
        directory: TableEntry,
    ) -> Result<Walked, FaultError> {
        let bits = (M::PAGE.bytes() / ENTRY).ilog2();
        let number = entry.index_of::<M>(self.va);
        let mut at = directory;
        let mut left = LEVELS * bits;
        loop {
            self.allows(at)?;
            let page = M::PAGE.index(at.offset());
            if left == 0 || at.contains(TableEntry::LARGE) {
                return Ok(Walked::Page(page + (number & ((1 << left) - 1))));
            }
            left -= bits;
            let slot = (number >> left) & ((1 << bits) - 1);
            at = match self.visit_table(object, page, slot, left)? {
                Ok(entry) => entry,
                Err(next) => return Ok(Walked::Wait(next)),
            };
        }
    }

    fn allows(&self, entry: TableEntry) -> Result<(), FaultError> {
        if !entry.contains(TableEntry::VALID) {
            return Err(FaultError::InvalidAddress);
        }
        if self.access == Access::Write && !entry.contains(TableEntry::WRITABLE) {
            return Err(FaultError::Protection);
        }
        Ok(())
    }

    /// Entry `slot` of the table at `page`, or what the loop has to do to get the table in. It is
    /// read under the lock of the object: without it the table could be paged out meanwhile.
    fn visit_table(
        &mut self,
        object: ObjectHandle,
        page: u64,
        slot: u64,
        left: u32,
    ) -> Result<Result<TableEntry, Next>, FaultError> {
        let vm = self.space.vm;
        let mut chain = Chain::lock(vm, object, page);
        Ok(match chain.walk() {
            Found::Page(frame) if vm.frames.page(frame).is_busy() => {
                Err(Next::WaitBusy(vm.busy_wait(frame)))
            }
            // The object's own: the bits of entries are written to it.
            Found::Page(frame) if !chain.is_behind() => Ok(self.visit_entry(frame, slot, left)?),
            found @ (Found::Swapped(_) | Found::Pager(_)) => {
                let behavior = Behavior::Random;
                let job = vm.begin_page_in(chain.last(), found, &mut self.nodes, behavior);
                Err(job.map_or(Next::NoFrame, Next::PageIn))
            }
            Found::BeyondEnd => return Err(FaultError::BeyondEnd),
            // A page that nobody has written is a table of entries that are not valid.
            _ => return Err(FaultError::InvalidAddress),
        })
    }

    /// Reads entry `slot` of a table and sets its bits, if it is valid and allows the access.
    fn visit_entry(&self, frame: Frame, slot: u64, left: u32) -> Result<TableEntry, FaultError> {
        let vm = self.space.vm;
        let machine = vm.machine();
        let low_at = (slot * ENTRY) as usize;
        let high_at = low_at + 4;
        loop {
            let high = machine.load_u32(frame, high_at);
            let low = machine.load_u32(frame, low_at);
            if machine.load_u32(frame, high_at) != high {
                // Its user is changing it.
                continue;
            }
            let bits = u64::from(high) << 32 | u64::from(low);
            let entry = TableEntry::from_bits_retain(bits);
            self.allows(entry)?;
            let mut seen = entry | TableEntry::ACCESSED;
            let last = left == 0 || entry.contains(TableEntry::LARGE);
            if last && self.access == Access::Write {
                seen |= TableEntry::MODIFIED;
            }
            if seen == entry {
                return Ok(seen);
            }
            let new = seen.bits() as u32;
            if machine
                .compare_exchange_u32(frame, low_at, low, new)
                .is_ok()
            {
                vm.frames.page(frame).set(Bits::DIRTY | Bits::REFERENCED);
                return Ok(seen);
            }
        }
    }
}
