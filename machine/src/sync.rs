//! Locks with ranks, atomics, waiting and waking.
//!
//! This is the one door to everything that several threads touch. Under `--cfg loom` and
//! `--cfg shuttle` the atomics come from those checkers, and the locks of a machine under test
//! yield to them.
//!
//! # Ranks
//!
//! [`Mutex`] and [`RwLock`] carry their rank in the type. A thread takes locks in ascending rank;
//! debug builds assert it through [`Locks::acquired`] and [`Locks::released`]. Locks of the same
//! rank are taken together only by [`Mutex::lock_nested`], whose caller names the order.

#[cfg(loom)]
mod late;

use core::ops::{Deref, DerefMut};

/// Atomics, from `core` or from the checker in use.
pub mod atomic {
    #[cfg(loom)]
    pub use super::late::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
    pub use core::sync::atomic::Ordering;
    #[cfg(not(any(loom, shuttle)))]
    pub use core::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    };
    #[cfg(shuttle)]
    pub use shuttle::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    };
}

/// The locks of a machine, and the place where debug builds keep the ranks that a thread holds.
pub trait Locks {
    /// A lock for one.
    type RawMutex: lock_api::RawMutex + Send + Sync + 'static;
    /// A lock for one writer or many readers.
    type RawRwLock: lock_api::RawRwLock + Send + Sync + 'static;

    /// The calling thread took a lock of `rank`. `nested` says that it may hold one of the same
    /// rank. Debug builds call it; a machine that keeps a per-thread record panics when a lock of
    /// the same (unless nested) or a higher rank is held.
    fn acquired(rank: u8, nested: bool) {
        let _ = (rank, nested);
    }

    /// The calling thread took a lock of `rank` without waiting for it, whatever it holds.
    fn tried(rank: u8) {
        let _ = rank;
    }

    /// The calling thread let go of a lock of `rank`.
    fn released(rank: u8) {
        let _ = rank;
    }

    /// The calling thread is about to sleep, to call a pager or to wait for a flush: it must hold
    /// no lock. Debug builds call it.
    fn assert_none_held() {}
}

/// What is waited for: any number that waiter and waker agree on. Two different things may share
/// a channel; a waiter looks again after every wake-up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Channel(pub u64);

/// A moment in the life of a channel, taken before the condition is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(pub u64);

/// Waiting and waking without lost wake-ups.
///
/// A waiter takes a [`Ticket`] while it holds the lock that guards its condition, finds the
/// condition false, lets go of the lock and sleeps on the ticket: a wake-up at any time after the
/// ticket was taken ends the sleep at once.
pub trait Wait {
    /// The present moment of `channel`.
    fn ticket(&self, channel: Channel) -> Ticket;

    /// Sleeps until `channel` is woken after `ticket` was taken, or until `deadline`
    /// ([`crate::Host::now`]; `None`: no bound). May return early. No lock may be held.
    fn sleep(&self, channel: Channel, ticket: Ticket, deadline: Option<u64>);

    /// Ends every sleep on `channel` whose ticket was taken before now.
    fn wake(&self, channel: Channel);
}

fn acquired<L: Locks>(rank: u8, nested: bool) {
    if cfg!(debug_assertions) {
        L::acquired(rank, nested);
    }
}

fn tried<L: Locks>(rank: u8) {
    if cfg!(debug_assertions) {
        L::tried(rank);
    }
}

fn released<L: Locks>(rank: u8) {
    if cfg!(debug_assertions) {
        L::released(rank);
    }
}

/// A lock for one holder at a time, of rank `RANK`.
pub struct Mutex<L: Locks, T, const RANK: u8> {
    inner: lock_api::Mutex<L::RawMutex, T>,
}

impl<L: Locks, T, const RANK: u8> Mutex<L, T, RANK> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Mutex {
            inner: lock_api::Mutex::from_raw(<L::RawMutex as lock_api::RawMutex>::INIT, value),
        }
    }

    /// Takes the lock. The caller holds no lock of this rank or above.
    pub fn lock(&self) -> MutexGuard<'_, L, T, RANK> {
        acquired::<L>(RANK, false);
        MutexGuard {
            inner: self.inner.lock(),
        }
    }

    /// Takes the lock while the caller may hold another of the same rank, in an order that the
    /// caller's documentation names.
    pub fn lock_nested(&self) -> MutexGuard<'_, L, T, RANK> {
        acquired::<L>(RANK, true);
        MutexGuard {
            inner: self.inner.lock(),
        }
    }

    /// Takes the lock if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, L, T, RANK>> {
        let inner = self.inner.try_lock()?;
        tried::<L>(RANK);
        Some(MutexGuard { inner })
    }

    /// The value, by sole ownership.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    /// Whether somebody holds the lock: for assertions.
    pub fn is_locked(&self) -> bool {
        self.inner.is_locked()
    }
}

/// The proof that a [`Mutex`] is held.
#[must_use]
pub struct MutexGuard<'a, L: Locks, T, const RANK: u8> {
    inner: lock_api::MutexGuard<'a, L::RawMutex, T>,
}

impl<L: Locks, T, const RANK: u8> Deref for MutexGuard<'_, L, T, RANK> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<L: Locks, T, const RANK: u8> DerefMut for MutexGuard<'_, L, T, RANK> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<L: Locks, T, const RANK: u8> Drop for MutexGuard<'_, L, T, RANK> {
    fn drop(&mut self) {
        released::<L>(RANK);
    }
}

/// A lock for one writer or many readers, of rank `RANK`.
pub struct RwLock<L: Locks, T, const RANK: u8> {
    inner: lock_api::RwLock<L::RawRwLock, T>,
}

impl<L: Locks, T, const RANK: u8> RwLock<L, T, RANK> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        RwLock {
            inner: lock_api::RwLock::from_raw(<L::RawRwLock as lock_api::RawRwLock>::INIT, value),
        }
    }

    /// Takes the lock for reading. The caller holds no lock of this rank or above.
    pub fn read(&self) -> ReadGuard<'_, L, T, RANK> {
        acquired::<L>(RANK, false);
        ReadGuard {
            inner: self.inner.read(),
        }
    }

    /// Takes the lock for reading while the caller may hold another of the same rank, in an order
    /// that the caller's documentation names.
    pub fn read_nested(&self) -> ReadGuard<'_, L, T, RANK> {
        acquired::<L>(RANK, true);
        ReadGuard {
            inner: self.inner.read(),
        }
    }

    /// Takes the lock for writing. The caller holds no lock of this rank or above.
    pub fn write(&self) -> WriteGuard<'_, L, T, RANK> {
        acquired::<L>(RANK, false);
        WriteGuard {
            inner: self.inner.write(),
        }
    }

    /// Takes the lock for writing while the caller may hold another of the same rank, in an order
    /// that the caller's documentation names.
    pub fn write_nested(&self) -> WriteGuard<'_, L, T, RANK> {
        acquired::<L>(RANK, true);
        WriteGuard {
            inner: self.inner.write(),
        }
    }

    /// The value, by sole ownership.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

/// The proof that an [`RwLock`] is held for reading.
#[must_use]
pub struct ReadGuard<'a, L: Locks, T, const RANK: u8> {
    inner: lock_api::RwLockReadGuard<'a, L::RawRwLock, T>,
}

impl<L: Locks, T, const RANK: u8> Deref for ReadGuard<'_, L, T, RANK> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<L: Locks, T, const RANK: u8> Drop for ReadGuard<'_, L, T, RANK> {
    fn drop(&mut self) {
        released::<L>(RANK);
    }
}

/// The proof that an [`RwLock`] is held for writing.
#[must_use]
pub struct WriteGuard<'a, L: Locks, T, const RANK: u8> {
    inner: lock_api::RwLockWriteGuard<'a, L::RawRwLock, T>,
}

impl<L: Locks, T, const RANK: u8> Deref for WriteGuard<'_, L, T, RANK> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<L: Locks, T, const RANK: u8> DerefMut for WriteGuard<'_, L, T, RANK> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<L: Locks, T, const RANK: u8> Drop for WriteGuard<'_, L, T, RANK> {
    fn drop(&mut self) {
        released::<L>(RANK);
    }
}
