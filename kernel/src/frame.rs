//! The registers of a program, as `traps.S` keeps them, and the way to user mode.

use crate::segments::{self, USER_CODE, USER_DATA};
use bsdvm_linux::platform::Registers;

/// The vector that `traps.S` gives to a system call.
pub(crate) const SYSCALL: u64 = 256;

/// A program's registers between two runs. The order is that of `traps.S`.
#[derive(Debug, Default)]
#[repr(C, align(16))]
pub(crate) struct Frame {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rbp: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rdx: u64,
    pub(crate) rcx: u64,
    pub(crate) rbx: u64,
    pub(crate) rax: u64,
    /// Why it trapped: the processor's vector, or [`SYSCALL`].
    pub(crate) vector: u64,
    /// The error code of an exception that has one.
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
    /// The kernel's stack while the program runs.
    kernel_stack: u64,
}

/// The flags that a program may have: arithmetic, direction, trap, nested task, resume, AC, ID.
const USER_FLAGS: u64 = 0x0025_4dd5;
/// Interrupts on, and the bit that is always one.
const FIXED_FLAGS: u64 = 0x202;

unsafe extern "C" {
    fn enter_user(frame: *mut Frame);
}

impl Frame {
    /// Where the part ends that a trap pushes.
    pub(crate) const TRAP_END: u64 = 176;

    /// Takes over what the program is to have.
    pub(crate) fn set(&mut self, r: &Registers) {
        (self.rax, self.rbx, self.rcx, self.rdx) = (r.rax, r.rbx, r.rcx, r.rdx);
        (self.rsi, self.rdi, self.rbp, self.rsp) = (r.rsi, r.rdi, r.rbp, r.rsp);
        (self.r8, self.r9, self.r10, self.r11) = (r.r8, r.r9, r.r10, r.r11);
        (self.r12, self.r13, self.r14, self.r15) = (r.r12, r.r13, r.r14, r.r15);
        self.rip = r.rip;
        self.rflags = r.rflags & USER_FLAGS | FIXED_FLAGS;
        (self.cs, self.ss) = (u64::from(USER_CODE), u64::from(USER_DATA));
    }

    /// Gives back what the program has. The bases of FS and GS are not in the frame.
    pub(crate) fn get(&self, r: &mut Registers) {
        (r.rax, r.rbx, r.rcx, r.rdx) = (self.rax, self.rbx, self.rcx, self.rdx);
        (r.rsi, r.rdi, r.rbp, r.rsp) = (self.rsi, self.rdi, self.rbp, self.rsp);
        (r.r8, r.r9, r.r10, r.r11) = (self.r8, self.r9, self.r10, self.r11);
        (r.r12, r.r13, r.r14, r.r15) = (self.r12, self.r13, self.r14, self.r15);
        (r.rip, r.rflags) = (self.rip, self.rflags);
    }

    /// Runs the program until it traps. Its address must be canonical.
    pub(crate) fn run(&mut self) {
        segments::set_frame(self);
        // SAFETY: the frame says user mode with interrupts on and is where traps go; kernel memory
        // is closed to user mode.
        unsafe { enter_user(self) };
    }
}

const _: () = assert!(core::mem::offset_of!(Frame, kernel_stack) as u64 == Frame::TRAP_END);
