//! Scheduling, as far as programs ask for it: what they ask for is kept and told, and the host's
//! scheduler decides.

use super::{Answer, Args, Calls};
use crate::creds::cap;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::policy::{DEADLINE, Policy, RESET_ON_FORK};
use crate::process::{INIT, Process};
use crate::thread::{Task, Thread};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

const PRIO_PROCESS: u64 = 0;
const PRIO_PGRP: u64 = 1;
const PRIO_USER: u64 = 2;
/// `RLIMIT_RTPRIO`.
const RTPRIO: u32 = 14;

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

    pub(super) fn setpriority(&mut self, [which, who, nice, ..]: Args) -> Answer {
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

    /// The policy of a thread by number, 0 being this one. The parent of orphans has the usual
    /// one.
    pub(super) fn policy_of(&self, pid: u64) -> Result<Policy, Errno> {
        match pid as i32 {
            ..0 => Err(Errno::EINVAL),
            pid if pid as u32 == INIT => Ok(Policy::default()),
            _ => Ok(*self.scheduled(pid)?.policy.lock()),
        }
    }

    /// Gives a thread a policy, if this one may.
    pub(super) fn set_policy(&self, thread: &Thread<P>, wanted: Policy) -> Result<(), Errno> {
        if !wanted.is_valid() {
            return Err(Errno::EINVAL);
        }
        let creds = self.creds();
        let old = *thread.policy.lock();
        if !creds.capable(cap::SYS_NICE) {
            let limit = self.process.limit(RTPRIO);
            let starts = wanted.is_real_time() && wanted.number != old.number && limit == 0;
            let rises = wanted.priority > old.priority && u64::from(wanted.priority) > limit;
            let forgets = old.reset_on_fork && !wanted.reset_on_fork;
            let others = !creds.owns(&thread.creds.lock());
            if starts || rises || forgets || others || wanted.number == DEADLINE {
                return Err(Errno::EPERM);
            }
        }
        *thread.policy.lock() = wanted;
        Ok(())
    }

    fn sched_getscheduler(&mut self, [pid, ..]: Args) -> Answer {
        let policy = self.policy_of(pid)?;
        let reset = if policy.reset_on_fork {
            RESET_ON_FORK
        } else {
            0
        };
        Ok(u64::from(policy.number | reset))
    }

    fn sched_setscheduler(&mut self, [pid, number, from, ..]: Args) -> Answer {
        let number = number as u32;
        if from == 0 || (number as i32) < 0 || (pid as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        let wanted = Policy {
            number: number & !RESET_ON_FORK,
            priority: self.get(from)?,
            reset_on_fork: number & RESET_ON_FORK != 0,
            deadline: [0; 3],
        };
        let thread = self.scheduled(pid)?;
        self.set_policy(&thread, wanted).map(|()| 0)
    }

    fn sched_getparam(&mut self, [pid, to, ..]: Args) -> Answer {
        if to == 0 {
            return Err(Errno::EINVAL);
        }
        let policy = self.policy_of(pid)?;
        self.put(to, &policy.priority).map(|()| 0)
    }

    fn sched_setparam(&mut self, [pid, from, ..]: Args) -> Answer {
        if from == 0 || (pid as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        let priority: u32 = self.get(from)?;
        let thread = self.scheduled(pid)?;
        let old = *thread.policy.lock();
        self.set_policy(&thread, Policy { priority, ..old })
            .map(|()| 0)
    }

    fn priority_max(&mut self, [policy, ..]: Args) -> Answer {
        let (_, highest) = Policy::priorities(policy as u32).ok_or(Errno::EINVAL)?;
        Ok(u64::from(highest))
    }

    fn priority_min(&mut self, [policy, ..]: Args) -> Answer {
        let (lowest, _) = Policy::priorities(policy as u32).ok_or(Errno::EINVAL)?;
        Ok(u64::from(lowest))
    }
}
