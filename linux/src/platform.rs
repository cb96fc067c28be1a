//! The seam below the personality: what it needs from the world besides memory.
//!
//! A platform runs guest threads until they trap ([`GuestThread`]), gives each a supervisor
//! thread, lends the files of the host with the caller's own rights ([`HostFile`] and the path
//! calls of [`Platform`]), the clock, chance and a place for messages. Blocking inside the
//! personality uses the machine's [`bsdvm_machine::Wait`]; only waiting for a host's file is asked here.
//!
//! Every number that comes back from here may be trusted; errors are error numbers.

use crate::errno::Errno;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bsdvm::{Access, Machine, SpaceId, VirtAddr, VirtRange, Vm};

/// The registers of a guest thread on x86-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// Why a guest thread stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A system call: number in `rax`, arguments in the registers, `rip` after the instruction.
    Syscall,
    /// A page fault at `address`.
    Fault {
        /// The address that was touched.
        address: VirtAddr,
        /// How it was touched.
        access: Access,
        /// Whether a translation was there and forbade the access.
        present: bool,
    },
    /// An exception that Linux tells a program as a signal.
    Exception {
        /// The signal's number.
        signal: i32,
        /// `si_code`.
        code: i32,
        /// `si_addr`.
        address: u64,
    },
    /// [`Kicker::kick`] was called.
    Kicked,
    /// The machine lost the thread: it cannot run again.
    Gone,
}

/// What answers a call that needs no supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortAnswer {
    /// A value that stays the same until another one is told.
    Value(u64),
    /// 0, once the guest thread has let others have its processor.
    Yield,
}

/// One guest thread, as its supervisor holds it.
pub trait GuestThread: Send + 'static {
    /// The machine it runs on.
    type Machine: Machine;
    /// See [`GuestThread::kicker`].
    type Kicker: Kicker;

    /// Runs the guest from `regs` until it traps; `regs` is what it then has.
    fn run(&mut self, vm: &Vm<Self::Machine>, regs: &mut Registers) -> Trap;

    /// The floating-point and vector state in the layout of `xsave`, as the last trap left it;
    /// changes take effect at the next run.
    fn fpu(&mut self) -> &mut [u8];

    /// Says that call `number` may be answered so where it is made, from the next run on. A wish:
    /// the call may come as [`Trap::Syscall`] all the same.
    fn answer(&mut self, number: u32, answer: ShortAnswer) {
        let _ = (number, answer);
    }

    /// Goes over to `space`, which has had no thread yet, from one where it is the only thread, as
    /// one that was just made; its kicker is another one then. `false`: it cannot, and nothing has
    /// changed.
    fn move_to(&mut self, vm: &Vm<Self::Machine>, space: SpaceId) -> bool {
        let _ = (vm, space);
        false
    }

    /// What ends this thread's run, or its wait for a file, from another thread.
    fn kicker(&self) -> Self::Kicker;
}

/// Ends a guest thread's run.
pub trait Kicker: Clone + Send + Sync + 'static {
    /// Makes the present or the next run end with [`Trap::Kicked`], and the present or next
    /// [`Platform::wait_files`] return.
    fn kick(&self);

    /// Nanoseconds for which the thread's own instructions have run, where the platform counts
    /// them apart from its supervisor's.
    fn cpu_time(&self) -> u64 {
        0
    }
}

/// What a file system knows of a file: the fields of `statx`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FileStat {
    pub mask: u32,
    pub block_size: u32,
    pub attributes: u64,
    pub attributes_mask: u64,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub mode: u16,
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub atime: Moment,
    pub btime: Moment,
    pub ctime: Moment,
    pub mtime: Moment,
    pub rdev: (u32, u32),
    pub dev: (u32, u32),
    pub mount: u64,
}

impl FileStat {
    /// The file's type bits (`S_IFMT`).
    pub fn kind(&self) -> u32 {
        u32::from(self.mode) & linux_raw_sys::general::S_IFMT
    }

    /// Whether it is an ordinary file, which has pages.
    pub fn is_regular(&self) -> bool {
        self.kind() == linux_raw_sys::general::S_IFREG
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind() == linux_raw_sys::general::S_IFDIR
    }
}

/// A moment on the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanos: u32,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Inode number.
    pub ino: u64,
    /// Where the next entry is (`d_off`).
    pub next: u64,
    /// `DT_REG` and so on.
    pub kind: u8,
    /// The name, without a terminating zero.
    pub name: Vec<u8>,
}

impl DirEntry {
    /// The size of the entry as `linux_dirent64`: inode, offset, length, kind, and the name with
    /// its zero, all aligned to 8.
    pub fn record_bytes(&self) -> usize {
        (19 + self.name.len() + 1).next_multiple_of(8)
    }
}

/// What `statfs` tells of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FsStat {
    pub kind: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub fsid: [u32; 2],
    pub name_len: u64,
    pub fragment_size: u64,
    pub flags: u64,
}

/// Readiness of a file: bits of `poll`.
pub type PollBits = u16;

/// A question to a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalCall {
    /// `TCGETS`.
    Get,
    /// `TCSETS`, `TCSETSW`, `TCSETSF` (0, 1, 2) with the 36 bytes of `struct termios`.
    Set(u8, [u8; 36]),
    /// `TIOCGWINSZ`.
    WindowSize,
    /// `FIONREAD`.
    Readable,
    /// `TIOCSWINSZ`.
    SetWindowSize([u16; 4]),
    /// `TIOCGPTN`: the number of the pseudo-terminal whose master this is.
    Number,
    /// `TIOCSPTLCK` with 0: the other end may be opened.
    Unlock,
    /// Whether the runner is in the foreground of this terminal, its own: a count of 1 or 0.
    Foreground,
    /// `TCSBRK` with 1: waits until all output is out.
    Drain,
    /// `TCSBRK` with 0.
    Break,
    /// `TCFLSH` with its queue (0 to 2).
    Flush(u8),
    /// `TCXONC` with its action (0 to 3).
    Flow(u8),
}

/// A terminal's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalAnswer {
    /// Nothing to tell.
    Done,
    /// `struct termios` as the kernel has it.
    Termios([u8; 36]),
    /// `struct winsize`: rows, columns, x and y pixels.
    WindowSize([u16; 4]),
    /// A number of bytes.
    Count(u32),
}

/// A file of the host that is open with the caller's own rights.
#[allow(clippy::missing_errors_doc)]
pub trait HostFile: Send + Sync + 'static {
    /// Reads at the file's own offset. Never called for a file that would block without
    /// [`Platform::wait_files`] having said it is readable.
    fn read(&self, buf: &mut [u8]) -> Result<usize, Errno>;
    /// Writes at the file's own offset.
    fn write(&self, buf: &[u8]) -> Result<usize, Errno>;
    /// Reads at `offset`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno>;
    /// Writes at `offset`.
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<usize, Errno>;
    /// `lseek`, with Linux's `whence`.
    fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno>;
    /// `fstat`.
    fn stat(&self) -> Result<FileStat, Errno>;
    /// `ftruncate`.
    fn truncate(&self, bytes: u64) -> Result<(), Errno>;
    /// `fsync`, or `fdatasync`.
    fn sync(&self, data_only: bool) -> Result<(), Errno>;
    /// `fallocate`.
    fn allocate(&self, mode: u32, offset: u64, bytes: u64) -> Result<(), Errno>;
    /// As many entries of the directory as fit in `bytes` as `linux_dirent64`; none at the end.
    fn entries(&self, bytes: usize) -> Result<Vec<DirEntry>, Errno>;
    /// The path under which the host knows the file.
    fn path(&self) -> Result<Vec<u8>, Errno>;
    /// `fstatfs`.
    fn statfs(&self) -> Result<FsStat, Errno>;
    /// `fchmod`.
    fn chmod(&self, mode: u32) -> Result<(), Errno>;
    /// `fchown`; `None` leaves as it is.
    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno>;
    /// Asks a terminal.
    fn terminal(&self, call: TerminalCall) -> Result<TerminalAnswer, Errno>;
    /// `fgetxattr`; an empty `buf` asks for the size.
    fn xattr(&self, name: &[u8], buf: &mut [u8]) -> Result<usize, Errno>;
    /// The status flags the file was opened with (`F_GETFL`).
    fn flags(&self) -> Result<u32, Errno>;
    /// `F_SETFL`.
    fn set_flags(&self, flags: u32) -> Result<(), Errno>;
    /// Whether somebody has had the writing end of this FIFO open since it was opened, or has
    /// written to it before.
    fn has_writer(&self) -> Result<bool, Errno> {
        Ok(true)
    }
    /// Watches a path, if this is a queue of [`Platform::watcher`]: the watch's number.
    fn watch(&self, path: &[u8], mask: u32) -> Result<u32, Errno> {
        let _ = (path, mask);
        Err(Errno::EINVAL)
    }
    /// Ends a watch.
    fn unwatch(&self, number: u32) -> Result<(), Errno> {
        let _ = number;
        Err(Errno::EINVAL)
    }
    /// The same open file once more, as `dup` gives it.
    fn duplicate(&self) -> Result<Self, Errno>
    where
        Self: Sized;
}

/// Changes to names: what a path call does at the end of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChange<'a> {
    /// `mkdir` with a mode.
    MakeDir(u32),
    /// `unlink`.
    Unlink,
    /// `rmdir`.
    RemoveDir,
    /// `symlink`: the new link's contents.
    Symlink(&'a [u8]),
    /// `chmod`.
    Mode(u32),
    /// `chown`, and whether to follow a link at the end.
    Owner(Option<u32>, Option<u32>, Follow),
    /// `utimensat`: access and modification time as `timespec` pairs with `UTIME_*`.
    Times([(i64, i64); 2], Follow),
    /// `mknod` of a FIFO or an ordinary file: mode.
    MakeNode(u32),
}

/// Changes to an extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeChange<'a> {
    /// `setxattr` with a value and flags.
    Set(&'a [u8], u32),
    /// `removexattr`.
    Remove,
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It is.
    Yes,
    /// The link itself is meant.
    No,
}

/// Where a relative path begins: a directory, or the runner's own working directory.
pub type Base<'a, F> = Option<&'a F>;

/// Who runs the program: the runner's own identity, with which the first guest starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Identity {
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
    pub groups: Vec<u32>,
    /// The capabilities that the runner may use, bit n being number n.
    pub capabilities: u64,
    /// Those that no program of its can gain.
    pub withheld: u64,
}

/// A device: major and minor number.
pub type Device = (u32, u32);

/// The place of the runner among the processes of its host, which the first guest process takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its number, which becomes the first process's: programs make names of it that are to be
    /// theirs alone.
    pub pid: u32,
    /// It leads its process group.
    pub leads_group: bool,
    /// It leads its session.
    pub leads_session: bool,
    /// The controlling terminal of its session.
    pub terminal: Option<Device>,
    /// The bits of a mode that new files do not get.
    pub umask: u32,
    /// The signals that whoever started it wants ignored: bit n-1 is signal n.
    pub ignored: u64,
    /// Its nice value.
    pub nice: i32,
}

impl Default for Standing {
    /// That of a process which is alone.
    fn default() -> Standing {
        Standing {
            pid: 2,
            leads_group: true,
            leads_session: true,
            terminal: None,
            umask: 0o022,
            ignored: 0,
            nice: 0,
        }
    }
}

/// What `uname` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SystemName {
    pub system: Vec<u8>,
    pub node: Vec<u8>,
    pub release: Vec<u8>,
    pub version: Vec<u8>,
    pub machine: Vec<u8>,
    pub domain: Vec<u8>,
}

/// The world below the personality.
#[allow(clippy::missing_errors_doc)]
pub trait Platform: Sized + Send + Sync + 'static {
    /// The machine that the core runs on.
    type Machine: Machine;
    /// A guest thread.
    type Thread: GuestThread<Machine = Self::Machine, Kicker = Self::Kicker>;
    /// What interrupts one.
    type Kicker: Kicker;
    /// An open file.
    type File: HostFile;

    /// Makes a guest thread in `space`. [`Errno::EAGAIN`] when the world has none to give.
    fn guest_thread(&self, vm: &Vm<Self::Machine>, space: SpaceId) -> Result<Self::Thread, Errno>;

    /// Where every guest finds an image in the form of Linux's vDSO, whose functions tell the time
    /// of this platform's clocks ([`bsdvm::Host::now`], [`Platform::wall_clock`]); if there is one.
    fn vdso(&self, vm: &Vm<Self::Machine>) -> Option<VirtRange> {
        let _ = vm;
        None
    }

    /// Runs `body` on a new supervisor thread.
    fn spawn(&self, body: Box<dyn FnOnce() + Send>) -> Result<(), Errno>;

    /// Waits until one of `files` is ready for what its bits ask, `deadline` has passed
    /// ([`bsdvm::Host::now`]) or `kicker` is kicked. Gives back the bits of each that are on.
    fn wait_files(
        &self,
        kicker: &Self::Kicker,
        files: &[(&Self::File, PollBits)],
        deadline: Option<u64>,
    ) -> Result<Vec<PollBits>, Errno>;

    /// The runner's own standard input, output or error (0 to 2), if it is open.
    fn standard(&self, number: u32) -> Option<Self::File>;

    /// `openat` with Linux's flags.
    fn open(
        &self,
        base: Base<'_, Self::File>,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<Self::File, Errno>;

    /// A queue of what happens to files that are watched (`inotify_init`).
    fn watcher(&self) -> Result<Self::File, Errno> {
        Err(Errno::ENOSYS)
    }

    /// `stat` or `lstat` of a path.
    fn stat(
        &self,
        base: Base<'_, Self::File>,
        path: &[u8],
        follow: Follow,
    ) -> Result<FileStat, Errno>;

    /// `readlinkat`.
    fn read_link(&self, base: Base<'_, Self::File>, path: &[u8]) -> Result<Vec<u8>, Errno>;

    /// `faccessat` with the mode's bits; `effective` asks with the effective identity.
    fn access(
        &self,
        base: Base<'_, Self::File>,
        path: &[u8],
        mode: u32,
        flags: u32,
    ) -> Result<(), Errno>;

    /// Changes a name or what it leads to.
    fn change(
        &self,
        base: Base<'_, Self::File>,
        path: &[u8],
        change: PathChange<'_>,
    ) -> Result<(), Errno>;

    /// `renameat2`.
    fn rename(
        &self,
        from: (Base<'_, Self::File>, &[u8]),
        to: (Base<'_, Self::File>, &[u8]),
        flags: u32,
    ) -> Result<(), Errno>;

    /// `linkat`.
    fn link(
        &self,
        from: (Base<'_, Self::File>, &[u8]),
        to: (Base<'_, Self::File>, &[u8]),
        flags: u32,
    ) -> Result<(), Errno>;

    /// `getxattr` or `lgetxattr`; an empty `buf` asks for the size.
    fn xattr(
        &self,
        path: &[u8],
        name: &[u8],
        follow: Follow,
        buf: &mut [u8],
    ) -> Result<usize, Errno>;

    /// `listxattr` or `llistxattr`; an empty `buf` asks for the size.
    fn list_xattr(&self, path: &[u8], follow: Follow, buf: &mut [u8]) -> Result<usize, Errno> {
        let _ = (path, follow, buf);
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets or removes an extended attribute.
    fn change_xattr(
        &self,
        path: &[u8],
        name: &[u8],
        follow: Follow,
        change: AttributeChange<'_>,
    ) -> Result<(), Errno> {
        let _ = (path, name, follow, change);
        Err(Errno::EOPNOTSUPP)
    }

    /// `statfs`.
    fn statfs(&self, path: &[u8]) -> Result<FsStat, Errno>;

    /// Returns when every processor that runs guests has ordered its memory accesses.
    fn barrier(&self) {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }

    /// Nanoseconds since 1970.
    fn wall_clock(&self) -> u64;

    /// What the clock with Linux's number `clock` shows, in nanoseconds, where it is neither
    /// [`Platform::wall_clock`] nor [`bsdvm::Host::now`]; `None` where it is one of them.
    fn other_clock(&self, clock: u32) -> Option<u64> {
        let _ = clock;
        None
    }

    /// The resolution in nanoseconds of the clock with Linux's number `clock`, if it is not 1.
    fn clock_resolution(&self, clock: u32) -> Option<u64> {
        let _ = clock;
        None
    }

    /// Nanoseconds of processor time that the calling supervisor has used.
    fn cpu_time(&self) -> u64;

    /// Fills `buf` with random bytes.
    fn random(&self, buf: &mut [u8]);

    /// Whose rights the guest has.
    fn identity(&self) -> Identity;

    /// The runner's place among its host's processes.
    fn standing(&self) -> Standing {
        Standing::default()
    }

    /// Stops the runner with all of its guests, as a terminal's user asked of the program. Returns
    /// when it was continued, or at once where nobody could continue it.
    fn stop(&self) {}

    /// Makes the calling supervisor touch files as this user, with this group and these further
    /// ones, from now on, and those that it spawns. Only a world in which identities mean nothing
    /// leaves this out.
    fn assume(&self, user: u32, group: u32, groups: &[u32]) -> Result<(), Errno> {
        let _ = (user, group, groups);
        Ok(())
    }

    /// What `uname` tells.
    fn system_name(&self) -> SystemName;

    /// The runner's soft and hard limit number `resource`; `u64::MAX` is none.
    fn limit(&self, resource: u32) -> (u64, u64);

    /// Tells the person one line.
    fn message(&self, line: &str);

    /// A name for the platform, for messages.
    fn name(&self) -> String;
}
