//! Type-stable slabs of records with 32-bit handles and reserves.
//!
//! A slab grows by whole frames and hands out records by [`Handle`]. A record, once made, stays a
//! valid `T` at the same place for as long as the slab lives: a stale handle names the wrong
//! record, never wild memory.
//!
//! Two ways to reach a record:
//!
//! * [`Slab`]: records that several threads reach at once (objects, spaces, pages). `get` gives
//!   `&T`; what changes in `T` is atomic or under a lock inside it.
//! * [`Arena`]: plain records that belong to somebody (entries to a map, tree nodes to an object).
//!   The owner holds an [`Owner`] token; `get_mut` borrows the token, so Rust's own rules keep
//!   two threads from one record. What guards the token guards all its records.
//!
//! Nothing allocates under a lock: [`Slab::reserve`] and [`Arena::reserve`] set records aside
//! beforehand, growing the slab if need be, and a [`Reservation`] hands them out without fail.
//! What it does not use goes back when it is dropped.
//!
//! This folder is the one home of unsafe code in the core. All of it is in `pool.rs`.

mod pool;

use crate::page::{Class, Frames};
use bsdvm_machine::Machine;
use bsdvm_machine::sync::atomic::{AtomicU32, Ordering};
use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU32;
pub(crate) use pool::{Owner, Pool, ZeroIsVacant};

/// The name of a record: 32 bits, never zero.
pub(crate) struct Handle<T>(NonZeroU32, PhantomData<fn() -> T>);

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Handle<T> {}
impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Handle<T> {}
impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl<T> Handle<T> {
    /// The handle as a number; never zero.
    pub(crate) const fn raw(self) -> u32 {
        self.0.get()
    }

    /// The handle behind a number, `None` for zero.
    pub(crate) fn from_raw(raw: u32) -> Option<Self> {
        NonZeroU32::new(raw).map(|n| Handle(n, PhantomData))
    }

    fn from_index(index: u32) -> Self {
        Handle(NonZeroU32::MIN.saturating_add(index), PhantomData)
    }

    fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// The same number as a handle of another type: for records whose type depends on the machine and
/// whose handles do not.
pub(crate) fn cast<A, B>(handle: Handle<A>) -> Handle<B> {
    Handle(handle.0, PhantomData)
}

/// The handle that an atomic or packed field holds, 0 standing for none.
pub(crate) fn raw_of<T>(handle: Option<Handle<T>>) -> u32 {
    handle.map_or(0, Handle::raw)
}

/// No record could be had: the slab is full, or there is no frame to grow it with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoRecords;

/// Records that several threads reach at once.
pub(crate) struct Slab<M: Machine, T: Send + Sync>(Pool<M, T>);

impl<M: Machine, T: Send + Sync> Slab<M, T> {
    pub(crate) const fn new() -> Self {
        Slab(Pool::new())
    }

    /// The record behind `handle`.
    #[inline]
    pub(crate) fn get(&self, handle: Handle<T>) -> &T {
        self.0.shared(handle.index())
    }

    /// Sets `count` records aside. `vacant` makes the records of a new frame.
    pub(crate) fn reserve(
        &self,
        frames: &Frames<M>,
        count: u32,
        vacant: impl Fn() -> T,
    ) -> Result<Reservation<'_, M, T>, NoRecords> {
        self.0.reserve(frames, Class::System, count, &vacant)?;
        Ok(Reservation {
            pool: &self.0,
            left: count,
        })
    }

    /// Adds the records of one frame, none of them free: for the table of pages, whose handles
    /// are frame numbers. `zero`: all of its bytes are zero. False when a directory has to be added
    /// first.
    pub(crate) fn extend(
        &self,
        memory: core::ptr::NonNull<u8>,
        zero: bool,
        vacant: impl Fn() -> T,
    ) -> bool
    where
        T: ZeroIsVacant,
    {
        let first = match zero && T::HOLDS {
            true => self.0.add_zero_chunk(memory),
            false => self.0.add_chunk(memory, &vacant),
        };
        first.is_some()
    }

    /// Adds the directory that [`Slab::extend`] asks for.
    pub(crate) fn extend_directory(&self, memory: core::ptr::NonNull<u8>) -> bool {
        self.0.add_directory(memory)
    }

    /// Takes a record that was set aside.
    pub(crate) fn alloc(&self, from: &mut Reservation<'_, M, T>) -> Handle<T> {
        Handle::from_index(from.take())
    }

    /// Gives a record back. Its contents stay a valid `T`.
    pub(crate) fn free(&self, handle: Handle<T>) {
        self.0.release(handle.index());
    }

    /// The handle of the record `number`, in the order in which frames were added.
    #[inline]
    pub(crate) fn handle(number: u32) -> Handle<T> {
        Handle::from_index(Pool::<M, T>::index_of(number))
    }

    /// Records in use, without those set aside.
    pub(crate) fn live(&self) -> u32 {
        self.0.live()
    }

    /// Frames that the slab holds.
    pub(crate) fn frames(&self) -> u32 {
        self.0.frames()
    }

    /// Records a frame holds.
    pub(crate) const PER_FRAME: u32 = Pool::<M, T>::PER_CHUNK;

    /// Every record that was ever made, free ones included.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Handle<T>, &T)> {
        (0..self.0.len()).map(|number| {
            let handle = Self::handle(number);
            (handle, self.get(handle))
        })
    }
}

/// Plain records that belong to an [`Owner`].
pub(crate) struct Arena<M: Machine, T: Copy + Send>(Pool<M, T>);

impl<M: Machine, T: Copy + Send> Arena<M, T> {
    pub(crate) const fn new() -> Self {
        Arena(Pool::new())
    }

    /// A new owner. One is made for each record that can own, and lives as long as it.
    pub(crate) fn owner(&self) -> Owner {
        self.0.owner()
    }

    /// The record behind `handle`, which belongs to `owner`.
    #[inline]
    pub(crate) fn get<'a>(&'a self, owner: &'a Owner, handle: Handle<T>) -> &'a T {
        self.0.owned(owner, handle.index())
    }

    /// The record behind `handle`, which belongs to `owner`, to change.
    #[inline]
    pub(crate) fn get_mut<'a>(&'a self, owner: &'a mut Owner, handle: Handle<T>) -> &'a mut T {
        self.0.owned_mut(owner, handle.index())
    }

    /// Takes over a page of memory that is no frame (E01).
    pub(crate) fn give(&self, page: &'static mut [u8], vacant: T) {
        debug_assert_eq!(page.len(), M::PAGE.len());
        self.0
            .give(core::ptr::NonNull::from(page).cast(), &|| vacant);
    }

    /// Sets `count` records aside. `vacant` is what the records of a new frame hold.
    pub(crate) fn reserve(
        &self,
        frames: &Frames<M>,
        count: u32,
        vacant: T,
    ) -> Result<Reservation<'_, M, T>, NoRecords> {
        self.reserve_as(Class::System, frames, count, vacant)
    }

    /// As [`Arena::reserve`], with frames of `class`.
    pub(crate) fn reserve_as(
        &self,
        class: Class,
        frames: &Frames<M>,
        count: u32,
        vacant: T,
    ) -> Result<Reservation<'_, M, T>, NoRecords> {
        self.0.reserve(frames, class, count, &|| vacant)?;
        Ok(Reservation {
            pool: &self.0,
            left: count,
        })
    }

    /// As [`Arena::reserve`]; where no frame can be had the records come from `stock`.
    pub(crate) fn reserve_or_draw(
        &self,
        stock: &Stock,
        frames: &Frames<M>,
        count: u32,
        vacant: T,
    ) -> Result<Reservation<'_, M, T>, NoRecords> {
        self.reserve(frames, count, vacant).or_else(|none| {
            stock.draw(count).then_some(()).ok_or(none)?;
            Ok(Reservation {
                pool: &self.0,
                left: count,
            })
        })
    }

    /// Fills `stock` up again as far as records can be had.
    pub(crate) fn restock(&self, stock: &Stock, frames: &Frames<M>, vacant: T) {
        let missing = stock.missing();
        let class = Class::Interrupt;
        if missing > 0 && self.0.reserve(frames, class, missing, &|| vacant).is_ok() {
            stock.held.fetch_add(missing, Ordering::AcqRel);
        }
    }

    /// Gives all of `stock` back, and lets it hold `want` records from now on.
    pub(crate) fn set_stock(&self, stock: &Stock, want: u32) {
        stock.want.store(want, Ordering::Release);
        self.0.unreserve(stock.held.swap(0, Ordering::AcqRel));
    }

    /// Takes a record that was set aside and gives it to `owner`.
    pub(crate) fn alloc(
        &self,
        from: &mut Reservation<'_, M, T>,
        owner: &mut Owner,
        value: T,
    ) -> Handle<T> {
        let index = from.take();
        self.0.adopt(owner, index, value);
        Handle::from_index(index)
    }

    /// Gives a record back.
    pub(crate) fn free(&self, owner: &mut Owner, handle: Handle<T>) {
        self.0.disown(owner, handle.index());
        self.0.release(handle.index());
    }

    /// Records in use, without those set aside.
    pub(crate) fn live(&self) -> u32 {
        self.0.live()
    }

    /// Frames that the arena holds.
    pub(crate) fn frames(&self) -> u32 {
        self.0.frames()
    }
}

/// Records of an arena that are set aside for good, for changes that must not fail when no frame
/// can be had (E03). What such a change draws is made up for afterwards, from the frames that it
/// set free.
pub(crate) struct Stock {
    held: AtomicU32,
    want: AtomicU32,
}

impl Stock {
    /// An empty stock, which wants nothing.
    pub(crate) const fn new() -> Stock {
        Stock {
            held: AtomicU32::new(0),
            want: AtomicU32::new(0),
        }
    }

    fn draw(&self, count: u32) -> bool {
        self.held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                n.checked_sub(count)
            })
            .is_ok()
    }

    fn missing(&self) -> u32 {
        let want = self.want.load(Ordering::Acquire);
        want.saturating_sub(self.held.load(Ordering::Acquire))
    }
}

/// Records set aside; what is left goes back on drop.
pub(crate) struct Reservation<'a, M: Machine, T> {
    pool: &'a Pool<M, T>,
    left: u32,
}

impl<M: Machine, T> Reservation<'_, M, T> {
    /// How many records are left.
    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    fn take(&mut self) -> u32 {
        assert!(
            self.left > 0,
            "an operation needs more records than it reserved"
        );
        self.left -= 1;
        self.pool.take_reserved()
    }
}

impl<M: Machine, T> Drop for Reservation<'_, M, T> {
    fn drop(&mut self) {
        if self.left > 0 {
            self.pool.unreserve(self.left);
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(all(test, loom))]
mod loom;
