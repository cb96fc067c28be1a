//! What all spaces of a machine share.

use crate::error::HostedError;
use crate::mailbox::Mailbox;
use crate::memory::Ram;
use crate::seat::Cpu;
use crate::stub::CODE_VA;
use crate::sys;
use crate::zygote::Zygote;
use bsdvm_machine::{VirtAddr, VirtRange};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most host mappings that we let one stub have; the host's own limit is 65,530 by default.
const BUDGET: usize = 32_000;

/// What all spaces of a machine share.
pub(crate) struct Engine {
    /// Guest memory.
    pub(crate) ram: Ram,
    /// The slots.
    pub(crate) mailbox: Arc<Mailbox>,
    /// `None` once the machine has been dropped.
    pub(crate) zygote: Mutex<Option<Zygote>>,
    /// The addresses that guests can have.
    pub(crate) user: VirtRange,
    /// The parts of `user` that the host does not let us use.
    pub(crate) holes: Vec<VirtRange>,
    /// The host's vDSO in every stub.
    pub(crate) vdso: Option<VirtRange>,
    /// Host mappings that a stub may have.
    pub(crate) budget: usize,
    /// Whether stubs read and write the FS and GS bases by instruction.
    pub(crate) fsgs: bool,
    /// The processors that this program was given.
    pub(crate) cpus: Vec<Cpu>,
    /// Processors of the host, ours or not.
    pub(crate) all_cpus: usize,
    dealt: AtomicUsize,
}

impl Engine {
    /// Memory of `bytes` bytes, a mailbox and a zygote.
    pub(crate) fn new(bytes: u64, fsgs: bool) -> Result<Engine, HostedError> {
        let ram = Ram::new(bytes)?;
        let mailbox = Mailbox::new()?;
        let (zygote, kept) = Zygote::start(ram.fd(), &mailbox, fsgs)?;
        let lowest = sysctl("vm/mmap_min_addr").unwrap_or(65536).max(4096);
        let user = VirtRange::new(VirtAddr(lowest), VirtAddr(CODE_VA)).unwrap_or_default();
        let limit = sysctl("vm/max_map_count").unwrap_or(65_530) as usize;
        Ok(Engine {
            ram,
            mailbox,
            zygote: Mutex::new(Some(zygote)),
            user,
            vdso: kept.vdso,
            holes: kept
                .ranges
                .into_iter()
                .map(|h| h.intersect(user))
                .filter(|h| !h.is_empty())
                .collect(),
            budget: BUDGET.min(limit / 2),
            fsgs,
            cpus: sys::allowed_cpus().into_iter().map(Cpu::new).collect(),
            all_cpus: crate::clock::cpus(),
            dealt: AtomicUsize::new(0),
        })
    }

    /// The home of the next pair of supervisor and stub thread: a place among the processors.
    pub(crate) fn deal_home(&self) -> usize {
        self.dealt.fetch_add(1, Ordering::Relaxed) % self.cpus.len()
    }

    /// Whether guests can have all of `range`.
    pub(crate) fn usable(&self, range: VirtRange) -> bool {
        self.user.contains_range(range) && !self.holes.iter().any(|h| h.overlaps(range))
    }

    /// The parts of `range` that are no hole.
    pub(crate) fn parts(&self, range: VirtRange) -> Vec<VirtRange> {
        let mut parts = vec![range.intersect(self.user)];
        for hole in &self.holes {
            parts = parts
                .into_iter()
                .flat_map(|p| {
                    let below = VirtRange::new(p.start(), hole.start().min(p.end()));
                    let above = VirtRange::new(hole.end().max(p.start()), p.end());
                    [below, above].into_iter().flatten()
                })
                .collect();
        }
        parts.retain(|p| !p.is_empty());
        parts
    }
}

fn sysctl(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    text.trim().parse().ok()
}
