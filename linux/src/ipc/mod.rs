//! System V objects: shared memory, semaphores, queues of messages; and the queues of POSIX
//! (`posix`), which are files.
//!
//! A table for each kind gives out numbers as Linux does: the low bits are a place, the others
//! tell those apart that had the same place one after the other. What a caller may do with an
//! object is decided here for all kinds.

pub(crate) mod msg;
pub(crate) mod posix;
pub(crate) mod sem;
pub(crate) mod shm;

use crate::creds::{Creds, cap};
use crate::errno::Errno;
use alloc::collections::BTreeMap;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) const IPC_PRIVATE: i32 = 0;
pub(crate) const IPC_CREAT: u32 = 0o1000;
pub(crate) const IPC_EXCL: u32 = 0o2000;
pub(crate) const IPC_NOWAIT: u32 = 0o4000;
pub(crate) const IPC_RMID: u32 = 0;
pub(crate) const IPC_SET: u32 = 1;
pub(crate) const IPC_STAT: u32 = 2;
pub(crate) const IPC_INFO: u32 = 3;
/// Bits of a mode that say what readers and writers may do.
pub(crate) const READ: u32 = 0o444;
pub(crate) const WRITE: u32 = 0o222;
const RIGHTS: u32 = 0o777;
/// Places are below this; beyond it begins what tells users of the same place apart.
const PLACES: u32 = 1 << 15;
/// Places are gone through at least this far before one is used again.
const CYCLE: u32 = 64;

/// `struct ipc64_perm`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Perm {
    pub(crate) key: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) cuid: u32,
    pub(crate) cgid: u32,
    pub(crate) mode: u32,
    seq: u16,
    pad: [u16; 3],
    unused: [u64; 2],
}

impl Perm {
    /// Whether `creds` may do what the bits of `wanted` ask, in whichever triple.
    pub(crate) fn allows(&self, creds: &Creds, wanted: u32) -> bool {
        let wanted = (wanted >> 6) | (wanted >> 3) | wanted;
        let granted = if self.is_owned_by(creds) {
            self.mode >> 6
        } else if creds.in_group(self.cgid) || creds.in_group(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        wanted & !granted & 7 == 0 || creds.capable(cap::IPC_OWNER)
    }

    pub(crate) fn is_owned_by(&self, creds: &Creds) -> bool {
        let me = creds.user.effective;
        me == self.uid || me == self.cuid
    }

    /// As [`Perm::allows`]: `EACCES` when not.
    pub(crate) fn check(&self, creds: &Creds, wanted: u32) -> Result<(), Errno> {
        if self.allows(creds, wanted) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// Whether `creds` may change and remove the object: `EPERM` when not.
    pub(crate) fn check_owner(&self, creds: &Creds) -> Result<(), Errno> {
        if self.is_owned_by(creds) || creds.capable(cap::SYS_ADMIN) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// `IPC_SET`.
    pub(crate) fn update(&mut self, from: &Perm) -> Result<(), Errno> {
        if from.uid == u32::MAX || from.gid == u32::MAX {
            return Err(Errno::EINVAL);
        }
        (self.uid, self.gid) = (from.uid, from.gid);
        self.mode = self.mode & !RIGHTS | from.mode & RIGHTS;
        Ok(())
    }
}

/// An object and who may use it.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) perm: Perm,
    pub(crate) value: T,
}

/// Objects of one kind.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: BTreeMap<u32, Entry<T>>,
    /// The place to look from, the one that was given last, and the present generation.
    next: u32,
    last: Option<u32>,
    seq: u16,
    /// How many there may be.
    pub(crate) most: u32,
}

/// How a number is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) key: i32,
    pub(crate) flags: u32,
}

impl<T> Table<T> {
    pub(crate) fn new(most: u32) -> Table<T> {
        Table {
            entries: BTreeMap::new(),
            next: 0,
            last: None,
            seq: 0,
            most,
        }
    }

    /// The number of what is at a place.
    fn id_at(place: u32, perm: &Perm) -> i32 {
        (u32::from(perm.seq) * PLACES + place) as i32
    }

    /// What `id` is the number of.
    pub(crate) fn get(&mut self, id: i32) -> Result<&mut Entry<T>, Errno> {
        let place = id as u32 % PLACES;
        let entry = self.entries.get_mut(&place).filter(|_| id >= 0);
        entry
            .filter(|e| Self::id_at(place, &e.perm) == id)
            .ok_or(Errno::EINVAL)
    }

    /// What is at a place (`SHM_STAT` and its kin), with its number.
    pub(crate) fn at_place(&mut self, place: i32) -> Result<(i32, &mut Entry<T>), Errno> {
        let place = place as u32 % PLACES;
        let entry = self.entries.get_mut(&place).ok_or(Errno::EINVAL)?;
        Ok((Self::id_at(place, &entry.perm), entry))
    }

    /// The highest place in use; 0 when there is none.
    pub(crate) fn highest(&self) -> u32 {
        self.entries.keys().next_back().copied().unwrap_or(0)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of them, with their numbers.
    pub(crate) fn all(&self) -> impl Iterator<Item = (i32, &Entry<T>)> {
        self.entries
            .iter()
            .map(|(&place, e)| (Self::id_at(place, &e.perm), e))
    }

    /// The number for a key: that of what has it, once `fits` and the rights are checked, or of
    /// what `make` makes.
    pub(crate) fn obtain(
        &mut self,
        request: Request,
        creds: &Creds,
        fits: impl FnOnce(&T) -> Result<(), Errno>,
        make: impl FnOnce(&Self) -> Result<T, Errno>,
    ) -> Result<i32, Errno> {
        let Request { key, flags } = request;
        let found = self
            .entries
            .iter()
            .find(|(_, e)| key != IPC_PRIVATE && e.perm.key == key);
        if let Some((&place, entry)) = found {
            if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL {
                return Err(Errno::EEXIST);
            }
            fits(&entry.value)?;
            entry.perm.check(creds, flags & RIGHTS)?;
            return Ok(Self::id_at(place, &entry.perm));
        }
        if key != IPC_PRIVATE && flags & IPC_CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        let value = make(self)?;
        self.enter(request, creds, value)
    }

    fn enter(&mut self, request: Request, creds: &Creds, value: T) -> Result<i32, Errno> {
        let used = self.entries.len() as u32;
        if used >= self.most.min(PLACES) {
            return Err(Errno::ENOSPC);
        }
        let end = (used * 3 / 2).max(CYCLE).min(self.most.min(PLACES));
        let mut places = (self.next..end).chain(0..PLACES);
        let free = places.find(|p| !self.entries.contains_key(p));
        let place = free.ok_or(Errno::ENOSPC)?;
        if self.last.is_some_and(|last| place <= last) {
            self.seq = (self.seq + 1) % (PLACES as u16);
        }
        self.last = Some(place);
        self.next = place + 1;
        let (uid, gid) = (creds.user.effective, creds.group.effective);
        let perm = Perm {
            key: request.key,
            uid,
            gid,
            cuid: uid,
            cgid: gid,
            mode: request.flags & RIGHTS,
            seq: self.seq,
            ..Perm::default()
        };
        self.entries.insert(place, Entry { perm, value });
        Ok(Self::id_at(place, &perm))
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, id: i32) -> Option<Entry<T>> {
        self.get(id).ok()?;
        self.entries.remove(&(id as u32 % PLACES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private(table: &mut Table<u8>) -> i32 {
        let request = Request {
            key: IPC_PRIVATE,
            flags: 0o600,
        };
        let made = table.obtain(request, &Creds::default(), |_| Ok(()), |_| Ok(1));
        made.unwrap()
    }

    #[test]
    fn numbers_come_again_late_and_never_the_same() {
        let mut table = Table::new(200);
        let first = private(&mut table);
        table.remove(first).unwrap();
        let mut numbers = alloc::vec![first];
        for _ in 0..300 {
            let id = private(&mut table);
            assert!(!numbers.contains(&id));
            numbers.push(id);
            table.remove(id).unwrap();
        }
        assert_eq!(table.get(first).err(), Some(Errno::EINVAL));
        assert_eq!(table.get(-1).err(), Some(Errno::EINVAL));
        assert_eq!(size_of::<Perm>(), 48);
    }

    #[test]
    fn keys_are_found_and_rights_checked() {
        let mut table: Table<u8> = Table::new(2);
        let mut me = Creds::default();
        me.user.effective = 5;
        let ask = |flags| Request { key: 7, flags };
        let fit = |_: &u8| Ok(());
        assert_eq!(
            table.obtain(ask(0o600), &me, fit, |_| Ok(1)),
            Err(Errno::ENOENT)
        );
        let id = table.obtain(ask(IPC_CREAT | 0o600), &me, fit, |_| Ok(1));
        assert_eq!(table.obtain(ask(0o600), &me, fit, |_| Ok(2)), id);
        let both = IPC_CREAT | IPC_EXCL;
        assert_eq!(
            table.obtain(ask(both), &me, fit, |_| Ok(2)),
            Err(Errno::EEXIST)
        );
        me.user.effective = 6;
        assert_eq!(
            table.obtain(ask(0o600), &me, fit, |_| Ok(2)),
            Err(Errno::EACCES)
        );
        assert_eq!(table.obtain(ask(0), &me, fit, |_| Ok(2)), id);
        private(&mut table);
        let full = Request {
            key: 9,
            flags: IPC_CREAT,
        };
        assert_eq!(table.obtain(full, &me, fit, |_| Ok(2)), Err(Errno::ENOSPC));
    }
}
