//! Ending as the program did that a signal killed.

use rustix::process::{DumpableBehavior, getpid, set_dumpable_behavior};
use signal_hook::low_level::{emulate_default_handler, raise};
use std::process::ExitCode;

/// Ends this process by signal `number`, so that whoever waits for it sees what it would have seen
/// of the program: a shell leaves its loop after Ctrl-C, and says "Segmentation fault". No core is
/// written: it would show the runner. Comes back, with the status that a shell gives for such an
/// end, where the signal does nothing: to the first process of a container.
pub(crate) fn by_signal(number: i32) -> ExitCode {
    let status = u8::try_from(number).unwrap_or(0).wrapping_add(128);
    if getpid().is_init() {
        return ExitCode::from(status);
    }
    // What a host refuses here costs a core file.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if emulate_default_handler(number).is_err() {
        let _ = raise(number);
    }
    ExitCode::from(status)
}
