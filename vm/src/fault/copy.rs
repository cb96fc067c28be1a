//! Copy what a chain shows to an object of its own: for fork, where sharing will not do (W05).

use super::chain::{Chain, Found};
use crate::Vm;
use crate::map::{Behavior, Entry};
use crate::object::ObjectHandle;
use crate::object::limbo::Limbo;
use crate::object::radix::NODES_PER_INSERT;
use crate::page::{Bits, Class};
use crate::space::SpaceError;
use bsdvm_machine::Machine;

/// Which objects of a chain are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those in front of one behind a pager.
    Memory,
    /// Those in front of this one.
    Before(ObjectHandle),
    /// All.
    Whole,
}

impl<M: Machine> Vm<M> {
    /// A new object that shows what a private or shared entry shows now, from `object` on. A file
    /// at its end stays behind the copy of a private one. The new object has one reference and
    /// carries the charge of the entry's pages. No lock is held; nobody writes to the pages
    /// meanwhile.
    pub(crate) fn copy_chain(
        &self,
        entry: &Entry,
        object: ObjectHandle,
    ) -> Result<ObjectHandle, SpaceError> {
        let (offset, pages) = (entry.offset, entry.pages::<M>());
        let charge = pages;
        let mut objects = self.reserve_objects(1)?;
        // Physical memory is copied like any other, and so is a file that is memory where others
        // write to it.
        let file = self.bottom_file(object, offset);
        let file = file.filter(|&(bottom, _)| {
            let state = self.lock_object(bottom);
            !state.is_memory() || (state.file && entry.is_private())
        });
        let reach = match file {
            Some((bottom, _)) => Reach::Before(bottom),
            None => Reach::Memory,
        };
        let copy = match file {
            Some((file, at)) if self.reference(file) => {
                self.shadow(&mut objects, file, at, pages, charge)
            }
            _ => self.new_anonymous(&mut objects, pages, charge),
        };
        let mut at = offset;
        while let Some(index) = self.next_in_chain(object, at, offset + pages, reach) {
            if let Err(e) = self.copy_page(object, index, copy, index - offset) {
                // The charge stays with the caller, who took it.
                self.lock_object(copy).charge = 0;
                self.release(copy, &mut Limbo::new(self));
                return Err(e);
            }
            at = index + 1;
        }
        Ok(copy)
    }

    /// The first index in `[at, end)` of `object` at which an object of the chain, as far as
    /// `reach`, has a page, in memory or on swap.
    pub(crate) fn next_in_chain(
        &self,
        object: ObjectHandle,
        at: u64,
        end: u64,
        reach: Reach,
    ) -> Option<u64> {
        let mut best: Option<u64> = None;
        let mut shift = 0;
        let mut at_object = object;
        let mut state = self.lock_object(object);
        loop {
            if (reach == Reach::Memory && !state.is_memory()) || reach == Reach::Before(at_object) {
                return best;
            }
            if let Some((index, _)) = state.pages.next(&self.page_nodes, at + shift) {
                let index = index - shift;
                if index < end && best.is_none_or(|b| index < b) {
                    best = Some(index);
                }
            }
            let Some(backing) = state.backing else {
                return best;
            };
            shift += backing.offset;
            at_object = backing.object;
            state = self.lock_backing(backing.object);
        }
    }

    /// Copies the page that the chain of `object` shows at `index` to `copy`.
    fn copy_page(
        &self,
        object: ObjectHandle,
        index: u64,
        copy: ObjectHandle,
        to: u64,
    ) -> Result<(), SpaceError> {
        loop {
            let mut nodes = self.reserve_page_nodes(1)?;
            debug_assert!(nodes.left() >= NODES_PER_INSERT);
            let mut limbo = Limbo::new(self);
            let mut chain = Chain::lock(self, object, index);
            let found = chain.walk();
            match found {
                Found::Page(frame) if self.frames.page(frame).is_busy() => {
                    let wait = self.busy_wait(frame);
                    drop(chain);
                    self.wait_busy(wait);
                }
                Found::Page(frame) => {
                    if let Some(new) = self.frames.alloc(Class::Normal) {
                        self.machine().copy(frame, new);
                        self.frames.page(new).set(Bits::DIRTY);
                        let mut state = self.lock_backing(copy);
                        self.insert_page(copy, &mut state, &mut nodes, to, new);
                        return Ok(());
                    }
                    drop(chain);
                    self.reclaim_for_copy()?;
                }
                Found::Swapped(_) => {
                    let job = self.begin_page_in(chain.last(), found, &mut nodes, Behavior::Normal);
                    drop(chain);
                    match job {
                        Some(job) => self
                            .page_in(job, &mut limbo)
                            .map_err(|_| SpaceError::NoMemory)?,
                        None => self.reclaim_for_copy()?,
                    }
                }
                // `next_in_chain` finds pages and slots.
                _ => return Ok(()),
            }
        }
    }

    /// Makes room for a frame.
    fn reclaim_for_copy(&self) -> Result<(), SpaceError> {
        let frame = self.wait_frame(Class::Normal).ok_or(SpaceError::NoMemory)?;
        self.frames.free(frame);
        Ok(())
    }
}
