//! Processes: what their threads share, and the table of who is whose child.

use crate::blocking::{all_channel, child_channel};
use crate::creds::Creds;
use crate::errno::Errno;
use crate::exec::Image;
use crate::fs::locks::Owner;
use crate::fs::path::WorkingDir;
use crate::fs::table::FdTable;
use crate::platform::Platform;
use crate::signal::{ProcessSignals, SigInfo, SigSet};
use crate::space::AddressSpace;
use crate::syscall::prctl::Traits;
use crate::syscall::timer::Timers;
use crate::system::Linux;
use crate::thread::Thread;
use crate::usage::Used;
use crate::{Lock, rank};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use linux_raw_sys::general as abi;

/// How a program ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// It said so, with the low eight bits of its status.
    Code(u8),
    /// A signal killed it.
    Signal(u8),
}

impl ExitStatus {
    /// The status as `wait4` stores it.
    pub(crate) fn wait_word(self) -> u32 {
        match self {
            ExitStatus::Code(c) => u32::from(c) << 8,
            ExitStatus::Signal(n) => u32::from(n & 0x7f),
        }
    }
}

/// Where paths begin and what modes lack; shared with other processes after `CLONE_FS`.
pub(crate) struct Roots<P: Platform> {
    cwd: Arc<WorkingDir<P>>,
    umask: u32,
}

impl<P: Platform> Clone for Roots<P> {
    fn clone(&self) -> Self {
        Roots {
            cwd: self.cwd.clone(),
            umask: self.umask,
        }
    }
}

impl<P: Platform> Roots<P> {
    fn share(self) -> Arc<Lock<P, Roots<P>, { rank::ROOTS }>> {
        Arc::new(Lock::<P, _, { rank::ROOTS }>::new(self))
    }
}

/// What `exec` replaces in a process and `fork` copies.
pub(crate) struct Shared<P: Platform> {
    /// Gone when the process has ended.
    pub(crate) space: Option<Arc<AddressSpace<P>>>,
    pub(crate) files: Arc<FdTable<P>>,
    pub(crate) roots: Arc<Lock<P, Roots<P>, { rank::ROOTS }>>,
    /// `comm`: at most 15 bytes.
    pub(crate) name: Vec<u8>,
    /// The absolute path of the program.
    pub(crate) exe: Vec<u8>,
    /// Soft and hard limits by number.
    pub(crate) limits: [(u64, u64); 16],
}

/// A process: threads that share an address space, files and signal dispositions.
pub(crate) struct Process<P: Platform> {
    pub(crate) pid: u32,
    pub(crate) shared: Lock<P, Shared<P>, { rank::PROCESS }>,
    pub(crate) signals: Lock<P, ProcessSignals<P>, { rank::SIGNALS }>,
    /// Who its first thread is, or was.
    pub(crate) creds: Lock<P, Creds, { rank::THREAD }>,
    pub(crate) traits: Traits,
    /// When it began, on the machine's clock.
    pub(crate) born: u64,
    /// The nice value.
    pub(crate) nice: AtomicI32,
    pub(crate) timers: Lock<P, Timers, { rank::TIMER }>,
    /// The whole process is to end; its record says how.
    pub(crate) ending: AtomicBool,
    /// It is stopped by a signal.
    pub(crate) stopped: AtomicBool,
    /// It no longer uses the space that it had when it was made: a `vfork` parent may go on.
    pub(crate) left_space: AtomicBool,
    /// What threads that have ended used.
    pub(crate) used: Lock<P, Used, { rank::TIMER }>,
    /// What children that were waited for used.
    pub(crate) child_used: Lock<P, Used, { rank::TIMER }>,
}

impl<P: Platform> Process<P> {
    fn with(
        pid: u32,
        shared: Shared<P>,
        signals: ProcessSignals<P>,
        creds: Creds,
        (traits, born): (Traits, u64),
    ) -> Arc<Process<P>> {
        Arc::new(Process {
            pid,
            shared: Lock::<P, _, { rank::PROCESS }>::new(shared),
            signals: Lock::<P, _, { rank::SIGNALS }>::new(signals),
            creds: Lock::<P, _, { rank::THREAD }>::new(creds),
            traits,
            born,
            nice: AtomicI32::new(0),
            timers: Lock::<P, _, { rank::TIMER }>::new(Timers::default()),
            ending: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            left_space: AtomicBool::new(false),
            used: Lock::<P, _, { rank::TIMER }>::new(Used::default()),
            child_used: Lock::<P, _, { rank::TIMER }>::new(Used::default()),
        })
    }

    /// The first process of the system.
    pub(crate) fn first(
        sys: &Linux<P>,
        pid: u32,
        image: &Image<P>,
        files: Arc<FdTable<P>>,
    ) -> Arc<Process<P>> {
        let mut limits = [(u64::MAX, u64::MAX); 16];
        for (i, limit) in limits.iter_mut().enumerate() {
            *limit = sys.platform.limit(i as u32);
        }
        let shared = Shared {
            space: Some(image.space.clone()),
            files,
            roots: Roots {
                cwd: Arc::new(WorkingDir::runner()),
                umask: sys.platform.standing().umask,
            }
            .share(),
            name: image.name.clone(),
            exe: image.exe.clone(),
            limits,
        };
        let creds = Creds::of(&sys.platform.identity());
        let signals = ProcessSignals::default();
        Process::with(pid, shared, signals, creds, (Traits::new(), sys.now()))
    }

    /// A child with copies of what `fork` copies, and a part in what `flags` of `clone` share.
    pub(crate) fn child(
        &self,
        pid: u32,
        space: Arc<AddressSpace<P>>,
        files: Arc<FdTable<P>>,
        creds: Creds,
        (flags, born): (u32, u64),
    ) -> Arc<Process<P>> {
        let shared = self.shared.lock();
        let copy = Shared {
            space: Some(space),
            files,
            roots: match flags & abi::CLONE_FS {
                0 => shared.roots.lock().clone().share(),
                _ => shared.roots.clone(),
            },
            name: shared.name.clone(),
            exe: shared.exe.clone(),
            limits: shared.limits,
        };
        drop(shared);
        let signals = match flags & abi::CLONE_SIGHAND {
            0 => self.signals.lock().forked(),
            _ => self.signals.lock().shared(),
        };
        let child = Process::with(pid, copy, signals, creds, (self.traits.forked(), born));
        let nice = self.nice.load(Ordering::Relaxed);
        child.nice.store(nice, Ordering::Relaxed);
        child
    }

    /// The process's space, unless it has ended.
    pub(crate) fn space(&self) -> Option<Arc<AddressSpace<P>>> {
        self.shared.lock().space.clone()
    }

    /// Its table of descriptors.
    pub(crate) fn files(&self) -> Arc<FdTable<P>> {
        self.shared.lock().files.clone()
    }

    fn roots(&self) -> Arc<Lock<P, Roots<P>, { rank::ROOTS }>> {
        self.shared.lock().roots.clone()
    }

    /// Its working directory.
    pub(crate) fn cwd(&self) -> Arc<WorkingDir<P>> {
        self.roots().lock().cwd.clone()
    }

    /// Enters another directory; gives back the old one.
    pub(crate) fn set_cwd(&self, dir: WorkingDir<P>) -> Arc<WorkingDir<P>> {
        core::mem::replace(&mut self.roots().lock().cwd, Arc::new(dir))
    }

    /// The bits that modes of new files lack.
    pub(crate) fn umask(&self) -> u32 {
        self.roots().lock().umask
    }

    /// Sets them; gives back what they were.
    pub(crate) fn set_umask(&self, umask: u32) -> u32 {
        core::mem::replace(&mut self.roots().lock().umask, umask)
    }

    /// Where its directory and mask are: the same for those who share them.
    pub(crate) fn roots_place(&self) -> usize {
        Arc::as_ptr(&self.roots()).addr()
    }

    /// Shares directory and mask with nobody any more.
    pub(crate) fn unshare_roots(&self) {
        let own = self.roots().lock().clone().share();
        self.shared.lock().roots = own;
    }

    /// Shares descriptors with nobody any more.
    pub(crate) fn unshare_files(&self) {
        let files = Arc::new(self.files().forked());
        let old = core::mem::replace(&mut self.shared.lock().files, files);
        drop(old);
    }

    /// Its soft limit number `resource`.
    pub(crate) fn limit(&self, resource: u32) -> u64 {
        let limits = self.shared.lock().limits;
        limits.get(resource as usize).map_or(u64::MAX, |l| l.0)
    }
}

/// A change of state that a parent may wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    Alive,
    Ended(ExitStatus),
}

/// A stop or a continuation that was not waited for yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Report {
    Stopped(u8),
    Continued,
}

/// A process in the table.
pub(crate) struct Record<P: Platform> {
    pub(crate) process: Arc<Process<P>>,
    pub(crate) parent: u32,
    pub(crate) pgid: u32,
    pub(crate) sid: u32,
    pub(crate) life: Life,
    pub(crate) ending: Option<ExitStatus>,
    pub(crate) threads: Vec<Arc<Thread<P>>>,
    pub(crate) exit_signal: u32,
    pub(crate) report: Option<Report>,
    /// It has called `exec` since its `fork`: `setpgid` by its parent comes too late.
    pub(crate) executed: bool,
}

/// Every process, alive or waited for.
pub(crate) struct Processes<P: Platform> {
    pub(crate) records: BTreeMap<u32, Record<P>>,
    /// The first process: the program that the runner was asked to run.
    pub(crate) main: u32,
    next: u32,
}

/// The parent of those whose parent has ended, and of the first process. It reaps them at once.
pub(crate) const INIT: u32 = 1;
const PID_MAX: u32 = 1 << 22;

impl<P: Platform> Processes<P> {
    /// Without any; the first one will be `main`.
    pub(crate) fn new(main: u32) -> Self {
        let main = main.clamp(INIT + 1, PID_MAX - 1);
        Processes {
            records: BTreeMap::new(),
            main,
            next: main,
        }
    }

    /// A number that is no process's, thread's, group's or session's.
    pub(crate) fn allocate_pid(&mut self) -> Result<u32, Errno> {
        for _ in 0..PID_MAX {
            let pid = self.next;
            self.next = if pid + 1 >= PID_MAX {
                INIT + 1
            } else {
                pid + 1
            };
            let taken = self.records.contains_key(&pid)
                || self.records.values().any(|r| {
                    r.pgid == pid || r.sid == pid || r.threads.iter().any(|t| t.tid() == pid)
                });
            if !taken {
                return Ok(pid);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Enters the first process with its group and session.
    pub(crate) fn insert(
        &mut self,
        process: Arc<Process<P>>,
        thread: Arc<Thread<P>>,
        pgid: u32,
        sid: u32,
    ) {
        self.enter(process, thread, (INIT, pgid, sid), abi::SIGCHLD);
    }

    /// Enters a process with its parent, group and session.
    pub(crate) fn enter(
        &mut self,
        process: Arc<Process<P>>,
        thread: Arc<Thread<P>>,
        (parent, pgid, sid): (u32, u32, u32),
        exit_signal: u32,
    ) {
        self.records.insert(
            process.pid,
            Record {
                process,
                parent,
                pgid,
                sid,
                life: Life::Alive,
                ending: None,
                threads: alloc::vec![thread],
                exit_signal,
                report: None,
                executed: false,
            },
        );
    }

    pub(crate) fn get(&self, pid: u32) -> Option<&Record<P>> {
        self.records.get(&pid)
    }

    pub(crate) fn get_mut(&mut self, pid: u32) -> Option<&mut Record<P>> {
        self.records.get_mut(&pid)
    }

    /// Whether `tid` is a thread's number.
    pub(crate) fn has_thread(&self, tid: u32) -> bool {
        let mut records = self.records.values();
        records.any(|r| r.threads.iter().any(|t| t.tid() == tid))
    }

    /// The processes that have not ended.
    pub(crate) fn alive(&self) -> Vec<u32> {
        self.records
            .iter()
            .filter(|(_, r)| r.life == Life::Alive)
            .map(|(&pid, _)| pid)
            .collect()
    }

    pub(crate) fn status_of(&self, pid: u32) -> Option<ExitStatus> {
        match self.records.get(&pid)?.life {
            Life::Alive => None,
            Life::Ended(status) => Some(status),
        }
    }

    /// Who takes the children of `pid` when it ends: the nearest of its forebears that asked for
    /// orphans, or [`INIT`].
    fn reaper_of(&self, pid: u32) -> u32 {
        let mut at = pid;
        while let Some(parent) = self.get(at).and_then(|r| self.get(r.parent)) {
            let is = parent.process.traits.subreaper.load(Ordering::SeqCst);
            if is && parent.life == Life::Alive {
                return parent.process.pid;
            }
            at = parent.process.pid;
        }
        INIT
    }

    /// Gives the children of `pid` another parent: the number of each, its new parent and the
    /// signal that it wants.
    fn give_away_children(&mut self, pid: u32) -> Vec<(u32, u32, u32)> {
        let reaper = self.reaper_of(pid);
        let mut given = Vec::new();
        let mut done = Vec::new();
        for (&child, record) in &mut self.records {
            if record.parent != pid {
                continue;
            }
            record.parent = reaper;
            if record.life == Life::Alive {
                let traits = &record.process.traits;
                given.push((child, reaper, traits.death_signal.load(Ordering::SeqCst)));
            } else if reaper == INIT {
                done.push(child);
            } else {
                given.push((child, reaper, 0));
            }
        }
        for child in done {
            self.records.remove(&child);
        }
        given
    }

    /// Forgets everybody.
    pub(crate) fn clear(&mut self) {
        self.records.clear();
    }
}

impl<P: Platform> Linux<P> {
    /// Makes a whole process end with `status`, unless it is ending already.
    pub(crate) fn condemn(&self, pid: u32, status: ExitStatus) {
        let threads = {
            let mut table = self.processes.lock();
            let Some(record) = table.get_mut(pid) else {
                return;
            };
            record.ending.get_or_insert(status);
            record.process.ending.store(true, Ordering::SeqCst);
            record.process.stopped.store(false, Ordering::SeqCst);
            record.threads.clone()
        };
        for thread in threads {
            thread.poke(self);
        }
    }

    /// Ends the last thread of a process: everything it had is given back before anybody can
    /// learn that it has ended.
    pub(crate) fn end_process(&'static self, process: &Arc<Process<P>>, status: ExitStatus) {
        let (space, files) = {
            let mut shared = process.shared.lock();
            (
                shared.space.take(),
                core::mem::replace(&mut shared.files, Arc::new(FdTable::new())),
            )
        };
        self.stop_timers(process);
        self.release_locks(Owner::Process(process.pid));
        drop(files);
        drop(space);
        self.segments.sweep(self, process.pid);
        self.sets.ended(self, process.pid);
        process.left_space.store(true, Ordering::SeqCst);
        self.inodes.sweep(self);
        self.bury(process, status);
        self.wake(all_channel());
    }

    /// Makes a zombie of the process and tells its parent; gives its children to [`INIT`].
    fn bury(&self, process: &Arc<Process<P>>, status: ExitStatus) {
        let pid = process.pid;
        let left = self.processes.lock().left_alone_by(pid);
        let orphans;
        let (parent, signal) = {
            let mut table = self.processes.lock();
            orphans = table.give_away_children(pid);
            let Some(record) = table.get_mut(pid) else {
                return;
            };
            record.life = Life::Ended(record.ending.unwrap_or(status));
            record.report = None;
            (record.parent, record.exit_signal)
        };
        self.leave_terminal(pid, |_| false);
        for group in left {
            self.hang_up_group(|r| r.pgid == group);
        }
        for (child, reaper, signal) in orphans {
            if signal != 0 {
                let info = SigInfo::sent(signal, abi::SI_USER as i32, 0, 0);
                self.signal_process(child, info).ok();
            }
            self.wake(child_channel(reaper));
        }
        self.tell_parent(pid, parent, signal);
        self.wake_pollers();
    }

    fn tell_parent(&self, pid: u32, parent: u32, signal: u32) {
        let unwanted = {
            let table = self.processes.lock();
            match table.get(parent) {
                // The first process stays, for its status is asked for in the end.
                None => pid != table.main,
                Some(record) => record.process.signals.lock().reaps_itself(),
            }
        };
        if signal != 0 {
            let info = self.child_info(pid, signal);
            self.signal_process(parent, info).ok();
        }
        if unwanted {
            self.processes.lock().records.remove(&pid);
        }
        self.wake(child_channel(parent));
    }

    /// The `siginfo` of `SIGCHLD` for the present state of `pid`.
    pub(crate) fn child_info(&self, pid: u32, signal: u32) -> SigInfo {
        let table = self.processes.lock();
        let (code, status) = match table.get(pid) {
            Some(Record {
                life: Life::Ended(ExitStatus::Code(c)),
                ..
            }) => (abi::CLD_EXITED, u32::from(*c)),
            Some(Record {
                life: Life::Ended(ExitStatus::Signal(n)),
                ..
            }) => (abi::CLD_KILLED, u32::from(*n)),
            Some(Record {
                report: Some(Report::Stopped(n)),
                ..
            }) => (abi::CLD_STOPPED, u32::from(*n)),
            _ => (abi::CLD_CONTINUED, abi::SIGCONT),
        };
        let uid = table
            .get(pid)
            .map_or(0, |r| r.process.creds.lock().user.real);
        SigInfo::child(signal, code as i32, pid, uid, status)
    }

    /// Whether the runner stops with the first process: when a terminal's user asked for it, or
    /// when nobody is left who could continue that process.
    fn stops_the_runner(&self, report: Report) -> bool {
        let Report::Stopped(signal) = report else {
            return false;
        };
        let table = self.processes.lock();
        let mut alive = table.records.values().filter(|r| r.life == Life::Alive);
        u32::from(signal) != abi::SIGSTOP || alive.all(|r| r.process.stopped.load(Ordering::SeqCst))
    }

    /// Stops or continues a whole process and tells its parent.
    pub(crate) fn set_stopped(&self, pid: u32, report: Report) {
        let (threads, parent, main) = {
            let mut table = self.processes.lock();
            let main = table.main;
            let Some(record) = table.get_mut(pid) else {
                return;
            };
            let stop = matches!(report, Report::Stopped(_));
            if record.process.stopped.swap(stop, Ordering::SeqCst) == stop {
                return;
            }
            record.report = Some(report);
            (record.threads.clone(), record.parent, main)
        };
        for thread in threads {
            thread.poke(self);
        }
        if pid == main && self.stops_the_runner(report) {
            self.platform.stop();
        }
        let info = self.child_info(pid, abi::SIGCHLD);
        let wanted = {
            let table = self.processes.lock();
            table
                .get(parent)
                .is_some_and(|r| r.process.signals.lock().wants_stops())
        };
        if wanted {
            self.signal_process(parent, info).ok();
        }
        self.wake(child_channel(parent));
    }
}

/// The signals that no program can block, catch or ignore.
pub(crate) const UNSTOPPABLE: SigSet = SigSet::of(abi::SIGKILL).union(SigSet::of(abi::SIGSTOP));
