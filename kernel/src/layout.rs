//! The address map of the kernel's half, and the way between virtual and physical.
//!
//! ```text
//!  ffff_8000_0000_0000  direct map: all of physical memory, 512 GiB       (root entry 256)
//!  ffff_9000_0000_0000  kernel memory: 64 GiB for the core's kernel maps  (root entry 288)
//!  ffff_ffff_8000_0000  the kernel's image                               (root entry 511)
//! ```
//!
//! Devices are reached through the direct map, uncached. Everything else in the upper half is
//! empty. The lower half belongs to programs.

use bsdvm::{VirtAddr, VirtRange};
use core::ptr::NonNull;

/// Where the direct map begins.
pub(crate) const DIRECT: u64 = 0xffff_8000_0000_0000;
/// How much the direct map can hold, in bytes: one entry of the root.
pub(crate) const DIRECT_BYTES: u64 = 512 << 30;
/// The addresses that the core manages for the kernel, in one entry of the root.
pub(crate) const KERNEL: VirtRange =
    match VirtRange::from_len(VirtAddr(0xffff_9000_0000_0000), 64 << 30) {
        Some(range) => range,
        None => panic!("a range that wraps"),
    };
/// Where the image is linked: -2 GiB.
pub(crate) const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// Where a physical address is in the direct map.
pub(crate) fn direct<T>(physical: u64) -> NonNull<T> {
    assert!(
        physical < DIRECT_BYTES,
        "{physical:#x} is past the direct map"
    );
    let address = (DIRECT + physical) as usize;
    NonNull::with_exposed_provenance(
        core::num::NonZeroUsize::new(address).unwrap_or(core::num::NonZeroUsize::MAX),
    )
}

/// Where a physical address of the first GiB is, before there is a direct map.
pub(crate) fn early<T>(physical: u64) -> *mut T {
    assert!(
        physical < 1 << 30,
        "{physical:#x} is past the first mapping"
    );
    core::ptr::with_exposed_provenance_mut((IMAGE + physical) as usize)
}

/// The physical address of something in the direct map or in the image.
pub(crate) fn physical_of<T: ?Sized>(pointer: *const T) -> u64 {
    let address = pointer.cast::<u8>().expose_provenance() as u64;
    if address >= IMAGE {
        address - IMAGE
    } else {
        assert!(
            (DIRECT..DIRECT + DIRECT_BYTES).contains(&address),
            "{address:#x} is not the kernel's"
        );
        address - DIRECT
    }
}
