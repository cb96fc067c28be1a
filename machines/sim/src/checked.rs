//! Locks for the checkers: flags that a waiting thread spins on.
//!
//! Under shuttle the flag is an atomic of the checker. Loom's atomics cannot be made in a constant,
//! as the seam asks of a lock; there the flag is an ordinary atomic, and each access to one is
//! preceded by an access to one atomic of loom that all locks share. So loom sees a switch point
//! and an order at each; it takes every two lock operations for ordered, whichever locks they are
//! on, and does not see a race that only two different locks would leave.

#![allow(unsafe_code)]

#[cfg(shuttle)]
use bsdvm_machine::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;

#[cfg(loom)]
use core::sync::atomic::AtomicU32;

#[cfg(loom)]
use loom::thread::yield_now;
#[cfg(shuttle)]
use shuttle::thread::yield_now;

#[cfg(shuttle)]
mod word {
    use super::AtomicU32;

    pub(super) struct Word(AtomicU32);

    impl Word {
        pub(super) const ZERO: Word = Word(AtomicU32::new(0));

        pub(super) fn get(&self) -> &AtomicU32 {
            &self.0
        }
    }
}

#[cfg(loom)]
mod word {
    use bsdvm_machine::sync::atomic::AtomicUsize;
    use core::sync::atomic::{AtomicU32, Ordering};

    loom::lazy_static! {
        static ref TURN: AtomicUsize = AtomicUsize::new(0);
    }

    pub(super) struct Word(AtomicU32);

    impl Word {
        pub(super) const ZERO: Word = Word(AtomicU32::new(0));

        pub(super) fn get(&self) -> &AtomicU32 {
            TURN.fetch_add(1, Ordering::AcqRel);
            &self.0
        }
    }
}

/// Lets another thread run. Outside of a checker's run (a destructor of the test, say) nothing
/// else runs either.
pub(crate) fn switch_point() {
    if !std::thread::panicking() {
        yield_now();
    }
}

/// State of a lock that one writer holds; below it, the number of readers.
const WRITER: u32 = 1 << 31;

fn try_write(state: &AtomicU32) -> bool {
    state
        .compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed)
        .is_ok()
}

fn try_read(state: &AtomicU32) -> bool {
    state
        .fetch_update(Ordering::Acquire, Ordering::Relaxed, |now| {
            (now & WRITER == 0).then_some(now + 1)
        })
        .is_ok()
}

/// A mutex that a waiting thread spins on.
pub struct RawMutex(word::Word);

// SAFETY: the state goes from 0 to WRITER by one compare-and-exchange, and back only by the
// holder's unlock, so there is one holder at a time.
unsafe impl lock_api::RawMutex for RawMutex {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: RawMutex = RawMutex(word::Word::ZERO);
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        try_write(self.0.get())
    }

    unsafe fn unlock(&self) {
        self.0.get().store(0, Ordering::Release);
    }

    fn is_locked(&self) -> bool {
        self.0.get().load(Ordering::Relaxed) != 0
    }
}

/// A readers-writer lock that a waiting thread spins on.
pub struct RawRwLock(word::Word);

// SAFETY: a writer goes from 0 to WRITER, a reader adds one to a state without WRITER, each by one
// compare-and-exchange; so a writer is alone, and only holders undo their part.
unsafe impl lock_api::RawRwLock for RawRwLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: RawRwLock = RawRwLock(word::Word::ZERO);
    type GuardMarker = lock_api::GuardNoSend;

    fn lock_shared(&self) {
        while !self.try_lock_shared() {
            yield_now();
        }
    }

    fn try_lock_shared(&self) -> bool {
        try_read(self.0.get())
    }

    unsafe fn unlock_shared(&self) {
        self.0.get().fetch_sub(1, Ordering::Release);
    }

    fn lock_exclusive(&self) {
        while !self.try_lock_exclusive() {
            yield_now();
        }
    }

    fn try_lock_exclusive(&self) -> bool {
        try_write(self.0.get())
    }

    unsafe fn unlock_exclusive(&self) {
        self.0.get().store(0, Ordering::Release);
    }
}
