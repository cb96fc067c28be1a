//! Any operations on a VM and on the naive model, side by side, with failing allocations.

#![no_main]

#[path = "../../vm/tests/common/mod.rs"]
mod common;
#[path = "../src/draw.rs"]
mod draw;

use common::model::World;
use draw::{Bytes, any_op};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    let mut world = World::with_frames(draw::FRAMES);
    for _ in 0..draw::MOST {
        let Some(op) = any_op(&mut bytes) else { break };
        let fail = draw::failure(&mut bytes);
        draw::tell(&op, fail);
        world.step(&op, fail);
    }
    world.end();
});
