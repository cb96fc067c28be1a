//! Signals that people send to `bsdvm`, passed on to the program that it runs.

use crate::ending;
use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGTSTP, SIGURG, SIGUSR1,
    SIGUSR2, SIGVTALRM, SIGWINCH,
};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Set when the program has ended: from then on a signal ends the runner itself.
static ENDED: AtomicBool = AtomicBool::new(false);

/// A signal that found nobody who could get it yet.
pub(crate) struct TooEarly;

/// What people, terminals and other programs send to a program.
pub(crate) const ALL: [i32; 14] = [
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGTSTP, SIGURG, SIGUSR1,
    SIGUSR2, SIGVTALRM, SIGWINCH,
];

/// Those of them that end a program.
pub(crate) const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// Signals that nobody misses who was not there yet.
const HARMLESS: [i32; 3] = [SIGCONT, SIGURG, SIGWINCH];

/// Passes `signals` on by `pass` from now until [`ended`], except those among `ignored` (bit n-1 is
/// signal n), which whoever started us wants ignored, as `nohup` does. Without it (the host refuses a thread)
/// they end the runner, and the program with it.
pub(crate) fn pass_on(
    signals: &[i32],
    ignored: u64,
    mut pass: impl FnMut(u32) -> Result<(), TooEarly> + Send + 'static,
) {
    let wanted = signals.iter().filter(|&&n| ignored >> (n - 1) & 1 == 0);
    let Ok(mut signals) = Signals::new(wanted) else {
        return;
    };
    let thread = std::thread::Builder::new().name("signals".into());
    let passing = thread.spawn(move || {
        for number in signals.forever() {
            // A program that is being started gets it as soon as it is there.
            while pass(number.unsigned_abs()).is_err() {
                if HARMLESS.contains(&number) {
                    break;
                }
                if ENDED.load(Ordering::SeqCst) {
                    let _ = ending::by_signal(number);
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
