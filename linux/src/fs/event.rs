//! Event counters: `eventfd`.

use crate::blocking::pipe_channel;
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use bsdvm::Channel;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as abi;

/// The highest number that a counter holds.
const MOST: u64 = u64::MAX - 1;

/// A counter that is read and written as a file.
pub(crate) struct EventCounter<P: Platform> {
    sys: &'static Linux<P>,
    id: u64,
    /// A read takes one instead of all.
    semaphore: bool,
    count: Lock<P, u64, { rank::PIPE }>,
    changes: AtomicU64,
}

impl<P: Platform> EventCounter<P> {
    pub(crate) fn new(sys: &'static Linux<P>, count: u64, semaphore: bool) -> Self {
        EventCounter {
            sys,
            id: sys.next_id(),
            semaphore,
            count: Lock::<P, _, { rank::PIPE }>::new(count),
            changes: AtomicU64::new(1),
        }
    }

    /// Woken when the counter changes.
    pub(crate) fn channel(&self) -> Channel {
        pipe_channel(self.id)
    }

    /// What is in the counter.
    pub(crate) fn count(&self) -> u64 {
        *self.count.lock()
    }

    /// Takes from the counter; `None` when there is nothing in it.
    pub(crate) fn take(&self) -> Option<u64> {
        let taken = {
            let mut count = self.count.lock();
            let taken = if self.semaphore {
                (*count).min(1)
            } else {
                *count
            };
            *count -= taken;
            taken
        };
        (taken > 0).then(|| {
            self.changed();
            taken
        })
    }

    /// Adds to the counter; `None` when that does not fit.
    pub(crate) fn add(&self, number: u64) -> Option<()> {
        {
            let mut count = self.count.lock();
            let sum = count.checked_add(number).filter(|&sum| sum <= MOST)?;
            *count = sum;
        }
        self.changed();
        Some(())
    }

    /// How often it has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// The bits of `poll`.
    pub(crate) fn poll(&self) -> u16 {
        let count = *self.count.lock();
        let mut bits = 0;
        if count > 0 {
            bits |= abi::POLLIN;
        }
        if count < MOST {
            bits |= abi::POLLOUT;
        }
        bits as u16
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.sys.wake(self.channel());
        self.sys.wake_pollers();
    }
}
