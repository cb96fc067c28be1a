//! What the core did to the machine, in order.

use crate::Sim;
use bsdvm_machine::{Frame, FrameRun, Kind, Prot, VirtAddr, VirtRange};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// One thing that was done. `pmap` is the number of [`crate::SimPmap::id`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Translations were entered.
    Enter {
        /// Whose.
        pmap: u64,
        /// The first page.
        va: VirtAddr,
        /// The frames, one a page.
        run: FrameRun,
        /// What they allow.
        prot: Prot,
        /// Whose they are.
        kind: Kind,
    },
    /// Translations were taken away.
    Remove {
        /// Whose.
        pmap: u64,
        /// The range that was asked for.
        range: VirtRange,
        /// How many there were.
        pages: u64,
    },
    /// Translations were lowered.
    Protect {
        /// Whose.
        pmap: u64,
        /// The range that was asked for.
        range: VirtRange,
        /// The most that they allow now.
        prot: Prot,
    },
    /// The processors forgot what they knew.
    Flush {
        /// Whose.
        pmap: u64,
        /// Of which pages.
        range: VirtRange,
    },
    /// A frame was cleared.
    Zero {
        /// Which.
        frame: Frame,
    },
    /// A frame was copied.
    Copy {
        /// The source.
        from: Frame,
        /// The target.
        to: Frame,
    },
}

/// The list of events, and whether anyone wants it.
#[derive(Default)]
pub(crate) struct Trace {
    on: AtomicBool,
    events: Mutex<Vec<Event>>,
}

impl Trace {
    /// Adds an event, which is made only when somebody listens.
    pub(crate) fn add(&self, event: impl FnOnce() -> Event) {
        if self.on.load(Ordering::Relaxed) {
            self.events.lock().push(event());
        }
    }
}

impl<const SHIFT: u32> Sim<SHIFT> {
    /// Starts to record events, with an empty list.
    pub fn trace_start(&self) {
        self.shared.trace.events.lock().clear();
        self.shared.trace.on.store(true, Ordering::Relaxed);
    }

    /// Stops, and gives the events since [`Sim::trace_start`] in order.
    pub fn trace_take(&self) -> Vec<Event> {
        self.shared.trace.on.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.shared.trace.events.lock())
    }
}
