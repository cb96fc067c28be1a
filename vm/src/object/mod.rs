//! Objects: what owns pages.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the record and its state |
//! | `radix.rs` | which page is where: a pure container |
//! | `life.rs` | create, reference, release, end |
//! | `pages.rs` | put a page in, take it out, busy and done |
//! | `shadow.rs` | chains: shadow, collapse, bypass, split; their only editor |
//! | `limbo.rs` | what has left and waits for a flush |
//! | `io.rs` | read, write, size and clean: objects used directly |
//! | `grab.rs` | a page of an object in the hands of a caller |
//! | `device.rs` | devices and physical memory |
//!
//! A chain is read from the front: a page that the front object lacks is looked for in its
//! backing object, and so on. An object's references are those of map entries, of the objects
//! that shadow it, of handles outside, and of whoever works on one of its pages with no lock
//! held; at the last one it ends. So a busy page's object cannot end under it.
//!
//! Locks: every field of [`ObjectState`] is guarded by the object's lock. Locks of a chain are
//! taken front before backing. `sibling_*` are guarded by the lock of the backing object.

pub(crate) mod device;
pub(crate) mod grab;
pub(crate) mod io;
pub(crate) mod life;
pub(crate) mod limbo;
pub(crate) mod pages;
pub(crate) mod radix;
pub(crate) mod shadow;

use crate::lock::{self, Mutex, MutexGuard};
use crate::pager::Pager;
use crate::slab::Handle;
use bsdvm_machine::Machine;
use bsdvm_machine::sync::atomic::AtomicU32;
pub use grab::Grabbed;
pub use io::{Object, ObjectError, ObjectId};
use radix::Radix;

pub(crate) type ObjectHandle = Handle<KindlessObject>;
pub(crate) type ObjectGuard<'a, M> = MutexGuard<'a, M, ObjectState, { lock::OBJECT }>;

/// The type that object handles name, whatever the machine: handles stand in records that do not
/// know it.
pub(crate) enum KindlessObject {}

/// One object.
pub(crate) struct ObjectRec<M: Machine> {
    /// References; 0 in a free record.
    pub(crate) refs: AtomicU32,
    /// Neighbours in the backing object's list of shadows.
    pub(crate) sibling_next: AtomicU32,
    pub(crate) sibling_prev: AtomicU32,
    /// The next in a list of objects that are about to end.
    pub(crate) next_dead: AtomicU32,
    pub(crate) state: Mutex<M, ObjectState, { lock::OBJECT }>,
}

/// What an object is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// The record is free, or the object is ending.
    Dead,
    /// Zero-filled; goes to swap when it is paged out.
    Anonymous,
    /// Pages come from a pager and go back to it.
    Paged(Pager),
    /// Zero-filled and wired: never paged out.
    Physical,
    /// Has no pages: shows frames that a pager names.
    Device(Pager, Owned),
    /// Memory of the kernel itself: zero-filled, wired as long as it is there, entered by hand, so
    /// that no translation of it is ever dropped. Its index is the address above the lowest
    /// address of the kernel, and no two entries show the same page.
    Kernel,
}

/// Whose the frames are that a device shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owned {
    /// Nobody's here: they lie beyond the VM's.
    Elsewhere,
    /// The VM's: who maps them is recorded.
    Here,
}

/// What an object is, as seen from outside (O01).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectKind {
    /// Zero-filled; nothing of it is on swap.
    Default,
    /// Zero-filled; part of it is on swap.
    Swap,
    /// Behind a pager.
    Vnode,
    /// Frames beyond those of the VM.
    Device,
    /// Wired frames of the VM, which somebody else owns.
    ManagedDevice,
    /// Zero-filled and wired.
    Physical,
    /// Memory of the kernel itself.
    Kernel,
    /// Ending.
    Dead,
}

/// The object behind another, and where in it the other's page 0 lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Backing {
    pub(crate) object: ObjectHandle,
    /// In pages.
    pub(crate) offset: u64,
}

/// What the lock of an object guards.
pub(crate) struct ObjectState {
    pub(crate) kind: Kind,
    /// Size in bytes; whole pages for anonymous objects.
    pub(crate) bytes: u64,
    pub(crate) pages: Radix,
    pub(crate) backing: Option<Backing>,
    /// First of the objects that shadow this one, and how many they are.
    pub(crate) shadows: Option<ObjectHandle>,
    pub(crate) shadow_count: u32,
    /// The object is a file that is memory: what it has stays its own, whoever shadows it.
    pub(crate) file: bool,
    /// Every reference is an entry of one map, and no two map the same page.
    pub(crate) one_mapping: bool,
    /// Pages of reservation that the object carries.
    pub(crate) charge: u64,
    /// How often the translations of a device were revoked, and how often the record was used: an
    /// answer of a device that is older is worth nothing.
    pub(crate) revokes: u64,
    /// The last count that saw the object ([`crate::space::Counts`]).
    pub(crate) counted: u64,
}

impl core::fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            ObjectKind::Default => "default",
            ObjectKind::Swap => "swap",
            ObjectKind::Vnode => "vnode",
            ObjectKind::Device => "device",
            ObjectKind::ManagedDevice => "managed device",
            ObjectKind::Physical => "physical",
            ObjectKind::Kernel => "kernel",
            ObjectKind::Dead => "dead",
        })
    }
}

impl ObjectState {
    /// The kind as others see it.
    pub(crate) fn seen_kind(&self) -> ObjectKind {
        match self.kind {
            Kind::Dead => ObjectKind::Dead,
            Kind::Anonymous if self.pages.swapped > 0 => ObjectKind::Swap,
            Kind::Anonymous => ObjectKind::Default,
            Kind::Paged(_) => ObjectKind::Vnode,
            Kind::Physical => ObjectKind::Physical,
            Kind::Kernel => ObjectKind::Kernel,
            Kind::Device(_, Owned::Elsewhere) => ObjectKind::Device,
            Kind::Device(_, Owned::Here) => ObjectKind::ManagedDevice,
        }
    }

    /// Whether who shadows the object may take its pages over once nobody else refers to it.
    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self.kind, Kind::Anonymous) && !self.file
    }

    /// Whether the object is what a mapping shows in the end: private pages that are given up
    /// show it again.
    pub(crate) fn is_file(&self) -> bool {
        self.is_paged() || self.file
    }

    /// Whether contents are the object's alone, so that a copy of it is a copy of its pages.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.kind, Kind::Anonymous | Kind::Physical)
    }

    /// Whether the object shows frames of a device.
    pub(crate) fn is_device(&self) -> bool {
        matches!(self.kind, Kind::Device(..))
    }

    /// Wirings that each page has for the object's own sake.
    pub(crate) fn own_wirings(&self) -> u32 {
        u32::from(matches!(self.kind, Kind::Physical | Kind::Kernel))
    }

    pub(crate) fn is_paged(&self) -> bool {
        matches!(self.kind, Kind::Paged(_))
    }

    pub(crate) fn is_kernel(&self) -> bool {
        matches!(self.kind, Kind::Kernel)
    }

    /// The size in pages, rounded up.
    pub(crate) fn size<M: Machine>(&self) -> u64 {
        M::PAGE.count(self.bytes)
    }

    /// Pages that the object has, resident or on swap.
    pub(crate) fn held(&self) -> u64 {
        self.pages.resident + self.pages.swapped
    }
}
