//! Failures on demand.
//!
//! A test counts the calls of a kind with [`Injector::calls`], then lets the first of them fail,
//! the second, and so on, and compares the world before and after.

use parking_lot::Mutex;

/// What can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `Pmap::enter` answers `NoResources`.
    PmapEnter,
    /// `Pmap::enter` answers `NeedFrames(1)` although it has every frame it needs.
    NeedFrames,
    /// `Machine::pmap_create` answers `NoResources`.
    PmapCreate,
}

#[derive(Default, Clone, Copy)]
struct Point {
    calls: u64,
    fired: u64,
    /// Calls left until the one that fails; 0: none does.
    due: u64,
}

/// The failures of one machine.
#[derive(Default)]
pub struct Injector {
    points: Mutex<[Point; 3]>,
}

impl Injector {
    /// Lets the `n`th call of `kind` from now on fail, once; the next call is number 1. With 0
    /// none fails. Replaces what was asked for before.
    pub fn fail_nth(&self, kind: Kind, n: u64) {
        self.points.lock()[kind as usize].due = n;
    }

    /// Takes back every failure that was asked for. Counts stay.
    pub fn clear(&self) {
        for p in self.points.lock().iter_mut() {
            p.due = 0;
        }
    }

    /// How often `kind` was called since the machine was made.
    pub fn calls(&self, kind: Kind) -> u64 {
        self.points.lock()[kind as usize].calls
    }

    /// How often `kind` was made to fail since the machine was made.
    pub fn fired(&self, kind: Kind) -> u64 {
        self.points.lock()[kind as usize].fired
    }

    /// Counts one call of `kind` and says whether it is to fail.
    pub(crate) fn hit(&self, kind: Kind) -> bool {
        let p = &mut self.points.lock()[kind as usize];
        p.calls += 1;
        let now = p.due == 1;
        p.due = p.due.saturating_sub(1);
        p.fired += u64::from(now);
        now
    }
}
