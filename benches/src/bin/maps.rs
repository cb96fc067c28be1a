//! Maps of 10 to a million entries: ours, the standard library's, the documents'.
//!
//! Arguments: numbers of entries, and a part of the name of what to measure.

use bsdvm::bench::MapTree;
use bsdvm::{Config, Vm};
use bsdvm_benches::baseline::{RedBlack, first_fit};
use bsdvm_benches::flat::Flat;
use bsdvm_benches::rounds::{Contender, Random, alternate};
use bsdvm_benches::table;
use std::collections::BTreeMap;
use std::hint::black_box;

/// Addresses of an entry: a page of its own, and up to the next a page that is free.
const STEP: u64 = 0x2000;
const PAGE: u64 = 0x1000;
/// A hole that no run of free places is as large as.
const HOLE: u64 = 1 << 30;
const MIN: u64 = 0x10000;
const MAX: u64 = 0x7fff_ffff_0000;

/// Where the entry at `place` starts.
fn start(place: u32) -> u64 {
    MIN + u64::from(place) * STEP
}

/// What all three offer.
trait Map {
    fn insert(&mut self, start: u64, id: u32);
    fn remove(&mut self, start: u64);
    fn lookup(&self, at: u64) -> u64;
    fn fit(&self, len: u64) -> u64;
}

impl Map for MapTree<'_, Flat> {
    fn insert(&mut self, start: u64, id: u32) {
        assert!(MapTree::insert(self, start, start + PAGE, id));
    }
    fn remove(&mut self, start: u64) {
        assert!(MapTree::remove(self, start));
    }
    #[inline]
    fn lookup(&self, at: u64) -> u64 {
        self.floor(at).map_or(0, |(_, end)| end)
    }
    fn fit(&self, len: u64) -> u64 {
        self.first_fit(MIN, MAX, len).unwrap_or(0)
    }
}

impl Map for RedBlack {
    fn insert(&mut self, start: u64, _: u32) {
        RedBlack::insert(self, start, start + PAGE);
    }
    fn remove(&mut self, start: u64) {
        assert!(RedBlack::remove(self, start));
    }
    #[inline]
    fn lookup(&self, at: u64) -> u64 {
        self.end(self.floor(at))
    }
    fn fit(&self, len: u64) -> u64 {
        first_fit::first_fit(self, MIN, MAX, len, PAGE).unwrap_or(0)
    }
}

/// Start to end and number.
struct Standard(BTreeMap<u64, (u64, u32)>);

impl Map for Standard {
    fn insert(&mut self, start: u64, id: u32) {
        self.0.insert(start, (start + PAGE, id));
    }
    fn remove(&mut self, start: u64) {
        assert!(self.0.remove(&start).is_some());
    }
    #[inline]
    fn lookup(&self, at: u64) -> u64 {
        self.0.range(..=at).next_back().map_or(0, |(_, v)| v.0)
    }
    fn fit(&self, len: u64) -> u64 {
        let mut before = MIN;
        for (&start, &(end, _)) in &self.0 {
            if start - before >= len {
                return before;
            }
            before = end;
        }
        before
    }
}

/// A map of half the places, and which those are.
struct Contest<T> {
    map: T,
    used: Vec<u32>,
    free: Vec<u32>,
    random: Random,
}

impl<T: Map> Contest<T> {
    fn new(mut map: T, count: u32) -> Contest<T> {
        let mut places: Vec<u32> = (0..2 * count).collect();
        Random::new(3).shuffle(&mut places);
        let free = places.split_off(count as usize);
        for &place in &places {
            map.insert(start(place), place);
        }
        // The last entry stands alone behind the only hole of more than a few pages.
        map.insert(start(2 * count) + HOLE, 2 * count);
        Contest {
            map,
            used: places,
            free,
            random: Random::new(7),
        }
    }

    fn lookups(&mut self, rounds: u64) -> u64 {
        let top = 2 * self.used.len();
        let mut sum = 0;
        for _ in 0..rounds {
            let at = MIN + self.random.below(top) as u64 * STEP + 0x800;
            sum += self.map.lookup(black_box(at));
        }
        black_box(sum);
        rounds
    }

    /// One entry goes and another comes.
    fn churn(&mut self, rounds: u64) -> u64 {
        for _ in 0..rounds {
            let (u, f) = (
                self.random.below(self.used.len()),
                self.random.below(self.free.len()),
            );
            let (old, new) = (self.used[u], self.free[f]);
            self.map.remove(start(old));
            self.map.insert(start(new), new);
            (self.used[u], self.free[f]) = (new, old);
        }
        rounds
    }

    /// Free space that only the hole before the last entry has.
    fn fits(&mut self, rounds: u64) -> u64 {
        let len = HOLE;
        for _ in 0..rounds {
            black_box(self.map.fit(black_box(len)));
        }
        rounds
    }
}

fn measure(count: u32, filter: &str) {
    // Eight nodes a frame at the least, half full at the least.
    let vm = Vm::new(Flat::new(4096 + count / 16), Config::default()).expect("enough frames");
    let mut ours = Contest::new(MapTree::new(&vm), count);
    let mut standard = Contest::new(Standard(BTreeMap::new()), count);
    let mut documents = Contest::new(RedBlack::default(), count);
    type Round = (&'static str, u64, u64);
    let rounds: [Round; 3] = [
        ("lookup", 200_000, 200_000),
        ("churn", 100_000, 100_000),
        (
            "first fit",
            20_000,
            (2_000_000 / u64::from(count)).clamp(1, 20_000),
        ),
    ];
    for (what, n, linear) in rounds {
        if !what.contains(filter) {
            continue;
        }
        let stats = match what {
            "lookup" => alternate(&mut [
                Contender::new("ours", || ours.lookups(n)),
                Contender::new("BTreeMap", || standard.lookups(n)),
                Contender::new("documents", || documents.lookups(n)),
            ]),
            "churn" => alternate(&mut [
                Contender::new("ours", || ours.churn(n)),
                Contender::new("BTreeMap", || standard.churn(n)),
                Contender::new("documents", || documents.churn(n)),
            ]),
            _ => alternate(&mut [
                Contender::new("ours", || ours.fits(n)),
                Contender::new("BTreeMap", || standard.fits(linear)),
                Contender::new("documents", || documents.fits(linear)),
            ]),
        };
        table::comparison(&format!("{what}, {count}"), &stats);
    }
    ours.map.verify();
    documents.map.verify();
    let bytes = f64::from(ours.map.frames()) * 4096.0 / f64::from(count);
    eprintln!("{count} entries: {bytes:.0} bytes of nodes an entry");
}

fn main() {
    table::head(
        "Maps",
        &[
            "operation, entries",
            "to BTreeMap",
            "to the documents'",
            "ours, ns",
            "BTreeMap, ns",
            "the documents', ns",
        ],
    );
    let (mut counts, mut filter) = (Vec::new(), String::new());
    for argument in std::env::args().skip(1) {
        match argument.parse() {
            Ok(count) => counts.push(count),
            Err(_) => filter = argument,
        }
    }
    if counts.is_empty() {
        counts = vec![10, 1_000, 100_000, 1_000_000];
    }
    for count in counts {
        measure(count, &filter);
    }
}
