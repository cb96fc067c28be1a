//! Where a path leads: to a file of the host, or to something of ours.
//!
//! Ours are `/proc/self` and `/proc/PID` (the host's numbers mean nothing to a guest), the
//! memory figures of `/proc`, and `/dev/fd` with its relatives. They are recognised in the text of
//! the path, `.` and `..` taken out; everything else the host resolves with the caller's rights.

use super::file::{Kind, OpenFile};
use crate::errno::Errno;
use crate::platform::{Base, HostFile, Platform};
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// `AT_FDCWD`, as the 32 bits that calls pass.
const AT_FDCWD: i32 = abi::AT_FDCWD;

/// The working directory of a process.
pub(crate) struct WorkingDir<P: Platform> {
    dir: Option<P::File>,
}

impl<P: Platform> WorkingDir<P> {
    /// The runner's own.
    pub(crate) fn runner() -> Self {
        WorkingDir { dir: None }
    }

    /// An open directory.
    pub(crate) fn at(dir: P::File) -> Self {
        WorkingDir { dir: Some(dir) }
    }

    /// Its absolute path.
    pub(crate) fn path(&self, platform: &P) -> Result<Vec<u8>, Errno> {
        match &self.dir {
            Some(dir) => dir.path(),
            None => platform
                .open(None, b".", abi::O_PATH | abi::O_DIRECTORY, 0)?
                .path(),
        }
    }
}

/// Where a relative path begins.
pub(crate) enum Start<P: Platform> {
    Dir(Arc<WorkingDir<P>>),
    File(Arc<OpenFile<P>>),
}

impl<P: Platform> Start<P> {
    /// For the platform's calls. A file that is not the host's is no directory.
    pub(crate) fn base(&self) -> Result<Base<'_, P::File>, Errno> {
        match self {
            Start::Dir(dir) => Ok(dir.dir.as_ref()),
            Start::File(file) => match &file.kind {
                Kind::Host(host) => Ok(Some(&*host.file)),
                _ => Err(Errno::ENOTDIR),
            },
        }
    }
}

/// A file of ours that a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Own {
    /// Descriptor n of the caller: `/dev/fd/n`, `/proc/self/fd/n`.
    Fd(u32),
    /// `/proc/PID/NAME`.
    Process(u32, Vec<u8>),
    /// `/proc/self`: a link to the number.
    SelfLink,
    /// `/proc/meminfo`.
    MemInfo,
    /// `/dev/kpmap`.
    KernelPage,
}

/// The parts of an absolute path without `.`, `..` and empty ones.
fn parts(path: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                out.pop();
            }
            _ => out.push(part),
        }
    }
    out
}

/// A decimal number without sign.
fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether an absolute path is that of the caller's own terminal.
pub(crate) fn is_own_terminal(path: &[u8]) -> bool {
    path.first() == Some(&b'/') && parts(path).as_slice() == [&b"dev"[..], b"tty"]
}

/// What of ours an absolute path names for process `pid`, if anything.
pub(crate) fn own(path: &[u8], pid: u32) -> Option<Own> {
    match parts(path).as_slice() {
        [b"dev", b"stdin"] => Some(Own::Fd(0)),
        [b"dev", b"stdout"] => Some(Own::Fd(1)),
        [b"dev", b"stderr"] => Some(Own::Fd(2)),
        [b"dev", b"fd", n] => number(n).map(Own::Fd),
        [b"dev", b"kpmap"] => Some(Own::KernelPage),
        [b"proc", b"meminfo"] => Some(Own::MemInfo),
        [b"proc", b"self" | b"thread-self"] => Some(Own::SelfLink),
        [b"proc", who, rest @ ..] => {
            let whose = match *who {
                b"self" | b"thread-self" => pid,
                digits => number(digits)?,
            };
            match rest {
                [b"fd", n] if whose == pid => number(n).map(Own::Fd),
                _ => Some(Own::Process(whose, rest.join(&b'/'))),
            }
        }
        _ => None,
    }
}

impl<P: Platform> Task<P> {
    /// The start of paths that are relative to `fd`.
    pub(crate) fn start_at(&self, fd: u64) -> Result<Start<P>, Errno> {
        let fd = fd as i32;
        if fd == AT_FDCWD {
            return Ok(Start::Dir(self.process.cwd()));
        }
        Ok(Start::File(self.file(fd as u64)?))
    }

    /// As [`Task::start_at`], for a path that may be absolute: then the descriptor does not matter.
    pub(crate) fn start_for(&self, fd: u64, path: &[u8]) -> Result<Start<P>, Errno> {
        let fd = if path.first() == Some(&b'/') {
            AT_FDCWD as u64
        } else {
            fd
        };
        self.start_at(fd)
    }

    /// What of ours the path names, if anything.
    pub(crate) fn own_path(&self, path: &[u8]) -> Option<Own> {
        if path.first() == Some(&b'/') {
            own(path, self.process.pid)
        } else {
            None
        }
    }

    /// The absolute text of a path, for calls that take no directory.
    pub(crate) fn absolute(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        if path.first() == Some(&b'/') || path.is_empty() {
            return Ok(path.to_vec());
        }
        let cwd = self.process.cwd();
        let mut full = cwd.path(&self.sys.platform)?;
        full.push(b'/');
        full.extend_from_slice(path);
        Ok(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_paths_are_recognised_however_they_are_written() {
        assert_eq!(
            own(b"/proc/self/maps", 7),
            Some(Own::Process(7, b"maps".to_vec()))
        );
        assert_eq!(
            own(b"//proc/./self/../7/maps", 7),
            Some(Own::Process(7, b"maps".to_vec()))
        );
        assert_eq!(own(b"/proc/self", 7), Some(Own::SelfLink));
        assert_eq!(
            own(b"/proc/12/stat", 7),
            Some(Own::Process(12, b"stat".to_vec()))
        );
        assert_eq!(own(b"/dev/fd/3", 7), Some(Own::Fd(3)));
        assert_eq!(own(b"/proc/self/fd/12", 7), Some(Own::Fd(12)));
        assert_eq!(own(b"/dev/stdin", 7), Some(Own::Fd(0)));
        assert_eq!(own(b"/proc/meminfo", 7), Some(Own::MemInfo));
        assert_eq!(own(b"/dev/kpmap", 7), Some(Own::KernelPage));
    }

    #[test]
    fn the_own_terminal_has_one_path() {
        assert!(is_own_terminal(b"/dev/../dev//tty"));
        assert!(!is_own_terminal(b"dev/tty"));
        assert!(!is_own_terminal(b"/dev/tty1"));
    }

    #[test]
    fn other_paths_are_the_hosts() {
        for path in [
            &b"/etc/passwd"[..],
            b"/proc",
            b"/proc/cpuinfo",
            b"/dev/fd/x",
            b"/",
            b"",
        ] {
            assert_eq!(own(path, 7), None);
        }
        assert_eq!(own(b"/dev/fd/99999999999", 7), None);
    }
}
