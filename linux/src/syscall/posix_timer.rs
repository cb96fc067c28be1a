//! Timers of `timer_create`, and timers that are read: `timerfd`.

use super::{Answer, Args, Calls};
use crate::alarms::{Clock, Timer, Which};
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::fs::table::OnExec;
use crate::fs::timerfile::{Setting, TimerFile};
use crate::platform::Platform;
use crate::process::Process;
use crate::signal::{SIGNALS, SigInfo};
use crate::syscall::time::Timespec;
use crate::system::Linux;
use crate::thread::Task;
use alloc::boxed::Box;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many timers a process may have.
const MOST: usize = 4096;

/// The beginning of `struct sigevent`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SigEvent {
    value: u64,
    signal: u32,
    notify: u32,
    tid: u32,
    pad: u32,
}

/// `struct itimerspec`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TimerSpec {
    interval: Timespec,
    value: Timespec,
}

impl TimerSpec {
    fn of((left, interval): (u64, u64)) -> TimerSpec {
        TimerSpec {
            interval: Timespec::of(interval),
            value: Timespec::of(left),
        }
    }
}

/// A timer of `timer_create`.
#[derive(Clone, Debug)]
pub(crate) struct PosixTimer {
    pub(crate) timer: Timer,
    /// The clock as the program named it.
    clock: u32,
    /// `None`: nobody is told.
    signal: Option<u32>,
    /// To this thread alone.
    tid: Option<u32>,
    value: u64,
    overrun: u64,
}

impl<P: Platform> Linux<P> {
    /// Tells of a timer that has run out, `more` times besides the one.
    pub(crate) fn ring_posix(
        &self,
        process: &Arc<Process<P>>,
        id: i32,
        timer: &PosixTimer,
        more: u64,
    ) {
        let Some(signal) = timer.signal else { return };
        let waits = self.count_overrun(process, id, timer, more + 1);
        let overrun = if waits {
            timer.overrun + more + 1
        } else {
            more
        };
        if let Some(t) = process.timers.lock().posix.get_mut(&id) {
            t.overrun = overrun;
        }
        if waits {
            return;
        }
        let info = SigInfo::timer(signal, id, more.min(i32::MAX as u64) as u32, timer.value);
        match timer.tid {
            Some(tid) => self.signal_thread(Some(process.pid), tid, info).ok(),
            None => self.signal_process(process.pid, info).ok(),
        };
    }

    /// Adds to the count in a record of the same timer that still waits; whether there is one.
    fn count_overrun(
        &self,
        process: &Arc<Process<P>>,
        id: i32,
        timer: &PosixTimer,
        more: u64,
    ) -> bool {
        let more = more.min(i32::MAX as u64) as u32;
        let thread = timer.tid.and_then(|tid| {
            let table = self.processes.lock();
            let threads = &table.get(process.pid)?.threads;
            threads.iter().find(|t| t.tid() == tid).cloned()
        });
        match thread {
            Some(thread) => thread.signals.lock().pending.overrun(id, more),
            None => process.signals.lock().pending.overrun(id, more),
        }
    }
}

impl<P: Platform> Task<P> {
    pub(super) const POSIX_TIMER: Calls<P> = &[
        (abi::__NR_timer_create, Self::timer_create),
        (abi::__NR_timer_settime, Self::timer_settime),
        (abi::__NR_timer_gettime, Self::timer_gettime),
        (abi::__NR_timer_getoverrun, Self::timer_getoverrun),
        (abi::__NR_timer_delete, Self::timer_delete),
        (abi::__NR_timerfd_create, Self::timerfd_create),
        (abi::__NR_timerfd_settime, Self::timerfd_settime),
        (abi::__NR_timerfd_gettime, Self::timerfd_gettime),
    ];

    /// The clock that a timer of clock `id` runs by.
    fn timer_clock(&self, id: u32) -> Result<Clock, Errno> {
        match id {
            abi::CLOCK_REALTIME
            | abi::CLOCK_MONOTONIC
            | abi::CLOCK_BOOTTIME
            | abi::CLOCK_REALTIME_ALARM
            | abi::CLOCK_BOOTTIME_ALARM
            | abi::CLOCK_TAI => Ok(Clock::Machine),
            abi::CLOCK_PROCESS_CPUTIME_ID => Ok(Clock::Process),
            abi::CLOCK_THREAD_CPUTIME_ID => Ok(Clock::Thread(self.thread.tid())),
            // Numbers from here on are of processes and threads.
            id if (id as i32) < 0 => self.dynamic_clock(id),
            abi::CLOCK_MONOTONIC_RAW | abi::CLOCK_REALTIME_COARSE | abi::CLOCK_MONOTONIC_COARSE => {
                Err(Errno::EOPNOTSUPP)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// A clock of processor time by number: of this process or one of its threads.
    fn dynamic_clock(&self, id: u32) -> Result<Clock, Errno> {
        let who = !((id as i32) >> 3) as u32;
        let of_thread = id & 4 != 0;
        match id & 3 {
            0..=2 if of_thread => {
                let tid = if who == 0 { self.thread.tid() } else { who };
                let process = self.process_with(tid).map_err(|_| Errno::EINVAL)?;
                if process.pid == self.process.pid {
                    Ok(Clock::Thread(tid))
                } else {
                    Err(Errno::EINVAL)
                }
            }
            0..=2 if who == 0 || who == self.process.pid => Ok(Clock::Process),
            _ => Err(Errno::EINVAL),
        }
    }

    fn timer_create(&mut self, [clock, event, to, ..]: Args) -> Answer {
        let clock_id = clock as u32;
        let event: Option<SigEvent> = match event {
            0 => None,
            at => Some(self.get(at)?),
        };
        let clock = self.timer_clock(clock_id)?;
        let (signal, tid) = match event {
            None => (Some(abi::SIGALRM), None),
            Some(e) => self.notified(&e)?,
        };
        let id = {
            let mut timers = self.process.timers.lock();
            if timers.posix.len() >= MOST {
                return Err(Errno::EAGAIN);
            }
            let id = timers.next;
            timers.next = id.checked_add(1).unwrap_or(0);
            let timer = PosixTimer {
                timer: Timer {
                    clock,
                    ..Timer::default()
                },
                clock: clock_id,
                signal,
                tid,
                value: event.map_or(id as u64, |e| e.value),
                overrun: 0,
            };
            timers.posix.insert(id, timer);
            id
        };
        let stored = self.put(to, &id);
        if stored.is_err() {
            self.process.timers.lock().posix.remove(&id);
        }
        stored.map(|()| 0)
    }

    /// Signal and thread of a `struct sigevent`.
    fn notified(&self, e: &SigEvent) -> Result<(Option<u32>, Option<u32>), Errno> {
        const SIGNAL: u32 = abi::SIGEV_SIGNAL;
        const NONE: u32 = abi::SIGEV_NONE;
        const THREAD: u32 = abi::SIGEV_THREAD;
        const TO_THREAD: u32 = abi::SIGEV_THREAD_ID;
        let valid = (1..=SIGNALS).contains(&e.signal);
        match e.notify {
            NONE => Ok((None, None)),
            SIGNAL | THREAD if valid => Ok((Some(e.signal), None)),
            TO_THREAD if valid => {
                let process = self.process_with(e.tid).map_err(|_| Errno::EINVAL)?;
                if process.pid != self.process.pid {
                    return Err(Errno::EINVAL);
                }
                Ok((Some(e.signal), Some(e.tid)))
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn posix_timer(&self, id: u64) -> Result<PosixTimer, Errno> {
        let timers = self.process.timers.lock();
        timers.posix.get(&(id as i32)).cloned().ok_or(Errno::EINVAL)
    }

    /// How far away a moment is that is named by a program's clock. One that has passed is a
    /// nanosecond away.
    fn until(&self, clock_id: u32, clock: Clock, moment: u64) -> u64 {
        let wall = matches!(
            clock_id,
            abi::CLOCK_REALTIME | abi::CLOCK_REALTIME_ALARM | abi::CLOCK_TAI
        );
        let now = if wall {
            self.sys.platform.wall_clock()
        } else {
            self.sys.clock_of(&self.process, clock)
        };
        moment.saturating_sub(now).max(1)
    }

    fn timer_settime(&mut self, [id, flags, new, old, ..]: Args) -> Answer {
        if new == 0 {
            return Err(Errno::EINVAL);
        }
        let spec: TimerSpec = self.get(new)?;
        let (mut value, interval) = (spec.value.nanos()?, spec.interval.nanos()?);
        let known = self.posix_timer(id)?;
        self.note_time();
        if value != 0 && flags as u32 & abi::TIMER_ABSTIME != 0 {
            value = self.until(known.clock, known.timer.clock, value);
        }
        let which = Which::Posix(id as i32);
        let before = self
            .sys
            .set_timer(&self.process, which, (value, interval))?;
        if let Some(t) = self.process.timers.lock().posix.get_mut(&(id as i32)) {
            t.overrun = 0;
        }
        self.put_optional(old, &TimerSpec::of(before)).map(|()| 0)
    }

    fn timer_gettime(&mut self, [id, to, ..]: Args) -> Answer {
        let timer = self.posix_timer(id)?.timer;
        self.note_time();
        let left = timer.left(self.sys.clock_of(&self.process, timer.clock));
        self.put(to, &TimerSpec::of((left, timer.interval)))
            .map(|()| 0)
    }

    fn timer_getoverrun(&mut self, [id, ..]: Args) -> Answer {
        Ok(self.posix_timer(id)?.overrun.min(i32::MAX as u64))
    }

    fn timer_delete(&mut self, [id, ..]: Args) -> Answer {
        let gone = self.process.timers.lock().posix.remove(&(id as i32));
        gone.map(|_| 0).ok_or(Errno::EINVAL)
    }

    fn timerfd_create(&mut self, [clock, flags, ..]: Args) -> Answer {
        let (clock, flags) = (clock as u32, flags as u32);
        if flags & !(abi::TFD_CLOEXEC | abi::TFD_NONBLOCK) != 0 {
            return Err(Errno::EINVAL);
        }
        match clock {
            abi::CLOCK_REALTIME | abi::CLOCK_MONOTONIC | abi::CLOCK_BOOTTIME => {}
            abi::CLOCK_REALTIME_ALARM | abi::CLOCK_BOOTTIME_ALARM => {
                if !self.capable(crate::creds::cap::WAKE_ALARM) {
                    return Err(Errno::EPERM);
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        let timer = Kind::Special(Box::new(TimerFile::new(self.sys, clock)));
        let file = OpenFile::own(timer, flags & abi::O_NONBLOCK);
        self.install(Arc::new(file), OnExec::from_flags(flags))
    }

    fn with_timer<T>(
        &self,
        fd: u64,
        act: impl FnOnce(&TimerFile<P>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let file = self.file(fd)?;
        match &file.kind {
            Kind::Special(special) => act(special.as_timer().ok_or(Errno::EINVAL)?),
            _ => Err(Errno::EINVAL),
        }
    }

    fn timerfd_settime(&mut self, [fd, flags, new, old, ..]: Args) -> Answer {
        let flags = flags as u32;
        let spec: TimerSpec = self.get(new)?;
        let known = abi::TFD_TIMER_ABSTIME | abi::TFD_TIMER_CANCEL_ON_SET;
        if flags & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let (value, interval) = (spec.value.nanos()?, spec.interval.nanos()?);
        let before = self.with_timer(fd, |timer| {
            let now = self.sys.now();
            let deadline = match value {
                0 => 0,
                at if flags & abi::TFD_TIMER_ABSTIME != 0 => {
                    now.saturating_add(self.until(timer.clock, Clock::Machine, at) - 1)
                }
                after => now.saturating_add(after),
            };
            Ok(timer.set(Setting::new(deadline, interval)))
        })?;
        self.put_optional(old, &TimerSpec::of(before)).map(|()| 0)
    }

    fn timerfd_gettime(&mut self, [fd, to, ..]: Args) -> Answer {
        let left = self.with_timer(fd, |timer| Ok(timer.left()))?;
        self.put(to, &TimerSpec::of(left)).map(|()| 0)
    }
}
