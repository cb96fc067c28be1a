//! Page-out: frames are taken from pages that were not used lately.
//!
//! One call, [`Vm::pageout_step`], which a test, a faulting thread or a daemon makes; nothing here
//! runs by itself. `mod.rs` is the mechanism: what happens to one page. `policy.rs` says which
//! page is next.
//!
//! ```text
//!  active ──not referenced──> inactive ──not referenced──> unmap, flush
//!     ▲                           │                          │ clean: free
//!     └────────referenced─────────┘                          │ dirty: write to pager or swap, free
//! ```

mod policy;

use crate::Vm;
use crate::object::limbo::Limbo;
use crate::object::radix::Slot;
use crate::object::{Kind, ObjectHandle, ObjectId};
use crate::page::{Bits, Class, Queue, Within};
use crate::pager::PagerError;
use crate::show::{Event, Store};
use bsdvm_machine::{Frame, Machine, Usage};

/// Frames that are freed at a time when one is wanted.
const RECLAIM: u32 = 16;

/// What became of a page that page-out looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Its frame is free.
    Freed,
    /// It was used lately, or cannot go now.
    Kept,
}

/// A page on its way out: busy, unmapped, its object kept by a reference.
struct Leaving {
    frame: Frame,
    object: ObjectHandle,
    index: u64,
    kind: Kind,
    bytes: u64,
}

impl<M: Machine> Vm<M> {
    /// Looks at pages until `want` frames were freed or every page was looked at twice; gives the
    /// number freed (O07). Calls pagers: no lock is held by the caller.
    pub fn pageout_step(&self, want: u32) -> u32 {
        M::assert_none_held();
        let mut freed = 0;
        let mut left = policy::budget(self);
        while freed < want && left > 0 {
            left -= 1;
            let Some(frame) = policy::next(self) else {
                break;
            };
            if self.page_out(frame) == Outcome::Freed {
                freed += 1;
            }
        }
        freed
    }

    /// A free frame, paging out as much as it takes. `None` when nothing can go. No lock is held.
    pub(crate) fn wait_frame(&self, class: Class) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.alloc(class) {
                return Some(frame);
            }
            let zones = || self.kmem().map_or(0, |kmem| kmem.reclaim());
            if self.pageout_step(RECLAIM) == 0 && zones() == 0 {
                return self.frames.alloc(class);
            }
        }
    }

    /// Takes pages out of the frames that lie `within`, for who needs just those; gives the number
    /// freed. The first try leaves what was used lately, the second takes it too, and the third
    /// has low memory announced first (K05).
    pub(crate) fn reclaim_within(&self, within: Within, tries: u32) -> u32 {
        M::assert_none_held();
        if tries > 1
            && let Some(kmem) = self.kmem()
        {
            kmem.low_memory();
            kmem.reclaim();
        }
        let mut freed = 0;
        for _ in 0..=tries.min(1) {
            let frames = self.frames.managed();
            for frame in frames.filter(|f| within.low <= *f && *f <= within.high) {
                freed += u32::from(self.page_out(frame) == Outcome::Freed);
            }
        }
        freed
    }

    /// Takes one page out, if it was not used lately.
    fn page_out(&self, frame: Frame) -> Outcome {
        let mut limbo = Limbo::new(self);
        let Some(leaving) = self.begin_page_out(frame, &mut limbo) else {
            return Outcome::Kept;
        };
        limbo.be_quiet();
        limbo.settle();
        let dirty = self.frames.page(frame).clear(Bits::DIRTY);
        let written = if dirty.is_empty() {
            Ok(None)
        } else {
            self.write_out(&leaving)
        };
        self.end_page_out(leaving, written, &mut limbo)
    }

    /// Makes the page busy and unmaps it. `None` when it is not to go.
    fn begin_page_out(&self, frame: Frame, limbo: &mut Limbo<'_, M>) -> Option<Leaving> {
        let page = self.frames.page(frame);
        let (object, index) = page.identity()?;
        let state = self.lock_object(object);
        // The page may have changed hands before the lock was taken.
        if page.identity() != Some((object, index)) || page.is_busy() || page.wired() > 0 {
            return None;
        }
        self.gather_usage(frame, Usage::REFERENCED, limbo);
        if !page.clear(Bits::REFERENCED).is_empty() {
            self.counters.reactivated.bump();
            self.queues.put(&self.frames, frame, Queue::Active);
            return None;
        }
        if !self.reference(object) {
            return None;
        }
        page.set(Bits::BUSY);
        self.unmap_page(frame, limbo);
        Some(Leaving {
            frame,
            object,
            index,
            kind: state.kind,
            bytes: state.bytes,
        })
    }

    /// Writes a dirty page to where it belongs; gives the swap slot, if it is one. No lock is
    /// held.
    fn write_out(&self, leaving: &Leaving) -> Result<Option<u32>, PagerError> {
        match leaving.kind {
            Kind::Paged(pager) => self
                .put_page(
                    leaving.object,
                    pager,
                    leaving.index,
                    leaving.frame,
                    leaving.bytes,
                )
                .map(|()| None),
            _ => {
                let slot = self.swap.alloc().ok_or(PagerError::NoSpace)?;
                let written = self.swap.write(self.machine(), slot, leaving.frame);
                self.trace(|| Event::PageOut {
                    object: ObjectId(leaving.object),
                    offset: M::PAGE.offset(leaving.index).unwrap_or(u64::MAX),
                    to: Store::Swap,
                    outcome: written,
                });
                match written {
                    Ok(()) => {
                        self.counters.page_out.bump();
                        self.counters.swap_out.bump();
                        Ok(Some(slot))
                    }
                    Err(e) => {
                        self.swap.free(slot);
                        Err(e)
                    }
                }
            }
        }
    }

    /// Takes the page from its object if all went well, and frees it.
    fn end_page_out(
        &self,
        leaving: Leaving,
        written: Result<Option<u32>, PagerError>,
        limbo: &mut Limbo<'_, M>,
    ) -> Outcome {
        let Leaving {
            frame,
            object,
            index,
            ..
        } = leaving;
        let page = self.frames.page(frame);
        let mut state = self.lock_object(object);
        let ours = page.identity() == Some((object, index));
        let mut outcome = Outcome::Kept;
        match written {
            Ok(slot) if ours => {
                match slot {
                    Some(slot) => {
                        state
                            .pages
                            .replace(&self.page_nodes, index, Slot::Swapped(slot));
                    }
                    None => {
                        state.pages.remove(&self.page_nodes, index);
                    }
                }
                self.queues.take(&self.frames, frame);
                page.clear_identity();
                outcome = Outcome::Freed;
            }
            Ok(Some(slot)) => self.swap.free(slot),
            Ok(None) => {}
            Err(_) => {
                page.set(Bits::DIRTY);
                if ours {
                    self.queues.put(&self.frames, frame, Queue::Active);
                }
            }
        }
        if !self.unbusy(frame) {
            limbo.add_frame(frame);
        }
        drop(state);
        self.release(object, limbo);
        limbo.settle();
        outcome
    }
}

#[cfg(test)]
mod tests;
