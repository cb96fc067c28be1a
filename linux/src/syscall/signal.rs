//! Signals: dispositions, masks, sending, waiting, and the way back from a handler.

use super::{Answer, Args, Calls};
use crate::blocking::{Unfinished, thread_channel};
use crate::creds::Creds;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::{ExitStatus, INIT, Life, Record, UNSTOPPABLE};
use crate::signal::{Action, AltStack, SIGNALS, SigInfo, SigSet};
use crate::syscall::time::Timespec;
use crate::thread::Task;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// `SI_TKILL`.
const SI_TKILL: i32 = -6;
/// `MINSIGSTKSZ`.
const ALT_STACK_MIN: u64 = 2048;

impl<P: Platform> Task<P> {
    pub(super) const SIGNAL: Calls<P> = &[
        (abi::__NR_rt_sigaction, Self::rt_sigaction),
        (abi::__NR_rt_sigprocmask, Self::rt_sigprocmask),
        (abi::__NR_rt_sigreturn, Self::rt_sigreturn),
        (abi::__NR_rt_sigpending, Self::rt_sigpending),
        (abi::__NR_rt_sigsuspend, Self::rt_sigsuspend),
        (abi::__NR_rt_sigtimedwait, Self::rt_sigtimedwait),
        (abi::__NR_rt_sigqueueinfo, Self::rt_sigqueueinfo),
        (abi::__NR_rt_tgsigqueueinfo, Self::rt_tgsigqueueinfo),
        (abi::__NR_sigaltstack, Self::sigaltstack),
        (abi::__NR_kill, Self::kill),
        (abi::__NR_tkill, Self::tkill),
        (abi::__NR_tgkill, Self::tgkill),
        (abi::__NR_pause, Self::pause),
    ];

    fn rt_sigaction(&mut self, [signal, new, old, size, ..]: Args) -> Answer {
        let signal = signal as u32;
        if size != 8 {
            return Err(Errno::EINVAL);
        }
        let new: Option<Action> = if new == 0 { None } else { Some(self.get(new)?) };
        if signal == 0 || signal > SIGNALS {
            return Err(Errno::EINVAL);
        }
        if new.is_some() && UNSTOPPABLE.contains(signal) {
            return Err(Errno::EINVAL);
        }
        let before = self.process.signals.lock().action(signal);
        if let Some(mut action) = new {
            action.mask = action.mask.without(UNSTOPPABLE);
            action.flags &= Action::KNOWN;
            let mut signals = self.process.signals.lock();
            signals.set_action(signal, action);
            if action.ignores(signal) {
                signals.pending.discard(SigSet::of(signal));
                self.thread
                    .signals
                    .lock()
                    .pending
                    .discard(SigSet::of(signal));
            }
        }
        self.put_optional(old, &before).map(|()| 0)
    }

    fn rt_sigprocmask(&mut self, [how, new, old, size, ..]: Args) -> Answer {
        if size != 8 {
            return Err(Errno::EINVAL);
        }
        let new: Option<SigSet> = if new == 0 { None } else { Some(self.get(new)?) };
        let before = self.thread.signals.lock().mask;
        if let Some(set) = new {
            let mask = match how as u32 {
                abi::SIG_BLOCK => before.union(set),
                abi::SIG_UNBLOCK => before.without(set),
                abi::SIG_SETMASK => set,
                _ => return Err(Errno::EINVAL),
            };
            self.thread.signals.lock().mask = mask.without(UNSTOPPABLE);
        }
        self.put_optional(old, &before).map(|()| 0)
    }

    fn rt_sigreturn(&mut self, _: Args) -> Answer {
        if self.pop_frame().is_err() {
            // There is nothing to go back to: as on Linux, a SIGSEGV that can hardly be handled.
            self.end_group(ExitStatus::Signal(abi::SIGSEGV as u8));
        }
        self.interrupted = None;
        Ok(self.regs.rax)
    }

    fn rt_sigpending(&mut self, [to, size, ..]: Args) -> Answer {
        if size > 8 {
            return Err(Errno::EINVAL);
        }
        let set = {
            let shared = self.process.signals.lock();
            let own = self.thread.signals.lock();
            shared
                .pending
                .set()
                .union(own.pending.set())
                .intersect(own.mask)
        };
        self.put(to, &set).map(|()| 0)
    }

    fn rt_sigsuspend(&mut self, [mask, size, ..]: Args) -> Answer {
        self.mask_for_call(mask, size)?;
        self.sleep_for_signal()
    }

    fn pause(&mut self, _: Args) -> Answer {
        self.sleep_for_signal()
    }

    fn sleep_for_signal(&self) -> Answer {
        let channel = thread_channel(self.thread.tid());
        match self.wait_on(channel, None, || None::<()>) {
            Ok(()) | Err(Unfinished::Signal | Unfinished::Deadline) => {
                Err(Errno::RESTART_NO_HANDLER)
            }
        }
    }

    fn rt_sigtimedwait(&mut self, [set, info, timeout, size, ..]: Args) -> Answer {
        if size != 8 {
            return Err(Errno::EINVAL);
        }
        let set = self.get::<SigSet>(set)?.without(UNSTOPPABLE);
        let deadline = match timeout {
            0 => None,
            at => Some(
                self.sys
                    .now()
                    .saturating_add(self.get::<Timespec>(at)?.nanos()?),
            ),
        };
        let channel = thread_channel(self.thread.tid());
        let taken = self.wait_on(channel, deadline, || {
            let mut shared = self.process.signals.lock();
            let mut own = self.thread.signals.lock();
            own.pending.take(set).or_else(|| shared.pending.take(set))
        });
        match taken {
            Ok(taken) => {
                self.put_optional(info, &taken)?;
                Ok(u64::from(taken.signal))
            }
            Err(Unfinished::Deadline) => Err(Errno::EAGAIN),
            Err(Unfinished::Signal) => Err(Errno::EINTR),
        }
    }

    fn rt_sigqueueinfo(&mut self, [pid, signal, info, ..]: Args) -> Answer {
        let mut told: SigInfo = self.get(info)?;
        told.signal = self.checked(signal)?;
        if pid as u32 != self.process.pid && (told.code >= 0 || told.code == SI_TKILL) {
            return Err(Errno::EPERM);
        }
        self.signal_all(told, |r| r.process.pid == pid as u32)
            .map(|()| 0)
    }

    fn sigaltstack(&mut self, [new, old, ..]: Args) -> Answer {
        let new: Option<AltStack> = if new == 0 { None } else { Some(self.get(new)?) };
        let before = self.thread.signals.lock().alt_stack;
        if let Some(stack) = new {
            if before.flags & abi::SS_AUTODISARM == 0 && before.holds(self.regs.rsp) {
                return Err(Errno::EPERM);
            }
            let mode = stack.flags & !abi::SS_AUTODISARM;
            let stack = match mode {
                abi::SS_DISABLE => AltStack::default(),
                0 | abi::SS_ONSTACK if stack.size < ALT_STACK_MIN => return Err(Errno::ENOMEM),
                0 | abi::SS_ONSTACK => AltStack {
                    flags: stack.flags & abi::SS_AUTODISARM,
                    ..stack
                },
                _ => return Err(Errno::EINVAL),
            };
            self.thread.signals.lock().alt_stack = stack;
        }
        self.put_optional(old, &before.seen_from(self.regs.rsp))
            .map(|()| 0)
    }

    fn checked(&self, signal: u64) -> Result<u32, Errno> {
        let signal = signal as u32;
        if signal > SIGNALS {
            Err(Errno::EINVAL)
        } else {
            Ok(signal)
        }
    }

    fn mine(&self, signal: u32, code: i32) -> SigInfo {
        SigInfo::sent(signal, code, self.process.pid, self.creds().user.real)
    }

    fn kill(&mut self, [pid, signal, ..]: Args) -> Answer {
        // Whom a number that is no signal would reach is looked for first.
        let checked = self.checked(signal);
        let info = self.mine(checked.unwrap_or(0), 0);
        let me = self.process.pid;
        match pid as i32 {
            0 => {
                let pgid = self.sys.processes.lock().get(me).map_or(0, |r| r.pgid);
                self.signal_all(info, |r| r.pgid == pgid && r.life == Life::Alive)?;
            }
            -1 => self.signal_all(info, |r| r.process.pid != me && r.life == Life::Alive)?,
            i32::MIN => return Err(Errno::ESRCH),
            n if n < 0 => {
                let pgid = n.unsigned_abs();
                self.signal_all(info, |r| r.pgid == pgid)?;
            }
            n if n.unsigned_abs() == INIT => self.reach_init()?,
            n => self.signal_all(info, |r| r.process.pid == n.unsigned_abs())?,
        }
        checked.map(|_| 0)
    }

    /// The parent of orphans is there for everybody, and no signal does anything to it.
    fn reach_init(&self) -> Result<(), Errno> {
        match self.creds().may_signal(&Creds::default()) {
            true => Ok(()),
            false => Err(Errno::EPERM),
        }
    }

    fn tkill(&mut self, [tid, signal, ..]: Args) -> Answer {
        if tid as i32 <= 0 {
            return Err(Errno::EINVAL);
        }
        self.signal_one(None, tid as u32, signal)
    }

    fn tgkill(&mut self, [pid, tid, signal, ..]: Args) -> Answer {
        if pid as i32 <= 0 || tid as i32 <= 0 {
            return Err(Errno::EINVAL);
        }
        self.signal_one(Some(pid as u32), tid as u32, signal)
    }

    fn signal_one(&self, pid: Option<u32>, tid: u32, signal: u64) -> Answer {
        let checked = self.checked(signal);
        if tid == INIT && pid.is_none_or(|p| p == INIT) {
            return self.reach_init().and(checked.map(|_| 0));
        }
        let info = self.mine(checked.unwrap_or(0), SI_TKILL);
        self.check_thread_target(pid, tid, info.signal)?;
        self.sys.signal_thread(pid, tid, info)?;
        checked.map(|_| 0)
    }

    /// `rt_tgsigqueueinfo`: a signal for one thread, with the sender's own record.
    fn rt_tgsigqueueinfo(&mut self, [pid, tid, signal, info, ..]: Args) -> Answer {
        let mut told: SigInfo = self.get(info)?;
        told.signal = self.checked(signal)?;
        if pid as i32 <= 0 || tid as i32 <= 0 {
            return Err(Errno::EINVAL);
        }
        if tid as u32 != self.thread.tid() && (told.code >= 0 || told.code == SI_TKILL) {
            return Err(Errno::EPERM);
        }
        let (pid, tid) = (Some(pid as u32), tid as u32);
        self.check_thread_target(pid, tid, told.signal)?;
        self.sys.signal_thread(pid, tid, told).map(|()| 0)
    }

    /// Whether there is such a thread, which this one may signal.
    fn check_thread_target(&self, pid: Option<u32>, tid: u32, signal: u32) -> Result<(), Errno> {
        let process = {
            let table = self.sys.processes.lock();
            let has = |r: &&Record<P>| {
                r.threads.iter().any(|t| t.tid() == tid) && pid.is_none_or(|p| p == r.process.pid)
            };
            let found = table.records.values().find(has).ok_or(Errno::ESRCH)?;
            found.process.clone()
        };
        if self.may_signal(&process, signal) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// Sends to every process that `which` chooses and that this thread may signal: `EPERM` when
    /// it may signal none, `ESRCH` when there is none.
    pub(super) fn signal_all(
        &self,
        info: SigInfo,
        which: impl Fn(&Record<P>) -> bool,
    ) -> Result<(), Errno> {
        let chosen: Vec<_> = {
            let table = self.sys.processes.lock();
            let chosen = table.records.values().filter(|r| which(r));
            chosen.map(|r| r.process.clone()).collect()
        };
        let mut result = Err(Errno::ESRCH);
        for process in chosen {
            let sent = if self.may_signal(&process, info.signal) {
                self.sys.signal_process(process.pid, info)
            } else {
                Err(Errno::EPERM)
            };
            match (sent, result) {
                (Ok(()), _) => result = Ok(()),
                (Err(Errno::ESRCH), _) | (_, Ok(())) => {}
                (Err(e), Err(_)) => result = Err(e),
            }
        }
        result
    }
}
