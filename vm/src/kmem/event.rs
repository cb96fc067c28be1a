//! Who hears that memory or a map of the kernel is short (K01, K16).

use super::{Kmem, SubmapName, lock};
use crate::lock::Mutex;
use bsdvm_machine::Machine;

/// Watchers that there can be.
const MOST: usize = 16;

/// Somebody who can give memory back, or wants to know. Called with no lock held; may call back.
pub trait KernelWatch: Sync {
    /// Memory or kernel addresses are short: whoever has a cache gives some of it back. `round`
    /// counts from 0 while an allocation tries again.
    fn low_memory(&self, round: u32) {
        let _ = round;
    }

    /// An mbuf or cluster map has no room. Reported each time that somebody asks it for more.
    fn map_full(&self, name: SubmapName) {
        let _ = name;
    }
}

/// No more watchers can be added, or the one that is to go is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchError;

type Slots = [Option<&'static dyn KernelWatch>; MOST];

/// The watchers of one VM.
pub(super) struct Watchers<M: Machine> {
    slots: Mutex<M, Slots, { lock::WATCHERS }>,
}

impl<M: Machine> Watchers<M> {
    pub(super) const fn new() -> Self {
        Watchers {
            slots: Mutex::new([None; MOST]),
        }
    }

    /// Calls `tell` for each watcher, with no lock held.
    fn each(&self, tell: impl Fn(&'static dyn KernelWatch)) {
        let slots = *self.slots.lock();
        slots.into_iter().flatten().for_each(tell);
    }
}

fn same(a: &'static dyn KernelWatch, b: &'static dyn KernelWatch) -> bool {
    core::ptr::addr_eq(a, b)
}

impl<M: Machine> Kmem<'_, M> {
    /// From now on `watcher` hears of shortages (K16).
    ///
    /// Errors: [`WatchError`] when there are 16 already.
    pub fn watch(self, watcher: &'static dyn KernelWatch) -> Result<(), WatchError> {
        let mut slots = self.state().watchers.slots.lock();
        let free = slots.iter_mut().find(|slot| slot.is_none());
        *free.ok_or(WatchError)? = Some(watcher);
        Ok(())
    }

    /// `watcher` hears nothing any more, but for a call that is under way.
    ///
    /// Errors: [`WatchError`] when it is not known.
    pub fn unwatch(self, watcher: &'static dyn KernelWatch) -> Result<(), WatchError> {
        let mut slots = self.state().watchers.slots.lock();
        let known = |slot: &&mut Option<&'static dyn KernelWatch>| {
            slot.is_some_and(|other| same(other, watcher))
        };
        *slots.iter_mut().find(known).ok_or(WatchError)? = None;
        Ok(())
    }

    /// Announces low memory, as an allocation that finds none does; for debugging, too (K16).
    pub fn low_memory(self) {
        self.announce_low_memory(0);
    }

    pub(super) fn announce_low_memory(self, round: u32) {
        M::assert_none_held();
        self.vm.counters.low_memory.bump();
        self.state().watchers.each(|w| w.low_memory(round));
    }

    pub(super) fn announce_full(self, name: SubmapName) {
        self.state().watchers.each(|w| w.map_full(name));
    }
}
