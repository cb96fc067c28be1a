//! Virtio devices on the memory bus of QEMU's `microvm`.

use crate::layout::{direct, physical_of};
use crate::memory::device_address;
use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
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

/// Memory for devices: the kernel's own, which lies together in physical memory, too.
pub(crate) struct KernelMemory;

fn layout(pages: usize) -> Layout {
    match Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE) {
        Ok(layout) => layout,
        Err(_) => panic!("{pages} pages for a device"),
    }
}

// SAFETY: memory comes from the heap, zeroed and aligned, and belongs to the driver until it
// gives it back; all of the heap is in the direct map.
unsafe impl Hal for KernelMemory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc_zeroed(layout(pages.max(1))) };
        let Some(memory) = NonNull::new(memory) else {
            panic!("no memory for a device");
        };
        (physical_of(memory.as_ptr()), memory)
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: it came from `dma_alloc` with as many pages.
        unsafe { dealloc(memory.as_ptr(), layout(pages.max(1))) };
        0
    }

    unsafe fn mmio_phys_to_virt(physical: PhysAddr, _: usize) -> NonNull<u8> {
        direct(physical)
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        device_address(buffer)
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
