//! Locks: those of `parking_lot`, and a per-thread record of the ranks held.

use crate::Hosted;
use bsdvm_machine::Locks;
use std::cell::RefCell;

thread_local! {
    /// The ranks of the locks that this thread holds, in the order of taking. Kept by debug
    /// builds only, since only they call [`Locks::acquired`].
    static HELD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Locks for Hosted {
    type RawMutex = parking_lot::RawMutex;
    type RawRwLock = parking_lot::RawRwLock;

    fn acquired(rank: u8, nested: bool) {
        HELD.with_borrow_mut(|held| {
            let wrong = held.iter().find(|&&h| h > rank || (h == rank && !nested));
            assert!(
                wrong.is_none(),
                "a lock of rank {rank} is taken while {held:?} are held"
            );
            held.push(rank);
        });
    }

    fn tried(rank: u8) {
        HELD.with_borrow_mut(|held| held.push(rank));
    }

    fn released(rank: u8) {
        // Runs during a panic too: a missing rank must not turn it into an abort.
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            if let Some(i) = held.iter().rposition(|&h| h == rank) {
                held.remove(i);
            }
        });
    }

    fn assert_none_held() {
        HELD.with_borrow(|held| assert!(held.is_empty(), "locks of ranks {held:?} are held"));
    }
}
