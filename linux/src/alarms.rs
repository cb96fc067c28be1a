//! What is to happen at a time: the timers of processes, and their limit of processor time.
//!
//! One thread of the runner keeps the time for all, as long as there is anything to wait for. A
//! timer of processor time is looked at when the process could have used so much at the earliest.

use crate::blocking::alarms_channel;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::Process;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;

/// What runs out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// An interval timer: `ITIMER_REAL` and so on.
    Interval(usize),
    /// A timer of `timer_create`.
    Posix(i32),
    /// `RLIMIT_CPU`.
    Limit,
}

/// By which clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Clock {
    /// The machine's.
    #[default]
    Machine,
    /// The instructions of the process.
    User,
    /// The processor time of the process.
    Process,
    /// That of one thread.
    Thread(u32),
}

/// A timer that may be set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timer {
    pub(crate) clock: Clock,
    /// On its clock; 0 when it is not set.
    pub(crate) deadline: u64,
    pub(crate) interval: u64,
    /// Counts settings: by it an older alarm knows that it is out of date.
    pub(crate) generation: u64,
}

impl Timer {
    /// Sets it to expire after `value` nanoseconds from `now`, then each `interval`; 0 stops it.
    pub(crate) fn set(&mut self, now: u64, value: u64, interval: u64) {
        self.generation += 1;
        self.deadline = match value {
            0 => 0,
            value => now.saturating_add(value),
        };
        self.interval = interval;
    }

    /// Nanoseconds left, at least one of a timer that is set.
    pub(crate) fn left(&self, now: u64) -> u64 {
        match self.deadline {
            0 => 0,
            deadline => deadline.saturating_sub(now).max(1),
        }
    }

    /// Expires if it is time: by how many intervals more than one.
    pub(crate) fn expire(&mut self, now: u64) -> Option<u64> {
        if self.deadline == 0 || now < self.deadline {
            return None;
        }
        let late = now - self.deadline;
        let more = late.checked_div(self.interval).unwrap_or(0);
        self.deadline = match self.interval {
            0 => 0,
            interval => {
                let further = interval.saturating_mul(more.saturating_add(1));
                self.deadline.saturating_add(further)
            }
        };
        Some(more)
    }
}

struct Alarm<P: Platform> {
    process: Arc<Process<P>>,
    which: Which,
    generation: u64,
}

struct Plan<P: Platform> {
    /// By moment and number.
    alarms: BTreeMap<(u64, u64), Alarm<P>>,
    kept: bool,
}

/// What is to happen.
pub(crate) struct Alarms<P: Platform> {
    plan: Lock<P, Plan<P>, { rank::ALARMS }>,
}

impl<P: Platform> Alarms<P> {
    pub(crate) fn new() -> Self {
        let plan = Plan {
            alarms: BTreeMap::new(),
            kept: false,
        };
        Alarms {
            plan: Lock::<P, _, { rank::ALARMS }>::new(plan),
        }
    }
}

impl<P: Platform> Linux<P> {
    /// What a clock of a process says.
    pub(crate) fn clock_of(&self, process: &Process<P>, clock: Clock) -> u64 {
        match clock {
            Clock::Machine => self.now(),
            Clock::User => self.used(process).user,
            Clock::Process => self.used(process).time(),
            Clock::Thread(tid) => {
                let table = self.processes.lock();
                let record = table.get(process.pid);
                let thread = record.and_then(|r| r.threads.iter().find(|t| t.tid() == tid));
                let thread = thread.cloned();
                drop(table);
                thread.map_or(0, |t| t.used().time())
            }
        }
    }

    /// Plans for a timer that was set.
    pub(crate) fn plan(
        &'static self,
        process: &Arc<Process<P>>,
        which: Which,
        timer: &Timer,
    ) -> Result<(), Errno> {
        if timer.deadline == 0 {
            return Ok(());
        }
        let now = self.clock_of(process, timer.clock);
        // Processor time passes no faster than the clock, for each thread.
        let mut wait = timer.deadline.saturating_sub(now);
        if timer.clock != Clock::Machine {
            wait = wait.max(1_000_000);
        }
        let alarm = Alarm {
            process: process.clone(),
            which,
            generation: timer.generation,
        };
        let key = (self.now().saturating_add(wait), self.next_id());
        let start = {
            let mut plan = self.alarms.plan.lock();
            plan.alarms.insert(key, alarm);
            !core::mem::replace(&mut plan.kept, true)
        };
        if start {
            let spawned = self.platform.spawn(Box::new(move || self.keep_time()));
            if spawned.is_err() {
                let mut plan = self.alarms.plan.lock();
                plan.kept = false;
                let gone = plan.alarms.remove(&key);
                drop(plan);
                drop(gone);
            }
            return spawned;
        }
        self.wake(alarms_channel());
        Ok(())
    }

    /// Forgets what was planned for a process that ends.
    pub(crate) fn forget_alarms(&self, process: &Arc<Process<P>>) {
        let mut gone = alloc::vec::Vec::new();
        {
            let mut plan = self.alarms.plan.lock();
            plan.alarms.retain(|_, a| {
                let keep = !Arc::ptr_eq(&a.process, process);
                if !keep {
                    gone.push(a.process.clone());
                }
                keep
            });
        }
        if !gone.is_empty() {
            self.wake(alarms_channel());
        }
    }

    fn keep_time(&'static self) {
        loop {
            let ticket = self.ticket(alarms_channel());
            let now = self.now();
            let (due, next) = {
                let mut plan = self.alarms.plan.lock();
                match plan.alarms.first_entry() {
                    None => {
                        plan.kept = false;
                        return;
                    }
                    Some(entry) if entry.key().0 <= now => (Some(entry.remove()), 0),
                    Some(entry) => (None, entry.key().0),
                }
            };
            match due {
                Some(alarm) => self.ring(&alarm),
                None => self.sleep(alarms_channel(), ticket, Some(next)),
            }
        }
    }

    fn ring(&'static self, alarm: &Alarm<P>) {
        let process = &alarm.process;
        let Some(timer) = self.timer_of(process, alarm.which) else {
            return;
        };
        if timer.generation != alarm.generation {
            return;
        }
        let now = self.clock_of(process, timer.clock);
        if timer.deadline > now {
            self.plan(process, alarm.which, &timer).ok();
            return;
        }
        if let Some(next) = self.expire(process, alarm.which, alarm.generation, now) {
            self.plan(process, alarm.which, &next).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_expire_once_or_again_and_count_what_they_missed() {
        let mut timer = Timer::default();
        timer.set(100, 50, 0);
        assert_eq!(timer.left(120), 30);
        assert_eq!(timer.expire(149), None);
        assert_eq!(timer.expire(150), Some(0));
        assert_eq!(timer.left(151), 0);
        timer.set(100, 50, 10);
        assert_eq!(timer.left(150), 1);
        assert_eq!(timer.expire(175), Some(2));
        assert_eq!(timer.deadline, 180);
        timer.set(0, 0, 5);
        assert_eq!(timer.expire(u64::MAX), None);
    }
}
