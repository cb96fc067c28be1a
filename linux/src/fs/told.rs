//! What is kept about an open file only to be told again: who is to hear of it, with which signal,
//! and how long its data is expected to live.

use linux_raw_sys::general as abi;

/// Whom a signal is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listener {
    Thread(u32),
    Process(u32),
    Group(u32),
}

impl Listener {
    /// As `struct f_owner_ex` has it; `None` for a kind that there is not.
    pub(crate) fn new(kind: u32, number: u32) -> Option<Listener> {
        match kind {
            abi::F_OWNER_TID => Some(Listener::Thread(number)),
            abi::F_OWNER_PID => Some(Listener::Process(number)),
            abi::F_OWNER_PGRP => Some(Listener::Group(number)),
            _ => None,
        }
    }

    /// Kind and number.
    pub(crate) fn parts(self) -> (u32, u32) {
        match self {
            Listener::Thread(n) => (abi::F_OWNER_TID, n),
            Listener::Process(n) => (abi::F_OWNER_PID, n),
            Listener::Group(n) => (abi::F_OWNER_PGRP, n),
        }
    }
}

/// What was said about an open file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) listener: Option<Listener>,
    /// 0 stands for `SIGIO`.
    pub(crate) signal: u32,
    /// `RWH_WRITE_LIFE_*`.
    pub(crate) hint: u64,
}
