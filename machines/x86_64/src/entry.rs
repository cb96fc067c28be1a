//! One entry of a table: 64 bits.
//!
//! ```text
//!  63  62..52  51 ............ 12  11  10      9      8  7    6  5  4    3    2  1  0
//!  NX  -       frame               -   MANUAL  VALID  G  PAT  D  A  PCD  PWT  U  W  P
//! ```
//!
//! VALID is ours: the entry holds a translation, which has no access when P is clear. The frame of
//! such an entry is kept with its bits inverted: some processors speculate with the address in an
//! entry that is not present (L1 terminal fault), and the inverted one lies in no memory.

use bsdvm_machine::{Access, Kind, MemoryAttr, Prot, Usage};

bitflags::bitflags! {
    /// The bits of an entry besides the address.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Bits: u64 {
        /// P: the processor uses the entry.
        const PRESENT = 1;
        /// W: stores are allowed.
        const WRITE = 1 << 1;
        /// U: programs are allowed.
        const USER = 1 << 2;
        /// PWT: with PCD and PAT, the place in the page attribute table.
        const PWT = 1 << 3;
        /// PCD: see PWT.
        const PCD = 1 << 4;
        /// A: the processor used the entry.
        const ACCESSED = 1 << 5;
        /// D: the processor wrote through the entry.
        const DIRTY = 1 << 6;
        /// PAT in an entry of level 1; above it, "this is a large page".
        const PAT_OR_LARGE = 1 << 7;
        /// G: the entry survives a change of the root.
        const GLOBAL = 1 << 8;
        /// Ours: the entry holds a translation.
        const VALID = 1 << 9;
        /// Ours: the translation was entered by hand.
        const MANUAL = 1 << 10;
        /// NX: instruction fetches are forbidden.
        const NO_EXEC = 1 << 63;
    }
}

/// Where the address lies.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The bits that choose a place in the page attribute table, in an entry of level 1.
const ATTR: Bits = Bits::PWT.union(Bits::PCD).union(Bits::PAT_OR_LARGE);

/// What the kernel writes to the page attribute table (model-specific register 0x277), so that
/// entries mean what [`Entry::leaf`] says. Places 0 to 7, from the lowest byte up: write-back,
/// write-through, uncached-minus, uncached, write-combining, and 1 to 3 again.
pub const PAT: u64 = 0x0007_0401_0007_0406;

/// One entry of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Entry(pub u64);

impl Entry {
    /// The entry that holds nothing.
    pub const EMPTY: Entry = Entry(0);

    /// An entry of level 1 that maps the page at `physical`. `user` says that programs may use it.
    pub fn leaf(physical: u64, prot: Prot, attr: MemoryAttr, kind: Kind, user: bool) -> Entry {
        let mut bits = Bits::VALID | attr_bits(attr);
        bits.set(Bits::USER, user);
        bits.set(Bits::GLOBAL, !user);
        bits.set(Bits::MANUAL, kind == Kind::Manual);
        Entry((physical & ADDRESS) ^ ADDRESS | bits.bits()).with_prot(prot)
    }

    /// An entry that leads to the table at `physical`. What is allowed is for the lower levels to
    /// say.
    pub fn table(physical: u64, user: bool) -> Entry {
        let mut bits = Bits::PRESENT | Bits::WRITE;
        bits.set(Bits::USER, user);
        Entry(physical & ADDRESS | bits.bits())
    }

    /// The bits besides the address.
    pub fn bits(self) -> Bits {
        Bits::from_bits_truncate(self.0)
    }

    /// Whether the processor uses the entry.
    pub fn is_present(self) -> bool {
        self.bits().contains(Bits::PRESENT)
    }

    /// Whether the entry holds a translation, with access or without.
    pub fn is_valid(self) -> bool {
        self.bits().contains(Bits::VALID)
    }

    /// The address of the page or table.
    pub fn physical(self) -> u64 {
        let inverted = if self.is_present() { 0 } else { ADDRESS };
        (self.0 ^ inverted) & ADDRESS
    }

    /// What the entry allows.
    pub fn prot(self) -> Prot {
        let bits = self.bits();
        if !bits.contains(Bits::PRESENT) {
            return Prot::NONE;
        }
        let mut prot = Prot::READ;
        prot.set(Prot::WRITE, bits.contains(Bits::WRITE));
        prot.set(Prot::EXEC, !bits.contains(Bits::NO_EXEC));
        prot
    }

    /// The same translation with other rights. Usage stays.
    pub fn with_prot(self, prot: Prot) -> Entry {
        let mut bits = self.bits();
        bits.set(Bits::PRESENT, !prot.is_empty());
        bits.set(Bits::WRITE, prot.contains(Prot::WRITE));
        bits.set(Bits::NO_EXEC, !prot.contains(Prot::EXEC));
        let inverted = if prot.is_empty() { ADDRESS } else { 0 };
        Entry(self.physical() ^ inverted | bits.bits())
    }

    /// Whether the entry alone allows `access`.
    pub fn allows(self, access: Access) -> bool {
        self.prot().allows(access)
    }

    /// Whose the translation is.
    pub fn kind(self) -> Kind {
        match self.bits().contains(Bits::MANUAL) {
            true => Kind::Manual,
            false => Kind::Managed,
        }
    }

    /// What the processor did through it.
    pub fn usage(self) -> Usage {
        let mut usage = Usage::empty();
        usage.set(Usage::REFERENCED, self.bits().contains(Bits::ACCESSED));
        usage.set(Usage::MODIFIED, self.bits().contains(Bits::DIRTY));
        usage
    }

    /// The same translation with the bits of `usage` cleared.
    pub fn without_usage(self, usage: Usage) -> Entry {
        Entry(self.0 & !usage_bits(usage).bits())
    }

    /// The same translation after `usage`.
    pub fn with_usage(self, usage: Usage) -> Entry {
        Entry(self.0 | usage_bits(usage).bits())
    }

    /// How the processor caches the page.
    pub fn attr(self) -> MemoryAttr {
        let all = [
            MemoryAttr::WriteThrough,
            MemoryAttr::WriteCombining,
            MemoryAttr::Uncached,
        ];
        let mine = self.bits() & ATTR;
        let found = all.into_iter().find(|attr| attr_bits(*attr) == mine);
        found.unwrap_or(MemoryAttr::WriteBack)
    }

    /// Whether a processor that remembers this entry must forget it when `new` takes its place.
    ///
    /// A processor that remembers fewer rights looks again before it faults, so the same frame
    /// with more rights needs nothing, which makes the commonest write fault cheap. A remembered D
    /// would hide the next store from the table, so it must go; a remembered A may hide a
    /// reference until the next flush, which costs the page nothing but a little age.
    pub fn outlived_by(self, new: Entry) -> bool {
        self.is_present()
            && (self.physical() != new.physical()
                || !new.prot().contains(self.prot())
                || (self.bits() ^ new.bits()).intersects(ATTR | Bits::USER | Bits::GLOBAL)
                || self.bits().contains(Bits::DIRTY))
    }
}

fn usage_bits(usage: Usage) -> Bits {
    let mut bits = Bits::empty();
    bits.set(Bits::ACCESSED, usage.contains(Usage::REFERENCED));
    bits.set(Bits::DIRTY, usage.contains(Usage::MODIFIED));
    bits
}

fn attr_bits(attr: MemoryAttr) -> Bits {
    match attr {
        MemoryAttr::WriteBack => Bits::empty(),
        MemoryAttr::WriteThrough => Bits::PWT,
        MemoryAttr::Uncached => Bits::PWT | Bits::PCD,
        MemoryAttr::WriteCombining => Bits::PAT_OR_LARGE,
    }
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
