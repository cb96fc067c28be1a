//! When memory has run out: reclaim, or choose a process and kill it.

use crate::blocking::memory_channel;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::{ExitStatus, Life, Process};
use crate::system::Linux;
use crate::thread::Task;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// How many frames to ask for at once.
const WANTED: u32 = 32;
/// How often to page out for one need before somebody is killed for it.
const TRIES: u32 = 64;
/// With more free frames than this, pages do not drive each other out.
const SPARE: u64 = 256;
/// How long to wait for a victim's memory before looking again, in nanoseconds.
const PATIENCE: u64 = 20_000_000;

impl<P: Platform> Task<P> {
    /// Makes room in memory: the caller tries again on `Ok`. `Err`: this thread has to end.
    /// `tries` counts how often it was asked for one and the same need: what is paged out may be
    /// taken by others, or be what is needed itself, but not for ever.
    pub(crate) fn find_memory(&self, tries: &mut u32) -> Result<(), Errno> {
        *tries += 1;
        if *tries < TRIES && self.sys.vm.pageout_step(WANTED) > 0 {
            return Ok(());
        }
        let ticket = self.sys.ticket(memory_channel());
        self.sys.kill_largest();
        if self.must_end() {
            return Err(Errno::ENOMEM);
        }
        let deadline = self.sys.now().saturating_add(PATIENCE);
        self.sys.sleep(memory_channel(), ticket, Some(deadline));
        if self.must_end() {
            Err(Errno::ENOMEM)
        } else {
            Ok(())
        }
    }
}

impl<P: Platform> Process<P> {
    /// Pages of the process in memory and on swap: what its end would give.
    pub(crate) fn pages_held(&self) -> u64 {
        let space = self.space();
        space.map_or(0, |s| s.core().resident() + s.core().swap_count())
    }
}

impl<P: Platform> Linux<P> {
    /// Whether hardly a frame is free.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        self.vm.counters().frames_free <= SPARE
    }

    /// Kills the process with the most pages in memory and on swap, unless one is dying already.
    pub(crate) fn kill_largest(&self) {
        let alive: Vec<Arc<Process<P>>> = {
            let table = self.processes.lock();
            let alive = table.records.values().filter(|r| r.life == Life::Alive);
            alive.map(|r| r.process.clone()).collect()
        };
        if alive.iter().any(|p| p.ending.load(Ordering::SeqCst)) {
            return;
        }
        let Some(victim) = alive.iter().max_by_key(|p| p.pages_held()) else {
            return;
        };
        // Two threads may choose at once: the first to say so is the one that kills.
        if victim.ending.swap(true, Ordering::SeqCst) {
            return;
        }
        let name = String::from_utf8_lossy(&victim.shared.lock().name).into_owned();
        self.platform.message(&format!(
            "bsdvm: out of memory ({}): killed process {} ({name})",
            self.options.memory, victim.pid
        ));
        self.condemn(victim.pid, ExitStatus::Signal(abi::SIGKILL as u8));
    }
}
