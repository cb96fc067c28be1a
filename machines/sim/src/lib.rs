//! A simulated machine for bsdvm: memory and MMU in plain data.
//!
//! [`Sim`] implements every trait of the seam, so that the core runs in an ordinary test. It is
//! stricter than hardware where that finds mistakes: a translation lookaside buffer keeps what it
//! has until it is told to forget, a flush that is dropped panics, and so does a lock that is
//! taken out of order.
//!
//! # The parts
//!
//! * [`pmap`]: translations of one address space, with table frames asked for as a real machine
//!   does ([`SimPmap`]);
//! * [`tlb`]: what each simulated processor remembers of them, and loads, stores and instruction
//!   fetches through it ([`Sim::load`], [`Sim::store`], [`Sim::fetch`], [`Sim::stale_frames`]);
//! * [`flush`]: the work that a change of translations leaves behind ([`SimFlush`]);
//! * [`memory`]: the contents of frames; `record` is the one place with pointers;
//! * [`inject`]: failures on demand ([`Sim::injector`]);
//! * [`trace`]: what the core did, in order ([`Sim::trace_start`]);
//! * [`locks`]: locks, ranks by thread, and the versions that loom and shuttle check;
//! * [`wait`]: waiting and waking; simulated time never makes a test sleep ([`Sim::advance`]).
//!
//! # What is absent
//!
//! Caches and memory attributes (they are kept, and mean nothing), superpages, speculation, and a
//! limit on the size of a translation lookaside buffer. Translations are not dropped at random:
//! the core does that through its own door.
//!
//! # Example
//!
//! ```
//! use bsdvm_machine::{Flush, FrameRun, Frame, Kind, Machine, MemoryAttr, Pmap, Prot, VirtAddr};
//! use bsdvm_sim::{Sim, SimConfig};
//!
//! let sim = Sim::<12>::new(SimConfig::default());
//! let pmap = sim.pmap_create().unwrap();
//! pmap.donate(Frame(0));
//! let va = VirtAddr(0x10_0000);
//! pmap.enter(va, FrameRun::one(Frame(1)), Prot::RW, MemoryAttr::WriteBack, Kind::Managed, &mut |_| ())
//!     .unwrap()
//!     .wait();
//! sim.store(&pmap, 0, va, b"hello").unwrap();
//! let flush = pmap.remove(bsdvm_machine::VirtRange::from_len(va, 4096).unwrap(), &mut |_| ());
//! assert!(sim.store(&pmap, 0, va, b"stale").is_ok(), "processor 0 still has the translation");
//! assert_eq!(sim.stale_frames(), [Frame(1)]);
//! flush.wait();
//! assert!(sim.store(&pmap, 0, va, b"fault").is_err());
//! ```

#![deny(unsafe_code)]

pub mod flush;
pub mod inject;
pub mod locks;
pub mod memory;
pub mod pmap;
mod probe;
mod record;
pub mod tlb;
pub mod trace;
pub mod wait;

pub use flush::SimFlush;
pub use inject::{Injector, Kind as InjectKind};
pub use pmap::SimPmap;
pub use tlb::SimFault;
pub use trace::Event;

use bsdvm_machine::{EnterError, Host, Machine, PageSize, VirtAddr, VirtRange};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// What a [`Sim`] is made of.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The number of frames.
    pub frames: u32,
    /// The number of processors, at least 1.
    pub cpus: usize,
    /// The addresses that a user pmap can translate, aligned to pages.
    pub user: VirtRange,
    /// The addresses of the kernel, aligned to pages.
    pub kernel: VirtRange,
    /// Where the random numbers start.
    pub seed: u64,
}

impl Default for SimConfig {
    /// 256 frames, two processors, 47 bits of user addresses less 64 KiB at either end, and 64 GiB
    /// of kernel addresses in the upper half.
    fn default() -> Self {
        let user = VirtRange::new(VirtAddr(0x1_0000), VirtAddr(0x7fff_ffff_0000));
        let kernel = VirtRange::from_len(VirtAddr(0xffff_8000_0000_0000), 64 << 30);
        SimConfig {
            frames: 256,
            cpus: 2,
            user: user.unwrap_or_default(),
            kernel: kernel.unwrap_or_default(),
            seed: 1,
        }
    }
}

/// A simulated machine with pages of `1 << SHIFT` bytes: 12, 14 or 16.
///
/// A `Sim` is a handle: clones stand for the same machine, so a test keeps one and gives the core
/// another.
#[derive(Clone)]
pub struct Sim<const SHIFT: u32 = 12> {
    shared: Arc<Shared>,
}

/// The state that handles, pmaps and flushes of one machine share.
pub(crate) struct Shared {
    page: PageSize,
    user: VirtRange,
    kernel: VirtRange,
    memory: memory::Frames,
    tlbs: Box<[Mutex<tlb::Tlb>]>,
    pmaps: Mutex<BTreeMap<u64, Weak<pmap::Inner>>>,
    /// Translations and table frames that ended pmaps still had.
    lost: Mutex<Vec<(u64, u64)>>,
    next_pmap: AtomicU64,
    injector: Injector,
    trace: trace::Trace,
    wait: wait::Buckets,
    clock: AtomicU64,
    random: AtomicU64,
}

/// The page size of `1 << shift` bytes. Panics (at compile time, in a constant) where no such size
/// is in use.
pub const fn page_size(shift: u32) -> PageSize {
    match shift {
        12 => PageSize::KIB4,
        14 => PageSize::KIB16,
        16 => PageSize::KIB64,
        _ => panic!("pages have 4, 16 or 64 KiB"),
    }
}

impl<const SHIFT: u32> Sim<SHIFT> {
    /// A machine with empty memory.
    ///
    /// Panics when `config` has no processor or a user range that is not aligned to pages.
    pub fn new(config: SimConfig) -> Sim<SHIFT> {
        let page = page_size(SHIFT);
        assert!(config.cpus > 0, "a machine has a processor");
        assert!(page.is_aligned_range(config.user), "user range of pages");
        assert!(
            page.is_aligned_range(config.kernel),
            "kernel range of pages"
        );
        let tlbs = (0..config.cpus).map(|_| Mutex::default()).collect();
        Sim {
            shared: Arc::new(Shared {
                page,
                user: config.user,
                kernel: config.kernel,
                memory: memory::Frames::new(config.frames, page),
                tlbs,
                pmaps: Mutex::default(),
                lost: Mutex::default(),
                next_pmap: AtomicU64::new(1),
                injector: Injector::default(),
                trace: trace::Trace::default(),
                wait: wait::Buckets::default(),
                clock: AtomicU64::new(0),
                random: AtomicU64::new(config.seed),
            }),
        }
    }

    /// An empty pmap for the addresses of `range`: for the kernel's own map, whose addresses lie
    /// outside of the user range. Never fails.
    pub fn pmap_for(&self, range: VirtRange) -> SimPmap {
        SimPmap::new(&self.shared, range, pmap::Whose::User)
    }

    /// Failures on demand.
    pub fn injector(&self) -> &Injector {
        &self.shared.injector
    }

    /// What pmaps still had when they were dropped: the number of translations and of table frames
    /// of each that was not empty. A core that ends its spaces properly leaves this list empty.
    pub fn lost(&self) -> Vec<(u64, u64)> {
        self.shared.lost.lock().clone()
    }

    /// Moves the simulated time forward by `ns` nanoseconds.
    pub fn advance(&self, ns: u64) {
        self.shared.clock.fetch_add(ns, Ordering::AcqRel);
        self.shared.wait.wake_all();
    }

    /// Says that the calling thread runs on processor `cpu` from now on. A thread that never
    /// says so runs on processor 0. Panics when there is no such processor.
    pub fn set_cpu(&self, cpu: usize) {
        assert!(cpu < self.cpus(), "no processor {cpu}");
        locks::set_cpu(cpu);
    }
}

impl<const SHIFT: u32> Machine for Sim<SHIFT> {
    const PAGE: PageSize = page_size(SHIFT);
    type Pmap = SimPmap;

    fn pmap_create(&self) -> Result<SimPmap, EnterError> {
        if self.shared.injector.hit(inject::Kind::PmapCreate) {
            return Err(EnterError::NoResources);
        }
        Ok(SimPmap::new(
            &self.shared,
            self.shared.user,
            pmap::Whose::User,
        ))
    }

    fn user_range(&self) -> VirtRange {
        self.shared.user
    }

    fn kernel_range(&self) -> VirtRange {
        self.shared.kernel
    }

    fn pmap_kernel(&self) -> Result<SimPmap, EnterError> {
        if self.shared.injector.hit(inject::Kind::PmapCreate) {
            return Err(EnterError::NoResources);
        }
        Ok(SimPmap::new(
            &self.shared,
            self.shared.kernel,
            pmap::Whose::Kernel,
        ))
    }
}

impl<const SHIFT: u32> Host for Sim<SHIFT> {
    fn now(&self) -> u64 {
        self.shared.clock.load(Ordering::Acquire)
    }

    /// Two machines in one process share the thread's number; it is wrapped to this machine's.
    fn cpu(&self) -> usize {
        locks::cpu() % self.cpus()
    }

    fn cpus(&self) -> usize {
        self.shared.tlbs.len()
    }

    fn random(&self) -> u64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = &self.shared.random;
        mix(state
            .fetch_add(GOLDEN, Ordering::Relaxed)
            .wrapping_add(GOLDEN))
    }
}

/// The output step of splitmix64.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
