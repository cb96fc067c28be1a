//! Futexes: sleeping on a word of guest memory.
//!
//! A waiter enters the table first and looks at the word afterwards, so that a wake-up that
//! follows a change of the word always finds it. The word is never touched with the table locked.
//!
//! * `lock`: locks whose word names their owner, handed over by the one who unlocks;
//! * `many`: waiting for one of several words.

mod lock;
pub(crate) mod many;

use crate::blocking::{Unfinished, futex_channel};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::thread::Task;
use crate::{Lock, rank};
use alloc::vec::Vec;
use bsdvm::{FaultError, Sharing, VirtAddr};
use core::sync::atomic::Ordering;

/// Which word is meant: of one space, or of an object.
pub(crate) type Key = (u64, u64);

/// Where a waiter is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Waits,
    /// A lock is being handed to it: it cannot leave.
    Chosen,
    Woken,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    key: Key,
    id: u64,
    bits: u32,
    /// The thread that waits for a lock with its owner in it; 0 for a plain wait.
    heir: u32,
    progress: Progress,
}

/// Everybody who sleeps on a word, in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiters: Vec<Waiter>,
}

impl Queue {
    /// Marks up to `count` waiters on `key` that share a bit with `bits` woken.
    fn wake(&mut self, key: Key, count: u32, bits: u32) -> Vec<u64> {
        let fits = |w: &&mut Waiter| w.is_plain(key) && w.bits & bits != 0;
        let chosen = self.waiters.iter_mut().filter(fits).take(count as usize);
        chosen
            .map(|w| {
                w.progress = Progress::Woken;
                w.id
            })
            .collect()
    }

    /// Makes up to `count` waiters on `from` wait on `to` instead.
    fn requeue(&mut self, from: Key, to: Key, count: u32) -> u32 {
        let fits = |w: &&mut Waiter| w.is_plain(from);
        let mut moved = 0;
        for waiter in self.waiters.iter_mut().filter(fits).take(count as usize) {
            waiter.key = to;
            moved += 1;
        }
        moved
    }

    fn is_woken(&self, id: u64) -> bool {
        let woken = |w: &Waiter| w.id == id && w.progress == Progress::Woken;
        self.waiters.iter().any(woken)
    }

    /// Takes a waiter out and says whether it had been woken.
    fn leave(&mut self, id: u64) -> bool {
        let Some(at) = self.waiters.iter().position(|w| w.id == id) else {
            return false;
        };
        self.waiters.remove(at).progress == Progress::Woken
    }

    /// Chooses who gets the lock at `key` next: its place in the queue, its thread, and whether
    /// others wait behind it.
    fn choose_heir(&mut self, key: Key) -> Option<(u64, u32, bool)> {
        let waits = |w: &Waiter| w.key == key && w.heir != 0 && w.progress == Progress::Waits;
        let others = self.waiters.iter().filter(|w| waits(w)).count() > 1;
        let heir = self.waiters.iter_mut().find(|w| waits(w))?;
        heir.progress = Progress::Chosen;
        Some((heir.id, heir.heir, others))
    }

    /// What became of a choice: the lock is the heir's, or nobody could be told.
    fn settle(&mut self, id: u64, progress: Progress) {
        if let Some(waiter) = self.waiters.iter_mut().find(|w| w.id == id) {
            waiter.progress = progress;
        }
    }

    /// How many wait for the lock at `key`.
    fn heirs(&self, key: Key) -> usize {
        let heirs = self.waiters.iter().filter(|w| w.key == key && w.heir != 0);
        heirs.count()
    }

    /// Whether somebody waits for the lock at `key` and was not chosen.
    fn has_heir(&self, key: Key) -> bool {
        let waits = |w: &Waiter| w.key == key && w.heir != 0 && w.progress == Progress::Waits;
        self.waiters.iter().any(waits)
    }

    fn progress(&self, id: u64) -> Option<Progress> {
        let waiter = self.waiters.iter().find(|w| w.id == id);
        waiter.map(|w| w.progress)
    }
}

impl Waiter {
    /// Whether it waits for the word at `key` to be woken, and for no lock.
    fn is_plain(&self, key: Key) -> bool {
        self.progress == Progress::Waits && self.key == key && self.heir == 0
    }
}

/// The table of futex waiters.
pub(crate) struct Futexes<P: Platform> {
    queue: Lock<P, Queue, { rank::FUTEX }>,
}

impl<P: Platform> Futexes<P> {
    pub(crate) fn new() -> Self {
        Futexes {
            queue: Lock::<P, _, { rank::FUTEX }>::new(Queue::default()),
        }
    }
}

impl<P: Platform> Linux<P> {
    /// Wakes up to `count` waiters on `key`; gives back how many.
    pub(crate) fn futex_wake(&self, key: Key, count: u32, bits: u32) -> u32 {
        let woken = self.futexes.queue.lock().wake(key, count, bits);
        for &id in &woken {
            self.wake(futex_channel(id));
        }
        woken.len() as u32
    }

    /// Wakes up to `wake` waiters on `from` and moves up to `moved` others to `to`.
    pub(crate) fn futex_requeue(&self, from: Key, to: Key, wake: u32, moved: u32) -> u32 {
        let woken = self.futex_wake(from, wake, u32::MAX);
        woken + self.futexes.queue.lock().requeue(from, to, moved)
    }
}

impl<P: Platform> Task<P> {
    /// The key of the word at `at`, which must be aligned.
    pub(crate) fn futex_key(&self, at: u64, sharing: Sharing) -> Result<Key, Errno> {
        if !at.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let mut tries = 0;
        loop {
            match self.space.core().futex_key(VirtAddr(at), sharing) {
                Ok(key) => return Ok(key),
                Err(FaultError::NoMemory) => self.find_memory(&mut tries)?,
                Err(_) => return Err(Errno::EFAULT),
            }
        }
    }

    /// The word at `at`.
    pub(crate) fn futex_word(&self, at: u64) -> Result<u32, Errno> {
        let mut tries = 0;
        loop {
            match self.space.core().load_u32(VirtAddr(at)) {
                Ok(word) => return Ok(word),
                Err(e) if e.why == FaultError::NoMemory => self.find_memory(&mut tries)?,
                Err(_) => return Err(Errno::EFAULT),
            }
        }
    }

    /// Makes the word at `at` `new` if it is `old`: whether it was.
    pub(crate) fn futex_replace(&self, at: u64, old: u32, new: u32) -> Result<bool, Errno> {
        let mut tries = 0;
        loop {
            match self
                .space
                .core()
                .compare_exchange_u32(VirtAddr(at), old, new)
            {
                Ok(done) => return Ok(done.is_ok()),
                Err(e) if e.why == FaultError::NoMemory => self.find_memory(&mut tries)?,
                Err(_) => return Err(Errno::EFAULT),
            }
        }
    }

    /// Changes the word at `at` in one piece; gives back what it was.
    pub(crate) fn futex_update(&self, at: u64, change: impl Fn(u32) -> u32) -> Result<u32, Errno> {
        loop {
            let old = self.futex_word(at)?;
            if self.futex_replace(at, old, change(old))? {
                return Ok(old);
            }
        }
    }

    /// Sleeps on the word at `at` as long as it is `expected`, until woken for one of `bits`.
    pub(crate) fn futex_wait(
        &self,
        at: u64,
        sharing: Sharing,
        expected: u32,
        bits: u32,
        deadline: Option<u64>,
    ) -> Result<(), Errno> {
        let key = self.futex_key(at, sharing)?;
        let id = self.enqueue(key, bits, 0);
        let queue = &self.sys.futexes.queue;
        let word = self.futex_word(at);
        if word != Ok(expected) {
            let woken = queue.lock().leave(id);
            return if woken {
                Ok(())
            } else {
                word.and(Err(Errno::EAGAIN))
            };
        }
        let slept = self.wait_on(futex_channel(id), deadline, || {
            queue.lock().is_woken(id).then_some(())
        });
        let woken = queue.lock().leave(id);
        match slept {
            _ if woken => Ok(()),
            Ok(()) => Ok(()),
            Err(Unfinished::Deadline) => Err(Errno::ETIMEDOUT),
            // One with an end does not begin anew behind a handler.
            Err(Unfinished::Signal) if deadline.is_some() => Err(Errno::RESTART_NO_HANDLER),
            Err(Unfinished::Signal) => Err(Errno::RESTART),
        }
    }

    /// Enters this thread in the queue: its place.
    fn enqueue(&self, key: Key, bits: u32, heir: u32) -> u64 {
        let id = self.sys.next_id();
        self.enqueue_as(id, key, bits, heir);
        id
    }

    fn enqueue_as(&self, id: u64, key: Key, bits: u32, heir: u32) {
        let progress = Progress::Waits;
        self.sys.futexes.queue.lock().waiters.push(Waiter {
            key,
            id,
            bits,
            heir,
            progress,
        });
    }

    /// What the end of a thread does to futexes: the word of `set_tid_address` becomes 0 and is
    /// woken, and locks on the robust list are marked as their owner's dead.
    pub(crate) fn release_futexes(&self) {
        let list = self.thread.robust_list.swap(0, Ordering::SeqCst);
        if list != 0 {
            self.walk_robust_list(list).ok();
        }
        let clear = self.thread.clear_tid.swap(0, Ordering::SeqCst);
        if clear != 0 && self.put(clear, &0u32).is_ok() {
            self.wake_word(clear, 1);
        }
    }

    fn wake_word(&self, at: u64, count: u32) {
        for sharing in [Sharing::Private, Sharing::Shared] {
            if let Ok(key) = self.space.core().futex_key(VirtAddr(at), sharing) {
                self.sys.futex_wake(key, count, u32::MAX);
            }
        }
    }

    /// `struct robust_list_head`: the first entry, the distance from an entry to its word, and
    /// the lock that was being taken.
    fn walk_robust_list(&self, head: u64) -> Result<(), Errno> {
        const MOST: u32 = 2048;
        let [mut entry, distance, pending]: [u64; 3] = self.get(head)?;
        for _ in 0..MOST {
            if entry & !1 == head {
                break;
            }
            let next: u64 = self.get(entry & !1)?;
            if entry & !1 != pending & !1 {
                self.mark_dead((entry & !1).wrapping_add(distance))?;
            }
            entry = next;
        }
        if pending != 0 {
            self.mark_dead((pending & !1).wrapping_add(distance))?;
        }
        Ok(())
    }

    fn mark_dead(&self, word: u64) -> Result<(), Errno> {
        use linux_raw_sys::general as abi;
        let tid = self.thread.tid();
        if !word.is_multiple_of(4) || self.futex_word(word)? & abi::FUTEX_TID_MASK != tid {
            return Ok(());
        }
        let old = self.futex_update(word, |old| {
            if old & abi::FUTEX_TID_MASK == tid {
                old & abi::FUTEX_WAITERS | abi::FUTEX_OWNER_DIED
            } else {
                old
            }
        })?;
        if old & abi::FUTEX_WAITERS != 0 {
            self.wake_word(word, 1);
            self.inherit_lock(word);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        let waiter = |id, bits| Waiter {
            key: (1, 8),
            id,
            bits,
            heir: 0,
            progress: Progress::Waits,
        };
        Queue {
            waiters: alloc::vec![waiter(1, 1), waiter(2, 2), waiter(3, 3)],
        }
    }

    #[test]
    fn wakes_in_order_of_arrival_and_by_bits() {
        let mut q = queue();
        assert_eq!(q.wake((1, 8), 1, u32::MAX), [1]);
        assert_eq!(q.wake((1, 8), 5, 1), [3]);
        assert_eq!(q.wake((2, 8), 5, u32::MAX), []);
        assert!(q.leave(1) && q.leave(3) && !q.leave(2) && !q.leave(9));
    }

    #[test]
    fn a_lock_has_one_heir_at_a_time_whom_no_plain_wake_reaches() {
        let mut q = queue();
        for waiter in &mut q.waiters[1..] {
            waiter.heir = 40 + waiter.id as u32;
        }
        assert_eq!(q.wake((1, 8), 9, u32::MAX), [1]);
        assert_eq!(q.choose_heir((1, 8)), Some((2, 42, true)));
        assert_eq!(q.choose_heir((1, 8)), Some((3, 43, false)));
        assert_eq!(q.choose_heir((1, 8)), None);
        q.settle(3, Progress::Waits);
        q.settle(2, Progress::Woken);
        assert_eq!(q.choose_heir((1, 8)), Some((3, 43, false)));
        assert!(q.leave(2) && !q.leave(3));
    }

    #[test]
    fn requeued_waiters_are_woken_on_the_new_word() {
        let mut q = queue();
        assert_eq!(q.requeue((1, 8), (1, 16), 2), 2);
        assert_eq!(q.wake((1, 8), 9, u32::MAX), [3]);
        assert_eq!(q.wake((1, 16), 9, u32::MAX), [1, 2]);
    }
}
