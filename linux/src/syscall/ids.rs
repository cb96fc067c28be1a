//! Identities: asking for them and changing them.

use super::{Answer, Args, Calls};
use crate::creds::{Caps, Creds, Ids, KEEP, cap};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::{INIT, Process};
use crate::thread::Task;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// `NGROUPS_MAX`.
const GROUPS_MAX: u64 = 65536;
/// `_LINUX_CAPABILITY_VERSION_1` to `_3`.
const VERSIONS: [u32; 3] = [0x1998_0330, 0x2007_1026, 0x2008_0522];

impl<P: Platform> Task<P> {
    pub(super) const IDS: Calls<P> = &[
        (abi::__NR_getuid, Self::getuid),
        (abi::__NR_geteuid, Self::geteuid),
        (abi::__NR_getgid, Self::getgid),
        (abi::__NR_getegid, Self::getegid),
        (abi::__NR_getresuid, Self::getresuid),
        (abi::__NR_getresgid, Self::getresgid),
        (abi::__NR_getgroups, Self::getgroups),
        (abi::__NR_setgroups, Self::setgroups),
        (abi::__NR_setuid, Self::setuid),
        (abi::__NR_setgid, Self::setgid),
        (abi::__NR_setresuid, Self::setresuid),
        (abi::__NR_setresgid, Self::setresgid),
        (abi::__NR_setreuid, Self::setreuid),
        (abi::__NR_setregid, Self::setregid),
        (abi::__NR_setfsuid, Self::setfsuid),
        (abi::__NR_setfsgid, Self::setfsgid),
        (abi::__NR_capget, Self::capget),
        (abi::__NR_capset, Self::capset),
    ];

    /// Who this thread is.
    pub(crate) fn creds(&self) -> Creds {
        self.thread.creds.lock().clone()
    }

    /// Whether this thread has capability number `n`.
    pub(crate) fn capable(&self, n: u32) -> bool {
        self.thread.creds.lock().capable(n)
    }

    /// Gives this thread an identity. The first thread's counts as its process's.
    pub(crate) fn become_who(&mut self, creds: Creds) -> Result<(), Errno> {
        let (user, group) = (creds.user.files, creds.group.files);
        self.sys.platform.assume(user, group, &creds.groups)?;
        if self.thread.tid() == self.process.pid {
            *self.process.creds.lock() = creds.clone();
        }
        *self.thread.creds.lock() = creds;
        self.tell_answers();
        Ok(())
    }

    /// Whether this thread may send `signal` to `process`.
    pub(crate) fn may_signal(&self, process: &Process<P>, signal: u32) -> bool {
        if process.pid == self.process.pid {
            return true;
        }
        let other = process.creds.lock().clone();
        if self.creds().may_signal(&other) {
            return true;
        }
        let table = self.sys.processes.lock();
        let session = |pid| table.get(pid).map(|r| r.sid);
        signal == abi::SIGCONT && session(self.process.pid) == session(process.pid)
    }

    fn getuid(&mut self, _: Args) -> Answer {
        Ok(u64::from(self.creds().user.real))
    }

    fn geteuid(&mut self, _: Args) -> Answer {
        Ok(u64::from(self.creds().user.effective))
    }

    fn getgid(&mut self, _: Args) -> Answer {
        Ok(u64::from(self.creds().group.real))
    }

    fn getegid(&mut self, _: Args) -> Answer {
        Ok(u64::from(self.creds().group.effective))
    }

    fn put_three(&self, ids: Ids, [real, effective, saved, ..]: Args) -> Answer {
        self.put(real, &ids.real)?;
        self.put(effective, &ids.effective)?;
        self.put(saved, &ids.saved).map(|()| 0)
    }

    fn getresuid(&mut self, args: Args) -> Answer {
        self.put_three(self.creds().user, args)
    }

    fn getresgid(&mut self, args: Args) -> Answer {
        self.put_three(self.creds().group, args)
    }

    fn getgroups(&mut self, [room, to, ..]: Args) -> Answer {
        let groups = self.creds().groups;
        let room = room as i32;
        if room < 0 || (room > 0 && (room as usize) < groups.len()) {
            return Err(Errno::EINVAL);
        }
        if room > 0 {
            self.write_user(to, zerocopy::IntoBytes::as_bytes(groups.as_slice()))?;
        }
        Ok(groups.len() as u64)
    }

    fn setgroups(&mut self, [count, from, ..]: Args) -> Answer {
        if !self.capable(cap::SETGID) {
            return Err(Errno::EPERM);
        }
        let count = u64::from(count as u32);
        if count > GROUPS_MAX {
            return Err(Errno::EINVAL);
        }
        let raw = self.bytes(from, count as usize * 4)?;
        let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let mut groups: Vec<u32> = raw.chunks_exact(4).map(word).collect();
        if groups.contains(&KEEP) {
            return Err(Errno::EINVAL);
        }
        groups.sort_unstable();
        let creds = Creds {
            groups,
            ..self.creds()
        };
        self.become_who(creds).map(|()| 0)
    }

    fn change_user(&mut self, change: impl FnOnce(&mut Ids, bool) -> Result<(), Errno>) -> Answer {
        let mut creds = self.creds();
        let old = creds.user;
        let privileged = creds.capable(cap::SETUID);
        change(&mut creds.user, privileged)?;
        creds.follow_users(&old);
        self.become_who(creds).map(|()| 0)
    }

    fn change_group(&mut self, change: impl FnOnce(&mut Ids, bool) -> Result<(), Errno>) -> Answer {
        let mut creds = self.creds();
        let privileged = creds.capable(cap::SETGID);
        change(&mut creds.group, privileged)?;
        self.become_who(creds).map(|()| 0)
    }

    fn setuid(&mut self, [id, ..]: Args) -> Answer {
        self.change_user(|ids, free| ids.set(id as u32, free))
    }

    fn setgid(&mut self, [id, ..]: Args) -> Answer {
        self.change_group(|ids, free| ids.set(id as u32, free))
    }

    fn setresuid(&mut self, [a, b, c, ..]: Args) -> Answer {
        self.change_user(|ids, free| ids.set_three([a as u32, b as u32, c as u32], free))
    }

    fn setresgid(&mut self, [a, b, c, ..]: Args) -> Answer {
        self.change_group(|ids, free| ids.set_three([a as u32, b as u32, c as u32], free))
    }

    fn setreuid(&mut self, [a, b, ..]: Args) -> Answer {
        self.change_user(|ids, free| ids.set_two(a as u32, b as u32, free))
    }

    fn setregid(&mut self, [a, b, ..]: Args) -> Answer {
        self.change_group(|ids, free| ids.set_two(a as u32, b as u32, free))
    }

    fn setfsuid(&mut self, [id, ..]: Args) -> Answer {
        let mut creds = self.creds();
        let privileged = creds.capable(cap::SETUID);
        let old = creds.user.set_files(id as u32, privileged);
        creds.follow_files(old);
        self.become_who(creds)?;
        Ok(u64::from(old))
    }

    fn setfsgid(&mut self, [id, ..]: Args) -> Answer {
        let mut creds = self.creds();
        let privileged = creds.capable(cap::SETGID);
        let old = creds.group.set_files(id as u32, privileged);
        self.become_who(creds)?;
        Ok(u64::from(old))
    }

    /// How many words a set has in the version that the header asks for.
    fn capability_words(&self, header: u64, to: u64) -> Result<Option<(u32, i32)>, Errno> {
        let [version, pid]: [u32; 2] = self.get(header)?;
        match VERSIONS.iter().position(|&v| v == version) {
            Some(0) => Ok(Some((1, pid as i32))),
            Some(_) => Ok(Some((2, pid as i32))),
            None => {
                self.put(header, &VERSIONS[2])?;
                if to == 0 {
                    Ok(None)
                } else {
                    Err(Errno::EINVAL)
                }
            }
        }
    }

    fn capget(&mut self, [header, to, ..]: Args) -> Answer {
        let Some((words, pid)) = self.capability_words(header, to)? else {
            return Ok(0);
        };
        if pid < 0 {
            return Err(Errno::EINVAL);
        }
        let pid = pid as u32;
        let caps = if pid == 0 || pid == self.thread.tid() {
            self.creds().caps
        } else {
            let table = self.sys.processes.lock();
            let mut threads = table.records.values().flat_map(|r| r.threads.iter());
            let found = threads.find(|t| t.tid() == pid).cloned();
            drop(table);
            match found {
                Some(thread) => thread.creds.lock().caps,
                None if pid == INIT => Caps::ALL,
                None => return Err(Errno::ESRCH),
            }
        };
        let sets = [caps.effective, caps.permitted, caps.inheritable];
        let mut out = Vec::new();
        for word in 0..words {
            for set in sets {
                out.extend_from_slice(&((set >> (32 * word)) as u32).to_le_bytes());
            }
        }
        if to != 0 {
            self.write_user(to, &out)?;
        }
        Ok(0)
    }

    fn capset(&mut self, [header, from, ..]: Args) -> Answer {
        let Some((words, pid)) = self.capability_words(header, 1)? else {
            return Err(Errno::EINVAL);
        };
        if pid != 0 && pid as u32 != self.thread.tid() {
            return Err(Errno::EPERM);
        }
        let raw = self.bytes(from, words as usize * 12)?;
        let mut sets = [0u64; 3];
        for (i, b) in raw.chunks_exact(4).enumerate() {
            let word = u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            sets[i % 3] |= word << (32 * (i / 3));
        }
        let [effective, permitted, inheritable] = sets.map(|s| s & ((1 << cap::COUNT) - 1));
        let mut creds = self.creds();
        let old = creds.caps;
        let may_inherit = old.inheritable | old.permitted;
        let beyond = |new: u64, allowed: u64| new & !allowed != 0;
        if (!creds.capable(cap::SETPCAP) && beyond(inheritable, may_inherit))
            || beyond(inheritable, old.inheritable | old.bounding)
            || beyond(permitted, old.permitted)
            || beyond(effective, permitted)
        {
            return Err(Errno::EPERM);
        }
        creds.caps.effective = effective;
        creds.caps.permitted = permitted;
        creds.caps.inheritable = inheritable;
        creds.caps.ambient &= permitted & inheritable;
        self.become_who(creds).map(|()| 0)
    }
}
