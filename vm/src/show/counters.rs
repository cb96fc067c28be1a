//! Counters (D03): what a VM has counted since it was made, and what it holds now.

use crate::Vm;
use crate::page::Queue;
use bsdvm_machine::Machine;
use bsdvm_machine::sync::atomic::{AtomicU64, Ordering};
use core::fmt;

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
    pub(crate) resident_faults: Count,
    pub(crate) cow_copied: Count,
    pub(crate) cow_reused: Count,
    pub(crate) page_in: Count,
    pub(crate) swap_in: Count,
    pub(crate) page_out: Count,
    pub(crate) swap_out: Count,
    pub(crate) swap_reads: Count,
    pub(crate) swap_writes: Count,
    pub(crate) reactivated: Count,
    pub(crate) forks: Count,
    pub(crate) transition_collisions: Count,
    pub(crate) transition_waits: Count,
    pub(crate) low_memory: Count,
}

impl CounterSet {
    pub(crate) const fn new() -> CounterSet {
        CounterSet {
            faults: Count::new(),
            zero_fill: Count::new(),
            resident_faults: Count::new(),
            cow_copied: Count::new(),
            cow_reused: Count::new(),
            page_in: Count::new(),
            swap_in: Count::new(),
            page_out: Count::new(),
            swap_out: Count::new(),
            swap_reads: Count::new(),
            swap_writes: Count::new(),
            reactivated: Count::new(),
            forks: Count::new(),
            transition_collisions: Count::new(),
            transition_waits: Count::new(),
            low_memory: Count::new(),
        }
    }
}

/// What a VM has counted, and what it holds now (D03).
///
/// The names in brackets are those of the systems that this one follows. As text it is one line
/// for each counter: the number in 12 columns, two spaces, what is counted; the order stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Faults, those of reads and writes on behalf of a program included, where these find no
    /// translation to go through (`v_vm_faults`).
    pub faults: u64,
    /// Pages zeroed on demand (`v_zfod`).
    pub zero_fill: u64,
    /// Faults that found their page in memory.
    pub resident_faults: u64,
    /// Pages copied on write (`v_cow_faults`).
    pub cow_copied: u64,
    /// Pages that a write took over in place of a copy (`v_cow_optim`).
    pub cow_reused: u64,
    /// Pages read in, from pagers and from swap (`v_vnodepgsin` and `v_swappgsin`).
    pub page_in: u64,
    /// Those of them that came from swap (`v_swappgsin`).
    pub swap_in: u64,
    /// Pages written out, to pagers and to swap (`v_vnodepgsout` and `v_swappgsout`).
    pub page_out: u64,
    /// Those of them that went to swap (`v_swappgsout`).
    pub swap_out: u64,
    /// Pages that page-out looked at and kept, as they had been used (`v_reactivated`).
    pub reactivated: u64,
    /// Forks (`v_forks`).
    pub forks: u64,
    /// Times that somebody met an entry in transition, or a map that a fork held, and left it or
    /// waited for it (`v_intrans_coll`).
    pub transition_collisions: u64,
    /// Waits for an entry in transition or for a fork (`v_intrans_wait`).
    pub transition_waits: u64,
    /// Announcements of low memory (K16).
    pub low_memory: u64,
    /// The size of a page in bytes (`v_page_size`).
    pub page_size: u64,
    /// Frames that can be pages: now (`v_page_count`).
    pub frames_total: u64,
    /// Frames that are free: now (`v_free_count`).
    pub frames_free: u64,
    /// Pages in use: now (`v_active_count`).
    pub active: u64,
    /// Pages not used lately: now (`v_inactive_count`).
    pub inactive: u64,
    /// Dirty pages not used lately: now (`v_laundry_count`).
    pub laundry: u64,
    /// Pages wired: now (`v_wire_count`).
    pub wired: u64,
    /// Spaces: now.
    pub spaces: u64,
    /// Objects: now.
    pub objects: u64,
    /// Entries: now.
    pub entries: u64,
    /// Pages of reservation: now.
    pub charged_pages: u64,
    /// Swap slots in all: now.
    pub swap_total: u64,
    /// Swap slots in use: now.
    pub swap_used: u64,
    /// Those of them that have what a page in memory has: now.
    pub swap_cached: u64,
    /// Reads of the swap device, each of one page or of several (`v_swapin`).
    pub swap_reads: u64,
    /// Writes to the swap device, each of one page or of several (`v_swapout`).
    pub swap_writes: u64,
}

impl Counters {
    /// What is counted, and the number, in the order of the text.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("faults", self.faults),
            ("demand-zero faults", self.zero_fill),
            ("resident faults", self.resident_faults),
            ("copied on write", self.cow_copied),
            ("reused on write", self.cow_reused),
            ("pages read in", self.page_in),
            ("of them from swap", self.swap_in),
            ("pages written out", self.page_out),
            ("of them to swap", self.swap_out),
            ("reactivated", self.reactivated),
            ("forks", self.forks),
            ("met ranges in transition", self.transition_collisions),
            ("waited for them", self.transition_waits),
            ("announcements of low memory", self.low_memory),
            ("bytes in a page", self.page_size),
            ("frames in all", self.frames_total),
            ("frames free", self.frames_free),
            ("pages active", self.active),
            ("pages inactive", self.inactive),
            ("pages to be written", self.laundry),
            ("pages wired", self.wired),
            ("spaces", self.spaces),
            ("objects", self.objects),
            ("entries", self.entries),
            ("pages charged", self.charged_pages),
            ("swap slots", self.swap_total),
            ("swap slots used", self.swap_used),
            ("of them for pages in memory", self.swap_cached),
            ("reads of swap", self.swap_reads),
            ("writes to swap", self.swap_writes),
        ]
        .into_iter()
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, number) in self.each() {
            writeln!(f, "{number:>12}  {what}")?;
        }
        Ok(())
    }
}

impl<M: Machine> Vm<M> {
    /// The counters as they are.
    pub fn counters(&self) -> Counters {
        let c = &self.counters;
        let (swap_used, swap_total) = self.swap.usage();
        Counters {
            faults: c.faults.read(),
            zero_fill: c.zero_fill.read(),
            resident_faults: c.resident_faults.read(),
            cow_copied: c.cow_copied.read(),
            cow_reused: c.cow_reused.read(),
            page_in: c.page_in.read(),
            swap_in: c.swap_in.read(),
            page_out: c.page_out.read(),
            swap_out: c.swap_out.read(),
            reactivated: c.reactivated.read(),
            forks: c.forks.read(),
            transition_collisions: c.transition_collisions.read(),
            transition_waits: c.transition_waits.read(),
            low_memory: c.low_memory.read(),
            page_size: M::PAGE.bytes(),
            frames_total: self.frames.total(),
            frames_free: self.frames.free_count(),
            active: self.queues.count(Queue::Active),
            inactive: self.queues.count(Queue::Inactive),
            laundry: self.queues.count(Queue::Laundry),
            wired: self.frames.wired_count(),
            spaces: u64::from(self.spaces.live()),
            objects: u64::from(self.objects.live()),
            entries: u64::from(self.entries.live()),
            charged_pages: self.charge.pages(),
            swap_total: u64::from(swap_total),
            swap_used: u64::from(swap_used),
            swap_cached: self.swap.kept(),
            swap_reads: c.swap_reads.read(),
            swap_writes: c.swap_writes.read(),
        }
    }
}
