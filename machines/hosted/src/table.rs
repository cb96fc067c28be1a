//! The table of a pmap: the truth about translations, and what of it the stub has mapped.
//!
//! Two levels: chunks of 512 pages in a B-tree. Pages are numbers here.

use bsdvm_machine::{Frame, Kind, Prot, Removed, Translation, Usage, VirtAddr};
use std::collections::BTreeMap;
use std::ops::Range;

const SHIFT: u32 = 12;
const CHUNK: u64 = 512;

/// One translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pte {
    /// The frame.
    pub(crate) frame: Frame,
    /// What the translation allows.
    pub(crate) prot: Prot,
    /// What the stub has mapped, once the queue is empty; at most [`Pte::due`].
    pub(crate) host: Prot,
    /// What was done through it and not taken.
    pub(crate) usage: Usage,
    /// Whose it is.
    pub(crate) kind: Kind,
}

impl Pte {
    /// What the stub may have mapped: nothing before the page counts as referenced, no write
    /// access before it counts as modified. This is how we see the first access and the first
    /// write, the host's own bits being out of reach.
    pub(crate) fn due(&self) -> Prot {
        if !self.usage.contains(Usage::REFERENCED) {
            Prot::NONE
        } else if self.usage.contains(Usage::MODIFIED) {
            self.prot
        } else {
            self.prot.difference(Prot::WRITE)
        }
    }

    /// As the seam tells it.
    pub(crate) fn translation(&self) -> Translation {
        Translation {
            frame: self.frame,
            prot: self.prot,
            kind: self.kind,
            usage: self.usage,
        }
    }

    /// As the seam tells its end.
    pub(crate) fn removed(&self, page: u64) -> Removed {
        Removed {
            va: VirtAddr(page << SHIFT),
            frame: self.frame,
            kind: self.kind,
            usage: self.usage,
        }
    }
}

struct Chunk {
    used: u32,
    ptes: [Option<Pte>; CHUNK as usize],
}

/// What a visit does with a translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Visit {
    /// It stays.
    Keep,
    /// It goes.
    Drop,
}

/// All translations of a space.
#[derive(Default)]
pub(crate) struct Table {
    chunks: BTreeMap<u64, Box<Chunk>>,
    resident: u64,
}

impl Table {
    /// The number of translations.
    pub(crate) fn resident(&self) -> u64 {
        self.resident
    }

    /// The translation of `page`.
    pub(crate) fn get(&self, page: u64) -> Option<Pte> {
        self.chunks.get(&(page / CHUNK))?.ptes[(page % CHUNK) as usize]
    }

    /// The translation of `page`, to be changed.
    pub(crate) fn get_mut(&mut self, page: u64) -> Option<&mut Pte> {
        self.chunks.get_mut(&(page / CHUNK))?.ptes[(page % CHUNK) as usize].as_mut()
    }

    /// Sets the translation of `page`; gives back the old one.
    pub(crate) fn set(&mut self, page: u64, pte: Pte) -> Option<Pte> {
        let chunk = self.chunks.entry(page / CHUNK).or_insert_with(|| {
            Box::new(Chunk {
                used: 0,
                ptes: [None; CHUNK as usize],
            })
        });
        let old = chunk.ptes[(page % CHUNK) as usize].replace(pte);
        if old.is_none() {
            chunk.used += 1;
            self.resident += 1;
        }
        old
    }

    /// Shows every translation of `pages`, in ascending order.
    pub(crate) fn scan(&self, pages: Range<u64>, mut seen: impl FnMut(u64, &Pte)) {
        if pages.is_empty() {
            return;
        }
        for (&n, chunk) in self
            .chunks
            .range(pages.start / CHUNK..=(pages.end - 1) / CHUNK)
        {
            for i in within(n, &pages) {
                if let Some(pte) = &chunk.ptes[i] {
                    seen(n * CHUNK + i as u64, pte);
                }
            }
        }
    }

    /// Shows every translation of `pages`, in ascending order, to be changed or dropped.
    pub(crate) fn visit(&mut self, pages: Range<u64>, mut f: impl FnMut(u64, &mut Pte) -> Visit) {
        if pages.is_empty() {
            return;
        }
        let mut empty = Vec::new();
        let chunks = pages.start / CHUNK..=(pages.end - 1) / CHUNK;
        for (&n, chunk) in self.chunks.range_mut(chunks) {
            for i in within(n, &pages) {
                let place = &mut chunk.ptes[i];
                if let Some(pte) = place
                    && f(n * CHUNK + i as u64, pte) == Visit::Drop
                {
                    *place = None;
                    chunk.used -= 1;
                    self.resident -= 1;
                }
            }
            if chunk.used == 0 {
                empty.push(n);
            }
        }
        for n in empty {
            self.chunks.remove(&n);
        }
    }

    /// Notes that the stub has nothing mapped.
    pub(crate) fn forget_host(&mut self) {
        for chunk in self.chunks.values_mut() {
            for pte in chunk.ptes.iter_mut().flatten() {
                pte.host = Prot::NONE;
            }
        }
    }

    /// The number of mappings that the stub's host needs: neighbours in address and in memory
    /// with the same protection share one.
    pub(crate) fn host_mappings(&self) -> usize {
        let mut count = 0;
        let mut last = None;
        self.scan(0..u64::MAX, |page, pte| {
            if pte.host != Prot::NONE {
                if last != Some((page, pte.frame.0, pte.host)) {
                    count += 1;
                }
                last = Some((page + 1, pte.frame.0.wrapping_add(1), pte.host));
            }
        });
        count
    }
}

/// The places of chunk `n` that lie in `pages`.
fn within(n: u64, pages: &Range<u64>) -> Range<usize> {
    let first = pages.start.max(n * CHUNK) - n * CHUNK;
    let end = pages.end.min((n + 1) * CHUNK) - n * CHUNK;
    first as usize..end as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pte(frame: u32, host: Prot) -> Pte {
        Pte {
            frame: Frame(frame),
            prot: Prot::RW,
            host,
            usage: Usage::all(),
            kind: Kind::Managed,
        }
    }

    #[test]
    fn counts_mappings_by_runs() {
        let mut t = Table::default();
        for i in 0..600 {
            t.set(i, pte(i as u32, Prot::RW));
        }
        assert_eq!(t.host_mappings(), 1);
        t.set(100, pte(7, Prot::RW));
        assert_eq!(t.host_mappings(), 3);
        t.forget_host();
        assert_eq!(t.host_mappings(), 0);
        assert_eq!(t.resident(), 600);
    }

    #[test]
    fn a_visit_drops_what_it_is_told() {
        let mut t = Table::default();
        for i in 500..1500 {
            t.set(i, pte(i as u32, Prot::NONE));
        }
        t.visit(510..1400, |page, _| {
            if page % 2 == 0 {
                Visit::Drop
            } else {
                Visit::Keep
            }
        });
        assert_eq!(t.resident(), 1000 - 445);
        assert!(t.get(510).is_none() && t.get(511).is_some() && t.get(1400).is_some());
        t.visit(0..2000, |_, _| Visit::Drop);
        assert!(t.chunks.is_empty());
    }
}
