//! The locks and the waiting of the simulated machine under a checker of interleavings:
//! `RUSTFLAGS="--cfg shuttle" cargo test -p bsdvm-sim --test shuttle`.

#![cfg(shuttle)]

use bsdvm_machine::sync::Mutex;
use bsdvm_machine::*;
use bsdvm_sim::{Sim, SimConfig};
use shuttle::thread;
use std::sync::Arc;

/// How many interleavings of each test to try: `BSDVM_SHUTTLE_RUNS`, or a few hundred.
fn runs() -> usize {
    let set = std::env::var("BSDVM_SHUTTLE_RUNS").ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(500)
}

const PAGE: VirtAddr = VirtAddr(0x10_0000);

#[test]
fn a_waiter_hears_of_what_it_waits_for() {
    let body = || {
        let sim = Sim::<12>::new(SimConfig::default());
        let ready: Arc<Mutex<Sim, bool, 1>> = Arc::new(Mutex::new(false));
        let waker = thread::spawn({
            let (sim, ready) = (sim.clone(), ready.clone());
            move || {
                *ready.lock() = true;
                sim.wake(Channel(1));
            }
        });
        loop {
            let guard = ready.lock();
            if *guard {
                break;
            }
            let ticket = sim.ticket(Channel(1));
            drop(guard);
            sim.sleep(Channel(1), ticket, None);
        }
        waker.join().unwrap();
    };
    shuttle::check_random(body, runs());
    shuttle::check_pct(body, runs(), 3);
}

/// A frame is reached by a program on the other processor until the flush is done, never after.
#[test]
fn nothing_is_reached_after_the_flush() {
    let body = || {
        let sim = Sim::<12>::new(SimConfig::default());
        let pmap = Arc::new(sim.pmap_create().unwrap());
        pmap.donate(Frame(0));
        let run = FrameRun::one(Frame(1));
        let (attr, kind) = (MemoryAttr::WriteBack, Kind::Managed);
        let entered = pmap.enter(PAGE, run, Prot::RW, attr, kind, &mut |_| ());
        entered.unwrap().wait();
        let program = thread::spawn({
            let (sim, pmap) = (sim.clone(), pmap.clone());
            move || while sim.store(&pmap, 1, PAGE, &[1]).is_ok() {}
        });
        let range = VirtRange::from_len(PAGE, 4096).unwrap();
        pmap.remove(range, &mut |_| ()).wait();
        sim.assert_unreachable(run);
        sim.zero(Frame(1));
        program.join().unwrap();
        let mut byte = [9];
        sim.read(Frame(1), 0, &mut byte);
        assert_eq!(byte, [0]);
    };
    shuttle::check_random(body, runs());
}
