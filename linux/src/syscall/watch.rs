//! Watching files: `inotify`, the host's.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::file::OpenFile;
use crate::fs::table::OnExec;
use crate::platform::{HostFile, Platform};
use crate::thread::Task;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

impl<P: Platform> Task<P> {
    pub(super) const WATCH: Calls<P> = &[
        (abi::__NR_inotify_init, Self::inotify_init),
        (abi::__NR_inotify_init1, Self::inotify_init1),
        (abi::__NR_inotify_add_watch, Self::inotify_add_watch),
        (abi::__NR_inotify_rm_watch, Self::inotify_rm_watch),
    ];

    fn inotify_init(&mut self, _: Args) -> Answer {
        self.inotify_init1([0; 6])
    }

    fn inotify_init1(&mut self, [flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        if flags & !(abi::O_CLOEXEC | abi::O_NONBLOCK) != 0 {
            return Err(Errno::EINVAL);
        }
        let file = OpenFile::host(self.sys.platform.watcher()?)?;
        if flags & abi::O_NONBLOCK != 0 {
            file.set_flags(file.flags() | abi::O_NONBLOCK)?;
        }
        self.install(Arc::new(file), OnExec::from_flags(flags))
    }

    fn inotify_add_watch(&mut self, [fd, path, mask, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let host = file.as_host().ok_or(Errno::EINVAL)?;
        let path = self.path(path)?;
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let path = self.absolute(&path)?;
        Ok(u64::from(host.file.watch(&path, mask as u32)?))
    }

    fn inotify_rm_watch(&mut self, [fd, watch, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let host = file.as_host().ok_or(Errno::EINVAL)?;
        host.file.unwatch(watch as u32).map(|()| 0)
    }
}
