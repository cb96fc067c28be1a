//! Read pages in, from a pager or from swap, with nothing locked.
//!
//! The pages are put in the object busy, so that nobody else reads them in and nobody looks at
//! what is not there yet; the object is kept by a reference. Done, they are there for whoever
//! looks next: the fault simply tries again.
//!
//! From a pager come the pages around the one that is wanted. From swap come those that are
//! neighbours in the object and on swap alike, as they went out together: those that follow, or,
//! where what follows is in memory, those before. The ones that nobody asked for are the next to
//! go, and go unwritten.

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

// What is reserved for one page is enough for all that are read in with it: the slots of an aligned
// window of so many lie in one node of an object's index.
const _: () = assert!(64 % CLUSTER == 0);
/// Pages that are read in together where nothing is known of their use.
const WINDOW: u64 = 16;

impl Behavior {
    /// The pages that are best read from a pager with the one at `index`, where they are not there:
    /// those around it, in an aligned window, or those after it.
    fn window(self, index: u64) -> Range<u64> {
        match self {
            Behavior::Normal => {
                let window = index - index % WINDOW;
                window..window + WINDOW
            }
            Behavior::Sequential => index..(index + 1).next_multiple_of(CLUSTER as u64),
            Behavior::Random => index..index + 1,
        }
    }

    /// Pages that are read from swap together, at most.
    fn cluster(self) -> u64 {
        match self {
            Behavior::Normal => WINDOW,
            Behavior::Sequential => CLUSTER as u64,
            Behavior::Random => 1,
        }
    }
}

/// Where the pages come from.
#[derive(Clone, Copy)]
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
    /// The index of the first one.
    index: u64,
    frames: [Frame; CLUSTER],
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

impl Came {
    /// Whether page `i` of `job` has come.
    fn has(self, job: &PageIn, i: usize) -> bool {
        i < self.first || (job.wanted..job.wanted + self.wanted).contains(&i)
    }
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
    /// Puts the page that is wanted in its object, busy, and those that are to come with it and
    /// that frames can be had for. `None` when there is no frame.
    pub(super) fn begin_page_in(
        &self,
        link: &mut Link<'_, M>,
        found: Found,
        nodes: &mut Reservation<'_, M, radix::Node>,
        behavior: Behavior,
    ) -> Option<PageIn> {
        let index = link.index;
        let pages = match found {
            Found::Pager(_) => self.missing(&link.state, behavior.window(index), index),
            Found::Swapped(slot) => self.swapped(&link.state, slot, index, behavior.cluster()),
            _ => return None,
        };
        let (frames, pages) = self.frames_for(pages, index)?;
        let count = (pages.end - pages.start) as usize;
        if !self.reference(link.object) {
            frames[..count].iter().for_each(|&f| self.frames.free(f));
            return None;
        }
        let wanted = (index - pages.start) as usize;
        let source = match found {
            Found::Pager(pager) => Source::Pager(pager),
            Found::Swapped(slot) => Source::Swap(slot - wanted as u32),
            _ => return None,
        };
        for (page, &frame) in pages.clone().zip(&frames) {
            self.frames.page(frame).set(Bits::BUSY);
            self.insert_page(link.object, &mut link.state, nodes, page, frame);
            if let Source::Swap(_) = source {
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
    /// missing too. With little memory left, what is read ahead would push out what is wanted.
    fn missing(&self, state: &ObjectState, window: Range<u64>, index: u64) -> Range<u64> {
        if self.frames.free_count() <= self.frames.total() / 8 + CLUSTER as u64 {
            return index..index + 1;
        }
        let is_missing = |i: &u64| state.pages.get(&self.page_nodes, *i).is_none();
        let end = window.end.min(state.size::<M>());
        let before = (window.start..index).rev().take_while(is_missing).count();
        let after = (index + 1..end).take_while(is_missing).count();
        index - before as u64..index + 1 + after as u64
    }

    /// The pages that are neighbours of the one at `index`, on swap at `slot`, in the object and on
    /// swap: `most` at most, those that follow, or where there are none those before.
    fn swapped(&self, state: &ObjectState, slot: u32, index: u64, most: u64) -> Range<u64> {
        // Page-out makes room for as many at a time.
        let most = most.min(self.frames.spare_count() / 2).max(1);
        let is_there = |index: Option<u64>, slot: Option<u32>| {
            let found = index.and_then(|i| state.pages.get(&self.page_nodes, i));
            found.is_some() && found == slot.map(Slot::Swapped)
        };
        let ahead =
            (1..most).take_while(|&n| is_there(Some(index + n), slot.checked_add(n as u32)));
        let ahead = ahead.count() as u64;
        if ahead > 0 {
            return index..index + 1 + ahead;
        }
        let behind = |&n: &u64| is_there(index.checked_sub(n), slot.checked_sub(n as u32));
        index - (1..most).take_while(behind).count() as u64..index + 1
    }

    /// Frames for `pages`, neighbours if they can be had, or for as many of them from `index` on as
    /// can be had; and for which. `None` when there is none for `index`.
    fn frames_for(&self, pages: Range<u64>, index: u64) -> Option<([Frame; CLUSTER], Range<u64>)> {
        let mut frames = [Frame(0); CLUSTER];
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
        let keep = self.swap.has_plenty();
        self.frames
            .page(job.frames[job.wanted])
            .set(Bits::REFERENCED);
        let mut state = self.lock_object(job.object);
        for (i, &frame) in job.frames().iter().enumerate() {
            let index = job.index + i as u64;
            let page = self.frames.page(frame);
            let ours = page.identity() == Some((job.object, index));
            let slot = job.source.slot(i);
            if ours && !came.has(&job, i) {
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
        let here = (0..job.count).filter(|i| came.has(&job, *i));
        let (first, count) = (here.clone().next().unwrap_or(0), here.count() as u32);
        self.counters.page_in.add(count.into());
        if matches!(job.source, Source::Swap(_)) {
            self.counters.swap_in.add(count.into());
        }
        self.release(job.object, limbo);
        limbo.settle();
        let first = job.index + first as u64;
        self.trace(|| Event::PageIn {
            object: ObjectId(job.object),
            offset: M::PAGE.offset(first).unwrap_or(u64::MAX),
            from: match job.source {
                Source::Swap(_) => Store::Swap,
                Source::Pager(_) => Store::Pager,
            },
            outcome: result.map(|_| count),
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
        let all = read(0..job.count).map(|()| Came {
            first: job.count,
            wanted: 0,
        });
        match all {
            Err(_) if job.count > 1 => {
                let alone = job.wanted..job.wanted + 1;
                read(alone).map(|()| Came {
                    first: 0,
                    wanted: 1,
                })
            }
            done => done,
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
