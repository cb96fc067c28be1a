//! Ends, waits, numbers, groups, sessions.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::{ExitStatus, INIT};
use crate::signal::SigInfo;
use crate::syscall::time::Usage;
use crate::thread::Task;
use crate::wait::{Event, Which};
use linux_raw_sys::general as abi;

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;
const P_ALL: u64 = 0;
const P_PID: u64 = 1;
const P_PGID: u64 = 2;
const P_PIDFD: u64 = 3;
/// Options of the waits that tell which children are meant.
const WHOSE: u32 = abi::__WALL | abi::__WCLONE | abi::__WNOTHREAD;

impl<P: Platform> Task<P> {
    pub(super) const PROCESS: Calls<P> = &[
        (abi::__NR_exit, Self::exit),
        (abi::__NR_exit_group, Self::exit_group),
        (abi::__NR_wait4, Self::wait4),
        (abi::__NR_waitid, Self::waitid),
        (abi::__NR_getpid, Self::getpid),
        (abi::__NR_gettid, Self::gettid),
        (abi::__NR_getppid, Self::getppid),
        (abi::__NR_getpgid, Self::getpgid),
        (abi::__NR_getpgrp, Self::getpgrp),
        (abi::__NR_setpgid, Self::setpgid),
        (abi::__NR_getsid, Self::getsid),
        (abi::__NR_setsid, Self::setsid),
        (abi::__NR_arch_prctl, Self::arch_prctl),
    ];

    fn exit(&mut self, [status, ..]: Args) -> Answer {
        self.exit = Some(ExitStatus::Code(status as u8));
        Ok(0)
    }

    fn exit_group(&mut self, [status, ..]: Args) -> Answer {
        let status = ExitStatus::Code(status as u8);
        self.end_group(status);
        self.exit = Some(status);
        Ok(0)
    }

    fn own_group(&self) -> u32 {
        self.sys
            .processes
            .lock()
            .get(self.process.pid)
            .map_or(0, |r| r.pgid)
    }

    fn wait4(&mut self, [pid, status, options, usage, ..]: Args) -> Answer {
        let options = options as u32;
        let known = abi::WNOHANG | abi::WUNTRACED | abi::WCONTINUED;
        if options & !(known | WHOSE) != 0 {
            return Err(Errno::EINVAL);
        }
        let which = match pid as i32 {
            -1 => Which::Any,
            0 => Which::Group(self.own_group()),
            i32::MIN => return Err(Errno::ESRCH),
            n if n < 0 => Which::Group(n.unsigned_abs()),
            n => Which::Pid(n.unsigned_abs()),
        };
        let Some(waited) = self.wait_child(which, options | abi::WEXITED)? else {
            return Ok(0);
        };
        self.put_optional(status, &waited.event.wait_word())?;
        self.put_optional(usage, &Usage::of(&waited.used))?;
        Ok(u64::from(waited.pid))
    }

    fn waitid(&mut self, [kind, id, info, options, usage, _]: Args) -> Answer {
        let options = options as u32;
        let events = abi::WEXITED | abi::WSTOPPED | abi::WCONTINUED;
        if options & !(events | abi::WNOHANG | abi::WNOWAIT | WHOSE) != 0 || options & events == 0 {
            return Err(Errno::EINVAL);
        }
        let which = match kind {
            P_ALL => Which::Any,
            P_PID if id as i32 > 0 => Which::Pid(id as u32),
            P_PIDFD if id as i32 >= 0 => Which::Pid(self.process_of(id)?.pid),
            P_PGID if id as i32 == 0 => Which::Group(self.own_group()),
            P_PGID if id as i32 > 0 => Which::Group(id as u32),
            _ => return Err(Errno::EINVAL),
        };
        let told = match self.wait_child(which, options)? {
            None => SigInfo::sent(0, 0, 0, 0),
            Some(waited) => {
                self.put_optional(usage, &Usage::of(&waited.used))?;
                let (code, status) = match waited.event {
                    Event::Ended(ExitStatus::Code(c)) => (abi::CLD_EXITED, u32::from(c)),
                    Event::Ended(ExitStatus::Signal(n)) => (abi::CLD_KILLED, u32::from(n)),
                    Event::Stopped(n) => (abi::CLD_STOPPED, u32::from(n)),
                    Event::Continued => (abi::CLD_CONTINUED, abi::SIGCONT),
                };
                SigInfo::child(abi::SIGCHLD, code as i32, waited.pid, waited.uid, status)
            }
        };
        self.put_optional(info, &told).map(|()| 0)
    }

    fn getpid(&mut self, _: Args) -> Answer {
        Ok(u64::from(self.process.pid))
    }

    fn gettid(&mut self, _: Args) -> Answer {
        Ok(u64::from(self.thread.tid()))
    }

    fn getppid(&mut self, _: Args) -> Answer {
        let table = self.sys.processes.lock();
        Ok(table
            .get(self.process.pid)
            .map_or(0, |r| u64::from(r.parent)))
    }

    /// The number that a call means, 0 being the caller's own.
    fn meant(&self, pid: u64) -> u32 {
        if pid as u32 == 0 {
            self.process.pid
        } else {
            pid as u32
        }
    }

    fn getpgid(&mut self, [pid, ..]: Args) -> Answer {
        if pid as u32 == INIT {
            return Ok(u64::from(INIT));
        }
        let table = self.sys.processes.lock();
        table
            .get(self.meant(pid))
            .map(|r| u64::from(r.pgid))
            .ok_or(Errno::ESRCH)
    }

    fn getpgrp(&mut self, _: Args) -> Answer {
        Ok(u64::from(self.own_group()))
    }

    fn setpgid(&mut self, [pid, pgid, ..]: Args) -> Answer {
        let pid = self.meant(pid);
        let pgid = if pgid as u32 == 0 { pid } else { pgid as u32 };
        if (pgid as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        let mut table = self.sys.processes.lock();
        let own_sid = table.get(self.process.pid).map_or(0, |r| r.sid);
        let exists = table
            .records
            .values()
            .any(|r| r.pgid == pgid && r.sid == own_sid);
        let record = table.get_mut(pid).ok_or(Errno::ESRCH)?;
        if pid != self.process.pid {
            if record.parent != self.process.pid {
                return Err(Errno::ESRCH);
            }
            if record.executed {
                return Err(Errno::EACCES);
            }
        }
        if record.sid != own_sid || record.sid == pid || (pgid != pid && !exists) {
            return Err(Errno::EPERM);
        }
        record.pgid = pgid;
        Ok(0)
    }

    fn getsid(&mut self, [pid, ..]: Args) -> Answer {
        if pid as u32 == INIT {
            return Ok(u64::from(INIT));
        }
        let table = self.sys.processes.lock();
        table
            .get(self.meant(pid))
            .map(|r| u64::from(r.sid))
            .ok_or(Errno::ESRCH)
    }

    fn setsid(&mut self, _: Args) -> Answer {
        let pid = self.process.pid;
        let mut table = self.sys.processes.lock();
        if table.records.values().any(|r| r.pgid == pid) {
            return Err(Errno::EPERM);
        }
        let record = table.get_mut(pid).ok_or(Errno::EPERM)?;
        record.pgid = pid;
        record.sid = pid;
        Ok(u64::from(pid))
    }

    fn arch_prctl(&mut self, [code, addr, ..]: Args) -> Answer {
        // A base beyond the user's addresses would fault when it is loaded.
        let allowed = addr < self.sys.user_range().end().0;
        match code {
            ARCH_SET_FS if allowed => self.regs.fs_base = addr,
            ARCH_SET_GS if allowed => self.regs.gs_base = addr,
            ARCH_SET_FS | ARCH_SET_GS => return Err(Errno::EPERM),
            ARCH_GET_FS => self.put(addr, &self.regs.fs_base)?,
            ARCH_GET_GS => self.put(addr, &self.regs.gs_base)?,
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    }
}
