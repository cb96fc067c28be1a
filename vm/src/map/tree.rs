//! The order of a map's entries: a B+ tree, 15 wide, that keeps the largest gap of each subtree.
//!
//! A pure ordered container: it knows addresses and numbers of entries, takes no lock and holds
//! no policy. The map's lock guards it.
//!
//! ```text
//! interior   starts  0x1000      0x9000        first address of each child
//!            ends    0x6000      0xf000        end of the last entry of each child
//!            gaps    0x1000      0x2000        largest gap between entries within each child
//!                      |            |
//! leaf       [1000,3000) [4000,6000)  …        ends are the entries' own, gaps are not used
//! ```
//!
//! The gap between two neighbouring children is the next start less the end before it, so a
//! change of one entry touches the nodes above it and no others; the summaries above are left as
//! they are as soon as one of them stays the same.

use crate::slab::{Arena, Handle, Owner, Reservation};
use bsdvm_machine::Machine;

/// Children or entries of a node. One less than a power of two, so that four comparisons find a
/// place, and so that a lookup touches three cache lines of a node: its owner and starts, then its
/// children.
pub(crate) const WIDTH: usize = 15;
/// Levels of a tree; with at least 6 children a node on average, 2^32 entries fit.
pub(crate) const LEVELS: usize = 14;
/// Nodes that one insertion can need: a split on each level and a new root.
pub(crate) const NODES_PER_INSERT: u32 = LEVELS as u32 + 1;
/// A node with fewer is merged with a neighbour where both fit in one.
const SPARSE: usize = 6;

pub(crate) type NodeHandle = Handle<Node>;

/// One node. Which kind it is follows from its level.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Node {
    starts: [u64; WIDTH],
    kids: [u32; WIDTH],
    count: u32,
    ends: [u64; WIDTH],
    gaps: [u64; WIDTH],
    /// Makes a node, with the slab's word before it, seven cache lines.
    _line: [u64; 2],
}

const _: () = assert!((size_of::<Node>() + 8).is_multiple_of(64));

/// What a parent keeps of a child, or a leaf of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Item {
    start: u64,
    end: u64,
    gap: u64,
    kid: u32,
}

impl Node {
    pub(crate) const EMPTY: Node = Node {
        starts: [u64::MAX; WIDTH],
        ends: [0; WIDTH],
        gaps: [0; WIDTH],
        kids: [0; WIDTH],
        count: 0,
        _line: [0; 2],
    };

    fn len(&self) -> usize {
        (self.count as usize).min(WIDTH)
    }

    /// How many items start at or below `at`: three comparisons find the quarter and three more
    /// the place, none of them a branch. Free places hold `u64::MAX`, where nothing starts.
    #[inline]
    fn rank(&self, at: u64) -> usize {
        let at = at.min(u64::MAX - 1);
        let s = &self.starts;
        let below = |i: usize| usize::from(s[i] <= at);
        let quarter = 4 * (below(3) + below(7) + below(11));
        quarter + below(quarter) + below(quarter + 1) + below(quarter + 2)
    }

    fn item(&self, i: usize) -> Item {
        Item {
            start: self.starts[i],
            end: self.ends[i],
            gap: self.gaps[i],
            kid: self.kids[i],
        }
    }

    fn set(&mut self, i: usize, item: Item) {
        self.starts[i] = item.start;
        self.ends[i] = item.end;
        self.gaps[i] = item.gap;
        self.kids[i] = item.kid;
    }

    fn insert(&mut self, i: usize, item: Item) {
        for at in (i..self.len().min(WIDTH - 1)).rev() {
            self.set(at + 1, self.item(at));
        }
        self.set(i, item);
        self.count += 1;
    }

    fn remove(&mut self, i: usize) {
        let n = self.len();
        for at in i + 1..n {
            self.set(at - 1, self.item(at));
        }
        self.starts[n - 1] = u64::MAX;
        self.count -= 1;
    }

    /// Moves the items from `at` on to a new node.
    fn split_off(&mut self, at: usize) -> Node {
        let mut upper = Node::EMPTY;
        for i in at..self.len() {
            upper.set(i - at, self.item(i));
            self.starts[i] = u64::MAX;
        }
        upper.count = self.count - at as u32;
        self.count = at as u32;
        upper
    }

    fn append(&mut self, other: &Node) {
        for i in 0..other.len() {
            let n = self.len();
            self.set(n, other.item(i));
            self.count += 1;
        }
    }

    /// What the parent keeps of this node. The loop has a fixed length, and no branch.
    fn summary(&self, kid: u32) -> Item {
        let n = self.len();
        let (mut within, mut between) = (self.gaps[0], 0);
        for i in 1..WIDTH {
            let gap = self.starts[i].wrapping_sub(self.ends[i - 1]);
            within = within.max(if i < n { self.gaps[i] } else { 0 });
            between = between.max(if i < n { gap } else { 0 });
        }
        Item {
            start: self.starts[0],
            end: self.ends[n - 1],
            gap: within.max(between),
            kid,
        }
    }
}

/// An entry found: its number and its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) id: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What free space is looked for.
pub(crate) struct Query<'a> {
    /// Lowest start and highest end.
    pub(crate) low: u64,
    pub(crate) high: u64,
    pub(crate) len: u64,
    pub(crate) align: u64,
    /// Where free space below the entry that starts at the given address really ends: lower when
    /// a stack will grow there.
    pub(crate) ceiling: &'a dyn Fn(u64) -> u64,
}

impl Query<'_> {
    /// The lowest place in the free range `[from, to)`.
    fn lowest(&self, from: u64, to: u64) -> Option<u64> {
        let at = from.max(self.low).checked_next_multiple_of(self.align)?;
        let end = at.checked_add(self.len)?;
        let fits = |to: u64| end <= to.min(self.high);
        (fits(to) && (to >= self.high || fits((self.ceiling)(to)))).then_some(at)
    }

    /// The highest place in the free range `[from, to)`.
    fn highest(&self, from: u64, to: u64) -> Option<u64> {
        let place = |to: u64| {
            let at = to.min(self.high).checked_sub(self.len)?;
            let at = at - at % self.align;
            (at >= from.max(self.low)).then_some(at)
        };
        place(to)?;
        place((self.ceiling)(to))
    }
}

/// The tree of one map.
pub(crate) struct Tree {
    root: Option<NodeHandle>,
    /// Levels above the leaves.
    height: usize,
    len: u64,
    owner: Owner,
}

/// The way from the root to a leaf: on each level the node, and the place of its child there; in
/// the leaf, how many entries start at or below the address looked for.
struct Path {
    nodes: [u32; LEVELS],
    places: [u8; LEVELS],
}

impl Path {
    /// The node on `level`; none above the root.
    fn node(&self, level: usize) -> Option<NodeHandle> {
        Handle::from_raw(*self.nodes.get(level)?)
    }

    fn place(&self, level: usize) -> usize {
        usize::from(self.places[level])
    }
}

impl Tree {
    pub(crate) fn new(owner: Owner) -> Tree {
        Tree {
            root: None,
            height: 0,
            len: 0,
            owner,
        }
    }

    /// Entries in the tree.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The entry with the highest start at or below `at`.
    #[inline]
    pub(crate) fn floor<M: Machine>(&self, nodes: &Arena<M, Node>, at: u64) -> Option<Found> {
        let mut node = nodes.get(&self.owner, self.root?);
        for _ in 0..self.height {
            let i = node.rank(at).checked_sub(1)?;
            node = nodes.get(&self.owner, Handle::from_raw(node.kids[i])?);
        }
        let i = node.rank(at).checked_sub(1)?;
        Some(Found {
            id: node.kids[i],
            start: node.starts[i],
            end: node.ends[i],
        })
    }

    /// The entry with the lowest start.
    pub(crate) fn first<M: Machine>(&self, nodes: &Arena<M, Node>) -> Option<Found> {
        let mut node = nodes.get(&self.owner, self.root?);
        for _ in 0..self.height {
            node = nodes.get(&self.owner, Handle::from_raw(node.kids[0])?);
        }
        Some(Found {
            id: node.kids[0],
            start: node.starts[0],
            end: node.ends[0],
        })
    }

    fn descend<M: Machine>(&self, nodes: &Arena<M, Node>, at: u64) -> Path {
        let mut path = Path {
            nodes: [0; LEVELS],
            places: [0; LEVELS],
        };
        let mut raw = self.root.map_or(0, Handle::raw);
        for level in (0..=self.height).rev() {
            let Some(handle) = Handle::from_raw(raw) else {
                break;
            };
            let node = nodes.get(&self.owner, handle);
            let rank = node.rank(at);
            let place = if level == 0 {
                rank
            } else {
                rank.saturating_sub(1)
            };
            path.nodes[level] = raw;
            path.places[level] = place as u8;
            raw = node.kids[place.min(WIDTH - 1)];
        }
        path
    }

    /// Adds the entry `id` at `[start, end)`, which overlaps no other. Draws at most
    /// [`NODES_PER_INSERT`] nodes from `from`.
    pub(crate) fn insert<M: Machine>(
        &mut self,
        nodes: &Arena<M, Node>,
        from: &mut Reservation<'_, M, Node>,
        start: u64,
        end: u64,
        id: u32,
    ) {
        self.len += 1;
        let mut item = Item {
            start,
            end,
            gap: 0,
            kid: id,
        };
        if self.root.is_none() {
            let mut leaf = Node::EMPTY;
            leaf.insert(0, item);
            self.root = Some(nodes.alloc(from, &mut self.owner, leaf));
            return;
        }
        let path = self.descend(nodes, start);
        for level in 0..=self.height {
            let Some(handle) = path.node(level) else {
                return;
            };
            let node = nodes.get_mut(&mut self.owner, handle);
            // Above the leaves the new one follows the node that was split.
            let at = path.place(level) + usize::from(level > 0);
            let len = node.len();
            if len < WIDTH {
                node.insert(at, item);
                if level == 0 && at > 0 && at < len {
                    let whole = node.starts[at + 1] - node.ends[at - 1];
                    return self.divide(nodes, &path, whole);
                }
                return self.refresh(nodes, &path, level + 1);
            }
            let upper = Self::insert_split(node, at, item);
            let lower = node.summary(handle.raw());
            let upper_handle = nodes.alloc(from, &mut self.owner, upper);
            item = upper.summary(upper_handle.raw());
            match path.node(level + 1) {
                Some(parent) => {
                    let place = path.place(level + 1);
                    nodes.get_mut(&mut self.owner, parent).set(place, lower);
                }
                None => {
                    let mut root = Node::EMPTY;
                    root.insert(0, lower);
                    root.insert(1, item);
                    self.root = Some(nodes.alloc(from, &mut self.owner, root));
                    self.height += 1;
                    return;
                }
            }
        }
    }

    /// Puts `item` at place `at` of a full node; gives the new upper half. Appending at the end
    /// leaves the lower node full, so that ascending insertions fill the tree.
    fn insert_split(node: &mut Node, at: usize, item: Item) -> Node {
        let middle = if at == WIDTH { WIDTH - 2 } else { WIDTH / 2 };
        let mut upper = node.split_off(middle);
        if at <= middle && at < WIDTH {
            node.insert(at, item);
        } else {
            upper.insert(at - middle, item);
        }
        upper
    }

    /// Makes the summaries on the path true again, from `level` upwards. One that is true already
    /// leaves those above it true.
    fn refresh<M: Machine>(&mut self, nodes: &Arena<M, Node>, path: &Path, level: usize) {
        for level in level..=self.height {
            let (Some(parent), i) = (path.node(level), path.place(level)) else {
                return;
            };
            let kid = nodes.get(&self.owner, parent).kids[i];
            let Some(handle) = Handle::from_raw(kid) else {
                return;
            };
            let summary = nodes.get(&self.owner, handle).summary(kid);
            let parent = nodes.get_mut(&mut self.owner, parent);
            if parent.item(i) == summary {
                return;
            }
            parent.set(i, summary);
        }
    }

    /// A new entry stands within a gap of `whole` bytes of the leaf, which counted only if it was
    /// the largest.
    fn divide<M: Machine>(&mut self, nodes: &Arena<M, Node>, path: &Path, whole: u64) {
        if let Some(parent) = path.node(1)
            && nodes.get(&self.owner, parent).gaps[path.place(1)] <= whole
        {
            self.refresh(nodes, path, 1);
        }
    }

    /// The leaf has a new gap of `gap` bytes and has lost none that is larger.
    fn widen<M: Machine>(&mut self, nodes: &Arena<M, Node>, path: &Path, gap: u64) {
        for level in 1..=self.height {
            let Some(handle) = path.node(level) else {
                return;
            };
            let node = nodes.get_mut(&mut self.owner, handle);
            let known = &mut node.gaps[path.place(level)];
            if *known >= gap {
                return;
            }
            *known = gap;
        }
    }

    /// Takes the entry that starts at `start` from the tree; false when there is none.
    pub(crate) fn remove<M: Machine>(&mut self, nodes: &Arena<M, Node>, start: u64) -> bool {
        let path = self.descend(nodes, start);
        let (Some(leaf), Some(i)) = (path.node(0), path.place(0).checked_sub(1)) else {
            return false;
        };
        let node = nodes.get_mut(&mut self.owner, leaf);
        if node.starts[i] != start {
            return false;
        }
        node.remove(i);
        self.len -= 1;
        let len = node.len();
        if len >= SPARSE && i > 0 && i < len {
            let gap = node.starts[i] - node.ends[i - 1];
            self.widen(nodes, &path, gap);
            return true;
        }
        for level in 0..self.height {
            let (Some(parent), at) = (path.node(level + 1), path.place(level + 1)) else {
                break;
            };
            if !self.mend(nodes, parent, at) {
                self.refresh(nodes, &path, level + 1);
                break;
            }
            // The parent has one child less, so the levels above see another summary too.
        }
        self.shrink(nodes);
        true
    }

    /// Removes the child at `at` of `parent` if it is empty, or merges it with a neighbour if it
    /// is sparse and both fit in one node. True when the parent has lost a child.
    fn mend<M: Machine>(&mut self, nodes: &Arena<M, Node>, parent: NodeHandle, at: usize) -> bool {
        let family = nodes.get(&self.owner, parent);
        let kid = |i: usize| Handle::<Node>::from_raw(family.kids[i]);
        let Some(child) = kid(at) else { return false };
        let len = nodes.get(&self.owner, child).len();
        if len == 0 {
            nodes.free(&mut self.owner, child);
            nodes.get_mut(&mut self.owner, parent).remove(at);
            return true;
        }
        if len >= SPARSE {
            return false;
        }
        let left = if at > 0 { at - 1 } else { at };
        let right = left + 1;
        if right >= family.len() {
            return false;
        }
        let (Some(l), Some(r)) = (kid(left), kid(right)) else {
            return false;
        };
        let len = |h: NodeHandle| nodes.get(&self.owner, h).len();
        if len(l) + len(r) > WIDTH - 2 {
            return false;
        }
        let upper = *nodes.get(&self.owner, r);
        let lower = nodes.get_mut(&mut self.owner, l);
        lower.append(&upper);
        let summary = lower.summary(l.raw());
        nodes.free(&mut self.owner, r);
        let family = nodes.get_mut(&mut self.owner, parent);
        family.set(left, summary);
        family.remove(right);
        true
    }

    /// Drops roots with a single child, and the root of an empty tree.
    fn shrink<M: Machine>(&mut self, nodes: &Arena<M, Node>) {
        while let Some(root) = self.root {
            let node = nodes.get(&self.owner, root);
            let (count, kid) = (node.len(), node.kids[0]);
            if count == 0 {
                self.root = None;
                self.height = 0;
            } else if count == 1 && self.height > 0 {
                self.root = Handle::from_raw(kid);
                self.height -= 1;
            } else {
                return;
            }
            nodes.free(&mut self.owner, root);
        }
    }

    /// Changes the range of the entry that starts at `start`. It stays between its neighbours.
    pub(crate) fn resize<M: Machine>(
        &mut self,
        nodes: &Arena<M, Node>,
        start: u64,
        new_start: u64,
        new_end: u64,
    ) {
        let path = self.descend(nodes, start);
        let (Some(leaf), Some(i)) = (path.node(0), path.place(0).checked_sub(1)) else {
            return;
        };
        let node = nodes.get_mut(&mut self.owner, leaf);
        debug_assert_eq!(node.starts[i], start);
        node.starts[i] = new_start;
        node.ends[i] = new_end;
        self.refresh(nodes, &path, 1);
    }

    /// The lowest free place. `min` is where the map begins; the map's end is in the query.
    pub(crate) fn first_fit<M: Machine>(
        &self,
        nodes: &Arena<M, Node>,
        min: u64,
        query: &Query<'_>,
    ) -> Option<u64> {
        let mut before = min;
        if let Some(root) = self.root {
            let node = nodes.get(&self.owner, root);
            if let Some(at) = self.fit_up(nodes, node, self.height, &mut before, query) {
                return Some(at);
            }
        }
        query.lowest(before, u64::MAX)
    }

    fn fit_up<M: Machine>(
        &self,
        nodes: &Arena<M, Node>,
        node: &Node,
        height: usize,
        before: &mut u64,
        query: &Query<'_>,
    ) -> Option<u64> {
        for i in 0..node.len() {
            let (start, end) = (node.starts[i], node.ends[i]);
            if *before >= query.high {
                return None;
            }
            if end > query.low {
                if start - *before >= query.len
                    && let Some(at) = query.lowest(*before, start)
                {
                    return Some(at);
                }
                if height > 0 && node.gaps[i] >= query.len {
                    let kid = nodes.get(&self.owner, Handle::from_raw(node.kids[i])?);
                    *before = start;
                    if let Some(at) = self.fit_up(nodes, kid, height - 1, before, query) {
                        return Some(at);
                    }
                }
            }
            *before = end;
        }
        None
    }

    /// The highest free place. `min` is where the map begins; the map's end is in the query.
    pub(crate) fn last_fit<M: Machine>(
        &self,
        nodes: &Arena<M, Node>,
        min: u64,
        query: &Query<'_>,
    ) -> Option<u64> {
        let mut after = query.high;
        if let Some(root) = self.root {
            let node = nodes.get(&self.owner, root);
            if let Some(at) = self.fit_down(nodes, node, self.height, &mut after, query) {
                return Some(at);
            }
        }
        query.highest(min, after)
    }

    fn fit_down<M: Machine>(
        &self,
        nodes: &Arena<M, Node>,
        node: &Node,
        height: usize,
        after: &mut u64,
        query: &Query<'_>,
    ) -> Option<u64> {
        for i in (0..node.len()).rev() {
            let (start, end) = (node.starts[i], node.ends[i]);
            if *after <= query.low {
                return None;
            }
            if start < query.high {
                if after.saturating_sub(end) >= query.len
                    && let Some(at) = query.highest(end, *after)
                {
                    return Some(at);
                }
                if height > 0 && node.gaps[i] >= query.len {
                    let kid = nodes.get(&self.owner, Handle::from_raw(node.kids[i])?);
                    *after = end;
                    if let Some(at) = self.fit_down(nodes, kid, height - 1, after, query) {
                        return Some(at);
                    }
                }
            }
            *after = start;
        }
        None
    }

    /// Recomputes every summary and compares; tells `each` entry in order. For `check`.
    pub(crate) fn verify<M: Machine>(
        &self,
        nodes: &Arena<M, Node>,
        each: &mut dyn FnMut(Found),
    ) -> Result<(), &'static str> {
        match self.root {
            None => Ok(()),
            Some(root) => self.verify_node(nodes, root, self.height, each).map(|_| ()),
        }
    }

    /// Gives the start, end and largest gap of a subtree, found by looking at everything in it.
    fn verify_node<M: Machine>(
        &self,
        nodes: &Arena<M, Node>,
        handle: NodeHandle,
        height: usize,
        each: &mut dyn FnMut(Found),
    ) -> Result<(u64, u64, u64), &'static str> {
        let node = nodes.get(&self.owner, handle);
        if node.len() == 0 {
            return Err("tree: an empty node");
        }
        if node.starts[node.len()..].iter().any(|&s| s != u64::MAX) {
            return Err("tree: a free place is not marked");
        }
        let (mut before, mut largest) = (node.starts[0], 0);
        for i in 0..node.len() {
            let (start, end) = (node.starts[i], node.ends[i]);
            let gap = start.checked_sub(before).ok_or("tree: entries overlap")?;
            largest = largest.max(gap);
            before = end;
            if height == 0 {
                let id = node.kids[i];
                each(Found { id, start, end });
                continue;
            }
            let kid = Handle::from_raw(node.kids[i]).ok_or("tree: a child is missing")?;
            let found = self.verify_node(nodes, kid, height - 1, each)?;
            if found != (start, end, node.gaps[i]) {
                return Err("tree: a summary is stale");
            }
            largest = largest.max(found.2);
        }
        Ok((node.starts[0], before, largest))
    }
}

#[cfg(test)]
mod tests;
