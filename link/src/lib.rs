//! What the bare-metal kernel and its runner on the host tell each other, over one byte stream in
//! each direction.
//!
//! The kernel asks ([`Request`]): what to run, and acts on the standard input, output and error of
//! the runner, which a file server cannot reach. The runner answers, and passes signals on
//! ([`ToKernel`]). A message is its length in four bytes, lowest first, and its `postcard` form.
//!
//! * [`boot`]: what the kernel is to run, and how it ended;
//! * [`mirror`]: values of the personality's seam in a form that can be sent;
//! * [`stream`]: messages from and to bytes.
//!
//! What is absent: files by name (the kernel reaches those by 9P), and any check of what a kernel
//! may ask: it has its runner's rights.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod boot;
pub mod mirror;
pub mod stream;

pub use boot::{Boot, Ending, Outcome};
pub use mirror::{Counts, Stat, StatFs, TerminalAnswer, TerminalCall};
pub use stream::{Inbox, encode};

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The most that one read or write asks for, in bytes.
pub const MOST: usize = 128 << 10;

/// What the kernel sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back with the answer; 0: none is wanted.
    pub tag: u32,
    /// What is asked.
    pub ask: Ask,
}

/// What the kernel asks for. `file` is 0 to 2: the runner's standard input, output or error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// What to run: [`Answer::Boot`].
    Boot,
    /// Something to do with a standard file.
    File {
        /// Which one.
        file: u8,
        /// What to do.
        act: Act,
    },
    /// A line for the person. No answer.
    Message(String),
    /// A signal was passed on to whoever gets it. No answer.
    Signalled,
    /// The program has ended, or could not be started. No answer.
    Ended(Box<Ending>),
}

/// What is done with a file: the calls of the personality's `HostFile`, and waiting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// At most this many bytes at the file's own offset: [`Answer::Bytes`].
    Read(u32),
    /// Writes at the file's own offset: [`Answer::Number`].
    Write(Vec<u8>),
    /// At most this many bytes (second) at an offset (first): [`Answer::Bytes`].
    ReadAt(u64, u32),
    /// Writes at an offset: [`Answer::Number`].
    WriteAt(u64, Vec<u8>),
    /// `lseek`: [`Answer::Number`].
    Seek(i64, u32),
    /// `fstat`: [`Answer::Stat`].
    Stat,
    /// `fstatfs`: [`Answer::StatFs`].
    StatFs,
    /// `ftruncate`.
    Truncate(u64),
    /// `fsync`, or `fdatasync` where true.
    Sync(bool),
    /// `fchmod`.
    Chmod(u32),
    /// `fchown`.
    Chown(Option<u32>, Option<u32>),
    /// The path under which the host knows it: [`Answer::Bytes`].
    Path,
    /// `F_GETFL`: [`Answer::Number`].
    Flags,
    /// Asks a terminal: [`Answer::Terminal`].
    Terminal(TerminalCall),
    /// Which of these bits of `poll` are on: [`Answer::Number`], at once.
    Poll(u16),
    /// The same, when one of them is on.
    Watch(u16),
}

/// What the runner answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// It failed with this error number.
    Failed(i32),
    /// A number.
    Number(u64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// What to run.
    Boot(Box<Boot>),
    /// What a file is.
    Stat(Box<Stat>),
    /// What a file system is.
    StatFs(Box<StatFs>),
    /// What a terminal says.
    Terminal(TerminalAnswer),
}

/// What the runner sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToKernel {
    /// The answer to the request with this tag.
    Answer(u32, Answer),
    /// The runner got this signal.
    Signal(u32),
}
