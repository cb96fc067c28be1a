//! What the properties stand on: a pool of frames, places in the address space, and spaces that
//! check at their end that everything came back.

use super::Probe;
use crate::{
    EnterError, Flush, Frame, FrameRun, Kind, MemoryAttr, PageSize, Pmap, Prot, Removed, VirtAddr,
    VirtRange,
};
use core::cell::{Cell, RefCell};
use core::fmt;

/// How many frames the properties use.
pub const FRAMES: usize = 40;

/// How often a machine may ask for frames before one entry succeeds.
const PATIENCE: u32 = 8;

/// The machine under test and the frames to test it with.
pub struct Rig<'m, M: Probe> {
    /// The machine under test.
    pub machine: &'m M,
    name: &'static str,
    /// In ascending order, and whether each is free.
    pool: RefCell<[(Frame, bool); FRAMES]>,
}

/// Says that a property holds, or panics with its name.
macro_rules! hold {
    ($rig:expr, $cond:expr, $($what:tt)+) => {
        if !$cond {
            $rig.fail(format_args!($($what)+));
        }
    };
}
pub(super) use hold;

impl<'m, M: Probe> Rig<'m, M> {
    pub(super) fn new(machine: &'m M, frames: &mut dyn FnMut() -> Frame) -> Rig<'m, M> {
        let mut pool = [(Frame(0), true); FRAMES];
        pool.iter_mut().for_each(|slot| slot.0 = frames());
        pool.sort_unstable_by_key(|slot| slot.0);
        Rig {
            machine,
            name: "",
            pool: RefCell::new(pool),
        }
    }

    /// Begins property `name` with every frame free.
    pub(super) fn begin(&mut self, name: &'static str) {
        self.name = name;
        self.pool
            .get_mut()
            .iter_mut()
            .for_each(|slot| slot.1 = true);
    }

    /// The property does not hold.
    pub fn fail(&self, what: fmt::Arguments<'_>) -> ! {
        panic!("conformance: {} does not hold: {what}", self.name)
    }

    /// The size of a page.
    pub fn page(&self) -> PageSize {
        M::PAGE
    }

    /// `count` adjacent frames that nobody uses, the first byte of each being its place in the
    /// run plus `mark`.
    pub fn frames(&self, count: usize, mark: u8) -> FrameRun {
        let mut pool = self.pool.borrow_mut();
        let adjacent = |w: &[(Frame, bool)]| {
            let run = FrameRun {
                first: w[0].0,
                count: count as u32,
            };
            w.iter().all(|slot| slot.1) && run.frames().eq(w.iter().map(|slot| slot.0))
        };
        let Some(at) = pool.windows(count).position(adjacent) else {
            drop(pool);
            self.fail(format_args!("no {count} adjacent frames left to test with"));
        };
        pool[at..at + count]
            .iter_mut()
            .for_each(|slot| slot.1 = false);
        let first = pool[at].0;
        let run = FrameRun {
            first,
            count: count as u32,
        };
        for (frame, byte) in run.frames().zip(mark..) {
            self.machine.zero(frame);
            self.machine.write(frame, 0, &[byte]);
        }
        run
    }

    /// One frame whose first byte is `mark`.
    pub fn frame(&self, mark: u8) -> Frame {
        self.frames(1, mark).first
    }

    /// A frame for tables: from the far end, so that adjacent ones stay together.
    fn table_frame(&self) -> Frame {
        let mut pool = self.pool.borrow_mut();
        let Some(slot) = pool.iter_mut().rev().find(|slot| slot.1) else {
            drop(pool);
            self.fail(format_args!(
                "the machine asks for more frames than there are"
            ));
        };
        slot.1 = false;
        slot.0
    }

    fn give_back(&self, frame: Frame) {
        let mut pool = self.pool.borrow_mut();
        let slot = pool.iter_mut().find(|slot| slot.0 == frame);
        match slot {
            Some(slot) if !slot.1 => slot.1 = true,
            _ => {
                drop(pool);
                self.fail(format_args!("{frame:?} came back and was never given"));
            }
        }
    }

    /// The first byte of `frame`.
    pub fn byte(&self, frame: Frame) -> u8 {
        let mut byte = [0];
        self.machine.read(frame, 0, &mut byte);
        byte[0]
    }

    /// Page `i` from the middle of the user range, which is the start of a table of every level
    /// where the range is wide; `i` may be negative.
    pub fn va(&self, i: i64) -> VirtAddr {
        let user = self.machine.user_range();
        let half = user.start().0 + user.len() / 2;
        let wide = user.len().ilog2().saturating_sub(1);
        let middle = (half >> wide) << wide;
        let middle = if user.contains(VirtAddr(middle)) {
            middle
        } else {
            M::PAGE.floor(VirtAddr(half)).0
        };
        VirtAddr(middle.wrapping_add_signed(i << M::PAGE.shift()))
    }

    /// `pages` pages from `va` on.
    pub fn range(&self, va: VirtAddr, pages: u64) -> VirtRange {
        match VirtRange::from_len(va, pages << M::PAGE.shift()) {
            Some(range) => range,
            None => self.fail(format_args!("{pages} pages at {va:?} wrap")),
        }
    }

    /// An empty space.
    pub fn space(&self) -> Space<'_, 'm, M> {
        match self.machine.pmap_create() {
            Ok(pmap) => Space {
                rig: self,
                pmap,
                donated: Cell::new(0),
            },
            Err(e) => self.fail(format_args!("no pmap: {e:?}")),
        }
    }
}

/// A pmap under test.
pub struct Space<'r, 'm, M: Probe> {
    rig: &'r Rig<'m, M>,
    /// The pmap itself.
    pub pmap: M::Pmap,
    donated: Cell<u32>,
}

impl<M: Probe> Space<'_, '_, M> {
    /// Gives the pmap `count` frames for its tables.
    pub fn donate(&self, count: u32) {
        for _ in 0..count {
            self.pmap.donate(self.rig.table_frame());
            self.donated.set(self.donated.get() + 1);
        }
    }

    /// Enters `run` and answers what the machine asks for; tells `replaced`. The flush was waited
    /// for.
    pub fn enter_telling(
        &self,
        va: VirtAddr,
        run: FrameRun,
        prot: Prot,
        kind: Kind,
        replaced: &mut dyn FnMut(Removed),
    ) {
        let attr = MemoryAttr::WriteBack;
        for _ in 0..PATIENCE {
            match self.pmap.enter(va, run, prot, attr, kind, replaced) {
                Ok(flush) => return flush.wait(),
                Err(EnterError::NeedFrames(n)) => self.donate(n),
                Err(e) => self.rig.fail(format_args!("{run:?} at {va:?}: {e:?}")),
            }
        }
        self.rig
            .fail(format_args!("frames for {run:?} at {va:?} never suffice"))
    }

    /// Enters managed translations where nothing is mapped.
    pub fn enter(&self, va: VirtAddr, run: FrameRun, prot: Prot) {
        let rig = self.rig;
        self.enter_telling(va, run, prot, Kind::Managed, &mut |r| {
            rig.fail(format_args!("{r:?} was told as replaced where nothing was"))
        });
    }

    /// Loads a byte, which must succeed.
    pub fn load(&self, va: VirtAddr) -> u8 {
        match self.rig.machine.load(&self.pmap, va) {
            Ok(byte) => byte,
            Err(e) => self.rig.fail(format_args!("{e:?} where a load is allowed")),
        }
    }

    /// Stores a byte, which must succeed.
    pub fn store(&self, va: VirtAddr, value: u8) {
        if let Err(e) = self.rig.machine.store(&self.pmap, va, value) {
            self.rig
                .fail(format_args!("{e:?} where a store is allowed"))
        }
    }

    /// Loads, stores and fetches at `va`, each of which must succeed just where `prot` allows it.
    /// What the page holds stays.
    pub fn allows_just(&self, va: VirtAddr, prot: Prot) {
        let m = self.rig.machine;
        let load = m.load(&self.pmap, va);
        // A page that can be written can be read on every machine.
        let readable = prot.intersects(Prot::RW);
        let only_exec = prot == Prot::EXEC;
        if !only_exec {
            hold!(
                self.rig,
                load.is_ok() == readable,
                "load at {va:?} {prot}: {load:?}"
            );
        }
        let store = m.store(&self.pmap, va, load.unwrap_or(0));
        let writable = prot.contains(Prot::WRITE);
        hold!(
            self.rig,
            store.is_ok() == writable,
            "store at {va:?} {prot}: {store:?}"
        );
        if M::EXEC_IS_SEPARATE && load.is_ok_and(|b| Some(&b) == M::RETURN.first()) {
            let fetch = m.fetch(&self.pmap, va);
            let runs = prot.contains(Prot::EXEC);
            hold!(
                self.rig,
                fetch.is_ok() == runs,
                "fetch at {va:?} {prot}: {fetch:?}"
            );
        }
    }

    /// Removes `range` and tells `gone`. The flush was waited for.
    pub fn remove(&self, range: VirtRange, gone: &mut dyn FnMut(Removed)) {
        self.pmap.remove(range, gone).wait();
    }

    /// Takes back the frames that the pmap does not need.
    pub fn reclaim(&self) {
        let mut back = [None; FRAMES];
        let mut count = 0;
        let flush = self.pmap.reclaim(&mut |frame| {
            hold!(
                self.rig,
                count < FRAMES,
                "more frames came back than there are"
            );
            back[count] = Some(frame);
            count += 1;
        });
        flush.wait();
        for frame in back.into_iter().flatten() {
            self.rig.give_back(frame);
            hold!(
                self.rig,
                self.donated.get() > 0,
                "{frame:?} is not this pmap's"
            );
            self.donated.set(self.donated.get() - 1);
        }
    }

    /// Ends the space: everything goes, and every frame comes back.
    pub fn end(self) {
        let rig = self.rig;
        self.remove(rig.machine.user_range(), &mut |_| ());
        hold!(
            rig,
            self.pmap.resident() == 0,
            "pages are left after a remove of all"
        );
        self.reclaim();
        let kept = self.donated.get();
        hold!(rig, kept == 0, "{kept} donated frames did not come back");
    }
}
