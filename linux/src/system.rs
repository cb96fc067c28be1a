//! The system: one machine's core with the personality on top.

use crate::alarms::Alarms;
use crate::errno::Errno;
use crate::exec::{self, ExecRequest};
use crate::fs::busy::Busy;
use crate::fs::inode::Inodes;
use crate::fs::kernel_page::KernelPage;
use crate::fs::locks::Locks;
use crate::fs::meminode::MemInodes;
use crate::fs::proc::settings::Settings;
use crate::fs::socket::names::Sockets;
use crate::fs::table::FdTable;
use crate::futex::Futexes;
use crate::ipc::msg::Queues;
use crate::ipc::posix::NamedQueues;
use crate::ipc::sem::Sets;
use crate::ipc::shm::Segments;
use crate::platform::{HostFile, Kicker, Platform};
use crate::process::{ExitStatus, INIT, Process, Processes};
use crate::signal::SigSet;
use crate::syscall::CallTable;
use crate::terminal::{Controlling, Terminals};
use crate::thread::{Task, Thread};
use crate::{Lock, rank};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::Vm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use linux_raw_sys::general as abi;

/// How the system behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Say one line about each unknown call and each process that a signal ends.
    pub verbose: bool,
    /// Keep the main program's last map as text.
    pub keep_map: bool,
    /// The size of memory as the person wrote it, for messages.
    pub memory: String,
}

/// The program to run.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Where it lies.
    pub path: Vec<u8>,
    /// Its arguments, the name first.
    pub args: Vec<Vec<u8>>,
    /// Its environment, `NAME=VALUE`.
    pub env: Vec<Vec<u8>>,
}

/// The personality of one machine. It lives as long as the program that made it.
pub struct Linux<P: Platform> {
    /// The core.
    pub vm: &'static Vm<P::Machine>,
    /// The world below.
    pub platform: P,
    /// How to behave.
    pub options: Options,
    pub(crate) calls: CallTable<P>,
    pub(crate) inodes: Inodes<P>,
    pub(crate) memory_inodes: MemInodes<P>,
    pub(crate) futexes: Futexes<P>,
    pub(crate) alarms: Alarms<P>,
    pub(crate) settings: Settings<P>,
    pub(crate) locks: Locks<P>,
    pub(crate) busy: Busy<P>,
    pub(crate) segments: Segments<P>,
    pub(crate) sets: Sets<P>,
    pub(crate) queues: Queues<P>,
    pub(crate) named_queues: NamedQueues<P>,
    pub(crate) sockets: Sockets<P>,
    pub(crate) processes: Lock<P, Processes<P>, { rank::PROCESSES }>,
    /// The number of processes and threads that polled on something of ours.
    pub(crate) pollers: AtomicU32,
    /// Those among them that wait for files of the host too: what rings their bells.
    pub(crate) mixed: Lock<P, Vec<(u64, P::Kicker)>, { rank::POLLERS }>,
    /// Which session has which terminal.
    pub(crate) terminals: Lock<P, Terminals, { rank::TERMINALS }>,
    ids: AtomicU64,
    pub(crate) kernel_page: KernelPage<P>,
    pub(crate) last_map: Lock<P, Option<String>, { rank::PROCESS }>,
}

impl<P: Platform> Linux<P> {
    /// A system with no process yet. It is never freed: pagers are called for as long as the
    /// core lives.
    pub fn new(vm: &'static Vm<P::Machine>, platform: P, options: Options) -> &'static Linux<P> {
        let main = platform.standing().pid;
        Box::leak(Box::new(Linux {
            vm,
            platform,
            options,
            calls: CallTable::new(),
            inodes: Inodes::new(),
            memory_inodes: MemInodes::new(),
            futexes: Futexes::new(),
            alarms: Alarms::new(),
            settings: Settings::new(),
            locks: Locks::new(),
            busy: Busy::new(),
            segments: Segments::new(),
            sets: Sets::new(),
            queues: Queues::new(),
            named_queues: NamedQueues::new(),
            sockets: Sockets::new(),
            processes: Lock::<P, _, { rank::PROCESSES }>::new(Processes::new(main)),
            pollers: AtomicU32::new(0),
            mixed: Lock::<P, _, { rank::POLLERS }>::new(Vec::new()),
            terminals: Lock::<P, _, { rank::TERMINALS }>::new(Terminals::default()),
            ids: AtomicU64::new(1),
            kernel_page: KernelPage::new(),
            last_map: Lock::<P, _, { rank::PROCESS }>::new(None),
        }))
    }

    /// Runs `program` to its end and gives back its status. The calling thread becomes its
    /// supervisor. When it has ended, every process it left behind is killed, as in a container.
    ///
    /// Errors: why the program could not be started.
    pub fn run(&'static self, program: Program) -> Result<ExitStatus, Errno> {
        let pid = self.processes.lock().allocate_pid()?;
        let request = ExecRequest::of_runner(program, &self.platform.identity());
        let image = exec::load(self, None, request)?;
        let files = FdTable::standard(self);
        let process = Process::first(self, pid, &image, Arc::new(files));
        let cpu = self.platform.guest_thread(self.vm, image.space.id())?;
        let thread = Thread::new(pid, &cpu, process.creds.lock().clone());
        self.enter_first(&process, &thread);
        let mut task = Task::new(self, process.clone(), thread, cpu, image.space);
        task.regs = image.regs;
        task.supervise();
        self.end_all();
        Ok(self.collect(pid))
    }

    /// Enters the first process where the runner stands among its host's processes.
    fn enter_first(&self, process: &Arc<Process<P>>, thread: &Arc<Thread<P>>) {
        let standing = self.platform.standing();
        let place = |leads| if leads { process.pid } else { INIT };
        let (pgid, sid) = (place(standing.leads_group), place(standing.leads_session));
        process.signals.lock().ignore(SigSet(standing.ignored));
        process.nice.store(standing.nice, Ordering::Relaxed);
        let mut table = self.processes.lock();
        table.insert(process.clone(), thread.clone(), pgid, sid);
        if let Some(device) = standing.terminal {
            let foreground = pgid;
            let controlling = Controlling { device, foreground };
            self.terminals.lock().set(sid, controlling);
        }
    }

    /// Loads `program` as [`Linux::run`] does and lets go of it: whether it could be started.
    ///
    /// Errors: why not.
    pub fn try_load(&'static self, program: Program) -> Result<(), Errno> {
        let request = ExecRequest::of_runner(program, &self.platform.identity());
        let loaded = exec::load(self, None, request).map(drop);
        self.inodes.sweep(self);
        loaded
    }

    /// The map of the main program as it was when it ended, if [`Options::keep_map`] was set.
    pub fn last_map(&self) -> Option<String> {
        self.last_map.lock().clone()
    }

    /// Kills what is left and waits until it is gone.
    fn end_all(&self) {
        loop {
            let ticket = self.ticket(crate::blocking::all_channel());
            let alive = self.processes.lock().alive();
            if alive.is_empty() {
                break;
            }
            for pid in alive {
                self.condemn(pid, ExitStatus::Signal(9));
            }
            self.sleep(crate::blocking::all_channel(), ticket, None);
        }
        self.sockets.end();
        self.inodes.sweep(self);
        self.segments.end(self);
        self.kernel_page.end(self);
    }

    fn collect(&self, pid: u32) -> ExitStatus {
        let mut table = self.processes.lock();
        let status = table.status_of(pid).unwrap_or(ExitStatus::Code(0));
        table.clear();
        status
    }

    /// A file of the host's, whole.
    pub(crate) fn host_text(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let file = self.platform.open(None, path, abi::O_RDONLY, 0)?;
        let mut text = Vec::new();
        let mut piece = alloc::vec![0; 4096];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(text),
                n => text.extend_from_slice(&piece[..n]),
            }
        }
    }

    /// The number of the terminal that controls a session, and the group in its foreground, as
    /// `/proc/PID/stat` has them.
    pub(crate) fn terminal_numbers(&self, sid: u32) -> (u32, i64) {
        match self.terminals.lock().of_session(sid) {
            Some(c) => {
                let (major, minor) = c.device;
                let number = (minor & 0xff) | major << 8 | (minor & !0xff) << 12;
                (number, i64::from(c.foreground))
            }
            None => (0, -1),
        }
    }

    /// A number for something of ours that needs one.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// One line for a person who asked for details.
    pub(crate) fn verbose(&self, line: impl FnOnce() -> String) {
        if self.options.verbose {
            self.platform.message(&format!("bsdvm: {}", line()));
        }
    }

    /// Tells those who poll that something of ours has changed.
    pub(crate) fn wake_pollers(&self) {
        if self.pollers.load(Ordering::SeqCst) > 0 {
            self.wake(crate::blocking::poll_channel());
            let mixed = self.mixed.lock().clone();
            for (_, kicker) in mixed {
                kicker.kick();
            }
        }
    }
}
