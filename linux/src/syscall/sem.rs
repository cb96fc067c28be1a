//! System V semaphores: `semget`, `semop`, `semtimedop`, `semctl`.

use super::{Answer, Args, Calls};
use crate::blocking::{Unfinished, semaphore_channel};
use crate::errno::Errno;
use crate::ipc::sem::{
    HIGHEST, IN_A_SET, IN_ALL, OPERATIONS, Operation, SETS, Set, SetStat, Tried,
};
use crate::ipc::{Entry, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, READ, Request, WRITE};
use crate::platform::Platform;
use crate::syscall::time::Timespec;
use crate::thread::Task;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

const GETPID: u32 = 11;
const GETVAL: u32 = 12;
const GETALL: u32 = 13;
const GETNCNT: u32 = 14;
const GETZCNT: u32 = 15;
const SETVAL: u32 = 16;
const SETALL: u32 = 17;
const SEM_STAT: u32 = 18;
const SEM_INFO: u32 = 19;
const SEM_STAT_ANY: u32 = 20;
/// `SEMUSZ`.
const UNDO_BYTES: u32 = 20;
const SECOND: u64 = 1_000_000_000;

impl<P: Platform> Task<P> {
    pub(super) const SEM: Calls<P> = &[
        (abi::__NR_semget, Self::semget),
        (abi::__NR_semop, Self::semop),
        (abi::__NR_semtimedop, Self::semtimedop),
        (abi::__NR_semctl, Self::semctl),
    ];

    pub(super) fn seconds_now(&self) -> u64 {
        self.sys.platform.wall_clock() / SECOND
    }

    fn semget(&mut self, [key, count, flags, ..]: Args) -> Answer {
        let count = usize::try_from(count as i32).map_err(|_| Errno::EINVAL)?;
        if count > IN_A_SET {
            return Err(Errno::EINVAL);
        }
        let (creds, now) = (self.creds(), self.seconds_now());
        let request = Request {
            key: key as i32,
            flags: flags as u32,
        };
        let fits = |set: &Set| {
            if set.semaphores.len() < count {
                Err(Errno::EINVAL)
            } else {
                Ok(())
            }
        };
        let id = self
            .sys
            .sets
            .table
            .lock()
            .obtain(request, &creds, fits, |_| {
                if count == 0 {
                    return Err(Errno::EINVAL);
                }
                Ok(Set::new(count, now))
            })?;
        Ok(id as u64)
    }

    fn semop(&mut self, [id, list, count, ..]: Args) -> Answer {
        self.operate(id, (list, count), None)
    }

    fn semtimedop(&mut self, [id, list, count, timeout, ..]: Args) -> Answer {
        let timeout = match timeout {
            0 => None,
            at => Some(self.get::<Timespec>(at)?),
        };
        self.operate(id, (list, count), timeout)
    }

    fn operations(&self, (list, count): (u64, u64)) -> Result<Vec<Operation>, Errno> {
        let raw = self.bytes(list, count as usize * size_of::<Operation>())?;
        let word = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
        let operation = |b: &[u8]| Operation {
            number: word(b),
            amount: word(&b[2..]) as i16,
            flags: word(&b[4..]),
        };
        Ok(raw.chunks_exact(6).map(operation).collect())
    }

    fn operate(&self, id: u64, list: (u64, u64), timeout: Option<Timespec>) -> Answer {
        let (id, count) = (id as i32, u64::from(list.1 as u32));
        if count < 1 || id < 0 {
            return Err(Errno::EINVAL);
        }
        if count > OPERATIONS {
            return Err(Errno::E2BIG);
        }
        let list = self.operations((list.0, count))?;
        let nanos = timeout.map(Timespec::nanos).transpose()?;
        let deadline = nanos.map(|n| self.sys.now().saturating_add(n));
        let alters = list.iter().any(|op| op.amount != 0);
        let highest = list.iter().map(|op| usize::from(op.number)).max();
        let creds = self.creds();
        {
            let mut table = self.sys.sets.table.lock();
            let entry = table.get(id)?;
            if highest.is_some_and(|n| n >= entry.value.semaphores.len()) {
                return Err(Errno::EFBIG);
            }
            let wanted = if alters { WRITE } else { READ };
            entry.perm.check(&creds, wanted)?;
        }
        let ticket = self.sys.next_id();
        let done = self.wait_on(semaphore_channel(id), deadline, || {
            self.try_operations(id, &list, ticket)
        });
        if let Ok(entry) = self.sys.sets.table.lock().get(id) {
            entry.value.wait(ticket, None);
        }
        match done {
            Ok(result) => {
                result?;
                if alters {
                    self.sys.wake(semaphore_channel(id));
                }
                Ok(0)
            }
            Err(Unfinished::Deadline) => Err(Errno::EAGAIN),
            Err(Unfinished::Signal) => Err(Errno::EINTR),
        }
    }

    /// One attempt; `None` when it has to wait.
    fn try_operations(
        &self,
        id: i32,
        list: &[Operation],
        ticket: u64,
    ) -> Option<Result<(), Errno>> {
        let now = self.seconds_now();
        let mut table = self.sys.sets.table.lock();
        let Ok(entry) = table.get(id) else {
            return Some(Err(Errno::EIDRM));
        };
        match entry.value.operate(list, self.process.pid) {
            Ok(Tried::Done) => {
                entry.value.operated_at = now;
                Some(Ok(()))
            }
            Ok(Tried::Blocked(place)) => {
                entry.value.wait(ticket, list.get(place).copied());
                None
            }
            Err(e) => Some(Err(e)),
        }
    }

    fn semctl(&mut self, [id, number, command, arg, ..]: Args) -> Answer {
        let (id, command) = (id as i32, command as u32);
        if id < 0 {
            return Err(Errno::EINVAL);
        }
        let number = number as u32 as usize;
        match command {
            IPC_INFO | SEM_INFO => self.set_limits(command == SEM_INFO, arg),
            IPC_STAT | SEM_STAT | SEM_STAT_ANY => self.set_stat(id, command, arg),
            GETPID | GETVAL | GETNCNT | GETZCNT => self.semaphore(id, number, command),
            GETALL => self.all_values(id, arg),
            SETVAL => self.set_value(id, number, arg as i32),
            SETALL => self.set_all(id, arg),
            IPC_SET => {
                let new: SetStat = self.get(arg)?;
                let (creds, now) = (self.creds(), self.seconds_now());
                let mut table = self.sys.sets.table.lock();
                let entry = table.get(id)?;
                entry.perm.check_owner(&creds)?;
                entry.perm.update(&new.perm)?;
                entry.value.changed_at = now;
                Ok(0)
            }
            IPC_RMID => {
                let creds = self.creds();
                let mut table = self.sys.sets.table.lock();
                table.get(id)?.perm.check_owner(&creds)?;
                drop(table.remove(id));
                drop(table);
                self.sys.wake(semaphore_channel(id));
                Ok(0)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// `struct seminfo`; `SEM_INFO` tells of what is in use in two of its fields.
    fn set_limits(&self, in_use: bool, to: u64) -> Answer {
        let (sets, semaphores, highest) = {
            let table = self.sys.sets.table.lock();
            let all = table.all().map(|(_, e)| e.value.semaphores.len());
            (table.len(), all.sum::<usize>(), table.highest())
        };
        let most = IN_ALL as u32;
        let (undo, adjust) = if in_use {
            (sets as u32, semaphores as u32)
        } else {
            (UNDO_BYTES, HIGHEST as u32)
        };
        let per_call = OPERATIONS as u32;
        let info = [
            most,
            SETS,
            most,
            most,
            IN_A_SET as u32,
            per_call,
            per_call,
            undo,
            HIGHEST as u32,
            adjust,
        ];
        self.put(to, &info)?;
        Ok(u64::from(highest))
    }

    fn set_stat(&self, id: i32, command: u32, to: u64) -> Answer {
        let creds = self.creds();
        let (answer, stat) = {
            let mut table = self.sys.sets.table.lock();
            let (answer, entry) = if command == IPC_STAT {
                (0, table.get(id)?)
            } else {
                table.at_place(id)?
            };
            if command != SEM_STAT_ANY {
                entry.perm.check(&creds, READ)?;
            }
            let stat = SetStat {
                perm: entry.perm,
                operated_at: entry.value.operated_at,
                changed_at: entry.value.changed_at,
                count: entry.value.semaphores.len() as u64,
                ..SetStat::default()
            };
            (answer, stat)
        };
        self.put(to, &stat)?;
        Ok(answer as u64)
    }

    /// `act` on a set that this thread may read or write.
    fn with_set<T>(
        &self,
        id: i32,
        wanted: u32,
        act: impl FnOnce(&mut Entry<Set>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let creds = self.creds();
        let mut table = self.sys.sets.table.lock();
        let entry = table.get(id)?;
        entry.perm.check(&creds, wanted)?;
        act(entry)
    }

    fn semaphore(&self, id: i32, number: usize, command: u32) -> Answer {
        self.with_set(id, READ, |entry| {
            let set = &entry.value;
            let semaphore = set.semaphores.get(number).ok_or(Errno::EINVAL)?;
            Ok(match command {
                GETPID => u64::from(semaphore.pid),
                GETVAL => semaphore.value as u64,
                GETNCNT => set.waiting(number, false),
                _ => set.waiting(number, true),
            })
        })
    }

    fn all_values(&self, id: i32, to: u64) -> Answer {
        let values: Vec<u16> = self.with_set(id, READ, |entry| {
            let all = entry.value.semaphores.iter();
            Ok(all.map(|s| s.value as u16).collect())
        })?;
        self.write_user(to, zerocopy::IntoBytes::as_bytes(values.as_slice()))
            .map(|()| 0)
    }

    fn set_value(&self, id: i32, number: usize, value: i32) -> Answer {
        if !(0..=HIGHEST).contains(&value) {
            return Err(Errno::ERANGE);
        }
        let (pid, now) = (self.process.pid, self.seconds_now());
        // A wrong number is told before a missing right.
        self.with_set(id, 0, |entry| {
            let count = entry.value.semaphores.len();
            if number < count {
                Ok(())
            } else {
                Err(Errno::EINVAL)
            }
        })?;
        self.with_set(id, WRITE, |entry| {
            let set = &mut entry.value;
            let semaphore = set.semaphores.get_mut(number).ok_or(Errno::EINVAL)?;
            (semaphore.value, semaphore.pid) = (value, pid);
            set.forget_undo(Some(number));
            set.changed_at = now;
            Ok(())
        })?;
        self.sys.wake(semaphore_channel(id));
        Ok(0)
    }

    fn set_all(&self, id: i32, from: u64) -> Answer {
        let count = self.with_set(id, WRITE, |entry| Ok(entry.value.semaphores.len()))?;
        let raw = self.bytes(from, count * 2)?;
        let value = |b: &[u8]| i32::from(u16::from_le_bytes([b[0], b[1]]));
        let values: Vec<i32> = raw.chunks_exact(2).map(value).collect();
        if values.iter().any(|&v| v > HIGHEST) {
            return Err(Errno::ERANGE);
        }
        let (pid, now) = (self.process.pid, self.seconds_now());
        self.with_set(id, WRITE, |entry| {
            let set = &mut entry.value;
            for (semaphore, value) in set.semaphores.iter_mut().zip(values) {
                (semaphore.value, semaphore.pid) = (value, pid);
            }
            set.forget_undo(None);
            set.changed_at = now;
            Ok(())
        })?;
        self.sys.wake(semaphore_channel(id));
        Ok(0)
    }
}
