//! A program's thread, run in user mode until it traps.

use crate::fpu::Fpu;
use crate::frame::{Frame, SYSCALL};
use crate::machine::Bare;
use crate::traps::PAGE_FAULT;
use crate::{apic, hardware, heap, link, threads};
use alloc::boxed::Box;
use alloc::sync::Arc;
use bsdvm::{Access, SpaceId, VirtAddr, Vm};
use bsdvm_linux::platform::{GuestThread, Kicker, Registers, Trap};
use bsdvm_machine::Wait;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use linux_raw_sys::general as abi;
use x86_64::registers::control::Cr2;
use x86_64::registers::model_specific::{FsBase, GsBase};

const TIMER: u64 = apic::TIMER as u64;
const SPURIOUS: u64 = apic::SPURIOUS as u64;
/// `si_code` of a signal that the kernel sends without further words.
const SI_KERNEL: i32 = 0x80;

/// Bits of a page fault's error code.
const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;

/// What the processor's FS and GS registers have as their bases now.
static FS: AtomicU64 = AtomicU64::new(0);
static GS: AtomicU64 = AtomicU64::new(0);

/// A program's thread.
pub(crate) struct BareThread {
    frame: Box<Frame>,
    fpu: Fpu,
    space: SpaceId,
    kicker: BareKicker,
}

impl BareThread {
    /// A thread in `space`.
    pub(crate) fn new(space: SpaceId) -> BareThread {
        BareThread {
            frame: Box::default(),
            fpu: Fpu::new(),
            space,
            kicker: BareKicker::default(),
        }
    }

    /// Enters user mode; `None` when the space is gone.
    fn enter(&mut self, vm: &Vm<Bare>, regs: &mut Registers) -> Option<()> {
        self.frame.set(regs);
        vm.space(self.space).with_pmap(hardware::enter)?;
        set_base(&FS, regs.fs_base, FsBase::write);
        set_base(&GS, regs.gs_base, GsBase::write);
        self.fpu.load();
        self.frame.run();
        self.frame.get(regs);
        Some(())
    }
}

fn set_base(now: &AtomicU64, wanted: u64, write: fn(x86_64::VirtAddr)) {
    if now.swap(wanted, Ordering::Relaxed) != wanted {
        write(x86_64::VirtAddr::new_truncate(wanted));
    }
}

impl GuestThread for BareThread {
    type Machine = Bare;
    type Kicker = BareKicker;

    fn run(&mut self, vm: &Vm<Bare>, regs: &mut Registers) -> Trap {
        heap::tidy();
        loop {
            if self.kicker.take() {
                return Trap::Kicked;
            }
            if !bsdvm_x86_64::USER.contains(VirtAddr(regs.rip)) {
                // The way to user mode would fault in the kernel, not there.
                return exception(abi::SIGSEGV, SI_KERNEL, 0);
            }
            if self.enter(vm, regs).is_none() {
                return Trap::Gone;
            }
            match self.frame.vector {
                SYSCALL => return Trap::Syscall,
                TIMER => {
                    apic::done();
                    link::attend();
                    heap::tidy();
                    threads::expire();
                    threads::give_way();
                }
                SPURIOUS => {}
                PAGE_FAULT => return page_fault(self.frame.error),
                vector => return exception_of(vector, regs.rip),
            }
        }
    }

    fn fpu(&mut self) -> &mut [u8] {
        self.fpu.bytes()
    }

    fn kicker(&self) -> BareKicker {
        self.kicker.clone()
    }
}

fn page_fault(error: u64) -> Trap {
    let access = match error {
        e if e & FETCH != 0 => Access::Execute,
        e if e & WRITE != 0 => Access::Write,
        _ => Access::Read,
    };
    Trap::Fault {
        address: VirtAddr(Cr2::read_raw()),
        access,
        present: error & PRESENT != 0,
    }
}

fn exception(signal: u32, code: i32, address: u64) -> Trap {
    Trap::Exception {
        signal: signal.cast_signed(),
        code,
        address,
    }
}

/// What Linux makes of an exception.
fn exception_of(vector: u64, rip: u64) -> Trap {
    let code = |c: u32| c.cast_signed();
    match vector {
        0 => exception(abi::SIGFPE, code(abi::FPE_INTDIV), rip),
        1 => exception(abi::SIGTRAP, code(abi::TRAP_TRACE), rip),
        3 => exception(abi::SIGTRAP, SI_KERNEL, 0),
        6 => exception(abi::SIGILL, code(abi::ILL_ILLOPN), rip),
        10..=12 => exception(abi::SIGBUS, SI_KERNEL, 0),
        16 | 19 => exception(abi::SIGFPE, code(abi::FPE_FLTINV), rip),
        17 => exception(abi::SIGBUS, code(abi::BUS_ADRALN), 0),
        _ => exception(abi::SIGSEGV, SI_KERNEL, 0),
    }
}

/// Ends a thread's run, or its wait for files.
#[derive(Clone, Debug, Default)]
pub(crate) struct BareKicker(Arc<AtomicBool>);

impl BareKicker {
    /// Whether somebody kicked, once for each kick.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Kicker for BareKicker {
    fn kick(&self) {
        // One processor: whoever kicks runs now, so the thread does not, and looks before it does.
        self.0.store(true, Ordering::Relaxed);
        Bare.wake(link::WATCHERS);
    }
}
