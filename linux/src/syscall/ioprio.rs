//! Priorities of threads before devices: kept and told.

use super::{Answer, Args, Calls};
use crate::creds::cap;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::INIT;
use crate::thread::{Task, Thread};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

const PROCESS: u64 = 1;
const GROUP: u64 = 2;
const USER: u64 = 3;
/// Where the class begins in a priority; level and hint lie below.
const CLASS_SHIFT: u32 = 13;
const NONE: u32 = 0;
const REAL_TIME: u32 = 1;
const IDLE: u32 = 3;

impl<P: Platform> Task<P> {
    pub(super) const IO_PRIORITY: Calls<P> = &[
        (abi::__NR_ioprio_get, Self::ioprio_get),
        (abi::__NR_ioprio_set, Self::ioprio_set),
    ];

    /// The threads that `which` and `who` name.
    fn before_devices(&self, which: u64, who: u64) -> Result<Vec<Arc<Thread<P>>>, Errno> {
        let who = who as u32;
        if which == PROCESS {
            return Ok(match who {
                INIT => Vec::new(),
                _ => alloc::vec![self.scheduled(u64::from(who))?],
            });
        }
        let user = if who == 0 {
            self.creds().user.real
        } else {
            who
        };
        let table = self.sys.processes.lock();
        let own_group = table.get(self.process.pid).map_or(0, |r| r.pgid);
        let group = if who == 0 { own_group } else { who };
        let chosen = table.records.values().filter(|r| match which {
            GROUP => r.pgid == group,
            _ => r.process.creds.lock().user.real == user,
        });
        let threads: Vec<_> = chosen.flat_map(|r| r.threads.iter().cloned()).collect();
        match which {
            GROUP | USER if threads.is_empty() => Err(Errno::ESRCH),
            GROUP | USER => Ok(threads),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Gives the highest of those asked for: the lowest class that is one.
    fn ioprio_get(&mut self, [which, who, ..]: Args) -> Answer {
        let threads = self.before_devices(which, who)?;
        let set = threads
            .iter()
            .map(|t| t.io_priority.load(Ordering::Relaxed));
        let best = set.filter(|p| p >> CLASS_SHIFT != NONE).min();
        Ok(u64::from(best.unwrap_or(0)))
    }

    fn ioprio_set(&mut self, [which, who, priority, ..]: Args) -> Answer {
        let priority = priority as u32;
        let class = priority >> CLASS_SHIFT;
        let stray = class == NONE && priority != 0;
        if class > IDLE || stray {
            return Err(Errno::EINVAL);
        }
        let creds = self.creds();
        if class == REAL_TIME && !creds.capable(cap::SYS_NICE) && !creds.capable(cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        for thread in self.before_devices(which, who)? {
            if !creds.owns(&thread.creds.lock()) && !creds.capable(cap::SYS_NICE) {
                return Err(Errno::EPERM);
            }
            thread.io_priority.store(priority, Ordering::Relaxed);
        }
        Ok(0)
    }
}
