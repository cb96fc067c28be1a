//! The Linux personality: unmodified Linux programs on the bsdvm core.
//!
//! # The tour
//!
//! A guest process is an address space of the core plus what this crate adds. Its threads run
//! through a [`platform::Platform`]; each has a supervisor that loops in [`thread`]: run until a
//! trap, answer it, deliver signals, resume.
//!
//! * [`platform`]: the seam below (guest threads, host files, clock, chance);
//! * [`errno`]: error numbers, known nowhere else in the project;
//! * [`user`]: the guest's memory, copied in and out, typed and checked;
//! * [`elf`], [`exec`]: programs: parsing, loading, the first stack;
//! * [`process`], [`thread`], [`wait`]: who runs, who is whose child, how it ends;
//! * [`terminal`]: controlling terminals and job control;
//! * [`creds`]: identities and capabilities;
//! * [`signal`]: dispositions, masks, frames, restarts;
//! * [`fs`]: descriptors, pipes, host files and their pages, `/proc`;
//! * [`futex`], [`blocking`], [`alarms`]: waiting, and what happens at a time;
//! * [`ipc`]: System V's shared memory, semaphores and messages;
//! * [`maps`]: the map of a space as text, the same for `/proc/self/maps` and `--map`;
//! * [`usage`]: what threads and processes have used;
//! * [`memory`], [`thrash`]: when memory runs out, or is too little to get anywhere;
//! * [`syscall`]: the table and the calls, a file for each concern.
//!
//! What is absent: networking, ptrace of guests, mounts, namespaces, io_uring, modules, and the
//! set-user-ID bits of programs.
//!
//! # Locks
//!
//! All are [`bsdvm_machine::sync::Mutex`] with ranks below the core's first (20), taken in ascending
//! order; see [`rank`]. None is held over a guest memory access, a sleep or a call of the
//! platform's files.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod alarms;
pub mod blocking;
pub mod creds;
pub mod elf;
pub mod errno;
pub mod exec;
pub mod fs;
pub mod futex;
pub mod ipc;
pub mod maps;
pub mod memory;
pub mod platform;
pub mod policy;
pub mod process;
pub mod signal;
pub mod space;
pub mod syscall;
pub mod system;
pub mod terminal;
pub mod thrash;
pub mod thread;
pub mod usage;
pub mod user;
pub mod wait;

pub use errno::Errno;
pub use platform::Platform;
pub use process::ExitStatus;
pub use system::{Linux, Options, Program};

/// The ranks of this crate's locks, in the order in which they may be taken.
pub mod rank {
    /// The table of processes: parents, groups, states, threads.
    pub const PROCESSES: u8 = 2;
    /// Which session has which terminal.
    pub const TERMINALS: u8 = 3;
    /// What an `exec` replaces in a process: space, name, files table.
    pub const PROCESS: u8 = 4;
    /// Dispositions and pending signals of a process.
    pub const SIGNALS: u8 = 6;
    /// Mask and pending signals of a thread; who it is.
    pub const THREAD: u8 = 7;
    /// Break and other bounds of an address space.
    pub const SPACE: u8 = 8;
    /// The timers of a process, and what it has used.
    pub const TIMER: u8 = 9;
    /// A table of descriptors.
    pub const FILES: u8 = 10;
    /// A table of System V objects.
    pub const IPC: u8 = 11;
    /// An open file's own state: offset, cached inode.
    pub const FILE: u8 = 12;
    /// A pipe's buffer.
    pub const PIPE: u8 = 13;
    /// Who polls on files of both kinds.
    pub const POLLERS: u8 = 14;
    /// The table of inodes that have pages.
    pub const INODES: u8 = 15;
    /// Locks of files.
    pub const LOCKS: u8 = 18;
    /// What is planned.
    pub const ALARMS: u8 = 16;
    /// The table of futex waiters.
    pub const FUTEX: u8 = 17;
    /// What is done about each signal.
    pub const ACTIONS: u8 = 18;
    /// The working directory, and the mask of modes.
    pub const ROOTS: u8 = 19;
}

/// A lock of the platform's machine around a `T`.
pub(crate) type Lock<P, T, const RANK: u8> =
    bsdvm_machine::sync::Mutex<<P as Platform>::Machine, T, RANK>;
