//! Clocks, sleeping, alarms, and the accounting of time.

use super::{Answer, Args, Calls};
use crate::blocking::{Unfinished, thread_channel};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::thread::Task;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct timespec`.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct Timespec {
    pub(crate) seconds: i64,
    pub(crate) nanos: i64,
}

impl Timespec {
    /// As nanoseconds; `EINVAL` for what is no time, and the far future where it does not fit.
    pub(crate) fn nanos(self) -> Result<u64, Errno> {
        let seconds = u64::try_from(self.seconds).map_err(|_| Errno::EINVAL)?;
        let nanos = u64::try_from(self.nanos).map_err(|_| Errno::EINVAL)?;
        if nanos >= SECOND {
            return Err(Errno::EINVAL);
        }
        Ok(seconds.saturating_mul(SECOND).saturating_add(nanos))
    }

    fn of(nanos: u64) -> Timespec {
        Timespec {
            seconds: (nanos / SECOND) as i64,
            nanos: (nanos % SECOND) as i64,
        }
    }

    fn micros_of(nanos: u64) -> Timespec {
        Timespec {
            seconds: (nanos / SECOND) as i64,
            nanos: (nanos % SECOND / 1000) as i64,
        }
    }
}

/// `struct rusage`: times, then what is not counted.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Usage {
    user: Timespec,
    system: Timespec,
    rest: [u64; 14],
}

impl Usage {
    /// The usage of so many nanoseconds of processor time.
    pub(crate) fn of(nanos: u64) -> Usage {
        Usage {
            user: Timespec::micros_of(nanos),
            ..Usage::default()
        }
    }
}

const SECOND: u64 = 1_000_000_000;
/// Nanoseconds of a clock tick, of which a second has 100.
const TICK: u64 = 10_000_000;

impl<P: Platform> Task<P> {
    pub(super) const TIME: Calls<P> = &[
        (abi::__NR_clock_gettime, Self::clock_gettime),
        (abi::__NR_clock_getres, Self::clock_getres),
        (abi::__NR_clock_nanosleep, Self::clock_nanosleep),
        (abi::__NR_nanosleep, Self::nanosleep),
        (abi::__NR_gettimeofday, Self::gettimeofday),
        (abi::__NR_time, Self::time),
        (abi::__NR_times, Self::times),
        (abi::__NR_getrusage, Self::getrusage),
    ];

    fn clock(&self, id: u64) -> Answer {
        if let Some(now) = self.sys.platform.other_clock(id as u32) {
            return Ok(now);
        }
        match id as u32 {
            abi::CLOCK_REALTIME
            | abi::CLOCK_REALTIME_COARSE
            | abi::CLOCK_TAI
            | abi::CLOCK_REALTIME_ALARM => Ok(self.sys.platform.wall_clock()),
            abi::CLOCK_MONOTONIC
            | abi::CLOCK_MONOTONIC_RAW
            | abi::CLOCK_MONOTONIC_COARSE
            | abi::CLOCK_BOOTTIME
            | abi::CLOCK_BOOTTIME_ALARM => Ok(self.sys.now()),
            abi::CLOCK_PROCESS_CPUTIME_ID => Ok(self.process_time()),
            abi::CLOCK_THREAD_CPUTIME_ID => Ok(self.cpu_time()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn process_time(&self) -> u64 {
        self.process
            .cpu_time
            .load(Ordering::Relaxed)
            .saturating_add(self.cpu_time())
    }

    fn clock_gettime(&mut self, [id, to, ..]: Args) -> Answer {
        let now = self.clock(id)?;
        self.put(to, &Timespec::of(now)).map(|()| 0)
    }

    fn clock_getres(&mut self, [id, to, ..]: Args) -> Answer {
        self.clock(id)?;
        let resolution = self.sys.platform.clock_resolution(id as u32).unwrap_or(1);
        self.put_optional(to, &Timespec::of(resolution)).map(|()| 0)
    }

    fn clock_nanosleep(&mut self, [id, flags, request, left, ..]: Args) -> Answer {
        let now = self.clock(id)?;
        let nanos = self.get::<Timespec>(request)?.nanos()?;
        if flags as u32 & abi::TIMER_ABSTIME == 0 {
            return self.sleep_for(nanos, left);
        }
        let deadline = self.sys.now().saturating_add(nanos.saturating_sub(now));
        match self.sleep_to(deadline) {
            Unfinished::Deadline => Ok(0),
            Unfinished::Signal => Err(Errno::RESTART_NO_HANDLER),
        }
    }

    fn nanosleep(&mut self, [request, left, ..]: Args) -> Answer {
        let nanos = self.get::<Timespec>(request)?.nanos()?;
        self.sleep_for(nanos, left)
    }

    /// Sleeps for so long. Started again after a signal without a handler, it ends when the first
    /// attempt would have.
    fn sleep_for(&mut self, nanos: u64, left: u64) -> Answer {
        let deadline = match self.sleep_until.take() {
            Some(deadline) => deadline,
            None => self.sys.now().saturating_add(nanos),
        };
        if self.sleep_to(deadline) == Unfinished::Deadline {
            return Ok(0);
        }
        let rest = deadline.saturating_sub(self.sys.now());
        self.put_optional(left, &Timespec::of(rest))?;
        self.sleep_until = Some(deadline);
        Err(Errno::RESTART_NO_HANDLER)
    }

    fn sleep_to(&self, deadline: u64) -> Unfinished {
        let channel = thread_channel(self.thread.tid());
        match self.wait_on(channel, Some(deadline), || None::<()>) {
            Err(why) => why,
            Ok(()) => Unfinished::Deadline,
        }
    }

    fn gettimeofday(&mut self, [to, zone, ..]: Args) -> Answer {
        let now = self.sys.platform.wall_clock();
        self.put_optional(to, &Timespec::micros_of(now))?;
        self.put_optional(zone, &[0u32; 2]).map(|()| 0)
    }

    fn time(&mut self, [to, ..]: Args) -> Answer {
        let seconds = self.sys.platform.wall_clock() / SECOND;
        self.put_optional(to, &seconds)?;
        Ok(seconds)
    }

    fn times(&mut self, [to, ..]: Args) -> Answer {
        let own = self.process_time() / TICK;
        let children = self.process.child_time.load(Ordering::Relaxed) / TICK;
        self.put_optional(to, &[own, 0, children, 0])?;
        Ok(self.sys.now() / TICK)
    }

    fn getrusage(&mut self, [who, to, ..]: Args) -> Answer {
        let nanos = match who as i32 {
            0 => self.process_time(),
            1 => self.cpu_time(),
            -1 => self.process.child_time.load(Ordering::Relaxed),
            _ => return Err(Errno::EINVAL),
        };
        self.put(to, &Usage::of(nanos)).map(|()| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_checked() {
        let time = |seconds, nanos| Timespec { seconds, nanos }.nanos();
        assert_eq!(time(1, 5), Ok(1_000_000_005));
        assert_eq!(time(-1, 0), Err(Errno::EINVAL));
        assert_eq!(time(0, 1_000_000_000), Err(Errno::EINVAL));
        assert_eq!(time(i64::MAX, 0), Ok(u64::MAX));
        assert_eq!(size_of::<Usage>(), 144);
    }
}
