//! The system calls: a table from number to function, filled by one file for each concern.
//!
//! A call takes its six arguments and gives back a value or an error number. Calls that change
//! all registers (`execve`, `rt_sigreturn`) set them and give back what `rax` is to be.

mod attributes;
mod clone;
mod copies;
mod epoll;
mod execute;
mod fcntl;
mod fifo;
mod file;
mod ids;
mod io;
mod ioprio;
mod kcmp;
mod limits;
mod lock;
mod memory;
mod memory_advice;
mod memory_bsd;
mod memory_file;
pub(crate) mod memory_lock;
mod memory_move;
mod memory_pieces;
mod memory_protect;
mod misc;
mod mqueue;
mod msg;
mod names;
mod pidfd;
mod poll;
pub(crate) mod posix_timer;
pub(crate) mod prctl;
mod process;
mod process_vm;
mod refused;
mod schedule;
mod sem;
pub(crate) mod shm;
mod signal;
mod socket;
mod stat;
mod sync;
mod terminal;
pub(crate) mod time;
pub(crate) mod timer;
mod watch;
mod xattr;
mod xattr_at;

use crate::creds::Creds;
use crate::errno::Errno;
use crate::fs::file::OpenFile;
use crate::platform::{GuestThread, Platform, ShortAnswer};
use crate::thread::{Interrupted, Task};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// The arguments of a call.
pub(crate) type Args = [u64; 6];
/// What a call gives back.
pub(crate) type Answer = Result<u64, Errno>;
/// A call.
pub(crate) type Call<P> = fn(&mut Task<P>, Args) -> Answer;
/// A list of calls by number.
pub(crate) type Calls<P> = &'static [(u32, Call<P>)];

/// Numbers at and beyond this are nobody's.
const NUMBERS: usize = 1280;

/// Number to function.
pub(crate) struct CallTable<P: Platform> {
    calls: Vec<Option<Call<P>>>,
}

impl<P: Platform> CallTable<P> {
    /// Every call that there is.
    pub(crate) fn new() -> Self {
        let mut calls: Vec<Option<Call<P>>> = alloc::vec![None; NUMBERS];
        let concerns: [Calls<P>; 42] = [
            Task::<P>::ATTRIBUTES,
            Task::<P>::CLONE,
            Task::<P>::COPIES,
            Task::<P>::EPOLL,
            Task::<P>::EXECUTE,
            Task::<P>::FCNTL,
            Task::<P>::FILE,
            Task::<P>::IDS,
            Task::<P>::IO,
            Task::<P>::IO_PRIORITY,
            Task::<P>::KCMP,
            Task::<P>::LIMIT,
            Task::<P>::LOCK,
            Task::<P>::MEMORY,
            Task::<P>::ADVICE,
            Task::<P>::MOVING,
            Task::<P>::PROTECTION,
            Task::<P>::MEMORY_FILES,
            Task::<P>::LOCKING,
            Task::<P>::BSD,
            Task::<P>::MISC,
            Task::<P>::MQUEUE,
            Task::<P>::MSG,
            Task::<P>::NAMES,
            Task::<P>::PIDFD,
            Task::<P>::POLL,
            Task::<P>::POSIX_TIMER,
            Task::<P>::PRCTL,
            Task::<P>::PROCESS,
            Task::<P>::PROCESS_VM,
            Task::<P>::REFUSED,
            Task::<P>::SCHEDULE,
            Task::<P>::SEM,
            Task::<P>::SHM,
            Task::<P>::SIGNAL,
            Task::<P>::SOCKET,
            Task::<P>::STAT,
            Task::<P>::SYNC,
            Task::<P>::TIMER,
            Task::<P>::WATCH,
            Task::<P>::XATTR,
            Task::<P>::XATTR_AT,
        ];
        for &(number, call) in concerns.into_iter().flatten().chain(Task::<P>::TIME) {
            if let Some(slot) = calls.get_mut(number as usize) {
                *slot = Some(call);
            }
        }
        CallTable { calls }
    }

    fn get(&self, number: u64) -> Option<Call<P>> {
        // The processor hands over 64 bits; Linux looks at the lower 32.
        self.calls.get(number as u32 as usize).copied().flatten()
    }
}

impl<P: Platform> Task<P> {
    /// Carries out the call that the registers ask for.
    pub(crate) fn system_call(&mut self) {
        let number = self.regs.rax;
        let r = &self.regs;
        let args = [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9];
        self.sys.kernel_page.refresh(self.sys);
        self.sys.vm.keep_room();
        let answer = match self.sys.calls.get(number) {
            Some(call) => call(self, args),
            None => self.unknown(number),
        };
        self.regs.rax = match answer {
            Ok(value) => value,
            Err(errno @ (Errno::RESTART | Errno::RESTART_NO_HANDLER)) => {
                self.interrupted = Some(Interrupted { errno, number });
                Errno::EINTR.as_result()
            }
            Err(errno) => errno.as_result(),
        };
    }

    /// Tells the guest thread what it can answer by itself: what stays as it is until the next
    /// `exec`, or until it becomes somebody else.
    pub(crate) fn tell_answers(&mut self) {
        let Creds { user, group, .. } = self.creds();
        let values = [
            (abi::__NR_getpid, self.process.pid),
            (abi::__NR_gettid, self.thread.tid()),
            (abi::__NR_getuid, user.real),
            (abi::__NR_geteuid, user.effective),
            (abi::__NR_getgid, group.real),
            (abi::__NR_getegid, group.effective),
        ];
        for (number, value) in values {
            self.cpu
                .answer(number, ShortAnswer::Value(u64::from(value)));
        }
        self.cpu.answer(abi::__NR_sched_yield, ShortAnswer::Yield);
    }

    fn unknown(&self, number: u64) -> Answer {
        self.sys.verbose(|| {
            format!(
                "process {}: unknown system call {}",
                self.process.pid, number as u32 as i32
            )
        });
        Err(Errno::ENOSYS)
    }

    /// The open file behind a descriptor.
    pub(crate) fn file(&self, fd: u64) -> Result<Arc<OpenFile<P>>, Errno> {
        self.process.files().get(fd as u32)
    }
}
