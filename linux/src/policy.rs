//! How a thread asked to be scheduled. It is kept and told: the host's scheduler decides.

/// Numbers of policies.
pub(crate) const OTHER: u32 = 0;
pub(crate) const FIFO: u32 = 1;
pub(crate) const ROUND_ROBIN: u32 = 2;
pub(crate) const BATCH: u32 = 3;
pub(crate) const IDLE: u32 = 5;
pub(crate) const DEADLINE: u32 = 6;
const EXTENSIBLE: u32 = 7;

/// `SCHED_RESET_ON_FORK`, beside the number of a policy.
pub(crate) const RESET_ON_FORK: u32 = 0x4000_0000;

/// The highest priority of the real-time policies.
const HIGHEST: u32 = 99;

/// A policy with what belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Policy {
    pub(crate) number: u32,
    /// 1 to 99 for the real-time policies, 0 for the others.
    pub(crate) priority: u32,
    /// Children begin as ordinary threads.
    pub(crate) reset_on_fork: bool,
    /// Run time, deadline and period in nanoseconds, with `SCHED_DEADLINE`.
    pub(crate) deadline: [u64; 3],
}

impl Policy {
    /// The priorities that policy `number` has, lowest and highest; `None` for no policy.
    pub(crate) fn priorities(number: u32) -> Option<(u32, u32)> {
        match number {
            FIFO | ROUND_ROBIN => Some((1, HIGHEST)),
            OTHER | BATCH | IDLE | DEADLINE | EXTENSIBLE => Some((0, 0)),
            _ => None,
        }
    }

    /// Whether Linux knows of such a policy with such a priority.
    pub(crate) fn is_valid(&self) -> bool {
        if self.number == DEADLINE {
            let [runtime, deadline, period] = self.deadline;
            let period = if period == 0 { deadline } else { period };
            // At least a microsecond, and nothing beyond what a signed number of nanoseconds says.
            return self.priority == 0
                && runtime >= 1 << 10
                && runtime <= deadline
                && deadline <= period
                && (deadline | period) >> 63 == 0;
        }
        Policy::priorities(self.number)
            .is_some_and(|(low, high)| (low..=high).contains(&self.priority))
            && self.number != EXTENSIBLE
    }

    /// Whether it is one of the real-time policies.
    pub(crate) fn is_real_time(&self) -> bool {
        matches!(self.number, FIFO | ROUND_ROBIN)
    }

    /// The priority that `/proc` shows of a thread with a nice value.
    pub(crate) fn shown(&self, nice: i64) -> i64 {
        match self.number {
            FIFO | ROUND_ROBIN => -1 - i64::from(self.priority),
            DEADLINE => -101,
            _ => 20 + nice,
        }
    }

    /// What a child begins with.
    pub(crate) fn inherited(&self) -> Policy {
        if self.reset_on_fork {
            Policy::default()
        } else {
            *self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_belong_to_policies() {
        let policy = |number, priority| Policy {
            number,
            priority,
            ..Policy::default()
        };
        assert!(policy(FIFO, 1).is_valid() && policy(ROUND_ROBIN, 99).is_valid());
        assert!(!policy(FIFO, 0).is_valid() && !policy(FIFO, 100).is_valid());
        assert!(policy(BATCH, 0).is_valid() && !policy(OTHER, 1).is_valid());
        assert!(!policy(4, 0).is_valid() && !policy(DEADLINE, 0).is_valid());
        let deadline = Policy {
            deadline: [10_000_000, 30_000_000, 0],
            ..policy(DEADLINE, 0)
        };
        assert!(deadline.is_valid());
    }
}
