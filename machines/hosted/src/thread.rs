//! Guest threads: run until a trap, registers, floating-point state, kicks.

use crate::context::{self, Context, Registers, Signal};
use crate::mailbox::{Answer, Call, Report, Slot, at};
use crate::pmap::Refault;
use crate::space::{Begun, Ended, Space};
use crate::stub::KICK_SIGNAL;
use crate::{Hosted, HostedError, HostedPmap, seat};
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
/// The thread that calls `run` is confined to one processor: the one that the stub thread has, where
/// the two take turns, or another one that is idle. So give each guest thread a thread of its own;
/// threads that are started from such a thread inherit its confinement. What such a thread waits
/// for between two runs it should wait for in [`crate::rest`].
#[derive(Debug)]
pub struct GuestThread {
    space: Arc<Space>,
    slot: Arc<Slot>,
    id: u64,
    home: usize,
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

impl GuestThread {
    /// Makes a thread in the stub of `pmap`; the first one makes the stub. Its registers come with
    /// the first [`GuestThread::run`]; its floating-point state is that of a fresh program.
    pub fn spawn(machine: &Hosted, pmap: &HostedPmap) -> Result<GuestThread, HostedError> {
        let engine = &machine.engine;
        let near = match pmap.space.lock().members.is_empty() {
            true => seat::home(engine),
            false => None,
        };
        let home = near.unwrap_or_else(|| engine.deal_home());
        let made = pmap.space.attach(machine.engine.cpus[home].number())?;
        Ok(GuestThread {
            space: pmap.space.clone(),
            slot: made.slot,
            id: made.id,
            home,
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
        seat::take(&self.space.engine, self.home);
        if self.load(machine, regs).is_none() {
            return self.give_up();
        }
        loop {
            match self.space.begin(self.id, seat::stub_wait()) {
                Begun::Running => {}
                Begun::Kicked => return Trap::Kicked,
                Begun::Gone => return Trap::Gone,
            }
            let report = seat::watch(&self.slot);
            let report = report.unwrap_or_else(|| self.await_trap());
            seat::trapped();
            self.spread();
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

    /// Sleeps until the guest has trapped. One that computes only is looked after now and then.
    fn await_trap(&mut self) -> Report {
        let home = Cell::new(None);
        let report = self.space.await_trap(self.id, &self.slot, || {
            if let Some(place) = seat::spread() {
                self.space.pin(self.id, place);
                home.set(Some(place));
            }
        });
        self.home = home.get().unwrap_or(self.home);
        report
    }

    /// Moves to another processor where this one is crowded.
    fn spread(&mut self) {
        if let Some(place) = seat::spread() {
            self.space.pin(self.id, place);
            self.home = place;
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

    /// Has call `number` answered where it is made, from the next run on: it does not come back
    /// as a [`Trap::Syscall`] any more. `false`: there are too many such calls already (more than
    /// a dozen), and it comes back as ever. A kick is not lost to it, only told at the next trap.
    pub fn answer(&mut self, number: u32, answer: Answer) -> bool {
        self.slot.answer(number, answer)
    }

    /// Goes over to `pmap`, which has had no thread yet, from a pmap where it is the only one: its
    /// stub goes along, and with the next run shows what `pmap` has and nothing else. The
    /// floating-point state becomes that of a fresh program; answers stay; kickers that were made
    /// before do nothing any more. `false`: it cannot be done, and nothing has changed.
    pub fn move_to(&mut self, pmap: &HostedPmap) -> bool {
        let Some(id) = self.space.hand_over(self.id, &pmap.space) else {
            return false;
        };
        self.space = pmap.space.clone();
        self.id = id;
        self.mended = Mended::default();
        self.reset_fpu();
        true
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
            self.slot.turn(at::FS, bases[0]);
            self.slot.turn(at::GS, bases[1]);
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
        seat::leave();
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
        place.map_or(0, |(pid, tid)| crate::sys::cpu_time(pid, tid))
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
