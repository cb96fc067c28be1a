//! What can be refused when a machine or a guest thread is made.

use std::fmt;
use std::io;

/// Why the host did not let us make a machine, a space or a guest thread. `Display` is one line
/// that names the missing right and the remedy.
#[derive(Debug)]
#[non_exhaustive]
pub enum HostedError {
    /// The size of memory is zero, not whole pages, or past what 32-bit frame numbers reach.
    BadSize(u64),
    /// Neither `memfd_create` nor a temporary file gave memory of so many bytes.
    Memory(u64, io::Error),
    /// `mmap` of guest memory into this process was refused, for so many bytes.
    View(u64, io::Error),
    /// A thread or process could not be made.
    Process(io::Error),
    /// The stub's executable was refused.
    Exec(io::Error),
    /// The system-call filter was refused.
    Seccomp(io::Error),
    /// `/proc` could not be read.
    Proc(io::Error),
    /// A system call that a stub needs was refused: its name.
    Stub(&'static str, io::Error),
    /// The stub ended while it was starting.
    StubDied,
    /// No slot is left for another guest thread.
    TooManyThreads,
    /// The machine has been dropped.
    MachineGone,
}

impl fmt::Display for HostedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSize(n) => write!(
                f,
                "{n} bytes is no size of memory: give whole 4 KiB pages, at least one, below 16 TiB"
            ),
            Self::Memory(n, e) => write!(
                f,
                "no file for {n} bytes of guest memory ({e}): allow memfd_create, or set TMPDIR to a directory that is writable, not mounted noexec and has room"
            ),
            Self::View(n, e) => write!(
                f,
                "cannot map {n} bytes of guest memory ({e}): raise the address-space limit (ulimit -v)"
            ),
            Self::Process(e) => write!(
                f,
                "cannot start a stub process or thread ({e}): raise the process limit (ulimit -u, pids cgroup) or allow clone"
            ),
            Self::Exec(e) => write!(
                f,
                "cannot execute the stub ({e}): allow execveat of a memfd, or set TMPDIR to a directory that is not mounted noexec"
            ),
            Self::Seccomp(e) => write!(
                f,
                "the stub may not filter its system calls ({e}): allow prctl(PR_SET_NO_NEW_PRIVS) and seccomp(SECCOMP_SET_MODE_FILTER), on a kernel with CONFIG_SECCOMP_FILTER"
            ),
            Self::Proc(e) => write!(f, "cannot read /proc ({e}): mount it"),
            Self::Stub(call, e) => write!(
                f,
                "the stub was refused {call} ({e}): allow this call for child processes"
            ),
            Self::StubDied => write!(
                f,
                "the stub process ended at its start: something outside killed it (a memory limit, or a policy on executable mappings)"
            ),
            Self::TooManyThreads => write!(f, "too many guest threads: end some"),
            Self::MachineGone => {
                write!(f, "the machine has been dropped: keep it while guests run")
            }
        }
    }
}

impl std::error::Error for HostedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Memory(_, e)
            | Self::View(_, e)
            | Self::Process(e)
            | Self::Exec(e)
            | Self::Seccomp(e)
            | Self::Proc(e)
            | Self::Stub(_, e) => Some(e),
            _ => None,
        }
    }
}
