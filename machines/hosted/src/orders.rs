//! Orders: changes of a stub's host mappings, queued in the order in which they were decided.
//!
//! The order matters more than anything here. A "map frame f" that was decided before "unmap f"
//! and carried out after it would show a frame that somebody else owns by then. So there is one
//! queue a space, appended to under the lock that guards the decisions, and emptied from the
//! front by one executor at a time.

use crate::mailbox::{BATCH, Call, Slot};
use crate::stub::GUEST_FD;
use bsdvm_machine::Prot;
use std::collections::VecDeque;
use std::ops::Range;

const SHIFT: u32 = 12;

/// The longest run, in pages, whose page tables the host fills at once. A run that was just
/// entered is about to be used, and filling saves a hardware fault a page.
const POPULATE: u64 = 64;

/// One change. Addresses are page numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Maps `pages` frames from `frame` at `page`, over whatever is there.
    Map {
        page: u64,
        pages: u64,
        frame: u32,
        prot: Prot,
    },
    /// Unmaps `pages` pages.
    Unmap { page: u64, pages: u64 },
    /// Changes the protection of `pages` pages, all of which are mapped.
    Protect { page: u64, pages: u64, prot: Prot },
}

impl Order {
    /// `self` and then `next` as one order, if one can do the work of both.
    pub(crate) fn merged(self, next: Order) -> Option<Order> {
        use Order::*;
        match (self, next) {
            (Map { .. }, Map { .. }) | (Protect { .. }, Protect { .. }) => {
                // Neither touches what the other does: which comes first does not matter.
                self.joined(next).or_else(|| next.joined(self))
            }
            (Unmap { page, pages }, Unmap { page: p, pages: n })
                if p <= page + pages && page <= p + n =>
            {
                let start = page.min(p);
                let end = (page + pages).max(p + n);
                Some(Unmap {
                    page: start,
                    pages: end - start,
                })
            }
            _ => None,
        }
    }

    /// Two orders of one kind as one, where `above` goes on where `self` ends.
    fn joined(self, above: Order) -> Option<Order> {
        use Order::*;
        let (own, its) = (self.pages(), above.pages());
        if own.end != its.start {
            return None;
        }
        let (page, pages) = (own.start, its.end - own.start);
        match (self, above) {
            (
                Map { frame, prot, .. },
                Map {
                    frame: f, prot: q, ..
                },
            ) if q == prot && u64::from(f) == u64::from(frame) + (own.end - own.start) => {
                Some(Map {
                    page,
                    pages,
                    frame,
                    prot,
                })
            }
            (Protect { prot, .. }, Protect { prot: q, .. }) if q == prot => {
                Some(Protect { page, pages, prot })
            }
            _ => None,
        }
    }

    /// The pages that it is about.
    fn pages(&self) -> Range<u64> {
        let (Order::Map { page, pages, .. }
        | Order::Unmap { page, pages }
        | Order::Protect { page, pages, .. }) = *self;
        page..page + pages
    }

    /// Whether nothing is seen of `older` once both have been carried out.
    fn overwrites(&self, older: &Order) -> bool {
        let (new, old) = (self.pages(), older.pages());
        let total = !matches!(self, Order::Protect { .. });
        total && new.start <= old.start && old.end <= new.end
    }

    /// The system call that carries it out. The bits of [`Prot`] are those of `mmap`.
    fn call(self) -> Call {
        match self {
            Order::Map {
                page,
                pages,
                frame,
                prot,
            } => {
                let fill = if pages <= POPULATE {
                    libc::MAP_POPULATE
                } else {
                    0
                };
                let flags = libc::MAP_SHARED | libc::MAP_FIXED | fill;
                let place = u64::from(frame) << SHIFT;
                let prot = u64::from(prot.bits());
                let args = [
                    page << SHIFT,
                    pages << SHIFT,
                    prot,
                    flags as u64,
                    GUEST_FD,
                    place,
                ];
                Call::new(libc::SYS_mmap, args)
            }
            Order::Unmap { page, pages } => Call::new(
                libc::SYS_munmap,
                [page << SHIFT, pages << SHIFT, 0, 0, 0, 0],
            ),
            Order::Protect { page, pages, prot } => {
                let args = [
                    page << SHIFT,
                    pages << SHIFT,
                    u64::from(prot.bits()),
                    0,
                    0,
                    0,
                ];
                Call::new(libc::SYS_mprotect, args)
            }
        }
    }
}

/// The number of an order in the history of its space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Decided(u64);

/// The orders of a space that have been decided and not been given to the stub.
#[derive(Default)]
pub(crate) struct Queue {
    pending: VecDeque<(Decided, Order)>,
    decided: Decided,
    done: Decided,
}

impl Queue {
    /// Appends an order. What waits directly before it and is made void by it goes: a thread that
    /// enters and removes one page all the time does not outrun the executor.
    pub(crate) fn push(&mut self, order: Order) -> Decided {
        while let Some((_, last)) = self.pending.back()
            && order.overwrites(last)
        {
            self.pending.pop_back();
        }
        // Joining the last order is right only if that is the latest decision of all; else its
        // number would stand for this one too early.
        if let Some((number, last)) = self.pending.back_mut()
            && *number == self.decided
            && let Some(both) = last.merged(order)
        {
            *last = both;
        } else {
            self.decided.0 += 1;
            self.pending.push_back((self.decided, order));
        }
        self.close_ranks();
        self.decided
    }

    /// Joins the last order with those before it that it has grown up to. The first of the two
    /// numbers goes: whoever waits for it waits for the second.
    fn close_ranks(&mut self) {
        while let [.., at, last] = self.pending.make_contiguous()
            && let Some(both) = at.1.merged(last.1)
        {
            *at = (last.0, both);
            self.pending.pop_back();
        }
    }

    /// Whether nothing waits to be given to the stub.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The latest decision.
    pub(crate) fn latest(&self) -> Decided {
        self.decided
    }

    /// How many orders wait to be given to the stub.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Moves as many orders as fit into `slot`: how many, and the last one's number.
    pub(crate) fn give(&mut self, slot: &Slot) -> (usize, Decided) {
        let count = self.pending.len().min(BATCH);
        let mut last = self.done;
        for (i, (number, order)) in self.pending.drain(..count).enumerate() {
            slot.put(i, order.call());
            last = number;
        }
        (count, last)
    }

    /// All orders up to `last` have been carried out.
    pub(crate) fn complete(&mut self, last: Decided) {
        self.done = self.done.max(last);
    }

    /// Whether order `which` has been carried out.
    pub(crate) fn is_done(&self, which: Decided) -> bool {
        which <= self.done
    }

    /// Whether some order that waits is about pages from `page` on.
    pub(crate) fn reaches(&self, page: u64) -> bool {
        self.pending
            .iter()
            .any(|(_, order)| order.pages().end > page)
    }

    /// Forgets what waits, in favour of an order that is pushed next and makes it void.
    pub(crate) fn supersede(&mut self) {
        self.pending.clear();
    }

    /// Forgets what waits: no stub is left that could be wrong.
    pub(crate) fn abandon(&mut self) {
        self.pending.clear();
        self.done = self.decided;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(page: u64, pages: u64, frame: u32) -> Order {
        Order::Map {
            page,
            pages,
            frame,
            prot: Prot::RW,
        }
    }

    fn unmap(page: u64, pages: u64) -> Order {
        Order::Unmap { page, pages }
    }

    fn waiting(q: &Queue) -> Vec<Order> {
        q.pending.iter().map(|(_, order)| *order).collect()
    }

    #[test]
    fn neighbours_merge_and_others_do_not() {
        let mut q = Queue::default();
        q.push(map(10, 1, 5));
        q.push(map(11, 2, 6));
        assert_eq!(waiting(&q), [map(10, 3, 5)]);
        q.push(map(13, 1, 9)); // neighbour in address, not in memory
        q.push(unmap(20, 2));
        q.push(unmap(18, 2));
        assert_eq!(waiting(&q), [map(10, 3, 5), map(13, 1, 9), unmap(18, 4)]);
    }

    #[test]
    fn pages_around_one_become_one_order() {
        let mut q = Queue::default();
        let first = q.push(map(18, 1, 8));
        for page in 10..18 {
            q.push(map(page, 1, page as u32 - 10));
        }
        let last = q.push(map(19, 1, 9));
        assert_eq!(waiting(&q), [map(10, 10, 0)]);
        // Both numbers stand for all of it.
        q.complete(first);
        assert!(!q.is_done(last));
        q.push(map(9, 1, 77));
        q.push(map(8, 1, 76));
        assert_eq!(waiting(&q), [map(10, 10, 0), map(8, 2, 76)]);
        // What is unmapped in between keeps its place.
        q.push(unmap(30, 1));
        q.push(map(20, 1, 10));
        assert_eq!(waiting(&q).len(), 4);
    }

    #[test]
    fn an_order_never_passes_an_older_one() {
        let mut q = Queue::default();
        let a = q.push(map(10, 1, 5));
        let b = q.push(unmap(9, 1));
        let c = q.push(map(11, 1, 6)); // could join the first one, must not
        assert!(a < b && b < c);
        assert_eq!(waiting(&q), [map(10, 1, 5), unmap(9, 1), map(11, 1, 6)]);
    }

    #[test]
    fn what_is_made_void_goes_and_its_number_waits_for_the_newer_order() {
        let mut q = Queue::default();
        let a = q.push(map(10, 1, 5));
        let b = q.push(map(20, 1, 7));
        let c = q.push(unmap(20, 1));
        assert!(a < b && b < c);
        assert_eq!(waiting(&q), [map(10, 1, 5), unmap(20, 1)]);
        q.complete(a);
        assert!(q.is_done(a) && !q.is_done(b) && !q.is_done(c));
        // The last number has gone with its order: nothing joins the one before it.
        q.push(unmap(10, 20));
        let d = q.push(map(40, 1, 1));
        let e = q.push(unmap(40, 1));
        assert!(d < e);
        q.push(map(40, 1, 2));
        let f = q.push(unmap(30, 11));
        assert!(e < f);
        assert_eq!(waiting(&q), [unmap(10, 31)]);
    }
}
