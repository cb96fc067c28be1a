//! Floating-point and vector registers of programs.
//!
//! The kernel uses none, so the registers stay a program's until another one wants them: `owner`
//! says whose they are.

use alloc::boxed::Box;
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

/// The most that the parts in use can take: x87, SSE and AVX need 832 bytes.
const MOST: usize = 1024;
/// What `fxsave` stores.
const LEGACY: usize = 512;
/// The header of an `xsave` area: which parts hold state.
const HEADER: core::ops::Range<usize> = 512..576;

static XSAVE: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicUsize = AtomicUsize::new(LEGACY);
static OWNER: AtomicPtr<Area> = AtomicPtr::new(null_mut());

/// Where the registers are kept, in the layout of `xsave`.
#[derive(Clone)]
#[repr(C, align(64))]
struct Area([u8; MOST]);

/// Switches the registers on for programs.
pub(crate) fn init() {
    let leaf = core::arch::x86_64::__cpuid(1);
    // SAFETY: no program runs yet.
    unsafe {
        Cr0::write(Cr0::read() - Cr0Flags::EMULATE_COPROCESSOR - Cr0Flags::TASK_SWITCHED);
    }
    if leaf.ecx >> 26 & 1 == 0 {
        return;
    }
    let mut parts = XCr0Flags::X87 | XCr0Flags::SSE;
    parts.set(XCr0Flags::AVX, leaf.ecx >> 28 & 1 != 0);
    // SAFETY: the processor said that it has them.
    unsafe {
        Cr4::write(Cr4::read() | Cr4Flags::OSXSAVE);
        XCr0::write(parts);
    }
    let bytes = __cpuid_count(13, 0).ebx as usize;
    assert!(bytes <= MOST, "{bytes} bytes of vector registers");
    XSAVE.store(true, Ordering::Relaxed);
    BYTES.store(bytes, Ordering::Relaxed);
}

/// The registers of one program.
pub(crate) struct Fpu {
    area: Box<Area>,
    /// Somebody may have written to the area, whatever it holds.
    touched: bool,
}

impl Fpu {
    /// The registers as a program finds them first.
    pub(crate) fn new() -> Fpu {
        let mut area = Box::new(Area([0; MOST]));
        area.0[0..2].copy_from_slice(&0x037fu16.to_le_bytes());
        area.0[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        Fpu {
            area,
            touched: false,
        }
    }

    /// The registers as bytes; what is changed there holds from the next run.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        if OWNER.load(Ordering::Relaxed) == &raw mut *self.area {
            save(&raw mut *self.area);
            OWNER.store(null_mut(), Ordering::Relaxed);
        }
        self.touched = true;
        &mut self.area.0[..BYTES.load(Ordering::Relaxed)]
    }

    /// Puts the program's values in the registers.
    pub(crate) fn load(&mut self) {
        let owner = OWNER.load(Ordering::Relaxed);
        let own: *mut Area = &raw mut *self.area;
        if owner == own {
            return;
        }
        if !owner.is_null() {
            save(owner);
        }
        if core::mem::take(&mut self.touched) {
            self.make_loadable();
        }
        restore(own);
        OWNER.store(own, Ordering::Relaxed);
    }

    /// Takes out of the area what the processor would refuse.
    fn make_loadable(&mut self) {
        let bytes = &mut self.area.0;
        let control = u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]) & 0xffff;
        bytes[24..28].copy_from_slice(&control.to_le_bytes());
        let parts = match XSAVE.load(Ordering::Relaxed) {
            true => XCr0::read_raw(),
            false => 0,
        };
        let mut held = [0; 8];
        held.copy_from_slice(&bytes[HEADER.start..HEADER.start + 8]);
        let held = u64::from_le_bytes(held) & parts;
        bytes[HEADER].fill(0);
        bytes[HEADER.start..HEADER.start + 8].copy_from_slice(&held.to_le_bytes());
    }
}

impl Drop for Fpu {
    fn drop(&mut self) {
        let own: *mut Area = &raw mut *self.area;
        let _ = OWNER.compare_exchange(own, null_mut(), Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn save(area: *mut Area) {
    // SAFETY: the area is aligned and large enough, and its owner lives: it takes its name out
    // of `OWNER` when it ends.
    unsafe {
        if XSAVE.load(Ordering::Relaxed) {
            asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX);
        } else {
            asm!("fxsave64 [{}]", in(reg) area);
        }
    }
}

fn restore(area: *const Area) {
    // SAFETY: as in `save`, and the contents came from `save` or were made loadable.
    unsafe {
        if XSAVE.load(Ordering::Relaxed) {
            asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX);
        } else {
            asm!("fxrstor64 [{}]", in(reg) area);
        }
    }
}
