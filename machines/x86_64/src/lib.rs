//! x86-64 page tables for bsdvm.
//!
//! # The parts
//!
//! * [`entry`]: one entry of a table, its bits by name, and what they mean for the seam;
//! * [`hardware`]: what the page tables stand on: how to reach the memory of a table, and how to
//!   make other processors forget ([`Hardware`]);
//! * [`pmap`]: the translations of one address space in four levels of tables ([`X86Pmap`]);
//! * [`flush`]: a bounded list of what must be forgotten ([`Flushes`], [`X86Flush`]);
//! * [`walk`]: what the processor does with the tables, in software;
//! * [`plain`]: a whole machine with its tables in plain memory, for tests on the host (feature
//!   `plain`, on by default; a kernel turns it off).
//!
//! The crate is `no_std` and allocates nothing but for `plain`, and has no unsafe code: danger
//! lies behind [`Hardware`], which a kernel implements over its direct map.
//!
//! # Two facts of the processor
//!
//! A page that can be written or executed can be read too: `WRITE` and `EXEC` imply `READ` here.
//! And a processor remembers entries that are present only, so a page that was not mapped, or had
//! no access, can be entered without a flush.
//!
//! # What is absent
//!
//! Pages of 2 MiB and 1 GiB (the walk stops at them, and nothing makes them), five levels,
//! protection keys, process-context identifiers (the business of [`Hardware::flush`]), and
//! `Pmap::copy`, which does nothing.

#![cfg_attr(not(feature = "plain"), no_std)]
#![forbid(unsafe_code)]

pub mod entry;
pub mod flush;
pub mod hardware;
#[cfg(feature = "plain")]
pub mod plain;
pub mod pmap;
pub mod walk;

pub use entry::Entry;
pub use flush::{Flushes, Forget, X86Flush};
pub use hardware::Hardware;
#[cfg(feature = "plain")]
pub use plain::PlainMachine;
pub use pmap::X86Pmap;

use bsdvm_machine::{PageSize, VirtAddr, VirtRange};

/// The size of a page.
pub const PAGE: PageSize = PageSize::KIB4;

/// Entries in a table, and pages that a table of the lowest level maps.
pub const ENTRIES: usize = 512;

/// The levels of tables: the root is of this level, the lowest of level 1.
pub const LEVELS: u32 = 4;

/// The addresses of programs: the lower half, without the page at 0, which a null pointer reaches,
/// and without the last page, behind which a system call would return to an address that is not
/// canonical.
pub const USER: VirtRange = range(0x1000, 0x7fff_ffff_f000);

/// The addresses of the kernel: the upper half, without the last page, whose end cannot be said.
pub const KERNEL: VirtRange = range(0xffff_8000_0000_0000, 0xffff_ffff_ffff_f000);

const fn range(start: u64, end: u64) -> VirtRange {
    match VirtRange::new(VirtAddr(start), VirtAddr(end)) {
        Some(range) => range,
        None => panic!("a range that runs backwards"),
    }
}

/// Whether bits 47 to 63 of `va` are all equal, as the processor demands of every address.
pub const fn is_canonical(va: VirtAddr) -> bool {
    let top = (va.0 as i64) >> 47;
    top == 0 || top == -1
}
