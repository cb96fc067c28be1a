//! `futex_waitv`: sleeping on several words until one of them is woken.

use super::{Key, Progress, Queue};
use crate::blocking::{Unfinished, futex_channel};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::thread::Task;
use alloc::vec::Vec;

/// A word, and what it has to be for the sleep to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) key: Key,
    pub(crate) at: u64,
    pub(crate) value: u32,
}

impl Queue {
    /// Takes every place of a waiter out: which of them was woken first in its own order.
    fn leave_all(&mut self, id: u64) -> Option<usize> {
        let places = self.waiters.iter().filter(|w| w.id == id);
        let woken = places
            .map(|w| w.progress == Progress::Woken)
            .position(|w| w);
        self.waiters.retain(|w| w.id != id);
        woken
    }
}

impl<P: Platform> Task<P> {
    /// Sleeps as long as each of `words` is what is expected of it, until one is woken: which.
    pub(crate) fn futex_wait_any(
        &self,
        words: &[Expected],
        deadline: Option<u64>,
    ) -> Result<usize, Errno> {
        let id = self.sys.next_id();
        let queue = &self.sys.futexes.queue;
        for word in words {
            self.enqueue_as(id, word.key, u32::MAX, 0);
        }
        let now: Result<Vec<u32>, Errno> = words.iter().map(|w| self.futex_word(w.at)).collect();
        let as_expected = match now {
            Ok(now) if now.iter().zip(words).all(|(now, w)| *now == w.value) => Ok(()),
            Ok(_) => Err(Errno::EAGAIN),
            Err(e) => Err(e),
        };
        if as_expected.is_err() {
            return match queue.lock().leave_all(id) {
                Some(woken) => Ok(woken),
                None => Err(as_expected.err().unwrap_or(Errno::EAGAIN)),
            };
        }
        let slept = self.wait_on(futex_channel(id), deadline, || {
            queue.lock().is_woken(id).then_some(())
        });
        match (queue.lock().leave_all(id), slept) {
            (Some(woken), _) => Ok(woken),
            (None, Err(Unfinished::Deadline)) => Err(Errno::ETIMEDOUT),
            (None, _) => Err(Errno::RESTART),
        }
    }
}
