//! What threads and processes have used: processor time, faults, memory.
//!
//! The time of a guest's own instructions is the user's; its supervisor's is the system's.

use crate::platform::{Kicker, Platform};
use crate::process::Process;
use crate::system::Linux;
use crate::thread::{Task, Thread};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// What was used: nanoseconds, faults, and the most pages at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Used {
    pub(crate) user: u64,
    pub(crate) system: u64,
    /// Faults that needed nothing from outside.
    pub(crate) minor: u64,
    /// Those that waited for a pager.
    pub(crate) major: u64,
    pub(crate) most_pages: u64,
}

impl Used {
    /// This and that together.
    pub(crate) fn with(self, other: Used) -> Used {
        Used {
            user: self.user.saturating_add(other.user),
            system: self.system.saturating_add(other.system),
            minor: self.minor.saturating_add(other.minor),
            major: self.major.saturating_add(other.major),
            most_pages: self.most_pages.max(other.most_pages),
        }
    }

    /// Processor time of both kinds.
    pub(crate) fn time(&self) -> u64 {
        self.user.saturating_add(self.system)
    }
}

impl<P: Platform> Thread<P> {
    /// What it has used, as far as others can know.
    pub(crate) fn used(&self) -> Used {
        let before = self.user_before.load(Ordering::Relaxed);
        Used {
            user: before.saturating_add(self.kicker().cpu_time()),
            system: self.system_time.load(Ordering::Relaxed),
            minor: self.faults.load(Ordering::Relaxed),
            major: 0,
            most_pages: 0,
        }
    }
}

impl<P: Platform> Linux<P> {
    /// What a process has used: its threads, and those that have ended.
    pub(crate) fn used(&self, process: &Process<P>) -> Used {
        let threads: Vec<Arc<Thread<P>>> = {
            let table = self.processes.lock();
            let record = table.get(process.pid);
            record.map(|r| r.threads.clone()).unwrap_or_default()
        };
        let ended = *process.used.lock();
        let all = threads.iter().fold(ended, |sum, t| sum.with(t.used()));
        let pages = process.space().map_or(0, |s| s.core().resident());
        all.with(Used {
            most_pages: pages,
            ..Used::default()
        })
    }
}

impl<P: Platform> Task<P> {
    /// Tells the others how long this supervisor has worked.
    pub(crate) fn note_time(&self) {
        let now = self.sys.platform.cpu_time();
        let used = now.saturating_sub(self.started);
        self.thread.system_time.store(used, Ordering::Relaxed);
    }

    /// Keeps what the guest thread has used when another takes its place.
    pub(crate) fn keep_user_time(&self) {
        let used = self.thread.used().user;
        self.thread.user_before.store(used, Ordering::Relaxed);
    }

    /// Keeps how much memory the process has now, if that is the most it ever had.
    pub(crate) fn note_memory(&self) {
        let pages = self.space.core().resident();
        let mut used = self.process.used.lock();
        used.most_pages = used.most_pages.max(pages);
    }

    /// What this thread has used.
    pub(crate) fn used_by_thread(&self) -> Used {
        self.note_time();
        self.thread.used()
    }

    /// What this process has used.
    pub(crate) fn used_by_process(&self) -> Used {
        self.note_time();
        let used = self.sys.used(&self.process);
        self.process.used.lock().most_pages = used.most_pages;
        used
    }
}
