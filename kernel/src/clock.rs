//! Time, by the processor's counter; its rate is measured against the timer.

use crate::apic;
use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

/// The counter when the clock was set up, and nanoseconds a tick times 2^32.
static START: AtomicU64 = AtomicU64::new(0);
static RATE: AtomicU64 = AtomicU64::new(0);

/// How long the measurement takes at least, in nanoseconds.
const MEASURE: u32 = 2_000_000;

fn counter() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { _rdtsc() }
}

/// The counter and the timer at one moment: of a few looks the one that took least, since the host
/// may stop this processor between the two for as long as it likes.
fn both() -> (u64, u32) {
    let look = || {
        let before = counter();
        let timer = apic::counted();
        let after = counter();
        (after - before, (before, timer))
    };
    let looks = core::array::from_fn::<_, 8, _>(|_| look());
    let best = looks.into_iter().min_by_key(|(took, _)| *took);
    best.map_or((0, 0), |(_, both)| both)
}

/// Measures the counter's rate and starts the clock at 0.
pub(crate) fn init() {
    apic::start_count();
    let (start, from) = both();
    while apic::counted() - from < MEASURE {
        core::hint::spin_loop();
    }
    let (end, to) = both();
    apic::stop_count();
    let rate = (u128::from(to - from) << 32) / u128::from((end - start).max(1));
    RATE.store(rate as u64, Ordering::Relaxed);
    START.store(start, Ordering::Relaxed);
}

/// Nanoseconds since the clock was set up.
pub(crate) fn now() -> u64 {
    let ticks = counter().saturating_sub(START.load(Ordering::Relaxed));
    let product = u128::from(ticks) * u128::from(RATE.load(Ordering::Relaxed));
    (product >> 32) as u64
}
