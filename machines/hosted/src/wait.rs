//! Waiting and waking: channels hashed into buckets, each with a generation.
//!
//! A wake-up raises the generation of the bucket; a sleeper whose ticket is older does not sleep.
//! Two channels in one bucket cost each other a needless wake-up, never a lost one.

use crate::clock;
use bsdvm_machine::{Channel, Ticket};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const BUCKETS: usize = 256;

#[derive(Default)]
#[repr(align(64))]
struct Bucket {
    generation: AtomicU64,
    /// Sleepers that have looked at the generation or are about to.
    sleepers: AtomicU32,
    lock: Mutex<()>,
    bell: Condvar,
}

/// All channels of a machine.
pub(crate) struct Waiters(Box<[Bucket]>);

impl Waiters {
    /// No sleeper, every generation zero.
    pub(crate) fn new() -> Waiters {
        Waiters((0..BUCKETS).map(|_| Bucket::default()).collect())
    }

    fn bucket(&self, channel: Channel) -> &Bucket {
        let hash = channel.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        &self.0[hash as usize % BUCKETS]
    }

    /// See [`bsdvm_machine::Wait::ticket`].
    pub(crate) fn ticket(&self, channel: Channel) -> Ticket {
        Ticket(self.bucket(channel).generation.load(Ordering::SeqCst))
    }

    /// See [`bsdvm_machine::Wait::sleep`].
    pub(crate) fn sleep(&self, channel: Channel, ticket: Ticket, deadline: Option<u64>) {
        let bucket = self.bucket(channel);
        // Counted before the generation is read, as the waker reads them in the other order:
        // one of the two sees the other.
        bucket.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut guard = bucket.lock.lock();
        while bucket.generation.load(Ordering::SeqCst) == ticket.0 {
            match deadline {
                None => bucket.bell.wait(&mut guard),
                Some(at) => {
                    let left = at.saturating_sub(clock::now());
                    if left == 0 {
                        break;
                    }
                    bucket.bell.wait_for(&mut guard, Duration::from_nanos(left));
                }
            }
        }
        drop(guard);
        bucket.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// See [`bsdvm_machine::Wait::wake`].
    pub(crate) fn wake(&self, channel: Channel) {
        let bucket = self.bucket(channel);
        bucket.generation.fetch_add(1, Ordering::SeqCst);
        if bucket.sleepers.load(Ordering::SeqCst) != 0 {
            // With the lock: a sleeper that read the old generation is in its wait by now.
            drop(bucket.lock.lock());
            bucket.bell.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_wake_up_before_the_sleep_ends_it() {
        let w = Waiters::new();
        let t = w.ticket(Channel(7));
        w.wake(Channel(7));
        w.sleep(Channel(7), t, None);
    }

    #[test]
    fn a_deadline_ends_a_sleep() {
        let w = Waiters::new();
        let t = w.ticket(Channel(7));
        let start = clock::now();
        w.sleep(Channel(7), t, Some(start + 1_000_000));
        assert!(clock::now() >= start + 1_000_000);
    }

    #[test]
    fn two_threads_alternate_without_a_lost_wake_up() {
        let (w, turn) = (Waiters::new(), AtomicBool::new(false));
        let player = |mine: bool| {
            for _ in 0..2_000 {
                loop {
                    let t = w.ticket(Channel(1));
                    if turn.load(Ordering::SeqCst) == mine {
                        break;
                    }
                    w.sleep(Channel(1), t, None);
                }
                turn.store(!mine, Ordering::SeqCst);
                w.wake(Channel(1));
            }
        };
        std::thread::scope(|s| {
            s.spawn(|| player(true));
            player(false);
        });
    }
}
