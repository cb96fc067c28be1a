//! The zygote: a parked stub with an empty address space, which every other stub is forked from.
//!
//! It is made by `exec`, not forked out of this process: a child of libc that unmaps its rseq
//! area dies. The parent-death signal of a child fires when the *thread* that made it ends, so a
//! thread of ours, the keeper, makes the zygote and lives as long as the machine. The zygote's
//! children are made with CLONE_PARENT: they are the keeper's too.

use crate::clock;
use crate::error::HostedError;
use crate::mailbox::{Call, Mailbox, Report, SLOT_BYTES, Slot, Then, at};
use crate::seat::StubWait;
use crate::stub::{self, CODE_FD, CODE_VA, SLOT_VA};
use crate::sys::{self, Process};
use crate::vdso;
use bsdvm_machine::{VirtAddr, VirtRange};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// The zygote and its keeper.
pub(crate) struct Zygote {
    process: Process,
    slot: Slot,
    /// Dropped to end the keeper.
    leash: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Drop for Zygote {
    fn drop(&mut self) {
        self.process.kill();
        drop(self.leash.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl Zygote {
    /// Starts the zygote. Also gives what is left in its address space.
    pub(crate) fn start(
        ram: &OwnedFd,
        mailbox: &std::sync::Arc<Mailbox>,
        fsgs: bool,
    ) -> Result<(Zygote, Kept), HostedError> {
        let slot = mailbox.slot(SLOT_VA)?;
        slot.set32(at::FSGS, u32::from(fsgs));
        let file = stub_file()?;
        let fds = [ram.as_raw_fd(), mailbox.fd().as_raw_fd(), file.as_raw_fd()];
        let (leash, end) = mpsc::channel();
        let (answer, pid) = mpsc::channel();
        let keeper = std::thread::Builder::new()
            .name("bsdvm-keeper".into())
            .spawn(move || {
                let _ = answer.send(exec_stub(fds));
                let _ = end.recv();
            })
            .map_err(HostedError::Process)?;
        let pid = pid.recv().map_err(|_| HostedError::StubDied)??;
        let zygote = Zygote {
            process: Process::new(pid),
            slot,
            leash: Some(leash),
            keeper: Some(keeper),
        };
        let kept = zygote.settle()?;
        Ok((zygote, kept))
    }

    /// Empties the new process and takes its rights away; gives what stays in it.
    fn settle(&self) -> Result<Kept, HostedError> {
        self.wait()?;
        let mut kept = Kept::default();
        let (vdso, others) = vdso::split(leftovers(self.process.pid())?);
        let (vdso, spoilt) = vdso::keep(vdso, |call| self.order(call))?;
        if let Some(vdso) = vdso {
            kept.vdso = Some(vdso.image);
            kept.ranges = vdso.parts;
        }
        for range in others.into_iter().chain(spoilt) {
            let args = [range.start().0, range.len(), 0, 0, 0, 0];
            if self.order(Call::new(libc::SYS_munmap, args))?.is_err() {
                kept.ranges.push(range);
            }
        }
        let slot = self.slot.va();
        let zero = slot + at::SCRATCH + 128; // a limit of 0 and 0
        let core = u64::from(libc::RLIMIT_CORE);
        let must = |name, number, args| {
            self.order(Call::new(number, args))?
                .map_err(|e| HostedError::Stub(name, e))
        };
        must("close", libc::SYS_close, [CODE_FD, 0, 0, 0, 0, 0])?;
        must("prlimit64", libc::SYS_prlimit64, [0, core, zero, 0, 0, 0])?;
        let robust = [slot + at::ROBUST, 24, 0, 0, 0, 0];
        must("set_robust_list", libc::SYS_set_robust_list, robust)?;
        self.confine()?;
        Ok(kept)
    }

    /// Sets the filter of system calls.
    fn confine(&self) -> Result<(), HostedError> {
        let slot = &self.slot;
        for (i, word) in stub::filter().into_iter().enumerate() {
            slot.set(at::SCRATCH + 16 + i as u64 * 8, word);
        }
        let program = slot.va() + at::SCRATCH;
        slot.set(at::SCRATCH, stub::filter().len() as u64);
        slot.set(at::SCRATCH + 8, program + 16);
        let privs = [libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0, 0, 0];
        let mode = u64::from(libc::SECCOMP_SET_MODE_FILTER);
        let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        let filter = [mode, flags, program, 0, 0, 0];
        for (number, args) in [(libc::SYS_prctl, privs), (libc::SYS_seccomp, filter)] {
            self.order(Call::new(number, args))?
                .map_err(HostedError::Seccomp)?;
        }
        Ok(())
    }

    /// Forks a stub whose first thread has `slot`; gives it back parked.
    pub(crate) fn fork(&self, slot: &Slot) -> Result<Process, HostedError> {
        // Where the caller is: a conversation on one processor is several times as fast.
        sys::pin(self.process.pid(), &[clock::cpu()]);
        let flags = (libc::CLONE_PARENT | libc::SIGCHLD) as u64;
        let us = u64::from(std::process::id());
        let args = [flags, 0, 0, 0, us, slot.file_offset()];
        let pid = self
            .order(Call::new(libc::SYS_clone, args))?
            .map_err(HostedError::Process)?;
        let process = Process::new(pid as i32);
        match slot.wait(|| process.is_dead()) {
            Report::Trapped => Ok(process),
            Report::Gone => Err(HostedError::StubDied),
        }
    }

    fn order(&self, call: Call) -> Result<io::Result<u64>, HostedError> {
        self.slot.put(0, call);
        self.slot
            .command(self.process.pid(), 1, Then::Report, StubWait::SLEEP);
        self.wait()?;
        Ok(answer(self.slot.result(0)))
    }

    fn wait(&self) -> Result<(), HostedError> {
        match self.slot.wait(|| self.process.is_dead()) {
            Report::Trapped => Ok(()),
            Report::Gone => Err(HostedError::StubDied),
        }
    }
}

/// What a raw system call answered, as a result.
pub(crate) fn answer(raw: i64) -> io::Result<u64> {
    match raw {
        -4095..0 => Err(io::Error::from_raw_os_error(-raw as i32)),
        _ => Ok(raw as u64),
    }
}

/// The stub's executable. A host that refuses executable memfds gets a deleted file, opened anew
/// for reading only: a file that is open for writing cannot be executed.
fn stub_file() -> Result<OwnedFd, HostedError> {
    let (fd, is_memfd) = match sys::memfd(c"bsdvm-stub") {
        Ok(fd) => (fd, true),
        Err(_) => (sys::unnamed_file().map_err(HostedError::Exec)?, false),
    };
    let mut file = File::from(fd);
    file.write_all(&stub::elf()).map_err(HostedError::Exec)?;
    if is_memfd {
        return Ok(file.into());
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let reader = File::open(path).map_err(HostedError::Exec)?;
    Ok(reader.into())
}

/// What is left in the address space of every stub besides its code and its slots.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The host's vDSO, if guests can use it.
    pub(crate) vdso: Option<VirtRange>,
    /// All of what is left: the vDSO with its data, and what the host has sealed.
    pub(crate) ranges: Vec<VirtRange>,
}

/// The mappings of a fresh stub that are neither its code nor its slot, with their names.
fn leftovers(pid: i32) -> Result<Vec<(VirtRange, String)>, HostedError> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).map_err(HostedError::Proc)?;
    let mut ranges = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let bounds = words.next().unwrap_or("");
        let Some((start, end)) = bounds.split_once('-') else {
            continue;
        };
        let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        else {
            continue;
        };
        let ours = start >= CODE_VA && end <= SLOT_VA + SLOT_BYTES;
        let kernels = start >> 47 != 0; // [vsyscall]
        if let Some(range) = VirtRange::new(VirtAddr(start), VirtAddr(end))
            && !ours
            && !kernels
        {
            ranges.push((range, words.nth(4).unwrap_or("").to_owned()));
        }
    }
    Ok(ranges)
}

/// What the child between `clone` and `exec` needs; it runs on our memory.
struct Launch {
    fds: [i32; 3],
    parent: i32,
    errno: i32,
}

/// Makes the stub process: `exec` of the third of `fds`, all three as 0, 1 and 2.
fn exec_stub(fds: [i32; 3]) -> Result<i32, HostedError> {
    let mut launch = Launch {
        fds,
        parent: std::process::id() as i32,
        errno: 0,
    };
    let mut stack = vec![0u128; 4096];
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the child runs `launch_child` on a stack of its own, of 64 KiB, while this thread
    // sleeps until it has executed the stub or ended (CLONE_VFORK); `launch` and `stack` outlive
    // that. No handler of the program can run in the child: all signals are blocked.
    let (pid, refused) = with_signals_blocked(|| unsafe {
        let pid = libc::clone(
            launch_child,
            top.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut launch).cast(),
        );
        (pid, io::Error::last_os_error())
    });
    if pid < 0 {
        return Err(HostedError::Process(refused));
    }
    // SAFETY: the child wrote it, if at all, before this thread went on; read as what may have
    // changed behind the compiler's back.
    let errno = unsafe { (&raw const launch.errno).read_volatile() };
    if errno != 0 {
        drop(Process::new(pid));
        return Err(HostedError::Exec(io::Error::from_raw_os_error(errno)));
    }
    Ok(pid)
}

/// Calls `f` with all signals of this thread blocked.
fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: all-zero sets are valid; both are ours, and the thread's mask is put back below.
    let (mut all, mut old): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
    }
    let result = f();
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut()) };
    result
}

/// The child's way to `exec`: system calls only, nothing that takes a lock or allocates.
extern "C" fn launch_child(launch: *mut libc::c_void) -> libc::c_int {
    let launch = launch.cast::<Launch>();
    // SAFETY: `launch` is the parent's, which sleeps (see `exec_stub`), so that we are alone with
    // it. The calls take numbers and constant strings; descriptors are changed in the child only,
    // which has a table of its own.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != (*launch).parent {
            return 1;
        }
        libc::setsid();
        // Without randomisation the vDSO lies above the guest's range. Only a wish: some
        // sandboxes refuse it.
        let now = libc::personality(0xffff_ffff);
        if now >= 0 {
            libc::personality((now | libc::ADDR_NO_RANDOMIZE) as libc::c_ulong);
        }
        let mut high = [0; 3];
        for (to, from) in high.iter_mut().zip((*launch).fds) {
            *to = libc::fcntl(from, libc::F_DUPFD, 3);
        }
        for (to, from) in high.into_iter().enumerate() {
            libc::dup2(from, to as i32);
        }
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        let name = c"bsdvm-guest".as_ptr();
        let (argv, envp) = ([name, std::ptr::null()], [std::ptr::null::<libc::c_char>()]);
        libc::syscall(
            libc::SYS_execveat,
            CODE_FD,
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        (&raw mut (*launch).errno).write_volatile(*libc::__errno_location());
        libc::_exit(127)
    }
}
