//! Calls that change the machine as a whole: refused to everybody, as Linux refuses them to all
//! but the superuser; and calls that ordinary kernels lack.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::thread::Task;
use linux_raw_sys::general as abi;

const IOPRIO_PROCESS: u64 = 1;
const IOPRIO_USER: u64 = 3;
/// `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 4)`: that of whoever never set one.
const IOPRIO_USUAL: u64 = 2 << 13 | 4;

impl<P: Platform> Task<P> {
    pub(super) const REFUSED: Calls<P> = &[
        (abi::__NR_acct, Self::refused),
        (abi::__NR_chroot, Self::chroot),
        (abi::__NR_mount, Self::refused),
        (abi::__NR_umount2, Self::refused),
        (abi::__NR_pivot_root, Self::refused),
        (abi::__NR_swapon, Self::refused),
        (abi::__NR_swapoff, Self::refused),
        (abi::__NR_reboot, Self::refused),
        (abi::__NR_sethostname, Self::refused),
        (abi::__NR_setdomainname, Self::refused),
        (abi::__NR_init_module, Self::refused),
        (abi::__NR_finit_module, Self::refused),
        (abi::__NR_delete_module, Self::refused),
        (abi::__NR_iopl, Self::refused),
        (abi::__NR_ioperm, Self::refused),
        (abi::__NR_quotactl, Self::refused),
        (abi::__NR_syslog, Self::refused),
        (abi::__NR_vhangup, Self::refused),
        (abi::__NR_setns, Self::refused),
        (abi::__NR_fanotify_init, Self::refused),
        (abi::__NR_open_by_handle_at, Self::refused),
        (abi::__NR_name_to_handle_at, Self::unsupported),
        (abi::__NR_ptrace, Self::refused),
        (abi::__NR_perf_event_open, Self::refused),
        (abi::__NR_bpf, Self::refused),
        (abi::__NR_ioprio_get, Self::ioprio_get),
        (abi::__NR_ioprio_set, Self::ioprio_set),
    ];

    fn refused(&mut self, _: Args) -> Answer {
        Err(Errno::EPERM)
    }

    fn unsupported(&mut self, _: Args) -> Answer {
        Err(Errno::EOPNOTSUPP)
    }

    /// The path is looked at first, as on Linux.
    fn chroot(&mut self, [path, ..]: Args) -> Answer {
        let path = self.path(path)?;
        let start = self.start_for(abi::AT_FDCWD as u64, &path)?;
        let flags = abi::O_PATH | abi::O_DIRECTORY;
        self.sys.platform.open(start.base()?, &path, flags, 0)?;
        Err(Errno::EPERM)
    }

    fn ioprio_get(&mut self, [which, who, ..]: Args) -> Answer {
        if !(IOPRIO_PROCESS..=IOPRIO_USER).contains(&which) {
            return Err(Errno::EINVAL);
        }
        if which == IOPRIO_PROCESS {
            self.check_scheduled(who)?;
        }
        Ok(IOPRIO_USUAL)
    }

    fn ioprio_set(&mut self, [which, who, priority, ..]: Args) -> Answer {
        let (class, level) = (priority as u32 >> 13, priority & 0x1fff);
        if !(IOPRIO_PROCESS..=IOPRIO_USER).contains(&which) || class > 3 || level > 7 {
            return Err(Errno::EINVAL);
        }
        if class == 1 && !self.capable(crate::creds::cap::SYS_NICE) {
            return Err(Errno::EPERM);
        }
        if which == IOPRIO_PROCESS {
            self.check_scheduled(who)?;
        }
        Ok(0)
    }
}
