//! Identities: the guest is who the runner is, and stays that. `Task::tell_answers` relies on it.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::thread::Task;
use linux_raw_sys::general as abi;

impl<P: Platform> Task<P> {
    pub(super) const IDS: Calls<P> = &[
        (abi::__NR_getuid, Self::getuid),
        (abi::__NR_geteuid, Self::geteuid),
        (abi::__NR_getgid, Self::getgid),
        (abi::__NR_getegid, Self::getegid),
        (abi::__NR_getresuid, Self::getresuid),
        (abi::__NR_getresgid, Self::getresgid),
        (abi::__NR_getgroups, Self::getgroups),
        (abi::__NR_setuid, Self::setuid),
        (abi::__NR_setgid, Self::setgid),
        (abi::__NR_setresuid, Self::setresuid),
        (abi::__NR_setresgid, Self::setresgid),
        (abi::__NR_setreuid, Self::setreuid),
        (abi::__NR_setregid, Self::setregid),
    ];

    fn getuid(&mut self, _: Args) -> Answer {
        Ok(u64::from(self.sys.platform.identity().uid))
    }

    fn geteuid(&mut self, _: Args) -> Answer {
        Ok(u64::from(self.sys.platform.identity().euid))
    }

    fn getgid(&mut self, _: Args) -> Answer {
        Ok(u64::from(self.sys.platform.identity().gid))
    }

    fn getegid(&mut self, _: Args) -> Answer {
        Ok(u64::from(self.sys.platform.identity().egid))
    }

    fn getresuid(&mut self, [real, effective, saved, ..]: Args) -> Answer {
        let id = self.sys.platform.identity();
        self.put(real, &id.uid)?;
        self.put(effective, &id.euid)?;
        self.put(saved, &id.euid).map(|()| 0)
    }

    fn getresgid(&mut self, [real, effective, saved, ..]: Args) -> Answer {
        let id = self.sys.platform.identity();
        self.put(real, &id.gid)?;
        self.put(effective, &id.egid)?;
        self.put(saved, &id.egid).map(|()| 0)
    }

    fn getgroups(&mut self, [room, to, ..]: Args) -> Answer {
        let groups = self.sys.platform.identity().groups;
        let room = room as i32;
        if room < 0 || (room > 0 && (room as usize) < groups.len()) {
            return Err(Errno::EINVAL);
        }
        if room > 0 {
            self.write_user(to, zerocopy::IntoBytes::as_bytes(groups.as_slice()))?;
        }
        Ok(groups.len() as u64)
    }

    /// Setting an identity succeeds when it changes nothing (-1 leaves as it is).
    fn stays(wanted: &[u64], mine: &[u32]) -> Answer {
        let same = |w: &u64| *w as u32 == u32::MAX || mine.contains(&(*w as u32));
        if wanted.iter().all(same) {
            Ok(0)
        } else {
            Err(Errno::EPERM)
        }
    }

    fn stays_user(&self, wanted: &[u64]) -> Answer {
        let id = self.sys.platform.identity();
        Self::stays(wanted, &[id.uid, id.euid])
    }

    fn stays_group(&self, wanted: &[u64]) -> Answer {
        let id = self.sys.platform.identity();
        Self::stays(wanted, &[id.gid, id.egid])
    }

    fn setuid(&mut self, [id, ..]: Args) -> Answer {
        self.stays_user(&[id])
    }

    fn setgid(&mut self, [id, ..]: Args) -> Answer {
        self.stays_group(&[id])
    }

    fn setresuid(&mut self, [a, b, c, ..]: Args) -> Answer {
        self.stays_user(&[a, b, c])
    }

    fn setresgid(&mut self, [a, b, c, ..]: Args) -> Answer {
        self.stays_group(&[a, b, c])
    }

    fn setreuid(&mut self, [a, b, ..]: Args) -> Answer {
        self.stays_user(&[a, b])
    }

    fn setregid(&mut self, [a, b, ..]: Args) -> Answer {
        self.stays_group(&[a, b])
    }
}
