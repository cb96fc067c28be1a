//! Zones: items of one size from wired pages (O10).
//!
//! ```text
//!  magazine of a processor  [item item item …]      taken and given without the zone's lock
//!           ▲   │
//!           │   ▼  half a magazine at a time
//!  zone     partial ──> slab ──> slab               a slab is one page of items and a record that
//!           ▲   │                                   says which are free
//!           │   ▼
//!  kmem     malloc, free: a page at a time
//! ```
//!
//! A zone feeds on the map named [`SubmapName::Kmem`] and gives pages back when all of their items
//! are free: at once, but for one page that it keeps, and that one when memory is short
//! ([`Kmem::reclaim`]). The record of a slab is found by its page, which is found by its place in
//! the object of `malloc`. Nothing is kept in the memory of the items themselves: the core does
//! not touch it.
//!
//! Locks: a magazine's, then the zone's; neither is held while a page is asked for or given back.

use super::{Fill, Kmem, KmemError, Malloc, SubmapName, lock};
use crate::lock::Mutex;
use crate::object::radix::Slot;
use crate::slab::{Handle, Slab, cast};
use bsdvm_machine::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use bsdvm_machine::{Frame, Machine, VirtAddr};

/// Items in a full magazine.
const MAGAZINE: usize = 32;
/// Magazines of a zone; processors share them beyond that.
const MAGAZINES: usize = 8;
/// Items that a slab can have, and words that say which are free.
const MOST_ITEMS: usize = 256;
const WORDS: usize = MOST_ITEMS / 64;

/// The type that the handles of zones and slabs name, whatever the machine.
pub(super) enum KindlessZone {}
type ZoneHandle = Handle<KindlessZone>;
type SlabHandle = Handle<SlabRec>;

/// One page of items. All fields are guarded by the zone's lock, but for `zone` and `base`, which
/// stay as long as the page is the slab's.
pub(super) struct SlabRec {
    zone: AtomicU32,
    base: AtomicU64,
    /// A bit for each free item.
    bits: [AtomicU64; WORDS],
    free: AtomicU32,
    /// Neighbours in the list of slabs that have a free item.
    next: AtomicU32,
    prev: AtomicU32,
}

/// One zone.
pub(super) struct ZoneRec<M: Machine> {
    /// Bytes of an item; 0 in a record that is free.
    item: AtomicU32,
    /// Items in use, those in magazines included.
    out: AtomicU64,
    state: Mutex<M, ZoneState, { lock::ZONE }>,
    magazines: [Mutex<M, Magazine, { lock::ZONE_MAGAZINE }>; MAGAZINES],
}

#[derive(Default)]
struct ZoneState {
    /// The first slab with a free item.
    partial: u32,
    /// Slabs, and how many of them have no item in use.
    slabs: u32,
    empty: u32,
    /// The zone was destroyed while a reclaim had an item in its hands: its last slab ends it.
    ended: bool,
}

struct Magazine {
    items: [u64; MAGAZINE],
    count: usize,
}

impl Magazine {
    fn pop(&mut self) -> Option<VirtAddr> {
        self.count = self.count.checked_sub(1)?;
        Some(VirtAddr(self.items[self.count]))
    }

    fn push(&mut self, item: VirtAddr) {
        self.items[self.count] = item.0;
        self.count += 1;
    }
}

/// The zones of one VM.
pub(crate) struct Zones<M: Machine> {
    zones: Slab<M, ZoneRec<M>>,
    slabs: Slab<M, SlabRec>,
}

impl<M: Machine> Zones<M> {
    pub(super) const fn new() -> Self {
        Zones {
            zones: Slab::new(),
            slabs: Slab::new(),
        }
    }

    /// Frames that the records take.
    pub(crate) fn frames(&self) -> u32 {
        self.zones.frames() + self.slabs.frames()
    }
}

fn vacant_zone<M: Machine>() -> ZoneRec<M> {
    ZoneRec {
        item: AtomicU32::new(0),
        out: AtomicU64::new(0),
        state: Mutex::new(ZoneState::default()),
        magazines: [const {
            Mutex::new(Magazine {
                items: [0; MAGAZINE],
                count: 0,
            })
        }; MAGAZINES],
    }
}

fn vacant_slab() -> SlabRec {
    SlabRec {
        zone: AtomicU32::new(0),
        base: AtomicU64::new(0),
        bits: [const { AtomicU64::new(0) }; WORDS],
        free: AtomicU32::new(0),
        next: AtomicU32::new(0),
        prev: AtomicU32::new(0),
    }
}

/// A zone, to work with.
pub struct Zone<'v, M: Machine> {
    kmem: Kmem<'v, M>,
    handle: ZoneHandle,
}

impl<M: Machine> Clone for Zone<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M: Machine> Copy for Zone<'_, M> {}

/// The name of a zone. Valid until the zone is destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneId(u32);

impl ZoneId {
    pub(super) fn raw(self) -> u32 {
        self.0
    }

    pub(super) fn from_raw(raw: u32) -> Option<ZoneId> {
        (raw != 0).then_some(ZoneId(raw))
    }
}

impl<'v, M: Machine> Kmem<'v, M> {
    fn zones(self) -> &'v Zones<M> {
        &self.state().zones
    }

    /// Makes a zone of items of `bytes` bytes that begin at multiples of `align`, a power of two
    /// (O10). Half a page is the largest item; small ones are made as large as lets 256 fit a
    /// page.
    ///
    /// Errors: [`KmemError::InvalidArgument`]; [`KmemError::NoMemory`].
    pub fn zone_create(self, bytes: u64, align: u64) -> Result<Zone<'v, M>, KmemError> {
        let page = M::PAGE.bytes();
        if !align.is_power_of_two() || align > page || bytes > page / 2 {
            return Err(KmemError::InvalidArgument);
        }
        let least = page / MOST_ITEMS as u64;
        let item = bytes.max(least).next_multiple_of(align);
        let item = u32::try_from(item).map_err(|_| KmemError::InvalidArgument)?;
        let zones = &self.zones().zones;
        let mut records = zones.reserve(&self.vm.frames, 1, vacant_zone)?;
        let handle = zones.alloc(&mut records);
        zones.get(handle).item.store(item, Ordering::Release);
        Ok(Zone {
            kmem: self,
            handle: cast(handle),
        })
    }

    /// The zone behind an id.
    pub fn zone(self, id: ZoneId) -> Option<Zone<'v, M>> {
        let handle = Handle::from_raw(id.0)?;
        Some(Zone { kmem: self, handle })
    }

    /// Lets every zone give back the pages that it keeps without an item in use, magazines
    /// emptied first; gives the number of pages. What page-out and allocations that find nothing
    /// call.
    pub fn reclaim(self) -> u32 {
        let zones = &self.zones().zones;
        let used = zones
            .each()
            .filter(|(_, zone)| zone.item.load(Ordering::Acquire) > 0);
        used.map(|(handle, _)| {
            let zone = Zone {
                kmem: self,
                handle: cast(handle),
            };
            zone.reclaim()
        })
        .sum()
    }

    /// Ends every zone: nobody uses an item any more.
    pub(super) fn end_zones(self) {
        let zones = &self.zones().zones;
        let used = zones
            .each()
            .filter(|(_, zone)| zone.item.load(Ordering::Acquire) > 0);
        for (handle, zone) in used {
            zone.out.store(0, Ordering::Release);
            let zone = Zone {
                kmem: self,
                handle: cast(handle),
            };
            // Items that somebody still has go with the kernel map; their slabs go here.
            zone.forget_slabs();
            let _ = zone.destroy();
        }
    }

    /// The frame of `malloc` at `va`.
    fn frame_at(self, va: VirtAddr) -> Option<Frame> {
        let object = self.kmem_object()?;
        let state = self.vm.lock_object(object);
        match state.pages.get(&self.vm.page_nodes, self.index_of(va)) {
            Some(Slot::Resident(frame)) => Some(frame),
            _ => None,
        }
    }
}

impl<M: Machine> Zone<'_, M> {
    fn rec(&self) -> &ZoneRec<M> {
        self.kmem.zones().zones.get(cast(self.handle))
    }

    fn slab(&self, slab: SlabHandle) -> &SlabRec {
        self.kmem.zones().slabs.get(slab)
    }

    fn item(&self) -> u64 {
        u64::from(self.rec().item.load(Ordering::Acquire))
    }

    fn items_of_slab(&self) -> u32 {
        (M::PAGE.bytes() / self.item()) as u32
    }

    /// The id.
    pub fn id(self) -> ZoneId {
        ZoneId(self.handle.raw())
    }

    /// Bytes of an item, rounding included.
    pub fn item_bytes(self) -> u64 {
        self.item()
    }

    /// Pages that the zone has.
    pub fn pages(self) -> u32 {
        self.rec().state.lock().slabs
    }

    /// An item. Errors: those of [`super::KernelMap::malloc`]; [`KmemError::WrongMap`] when the
    /// kernel has named no map [`SubmapName::Kmem`].
    pub fn alloc(self, how: Malloc) -> Result<VirtAddr, KmemError> {
        let item = loop {
            if let Some(item) = self.pop() {
                break item;
            }
            self.add_slab(how)?;
        };
        self.rec().out.fetch_add(1, Ordering::Relaxed);
        if how.fill == Fill::Zeroed {
            self.zero(item);
        }
        Ok(item)
    }

    /// Gives an item back.
    ///
    /// Errors: [`KmemError::InvalidArgument`] for what is no item of this zone.
    pub fn free(self, item: VirtAddr) -> Result<(), KmemError> {
        self.free_keeping(item, Keep::One)
    }

    /// As [`Zone::free`], and gives no page back before the next [`Kmem::reclaim`]: for who holds
    /// locks.
    ///
    /// Errors: as for [`Zone::free`].
    pub fn free_later(self, item: VirtAddr) -> Result<(), KmemError> {
        self.free_keeping(item, Keep::All)
    }

    fn free_keeping(self, item: VirtAddr, keep: Keep) -> Result<(), KmemError> {
        self.slab_of(item).ok_or(KmemError::InvalidArgument)?;
        let mut spill = [0; MAGAZINE / 2];
        let mut count = 0;
        let mut magazine = self.magazine().lock();
        if magazine.count == MAGAZINE {
            while let Some(at) = spill.get_mut(count) {
                *at = magazine.items[count];
                count += 1;
            }
            magazine.items.copy_within(count.., 0);
            magazine.count -= count;
        }
        magazine.push(item);
        drop(magazine);
        spill[..count]
            .iter()
            .for_each(|&item| self.give(VirtAddr(item), keep));
        // Last, so that the zone is not destroyed before the item is back.
        self.rec().out.fetch_sub(1, Ordering::Release);
        Ok(())
    }

    /// Empties the magazines and gives back every page without an item in use; gives their
    /// number.
    pub fn reclaim(self) -> u32 {
        let before = self.pages();
        for magazine in &self.rec().magazines {
            loop {
                // One at a time: the lock is not held while a page goes.
                let item = magazine.lock().pop();
                let Some(item) = item else { break };
                self.give(item, Keep::None);
            }
        }
        while let Some(base) = self.take_empty(Keep::None) {
            self.free_page(base);
        }
        before.saturating_sub(self.pages())
    }

    /// Ends the zone.
    ///
    /// Errors: [`KmemError::Exists`] while items are in use.
    pub fn destroy(self) -> Result<(), KmemError> {
        if self.rec().out.load(Ordering::Acquire) > 0 {
            return Err(KmemError::Exists);
        }
        self.reclaim();
        let mut state = self.rec().state.lock();
        state.ended = true;
        let last = state.slabs == 0;
        drop(state);
        if last {
            self.end();
        }
        Ok(())
    }

    /// Gives up the record of a zone that was destroyed and has no slab any more.
    fn end(&self) {
        *self.rec().state.lock() = ZoneState::default();
        self.rec().item.store(0, Ordering::Release);
        self.kmem.zones().zones.free(cast(self.handle));
    }

    fn magazine(&self) -> &Mutex<M, Magazine, { lock::ZONE_MAGAZINE }> {
        &self.rec().magazines[self.kmem.vm.machine().cpu() % MAGAZINES]
    }

    /// An item from the magazine, which is filled from the slabs first when it is empty.
    fn pop(&self) -> Option<VirtAddr> {
        let mut magazine = self.magazine().lock();
        if magazine.count == 0 {
            let mut state = self.rec().state.lock();
            while magazine.count < MAGAZINE / 2
                && let Some(item) = self.take_item(&mut state)
            {
                magazine.push(item);
            }
        }
        magazine.pop()
    }

    /// A free item of a slab. Under the zone's lock.
    fn take_item(&self, state: &mut ZoneState) -> Option<VirtAddr> {
        let handle: SlabHandle = Handle::from_raw(state.partial)?;
        let slab = self.slab(handle);
        let (at, word) = slab
            .bits
            .iter()
            .map(|word| word.load(Ordering::Relaxed))
            .enumerate()
            .find(|&(_, word)| word != 0)?;
        slab.bits[at].store(word & (word - 1), Ordering::Relaxed);
        let number = at as u64 * 64 + u64::from(word.trailing_zeros());
        let free = slab.free.fetch_sub(1, Ordering::Relaxed);
        if free == self.items_of_slab() {
            state.empty -= 1;
        }
        if free == 1 {
            self.unlink(state, handle);
        }
        let base = slab.base.load(Ordering::Relaxed);
        Some(VirtAddr(base + number * self.item()))
    }

    /// Puts an item back in its slab; the page goes when it has no item in use and is not kept.
    fn give(&self, item: VirtAddr, keep: Keep) {
        let Some((handle, number)) = self.slab_of(item) else {
            return;
        };
        let slab = self.slab(handle);
        let mut state = self.rec().state.lock();
        let bit = 1 << (number % 64);
        let before = slab.bits[number / 64].fetch_or(bit, Ordering::Relaxed);
        debug_assert!(before & bit == 0, "an item is freed twice");
        let free = slab.free.fetch_add(1, Ordering::Relaxed) + 1;
        if free == 1 {
            self.link(&mut state, handle);
        }
        if free == self.items_of_slab() {
            state.empty += 1;
        }
        drop(state);
        if let Some(base) = self.take_empty(keep) {
            self.free_page(base);
        }
    }

    /// The slab that an item is of, and its number there.
    fn slab_of(&self, item: VirtAddr) -> Option<(SlabHandle, usize)> {
        let frame = self.kmem.frame_at(item)?;
        let handle: SlabHandle = Handle::from_raw(self.kmem.vm.frames.page(frame).zone_slab())?;
        let slab = self.slab(handle);
        if slab.zone.load(Ordering::Relaxed) != self.handle.raw() {
            return None;
        }
        let within = item.0.checked_sub(slab.base.load(Ordering::Relaxed))?;
        let number = within / self.item();
        (within.is_multiple_of(self.item()) && number < u64::from(self.items_of_slab()))
            .then_some((handle, number as usize))
    }

    /// Adds a page of items. No lock is held.
    fn add_slab(&self, how: Malloc) -> Result<(), KmemError> {
        let (kmem, zones) = (self.kmem, self.kmem.zones());
        let map = kmem.named(SubmapName::Kmem).ok_or(KmemError::WrongMap)?;
        let mut records = zones.slabs.reserve(&kmem.vm.frames, 1, vacant_slab)?;
        let fill = Malloc {
            fill: Fill::AsIs,
            ..how
        };
        let base = map.malloc(M::PAGE.bytes(), fill)?;
        let frame = kmem.frame_at(base).ok_or(KmemError::NoMemory)?;
        let handle = zones.slabs.alloc(&mut records);
        let slab = self.slab(handle);
        let items = self.items_of_slab();
        slab.zone.store(self.handle.raw(), Ordering::Relaxed);
        slab.base.store(base.0, Ordering::Relaxed);
        slab.free.store(items, Ordering::Relaxed);
        for (at, word) in slab.bits.iter().enumerate() {
            let here = items.saturating_sub(at as u32 * 64).min(64);
            let bits = u64::MAX.checked_shr(64 - here).unwrap_or(0);
            word.store(bits, Ordering::Relaxed);
        }
        kmem.vm.frames.page(frame).set_zone_slab(handle.raw());
        let mut state = self.rec().state.lock();
        state.slabs += 1;
        state.empty += 1;
        self.link(&mut state, handle);
        Ok(())
    }

    /// Takes a slab without an item in use out of the zone, if there are more than are kept; gives
    /// its address.
    fn take_empty(&self, keep: Keep) -> Option<VirtAddr> {
        let mut state = self.rec().state.lock();
        if state.empty <= keep.pages() {
            return None;
        }
        let all = self.items_of_slab();
        let mut at: Option<SlabHandle> = Handle::from_raw(state.partial);
        while let Some(handle) = at {
            let slab = self.slab(handle);
            if slab.free.load(Ordering::Relaxed) == all {
                self.unlink(&mut state, handle);
                state.slabs -= 1;
                state.empty -= 1;
                let base = slab.base.load(Ordering::Relaxed);
                slab.zone.store(0, Ordering::Relaxed);
                let last = state.ended && state.slabs == 0;
                drop(state);
                self.kmem.zones().slabs.free(handle);
                if last {
                    self.end();
                }
                return Some(VirtAddr(base));
            }
            at = Handle::from_raw(slab.next.load(Ordering::Relaxed));
        }
        None
    }

    /// Gives up the records of all slabs, whatever is in use.
    fn forget_slabs(&self) {
        let slabs = &self.kmem.zones().slabs;
        for (handle, slab) in slabs.each() {
            if slab.zone.load(Ordering::Relaxed) == self.handle.raw() {
                slab.zone.store(0, Ordering::Relaxed);
                slabs.free(handle);
            }
        }
        for magazine in &self.rec().magazines {
            magazine.lock().count = 0;
        }
        *self.rec().state.lock() = ZoneState::default();
    }

    fn free_page(&self, base: VirtAddr) {
        let freed = match self.kmem.named(SubmapName::Kmem) {
            Some(map) => map.free_wakeup(base, M::PAGE.bytes()),
            None => Err(KmemError::WrongMap),
        };
        debug_assert!(freed.is_ok(), "a page of the zone: {freed:?}");
    }

    fn zero(&self, item: VirtAddr) {
        let Some(frame) = self.kmem.frame_at(item) else {
            return;
        };
        let zeroes = [0; 64];
        let mut at = M::PAGE.within(item.0);
        let end = at + self.item() as usize;
        while at < end {
            let now = zeroes.len().min(end - at);
            self.kmem.vm.machine().write(frame, at, &zeroes[..now]);
            at += now;
        }
    }

    fn link(&self, state: &mut ZoneState, handle: SlabHandle) {
        let slab = self.slab(handle);
        slab.prev.store(0, Ordering::Relaxed);
        slab.next.store(state.partial, Ordering::Relaxed);
        if let Some(next) = Handle::from_raw(state.partial) {
            self.slab(next).prev.store(handle.raw(), Ordering::Relaxed);
        }
        state.partial = handle.raw();
    }

    fn unlink(&self, state: &mut ZoneState, handle: SlabHandle) {
        let slab = self.slab(handle);
        let (next, prev) = (
            slab.next.load(Ordering::Relaxed),
            slab.prev.load(Ordering::Relaxed),
        );
        match Handle::from_raw(prev) {
            Some(prev) => self.slab(prev).next.store(next, Ordering::Relaxed),
            None => state.partial = next,
        }
        if let Some(next) = Handle::from_raw(next) {
            self.slab(next).prev.store(prev, Ordering::Relaxed);
        }
    }
}

/// How many pages without an item in use a zone keeps.
#[derive(Clone, Copy)]
enum Keep {
    None,
    One,
    All,
}

impl Keep {
    fn pages(self) -> u32 {
        match self {
            Keep::None => 0,
            Keep::One => 1,
            Keep::All => u32::MAX,
        }
    }
}
