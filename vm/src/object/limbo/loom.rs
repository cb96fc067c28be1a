//! The count of flushes in every interleaving of a few steps.

use super::{COUNT, Flushes};
use bsdvm_machine::sync::atomic::AtomicBool;
use bsdvm_machine::sync::atomic::Ordering;
use bsdvm_sim::{Sim, SimConfig};
use loom::sync::Arc;
use loom::thread;

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(body);
}

struct World {
    flushes: Flushes,
    machine: Sim<12>,
    done: [AtomicBool; 2],
}

impl World {
    fn new() -> Arc<World> {
        let world = World {
            flushes: Flushes::new(),
            machine: Sim::new(SimConfig {
                frames: 1,
                ..SimConfig::default()
            }),
            done: [const { AtomicBool::new(false) }; 2],
        };
        // Loom knows an atomic from its first use on.
        world.flushes.state.load(Ordering::Relaxed);
        for done in &world.done {
            done.load(Ordering::Relaxed);
        }
        Arc::new(world)
    }

    /// A flush that has begun is waited for, and ends.
    fn finish(&self, which: usize) {
        self.done[which].store(true, Ordering::Release);
        self.flushes.end(&self.machine);
    }
}

#[test]
fn who_waits_sees_every_flush_that_had_begun_end() {
    model(|| {
        let world = World::new();
        world.flushes.begin();
        world.flushes.begin();
        let others = [0, 1].map(|which| {
            let world = world.clone();
            thread::spawn(move || world.finish(which))
        });
        world.flushes.wait(&world.machine);
        for done in &world.done {
            assert!(done.load(Ordering::Acquire), "the wait ended too early");
        }
        for other in others {
            other.join().unwrap();
        }
    });
}

/// Two who wait are both woken, whoever came first.
#[test]
fn nobody_sleeps_for_ever() {
    model(|| {
        let world = World::new();
        world.flushes.begin();
        let waiter = thread::spawn({
            let world = world.clone();
            move || {
                world.flushes.wait(&world.machine);
                assert!(world.done[0].load(Ordering::Acquire));
            }
        });
        let other = thread::spawn({
            let world = world.clone();
            move || world.finish(0)
        });
        world.flushes.wait(&world.machine);
        assert!(world.done[0].load(Ordering::Acquire));
        waiter.join().unwrap();
        other.join().unwrap();
    });
}

/// A flush that begins later need not be waited for, and what is counted comes out even.
#[test]
fn flushes_that_come_and_go_are_counted_right() {
    model(|| {
        let world = World::new();
        let others = [0, 1].map(|which| {
            let world = world.clone();
            thread::spawn(move || {
                world.flushes.begin();
                world.finish(which);
            })
        });
        world.flushes.wait(&world.machine);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(world.flushes.state.load(Ordering::Acquire) & COUNT, 0);
        world.flushes.wait(&world.machine);
    });
}
