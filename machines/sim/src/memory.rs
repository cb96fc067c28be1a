//! The contents of frames, as words that several threads may touch at once.
//!
//! A frame gets its words when it is first written, so a machine with many frames costs little.
//! The words are atomics of `core` under every checker: what is checked is the core, and the
//! contents of pages are the programs' affair.

use crate::record::RecordPage;
use crate::trace::Event;
use crate::{Sim, locks};
use bsdvm_machine::{Frame, FrameRun, Memory, PageSize};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a discarded frame holds, so that whoever counts on its old contents notices.
pub const DISCARDED: u8 = 0xdb;

/// All frames of a machine.
pub(crate) struct Frames {
    page: PageSize,
    frames: Box<[Contents]>,
}

/// One frame. The two views have nothing to do with each other: the core never uses both.
#[derive(Default)]
struct Contents {
    words: OnceLock<Box<[AtomicU32]>>,
    record: OnceLock<RecordPage>,
}

impl Frames {
    pub(crate) fn new(count: u32, page: PageSize) -> Frames {
        let frames = (0..count).map(|_| Contents::default()).collect();
        Frames { page, frames }
    }

    fn contents(&self, frame: Frame) -> &Contents {
        let found = self.frames.get(frame.0 as usize);
        found.unwrap_or_else(|| panic!("{frame:?} is none of the {} frames", self.frames.len()))
    }

    fn words(&self, frame: Frame) -> &[AtomicU32] {
        let words = &self.contents(frame).words;
        words.get_or_init(|| {
            (0..self.page.len() / 4)
                .map(|_| AtomicU32::new(0))
                .collect()
        })
    }

    /// Panics when `run` names a frame that the machine does not have.
    pub(crate) fn check(&self, run: FrameRun) {
        let end = u64::from(run.first.0) + u64::from(run.count);
        let have = self.frames.len();
        assert!(end <= have as u64, "{run:?} is not among the {have} frames");
    }

    pub(crate) fn fill(&self, frame: Frame, byte: u8) {
        let contents = self.contents(frame);
        if byte == 0 && contents.words.get().is_none() {
            return;
        }
        let word = u32::from_ne_bytes([byte; 4]);
        for w in self.words(frame) {
            w.store(word, Ordering::Release);
        }
    }

    pub(crate) fn copy(&self, from: Frame, to: Frame) {
        for (f, t) in self.words(from).iter().zip(self.words(to)) {
            t.store(f.load(Ordering::Acquire), Ordering::Release);
        }
    }

    pub(crate) fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]) {
        self.check_span(offset, buf.len());
        let words = self.words(frame);
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let (within, n) = step(at, rest.len());
            let bytes = words[at / 4].load(Ordering::Acquire).to_ne_bytes();
            let (now, later) = rest.split_at_mut(n);
            now.copy_from_slice(&bytes[within..within + n]);
            rest = later;
            at += n;
        }
    }

    pub(crate) fn write(&self, frame: Frame, offset: usize, buf: &[u8]) {
        self.check_span(offset, buf.len());
        let words = self.words(frame);
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let (within, n) = step(at, rest.len());
            let (now, later) = rest.split_at(n);
            put(&words[at / 4], within, now);
            rest = later;
            at += n;
        }
    }

    fn check_span(&self, offset: usize, len: usize) {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.page.len()),
            "{len} bytes at {offset} do not lie in one frame"
        );
    }

    fn word(&self, frame: Frame, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "word at {offset} is not aligned");
        self.check_span(offset, 4);
        &self.words(frame)[offset / 4]
    }

    fn record(&self, frame: Frame) -> NonNull<u8> {
        let record = &self.contents(frame).record;
        record.get_or_init(|| RecordPage::new(self.page)).start()
    }
}

/// Where `at` lies in its word, and how many of `left` bytes the word holds from there.
fn step(at: usize, left: usize) -> (usize, usize) {
    let within = at % 4;
    (within, (4 - within).min(left))
}

/// Replaces the bytes of `word` from `within` on, and leaves the others to whoever writes them.
fn put(word: &AtomicU32, within: usize, bytes: &[u8]) {
    let replace = |old: u32| {
        let mut new = old.to_ne_bytes();
        new[within..within + bytes.len()].copy_from_slice(bytes);
        u32::from_ne_bytes(new)
    };
    if bytes.len() == 4 {
        word.store(replace(0), Ordering::Release);
    } else {
        // The closure never refuses, so neither does the update.
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
            Some(replace(old))
        });
    }
}

impl<const SHIFT: u32> Memory for Sim<SHIFT> {
    fn frames(&self) -> u32 {
        self.shared.memory.frames.len() as u32
    }

    fn zero(&self, frame: Frame) {
        locks::switch_point();
        self.shared.trace.add(|| Event::Zero { frame });
        self.shared.memory.contents(frame);
        self.shared.memory.fill(frame, 0);
    }

    fn copy(&self, from: Frame, to: Frame) {
        locks::switch_point();
        self.shared.trace.add(|| Event::Copy { from, to });
        self.shared.memory.copy(from, to);
    }

    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]) {
        locks::switch_point();
        self.shared.memory.read(frame, offset, buf);
    }

    fn write(&self, frame: Frame, offset: usize, buf: &[u8]) {
        locks::switch_point();
        self.shared.memory.write(frame, offset, buf);
    }

    fn load_u32(&self, frame: Frame, offset: usize) -> u32 {
        locks::switch_point();
        let word = self.shared.memory.word(frame, offset);
        word.load(Ordering::SeqCst)
    }

    fn compare_exchange_u32(
        &self,
        frame: Frame,
        offset: usize,
        old: u32,
        new: u32,
    ) -> Result<u32, u32> {
        locks::switch_point();
        let word = self.shared.memory.word(frame, offset);
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    /// Fills the frames with [`DISCARDED`] where they have contents at all.
    fn discard(&self, run: FrameRun) {
        self.shared.memory.check(run);
        for frame in run.frames() {
            if self.shared.memory.contents(frame).words.get().is_some() {
                self.shared.memory.fill(frame, DISCARDED);
            }
        }
    }

    fn record_memory(&self, frame: Frame) -> NonNull<u8> {
        self.shared.memory.record(frame)
    }
}
