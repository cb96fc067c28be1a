//! Which page of an object is where: a radix tree, 64 wide.
//!
//! A slot is empty, names the frame of a resident page, or names the swap slot of a page that was
//! paged out. Never both: a page that comes back gives its swap slot up.
//!
//! A pure container: the object's lock guards it.

use crate::slab::{Arena, Handle, Owner, Reservation};
use bsdvm_machine::{Frame, Machine};

const BITS: u32 = 6;
const WIDTH: usize = 1 << BITS;
/// Levels that reach every page index: 64 bits less the smallest page shift.
const LEVELS: u32 = (64 - 12u32).div_ceil(BITS);
/// Nodes that one insertion can need.
pub(crate) const NODES_PER_INSERT: u32 = 2 * LEVELS;

const EMPTY: u32 = u32::MAX;
const SWAPPED: u32 = 1 << 31;

/// What a slot holds. Frames and swap slots are numbers below 2^31.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    Resident(Frame),
    Swapped(u32),
}

fn pack(slot: Slot) -> u32 {
    match slot {
        Slot::Resident(f) => f.0,
        Slot::Swapped(s) => s | SWAPPED,
    }
}

fn unpack(raw: u32) -> Option<Slot> {
    match raw {
        EMPTY => None,
        s if s & SWAPPED != 0 => Some(Slot::Swapped(s & !SWAPPED)),
        f => Some(Slot::Resident(Frame(f))),
    }
}

/// One node: 64 slots or children.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    slots: [u32; WIDTH],
    count: u32,
}

impl Node {
    pub(crate) const EMPTY: Node = Node {
        slots: [EMPTY; WIDTH],
        count: 0,
    };
}

type NodeHandle = Handle<Node>;

/// The tree of one object.
pub(crate) struct Radix {
    root: Option<NodeHandle>,
    /// Levels above the leaves.
    height: u32,
    owner: Owner,
    /// Slots that hold a frame, and a swap slot.
    pub(crate) resident: u64,
    pub(crate) swapped: u64,
}

fn digit(index: u64, level: u32) -> usize {
    (index >> (level * BITS)) as usize & (WIDTH - 1)
}

/// Whether a tree of `height` reaches `index`.
fn reaches(height: u32, index: u64) -> bool {
    let bits = (height + 1) * BITS;
    bits >= 64 || index >> bits == 0
}

impl Radix {
    pub(crate) fn new(owner: Owner) -> Radix {
        Radix {
            root: None,
            height: 0,
            owner,
            resident: 0,
            swapped: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    fn kid<M: Machine>(
        &self,
        nodes: &Arena<M, Node>,
        node: NodeHandle,
        at: usize,
    ) -> Option<NodeHandle> {
        let raw = nodes.get(&self.owner, node).slots[at];
        if raw == EMPTY {
            None
        } else {
            Handle::from_raw(raw)
        }
    }

    /// What is at `index`.
    #[inline]
    pub(crate) fn get<M: Machine>(&self, nodes: &Arena<M, Node>, index: u64) -> Option<Slot> {
        if !reaches(self.height, index) {
            return None;
        }
        let mut node = self.root?;
        for level in (1..=self.height).rev() {
            node = self.kid(nodes, node, digit(index, level))?;
        }
        unpack(nodes.get(&self.owner, node).slots[digit(index, 0)])
    }

    fn tally(&mut self, slot: Option<Slot>, by: i64) {
        match slot {
            Some(Slot::Resident(_)) => self.resident = self.resident.wrapping_add_signed(by),
            Some(Slot::Swapped(_)) => self.swapped = self.swapped.wrapping_add_signed(by),
            None => {}
        }
    }

    /// Puts `slot` at `index`; gives back what was there. Draws at most [`NODES_PER_INSERT`]
    /// nodes from `from`, none when something was there.
    pub(crate) fn set<M: Machine>(
        &mut self,
        nodes: &Arena<M, Node>,
        from: &mut Reservation<'_, M, Node>,
        index: u64,
        slot: Slot,
    ) -> Option<Slot> {
        let mut node = self.reach(nodes, from, index);
        for level in (1..=self.height).rev() {
            let at = digit(index, level);
            node = match self.kid(nodes, node, at) {
                Some(kid) => kid,
                None => {
                    let kid = nodes.alloc(from, &mut self.owner, Node::EMPTY);
                    let parent = nodes.get_mut(&mut self.owner, node);
                    parent.slots[at] = kid.raw();
                    parent.count += 1;
                    kid
                }
            };
        }
        let leaf = nodes.get_mut(&mut self.owner, node);
        let old = unpack(core::mem::replace(
            &mut leaf.slots[digit(index, 0)],
            pack(slot),
        ));
        if old.is_none() {
            leaf.count += 1;
        }
        self.tally(old, -1);
        self.tally(Some(slot), 1);
        old
    }

    /// Replaces what is at `index`, which holds something already.
    pub(crate) fn replace<M: Machine>(&mut self, nodes: &Arena<M, Node>, index: u64, slot: Slot) {
        let mut at = self.root;
        for level in (1..=self.height).rev() {
            at = at.and_then(|n| self.kid(nodes, n, digit(index, level)));
        }
        let Some(node) = at else { return };
        let leaf = nodes.get_mut(&mut self.owner, node);
        let old = unpack(core::mem::replace(
            &mut leaf.slots[digit(index, 0)],
            pack(slot),
        ));
        debug_assert!(old.is_some(), "replace needs something to replace");
        self.tally(old, -1);
        self.tally(Some(slot), 1);
    }

    /// Grows the tree until it reaches `index`; gives the root.
    fn reach<M: Machine>(
        &mut self,
        nodes: &Arena<M, Node>,
        from: &mut Reservation<'_, M, Node>,
        index: u64,
    ) -> NodeHandle {
        let mut root = match self.root {
            Some(root) => root,
            None => {
                self.height = 0;
                while !reaches(self.height, index) {
                    self.height += 1;
                }
                nodes.alloc(from, &mut self.owner, Node::EMPTY)
            }
        };
        while !reaches(self.height, index) {
            let mut node = Node::EMPTY;
            node.slots[0] = root.raw();
            node.count = 1;
            root = nodes.alloc(from, &mut self.owner, node);
            self.height += 1;
        }
        self.root = Some(root);
        root
    }

    /// Empties the slot at `index`; gives back what was there.
    pub(crate) fn remove<M: Machine>(
        &mut self,
        nodes: &Arena<M, Node>,
        index: u64,
    ) -> Option<Slot> {
        if !reaches(self.height, index) {
            return None;
        }
        let mut path = [self.root?; LEVELS as usize + 1];
        for level in (1..=self.height).rev() {
            path[level as usize - 1] =
                self.kid(nodes, path[level as usize], digit(index, level))?;
        }
        let leaf = nodes.get_mut(&mut self.owner, path[0]);
        let old = unpack(core::mem::replace(&mut leaf.slots[digit(index, 0)], EMPTY))?;
        leaf.count -= 1;
        self.tally(Some(old), -1);
        for level in 0..=self.height {
            let node = path[level as usize];
            if nodes.get(&self.owner, node).count > 0 {
                return Some(old);
            }
            nodes.free(&mut self.owner, node);
            if level == self.height {
                self.root = None;
                self.height = 0;
                return Some(old);
            }
            let parent = nodes.get_mut(&mut self.owner, path[level as usize + 1]);
            parent.slots[digit(index, level + 1)] = EMPTY;
            parent.count -= 1;
        }
        Some(old)
    }

    /// The first slot at or after `index` that holds something.
    pub(crate) fn next<M: Machine>(
        &self,
        nodes: &Arena<M, Node>,
        index: u64,
    ) -> Option<(u64, Slot)> {
        if !reaches(self.height, index) {
            return None;
        }
        self.next_in(nodes, self.root?, self.height, index, 0)
    }

    fn next_in<M: Machine>(
        &self,
        nodes: &Arena<M, Node>,
        node: NodeHandle,
        level: u32,
        index: u64,
        base: u64,
    ) -> Option<(u64, Slot)> {
        let first = digit(index, level);
        let contents = nodes.get(&self.owner, node);
        for at in first..WIDTH {
            let raw = contents.slots[at];
            if raw == EMPTY {
                continue;
            }
            let here = base | (at as u64) << (level * BITS);
            if level == 0 {
                return unpack(raw).map(|slot| (here, slot));
            }
            // Below the first child only what is at or after the index counts.
            let index = if at == first { index } else { 0 };
            if let Some(found) = self.next_in(nodes, Handle::from_raw(raw)?, level - 1, index, here)
            {
                return Some(found);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
