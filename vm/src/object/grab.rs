//! Grab: a page of an object in the hands of a caller, for input and output (O11).

use super::limbo::Limbo;
use super::{Object, ObjectError, ObjectHandle};
use crate::Vm;
use crate::fault::Touch;
use crate::page::Bits;
use bsdvm_machine::{Access, Frame, Machine};

/// A page that is busy for its caller, until this is dropped: it is not paged out, moved or freed,
/// and whoever faults on it waits. Translations that exist go on working.
///
/// Whoever has one may not fault on the same page, and grabs several in ascending order.
#[must_use = "the page is let go when this is dropped"]
pub struct Grabbed<'v, M: Machine> {
    vm: &'v Vm<M>,
    /// The object that the page belongs to, with a reference.
    object: ObjectHandle,
    frame: Frame,
}

impl<'v, M: Machine> Object<'v, M> {
    /// Grabs the page at byte `offset`, which is read in or zero-filled where it is missing (O11).
    /// With [`Access::Write`] it becomes dirty, and is the object's own: a page that a shadow sees
    /// behind it is copied first.
    ///
    /// Errors: [`ObjectError::NoMemory`], [`ObjectError::Pager`], [`ObjectError::BeyondEnd`], and
    /// [`ObjectError::Device`] for a device, which has no pages.
    pub fn grab(self, offset: u64, access: Access) -> Result<Grabbed<'v, M>, ObjectError> {
        let vm = self.vm;
        {
            let state = vm.lock_object(self.handle);
            if state.is_device() {
                return Err(ObjectError::Device);
            }
            if offset >= state.bytes {
                return Err(ObjectError::BeyondEnd);
            }
        }
        let index = M::PAGE.index(offset);
        let mut touch = match access {
            Access::Write => Touch::Write,
            Access::Read | Access::Execute => Touch::Read,
        };
        loop {
            let mut got = Err(ObjectError::BeyondEnd);
            vm.touch_page(self.handle, index, touch, &mut |frame| {
                got = frame.map(|frame| vm.grab_frame(frame)).transpose();
            })?;
            match got? {
                Some(grabbed) => return Ok(grabbed),
                // Nobody has written it yet: a page of zeroes is made.
                None if touch == Touch::Read => touch = Touch::Write,
                None => return Err(ObjectError::BeyondEnd),
            }
        }
    }
}

impl<M: Machine> Vm<M> {
    /// Makes a page busy for a caller. Under the lock of its object; the page is not busy.
    fn grab_frame(&self, frame: Frame) -> Result<Grabbed<'_, M>, ObjectError> {
        let page = self.frames.page(frame);
        let object = page.identity().map(|(object, _)| object);
        let object = object
            .filter(|&object| self.reference(object))
            .ok_or(ObjectError::NoMemory)?;
        page.set(Bits::BUSY);
        Ok(Grabbed {
            vm: self,
            object,
            frame,
        })
    }
}

impl<M: Machine> Grabbed<'_, M> {
    /// The frame.
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// Whether the page still is one of its object: false once the object was cut before it.
    pub fn is_current(&self) -> bool {
        self.vm.frames.page(self.frame).identity().is_some()
    }
}

impl<M: Machine> Drop for Grabbed<'_, M> {
    fn drop(&mut self) {
        let mut limbo = Limbo::new(self.vm);
        let state = self.vm.lock_object(self.object);
        if !self.vm.unbusy(self.frame) {
            limbo.add_frame(self.frame);
        }
        drop(state);
        self.vm.release(self.object, &mut limbo);
    }
}
