//! Locks: flags that a processor spins on.
//!
//! With one processor, threads that give way only where they hold no lock, and no interrupts in
//! the kernel, a lock that is taken twice can never become free: to spin would be to hang, so it
//! is said instead.

use crate::machine::Bare;
use bsdvm_machine::Locks;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use lock_api::{GuardNoSend, RawMutex, RawRwLock};

/// A lock of the kernel itself, without a rank.
pub(crate) type SpinLock<T> = lock_api::Mutex<Flag, T>;

/// A lock for one writer or many readers: the number of readers, or [`WRITER`].
pub(crate) struct Flag(AtomicU32);

/// One writer, and nobody else.
const WRITER: u32 = u32::MAX;

/// How many locks of any kind are held: where it is 0, anything may be called.
pub(crate) static HELD_LOCKS: AtomicUsize = AtomicUsize::new(0);

fn count(taken: bool) -> bool {
    HELD_LOCKS.fetch_add(usize::from(taken), Ordering::Relaxed);
    taken
}

impl Flag {
    fn try_read(&self) -> bool {
        let more = |n| (n < WRITER - 1).then_some(n + 1);
        let done = self
            .0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, more);
        count(done.is_ok())
    }

    fn try_write(&self) -> bool {
        let done = self
            .0
            .compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed);
        count(done.is_ok())
    }
}

// SAFETY: a compare-exchange lets one holder in.
unsafe impl RawMutex for Flag {
    #[allow(clippy::declare_interior_mutable_const, reason = "the trait's way")]
    const INIT: Flag = Flag(AtomicU32::new(0));
    type GuardMarker = GuardNoSend;

    #[track_caller]
    fn lock(&self) {
        assert!(self.try_write(), "a lock is taken by a thread that waits");
    }

    fn try_lock(&self) -> bool {
        self.try_write()
    }

    unsafe fn unlock(&self) {
        HELD_LOCKS.fetch_sub(1, Ordering::Relaxed);
        self.0.store(0, Ordering::Release);
    }

    fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}

// SAFETY: the count lets in readers or one writer.
unsafe impl RawRwLock for Flag {
    #[allow(clippy::declare_interior_mutable_const, reason = "the trait's way")]
    const INIT: Flag = Flag(AtomicU32::new(0));
    type GuardMarker = GuardNoSend;

    #[track_caller]
    fn lock_shared(&self) {
        assert!(self.try_read(), "a lock is taken by a thread that waits");
    }

    fn try_lock_shared(&self) -> bool {
        self.try_read()
    }

    unsafe fn unlock_shared(&self) {
        HELD_LOCKS.fetch_sub(1, Ordering::Relaxed);
        self.0.fetch_sub(1, Ordering::Release);
    }

    #[track_caller]
    fn lock_exclusive(&self) {
        assert!(self.try_write(), "a lock is taken by a thread that waits");
    }

    fn try_lock_exclusive(&self) -> bool {
        self.try_write()
    }

    unsafe fn unlock_exclusive(&self) {
        HELD_LOCKS.fetch_sub(1, Ordering::Relaxed);
        self.0.store(0, Ordering::Release);
    }
}

/// The ranks that are held, and how many. One record serves every thread, since none gives way
/// while it holds a lock.
struct Held {
    ranks: [AtomicU32; 16],
    count: AtomicUsize,
}

static HELD: Held = Held {
    ranks: [const { AtomicU32::new(0) }; 16],
    count: AtomicUsize::new(0),
};

impl Held {
    fn push(&self, rank: u8) {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        self.ranks[n].store(u32::from(rank), Ordering::Relaxed);
    }

    fn top(&self) -> Option<u32> {
        let n = self.count.load(Ordering::Relaxed);
        self.ranks[..n]
            .iter()
            .map(|r| r.load(Ordering::Relaxed))
            .max()
    }

    fn pop(&self, rank: u8) {
        let n = self.count.load(Ordering::Relaxed);
        let held = |r: &AtomicU32| r.load(Ordering::Relaxed) == u32::from(rank);
        let Some(at) = self.ranks[..n].iter().rposition(held) else {
            panic!("a lock of rank {rank} is let go of and was not held");
        };
        for i in at..n - 1 {
            let next = self.ranks[i + 1].load(Ordering::Relaxed);
            self.ranks[i].store(next, Ordering::Relaxed);
        }
        self.count.store(n - 1, Ordering::Relaxed);
    }
}

impl Locks for Bare {
    type RawMutex = Flag;
    type RawRwLock = Flag;

    fn acquired(rank: u8, nested: bool) {
        if let Some(top) = HELD.top() {
            let good = top < u32::from(rank) || (nested && top == u32::from(rank));
            assert!(good, "lock of rank {rank} taken while {top} is held");
        }
        HELD.push(rank);
    }

    fn tried(rank: u8) {
        HELD.push(rank);
    }

    fn released(rank: u8) {
        HELD.pop(rank);
    }

    #[track_caller]
    fn assert_none_held() {
        if let Some(top) = HELD.top() {
            panic!("a lock of rank {top} is held over a wait");
        }
    }
}
