//! `kcmp`: whether two processes share something.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::Process;
use crate::thread::Task;
use alloc::sync::Arc;
use core::cmp::Ordering;
use linux_raw_sys::general as abi;

const KCMP_FILE: u64 = 0;
const KCMP_VM: u64 = 1;
const KCMP_FILES: u64 = 2;
const KCMP_FS: u64 = 3;
const KCMP_SIGHAND: u64 = 4;
const KCMP_IO: u64 = 5;
const KCMP_SYSVSEM: u64 = 6;

impl<P: Platform> Task<P> {
    pub(super) const KCMP: Calls<P> = &[(abi::__NR_kcmp, Self::kcmp)];

    fn kcmp(&mut self, [first, second, kind, fd1, fd2, _]: Args) -> Answer {
        let a = self.process_with(first as u32)?;
        let b = self.process_with(second as u32)?;
        if !self.may_look_into(&a) || !self.may_look_into(&b) {
            return Err(Errno::EPERM);
        }
        let of = |process: &Process<P>, fd: u64| match kind {
            KCMP_FILE => Ok(address(&process.files().get(fd as u32)?)),
            KCMP_VM => process.space().map(|s| address(&s)).ok_or(Errno::ESRCH),
            KCMP_FILES => Ok(address(&process.files())),
            KCMP_FS => Ok(address(&process.shared.lock().roots)),
            KCMP_SIGHAND => Ok(process.signals.lock().actions_number()),
            // Nobody has such, and what is not there is the same.
            KCMP_IO | KCMP_SYSVSEM => Ok(0),
            _ => Err(Errno::EINVAL),
        };
        Ok(match of(&a, fd1)?.cmp(&of(&b, fd2)?) {
            Ordering::Equal => 0,
            Ordering::Less => 1,
            Ordering::Greater => 2,
        })
    }
}

/// What tells one shared thing from another.
fn address<T>(of: &Arc<T>) -> usize {
    Arc::as_ptr(of).addr()
}
