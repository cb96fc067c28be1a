//! The work that a change of translations leaves behind.

use crate::locks;
use crate::pmap::Inner;
use crate::trace::Event;
use bsdvm_machine::{Flush, VirtAddr, VirtRange};
use std::sync::Arc;

/// Pages that processors must forget before their frames are used for anything else.
///
/// To drop one with work left panics: whoever made it forgot to wait.
#[must_use = "a frame may be reused only after the flush has been waited for"]
#[derive(Default)]
pub struct SimFlush {
    work: Vec<Work>,
}

/// Pages `first..end`, by number, of one pmap.
struct Work {
    pmap: Arc<Inner>,
    first: u64,
    end: u64,
}

impl SimFlush {
    /// Adds page number `page`. Pages that follow each other make one piece of work.
    pub(crate) fn add(&mut self, pmap: &Arc<Inner>, page: u64) {
        match self.work.last_mut() {
            Some(w) if Arc::ptr_eq(&w.pmap, pmap) && w.end == page => w.end += 1,
            _ => self.work.push(Work {
                pmap: pmap.clone(),
                first: page,
                end: page + 1,
            }),
        }
    }
}

impl Flush for SimFlush {
    fn join(&mut self, mut other: SimFlush) {
        self.work.append(&mut other.work);
    }

    /// Panics in debug builds when the caller holds a lock of the core.
    fn wait(mut self) {
        if self.work.is_empty() {
            return;
        }
        locks::assert_none_held();
        locks::switch_point();
        for w in std::mem::take(&mut self.work) {
            let shared = &w.pmap.shared;
            for tlb in &shared.tlbs {
                // The lock is held over each access, so none is under way after this.
                tlb.lock().forget(w.pmap.id, w.first..w.end);
            }
            shared.trace.add(|| Event::Flush {
                pmap: w.pmap.id,
                range: range(&w),
            });
        }
    }

    fn is_done(&self) -> bool {
        self.work.is_empty()
    }
}

fn range(w: &Work) -> VirtRange {
    let shift = w.pmap.shared.page.shift();
    let (start, end) = (VirtAddr(w.first << shift), VirtAddr(w.end << shift));
    VirtRange::new(start, end).unwrap_or_default()
}

impl Drop for SimFlush {
    fn drop(&mut self) {
        if let Some(w) = self.work.first()
            && !std::thread::panicking()
        {
            let (id, range) = (w.pmap.id, range(w));
            panic!("a flush of pmap {id} {range:?} was dropped: nobody waited for it");
        }
    }
}
