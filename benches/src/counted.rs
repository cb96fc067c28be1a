//! A machine that counts what the core asks of it: locks taken, frames cleared and copied, frames
//! taken for records.

use bsdvm_machine::{
    Channel, EnterError, Frame, Host, Locks, Machine, Memory, PageSize, Ticket, VirtRange, Wait,
};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Locks of all machines, taken so far. One thread measures.
static TAKEN: AtomicU64 = AtomicU64::new(0);

fn taken() {
    TAKEN.store(TAKEN.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// What was counted so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Locks taken, for reading or writing.
    pub locks: u64,
    /// Frames cleared.
    pub zeroed: u64,
    /// Frames copied.
    pub copied: u64,
}

/// The machine `M`, counted.
pub struct Counted<M> {
    inner: M,
    zeroed: AtomicU64,
    copied: AtomicU64,
}

impl<M: Machine> Counted<M> {
    /// Counts what is asked of `inner`.
    pub fn new(inner: M) -> Counted<M> {
        Counted {
            inner,
            zeroed: AtomicU64::new(0),
            copied: AtomicU64::new(0),
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        Counts {
            locks: TAKEN.load(Ordering::Relaxed),
            zeroed: self.zeroed.load(Ordering::Relaxed),
            copied: self.copied.load(Ordering::Relaxed),
        }
    }
}

/// A lock that counts.
pub struct CountedMutex(parking_lot::RawMutex);

// SAFETY: the lock within keeps the promise.
unsafe impl lock_api::RawMutex for CountedMutex {
    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "the trait asks for it"
    )]
    const INIT: CountedMutex = CountedMutex(<parking_lot::RawMutex as lock_api::RawMutex>::INIT);
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        taken();
        self.0.lock();
    }
    fn try_lock(&self) -> bool {
        taken();
        self.0.try_lock()
    }
    unsafe fn unlock(&self) {
        // SAFETY: the caller holds this lock, and so the one within.
        unsafe { self.0.unlock() }
    }
}

/// A lock for readers and writers that counts.
pub struct CountedRwLock(parking_lot::RawRwLock);

// SAFETY: the lock within keeps the promise.
unsafe impl lock_api::RawRwLock for CountedRwLock {
    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "the trait asks for it"
    )]
    const INIT: CountedRwLock =
        CountedRwLock(<parking_lot::RawRwLock as lock_api::RawRwLock>::INIT);
    type GuardMarker = lock_api::GuardNoSend;

    fn lock_shared(&self) {
        taken();
        self.0.lock_shared();
    }
    fn try_lock_shared(&self) -> bool {
        taken();
        self.0.try_lock_shared()
    }
    unsafe fn unlock_shared(&self) {
        // SAFETY: the caller holds this lock for reading, and so the one within.
        unsafe { self.0.unlock_shared() }
    }
    fn lock_exclusive(&self) {
        taken();
        self.0.lock_exclusive();
    }
    fn try_lock_exclusive(&self) -> bool {
        taken();
        self.0.try_lock_exclusive()
    }
    unsafe fn unlock_exclusive(&self) {
        // SAFETY: the caller holds this lock for writing, and so the one within.
        unsafe { self.0.unlock_exclusive() }
    }
}

impl<M: Machine> Locks for Counted<M> {
    type RawMutex = CountedMutex;
    type RawRwLock = CountedRwLock;
}

impl<M: Machine> Wait for Counted<M> {
    fn ticket(&self, channel: Channel) -> Ticket {
        self.inner.ticket(channel)
    }
    fn sleep(&self, channel: Channel, ticket: Ticket, deadline: Option<u64>) {
        self.inner.sleep(channel, ticket, deadline);
    }
    fn wake(&self, channel: Channel) {
        self.inner.wake(channel);
    }
}

impl<M: Machine> Host for Counted<M> {
    fn now(&self) -> u64 {
        self.inner.now()
    }
    fn cpu(&self) -> usize {
        self.inner.cpu()
    }
    fn cpus(&self) -> usize {
        self.inner.cpus()
    }
    fn random(&self) -> u64 {
        self.inner.random()
    }
}

impl<M: Machine> Memory for Counted<M> {
    fn frames(&self) -> u32 {
        self.inner.frames()
    }
    fn zero(&self, frame: Frame) {
        self.zeroed.fetch_add(1, Ordering::Relaxed);
        self.inner.zero(frame);
    }
    fn copy(&self, from: Frame, to: Frame) {
        self.copied.fetch_add(1, Ordering::Relaxed);
        self.inner.copy(from, to);
    }
    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]) {
        self.inner.read(frame, offset, buf);
    }
    fn write(&self, frame: Frame, offset: usize, buf: &[u8]) {
        self.inner.write(frame, offset, buf);
    }
    fn load_u32(&self, frame: Frame, offset: usize) -> u32 {
        self.inner.load_u32(frame, offset)
    }
    fn compare_exchange_u32(
        &self,
        frame: Frame,
        offset: usize,
        old: u32,
        new: u32,
    ) -> Result<u32, u32> {
        self.inner.compare_exchange_u32(frame, offset, old, new)
    }
    fn record_memory(&self, frame: Frame) -> NonNull<u8> {
        self.inner.record_memory(frame)
    }
}

impl<M: Machine> Machine for Counted<M> {
    const PAGE: PageSize = M::PAGE;
    type Pmap = M::Pmap;

    fn pmap_create(&self) -> Result<M::Pmap, EnterError> {
        self.inner.pmap_create()
    }
    fn user_range(&self) -> VirtRange {
        self.inner.user_range()
    }
}
