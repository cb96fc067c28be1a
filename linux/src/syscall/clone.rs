//! New processes and threads.

use super::{Answer, Args, Calls};
use crate::blocking::all_channel;
use crate::creds::cap;
use crate::errno::Errno;
use crate::platform::{GuestThread, Platform};
use crate::process::{Process, Record};
use crate::signal::AltStack;
use crate::system::Linux;
use crate::thread::{Task, Thread};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What is asked for, however it was asked.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    flags: u32,
    exit_signal: u32,
    /// The new stack pointer; 0 keeps the old one.
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
    /// Where the new process's descriptor is stored.
    pidfd: u64,
    /// Whether the child catches nothing.
    clears: bool,
}

/// Namespaces, which this system has not.
const NAMESPACES: u32 = abi::CLONE_NEWNS
    | abi::CLONE_NEWCGROUP
    | abi::CLONE_NEWUTS
    | abi::CLONE_NEWIPC
    | abi::CLONE_NEWUSER
    | abi::CLONE_NEWPID
    | abi::CLONE_NEWNET;
/// The smallest `struct clone_args`.
const CLONE_ARGS: u64 = 64;
/// The flag of `clone3` that makes a child handle no signal.
const CLEAR_SIGHAND: u64 = 1 << 32;

/// `struct clone_args`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl CloneArgs {
    /// What is asked for, unless it makes no sense or needs what this system has not.
    fn wanted(self) -> Result<Wanted, Errno> {
        let refused = u64::from(abi::CSIGNAL | abi::CLONE_DETACHED);
        let flags = u32::try_from(self.flags & !CLEAR_SIGHAND).map_err(|_| Errno::EINVAL)?;
        let clears = self.flags & CLEAR_SIGHAND != 0;
        let unborn = flags & (abi::CLONE_THREAD | abi::CLONE_PARENT) != 0;
        let senseless = self.flags & refused != 0
            || (clears && flags & abi::CLONE_SIGHAND != 0)
            || (unborn && self.exit_signal != 0)
            || self.exit_signal > u64::from(crate::signal::SIGNALS)
            || (self.stack == 0) != (self.stack_size == 0)
            || self.set_tid != 0
            || self.set_tid_size != 0;
        if senseless {
            return Err(Errno::EINVAL);
        }
        let top = self.stack.checked_add(self.stack_size);
        Ok(Wanted {
            flags,
            exit_signal: self.exit_signal as u32,
            stack: top.ok_or(Errno::EINVAL)?,
            parent_tid: self.parent_tid,
            child_tid: self.child_tid,
            tls: self.tls,
            pidfd: self.pidfd,
            clears,
        })
    }
}

impl<P: Platform> Task<P> {
    pub(super) const CLONE: Calls<P> = &[
        (abi::__NR_fork, Self::fork),
        (abi::__NR_vfork, Self::vfork),
        (abi::__NR_clone, Self::clone),
        (abi::__NR_clone3, Self::clone3),
        (abi::__NR_unshare, Self::unshare),
    ];

    fn fork(&mut self, _: Args) -> Answer {
        self.create(Wanted {
            exit_signal: abi::SIGCHLD,
            ..Wanted::default()
        })
    }

    fn vfork(&mut self, _: Args) -> Answer {
        self.create(Wanted {
            flags: abi::CLONE_VM | abi::CLONE_VFORK,
            exit_signal: abi::SIGCHLD,
            ..Wanted::default()
        })
    }

    fn clone(&mut self, [flags, stack, parent_tid, child_tid, tls, _]: Args) -> Answer {
        let flags = flags as u32;
        // Both would be stored in the same place.
        let both = abi::CLONE_PIDFD | abi::CLONE_PARENT_SETTID;
        if flags & both == both {
            return Err(Errno::EINVAL);
        }
        self.create(Wanted {
            flags: flags & !abi::CSIGNAL,
            exit_signal: flags & abi::CSIGNAL,
            stack,
            parent_tid,
            child_tid,
            tls,
            pidfd: parent_tid,
            clears: false,
        })
    }

    fn clone3(&mut self, [at, size, ..]: Args) -> Answer {
        if size > Linux::<P>::PAGE_BYTES {
            return Err(Errno::E2BIG);
        }
        if size < CLONE_ARGS {
            return Err(Errno::EINVAL);
        }
        let mut args = CloneArgs::default();
        let raw = self.bytes(at, size as usize)?;
        let (known, rest) = raw.split_at(raw.len().min(size_of::<CloneArgs>()));
        if rest.iter().any(|&b| b != 0) {
            return Err(Errno::E2BIG);
        }
        args.as_mut_bytes()[..known.len()].copy_from_slice(known);
        self.create(args.wanted()?)
    }

    fn unshare(&mut self, [flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        let own = abi::CLONE_FS | abi::CLONE_FILES | abi::CLONE_SYSVSEM;
        let alone = abi::CLONE_THREAD | abi::CLONE_SIGHAND | abi::CLONE_VM;
        if flags & NAMESPACES != 0 {
            return Err(Errno::EPERM);
        }
        if flags & !(own | alone) != 0 {
            return Err(Errno::EINVAL);
        }
        let threads = {
            let table = self.sys.processes.lock();
            table.get(self.process.pid).map_or(1, |r| r.threads.len())
        };
        if flags & alone != 0 && threads > 1 {
            return Err(Errno::EINVAL);
        }
        if flags & abi::CLONE_FS != 0 {
            self.process.unshare_roots();
        }
        if flags & abi::CLONE_FILES != 0 {
            self.process.unshare_files();
        }
        Ok(0)
    }

    fn create(&mut self, wanted: Wanted) -> Answer {
        let has = |flag| wanted.flags & flag != 0;
        let thread = has(abi::CLONE_THREAD);
        let descriptor = has(abi::CLONE_PIDFD);
        let apart = has(abi::CLONE_NEWNS) || has(abi::CLONE_NEWUSER);
        let inconsistent = (thread && !has(abi::CLONE_SIGHAND))
            || (descriptor && (thread || has(abi::CLONE_DETACHED)))
            || (has(abi::CLONE_FS) && apart)
            || (has(abi::CLONE_SIGHAND) && !has(abi::CLONE_VM));
        if inconsistent || wanted.exit_signal > crate::signal::SIGNALS {
            return Err(Errno::EINVAL);
        }
        if has(NAMESPACES) {
            return Err(Errno::EPERM);
        }
        if !thread {
            self.check_process_limit()?;
        }
        let tid = self.sys.processes.lock().allocate_pid()?;
        let child = self.child_task(tid, &wanted)?;
        if has(abi::CLONE_PARENT_SETTID) {
            self.put(wanted.parent_tid, &tid)?;
        }
        if has(abi::CLONE_CHILD_SETTID) {
            // As Linux, which does it in the child and tells nobody when it fails.
            child
                .space
                .copy_out(wanted.child_tid, &tid.to_le_bytes())
                .ok();
        }
        if has(abi::CLONE_CHILD_CLEARTID) {
            child
                .thread
                .clear_tid
                .store(wanted.child_tid, Ordering::SeqCst);
        }
        let process = child.process.clone();
        let fd = match descriptor {
            true => Some(self.install_process(process.clone(), 0)?),
            false => None,
        };
        let stored = fd.map_or(Ok(()), |fd| self.put(wanted.pidfd, &(fd as u32)));
        let started = stored.and_then(|()| self.start(child, &wanted));
        if let (Err(_), Some(fd)) = (&started, fd) {
            drop(self.process.files().remove(fd as u32));
        }
        started?;
        if has(abi::CLONE_VFORK) {
            self.wait_for_vfork(&process);
        }
        Ok(u64::from(tid))
    }

    /// `RLIMIT_NPROC`, which does not hold for the superuser.
    fn check_process_limit(&self) -> Result<(), Errno> {
        const RLIMIT_NPROC: u32 = 6;
        let limit = self.process.limit(RLIMIT_NPROC);
        let creds = self.creds();
        let user = creds.user.real;
        let free = user == 0 || creds.capable(cap::SYS_RESOURCE) || creds.capable(cap::SYS_ADMIN);
        if limit == u64::MAX || free {
            return Ok(());
        }
        let table = self.sys.processes.lock();
        let own = |r: &&Record<P>| r.process.creds.lock().user.real == user;
        let threads: usize = table
            .records
            .values()
            .filter(own)
            .map(|r| r.threads.len())
            .sum();
        if threads as u64 >= limit {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    /// The new thread, ready to run but in no table yet.
    fn child_task(&mut self, tid: u32, wanted: &Wanted) -> Result<Task<P>, Errno> {
        let has = |flag| wanted.flags & flag != 0;
        let space = match has(abi::CLONE_VM) {
            true => self.space.clone(),
            false => {
                let space = self.forked_space()?;
                self.sys.segments.forked(self.sys, self.process.pid);
                space
            }
        };
        let mut cpu = self.sys.platform.guest_thread(self.sys.vm, space.id())?;
        let from = self.cpu.fpu();
        let to = cpu.fpu();
        if from.len() == to.len() {
            to.copy_from_slice(from);
        }
        let process = if has(abi::CLONE_THREAD) {
            self.process.clone()
        } else {
            let files = self.process.files();
            let files = match has(abi::CLONE_FILES) {
                true => files,
                false => Arc::new(files.forked()),
            };
            let (creds, now) = (self.creds(), self.sys.now());
            let child = self
                .process
                .child(tid, space.clone(), files, creds, (wanted.flags, now));
            if self.thread.policy.lock().reset_on_fork {
                child.nice.fetch_max(0, Ordering::Relaxed);
            }
            if wanted.clears {
                child.signals.lock().reset_for_exec();
            }
            child
        };
        let thread = Thread::new(tid, &cpu, self.creds());
        self.inherit_signals(&thread, wanted);
        thread.inherit(&self.thread);
        let mut child = Task::new(self.sys, process, thread, cpu, space);
        child.regs = self.regs;
        child.regs.rax = 0;
        if wanted.stack != 0 {
            child.regs.rsp = wanted.stack;
        }
        if has(abi::CLONE_SETTLS) {
            child.regs.fs_base = wanted.tls;
        }
        Ok(child)
    }

    fn forked_space(&self) -> Result<Arc<crate::space::AddressSpace<P>>, Errno> {
        loop {
            match self.space.fork() {
                Err(Errno::ENOMEM) if self.sys.vm.pageout_step(32) > 0 => {}
                other => return other,
            }
        }
    }

    fn inherit_signals(&self, thread: &Thread<P>, wanted: &Wanted) {
        let own = self.thread.signals.lock().clone();
        // A new stack has nothing to do with the alternate one of whoever made it; a child with
        // a copy of everything, or one whose parent waits for it, has the same.
        let shares_stack =
            wanted.flags & abi::CLONE_VM != 0 && wanted.flags & abi::CLONE_VFORK == 0;
        let mut new = thread.signals.lock();
        new.mask = own.saved_mask.unwrap_or(own.mask);
        new.alt_stack = if shares_stack {
            AltStack::default()
        } else {
            own.alt_stack
        };
    }

    /// Enters the new thread in the table and lets its supervisor run.
    fn start(&self, child: Task<P>, wanted: &Wanted) -> Result<(), Errno> {
        let process = child.process.clone();
        let thread = child.thread.clone();
        {
            let mut table = self.sys.processes.lock();
            let record = table.get_mut(self.process.pid).ok_or(Errno::EAGAIN)?;
            if record.ending.is_some() {
                return Err(Errno::EAGAIN);
            }
            if wanted.flags & abi::CLONE_THREAD != 0 {
                record.threads.push(thread.clone());
            } else {
                let with_parent = wanted.flags & abi::CLONE_PARENT != 0;
                let parent = if with_parent {
                    record.parent
                } else {
                    self.process.pid
                };
                let place = (parent, record.pgid, record.sid);
                table.enter(process.clone(), thread.clone(), place, wanted.exit_signal);
            }
        }
        let spawned = self.sys.platform.spawn(Box::new(move || child.supervise()));
        if spawned.is_err() {
            self.withdraw(&process, &thread);
        }
        spawned
    }

    fn withdraw(&self, process: &Arc<Process<P>>, thread: &Arc<Thread<P>>) {
        let mut table = self.sys.processes.lock();
        let empty = table.get_mut(process.pid).is_some_and(|record| {
            record.threads.retain(|t| !Arc::ptr_eq(t, thread));
            record.threads.is_empty()
        });
        let gone = if empty {
            table.records.remove(&process.pid)
        } else {
            None
        };
        drop(table);
        if gone.is_some() {
            process.shared.lock().space.take();
        }
    }

    /// A `vfork` parent stands still until its child has a space of its own or has ended. Only
    /// its own death ends that earlier.
    fn wait_for_vfork(&self, child: &Arc<Process<P>>) {
        loop {
            let ticket = self.sys.ticket(all_channel());
            self.thread
                .sleeping
                .store(all_channel().0, Ordering::SeqCst);
            if child.left_space.load(Ordering::SeqCst) || self.must_end() {
                break;
            }
            self.sys.sleep(all_channel(), ticket, None);
        }
        self.thread.sleeping.store(0, Ordering::SeqCst);
    }
}
