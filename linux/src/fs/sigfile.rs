//! Signals that are read: `signalfd`.

use super::special::Special;
use crate::blocking::thread_channel;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::signal::{SigInfo, SigSet};
use crate::thread::Task;
use alloc::format;
use alloc::string::String;
use bsdvm::Channel;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as abi;

/// The size of `struct signalfd_siginfo`.
const RECORD: usize = 128;

/// Reads the signals of a set that wait for whoever reads.
pub(crate) struct SignalFile {
    set: AtomicU64,
}

impl SignalFile {
    pub(crate) fn new(set: SigSet) -> SignalFile {
        SignalFile {
            set: AtomicU64::new(set.0),
        }
    }

    pub(crate) fn set(&self, set: SigSet) {
        self.set.store(set.0, Ordering::SeqCst);
    }

    fn wanted(&self) -> SigSet {
        SigSet(self.set.load(Ordering::SeqCst))
    }
}

/// `struct signalfd_siginfo`.
fn record(info: &SigInfo) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    let [a, b, c, ..] = info.fields;
    let (low, high) = (a as u32, (a >> 32) as u32);
    put(0, &info.signal.to_le_bytes());
    put(4, &info.errno.to_le_bytes());
    put(8, &info.code.to_le_bytes());
    if info.is_fault() {
        put(72, &a.to_le_bytes());
        return out;
    }
    if info.code == abi::SI_TIMER {
        // Timer, overruns, value.
        put(24, &low.to_le_bytes());
        put(32, &high.to_le_bytes());
        put(44, &(b as u32).to_le_bytes());
        put(48, &b.to_le_bytes());
        return out;
    }
    put(12, &low.to_le_bytes());
    put(16, &high.to_le_bytes());
    if info.signal == abi::SIGCHLD && info.code > 0 {
        put(40, &(b as u32).to_le_bytes());
        put(56, &c.to_le_bytes());
        put(64, &info.fields[3].to_le_bytes());
    } else if info.code < 0 {
        put(44, &(b as u32).to_le_bytes());
        put(48, &b.to_le_bytes());
    }
    out
}

impl<P: Platform> Special<P> for SignalFile {
    fn read(&self, task: &Task<P>, buf: &mut [u8]) -> Option<Result<usize, Errno>> {
        if buf.len() < RECORD {
            return Some(Err(Errno::EINVAL));
        }
        let wanted = self.wanted();
        let mut done = 0;
        for place in buf.chunks_exact_mut(RECORD) {
            let taken = {
                let mut shared = task.process.signals.lock();
                let mut own = task.thread.signals.lock();
                own.pending
                    .take(wanted)
                    .or_else(|| shared.pending.take(wanted))
            };
            let Some(info) = taken else { break };
            place.copy_from_slice(&record(&info));
            done += RECORD;
        }
        (done > 0).then_some(Ok(done))
    }

    fn channel(&self, task: &Task<P>) -> Channel {
        thread_channel(task.thread.tid())
    }

    fn poll(&self, task: &Task<P>) -> u16 {
        let shared = task.process.signals.lock();
        let own = task.thread.signals.lock();
        let waiting = shared.pending.set().union(own.pending.set());
        if waiting.intersect(self.wanted()).is_empty() {
            0
        } else {
            abi::POLLIN as u16
        }
    }

    fn name(&self) -> &'static str {
        "anon_inode:[signalfd]"
    }

    fn info(&self, _: &Task<P>) -> String {
        format!("sigmask:\t{:016x}\n", self.wanted().0)
    }

    fn as_signals(&self) -> Option<&SignalFile> {
        Some(self)
    }
}
