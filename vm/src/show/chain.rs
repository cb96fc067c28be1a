//! The objects behind an entry, front before backing.

use crate::Vm;
use crate::object::shadow::MAX_CHAIN;
use crate::object::{Kind, ObjectHandle, ObjectId, ObjectKind, ObjectState};
use bsdvm_machine::Machine;
use core::fmt;

/// What one object says, as seen from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectInfo {
    /// Its name. Good for comparing: the object may have gone since.
    pub object: ObjectId,
    /// Where its pages come from.
    pub kind: ObjectKind,
    /// By what its pager knows it, if it has one.
    pub cookie: Option<u64>,
    /// The size in bytes.
    pub bytes: u64,
    /// Pages in memory.
    pub resident: u64,
    /// Pages on swap.
    pub swapped: u64,
    /// References: of entries, of objects that shadow it, and of callers.
    pub references: u32,
    /// Objects that shadow it.
    pub shadows: u32,
    /// Whether every reference is an entry of one map, and no two map the same page.
    pub one_mapping: bool,
    /// The object behind it, and where in that one it begins, in bytes.
    pub backing: Option<(ObjectId, u64)>,
}

/// As `show object` prints it: `Object 2: type=default, size=0x4000, res=2, swap=1, ref=1, sref=0,
/// one mapping, backing=1+0x1000`.
impl fmt::Display for ObjectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Object {}: type={}{}, size={:#x}, res={}, swap={}, ref={}, sref={}",
            self.object.number(),
            self.kind,
            Cookie(self.cookie),
            self.bytes,
            self.resident,
            self.swapped,
            self.references,
            self.shadows
        )?;
        if self.one_mapping {
            f.write_str(", one mapping")?;
        }
        match self.backing {
            Some((object, offset)) => write!(f, ", backing={}+{offset:#x}", object.number()),
            None => Ok(()),
        }
    }
}

/// A pager's cookie in brackets, if there is one.
struct Cookie(Option<u64>);

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(cookie) => write!(f, "({cookie:#x})"),
            None => Ok(()),
        }
    }
}

/// A chain of objects, copied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain([Option<ObjectInfo>; MAX_CHAIN]);

impl Chain {
    pub(super) const EMPTY: Chain = Chain([None; MAX_CHAIN]);

    pub(super) fn iter(&self) -> impl Iterator<Item = &ObjectInfo> {
        self.0.iter().flatten()
    }
}

impl<M: Machine> Vm<M> {
    /// Copies the chain from `front` on. Whoever calls keeps `front` alive, by the lock of a map
    /// that has it; each object keeps the next.
    pub(super) fn copy_of_chain(&self, front: ObjectHandle) -> Chain {
        let mut chain = Chain::EMPTY;
        let mut at = front;
        let mut state = self.lock_object(front);
        for place in &mut chain.0 {
            *place = Some(self.object_info(at, &state));
            let Some(backing) = state.backing else { break };
            at = backing.object;
            state = self.lock_backing(at);
        }
        chain
    }

    fn object_info(&self, object: ObjectHandle, state: &ObjectState) -> ObjectInfo {
        let bytes = |pages| M::PAGE.offset(pages).unwrap_or(u64::MAX);
        let cookie = match state.kind {
            Kind::Paged(pager) | Kind::Device(pager, _) => Some(pager.cookie),
            _ => None,
        };
        let backing = state.backing;
        ObjectInfo {
            object: ObjectId(object),
            kind: state.seen_kind(),
            cookie,
            bytes: state.bytes,
            resident: state.pages.resident,
            swapped: state.pages.swapped,
            references: self.references(object),
            shadows: state.shadow_count,
            one_mapping: state.one_mapping,
            backing: backing.map(|b| (ObjectId(b.object), bytes(b.offset))),
        }
    }
}
