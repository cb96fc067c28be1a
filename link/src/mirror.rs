//! Values of the personality's seam, and the core's counters, in a form that can be sent.

use alloc::vec::Vec;
use bsdvm::Counters;
use bsdvm_linux::platform::{self, FileStat, FsStat, Moment};
use serde::{Deserialize, Serialize};

/// Makes a structure that can be sent, with fields of another, and the way there and back. What
/// the other has beyond them is its default after the way back.
macro_rules! mirror {
    ($(#[$doc:meta])* $name:ident of $of:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub struct $name {
            $(pub $field: $type,)*
        }

        impl From<&$of> for $name {
            fn from(from: &$of) -> $name {
                $name { $($field: from.$field.into(),)* }
            }
        }

        impl From<&$name> for $of {
            #[allow(clippy::needless_update)]
            fn from(from: &$name) -> $of {
                $of { $($field: from.$field.into(),)* ..$of::default() }
            }
        }
    };
}

mirror! {
    /// What a file is: [`FileStat`].
    Stat of FileStat {
        mask: u32,
        block_size: u32,
        attributes: u64,
        attributes_mask: u64,
        links: u32,
        uid: u32,
        gid: u32,
        mode: u16,
        ino: u64,
        size: u64,
        blocks: u64,
        rdev: (u32, u32),
        dev: (u32, u32),
        mount: u64,
        atime: Time,
        btime: Time,
        ctime: Time,
        mtime: Time,
    }
}

mirror! {
    /// A moment on the wall clock: [`Moment`].
    Time of Moment { seconds: i64, nanos: u32 }
}

impl From<Moment> for Time {
    fn from(moment: Moment) -> Time {
        Time::from(&moment)
    }
}

impl From<Time> for Moment {
    fn from(time: Time) -> Moment {
        Moment::from(&time)
    }
}

mirror! {
    /// What a file system is: [`FsStat`].
    StatFs of FsStat {
        kind: u64,
        block_size: u64,
        blocks: u64,
        blocks_free: u64,
        blocks_available: u64,
        files: u64,
        files_free: u64,
        fsid: [u32; 2],
        name_len: u64,
        fragment_size: u64,
        flags: u64,
    }
}

mirror! {
    /// What the VM counted: [`Counters`].
    Counts of Counters {
        faults: u64,
        zero_fill: u64,
        cow_copied: u64,
        cow_reused: u64,
        resident_faults: u64,
        page_in: u64,
        page_out: u64,
        forks: u64,
        transition_waits: u64,
        frames_total: u64,
        frames_free: u64,
        spaces: u64,
        objects: u64,
        entries: u64,
        charged_pages: u64,
        swap_used: u64,
    }
}

/// A question to a terminal: [`platform::TerminalCall`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminalCall {
    /// Its settings.
    Get,
    /// New settings: when, and `struct termios`.
    Set(u8, Vec<u8>),
    /// Its size.
    WindowSize,
    /// How much can be read.
    Readable,
    /// A new size.
    SetWindowSize([u16; 4]),
    /// The number of a pseudo-terminal.
    Number,
    /// Lets its other end be opened.
    Unlock,
    /// Whether the runner is in its foreground.
    Foreground,
    /// Waits for output.
    Drain,
    /// A break.
    Break,
    /// Drops what waits in a queue.
    Flush(u8),
    /// Stops or starts a direction.
    Flow(u8),
}

impl From<platform::TerminalCall> for TerminalCall {
    fn from(call: platform::TerminalCall) -> TerminalCall {
        match call {
            platform::TerminalCall::Get => TerminalCall::Get,
            platform::TerminalCall::Set(when, to) => TerminalCall::Set(when, to.to_vec()),
            platform::TerminalCall::WindowSize => TerminalCall::WindowSize,
            platform::TerminalCall::Readable => TerminalCall::Readable,
            platform::TerminalCall::SetWindowSize(size) => TerminalCall::SetWindowSize(size),
            platform::TerminalCall::Number => TerminalCall::Number,
            platform::TerminalCall::Unlock => TerminalCall::Unlock,
            platform::TerminalCall::Foreground => TerminalCall::Foreground,
            platform::TerminalCall::Drain => TerminalCall::Drain,
            platform::TerminalCall::Break => TerminalCall::Break,
            platform::TerminalCall::Flush(queue) => TerminalCall::Flush(queue),
            platform::TerminalCall::Flow(action) => TerminalCall::Flow(action),
        }
    }
}

impl TerminalCall {
    /// The same for the seam; `None` where the settings have another size.
    pub fn seam(&self) -> Option<platform::TerminalCall> {
        Some(match self {
            TerminalCall::Get => platform::TerminalCall::Get,
            TerminalCall::Set(when, to) => {
                platform::TerminalCall::Set(*when, to.as_slice().try_into().ok()?)
            }
            TerminalCall::WindowSize => platform::TerminalCall::WindowSize,
            TerminalCall::Readable => platform::TerminalCall::Readable,
            TerminalCall::SetWindowSize(size) => platform::TerminalCall::SetWindowSize(*size),
            TerminalCall::Number => platform::TerminalCall::Number,
            TerminalCall::Unlock => platform::TerminalCall::Unlock,
            TerminalCall::Foreground => platform::TerminalCall::Foreground,
            TerminalCall::Drain => platform::TerminalCall::Drain,
            TerminalCall::Break => platform::TerminalCall::Break,
            TerminalCall::Flush(queue) => platform::TerminalCall::Flush(*queue),
            TerminalCall::Flow(action) => platform::TerminalCall::Flow(*action),
        })
    }
}

/// A terminal's answer: [`platform::TerminalAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminalAnswer {
    /// Nothing to tell.
    Done,
    /// `struct termios`.
    Termios(Vec<u8>),
    /// `struct winsize`.
    WindowSize([u16; 4]),
    /// A number of bytes.
    Count(u32),
}

impl From<platform::TerminalAnswer> for TerminalAnswer {
    fn from(answer: platform::TerminalAnswer) -> TerminalAnswer {
        use platform::TerminalAnswer as Seam;
        match answer {
            Seam::Done => TerminalAnswer::Done,
            Seam::Termios(t) => TerminalAnswer::Termios(t.to_vec()),
            Seam::WindowSize(size) => TerminalAnswer::WindowSize(size),
            Seam::Count(n) => TerminalAnswer::Count(n),
        }
    }
}

impl TerminalAnswer {
    /// The same for the seam; `None` where the settings have another size.
    pub fn seam(&self) -> Option<platform::TerminalAnswer> {
        use platform::TerminalAnswer as Seam;
        Some(match self {
            TerminalAnswer::Done => Seam::Done,
            TerminalAnswer::Termios(t) => Seam::Termios(t.as_slice().try_into().ok()?),
            TerminalAnswer::WindowSize(size) => Seam::WindowSize(*size),
            TerminalAnswer::Count(n) => Seam::Count(*n),
        })
    }
}
