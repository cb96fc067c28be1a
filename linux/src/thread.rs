//! Threads: the record that others see, and the supervisor's loop.

use crate::blocking::all_channel;
use crate::creds::Creds;
use crate::errno::Errno;
use crate::platform::{GuestThread, Kicker, Platform, Registers, Trap};
use crate::policy::Policy;
use crate::process::{ExitStatus, Process};
use crate::signal::{SigInfo, ThreadSignals};
use crate::space::AddressSpace;
use crate::system::Linux;
use crate::thrash::Thrash;
use crate::{Lock, rank};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::{Access, Channel, FaultError, Faulted, VirtAddr};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use linux_raw_sys::general as abi;

/// A thread, as everybody may see it.
pub(crate) struct Thread<P: Platform> {
    /// Changes when a thread other than the first calls `exec`.
    tid: AtomicU32,
    pub(crate) signals: Lock<P, ThreadSignals, { rank::THREAD }>,
    kicker: Lock<P, P::Kicker, { rank::THREAD }>,
    /// The name of a thread that is not the first, once it has one.
    pub(crate) name: Lock<P, Option<Vec<u8>>, { rank::THREAD }>,
    /// Nanoseconds by which its sleeps may be late: kept and told.
    pub(crate) slack: AtomicU64,
    /// Nanoseconds of guest threads that it had before `exec`.
    pub(crate) user_before: AtomicU64,
    /// Nanoseconds of its supervisor, as of when that last told.
    pub(crate) system_time: AtomicU64,
    /// The processors that it was told to run on: kept and told.
    pub(crate) affinity: AtomicU64,
    pub(crate) policy: Lock<P, Policy, { rank::THREAD }>,
    /// Its priority before devices: kept and told.
    pub(crate) io_priority: AtomicU32,
    /// Faults that were resolved.
    pub(crate) faults: AtomicU64,
    pub(crate) creds: Lock<P, Creds, { rank::THREAD }>,
    /// The channel it sleeps on; 0 when it does not.
    pub(crate) sleeping: AtomicU64,
    /// It waits for files of the host.
    pub(crate) waiting: AtomicBool,
    /// It alone is to end: another thread of its process calls `exec`.
    pub(crate) dismissed: AtomicBool,
    /// Where to store 0 and wake a futex when it ends.
    pub(crate) clear_tid: AtomicU64,
    /// Its list of robust futexes.
    pub(crate) robust_list: AtomicU64,
}

impl<P: Platform> Thread<P> {
    pub(crate) fn new(tid: u32, cpu: &P::Thread, creds: Creds) -> Arc<Thread<P>> {
        Arc::new(Thread {
            tid: AtomicU32::new(tid),
            signals: Lock::<P, _, { rank::THREAD }>::new(ThreadSignals::default()),
            kicker: Lock::<P, _, { rank::THREAD }>::new(cpu.kicker()),
            name: Lock::<P, _, { rank::THREAD }>::new(None),
            slack: crate::syscall::prctl::slack(),
            user_before: AtomicU64::new(0),
            system_time: AtomicU64::new(0),
            affinity: AtomicU64::new(u64::MAX),
            policy: Lock::<P, _, { rank::THREAD }>::new(Policy::default()),
            io_priority: AtomicU32::new(0),
            faults: AtomicU64::new(0),
            creds: Lock::<P, _, { rank::THREAD }>::new(creds),
            sleeping: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            clear_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
        })
    }

    /// Begins with what a child has of how its maker is scheduled.
    pub(crate) fn inherit(&self, maker: &Thread<P>) {
        let affinity = maker.affinity.load(Ordering::Relaxed);
        self.affinity.store(affinity, Ordering::Relaxed);
        let policy = maker.policy.lock().inherited();
        *self.policy.lock() = policy;
        let priority = maker.io_priority.load(Ordering::Relaxed);
        self.io_priority.store(priority, Ordering::Relaxed);
    }

    pub(crate) fn tid(&self) -> u32 {
        self.tid.load(Ordering::SeqCst)
    }

    /// Whether it waits for files of the host.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn set_tid(&self, tid: u32) {
        self.tid.store(tid, Ordering::SeqCst);
    }

    /// The kicker of the guest thread that it has now.
    pub(crate) fn kicker(&self) -> P::Kicker {
        self.kicker.lock().clone()
    }

    pub(crate) fn set_kicker(&self, kicker: P::Kicker) {
        *self.kicker.lock() = kicker;
    }

    /// Makes it look at its signals, whether it runs, sleeps or waits for a file.
    pub(crate) fn poke(&self, sys: &Linux<P>) {
        let sleeping = self.sleeping.load(Ordering::SeqCst);
        if sleeping != 0 {
            sys.wake(Channel(sleeping));
        }
        self.kicker().kick();
    }
}

/// A call that was interrupted and may start again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted {
    pub(crate) errno: Errno,
    pub(crate) number: u64,
}

/// A thread, as its supervisor holds it.
pub(crate) struct Task<P: Platform> {
    pub(crate) sys: &'static Linux<P>,
    pub(crate) process: Arc<Process<P>>,
    pub(crate) thread: Arc<Thread<P>>,
    pub(crate) cpu: P::Thread,
    pub(crate) space: Arc<AddressSpace<P>>,
    pub(crate) regs: Registers,
    pub(crate) interrupted: Option<Interrupted>,
    /// The deadline of a sleep that starts again.
    pub(crate) sleep_until: Option<u64>,
    /// This thread's own end, by `exit`.
    pub(crate) exit: Option<ExitStatus>,
    thrash: Thrash,
    pub(crate) started: u64,
}

impl<P: Platform> Task<P> {
    pub(crate) fn new(
        sys: &'static Linux<P>,
        process: Arc<Process<P>>,
        thread: Arc<Thread<P>>,
        cpu: P::Thread,
        space: Arc<AddressSpace<P>>,
    ) -> Task<P> {
        Task {
            sys,
            process,
            thread,
            cpu,
            space,
            regs: Registers::default(),
            interrupted: None,
            sleep_until: None,
            exit: None,
            thrash: Thrash::default(),
            started: 0,
        }
    }

    /// Runs the guest thread to its end.
    pub(crate) fn supervise(mut self) {
        self.started = self.sys.platform.cpu_time();
        self.tell_answers();
        while self.prepare_return() {
            match self.cpu.run(self.sys.vm, &mut self.regs) {
                Trap::Syscall => {
                    self.thrash = Thrash::default();
                    self.system_call();
                }
                Trap::Fault {
                    address, access, ..
                } => self.fault(address, access),
                Trap::Exception {
                    signal,
                    code,
                    address,
                } => {
                    self.exception(signal, code, address);
                }
                Trap::Kicked => {}
                Trap::Gone => self.lost(),
            }
        }
        self.finish();
    }

    /// Whether this thread has to end.
    pub(crate) fn must_end(&self) -> bool {
        self.exit.is_some()
            || self.process.ending.load(Ordering::SeqCst)
            || self.thread.dismissed.load(Ordering::SeqCst)
    }

    /// Ends the whole process.
    pub(crate) fn end_group(&self, status: ExitStatus) {
        self.sys.condemn(self.process.pid, status);
    }

    fn lost(&mut self) {
        // The machine's own thread is gone (the host killed it, for instance): nothing can be
        // delivered to it any more.
        if !self.must_end() {
            self.sys
                .verbose(|| format!("process {}: its machine thread is gone", self.process.pid));
        }
        self.end_group(ExitStatus::Signal(abi::SIGKILL as u8));
    }

    fn exception(&mut self, signal: i32, code: i32, address: u64) {
        let signal = u32::try_from(signal).unwrap_or(abi::SIGILL);
        self.force_signal(SigInfo::fault(signal, code, address));
    }

    fn fault(&mut self, address: VirtAddr, access: Access) {
        if self.thrash.note(self.regs.rip, address.0) {
            self.thrash = Thrash::default();
            // With memory to spare it is somebody who takes the page away again and again.
            if self.sys.is_short_of_memory() {
                self.sys.kill_largest();
                return;
            }
        }
        let (signal, code) = match self.space.core().fault(address, access) {
            Ok(Faulted::PagedIn) => {
                self.process.used.lock().major += 1;
                return;
            }
            Ok(_) => {
                self.thread.faults.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(FaultError::NoMemory) => {
                // Whoever is killed for it, this thread looks at its signals and faults again.
                self.find_memory(&mut 0).ok();
                return;
            }
            Err(FaultError::InvalidAddress | FaultError::NoFault) => {
                (abi::SIGSEGV, abi::SEGV_MAPERR)
            }
            Err(FaultError::Protection) => (abi::SIGSEGV, abi::SEGV_ACCERR),
            Err(FaultError::BeyondEnd | FaultError::Pager(_)) => (abi::SIGBUS, abi::BUS_ADRERR),
        };
        self.sys.verbose(|| {
            format!(
                "process {}: {access:?} of {address:#x} at {:#x}: signal {signal}",
                self.process.pid, self.regs.rip
            )
        });
        let mut info = SigInfo::fault(signal, code as i32, address.0);
        info.set_access(access);
        self.force_signal(info);
    }

    /// Ends this thread, and the process with the last one. What the thread has is given back
    /// before it leaves the table: a process that has ended has nothing left.
    fn finish(self) {
        self.release_futexes();
        self.note_time();
        self.note_memory();
        let used = self.thread.used();
        let Task {
            sys,
            process,
            thread,
            cpu,
            space,
            exit,
            ..
        } = self;
        // The machine's thread goes before the space that it runs in.
        drop(cpu);
        drop(space);
        let last = {
            let mut table = sys.processes.lock();
            match table.get_mut(process.pid) {
                Some(record) => {
                    record.threads.retain(|t| !Arc::ptr_eq(t, &thread));
                    let mut all = process.used.lock();
                    *all = all.with(used);
                    drop(all);
                    record.threads.is_empty()
                }
                None => true,
            }
        };
        if last {
            keep_last_map(sys, &process);
            sys.end_process(&process, exit.unwrap_or(ExitStatus::Code(0)));
        }
        sys.wake(all_channel());
    }
}

/// Keeps the map of the first process as text, if it is wanted.
fn keep_last_map<P: Platform>(sys: &Linux<P>, process: &Process<P>) {
    if sys.options.keep_map
        && process.pid == sys.processes.lock().main
        && let Some(space) = process.space()
    {
        let text = crate::maps::text(sys, &space);
        *sys.last_map.lock() = Some(text);
    }
}
