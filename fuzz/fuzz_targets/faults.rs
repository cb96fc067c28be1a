//! Faults, forks, page-out and exits on a VM with few frames and on the naive model, side by side.

#![no_main]

#[path = "../../vm/tests/common/mod.rs"]
mod common;
#[path = "../src/draw.rs"]
mod draw;

use common::model::World;
use draw::{Bytes, fault_op};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    let mut world = World::with_frames(draw::FRAMES);
    for _ in 0..draw::MOST {
        let Some(op) = fault_op(&mut bytes) else {
            break;
        };
        let fail = draw::failure(&mut bytes);
        draw::tell(&op, fail);
        world.step(&op, fail);
    }
    world.end();
});
