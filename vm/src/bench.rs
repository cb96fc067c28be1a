//! The core's containers, for the benchmarks. Not an interface: what is here may change or go at
//! any time.
//!
//! Each call does what the core does around the container too: an insertion sets its records
//! aside first and gives back what it did not need.

use crate::Vm;
use crate::map::tree::{self, Query, Tree};
use crate::object::radix::{self, Radix, Slot};
use crate::page::Class;
use crate::slab::Arena;
use bsdvm_machine::{Frame, Machine};

/// Bytes of one entry of a map, of one node of its tree, of one page's record and of one node of a
/// page index.
pub const SIZES: [(&str, usize); 4] = [
    ("map entry", size_of::<crate::map::Entry>()),
    ("node of a map's tree", size_of::<tree::Node>()),
    ("frame", size_of::<crate::page::Page>()),
    ("node of a page index", size_of::<radix::Node>()),
];

/// The order of a map's entries.
pub struct MapTree<'v, M: Machine> {
    vm: &'v Vm<M>,
    tree: Tree,
}

impl<'v, M: Machine> MapTree<'v, M> {
    /// An empty tree in the memory of `vm`.
    pub fn new(vm: &'v Vm<M>) -> Self {
        let tree = Tree::new(vm.map_nodes.owner());
        MapTree { vm, tree }
    }

    /// Adds `[start, end)`, which overlaps nothing. False when memory is short.
    pub fn insert(&mut self, start: u64, end: u64, id: u32) -> bool {
        let vm = self.vm;
        let nodes = tree::NODES_PER_INSERT;
        let set_aside = vm.map_nodes.reserve(&vm.frames, nodes, tree::Node::EMPTY);
        let Ok(mut from) = set_aside else {
            return false;
        };
        self.tree.insert(&vm.map_nodes, &mut from, start, end, id);
        true
    }

    /// Takes out what starts at `start`; false when nothing does.
    pub fn remove(&mut self, start: u64) -> bool {
        self.tree.remove(&self.vm.map_nodes, start)
    }

    /// The number and end of what has the highest start at or below `at`.
    #[inline]
    pub fn floor(&self, at: u64) -> Option<(u32, u64)> {
        let found = self.tree.floor(&self.vm.map_nodes, at)?;
        Some((found.id, found.end))
    }

    /// The lowest free place for `len` bytes within `[min, high)`.
    pub fn first_fit(&self, min: u64, high: u64, len: u64) -> Option<u64> {
        let query = Query {
            low: min,
            high,
            len,
            align: 4096,
            ceiling: &|start| start,
        };
        self.tree.first_fit(&self.vm.map_nodes, min, &query)
    }

    /// Frames that the nodes of all trees fill.
    pub fn frames(&self) -> u32 {
        self.vm.map_nodes.frames()
    }

    /// Compares each summary with what it sums up. Panics when one is stale.
    pub fn verify(&self) {
        let done = self.tree.verify(&self.vm.map_nodes, &mut |_| ());
        assert_eq!(done, Ok(()));
    }
}

/// Which page of an object is in which frame.
pub struct PageIndex<'v, M: Machine> {
    vm: &'v Vm<M>,
    radix: Radix,
}

impl<'v, M: Machine> PageIndex<'v, M> {
    /// An empty index in the memory of `vm`.
    pub fn new(vm: &'v Vm<M>) -> Self {
        let radix = Radix::new(vm.page_nodes.owner());
        PageIndex { vm, radix }
    }

    /// Puts the page `index` in `frame`. False when memory is short.
    pub fn set(&mut self, index: u64, frame: u32) -> bool {
        let vm = self.vm;
        let nodes: &Arena<M, radix::Node> = &vm.page_nodes;
        let set_aside = nodes.reserve(&vm.frames, radix::NODES_PER_INSERT, radix::Node::EMPTY);
        let Ok(mut from) = set_aside else {
            return false;
        };
        let slot = Slot::Resident(Frame(frame));
        self.radix.set(nodes, &mut from, index, slot);
        true
    }

    /// The frame of page `index`.
    #[inline]
    pub fn get(&self, index: u64) -> Option<u32> {
        match self.radix.get(&self.vm.page_nodes, index)? {
            Slot::Resident(frame) => Some(frame.0),
            Slot::Swapped(_) => None,
        }
    }

    /// Takes page `index` out; false when it is not there.
    pub fn remove(&mut self, index: u64) -> bool {
        self.radix.remove(&self.vm.page_nodes, index).is_some()
    }
}

/// A frame for a program.
#[inline]
pub fn frame_alloc<M: Machine>(vm: &Vm<M>) -> Option<Frame> {
    vm.frames.alloc(Class::Normal)
}

/// Gives back what [`frame_alloc`] gave.
#[inline]
pub fn frame_free<M: Machine>(vm: &Vm<M>, frame: Frame) {
    vm.frames.free(frame);
}

/// Records drawn so far: entries, nodes of trees, nodes of page indexes, objects. Their differences
/// say how many allocations an operation leaves behind.
pub fn records<M: Machine>(vm: &Vm<M>) -> [u32; 4] {
    [
        vm.entries.live(),
        vm.map_nodes.live(),
        vm.page_nodes.live(),
        vm.objects.live(),
    ]
}
