//! Devices and physical memory (O01): objects whose frames do not come and go.

use super::limbo::Limbo;
use super::{Kind, Object, ObjectError, ObjectHandle, ObjectId, ObjectKind, Owned};
use crate::Vm;
use crate::fault::Link;
use crate::object::radix;
use crate::page::Bits;
use crate::pager::Pager;
use crate::slab::{Reservation, cast};
use crate::space::Space;
use bsdvm_machine::{Frame, Machine, Pmap, VirtAddr, VirtRange};

impl<M: Machine> Vm<M> {
    /// Makes an object of `bytes` bytes, rounded up to pages, that shows the frames beyond the
    /// VM's which `pager` names ([`crate::PagerOps::device`]), with one reference (O01). It can
    /// only be mapped shared, and is shared at fork.
    ///
    /// Errors: [`ObjectError::NoMemory`].
    pub fn object_create_device(&self, pager: Pager, bytes: u64) -> Result<ObjectId, ObjectError> {
        self.new_device(pager, bytes, Owned::Elsewhere)
    }

    /// Makes an object as [`Vm::object_create_device`] does, whose frames are wired ones of the
    /// VM: pages of physical objects, or kernel memory (O01). A translation of such a frame goes
    /// when the frame is freed, or by [`Object::revoke`].
    ///
    /// Errors: [`ObjectError::NoMemory`].
    pub fn object_create_managed_device(
        &self,
        pager: Pager,
        bytes: u64,
    ) -> Result<ObjectId, ObjectError> {
        self.new_device(pager, bytes, Owned::Here)
    }

    fn new_device(&self, pager: Pager, bytes: u64, owned: Owned) -> Result<ObjectId, ObjectError> {
        let mut objects = self.reserve_objects(1)?;
        let kind = Kind::Device(pager, owned);
        Ok(ObjectId(self.new_object(&mut objects, kind, bytes, 0)))
    }

    /// Makes an object of `bytes` bytes, rounded up to pages, of zero-filled pages that are never
    /// paged out, with one reference (O01). A page is taken when it is touched first.
    ///
    /// Errors: [`ObjectError::NoMemory`], [`ObjectError::ChargeLimit`].
    pub fn object_create_physical(&self, bytes: u64) -> Result<ObjectId, ObjectError> {
        let mut objects = self.reserve_objects(1)?;
        let pages = M::PAGE.count(bytes);
        let bytes = M::PAGE.offset(pages).ok_or(ObjectError::NoMemory)?;
        self.charge
            .take(pages)
            .map_err(|_| ObjectError::ChargeLimit)?;
        Ok(ObjectId(self.new_object(
            &mut objects,
            Kind::Physical,
            bytes,
            pages,
        )))
    }

    /// Makes `frame` the page of physical memory that the walk of a chain did not find.
    pub(crate) fn fill_physical(
        &self,
        link: &mut Link<'_, M>,
        nodes: &mut Reservation<'_, M, radix::Node>,
        frame: Frame,
    ) {
        self.machine().zero(frame);
        self.insert_page(link.object, &mut link.state, nodes, link.index, frame);
        self.frames.page(frame).set(Bits::DIRTY);
    }

    /// Takes away every translation of pages `[first, end)` of a device, in all spaces.
    pub(super) fn revoke(
        &self,
        object: ObjectHandle,
        first: u64,
        end: u64,
        limbo: &mut Limbo<'_, M>,
    ) {
        self.lock_object(object).revokes += 1;
        limbo.be_quiet();
        for (handle, _) in self.spaces.each() {
            let space = self.space_rec(cast(handle));
            if !space.try_hold() {
                continue;
            }
            let space = Space {
                vm: self,
                handle: cast(handle),
            };
            self.revoke_in(space, object, first, end, limbo);
            // The last hold ends the space, with nothing locked.
            limbo.settle();
            space.unhold();
        }
    }

    fn revoke_in(
        &self,
        space: Space<'_, M>,
        object: ObjectHandle,
        first: u64,
        end: u64,
        limbo: &mut Limbo<'_, M>,
    ) {
        let map = space.rec().map.read();
        let mut at = map.find_at_or_above(self, VirtAddr(0));
        while let Some(handle) = at {
            let entry = map.get(self, handle);
            at = entry.next;
            let last = entry.offset + entry.pages::<M>();
            let (low, high) = (first.max(entry.offset), end.min(last));
            if entry.object != Some(object) || low >= high {
                continue;
            }
            let va = |index: u64| {
                let bytes = M::PAGE.offset(index - entry.offset)?;
                entry.start.checked_add(bytes)
            };
            let range = va(low).zip(va(high));
            let home = space.home();
            let pmap = space.home_rec().pmap.lock();
            if let (Some(pmap), Some((low, high))) = (pmap.as_ref(), range)
                && let Some(range) = VirtRange::new(low, high)
            {
                limbo.begin();
                let flush = pmap.remove(range, &mut |gone| {
                    self.translation_gone(home, gone);
                });
                limbo.add_flush(flush);
            }
        }
    }
}

impl<M: Machine> Object<'_, M> {
    /// What it is (O01).
    pub fn kind(self) -> ObjectKind {
        self.vm.lock_object(self.handle).seen_kind()
    }

    /// Takes away every translation of the pages that `len` bytes at byte `offset` touch, in all
    /// spaces, and waits until no processor has one. The next use of the pages asks the device
    /// again. For objects that are no devices it does nothing.
    pub fn revoke(self, offset: u64, len: u64) {
        if !self.vm.lock_object(self.handle).is_device() {
            return;
        }
        let end = M::PAGE.count(offset.saturating_add(len));
        let mut limbo = Limbo::new(self.vm);
        self.vm
            .revoke(self.handle, M::PAGE.index(offset), end, &mut limbo);
    }
}
