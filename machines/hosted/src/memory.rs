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
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const PAGE: PageSize = PageSize::KIB4;

/// The shortest run, in frames, whose memory goes back to the host when it is discarded: a call
/// for less costs more than it frees.
const DISCARD_RUN: u32 = 16;

/// Guest memory.
pub(crate) struct Ram {
    fd: OwnedFd,
    view: sys::View,
    frames: u32,
    /// A bit for each frame that nobody has touched since the host gave it, or will give it: it
    /// reads as zero, and costs nothing until somebody does.
    fresh: Vec<AtomicU64>,
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
        let words = frames.div_ceil(64) as usize;
        let fresh = (0..words).map(|_| AtomicU64::new(u64::MAX)).collect();
        Ok(Ram {
            fd,
            view,
            frames,
            fresh,
        })
    }

    /// Somebody is about to write to `frame`. Whether nobody had touched it before.
    fn touch(&self, frame: Frame) -> bool {
        let Some(word) = self.fresh.get(frame.0 as usize / 64) else {
            return false;
        };
        let bit = 1 << (frame.0 % 64);
        // Most frames were touched long ago: then there is nothing to write.
        word.load(Ordering::Relaxed) & bit != 0
            && word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    /// Whether nobody has touched `frame` yet.
    fn is_fresh(&self, frame: Frame) -> bool {
        let word = self.fresh.get(frame.0 as usize / 64);
        word.is_some_and(|w| w.load(Ordering::Relaxed) >> (frame.0 % 64) & 1 != 0)
    }

    /// Gives `frame`, which was fresh, the contents of the page at `bytes`. A write through the
    /// view would have the host clear the page first; a write to the file does not. Whether it did.
    fn fill(&self, frame: Frame, bytes: *const u8) -> bool {
        let offset = i64::from(frame.0) << PAGE.shift();
        // SAFETY: the caller's page is readable; the frame is not mapped by anybody yet.
        let done = unsafe { libc::pwrite(self.fd.as_raw_fd(), bytes.cast(), PAGE.len(), offset) };
        done == PAGE.len() as isize
    }

    /// Guests are about to have `run`.
    pub(crate) fn give(&self, run: FrameRun) {
        run.frames().for_each(|frame| {
            self.touch(frame);
        });
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
        // It reads as zero, and stays as it is.
        if self.is_fresh(frame) {
            return;
        }
        // SAFETY: the page lies in the view; no reference to it exists (see the module).
        unsafe { self.at(frame, 0, PAGE.len()).write_bytes(0, PAGE.len()) };
    }

    fn copy(&self, from: Frame, to: Frame) {
        let (a, b) = (self.at(from, 0, PAGE.len()), self.at(to, 0, PAGE.len()));
        if self.touch(to) && self.fill(to, a) {
            return;
        }
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
        if self.touch(frame) && buf.len() == PAGE.len() && self.fill(frame, buf.as_ptr()) {
            return;
        }
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
        self.touch(frame);
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

    fn is_zero(&self, frame: Frame) -> bool {
        self.is_fresh(frame)
    }

    fn record_memory(&self, frame: Frame) -> NonNull<u8> {
        self.touch(frame);
        NonNull::new(self.at(frame, 0, PAGE.len())).expect("a mapping is never at 0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A way to write to a frame, and its name.
    type Touch = (&'static str, fn(&Ram, Frame));

    #[test]
    fn a_copy_to_a_fresh_frame_is_whole() {
        let ram = Ram::new(1 << 20).unwrap();
        ram.write(Frame(7), 4090, &[1, 2, 3, 4, 5, 6]);
        for to in [8, 8] {
            ram.copy(Frame(7), Frame(to));
            let mut buf = [9; 8];
            ram.read(Frame(to), 4088, &mut buf);
            assert_eq!(buf, [0, 0, 1, 2, 3, 4, 5, 6]);
            ram.write(Frame(to), 4090, &[0; 6]);
        }
    }

    #[test]
    fn a_fresh_frame_costs_nothing_until_it_is_touched_and_is_cleared_from_then_on() {
        let ram = Ram::new(64 << 20).unwrap();
        let byte = |frame| {
            let mut buf = [1];
            ram.read(Frame(frame), 7, &mut buf);
            buf[0]
        };
        let given = ram.allocated_bytes();
        (0..4096).for_each(|f| ram.zero(Frame(f)));
        assert_eq!(ram.allocated_bytes(), given);
        let touches: [Touch; 5] = [
            ("write", |r, f| r.write(f, 0, &[1])),
            ("write of a page", |r, f| {
                r.write(f, 0, &[3; PAGE.len()]);
                let mut buf = [0; 2];
                r.read(f, PAGE.len() - 2, &mut buf);
                assert_eq!(buf, [3; 2]);
            }),
            ("copy", |r, f| r.copy(Frame(9000), f)),
            ("exchange", |r, f| {
                let _ = r.compare_exchange_u32(f, 0, 0, 1);
            }),
            ("given to a guest", |r, f| r.give(FrameRun::one(f))),
        ];
        for (i, (what, touch)) in touches.into_iter().enumerate() {
            let frame = Frame(8000 + i as u32);
            assert!(ram.is_zero(frame), "{what}");
            touch(&ram, frame);
            // What a guest writes goes past us.
            let p = ram.at(frame, 7, 1);
            // SAFETY: a byte of the view.
            unsafe { p.write_volatile(5) };
            assert_eq!(byte(frame.0), 5, "{what}");
            ram.zero(frame);
            assert_eq!(byte(frame.0), 0, "{what}");
        }
        // A record is written without us.
        let p = ram.record_memory(Frame(8100));
        // SAFETY: the first byte of a frame.
        unsafe { p.as_ptr().write_volatile(5) };
        ram.zero(Frame(8100));
        let mut buf = [1];
        ram.read(Frame(8100), 0, &mut buf);
        assert_eq!(buf, [0]);
    }
}
