//! Timers of a process: `alarm`, `setitimer`, `getitimer`; and what becomes of timers that run
//! out.

use super::{Answer, Args, Calls};
use crate::alarms::{Clock, Timer, Which};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::Process;
use crate::signal::SigInfo;
use crate::syscall::posix_timer::PosixTimer;
use crate::syscall::time::Timespec;
use crate::system::Linux;
use crate::thread::Task;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

const SECOND: u64 = 1_000_000_000;
/// `SI_KERNEL`.
const SI_KERNEL: i32 = 0x80;
/// Clock and signal of `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`.
const INTERVAL_TIMERS: [(Clock, u32); 3] = [
    (Clock::Machine, abi::SIGALRM),
    (Clock::User, abi::SIGVTALRM),
    (Clock::Process, abi::SIGPROF),
];

/// The timers of a process.
#[derive(Debug)]
pub(crate) struct Timers {
    pub(crate) interval: [Timer; 3],
    pub(crate) limit: Timer,
    pub(crate) posix: BTreeMap<i32, PosixTimer>,
    pub(crate) next: i32,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            interval: INTERVAL_TIMERS.map(|(clock, _)| Timer {
                clock,
                ..Timer::default()
            }),
            limit: Timer {
                clock: Clock::Process,
                ..Timer::default()
            },
            posix: BTreeMap::new(),
            next: 0,
        }
    }
}

impl Timers {
    fn get(&mut self, which: Which) -> Option<&mut Timer> {
        match which {
            Which::Interval(n) => self.interval.get_mut(n),
            Which::Posix(id) => self.posix.get_mut(&id).map(|t| &mut t.timer),
            Which::Limit => Some(&mut self.limit),
        }
    }
}

impl<P: Platform> Linux<P> {
    /// A timer as it is set now.
    pub(crate) fn timer_of(&self, process: &Process<P>, which: Which) -> Option<Timer> {
        process.timers.lock().get(which).map(|t| *t)
    }

    /// Sets a timer to a moment of its clock that is `value` from now; gives back what was left
    /// and the interval.
    pub(crate) fn set_timer(
        &'static self,
        process: &Arc<Process<P>>,
        which: Which,
        (value, interval): (u64, u64),
    ) -> Result<(u64, u64), Errno> {
        let clock = self.timer_of(process, which).ok_or(Errno::EINVAL)?.clock;
        // What is not set forgets its interval, except for processor time.
        let stopped = value == 0 && clock == Clock::Machine;
        let interval = if stopped { 0 } else { interval };
        let now = self.clock_of(process, clock);
        let (before, timer) = {
            let mut timers = process.timers.lock();
            let timer = timers.get(which).ok_or(Errno::EINVAL)?;
            let before = (timer.left(now), timer.interval);
            timer.set(now, value, interval);
            (before, *timer)
        };
        self.plan(process, which, &timer)?;
        Ok(before)
    }

    /// Stops the timers of a process that ends.
    pub(crate) fn stop_timers(&self, process: &Arc<Process<P>>) {
        let old = core::mem::take(&mut *process.timers.lock());
        drop(old);
        self.forget_alarms(process);
    }

    /// A timer has run out: signals, and gives back the timer if it is to run again.
    pub(crate) fn expire(
        &'static self,
        process: &Arc<Process<P>>,
        which: Which,
        generation: u64,
        now: u64,
    ) -> Option<Timer> {
        let (more, next, posix) = {
            let mut timers = process.timers.lock();
            let timer = timers.get(which)?;
            if timer.generation != generation {
                return None;
            }
            let more = timer.expire(now)?;
            let next = *timer;
            let posix = match which {
                Which::Posix(id) => timers.posix.get(&id).cloned(),
                _ => None,
            };
            (more, next, posix)
        };
        match (which, posix) {
            (Which::Interval(n), _) => {
                let signal = INTERVAL_TIMERS.get(n)?.1;
                let info = SigInfo::sent(signal, SI_KERNEL, 0, 0);
                self.signal_process(process.pid, info).ok();
            }
            (Which::Posix(id), Some(timer)) => self.ring_posix(process, id, &timer, more),
            (Which::Limit, _) => return self.over_limit(process),
            _ => {}
        }
        Some(next)
    }
}

/// A `struct timeval` as nanoseconds.
fn nanos_of(seconds: i64, micros: i64) -> Result<u64, Errno> {
    let nanos = micros.checked_mul(1000).ok_or(Errno::EINVAL)?;
    Timespec { seconds, nanos }.nanos()
}

/// `struct itimerval`.
fn itimerval(left: u64, interval: u64) -> [u64; 4] {
    let micros = |n: u64| n % SECOND / 1000;
    [
        interval / SECOND,
        micros(interval),
        left / SECOND,
        micros(left),
    ]
}

impl<P: Platform> Task<P> {
    pub(super) const TIMER: Calls<P> = &[
        (abi::__NR_alarm, Self::alarm),
        (abi::__NR_setitimer, Self::setitimer),
        (abi::__NR_getitimer, Self::getitimer),
    ];

    fn alarm(&mut self, [seconds, ..]: Args) -> Answer {
        let value = u64::from(seconds as u32) * SECOND;
        let (left, _) = self
            .sys
            .set_timer(&self.process, Which::Interval(0), (value, 0))?;
        // Rounded, and never to nothing while the alarm is set.
        let whole = (left + SECOND / 2) / SECOND;
        Ok(if left > 0 { whole.max(1) } else { 0 })
    }

    fn setitimer(&mut self, [which, new, old, ..]: Args) -> Answer {
        let [isec, iusec, vsec, vusec]: [i64; 4] = if new == 0 { [0; 4] } else { self.get(new)? };
        let (value, interval) = (nanos_of(vsec, vusec)?, nanos_of(isec, iusec)?);
        let which = Which::Interval(which as u32 as usize);
        self.note_time();
        let (left, before) = self
            .sys
            .set_timer(&self.process, which, (value, interval))?;
        self.put_optional(old, &itimerval(left, before)).map(|()| 0)
    }

    fn getitimer(&mut self, [which, to, ..]: Args) -> Answer {
        let which = Which::Interval(which as u32 as usize);
        self.note_time();
        let timer = self.sys.timer_of(&self.process, which);
        let timer = timer.ok_or(Errno::EINVAL)?;
        let left = timer.left(self.sys.clock_of(&self.process, timer.clock));
        self.put(to, &itimerval(left, timer.interval)).map(|()| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_values_are_checked() {
        assert_eq!(nanos_of(1, 5), Ok(1_000_005_000));
        assert_eq!(nanos_of(-1, 0), Err(Errno::EINVAL));
        assert_eq!(nanos_of(0, i64::MAX), Err(Errno::EINVAL));
        assert_eq!(nanos_of(0, 1_000_000), Err(Errno::EINVAL));
        assert_eq!(itimerval(2_500_000_000, 1_000), [0, 1, 2, 500_000]);
    }
}
