//! Wire and unwire.

use super::{Cell, Content, World, settled};
use crate::common::pages;
use bsdvm::{MapError, Prot, Sharing};

impl World {
    pub(super) fn wire(&mut self, s: usize, first: u64, len: u64, may_fail: bool) {
        let r = self.vm.space(self.id(s)).wire(pages(first, len));
        if !self.covered(s, first, len) {
            return assert!(
                r == Err(MapError::Hole) || (may_fail && r == Err(MapError::NoMemory)),
                "{r:?}"
            );
        }
        let beyond = self
            .flat_ref(s)
            .range(first..first + len)
            .any(|(_, p)| !p.wired && self.beyond(&p.cell.borrow()));
        if beyond {
            assert!(
                r == Err(MapError::BeyondEnd) || (may_fail && r == Err(MapError::NoMemory)),
                "{r:?}"
            );
        } else if let Err(e) = r {
            assert!(may_fail && e == MapError::NoMemory, "{e:?}");
        }
        let copies: Vec<(u64, Cell)> = self
            .flat_ref(s)
            .range(first..first + len)
            .filter(|(_, p)| {
                !p.wired && p.prot.contains(Prot::WRITE) && p.sharing == Sharing::Private
            })
            .map(|(&n, p)| (n, p.cell.clone()))
            .collect();
        for (_, c) in copies {
            let content = c.borrow().clone();
            if let Content::File { file, index, .. } | Content::Either { file, index, .. } = content
            {
                if self.beyond(&content) {
                    continue;
                }
                let words = self.words(&content);
                let was_either = matches!(content, Content::Either { .. });
                *c.borrow_mut() = match (r, content) {
                    (_, Content::Either { words, .. }) if was_either => {
                        Content::Either { file, index, words }
                    }
                    (Ok(()), _) => Content::Words(words),
                    _ => Content::Either { file, index, words },
                };
            }
        }
        if r.is_ok() {
            for (_, page) in self.flat(s).range_mut(first..first + len) {
                page.wired = true;
            }
        }
    }

    pub(super) fn unwire(&mut self, s: usize, first: u64, len: u64, may_fail: bool) {
        let r = self.vm.space(self.id(s)).unwire(pages(first, len));
        if !self.covered(s, first, len) {
            return assert!(
                r == Err(MapError::Hole) || (may_fail && r == Err(MapError::NoMemory)),
                "{r:?}"
            );
        }
        if self
            .flat_ref(s)
            .range(first..first + len)
            .any(|(_, p)| !p.wired)
        {
            return assert!(
                r == Err(MapError::NotWired) || (may_fail && r == Err(MapError::NoMemory)),
                "{r:?}"
            );
        }
        if settled(r, may_fail) {
            for (_, page) in self.flat(s).range_mut(first..first + len) {
                page.wired = false;
            }
        }
    }
}
