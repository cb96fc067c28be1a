//! Identities: user and group numbers, further groups, capabilities; the rules by which they change.
//!
//! Each thread has its own, as on Linux: a C library changes those of all threads one by one. What
//! files a thread may touch is decided by the host: its supervisor takes on the thread's identity
//! for files ([`crate::platform::Platform::assume`]). The set-user-ID bits of programs are ignored.

use crate::errno::Errno;
use crate::platform::Identity;
use alloc::vec::Vec;

/// Real, effective, saved, and the one that counts for files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ids {
    pub(crate) real: u32,
    pub(crate) effective: u32,
    pub(crate) saved: u32,
    pub(crate) files: u32,
}

/// What leaves an identity as it is.
pub(crate) const KEEP: u32 = u32::MAX;

impl Ids {
    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// `setuid`, `setgid`.
    pub(crate) fn set(&mut self, id: u32, privileged: bool) -> Result<(), Errno> {
        if id == KEEP {
            return Err(Errno::EINVAL);
        }
        if privileged {
            (self.real, self.saved) = (id, id);
        } else if id != self.real && id != self.saved {
            return Err(Errno::EPERM);
        }
        (self.effective, self.files) = (id, id);
        Ok(())
    }

    /// `setreuid`, `setregid`.
    pub(crate) fn set_two(&mut self, real: u32, effective: u32, free: bool) -> Result<(), Errno> {
        let old = *self;
        if real != KEEP && !free && real != old.real && real != old.effective {
            return Err(Errno::EPERM);
        }
        if effective != KEEP && !free && !old.has(effective) {
            return Err(Errno::EPERM);
        }
        if real != KEEP {
            self.real = real;
        }
        if effective != KEEP {
            self.effective = effective;
        }
        if real != KEEP || (effective != KEEP && effective != old.real) {
            self.saved = self.effective;
        }
        self.files = self.effective;
        Ok(())
    }

    /// `setresuid`, `setresgid`.
    pub(crate) fn set_three(&mut self, wanted: [u32; 3], free: bool) -> Result<(), Errno> {
        let old = *self;
        if !free && wanted.iter().any(|&id| id != KEEP && !old.has(id)) {
            return Err(Errno::EPERM);
        }
        let places = [&mut self.real, &mut self.effective, &mut self.saved];
        for (place, id) in places.into_iter().zip(wanted) {
            if id != KEEP {
                *place = id;
            }
        }
        self.files = self.effective;
        Ok(())
    }

    /// `setfsuid`, `setfsgid`: gives back what it was, whether or not it changed.
    pub(crate) fn set_files(&mut self, id: u32, privileged: bool) -> u32 {
        let old = self.files;
        if id != KEEP && (privileged || self.has(id) || id == old) {
            self.files = id;
        }
        old
    }
}

/// Numbers of capabilities.
#[allow(missing_docs)]
pub(crate) mod cap {
    pub(crate) const DAC_OVERRIDE: u32 = 1;
    pub(crate) const KILL: u32 = 5;
    pub(crate) const SETGID: u32 = 6;
    pub(crate) const SETUID: u32 = 7;
    pub(crate) const SETPCAP: u32 = 8;
    pub(crate) const IPC_LOCK: u32 = 14;
    pub(crate) const IPC_OWNER: u32 = 15;
    pub(crate) const SYS_PTRACE: u32 = 19;
    pub(crate) const SYS_ADMIN: u32 = 21;
    pub(crate) const SYS_NICE: u32 = 23;
    pub(crate) const SYS_RESOURCE: u32 = 24;
    pub(crate) const WAKE_ALARM: u32 = 35;
    /// One more than the highest.
    pub(crate) const COUNT: u32 = 41;
}

/// The capabilities that are about files: they follow the user number for files.
const OF_FILES: u64 = 0b1_1111 | 1 << 9 | 1 << 27 | 1 << 32;
/// Every capability that there is.
const ALL: u64 = (1 << cap::COUNT) - 1;

/// Sets of capabilities, bit n being number n.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Caps {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) bounding: u64,
    pub(crate) ambient: u64,
}

impl Caps {
    /// What the first of all processes has.
    pub(crate) const ALL: Caps = Caps {
        effective: ALL,
        permitted: ALL,
        inheritable: 0,
        bounding: ALL,
        ambient: 0,
    };
}

/// Who a thread is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Creds {
    pub(crate) user: Ids,
    pub(crate) group: Ids,
    pub(crate) groups: Vec<u32>,
    pub(crate) caps: Caps,
    /// `SECBIT_*`.
    pub(crate) secure_bits: u32,
    pub(crate) no_new_privileges: bool,
}

/// `SECBIT_KEEP_CAPS`.
pub(crate) const KEEP_CAPS: u32 = 1 << 4;
/// `SECBIT_NO_SETUID_FIXUP`.
const NO_FIXUP: u32 = 1 << 2;
/// `SECBIT_NOROOT`.
const NO_ROOT: u32 = 1;

impl Creds {
    /// The runner's own.
    pub(crate) fn of(id: &Identity) -> Creds {
        let ids = |real, effective| Ids {
            real,
            effective,
            saved: effective,
            files: effective,
        };
        Creds {
            user: ids(id.uid, id.euid),
            group: ids(id.gid, id.egid),
            groups: id.groups.clone(),
            caps: Caps {
                effective: id.capabilities & ALL,
                permitted: id.capabilities & ALL,
                bounding: ALL & !id.withheld,
                ..Caps::default()
            },
            secure_bits: 0,
            no_new_privileges: false,
        }
    }

    /// Whether it has capability number `n`.
    pub(crate) fn capable(&self, n: u32) -> bool {
        self.caps.effective >> n & 1 != 0
    }

    /// Whether `gid` is the effective group or among the others.
    pub(crate) fn in_group(&self, gid: u32) -> bool {
        self.group.effective == gid || self.groups.contains(&gid)
    }

    /// What a change of user numbers does to the capabilities.
    pub(crate) fn follow_users(&mut self, old: &Ids) {
        if self.secure_bits & NO_FIXUP != 0 {
            return;
        }
        let root = |ids: &Ids| ids.has(0);
        if root(old) && !root(&self.user) {
            if self.secure_bits & KEEP_CAPS == 0 {
                (self.caps.permitted, self.caps.effective) = (0, 0);
            }
            self.caps.ambient = 0;
        }
        match (old.effective, self.user.effective) {
            (0, new) if new != 0 => self.caps.effective = 0,
            (before, 0) if before != 0 => self.caps.effective = self.caps.permitted,
            _ => {}
        }
    }

    /// What a change of the user number for files does to them.
    pub(crate) fn follow_files(&mut self, old: u32) {
        if self.secure_bits & NO_FIXUP != 0 {
            return;
        }
        match (old, self.user.files) {
            (0, new) if new != 0 => self.caps.effective &= !OF_FILES,
            (before, 0) if before != 0 => {
                self.caps.effective |= self.caps.permitted & OF_FILES;
            }
            _ => {}
        }
    }

    /// What is left after `exec`.
    pub(crate) fn executed(&self) -> Creds {
        let mut new = self.clone();
        new.user.saved = new.user.effective;
        new.user.files = new.user.effective;
        new.group.saved = new.group.effective;
        new.group.files = new.group.effective;
        let root = self.user.real == 0 || self.user.effective == 0;
        let caps = &mut new.caps;
        if root && self.secure_bits & NO_ROOT == 0 {
            caps.permitted = caps.inheritable | caps.bounding;
            // Only what its maker had: a bounding set is wider than a runner's own.
            caps.permitted &= self.caps.permitted | self.caps.inheritable;
            caps.effective = if self.user.effective == 0 {
                caps.permitted
            } else {
                caps.ambient
            };
        } else {
            caps.permitted = caps.ambient;
            caps.effective = caps.ambient;
        }
        new.secure_bits &= !KEEP_CAPS;
        new
    }

    /// Whether who has these may send `other` a signal.
    pub(crate) fn may_signal(&self, other: &Creds) -> bool {
        let (from, to) = (&self.user, &other.user);
        [from.effective, from.real]
            .iter()
            .any(|&id| id == to.saved || id == to.real)
            || self.capable(cap::KILL)
    }

    /// Whether who has these may read and write `other`'s memory (`ptrace_may_access`, with the
    /// real numbers).
    pub(crate) fn may_attach(&self, other: &Creds) -> bool {
        let same = |mine: u32, o: &Ids| mine == o.real && mine == o.effective && mine == o.saved;
        let ids = same(self.user.real, &other.user) && same(self.group.real, &other.group);
        (ids && other.caps.permitted & !self.caps.permitted == 0) || self.capable(cap::SYS_PTRACE)
    }

    /// Whether who has these may change what is `other`'s: priority, affinity, limits.
    pub(crate) fn owns(&self, other: &Creds) -> bool {
        self.user.effective == other.user.real || self.user.effective == other.user.effective
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Creds {
        Creds::of(&Identity {
            capabilities: !0,
            ..Identity::default()
        })
    }

    #[test]
    fn who_leaves_root_behind_has_no_capabilities() {
        let mut creds = root();
        let old = creds.user;
        creds.user.set(1000, true).unwrap();
        creds.follow_users(&old);
        assert_eq!(creds.caps.effective | creds.caps.permitted, 0);
        assert_eq!(
            creds.user.set(0, creds.capable(cap::SETUID)),
            Err(Errno::EPERM)
        );
    }

    #[test]
    fn an_effective_number_comes_and_goes() {
        let mut creds = root();
        let old = creds.user;
        creds.user.set_three([KEEP, 5, KEEP], true).unwrap();
        creds.follow_users(&old);
        assert_eq!((creds.caps.effective, creds.caps.permitted), (0, ALL));
        let old = creds.user;
        creds.user.set_three([KEEP, 0, KEEP], false).unwrap();
        creds.follow_users(&old);
        assert_eq!(creds.caps.effective, ALL);
    }

    #[test]
    fn two_numbers_swap_and_the_saved_one_follows() {
        let mut ids = Ids {
            real: 1,
            effective: 2,
            saved: 2,
            files: 2,
        };
        ids.set_two(2, 1, false).unwrap();
        assert_eq!((ids.real, ids.effective, ids.saved), (2, 1, 1));
        assert_eq!(ids.set_two(KEEP, 7, false), Err(Errno::EPERM));
        assert_eq!(ids.set_files(9, false), 1);
        assert_eq!(ids.files, 1);
        assert_eq!(ids.set(KEEP, true), Err(Errno::EINVAL));
    }

    #[test]
    fn signals_go_to_ones_own() {
        let mut other = root();
        other.user.set(1, true).unwrap();
        let mut me = other.clone();
        me.caps = Caps::default();
        assert!(me.may_signal(&other));
        me.user.set(2, true).unwrap();
        assert!(!me.may_signal(&other));
        assert!(root().may_signal(&other));
    }
}
