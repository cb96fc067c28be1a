//! The mailbox: memory that a supervisor thread and its stub thread share.
//!
//! One file for the whole machine, cut into slots. A slot belongs to one stub thread: a control
//! part (what the stub reads and writes, see [`at`]) and the alternate signal stack, where the
//! kernel builds the frame whose registers we edit in place. A stub maps only the slots of its
//! own threads; we map them all.
//!
//! Every access is atomic: a guest can scribble over its own slots, and then gets wrong values,
//! but we never have a data race. Offsets that come out of a slot are checked before use.

use crate::error::HostedError;
use crate::seat::StubWait;
use crate::sys;
use parking_lot::Mutex;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The size and the alignment of a slot; the stub finds its slot by rounding rsp down to this.
pub(crate) const SLOT_BYTES: u64 = 0x8000;
/// Where the alternate stack begins in a slot; it ends with the slot. 16 KiB hold a frame with
/// AMX state (about 12 KiB).
const STACK_OFFSET: u64 = 0x4000;
/// The number of slots of a machine: the limit of guest threads.
const SLOTS: u32 = 8192;
/// The number of orders that a slot holds.
pub(crate) const BATCH: usize = ((STACK_OFFSET - at::ORDERS) / ORDER_BYTES) as usize;
/// Number, six arguments, result.
const ORDER_BYTES: u64 = 64;
/// Number, kind, value.
const ANSWER_BYTES: u64 = 16;
/// The answers that a slot holds; one more, whose kind stays 0, ends their list.
const ANSWERS: u64 = (at::ORDERS - at::ANSWERS) / ANSWER_BYTES - 1;

/// Offsets in a slot, in bytes. What one side watches while the other works lies in a cache line of
/// its own, and what a trap tells, and its answer, together in another.
pub(crate) mod at {
    /// The futex word: 0 = trapped, else the stub has something to do. See [`super::Slot::command`].
    pub(crate) const WORD: u64 = 0;
    /// The thread's number, cleared by the host when it ends.
    pub(crate) const TID: u64 = 60;
    /// Eight bytes of zero: the empty signal mask.
    pub(crate) const EMPTY: u64 = 64;
    /// `stack_t` of the alternate stack.
    pub(crate) const STACK: u64 = 72;
    /// Head of the robust list.
    pub(crate) const ROBUST: u64 = 96;
    /// The one entry of the robust list.
    pub(crate) const ENTRY: u64 = 120;
    /// 1: the supervisor sleeps on the word, or is about to.
    pub(crate) const SLEEPS: u64 = 128;
    /// 1: the stub does.
    pub(crate) const STUB_SLEEPS: u64 = 132;
    /// The signal that trapped.
    pub(crate) const SIGNO: u64 = 192;
    /// Orders to carry out; what is left of them when a batch stopped.
    pub(crate) const COUNT: u64 = 196;
    /// 1: go on with the guest after the orders; 0: report.
    pub(crate) const RESUME: u64 = 200;
    /// How often the stub looks at the word before it yields, see [`crate::seat::StubWait`].
    pub(crate) const LOOKS: u64 = 204;
    /// How often it yields before it sleeps.
    pub(crate) const YIELDS: u64 = 208;
    /// 1: the processor has `rdfsbase` and the host lets us use it.
    pub(crate) const FSGS: u64 = 212;
    /// Address of the frame's siginfo, in the stub.
    pub(crate) const INFO: u64 = 216;
    /// Address of the frame's ucontext, in the stub.
    pub(crate) const UCONTEXT: u64 = 224;
    /// The guest's FS base, if [`FSGS`].
    pub(crate) const FS: u64 = 232;
    /// The guest's GS base, if [`FSGS`].
    pub(crate) const GS: u64 = 240;
    /// Room for arguments of orders made at start.
    pub(crate) const SCRATCH: u64 = 0x200;
    /// Calls that the stub answers by itself: number and kind, then a value. See
    /// [`super::Slot::answer`].
    pub(crate) const ANSWERS: u64 = 0x300;
    /// The orders.
    pub(crate) const ORDERS: u64 = 0x400;
}

/// One raw system call for the stub to make.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Call {
    /// The number.
    pub(crate) number: u64,
    /// The arguments.
    pub(crate) args: [u64; 6],
}

impl Call {
    /// A call by a number of `libc::SYS_*`.
    pub(crate) fn new(number: i64, args: [u64; 6]) -> Call {
        Call {
            number: number as u64,
            args,
        }
    }
}

/// The file of all slots, and which are free.
pub(crate) struct Mailbox {
    fd: OwnedFd,
    view: sys::View,
    free: Mutex<(Vec<u32>, u32)>,
}

impl Mailbox {
    /// A mailbox with every slot free.
    pub(crate) fn new() -> Result<Arc<Mailbox>, HostedError> {
        let bytes = u64::from(SLOTS) * SLOT_BYTES;
        let fd = sys::memory_file(c"bsdvm-mailbox", bytes)?;
        let view = sys::View::new(&fd, bytes)?;
        Ok(Arc::new(Mailbox {
            fd,
            view,
            free: Mutex::new((Vec::new(), 0)),
        }))
    }

    /// The file.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// A slot to be mapped at `va` in a stub, with its control part made ready.
    pub(crate) fn slot(self: &Arc<Self>, va: u64) -> Result<Slot, HostedError> {
        let index = {
            let mut free = self.free.lock();
            match free.0.pop() {
                Some(i) => i,
                None if free.1 < SLOTS => {
                    free.1 += 1;
                    free.1 - 1
                }
                None => return Err(HostedError::TooManyThreads),
            }
        };
        let slot = Slot {
            mailbox: self.clone(),
            index,
            va,
        };
        slot.prepare();
        Ok(slot)
    }
}

/// The slot of one stub thread; free again when dropped.
pub(crate) struct Slot {
    mailbox: Arc<Mailbox>,
    index: u32,
    va: u64,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("index", &self.index).finish()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.mailbox.free.lock().0.push(self.index);
    }
}

impl Slot {
    /// The slot's address in the stub.
    pub(crate) fn va(&self) -> u64 {
        self.va
    }

    /// The slot's place in the mailbox file.
    pub(crate) fn file_offset(&self) -> u64 {
        u64::from(self.index) * SLOT_BYTES
    }

    /// The 32-bit word at `offset`.
    pub(crate) fn u32(&self, offset: u64) -> &AtomicU32 {
        assert!(offset + 4 <= SLOT_BYTES && offset.is_multiple_of(4));
        let p = self.mailbox.view.at(self.file_offset() + offset);
        // SAFETY: the place lies in the view (asserted), is aligned, stays mapped as long as the
        // mailbox that we hold, and is only ever accessed by atomics on our side; what the stub
        // process does to shared memory is outside of this process's memory model, like a device.
        unsafe { AtomicU32::from_ptr(p.cast()) }
    }

    /// The 64-bit word at `offset`.
    pub(crate) fn u64(&self, offset: u64) -> &AtomicU64 {
        assert!(offset + 8 <= SLOT_BYTES && offset.is_multiple_of(8));
        let p = self.mailbox.view.at(self.file_offset() + offset);
        // SAFETY: as in `u32`.
        unsafe { AtomicU64::from_ptr(p.cast()) }
    }

    /// Loads the 64-bit word at `offset`.
    pub(crate) fn get(&self, offset: u64) -> u64 {
        self.u64(offset).load(Ordering::Relaxed)
    }

    /// Stores the 64-bit word at `offset`.
    pub(crate) fn set(&self, offset: u64, value: u64) {
        self.u64(offset).store(value, Ordering::Relaxed);
    }

    /// Loads the 32-bit word at `offset`.
    pub(crate) fn get32(&self, offset: u64) -> u32 {
        self.u32(offset).load(Ordering::Relaxed)
    }

    /// Stores the 32-bit word at `offset`.
    pub(crate) fn set32(&self, offset: u64, value: u32) {
        self.u32(offset).store(value, Ordering::Relaxed);
    }

    /// Stores `value` at `offset` if something else is there: a store takes the cache line from the
    /// other side.
    pub(crate) fn turn(&self, offset: u64, value: u64) {
        if self.get(offset) != value {
            self.set(offset, value);
        }
    }

    fn turn32(&self, offset: u64, value: u32) {
        if self.get32(offset) != value {
            self.set32(offset, value);
        }
    }

    /// The offset in the slot of `bytes` bytes at address `va` of the stub, when they lie on the
    /// alternate stack, aligned to 8.
    pub(crate) fn on_stack(&self, va: u64, bytes: u64) -> Option<u64> {
        let offset = va.checked_sub(self.va)?;
        let end = offset.checked_add(bytes)?;
        (offset >= STACK_OFFSET && end <= SLOT_BYTES && offset.is_multiple_of(8)).then_some(offset)
    }

    fn prepare(&self) {
        for offset in (0..at::ORDERS).step_by(8) {
            self.set(offset, 0);
        }
        self.set(at::STACK, self.va + STACK_OFFSET);
        self.set(at::STACK + 16, SLOT_BYTES - STACK_OFFSET);
        // The host marks the word of a thread that dies: a list of one entry, whose word is WORD.
        self.set(at::ROBUST, self.va + at::ENTRY);
        self.set(at::ROBUST + 8, at::WORD.wrapping_sub(at::ENTRY));
        self.set(at::ENTRY, self.va + at::ROBUST);
        self.set32(at::WORD, libc::FUTEX_WAITERS);
    }

    /// Writes order `i`.
    pub(crate) fn put(&self, i: usize, call: Call) {
        assert!(i < BATCH);
        let base = at::ORDERS + i as u64 * ORDER_BYTES;
        self.set(base, call.number);
        for (n, arg) in call.args.iter().enumerate() {
            self.set(base + 8 + n as u64 * 8, *arg);
        }
    }

    /// What order `i` answered.
    pub(crate) fn result(&self, i: usize) -> i64 {
        assert!(i < BATCH);
        self.get(at::ORDERS + i as u64 * ORDER_BYTES + 56) as i64
    }

    /// Has the stub thread answer call `number` with `answer` from its next trap on. It must be
    /// parked. `false`: the list is full, and the call traps as ever.
    pub(crate) fn answer(&self, number: u32, answer: Answer) -> bool {
        let entries = (0..ANSWERS).map(|i| at::ANSWERS + i * ANSWER_BYTES);
        let fits = |e: &u64| self.get32(*e + 4) == 0 || self.get32(*e) == number;
        let Some(entry) = entries.into_iter().find(fits) else {
            return false;
        };
        let (kind, value) = match answer {
            Answer::Value(value) => (1, value),
            Answer::Host => (2, 0),
        };
        self.set32(entry, number);
        self.set(entry + 8, value);
        self.set32(entry + 4, kind);
        true
    }

    /// Gives the word to stub thread `tid`: it carries out `count` orders and then goes on with
    /// the guest or reports, and then waits as `wait` says.
    ///
    /// The word has the form of a robust futex, so that the host wakes us if the thread dies.
    pub(crate) fn command(&self, tid: i32, count: usize, then: Then, wait: StubWait) {
        self.turn32(at::COUNT, count as u32);
        self.turn32(at::RESUME, then as u32);
        self.turn32(at::LOOKS, wait.looks);
        self.turn32(at::YIELDS, wait.yields);
        let word = self.u32(at::WORD);
        word.store(tid as u32 | libc::FUTEX_WAITERS, Ordering::SeqCst);
        if self.u32(at::STUB_SLEEPS).load(Ordering::SeqCst) != 0 {
            sys::futex_wake(word, 1);
        }
    }

    /// Whether the stub has trapped or reported, or died.
    pub(crate) fn report(&self) -> Option<Report> {
        match self.u32(at::WORD).load(Ordering::SeqCst) {
            0 => Some(Report::Trapped),
            value if value & libc::FUTEX_OWNER_DIED != 0 => Some(Report::Gone),
            _ => None,
        }
    }

    /// Sleeps until the stub has trapped or reported. `dead` is asked now and then whether it ever
    /// will.
    pub(crate) fn wait(&self, dead: impl Fn() -> bool) -> Report {
        let word = self.u32(at::WORD);
        let sleeps = self.u32(at::SLEEPS);
        let report = loop {
            let value = word.load(Ordering::SeqCst);
            if let Some(report) = self.report() {
                break report;
            }
            if sleeps.swap(1, Ordering::SeqCst) == 0 {
                continue; // look at the word again, now that the stub knows
            }
            // The bound is for a stub that was killed while it was parked: no word of its was
            // marked then.
            let timed_out = sys::futex_wait(word, value, Some(100_000_000));
            if timed_out && word.load(Ordering::SeqCst) == value && dead() {
                break Report::Gone;
            }
        };
        sleeps.store(0, Ordering::SeqCst);
        report
    }
}

/// How a system call is answered where it is made, without a trap to the supervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// By a value that is always the same.
    Value(u64),
    /// By the host, which is asked for the call of the same number, with no arguments.
    Host,
}

/// What the stub does after its orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// Reports.
    Report = 0,
    /// Goes on with the guest.
    Resume = 1,
}

/// How a wait for a stub ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Report {
    /// The stub is parked in its handler.
    Trapped,
    /// The stub is dead.
    Gone,
}
