//! The tree against a sorted map of the standard library.

extern crate std;

use super::*;
use crate::{Config, Vm};
use bsdvm_sim::{Sim, SimConfig};
use std::collections::BTreeMap;
use std::vec::Vec;

const PAGE: u64 = 4096;
const SPAN: u64 = 400;

struct Both {
    vm: Vm<Sim<12>>,
    tree: Tree,
    naive: BTreeMap<u64, (u64, u32)>,
    random: u64,
}

impl Both {
    fn new() -> Both {
        let machine = Sim::new(SimConfig::default());
        let vm = Vm::new(machine, Config::default()).unwrap();
        let tree = Tree::new(vm.map_nodes.owner());
        Both {
            vm,
            tree,
            naive: BTreeMap::new(),
            random: 88,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 8) % bound
    }

    fn floor(&self, at: u64) -> Option<Found> {
        let (&start, &(end, id)) = self.naive.range(..=at).next_back()?;
        Some(Found { id, start, end })
    }

    fn is_free(&self, start: u64, end: u64) -> bool {
        self.naive
            .range(..end)
            .next_back()
            .is_none_or(|(_, &(e, _))| e <= start)
    }

    fn insert(&mut self, start: u64, end: u64) {
        let id = self.below(1 << 30) as u32;
        let nodes = &self.vm.map_nodes;
        let mut from = nodes
            .reserve(&self.vm.frames, NODES_PER_INSERT, Node::EMPTY)
            .unwrap();
        self.tree.insert(nodes, &mut from, start, end, id);
        self.naive.insert(start, (end, id));
    }

    fn remove(&mut self, start: u64) {
        let known = self.tree.remove(&self.vm.map_nodes, start);
        assert_eq!(known, self.naive.remove(&start).is_some());
    }

    /// Moves the ends of an entry within the gaps around it.
    fn resize(&mut self, start: u64) {
        let Some((end, id)) = self.naive.remove(&start) else {
            return;
        };
        let before = self.floor(start).map_or(0, |f| f.end);
        let after = self.naive.range(start..).next().map_or(end, |(&s, _)| s);
        let new_start = before + self.below(start - before + 1);
        let new_end = end + self.below(after - end + 1);
        self.tree
            .resize(&self.vm.map_nodes, start, new_start, new_end);
        self.naive.insert(new_start, (new_end, id));
    }

    fn check(&self) {
        let mut seen = Vec::new();
        self.tree
            .verify(&self.vm.map_nodes, &mut |found| seen.push(found))
            .unwrap();
        let all = self.naive.iter();
        let expected = all.map(|(&start, &(end, id))| Found { id, start, end });
        assert!(seen.into_iter().eq(expected));
        assert_eq!(self.tree.len(), self.naive.len() as u64);
        let first = self.tree.first(&self.vm.map_nodes).map(|f| f.start);
        assert_eq!(first, self.naive.keys().next().copied());
        for at in (0..SPAN * PAGE)
            .step_by(PAGE as usize / 2)
            .chain([u64::MAX])
        {
            let found = self.tree.floor(&self.vm.map_nodes, at);
            assert_eq!(found, self.floor(at), "{at:#x}");
        }
    }

    /// First and last fit against a look at every place. Stacks are the entries that start in odd
    /// pages, and keep a page below; first fit is asked for below the map's end only, above which
    /// there is none.
    fn fits(&mut self) {
        let (low, high) = (self.below(SPAN) * PAGE, self.below(SPAN) * PAGE);
        let (len, align) = ((1 + self.below(4)) * PAGE, PAGE << self.below(2));
        let naive = &self.naive;
        let ceiling = |start: u64| match start / PAGE % 2 {
            1 if naive.contains_key(&start) => start - PAGE,
            _ => start,
        };
        let query = Query {
            low,
            high,
            len,
            align,
            ceiling: &ceiling,
        };
        let fits = |at: u64, high: u64| {
            let next = naive.range(at..).next().map_or(u64::MAX, |(&s, _)| s);
            at.is_multiple_of(align)
                && at + len <= high
                && self.is_free(at, at + len)
                && at + len <= ceiling(next)
        };
        let places = |high: u64| (low.min(high) / PAGE..high / PAGE).map(|p| p * PAGE);
        let nodes = &self.vm.map_nodes;
        let down = self.tree.last_fit(nodes, 0, &query);
        assert_eq!(down, places(high).filter(|&at| fits(at, high)).last());
        let high = (SPAN + 8) * PAGE;
        let up = self.tree.first_fit(nodes, 0, &Query { high, ..query });
        assert_eq!(up, places(high).find(|&at| fits(at, high)));
    }
}

#[test]
fn it_agrees_with_a_sorted_map() {
    let mut both = Both::new();
    for round in 0..3000u64 {
        // Grows, then shrinks, then grows again.
        let grows = round / 500 % 2 == 0;
        let page = both.below(SPAN);
        let start = page * PAGE;
        let end = start + (1 + both.below(2)) * PAGE;
        match both.below(8) {
            0 => both.resize(start),
            n if (n < 6) == grows => {
                if both.is_free(start, end) {
                    both.insert(start, end);
                }
            }
            _ => both.remove(start),
        }
        if round % 7 == 0 {
            both.check();
        }
        both.fits();
    }
    let starts: Vec<u64> = both.naive.keys().copied().collect();
    starts.into_iter().for_each(|start| both.remove(start));
    both.check();
    assert_eq!(both.vm.map_nodes.live(), 0, "nodes are left");
}

#[test]
fn ascending_entries_fill_their_nodes() {
    let mut both = Both::new();
    (0..300).for_each(|i| both.insert(i * PAGE, (i + 1) * PAGE));
    both.check();
    let full = 300u32.div_ceil(WIDTH as u32 - 2);
    assert!(both.vm.map_nodes.live() <= full + 4);
}
