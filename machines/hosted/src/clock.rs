//! Time, processors and chance.

use std::cell::Cell;

/// Nanoseconds of the host's monotonic clock.
pub(crate) fn now() -> u64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is ours; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// The processor that the caller runs on.
pub(crate) fn cpu() -> usize {
    // SAFETY: no argument.
    usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
}

/// The number of processors that numbers of [`cpu`] lie below.
pub(crate) fn cpus() -> usize {
    // SAFETY: no pointer.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) })
        .unwrap_or(1)
        .max(1)
}

/// A random number: a generator for each thread (splitmix64), seeded by the host.
pub(crate) fn random() -> u64 {
    thread_local!(static STATE: Cell<u64> = Cell::new(seed()));
    STATE.with(|s| {
        let x = s.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        s.set(x);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the buffer is ours and as long as we say.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // Where the host refuses, the clock and an address still differ from run to run.
    u64::from_ne_bytes(bytes) ^ now() ^ (&raw const bytes as u64)
}
