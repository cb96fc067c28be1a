//! Translations of one address space.
//!
//! A pmap is a cache of what the core knows: any managed translation may be dropped at any moment
//! and is entered again at the next fault. The core calls a pmap under a lock of its own, one
//! caller at a time for each pmap; a machine therefore needs no lock against the core, only
//! against its own processors.
//!
//! Operations take runs (address, frame, count), never sleep, and give back a [`Flush`]: work that
//! must be waited for, with no lock held, before a frame that lost a translation is used for
//! anything else.

use crate::addr::{Frame, FrameRun, VirtAddr, VirtRange};
use crate::prot::{MemoryAttr, Prot};

/// Why a translation could not be entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnterError {
    /// The pmap needs this many frames for its tables. Donate them ([`Pmap::donate`]) and try
    /// again. Nothing was entered.
    NeedFrames(u32),
    /// The address cannot be translated by this machine. Nothing was entered.
    BadAddress,
    /// The machine cannot give what the operation needs, and no frames would help. Nothing was
    /// entered.
    NoResources,
}

/// Whose a translation is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The core keeps track of it; it may be dropped at any moment.
    Managed,
    /// Entered by hand (`pmap_qenter`): it stays until it is removed.
    Manual,
}

bitflags::bitflags! {
    /// What was done with a page through a translation since the bits were last taken.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Usage: u8 {
        /// The page was used.
        const REFERENCED = 1;
        /// The page was written.
        const MODIFIED = 2;
    }
}

/// One translation, as [`Pmap::extract`] sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The frame that the page maps.
    pub frame: Frame,
    /// What the translation allows.
    pub prot: Prot,
    /// Whose it is.
    pub kind: Kind,
    /// What was done through it and not taken yet.
    pub usage: Usage,
}

/// One translation that is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removed {
    /// The page's address.
    pub va: VirtAddr,
    /// The frame that it mapped.
    pub frame: Frame,
    /// Whose it was.
    pub kind: Kind,
    /// What was done through it and not taken yet.
    pub usage: Usage,
}

/// Work of the machine that a change of translations leaves behind: other processors may still
/// use the old ones until it is done.
///
/// `Default` is "nothing to wait for". Dropping a flush that has work left is a fault of the
/// caller; the simulated machine reports it.
#[must_use = "a frame may be reused only after the flush has been waited for"]
pub trait Flush: Default {
    /// Takes over the work of `other`. Both may stand for different pmaps.
    fn join(&mut self, other: Self);

    /// Waits until no processor can use a translation that the operation took away or lowered.
    /// Call it with no lock held.
    fn wait(self);

    /// Whether there is nothing to wait for.
    fn is_done(&self) -> bool;
}

/// The translations of one address space.
///
/// Addresses and ranges are aligned to pages. Calls on one pmap come one at a time. The functions
/// that a call is given (`replaced`, `gone`, `seen` and so on) may not call a pmap.
pub trait Pmap: Send + Sync {
    /// What an operation leaves to be waited for.
    type Flush: Flush;

    /// Maps the frames of `run`, in order, at `va` and the pages after it.
    ///
    /// A page that was mapped already is mapped anew, and `replaced` is told what was known of the
    /// old translation, each once, in ascending order. All or nothing. The same frame with more
    /// rights needs no flush, and a use through the old translation may stay unseen until the next
    /// one; a store never does.
    ///
    /// Errors: see [`EnterError`].
    fn enter(
        &self,
        va: VirtAddr,
        run: FrameRun,
        prot: Prot,
        attr: MemoryAttr,
        kind: Kind,
        replaced: &mut dyn FnMut(Removed),
    ) -> Result<Self::Flush, EnterError>;

    /// Takes away every translation in `range` and tells `gone` about each, in ascending order.
    fn remove(&self, range: VirtRange, gone: &mut dyn FnMut(Removed)) -> Self::Flush;

    /// Lowers every translation in `range` to at most `prot`. Never raises one: the next fault
    /// does. With [`Prot::NONE`] the translations stay, without any access. Usage bits stay.
    fn protect(&self, range: VirtRange, prot: Prot) -> Self::Flush;

    /// The translation of the page at `va`, if there is one.
    fn extract(&self, va: VirtAddr) -> Option<Translation>;

    /// Tells `seen` about every translation in `range`, in ascending order.
    fn scan(&self, range: VirtRange, seen: &mut dyn FnMut(VirtAddr, Translation));

    /// Takes the usage bits named by `which` of the page at `va`: gives them back and clears them.
    fn take_usage(&self, va: VirtAddr, which: Usage) -> (Usage, Self::Flush);

    /// Enters in `self` what `from` has in `range`, with write access taken away, for as many
    /// pages as the machine thinks useful and has frames for; `entered` hears of each. A hint: to
    /// do nothing is right. `from` is locked by the caller too.
    fn copy(
        &self,
        from: &Self,
        range: VirtRange,
        entered: &mut dyn FnMut(VirtAddr, Frame),
    ) -> Self::Flush {
        let _ = (from, range, entered);
        Self::Flush::default()
    }

    /// Makes the tables that this pmap shares with all others, for the addresses below `end`: the
    /// kernel's pmap does it before the first translation there, so that no space lacks it
    /// (`pmap_growkernel`). Where nothing is shared there is nothing to do.
    ///
    /// Errors: [`EnterError::NeedFrames`], with nothing done.
    fn grow(&self, end: VirtAddr) -> Result<(), EnterError> {
        let _ = end;
        Ok(())
    }

    /// Gives the pmap a frame for its tables, in answer to [`EnterError::NeedFrames`].
    fn donate(&self, frame: Frame);

    /// Gives back frames that the pmap holds and does not need, one by one. Called when the core
    /// is short of memory and when the pmap ends; with no translation left, every frame comes back.
    /// The caller keeps them until the flush has been waited for.
    fn reclaim(&self, back: &mut dyn FnMut(Frame)) -> Self::Flush;

    /// The number of pages that are mapped.
    fn resident(&self) -> u64;
}
