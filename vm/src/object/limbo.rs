//! What has left and waits for a flush, or for the locks to be let go of.
//!
//! A frame is freed only after every processor has dropped its translation, and a flush is waited
//! for with no lock held. So an operation that takes pages away under its locks collects them
//! here, and they go when the limbo is dropped, after the locks.
//!
//! A translation that is not there any more may still be remembered by a processor, if whoever
//! took it away has not waited yet. So every such flush is counted ([`Flushes`]) from before the
//! translation goes until it has been waited for, and who relies on there being no translation
//! waits for those of others as well. To keep that free of deadlocks nobody sleeps, and nobody
//! calls a pager, with a limbo that has not settled.

use super::ObjectHandle;
use crate::Vm;
use crate::slab::Handle;
use bsdvm_machine::sync::atomic::{AtomicU64, Ordering};
use bsdvm_machine::{Channel, Flush, Frame, Machine, Pmap};

/// No frame.
const NONE: u32 = u32::MAX;

/// The flushes of a VM that have begun and that nobody has waited for yet.
pub(crate) struct Flushes {
    /// How many they are, whether somebody waits ([`WANTED`]), and in the upper half how often
    /// there were none.
    state: AtomicU64,
}

const WANTED: u64 = 1 << 31;
const COUNT: u64 = WANTED - 1;
const EPOCH: u64 = 1 << 32;

/// The channel for those who wait until there are none.
const QUIET: Channel = Channel(0x4600_0000_0000_0000);

impl Flushes {
    pub(crate) const fn new() -> Flushes {
        Flushes {
            state: AtomicU64::new(0),
        }
    }

    /// A translation is about to go. Under the lock of its pmap.
    fn begin(&self) {
        self.state.fetch_add(1, Ordering::AcqRel);
    }

    /// A flush has been waited for.
    fn end<M: Machine>(&self, machine: &M) {
        let last = |s: u64| match s & COUNT {
            1 => (s & !COUNT & !WANTED).wrapping_add(EPOCH),
            _ => s - 1,
        };
        let before = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |s| Some(last(s)));
        if before.is_ok_and(|s| s & COUNT == 1 && s & WANTED != 0) {
            machine.wake(QUIET);
        }
    }

    /// Sleeps until every flush that has begun by now has been waited for. No lock is held.
    fn wait<M: Machine>(&self, machine: &M) {
        let epoch = self.state.load(Ordering::Acquire) / EPOCH;
        loop {
            let ticket = machine.ticket(QUIET);
            let waits = self
                .state
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |s| {
                    (s & COUNT != 0 && s / EPOCH == epoch).then_some(s | WANTED)
                });
            if waits.is_err() {
                return;
            }
            machine.sleep(QUIET, ticket, None);
        }
    }
}

/// Frames and objects that have left. Declare it before the guards of an operation's locks, so
/// that it is dropped after them.
pub(crate) struct Limbo<'v, M: Machine> {
    vm: &'v Vm<M>,
    flush: <M::Pmap as Pmap>::Flush,
    /// Whether `flush` is counted.
    begun: bool,
    /// Whether the flushes of others are to be waited for, too.
    quiet: bool,
    /// Whether a swap device can give something back.
    discard: bool,
    first: u32,
    dead: Option<ObjectHandle>,
}

impl<'v, M: Machine> Limbo<'v, M> {
    pub(crate) fn new(vm: &'v Vm<M>) -> Self {
        Limbo {
            vm,
            flush: Default::default(),
            begun: false,
            quiet: false,
            discard: false,
            first: NONE,
            dead: None,
        }
    }

    /// Translations are about to change or go, and their flush is going to be added. Under the
    /// lock of their pmap.
    pub(crate) fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            self.vm.flushes.begin();
        }
    }

    /// Waits for the flushes of others, too: for who relies on translations being gone that
    /// somebody else may have taken away.
    pub(crate) fn be_quiet(&mut self) {
        self.quiet = true;
    }

    /// A flush to wait for before anything here goes.
    pub(crate) fn add_flush(&mut self, flush: <M::Pmap as Pmap>::Flush) {
        debug_assert!(self.begun || flush.is_done(), "a flush that nobody knew of");
        if !flush.is_done() {
            self.flush.join(flush);
        }
    }

    /// A frame that is no page any more, on no queue and not mapped.
    pub(crate) fn add_frame(&mut self, frame: Frame) {
        self.vm.frames.page(frame).set_next(self.first);
        self.first = frame.0;
    }

    /// A swap slot whose contents nobody needs.
    pub(crate) fn add_slot(&mut self, slot: u32) {
        self.discard |= self.vm.swap.free(slot);
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
            if core::mem::take(&mut self.begun) {
                self.vm.flushes.end(self.vm.machine());
            }
            if core::mem::take(&mut self.quiet) || self.first != NONE {
                M::assert_none_held();
                self.vm.flushes.wait(self.vm.machine());
            }
            while self.first != NONE {
                let frame = Frame(self.first);
                self.first = self.vm.frames.page(frame).next();
                self.vm.frames.free(frame);
            }
            if core::mem::take(&mut self.discard) {
                self.vm.swap.discard();
            }
            let Some(object) = self.dead else { return };
            M::assert_none_held();
            let next = self.vm.object_rec(object).next_dead.load(Ordering::Relaxed);
            self.dead = Handle::from_raw(next);
            self.vm.end_paged(object);
        }
    }
}

impl<M: Machine> Drop for Limbo<'_, M> {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(all(test, loom))]
mod loom;
#[cfg(test)]
mod tests;
