//! Locks whose word names their owner (`FUTEX_LOCK_PI` and its kin).
//!
//! The word is 0 or the owner's number, with a bit for waiters and one for an owner that has
//! died. Who unlocks such a lock with waiters makes the first of them its owner, so that nobody
//! overtakes. Priorities are not lent: there is one.

use super::{Key, Progress};
use crate::blocking::{Unfinished, futex_channel};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::thread::Task;
use bsdvm::{Sharing, VirtAddr};
use linux_raw_sys::general as abi;

const OWNER: u32 = abi::FUTEX_TID_MASK;

/// What an attempt to take a lock found.
enum Attempt {
    Taken,
    /// Another thread has it, and knows that somebody waits.
    Owned,
}

impl<P: Platform> Task<P> {
    /// Takes the lock at `at`, waiting for it until `deadline`.
    ///
    /// Errors: `EDEADLK` for its owner, `ESRCH` when the owner is nobody, `ETIMEDOUT`.
    pub(crate) fn lock_futex(
        &self,
        at: u64,
        sharing: Sharing,
        deadline: Option<u64>,
    ) -> Result<(), Errno> {
        let key = self.futex_key(at, sharing)?;
        let id = self.enqueue(key, 0, self.thread.tid());
        let queue = &self.sys.futexes.queue;
        match self.take_lock(at, key, id) {
            Ok(Attempt::Taken) => {
                self.leave_lock_queue(id);
                return Ok(());
            }
            Ok(Attempt::Owned) => {}
            // Who was made the owner meanwhile has the lock, whatever went wrong.
            Err(_) if self.leave_lock_queue(id) => return Ok(()),
            Err(e) => return Err(e),
        }
        let slept = self.wait_on(futex_channel(id), deadline, || {
            queue.lock().is_woken(id).then_some(())
        });
        if self.leave_lock_queue(id) {
            return Ok(());
        }
        match slept {
            Err(Unfinished::Deadline) => Err(Errno::ETIMEDOUT),
            _ => Err(Errno::RESTART),
        }
    }

    /// Takes the lock if nobody has it.
    ///
    /// Errors: `EAGAIN` when somebody has, and those of [`Task::lock_futex`].
    pub(crate) fn try_lock_futex(&self, at: u64, sharing: Sharing) -> Result<(), Errno> {
        let key = self.futex_key(at, sharing)?;
        let old = self.futex_word(at)?;
        if old & OWNER == self.thread.tid() {
            return Err(Errno::EDEADLK);
        }
        if old & OWNER != 0 && old & abi::FUTEX_OWNER_DIED == 0 {
            return Err(Errno::EAGAIN);
        }
        let id = self.enqueue(key, 0, self.thread.tid());
        let taken = self.take_lock(at, key, id);
        match (self.leave_lock_queue(id), taken) {
            (true, _) | (false, Ok(Attempt::Taken)) => Ok(()),
            (false, Ok(Attempt::Owned)) => Err(Errno::EAGAIN),
            (false, Err(e)) => Err(e),
        }
    }

    /// Gives the caller's lock to the first that waits for it.
    ///
    /// Errors: `EPERM` for who is not its owner.
    pub(crate) fn unlock_futex(&self, at: u64, sharing: Sharing) -> Result<(), Errno> {
        let key = self.futex_key(at, sharing)?;
        let me = self.thread.tid();
        loop {
            let old = self.futex_word(at)?;
            if old & OWNER != me {
                return Err(Errno::EPERM);
            }
            if self.hand_over(at, key, old, 0)? {
                return Ok(());
            }
        }
    }

    /// The owner of the lock at `word` has died, which its word says: the first that waits has it.
    pub(super) fn inherit_lock(&self, word: u64) {
        for sharing in [Sharing::Private, Sharing::Shared] {
            let Ok(key) = self.space.core().futex_key(VirtAddr(word), sharing) else {
                continue;
            };
            while let Ok(old) = self.futex_word(word)
                && old & (OWNER | abi::FUTEX_OWNER_DIED) == abi::FUTEX_OWNER_DIED
                && self.sys.futexes.queue.lock().has_heir(key)
            {
                match self.hand_over(word, key, old, abi::FUTEX_OWNER_DIED) {
                    Ok(false) => {}
                    Ok(true) | Err(_) => break,
                }
            }
        }
    }

    /// Makes the first heir the owner in a word that is `old`, or nobody; `false`: it has changed.
    fn hand_over(&self, at: u64, key: Key, old: u32, keep: u32) -> Result<bool, Errno> {
        let queue = &self.sys.futexes.queue;
        let heir = queue.lock().choose_heir(key);
        let new = match heir {
            Some((_, tid, true)) => tid | abi::FUTEX_WAITERS | keep,
            Some((_, tid, false)) => tid | keep,
            None => keep,
        };
        let done = self.futex_replace(at, old, new);
        if let Some((id, ..)) = heir {
            let progress = match done {
                Ok(true) => Progress::Woken,
                _ => Progress::Waits,
            };
            queue.lock().settle(id, progress);
            self.sys.wake(futex_channel(id));
        }
        done
    }

    /// Takes a lock that has no owner, else tells its owner that somebody waits.
    fn take_lock(&self, at: u64, key: Key, id: u64) -> Result<Attempt, Errno> {
        let me = self.thread.tid();
        let queue = &self.sys.futexes.queue;
        loop {
            if queue.lock().progress(id) != Some(Progress::Waits) {
                return Ok(Attempt::Owned); // or ours already: the wait will tell
            }
            let old = self.futex_word(at)?;
            let owner = old & OWNER;
            if owner == me {
                return Err(Errno::EDEADLK);
            }
            if owner == 0 {
                let others = queue.lock().heirs(key) > 1;
                let waiters = if others { abi::FUTEX_WAITERS } else { 0 };
                if self.futex_replace(at, old, me | old & abi::FUTEX_OWNER_DIED | waiters)? {
                    return Ok(Attempt::Taken);
                }
                continue;
            }
            if !self.sys.processes.lock().has_thread(owner) {
                return Err(Errno::ESRCH);
            }
            if self.futex_replace(at, old, old | abi::FUTEX_WAITERS)? {
                return Ok(Attempt::Owned);
            }
        }
    }

    /// Leaves the queue, as soon as nobody is about to hand the lock over: whether it was.
    fn leave_lock_queue(&self, id: u64) -> bool {
        let queue = &self.sys.futexes.queue;
        loop {
            let channel = futex_channel(id);
            let ticket = self.sys.ticket(channel);
            {
                let mut queue = queue.lock();
                if queue.progress(id) != Some(Progress::Chosen) {
                    return queue.leave(id);
                }
            }
            self.sys.sleep(channel, ticket, None);
        }
    }
}
