//! The tree against a sorted list.

use super::*;
use crate::page::Frames;
use bsdvm_sim::{Sim, SimConfig};

extern crate std;
use std::vec::Vec;

const MIN: u64 = 0x1000;
const MAX: u64 = 0x10_0000;

/// Pseudo-random numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

struct Both {
    frames: Frames<Sim>,
    nodes: Arena<Sim, Node>,
    tree: Tree,
    /// (start, end, id), sorted.
    list: Vec<(u64, u64, u32)>,
}

impl Both {
    fn new() -> Both {
        let frames = Frames::new(Sim::new(SimConfig {
            frames: 2048,
            ..SimConfig::default()
        }));
        assert!(frames.boot(u32::MAX));
        let nodes = Arena::new();
        let tree = Tree::new(nodes.owner());
        Both {
            frames,
            nodes,
            tree,
            list: Vec::new(),
        }
    }

    /// The free ranges of the list, in order.
    fn holes(&self) -> Vec<(u64, u64)> {
        let mut at = MIN;
        let mut holes = Vec::new();
        for &(start, end, _) in &self.list {
            holes.push((at, start));
            at = end;
        }
        holes.push((at, MAX));
        holes.retain(|(from, to)| from < to);
        holes
    }

    fn insert(&mut self, start: u64, end: u64, id: u32) {
        let Ok(mut from) = self
            .nodes
            .reserve(&self.frames, NODES_PER_INSERT, Node::EMPTY)
        else {
            panic!("enough frames");
        };
        self.tree.insert(&self.nodes, &mut from, start, end, id);
        let at = self.list.partition_point(|e| e.0 < start);
        self.list.insert(at, (start, end, id));
    }

    fn insert_somewhere(&mut self, random: &mut Random, id: u32) {
        let holes = self.holes();
        if holes.is_empty() {
            return;
        }
        let (from, to) = holes[random.below(holes.len() as u64) as usize];
        // Often right at the edge, so that there are entries without a gap between them.
        let start = from + random.below((to - from) / 2 + 1) * random.below(2);
        let end = start + 1 + random.below((to - start).min(0x800));
        self.insert(start, end.min(to), id);
    }

    fn remove_one(&mut self, random: &mut Random) {
        if self.list.is_empty() {
            return;
        }
        let at = random.below(self.list.len() as u64) as usize;
        let (start, ..) = self.list.remove(at);
        assert!(self.tree.remove(&self.nodes, start));
        assert!(!self.tree.remove(&self.nodes, start), "it has gone");
    }

    fn resize_one(&mut self, random: &mut Random) {
        if self.list.is_empty() {
            return;
        }
        let at = random.below(self.list.len() as u64) as usize;
        let low = if at > 0 { self.list[at - 1].1 } else { MIN };
        let high = self.list.get(at + 1).map_or(MAX, |e| e.0);
        let start = low + random.below(high - low);
        let end = start + 1 + random.below(high - start);
        let old = self.list[at].0;
        self.tree.resize(&self.nodes, old, start, end);
        self.list[at].0 = start;
        self.list[at].1 = end;
    }

    /// The first or last place that fits, by looking at every hole.
    fn naive_fit(&self, query: &Query<'_>, up: bool) -> Option<u64> {
        let mut best = None;
        for (from, to) in self.holes() {
            let to = if to < MAX {
                (query.ceiling)(to).min(to)
            } else {
                to
            };
            let low = from.max(query.low);
            let high = to.min(query.high);
            let Some(end_start) = high.checked_sub(query.len) else {
                continue;
            };
            let first = low.next_multiple_of(query.align);
            let last = end_start - end_start % query.align;
            if first <= end_start && up {
                return Some(first);
            }
            if last >= low && !up {
                best = Some(last);
            }
        }
        best
    }

    fn ask(&self, random: &mut Random) {
        let reserve = random.below(3) * 0x100;
        // Some entries keep free space below them for themselves.
        let ceiling = |start: u64| match self.list.binary_search_by_key(&start, |e| e.0) {
            Ok(_) if start.is_multiple_of(3) => start.saturating_sub(reserve),
            _ => start,
        };
        let low = MIN + random.below(MAX - MIN);
        let query = Query {
            low: if random.below(2) == 0 { MIN } else { low },
            high: if random.below(2) == 0 {
                MAX
            } else {
                low + random.below(MAX - low) + 1
            },
            len: 1 + random.below(0x1000),
            align: 1 << random.below(10),
            ceiling: &ceiling,
        };
        assert_eq!(
            self.tree.first_fit(&self.nodes, MIN, &query),
            self.naive_fit(&query, true),
            "first fit of {} in {:x}..{:x}",
            query.len,
            query.low,
            query.high
        );
        assert_eq!(
            self.tree.last_fit(&self.nodes, MIN, &query),
            self.naive_fit(&query, false),
            "last fit of {} in {:x}..{:x}",
            query.len,
            query.low,
            query.high
        );
        let at = random.below(MAX);
        let floor = self.list.iter().rfind(|e| e.0 <= at).copied();
        let found = self.tree.floor(&self.nodes, at);
        assert_eq!(found.map(|f| (f.start, f.end, f.id)), floor);
    }

    fn compare(&self) {
        let mut seen = Vec::new();
        self.tree
            .verify(&self.nodes, &mut |f| seen.push((f.start, f.end, f.id)))
            .unwrap();
        assert_eq!(seen, self.list);
        assert_eq!(self.tree.len(), self.list.len() as u64);
        let first = self.tree.first(&self.nodes).map(|f| f.start);
        assert_eq!(first, self.list.first().map(|e| e.0));
        assert_eq!(
            self.list.is_empty(),
            self.nodes.live() == 0,
            "no node is kept"
        );
    }
}

#[test]
fn random_changes_agree_with_a_sorted_list() {
    let steps = if cfg!(miri) { 100 } else { 4000 };
    for seed in 1..=4 {
        let mut both = Both::new();
        let mut random = Random(seed * 0x9e37_79b9);
        for step in 0..steps {
            // Grow for a while, then shrink.
            let grow = if step / 500 % 2 == 0 { 7 } else { 3 };
            match random.below(10) {
                n if n < grow => both.insert_somewhere(&mut random, step + 1),
                9 => both.resize_one(&mut random),
                _ => both.remove_one(&mut random),
            }
            both.compare();
            both.ask(&mut random);
        }
        while !both.list.is_empty() {
            both.remove_one(&mut random);
        }
        both.compare();
    }
}

/// In ascending order nodes are left nearly full: what fork counts on.
#[test]
fn ascending_insertions_fill_the_nodes() {
    let mut both = Both::new();
    let count = if cfg!(miri) { 200 } else { 20_000 };
    for i in 0..count {
        both.insert(MIN + u64::from(i) * 16, MIN + u64::from(i) * 16 + 8, i + 1);
    }
    both.tree.verify(&both.nodes, &mut |_| ()).unwrap();
    assert!(both.nodes.live() <= count / 8 + 2 * NODES_PER_INSERT);
}

#[test]
fn descending_insertions_and_removals_from_the_middle() {
    let mut both = Both::new();
    let count = if cfg!(miri) { 60 } else { 1500 };
    for i in (0..count).rev() {
        both.insert(MIN + u64::from(i) * 16, MIN + u64::from(i) * 16 + 16, i + 1);
    }
    both.compare();
    assert_eq!(both.holes().len(), 1, "no gap between any two");
    while !both.list.is_empty() {
        let (start, ..) = both.list.remove(both.list.len() / 2);
        assert!(both.tree.remove(&both.nodes, start));
        both.compare();
    }
}

/// Places at the ends of the address space: nothing overflows.
#[test]
fn the_ends_of_the_address_space() {
    let mut both = Both::new();
    let query = |low, high, len, align| Query {
        low,
        high,
        len,
        align,
        ceiling: &|start| start,
    };
    let all = query(0, u64::MAX, u64::MAX, 1);
    assert_eq!(both.tree.first_fit(&both.nodes, 0, &all), Some(0));
    assert_eq!(both.tree.last_fit(&both.nodes, 0, &all), Some(0));
    both.insert(0, 1, 1);
    both.insert(u64::MAX - 1, u64::MAX, 2);
    assert_eq!(both.tree.first_fit(&both.nodes, 0, &all), None);
    assert_eq!(both.tree.last_fit(&both.nodes, 0, &all), None);
    let aligned = query(0, u64::MAX, 1 << 62, 1 << 63);
    assert_eq!(both.tree.first_fit(&both.nodes, 0, &aligned), Some(1 << 63));
    assert_eq!(both.tree.last_fit(&both.nodes, 0, &aligned), Some(1 << 63));
    let late = query(u64::MAX - 5, u64::MAX, 4, 8);
    assert_eq!(both.tree.first_fit(&both.nodes, 0, &late), None);
    both.tree.verify(&both.nodes, &mut |_| ()).unwrap();
}

/// What is taken out leaves few nodes behind: sparse neighbours are merged.
#[test]
fn a_tree_that_lost_most_of_its_entries_is_small() {
    let mut both = Both::new();
    let mut random = Random(99);
    let nodes = &both.nodes;
    let mut left: Vec<u64> = (0..8000).map(|i| MIN + i * 0x2000).collect();
    for &start in &left {
        let mut from = nodes
            .reserve(&both.frames, NODES_PER_INSERT, Node::EMPTY)
            .unwrap();
        both.tree.insert(nodes, &mut from, start, start + 0x1000, 7);
    }
    let full = nodes.live();
    assert!(
        full < 8000 / 11,
        "{full} nodes: ascending insertions fill them"
    );
    while left.len() > 400 {
        let start = left.swap_remove(random.below(left.len() as u64) as usize);
        assert!(both.tree.remove(nodes, start));
    }
    assert!(
        nodes.live() < 400 / 3,
        "{} nodes for 400 entries",
        nodes.live()
    );
    for start in left {
        assert!(both.tree.remove(nodes, start));
    }
    assert_eq!(nodes.live(), 0);
}
