//! Files that stand for something else: timers, signals, processes.

use super::file::made_up;
use super::pidfile::PidFile;
use super::sigfile::SignalFile;
use super::timerfile::TimerFile;
use crate::errno::Errno;
use crate::ipc::posix::MessageQueue;
use crate::platform::{FileStat, Platform};
use crate::thread::Task;
use alloc::sync::Arc;
use bsdvm::Channel;

/// What such a file does. What it says may depend on who asks.
pub(crate) trait Special<P: Platform>: Send + Sync + 'static {
    /// Reads once; `None` when there is nothing yet.
    fn read(&self, task: &Task<P>, buf: &mut [u8]) -> Option<Result<usize, Errno>>;

    /// Woken when it may have become readable.
    fn channel(&self, task: &Task<P>) -> Channel;

    /// When it becomes readable by itself.
    fn due(&self, task: &Task<P>) -> Option<u64> {
        let _ = task;
        None
    }

    /// The bits of `poll`.
    fn poll(&self, task: &Task<P>) -> u16;

    /// How often it has changed, from 1; 0 when that is not counted.
    fn changes(&self) -> u64 {
        0
    }

    /// What it is called in `/proc/self/fd`.
    fn name(&self) -> &'static str;

    /// More lines for `/proc/self/fdinfo`.
    fn info(&self, task: &Task<P>) -> alloc::string::String {
        let _ = task;
        alloc::string::String::new()
    }

    fn as_timer(&self) -> Option<&TimerFile<P>> {
        None
    }

    fn as_signals(&self) -> Option<&SignalFile> {
        None
    }

    /// What `stat` tells of it.
    fn stat(&self) -> FileStat {
        made_up(0o600, 1, 0)
    }

    fn as_queue(&self) -> Option<&Arc<MessageQueue<P>>> {
        None
    }

    fn as_process(&self) -> Option<&PidFile<P>> {
        None
    }
}
