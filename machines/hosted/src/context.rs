//! The signal frame of a parked stub thread: the guest's registers, edited in place.

use crate::mailbox::{Slot, at};
use bsdvm_machine::{Access, VirtAddr};

/// The general registers of a guest thread, with the bases of FS and GS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // the names are the processor's
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// The bytes of a ucontext up to the end of its signal mask.
const UCONTEXT_BYTES: u64 = 304;
/// Where the general registers lie in a ucontext.
const GREGS: u64 = 40;
/// Where rax lies in a ucontext.
pub(crate) const RAX: u64 = GREGS + 13 * 8;
/// Where the error code, the trap number and the fault address lie among them, by index.
const ERR: u64 = 19;
const TRAPNO: u64 = 20;
const CR2: u64 = 22;
/// Where the address of the xsave area lies in a ucontext.
const FPSTATE: u64 = 224;
/// Where the signal mask lies in a ucontext.
const SIGMASK: u64 = 296;
/// What the kernel writes into an xsave area about itself: offset and first word.
const SOFTWARE: u64 = 464;
const MAGIC: u32 = 0x4650_5853;
/// The trap number of a page fault.
const PAGE_FAULT: u64 = 14;
/// The flags that a guest may set by hand: the kernel would mask the others anyway.
const FLAGS: u64 = 0x0005_0dd5;

/// The signal that parked a stub thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal {
    pub(crate) number: i32,
    pub(crate) code: i32,
    /// Fault address, or the address after a system call.
    pub(crate) address: u64,
    /// Of SIGSYS: the call's number and the architecture it was made for.
    pub(crate) call: u32,
    pub(crate) arch: u32,
    /// Of a page fault: where and how.
    pub(crate) page_fault: Option<(VirtAddr, Access)>,
}

/// The frame that the kernel built in a slot.
pub(crate) struct Context<'a> {
    slot: &'a Slot,
    ucontext: u64,
}

impl<'a> Context<'a> {
    /// The frame of a parked thread; `None` if the guest has overwritten the slot.
    pub(crate) fn of(slot: &'a Slot) -> Option<Context<'a>> {
        let ucontext = slot.on_stack(slot.get(at::UCONTEXT), UCONTEXT_BYTES)?;
        Some(Context { slot, ucontext })
    }

    fn greg(&self, i: u64) -> u64 {
        self.slot.get(self.ucontext + GREGS + i * 8)
    }

    fn set_greg(&self, i: u64, value: u64) {
        self.slot.turn(self.ucontext + GREGS + i * 8, value);
    }

    /// The general registers; the bases of FS and GS are not in the frame and stay 0.
    pub(crate) fn registers(&self) -> Registers {
        Registers {
            r8: self.greg(0),
            r9: self.greg(1),
            r10: self.greg(2),
            r11: self.greg(3),
            r12: self.greg(4),
            r13: self.greg(5),
            r14: self.greg(6),
            r15: self.greg(7),
            rdi: self.greg(8),
            rsi: self.greg(9),
            rbp: self.greg(10),
            rbx: self.greg(11),
            rdx: self.greg(12),
            rax: self.greg(13),
            rcx: self.greg(14),
            rsp: self.greg(15),
            rip: self.greg(16),
            rflags: self.greg(17),
            fs_base: 0,
            gs_base: 0,
        }
    }

    /// Sets the general registers, but not FS and GS.
    pub(crate) fn set_registers(&self, r: &Registers) {
        let values = [
            r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx,
            r.rdx, r.rax, r.rcx, r.rsp, r.rip,
        ];
        for (i, value) in values.into_iter().enumerate() {
            self.set_greg(i as u64, value);
        }
        let kept = self.greg(17) & !FLAGS;
        self.set_greg(17, kept | r.rflags & FLAGS);
        // Whatever mask the frame was made with, guest code runs with none.
        self.slot.turn(self.ucontext + SIGMASK, 0);
    }

    /// The signal that made the frame; `None` if the guest has overwritten the slot.
    pub(crate) fn signal(&self) -> Option<Signal> {
        let info = self.slot.on_stack(self.slot.get(at::INFO), 128)?;
        let number = self.slot.get32(at::SIGNO) as i32;
        let memory = number == libc::SIGSEGV || number == libc::SIGBUS;
        let access = match self.greg(ERR) {
            e if e & 16 != 0 => Access::Execute,
            e if e & 2 != 0 => Access::Write,
            _ => Access::Read,
        };
        let fault = memory && self.greg(TRAPNO) == PAGE_FAULT;
        Some(Signal {
            number,
            code: self.slot.get32(info + 8) as i32,
            address: self.slot.get(info + 16),
            call: self.slot.get32(info + 24),
            arch: self.slot.get32(info + 28),
            page_fault: fault.then(|| (VirtAddr(self.greg(CR2)), access)),
        })
    }

    /// The place and size of the xsave area, in bytes of the slot.
    fn fpu_place(&self) -> Option<(u64, u64)> {
        let va = self.slot.get(self.ucontext + FPSTATE);
        let start = self.slot.on_stack(va, 512)?;
        if self.slot.get32(start + SOFTWARE) != MAGIC {
            return Some((start, 512));
        }
        let bytes = u64::from(self.slot.get32(start + SOFTWARE + 4)) & !7;
        self.slot.on_stack(va, bytes).map(|_| (start, bytes))
    }

    /// A copy of the xsave area, whole words of it.
    pub(crate) fn read_fpu(&self, to: &mut Vec<u8>) -> Option<()> {
        let (start, bytes) = self.fpu_place()?;
        to.clear();
        for offset in (0..bytes).step_by(8) {
            to.extend_from_slice(&self.slot.get(start + offset).to_le_bytes());
        }
        Some(())
    }

    /// Replaces the xsave area by `from`, made safe: what comes from a guest's own signal frame
    /// may not make the kernel refuse the frame, since a refusal kills the stub. The kernel's
    /// words about the area are left alone.
    pub(crate) fn write_fpu(&self, from: &[u8]) -> Option<()> {
        let (start, bytes) = self.fpu_place()?;
        let features = match bytes {
            512 => 0,
            _ => self.slot.get(start + SOFTWARE + 8),
        };
        let mask = match self.slot.get32(start + 28) {
            0 => 0xffbf,
            m => m,
        };
        let area = from.chunks_exact(8).take(bytes as usize / 8).enumerate();
        for (i, word) in area {
            let word = u64::from_le_bytes(word.try_into().ok()?);
            let offset = i as u64 * 8;
            let word = match offset {
                24 => u64::from(word as u32 & mask) | u64::from(mask) << 32, // MXCSR, its mask
                SOFTWARE..512 => continue,
                512 => word & features, // which parts hold state
                520..576 => 0,
                _ => word,
            };
            self.slot.set(start + offset, word);
        }
        Some(())
    }
}

/// Turns an xsave area into the state of a fresh program.
pub(crate) fn reset_fpu(area: &mut [u8]) {
    for (i, byte) in area.iter_mut().enumerate() {
        if !(SOFTWARE as usize..512).contains(&i) {
            *byte = 0;
        }
    }
    area[0..2].copy_from_slice(&0x037fu16.to_le_bytes());
    area[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
}
