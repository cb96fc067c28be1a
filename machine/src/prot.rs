//! Protections, kinds of access, and memory attributes: typed.

use core::fmt;

bitflags::bitflags! {
    /// What may be done with a page. `NONE` is the empty set. A machine may allow loads wherever it
    /// allows anything.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
    pub struct Prot: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXEC = 4;
    }
}

impl Prot {
    /// No access at all.
    pub const NONE: Prot = Prot::empty();
    /// Every access.
    pub const ALL: Prot = Prot::all();
    /// Loads and stores.
    pub const RW: Prot = Prot::READ.union(Prot::WRITE);
    /// Loads and instruction fetches.
    pub const RX: Prot = Prot::READ.union(Prot::EXEC);

    /// Whether this protection allows `access`.
    pub const fn allows(self, access: Access) -> bool {
        self.contains(access.needs())
    }
}

impl fmt::Debug for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bit = |p, c| if self.contains(p) { c } else { '-' };
        write!(
            f,
            "{}{}{}",
            bit(Prot::READ, 'r'),
            bit(Prot::WRITE, 'w'),
            bit(Prot::EXEC, 'x')
        )
    }
}

impl fmt::Display for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What an instruction tried to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

impl Access {
    /// The protection that the access needs.
    pub const fn needs(self) -> Prot {
        match self {
            Access::Read => Prot::READ,
            Access::Write => Prot::WRITE,
            Access::Execute => Prot::EXEC,
        }
    }
}

/// How the processor caches a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum MemoryAttr {
    /// Ordinary memory.
    #[default]
    WriteBack,
    /// Loads are cached, stores go through.
    WriteThrough,
    /// Stores are collected; loads are not cached.
    WriteCombining,
    /// Nothing is cached.
    Uncached,
}
