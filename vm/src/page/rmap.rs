//! Who maps a frame.
//!
//! The first mapping of a page is in its record, the others in a list of chunks. A mapping is
//! (space, page number), packed in 64 bits: 24 bits for the space, 40 for the page number, which
//! is signed, as the addresses of kernels are negative ones: with 4 KiB pages it reaches addresses
//! of 51 bits and a sign.
//!
//! Lists are guarded by the page's stripe. A mapping is added and deleted under the pmap lock of
//! its space, together with the translation itself: under that lock the two agree.

use super::Page;
use crate::lock::{self, Mutex, MutexGuard};
use crate::slab::{Handle, Reservation, Slab};
use crate::space::SpaceHandle;
use bsdvm_machine::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use bsdvm_machine::{Frame, Machine, VirtAddr, VirtRange};

const STRIPES: usize = 64;
const NUMBER_BITS: u32 = 40;
const PER_CHUNK: usize = 6;

/// One place that maps a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    pub(crate) space: SpaceHandle,
    pub(crate) va: VirtAddr,
}

/// Further mappings of a page. All fields are guarded by the page's stripe.
pub(crate) struct Chunk {
    slots: [AtomicU64; PER_CHUNK],
    next: AtomicU32,
}

impl Chunk {
    pub(crate) fn vacant() -> Chunk {
        Chunk {
            slots: [const { AtomicU64::new(0) }; PER_CHUNK],
            next: AtomicU32::new(0),
        }
    }
}

/// The lists of all pages.
pub(crate) struct Rmap<M: Machine> {
    stripes: [Mutex<M, (), { lock::RMAP }>; STRIPES],
    pub(crate) chunks: Slab<M, Chunk>,
}

fn pack<M: Machine>(m: Mapping) -> u64 {
    let number = M::PAGE.index(m.va.0) & ((1 << NUMBER_BITS) - 1);
    u64::from(m.space.raw()) << NUMBER_BITS | number
}

fn unpack<M: Machine>(packed: u64) -> Option<Mapping> {
    let space = Handle::from_raw((packed >> NUMBER_BITS) as u32)?;
    Some(Mapping {
        space,
        va: address_of::<M>(packed),
    })
}

/// The address whose page number the lower bits of `packed` are.
fn address_of<M: Machine>(packed: u64) -> VirtAddr {
    let unused = u64::BITS - NUMBER_BITS;
    let number = ((packed << unused) as i64 >> unused) as u64;
    VirtAddr(number << M::PAGE.shift())
}

/// Whether mappings in `range` of `space` can be recorded.
pub(crate) fn can_record<M: Machine>(space: SpaceHandle, range: VirtRange) -> bool {
    let last = VirtAddr(range.end().0.saturating_sub(1));
    let kept = |va: VirtAddr| address_of::<M>(M::PAGE.index(va.0)) == M::PAGE.floor(va);
    space.raw() < 1 << 24 && kept(range.start()) && kept(last)
}

impl<M: Machine> Rmap<M> {
    pub(crate) const fn new() -> Self {
        Rmap {
            stripes: [const { Mutex::new(()) }; STRIPES],
            chunks: Slab::new(),
        }
    }

    fn stripe(&self, frame: Frame) -> MutexGuard<'_, M, (), { lock::RMAP }> {
        self.stripes[frame.0 as usize % STRIPES].lock()
    }

    /// Records that `mapping` maps the page. Draws on `from` when the record is full. Under the
    /// pmap lock of the mapping's space.
    pub(crate) fn add(
        &self,
        frame: Frame,
        page: &Page,
        mapping: Mapping,
        from: &mut Reservation<'_, M, Chunk>,
    ) {
        let packed = pack::<M>(mapping);
        let _stripe = self.stripe(frame);
        if page.map_first.load(Ordering::Relaxed) == 0 {
            page.map_first.store(packed, Ordering::Release);
            return;
        }
        let mut at = Handle::from_raw(page.map_more.load(Ordering::Relaxed));
        while let Some(h) = at {
            let chunk = self.chunks.get(h);
            for slot in &chunk.slots {
                if slot.load(Ordering::Relaxed) == 0 {
                    slot.store(packed, Ordering::Relaxed);
                    return;
                }
            }
            at = Handle::from_raw(chunk.next.load(Ordering::Relaxed));
        }
        let new = self.chunks.alloc(from);
        let chunk = self.chunks.get(new);
        chunk.slots[0].store(packed, Ordering::Relaxed);
        chunk
            .next
            .store(page.map_more.load(Ordering::Relaxed), Ordering::Relaxed);
        page.map_more.store(new.raw(), Ordering::Release);
    }

    /// Forgets that `mapping` maps the page; false when it was not recorded. Under the pmap lock
    /// of the mapping's space.
    pub(crate) fn delete(&self, frame: Frame, page: &Page, mapping: Mapping) -> bool {
        let packed = pack::<M>(mapping);
        let _stripe = self.stripe(frame);
        if page.map_first.load(Ordering::Relaxed) == packed {
            page.map_first.store(0, Ordering::Release);
            return true;
        }
        let mut link = &page.map_more;
        while let Some(h) = Handle::from_raw(link.load(Ordering::Relaxed)) {
            let chunk = self.chunks.get(h);
            if let Some(slot) = chunk
                .slots
                .iter()
                .find(|s| s.load(Ordering::Relaxed) == packed)
            {
                slot.store(0, Ordering::Relaxed);
                if chunk.slots.iter().all(|s| s.load(Ordering::Relaxed) == 0) {
                    link.store(chunk.next.load(Ordering::Relaxed), Ordering::Release);
                    chunk.next.store(0, Ordering::Relaxed);
                    self.chunks.free(h);
                }
                return true;
            }
            link = &chunk.next;
        }
        false
    }

    /// The place after the `skip` first ones, in no order: for walks that keep every mapping.
    pub(crate) fn nth(&self, frame: Frame, page: &Page, skip: usize) -> Option<Mapping> {
        let _stripe = self.stripe(frame);
        let mut left = skip;
        let mut want = |packed: u64| {
            let m = unpack::<M>(packed)?;
            if left == 0 {
                return Some(m);
            }
            left -= 1;
            None
        };
        if let Some(m) = want(page.map_first.load(Ordering::Relaxed)) {
            return Some(m);
        }
        let mut at = Handle::from_raw(page.map_more.load(Ordering::Relaxed));
        while let Some(h) = at {
            let chunk = self.chunks.get(h);
            for slot in &chunk.slots {
                if let Some(m) = want(slot.load(Ordering::Relaxed)) {
                    return Some(m);
                }
            }
            at = Handle::from_raw(chunk.next.load(Ordering::Relaxed));
        }
        None
    }

    /// Whether `mapping` is recorded: for `check`.
    pub(crate) fn has(&self, frame: Frame, page: &Page, mapping: Mapping) -> bool {
        (0..)
            .map_while(|i| self.nth(frame, page, i))
            .any(|m| m == mapping)
    }

    /// How many mappings are recorded: for `check`.
    pub(crate) fn count(&self, frame: Frame, page: &Page) -> u64 {
        (0..).map_while(|i| self.nth(frame, page, i)).count() as u64
    }
}

#[cfg(test)]
mod tests;
