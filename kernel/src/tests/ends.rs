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

/// The kernel's first stack overflows.
pub(crate) fn overflow() -> ! {
    #[allow(unconditional_recursion, reason = "that is the point")]
    fn deeper(mark: u64) -> u64 {
        let room = core::hint::black_box([mark; 64]);
        core::hint::black_box(deeper(mark + 1) + room[5])
    }
    panic!("there is no end to the stack: {}", deeper(0))
}
