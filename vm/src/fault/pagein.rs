//! Read pages in, from a pager or from swap, with nothing locked.
//!
//! The pages are put in the object busy, so that nobody else reads them in and nobody looks at
//! what is not there yet; the object is kept by a reference. Done, they are there for whoever
//! looks next: the fault simply tries again.
//!
//! From swap come the pages that are neighbours in the object and on swap alike, as they went out
//! together: those that follow, or, where what follows is in memory, those before. The ones that
//! nobody asked for are the next to go, and go unwritten.

use super::chain::{Found, Link};
use crate::Vm;
use crate::map::Behavior;
use crate::object::limbo::Limbo;
use crate::object::radix::{self, Slot};
use crate::object::{ObjectHandle, ObjectId, ObjectState};
use crate::page::{Bits, Class, Queue};
use crate::pager::{CLUSTER, PageBytes, Pager, PagerError};
use crate::show::{Event, Store};
use crate::slab::Reservation;
use bsdvm_machine::{Frame, Machine};
use core::ops::Range;

impl Behavior {
    /// Pages that are read in together.
    fn cluster(self) -> usize {
        match self {
            Behavior::Normal => CLUSTER / 2,
            Behavior::Sequential => CLUSTER,
            Behavior::Random => 1,
        }
    }
}

/// Where the pages come from.
enum Source {
    Pager(Pager),
    /// From this slot on.
    Swap(u32),
}

impl Source {
    /// The slot of the page `i` of those that come.
    fn slot(&self, i: usize) -> Option<u32> {
        match self {
            Source::Swap(first) => Some(first + i as u32),
            Source::Pager(_) => None,
        }
    }
}

/// Pages about to be read in: busy, in their object.
pub(crate) struct PageIn {
    object: ObjectHandle,
    index: u64,
    frames: [Frame; CLUSTER],
    count: usize,
    /// Which of them is wanted: the first, but where pages before it come along.
    wanted: usize,
    source: Source,
}

/// The bytes of a frame, for a pager.
pub(crate) struct FrameBytes<'v, M: Machine> {
    pub(crate) machine: &'v M,
    pub(crate) frame: Frame,
}

impl<M: Machine> PageBytes for FrameBytes<'_, M> {
    fn len(&self) -> usize {
        M::PAGE.len()
    }

    fn read(&self, offset: usize, buf: &mut [u8]) {
        self.machine.read(self.frame, offset, buf);
    }

    fn write(&mut self, offset: usize, buf: &[u8]) {
        self.machine.write(self.frame, offset, buf);
    }
}

impl<M: Machine> Vm<M> {
    /// Puts the page that is wanted in its object, busy, and those after it that the pager has
    /// and that records and frames can be had for. `None` when there is no frame.
    pub(super) fn begin_page_in(
        &self,
        link: &mut Link<'_, M>,
        found: Found,
        nodes: &mut Reservation<'_, M, radix::Node>,
        behavior: Behavior,
    ) -> Option<PageIn> {
        let source = match found {
            Found::Pager(pager) => Source::Pager(pager),
            Found::Swapped(slot) => Source::Swap(slot),
            _ => return None,
        };
        let (object, index) = (link.object, link.index);
        let first = self.frames.alloc(Class::Normal)?;
        if !self.reference(object) {
            self.frames.free(first);
            return None;
        }
        self.insert_busy(object, &mut link.state, nodes, index, first);
        if matches!(source, Source::Swap(_)) {
            // Those that come together are to go together.
            self.queues.put(&self.frames, first, Queue::Inactive);
        }
        let mut job = PageIn {
            object,
            index,
            frames: [first; CLUSTER],
            count: 1,
            wanted: 0,
            source,
        };
        let most = behavior.cluster();
        match job.source {
            Source::Pager(_) => {
                // With little left, what is read ahead would push out what is wanted.
                if self.frames.free_count() > self.frames.total() / 8 {
                    self.read_ahead(&mut job, &mut link.state, most);
                }
            }
            Source::Swap(_) => {
                // Page-out makes room for as many at a time.
                let spare = self.frames.spare_count() / 2;
                let most = most.min(usize::try_from(spare).unwrap_or(most));
                self.read_ahead(&mut job, &mut link.state, most);
                if job.count == 1 {
                    self.read_behind(&mut job, &mut link.state, most);
                }
            }
        }
        Some(job)
    }

    fn insert_busy(
        &self,
        object: ObjectHandle,
        state: &mut ObjectState,
        nodes: &mut Reservation<'_, M, radix::Node>,
        index: u64,
        frame: Frame,
    ) {
        self.frames.page(frame).set(Bits::BUSY);
        self.insert_page(object, state, nodes, index, frame);
    }

    fn read_ahead(&self, job: &mut PageIn, state: &mut ObjectState, most: usize) {
        let size = state.size::<M>();
        while job.count < most {
            let index = job.index + job.count as u64;
            let there = state.pages.get(&self.page_nodes, index);
            if index >= size || there != job.source.slot(job.count).map(Slot::Swapped) {
                return;
            }
            let Ok(mut nodes) = self.reserve_page_nodes(1) else {
                return;
            };
            let Some(frame) = self.frames.alloc(Class::Normal) else {
                return;
            };
            self.insert_busy(job.object, state, &mut nodes, index, frame);
            if there.is_some() {
                self.queues.put(&self.frames, frame, Queue::Inactive);
            }
            job.frames[job.count] = frame;
            job.count += 1;
        }
    }

    /// Takes along the pages on swap before the one that is wanted: whoever goes backwards wants
    /// them next.
    fn read_behind(&self, job: &mut PageIn, state: &mut ObjectState, most: usize) {
        while job.count < most
            && let Source::Swap(first) = job.source
            && let (Some(index), Some(slot)) = (job.index.checked_sub(1), first.checked_sub(1))
            && state.pages.get(&self.page_nodes, index) == Some(Slot::Swapped(slot))
            && let Ok(mut nodes) = self.reserve_page_nodes(0)
            && let Some(frame) = self.frames.alloc(Class::Normal)
        {
            self.insert_busy(job.object, state, &mut nodes, index, frame);
            self.queues.put(&self.frames, frame, Queue::Inactive);
            job.frames.copy_within(..job.count, 1);
            job.frames[0] = frame;
            job.source = Source::Swap(slot);
            job.index = index;
            job.count += 1;
            job.wanted += 1;
        }
    }

    /// Reads the pages in. No lock is held. Those that did not come are taken out again.
    pub(super) fn page_in(&self, job: PageIn, limbo: &mut Limbo<'_, M>) -> Result<(), PagerError> {
        M::assert_none_held();
        let result = match job.source {
            Source::Swap(first) => self.ask_swap(first, &job),
            Source::Pager(pager) => self.ask_pager(pager, &job).map(|count| 0..count),
        };
        let came = result.clone().unwrap_or(0..0);
        let keep = self.swap.has_plenty();
        self.frames
            .page(job.frames[job.wanted])
            .set(Bits::REFERENCED);
        let mut state = self.lock_object(job.object);
        for (i, &frame) in job.frames[..job.count].iter().enumerate() {
            let index = job.index + i as u64;
            let page = self.frames.page(frame);
            let ours = page.identity() == Some((job.object, index));
            let slot = job.source.slot(i);
            if ours && !came.contains(&i) {
                match slot {
                    Some(slot) => {
                        let back = Slot::Swapped(slot);
                        state.pages.replace(&self.page_nodes, index, back);
                    }
                    None => _ = state.pages.remove(&self.page_nodes, index),
                }
                self.queues.take(&self.frames, frame);
                page.clear_identity();
            } else if let Some(slot) = slot {
                if ours && keep {
                    page.keep_swap_slot(slot);
                } else {
                    page.set(Bits::DIRTY);
                    limbo.add_slot(slot);
                }
            }
            if !self.unbusy(frame) {
                limbo.add_frame(frame);
            }
        }
        drop(state);
        let count = came.len().min(job.count) as u32;
        self.counters.page_in.add(count.into());
        if matches!(job.source, Source::Swap(_)) {
            self.counters.swap_in.add(count.into());
        }
        self.release(job.object, limbo);
        limbo.settle();
        let first = job.index + came.start as u64;
        self.trace(|| Event::PageIn {
            object: ObjectId(job.object),
            offset: M::PAGE.offset(first).unwrap_or(u64::MAX),
            from: match job.source {
                Source::Swap(_) => Store::Swap,
                Source::Pager(_) => Store::Pager,
            },
            outcome: result.as_ref().map(|_| count).map_err(|e| *e),
        });
        result.map(|_| ())
    }

    /// Reads a run of slots; gives which pages came. When not all can be read, the one that is
    /// wanted is tried alone.
    fn ask_swap(&self, first: u32, job: &PageIn) -> Result<Range<usize>, PagerError> {
        let read = |pages: Range<usize>| {
            self.counters.swap_reads.bump();
            let slot = first + pages.start as u32;
            let frames = &job.frames[pages.clone()];
            let done = self.swap.read(self.machine(), slot, frames);
            done.map(|()| pages)
        };
        match read(0..job.count) {
            Err(_) if job.count > 1 => read(job.wanted..job.wanted + 1),
            done => done,
        }
    }

    fn ask_pager(&self, pager: Pager, job: &PageIn) -> Result<usize, PagerError> {
        let machine = self.machine();
        for &frame in &job.frames[..job.count] {
            machine.zero(frame);
        }
        let mut bytes = job.frames.map(|frame| FrameBytes { machine, frame });
        let mut pages = bytes.each_mut().map(|b| b as &mut dyn PageBytes);
        let offset = M::PAGE.offset(job.index).unwrap_or(u64::MAX);
        match pager.ops.get(pager.cookie, offset, &mut pages[..job.count]) {
            Ok(0) => Err(PagerError::Io(0)),
            other => other,
        }
    }
}
