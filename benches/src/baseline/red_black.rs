//! A red-black tree of entries by their start, its entries also in a list by address.

/// No entry. Also the black sentinel below every leaf.
pub const NIL: u32 = 0;

/// One entry, as large as the documents' own needs to be for this.
#[derive(Clone, Copy)]
struct Entry {
    start: u64,
    end: u64,
    prev: u32,
    next: u32,
    kids: [u32; 2],
    parent: u32,
    red: bool,
}

const EMPTY: Entry = Entry {
    start: 0,
    end: 0,
    prev: NIL,
    next: NIL,
    kids: [NIL; 2],
    parent: NIL,
    red: false,
};

/// The entries of a map, or (with one page an entry) the pages of an object.
pub struct RedBlack {
    /// The sentinel first; it is the header of the list too.
    entries: Vec<Entry>,
    root: u32,
    spare: Vec<u32>,
}

impl Default for RedBlack {
    fn default() -> RedBlack {
        RedBlack {
            entries: vec![EMPTY],
            root: NIL,
            spare: Vec::new(),
        }
    }
}

impl RedBlack {
    fn at(&self, i: u32) -> &Entry {
        &self.entries[i as usize]
    }

    fn at_mut(&mut self, i: u32) -> &mut Entry {
        &mut self.entries[i as usize]
    }

    /// The start of entry `i`.
    pub fn start(&self, i: u32) -> u64 {
        self.at(i).start
    }

    /// The end of entry `i`.
    pub fn end(&self, i: u32) -> u64 {
        self.at(i).end
    }

    /// The entry after `i`, or [`NIL`].
    pub fn next(&self, i: u32) -> u32 {
        self.at(i).next
    }

    /// The entry with the lowest start, or [`NIL`].
    pub fn first(&self) -> u32 {
        self.at(NIL).next
    }

    /// The entry with the highest start at or below `at`, or [`NIL`].
    #[inline]
    pub fn floor(&self, at: u64) -> u32 {
        let (mut i, mut best) = (self.root, NIL);
        while i != NIL {
            let entry = self.at(i);
            if at >= entry.start {
                best = i;
                if at < entry.end {
                    break;
                }
                i = entry.kids[1];
            } else {
                i = entry.kids[0];
            }
        }
        best
    }

    /// Adds `[start, end)`, which overlaps nothing.
    pub fn insert(&mut self, start: u64, end: u64) {
        let (mut parent, mut i, mut before) = (NIL, self.root, NIL);
        let mut side = 0;
        while i != NIL {
            parent = i;
            side = usize::from(start > self.at(i).start);
            if side == 1 {
                before = i;
            }
            i = self.at(i).kids[side];
        }
        let next = self.at(before).next;
        let entry = Entry {
            start,
            end,
            prev: before,
            next,
            kids: [NIL; 2],
            parent,
            red: true,
        };
        let new = match self.spare.pop() {
            Some(i) => {
                self.entries[i as usize] = entry;
                i
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.at_mut(before).next = new;
        self.at_mut(next).prev = new;
        if parent == NIL {
            self.root = new;
        } else {
            self.at_mut(parent).kids[side] = new;
        }
        self.mend_insert(new);
    }

    fn side_of(&self, i: u32) -> usize {
        usize::from(self.at(self.at(i).parent).kids[1] == i)
    }

    /// Turns the pair of `i` and its kid on the other side of `side` towards `side`.
    fn rotate(&mut self, i: u32, side: usize) {
        let kid = self.at(i).kids[1 - side];
        let inner = self.at(kid).kids[side];
        self.at_mut(i).kids[1 - side] = inner;
        if inner != NIL {
            self.at_mut(inner).parent = i;
        }
        self.replace(i, kid);
        self.at_mut(kid).kids[side] = i;
        self.at_mut(i).parent = kid;
    }

    /// Puts `new` where `old` hangs.
    fn replace(&mut self, old: u32, new: u32) {
        let parent = self.at(old).parent;
        if parent == NIL {
            self.root = new;
        } else {
            let side = self.side_of(old);
            self.at_mut(parent).kids[side] = new;
        }
        self.at_mut(new).parent = parent;
    }

    fn mend_insert(&mut self, mut i: u32) {
        loop {
            let parent = self.at(i).parent;
            if !self.at(parent).red {
                break;
            }
            let grand = self.at(parent).parent;
            let side = self.side_of(parent);
            let uncle = self.at(grand).kids[1 - side];
            if self.at(uncle).red {
                self.at_mut(parent).red = false;
                self.at_mut(uncle).red = false;
                self.at_mut(grand).red = true;
                i = grand;
                continue;
            }
            if self.side_of(i) != side {
                i = parent;
                self.rotate(i, side);
            }
            let parent = self.at(i).parent;
            self.at_mut(parent).red = false;
            self.at_mut(grand).red = true;
            self.rotate(grand, 1 - side);
        }
        let root = self.root;
        self.at_mut(root).red = false;
    }

    /// Takes out what starts at `start`; false when nothing does.
    pub fn remove(&mut self, start: u64) -> bool {
        let i = self.floor(start);
        if i == NIL || self.at(i).start != start {
            return false;
        }
        let Entry {
            prev, next, kids, ..
        } = *self.at(i);
        let (fix, was_red);
        if kids[0] == NIL || kids[1] == NIL {
            fix = if kids[0] == NIL { kids[1] } else { kids[0] };
            was_red = self.at(i).red;
            self.replace(i, fix);
        } else {
            // The next entry is the lowest of the right subtree.
            was_red = self.at(next).red;
            fix = self.at(next).kids[1];
            if self.at(next).parent == i {
                self.at_mut(fix).parent = next;
            } else {
                self.replace(next, fix);
                let right = self.at(i).kids[1];
                self.at_mut(next).kids[1] = right;
                self.at_mut(right).parent = next;
            }
            self.replace(i, next);
            let left = self.at(i).kids[0];
            self.at_mut(next).kids[0] = left;
            self.at_mut(left).parent = next;
            self.at_mut(next).red = self.at(i).red;
        }
        if !was_red {
            self.mend_remove(fix);
        }
        self.at_mut(prev).next = next;
        self.at_mut(next).prev = prev;
        self.spare.push(i);
        true
    }

    fn mend_remove(&mut self, mut i: u32) {
        while i != self.root && !self.at(i).red {
            let parent = self.at(i).parent;
            let side = self.side_of(i);
            let mut other = self.at(parent).kids[1 - side];
            if self.at(other).red {
                self.at_mut(other).red = false;
                self.at_mut(parent).red = true;
                self.rotate(parent, side);
                other = self.at(parent).kids[1 - side];
            }
            let [near, far] = {
                let kids = self.at(other).kids;
                [kids[side], kids[1 - side]]
            };
            if !self.at(near).red && !self.at(far).red {
                self.at_mut(other).red = true;
                i = parent;
                continue;
            }
            if !self.at(far).red {
                self.at_mut(near).red = false;
                self.at_mut(other).red = true;
                self.rotate(other, 1 - side);
                other = self.at(parent).kids[1 - side];
            }
            let red = self.at(parent).red;
            self.at_mut(other).red = red;
            self.at_mut(parent).red = false;
            let far = self.at(other).kids[1 - side];
            self.at_mut(far).red = false;
            self.rotate(parent, side);
            i = self.root;
        }
        self.at_mut(i).red = false;
    }

    /// Panics unless the tree is one: in order, no red below red, as many blacks on every way, and
    /// the list the same as the tree.
    pub fn verify(&self) {
        let mut at = NIL;
        self.verify_below(self.root, &mut at);
        assert_eq!(self.at(at).next, NIL, "the list goes on");
    }

    fn verify_below(&self, i: u32, at: &mut u32) -> u32 {
        if i == NIL {
            return 1;
        }
        let entry = self.at(i);
        let left = self.verify_below(entry.kids[0], at);
        assert_eq!(self.at(*at).next, i, "the list has another order");
        *at = i;
        let right = self.verify_below(entry.kids[1], at);
        assert_eq!(left, right, "more blacks on one side");
        let reds = entry.kids.iter().any(|&kid| self.at(kid).red);
        assert!(!(entry.red && reds), "red below red");
        left + u32::from(!entry.red)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Random;
    use std::collections::BTreeMap;

    #[test]
    fn it_agrees_with_a_map() {
        let (mut tree, mut map) = (RedBlack::default(), BTreeMap::new());
        let mut random = Random::new(5);
        for _ in 0..4000 {
            let start = random.below(300) as u64 * 10;
            if map.remove(&start).is_some() {
                assert!(tree.remove(start));
            } else {
                map.insert(start, start + 5);
                tree.insert(start, start + 5);
            }
            tree.verify();
            let at = random.below(3000) as u64;
            let floor = tree.floor(at);
            let expected = map.range(..=at).next_back();
            assert_eq!(
                (floor != NIL).then(|| (tree.start(floor), tree.end(floor))),
                expected.map(|(&s, &e)| (s, e))
            );
        }
    }
}
