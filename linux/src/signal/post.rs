//! Making a signal pending, and waking whoever should take it.

use super::{STOPPING, SigInfo, SigSet};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::{ExitStatus, Process, Record, Report};
use crate::system::Linux;
use crate::thread::Thread;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

impl<P: Platform> Linux<P> {
    /// Sends a signal to a process. Signal 0 only asks whether it is there.
    pub(crate) fn signal_process(&self, pid: u32, info: SigInfo) -> Result<(), Errno> {
        let (process, threads) = self.target(pid)?;
        self.post(&process, &threads, None, info)
    }

    /// Sends a signal to one thread; `pid` may be asked to be its process.
    pub(crate) fn signal_thread(
        &self,
        pid: Option<u32>,
        tid: u32,
        info: SigInfo,
    ) -> Result<(), Errno> {
        let (process, threads, thread) = {
            let table = self.processes.lock();
            let found = table.records.values().find_map(|r| {
                let thread = r.threads.iter().find(|t| t.tid() == tid)?;
                Some((r.process.clone(), r.threads.clone(), thread.clone()))
            });
            found.ok_or(Errno::ESRCH)?
        };
        if pid.is_some_and(|p| p != process.pid) {
            return Err(Errno::ESRCH);
        }
        self.post(&process, &threads, Some(&thread), info)
    }

    /// Sends a signal to every process that `which` chooses; `ESRCH` when there is none.
    pub(crate) fn signal_many(
        &self,
        info: SigInfo,
        which: impl Fn(&Record<P>) -> bool,
    ) -> Result<(), Errno> {
        let pids: Vec<u32> = {
            let table = self.processes.lock();
            table
                .records
                .values()
                .filter(|r| which(r))
                .map(|r| r.process.pid)
                .collect()
        };
        let mut result = Err(Errno::ESRCH);
        for pid in pids {
            if self.signal_process(pid, info).is_ok() {
                result = Ok(());
            }
        }
        result
    }

    #[allow(clippy::type_complexity)]
    fn target(&self, pid: u32) -> Result<(Arc<Process<P>>, Vec<Arc<Thread<P>>>), Errno> {
        let table = self.processes.lock();
        let record = table.get(pid).ok_or(Errno::ESRCH)?;
        Ok((record.process.clone(), record.threads.clone()))
    }

    fn post(
        &self,
        process: &Arc<Process<P>>,
        threads: &[Arc<Thread<P>>],
        target: Option<&Arc<Thread<P>>>,
        info: SigInfo,
    ) -> Result<(), Errno> {
        if info.signal == 0 || threads.is_empty() {
            return Ok(());
        }
        if info.signal == abi::SIGKILL {
            self.condemn(process.pid, ExitStatus::Signal(abi::SIGKILL as u8));
            return Ok(());
        }
        self.prepare(process, threads, info.signal);
        let set = SigSet::of(info.signal);
        {
            let mut signals = process.signals.lock();
            let judge = target.or(threads.first());
            let blocked = judge.is_some_and(|t| !t.signals.lock().mask.intersect(set).is_empty());
            if !blocked && signals.action(info.signal).ignores(info.signal) {
                return Ok(());
            }
            let added = match target {
                Some(thread) => thread.signals.lock().pending.add(info),
                None => signals.pending.add(info),
            };
            if !added {
                return Err(Errno::EAGAIN);
            }
        }
        match target {
            Some(thread) => thread.poke(self),
            None => self.poke_taker(threads, set),
        }
        Ok(())
    }

    /// Wakes one thread that does not block the signal, if there is one.
    fn poke_taker(&self, threads: &[Arc<Thread<P>>], set: SigSet) {
        let free = |t: &&Arc<Thread<P>>| t.signals.lock().mask.intersect(set).is_empty();
        match threads.iter().find(free) {
            Some(thread) => thread.poke(self),
            // Somebody may wait for it in `rt_sigtimedwait` although it is blocked.
            None => threads.iter().for_each(|t| t.poke(self)),
        }
    }

    /// A stop takes back a waiting continuation and the other way round; `SIGCONT` continues at
    /// once, whatever its disposition.
    fn prepare(&self, process: &Arc<Process<P>>, threads: &[Arc<Thread<P>>], signal: u32) {
        let against = if signal == abi::SIGCONT {
            STOPPING
        } else if STOPPING.contains(signal) {
            SigSet::of(abi::SIGCONT)
        } else {
            return;
        };
        {
            let mut signals = process.signals.lock();
            signals.pending.discard(against);
            for thread in threads {
                thread.signals.lock().pending.discard(against);
            }
        }
        if signal == abi::SIGCONT {
            self.set_stopped(process.pid, Report::Continued);
        }
    }
}
