//! What a person sees: counters (D03).

use crate::Vm;
use bsdvm_machine::Machine;
use bsdvm_machine::sync::atomic::{AtomicU64, Ordering};

/// One counter that only grows.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) const fn new() -> Count {
        Count(AtomicU64::new(0))
    }

    pub(crate) fn bump(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one VM.
pub(crate) struct CounterSet {
    pub(crate) faults: Count,
    pub(crate) zero_fill: Count,
    pub(crate) cow_copied: Count,
    pub(crate) cow_reused: Count,
    pub(crate) resident_faults: Count,
    pub(crate) page_in: Count,
    pub(crate) page_out: Count,
    pub(crate) forks: Count,
    pub(crate) transition_waits: Count,
    pub(crate) low_memory: Count,
}

impl CounterSet {
    pub(crate) const fn new() -> CounterSet {
        CounterSet {
            faults: Count::new(),
            zero_fill: Count::new(),
            cow_copied: Count::new(),
            cow_reused: Count::new(),
            resident_faults: Count::new(),
            page_in: Count::new(),
            page_out: Count::new(),
            forks: Count::new(),
            transition_waits: Count::new(),
            low_memory: Count::new(),
        }
    }
}

/// What a VM has counted, and what it holds now (D03).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Faults, those of reads and writes on behalf of a program included.
    pub faults: u64,
    /// Pages zeroed on demand.
    pub zero_fill: u64,
    /// Pages copied on write.
    pub cow_copied: u64,
    /// Pages that a write took over in place of a copy.
    pub cow_reused: u64,
    /// Faults that found their page in memory.
    pub resident_faults: u64,
    /// Pages read in.
    pub page_in: u64,
    /// Pages written out.
    pub page_out: u64,
    /// Forks.
    pub forks: u64,
    /// Waits for an entry in transition or for a fork (`v_intrans_wait`).
    pub transition_waits: u64,
    /// Announcements of low memory (K16).
    pub low_memory: u64,
    /// Frames that can be pages: now.
    pub frames_total: u64,
    /// Frames that are free: now.
    pub frames_free: u64,
    /// Spaces: now.
    pub spaces: u64,
    /// Objects: now.
    pub objects: u64,
    /// Entries: now.
    pub entries: u64,
    /// Pages of reservation: now.
    pub charged_pages: u64,
    /// Swap slots in use: now.
    pub swap_used: u64,
}

impl<M: Machine> Vm<M> {
    /// The counters as they are.
    pub fn counters(&self) -> Counters {
        let c = &self.counters;
        Counters {
            faults: c.faults.read(),
            zero_fill: c.zero_fill.read(),
            cow_copied: c.cow_copied.read(),
            cow_reused: c.cow_reused.read(),
            resident_faults: c.resident_faults.read(),
            page_in: c.page_in.read(),
            page_out: c.page_out.read(),
            forks: c.forks.read(),
            transition_waits: c.transition_waits.read(),
            low_memory: c.low_memory.read(),
            frames_total: self.frames.total(),
            frames_free: self.frames.free_count(),
            spaces: u64::from(self.spaces.live()),
            objects: u64::from(self.objects.live()),
            entries: u64::from(self.entries.live()),
            charged_pages: self.charge.pages(),
            swap_used: u64::from(self.swap.usage().0),
        }
    }
}
