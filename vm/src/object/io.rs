//! Objects used directly (O11): read, write, size, clean. And what the rest of the core asks of
//! the pages of one object.

use super::life::MOST_OF_CALLERS;
use super::limbo::Limbo;
use super::radix::Slot;
use super::{Kind, ObjectHandle, ObjectState};
use crate::Vm;
use crate::fault::{FrameBytes, Touch};
use crate::page::{Bits, Queue};
use crate::pager::{Pager, PagerError};
use crate::show::{Event, Store};
use crate::slab::NoRecords;
use bsdvm_machine::{Frame, Machine, Pmap, Usage};

/// The name of an object. Valid while the caller has a reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectId(pub(crate) ObjectHandle);

impl ObjectId {
    /// The id as a number, never zero: for tables and logs of the caller.
    pub fn number(self) -> u32 {
        self.0.raw()
    }
}

impl core::hash::Hash for ObjectId {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.number().hash(state);
    }
}

/// Which dirty pages are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clean {
    /// All.
    All,
    /// Those that a periodic sync is to see.
    Periodic,
}

/// Why an operation on an object failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectError {
    /// No frame or no record can be had.
    NoMemory,
    /// The pager failed.
    Pager(PagerError),
    /// The limit on reservations would be passed.
    ChargeLimit,
    /// The place lies beyond the end of the object.
    BeyondEnd,
    /// The object is a device, which has no pages.
    Device,
}

impl From<NoRecords> for ObjectError {
    fn from(_: NoRecords) -> ObjectError {
        ObjectError::NoMemory
    }
}

/// One object of a VM, to work with. The caller has a reference to it meanwhile.
pub struct Object<'v, M: Machine> {
    pub(super) vm: &'v Vm<M>,
    pub(super) handle: ObjectHandle,
}

impl<M: Machine> Clone for Object<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M: Machine> Copy for Object<'_, M> {}

impl<M: Machine> Vm<M> {
    /// Makes an object of `bytes` bytes behind `pager`, with one reference (O01).
    ///
    /// Errors: [`ObjectError::NoMemory`].
    pub fn object_create(&self, pager: Pager, bytes: u64) -> Result<ObjectId, ObjectError> {
        let mut objects = self.reserve_objects(1)?;
        Ok(ObjectId(self.new_paged(&mut objects, pager, bytes)))
    }

    /// Makes a zero-filled object of `bytes` bytes, rounded up to pages, with one reference (O01).
    ///
    /// Errors: [`ObjectError::NoMemory`], [`ObjectError::ChargeLimit`].
    pub fn object_create_anonymous(&self, bytes: u64) -> Result<ObjectId, ObjectError> {
        let mut objects = self.reserve_objects(1)?;
        let pages = M::PAGE.count(bytes);
        self.charge
            .take(pages)
            .map_err(|_| ObjectError::ChargeLimit)?;
        let object = self.new_anonymous(&mut objects, pages, pages);
        // Handles outside can show it to anybody.
        self.lock_object(object).one_mapping = false;
        Ok(ObjectId(object))
    }

    /// Makes a file of `bytes` bytes that is memory, with one reference: a zero-filled object whose
    /// contents stay its own. What maps it privately shows it again after
    /// [`crate::Space::discard`], as with an object behind a pager.
    ///
    /// Errors: [`ObjectError::NoMemory`], [`ObjectError::ChargeLimit`].
    pub fn object_create_memory_file(&self, bytes: u64) -> Result<ObjectId, ObjectError> {
        let object = self.object_create_anonymous(bytes)?;
        self.lock_object(object.0).file = true;
        Ok(object)
    }

    /// The object behind an id, to which the caller has a reference.
    pub fn object(&self, id: ObjectId) -> Object<'_, M> {
        Object {
            vm: self,
            handle: id.0,
        }
    }
}

impl<'v, M: Machine> Object<'v, M> {
    /// The id.
    pub fn id(self) -> ObjectId {
        ObjectId(self.handle)
    }

    pub(crate) fn vm(self) -> &'v Vm<M> {
        self.vm
    }

    /// One reference more. False when the object has ended or its count is full.
    #[must_use]
    pub fn reference(self) -> bool {
        self.vm.reference_up_to(self.handle, MOST_OF_CALLERS)
    }

    /// Gives up a reference. With the last one the object ends; dirty pages go to its pager.
    pub fn release(self) {
        self.vm.release(self.handle, &mut Limbo::new(self.vm));
    }

    /// References: of entries, of objects that shadow it, and of callers.
    pub fn references(self) -> u32 {
        self.vm.references(self.handle)
    }

    /// The size in bytes.
    pub fn size(self) -> u64 {
        self.vm.lock_object(self.handle).bytes
    }

    /// Pages in memory.
    pub fn resident_pages(self) -> u64 {
        self.vm.lock_object(self.handle).pages.resident
    }

    /// Sets the size in bytes (O06). What lies beyond goes, in memory and in translations; the
    /// rest of the last page becomes zero.
    ///
    /// Errors: [`ObjectError::ChargeLimit`] for an anonymous or physical object that grows, and
    /// [`ObjectError::NoMemory`] and [`ObjectError::Pager`] when the last page is on swap and
    /// cannot be had; nothing is changed then.
    pub fn set_size(self, bytes: u64) -> Result<(), ObjectError> {
        let vm = self.vm;
        let mut limbo = Limbo::new(vm);
        let end = M::PAGE.count(bytes);
        loop {
            let mut state = vm.lock_object(self.handle);
            // Shorter or longer: behind the lower of the two ends nothing was ever written.
            let least = bytes.min(state.bytes);
            let within = M::PAGE.within(least);
            let cut = M::PAGE.index(least);
            match state.pages.get(&vm.page_nodes, cut) {
                Some(Slot::Resident(frame)) if within != 0 => {
                    if vm.frames.page(frame).is_busy() {
                        let wait = vm.busy_wait(frame);
                        drop(state);
                        vm.wait_busy(wait);
                        continue;
                    }
                    zero_from(vm.machine(), frame, within);
                    if state.is_memory() {
                        // What swap has of it is not the same any more.
                        vm.frames.page(frame).set(Bits::DIRTY);
                    }
                }
                Some(Slot::Swapped(_)) if within != 0 => {
                    drop(state);
                    vm.touch_page(self.handle, cut, Touch::Write, &mut |_| ())?;
                    continue;
                }
                _ => {}
            }
            if state.is_memory() {
                let old = state.size::<M>();
                if end > old {
                    vm.charge
                        .take(end - old)
                        .map_err(|_| ObjectError::ChargeLimit)?;
                    state.charge += end - old;
                } else {
                    let less = (old - end).min(state.charge);
                    state.charge -= less;
                    vm.charge.refund(less);
                }
            }
            state.bytes = bytes;
            vm.remove_pages(&mut state, end, u64::MAX, &mut limbo);
            if state.is_device() {
                drop(state);
                vm.revoke(self.handle, end, u64::MAX, &mut limbo);
            }
            return Ok(());
        }
    }

    /// Makes `len` bytes from byte `offset` zero: whole pages go, in memory and in translations,
    /// and the rest is written. The size stays. For objects that are zero-filled; what is behind
    /// a pager has to be cleared there first.
    ///
    /// Errors: [`ObjectError`]; some of it may be zero then.
    pub fn clear(self, offset: u64, len: u64) -> Result<(), ObjectError> {
        let page = M::PAGE;
        let end = offset.saturating_add(len).min(self.size());
        let first = page.count(offset);
        let last = page.index(end);
        if first > last {
            return self.write_zeroes(offset, end);
        }
        let (low, high) = (page.offset(first), page.offset(last));
        self.write_zeroes(offset, low.unwrap_or(end).min(end))?;
        self.write_zeroes(high.unwrap_or(end).max(offset), end)?;
        let mut limbo = Limbo::new(self.vm);
        let mut state = self.vm.lock_object(self.handle);
        self.vm.remove_pages(&mut state, first, last, &mut limbo);
        Ok(())
    }

    fn write_zeroes(self, from: u64, to: u64) -> Result<(), ObjectError> {
        const ZEROES: [u8; 512] = [0; 512];
        let mut at = from;
        while at < to {
            let now = (to - at).min(ZEROES.len() as u64);
            self.write(at, &ZEROES[..now as usize])?;
            at += now;
        }
        Ok(())
    }

    /// Reads at byte `offset`, through the object's pages; what is missing is paged in. Gives the
    /// number of bytes, fewer than `buf.len()` only at the end.
    ///
    /// Errors: [`ObjectError`].
    pub fn read(self, offset: u64, buf: &mut [u8]) -> Result<usize, ObjectError> {
        let machine = self.vm.machine();
        let touch = Touch::Read;
        self.each_page(
            offset,
            buf.len(),
            touch,
            &mut |frame, at, done, n| match frame {
                Some(frame) => machine.read(frame, at, &mut buf[done..done + n]),
                None => buf[done..done + n].fill(0),
            },
        )
    }

    /// Writes at byte `offset`, into the object's pages, which become dirty. Gives the number of
    /// bytes, fewer than `buf.len()` only at the end: an object never grows here.
    ///
    /// Errors: [`ObjectError`].
    pub fn write(self, offset: u64, buf: &[u8]) -> Result<usize, ObjectError> {
        let machine = self.vm.machine();
        let touch = Touch::Write;
        self.each_page(offset, buf.len(), touch, &mut |frame, at, done, n| {
            if let Some(frame) = frame {
                machine.write(frame, at, &buf[done..done + n]);
            }
        })
    }

    fn each_page(
        self,
        offset: u64,
        len: usize,
        touch: Touch,
        with: &mut dyn FnMut(Option<Frame>, usize, usize, usize),
    ) -> Result<usize, ObjectError> {
        let left = self.size().saturating_sub(offset);
        let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = M::PAGE.within(at);
            let now = (M::PAGE.len() - within).min(len - done);
            self.vm
                .touch_page(self.handle, M::PAGE.index(at), touch, &mut |frame| {
                    with(frame, within, done, now);
                })?;
            done += now;
        }
        Ok(len)
    }

    /// Writes the dirty pages of `len` bytes at byte `offset` to the pager, and waits until they
    /// are written.
    ///
    /// Errors: [`ObjectError::Pager`] for the first page that could not be written; it stays
    /// dirty.
    pub fn clean(self, offset: u64, len: u64) -> Result<(), ObjectError> {
        let end = M::PAGE.count(offset.saturating_add(len));
        self.vm
            .clean_pages(self.handle, M::PAGE.index(offset), end, Clean::All)
            .map_err(ObjectError::Pager)
    }

    /// Writes the dirty pages to the pager as a periodic sync does: all but those that were written
    /// through entries alone that were advised against it ([`crate::Advice::NoSync`], M12).
    ///
    /// Errors: as for [`Object::clean`].
    pub fn sync(self) -> Result<(), ObjectError> {
        self.vm
            .clean_pages(self.handle, 0, u64::MAX, Clean::Periodic)
            .map_err(ObjectError::Pager)
    }
}

fn zero_from<M: Machine>(machine: &M, frame: Frame, from: usize) {
    let zeroes = [0; 256];
    let mut at = from;
    while at < M::PAGE.len() {
        let now = zeroes.len().min(M::PAGE.len() - at);
        machine.write(frame, at, &zeroes[..now]);
        at += now;
    }
}

impl<M: Machine> Vm<M> {
    /// Whether a page that the chain of `object` shows at `index` is in memory.
    pub(crate) fn is_resident(&self, object: ObjectHandle, index: u64) -> bool {
        self.chain_page(object, index).is_some()
    }

    /// The page in memory that the chain of `object` shows at `index`.
    pub(crate) fn chain_page(&self, object: ObjectHandle, index: u64) -> Option<Frame> {
        match self.chain_place(object, index)? {
            Slot::Resident(frame) => (!self.frames.page(frame).is_busy()).then_some(frame),
            Slot::Swapped(_) => None,
        }
    }

    /// The swap slot of the page that the chain of `object` shows at `index`.
    pub(crate) fn chain_slot(&self, object: ObjectHandle, index: u64) -> Option<u32> {
        match self.chain_place(object, index)? {
            Slot::Resident(_) => None,
            Slot::Swapped(slot) => Some(slot),
        }
    }

    /// Where the page is that the chain of `object` shows at `index`.
    fn chain_place(&self, object: ObjectHandle, index: u64) -> Option<Slot> {
        let mut index = index;
        let mut state = self.lock_object(object);
        loop {
            let slot = state.pages.get(&self.page_nodes, index);
            if slot.is_some() {
                return slot;
            }
            let backing = state.backing?;
            index += backing.offset;
            state = self.lock_backing(backing.object);
        }
    }

    /// Gives back one wiring of the page that the chain of `object` shows at `index`.
    pub(crate) fn unwire_page(&self, object: ObjectHandle, index: u64) {
        let mut index = index;
        let mut state = self.lock_object(object);
        if state.is_kernel() {
            // Wired as long as they are there.
            return;
        }
        loop {
            if let Some(slot) = state.pages.get(&self.page_nodes, index) {
                if let Slot::Resident(frame) = slot {
                    self.unwire_frame(frame, &state);
                }
                return;
            }
            let Some(backing) = state.backing else { return };
            index += backing.offset;
            state = self.lock_backing(backing.object);
        }
    }

    /// Gives back one wiring of a page; with the last one page-out may have it again. Under the
    /// lock of the page's object. What the object itself wires stays wired.
    pub(crate) fn unwire_frame(&self, frame: Frame, state: &ObjectState) {
        if self.frames.unwire(frame, state.own_wirings()) {
            self.queues.put(&self.frames, frame, Queue::Active);
        }
    }

    /// Takes up to `pages` pages of an object's charge for somebody else to carry, and makes up
    /// for what it does not have.
    pub(crate) fn take_charge_from(&self, object: ObjectHandle, pages: u64) {
        let mut state = self.lock_object(object);
        let got = pages.min(state.charge);
        state.charge -= got;
        self.charge.force(pages - got);
    }

    /// Folds what was done with a page through its translations into it, and clears it there.
    /// Under the lock of the page's object.
    pub(crate) fn gather_usage(&self, frame: Frame, which: Usage, limbo: &mut Limbo<'_, M>) {
        let page = self.frames.page(frame);
        let mut skip = 0;
        while let Some(mapping) = self.rmap.nth(frame, page, skip) {
            skip += 1;
            let pmap = self.space_rec(mapping.space).pmap.lock();
            if let Some(pmap) = pmap.as_ref()
                && pmap.extract(mapping.va).is_some_and(|t| t.frame == frame)
            {
                limbo.begin();
                let (usage, flush) = pmap.take_usage(mapping.va, which);
                super::pages::fold_usage(page, usage);
                limbo.add_flush(flush);
            }
        }
    }

    /// Writes the dirty pages of `[first, end)` of an object behind a pager. No lock is held.
    pub(crate) fn clean_pages(
        &self,
        object: ObjectHandle,
        first: u64,
        end: u64,
        which: Clean,
    ) -> Result<(), PagerError> {
        let mut at = first;
        while let Some((index, outcome)) = self.clean_next(object, at, end, which) {
            outcome?;
            at = index;
        }
        Ok(())
    }

    /// Cleans the first page at or after `at`; gives where to go on and how it went.
    fn clean_next(
        &self,
        object: ObjectHandle,
        at: u64,
        end: u64,
        which: Clean,
    ) -> Option<(u64, Result<(), PagerError>)> {
        let mut limbo = Limbo::new(self);
        let state = self.lock_object(object);
        let Kind::Paged(pager) = state.kind else {
            // Neither memory nor a device is written anywhere.
            return None;
        };
        let (index, slot) = state.pages.next(&self.page_nodes, at)?;
        if index >= end {
            return None;
        }
        let Slot::Resident(frame) = slot else {
            return Some((index + 1, Ok(())));
        };
        let page = self.frames.page(frame);
        if page.is_busy() {
            let wait = self.busy_wait(frame);
            drop(state);
            self.wait_busy(wait);
            return Some((index, Ok(())));
        }
        if which == Clean::Periodic && page.has(Bits::NO_SYNC) {
            return Some((index + 1, Ok(())));
        }
        self.gather_usage(frame, Usage::MODIFIED, &mut limbo);
        if !page.has(Bits::DIRTY) {
            return Some((index + 1, Ok(())));
        }
        page.clear(Bits::DIRTY);
        page.set(Bits::BUSY);
        let bytes = state.bytes;
        drop(state);
        limbo.be_quiet();
        limbo.settle();
        let result = self.put_page(object, pager, index, frame, bytes);
        let _state = self.lock_object(object);
        if result.is_err() {
            page.set(Bits::DIRTY);
        }
        if !self.unbusy(frame) {
            limbo.add_frame(frame);
        }
        Some((index + 1, result))
    }

    /// Writes one busy page, cut to an object of `bytes` bytes. No lock is held.
    pub(crate) fn put_page(
        &self,
        object: ObjectHandle,
        pager: Pager,
        index: u64,
        frame: Frame,
        bytes: u64,
    ) -> Result<(), PagerError> {
        M::assert_none_held();
        let offset = M::PAGE.offset(index).unwrap_or(u64::MAX);
        let len = bytes.saturating_sub(offset).min(M::PAGE.bytes());
        if len == 0 {
            return Ok(());
        }
        let page = FrameBytes {
            machine: self.machine(),
            frame,
        };
        self.counters.page_out.bump();
        let result = pager.ops.put(pager.cookie, offset, &page, len as usize);
        self.trace(|| Event::PageOut {
            object: ObjectId(object),
            offset,
            to: Store::Pager,
            outcome: result,
        });
        result
    }

    /// Drops the pages of `[first, end)` that are clean, not busy and not wired, where a pager has
    /// them as well. Memory has nothing else to go back to, even if swap has the same contents.
    pub(crate) fn drop_clean_pages(&self, object: ObjectHandle, first: u64, end: u64) {
        let mut limbo = Limbo::new(self);
        let mut state = self.lock_object(object);
        if !state.is_paged() {
            return;
        }
        let mut at = first;
        while let Some((index, slot)) = state.pages.next(&self.page_nodes, at) {
            if index >= end {
                return;
            }
            at = index + 1;
            let Slot::Resident(frame) = slot else {
                continue;
            };
            let page = self.frames.page(frame);
            if page.is_busy() || page.wired() > 0 || page.has(Bits::DIRTY) {
                continue;
            }
            // What was stored through a translation is known when it has gone, and no later.
            self.unmap_page(frame, &mut limbo);
            if !page.has(Bits::DIRTY) {
                self.remove_pages(&mut state, index, index + 1, &mut limbo);
            }
        }
    }
}
