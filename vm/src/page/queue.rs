//! The page queues: active, inactive, laundry.
//!
//! A page of an object that is not wired is on one of them. The number of its queue is in the
//! page's state and changes, like the links, under the one lock of the queues. Whether a page
//! *should* be on a queue is decided under its object's lock; the queues only keep order.

use super::{Bits, Frames, Page};
use crate::lock::{self, Mutex};
use bsdvm_machine::sync::atomic::Ordering;
use bsdvm_machine::{Frame, Machine};

/// No frame.
const NONE: u32 = u32::MAX;

/// A queue of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Queue {
    /// Pages in use.
    Active = 1,
    /// Pages not used lately: the next to go.
    Inactive = 2,
    /// Dirty pages that are to be written before they can go.
    Laundry = 3,
}

const SHIFT: u32 = 8;

#[derive(Clone, Copy)]
struct Ends {
    head: u32,
    tail: u32,
    count: u64,
}

/// The queues of one VM.
pub(crate) struct Queues<M: Machine> {
    ends: Mutex<M, [Ends; 3], { lock::QUEUES }>,
}

impl<M: Machine> Queues<M> {
    pub(crate) const fn new() -> Self {
        Queues {
            ends: Mutex::new(
                [Ends {
                    head: NONE,
                    tail: NONE,
                    count: 0,
                }; 3],
            ),
        }
    }

    /// Puts a page at the end of `queue`, from wherever it is.
    pub(crate) fn put(&self, frames: &Frames<M>, frame: Frame, queue: Queue) {
        let mut ends = self.ends.lock();
        unlink(&mut ends, frames, frame);
        append(&mut ends, frames, frame, queue);
    }

    /// Takes a page off its queue, if it is on one.
    pub(crate) fn take(&self, frames: &Frames<M>, frame: Frame) {
        unlink(&mut self.ends.lock(), frames, frame);
    }

    /// The page at the head of `queue`. It moves to the tail, so that a scan sees each page in
    /// turn.
    pub(crate) fn rotate(&self, frames: &Frames<M>, queue: Queue) -> Option<Frame> {
        let mut ends = self.ends.lock();
        let head = ends[queue as usize - 1].head;
        let frame = (head != NONE).then_some(Frame(head))?;
        unlink(&mut ends, frames, frame);
        append(&mut ends, frames, frame, queue);
        Some(frame)
    }

    /// Pages on `queue`.
    pub(crate) fn count(&self, queue: Queue) -> u64 {
        self.ends.lock()[queue as usize - 1].count
    }
}

/// The queue that a page is on.
pub(crate) fn queue_of(page: &Page) -> Option<Queue> {
    match (page.bits() & Bits::QUEUE).bits() >> SHIFT {
        1 => Some(Queue::Active),
        2 => Some(Queue::Inactive),
        3 => Some(Queue::Laundry),
        _ => None,
    }
}

fn append<M: Machine>(ends: &mut [Ends; 3], frames: &Frames<M>, frame: Frame, queue: Queue) {
    let page = frames.page(frame);
    let end = &mut ends[queue as usize - 1];
    page.next.store(NONE, Ordering::Relaxed);
    page.prev.store(end.tail, Ordering::Relaxed);
    match end.tail {
        NONE => end.head = frame.0,
        tail => frames
            .page(Frame(tail))
            .next
            .store(frame.0, Ordering::Relaxed),
    }
    end.tail = frame.0;
    end.count += 1;
    page.set(Bits::from_bits_retain((queue as u32) << SHIFT));
}

fn unlink<M: Machine>(ends: &mut [Ends; 3], frames: &Frames<M>, frame: Frame) {
    let page = frames.page(frame);
    let Some(queue) = queue_of(page) else { return };
    let end = &mut ends[queue as usize - 1];
    let next = page.next.load(Ordering::Relaxed);
    let prev = page.prev.load(Ordering::Relaxed);
    match prev {
        NONE => end.head = next,
        prev => frames.page(Frame(prev)).next.store(next, Ordering::Relaxed),
    }
    match next {
        NONE => end.tail = prev,
        next => frames.page(Frame(next)).prev.store(prev, Ordering::Relaxed),
    }
    end.count -= 1;
    page.clear(Bits::QUEUE);
}
