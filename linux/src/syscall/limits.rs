//! Limits of what a process may use, and what happens at them.

use super::{Answer, Args, Calls};
use crate::alarms::{Timer, Which};
use crate::creds::cap;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::{ExitStatus, Process};
use crate::signal::SigInfo;
use crate::system::Linux;
use crate::thread::Task;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

/// `RLIM_NLIMITS`.
const LIMITS: u64 = 16;
const RLIMIT_CPU: usize = 0;
const RLIMIT_NOFILE: usize = 7;
/// `sysctl_nr_open`.
const NR_OPEN: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;

impl<P: Platform> Task<P> {
    pub(super) const LIMIT: Calls<P> = &[
        (abi::__NR_prlimit64, Self::prlimit),
        (abi::__NR_getrlimit, Self::getrlimit),
        (abi::__NR_setrlimit, Self::setrlimit),
    ];

    fn prlimit(&mut self, [pid, resource, new, old, ..]: Args) -> Answer {
        let wanted: Option<[u64; 2]> = match new {
            0 => None,
            at => Some(self.get(at)?),
        };
        let process = match pid as u32 {
            0 => self.process.clone(),
            pid => self.process_with(pid)?,
        };
        self.check_limits_of(&process)?;
        let resource = resource as u32;
        if u64::from(resource) >= LIMITS {
            return Err(Errno::EINVAL);
        }
        let before = self.set_limit(&process, resource as usize, wanted)?;
        self.put_optional(old, &[before.0, before.1]).map(|()| 0)
    }

    /// Another's limits are seen and set by who has the same numbers throughout.
    fn check_limits_of(&self, process: &Arc<Process<P>>) -> Result<(), Errno> {
        if process.pid == self.process.pid {
            return Ok(());
        }
        let (me, other) = (self.creds(), process.creds.lock().clone());
        let same = |mine: u32, o: &crate::creds::Ids| {
            [o.real, o.effective, o.saved].iter().all(|&id| id == mine)
        };
        let ids = same(me.user.real, &other.user) && same(me.group.real, &other.group);
        if ids || me.capable(cap::SYS_RESOURCE) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    fn set_limit(
        &self,
        process: &Arc<Process<P>>,
        index: usize,
        wanted: Option<[u64; 2]>,
    ) -> Result<(u64, u64), Errno> {
        let free = self.capable(cap::SYS_RESOURCE);
        let before = {
            let mut shared = process.shared.lock();
            let place = &mut shared.limits[index];
            let before = *place;
            if let Some([soft, hard]) = wanted {
                if soft > hard {
                    return Err(Errno::EINVAL);
                }
                if (index == RLIMIT_NOFILE && hard > NR_OPEN) || (hard > before.1 && !free) {
                    return Err(Errno::EPERM);
                }
                *place = (soft, hard);
            }
            before
        };
        if wanted.is_some() {
            process.limits_changed();
        }
        if let (RLIMIT_CPU, Some([soft, _])) = (index, wanted) {
            self.note_time();
            self.sys.watch_limit(process, soft)?;
        }
        Ok(before)
    }

    fn getrlimit(&mut self, [resource, to, ..]: Args) -> Answer {
        if u64::from(resource as u32) >= LIMITS {
            return Err(Errno::EINVAL);
        }
        let limits = self.process.shared.lock().limits;
        let (soft, hard) = limits[resource as u32 as usize];
        self.put(to, &[soft, hard]).map(|()| 0)
    }

    fn setrlimit(&mut self, [resource, from, ..]: Args) -> Answer {
        let wanted: [u64; 2] = self.get(from)?;
        if u64::from(resource as u32) >= LIMITS {
            return Err(Errno::EINVAL);
        }
        let process = self.process.clone();
        self.set_limit(&process, resource as u32 as usize, Some(wanted))
            .map(|_| 0)
    }
}

impl<P: Platform> Linux<P> {
    /// Watches a process's limit of processor time, `seconds`.
    pub(crate) fn watch_limit(
        &'static self,
        process: &Arc<Process<P>>,
        seconds: u64,
    ) -> Result<(), Errno> {
        let timer = {
            let mut timers = process.timers.lock();
            let timer = &mut timers.limit;
            let nanos = seconds.saturating_mul(SECOND);
            // A limit of nothing is one of a second, as on Linux.
            let value = if seconds == u64::MAX {
                0
            } else {
                nanos.max(SECOND)
            };
            timer.set(0, value, SECOND);
            *timer
        };
        self.plan(process, Which::Limit, &timer)
    }

    /// The soft limit of processor time has passed: a signal each second, up to the hard one.
    pub(crate) fn over_limit(&'static self, process: &Arc<Process<P>>) -> Option<Timer> {
        let (soft, hard) = process.shared.lock().limits[RLIMIT_CPU];
        let used = self.used(process).time();
        if hard != u64::MAX && used >= hard.saturating_mul(SECOND) {
            self.condemn(process.pid, ExitStatus::Signal(abi::SIGKILL as u8));
            return None;
        }
        if soft == u64::MAX {
            return None;
        }
        let info = SigInfo::sent(abi::SIGXCPU, 0x80, 0, 0);
        self.signal_process(process.pid, info).ok();
        self.timer_of(process, Which::Limit)
    }
}
