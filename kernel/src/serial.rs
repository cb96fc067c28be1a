//! The first serial port: where the kernel says what it has to say for itself, and nothing else.

use crate::locks::SpinLock;
use core::fmt::{self, Write};
use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};

const PORT: u16 = 0x3f8;

static UART: SpinLock<Option<Uart16550<PioBackend>>> = SpinLock::new(None);

/// Sets the port up. Without one, what is said is lost.
pub(crate) fn init() {
    // SAFETY: the port is this machine's first serial port, and nobody else uses it.
    let Ok(mut uart) = (unsafe { Uart16550::new_port(PORT) }) else {
        return;
    };
    if uart.init(Config::default()).is_ok() {
        *UART.lock() = Some(uart);
    }
}

struct Out<'a>(&'a mut Uart16550<PioBackend>);

impl Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.send_bytes_exact(text.as_bytes());
        Ok(())
    }
}

/// Writes to the port. A panic in the middle of it loses its own text.
pub(crate) fn print(what: fmt::Arguments<'_>) {
    if let Some(mut uart) = UART.try_lock()
        && let Some(uart) = uart.as_mut()
    {
        let _ = Out(uart).write_fmt(what);
    }
}

/// Says one line on the serial port.
macro_rules! say {
    ($($what:tt)*) => {
        $crate::serial::print(format_args!("{}\n", format_args!($($what)*)))
    };
}
pub(crate) use say;
