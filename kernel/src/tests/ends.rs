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

/// The stack of another thread overflows.
pub(crate) fn thread_overflow() -> ! {
    let spawned = crate::threads::spawn(alloc::boxed::Box::new(|| overflow()));
    assert!(spawned.is_ok(), "no thread");
    loop {
        crate::threads::give_way();
    }
}

/// The heap is asked for more than there is, by somebody who does not ask first.
pub(crate) fn full_heap() -> ! {
    let mut all = alloc::vec::Vec::new();
    loop {
        all.push(alloc::boxed::Box::new([0u8; 2000]));
    }
}

/// The stack that this runs on overflows.
pub(crate) fn overflow() -> ! {
    #[allow(unconditional_recursion, reason = "that is the point")]
    fn deeper(mark: u64) -> u64 {
        let room = core::hint::black_box([mark; 64]);
        core::hint::black_box(deeper(mark + 1) + room[5])
    }
    panic!("there is no end to the stack: {}", deeper(0))
}
