//! What the processor does with the tables, in software: for machines in plain memory, and for a
//! kernel that wants to know why it trapped.

use crate::entry::{Bits, Entry};
use crate::hardware::Hardware;
use crate::{ENTRIES, LEVELS, PAGE, is_canonical};
use bsdvm_machine::{Access, Frame, Usage, VirtAddr};

/// Who tries to reach memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// A program: pages without the U bit are closed to it.
    User,
    /// The kernel, with write protection on.
    Kernel,
}

/// Why the processor would trap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkFault {
    /// The address is not canonical: a general protection fault.
    NotCanonical,
    /// An entry on the way is not present.
    Absent,
    /// The entries do not allow the access.
    Forbidden,
}

/// Follows the tables from `root` to the entry of level 1 for `va`, as a processor does for
/// `access`: sets A on the way and, for a store, D at its end, each in one piece. Gives the last
/// entry as it is then.
///
/// Errors: see [`WalkFault`]. The bits that were set until then stay set, but no entry of level 1
/// gets one for an access that it does not allow.
pub fn walk<H: Hardware>(
    hardware: &H,
    root: Frame,
    va: VirtAddr,
    access: Access,
    mode: Mode,
) -> Result<Entry, WalkFault> {
    if !is_canonical(va) {
        return Err(WalkFault::NotCanonical);
    }
    let mut table = root;
    for level in (2..=LEVELS).rev() {
        let entry = step(
            hardware,
            (table, slot(level, va)),
            access,
            mode,
            Usage::REFERENCED,
        )?;
        if entry.bits().contains(Bits::PAT_OR_LARGE) {
            return Err(WalkFault::Absent);
        }
        table = hardware.frame(entry.physical());
    }
    let usage = match access {
        Access::Write => Usage::all(),
        Access::Read | Access::Execute => Usage::REFERENCED,
    };
    step(hardware, (table, slot(1, va)), access, mode, usage)
}

/// The entry of a table of `level` for `va`.
fn slot(level: u32, va: VirtAddr) -> usize {
    let shift = PAGE.shift() + (level - 1) * ENTRIES.ilog2();
    (va.0 >> shift) as usize % ENTRIES
}

fn step<H: Hardware>(
    hardware: &H,
    (table, index): (Frame, usize),
    access: Access,
    mode: Mode,
    usage: Usage,
) -> Result<Entry, WalkFault> {
    let open = |e: Entry| {
        let bits = e.bits();
        let reached = mode == Mode::Kernel || bits.contains(Bits::USER);
        reached && e.allows(access)
    };
    let (_, entry) = hardware.update(table, index, |e| {
        let used = e.with_usage(usage);
        (e.is_present() && open(e) && used != e).then_some(used)
    });
    match entry {
        e if !e.is_present() => Err(WalkFault::Absent),
        e if !open(e) => Err(WalkFault::Forbidden),
        e => Ok(e),
    }
}
