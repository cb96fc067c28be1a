//! Locks, the ranks that a thread holds, and the processor that it runs on.
//!
//! In an ordinary build the locks are those of `parking_lot`. Under `--cfg shuttle` and
//! `--cfg loom` they are flags of the checker that a waiting thread spins on, yielding, so that
//! the checker sees every hand-over.

use crate::Sim;
use bsdvm_machine::Locks;
use std::cell::{Cell, RefCell};

#[cfg(any(shuttle, loom))]
#[path = "checked.rs"]
mod checked;

#[cfg(any(shuttle, loom))]
pub use checked::{RawMutex, RawRwLock};
#[cfg(not(any(shuttle, loom)))]
pub use parking_lot::{RawMutex, RawRwLock};

#[cfg(loom)]
use loom::thread_local as local;
#[cfg(shuttle)]
use shuttle::thread_local as local;
#[cfg(not(any(shuttle, loom)))]
use std::thread_local as local;

local! {
    static CPU: Cell<usize> = Cell::default();
    static HELD: RefCell<Vec<u8>> = RefCell::default();
}

/// The processor of the calling thread, as [`Sim::set_cpu`] said.
pub(crate) fn cpu() -> usize {
    CPU.with(Cell::get)
}

pub(crate) fn set_cpu(cpu: usize) {
    CPU.with(|c| c.set(cpu));
}

/// A place where a checker may let another thread run; nothing in an ordinary build. The
/// machine's own state needs no such place inside, as each of its operations is one step.
pub(crate) fn switch_point() {
    #[cfg(any(shuttle, loom))]
    checked::switch_point();
}

/// Panics in debug builds when the calling thread holds a lock of the core.
pub(crate) fn assert_none_held() {
    if cfg!(debug_assertions) {
        let held = HELD.with(|h| h.borrow().clone());
        assert!(
            held.is_empty() || std::thread::panicking(),
            "locks of ranks {held:?} are held over a wait"
        );
    }
}

impl<const SHIFT: u32> Locks for Sim<SHIFT> {
    type RawMutex = RawMutex;
    type RawRwLock = RawRwLock;

    /// Panics when the thread holds a lock of a higher rank, or one of the same rank without
    /// saying that it means to.
    fn acquired(rank: u8, nested: bool) {
        let top = HELD.with(|h| h.borrow().iter().max().copied());
        if let Some(top) = top
            && !std::thread::panicking()
        {
            let good = top < rank || (nested && top == rank);
            assert!(good, "lock of rank {rank} taken while {top} is held");
        }
        HELD.with(|h| h.borrow_mut().push(rank));
    }

    fn tried(rank: u8) {
        HELD.with(|h| h.borrow_mut().push(rank));
    }

    /// Panics when the thread holds no lock of `rank`.
    fn released(rank: u8) {
        let found = HELD.with(|h| {
            let mut held = h.borrow_mut();
            let at = held.iter().rposition(|r| *r == rank);
            at.map(|at| held.remove(at))
        });
        assert!(
            found.is_some() || std::thread::panicking(),
            "lock of rank {rank} let go of by a thread that does not hold it"
        );
    }

    fn assert_none_held() {
        assert_none_held();
    }
}
