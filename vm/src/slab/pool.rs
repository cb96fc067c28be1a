//! Records in frames: the unsafe half of the slabs.
//!
//! A pool is a directory of directories of chunks; a chunk is one frame full of records. Pointers
//! are written once, before any handle to their records exists, and never change while the pool
//! lives.
//!
//! The index of a record is its chunk and its slot in the chunk, in bits of their own, so that
//! finding it needs no division; a chunk that holds no power of two leaves indices out.

use super::NoRecords;
use crate::lock::{self, Mutex};
use crate::page::{Class, Frames, Page};
use bsdvm_machine::Machine;
use bsdvm_machine::sync::atomic::{AtomicU32, Ordering};
use core::cell::UnsafeCell;
use core::mem::size_of;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicPtr;

/// Directories of one pool.
const DIRECTORIES: usize = 256;

/// A right to the records of an arena that carry its number. Made once per owner, never copied:
/// whoever borrows it mutably is alone with its records.
#[derive(Debug)]
pub(crate) struct Owner(u32);

/// A record and its place in the free list. In this order, so that a type can lay itself out by
/// cache lines: eight bytes come before it.
#[repr(C)]
struct Record<T> {
    /// The next free record, index + 1; meaningful while this one is free.
    next: AtomicU32,
    /// The owner's number; 0 in a free record and in records that nobody owns.
    owner: AtomicU32,
    value: UnsafeCell<T>,
}

/// A type whose free records are all zero.
///
/// # Safety
///
/// Where `HOLDS`, bytes that are all zero are a valid value.
pub(crate) unsafe trait ZeroIsVacant {
    /// Whether that is so in this build: the atomics of a checker are something else.
    const HOLDS: bool;
}

// SAFETY: a `Page` is atomic integers and nothing else, all of which may be zero, but in a build
// for a checker.
unsafe impl ZeroIsVacant for Page {
    const HOLDS: bool = !cfg!(any(shuttle, loom));
}

/// Records of one type.
pub(crate) struct Pool<M: Machine, T> {
    directories: [AtomicPtr<AtomicPtr<Record<T>>>; DIRECTORIES],
    /// The first free record, index + 1; 0: there is none.
    list: Mutex<M, u32, { lock::SLAB }>,
    /// Free records that nobody has set aside. A record is in the list before it counts.
    spare: AtomicU32,
    /// Chunks that are complete; records up to here may be reached.
    chunks: AtomicU32,
    /// Frames held: chunks and directories.
    held: AtomicU32,
    owners: AtomicU32,
    live: AtomicU32,
}

// SAFETY: a pool hands out `&T` to several threads (so `T: Sync` is required by `Slab`, the only
// wrapper that shares) or `&mut T` to the one that holds the owner (so `T: Send` is required by
// both wrappers). Everything else in it is atomic or locked.
unsafe impl<M: Machine, T: Send> Sync for Pool<M, T> {}
// SAFETY: as above; the pool owns the memory of its frames and refers to nothing thread-bound.
unsafe impl<M: Machine, T: Send> Send for Pool<M, T> {}

impl<M: Machine, T> Pool<M, T> {
    /// Records in one frame.
    pub(crate) const PER_CHUNK: u32 = (M::PAGE.len() / size_of::<Record<T>>()) as u32;
    /// Bits of an index that tell the slot.
    const SLOT_BITS: u32 = Self::PER_CHUNK.next_power_of_two().trailing_zeros();
    /// Chunk pointers in one directory frame.
    const POINTERS: usize = M::PAGE.len() / size_of::<AtomicPtr<Record<T>>>();

    pub(crate) const fn new() -> Self {
        assert!(Self::PER_CHUNK > 0, "a record must fit in a frame");
        Pool {
            directories: [const { AtomicPtr::new(ptr::null_mut()) }; DIRECTORIES],
            list: Mutex::new(0),
            spare: AtomicU32::new(0),
            chunks: AtomicU32::new(0),
            held: AtomicU32::new(0),
            owners: AtomicU32::new(1),
            live: AtomicU32::new(0),
        }
    }

    /// The index of the record that is number `number` in the order of chunks.
    #[inline]
    pub(crate) fn index_of(number: u32) -> u32 {
        ((number / Self::PER_CHUNK) << Self::SLOT_BITS) | (number % Self::PER_CHUNK)
    }

    #[inline]
    fn record(&self, index: u32) -> &Record<T> {
        let chunk = (index >> Self::SLOT_BITS) as usize;
        let slot = index & ((1 << Self::SLOT_BITS) - 1);
        assert!(slot < Self::PER_CHUNK, "a handle of another slab");
        // Most pools need one directory: its address does not wait for the index.
        let directory = if chunk < Self::POINTERS {
            self.directories[0].load(Ordering::Acquire)
        } else {
            self.directories[chunk / Self::POINTERS].load(Ordering::Acquire)
        };
        assert!(!directory.is_null(), "a handle of another slab");
        // SAFETY: a directory that is not null is a frame of `POINTERS` initialised pointers
        // (`directory`), kept for as long as `self` lives; the index is below `POINTERS`.
        let chunk = unsafe { &*directory.add(chunk % Self::POINTERS) }.load(Ordering::Acquire);
        assert!(!chunk.is_null(), "a handle of another slab");
        // SAFETY: a chunk that is not null is a frame of `PER_CHUNK` initialised records
        // (`add_chunk`), kept for as long as `self` lives; the slot is below `PER_CHUNK`. Only
        // shared references to a `Record` are ever made, its value being in a cell.
        unsafe { &*chunk.add(slot as usize) }
    }

    /// The record's value, shared. Called by `Slab` alone, whose records have no owner.
    #[inline]
    pub(crate) fn shared(&self, index: u32) -> &T {
        // SAFETY: the value is initialised, and a `Slab` never makes a `&mut T` of it: `owned_mut`
        // and `adopt` are called by `Arena` alone, and no pool is behind both.
        unsafe { &*self.record(index).value.get() }
    }

    #[inline]
    pub(crate) fn owned<'a>(&'a self, owner: &'a Owner, index: u32) -> &'a T {
        let record = self.record(index);
        assert_eq!(
            record.owner.load(Ordering::Relaxed),
            owner.0,
            "not the owner"
        );
        // SAFETY: the record carries the owner's number, numbers are given once per pool and a
        // token cannot be copied: as long as `owner` is borrowed, nobody borrows it mutably, so
        // no `&mut T` to this record exists. The number cannot change meanwhile: `disown` needs
        // the token mutably.
        unsafe { &*record.value.get() }
    }

    #[inline]
    pub(crate) fn owned_mut<'a>(&'a self, owner: &'a mut Owner, index: u32) -> &'a mut T {
        let record = self.record(index);
        assert_eq!(
            record.owner.load(Ordering::Relaxed),
            owner.0,
            "not the owner"
        );
        // SAFETY: as in `owned`, and the token is borrowed mutably for as long as the result
        // lives: no other reference to a record of this owner exists.
        unsafe { &mut *record.value.get() }
    }

    /// Gives a record that was taken from the free list to `owner`.
    pub(crate) fn adopt(&self, owner: &mut Owner, index: u32, value: T)
    where
        T: Copy,
    {
        let record = self.record(index);
        assert_eq!(record.owner.load(Ordering::Relaxed), 0, "already owned");
        // SAFETY: nobody owns the record, so no reference to its value exists, and it is off the
        // free list, so no other thread can adopt it. `T: Copy` has nothing to drop.
        unsafe { record.value.get().write(value) };
        record.owner.store(owner.0, Ordering::Relaxed);
    }

    /// Takes a record from its owner.
    pub(crate) fn disown(&self, owner: &mut Owner, index: u32) {
        let record = self.record(index);
        assert_eq!(
            record.owner.load(Ordering::Relaxed),
            owner.0,
            "not the owner"
        );
        record.owner.store(0, Ordering::Relaxed);
    }

    pub(crate) fn owner(&self) -> Owner {
        let number = self.owners.fetch_add(1, Ordering::Relaxed);
        assert!(
            number != u32::MAX,
            "owners are made once per record, fewer than 2^32"
        );
        Owner(number)
    }

    /// Sets `count` free records aside, growing the pool by frames of `class` if need be.
    pub(crate) fn reserve(
        &self,
        frames: &Frames<M>,
        class: Class,
        count: u32,
        vacant: &dyn Fn() -> T,
    ) -> Result<(), NoRecords> {
        if count == 0 {
            return Ok(());
        }
        if frames.injected_failure() {
            return Err(NoRecords);
        }
        loop {
            let less = |spare: u32| spare.checked_sub(count);
            let taken = self
                .spare
                .fetch_update(Ordering::Acquire, Ordering::Relaxed, less);
            if taken.is_ok() {
                return Ok(());
            }
            self.grow(frames, class, vacant)?;
        }
    }

    pub(crate) fn unreserve(&self, count: u32) {
        self.spare.fetch_add(count, Ordering::Release);
    }

    /// Takes a record that was set aside; gives its index.
    pub(crate) fn take_reserved(&self) -> u32 {
        self.live.fetch_add(1, Ordering::Relaxed);
        let mut head = self.list.lock();
        // What was set aside is in the list.
        let index = *head - 1;
        *head = self.record(index).next.load(Ordering::Relaxed);
        index
    }

    /// Puts a record on the free list.
    pub(crate) fn release(&self, index: u32) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.push(index);
    }

    fn push(&self, index: u32) {
        {
            let mut head = self.list.lock();
            self.record(index).next.store(*head, Ordering::Relaxed);
            *head = index + 1;
        }
        self.spare.fetch_add(1, Ordering::Release);
    }

    fn grow(
        &self,
        frames: &Frames<M>,
        class: Class,
        vacant: &dyn Fn() -> T,
    ) -> Result<(), NoRecords> {
        loop {
            let frame = frames.alloc(class).ok_or(NoRecords)?;
            let memory = frames.machine().record_memory(frame);
            if let Some(first) = self.add_chunk(memory, vacant) {
                // Pushed in descending order, so that records come out in ascending order.
                for index in (first..first + Self::PER_CHUNK).rev() {
                    self.push(index);
                }
                return Ok(());
            }
            // One frame at a time, each kept: whoever has to wait for frames gets on with each.
            if !self.add_directory(memory) {
                frames.free(frame);
                self.next_directory().ok_or(NoRecords)?;
            }
        }
    }

    /// Makes `memory`, a page that is no frame and lives as long as the program, the next chunk or
    /// the directory that the next chunk needs, and its records free.
    pub(crate) fn give(&self, memory: NonNull<u8>, vacant: &dyn Fn() -> T) {
        match self.add_chunk(memory, vacant) {
            Some(first) => (first..first + Self::PER_CHUNK)
                .rev()
                .for_each(|index| self.push(index)),
            None if !self.add_directory(memory) => return,
            None => {}
        }
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// The directory that the next chunk goes in; `None` when the pool is full.
    fn next_directory(&self) -> Option<usize> {
        let at = self.chunks.load(Ordering::Relaxed) as usize / Self::POINTERS;
        (at < DIRECTORIES).then_some(at)
    }

    /// Makes `memory`, a frame, the directory of the next chunk. False when it has one.
    pub(crate) fn add_directory(&self, memory: NonNull<u8>) -> bool {
        let _list = self.list.lock();
        let Some(at) = self.next_directory() else {
            return false;
        };
        if !self.directories[at].load(Ordering::Acquire).is_null() {
            return false;
        }
        let pointers: *mut AtomicPtr<Record<T>> = memory.as_ptr().cast();
        for i in 0..Self::POINTERS {
            // SAFETY: `memory` is a frame that the allocator gave to this pool alone: it holds
            // `POINTERS` pointers and is aligned to a page, and nothing else refers to it.
            unsafe { pointers.add(i).write(AtomicPtr::new(ptr::null_mut())) };
        }
        self.directories[at].store(pointers, Ordering::Release);
        self.held.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Makes `memory`, a frame, the next chunk; gives the index of its first record, or `None`
    /// when its directory has to be added first (or the pool is full).
    pub(crate) fn add_chunk(&self, memory: NonNull<u8>, vacant: &dyn Fn() -> T) -> Option<u32> {
        self.add(memory, |records| {
            for slot in 0..Self::PER_CHUNK as usize {
                // SAFETY: `memory` is a frame that belongs to this pool alone: it holds `PER_CHUNK`
                // records and is aligned to a page, and nothing refers to it yet.
                unsafe {
                    records.add(slot).write(Record {
                        next: AtomicU32::new(0),
                        owner: AtomicU32::new(0),
                        value: UnsafeCell::new(vacant()),
                    });
                }
            }
        })
    }

    /// The same for a frame whose bytes are all zero, as free records are ([`ZeroIsVacant::HOLDS`]):
    /// it is left as it is.
    pub(crate) fn add_zero_chunk(&self, memory: NonNull<u8>) -> Option<u32>
    where
        T: ZeroIsVacant,
    {
        debug_assert!(T::HOLDS, "free records are something else here");
        self.add(memory, |_| ())
    }

    /// Makes `memory` the next chunk, once `fill` has made records in it.
    fn add(&self, memory: NonNull<u8>, fill: impl FnOnce(*mut Record<T>)) -> Option<u32> {
        let _list = self.list.lock();
        let chunk = self.chunks.load(Ordering::Relaxed);
        let directory = self.directories[self.next_directory()?].load(Ordering::Acquire);
        if directory.is_null() {
            return None;
        }
        let records: *mut Record<T> = memory.as_ptr().cast();
        fill(records);
        // SAFETY: as in `record`.
        unsafe { &*directory.add(chunk as usize % Self::POINTERS) }
            .store(records, Ordering::Release);
        self.chunks.store(chunk + 1, Ordering::Release);
        self.held.fetch_add(1, Ordering::Relaxed);
        Some(chunk << Self::SLOT_BITS)
    }

    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Records that were ever made; their numbers are those below.
    pub(crate) fn len(&self) -> u32 {
        self.chunks.load(Ordering::Acquire) * Self::PER_CHUNK
    }

    pub(crate) fn frames(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }
}
