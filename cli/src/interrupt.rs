//! Signals that people send to `bsdvm`, passed on to the program that it runs.

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Set when the program has ended: from then on a signal ends the runner itself.
static ENDED: AtomicBool = AtomicBool::new(false);

/// A signal that found nobody who could get it yet.
pub(crate) struct TooEarly;

/// Passes signals on by `pass` from now until [`ended`]. Without it (the host refuses a thread)
/// they end the runner, and the program with it.
pub(crate) fn pass_on(mut pass: impl FnMut(u32) -> Result<(), TooEarly> + Send + 'static) {
    let ignored = ignored();
    let wanted = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
    let wanted = wanted.into_iter().filter(|n| ignored >> (n - 1) & 1 == 0);
    let Ok(mut signals) = Signals::new(wanted) else {
        return;
    };
    let thread = std::thread::Builder::new().name("signals".into());
    let passing = thread.spawn(move || {
        for number in signals.forever() {
            // A program that is being started gets it as soon as it is there.
            while pass(number.unsigned_abs()).is_err() {
                if ENDED.load(Ordering::SeqCst) {
                    std::process::exit(128 + number);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    drop(passing);
}

/// The program has ended.
pub(crate) fn ended() {
    ENDED.store(true, Ordering::SeqCst);
}

/// The signals that whoever started us wants ignored (as `nohup` does), a bit for each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok())
        .unwrap_or(0)
}
