//! Where a path leads: to a file of the host, or to something of ours.
//!
//! Ours are `/proc/self` and `/proc/PID` (the host's numbers mean nothing to a guest), the
//! memory figures and the settings of `/proc`, and `/dev/fd` with its relatives. They are recognised in the text of
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
    /// The path of a directory of ours; `dir` then only stands for it.
    own: Option<Vec<u8>>,
}

impl<P: Platform> WorkingDir<P> {
    /// The runner's own.
    pub(crate) fn runner() -> Self {
        WorkingDir {
            dir: None,
            own: None,
        }
    }

    /// An open directory.
    pub(crate) fn at(dir: P::File) -> Self {
        WorkingDir {
            dir: Some(dir),
            own: None,
        }
    }

    /// A directory of ours.
    pub(crate) fn own(dir: P::File, path: Vec<u8>) -> Self {
        WorkingDir {
            dir: Some(dir),
            own: Some(path),
        }
    }

    /// Whether it has lost its name.
    pub(crate) fn is_removed(&self) -> Result<bool, Errno> {
        match &self.dir {
            Some(dir) => Ok(dir.stat()?.links == 0),
            None => Ok(false),
        }
    }

    /// Its absolute path.
    pub(crate) fn path(&self, platform: &P) -> Result<Vec<u8>, Errno> {
        if let Some(own) = &self.own {
            return Ok(own.clone());
        }
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
    /// `/proc/thread-self`.
    ThreadLink,
    /// Another file of `/proc`, by its path below that; `/proc` itself when that is empty.
    System(Vec<u8>),
    /// `/dev/kpmap`.
    KernelPage,
}

impl Own {
    /// A number for `stat`: the same for the same path.
    pub(crate) fn number(&self) -> u64 {
        let (seed, name): (u64, &[u8]) = match self {
            Own::Fd(fd) => (u64::from(*fd) + 1, b""),
            Own::Process(pid, name) => (u64::from(*pid) << 20, name),
            Own::System(name) => (1 << 52, name),
            Own::SelfLink => (1 << 53, b""),
            Own::ThreadLink => (1 << 54, b""),
            Own::KernelPage => (1 << 55, b""),
        };
        let step = |sum: u64, b: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*b));
        name.iter().fold(seed, step) | 1 << 60
    }
}

/// Files of `/proc` that are about the guests, and not about the host.
const FIGURES: [&[u8]; 5] = [b"meminfo", b"vmstat", b"swaps", b"loadavg", b"sysvipc"];

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
        [b"proc"] => Some(Own::System(Vec::new())),
        [b"proc", b"self"] => Some(Own::SelfLink),
        [b"proc", b"thread-self"] => Some(Own::ThreadLink),
        [b"proc", name] if FIGURES.contains(name) => Some(Own::System(name.to_vec())),
        [b"proc", b"sys", _, _, ..] | [b"proc", b"sysvipc", _] => {
            Some(Own::System(parts(path)[1..].join(&b'/')))
        }
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
        let file = self.file(fd as u64)?;
        if let Kind::Listing(listing) = &file.kind {
            // What is not ours below a directory of ours is the host's.
            let flags = abi::O_PATH | abi::O_DIRECTORY;
            if let Ok(dir) = self.sys.platform.open(None, listing.name(), flags, 0) {
                let dir = WorkingDir::own(dir, listing.name().to_vec());
                return Ok(Start::Dir(Arc::new(dir)));
            }
        }
        Ok(Start::File(file))
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

    /// What of ours the path names, if anything; a relative one begins at the working directory.
    pub(crate) fn own_path(&self, path: &[u8]) -> Option<Own> {
        self.own_path_at(AT_FDCWD as u64, path).map(|(own, _)| own)
    }

    /// What of ours a path names that is relative to `fd`, and its absolute text.
    pub(crate) fn own_path_at(&self, fd: u64, path: &[u8]) -> Option<(Own, Vec<u8>)> {
        let full = match path.first()? {
            b'/' => path.to_vec(),
            _ => [&self.own_start(fd, path)?[..], b"/", path].concat(),
        };
        let mut own = own(&full, self.process.pid)?;
        if let Own::Process(pid, name) = &mut own
            && parts(&full).get(1) == Some(&&b"thread-self"[..])
        {
            let tid = self.thread.tid();
            let within = alloc::format!("task/{tid}/").into_bytes();
            debug_assert_eq!(*pid, self.process.pid);
            *name = [&within[..], name].concat();
        }
        Some((own, full))
    }

    /// The path of a directory of ours that relative paths begin at.
    fn own_start(&self, fd: u64, path: &[u8]) -> Option<Vec<u8>> {
        if fd as i32 == AT_FDCWD {
            let cwd = self.process.cwd();
            // From anywhere else, only what begins so can lead to us.
            let may = path.starts_with(b"proc") || path.starts_with(b"..");
            return match &cwd.own {
                Some(own) => Some(own.clone()),
                None if may => cwd.path(&self.sys.platform).ok(),
                None => None,
            };
        }
        match &self.file(fd).ok()?.kind {
            Kind::Listing(listing) => Some(listing.name().to_vec()),
            _ => None,
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
        assert_eq!(
            own(b"/proc/meminfo", 7),
            Some(Own::System(b"meminfo".to_vec()))
        );
        assert_eq!(
            own(b"/proc/sys/vm/swappiness", 7),
            Some(Own::System(b"sys/vm/swappiness".to_vec()))
        );
        assert_eq!(own(b"/proc", 7), Some(Own::System(Vec::new())));
        assert_eq!(own(b"/proc/thread-self", 7), Some(Own::ThreadLink));
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
            b"/proc/cpuinfo",
            b"/proc/sys/vm",
            b"/dev/fd/x",
            b"/",
            b"",
        ] {
            assert_eq!(own(path, 7), None);
        }
        assert_eq!(own(b"/dev/fd/99999999999", 7), None);
    }
}
