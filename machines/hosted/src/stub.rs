//! The stub's code and the ELF file that carries it.
//!
//! `stub.s` is assembled into our own read-only data and copied from there: it never runs in this
//! process. The file is an ELF header, two program headers and one page of code.

use crate::context;
use crate::mailbox::{SLOT_BYTES, at};

/// Where the stub's code page lies in every guest address space; guest addresses end here.
pub(crate) const CODE_VA: u64 = 0x7fff_f000_0000;
/// Where slot 0 lies in a stub; slot `i` follows at `i * SLOT_BYTES`.
pub(crate) const SLOT_VA: u64 = CODE_VA + SLOT_BYTES;
/// The signal that brings a running stub thread into its handler. A standard signal: several
/// merge into one.
pub(crate) const KICK_SIGNAL: i32 = libc::SIGUSR1;
/// The file descriptor of guest memory in a stub.
pub(crate) const GUEST_FD: u64 = 0;
/// The file descriptor of the mailbox in a stub.
pub(crate) const MAILBOX_FD: u64 = 1;
/// The file descriptor of the stub's own file, closed once it runs.
pub(crate) const CODE_FD: u64 = 2;

/// Where `exec` puts the code page, until it is mapped at [`CODE_VA`].
const LOAD_VA: u64 = 0x40_0000;
const PAGE: usize = 4096;

core::arch::global_asm!(
    include_str!("stub.s"),
    CODE = const CODE_VA,
    SLOT = const SLOT_VA,
    SLOT_BYTES = const SLOT_BYTES,
    SCRATCH = const at::SCRATCH,
    STACK = const at::STACK,
    KICK = const KICK_SIGNAL,
    EMPTY = const at::EMPTY,
    SIGNO = const at::SIGNO,
    SLEEPS = const at::SLEEPS,
    STUB_SLEEPS = const at::STUB_SLEEPS,
    LOOKS = const at::LOOKS,
    YIELDS = const at::YIELDS,
    ANSWERS = const at::ANSWERS,
    UC_RAX = const context::RAX,
    INFO = const at::INFO,
    UCONTEXT = const at::UCONTEXT,
    FSGS = const at::FSGS,
    FS = const at::FS,
    GS = const at::GS,
    COUNT = const at::COUNT,
    ORDERS = const at::ORDERS,
    RESUME = const at::RESUME,
);

unsafe extern "C" {
    static bsdvm_hosted_stub_start: u8;
    static bsdvm_hosted_stub_end: u8;
    static bsdvm_hosted_probe_load: u8;
    static bsdvm_hosted_probe_store: u8;
}

/// Where, in a space, the code is that loads the byte at `rdi` to `al` and traps.
pub(crate) fn probe_load() -> u64 {
    in_space(&raw const bsdvm_hosted_probe_load)
}

/// Where, in a space, the code is that stores `al` to the byte at `rdi` and traps.
pub(crate) fn probe_store() -> u64 {
    in_space(&raw const bsdvm_hosted_probe_store)
}

/// The address that a place in the stub's code has in every space.
fn in_space(place: *const u8) -> u64 {
    CODE_VA + (place as u64 - (&raw const bsdvm_hosted_stub_start) as u64)
}

/// The bytes of the stub.
fn code() -> &'static [u8] {
    let start = &raw const bsdvm_hosted_stub_start;
    let end = &raw const bsdvm_hosted_stub_end;
    // SAFETY: both symbols are defined by the assembly above, in this order and in one section,
    // so that the bytes between them are initialised, constant and live as long as the program.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// One program header.
fn segment(kind: u32, flags: u32, offset: u64, va: u64, bytes: u64) -> [u8; 56] {
    let mut h = [0; 56];
    h[0..4].copy_from_slice(&kind.to_le_bytes());
    h[4..8].copy_from_slice(&flags.to_le_bytes());
    for (i, word) in [offset, va, va, bytes, bytes, PAGE as u64]
        .iter()
        .enumerate()
    {
        h[8 + i * 8..16 + i * 8].copy_from_slice(&word.to_le_bytes());
    }
    h
}

/// The stub as an executable file of two pages: headers, then code.
pub(crate) fn elf() -> Vec<u8> {
    let code = code();
    assert!(code.len() <= PAGE, "the stub outgrew its page");
    let mut file = vec![0; 2 * PAGE];
    file[0..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    file[16..18].copy_from_slice(&2u16.to_le_bytes()); // ET_EXEC
    file[18..20].copy_from_slice(&62u16.to_le_bytes()); // x86-64
    file[20..24].copy_from_slice(&1u32.to_le_bytes());
    file[24..32].copy_from_slice(&LOAD_VA.to_le_bytes()); // entry
    file[32..40].copy_from_slice(&64u64.to_le_bytes()); // program headers
    file[52..54].copy_from_slice(&64u16.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&2u16.to_le_bytes());
    file[64..120].copy_from_slice(&segment(1, 5, PAGE as u64, LOAD_VA, PAGE as u64));
    // PT_GNU_STACK without execution: older kernels would make every mapping executable.
    file[120..176].copy_from_slice(&segment(0x6474_e551, 6, 0, 0, 0));
    file[PAGE..PAGE + code.len()].copy_from_slice(code);
    file
}

/// The system-call filter of every stub, in the kernel's form: allow calls from the code page,
/// trap all others.
pub(crate) fn filter() -> [u64; 7] {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15;
    const AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let op = |code: u16, yes: u8, no: u8, k: u32| {
        u64::from(code) | u64::from(yes) << 16 | u64::from(no) << 24 | u64::from(k) << 32
    };
    let low = CODE_VA as u32;
    [
        op(LOAD, 0, 0, 12), // instruction pointer, upper half
        op(EQUAL, 0, 4, (CODE_VA >> 32) as u32),
        op(LOAD, 0, 0, 8), // lower half
        op(AT_LEAST, 0, 2, low),
        op(AT_LEAST, 1, 0, low + PAGE as u32),
        op(RETURN, 0, 0, 0x7fff_0000), // ALLOW
        op(RETURN, 0, 0, 0x0003_0000), // TRAP
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_is_small_and_its_file_whole() {
        assert!(code().len() < 1024);
        let file = elf();
        assert_eq!(&file[PAGE..PAGE + code().len()], code());
    }
}
