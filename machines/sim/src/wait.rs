//! Waiting and waking.
//!
//! Channels share a few buckets, each with a count of wake-ups. A ticket is the count; a sleep
//! lasts while the count stays.
//!
//! Simulated time never makes a test wait. A sleep with a deadline lets other threads run once,
//! then moves the clock forward to the deadline and returns. A sleep without one waits for a real
//! wake-up, and panics after two minutes: a test that hangs says why.

use crate::{Sim, locks, mix};
use bsdvm_machine::{Channel, Host, Ticket, Wait};
use std::sync::atomic::Ordering;

#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(shuttle)]
use shuttle::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(any(shuttle, loom)))]
use std::sync::{Condvar, Mutex, MutexGuard};

/// Loom follows few objects at a time.
const BUCKETS: usize = if cfg!(loom) { 2 } else { 64 };

/// How long a sleep may last before it is taken for a lost wake-up.
#[cfg(not(any(shuttle, loom)))]
const HANG: std::time::Duration = std::time::Duration::from_secs(120);

#[derive(Default)]
struct Bucket {
    wakes: Mutex<u64>,
    woken: Condvar,
}

/// Every bucket of a machine.
pub(crate) struct Buckets {
    buckets: Box<[Bucket]>,
}

impl Default for Buckets {
    fn default() -> Buckets {
        let buckets = (0..BUCKETS).map(|_| Bucket::default()).collect();
        Buckets { buckets }
    }
}

impl Bucket {
    /// The count. A thread that panicked left it whole.
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.wakes.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn wake(&self) {
        *self.lock() += 1;
        self.woken.notify_all();
    }

    fn sleep(&self, ticket: Ticket) {
        let mut wakes = self.lock();
        while *wakes == ticket.0 {
            wakes = self.wait(wakes);
        }
    }

    #[cfg(any(shuttle, loom))]
    fn wait<'a>(&self, wakes: MutexGuard<'a, u64>) -> MutexGuard<'a, u64> {
        let woken = self.woken.wait(wakes);
        woken.unwrap_or_else(|e| e.into_inner())
    }

    #[cfg(not(any(shuttle, loom)))]
    fn wait<'a>(&self, wakes: MutexGuard<'a, u64>) -> MutexGuard<'a, u64> {
        let woken = self.woken.wait_timeout(wakes, HANG);
        let (wakes, timeout) = woken.unwrap_or_else(|e| e.into_inner());
        assert!(!timeout.timed_out(), "nobody woke a sleep for {HANG:?}");
        wakes
    }
}

impl Buckets {
    fn of(&self, channel: Channel) -> &Bucket {
        &self.buckets[mix(channel.0) as usize % BUCKETS]
    }

    pub(crate) fn wake_all(&self) {
        self.buckets.iter().for_each(Bucket::wake);
    }
}

impl<const SHIFT: u32> Wait for Sim<SHIFT> {
    fn ticket(&self, channel: Channel) -> Ticket {
        Ticket(*self.shared.wait.of(channel).lock())
    }

    /// Panics in debug builds when the caller holds a lock of the core.
    fn sleep(&self, channel: Channel, ticket: Ticket, deadline: Option<u64>) {
        locks::assert_none_held();
        let bucket = self.shared.wait.of(channel);
        let Some(deadline) = deadline else {
            return bucket.sleep(ticket);
        };
        if *bucket.lock() == ticket.0 && self.now() < deadline {
            locks::switch_point();
            std::thread::yield_now();
            if *bucket.lock() == ticket.0 {
                self.shared.clock.fetch_max(deadline, Ordering::AcqRel);
            }
        }
    }

    fn wake(&self, channel: Channel) {
        self.shared.wait.of(channel).wake();
    }
}
