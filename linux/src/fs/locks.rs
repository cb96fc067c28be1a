//! Locks of files: records (`F_SETLK`, per process, and `F_OFD_SETLK`, per open file) and whole
//! files (`flock`), among the guests; towards other processes of the host, none.
//!
//! Locks are kept by file, not by descriptor: the same file of the host, however it was opened, has
//! the same key. A lock of a process goes when the process closes any descriptor of the file.

use super::file::{Kind, OpenFile};
use super::inode::Key;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Who holds a lock: a process, or an open file by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Owner {
    Process(u32),
    Open(u64),
}

/// Shared or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Read,
    Write,
}

/// A lock of the bytes from `start` up to but not including `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) owner: Owner,
    pub(crate) mode: Mode,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Beyond every byte.
pub(crate) const TO_THE_END: u64 = u64::MAX;

/// Which locks are meant: those of records and those of whole files do not see each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Family {
    Records,
    Whole,
}

/// The locks of one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileLocks {
    held: Vec<Held>,
}

impl FileLocks {
    /// A lock that is in the way of `wanted`.
    pub(crate) fn conflict(&self, wanted: &Held) -> Option<Held> {
        let in_the_way = |h: &&Held| {
            h.owner != wanted.owner
                && h.start < wanted.end
                && wanted.start < h.end
                && (h.mode == Mode::Write || wanted.mode == Mode::Write)
        };
        let first = self.held.iter().filter(in_the_way).min_by_key(|h| h.start);
        first.copied()
    }

    /// Takes the bytes out of what `owner` holds.
    fn unlock(&mut self, owner: Owner, start: u64, end: u64) {
        let mut kept = Vec::new();
        for h in self.held.drain(..) {
            if h.owner != owner || h.end <= start || end <= h.start {
                kept.push(h);
                continue;
            }
            if h.start < start {
                kept.push(Held { end: start, ..h });
            }
            if end < h.end {
                kept.push(Held { start: end, ..h });
            }
        }
        self.held = kept;
    }

    /// Adds a lock that nothing is in the way of, in place of what its owner had there.
    fn lock(&mut self, new: Held) {
        self.unlock(new.owner, new.start, new.end);
        let mut new = new;
        // Neighbours of the same kind become one.
        self.held.retain(|h| {
            let same = h.owner == new.owner && h.mode == new.mode;
            let joins = same && (h.end == new.start || h.start == new.end);
            if joins {
                new.start = new.start.min(h.start);
                new.end = new.end.max(h.end);
            }
            !joins
        });
        self.held.push(new);
    }
}

#[derive(Debug, Default)]
struct Table {
    files: BTreeMap<(Family, Key), FileLocks>,
    /// Whom each waiting owner waits for.
    waits: Vec<(Owner, Owner)>,
}

/// Every lock.
pub(crate) struct Locks<P: Platform> {
    table: Lock<P, Table, { rank::LOCKS }>,
}

/// What became of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tried {
    Done,
    Blocked,
    /// To wait would be for ever.
    Deadlock,
}

impl<P: Platform> Locks<P> {
    pub(crate) fn new() -> Self {
        Locks {
            table: Lock::<P, _, { rank::LOCKS }>::new(Table::default()),
        }
    }

    /// What is in the way of a lock.
    pub(crate) fn conflict(&self, family: Family, key: Key, wanted: &Held) -> Option<Held> {
        let table = self.table.lock();
        table.files.get(&(family, key))?.conflict(wanted)
    }

    /// Takes a lock if nothing is in the way. Who `waits` is remembered, for deadlocks.
    pub(crate) fn try_lock(&self, family: Family, key: Key, wanted: Held, waits: bool) -> Tried {
        let mut table = self.table.lock();
        table.waits.retain(|(who, _)| *who != wanted.owner);
        let file = table.files.entry((family, key)).or_default();
        let Some(conflict) = file.conflict(&wanted) else {
            file.lock(wanted);
            return Tried::Done;
        };
        if waits {
            if table.leads_to(conflict.owner, wanted.owner) {
                return Tried::Deadlock;
            }
            table.waits.push((wanted.owner, conflict.owner));
        }
        Tried::Blocked
    }

    /// `owner` waits no more.
    pub(crate) fn give_up(&self, owner: Owner) {
        self.table.lock().waits.retain(|(who, _)| *who != owner);
    }

    /// Lets go of bytes.
    pub(crate) fn unlock(&self, family: Family, key: Key, owner: Owner, (start, end): (u64, u64)) {
        let mut table = self.table.lock();
        let Some(file) = table.files.get_mut(&(family, key)) else {
            return;
        };
        file.unlock(owner, start, end);
        if file.held.is_empty() {
            table.files.remove(&(family, key));
        }
    }

    /// Lets go of everything that an owner holds; whether there was anything.
    fn release(&self, owner: Owner) -> bool {
        let mut table = self.table.lock();
        let mut any = false;
        table.files.retain(|_, file| {
            let before = file.held.len();
            file.held.retain(|h| h.owner != owner);
            any |= file.held.len() != before;
            !file.held.is_empty()
        });
        any
    }

    /// Whether a process holds a lock of records of a file.
    fn has_records(&self, key: Key, pid: u32) -> bool {
        let table = self.table.lock();
        let file = table.files.get(&(Family::Records, key));
        file.is_some_and(|f| f.held.iter().any(|h| h.owner == Owner::Process(pid)))
    }

    /// Every lock, for `/proc/locks`.
    pub(crate) fn all(&self) -> Vec<(Family, Key, Held)> {
        let table = self.table.lock();
        let each = table.files.iter();
        each.flat_map(|(&(family, key), f)| f.held.iter().map(move |h| (family, key, *h)))
            .collect()
    }
}

impl Table {
    /// Whether `from` waits, over others, for `to`.
    fn leads_to(&self, from: Owner, to: Owner) -> bool {
        let mut at = from;
        // Each step is one waiter: more there cannot be.
        for _ in 0..=self.waits.len() {
            if at == to {
                return true;
            }
            match self.waits.iter().find(|(who, _)| *who == at) {
                Some((_, next)) => at = *next,
                None => return false,
            }
        }
        false
    }
}

impl<P: Platform> OpenFile<P> {
    /// What makes its file the same file, for locks.
    pub(crate) fn lock_key(&self) -> Option<Key> {
        match &self.kind {
            Kind::Host(host) => Some(host.key),
            Kind::Memory(memory) => Some((0, 1, memory.id)),
            Kind::Pipe(pipe) => Some((0, 2, pipe.id())),
            Kind::Socket(socket) => Some((0, 3, socket.id())),
            _ => None,
        }
    }
}

impl<P: Platform> Linux<P> {
    fn locks_changed(&self) {
        self.wake(crate::blocking::locks_channel());
    }

    /// A process has closed a descriptor of `file`: its locks of records go.
    /// And of a queue it is told nothing any more.
    pub(crate) fn closed_by(&self, file: &OpenFile<P>, pid: u32) {
        if let Kind::Special(special) = &file.kind
            && let Some(queue) = special.as_queue()
        {
            queue.forget(pid);
        }
        let Some(key) = file.lock_key() else { return };
        if self.locks.has_records(key, pid) {
            let all = (0, TO_THE_END);
            self.locks
                .unlock(Family::Records, key, Owner::Process(pid), all);
            self.locks_changed();
        }
    }

    /// What `owner` holds goes with it.
    pub(crate) fn release_locks(&self, owner: Owner) {
        if self.locks.release(owner) {
            self.locks_changed();
        }
    }
}

/// The bytes that a `struct flock` means: from, and up to but not including.
pub(crate) fn bytes_of(base: u64, start: i64, len: i64) -> Result<(u64, u64), Errno> {
    let from = i64::try_from(base)
        .ok()
        .and_then(|b| b.checked_add(start))
        .ok_or(Errno::EOVERFLOW)?;
    let (from, to) = match len {
        0 => (from, i64::MAX),
        n if n > 0 => {
            let last = from.checked_add(n - 1).ok_or(Errno::EOVERFLOW)?;
            (from, last)
        }
        n => (from.checked_add(n).ok_or(Errno::EINVAL)?, from - 1),
    };
    if from < 0 {
        return Err(Errno::EINVAL);
    }
    let end = if to == i64::MAX {
        TO_THE_END
    } else {
        to as u64 + 1
    };
    Ok((from as u64, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(pid: u32, mode: Mode, start: u64, end: u64) -> Held {
        Held {
            owner: Owner::Process(pid),
            mode,
            start,
            end,
        }
    }

    #[test]
    fn locks_split_join_and_stand_in_the_way() {
        let mut file = FileLocks::default();
        file.lock(held(1, Mode::Write, 10, 20));
        file.lock(held(1, Mode::Write, 20, 30));
        assert_eq!(file.held, [held(1, Mode::Write, 10, 30)]);
        file.lock(held(1, Mode::Read, 15, 20));
        assert_eq!(file.held.len(), 3);
        let other = |mode, start, end| file.conflict(&held(2, mode, start, end));
        assert_eq!(other(Mode::Read, 15, 20), None);
        assert_eq!(other(Mode::Write, 15, 20).map(|h| h.mode), Some(Mode::Read));
        assert_eq!(other(Mode::Read, 0, 100).map(|h| h.start), Some(10));
        assert_eq!(other(Mode::Write, 30, 40), None);
        assert_eq!(file.conflict(&held(1, Mode::Write, 0, 100)), None);
        file.unlock(Owner::Process(1), 0, TO_THE_END);
        assert!(file.held.is_empty());
    }

    #[test]
    fn ranges_are_those_of_struct_flock() {
        assert_eq!(bytes_of(0, 0, 0), Ok((0, TO_THE_END)));
        assert_eq!(bytes_of(10, 5, 3), Ok((15, 18)));
        assert_eq!(bytes_of(10, 0, -4), Ok((6, 10)));
        assert_eq!(bytes_of(0, -1, 0), Err(Errno::EINVAL));
        assert_eq!(bytes_of(0, 3, -4), Err(Errno::EINVAL));
        assert_eq!(bytes_of(5, i64::MAX, 0), Err(Errno::EOVERFLOW));
        assert_eq!(bytes_of(0, 5, i64::MAX), Err(Errno::EOVERFLOW));
    }

    #[test]
    fn circles_of_waiting_are_seen() {
        let mut table = Table::default();
        let p = Owner::Process;
        table.waits = alloc::vec![(p(1), p(2)), (p(2), p(3))];
        assert!(table.leads_to(p(1), p(3)));
        assert!(!table.leads_to(p(3), p(1)));
        table.waits.push((p(3), p(3)));
        assert!(!table.leads_to(p(1), p(9)));
    }
}
