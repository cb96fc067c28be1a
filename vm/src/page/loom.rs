//! A busy page in every interleaving of a few steps: who wants it says so, waits, and is woken.

use super::{Bits, Page, busy_channel};
use crate::lock::{self, Mutex};
use bsdvm_machine::sync::atomic::{AtomicU32, Ordering};
use bsdvm_machine::{Frame, Wait};
use bsdvm_sim::{Sim, SimConfig};
use loom::sync::Arc;
use loom::thread;

struct World {
    machine: Sim<12>,
    /// In place of the lock of the page's object.
    object: Mutex<Sim<12>, (), { lock::OBJECT }>,
    page: Page,
    contents: AtomicU32,
}

const FRAME: Frame = Frame(3);

impl World {
    fn new() -> Arc<World> {
        let world = World {
            machine: Sim::new(SimConfig {
                frames: 1,
                ..SimConfig::default()
            }),
            object: Mutex::new(()),
            page: Page::vacant(),
            contents: AtomicU32::new(0),
        };
        world.page.set(Bits::BUSY);
        world.contents.load(Ordering::Relaxed);
        Arc::new(world)
    }

    fn done(&self) {
        self.contents.store(1, Ordering::Relaxed);
        let _object = self.object.lock();
        if self.page.let_go() {
            self.machine.wake(busy_channel(FRAME));
        }
    }

    fn wait(&self) {
        loop {
            let object = self.object.lock();
            if !self.page.is_busy() {
                break;
            }
            self.page.set(Bits::WANTED);
            let ticket = self.machine.ticket(busy_channel(FRAME));
            drop(object);
            self.machine.sleep(busy_channel(FRAME), ticket, None);
        }
        assert_eq!(self.contents.load(Ordering::Relaxed), 1, "looked too early");
    }
}

#[test]
fn who_wants_a_busy_page_is_woken() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.check(|| {
        let world = World::new();
        let worker = thread::spawn({
            let world = world.clone();
            move || world.done()
        });
        world.wait();
        worker.join().unwrap();
        assert!(!world.page.has(Bits::BUSY | Bits::WANTED));
    });
}

/// Wirings by two at once: none is lost, and none too many is given back.
#[test]
fn wirings_are_counted_right() {
    loom::model(|| {
        let world = World::new();
        let other = thread::spawn({
            let world = world.clone();
            move || {
                assert!(world.page.wire().is_some());
                world.page.unwire(0)
            }
        });
        assert!(world.page.wire().is_some());
        let left = world.page.wired();
        assert!((1..=2).contains(&left));
        other.join().unwrap();
        assert_eq!((world.page.wired(), world.page.unwire(0)), (1, Some(0)));
        assert!(world.page.is_busy(), "the flags are left alone");
    });
}
