//! Guest threads: run until a trap, registers, floating-point state, kicks.

use crate::context::{self, Context, Registers, Signal};
use crate::mailbox::{Call, Slot, at};
use crate::pmap::Refault;
use crate::space::{Begun, Ended, Space};
use crate::stub::KICK_SIGNAL;
use crate::{Hosted, HostedError, HostedPmap, sys};
use bsdvm_machine::{Access, VirtAddr};
use std::cell::Cell;
use std::sync::{Arc, Weak};

/// Why a guest thread came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Trap {
    /// A system call: its number is in `rax`, `rip` is the address after the instruction, `rcx`
    /// and `r11` are as the instruction leaves them.
    Syscall,
    /// An access that the pmap has no translation for, or none that allows it. Running again
    /// tries the instruction again.
    Fault {
        /// The address that was used, not rounded.
        address: VirtAddr,
        /// How it was used.
        access: Access,
        /// Whether the pmap has a translation for the page, which does not allow the access.
        present: bool,
    },
    /// An exception of the processor, in the host's terms.
    Exception {
        /// The signal: SIGILL, SIGFPE, SIGTRAP, SIGBUS, or SIGSEGV (general protection, `code`
        /// is 128).
        signal: i32,
        /// The signal's `si_code`.
        code: i32,
        /// The signal's `si_addr`.
        address: u64,
    },
    /// [`Kicker::kick`] was called.
    Kicked,
    /// The stub process has ended, the thread with it; or the pmap has. Every further run tells
    /// the same.
    Gone,
}

/// One guest thread: a thread of the space's stub, parked whenever no [`GuestThread::run`] is at
/// work. Ends when it is dropped; with the last one of a space the stub process ends.
///
/// The thread that calls `run` is confined to one processor, which the stub thread shares: the
/// two only ever take turns. So give each guest thread a thread of its own; threads that are
/// started from such a thread inherit its confinement.
#[derive(Debug)]
pub struct GuestThread {
    space: Arc<Space>,
    slot: Arc<Slot>,
    id: u64,
    cpu: usize,
    /// The xsave area, if it was asked for since the last trap.
    fpu: Vec<u8>,
    fpu_taken: bool,
    /// FS and GS, where only orders can set them.
    bases: [u64; 2],
    mended: Mended,
}

/// The last fault that we mended ourselves.
#[derive(Clone, Copy, Debug, Default)]
struct Mended {
    /// Address and rip.
    place: (u64, u64),
    /// Orders that the host had refused until then.
    refusals: u64,
    /// How often in a row that was in vain.
    vain: u32,
}

/// A fault that comes back this often although the page was mapped, or because the host refuses
/// to map it, will not stop: the host is out of memory, or forbids the mapping.
const STUBBORN: u32 = 16;

thread_local! {
    /// The processor that the calling thread was confined to.
    static PINNED: Cell<Option<usize>> = const { Cell::new(None) };
}

impl GuestThread {
    /// Makes a thread in the stub of `pmap`; the first one makes the stub. Its registers come with
    /// the first [`GuestThread::run`]; its floating-point state is that of a fresh program.
    pub fn spawn(machine: &Hosted, pmap: &HostedPmap) -> Result<GuestThread, HostedError> {
        let cpu = machine.engine.deal_cpu();
        let made = pmap.space.attach(cpu)?;
        Ok(GuestThread {
            space: pmap.space.clone(),
            slot: made.slot,
            id: made.id,
            cpu,
            fpu: Vec::new(),
            fpu_taken: false,
            bases: [0; 2],
            mended: Mended::default(),
        })
    }

    /// Runs guest code with `regs` until the next trap, and stores its registers there. `pmap` is
    /// the one that the thread was made for.
    ///
    /// Faults for translations that the pmap has, but that the stub has not mapped, do not come
    /// back. After [`Trap::Gone`] the registers mean nothing.
    pub fn run(&mut self, machine: &Hosted, pmap: &HostedPmap, regs: &mut Registers) -> Trap {
        debug_assert!(
            Arc::ptr_eq(&self.space, &pmap.space),
            "another space's pmap"
        );
        if PINNED.replace(Some(self.cpu)) != Some(self.cpu) {
            sys::pin(0, &[self.cpu]);
        }
        if self.load(machine, regs).is_none() {
            return self.give_up();
        }
        loop {
            match self.space.begin(self.id) {
                Begun::Running => {}
                Begun::Kicked => return Trap::Kicked,
                Begun::Gone => return Trap::Gone,
            }
            let report = self.space.await_trap(self.id, &self.slot);
            match self.space.end(self.id, report) {
                Ended::Trapped => {}
                Ended::NotResumed => continue,
                Ended::Gone => return Trap::Gone,
            }
            let Some(signal) = self.store(machine, regs) else {
                return self.give_up();
            };
            if let Some(trap) = self.judge(&signal, regs) {
                return trap;
            }
        }
    }

    /// The xsave area of the thread (standard format, 512 bytes at least): read it to keep the
    /// state for a fork or a signal, write it to set the state. What the kernel would refuse is
    /// mended before it is used.
    pub fn fpu(&mut self) -> &mut [u8] {
        if !self.fpu_taken {
            let read = Context::of(&self.slot).and_then(|c| c.read_fpu(&mut self.fpu));
            if read.is_none() {
                self.fpu.clear();
                self.fpu.resize(512, 0);
            }
            self.fpu_taken = true;
        }
        &mut self.fpu
    }

    /// Gives the thread the floating-point state of a fresh program.
    pub fn reset_fpu(&mut self) {
        context::reset_fpu(self.fpu());
    }

    /// What other threads can end a [`GuestThread::run`] with.
    pub fn kicker(&self) -> Kicker {
        Kicker {
            space: Arc::downgrade(&self.space),
            id: self.id,
        }
    }

    /// Puts `regs` and what was done to the xsave area in place.
    fn load(&mut self, machine: &Hosted, regs: &Registers) -> Option<()> {
        let context = Context::of(&self.slot)?;
        context.set_registers(regs);
        if std::mem::take(&mut self.fpu_taken) {
            context.write_fpu(&self.fpu)?;
        }
        let bases = [regs.fs_base, regs.gs_base].map(canonical);
        if machine.engine.fsgs {
            self.slot.set(at::FS, bases[0]);
            self.slot.set(at::GS, bases[1]);
        } else if bases != self.bases {
            self.bases = bases;
            self.order_bases();
        }
        Some(())
    }

    /// Sets FS and GS by order, for processors without `wrfsbase`.
    fn order_bases(&self) {
        const SET_GS: u64 = 0x1001;
        const SET_FS: u64 = 0x1002;
        let call = |code, base| Call::new(libc::SYS_arch_prctl, [code, base, 0, 0, 0, 0]);
        let calls = [call(SET_FS, self.bases[0]), call(SET_GS, self.bases[1])];
        let mut st = self.space.lock();
        let token = self.space.take_token(&mut st);
        if let Some(me) = st.member(self.id) {
            self.space.carry_out(&mut st, me, &calls);
        }
        self.space.give_token(&mut st, token);
    }

    /// Reads the registers and the signal; `None` if the guest has overwritten its slot.
    fn store(&mut self, machine: &Hosted, regs: &mut Registers) -> Option<Signal> {
        let context = Context::of(&self.slot)?;
        *regs = context.registers();
        [regs.fs_base, regs.gs_base] = match machine.engine.fsgs {
            true => [self.slot.get(at::FS), self.slot.get(at::GS)],
            false => self.bases,
        };
        context.signal()
    }

    /// What a signal means; `None`: nothing to the caller.
    fn judge(&mut self, signal: &Signal, regs: &mut Registers) -> Option<Trap> {
        if signal.code <= 0 || signal.number == KICK_SIGNAL {
            return None; // a kick, or a signal that somebody outside sent
        }
        if signal.number == libc::SIGSYS {
            return Some(system_call(signal, regs));
        }
        if let Some((address, access)) = signal.page_fault {
            return self.page_fault(signal, address, access, regs.rip);
        }
        Some(Trap::Exception {
            signal: signal.number,
            code: signal.code,
            address: signal.address,
        })
    }

    fn page_fault(
        &mut self,
        signal: &Signal,
        address: VirtAddr,
        access: Access,
        rip: u64,
    ) -> Option<Trap> {
        let fault = |present| Trap::Fault {
            address,
            access,
            present,
        };
        let (was_mapped, refusals) = match self.space.refault(self.id, address, access) {
            Refault::Absent => return Some(fault(false)),
            Refault::Denied => return Some(fault(true)),
            Refault::Mended {
                was_mapped,
                refusals,
            } => (was_mapped, refusals),
        };
        let last = std::mem::replace(
            &mut self.mended,
            Mended {
                place: (address.0, rip),
                refusals,
                vain: 0,
            },
        );
        // Losing the page once more is no failure; having it, or having it refused, is.
        if last.place == self.mended.place && (was_mapped || refusals != last.refusals) {
            self.mended.vain = last.vain + 1;
        }
        (self.mended.vain >= STUBBORN).then_some(Trap::Exception {
            signal: libc::SIGBUS,
            code: signal.code,
            address: address.0,
        })
    }

    /// Ends a stub whose slot the guest has spoilt.
    fn give_up(&self) -> Trap {
        let mut st = self.space.lock();
        if st.member(self.id).is_some() {
            self.space.lost(&mut st);
        }
        Trap::Gone
    }
}

impl Drop for GuestThread {
    fn drop(&mut self) {
        self.space.detach(self.id);
        if PINNED.try_with(|p| p.take()).ok().flatten().is_some() {
            sys::pin(0, self.space.engine.cpus());
        }
    }
}

/// A system call of the guest, as it came by SIGSYS.
fn system_call(signal: &Signal, regs: &mut Registers) -> Trap {
    const X86_64: u32 = 0xc000_003e;
    const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;
    if signal.arch != X86_64 {
        // `int 0x80`: on a kernel without 32-bit calls it is a general-protection fault.
        return Trap::Exception {
            signal: libc::SIGSEGV,
            code: 128,
            address: 0,
        };
    }
    if signal.address & !0xfff == VSYSCALL {
        // The host has returned from the call by itself; only the number is left to tell.
        regs.rax = u64::from(signal.call);
    }
    Trap::Syscall
}

/// `base` if the processor takes it as the base of a segment, else 0.
fn canonical(base: u64) -> u64 {
    if (base << 16) as i64 >> 16 == base as i64 {
        base
    } else {
        0
    }
}

/// Ends runs of one guest thread from other threads.
///
/// Outlives the thread: a kick for one that has ended does nothing.
#[derive(Clone, Debug)]
pub struct Kicker {
    space: Weak<Space>,
    id: u64,
}

impl Kicker {
    /// Nanoseconds for which the thread has run guest code; 0 once it has ended.
    pub fn cpu_time(&self) -> u64 {
        let place = self.space.upgrade().and_then(|s| s.place_of(self.id));
        place.map_or(0, |(pid, tid)| sys::cpu_time(pid, tid))
    }

    /// Makes the present run of the thread end soon with [`Trap::Kicked`], or else the next one
    /// at once. Several kicks before that are one. A run that ends by itself meanwhile tells its
    /// own trap; the kick is kept for the next one.
    pub fn kick(&self) {
        if let Some(space) = self.space.upgrade() {
            space.kick(self.id);
        }
    }
}
