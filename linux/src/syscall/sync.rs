//! `futex` and what belongs to it.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::futex::many::Expected;
use crate::platform::Platform;
use crate::syscall::time::Timespec;
use crate::thread::Task;
use alloc::vec::Vec;
use bsdvm::Sharing;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// The size of `struct robust_list_head`.
const ROBUST_HEAD: u64 = 24;
const REALTIME: u32 = abi::FUTEX_CLOCK_REALTIME;

impl<P: Platform> Task<P> {
    pub(super) const SYNC: Calls<P> = &[
        (abi::__NR_futex, Self::futex),
        (abi::__NR_futex_waitv, Self::futex_waitv),
        (abi::__NR_set_robust_list, Self::set_robust_list),
        (abi::__NR_get_robust_list, Self::get_robust_list),
        (abi::__NR_set_tid_address, Self::set_tid_address),
    ];

    fn futex(&mut self, [word, op, value, extra, word2, value3]: Args) -> Answer {
        let op = op as u32;
        let private = op & abi::FUTEX_PRIVATE_FLAG != 0;
        let sharing = if private {
            Sharing::Private
        } else {
            Sharing::Shared
        };
        let value = value as u32;
        match op & !(abi::FUTEX_PRIVATE_FLAG | abi::FUTEX_CLOCK_REALTIME) {
            abi::FUTEX_WAIT => {
                let deadline = self.futex_deadline(extra, op)?;
                self.futex_wait(word, sharing, value, u32::MAX, deadline)
                    .map(|()| 0)
            }
            abi::FUTEX_WAIT_BITSET if value3 as u32 != 0 => {
                let deadline = self.futex_deadline(extra, op)?;
                self.futex_wait(word, sharing, value, value3 as u32, deadline)
                    .map(|()| 0)
            }
            abi::FUTEX_WAKE => self.wake_some(word, sharing, value, u32::MAX),
            abi::FUTEX_WAKE_BITSET if value3 as u32 != 0 => {
                self.wake_some(word, sharing, value, value3 as u32)
            }
            abi::FUTEX_REQUEUE => self.requeue(word, word2, sharing, (value, extra as u32)),
            abi::FUTEX_CMP_REQUEUE => {
                if self.futex_word(word)? != value3 as u32 {
                    return Err(Errno::EAGAIN);
                }
                self.requeue(word, word2, sharing, (value, extra as u32))
            }
            abi::FUTEX_WAKE_OP => {
                self.wake_op((word, word2), sharing, (value, extra as u32), value3 as u32)
            }
            abi::FUTEX_LOCK_PI => {
                // The one wait whose deadline is always on the wall clock.
                let deadline = self.futex_deadline(extra, abi::FUTEX_LOCK_PI | REALTIME)?;
                self.lock_futex(word, sharing, deadline).map(|()| 0)
            }
            abi::FUTEX_LOCK_PI2 => {
                let deadline = self.futex_deadline(extra, op)?;
                self.lock_futex(word, sharing, deadline).map(|()| 0)
            }
            abi::FUTEX_TRYLOCK_PI => self.try_lock_futex(word, sharing).map(|()| 0),
            abi::FUTEX_UNLOCK_PI => self.unlock_futex(word, sharing).map(|()| 0),
            abi::FUTEX_WAIT_BITSET | abi::FUTEX_WAKE_BITSET => Err(Errno::EINVAL),
            _ => Err(Errno::ENOSYS),
        }
    }

    /// When a wait ends: relative for `FUTEX_WAIT`, otherwise a moment on one of two clocks.
    fn futex_deadline(&self, at: u64, op: u32) -> Result<Option<u64>, Errno> {
        if at == 0 {
            return Ok(None);
        }
        let time: Timespec = self.get(at)?;
        let nanos = time.nanos()?;
        let now = self.sys.now();
        let is_wait =
            op & !(abi::FUTEX_PRIVATE_FLAG | abi::FUTEX_CLOCK_REALTIME) == abi::FUTEX_WAIT;
        Ok(Some(if is_wait {
            now.saturating_add(nanos)
        } else if op & abi::FUTEX_CLOCK_REALTIME != 0 {
            let left = nanos.saturating_sub(self.sys.platform.wall_clock());
            now.saturating_add(left)
        } else {
            nanos
        }))
    }

    fn wake_some(&self, word: u64, sharing: Sharing, count: u32, bits: u32) -> Answer {
        let key = self.futex_key(word, sharing)?;
        // Linux wakes one for a count of zero too.
        Ok(u64::from(self.sys.futex_wake(key, count.max(1), bits)))
    }

    fn requeue(&self, from: u64, to: u64, sharing: Sharing, (wake, moved): (u32, u32)) -> Answer {
        if (wake as i32) < 0 || (moved as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        let from = self.futex_key(from, sharing)?;
        let to = self.futex_key(to, sharing)?;
        Ok(u64::from(self.sys.futex_requeue(from, to, wake, moved)))
    }

    fn wake_op(
        &self,
        (word, word2): (u64, u64),
        sharing: Sharing,
        (count, count2): (u32, u32),
        code: u32,
    ) -> Answer {
        let key = self.futex_key(word, sharing)?;
        let key2 = self.futex_key(word2, sharing)?;
        let old = self.futex_update(word2, |old| apply(code, old))?;
        let mut woken = self.sys.futex_wake(key, count, u32::MAX);
        if compare(code, old)? {
            woken += self.sys.futex_wake(key2, count2, u32::MAX);
        }
        Ok(u64::from(woken))
    }

    fn futex_waitv(&mut self, [at, count, flags, timeout, clock, _]: Args) -> Answer {
        const MOST: u64 = 128;
        const SIZE_32: u32 = 2;
        if flags as u32 != 0 || count as u32 == 0 || count > MOST || at == 0 {
            return Err(Errno::EINVAL);
        }
        let deadline = match (timeout, clock as u32) {
            (0, _) => None,
            (at, abi::CLOCK_MONOTONIC) => self.futex_deadline(at, abi::FUTEX_WAIT_BITSET)?,
            (at, abi::CLOCK_REALTIME) => {
                self.futex_deadline(at, abi::FUTEX_WAIT_BITSET | REALTIME)?
            }
            _ => return Err(Errno::EINVAL),
        };
        let mut words = Vec::new();
        for i in 0..count {
            let place = at.checked_add(i * 24).ok_or(Errno::EFAULT)?;
            // Value, address, and flags with a reserved word above.
            let [value, at, flags]: [u64; 3] = self.get(place)?;
            let private = u64::from(abi::FUTEX_PRIVATE_FLAG);
            if flags & !private != u64::from(SIZE_32) || value > u64::from(u32::MAX) {
                return Err(Errno::EINVAL);
            }
            let sharing = match flags & private {
                0 => Sharing::Shared,
                _ => Sharing::Private,
            };
            let key = self.futex_key(at, sharing)?;
            let value = value as u32;
            words.push(Expected { key, at, value });
        }
        let woken = self.futex_wait_any(&words, deadline)?;
        Ok(woken as u64)
    }

    fn set_robust_list(&mut self, [head, len, ..]: Args) -> Answer {
        if len != ROBUST_HEAD {
            return Err(Errno::EINVAL);
        }
        self.thread.robust_list.store(head, Ordering::SeqCst);
        Ok(0)
    }

    fn get_robust_list(&mut self, [pid, head, len, ..]: Args) -> Answer {
        let list = match pid as u32 {
            0 => self.thread.robust_list.load(Ordering::SeqCst),
            tid => self.robust_list_of(tid)?,
        };
        self.put(len, &ROBUST_HEAD)?;
        self.put(head, &list)?;
        Ok(0)
    }

    fn robust_list_of(&self, tid: u32) -> Result<u64, Errno> {
        let table = self.sys.processes.lock();
        let mut threads = table.records.values().flat_map(|r| &r.threads);
        let thread = threads.find(|t| t.tid() == tid).ok_or(Errno::ESRCH)?;
        if !self.creds().may_attach(&thread.creds.lock()) {
            return Err(Errno::EPERM);
        }
        Ok(thread.robust_list.load(Ordering::SeqCst))
    }

    fn set_tid_address(&mut self, [at, ..]: Args) -> Answer {
        self.thread.clear_tid.store(at, Ordering::SeqCst);
        Ok(u64::from(self.thread.tid()))
    }
}

/// Twelve bits as a signed number.
fn signed12(bits: u32) -> i32 {
    ((bits << 20) as i32) >> 20
}

/// The change that `FUTEX_WAKE_OP` makes to the second word.
fn apply(code: u32, old: u32) -> u32 {
    let shift = code >> 31 != 0;
    let mut arg = signed12(code >> 12 & 0xfff) as u32;
    if shift {
        arg = 1u32.wrapping_shl(arg);
    }
    match code >> 28 & 7 {
        0 => arg,
        1 => old.wrapping_add(arg),
        2 => old | arg,
        3 => old & !arg,
        4 => old ^ arg,
        _ => old,
    }
}

/// Whether the old value of the second word wakes its waiters.
fn compare(code: u32, old: u32) -> Result<bool, Errno> {
    let old = old as i32;
    let arg = signed12(code & 0xfff);
    match code >> 24 & 0xf {
        0 => Ok(old == arg),
        1 => Ok(old != arg),
        2 => Ok(old < arg),
        3 => Ok(old <= arg),
        4 => Ok(old > arg),
        5 => Ok(old >= arg),
        _ => Err(Errno::ENOSYS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_op_is_taken_apart_as_linux_does() {
        // FUTEX_OP(SET, 0, CMP_GT, 1)
        let code = 4 << 24 | 1;
        assert_eq!(apply(code, 2), 0);
        assert_eq!(compare(code, 2), Ok(true));
        assert_eq!(compare(code, 1), Ok(false));
        // FUTEX_OP(ADD, -1, CMP_EQ, -1)
        let code = 1 << 28 | 0xfff << 12 | 0xfff;
        assert_eq!(apply(code, 5), 4);
        assert_eq!(compare(code, u32::MAX), Ok(true));
        assert_eq!(compare(15 << 24, 0), Err(Errno::ENOSYS));
        assert_eq!(apply(1 << 31 | 40 << 12, 0), 1 << 8);
    }
}
