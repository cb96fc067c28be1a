//! Processes and signals as files: `pidfd_open` and its kin, `signalfd`.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::fs::path::{Own, own};
use crate::fs::pidfile::PidFile;
use crate::fs::sigfile::SignalFile;
use crate::fs::table::OnExec;
use crate::platform::Platform;
use crate::process::{Process, UNSTOPPABLE};
use crate::signal::{SIGNALS, SigInfo, SigSet};
use crate::thread::Task;
use alloc::boxed::Box;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

/// `PIDFD_SIGNAL_*`: whom a signal is for.
const TO_THREAD: u32 = 1;
const TO_PROCESS: u32 = 2;
const TO_GROUP: u32 = 4;
/// `SI_TKILL`.
const SI_TKILL: i32 = -6;

impl<P: Platform> Task<P> {
    pub(super) const PIDFD: Calls<P> = &[
        (abi::__NR_pidfd_open, Self::pidfd_open),
        (abi::__NR_pidfd_send_signal, Self::pidfd_send_signal),
        (abi::__NR_pidfd_getfd, Self::pidfd_getfd),
        (abi::__NR_signalfd, Self::signalfd),
        (abi::__NR_signalfd4, Self::signalfd4),
    ];

    /// A descriptor for a process.
    pub(super) fn install_process(&self, process: Arc<Process<P>>, flags: u32) -> Answer {
        let file = Kind::Special(Box::new(PidFile { process }));
        let file = OpenFile::own(file, flags & abi::O_NONBLOCK);
        self.install(Arc::new(file), OnExec::Close)
    }

    fn pidfd_open(&mut self, [pid, flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        if flags & !abi::O_NONBLOCK != 0 || pid as i32 <= 0 {
            return Err(Errno::EINVAL);
        }
        let process = self.process_with(pid as u32)?;
        if process.pid != pid as u32 {
            // A thread that is not the first of its process.
            return Err(Errno::ENOENT);
        }
        self.install_process(process, flags)
    }

    /// The process behind a descriptor.
    pub(super) fn process_of(&self, fd: u64) -> Result<Arc<Process<P>>, Errno> {
        let file = self.file(fd)?;
        match &file.kind {
            Kind::Special(special) => {
                let process = special.as_process().ok_or(Errno::EBADF)?;
                Ok(process.process.clone())
            }
            // A directory `/proc/PID` will do as well.
            Kind::Listing(listing) => match own(listing.name(), self.process.pid) {
                Some(Own::Process(pid, name)) if name.is_empty() => {
                    self.process_with(pid).map_err(|_| Errno::EBADF)
                }
                _ => Err(Errno::EBADF),
            },
            _ => Err(Errno::EBADF),
        }
    }

    /// Whether the process is still in the table under its number.
    fn is_there(&self, process: &Arc<Process<P>>) -> bool {
        let table = self.sys.processes.lock();
        let record = table.get(process.pid);
        record.is_some_and(|r| Arc::ptr_eq(&r.process, process))
    }

    fn pidfd_send_signal(&mut self, [fd, signal, info, flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        if ![0, TO_THREAD, TO_PROCESS, TO_GROUP].contains(&flags) {
            return Err(Errno::EINVAL);
        }
        let process = self.process_of(fd)?;
        let signal = signal as u32;
        let told = if info == 0 {
            if signal > SIGNALS {
                return Err(Errno::EINVAL);
            }
            SigInfo::sent(signal, 0, self.process.pid, self.creds().user.real)
        } else {
            let told: SigInfo = self.get(info)?;
            if told.signal != signal || signal > SIGNALS {
                return Err(Errno::EINVAL);
            }
            let mine = process.pid == self.process.pid;
            if !mine && (told.code >= 0 || told.code == SI_TKILL) {
                return Err(Errno::EPERM);
            }
            told
        };
        if !self.is_there(&process) {
            return Err(Errno::ESRCH);
        }
        if !self.may_signal(&process, signal) {
            return Err(Errno::EPERM);
        }
        match flags {
            // A descriptor stands for the first thread.
            TO_THREAD => self.sys.signal_thread(None, process.pid, told),
            // The group that the process leads.
            TO_GROUP => self.signal_all(told, |r| r.pgid == process.pid),
            _ => self.sys.signal_process(process.pid, told),
        }
        .map(|()| 0)
    }

    fn pidfd_getfd(&mut self, [fd, theirs, flags, ..]: Args) -> Answer {
        if flags as u32 != 0 {
            return Err(Errno::EINVAL);
        }
        let process = self.process_of(fd)?;
        if !self.is_there(&process) || process.space().is_none() {
            return Err(Errno::ESRCH);
        }
        let other = process.creds.lock().clone();
        if process.pid != self.process.pid && !self.creds().may_attach(&other) {
            return Err(Errno::EPERM);
        }
        let file = process.files().get(theirs as u32)?;
        self.install(file, OnExec::Close)
    }

    fn signalfd(&mut self, [fd, mask, size, ..]: Args) -> Answer {
        self.signalfd4([fd, mask, size, 0, 0, 0])
    }

    fn signalfd4(&mut self, [fd, mask, size, flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        if size != 8 {
            return Err(Errno::EINVAL);
        }
        let set = self.get::<SigSet>(mask)?.without(UNSTOPPABLE);
        if flags & !(abi::O_CLOEXEC | abi::O_NONBLOCK) != 0 {
            return Err(Errno::EINVAL);
        }
        if fd as i32 == -1 {
            let file = Kind::Special(Box::new(SignalFile::new(set)));
            let file = OpenFile::own(file, flags & abi::O_NONBLOCK);
            return self.install(Arc::new(file), OnExec::from_flags(flags));
        }
        let file = self.file(fd)?;
        match &file.kind {
            Kind::Special(special) => {
                special.as_signals().ok_or(Errno::EINVAL)?.set(set);
                self.sys.wake_pollers();
                Ok(u64::from(fd as u32))
            }
            _ => Err(Errno::EINVAL),
        }
    }
}
