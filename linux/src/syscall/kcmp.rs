//! Whether two processes share something: `kcmp`.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::Process;
use crate::thread::Task;
use alloc::sync::Arc;
use core::cmp::Ordering;
use linux_raw_sys::general as abi;

/// `KCMP_*`: what is compared.
const FILE: u32 = 0;
const VM: u32 = 1;
const FILES: u32 = 2;
const FS: u32 = 3;
const SIGHAND: u32 = 4;
const IO: u32 = 5;
const SYSVSEM: u32 = 6;

/// What is told of two addresses: equal, less or greater.
fn told(a: usize, b: usize) -> u64 {
    match a.cmp(&b) {
        Ordering::Equal => 0,
        Ordering::Less => 1,
        Ordering::Greater => 2,
    }
}

fn place<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).addr()
}

impl<P: Platform> Task<P> {
    pub(super) const KCMP: Calls<P> = &[(abi::__NR_kcmp, Self::kcmp)];

    fn kcmp(&mut self, [a, b, kind, first, second, _]: Args) -> Answer {
        let (a, b) = (self.process_with(a as u32)?, self.process_with(b as u32)?);
        for process in [&a, &b] {
            let other = process.creds.lock().clone();
            if process.pid != self.process.pid && !self.creds().may_attach(&other) {
                return Err(Errno::EPERM);
            }
        }
        let pair = |place: fn(&Process<P>) -> usize| Ok(told(place(&a), place(&b)));
        match kind as u32 {
            FILE => {
                let one = a.files().get(first as u32)?;
                let other = b.files().get(second as u32)?;
                Ok(told(place(&one), place(&other)))
            }
            VM => pair(|p| p.space().map_or(0, |s| place(&s))),
            FILES => pair(|p| place(&p.files())),
            FS => pair(|p| p.roots_place()),
            SIGHAND => pair(|p| p.signals.lock().place()),
            // No process has a context for devices, and lists of what is to be undone are made
            // when they are needed.
            IO | SYSVSEM => Ok(0),
            _ => Err(Errno::EINVAL),
        }
    }
}
