//! Reservations in every interleaving of a few steps.

use crate::page::{Class, Frames};
use crate::slab::{Handle, Slab};
use bsdvm_sim::{Sim, SimConfig};
use loom::sync::Arc;
use loom::thread;

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.check(body);
}

/// A large record: a frame holds few.
struct Record(#[allow(dead_code, reason = "it takes room")] [u64; 80]);

struct World {
    frames: Frames<Sim<12>>,
    slab: Slab<Sim<12>, Record>,
}

const VACANT: fn() -> Record = || Record([0; 80]);

/// A slab with the records of one frame, and no frame to grow it with.
fn world() -> Arc<World> {
    // Made where it stays: the stacks of loom are small.
    let world = Arc::new(World {
        frames: Frames::new(Sim::new(SimConfig {
            frames: 24,
            ..SimConfig::default()
        })),
        slab: Slab::new(),
    });
    assert!(world.frames.boot(24));
    drop(world.slab.reserve(&world.frames, 1, VACANT).ok());
    while world.frames.alloc(Class::Interrupt).is_some() {}
    // Loom knows an atomic from its first use on: once over the same ground alone.
    let records = [take(&world), take(&world)];
    for record in records.into_iter().flatten() {
        world.slab.free(record);
    }
    world
}

/// Each wants all but one: there are not enough for two.
const WANT: u32 = Slab::<Sim<12>, Record>::PER_FRAME - 1;

fn take(world: &World) -> Option<Handle<Record>> {
    let mut set_aside = world.slab.reserve(&world.frames, WANT, VACANT).ok()?;
    let taken = world.slab.alloc(&mut set_aside);
    // What is left goes back.
    drop(set_aside);
    Some(taken)
}

#[test]
fn no_record_is_set_aside_twice() {
    model(|| {
        let world = world();
        let other = thread::spawn({
            let world = world.clone();
            move || take(&world)
        });
        let ours = take(&world);
        let theirs = other.join().unwrap();
        assert!(
            ours.is_some() || theirs.is_some(),
            "one of them finds enough"
        );
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            assert_ne!(ours, theirs, "a record has one owner");
        }
        let live = ours.into_iter().chain(theirs).count() as u32;
        assert_eq!(world.slab.live(), live);
        for record in ours.into_iter().chain(theirs) {
            world.slab.free(record);
        }
        let again = world.slab.reserve(&world.frames, WANT + 1, VACANT);
        assert!(again.is_ok(), "every record is there again");
    });
}
