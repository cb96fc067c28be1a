//! Calls that change the machine as a whole: refused to everybody, as Linux refuses them to all
//! but the superuser; and calls that ordinary kernels lack.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::thread::Task;
use linux_raw_sys::general as abi;

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
        (abi::__NR_init_module, Self::refused),
        (abi::__NR_finit_module, Self::refused),
        (abi::__NR_delete_module, Self::refused),
        (abi::__NR_iopl, Self::refused),
        (abi::__NR_ioperm, Self::refused),
        (abi::__NR_quotactl, Self::refused),
        (abi::__NR_syslog, Self::refused),
        (abi::__NR_vhangup, Self::refused),
        (abi::__NR_setns, Self::refused),
        (abi::__NR_open_by_handle_at, Self::refused),
        (abi::__NR_name_to_handle_at, Self::unsupported),
        (abi::__NR_ptrace, Self::refused),
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
}
