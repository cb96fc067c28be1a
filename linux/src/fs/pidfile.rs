//! Processes as files: `pidfd`. One becomes readable when its process has ended.

use super::special::Special;
use crate::blocking::poll_channel;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::{Life, Process};
use crate::thread::Task;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use bsdvm::Channel;
use linux_raw_sys::general as abi;

/// A process.
pub(crate) struct PidFile<P: Platform> {
    pub(crate) process: Arc<Process<P>>,
}

impl<P: Platform> PidFile<P> {
    /// Whether it has ended, waited for or not.
    fn has_ended(&self, task: &Task<P>) -> bool {
        let table = task.sys.processes.lock();
        let same = |r: &&crate::process::Record<P>| Arc::ptr_eq(&r.process, &self.process);
        let record = table.get(self.process.pid).filter(same);
        record.is_none_or(|r| r.life != Life::Alive)
    }
}

impl<P: Platform> Special<P> for PidFile<P> {
    fn read(&self, _: &Task<P>, _: &mut [u8]) -> Option<Result<usize, Errno>> {
        Some(Err(Errno::EINVAL))
    }

    fn channel(&self, _: &Task<P>) -> Channel {
        poll_channel()
    }

    fn poll(&self, task: &Task<P>) -> u16 {
        if self.has_ended(task) {
            (abi::POLLIN | abi::POLLRDNORM) as u16
        } else {
            0
        }
    }

    fn name(&self) -> &'static str {
        "anon_inode:[pidfd]"
    }

    fn info(&self, task: &Task<P>) -> String {
        let pid = self.process.pid as i32;
        let pid = if self.has_ended(task) { -1 } else { pid };
        format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }

    fn as_process(&self) -> Option<&PidFile<P>> {
        Some(self)
    }
}
