//! Time, by the processor's counter; its rate is measured against the timer.

use crate::apic;
use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

/// The counter when the clock was set up, and nanoseconds a tick times 2^32.
static START: AtomicU64 = AtomicU64::new(0);
static RATE: AtomicU64 = AtomicU64::new(0);

/// How long the measurement takes, in nanoseconds.
const MEASURE: u32 = 2_000_000;

fn counter() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { _rdtsc() }
}

/// Measures the counter's rate and starts the clock at 0.
pub(crate) fn init() {
    let start = counter();
    apic::wait(MEASURE);
    let ticks = (counter() - start).max(1);
    let rate = (u128::from(MEASURE) << 32) / u128::from(ticks);
    RATE.store(rate as u64, Ordering::Relaxed);
    START.store(start, Ordering::Relaxed);
}

/// Nanoseconds since the clock was set up.
pub(crate) fn now() -> u64 {
    let ticks = counter().saturating_sub(START.load(Ordering::Relaxed));
    let product = u128::from(ticks) * u128::from(RATE.load(Ordering::Relaxed));
    (product >> 32) as u64
}
