//! The record on the guest's stack that a handler runs on, and the way back.
//!
//! The layout is the kernel's `struct rt_sigframe`; above it, aligned to 64 bytes, lies the vector
//! state as `xsave` stores it, as the machine's own signal frames have it.

use super::{Action, SigInfo, SigSet};
use crate::errno::Errno;
use crate::platform::{GuestThread, Platform, Registers};
use crate::process::UNSTOPPABLE;
use crate::thread::Task;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SA_RESTORER`: the frame returns through the program's own code. Others are not supported on
/// x86-64 by Linux either.
const SA_RESTORER: u32 = 0x0400_0000;
/// `UC_FP_XSTATE`, `UC_SIGCONTEXT_SS`, `UC_STRICT_RESTORE_SS`.
const UC_FLAGS: u64 = 1 | 2 | 4;
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
/// The flags a program may set itself: arithmetic, direction, trap, nested task, resume, AC, ID.
const USER_FLAGS: u64 = 0x0025_4dd5;
/// `IF` and the bit that is always one.
const FIXED_FLAGS: u64 = 0x202;
/// The trap flag and the direction flag, which a handler starts without.
const TF_DF_RF: u64 = 0x1_0500;
/// The area below the stack pointer that belongs to the program.
const RED_ZONE: u64 = 128;
/// Where the kernel's own words lie in the 512-byte legacy area, and where they end.
const SW_RESERVED: core::ops::Range<usize> = 464..512;
/// The header of the `xsave` area.
const XSAVE_HEADER: core::ops::Range<usize> = 512..576;

/// `stack_t`.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct AltStack {
    pub(crate) base: u64,
    pub(crate) flags: u32,
    pub(crate) pad: u32,
    pub(crate) size: u64,
}

impl AltStack {
    /// No alternate stack.
    pub(crate) const DISABLED: AltStack = AltStack {
        base: 0,
        flags: abi::SS_DISABLE,
        pad: 0,
        size: 0,
    };

    /// Whether one is set.
    pub(crate) fn is_set(&self) -> bool {
        self.size != 0
    }

    /// Whether the stack pointer is on it.
    pub(crate) fn holds(&self, sp: u64) -> bool {
        self.is_set() && sp > self.base && sp - self.base <= self.size
    }

    /// As `sigaltstack` tells it to a thread whose stack pointer is `sp`.
    pub(crate) fn seen_from(&self, sp: u64) -> AltStack {
        let auto = self.flags & abi::SS_AUTODISARM;
        if !self.is_set() {
            return AltStack::DISABLED;
        }
        let on = if auto == 0 && self.holds(sp) {
            abi::SS_ONSTACK
        } else {
            0
        };
        AltStack {
            flags: auto | on,
            ..*self
        }
    }
}

/// `struct sigcontext`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SigContext {
    r8_to_r15: [u64; 8],
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    flags: u64,
    /// cs, gs, fs, ss: sixteen bits each.
    segments: u64,
    error: u64,
    trap: u64,
    old_mask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
}

/// `struct rt_sigframe`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Frame {
    restorer: u64,
    flags: u64,
    link: u64,
    stack: AltStack,
    context: SigContext,
    mask: SigSet,
    info: SigInfo,
}

impl SigContext {
    fn of(r: &Registers) -> SigContext {
        SigContext {
            r8_to_r15: [r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15],
            rdi: r.rdi,
            rsi: r.rsi,
            rbp: r.rbp,
            rbx: r.rbx,
            rdx: r.rdx,
            rax: r.rax,
            rcx: r.rcx,
            rsp: r.rsp,
            rip: r.rip,
            flags: r.rflags,
            segments: USER_CS | USER_SS << 48,
            ..SigContext::default()
        }
    }

    fn restore(&self, r: &mut Registers) {
        [r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15] = self.r8_to_r15;
        r.rdi = self.rdi;
        r.rsi = self.rsi;
        r.rbp = self.rbp;
        r.rbx = self.rbx;
        r.rdx = self.rdx;
        r.rax = self.rax;
        r.rcx = self.rcx;
        r.rsp = self.rsp;
        r.rip = self.rip;
        r.rflags = self.flags & USER_FLAGS | FIXED_FLAGS;
    }
}

/// Where the vector state and the frame go, below `top`: the frame so that the handler finds the
/// stack as after a call.
fn place(top: u64, fpu: u64) -> Option<(u64, u64)> {
    let state = top.checked_sub(fpu)? & !63;
    let frame = (state.checked_sub(size_of::<Frame>() as u64)? & !15).checked_sub(8)?;
    Some((state, frame))
}

/// Takes from `wanted` what a program may choose of the vector state `now`: the kernel's words
/// stay, the header names only components that are there.
fn merge_fpu(now: &mut [u8], wanted: &[u8]) {
    if wanted.len() != now.len() || now.len() < XSAVE_HEADER.end {
        return;
    }
    let mut merged: Vec<u8> = wanted.to_vec();
    merged[SW_RESERVED].copy_from_slice(&now[SW_RESERVED]);
    // sw_reserved: magic1, extended_size, xfeatures, ...
    let word = |bytes: &[u8], at: usize| {
        let mut w = [0; 8];
        w.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(w)
    };
    let features = word(now, SW_RESERVED.start + 8);
    let chosen = word(wanted, XSAVE_HEADER.start) & features;
    merged[XSAVE_HEADER].fill(0);
    merged[XSAVE_HEADER.start..XSAVE_HEADER.start + 8].copy_from_slice(&chosen.to_le_bytes());
    // MXCSR: bits that the processor does not have would trap when loaded.
    let mask = (word(now, 24) >> 32) as u32;
    let mask = if mask == 0 { 0xffbf } else { mask };
    let mxcsr = (word(wanted, 24) as u32) & mask;
    merged[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    merged[28..32].copy_from_slice(&now[28..32]);
    // The last word says that the area is complete; it is the kernel's too.
    let end = now.len() - 4;
    merged[end..].copy_from_slice(&now[end..]);
    now.copy_from_slice(&merged);
}

impl<P: Platform> Task<P> {
    /// Puts a frame on the stack and makes the handler run. `Err`: there is no room.
    pub(super) fn push_frame(&mut self, mut info: SigInfo, action: Action) -> Result<(), Errno> {
        if !action.has(SA_RESTORER) {
            return Err(Errno::EFAULT);
        }
        let own = self.thread.signals.lock().clone();
        let alt = own.alt_stack;
        let to_alt = action.has(abi::SA_ONSTACK) && alt.is_set() && !alt.holds(self.regs.rsp);
        let top = if to_alt {
            alt.base.checked_add(alt.size).ok_or(Errno::EFAULT)?
        } else {
            self.regs.rsp.checked_sub(RED_ZONE).ok_or(Errno::EFAULT)?
        };
        let fpu = self.cpu.fpu().to_vec();
        let (state_at, frame_at) = place(top, fpu.len() as u64).ok_or(Errno::EFAULT)?;
        if (to_alt || alt.holds(self.regs.rsp)) && frame_at < alt.base {
            return Err(Errno::EFAULT);
        }
        let mut context = SigContext::of(&self.regs);
        context.fpstate = if fpu.is_empty() { 0 } else { state_at };
        if info.is_fault() {
            context.error = info.take_access();
            context.trap = if context.error != 0 { 14 } else { 0 };
            context.cr2 = if context.error != 0 {
                info.fields[0]
            } else {
                0
            };
        }
        let frame = Frame {
            restorer: action.restorer,
            flags: UC_FLAGS,
            link: 0,
            stack: alt.seen_from(self.regs.rsp),
            context,
            mask: own.saved_mask.unwrap_or(own.mask),
            info,
        };
        self.write_user(state_at, &fpu)?;
        self.put(frame_at, &frame)?;
        self.enter_handler(info.signal, action, frame_at);
        Ok(())
    }

    fn enter_handler(&mut self, signal: u32, action: Action, frame_at: u64) {
        let info_at = frame_at + core::mem::offset_of!(Frame, info) as u64;
        let context_at = frame_at + core::mem::offset_of!(Frame, flags) as u64;
        self.regs.rdi = u64::from(signal);
        self.regs.rsi = info_at;
        self.regs.rdx = context_at;
        self.regs.rax = 0;
        self.regs.rsp = frame_at;
        self.regs.rip = action.handler;
        self.regs.rflags &= !TF_DF_RF;
        let mut own = self.thread.signals.lock();
        own.saved_mask = None;
        let mut mask = own.mask.union(action.mask);
        if !action.has(abi::SA_NODEFER) {
            mask = mask.union(SigSet::of(signal));
        }
        own.mask = mask.without(UNSTOPPABLE);
        if own.alt_stack.flags & abi::SS_AUTODISARM != 0 {
            own.alt_stack = AltStack::default();
        }
    }

    /// `rt_sigreturn`: goes back to what the frame above the stack pointer says. `Err`: the
    /// frame cannot be read, which kills.
    pub(crate) fn pop_frame(&mut self) -> Result<(), Errno> {
        // The return address was taken off by the handler's `ret`.
        let at = self.regs.rsp.checked_sub(8).ok_or(Errno::EFAULT)?;
        let frame: Frame = self.get(at)?;
        let len = self.cpu.fpu().len();
        if frame.context.fpstate != 0 {
            let wanted = self.bytes(frame.context.fpstate, len)?;
            merge_fpu(self.cpu.fpu(), &wanted);
        }
        frame.context.restore(&mut self.regs);
        let mut own = self.thread.signals.lock();
        own.mask = frame.mask.without(UNSTOPPABLE);
        if own.alt_stack == AltStack::default() && frame.stack.size != 0 {
            own.alt_stack = AltStack {
                flags: frame.stack.flags & abi::SS_AUTODISARM,
                pad: 0,
                ..frame.stack
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_frame_is_the_kernels() {
        assert_eq!(size_of::<SigContext>(), 256);
        assert_eq!(size_of::<Frame>(), 440);
        assert_eq!(core::mem::offset_of!(Frame, info), 312);
        let (state, frame) = place(0x7fff_0000_0123, 2696).unwrap();
        assert_eq!(state % 64, 0);
        assert_eq!((frame + 8) % 16, 0);
        assert!(frame + 440 <= state);
        assert!(place(100, 2696).is_none());
    }

    #[test]
    fn a_program_cannot_choose_the_kernels_words() {
        let mut now = vec![0u8; 832];
        now[472] = 7;
        now[464] = 9;
        let mut wanted = vec![0xffu8; 832];
        wanted[0] = 1;
        merge_fpu(&mut now, &wanted);
        assert_eq!(now[0], 1);
        assert_eq!(now[464], 9);
        assert_eq!(now[512], 7);
        assert_eq!(&now[513..576], &[0; 63]);
        assert_eq!(&now[24..28], &0xffbfu32.to_le_bytes());
        merge_fpu(&mut now, &[1, 2, 3]);
        assert_eq!(now[0], 1);
    }

    #[test]
    fn alternate_stacks_know_who_is_on_them() {
        let alt = AltStack {
            base: 0x1000,
            flags: 0,
            pad: 0,
            size: 0x1000,
        };
        assert!(alt.holds(0x1800) && alt.holds(0x2000));
        assert!(!alt.holds(0x1000) && !alt.holds(0x2001));
        assert_eq!(alt.seen_from(0x1800).flags, abi::SS_ONSTACK);
        assert_eq!(AltStack::default().seen_from(0x1800), AltStack::DISABLED);
        let huge = AltStack {
            base: u64::MAX - 1,
            flags: 0,
            pad: 0,
            size: u64::MAX,
        };
        assert!(!huge.holds(5));
    }
}
