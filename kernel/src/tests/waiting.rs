//! Threads of the kernel, and waiting.

use crate::machine::Bare;
use crate::{clock, threads};
use alloc::boxed::Box;
use bsdvm_machine::{Channel, Wait};
use core::sync::atomic::{AtomicU32, Ordering};

const TURNS: u32 = 1000;
const TABLE: Channel = Channel(1);
static TURN: AtomicU32 = AtomicU32::new(0);

/// Takes every second turn, from `first` on.
fn player(first: u32) {
    for turn in (first..TURNS).step_by(2) {
        loop {
            let ticket = Bare.ticket(TABLE);
            if TURN.load(Ordering::Relaxed) == turn {
                break;
            }
            Bare.sleep(TABLE, ticket, None);
        }
        TURN.store(turn + 1, Ordering::Relaxed);
        Bare.wake(TABLE);
    }
}

/// Two threads wake each other in turns, and none is left asleep.
pub(super) fn turns_are_taken() {
    assert_eq!(threads::spawn(Box::new(|| player(1))), Ok(()));
    player(0);
    while TURN.load(Ordering::Relaxed) != TURNS {
        threads::give_way();
    }
}

/// Sleeps end at their deadlines, in their order, and not before.
pub(super) fn deadlines_end_sleeps() {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    let start = clock::now();
    for (place, millis) in [(2u32, 60u64), (0, 20), (1, 40)] {
        let deadline = start + millis * 1_000_000;
        let sleeper = threads::spawn(Box::new(move || {
            let channel = Channel(100 + u64::from(place));
            Bare.sleep(channel, Bare.ticket(channel), Some(deadline));
            assert!(clock::now() >= deadline, "woken too early");
            assert_eq!(ENDED.fetch_add(1, Ordering::Relaxed), place);
        }));
        assert_eq!(sleeper, Ok(()));
    }
    let last = Channel(99);
    while ENDED.load(Ordering::Relaxed) < 3 {
        Bare.sleep(last, Bare.ticket(last), Some(clock::now() + 1_000_000));
    }
}
