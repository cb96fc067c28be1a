//! Events as they happen, one after the other: see [`TraceSink`].
//!
//! As text an event is one line without its end: the number of the space, or `-`, the name of the
//! event, then `name=value` for each of its fields, the outcome last. `docs/trace.md` has them all.

use crate::Vm;
use crate::fault::{FaultError, Faulted, Purpose};
use crate::map::{Advice, MapError, Mapping, Sharing};
use crate::object::ObjectId;
use crate::pager::PagerError;
use crate::space::{Space, SpaceError, SpaceId};
use bsdvm_machine::{Access, Machine, Prot, VirtAddr, VirtRange};
use core::fmt;

/// Who hears of events. Given to a VM when it is made ([`crate::Config::trace`]).
pub trait TraceSink: Sync {
    /// Something happened. Called on the thread that did it, after it was done, with no lock of the
    /// core held. The sink may take locks of its own and may sleep, but may not call the VM.
    fn event(&self, event: Event);
}

/// What a page was wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultFor {
    /// A trap: the page is entered in the pmap.
    Trap,
    /// To be wired.
    Wire,
    /// To be read or written on behalf of the program, without a translation.
    Touch,
}

/// Who wires a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WiredBy {
    /// Its user: counted once, however often it is done.
    User,
    /// The kernel: counted.
    Kernel,
    /// The kernel, without bringing the pages in.
    Quick,
}

/// A verb that changes the entries, or the pages, of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// What is mapped there is mapped no more.
    Remove,
    /// What is allowed now.
    Protect(Prot),
    /// What can be allowed.
    ProtectMax(Prot),
    /// What a child gets.
    Inherit(crate::Inherit),
    /// Contents are given up.
    Discard,
    /// Dirty pages are written.
    Clean,
    /// Advice is taken.
    Advise(Advice),
    /// Pages are kept in memory.
    Wire(WiredBy),
    /// They are not any more.
    Unwire(WiredBy),
    /// A stack is made.
    Stack(Prot),
    /// A stack has grown by the range.
    Grow,
    /// Another map says what is there from now on.
    Submap(SpaceId),
    /// The directory of virtual page tables is set.
    SetPageDirectory(crate::TableEntry),
}

/// Where a page comes from or goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Store {
    /// The swap space.
    Swap,
    /// The pager of the object.
    Pager,
}

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A space was made.
    Create {
        /// Which.
        space: SpaceId,
        /// The addresses that can be mapped.
        range: VirtRange,
    },
    /// The contents of a space have gone, with the last reference.
    End {
        /// Which.
        space: SpaceId,
    },
    /// A space was copied.
    Fork {
        /// The parent.
        space: SpaceId,
        /// The child.
        outcome: Result<SpaceId, SpaceError>,
    },
    /// Something was mapped.
    Map {
        /// Where.
        space: SpaceId,
        /// How many bytes.
        bytes: u64,
        /// What.
        what: Mapping,
        /// At which address.
        outcome: Result<VirtAddr, MapError>,
    },
    /// A range was moved.
    Move {
        /// Where.
        space: SpaceId,
        /// What was moved.
        from: VirtRange,
        /// How many bytes it has now.
        bytes: u64,
        /// To which address.
        outcome: Result<VirtAddr, MapError>,
    },
    /// A range was changed.
    Change {
        /// Where.
        space: SpaceId,
        /// What was done.
        verb: Verb,
        /// To what.
        range: VirtRange,
        /// How it went.
        outcome: Result<(), MapError>,
    },
    /// A page was wanted.
    Fault {
        /// Where.
        space: SpaceId,
        /// The address that was given.
        va: VirtAddr,
        /// For which access.
        access: Access,
        /// What for.
        purpose: FaultFor,
        /// The object that has the page.
        object: Option<ObjectId>,
        /// How it went.
        outcome: Result<Faulted, FaultError>,
    },
    /// Pages were read in.
    PageIn {
        /// The object. It may have ended since.
        object: ObjectId,
        /// Where in it, in bytes.
        offset: u64,
        /// From where.
        from: Store,
        /// How many pages came.
        outcome: Result<u32, PagerError>,
    },
    /// A page was written out.
    PageOut {
        /// The object. It may have ended since.
        object: ObjectId,
        /// Where in it, in bytes.
        offset: u64,
        /// To where.
        to: Store,
        /// How it went.
        outcome: Result<(), PagerError>,
    },
}

impl Event {
    /// The space that it happened in; none for pages that come and go.
    pub fn space(&self) -> Option<SpaceId> {
        match *self {
            Event::Create { space, .. }
            | Event::End { space }
            | Event::Fork { space, .. }
            | Event::Map { space, .. }
            | Event::Move { space, .. }
            | Event::Change { space, .. }
            | Event::Fault { space, .. } => Some(space),
            Event::PageIn { .. } | Event::PageOut { .. } => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.space() {
            Some(space) => write!(f, "{} ", space.number())?,
            None => f.write_str("- ")?,
        }
        match *self {
            Event::Create { range, .. } => {
                write!(f, "create {} outcome=ok", Range(range))
            }
            Event::End { .. } => f.write_str("end outcome=ok"),
            Event::Fork { outcome, .. } => match outcome {
                Ok(child) => write!(f, "fork child={} outcome=ok", child.number()),
                Err(e) => write!(f, "fork child=- outcome={e:?}"),
            },
            Event::Map {
                bytes,
                what,
                outcome,
                ..
            } => write_map(f, bytes, &what, outcome),
            Event::Move {
                from,
                bytes,
                outcome,
                ..
            } => {
                write!(f, "move {} ", Range(from))?;
                write_place(f, bytes, outcome)
            }
            Event::Change {
                verb,
                range,
                outcome,
                ..
            } => {
                write_verb(f, verb, range)?;
                write_outcome(f, outcome)
            }
            Event::Fault {
                va,
                access,
                purpose,
                object,
                outcome,
                ..
            } => {
                write!(f, "fault at={:#x} access={access:?} for={purpose:?}", va.0)?;
                match object {
                    Some(object) => write!(f, " object={}", object.number())?,
                    None => f.write_str(" object=-")?,
                }
                match outcome {
                    Ok(done) => write!(f, " outcome={done:?}"),
                    Err(e) => write!(f, " outcome={e:?}"),
                }
            }
            Event::PageIn {
                object,
                offset,
                from,
                outcome,
            } => {
                let (object, pages) = (object.number(), outcome.unwrap_or(0));
                write!(
                    f,
                    "page-in object={object} offset={offset:#x} from={from:?}"
                )?;
                write!(f, " pages={pages}")?;
                write_outcome(f, outcome.map(|_| ()))
            }
            Event::PageOut {
                object,
                offset,
                to,
                outcome,
            } => {
                let object = object.number();
                write!(f, "page-out object={object} offset={offset:#x} to={to:?}")?;
                f.write_str(" pages=1")?;
                write_outcome(f, outcome)
            }
        }
    }
}

/// A range as two fields.
struct Range(VirtRange);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "start={:#x} end={:#x}", self.0.start().0, self.0.end().0)
    }
}

fn write_outcome<E: fmt::Debug>(f: &mut fmt::Formatter<'_>, outcome: Result<(), E>) -> fmt::Result {
    match outcome {
        Ok(()) => f.write_str(" outcome=ok"),
        Err(e) => write!(f, " outcome={e:?}"),
    }
}

fn write_map(
    f: &mut fmt::Formatter<'_>,
    bytes: u64,
    what: &Mapping,
    outcome: Result<VirtAddr, MapError>,
) -> fmt::Result {
    let sharing = match what.sharing {
        Sharing::Private => "private",
        Sharing::Shared => "shared",
    };
    write!(
        f,
        "map prot={} max={} sharing={sharing} ",
        what.prot, what.max_prot
    )?;
    match what.backing {
        crate::Backing::Object { object, offset } => {
            write!(f, "object={} offset={offset:#x} ", object.number())?;
        }
        _ => f.write_str("object=- offset=0x0 ")?,
    }
    write_place(f, bytes, outcome)
}

/// Where something is now, or why not.
fn write_place(
    f: &mut fmt::Formatter<'_>,
    bytes: u64,
    outcome: Result<VirtAddr, MapError>,
) -> fmt::Result {
    match outcome {
        Ok(at) => write!(f, "at={:#x} bytes={bytes:#x} outcome=ok", at.0),
        Err(e) => write!(f, "at=- bytes={bytes:#x} outcome={e:?}"),
    }
}

fn write_verb(f: &mut fmt::Formatter<'_>, verb: Verb, range: VirtRange) -> fmt::Result {
    let name = match verb {
        Verb::Remove => "remove",
        Verb::Protect(_) => "protect",
        Verb::ProtectMax(_) => "protect-max",
        Verb::Inherit(_) => "inherit",
        Verb::Discard => "discard",
        Verb::Clean => "clean",
        Verb::Advise(_) => "advise",
        Verb::Wire(_) => "wire",
        Verb::Unwire(_) => "unwire",
        Verb::Stack(_) => "stack",
        Verb::Grow => "grow",
        Verb::Submap(_) => "submap",
        Verb::SetPageDirectory(_) => "set-page-directory",
    };
    write!(f, "{name} {}", Range(range))?;
    match verb {
        Verb::Protect(prot) | Verb::ProtectMax(prot) | Verb::Stack(prot) => {
            write!(f, " prot={prot}")
        }
        Verb::Inherit(inherit) => write!(f, " inherit={inherit:?}"),
        Verb::Advise(Advice::Behavior(behavior)) => write!(f, " advice={behavior:?}"),
        Verb::Advise(advice) => write!(f, " advice={advice:?}"),
        Verb::Wire(by) | Verb::Unwire(by) => write!(f, " by={by:?}"),
        Verb::Submap(space) => write!(f, " map={}", space.number()),
        Verb::SetPageDirectory(entry) => write!(f, " directory={:#x}", entry.bits()),
        _ => Ok(()),
    }
}

impl FaultFor {
    pub(crate) fn of(purpose: &Purpose<'_>) -> FaultFor {
        match purpose {
            Purpose::Enter => FaultFor::Trap,
            Purpose::Wire => FaultFor::Wire,
            Purpose::Visit { .. } => FaultFor::Touch,
        }
    }
}

impl<M: Machine> Vm<M> {
    /// Tells the sink of an event, which is made only when somebody listens. No lock is held.
    pub(crate) fn trace(&self, event: impl FnOnce() -> Event) {
        if let Some(sink) = self.trace {
            M::assert_none_held();
            sink.event(event());
        }
    }
}

impl<M: Machine> Space<'_, M> {
    /// Tells the sink what was done to a range. No lock is held.
    pub(crate) fn trace_change(self, verb: Verb, range: VirtRange, outcome: &Result<(), MapError>) {
        self.vm.trace(|| Event::Change {
            space: self.id(),
            verb,
            range,
            outcome: *outcome,
        });
    }
}
