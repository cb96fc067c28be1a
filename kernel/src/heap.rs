//! The kernel's heap: one region of fixed size, given at boot.
//!
//! This file is all there is of it, so that another allocator can take its place.

use crate::locks::Flag;
use core::ptr::NonNull;
use talc::TalcLock;
use talc::source::Manual;

#[global_allocator]
static HEAP: TalcLock<Flag, Manual> = TalcLock::new(Manual);

/// Gives the heap its memory.
pub(crate) fn init(memory: NonNull<u8>, bytes: usize) {
    // SAFETY: the memory is mapped for good and nobody else's.
    let taken = unsafe { HEAP.lock().claim(memory.as_ptr(), bytes) };
    assert!(taken.is_some(), "the heap takes no memory");
}
