//! What each processor remembers, and the use of memory through it.
//!
//! A translation lookaside buffer keeps every translation it has used until a flush takes it
//! away. So an access may go through a translation that its pmap lost long ago, as on hardware.
//! Like hardware, a processor that finds its translation too weak looks at the table again before
//! it faults, and so does a store through a translation that no store went through before: that
//! is where the table learns that the page was modified.

use crate::pmap::Inner;
use crate::{Shared, Sim, SimPmap, locks};
use bsdvm_machine::{Access, Frame, FrameRun, Prot, Usage, VirtAddr};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Why an access did not happen: what a trap would say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimFault {
    /// The first byte that could not be reached.
    pub va: VirtAddr,
    /// What was tried.
    pub access: Access,
    /// Whether there was a translation, which did not allow it.
    pub present: bool,
}

/// One translation as a processor remembers it.
#[derive(Clone, Copy)]
struct Entry {
    frame: Frame,
    prot: Prot,
    /// A store went through it, so the table knows that the page was modified.
    dirty: bool,
}

/// The memory of one processor, by pmap and page number.
#[derive(Default)]
pub(crate) struct Tlb {
    entries: BTreeMap<(u64, u64), Entry>,
}

impl Tlb {
    pub(crate) fn forget(&mut self, pmap: u64, pages: Range<u64>) {
        let keys = (pmap, pages.start)..(pmap, pages.end);
        let gone: Vec<_> = self.entries.range(keys).map(|(k, _)| *k).collect();
        for key in gone {
            self.entries.remove(&key);
        }
    }

    /// The frame to use for `access` to page number `page`. Errors: whether a translation was
    /// there.
    fn translate(&mut self, pmap: &Inner, page: u64, access: Access) -> Result<Frame, bool> {
        let key = (pmap.id, page);
        let store = access == Access::Write;
        if let Some(e) = self.entries.get(&key)
            && e.prot.allows(access)
            && (e.dirty || !store)
        {
            return Ok(e.frame);
        }
        self.entries.remove(&key);
        let usage = match store {
            true => Usage::REFERENCED | Usage::MODIFIED,
            false => Usage::REFERENCED,
        };
        let pte = pmap.walk(page, access, usage)?;
        let entry = Entry {
            frame: pte.frame,
            prot: pte.prot,
            dirty: pte.usage.contains(Usage::MODIFIED),
        };
        self.entries.insert(key, entry);
        Ok(entry.frame)
    }
}

impl<const SHIFT: u32> Sim<SHIFT> {
    /// Loads `buf.len()` bytes from `va` on, as an instruction on processor `cpu` does with the
    /// address space of `pmap`.
    ///
    /// Errors: the fault at the first byte that cannot be reached. Bytes before it were loaded.
    pub fn load(
        &self,
        pmap: &SimPmap,
        cpu: usize,
        va: VirtAddr,
        buf: &mut [u8],
    ) -> Result<(), SimFault> {
        let mut done = 0;
        let len = buf.len();
        self.walk_pages(pmap, cpu, va, len, Access::Read, &mut |frame, at, n| {
            let memory = &self.shared.memory;
            memory.read(frame, at, &mut buf[done..done + n]);
            done += n;
        })
    }

    /// Stores `buf` from `va` on. See [`Sim::load`].
    ///
    /// Errors: the fault at the first byte that cannot be reached. Bytes before it were stored.
    pub fn store(
        &self,
        pmap: &SimPmap,
        cpu: usize,
        va: VirtAddr,
        buf: &[u8],
    ) -> Result<(), SimFault> {
        let mut done = 0;
        let len = buf.len();
        self.walk_pages(pmap, cpu, va, len, Access::Write, &mut |frame, at, n| {
            let memory = &self.shared.memory;
            memory.write(frame, at, &buf[done..done + n]);
            done += n;
        })
    }

    /// Fetches the byte at `va` as an instruction. See [`Sim::load`].
    ///
    /// Errors: the fault.
    pub fn fetch(&self, pmap: &SimPmap, cpu: usize, va: VirtAddr) -> Result<u8, SimFault> {
        let mut byte = [0];
        self.walk_pages(pmap, cpu, va, 1, Access::Execute, &mut |frame, at, _| {
            self.shared.memory.read(frame, at, &mut byte);
        })?;
        Ok(byte[0])
    }

    fn walk_pages(
        &self,
        pmap: &SimPmap,
        cpu: usize,
        va: VirtAddr,
        len: usize,
        access: Access,
        body: &mut dyn FnMut(Frame, usize, usize),
    ) -> Result<(), SimFault> {
        let page = self.shared.page;
        let (mut at, mut left) = (va, len);
        while left > 0 {
            locks::switch_point();
            let within = page.within(at.0);
            let n = left.min(page.len() - within);
            let fault = |present| SimFault {
                va: at,
                access,
                present,
            };
            {
                // Held over the access itself: a flush waits for the accesses under way.
                let mut tlb = self.shared.tlbs[cpu].lock();
                let frame = tlb.translate(pmap.inner(), page.index(at.0), access);
                body(frame.map_err(fault)?, within, n);
            }
            left -= n;
            at = match at.checked_add(n as u64) {
                Some(next) => next,
                None if left == 0 => at,
                None => return Err(fault(false)),
            };
        }
        Ok(())
    }

    /// The frames that a processor can still reach through a translation which its pmap has no
    /// more, or allows less of; in ascending order, each once. A core that gives such a frame
    /// another use has not waited for its flush.
    pub fn stale_frames(&self) -> Vec<Frame> {
        stale(&self.shared)
    }

    /// Panics when a processor can still reach `frame` through a stale translation: call it where
    /// a frame is given another use.
    pub fn assert_no_stale(&self, frame: Frame) {
        let stale = self.stale_frames();
        assert!(
            !stale.contains(&frame),
            "{frame:?} is still reached through a stale translation"
        );
    }

    /// Panics when a processor can still reach a frame of `run` through any translation, stale or
    /// not: call it where a frame is freed.
    pub fn assert_unreachable(&self, run: FrameRun) {
        for (cpu, tlb) in self.shared.tlbs.iter().enumerate() {
            for ((pmap, page), e) in &tlb.lock().entries {
                let va = VirtAddr(page << self.shared.page.shift());
                assert!(
                    !run.contains(e.frame),
                    "processor {cpu} still reaches {:?} at {va:?} of pmap {pmap}",
                    e.frame
                );
            }
        }
        for inner in live_pmaps(&self.shared) {
            let found = inner.find_frame(run);
            assert!(
                found.is_none(),
                "pmap {} still maps {run:?}: {found:?}",
                inner.id
            );
        }
    }
}

fn live_pmaps(shared: &Shared) -> Vec<Arc<Inner>> {
    let pmaps = shared.pmaps.lock();
    pmaps.values().filter_map(|weak| weak.upgrade()).collect()
}

fn stale(shared: &Shared) -> Vec<Frame> {
    let pmaps: BTreeMap<u64, Arc<Inner>> =
        live_pmaps(shared).into_iter().map(|p| (p.id, p)).collect();
    let mut found = Vec::new();
    for tlb in &shared.tlbs {
        for ((id, page), e) in &tlb.lock().entries {
            let pte = pmaps.get(id).and_then(|p| p.peek(*page));
            let good = pte.is_some_and(|pte| pte.frame == e.frame && pte.prot.contains(e.prot));
            if !good {
                found.push(e.frame);
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
