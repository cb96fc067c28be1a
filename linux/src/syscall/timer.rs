//! Alarms: `alarm`, `setitimer`, `getitimer`, for the clock on the wall only.
//!
//! A process with a timer has a supervisor that sleeps until it runs out. Setting the timer anew
//! changes its generation, by which an older supervisor knows that it is out of date.

use super::{Answer, Args, Calls};
use crate::blocking::timer_channel;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::Process;
use crate::signal::SigInfo;
use crate::syscall::time::Timespec;
use crate::system::Linux;
use crate::thread::Task;
use alloc::boxed::Box;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

const SECOND: u64 = 1_000_000_000;
const ITIMER_REAL: u64 = 0;
/// `SI_KERNEL`.
const SI_KERNEL: i32 = 0x80;

/// A process's timer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timer {
    generation: u64,
    /// On the machine's clock; 0 when it is not set.
    deadline: u64,
    interval: u64,
}

impl<P: Platform> Linux<P> {
    /// Sets the timer; gives back what it was: nanoseconds left and interval.
    fn set_timer(
        &'static self,
        process: &Arc<Process<P>>,
        value: u64,
        interval: u64,
    ) -> Result<(u64, u64), Errno> {
        let now = self.now();
        let (before, generation) = {
            let mut timer = process.timer.lock();
            let before = (timer.deadline.saturating_sub(now), timer.interval);
            timer.generation += 1;
            timer.deadline = if value == 0 {
                0
            } else {
                now.saturating_add(value)
            };
            timer.interval = interval;
            (before, timer.generation)
        };
        self.wake(timer_channel(process.pid));
        if value != 0 {
            let process = process.clone();
            self.platform
                .spawn(Box::new(move || self.keep_time(&process, generation)))?;
        }
        Ok(before)
    }

    /// Stops the timer of a process that ends.
    pub(crate) fn stop_timer(&self, process: &Process<P>) {
        let mut timer = process.timer.lock();
        timer.generation += 1;
        timer.deadline = 0;
        drop(timer);
        self.wake(timer_channel(process.pid));
    }

    fn keep_time(&self, process: &Process<P>, generation: u64) {
        let channel = timer_channel(process.pid);
        loop {
            let ticket = self.ticket(channel);
            let timer = *process.timer.lock();
            if timer.generation != generation || timer.deadline == 0 {
                return;
            }
            if self.now() < timer.deadline {
                self.sleep(channel, ticket, Some(timer.deadline));
                continue;
            }
            let next = match timer.interval {
                0 => 0,
                interval => timer.deadline.saturating_add(interval),
            };
            let mut timer = process.timer.lock();
            if timer.generation != generation {
                return;
            }
            timer.deadline = next;
            drop(timer);
            let info = SigInfo::sent(abi::SIGALRM, SI_KERNEL, 0, 0);
            self.signal_process(process.pid, info).ok();
        }
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
        let (left, _) = self.sys.set_timer(&self.process, value, 0)?;
        Ok(left.div_ceil(SECOND))
    }

    fn setitimer(&mut self, [which, new, old, ..]: Args) -> Answer {
        if which != ITIMER_REAL {
            return Err(Errno::EINVAL);
        }
        let [isec, iusec, vsec, vusec]: [i64; 4] = if new == 0 { [0; 4] } else { self.get(new)? };
        let interval = nanos_of(isec, iusec)?;
        let value = nanos_of(vsec, vusec)?;
        let (left, before) = self.sys.set_timer(&self.process, value, interval)?;
        self.put_optional(old, &itimerval(left, before)).map(|()| 0)
    }

    fn getitimer(&mut self, [which, to, ..]: Args) -> Answer {
        if which != ITIMER_REAL {
            return Err(Errno::EINVAL);
        }
        let timer = *self.process.timer.lock();
        let left = timer.deadline.saturating_sub(self.sys.now());
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
