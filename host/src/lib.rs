//! The hosted runner: what the Linux personality needs of the world, taken from the host.
//!
//! * `thread`: guest threads of the hosted machine, and the kicker that also ends waits;
//! * `file`: open files of the host, with the caller's own rights;
//! * `limits`: the runner's own limits;
//! * `path`: calls that take a path;
//! * `standing`: the runner's place among the host's processes;
//! * `swap`: a file to swap to;
//! * `terminal`: what is asked of a terminal;
//! * `identity`: whose rights a supervisor thread has for files.
//!
//! What is absent: any check of what a guest may touch. It may touch what its caller may.

#![forbid(unsafe_code)]

mod file;
mod identity;
mod limits;
mod path;
mod standing;
mod swap;
mod terminal;
mod thread;

pub use file::OpenHostFile;
pub use standing::standing;
pub use swap::{SwapFile, SwapFileError};
pub use thread::{HostKicker, HostThread};

use bsdvm::{SpaceId, VirtRange, Vm};
use bsdvm_hosted::{GuestThread, Hosted, HostedError};
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{
    AttributeChange, Base, FileStat, Follow, FsStat, Identity, PathChange, Platform, PollBits,
    Standing, SystemName,
};
use limits::Limits;
use rustix::io::Errno as HostErrno;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Mutex;

/// The error number of the personality for one of the host's.
pub(crate) fn errno(e: HostErrno) -> Errno {
    Errno(e.raw_os_error())
}

/// The host behind the personality.
#[derive(Debug)]
pub struct HostPlatform {
    identity: Identity,
    standing: Standing,
    /// What a guest finds as its limits.
    limits: Limits,
    /// Why the machine last refused a guest thread.
    refusal: Mutex<Option<HostedError>>,
}

impl HostPlatform {
    /// The host as the calling process sees it. Its limit of open files is raised as far as it
    /// goes; guests find the one that was.
    pub fn new() -> HostPlatform {
        let limits = limits::own();
        limits::lift(&limits);
        let standing = standing();
        // Modes are the guests' to mask, each with its own.
        rustix::process::umask(rustix::fs::Mode::empty());
        HostPlatform {
            identity: identity::own(),
            limits,
            standing,
            refusal: Mutex::new(None),
        }
    }

    /// Why the machine last refused a guest thread, as one line; taken out.
    pub fn take_refusal(&self) -> Option<String> {
        let mut refusal = self.refusal.lock().unwrap_or_else(|e| e.into_inner());
        refusal.take().map(|e| e.to_string())
    }
}

impl Default for HostPlatform {
    fn default() -> Self {
        HostPlatform::new()
    }
}

/// Linux's number of the clock of international atomic time.
const CLOCK_TAI: u32 = 11;

fn clock(id: rustix::time::ClockId) -> u64 {
    nanos(rustix::time::clock_gettime(id))
}

fn nanos(t: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(t.tv_nsec.unsigned_abs())
}

/// The host's clock of a number, but for the wall clock, the machine's and TAI. Guests read the
/// same ones by the vDSO.
fn other_clock(number: u32) -> Option<rustix::time::ClockId> {
    use rustix::time::ClockId;
    let others = [
        ClockId::MonotonicRaw,
        ClockId::RealtimeCoarse,
        ClockId::MonotonicCoarse,
        ClockId::Boottime,
    ];
    others.into_iter().find(|c| *c as u32 == number)
}

impl Platform for HostPlatform {
    type Machine = Hosted;
    type Thread = HostThread;
    type Kicker = HostKicker;
    type File = OpenHostFile;

    fn guest_thread(&self, vm: &Vm<Hosted>, space: SpaceId) -> Result<HostThread, Errno> {
        let pmap = vm
            .space(space)
            .with_pmap(Clone::clone)
            .ok_or(Errno::ESRCH)?;
        let made = GuestThread::spawn(vm.machine(), &pmap)
            .and_then(|t| HostThread::new(t, pmap).map_err(|e| HostedError::Process(e.into())));
        made.map_err(|e| {
            *self.refusal.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
            Errno::EAGAIN
        })
    }

    fn vdso(&self, vm: &Vm<Hosted>) -> Option<VirtRange> {
        vm.machine().vdso()
    }

    fn spawn(&self, body: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
        let builder = std::thread::Builder::new().name("guest".into());
        builder.spawn(body).map(drop).map_err(|_| Errno::EAGAIN)
    }

    fn wait_files(
        &self,
        kicker: &HostKicker,
        files: &[(&OpenHostFile, PollBits)],
        deadline: Option<u64>,
    ) -> Result<Vec<PollBits>, Errno> {
        kicker.wait_files(files, deadline)
    }

    fn standard(&self, number: u32) -> Option<OpenHostFile> {
        let fd = match number {
            0 => rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3),
            1 => rustix::io::fcntl_dupfd_cloexec(std::io::stdout().as_fd(), 3),
            2 => rustix::io::fcntl_dupfd_cloexec(std::io::stderr().as_fd(), 3),
            _ => return None,
        };
        fd.ok().map(OpenHostFile::new)
    }

    fn open(
        &self,
        base: Base<'_, OpenHostFile>,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<OpenHostFile, Errno> {
        path::open(base, path, flags, mode)
    }

    fn watcher(&self) -> Result<OpenHostFile, Errno> {
        let flags = rustix::fs::inotify::CreateFlags::CLOEXEC;
        let queue = rustix::fs::inotify::init(flags).map_err(errno)?;
        Ok(OpenHostFile::new(queue))
    }

    fn stat(
        &self,
        base: Base<'_, OpenHostFile>,
        path: &[u8],
        follow: Follow,
    ) -> Result<FileStat, Errno> {
        path::stat(base, path, follow)
    }

    fn read_link(&self, base: Base<'_, OpenHostFile>, path: &[u8]) -> Result<Vec<u8>, Errno> {
        path::read_link(base, path)
    }

    fn access(
        &self,
        base: Base<'_, OpenHostFile>,
        path: &[u8],
        mode: u32,
        flags: u32,
    ) -> Result<(), Errno> {
        path::access(base, path, mode, flags)
    }

    fn change(
        &self,
        base: Base<'_, OpenHostFile>,
        path: &[u8],
        change: PathChange<'_>,
    ) -> Result<(), Errno> {
        path::change(base, path, change)
    }

    fn rename(
        &self,
        from: (Base<'_, OpenHostFile>, &[u8]),
        to: (Base<'_, OpenHostFile>, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        path::rename(from, to, flags)
    }

    fn link(
        &self,
        from: (Base<'_, OpenHostFile>, &[u8]),
        to: (Base<'_, OpenHostFile>, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        path::link(from, to, flags)
    }

    fn xattr(
        &self,
        path: &[u8],
        name: &[u8],
        follow: Follow,
        buf: &mut [u8],
    ) -> Result<usize, Errno> {
        path::xattr(path, name, follow, buf)
    }

    fn list_xattr(&self, path: &[u8], follow: Follow, buf: &mut [u8]) -> Result<usize, Errno> {
        path::list_xattr(path, follow, buf)
    }

    fn change_xattr(
        &self,
        path: &[u8],
        name: &[u8],
        follow: Follow,
        change: AttributeChange<'_>,
    ) -> Result<(), Errno> {
        path::change_xattr(path, name, follow, change)
    }

    fn statfs(&self, path: &[u8]) -> Result<FsStat, Errno> {
        path::statfs(path)
    }

    fn barrier(&self) {
        bsdvm_hosted::barrier();
    }

    fn wall_clock(&self) -> u64 {
        clock(rustix::time::ClockId::Realtime)
    }

    fn other_clock(&self, number: u32) -> Option<u64> {
        use rustix::time::{DynamicClockId, clock_gettime_dynamic};
        if number == CLOCK_TAI {
            return clock_gettime_dynamic(DynamicClockId::Tai).ok().map(nanos);
        }
        other_clock(number).map(clock)
    }

    fn clock_resolution(&self, number: u32) -> Option<u64> {
        let resolution = rustix::time::clock_getres(other_clock(number)?);
        Some(resolution.tv_nsec.unsigned_abs())
    }

    fn cpu_time(&self) -> u64 {
        clock(rustix::time::ClockId::ThreadCPUTime)
    }

    fn random(&self, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            match rustix::rand::getrandom(&mut buf[done..], flags) {
                Ok(n) => done += n,
                Err(HostErrno::INTR) => {}
                Err(_) => break,
            }
        }
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn standing(&self) -> Standing {
        self.standing
    }

    fn stop(&self) {
        let own = rustix::process::getpid();
        // Whoever continues us sends SIGCONT, which the runner passes on.
        let _ = rustix::process::kill_process(own, rustix::process::Signal::STOP);
    }

    fn assume(&self, user: u32, group: u32, groups: &[u32]) -> Result<(), Errno> {
        identity::assume(user, group, groups)
    }

    fn system_name(&self) -> SystemName {
        let name = rustix::system::uname();
        SystemName {
            system: name.sysname().to_bytes().to_vec(),
            node: name.nodename().to_bytes().to_vec(),
            release: name.release().to_bytes().to_vec(),
            version: name.version().to_bytes().to_vec(),
            machine: name.machine().to_bytes().to_vec(),
            domain: b"(none)".to_vec(),
        }
    }

    fn limit(&self, resource: u32) -> (u64, u64) {
        let limit = self.limits.get(resource as usize).copied();
        limit.unwrap_or((u64::MAX, u64::MAX))
    }

    fn message(&self, line: &str) {
        // One write for one line; a standard error that is closed loses it.
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
    }

    fn name(&self) -> String {
        "hosted".into()
    }
}
