//! Noticing that a thread gets nowhere: one instruction whose pages drive each other out.
//!
//! With fewer frames than one instruction needs, every fault is resolved and the instruction
//! never ends. A copy over many pages faults often at one instruction too, but at ever new
//! addresses: only faults that come back to an address of late count, and none from before a
//! system call, which is progress.

/// How many of the last addresses are remembered: one instruction touches fewer pages.
const REMEMBERED: usize = 8;
/// How many faults in a row may come back to one of them.
const PATIENCE: u32 = 256;

/// The faults of a thread at its present instruction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thrash {
    rip: u64,
    seen: [u64; REMEMBERED],
    next: usize,
    repeats: u32,
}

impl Thrash {
    /// Notes a fault of the instruction at `rip`; says whether it gets nowhere.
    pub(crate) fn note(&mut self, rip: u64, address: u64) -> bool {
        if self.rip != rip {
            *self = Thrash {
                rip,
                ..Thrash::default()
            };
        }
        if self.seen.contains(&address) {
            self.repeats += 1;
        } else {
            self.repeats = 0;
            self.seen[self.next % REMEMBERED] = address;
            self.next = (self.next + 1) % REMEMBERED;
        }
        self.repeats > PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_copy_is_no_thrashing_and_two_pages_in_turn_are() {
        let mut t = Thrash::default();
        for i in 1..100_000 {
            assert!(!t.note(0x1000, i * 4096));
        }
        for i in 0..PATIENCE as u64 / 2 {
            assert!(!t.note(0x2000, 0x5000) && !t.note(0x2000, 0x6000), "{i}");
        }
        assert!((0..4).any(|_| t.note(0x2000, 0x5000)));
        assert!(!t.note(0x3000, 0x5000));
    }
}
