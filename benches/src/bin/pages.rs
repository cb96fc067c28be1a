//! The index of an object's resident pages, and free frames.

use bsdvm::bench::{PageIndex, frame_alloc, frame_free};
use bsdvm::{Config, Frame, Vm};
use bsdvm_benches::baseline::Buddy;
use bsdvm_benches::baseline::red_black::{NIL, RedBlack};
use bsdvm_benches::flat::Flat;
use bsdvm_benches::rounds::{Contender, Random, alternate};
use bsdvm_benches::table;
use std::collections::BTreeMap;
use std::hint::black_box;

/// Lookups or changes of a round.
const N: u64 = 200_000;

/// Pages in an order without pattern, as many as are asked for, again and again.
fn shuffled(pages: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..pages).collect();
    Random::new(11).shuffle(&mut order);
    order
}

/// Does `f` for [`N`] pages of `order`, going on where it stopped before.
fn walk(order: &[u64], at: &mut usize, mut f: impl FnMut(u64) -> u64) -> u64 {
    let mut sum = 0;
    for _ in 0..N {
        sum += f(order[*at]);
        *at += 1;
        if *at == order.len() {
            *at = 0;
        }
    }
    black_box(sum);
    N
}

fn index(pages: u64) {
    let frames = pages as u32 / 32 + 4096;
    let vm = Vm::new(Flat::new(frames), Config::default()).expect("enough frames");
    let order = shuffled(pages);
    let mut ours = PageIndex::new(&vm);
    let mut standard = BTreeMap::new();
    let mut documents = RedBlack::default();
    for &page in &order {
        assert!(ours.set(page, page as u32));
        standard.insert(page, page as u32);
        documents.insert(page, page + 1);
    }
    let (mut a, mut b, mut c) = (0, 0, 0);
    let stats = alternate(&mut [
        Contender::new("ours", || {
            walk(&order, &mut a, |p| ours.get(p).unwrap_or(0).into())
        }),
        Contender::new("BTreeMap", || walk(&order, &mut b, |p| standard[&p].into())),
        Contender::new("documents", || {
            walk(&order, &mut c, |p| {
                let found = documents.floor(p);
                assert_ne!(found, NIL);
                documents.start(found)
            })
        }),
    ]);
    table::comparison(&format!("lookup, {pages}"), &stats);
    let stats = alternate(&mut [
        Contender::new("ours", || {
            walk(&order, &mut a, |p| {
                assert!(ours.remove(p) && ours.set(p, p as u32));
                0
            })
        }),
        Contender::new("BTreeMap", || {
            walk(&order, &mut b, |p| {
                standard.remove(&p);
                standard.insert(p, p as u32);
                0
            })
        }),
        Contender::new("documents", || {
            walk(&order, &mut c, |p| {
                assert!(documents.remove(p));
                documents.insert(p, p + 1);
                0
            })
        }),
    ]);
    table::comparison(&format!("remove + insert, {pages}"), &stats);
}

/// Frames held at a time: taken in one go and given back in another order.
fn frames(held: usize) {
    const FRAMES: u32 = 1 << 16;
    const TIMES: usize = 1 << 17;
    let vm = Vm::new(Flat::new(FRAMES), Config::default()).expect("enough frames");
    let lists = parking_lot::Mutex::new(Buddy::new(FRAMES));
    let order = shuffled(held as u64);
    let mut ours = vec![Frame(0); held];
    let mut theirs = vec![0; held];
    let rounds = TIMES / held;
    let stats = alternate(&mut [
        Contender::new("ours", || {
            for _ in 0..rounds {
                ours.fill_with(|| frame_alloc(&vm).expect("a frame"));
                order
                    .iter()
                    .for_each(|&i| frame_free(&vm, ours[i as usize]));
            }
            (rounds * held) as u64
        }),
        Contender::new("buddy", || {
            for _ in 0..rounds {
                theirs.fill_with(|| lists.lock().alloc().expect("a frame"));
                order
                    .iter()
                    .for_each(|&i| lists.lock().free(theirs[i as usize]));
            }
            (rounds * held) as u64
        }),
    ]);
    table::comparison(&format!("{held}"), &stats);
}

fn main() {
    let (btree, red_black) = ("to BTreeMap", "to red-black");
    let head = [
        "operation, pages",
        btree,
        red_black,
        "ours, ns",
        "BTreeMap, ns",
        "red-black, ns",
    ];
    table::head("The pages of an object", &head);
    for pages in [512, 64 << 10, 1 << 20] {
        index(pages);
    }
    let head = [
        "frames held",
        "to buddy lists",
        "ours, ns",
        "buddy lists, ns",
    ];
    table::head("Frames: one taken and given back", &head);
    for held in [1, 32, 1024, 16384] {
        frames(held);
    }
}
