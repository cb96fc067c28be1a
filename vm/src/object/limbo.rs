//! What has left and waits for a flush.
//!
//! A frame is freed only after every processor has dropped its translation, and a flush is waited
//! for with no lock held. So an operation that takes pages away under its locks collects them
//! here, and they go when the limbo is dropped, after the locks.

use super::ObjectHandle;
use crate::Vm;
use crate::slab::Handle;
use bsdvm_machine::sync::atomic::Ordering;
use bsdvm_machine::{Flush, Frame, Machine, Pmap};

/// No frame.
const NONE: u32 = u32::MAX;

/// Frames and objects that have left. Declare it before the guards of an operation's locks, so
/// that it is dropped after them.
pub(crate) struct Limbo<'v, M: Machine> {
    vm: &'v Vm<M>,
    flush: <M::Pmap as Pmap>::Flush,
    first: u32,
    dead: Option<ObjectHandle>,
}

impl<'v, M: Machine> Limbo<'v, M> {
    pub(crate) fn new(vm: &'v Vm<M>) -> Self {
        Limbo {
            vm,
            flush: Default::default(),
            first: NONE,
            dead: None,
        }
    }

    /// A flush to wait for before anything here goes.
    pub(crate) fn add_flush(&mut self, flush: <M::Pmap as Pmap>::Flush) {
        if !flush.is_done() {
            self.flush.join(flush);
        }
    }

    /// A frame that is no page any more, on no queue and not mapped.
    pub(crate) fn add_frame(&mut self, frame: Frame) {
        self.vm.frames.page(frame).set_next(self.first);
        self.first = frame.0;
    }

    /// An object behind a pager that lost its last reference.
    pub(crate) fn add_dead(&mut self, object: ObjectHandle) {
        let next = self.dead.replace(object);
        self.vm
            .object_rec(object)
            .next_dead
            .store(next.map_or(0, Handle::raw), Ordering::Relaxed);
    }

    /// Waits for the flushes and frees the frames and objects. No lock is held.
    pub(crate) fn settle(&mut self) {
        loop {
            if !self.flush.is_done() {
                M::assert_none_held();
                core::mem::take(&mut self.flush).wait();
            }
            while self.first != NONE {
                let frame = Frame(self.first);
                self.first = self.vm.frames.page(frame).next();
                self.vm.frames.free(frame);
            }
            let Some(object) = self.dead else { return };
            M::assert_none_held();
            let next = self.vm.object_rec(object).next_dead.load(Ordering::Relaxed);
            self.dead = Handle::from_raw(next);
            self.vm.end_paged(object, self);
        }
    }
}

impl<M: Machine> Drop for Limbo<'_, M> {
    fn drop(&mut self) {
        self.settle();
    }
}
