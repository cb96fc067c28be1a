//! The contents of physical frames.
//!
//! The core never dereferences a pointer to a page: it names a frame, and the machine reads,
//! writes, clears or copies it. The one exception is [`Memory::record_memory`], which the core's
//! slabs live in.

use crate::addr::{Frame, FrameRun};
use core::ptr::NonNull;

/// Frames and their contents.
///
/// Frames are numbered from 0 to [`Memory::frames`] less one. Offsets and lengths are in bytes
/// and lie within one frame; a machine may panic where they do not, since no number from outside
/// reaches it unchecked.
pub trait Memory {
    /// The number of frames that the core may use, all numbered from 0.
    fn frames(&self) -> u32;

    /// Fills a frame with zeroes.
    fn zero(&self, frame: Frame);

    /// Copies all of `from` to `to`.
    fn copy(&self, from: Frame, to: Frame);

    /// Reads `buf.len()` bytes at `offset` of a frame.
    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]);

    /// Writes `buf` at `offset` of a frame.
    fn write(&self, frame: Frame, offset: usize, buf: &[u8]);

    /// Reads the aligned 32-bit word at `offset` of a frame in one piece, in order with every
    /// other access to it.
    fn load_u32(&self, frame: Frame, offset: usize) -> u32;

    /// Replaces the aligned 32-bit word at `offset` of a frame by `new` if it is `old`, in one
    /// piece. Gives back `Ok(old)` if it was, `Err` with what it is otherwise.
    fn compare_exchange_u32(
        &self,
        frame: Frame,
        offset: usize,
        old: u32,
        new: u32,
    ) -> Result<u32, u32>;

    /// The frames of `run` are free and their contents may be dropped. A hint.
    fn discard(&self, run: FrameRun) {
        let _ = run;
    }

    /// Whether the machine knows that every byte of `frame` is zero, as in memory that nobody has
    /// touched yet. The core then leaves its table of pages there as it finds it.
    fn is_zero(&self, frame: Frame) -> bool {
        let _ = frame;
        false
    }

    /// Where the machine itself can reach the bytes of `frame`: at least a page, aligned to a
    /// page, valid and at the same place for as long as the machine lives.
    ///
    /// The core calls this only for frames that hold its own records; such a frame is never
    /// mapped in a pmap and never passed to the other methods until it is given back.
    fn record_memory(&self, frame: Frame) -> NonNull<u8>;
}
