//! Memory that devices reach: one region of adjacent memory from boot, given out in pages.
//!
//! The heap's pages lie anywhere in physical memory, and a driver names a buffer by one address:
//! a buffer that does not lie together is copied through here.

use crate::layout::{direct, physical_of};
use crate::locks::SpinLock;
use crate::memory;
use bsdvm_x86_64::PAGE;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use virtio_drivers::{BufferDirection, PhysAddr};

/// The size of the region, in bytes and pages.
pub(crate) const BYTES: u64 = 2 << 20;
const PAGES: usize = BYTES as usize / PAGE.len();

/// The physical address of the region.
static START: AtomicU64 = AtomicU64::new(0);
static TAKEN: SpinLock<[bool; PAGES]> = SpinLock::new([false; PAGES]);

/// Says where the region is.
pub(crate) fn init(physical: u64) {
    START.store(physical, Ordering::Relaxed);
}

/// Memory for a device, zeroed.
///
/// Panics when the region is used up: drivers need it to go on.
pub(crate) fn take(bytes: usize) -> NonNull<u8> {
    let pages = bytes.div_ceil(PAGE.len()).max(1);
    let mut taken = TAKEN.lock();
    let at = taken.windows(pages).position(|run| !run.contains(&true));
    let Some(at) = at else {
        panic!("no memory for a device: {bytes} bytes");
    };
    taken[at..at + pages].fill(true);
    let offset = (at * PAGE.len()) as u64;
    let memory: NonNull<u8> = direct(START.load(Ordering::Relaxed) + offset);
    // SAFETY: pages of the region that nobody else has.
    unsafe { memory.write_bytes(0, pages * PAGE.len()) };
    memory
}

/// A buffer for a device that is never given back.
pub(crate) fn buffer(bytes: usize) -> &'static mut [u8] {
    // SAFETY: nobody else has it, it is zeroed, and stays.
    unsafe { core::slice::from_raw_parts_mut(take(bytes).as_ptr(), bytes) }
}

/// Takes back what [`take`] gave, by its physical address.
pub(crate) fn give(physical: PhysAddr, bytes: usize) {
    let pages = bytes.div_ceil(PAGE.len()).max(1);
    let at = PAGE.index(physical - START.load(Ordering::Relaxed)) as usize;
    TAKEN.lock()[at..at + pages].fill(false);
}

/// The physical address by which a device reaches `buffer`, or a copy of it.
pub(crate) fn lend(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
    if let Some(physical) = memory::together(buffer) {
        return physical;
    }
    let copy = take(buffer.len());
    if direction != BufferDirection::DeviceToDriver {
        // SAFETY: the copy is as long as the buffer, and elsewhere.
        unsafe { buffer.cast().copy_to_nonoverlapping(copy, buffer.len()) };
    }
    physical_of(copy.as_ptr())
}

/// The device is done with what was lent: a copy is brought back.
pub(crate) fn settle(physical: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
    if memory::together(buffer) == Some(physical) {
        return;
    }
    if direction != BufferDirection::DriverToDevice {
        let copy: NonNull<u8> = direct(physical);
        // SAFETY: the copy is as long as the buffer, and elsewhere.
        unsafe { copy.copy_to_nonoverlapping(buffer.cast(), buffer.len()) };
    }
    give(physical, buffer.len());
}
