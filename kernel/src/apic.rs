//! The processor's own interrupt controller: its timer. The old controller is masked.

use crate::layout::direct;
use core::ptr::NonNull;
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

/// The vector of the timer.
pub(crate) const TIMER: u8 = 0x20;
/// The vector of interrupts that went away before they were taken.
pub(crate) const SPURIOUS: u8 = 0xff;

/// The time between two ticks, in nanoseconds: what a sleep is late at most, and how long a
/// program runs before another one may.
const TICK: u32 = 1_000_000;

/// Registers, by offset.
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS_VECTOR: usize = 0xf0;
const TIMER_VECTOR: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

const ENABLED: u32 = 1 << 8;
const PERIODIC: u32 = 1 << 17;
const MASKED: u32 = 1 << 16;
/// The timer counts every tick of its clock.
const BY_ONE: u32 = 0xb;

fn base() -> NonNull<u8> {
    // SAFETY: IA32_APIC_BASE exists on every x86-64 processor.
    let msr = unsafe { Msr::new(0x1b).read() };
    direct(msr & 0x000f_ffff_ffff_f000)
}

fn write(register: usize, value: u32) {
    // SAFETY: the direct map reaches the registers, uncached; these have no effect on memory.
    unsafe { base().add(register).cast().write_volatile(value) };
}

fn read(register: usize) -> u32 {
    // SAFETY: see `write`.
    unsafe { base().add(register).cast().read_volatile() }
}

/// Masks the old controller and switches this one on, the timer stopped.
pub(crate) fn init() {
    for port in [0x21, 0xa1] {
        // SAFETY: the mask registers of the two 8259s.
        unsafe { Port::<u8>::new(port).write(0xff) };
    }
    write(SPURIOUS_VECTOR, ENABLED | u32::from(SPURIOUS));
    write(TIMER_VECTOR, MASKED | u32::from(TIMER));
    write(DIVIDE, BY_ONE);
}

/// Lets the timer tick from now on.
pub(crate) fn start() {
    write(TIMER_VECTOR, PERIODIC | u32::from(TIMER));
    write(INITIAL_COUNT, TICK);
}

/// The timer's interrupt is dealt with.
pub(crate) fn done() {
    write(END_OF_INTERRUPT, 0);
}

/// Lets the timer count down from the highest number, without an interrupt, for a measurement.
pub(crate) fn start_count() {
    write(INITIAL_COUNT, u32::MAX);
}

/// Nanoseconds since [`start_count`], for the first four seconds: QEMU runs the timer at 1 GHz.
pub(crate) fn counted() -> u32 {
    u32::MAX - read(CURRENT_COUNT)
}

/// Stops the timer.
pub(crate) fn stop_count() {
    write(INITIAL_COUNT, 0);
}
