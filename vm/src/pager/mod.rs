//! Where the pages of an object come from and go to.
//!
//! A pager is `(&'static dyn PagerOps, cookie)`: an open set, no allocation. The core calls it
//! with no lock held; the pages concerned are busy meanwhile. A pager may itself fault.

mod swap;

use core::fmt;
pub(crate) use swap::Swap;
pub use swap::{SwapDevice, SwapError};

/// Why a pager could not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PagerError {
    /// The device or file failed. The number is the pager's own (an error number, for example).
    Io(i32),
    /// There is no room to write the page.
    NoSpace,
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
