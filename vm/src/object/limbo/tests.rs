extern crate std;

use super::*;
use bsdvm_sim::{Sim, SimConfig};
use std::sync::Arc;

/// Who waits for the flushes that have begun sleeps until there was a moment without one, and
/// not for those that begin after it.
#[test]
fn a_waiter_sleeps_until_the_flushes_before_it_have_ended() {
    let machine = Sim::<12>::new(SimConfig::default());
    let flushes = Arc::new(Flushes::new());
    flushes.wait(&machine);
    for round in 0..3 {
        flushes.begin();
        flushes.begin();
        let waiter = std::thread::spawn({
            let (flushes, machine) = (flushes.clone(), machine.clone());
            move || flushes.wait(&machine)
        });
        while flushes.state.load(Ordering::Acquire) & WANTED == 0 {
            assert!(!waiter.is_finished(), "round {round}: it did not wait");
            std::thread::yield_now();
        }
        flushes.end(&machine);
        assert!(!waiter.is_finished(), "round {round}: one is not done");
        flushes.end(&machine);
        flushes.begin();
        waiter.join().unwrap();
        flushes.end(&machine);
    }
}
