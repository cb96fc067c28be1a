//! Scheduling, as far as programs ask for it: the host's scheduler decides.

use super::{Answer, Args, Calls};
use crate::creds::cap;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::Process;
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

const PRIO_PROCESS: u64 = 0;
const PRIO_PGRP: u64 = 1;
const PRIO_USER: u64 = 2;
/// `SCHED_OTHER`, `SCHED_BATCH`, `SCHED_IDLE`: those without priorities.
const ORDINARY: [u32; 3] = [0, 3, 5];
/// `SCHED_FIFO` and `SCHED_RR`.
const REAL_TIME: [u32; 2] = [1, 2];

impl<P: Platform> Task<P> {
    pub(super) const SCHEDULE: Calls<P> = &[
        (abi::__NR_getpriority, Self::getpriority),
        (abi::__NR_setpriority, Self::setpriority),
        (abi::__NR_sched_getscheduler, Self::sched_getscheduler),
        (abi::__NR_sched_setscheduler, Self::sched_setscheduler),
        (abi::__NR_sched_getparam, Self::sched_getparam),
        (abi::__NR_sched_setparam, Self::sched_setparam),
        (abi::__NR_sched_get_priority_max, Self::priority_max),
        (abi::__NR_sched_get_priority_min, Self::priority_min),
    ];

    /// The processes that `which` and `who` name.
    fn those(&self, which: u64, who: u64) -> Result<Vec<Arc<Process<P>>>, Errno> {
        let me = self.process.pid;
        let table = self.sys.processes.lock();
        let who = who as u32;
        let my_group = table.get(me).map_or(0, |r| r.pgid);
        let chosen = table.records.iter().filter(|(pid, record)| match which {
            PRIO_PROCESS => **pid == if who == 0 { me } else { who },
            PRIO_PGRP => record.pgid == if who == 0 { my_group } else { who },
            _ => true,
        });
        let chosen: Vec<_> = chosen.map(|(_, r)| r.process.clone()).collect();
        match which {
            PRIO_PROCESS | PRIO_PGRP | PRIO_USER if chosen.is_empty() => Err(Errno::ESRCH),
            PRIO_PROCESS | PRIO_PGRP | PRIO_USER => Ok(chosen),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Gives 20 less the nice value, the highest of those asked for, so that it is no error.
    fn getpriority(&mut self, [which, who, ..]: Args) -> Answer {
        let those = self.those(which, who)?;
        let nice = those.iter().map(|p| p.nice.load(Ordering::Relaxed)).min();
        Ok((20 - i64::from(nice.unwrap_or(0))) as u64)
    }

    fn setpriority(&mut self, [which, who, nice, ..]: Args) -> Answer {
        let nice = (nice as i32).clamp(-20, 19);
        let creds = self.creds();
        let privileged = creds.capable(cap::SYS_NICE);
        for process in self.those(which, who)? {
            if !privileged && !creds.owns(&process.creds.lock()) {
                return Err(Errno::EPERM);
            }
            if nice < process.nice.load(Ordering::Relaxed) && !privileged {
                return Err(Errno::EACCES);
            }
            process.nice.store(nice, Ordering::Relaxed);
        }
        Ok(0)
    }

    fn sched_getscheduler(&mut self, [pid, ..]: Args) -> Answer {
        self.check_scheduled(pid).map(|()| 0)
    }

    fn sched_setscheduler(&mut self, [pid, policy, parameter, ..]: Args) -> Answer {
        self.check_scheduled(pid)?;
        let priority: u32 = self.get(parameter)?;
        match policy as u32 {
            p if ORDINARY.contains(&p) && priority == 0 => Ok(0),
            p if REAL_TIME.contains(&p) => Err(Errno::EPERM),
            _ => Err(Errno::EINVAL),
        }
    }

    fn sched_getparam(&mut self, [pid, to, ..]: Args) -> Answer {
        self.check_scheduled(pid)?;
        self.put(to, &0u32).map(|()| 0)
    }

    fn sched_setparam(&mut self, [pid, from, ..]: Args) -> Answer {
        self.check_scheduled(pid)?;
        match self.get::<u32>(from)? {
            0 => Ok(0),
            _ => Err(Errno::EINVAL),
        }
    }

    fn priority_max(&mut self, [policy, ..]: Args) -> Answer {
        Self::priority_of(policy, 99)
    }

    fn priority_min(&mut self, [policy, ..]: Args) -> Answer {
        Self::priority_of(policy, 1)
    }

    fn priority_of(policy: u64, real_time: u64) -> Answer {
        match policy as u32 {
            p if ORDINARY.contains(&p) => Ok(0),
            p if REAL_TIME.contains(&p) => Ok(real_time),
            _ => Err(Errno::EINVAL),
        }
    }
}
