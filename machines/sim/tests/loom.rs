//! The locks and the waiting of the simulated machine in every interleaving of a few steps:
//! `RUSTFLAGS="--cfg loom" cargo test -p bsdvm-sim --test loom --release`.

#![cfg(loom)]

use bsdvm_machine::sync::atomic::{AtomicU32, Ordering::Relaxed};
use bsdvm_machine::sync::{Mutex, RwLock};
use bsdvm_machine::*;
use bsdvm_sim::{Sim, SimConfig};
use loom::sync::Arc;
use loom::thread;

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(body);
}

/// A step that another thread may come between: an atomic without any order of its own.
fn add_one(value: &AtomicU32) {
    value.store(value.load(Relaxed) + 1, Relaxed);
}

#[test]
fn a_mutex_lets_nobody_in_between() {
    model(|| {
        let count: Arc<Mutex<Sim, AtomicU32, 1>> = Arc::new(Mutex::new(AtomicU32::new(0)));
        let other = thread::spawn({
            let count = count.clone();
            move || add_one(&count.lock())
        });
        add_one(&count.lock());
        other.join().unwrap();
        assert_eq!(count.lock().load(Relaxed), 2);
    });
}

#[test]
fn readers_see_a_whole_write() {
    model(|| {
        let zero = || AtomicU32::new(0);
        let pair: Arc<RwLock<Sim, (AtomicU32, AtomicU32), 1>> =
            Arc::new(RwLock::new((zero(), zero())));
        let writer = thread::spawn({
            let pair = pair.clone();
            move || {
                let both = pair.write();
                add_one(&both.0);
                add_one(&both.1);
            }
        });
        let both = pair.read();
        assert_eq!(both.0.load(Relaxed), both.1.load(Relaxed));
        drop(both);
        writer.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost() {
    model(|| {
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
    });
}
