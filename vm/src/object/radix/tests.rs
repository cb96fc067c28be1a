//! The radix tree against a map of the standard library.

use super::*;
use crate::page::Frames;
use bsdvm_sim::{Sim, SimConfig};

extern crate std;
use std::collections::BTreeMap;
use std::vec::Vec;

/// The highest index that a page of 4 KiB can have.
const LAST: u64 = (1 << 52) - 1;

struct Both {
    frames: Frames<Sim>,
    nodes: Arena<Sim, Node>,
    radix: Radix,
    map: BTreeMap<u64, Slot>,
}

impl Both {
    fn new() -> Both {
        let frames = Frames::new(Sim::new(SimConfig {
            frames: 4096,
            ..SimConfig::default()
        }));
        assert!(frames.boot(u32::MAX));
        let nodes = Arena::new();
        let radix = Radix::new(nodes.owner());
        Both {
            frames,
            nodes,
            radix,
            map: BTreeMap::new(),
        }
    }

    fn set(&mut self, index: u64, slot: Slot) {
        let Ok(mut from) = self
            .nodes
            .reserve(&self.frames, NODES_PER_INSERT, Node::EMPTY)
        else {
            panic!("enough frames");
        };
        let had = self.map.contains_key(&index);
        let old = self.radix.set(&self.nodes, &mut from, index, slot);
        assert_eq!(old, self.map.insert(index, slot));
        assert!(
            !had || from.left() == NODES_PER_INSERT,
            "nothing was needed"
        );
    }

    fn remove(&mut self, index: u64) {
        let old = self.radix.remove(&self.nodes, index);
        assert_eq!(old, self.map.remove(&index));
    }

    fn compare(&self, index: u64) {
        let found = self.radix.get(&self.nodes, index);
        assert_eq!(found, self.map.get(&index).copied());
        let next = self.map.range(index..).next().map(|(i, s)| (*i, *s));
        assert_eq!(self.radix.next(&self.nodes, index), next, "from {index:#x}");
        let resident = self.map.values().filter(|s| matches!(s, Slot::Resident(_)));
        let resident = resident.count() as u64;
        let swapped = self.map.len() as u64 - resident;
        assert_eq!(
            (self.radix.resident, self.radix.swapped),
            (resident, swapped)
        );
        assert_eq!(self.radix.is_empty(), self.map.is_empty());
        assert_eq!(
            self.map.is_empty(),
            self.nodes.live() == 0,
            "no node is kept"
        );
    }

    fn walk(&self) -> Vec<u64> {
        let mut all = Vec::new();
        let mut at = 0;
        while let Some((index, _)) = self.radix.next(&self.nodes, at) {
            all.push(index);
            at = index + 1;
        }
        all
    }
}

fn slot(n: u64) -> Slot {
    match n % 3 {
        0 => Slot::Swapped(n as u32 & 0x7fff_fff0),
        _ => Slot::Resident(Frame(n as u32 & 0x7fff_ffff)),
    }
}

#[test]
fn random_changes_agree_with_a_map() {
    let steps = if cfg!(miri) { 150 } else { 6000 };
    for seed in 1..=4u64 {
        let mut both = Both::new();
        let mut state = seed * 0x9e37_79b9;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..steps {
            // Few bits, from anywhere: near 0, near the end, around powers of 64, up to 2^52.
            let near = [0, 63, 4095, 1 << 18, 1 << 36, 1 << 51, LAST - 90][random() as usize % 7];
            let index = (near + random() % 90).min(LAST);
            match random() % 8 {
                0..5 => both.set(index, slot(random())),
                5 if both.map.contains_key(&index) => {
                    let new = slot(random());
                    both.radix.replace(&both.nodes, index, new);
                    both.map.insert(index, new);
                }
                _ => both.remove(index),
            }
            both.compare(index);
            both.compare((near + random() % 200).min(LAST));
        }
        assert!(both.walk().iter().eq(both.map.keys()));
        for index in both.walk() {
            both.remove(index);
        }
        both.compare(0);
    }
}

#[test]
fn an_index_behind_the_last_one_finds_nothing() {
    let mut both = Both::new();
    both.set(5, slot(1));
    for index in [6, 63, 64, 1 << 51, LAST, u64::MAX] {
        assert_eq!(both.radix.get(&both.nodes, index), None);
        assert_eq!(both.radix.next(&both.nodes, index), None);
        assert_eq!(both.radix.remove(&both.nodes, index), None);
    }
    both.compare(5);
}

/// The first and the last index at once, in both orders, with what one insertion may draw.
#[test]
fn a_tree_of_two_ends() {
    for (first, second) in [(0, LAST), (LAST, 0), (1 << 51, 1), (1, 1 << 51)] {
        let mut both = Both::new();
        both.set(first, slot(1));
        both.set(second, slot(3));
        assert_eq!(both.walk(), [first.min(second), first.max(second)]);
        both.compare(1);
        both.remove(first);
        both.compare(second);
        both.remove(second);
        both.compare(0);
    }
}

#[test]
fn every_number_below_two_to_the_31_fits_a_slot() {
    for n in [0, 1, 63, (1 << 31) - 2] {
        for slot in [Slot::Resident(Frame(n)), Slot::Swapped(n)] {
            assert_eq!(unpack(pack(slot)), Some(slot));
        }
    }
    assert_eq!(unpack(EMPTY), None);
}
