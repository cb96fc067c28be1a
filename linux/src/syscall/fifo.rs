//! Opening a FIFO of the host.
//!
//! The host would hold whoever opens one end until somebody opens the other, and no signal of the
//! guest would reach its supervisor meanwhile. So an end is opened without waiting, and the other is
//! looked for again and again, less often as time goes by.

use crate::blocking::{Unfinished, thread_channel};
use crate::errno::Errno;
use crate::platform::{Base, Follow, HostFile, Platform};
use crate::thread::Task;
use linux_raw_sys::general as abi;

/// How long the first pause between two looks is, and the longest, in nanoseconds.
const FIRST: u64 = 50_000;
const LONGEST: u64 = 10_000_000;

impl<P: Platform> Task<P> {
    /// Whether opening `path` so may have to wait for another end.
    pub(super) fn may_wait_for_end(
        &self,
        base: Base<'_, P::File>,
        path: &[u8],
        flags: u32,
    ) -> bool {
        let at_once = abi::O_NONBLOCK | abi::O_PATH | abi::O_DIRECTORY;
        if flags & at_once != 0 || flags & abi::O_ACCMODE == abi::O_RDWR {
            return false;
        }
        let stat = self.sys.platform.stat(base, path, Follow::Yes);
        stat.is_ok_and(|s| s.kind() == abi::S_IFIFO)
    }

    /// Opens one end of the FIFO at `path` when there is another, or as soon as there is.
    pub(super) fn open_fifo(
        &self,
        base: Base<'_, P::File>,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<P::File, Errno> {
        let mut pause = FIRST;
        let file = loop {
            let opened = self
                .sys
                .platform
                .open(base, path, flags | abi::O_NONBLOCK, mode);
            match opened {
                Err(Errno::ENXIO) => self.look_later(&mut pause)?,
                other => break other?,
            }
        };
        if flags & abi::O_ACCMODE == abi::O_RDONLY {
            while !file.has_writer()? {
                self.look_later(&mut pause)?;
            }
        }
        file.set_flags(file.flags()? & !abi::O_NONBLOCK)?;
        Ok(file)
    }

    /// Waits for so long; the next pause is longer.
    fn look_later(&self, pause: &mut u64) -> Result<(), Errno> {
        let until = self.sys.now().saturating_add(*pause);
        *pause = (*pause * 2).min(LONGEST);
        let channel = thread_channel(self.thread.tid());
        match self.wait_on(channel, Some(until), || None::<()>) {
            Ok(()) | Err(Unfinished::Deadline) => Ok(()),
            Err(signal) => Err(signal.into()),
        }
    }
}
