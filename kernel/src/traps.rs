//! The table of traps, and what traps in the kernel itself mean: mostly its end.

use crate::frame::Frame;
use crate::segments::{DOUBLE_FAULT_STACK, KERNEL_CODE, USER_BASE};
use crate::{apic, segments};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use x86_64::registers::control::Cr2;
use x86_64::registers::model_specific::{LStar, Msr, SFMask};
use x86_64::registers::rflags::RFlags;
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::{PrivilegeLevel, VirtAddr};

core::arch::global_asm!(include_str!("traps.S"));

unsafe extern "C" {
    static trap_entries: u8;
    fn syscall_entry();
    fn probe_failed();
    fn probe_load(address: u64) -> i64;
    fn probe_store(address: u64, byte: u8) -> i64;
    fn probe_call(address: u64) -> i64;
}

/// The vector of page faults.
pub(crate) const PAGE_FAULT: u64 = 14;
const BREAKPOINT: u8 = 3;
const OVERFLOW: u8 = 4;
const DOUBLE_FAULT: u8 = 8;
/// Bytes of one entry in `traps.S`.
const ENTRY_BYTES: u64 = 16;

struct Table(UnsafeCell<InterruptDescriptorTable>);

// SAFETY: changed only while the only processor boots.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new(InterruptDescriptorTable::new()));

/// Sets up what happens at traps and at the `syscall` instruction.
pub(crate) fn init() {
    let first = (&raw const trap_entries).expose_provenance() as u64;
    // The table in the form that the processor reads: two words an entry.
    let table = TABLE.0.get().cast::<[u64; 2]>();
    for vector in 0..=255u8 {
        let stack = match vector {
            DOUBLE_FAULT => DOUBLE_FAULT_STACK + 1,
            _ => 0,
        };
        let ring = match vector {
            BREAKPOINT | OVERFLOW => PrivilegeLevel::Ring3,
            _ => PrivilegeLevel::Ring0,
        };
        let at = first + u64::from(vector) * ENTRY_BYTES;
        let entry = gate(at, stack, ring);
        // SAFETY: the table has 256 entries, and nobody else runs yet.
        unsafe { table.add(usize::from(vector)).write(entry) };
    }
    // SAFETY: every entry leads to code of traps.S.
    unsafe { (*TABLE.0.get()).load_unsafe() };
    LStar::write(VirtAddr::new(syscall_entry as *const () as u64));
    SFMask::write(
        RFlags::INTERRUPT_FLAG
            | RFlags::TRAP_FLAG
            | RFlags::DIRECTION_FLAG
            | RFlags::ALIGNMENT_CHECK
            | RFlags::NESTED_TASK,
    );
    let selectors = u64::from(USER_BASE) << 48 | u64::from(KERNEL_CODE) << 32;
    // SAFETY: STAR, with selectors in the order that `syscall` expects.
    unsafe { Msr::new(0xc000_0081).write(selectors) };
}

/// An interrupt gate: interrupts are off behind it.
fn gate(at: u64, stack: u16, ring: PrivilegeLevel) -> [u64; 2] {
    let kind = 0x8e00 | (ring as u64) << 13 | u64::from(stack);
    let low = at & 0xffff | u64::from(segments::KERNEL_CODE) << 16;
    [low | kind << 32 | (at >> 16 & 0xffff) << 48, at >> 32]
}

/// Whether an access that may fault is under way.
static PROBING: AtomicBool = AtomicBool::new(false);

/// An access of the kernel to a program's memory, without help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probe {
    Load,
    Store(u8),
    Call,
}

/// Tries an access in the space that is loaded. `None`: it faulted.
///
/// # Safety
///
/// A store must not hit what anybody refers to; a call must find code that returns at once.
pub(crate) unsafe fn probe(address: u64, what: Probe) -> Option<u8> {
    PROBING.store(true, Ordering::Relaxed);
    // SAFETY: a fault in them ends at `probe_failed`; the rest is the caller's promise.
    let answer = unsafe {
        match what {
            Probe::Load => probe_load(address),
            Probe::Store(byte) => probe_store(address, byte),
            Probe::Call => probe_call(address),
        }
    };
    PROBING.store(false, Ordering::Relaxed);
    u8::try_from(answer).ok()
}

/// What `traps.S` calls for a trap in the kernel.
#[unsafe(no_mangle)]
extern "C" fn kernel_trap(frame: &mut Frame) {
    match frame.vector {
        v if v == u64::from(apic::TIMER) => apic::done(),
        v if v == u64::from(apic::SPURIOUS) => {}
        PAGE_FAULT if PROBING.load(Ordering::Relaxed) => {
            frame.rip = probe_failed as *const () as u64;
        }
        vector => panic!(
            "trap {vector} ({}) in the kernel at {:#x}: error {:#x}, address {:#x}, stack {:#x}",
            name(vector),
            frame.rip,
            frame.error,
            Cr2::read_raw(),
            frame.rsp
        ),
    }
}

/// What an exception is called.
fn name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        6 => "invalid opcode",
        8 => "double fault",
        12 => "stack fault",
        13 => "general protection",
        14 => "page fault",
        18 => "machine check",
        _ => "unexpected",
    }
}
