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
}

impl Stat {
    /// Sorts and sums up `rounds`, of which there is at least one.
    pub fn of(mut rounds: Vec<f64>) -> Stat {
        rounds.sort_by(f64::total_cmp);
        Stat {
            median: rounds[rounds.len() / 2],
            min: rounds[0],
            max: rounds[rounds.len() - 1],
        }
    }
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
    names.zip(times.into_iter().map(Stat::of)).collect()
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
