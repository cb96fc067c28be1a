//! The host's system calls that several files need, each behind a safe face.

use crate::error::HostedError;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// A file of `bytes` bytes of zero that lives in memory and has no name: a memfd, or a file that
/// is deleted at once where memfd is refused. Not inherited over `exec`.
pub(crate) fn memory_file(name: &CStr, bytes: u64) -> Result<OwnedFd, HostedError> {
    let fd = memfd(name).or_else(|_| unnamed_file());
    let fd = fd.map_err(|e| HostedError::Memory(bytes, e))?;
    let file = File::from(fd);
    file.set_len(bytes)
        .map_err(|e| HostedError::Memory(bytes, e))?;
    Ok(file.into())
}

/// An empty memfd that may be executed and mapped for execution.
pub(crate) fn memfd(name: &CStr) -> io::Result<OwnedFd> {
    let open = |flags| {
        // SAFETY: `name` is a string that ends with zero; the call touches nothing else of ours.
        unsafe { libc::memfd_create(name.as_ptr(), flags) }
    };
    let mut fd = open(libc::MFD_CLOEXEC | libc::MFD_EXEC);
    if fd < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
        fd = open(libc::MFD_CLOEXEC); // before Linux 6.3
    }
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the host just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An empty file without a name, in memory if the host has a place for it, that may be mapped for
/// execution. `TMPDIR` is asked first.
pub(crate) fn unnamed_file() -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let wish = std::env::var_os("TMPDIR").map(std::path::PathBuf::from);
    let others = ["/dev/shm", "/tmp", "/var/tmp"].map(std::path::PathBuf::from);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for dir in wish.into_iter().chain(others) {
        let file = File::options()
            .read(true)
            .write(true)
            .mode(0o700)
            .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
            .open(dir);
        match file.and_then(|f| allows_execution(&f).map(|()| f)) {
            Ok(f) => return Ok(f.into()),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Whether `file` may be mapped for execution: not on a `noexec` mount.
fn allows_execution(file: &File) -> io::Result<()> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_SHARED);
    // SAFETY: a new mapping at an address of the host's choice; it is never touched.
    let p = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, file.as_raw_fd(), 0) };
    if p == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping just made; nothing points into it.
    unsafe { libc::munmap(p, 4096) };
    Ok(())
}

/// A shared mapping of a whole file into this process.
pub(crate) struct View {
    base: NonNull<u8>,
    bytes: u64,
}

// SAFETY: a view is an address and a length; what is done with the bytes is the users' concern,
// who state it at each access.
unsafe impl Send for View {}
// SAFETY: as above; the view itself never changes.
unsafe impl Sync for View {}

impl View {
    /// Maps the first `bytes` bytes of `fd`, for reading and writing.
    pub(crate) fn new(fd: &OwnedFd, bytes: u64) -> Result<View, HostedError> {
        let refused = || HostedError::View(bytes, io::Error::last_os_error());
        let len = usize::try_from(bytes).map_err(|_| refused())?;
        // SAFETY: a new mapping at an address of the host's choice touches no memory of ours.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(p.cast::<u8>()) {
            Some(base) if p != libc::MAP_FAILED => {
                // Forked children of the program around us have no business with it.
                // SAFETY: advice about our own mapping; it changes nothing here.
                unsafe { libc::madvise(p, len, libc::MADV_DONTFORK) };
                Ok(View { base, bytes })
            }
            _ => Err(refused()),
        }
    }

    /// The address of byte `offset`, which lies in the view (asserted).
    pub(crate) fn at(&self, offset: u64) -> *mut u8 {
        assert!(offset < self.bytes);
        // SAFETY: the offset lies in the mapping, by the assertion.
        unsafe { self.base.as_ptr().add(offset as usize) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever holds a pointer into it holds the view too.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes as usize) };
    }
}

/// Sleeps while `word` holds `value`, for at most `nanoseconds`; the word may be shared with
/// other processes. Tells whether time ran out. May return early.
pub(crate) fn futex_wait(word: &AtomicU32, value: u32, nanoseconds: Option<u64>) -> bool {
    let time = nanoseconds.map(|n| libc::timespec {
        tv_sec: (n / 1_000_000_000) as i64,
        tv_nsec: (n % 1_000_000_000) as i64,
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word is valid for the call, the time is null or valid for the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            time,
        )
    };
    answer < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT)
}

/// Wakes up to `count` sleepers on `word`, in any process.
pub(crate) fn futex_wake(word: &AtomicU32, count: i32) {
    // SAFETY: the call only uses the address as a name.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
}

/// Whether the host lets programs use `rdfsbase` and its kin.
pub(crate) fn can_set_bases() -> bool {
    const FSGSBASE: libc::c_ulong = 2;
    // SAFETY: no pointer.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & FSGSBASE != 0 }
}

/// The processors that the calling thread may run on.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero set is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours and as large as we say.
    let r = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    if r != 0 {
        return vec![0];
    }
    // SAFETY: the index stays below the set's size.
    (0..libc::CPU_SETSIZE as usize)
        .filter(|&i| unsafe { libc::CPU_ISSET(i, &set) })
        .collect()
}

/// Confines thread `tid` (0: the caller) to `cpus`. A refusal only costs speed.
pub(crate) fn pin(tid: i32, cpus: &[usize]) {
    // SAFETY: an all-zero set is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: `CPU_SET` checks the index against the set's size.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the set is ours and as large as we say.
    unsafe { libc::sched_setaffinity(tid, size_of_val(&set), &set) };
}

/// Returns when every thread of the host has ordered its memory accesses (`membarrier`).
pub(crate) fn barrier() {
    // SAFETY: no memory is passed. Where the host has no such call, the fence orders our own.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// Nanoseconds for which thread `tid` of process `pid` has run; 0 where the host does not tell.
pub(crate) fn cpu_time(pid: i32, tid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"));
    let first = text.ok().and_then(|t| t.split(' ').next()?.parse().ok());
    first.unwrap_or(0)
}

/// A child process: killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process(i32);

impl Process {
    /// Takes over child `pid` of this process, which nobody else reaps.
    pub(crate) fn new(pid: i32) -> Process {
        Process(pid)
    }

    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        self.0
    }

    /// Whether it has ended.
    pub(crate) fn is_dead(&self) -> bool {
        // SAFETY: an all-zero siginfo is valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        // SAFETY: `info` is ours; the call leaves the child unreaped.
        let r = unsafe { libc::waitid(libc::P_PID, self.0 as u32, &mut info, flags) };
        // SAFETY: `waitid` filled the part that `si_pid` reads, or left it zero.
        r != 0 || unsafe { info.si_pid() } != 0
    }

    /// Sends `signal` to thread `tid` of it.
    pub(crate) fn signal_thread(&self, tid: i32, signal: i32) {
        // SAFETY: no memory is passed. The process is not reaped before `self` is dropped, so
        // that the number is still its own.
        unsafe { libc::syscall(libc::SYS_tgkill, self.0, tid, signal) };
    }

    /// Ends it at once; it is reaped on drop.
    pub(crate) fn kill(&self) {
        // SAFETY: no memory is passed; the number is its own until it is reaped.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // A program that ignores SIGCHLD has its children reaped by the host: ECHILD is fine.
        // SAFETY: no memory is passed.
        while unsafe { libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}
