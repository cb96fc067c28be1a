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
use crate::pager::{self, PageBytes, Pager, PagerError};
use crate::show::{Event, Store};
use crate::slab::Reservation;
use bsdvm_machine::{Frame, Machine};
use core::ops::Range;

/// Pages that are read in at a time, at most. The slots of an aligned window of so many lie in one
/// node of an object's index: what is reserved for one page is enough for all of them.
const CLUSTER: u64 = pager::CLUSTER as u64;
/// Pages that are read in together where nothing is known of their use.
const WINDOW: u64 = 16;

impl Behavior {
    /// The pages that are best read in with the one at `index`, where they are not there: those
    /// around it, in an aligned window, or those after it.
    fn cluster(self, index: u64) -> Range<u64> {
        match self {
            Behavior::Normal => {
                let window = index - index % WINDOW;
                window..window + WINDOW
            }
            Behavior::Sequential => index..index - index % CLUSTER + CLUSTER,
            Behavior::Random => index..index + 1,
        }
    }

    /// How many pages are best read from swap together.
    fn swapped_in(self) -> u64 {
        match self {
            Behavior::Normal => WINDOW,
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
    /// The slot of page `i` of those that come.
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
    /// The index of the first one.
    index: u64,
    frames: [Frame; CLUSTER as usize],
    count: usize,
    /// Which of them is wanted.
    wanted: usize,
    source: Source,
}

impl PageIn {
    fn frames(&self) -> &[Frame] {
        &self.frames[..self.count]
    }
}

/// Which pages have come: so many from the first, and so many from the one that is wanted.
#[derive(Clone, Copy, Default)]
struct Came {
    first: usize,
    wanted: usize,
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
    /// Puts the page that is wanted in its object, busy, and those around it that the pager has
    /// and that frames can be had for. `None` when there is no frame.
    pub(super) fn begin_page_in(
        &self,
        link: &mut Link<'_, M>,
        found: Found,
        nodes: &mut Reservation<'_, M, radix::Node>,
        behavior: Behavior,
    ) -> Option<PageIn> {
        let index = link.index;
        // With little left, what is read ahead would push out what is wanted.
        let room = self.frames.free_count() > self.frames.total() / 8 + CLUSTER;
        let pages = match found {
            Found::Pager(_) if room => self.missing(&link.state, behavior.cluster(index), index),
            Found::Swapped(slot) => self.beside(&link.state, index, slot, behavior.swapped_in()),
            _ => index..index + 1,
        };
        let (frames, pages) = self.frames_for(pages, index)?;
        let count = (pages.end - pages.start) as usize;
        let wanted = (index - pages.start) as usize;
        let source = match found {
            Found::Pager(pager) => Some(Source::Pager(pager)),
            Found::Swapped(slot) => Some(Source::Swap(slot - wanted as u32)),
            _ => None,
        };
        let source = source.filter(|_| self.reference(link.object));
        let Some(source) = source else {
            frames[..count].iter().for_each(|&f| self.frames.free(f));
            return None;
        };
        for (page, &frame) in pages.clone().zip(&frames) {
            self.frames.page(frame).set(Bits::BUSY);
            self.insert_page(link.object, &mut link.state, nodes, page, frame);
            if matches!(source, Source::Swap(_)) {
                // Those that come together are to go together.
                self.queues.put(&self.frames, frame, Queue::Inactive);
            }
        }
        Some(PageIn {
            object: link.object,
            index: pages.start,
            frames,
            count,
            wanted,
            source,
        })
    }

    /// The pages of `window` that lie without a gap around `index`, which is missing, and are
    /// missing too.
    fn missing(&self, state: &ObjectState, window: Range<u64>, index: u64) -> Range<u64> {
        let is_missing = |i: &u64| state.pages.get(&self.page_nodes, *i).is_none();
        let end = window.end.min(state.size::<M>());
        let before = (window.start..index).rev().take_while(is_missing).count();
        let after = (index + 1..end).take_while(is_missing).count();
        index - before as u64..index + 1 + after as u64
    }

    /// The page at `index`, which is in `slot`, and those that follow it there and in the object, or
    /// else those before it: `most` in all, and no more than page-out makes room for at a time.
    fn beside(&self, state: &ObjectState, index: u64, slot: u32, most: u64) -> Range<u64> {
        let most = most.min(self.frames.spare_count() / 2);
        let is_there = |place: Option<u64>, slot: Option<u32>| {
            let there = place.and_then(|place| state.pages.get(&self.page_nodes, place));
            there.is_some() && there == slot.map(Slot::Swapped)
        };
        let away = || (1..most).zip(1..);
        let after =
            away().take_while(|&(n, m)| is_there(index.checked_add(n), slot.checked_add(m)));
        let after = after.count() as u64;
        if after > 0 {
            return index..index + 1 + after;
        }
        let before =
            away().take_while(|&(n, m)| is_there(index.checked_sub(n), slot.checked_sub(m)));
        index - before.count() as u64..index + 1
    }

    /// Frames for `pages`, neighbours if they can be had, or for as many of them from `index` on as
    /// can be had; and for which. `None` when there is none for `index`.
    fn frames_for(
        &self,
        pages: Range<u64>,
        index: u64,
    ) -> Option<([Frame; CLUSTER as usize], Range<u64>)> {
        let mut frames = [Frame(0); CLUSTER as usize];
        let count = pages.end - pages.start;
        if count > 1
            && count.is_power_of_two()
            && let Some(run) = self.frames.alloc_run(count.ilog2())
        {
            frames
                .iter_mut()
                .zip(run.frames())
                .for_each(|(place, f)| *place = f);
            return Some((frames, pages));
        }
        frames[0] = self.frames.alloc(Class::Normal)?;
        let mut got = 1;
        while got < count
            && let Some(frame) = self.frames.alloc(Class::Normal)
        {
            frames[got as usize] = frame;
            got += 1;
        }
        // The one that is wanted comes first when there are not enough.
        let start = match got == count {
            true => pages.start,
            false => index,
        };
        let end = (start + got).min(pages.end);
        let spare = (end - start) as usize..got as usize;
        frames[spare].iter().for_each(|&f| self.frames.free(f));
        Some((frames, start..end))
    }

    /// Reads the pages in. No lock is held. Those that did not come are taken out again.
    pub(super) fn page_in(&self, job: PageIn, limbo: &mut Limbo<'_, M>) -> Result<(), PagerError> {
        M::assert_none_held();
        let result = match job.source {
            Source::Swap(first) => self.ask_swap(first, &job),
            Source::Pager(pager) => self.ask_pager(pager, &job),
        };
        let came = result.unwrap_or_default();
        let has_come =
            |i: usize| i < came.first || (job.wanted..job.wanted + came.wanted).contains(&i);
        let valid = (0..job.count).filter(|i| has_come(*i)).count();
        let keep = self.swap.has_plenty();
        let wanted = self.frames.page(job.frames[job.wanted]);
        wanted.set(Bits::REFERENCED);
        let mut state = self.lock_object(job.object);
        for (i, &frame) in job.frames().iter().enumerate() {
            let index = job.index + i as u64;
            let page = self.frames.page(frame);
            let ours = page.identity() == Some((job.object, index));
            let slot = job.source.slot(i);
            if ours && !has_come(i) {
                match slot.map(Slot::Swapped) {
                    Some(slot) => state.pages.replace(&self.page_nodes, index, slot),
                    None => _ = state.pages.remove(&self.page_nodes, index),
                }
                self.queues.take(&self.frames, frame);
                page.clear_identity();
            } else if let Some(slot) = slot {
                if ours && keep {
                    self.keep_slot(page, slot);
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
        self.counters.page_in.add(valid as u64);
        if matches!(job.source, Source::Swap(_)) {
            self.counters.swap_in.add(valid as u64);
        }
        self.release(job.object, limbo);
        limbo.settle();
        self.trace(|| Event::PageIn {
            object: ObjectId(job.object),
            offset: M::PAGE.offset(job.index).unwrap_or(u64::MAX),
            from: match job.source {
                Source::Swap(_) => Store::Swap,
                Source::Pager(_) => Store::Pager,
            },
            outcome: result.map(|_| valid as u32),
        });
        result.map(|_| ())
    }

    /// Reads a run of slots. When not all can be read, the one that is wanted is tried alone.
    fn ask_swap(&self, first: u32, job: &PageIn) -> Result<Came, PagerError> {
        let read = |pages: Range<usize>| {
            self.counters.swap_reads.bump();
            let slot = first + pages.start as u32;
            self.swap.read(self.machine(), slot, &job.frames[pages])
        };
        match read(0..job.count) {
            Err(_) if job.count > 1 => read(job.wanted..job.wanted + 1).map(|()| Came {
                first: 0,
                wanted: 1,
            }),
            done => done.map(|()| Came {
                first: job.count,
                wanted: 0,
            }),
        }
    }

    /// Asks the pager for the pages; once more for the one that is wanted, if what it said about
    /// those before it has nothing of it.
    fn ask_pager(&self, pager: Pager, job: &PageIn) -> Result<Came, PagerError> {
        let machine = self.machine();
        job.frames().iter().for_each(|&frame| machine.zero(frame));
        let mut bytes = job.frames.map(|frame| FrameBytes { machine, frame });
        let mut pages = bytes.each_mut().map(|b| b as &mut dyn PageBytes);
        let mut ask = |from: usize| {
            let offset = M::PAGE.offset(job.index + from as u64).unwrap_or(u64::MAX);
            match pager
                .ops
                .get(pager.cookie, offset, &mut pages[from..job.count])
            {
                Ok(0) => Err(PagerError::Io(0)),
                Ok(valid) => Ok(valid.min(job.count - from)),
                Err(e) => Err(e),
            }
        };
        let first = ask(0);
        match first {
            Ok(first) if first > job.wanted => Ok(Came { first, wanted: 0 }),
            _ if job.wanted > 0 => Ok(Came {
                first: first.unwrap_or(0),
                wanted: ask(job.wanted)?,
            }),
            Ok(_) => Err(PagerError::Io(0)),
            Err(e) => Err(e),
        }
    }
}
