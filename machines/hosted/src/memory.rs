//! RAM: a file in memory, mapped whole into this process as the flat view.
//!
//! Guests map frames of the same file, so they may change a frame while we read it, as another
//! processor may on a real machine. We copy bytes through raw pointers and never make a reference
//! to a frame; a racing copy gives some mixture of old and new bytes, and nothing depends on which.

use crate::error::HostedError;
use crate::sys;
use bsdvm_machine::{Frame, FrameRun, Memory, PageSize};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

const PAGE: PageSize = PageSize::KIB4;

/// The shortest run, in frames, whose memory goes back to the host when it is discarded: a call
/// for less costs more than it frees.
const DISCARD_RUN: u32 = 16;

/// Guest memory.
pub(crate) struct Ram {
    fd: OwnedFd,
    view: sys::View,
    frames: u32,
}

impl Ram {
    /// `bytes` of memory, all zero.
    pub(crate) fn new(bytes: u64) -> Result<Ram, HostedError> {
        let frames = u32::try_from(PAGE.index(bytes)).unwrap_or(0);
        if frames == 0 || PAGE.within(bytes) != 0 {
            return Err(HostedError::BadSize(bytes));
        }
        let fd = sys::memory_file(c"bsdvm-ram", bytes)?;
        let view = sys::View::new(&fd, bytes)?;
        Ok(Ram { fd, view, frames })
    }

    /// The file.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// What the host has given so far, in bytes.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        // SAFETY: an all-zero stat is valid.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is ours, `stat` is ours.
        unsafe { libc::fstat(self.fd.as_raw_fd(), &mut stat) };
        stat.st_blocks as u64 * 512
    }

    /// The address of `bytes` bytes at `offset` of `frame`, which lie in the frame (asserted).
    fn at(&self, frame: Frame, offset: usize, bytes: usize) -> *mut u8 {
        assert!(frame.0 < self.frames, "{frame:?} is no frame");
        let end = offset.checked_add(bytes);
        assert!(end.is_some_and(|e| e <= PAGE.len()), "past the frame's end");
        let page = self.view.at(u64::from(frame.0) << PAGE.shift());
        // SAFETY: the offset lies in the page or just past it, the page in the view.
        unsafe { page.add(offset) }
    }

    fn word(&self, frame: Frame, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4));
        let p = self.at(frame, offset, 4);
        // SAFETY: the place is aligned and mapped as long as `self`. Words that are used as such
        // are only accessed by atomics while they are; a guest's accesses come from another
        // process, like a device's.
        unsafe { AtomicU32::from_ptr(p.cast()) }
    }
}

impl Memory for Ram {
    fn frames(&self) -> u32 {
        self.frames
    }

    fn zero(&self, frame: Frame) {
        // SAFETY: the page lies in the view; no reference to it exists (see the module).
        unsafe { self.at(frame, 0, PAGE.len()).write_bytes(0, PAGE.len()) };
    }

    fn copy(&self, from: Frame, to: Frame) {
        let (a, b) = (self.at(from, 0, PAGE.len()), self.at(to, 0, PAGE.len()));
        // SAFETY: both pages lie in the view; `ptr::copy` allows them to be the same.
        unsafe { std::ptr::copy(a, b, PAGE.len()) };
    }

    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]) {
        let p = self.at(frame, offset, buf.len());
        // SAFETY: the bytes lie in the frame; `buf` is ours alone and thus elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(p, buf.as_mut_ptr(), buf.len()) };
    }

    fn write(&self, frame: Frame, offset: usize, buf: &[u8]) {
        let p = self.at(frame, offset, buf.len());
        // SAFETY: the bytes lie in the frame, of which no reference exists, so `buf` is elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(buf.as_ptr(), p, buf.len()) };
    }

    fn load_u32(&self, frame: Frame, offset: usize) -> u32 {
        self.word(frame, offset).load(Ordering::SeqCst)
    }

    fn compare_exchange_u32(
        &self,
        frame: Frame,
        offset: usize,
        old: u32,
        new: u32,
    ) -> Result<u32, u32> {
        let word = self.word(frame, offset);
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    fn discard(&self, run: FrameRun) {
        let end = u64::from(run.first.0) + u64::from(run.count);
        if run.count < DISCARD_RUN || end > u64::from(self.frames) {
            return;
        }
        // SAFETY: no pointer is passed; the frames are free, so nobody counts on their bytes.
        unsafe {
            libc::fallocate(
                self.fd.as_raw_fd(),
                libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                i64::from(run.first.0) << PAGE.shift(),
                i64::from(run.count) << PAGE.shift(),
            )
        };
    }

    fn record_memory(&self, frame: Frame) -> NonNull<u8> {
        NonNull::new(self.at(frame, 0, PAGE.len())).expect("a mapping is never at 0")
    }
}
