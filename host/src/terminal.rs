//! What is asked of a terminal, in the kernel's own structures.

use crate::errno;
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{TerminalAnswer, TerminalCall};
use rustix::fd::BorrowedFd;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    Winsize,
};

/// The control characters of the kernel's `struct termios`, in its order.
const CODES: [SpecialCodeIndex; 17] = [
    SpecialCodeIndex::VINTR,
    SpecialCodeIndex::VQUIT,
    SpecialCodeIndex::VERASE,
    SpecialCodeIndex::VKILL,
    SpecialCodeIndex::VEOF,
    SpecialCodeIndex::VTIME,
    SpecialCodeIndex::VMIN,
    SpecialCodeIndex::VSWTC,
    SpecialCodeIndex::VSTART,
    SpecialCodeIndex::VSTOP,
    SpecialCodeIndex::VSUSP,
    SpecialCodeIndex::VEOL,
    SpecialCodeIndex::VREPRINT,
    SpecialCodeIndex::VDISCARD,
    SpecialCodeIndex::VWERASE,
    SpecialCodeIndex::VLNEXT,
    SpecialCodeIndex::VEOL2,
];
/// Where the control characters begin: after four words and the line discipline.
const CODES_AT: usize = 17;

pub(crate) fn ask(fd: BorrowedFd<'_>, call: TerminalCall) -> Result<TerminalAnswer, Errno> {
    match call {
        TerminalCall::Get => {
            let termios = rustix::termios::tcgetattr(fd).map_err(errno)?;
            Ok(TerminalAnswer::Termios(pack(&termios)))
        }
        TerminalCall::Set(when, bytes) => {
            let mut termios = rustix::termios::tcgetattr(fd).map_err(errno)?;
            unpack(&bytes, &mut termios);
            let when = match when {
                0 => OptionalActions::Now,
                1 => OptionalActions::Drain,
                _ => OptionalActions::Flush,
            };
            rustix::termios::tcsetattr(fd, when, &termios).map_err(errno)?;
            Ok(TerminalAnswer::Done)
        }
        TerminalCall::WindowSize => {
            let w = rustix::termios::tcgetwinsize(fd).map_err(errno)?;
            Ok(TerminalAnswer::WindowSize([
                w.ws_row,
                w.ws_col,
                w.ws_xpixel,
                w.ws_ypixel,
            ]))
        }
        TerminalCall::Readable => {
            let n = rustix::io::ioctl_fionread(fd).map_err(errno)?;
            Ok(TerminalAnswer::Count(u32::try_from(n).unwrap_or(u32::MAX)))
        }
        TerminalCall::Number => pty_number(fd).map(TerminalAnswer::Count),
        TerminalCall::Foreground => {
            // Both are 0 where the leader of the group is in an outer namespace of processes.
            let group = nix::unistd::tcgetpgrp(fd).map_err(|e| Errno(e as i32))?;
            let own = nix::unistd::getpgrp();
            Ok(TerminalAnswer::Count(u32::from(group == own)))
        }
        change => act(fd, change).map(|()| TerminalAnswer::Done),
    }
}

/// Calls that only change something.
fn act(fd: BorrowedFd<'_>, call: TerminalCall) -> Result<(), Errno> {
    use rustix::termios::{Action, QueueSelector};
    let done = match call {
        TerminalCall::SetWindowSize([ws_row, ws_col, ws_xpixel, ws_ypixel]) => {
            let size = Winsize {
                ws_row,
                ws_col,
                ws_xpixel,
                ws_ypixel,
            };
            rustix::termios::tcsetwinsize(fd, size)
        }
        TerminalCall::Unlock => rustix::pty::unlockpt(fd),
        TerminalCall::Drain => rustix::termios::tcdrain(fd),
        TerminalCall::Break => rustix::termios::tcsendbreak(fd),
        TerminalCall::Flush(queue) => {
            let queue = match queue {
                0 => QueueSelector::IFlush,
                1 => QueueSelector::OFlush,
                2 => QueueSelector::IOFlush,
                _ => return Err(Errno::EINVAL),
            };
            rustix::termios::tcflush(fd, queue)
        }
        TerminalCall::Flow(action) => {
            let action = match action {
                0 => Action::OOff,
                1 => Action::OOn,
                2 => Action::IOff,
                3 => Action::IOn,
                _ => return Err(Errno::EINVAL),
            };
            rustix::termios::tcflow(fd, action)
        }
        _ => return Err(Errno::ENOTTY),
    };
    done.map_err(errno)
}

/// The number at the end of the name of a master's other end.
fn pty_number(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let name = rustix::pty::ptsname(fd, Vec::new()).map_err(errno)?;
    let name = name.to_string_lossy();
    let number = name.rsplit('/').next().and_then(|n| n.parse().ok());
    number.ok_or(Errno::ENOTTY)
}

fn pack(t: &Termios) -> [u8; 36] {
    let mut out = [0; 36];
    let words = [
        t.input_modes.bits(),
        t.output_modes.bits(),
        t.control_modes.bits(),
        t.local_modes.bits(),
    ];
    for (place, word) in out.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    out[16] = t.line_discipline;
    for (place, code) in out[CODES_AT..].iter_mut().zip(CODES) {
        *place = t.special_codes[code];
    }
    out
}

fn unpack(bytes: &[u8; 36], t: &mut Termios) {
    let word = |i: usize| {
        u32::from_ne_bytes([
            bytes[i * 4],
            bytes[i * 4 + 1],
            bytes[i * 4 + 2],
            bytes[i * 4 + 3],
        ])
    };
    t.input_modes = InputModes::from_bits_retain(word(0));
    t.output_modes = OutputModes::from_bits_retain(word(1));
    t.control_modes = ControlModes::from_bits_retain(word(2));
    t.local_modes = LocalModes::from_bits_retain(word(3));
    t.line_discipline = bytes[16];
    for (&byte, code) in bytes[CODES_AT..].iter().zip(CODES) {
        t.special_codes[code] = byte;
    }
}
