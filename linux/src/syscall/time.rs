//! Clocks, sleeping, alarms, and the accounting of time.

use super::{Answer, Args, Calls};
use crate::alarms::Clock;
use crate::blocking::{Unfinished, thread_channel};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::thread::Task;
use crate::usage::Used;
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

    pub(crate) fn of(nanos: u64) -> Timespec {
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

/// `struct rusage`: times, the most memory in KiB, three that Linux does not count, faults, and
/// what is not counted here.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Usage {
    user: Timespec,
    system: Timespec,
    most_kib: u64,
    shared: [u64; 3],
    minor: u64,
    major: u64,
    rest: [u64; 8],
}

impl Usage {
    pub(crate) fn of(used: &Used) -> Usage {
        Usage {
            user: Timespec::micros_of(used.user),
            system: Timespec::micros_of(used.system),
            most_kib: used.most_pages.saturating_mul(4),
            minor: used.minor,
            major: used.major,
            ..Usage::default()
        }
    }
}

const SECOND: u64 = 1_000_000_000;
/// Nanoseconds of a clock tick, of which a second has 100.
const TICK: u64 = 10_000_000;
/// The resolution of the coarse clocks.
const COARSE: u64 = 4_000_000;

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
        (abi::__NR_clock_settime, Self::clock_settime),
        (abi::__NR_settimeofday, Self::settimeofday),
        (abi::__NR_adjtimex, Self::adjtimex),
        (abi::__NR_clock_adjtime, Self::clock_adjtime),
    ];

    fn clock(&self, id: u64) -> Answer {
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
            abi::CLOCK_PROCESS_CPUTIME_ID => Ok(self.used_by_process().time()),
            abi::CLOCK_THREAD_CPUTIME_ID => Ok(self.used_by_thread().time()),
            id if (id as i32) < 0 => self.numbered_clock(id),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The processor time of a process, or of a thread of this one, by the number in the clock's.
    fn numbered_clock(&self, id: u32) -> Answer {
        let who = !((id as i32) >> 3) as u32;
        if id & 3 == 3 {
            return Err(Errno::EINVAL);
        }
        self.note_time();
        if id & 4 != 0 {
            let tid = if who == 0 { self.thread.tid() } else { who };
            let process = self.process_with(tid).map_err(|_| Errno::EINVAL)?;
            if process.pid != self.process.pid {
                return Err(Errno::EINVAL);
            }
            return Ok(self.sys.clock_of(&process, Clock::Thread(tid)));
        }
        let pid = if who == 0 { self.process.pid } else { who };
        let process = self.process_with(pid).map_err(|_| Errno::EINVAL)?;
        if process.pid != pid {
            return Err(Errno::EINVAL);
        }
        Ok(self.sys.clock_of(&process, Clock::Process))
    }

    fn clock_gettime(&mut self, [id, to, ..]: Args) -> Answer {
        let now = self.clock(id)?;
        self.put(to, &Timespec::of(now)).map(|()| 0)
    }

    fn clock_getres(&mut self, [id, to, ..]: Args) -> Answer {
        self.clock(id)?;
        let coarse = matches!(
            id as u32,
            abi::CLOCK_REALTIME_COARSE | abi::CLOCK_MONOTONIC_COARSE
        );
        let nanos = if coarse { COARSE } else { 1 };
        self.put_optional(to, &Timespec::of(nanos)).map(|()| 0)
    }

    fn clock_nanosleep(&mut self, [id, flags, request, left, ..]: Args) -> Answer {
        let clock = match id as u32 {
            abi::CLOCK_REALTIME
            | abi::CLOCK_MONOTONIC
            | abi::CLOCK_BOOTTIME
            | abi::CLOCK_TAI
            | abi::CLOCK_REALTIME_ALARM
            | abi::CLOCK_BOOTTIME_ALARM => Clock::Machine,
            abi::CLOCK_PROCESS_CPUTIME_ID => Clock::Process,
            abi::CLOCK_THREAD_CPUTIME_ID => return Err(Errno::EINVAL),
            abi::CLOCK_MONOTONIC_RAW | abi::CLOCK_REALTIME_COARSE | abi::CLOCK_MONOTONIC_COARSE => {
                return Err(Errno::EOPNOTSUPP);
            }
            id if (id as i32) < 0 && id & 4 == 0 => Clock::Process,
            _ => return Err(Errno::EINVAL),
        };
        let nanos = self.get::<Timespec>(request)?.nanos()?;
        let absolute = flags as u32 & abi::TIMER_ABSTIME != 0;
        if clock == Clock::Process {
            let from = if absolute { 0 } else { self.clock(id)? };
            return self.sleep_used(id, from.saturating_add(nanos));
        }
        if !absolute {
            return self.sleep_for(nanos, left);
        }
        let now = self.clock(id)?;
        let deadline = self.sys.now().saturating_add(nanos.saturating_sub(now));
        match self.sleep_to(deadline) {
            Unfinished::Deadline => Ok(0),
            Unfinished::Signal => Err(Errno::RESTART_NO_HANDLER),
        }
    }

    /// Sleeps until others have used so much processor time.
    fn sleep_used(&self, id: u64, until: u64) -> Answer {
        loop {
            let left = until.saturating_sub(self.clock(id)?);
            if left == 0 {
                return Ok(0);
            }
            let deadline = self.sys.now().saturating_add(left.max(1_000_000));
            if self.sleep_to(deadline) == Unfinished::Signal {
                return Err(Errno::RESTART_NO_HANDLER);
            }
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
        let own = self.used_by_process();
        let children = *self.process.child_used.lock();
        let ticks = [own.user, own.system, children.user, children.system].map(|n| n / TICK);
        self.put_optional(to, &ticks)?;
        Ok(self.sys.now() / TICK)
    }

    fn getrusage(&mut self, [who, to, ..]: Args) -> Answer {
        let used = match who as i32 {
            0 => self.used_by_process(),
            1 => Used {
                most_pages: self.used_by_process().most_pages,
                ..self.used_by_thread()
            },
            -1 => *self.process.child_used.lock(),
            _ => return Err(Errno::EINVAL),
        };
        self.put(to, &Usage::of(&used)).map(|()| 0)
    }

    /// The clocks are the host's: nobody sets them from here.
    fn clock_settime(&mut self, [id, from, ..]: Args) -> Answer {
        if id as u32 != abi::CLOCK_REALTIME {
            return Err(Errno::EINVAL);
        }
        self.get::<Timespec>(from)?.nanos()?;
        Err(Errno::EPERM)
    }

    fn settimeofday(&mut self, [time, zone, ..]: Args) -> Answer {
        if time != 0 {
            let t: Timespec = self.get(time)?;
            if !(0..1_000_000).contains(&t.nanos) || t.seconds < 0 {
                return Err(Errno::EINVAL);
            }
        }
        if zone != 0 {
            self.get::<[u32; 2]>(zone)?;
        }
        Err(Errno::EPERM)
    }

    /// `struct timex` of a clock that nobody adjusts; to change it is refused.
    fn adjtimex(&mut self, [at, ..]: Args) -> Answer {
        const WORDS: usize = 26;
        const MODES: u64 = 0xffff_ffff;
        const UNSYNCHRONISED: u64 = 0x40;
        const TIME_ERROR: u64 = 5;
        let mut words: [u64; WORDS] = self.get(at)?;
        if words[0] & MODES != 0 {
            return Err(Errno::EPERM);
        }
        let now = Timespec::micros_of(self.sys.platform.wall_clock());
        words.fill(0);
        // Errors in microseconds, status, constant, precision, tolerance, time, tick.
        (words[3], words[4], words[5]) = (16_000_000, 16_000_000, UNSYNCHRONISED);
        (words[6], words[7], words[8]) = (2, 1, 32_768_000);
        (words[9], words[10], words[11]) = (now.seconds as u64, now.nanos as u64, 10_000);
        self.put(at, &words)?;
        Ok(TIME_ERROR)
    }

    fn clock_adjtime(&mut self, [id, at, ..]: Args) -> Answer {
        match id as u32 {
            abi::CLOCK_REALTIME => self.adjtimex([at, 0, 0, 0, 0, 0]),
            id if id <= abi::CLOCK_TAI => {
                self.get::<[u64; 26]>(at)?;
                Err(Errno::EOPNOTSUPP)
            }
            _ => Err(Errno::EINVAL),
        }
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
