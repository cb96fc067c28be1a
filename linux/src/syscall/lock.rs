//! Locks of files: `flock`, and the commands of `fcntl` about records.

use super::{Answer, Args, Calls};
use crate::blocking::{Unfinished, locks_channel};
use crate::errno::Errno;
use crate::fs::file::OpenFile;
use crate::fs::inode::Key;
use crate::fs::locks::{Family, Held, Mode, Owner, TO_THE_END, Tried, bytes_of};
use crate::platform::Platform;
use crate::thread::Task;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const F_OFD_GETLK: u32 = 36;
const F_OFD_SETLK: u32 = 37;
const F_OFD_SETLKW: u32 = 38;

/// `struct flock`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Record {
    kind: u16,
    whence: u16,
    pad: u32,
    start: i64,
    len: i64,
    pid: i32,
    pad2: u32,
}

impl<P: Platform> Task<P> {
    pub(super) const LOCK: Calls<P> = &[(abi::__NR_flock, Self::flock)];

    fn flock(&mut self, [fd, operation, ..]: Args) -> Answer {
        let operation = operation as u32;
        let mode = match operation & !abi::LOCK_NB {
            abi::LOCK_SH => Some(Mode::Read),
            abi::LOCK_EX => Some(Mode::Write),
            abi::LOCK_UN => None,
            _ => return Err(Errno::EINVAL),
        };
        let file = self.file(fd)?;
        if file.flags() & abi::O_PATH != 0 {
            return Err(Errno::EBADF);
        }
        let Some(key) = file.lock_key() else {
            return Ok(0);
        };
        let owner = Owner::Open(file.number(self.sys));
        let all = (0, TO_THE_END);
        // A change of mode is no step from the one to the other: others may come between.
        let held_other = mode.is_some_and(|mode| {
            let own = |(family, k, h): &(Family, Key, Held)| {
                *family == Family::Whole && *k == key && h.owner == owner && h.mode != mode
            };
            self.sys.locks.all().iter().any(own)
        });
        let Some(mode) = mode else {
            self.sys.locks.unlock(Family::Whole, key, owner, all);
            self.sys.wake(locks_channel());
            return Ok(0);
        };
        if held_other {
            self.sys.locks.unlock(Family::Whole, key, owner, all);
            self.sys.wake(locks_channel());
        }
        let wanted = Held {
            owner,
            mode,
            start: 0,
            end: TO_THE_END,
        };
        self.take(Family::Whole, key, wanted, operation & abi::LOCK_NB == 0)
    }

    /// Takes a lock, or waits for it.
    fn take(&self, family: Family, key: Key, wanted: Held, waits: bool) -> Answer {
        let locks = &self.sys.locks;
        // Deadlocks are looked for among processes alone, as on Linux.
        let watched = waits && matches!(wanted.owner, Owner::Process(_));
        let taken = self.wait_on(locks_channel(), None, || {
            match locks.try_lock(family, key, wanted, watched) {
                Tried::Done => Some(Ok(0)),
                Tried::Deadlock => Some(Err(Errno::EDEADLK)),
                Tried::Blocked if waits => None,
                Tried::Blocked => Some(Err(Errno::EAGAIN)),
            }
        });
        locks.give_up(wanted.owner);
        // What was locked may have been less or more: others look again.
        self.sys.wake(locks_channel());
        match taken {
            Ok(result) => result,
            Err(Unfinished::Signal | Unfinished::Deadline) => Err(Errno::RESTART),
        }
    }

    /// The commands of `fcntl` about locks; `None` for any other.
    pub(super) fn lock_command(
        &self,
        file: &Arc<OpenFile<P>>,
        command: u32,
        arg: u64,
    ) -> Option<Answer> {
        let by_file = matches!(command, F_OFD_GETLK | F_OFD_SETLK | F_OFD_SETLKW);
        let owner = if by_file {
            Owner::Open(file.number(self.sys))
        } else {
            Owner::Process(self.process.pid)
        };
        match command {
            abi::F_GETLK | F_OFD_GETLK => Some(self.ask_lock(file, owner, arg)),
            abi::F_SETLK | F_OFD_SETLK => Some(self.set_lock(file, owner, arg, false)),
            abi::F_SETLKW | F_OFD_SETLKW => Some(self.set_lock(file, owner, arg, true)),
            _ => None,
        }
    }

    fn range(&self, file: &OpenFile<P>, record: &Record) -> Result<(u64, u64), Errno> {
        let base = match u32::from(record.whence) {
            abi::SEEK_SET => 0,
            abi::SEEK_CUR => file.position(),
            abi::SEEK_END => file.stat()?.size,
            _ => return Err(Errno::EINVAL),
        };
        bytes_of(base, record.start, record.len)
    }

    fn mode_of(record: &Record) -> Result<Option<Mode>, Errno> {
        match u32::from(record.kind) {
            abi::F_RDLCK => Ok(Some(Mode::Read)),
            abi::F_WRLCK => Ok(Some(Mode::Write)),
            abi::F_UNLCK => Ok(None),
            _ => Err(Errno::EINVAL),
        }
    }

    fn ask_lock(&self, file: &OpenFile<P>, owner: Owner, at: u64) -> Answer {
        let mut record: Record = self.get(at)?;
        let by_file = matches!(owner, Owner::Open(_));
        let mode = Self::mode_of(&record)?;
        if (by_file && record.pid != 0) || (!by_file && mode.is_none()) {
            return Err(Errno::EINVAL);
        }
        let range = self.range(file, &record)?;
        let found = match (file.lock_key(), mode) {
            (None, _) => None,
            (Some(key), Some(mode)) => {
                let (start, end) = range;
                let wanted = Held {
                    owner,
                    mode,
                    start,
                    end,
                };
                self.sys.locks.conflict(Family::Records, key, &wanted)
            }
            // Who asks about an unlocking is told of a lock that it would undo.
            (Some(key), None) => self.sys.locks.own(Family::Records, key, owner, range),
        };
        match found {
            None => record.kind = abi::F_UNLCK as u16,
            Some(h) => {
                record.kind = match h.mode {
                    Mode::Read => abi::F_RDLCK as u16,
                    Mode::Write => abi::F_WRLCK as u16,
                };
                record.whence = abi::SEEK_SET as u16;
                record.start = h.start as i64;
                record.len = if h.end == TO_THE_END {
                    0
                } else {
                    (h.end - h.start) as i64
                };
                record.pid = match h.owner {
                    Owner::Process(pid) => pid as i32,
                    Owner::Open(_) => -1,
                };
            }
        }
        self.put(at, &record).map(|()| 0)
    }

    fn set_lock(&self, file: &Arc<OpenFile<P>>, owner: Owner, at: u64, waits: bool) -> Answer {
        let record: Record = self.get(at)?;
        let (start, end) = self.range(file, &record)?;
        let mode = Self::mode_of(&record)?;
        if matches!(owner, Owner::Open(_)) && record.pid != 0 {
            return Err(Errno::EINVAL);
        }
        let allowed = match mode {
            Some(Mode::Read) => file.may_read(),
            Some(Mode::Write) => file.may_write(),
            None => true,
        };
        if !allowed {
            return Err(Errno::EBADF);
        }
        let Some(key) = file.lock_key() else {
            return Ok(0);
        };
        let Some(mode) = mode else {
            self.sys
                .locks
                .unlock(Family::Records, key, owner, (start, end));
            self.sys.wake(locks_channel());
            return Ok(0);
        };
        let wanted = Held {
            owner,
            mode,
            start,
            end,
        };
        self.take(Family::Records, key, wanted, waits)
    }
}
