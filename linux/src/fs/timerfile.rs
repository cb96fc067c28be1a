//! Timers that are read: `timerfd`.

use super::special::Special;
use crate::blocking::pipe_channel;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::thread::Task;
use crate::{Lock, rank};
use alloc::format;
use alloc::string::String;
use bsdvm::Channel;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as abi;

/// What a timer is set to, on the machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setting {
    /// When it next expires; 0 when it is not set.
    pub(crate) deadline: u64,
    pub(crate) interval: u64,
    /// Expirations that were counted before the deadline.
    counted: u64,
}

impl Setting {
    pub(crate) fn new(deadline: u64, interval: u64) -> Setting {
        Setting {
            deadline,
            interval,
            counted: 0,
        }
    }

    /// Counts what has expired by `now`.
    pub(crate) fn advance(&mut self, now: u64) -> u64 {
        if self.deadline == 0 || now < self.deadline {
            return self.counted;
        }
        match (now - self.deadline).checked_div(self.interval) {
            None => {
                self.counted += 1;
                self.deadline = 0;
            }
            Some(more) => {
                self.counted = self.counted.saturating_add(more).saturating_add(1);
                let further = self.interval.saturating_mul(more.saturating_add(1));
                self.deadline = self.deadline.saturating_add(further);
            }
        }
        self.counted
    }

    /// Takes the count.
    pub(crate) fn take(&mut self, now: u64) -> u64 {
        self.advance(now);
        core::mem::take(&mut self.counted)
    }

    /// Nanoseconds left, and the interval.
    pub(crate) fn left(&mut self, now: u64) -> (u64, u64) {
        self.advance(now);
        (self.deadline.saturating_sub(now), self.interval)
    }
}

/// A timer.
pub(crate) struct TimerFile<P: Platform> {
    sys: &'static Linux<P>,
    id: u64,
    pub(crate) clock: u32,
    setting: Lock<P, Setting, { rank::PIPE }>,
    changes: AtomicU64,
}

impl<P: Platform> TimerFile<P> {
    pub(crate) fn new(sys: &'static Linux<P>, clock: u32) -> Self {
        TimerFile {
            sys,
            id: sys.next_id(),
            clock,
            setting: Lock::<P, _, { rank::PIPE }>::new(Setting::default()),
            changes: AtomicU64::new(1),
        }
    }

    /// Sets it; gives back what was left of the old setting.
    pub(crate) fn set(&self, new: Setting) -> (u64, u64) {
        let now = self.sys.now();
        let mut old = core::mem::replace(&mut *self.setting.lock(), new);
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.sys.wake(pipe_channel(self.id));
        self.sys.wake_pollers();
        old.left(now)
    }

    /// What is left.
    pub(crate) fn left(&self) -> (u64, u64) {
        self.setting.lock().left(self.sys.now())
    }
}

impl<P: Platform> Special<P> for TimerFile<P> {
    fn read(&self, _: &Task<P>, buf: &mut [u8]) -> Option<Result<usize, Errno>> {
        let Some(place) = buf.get_mut(..8) else {
            return Some(Err(Errno::EINVAL));
        };
        let count = self.setting.lock().take(self.sys.now());
        if count == 0 {
            return None;
        }
        place.copy_from_slice(&count.to_le_bytes());
        Some(Ok(8))
    }

    fn channel(&self, _: &Task<P>) -> Channel {
        pipe_channel(self.id)
    }

    fn due(&self, _: &Task<P>) -> Option<u64> {
        Some(self.setting.lock().deadline).filter(|&d| d != 0)
    }

    fn poll(&self, _: &Task<P>) -> u16 {
        let count = self.setting.lock().advance(self.sys.now());
        if count > 0 { abi::POLLIN as u16 } else { 0 }
    }

    fn changes(&self) -> u64 {
        let counted = self.setting.lock().advance(self.sys.now());
        self.changes.load(Ordering::SeqCst).wrapping_add(counted)
    }

    fn name(&self) -> &'static str {
        "anon_inode:[timerfd]"
    }

    fn info(&self, _: &Task<P>) -> String {
        let now = self.sys.now();
        let mut setting = *self.setting.lock();
        let ticks = setting.advance(now);
        let (left, interval) = setting.left(now);
        let pair = |n: u64| format!("({}, {})", n / 1_000_000_000, n % 1_000_000_000);
        format!(
            "clockid: {}\nticks: {ticks}\nsettime flags: 00\nit_value: {}\nit_interval: {}\n",
            self.clock,
            pair(left),
            pair(interval)
        )
    }

    fn as_timer(&self) -> Option<&TimerFile<P>> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_counted_until_they_are_taken() {
        let mut once = Setting::new(100, 0);
        assert_eq!(once.take(99), 0);
        assert_eq!(once.left(40), (60, 0));
        assert_eq!(once.take(100), 1);
        assert_eq!(once.take(1000), 0);
        let mut often = Setting::new(100, 10);
        assert_eq!(often.advance(135), 4);
        assert_eq!(often.take(141), 5);
        assert_eq!(often.left(141), (9, 10));
        assert_eq!(Setting::default().take(5), 0);
    }
}
