//! A machine for bsdvm inside an ordinary Linux process, on x86-64.
//!
//! RAM is a file in memory. An address space is a *stub*: a child process with nothing in it but
//! one page of our code and a mailbox, whose mappings are those that the pmap orders. Guest code
//! runs in the stub, natively; whatever it does that needs us ends in the stub's signal handler,
//! and from there with us.
//!
//! # Memory, and the small things
//! `memory` (the file and the flat view of it), `locks`, `wait`, `clock`.
//!
//! # The stub
//! `stub` and `stub.s`: 500 bytes of assembly, carried by an ELF file in memory. `zygote`: the
//! parked stub that all others are forked from, and the thread that keeps it. `vdso`: the host's
//! clocks, which guests call directly.
//!
//! # The mailbox
//! `mailbox`: one slot a stub thread, which holds its alternate signal stack (so that we edit the
//! guest's registers in the frame, see `context`), the orders for it, and the futex by which the
//! two of us take turns.
//!
//! # Orders
//! `orders`: changes of mappings, queued as they are decided and carried out in that order.
//! `space`: the lock, the queue and the threads of one address space, and the protocol between
//! them. `attach`: threads come and go.
//!
//! # What the seam sees
//! `table` and `pmap` ([`HostedPmap`]): the truth about translations; what the stub has mapped is
//! a cache of it, with a budget. `flush` ([`HostedFlush`]): waiting for running threads.
//! `thread` ([`GuestThread`]): run until a trap. `seat`: which processor the thread that runs it is
//! on, and how it waits.
//!
//! # Lifetime
//! Stubs are children of a thread of ours and get SIGKILL when it ends, however it ends. A stub
//! ends with its last [`GuestThread`] or with its [`HostedPmap`], the zygote with the [`Hosted`].
//!
//! # What is absent
//! It is no sandbox: a guest that looks for the stub's own `syscall` instruction finds it, and a
//! guest can overwrite its mailbox. The core knows nothing of that; do not run hostile programs.
//! No memory attributes, no restart of interrupted calls, no single-step; no
//! fallback by ptrace where seccomp is refused. Translations live in the program's own heap:
//! no frame is ever asked for.
//!
//! ```no_run
//! use bsdvm_hosted::{GuestThread, Hosted, Registers, Trap};
//! use bsdvm_machine::*;
//!
//! let machine = Hosted::new(16 << 20)?;
//! let pmap = machine.pmap_create().unwrap();
//! machine.write(Frame(0), 0, &[0x0f, 0x05]); // syscall
//! let (va, run) = (VirtAddr(0x10_0000), FrameRun::one(Frame(0)));
//! let flush = pmap.enter(va, run, Prot::RX, MemoryAttr::WriteBack, Kind::Managed, &mut |_| ());
//! flush.unwrap().wait();
//! let mut thread = GuestThread::spawn(&machine, &pmap)?;
//! let mut regs = Registers { rip: va.0, rax: 60, ..Registers::default() };
//! assert_eq!(thread.run(&machine, &pmap, &mut regs), Trap::Syscall);
//! assert_eq!((regs.rax, regs.rip), (60, va.0 + 2));
//! # Ok::<(), bsdvm_hosted::HostedError>(())
//! ```

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("the hosted machine needs Linux on x86-64");

mod attach;
mod clock;
mod context;
mod engine;
mod error;
mod flush;
mod locks;
mod mailbox;
mod memory;
mod orders;
mod pmap;
pub mod probe;
mod seat;
mod space;
mod stub;
mod sys;
mod table;
mod thread;
mod vdso;
mod wait;
mod zygote;

#[cfg(test)]
mod tests;

pub use context::Registers;
pub use error::HostedError;
pub use flush::HostedFlush;
pub use mailbox::Answer;
pub use pmap::HostedPmap;
pub use seat::rest;
pub use thread::{GuestThread, Kicker, Trap};

use bsdvm_machine::{
    Channel, EnterError, Frame, FrameRun, Host, Machine, Memory, PageSize, Ticket, VirtRange, Wait,
};
use std::ptr::NonNull;
use std::sync::Arc;

/// Returns when every thread of the host, guests' included, has ordered its memory accesses.
pub fn barrier() {
    sys::barrier();
}

/// The machine: memory, the zygote, and who waits. Dropping it ends the zygote and the thread
/// that keeps it, and with that thread every stub that is left.
pub struct Hosted {
    engine: Arc<engine::Engine>,
    waiters: wait::Waiters,
}

impl Hosted {
    /// A machine with `memory_bytes` of memory, a multiple of 4096. The host gives the memory as
    /// it is touched.
    ///
    /// Errors: what the host refuses, see [`HostedError`].
    pub fn new(memory_bytes: u64) -> Result<Hosted, HostedError> {
        Self::with(memory_bytes, sys::can_set_bases())
    }

    /// The same; `fsgs` says whether stubs may use `wrfsbase` and its kin.
    fn with(memory_bytes: u64, fsgs: bool) -> Result<Hosted, HostedError> {
        Ok(Hosted {
            engine: Arc::new(engine::Engine::new(memory_bytes, fsgs)?),
            waiters: wait::Waiters::new(),
        })
    }

    /// The host's vDSO, which every guest can read and call above [`Machine::user_range`] or in a
    /// hole of it: functions of an ELF image that tell the host's clocks without a trap. What they
    /// cannot tell they ask by an ordinary system call, which traps. `None`: the host has none, or
    /// did not let it be moved.
    pub fn vdso(&self) -> Option<VirtRange> {
        self.engine.vdso
    }

    /// The memory that the host has given to guest memory so far, in bytes.
    pub fn allocated_bytes(&self) -> u64 {
        self.engine.ram.allocated_bytes()
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        drop(self.engine.zygote.lock().take());
    }
}

impl std::fmt::Debug for Hosted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosted")
            .field("frames", &self.frames())
            .finish_non_exhaustive()
    }
}

impl Machine for Hosted {
    const PAGE: PageSize = PageSize::KIB4;
    const IMPLIES_LOADS: bool = true;
    type Pmap = HostedPmap;

    fn pmap_create(&self) -> Result<HostedPmap, EnterError> {
        Ok(HostedPmap::new(self.engine.clone()))
    }

    fn user_range(&self) -> VirtRange {
        self.engine.user
    }
}

impl Memory for Hosted {
    fn frames(&self) -> u32 {
        self.engine.ram.frames()
    }

    fn zero(&self, frame: Frame) {
        self.engine.ram.zero(frame);
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.engine.ram.copy(from, to);
    }

    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]) {
        self.engine.ram.read(frame, offset, buf);
    }

    fn write(&self, frame: Frame, offset: usize, buf: &[u8]) {
        self.engine.ram.write(frame, offset, buf);
    }

    fn load_u32(&self, frame: Frame, offset: usize) -> u32 {
        self.engine.ram.load_u32(frame, offset)
    }

    fn compare_exchange_u32(
        &self,
        frame: Frame,
        offset: usize,
        old: u32,
        new: u32,
    ) -> Result<u32, u32> {
        self.engine
            .ram
            .compare_exchange_u32(frame, offset, old, new)
    }

    fn discard(&self, run: FrameRun) {
        self.engine.ram.discard(run);
    }

    fn is_zero(&self, frame: Frame) -> bool {
        self.engine.ram.is_zero(frame)
    }

    fn record_memory(&self, frame: Frame) -> NonNull<u8> {
        self.engine.ram.record_memory(frame)
    }
}

impl Host for Hosted {
    fn now(&self) -> u64 {
        clock::now()
    }

    fn cpu(&self) -> usize {
        clock::cpu().min(self.cpus() - 1)
    }

    fn cpus(&self) -> usize {
        self.engine.all_cpus
    }

    fn random(&self) -> u64 {
        clock::random()
    }
}

impl Wait for Hosted {
    fn ticket(&self, channel: Channel) -> Ticket {
        self.waiters.ticket(channel)
    }

    fn sleep(&self, channel: Channel, ticket: Ticket, deadline: Option<u64>) {
        seat::rest(|| self.waiters.sleep(channel, ticket, deadline));
    }

    fn wake(&self, channel: Channel) {
        self.waiters.wake(channel);
    }
}
