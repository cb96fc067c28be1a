use super::*;
use crate::page::Class;
use bsdvm_sim::{Sim, SimConfig};

extern crate std;
use std::vec::Vec;

/// A record that fills a quarter of a frame, less what its place in the list takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Big([u64; 120]);

const ZERO: Big = Big([0; 120]);

fn frames(count: u32) -> Frames<Sim> {
    let frames = Frames::new(Sim::new(SimConfig {
        frames: count,
        ..SimConfig::default()
    }));
    assert!(frames.boot(count));
    frames
}

#[test]
fn a_handle_is_a_number_and_never_zero() {
    let first = Slab::<Sim, u64>::handle(0);
    assert_eq!(first.raw(), 1);
    assert_eq!(Handle::<u64>::from_raw(0), None);
    assert_eq!(Handle::from_raw(1), Some(first));
    assert_eq!(raw_of(Some(first)), 1);
    assert_eq!(raw_of::<u64>(None), 0);
    assert_eq!(cast::<u64, u32>(first).raw(), first.raw());
}

#[test]
fn an_arena_grows_and_keeps_every_record() {
    let frames = frames(64);
    let arena = Arena::<Sim, Big>::new();
    let mut owners = [arena.owner(), arena.owner()];
    let mut made = Vec::new();
    for i in 0..30u64 {
        let mut from = arena.reserve(&frames, 2, ZERO).unwrap();
        let owner = &mut owners[i as usize % 2];
        let handle = arena.alloc(&mut from, owner, Big([i; 120]));
        assert_eq!(from.left(), 1);
        made.push(handle);
    }
    assert_eq!(arena.live(), 30);
    // Four records a frame, and the directory. One more was set aside at times.
    assert!(arena.frames() >= 9, "{}", arena.frames());
    for (i, &handle) in made.iter().enumerate() {
        arena.get_mut(&mut owners[i % 2], handle).0[119] += 1;
    }
    for (i, &handle) in made.iter().enumerate() {
        let record = arena.get(&owners[i % 2], handle);
        assert_eq!((record.0[0], record.0[119]), (i as u64, i as u64 + 1));
        assert!(made[..i].iter().all(|&other| other != handle));
    }
    for (i, handle) in made.into_iter().enumerate() {
        arena.free(&mut owners[i % 2], handle);
    }
    assert_eq!(arena.live(), 0);
}

#[test]
fn what_is_freed_is_used_again() {
    let frames = frames(64);
    let arena = Arena::<Sim, Big>::new();
    let mut owner = arena.owner();
    for i in 0..100 {
        let mut from = arena.reserve(&frames, 3, ZERO).unwrap();
        let handles = [1, 2, 3].map(|n| arena.alloc(&mut from, &mut owner, Big([n; 120])));
        assert_eq!(from.left(), 0);
        for (handle, n) in handles.into_iter().zip([1, 2, 3]) {
            assert_eq!(*arena.get(&owner, handle), Big([n; 120]), "round {i}");
            arena.free(&mut owner, handle);
        }
    }
    assert_eq!(arena.frames(), 2, "a directory and a chunk");
}

#[test]
fn what_is_set_aside_is_nobody_elses() {
    let frames = frames(64);
    let slab = Slab::<Sim, u64>::new();
    let count = Slab::<Sim, u64>::PER_FRAME;
    let first = slab.reserve(&frames, count, || 7).unwrap();
    assert_eq!(slab.frames(), 2);
    let mut second = slab.reserve(&frames, 1, || 7).unwrap();
    assert_eq!(slab.frames(), 3, "all of the first frame is taken");
    let handle = slab.alloc(&mut second);
    assert_eq!((*slab.get(handle), slab.live()), (7, 1));
    drop(first);
    let third = slab.reserve(&frames, 2 * count - 1, || 7).unwrap();
    assert_eq!((slab.frames(), third.left()), (3, 2 * count - 1));
    drop((second, third));
    slab.free(handle);
    assert_eq!(slab.live(), 0);
    assert_eq!(slab.each().count() as u32, 2 * count);
}

#[test]
fn a_slab_refuses_when_frames_are_out_and_goes_on_later() {
    let frames = frames(16);
    let slab = Slab::<Sim, [u64; 500]>::new();
    let mut kept = Vec::new();
    let mut taken = Vec::new();
    while let Ok(mut from) = slab.reserve(&frames, 1, || [3; 500]) {
        taken.push(slab.alloc(&mut from));
    }
    assert!(frames.free_count() <= 1 && taken.len() >= 10);
    assert!(slab.reserve(&frames, 1, || [3; 500]).is_err());
    let held = slab.frames();
    for handle in taken {
        assert_eq!(*slab.get(handle), [3; 500]);
        slab.free(handle);
    }
    assert_eq!(slab.frames(), held, "records stay where they are");
    let count = slab.each().count() as u32;
    kept.push(slab.reserve(&frames, count, || [3; 500]).unwrap());
    assert!(slab.reserve(&frames, 1, || [3; 500]).is_err());
    assert_eq!(frames.alloc(Class::System), None);
    drop(kept);
}

#[test]
fn several_threads_take_and_give_back() {
    const THREADS: u64 = 4;
    let frames = frames(256);
    let arena = Arena::<Sim, Big>::new();
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    std::thread::scope(|t| {
        for id in 0..THREADS {
            let (arena, frames) = (&arena, &frames);
            t.spawn(move || {
                let mut owner = arena.owner();
                let mut mine = Vec::new();
                for i in 0..rounds {
                    if i % 3 < 2 && mine.len() < 20 {
                        let mut from = arena.reserve(frames, 2, ZERO).unwrap();
                        let value = Big([id * rounds + i; 120]);
                        mine.push((arena.alloc(&mut from, &mut owner, value), value));
                    } else if let Some((handle, value)) = mine.pop() {
                        assert_eq!(*arena.get(&owner, handle), value);
                        arena.free(&mut owner, handle);
                    }
                }
                for (handle, _) in mine {
                    arena.free(&mut owner, handle);
                }
            });
        }
    });
    assert_eq!(arena.live(), 0);
}

#[test]
#[should_panic(expected = "not the owner")]
fn a_record_is_not_shown_to_another_owner() {
    let frames = frames(64);
    let arena = Arena::<Sim, u64>::new();
    let (mut one, two) = (arena.owner(), arena.owner());
    let mut from = arena.reserve(&frames, 1, 0).unwrap();
    let handle = arena.alloc(&mut from, &mut one, 5);
    arena.get(&two, handle);
}

#[test]
#[should_panic(expected = "not the owner")]
fn a_record_is_not_changed_by_another_owner() {
    let frames = frames(64);
    let arena = Arena::<Sim, u64>::new();
    let (mut one, mut two) = (arena.owner(), arena.owner());
    let mut from = arena.reserve(&frames, 1, 0).unwrap();
    let handle = arena.alloc(&mut from, &mut one, 5);
    *arena.get_mut(&mut two, handle) = 6;
}

#[test]
#[should_panic(expected = "not the owner")]
fn a_freed_record_is_nobodys() {
    let frames = frames(64);
    let arena = Arena::<Sim, u64>::new();
    let mut owner = arena.owner();
    let mut from = arena.reserve(&frames, 1, 0).unwrap();
    let handle = arena.alloc(&mut from, &mut owner, 5);
    arena.free(&mut owner, handle);
    arena.free(&mut owner, handle);
}

#[test]
#[should_panic(expected = "more records than it reserved")]
fn no_more_is_taken_than_was_set_aside() {
    let frames = frames(64);
    let arena = Arena::<Sim, u64>::new();
    let mut owner = arena.owner();
    let mut from = arena.reserve(&frames, 1, 0).unwrap();
    for _ in 0..2 {
        arena.alloc(&mut from, &mut owner, 5);
    }
}

#[test]
#[should_panic(expected = "a handle of another slab")]
fn a_handle_of_nothing_is_no_wild_pointer() {
    Slab::<Sim, u64>::new().get(Slab::<Sim, u64>::handle(70_000));
}
