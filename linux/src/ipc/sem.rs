//! Sets of semaphores: operations that happen all at once or not at all, and what the end of a
//! process takes back of them.

use super::{Perm, Table};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SEMMNI`.
pub(crate) const SETS: u32 = 32_000;
/// `SEMMSL`.
pub(crate) const IN_A_SET: usize = 32_000;
/// `SEMMNS`.
pub(crate) const IN_ALL: u64 = 1_024_000_000;
/// `SEMOPM`.
pub(crate) const OPERATIONS: u64 = 500;
/// `SEMVMX`.
pub(crate) const HIGHEST: i32 = 32_767;
pub(crate) const SEM_UNDO: u16 = 0x1000;
const IPC_NOWAIT: u16 = 0o4000;

/// `struct sembuf`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Operation {
    pub(crate) number: u16,
    pub(crate) amount: i16,
    pub(crate) flags: u16,
}

/// One semaphore.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Semaphore {
    pub(crate) value: i32,
    pub(crate) pid: u32,
}

/// Somebody who waits: for which semaphore, and whether for it to be zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiter {
    ticket: u64,
    number: u16,
    for_zero: bool,
}

/// A set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Set {
    pub(crate) semaphores: Vec<Semaphore>,
    pub(crate) operated_at: u64,
    pub(crate) changed_at: u64,
    waiters: Vec<Waiter>,
    /// What each process's end adds to each semaphore.
    undo: BTreeMap<u32, Vec<i16>>,
}

/// `struct semid64_ds`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct SetStat {
    pub(crate) perm: Perm,
    pub(crate) operated_at: u64,
    pub(crate) unused1: u64,
    pub(crate) changed_at: u64,
    pub(crate) unused2: u64,
    pub(crate) count: u64,
    pub(crate) unused3: [u64; 2],
}

/// What became of a list of operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tried {
    Done,
    /// The operation at this place of the list cannot go on yet.
    Blocked(usize),
}

impl Set {
    pub(crate) fn new(count: usize, now: u64) -> Set {
        Set {
            semaphores: alloc::vec![Semaphore::default(); count],
            changed_at: now,
            ..Set::default()
        }
    }

    /// Carries the operations out for process `pid`, all or none.
    pub(crate) fn operate(&mut self, list: &[Operation], pid: u32) -> Result<Tried, Errno> {
        let mut values: Vec<i32> = self.semaphores.iter().map(|s| s.value).collect();
        let mut undo = self.undo.get(&pid).cloned();
        for (place, op) in list.iter().enumerate() {
            let value = values.get_mut(usize::from(op.number)).ok_or(Errno::EFBIG)?;
            let new = *value + i32::from(op.amount);
            if (op.amount == 0 && *value != 0) || new < 0 {
                let now = op.flags & IPC_NOWAIT != 0;
                return if now {
                    Err(Errno::EAGAIN)
                } else {
                    Ok(Tried::Blocked(place))
                };
            }
            if new > HIGHEST {
                return Err(Errno::ERANGE);
            }
            if op.flags & SEM_UNDO != 0 {
                let list = undo.get_or_insert_with(|| alloc::vec![0; self.semaphores.len()]);
                let at = &mut list[usize::from(op.number)];
                let back = i32::from(*at) - i32::from(op.amount);
                *at = i16::try_from(back).map_err(|_| Errno::ERANGE)?;
            }
            *value = new;
        }
        for (semaphore, value) in self.semaphores.iter_mut().zip(values) {
            semaphore.value = value;
        }
        for op in list {
            if let Some(semaphore) = self.semaphores.get_mut(usize::from(op.number)) {
                semaphore.pid = pid;
            }
        }
        if let Some(undo) = undo {
            self.undo.insert(pid, undo);
        }
        Ok(Tried::Done)
    }

    /// Notes that the holder of `ticket` waits for an operation, or no more.
    pub(crate) fn wait(&mut self, ticket: u64, operation: Option<Operation>) {
        self.waiters.retain(|w| w.ticket != ticket);
        self.waiters.extend(operation.map(|op| Waiter {
            ticket,
            number: op.number,
            for_zero: op.amount == 0,
        }));
    }

    /// How many wait for a semaphore to grow, or to be zero.
    pub(crate) fn waiting(&self, number: usize, for_zero: bool) -> u64 {
        let waits = |w: &&Waiter| usize::from(w.number) == number && w.for_zero == for_zero;
        self.waiters.iter().filter(waits).count() as u64
    }

    /// Forgets what ends take back of one semaphore, or of all.
    pub(crate) fn forget_undo(&mut self, number: Option<usize>) {
        for list in self.undo.values_mut() {
            match number.and_then(|n| list.get_mut(n)) {
                Some(one) => *one = 0,
                None => list.fill(0),
            }
        }
    }

    /// The end of process `pid`.
    fn take_back(&mut self, pid: u32) -> bool {
        let Some(list) = self.undo.remove(&pid) else {
            return false;
        };
        for (semaphore, back) in self.semaphores.iter_mut().zip(list) {
            if back != 0 {
                semaphore.value = (semaphore.value + i32::from(back)).clamp(0, HIGHEST);
                semaphore.pid = pid;
            }
        }
        true
    }
}

/// Every set.
pub(crate) struct Sets<P: Platform> {
    pub(crate) table: Lock<P, Table<Set>, { rank::IPC }>,
}

impl<P: Platform> Sets<P> {
    pub(crate) fn new() -> Self {
        Sets {
            table: Lock::<P, _, { rank::IPC }>::new(Table::new(SETS)),
        }
    }

    /// Takes back what process `pid` wanted taken back at its end.
    pub(crate) fn ended(&self, sys: &Linux<P>, pid: u32) {
        let changed: Vec<i32> = {
            let mut table = self.table.lock();
            let ids: Vec<i32> = table.all().map(|(id, _)| id).collect();
            let mut took = |id: &i32| table.get(*id).is_ok_and(|e| e.value.take_back(pid));
            ids.into_iter().filter(|id| took(id)).collect()
        };
        for id in changed {
            sys.wake(crate::blocking::semaphore_channel(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(number: u16, amount: i16, flags: u16) -> Operation {
        Operation {
            number,
            amount,
            flags,
        }
    }

    fn values(set: &Set) -> Vec<i32> {
        set.semaphores.iter().map(|s| s.value).collect()
    }

    #[test]
    fn operations_happen_together_or_not_at_all() {
        let mut set = Set::new(2, 0);
        assert_eq!(set.operate(&[op(0, 3, 0), op(1, 1, 0)], 9), Ok(Tried::Done));
        let both = [op(0, -2, 0), op(1, -2, 0)];
        assert_eq!(set.operate(&both, 9), Ok(Tried::Blocked(1)));
        assert_eq!(values(&set), [3, 1]);
        assert_eq!(set.operate(&[op(0, 0, IPC_NOWAIT)], 9), Err(Errno::EAGAIN));
        assert_eq!(set.operate(&[op(0, 32767, 0)], 9), Err(Errno::ERANGE));
        assert_eq!(set.operate(&[op(2, 1, 0)], 9), Err(Errno::EFBIG));
    }

    #[test]
    fn ends_take_back_what_was_to_be_undone() {
        let mut set = Set::new(2, 0);
        set.operate(&[op(0, 5, 0), op(1, 5, 0)], 1).unwrap();
        set.operate(&[op(0, -2, SEM_UNDO), op(1, -1, SEM_UNDO)], 2)
            .unwrap();
        set.forget_undo(Some(1));
        assert!(set.take_back(2));
        assert!(!set.take_back(2));
        assert_eq!(values(&set), [5, 4]);
        assert_eq!(size_of::<SetStat>(), 104);
    }
}
