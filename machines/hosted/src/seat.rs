//! Where a supervisor thread sits: the processor of its stub, or another one that is idle.
//!
//! At home the two take turns on one processor, at the price of two changes of process. On two
//! processors each watches a word that the other writes: less than half of that, but only if both
//! processors have nothing better to do, since a side that watches takes its processor from
//! others, and a side that has been put aside by the host's scheduler answers milliseconds late.
//! So a supervisor goes out when its guest traps again and again, to a processor that no pair of
//! ours is at work on, one supervisor each; and it goes home when a pair that is at home there
//! wants it, when the guest has become quiet, and when somebody that we do not know wants the
//! processor: that is seen by how long a yield takes. After that it stays at home for a while,
//! longer each time.
//!
//! Home itself is where whoever made a process has its own: mostly one of the two waits for the
//! other, and what one processor does by turns needs no call to another. Once more pairs have been
//! at work on one processor than on another for a while, one of them moves there for good.

use crate::clock;
use crate::engine::Engine;
use crate::mailbox::{Report, Slot};
use crate::sys;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// How often each side yields before it sleeps, at home: that hands the processor over for three
/// quarters of the price of a sleep and a wake-up. A side that waits long soon sleeps.
const YIELDS: u32 = 2;
/// How often the stub looks at its word before it sleeps, when its supervisor is out; some tens of
/// microseconds.
const STUB_LOOKS: u32 = 600;
/// How often a supervisor that is out looks between two yields: some microseconds.
const LOOKS: u32 = 100;
/// Traps between two yields at least: the supervisor that is out lets others run.
const TRAPS: u32 = 32;
/// Traps in a row, each soon after the last, before the supervisor goes out.
const STREAK: u32 = 256;
/// What is soon, in nanoseconds.
const SOON: u64 = 30_000;
/// How long a supervisor that is out watches before it sleeps, in nanoseconds.
const PATIENCE: u64 = 50_000;
/// Sleeps in a row after which it goes home.
const QUIET: u32 = 3;
/// A yield that takes longer than this, in nanoseconds, let somebody else run.
const LONG: u64 = 5_000;
/// The time that others may take of a supervisor's while it is out: so many nanoseconds, and one in
/// so many of all of them.
const CREDIT: u64 = 50_000;
const SHARE: u64 = 16;
/// How long a supervisor stays at home at least, and after meeting strangers at most.
const STAY: u64 = 1_000_000;
const STAY_MOST: u64 = 1_024_000_000;

/// How long a processor has to be crowded while another is not before a pair moves, in nanoseconds.
const CROWDED: u64 = 1_000_000;

/// A processor that this program may use.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Cpu {
    /// The host's number.
    number: usize,
    /// Pairs that are at home here and at work.
    busy: AtomicU32,
    /// A supervisor from elsewhere is here.
    visited: AtomicBool,
}

impl Cpu {
    /// The processor of a number.
    pub(crate) fn new(number: usize) -> Cpu {
        Cpu {
            number,
            busy: AtomicU32::new(0),
            visited: AtomicBool::new(false),
        }
    }

    /// The host's number.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    fn pairs(&self) -> u32 {
        self.busy.load(Ordering::SeqCst)
    }

    /// Takes the place of the one visitor, where nobody is at work.
    fn visit(&self) -> bool {
        if self.pairs() > 0 || self.visited.swap(true, Ordering::SeqCst) {
            return false;
        }
        if self.pairs() > 0 {
            self.visited.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }
}

/// How the stub waits for its supervisor: looks, then yields, then it sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StubWait {
    pub(crate) looks: u32,
    pub(crate) yields: u32,
}

impl StubWait {
    /// For a stub that nobody is about to answer.
    pub(crate) const SLEEP: StubWait = StubWait {
        looks: 0,
        yields: 0,
    };
}

/// The calling thread's seat.
struct Seat {
    engine: Arc<Engine>,
    /// The place of the home processor among [`Engine::cpus`].
    home: usize,
    /// The one where it is out, if it is.
    out: Option<usize>,
    /// When the guest went on last.
    resumed: u64,
    /// Traps in a row that came soon.
    streak: u32,
    /// Sleeps in a row while out.
    quiet: u32,
    /// Traps since the last yield while out.
    traps: u32,
    /// When it may go out again.
    not_before: u64,
    /// For how long the next strangers keep it at home.
    stay: u64,
    /// When it went out last, and how much of the time since then others took.
    went: u64,
    lost: u64,
    /// Since when home has been crowded; 0 when it is not.
    crowded: u64,
}

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

impl Seat {
    fn take(engine: &Arc<Engine>, home: usize) -> Seat {
        let cpu = &engine.cpus[home];
        cpu.busy.fetch_add(1, Ordering::SeqCst);
        sys::pin(0, &[cpu.number]);
        Seat {
            engine: engine.clone(),
            home,
            out: None,
            resumed: 0,
            streak: 0,
            quiet: 0,
            traps: 0,
            not_before: 0,
            went: 0,
            stay: STAY,
            lost: 0,
            crowded: 0,
        }
    }

    fn cpu(&self, place: usize) -> &Cpu {
        &self.engine.cpus[place]
    }

    /// Goes out, if the guest traps often and there is an idle processor.
    fn consider(&mut self) {
        let now = clock::now();
        self.streak = match now - self.resumed < SOON {
            true => self.streak + 1,
            false => 0,
        };
        if self.streak < STREAK || now < self.not_before {
            return;
        }
        self.streak = 0;
        self.not_before = now + STAY;
        if self.cpu(self.home).pairs() > 1 {
            return;
        }
        let others = (0..self.engine.cpus.len()).filter(|c| *c != self.home);
        let Some(idle) = others.into_iter().find(|c| self.cpu(*c).visit()) else {
            return;
        };
        sys::pin(0, &[self.cpu(idle).number]);
        (self.out, self.went) = (Some(idle), now);
        (self.quiet, self.traps, self.lost) = (0, 0, 0);
    }

    /// Goes home, to stay there for `stay` nanoseconds.
    fn go_home(&mut self, stay: u64) {
        if let Some(out) = self.out.take() {
            sys::pin(0, &[self.cpu(self.home).number]);
            self.cpu(out).visited.store(false, Ordering::SeqCst);
            self.not_before = clock::now() + stay;
        }
    }

    /// Somebody of ours wants one of the two processors.
    fn is_wanted(&self, out: usize) -> bool {
        self.cpu(out).pairs() > 0 || self.cpu(self.home).pairs() > 1
    }

    /// Where the pair had better move, once that has been so for a while.
    fn roomier(&mut self) -> Option<usize> {
        let pairs = |place: &usize| self.cpu(*place).pairs();
        let best = (0..self.engine.cpus.len()).min_by_key(pairs)?;
        if pairs(&best) + 1 >= pairs(&self.home) {
            self.crowded = 0;
            return None;
        }
        let now = clock::now();
        if self.crowded == 0 {
            self.crowded = now;
        }
        (now - self.crowded >= CROWDED).then_some(best)
    }

    /// Makes `place` the home.
    fn move_home(&mut self, place: usize) {
        self.go_home(0);
        self.cpu(self.home).busy.fetch_sub(1, Ordering::SeqCst);
        self.home = place;
        self.crowded = 0;
        self.cpu(place).busy.fetch_add(1, Ordering::SeqCst);
        sys::pin(0, &[self.cpu(place).number]);
    }

    /// Lets others run. Whether they hardly want to, lately.
    fn yield_alone(&mut self, out: usize) -> bool {
        let before = clock::now();
        std::thread::yield_now();
        let now = clock::now();
        if self.is_wanted(out) {
            self.go_home(STAY);
            return false;
        }
        if now - before < LONG {
            return true;
        }
        self.lost += now - before;
        let time = now - self.went;
        if self.lost < CREDIT + time / SHARE {
            return true;
        }
        // A long time without strangers makes up for them.
        self.stay = match time > self.stay * SHARE {
            true => STAY,
            false => (self.stay * 4).min(STAY_MOST),
        };
        self.go_home(self.stay);
        false
    }

    /// Watches a stub from another processor; `None`: sleep.
    fn watch(&mut self, slot: &Slot, out: usize) -> Option<Report> {
        if self.is_wanted(out) {
            self.go_home(STAY);
            return None;
        }
        self.traps += 1;
        if self.traps >= TRAPS {
            self.traps = 0;
            if !self.yield_alone(out) {
                return None;
            }
        }
        let mut start = None;
        loop {
            for _ in 0..LOOKS {
                if let Some(report) = slot.report() {
                    self.quiet = 0;
                    return Some(report);
                }
                std::hint::spin_loop();
            }
            let now = clock::now();
            if now - *start.get_or_insert(now) > PATIENCE {
                self.quiet += 1;
                if self.quiet >= QUIET {
                    self.go_home(STAY);
                }
                return None;
            }
            self.traps = 0;
            if !self.yield_alone(out) {
                return None;
            }
        }
    }

    /// Hands the processor over to a stub that shares it; `None`: sleep.
    fn hand_over(&self, slot: &Slot) -> Option<Report> {
        for _ in 0..YIELDS {
            if let Some(report) = slot.report() {
                return Some(report);
            }
            std::thread::yield_now();
        }
        slot.report()
    }

    fn rest(&mut self) {
        self.cpu(self.home).busy.fetch_sub(1, Ordering::SeqCst);
        if let Some(out) = self.out {
            self.cpu(out).visited.store(false, Ordering::SeqCst);
        }
    }

    fn rested(&mut self) {
        self.cpu(self.home).busy.fetch_add(1, Ordering::SeqCst);
        if let Some(out) = self.out
            && !self.cpu(out).visit()
        {
            self.out = None;
            sys::pin(0, &[self.cpu(self.home).number]);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.rest();
    }
}

fn with<T>(f: impl FnOnce(&mut Option<Seat>) -> T) -> Option<T> {
    // A thread that is ending has no seat any more.
    SEAT.try_with(|seat| f(&mut seat.borrow_mut())).ok()
}

/// Has the calling thread sit at processor `home` of `engine`, or where it is out from there.
pub(crate) fn take(engine: &Arc<Engine>, home: usize) {
    with(|seat| {
        let sits = |s: &Seat| s.home == home && Arc::ptr_eq(&s.engine, engine);
        if !seat.as_ref().is_some_and(sits) {
            *seat = None;
            *seat = Some(Seat::take(engine, home));
        }
    });
}

/// Has the calling thread sit nowhere: it may run on any processor again.
pub(crate) fn leave() {
    with(|seat| {
        if let Some(seat) = seat.take() {
            let all: Vec<usize> = seat.engine.cpus.iter().map(|c| c.number).collect();
            sys::pin(0, &all);
        }
    });
}

/// Where the calling thread is at home among the processors of `engine`.
pub(crate) fn home(engine: &Arc<Engine>) -> Option<usize> {
    let home = with(|seat| {
        let seat = seat.as_ref().filter(|s| Arc::ptr_eq(&s.engine, engine));
        seat.map(|s| s.home)
    });
    home.flatten()
}

/// Moves the calling thread to a processor with more room, if there has been one for a while: its
/// new home, where its stub is to follow.
pub(crate) fn spread() -> Option<usize> {
    let moved = with(|seat| {
        let seat = seat.as_mut()?;
        let place = seat.roomier()?;
        seat.move_home(place);
        Some(place)
    });
    moved.flatten()
}

/// How the stub of the calling thread is to wait at its next trap. Called when the guest goes on.
pub(crate) fn stub_wait() -> StubWait {
    let wait = with(|seat| {
        let seat = seat.as_mut()?;
        if seat.out.is_some() {
            return Some(StubWait {
                looks: STUB_LOOKS,
                yields: 0,
            });
        }
        seat.resumed = clock::now();
        Some(StubWait {
            looks: 0,
            yields: YIELDS,
        })
    });
    wait.flatten().unwrap_or(StubWait::SLEEP)
}

/// Waits for the trap of the guest that the calling thread supervises, without sleeping. `None`:
/// it is time to sleep.
pub(crate) fn watch(slot: &Slot) -> Option<Report> {
    let report = with(|seat| {
        let seat = seat.as_mut()?;
        match seat.out {
            Some(out) => seat.watch(slot, out),
            None => seat.hand_over(slot),
        }
    });
    report.flatten()
}

/// The guest has trapped.
pub(crate) fn trapped() {
    with(|seat| {
        if let Some(seat) = seat.as_mut().filter(|s| s.out.is_none()) {
            seat.consider();
        }
    });
}

/// Calls `f`, which waits for something else than a guest: meanwhile the calling supervisor leaves
/// its processors to others.
pub fn rest<T>(f: impl FnOnce() -> T) -> T {
    with(|seat| seat.as_mut().map(Seat::rest));
    let result = f();
    with(|seat| seat.as_mut().map(Seat::rested));
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Mailbox;

    #[test]
    fn one_visitor_a_processor_and_none_where_a_pair_works() {
        let cpu = Cpu::new(0);
        assert!(cpu.visit());
        assert!(!cpu.visit());
        cpu.visited.store(false, Ordering::SeqCst);
        cpu.busy.store(1, Ordering::SeqCst);
        assert!(!cpu.visit());
        cpu.busy.store(0, Ordering::SeqCst);
        assert!(cpu.visit());
    }

    /// A seat with a second processor, which is the same one of the host under another name.
    fn seat() -> Seat {
        let mut m = crate::Hosted::new(1 << 20).unwrap();
        let cpus = &mut Arc::get_mut(&mut m.engine).unwrap().cpus;
        let number = cpus[0].number();
        *cpus = vec![Cpu::new(number), Cpu::new(number)];
        Seat::take(&m.engine, 0)
    }

    fn traps(seat: &mut Seat, count: u32) {
        for _ in 0..count {
            seat.resumed = clock::now();
            seat.consider();
        }
    }

    #[test]
    fn who_traps_often_goes_out_and_comes_home_when_the_place_is_wanted() {
        let mut seat = seat();
        // A trap that came late begins anew.
        traps(&mut seat, STREAK - 1);
        seat.resumed = 0;
        seat.consider();
        assert_eq!(seat.out, None);
        // Whatever the host does to us, some streak of traps is quick enough.
        while seat.out.is_none() {
            traps(&mut seat, STREAK);
        }
        let slot = Mailbox::new().unwrap().slot(0).unwrap();
        slot.set32(crate::mailbox::at::WORD, 0);
        assert_eq!(seat.watch(&slot, 1), Some(Report::Trapped));
        seat.cpu(1).busy.fetch_add(1, Ordering::SeqCst);
        assert_eq!(seat.watch(&slot, 1), None);
        assert_eq!(seat.out, None);
        assert!(!seat.cpu(1).visited.load(Ordering::SeqCst));
        // It does not come back at once, nor while the place is taken.
        seat.not_before = u64::MAX;
        traps(&mut seat, 2 * STREAK);
        seat.not_before = 0;
        traps(&mut seat, 2 * STREAK);
        assert_eq!(seat.out, None);
    }

    #[test]
    fn a_pair_moves_from_a_crowd_to_where_nobody_works_and_stays_there() {
        let mut seat = seat();
        assert_eq!(seat.roomier(), None);
        seat.cpu(0).busy.fetch_add(1, Ordering::SeqCst);
        // Not at once: whoever is in the way may be gone in a moment.
        assert_eq!(seat.roomier(), None);
        seat.crowded = 1;
        assert_eq!(seat.roomier(), Some(1));
        seat.move_home(1);
        assert_eq!((seat.cpu(0).pairs(), seat.cpu(1).pairs()), (1, 1));
        assert_eq!((seat.roomier(), seat.crowded), (None, 0));
    }

    #[test]
    fn a_quiet_guest_sends_its_supervisor_home() {
        let mut seat = seat();
        while seat.out.is_none() {
            traps(&mut seat, STREAK);
        }
        let slot = Mailbox::new().unwrap().slot(0).unwrap();
        for _ in 0..QUIET {
            assert_eq!(seat.watch(&slot, 1), None);
        }
        assert_eq!(seat.out, None);
    }

    #[test]
    fn who_rests_leaves_both_places() {
        let mut seat = seat();
        while seat.out.is_none() {
            traps(&mut seat, STREAK);
        }
        seat.rest();
        assert_eq!(seat.cpu(0).pairs(), 0);
        assert!(seat.cpu(1).visit());
        seat.rested();
        assert_eq!((seat.out, seat.cpu(0).pairs()), (None, 1));
    }
}
