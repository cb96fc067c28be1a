//! Exec and unshare (S07): another space in place of the one that a process has.
//!
//! The new space is made first, then put in place by the caller, and only then the old one is
//! released: at no moment does the process run on a space that has ended, and a failure leaves it
//! with the one that it has.

use super::{Space, SpaceError, SpaceId};
use bsdvm_machine::{Machine, VirtRange};

/// What a process that calls exec is to run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Image {
    /// An empty space over a range.
    Fresh(VirtRange),
    /// A copy of a space that is kept ready: a program that is resident.
    Resident(SpaceId),
}

impl<'v, M: Machine> Space<'v, M> {
    /// Makes the space for `image`, calls `install` with it, which puts it in place of this one
    /// wherever the caller keeps it, and gives up the caller's reference to this one (S07).
    ///
    /// Errors: those of [`crate::Vm::space_create`] and [`Space::fork`]; nothing is changed then,
    /// and `install` is not called.
    pub fn exec(
        self,
        image: Image,
        install: impl FnOnce(Space<'v, M>),
    ) -> Result<SpaceId, SpaceError> {
        let new = match image {
            Image::Fresh(range) => self.vm.space_create(range)?,
            Image::Resident(resident) => self.vm.space(resident).fork()?,
        };
        self.replace(new, install);
        Ok(new)
    }

    /// Gives the caller a space of its own: where others have references to this one, a fork of it
    /// is made, given to `install` as by [`Space::exec`], and the caller's reference to this one
    /// given up (S07). Where nobody else has, nothing is done and this one is its own.
    ///
    /// Errors: those of [`Space::fork`]; nothing is changed then.
    pub fn unshare(self, install: impl FnOnce(Space<'v, M>)) -> Result<SpaceId, SpaceError> {
        // A reference is taken by somebody who has one: nobody but the caller could.
        if self.references() == 1 {
            return Ok(self.id());
        }
        let new = self.fork()?;
        self.replace(new, install);
        Ok(new)
    }

    fn replace(self, new: SpaceId, install: impl FnOnce(Space<'v, M>)) {
        install(self.vm.space(new));
        self.release();
    }
}
