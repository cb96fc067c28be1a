//! Memory for the core's own records: the one place of the simulated machine with pointers.
//!
//! A frame that holds records has its bytes in an allocation of its own, so that a stray pointer
//! of the core is a stray pointer to Miri and to the address sanitizer as well.

#![allow(unsafe_code)]

use bsdvm_machine::PageSize;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// One page of zeroes at a fixed address, aligned to its size.
pub(crate) struct RecordPage {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the page is plain bytes and belongs to no thread; this type only allocates and frees it,
// and whoever asks for its address answers for what is done there.
unsafe impl Send for RecordPage {}
// SAFETY: as above; a shared reference gives nothing but the address.
unsafe impl Sync for RecordPage {}

impl RecordPage {
    pub(crate) fn new(page: PageSize) -> RecordPage {
        let layout = match Layout::from_size_align(page.len(), page.len()) {
            Ok(layout) => layout,
            Err(_) => unreachable!("a page size is a power of two far below the address space"),
        };
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => RecordPage { start, layout },
            None => handle_alloc_error(layout),
        }
    }

    /// The first byte. Valid for as long as the page lives.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for RecordPage {
    fn drop(&mut self) {
        // SAFETY: `new` allocated the page with this layout, and nothing else frees it. The core
        // reaches its records through the machine only, which drops its frames last.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}
