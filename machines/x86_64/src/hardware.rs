//! What the page tables stand on.

use crate::entry::Entry;
use crate::flush::Flushes;
use bsdvm_machine::Frame;

/// How to reach the memory of a table, and how to make processors forget.
///
/// A handle: clones stand for the same machine. The processor's page walker works on the same
/// entries at the same time, so each access is one atomic 64-bit access; [`Hardware::swap`] and
/// [`Hardware::compare_exchange`] are in order with all others of the same entry.
///
/// `index` is below [`crate::ENTRIES`], and `frame` one that the caller donated to a pmap.
pub trait Hardware: Clone + Send + Sync + 'static {
    /// Reads an entry.
    fn load(&self, table: Frame, index: usize) -> Entry;

    /// Writes an entry that no processor can have in use.
    fn store(&self, table: Frame, index: usize, entry: Entry);

    /// Replaces an entry and gives back what it was.
    fn swap(&self, table: Frame, index: usize, entry: Entry) -> Entry;

    /// Replaces an entry if it is `old`. Errors: what it is.
    fn compare_exchange(
        &self,
        table: Frame,
        index: usize,
        old: Entry,
        new: Entry,
    ) -> Result<(), Entry>;

    /// Makes every processor forget what `work` names, and waits until they have. Called with no
    /// lock held. Where `work` says so, that goes for remembered tables too, and a processor that
    /// has a root loaded which is gone loads the kernel's.
    fn flush(&self, work: &Flushes);

    /// The root whose upper half every user root shares; `None` where there is no kernel half.
    fn kernel_root(&self) -> Option<Frame> {
        None
    }

    /// The physical address of a frame.
    fn physical(&self, frame: Frame) -> u64 {
        u64::from(frame.0) << crate::PAGE.shift()
    }

    /// The frame at a physical address that [`Hardware::physical`] gave.
    fn frame(&self, physical: u64) -> Frame {
        Frame((physical >> crate::PAGE.shift()) as u32)
    }

    /// Replaces an entry by what `change` makes of it, in one piece; `None` leaves it. Gives back
    /// what it was and what it is.
    fn update(
        &self,
        table: Frame,
        index: usize,
        change: impl Fn(Entry) -> Option<Entry>,
    ) -> (Entry, Entry) {
        let mut old = self.load(table, index);
        loop {
            let Some(new) = change(old) else {
                return (old, old);
            };
            match self.compare_exchange(table, index, old, new) {
                Ok(()) => return (old, new),
                Err(now) => old = now,
            }
        }
    }
}
