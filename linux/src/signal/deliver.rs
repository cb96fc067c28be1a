//! What happens before a thread returns to its program: ends, stops, handlers, restarts.

use super::{Action, DefaultAction, SIG_DFL, SIG_IGN, SigInfo, SigSet, default_action};
use crate::blocking::thread_channel;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::{ExitStatus, Report};
use crate::thread::{Interrupted, Task};
use alloc::format;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

impl<P: Platform> Task<P> {
    /// Whether a blocking call should give up: a signal is to be taken, or the thread ends.
    pub(crate) fn is_interrupted(&self) -> bool {
        if self.must_end() || self.process.stopped.load(Ordering::SeqCst) {
            return true;
        }
        let shared = self.process.signals.lock();
        let own = self.thread.signals.lock();
        let waiting = shared.pending.set().union(own.pending.set());
        !waiting.without(own.mask).is_empty()
    }

    /// Takes every signal that may be taken, and says whether the thread goes on at all.
    pub(crate) fn prepare_return(&mut self) -> bool {
        loop {
            if self.must_end() {
                return false;
            }
            if self.process.stopped.load(Ordering::SeqCst) {
                self.stay_stopped();
                continue;
            }
            match self.next_signal() {
                Some((info, action)) => self.act(info, action),
                None => break,
            }
        }
        self.restart_without_handler();
        true
    }

    fn next_signal(&mut self) -> Option<(SigInfo, Action)> {
        let mut shared = self.process.signals.lock();
        let mut own = self.thread.signals.lock();
        let allowed = SigSet(!own.mask.0);
        let info = own
            .pending
            .take(allowed)
            .or_else(|| shared.pending.take(allowed))?;
        let action = shared.action(info.signal);
        if action.handler > SIG_IGN && action.has(abi::SA_RESETHAND) {
            shared.set_action(
                info.signal,
                Action {
                    handler: SIG_DFL,
                    ..action
                },
            );
        }
        Some((info, action))
    }

    fn act(&mut self, info: SigInfo, action: Action) {
        match action.handler {
            SIG_IGN => {}
            SIG_DFL => match default_action(info.signal) {
                DefaultAction::Ignore | DefaultAction::Continue => {}
                DefaultAction::Stop if self.is_out_of_job_control(info.signal) => {}
                DefaultAction::Stop => {
                    let report = Report::Stopped(info.signal as u8);
                    self.sys.set_stopped(self.process.pid, report);
                }
                DefaultAction::Kill => self.killed_by(info),
            },
            _ => self.run_handler(info, action),
        }
    }

    /// Nobody would continue the caller's group: what a terminal stops goes on.
    fn is_out_of_job_control(&self, signal: u32) -> bool {
        let (pgid, _) = self.group_and_session();
        signal != abi::SIGSTOP && self.sys.processes.lock().is_orphaned(pgid)
    }

    fn killed_by(&mut self, info: SigInfo) {
        self.sys.verbose(|| {
            format!(
                "process {}: killed by signal {} (code {}, address {:#x}) at {:#x}",
                self.process.pid, info.signal, info.code, info.fields[0], self.regs.rip
            )
        });
        self.end_group(ExitStatus::Signal(info.signal as u8));
    }

    fn run_handler(&mut self, info: SigInfo, action: Action) {
        self.settle_interrupted(Some(action));
        if self.push_frame(info, action).is_err() {
            // No room for the frame: a SIGSEGV that cannot be handled on that stack either.
            if info.signal == abi::SIGSEGV {
                self.reset_action(abi::SIGSEGV);
            }
            let code = abi::SI_KERNEL as i32;
            self.force_signal(SigInfo::fault(abi::SIGSEGV, code, 0));
        }
    }

    /// Decides what an interrupted call gives back, or makes it start again. `handler` is the
    /// disposition of the first handler that runs.
    fn settle_interrupted(&mut self, handler: Option<Action>) {
        let Some(Interrupted { errno, number }) = self.interrupted.take() else {
            return;
        };
        let restart = match handler {
            None => true,
            Some(action) => errno == Errno::RESTART && action.has(abi::SA_RESTART),
        };
        if restart {
            // The instruction is two bytes long (`syscall`, and also `sysenter`, `int 0x80`).
            self.regs.rip = self.regs.rip.wrapping_sub(2);
            self.regs.rax = number;
        } else {
            self.sleep_until = None;
            self.regs.rax = Errno::EINTR.as_result();
        }
    }

    fn restart_without_handler(&mut self) {
        self.settle_interrupted(None);
        let mut own = self.thread.signals.lock();
        if let Some(mask) = own.saved_mask.take() {
            own.mask = mask;
        }
    }

    fn stay_stopped(&self) {
        let channel = thread_channel(self.thread.tid());
        loop {
            let ticket = self.sys.ticket(channel);
            self.thread.sleeping.store(channel.0, Ordering::SeqCst);
            if self.must_end() || !self.process.stopped.load(Ordering::SeqCst) {
                break;
            }
            self.sys.sleep(channel, ticket, None);
        }
        self.thread.sleeping.store(0, Ordering::SeqCst);
    }

    fn reset_action(&self, signal: u32) {
        self.process
            .signals
            .lock()
            .set_action(signal, Action::default());
    }

    /// A signal that this thread's own act raised: blocked or ignored, it kills.
    pub(crate) fn force_signal(&mut self, info: SigInfo) {
        let set = SigSet::of(info.signal);
        let mut shared = self.process.signals.lock();
        let mut own = self.thread.signals.lock();
        let ignored = shared.action(info.signal).handler == SIG_IGN;
        if ignored || own.mask.contains(info.signal) {
            shared.set_action(info.signal, Action::default());
            own.mask = own.mask.without(set);
        }
        own.pending.add(info);
    }
}
