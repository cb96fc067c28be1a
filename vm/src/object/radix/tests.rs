//! The radix tree against a sorted map of the standard library.

extern crate std;

use super::*;
use crate::{Config, Vm};
use bsdvm_sim::{Sim, SimConfig};
use std::collections::BTreeMap;

#[test]
fn it_agrees_with_a_sorted_map() {
    let config = SimConfig {
        frames: 2000,
        ..SimConfig::default()
    };
    let vm = Vm::new(Sim::<12>::new(config), Config::default()).unwrap();
    let nodes = &vm.page_nodes;
    let mut radix = Radix::new(nodes.owner());
    let mut naive = BTreeMap::new();
    let mut random = 99u64;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 8) % bound
    };
    for round in 0..6000u64 {
        // Near, far and very far pages; a phase that removes follows each that adds.
        let index = below(200) << (6 * below(3) * below(4));
        let value = below(1 << 20) as u32;
        let slot = match value % 2 {
            0 => Slot::Resident(Frame(value)),
            _ => Slot::Swapped(value),
        };
        if below(4) == 0 || round / 1000 % 2 == 1 {
            assert_eq!(radix.remove(nodes, index), naive.remove(&index));
        } else if naive.contains_key(&index) && value % 3 == 0 {
            radix.replace(nodes, index, slot);
            naive.insert(index, slot);
        } else {
            let mut from = nodes
                .reserve(&vm.frames, NODES_PER_INSERT, Node::EMPTY)
                .unwrap();
            let old = radix.set(nodes, &mut from, index, slot);
            assert_eq!(old, naive.insert(index, slot));
        }
        let at = below(200) << (6 * below(3) * below(4));
        assert_eq!(radix.get(nodes, at), naive.get(&at).copied());
        let next = naive.range(at..).next().map(|(&i, &s)| (i, s));
        assert_eq!(radix.next(nodes, at), next);
        let resident = |s: &&Slot| matches!(s, Slot::Resident(_));
        let count = naive.values().filter(resident).count() as u64;
        assert_eq!(radix.resident, count);
        assert_eq!(radix.swapped, naive.len() as u64 - count);
        assert_eq!(radix.is_empty(), naive.is_empty());
    }
    for index in naive.into_keys() {
        assert!(radix.remove(nodes, index).is_some());
    }
    assert!(radix.is_empty());
    assert_eq!(nodes.live(), 0, "nodes are left");
}
