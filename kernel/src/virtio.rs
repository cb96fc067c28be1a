//! Virtio devices on the memory bus of QEMU's `microvm`.

use crate::dma;
use crate::layout::{direct, physical_of};
use core::ptr::NonNull;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Where the devices are, how far apart, and how many there may be.
const FIRST: u64 = 0xfeb0_0000;
const APART: u64 = 512;
const COUNT: u64 = 24;
/// The register that says what a device is, by its word.
const DEVICE_ID: usize = 2;

/// How a driver reaches a device of ours.
pub(crate) type Mmio = MmioTransport<'static>;

/// The device of a kind, if there is one.
pub(crate) fn find(kind: DeviceType) -> Option<Mmio> {
    (0..COUNT).find_map(|i| {
        let registers: NonNull<u32> = direct(FIRST + i * APART);
        // A transport resets its device when it is dropped: make none for the others.
        // SAFETY: the direct map reaches the registers, uncached; reading this one does nothing.
        let id = unsafe { registers.add(DEVICE_ID).read_volatile() };
        if id != kind as u32 {
            return None;
        }
        let header: NonNull<VirtIOHeader> = registers.cast();
        // SAFETY: as above; nobody else drives the device.
        unsafe { MmioTransport::new(header, APART as usize) }.ok()
    })
}

/// Memory for devices: see [`dma`].
pub(crate) struct KernelMemory;

// SAFETY: memory comes from a region that lies together, zeroed and aligned, and belongs to the
// driver until it gives it back; the region is in the direct map.
unsafe impl Hal for KernelMemory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let memory = dma::take(pages * PAGE_SIZE);
        (physical_of(memory.as_ptr()), memory)
    }

    unsafe fn dma_dealloc(physical: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        dma::give(physical, pages * PAGE_SIZE);
        0
    }

    unsafe fn mmio_phys_to_virt(physical: PhysAddr, _: usize) -> NonNull<u8> {
        direct(physical)
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        dma::lend(buffer, direction)
    }

    unsafe fn unshare(at: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        dma::settle(at, buffer, direction);
    }
}
