//! Ways to end that a test provokes, by words on the command line: each says one line.

/// The kernel finds itself broken.
pub(crate) fn panic() -> ! {
    let nobody: Option<u8> = None;
    panic!("on purpose: {nobody:?}")
}

/// The kernel loses its stack: not even a page fault can be told on it.
pub(crate) fn double_fault() -> ! {
    // SAFETY: nothing runs after it.
    unsafe { core::arch::asm!("mov rsp, 0x10", "push rax", options(noreturn)) }
}
