//! Where the pages of an object come from and go to.
//!
//! A pager is `(&'static dyn PagerOps, cookie)`: an open set, no allocation. The core calls it
//! with no lock held; the pages concerned are busy meanwhile. A pager may itself fault.
//!
//! | object | pages | where they come from | where they go |
//! |---|---|---|---|
//! | default, swap | its own | zero-filled | swap, from the first page-out on |
//! | vnode | its own | the pager, [`PagerOps::get`] | the pager, [`PagerOps::put`] |
//! | physical | its own, wired | zero-filled | nowhere, while it lives |
//! | device | none: frames beyond those of the VM | [`PagerOps::device`] | |
//! | managed device | none: wired frames of the VM | [`PagerOps::device`] | |
//!
//! A device has no pages, so nothing of it is paged out, counted as resident, or copied at fork:
//! it can only be shared. Its translations alone are the core's. For a managed device it records
//! who maps a frame, so they go when the frame does; those of a device go with their entries, or
//! by [`crate::Object::revoke`], which looks at every entry of every space. It is rare, and a
//! record for frames that have none would cost each fault.

mod swap;

use bsdvm_machine::{Frame, MemoryAttr};
use core::fmt;
pub(crate) use swap::{CLUSTER, SlotRun, Swap};
pub use swap::{SwapDevice, SwapError};

/// Why a pager could not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PagerError {
    /// The device or file failed. The number is the pager's own (an error number, for example).
    Io(i32),
    /// There is no room to write the page.
    NoSpace,
    /// A device gave a frame that its object may not show.
    BadFrame,
}

/// What a device shows at one page (O01).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DevicePage {
    /// The frame: for a device, one that is not the VM's; for a managed device, one that the VM
    /// has and that is wired.
    pub frame: Frame,
    /// How processors are to treat it.
    pub attr: MemoryAttr,
}

/// The bytes of one page, as a pager sees them.
#[allow(clippy::len_without_is_empty, reason = "a page is never empty")]
pub trait PageBytes {
    /// The size of the page in bytes.
    fn len(&self) -> usize;
    /// Reads `buf.len()` bytes at `offset`.
    fn read(&self, offset: usize, buf: &mut [u8]);
    /// Writes `buf` at `offset`.
    fn write(&mut self, offset: usize, buf: &[u8]);
}

/// What a pager does. Offsets are in bytes from the start of the object and aligned to pages.
pub trait PagerOps: Sync {
    /// Fills the pages in `pages`, the first of which starts at byte `offset` of the object, the
    /// others following on. A page that reaches beyond the end of what the pager has is filled
    /// with zeroes from there: they arrive zeroed. Gives back how many pages, from the first, are
    /// now valid: at least 1, or an error.
    fn get(
        &self,
        cookie: u64,
        offset: u64,
        pages: &mut [&mut dyn PageBytes],
    ) -> Result<usize, PagerError>;

    /// Writes the first `len` bytes of the page at byte `offset`; `len` is less than a page only
    /// at the end of the object.
    fn put(
        &self,
        cookie: u64,
        offset: u64,
        page: &dyn PageBytes,
        len: usize,
    ) -> Result<(), PagerError>;

    /// The frame that a device shows at byte `offset` (O01). Asked at each fault: the core keeps
    /// the translation, not the answer. Objects that are no devices are never asked.
    ///
    /// Errors: what the fault is to fail with.
    fn device(&self, cookie: u64, offset: u64) -> Result<DevicePage, PagerError> {
        let _ = (cookie, offset);
        Err(PagerError::BadFrame)
    }

    /// The object is gone: no call with this cookie follows.
    fn closed(&self, cookie: u64) {
        let _ = cookie;
    }
}

/// A pager and which of its things it pages.
#[derive(Clone, Copy)]
pub struct Pager {
    /// What to call.
    pub ops: &'static dyn PagerOps,
    /// Which of the pager's things is meant: the pager's own number.
    pub cookie: u64,
}

impl fmt::Debug for Pager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pager({:#x})", self.cookie)
    }
}
