//! Rounds: the contenders of one measurement take turns, and each gets a median, a least and a
//! spread of all its rounds.

use std::time::Instant;

/// Rounds of every measurement.
pub const ROUNDS: usize = 11;

/// Nanoseconds for each operation, over all rounds.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// The middle round.
    pub median: f64,
    /// The fastest round.
    pub min: f64,
    /// The slowest round.
    pub max: f64,
    /// All of them in order.
    rounds: [f64; ROUNDS],
}

impl Stat {
    /// Sums up the first [`ROUNDS`] of `times`. Panics when there are fewer.
    pub fn of(times: &[f64]) -> Stat {
        let rounds: [f64; ROUNDS] = std::array::from_fn(|i| times[i]);
        let sorted = sorted(rounds);
        Stat {
            median: sorted[ROUNDS / 2],
            min: sorted[0],
            max: sorted[ROUNDS - 1],
            rounds,
        }
    }

    /// How many times as long as `other` this took: the median over the rounds, in each of which
    /// the two stood side by side.
    pub fn to(&self, other: &Stat) -> f64 {
        let ratio = |i: usize| self.rounds[i] / other.rounds[i];
        sorted(std::array::from_fn(ratio))[ROUNDS / 2]
    }
}

fn sorted(mut rounds: [f64; ROUNDS]) -> [f64; ROUNDS] {
    rounds.sort_by(f64::total_cmp);
    rounds
}

/// One contender: a name, and a round that does `operations` and says how many it did.
pub struct Contender<'a> {
    /// What the table calls it.
    pub name: &'static str,
    /// Does one round; gives the number of operations done.
    pub round: Box<dyn FnMut() -> u64 + 'a>,
}

impl<'a> Contender<'a> {
    /// A contender.
    pub fn new(name: &'static str, round: impl FnMut() -> u64 + 'a) -> Contender<'a> {
        Contender {
            name,
            round: Box::new(round),
        }
    }
}

/// Lets the contenders take turns, [`ROUNDS`] times after one that does not count.
pub fn alternate(contenders: &mut [Contender<'_>]) -> Vec<(&'static str, Stat)> {
    let mut times = vec![Vec::new(); contenders.len()];
    for round in 0..=ROUNDS {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let start = Instant::now();
            let operations = (contender.round)();
            let ns = start.elapsed().as_nanos() as f64 / operations as f64;
            if round > 0 {
                times.push(ns);
            }
        }
    }
    let names = contenders.iter().map(|c| c.name);
    names.zip(times.iter().map(|t| Stat::of(t))).collect()
}

/// A small generator of numbers, the same in every run.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// The next number.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is below 2^32.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        (((self.draw() >> 32) * bound as u64) >> 32) as usize
    }

    /// Puts `items` in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
