//! Reservation: how many pages have been promised, and the limit.
//!
//! A promise is carried by an entry until it has an object of its own, and by that object from
//! then on. The limit is infinite until a caller sets one.

use bsdvm_machine::sync::atomic::{AtomicU64, Ordering};

/// The limit on promises was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LimitReached;

/// Pages promised by one VM.
pub(crate) struct Charge {
    pages: AtomicU64,
    limit: AtomicU64,
}

impl Charge {
    pub(crate) const fn new() -> Charge {
        Charge {
            pages: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
        }
    }

    /// Promises `pages` more, or nothing.
    pub(crate) fn take(&self, pages: u64) -> Result<(), LimitReached> {
        let limit = self.limit.load(Ordering::Relaxed);
        self.pages
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                n.checked_add(pages).filter(|&n| n <= limit)
            })
            .map(|_| ())
            .map_err(|_| LimitReached)
    }

    /// Promises `pages` more whatever the limit: for what moves from one carrier to another and
    /// is found to be less than what the other has to carry.
    pub(crate) fn force(&self, pages: u64) {
        self.pages.fetch_add(pages, Ordering::Relaxed);
    }

    /// Takes a promise of `pages` back.
    pub(crate) fn refund(&self, pages: u64) {
        let before = self.pages.fetch_sub(pages, Ordering::Relaxed);
        debug_assert!(before >= pages, "refunded more than was charged");
    }

    /// Pages promised now.
    pub(crate) fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Sets how many pages may be promised.
    pub(crate) fn set_limit(&self, pages: u64) {
        self.limit.store(pages, Ordering::Relaxed);
    }
}
