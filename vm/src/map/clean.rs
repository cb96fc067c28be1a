//! Clean (M11): write the dirty pages of files.

use super::MapError;
use super::edit::covers;
use crate::object::ObjectHandle;
use crate::object::io::Clean;
use crate::object::limbo::Limbo;
use crate::show::Verb;
use crate::space::Space;
use bsdvm_machine::{Machine, VirtAddr, VirtRange};

/// Part of an object that an entry shows.
struct Part {
    object: ObjectHandle,
    first: u64,
    pages: u64,
    next: VirtAddr,
}

impl<M: Machine> Space<'_, M> {
    /// Writes the dirty pages of the files behind `range`, a range of whole pages without a hole,
    /// and waits until they are written (M11). With `invalidate` clean pages are dropped, too.
    /// Private copies are not written.
    ///
    /// Errors: [`MapError::Hole`], [`MapError::Submap`] and [`MapError::InvalidAddress`], with nothing
    /// written;
    /// [`MapError::Pager`] for the first page that could not be written, which stays dirty.
    pub fn clean(self, range: VirtRange, invalidate: bool) -> Result<(), MapError> {
        let done = self.clean_quietly(range, invalidate);
        self.trace_change(Verb::Clean, range, &done);
        done
    }

    fn clean_quietly(self, range: VirtRange, invalidate: bool) -> Result<(), MapError> {
        if !M::PAGE.is_aligned_range(range) {
            return Err(MapError::InvalidAddress);
        }
        if !covers(self.vm, &self.rec().map.read(), range) {
            return Err(MapError::Hole);
        }
        if self.has_submap(range) {
            return Err(MapError::Submap);
        }
        let mut at = range.start();
        while at < range.end() {
            let part = match self.part(at, range.end()) {
                Ok(part) => part,
                Err(Some(next)) => {
                    at = next;
                    continue;
                }
                Err(None) => return Ok(()),
            };
            let mut limbo = Limbo::new(self.vm);
            let result =
                self.vm
                    .clean_pages(part.object, part.first, part.first + part.pages, Clean::All);
            if result.is_ok() && invalidate {
                self.vm
                    .drop_clean_pages(part.object, part.first, part.first + part.pages);
            }
            self.vm.release(part.object, &mut limbo);
            result.map_err(MapError::Pager)?;
            at = part.next;
        }
        Ok(())
    }

    /// The part of a file that the entry at `at` shows, with a reference to it. `Err` with where
    /// to go on when the entry shows no file, or nothing is left.
    fn part(self, at: VirtAddr, end: VirtAddr) -> Result<Part, Option<VirtAddr>> {
        let map = self.rec().map.read();
        let handle = map.find_at_or_above(self.vm, at).ok_or(None)?;
        let entry = map.get(self.vm, handle);
        let start = at.max(entry.start);
        let next = entry.end;
        if start >= end {
            return Err(None);
        }
        // What a table shows is cleaned where it is mapped itself.
        let object = entry.object.filter(|_| !entry.is_page_table());
        let object = object.ok_or(Some(next))?;
        let (object, first) = self
            .vm
            .bottom_file(object, entry.index_of::<M>(start))
            .ok_or(Some(next))?;
        if !self.vm.reference(object) {
            return Err(Some(next));
        }
        Ok(Part {
            object,
            first,
            pages: M::PAGE.index(next.min(end).bytes_above(start)),
            next,
        })
    }
}
