//! The pmap of the hosted machine.
//!
//! Its table is the truth; what the stub has mapped is a second-level cache of it. A translation
//! that the cache lacks is mapped again when the stub faults for it, and the core never hears of
//! that.
//!
//! Referenced and modified bits are kept in software, since the host's cannot be read. `enter`
//! sets both at once (modified only for a writable translation): a page is entered because it is
//! about to be used. [`Pmap::take_usage`] lowers what the stub has mapped, so that the next use
//! is seen.

use crate::engine::Engine;
use crate::flush::HostedFlush;
use crate::orders::{Decided, Order};
use crate::space::{Guard, Space, State};
use crate::table::{Pte, Visit};
use bsdvm_machine::{
    Access, EnterError, Frame, FrameRun, Kind, MemoryAttr, PageSize, Pmap, Prot, Removed,
    Translation, Usage, VirtAddr, VirtRange,
};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

const PAGE: PageSize = PageSize::KIB4;

/// Pages that are mapped around a fault for a translation that the stub lacks, at most on each
/// side: orders cost little more for a run than for a page.
const AROUND: u64 = 16;

/// The translations of one address space, and the stub process that they are for.
///
/// The stub comes with the first [`crate::GuestThread`] and ends with the last one, or with the
/// pmap. Callbacks that a method is given run under the pmap's lock: they must not call it.
#[derive(Clone)]
pub struct HostedPmap {
    pub(crate) space: Arc<Space>,
    donated: Arc<Mutex<Vec<Frame>>>,
    _life: Arc<Life>,
}

/// Closes the space when the last copy of its pmap goes.
struct Life(Arc<Space>);

impl Drop for Life {
    fn drop(&mut self) {
        let mut st = self.0.lock();
        st.closed = true;
        self.0.lost(&mut st);
    }
}

impl std::fmt::Debug for HostedPmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let st = self.space.lock();
        f.debug_struct("HostedPmap")
            .field("resident", &st.table.resident())
            .field("threads", &st.members.len())
            .finish_non_exhaustive()
    }
}

impl HostedPmap {
    /// An empty pmap.
    pub(crate) fn new(engine: Arc<Engine>) -> HostedPmap {
        let space = Space::new(engine);
        HostedPmap {
            _life: Arc::new(Life(space.clone())),
            space,
            donated: Arc::default(),
        }
    }

    /// What is to be waited for after order `last`, which took something away.
    fn flush(&self, st: &State, last: Option<Decided>) -> HostedFlush {
        match last {
            Some(decided) if st.running > 0 => HostedFlush::of(self.space.clone(), decided),
            _ => HostedFlush::default(),
        }
    }
}

/// The numbers of the pages of `range`.
fn pages(range: VirtRange) -> Range<u64> {
    PAGE.index(range.start().0)..PAGE.index(range.end().0)
}

impl Pmap for HostedPmap {
    type Flush = HostedFlush;

    fn enter(
        &self,
        va: VirtAddr,
        run: FrameRun,
        prot: Prot,
        _attr: MemoryAttr, // the host decides how its memory is cached
        kind: Kind,
        replaced: &mut dyn FnMut(Removed),
    ) -> Result<HostedFlush, EnterError> {
        let engine = &self.space.engine;
        let range = VirtRange::from_len(va, u64::from(run.count) << PAGE.shift())
            .filter(|r| PAGE.is_aligned_range(*r) && engine.usable(*r))
            .ok_or(EnterError::BadAddress)?;
        engine.ram.give(run);
        let mut st = self.space.lock();
        let host = match st.process {
            Some(_) => prot,
            None => Prot::NONE,
        };
        let entered = Entered { prot, host, kind };
        let change = entered.put(&mut st, pages(range), run, replaced);
        if change == Change::None {
            return Ok(HostedFlush::default());
        }
        let (page, count, frame) = (PAGE.index(va.0), u64::from(run.count), run.first.0);
        let order = match host {
            Prot::NONE => Order::Unmap { page, pages: count },
            _ => Order::Map {
                page,
                pages: count,
                frame,
                prot,
            },
        };
        let last = self.space.order(&mut st, order);
        Ok(self.flush(&st, last.filter(|_| change == Change::Lowered)))
    }

    fn remove(&self, range: VirtRange, gone: &mut dyn FnMut(Removed)) -> HostedFlush {
        let mut st = self.space.lock();
        let mut hull: Option<Range<u64>> = None;
        st.table.visit(pages(range), |page, pte| {
            gone(pte.removed(page));
            if pte.host != Prot::NONE {
                hull = Some(hull.as_ref().map_or(page, |h| h.start)..page + 1);
            }
            Visit::Drop
        });
        // One order for all: between the first and the last page nothing is left to spare.
        let mut last = None;
        for part in hull.map_or(Vec::new(), |h| self.parts(h)) {
            last = self.space.order(&mut st, crate::space::unmap(part));
        }
        self.flush(&st, last)
    }

    fn protect(&self, range: VirtRange, prot: Prot) -> HostedFlush {
        let mut st = self.space.lock();
        let mut runs = Runs::default();
        st.table.visit(pages(range), |page, pte| {
            pte.prot = pte.prot.intersection(prot);
            runs.lower(page, pte);
            Visit::Keep
        });
        let last = self.carry(&mut st, runs);
        self.flush(&st, last)
    }

    fn extract(&self, va: VirtAddr) -> Option<Translation> {
        let st = self.space.lock();
        st.table.get(PAGE.index(va.0)).map(|p| p.translation())
    }

    fn scan(&self, range: VirtRange, seen: &mut dyn FnMut(VirtAddr, Translation)) {
        let st = self.space.lock();
        st.table.scan(pages(range), |page, pte| {
            seen(VirtAddr(page << PAGE.shift()), pte.translation());
        });
    }

    fn take_usage(&self, va: VirtAddr, which: Usage) -> (Usage, HostedFlush) {
        let mut st = self.space.lock();
        let page = PAGE.index(va.0);
        let Some(pte) = st.table.get_mut(page) else {
            return (Usage::empty(), HostedFlush::default());
        };
        let taken = pte.usage.intersection(which);
        pte.usage.remove(which);
        let mut runs = Runs::default();
        runs.lower(page, pte);
        let last = self.carry(&mut st, runs);
        (taken, self.flush(&st, last))
    }

    fn copy(
        &self,
        from: &HostedPmap,
        range: VirtRange,
        entered: &mut dyn FnMut(VirtAddr, Frame),
    ) -> HostedFlush {
        // Not with both locks held: another copy may go the other way.
        let mut found = Vec::new();
        from.space.lock().table.scan(pages(range), |page, pte| {
            if pte.kind == Kind::Managed {
                found.push((page, pte.frame, pte.prot));
            }
        });
        let mut st = self.space.lock();
        for (page, frame, prot) in found {
            if st.table.get(page).is_none() {
                // In the table only: what is never used costs the stub nothing.
                let pte = Pte {
                    frame,
                    prot: prot.difference(Prot::WRITE),
                    host: Prot::NONE,
                    usage: Usage::empty(),
                    kind: Kind::Managed,
                };
                st.table.set(page, pte);
                entered(VirtAddr(page << PAGE.shift()), frame);
            }
        }
        HostedFlush::default()
    }

    fn donate(&self, frame: Frame) {
        // Never asked for: the table lives in the program's own memory.
        self.donated.lock().push(frame);
    }

    fn reclaim(&self, back: &mut dyn FnMut(Frame)) -> HostedFlush {
        self.donated.lock().drain(..).for_each(back);
        HostedFlush::default()
    }

    fn resident(&self) -> u64 {
        self.space.lock().table.resident()
    }
}

impl HostedPmap {
    fn parts(&self, pages: Range<u64>) -> Vec<VirtRange> {
        let start = VirtAddr(pages.start << PAGE.shift());
        let bytes = (pages.end - pages.start) << PAGE.shift();
        let range = VirtRange::from_len(start, bytes).unwrap_or_default();
        self.space.engine.parts(range)
    }

    fn carry(&self, st: &mut Guard<'_>, runs: Runs) -> Option<Decided> {
        let mut last = None;
        for order in runs.0 {
            last = self.space.order(st, order).or(last);
        }
        last
    }
}

/// What entering changes for the stub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Change {
    /// Nothing: it has mapped all of it so.
    None,
    /// Something, but no access is lost.
    Raised,
    /// A frame or an access is lost.
    Lowered,
}

/// What all pages of a run are entered with.
struct Entered {
    prot: Prot,
    host: Prot,
    kind: Kind,
}

impl Entered {
    /// Puts a run into the table.
    fn put(
        self,
        st: &mut State,
        pages: Range<u64>,
        run: FrameRun,
        replaced: &mut dyn FnMut(Removed),
    ) -> Change {
        let Entered { prot, host, kind } = self;
        let usage = match prot.contains(Prot::WRITE) {
            true => Usage::all(),
            false => Usage::REFERENCED,
        };
        let mut change = Change::None;
        for (page, frame) in pages.zip(run.frames()) {
            let old = st.table.get(page);
            if let Some(old) = old {
                replaced(old.removed(page));
            }
            change = change.max(match old {
                Some(old) if old.host != Prot::NONE => {
                    if old.frame != frame || !host.contains(old.host) {
                        Change::Lowered
                    } else if old.host != host {
                        Change::Raised
                    } else {
                        Change::None
                    }
                }
                _ if host != Prot::NONE => Change::Raised,
                _ => Change::None,
            });
            let pte = Pte {
                frame,
                prot,
                host,
                usage,
                kind,
            };
            st.table.set(page, pte);
        }
        change
    }
}

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refault {
    /// The page will be mapped before the guest goes on.
    Mended {
        /// The stub had it mapped, and nothing was decided since.
        was_mapped: bool,
        /// Orders of the space that the host had refused until then.
        refusals: u64,
    },
    /// The table has no translation.
    Absent,
    /// The table has a translation that does not allow the access.
    Denied,
}

impl Space {
    /// Thread `id` faulted at `va`: maps the page if the table allows the access.
    pub(crate) fn refault(&self, id: u64, va: VirtAddr, access: Access) -> Refault {
        let mut st = self.lock();
        let page = PAGE.index(va.0);
        let unchanged = st
            .member(id)
            .is_some_and(|i| st.members[i].knew == st.queue.latest());
        let mended = Refault::Mended {
            was_mapped: unchanged && st.table.get(page).is_some_and(|p| p.host.allows(access)),
            refusals: st.refusals,
        };
        let live = st.process.is_some();
        let Some(pte) = st.table.get_mut(page) else {
            return Refault::Absent;
        };
        if !pte.prot.allows(access) {
            return Refault::Denied;
        }
        pte.usage |= Usage::REFERENCED;
        if access == Access::Write {
            pte.usage |= Usage::MODIFIED;
        }
        let pte = *pte;
        if !live {
            return mended;
        }
        self.make_room(&mut st);
        let run = run_around(&st, page, &pte);
        let prot = pte.due();
        let first = pte.frame.0 - (page - run.start) as u32;
        st.table.visit(run.clone(), |_, p| {
            p.host = prot;
            Visit::Keep
        });
        let order = Order::Map {
            page: run.start,
            pages: run.end - run.start,
            frame: first,
            prot,
        };
        self.order(&mut st, order);
        mended
    }
}

/// The pages around `page` that can be mapped with it in one order, and are not mapped yet.
fn run_around(st: &State, page: u64, pte: &Pte) -> Range<u64> {
    let joins = |n: u64, frame: Option<u32>| {
        st.table.get(n).is_some_and(|p| {
            p.host == Prot::NONE && Some(p.frame.0) == frame && p.due() == pte.due()
        })
    };
    let mut run = page..page + 1;
    while page - run.start < AROUND && run.start > 0 {
        let back = (page - run.start + 1) as u32;
        if !joins(run.start - 1, pte.frame.0.checked_sub(back)) {
            break;
        }
        run.start -= 1;
    }
    while run.end - page <= AROUND {
        let ahead = (run.end - page) as u32;
        if !joins(run.end, pte.frame.0.checked_add(ahead)) {
            break;
        }
        run.end += 1;
    }
    run
}

/// Orders that lower what the stub has mapped, merged as they come.
#[derive(Default)]
struct Runs(Vec<Order>);

impl Runs {
    /// Lowers what the stub has mapped of `page` to what is due.
    fn lower(&mut self, page: u64, pte: &mut Pte) {
        let host = pte.host.intersection(pte.due());
        if host == pte.host {
            return;
        }
        pte.host = host;
        let order = match host {
            Prot::NONE => Order::Unmap { page, pages: 1 },
            prot => Order::Protect {
                page,
                pages: 1,
                prot,
            },
        };
        match self
            .0
            .last_mut()
            .and_then(|l| l.merged(order).map(|m| (l, m)))
        {
            Some((last, both)) => *last = both,
            None => self.0.push(order),
        }
    }
}
