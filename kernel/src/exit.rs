//! The ways out: of the machine, and of a kernel that cannot go on.

use crate::serial::say;
use core::panic::PanicInfo;
use x86_64::instructions::port::Port;

/// QEMU's `isa-debug-exit`: a value ends it with the status twice the value and one.
const PORT: u16 = 0xf4;

/// How the kernel ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum End {
    /// As it should.
    Good = 0x10,
    /// It failed, and said why on the serial port.
    Failed = 0x11,
}

/// Ends the machine.
pub(crate) fn exit(end: End) -> ! {
    // SAFETY: the port does nothing else.
    unsafe { Port::new(PORT).write(end as u32) };
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(at) => say!(
            "kernel panic at {}:{}: {}",
            at.file(),
            at.line(),
            info.message()
        ),
        None => say!("kernel panic: {}", info.message()),
    }
    exit(End::Failed)
}
