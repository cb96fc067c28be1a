//! The machine: what the core is generic over.

use crate::clock;
use crate::hardware::{self, KERNEL_PMAP};
use crate::layout::KERNEL;
use crate::memory;
use crate::traps::{self, Probe as Attempt};
use bsdvm::{Access, Host, Machine, PageSize, VirtAddr, VirtRange};
use bsdvm_machine::EnterError;
use bsdvm_machine::conformance::{Probe, ProbeFault};
use bsdvm_x86_64::{PAGE, USER, X86Pmap, is_canonical};
use core::arch::x86_64::_rdrand64_step;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The bare machine with its one processor. There is one, so this is a name for it and holds
/// nothing; the kernel's statics are its state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare;

/// The name of the last pmap that was made.
static PMAPS: AtomicU64 = AtomicU64::new(KERNEL_PMAP);

impl Machine for Bare {
    const PAGE: PageSize = PAGE;
    const IMPLIES_LOADS: bool = true;
    type Pmap = X86Pmap<Bare>;

    fn pmap_create(&self) -> Result<X86Pmap<Bare>, EnterError> {
        let id = PMAPS.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(X86Pmap::user(Bare, id))
    }

    fn user_range(&self) -> VirtRange {
        USER
    }

    fn kernel_range(&self) -> VirtRange {
        KERNEL
    }

    fn pmap_kernel(&self) -> Result<X86Pmap<Bare>, EnterError> {
        Ok(X86Pmap::kernel(Bare, KERNEL_PMAP, memory::ROOT, KERNEL))
    }
}

impl Host for Bare {
    fn now(&self) -> u64 {
        clock::now()
    }

    fn cpu(&self) -> usize {
        0
    }

    fn cpus(&self) -> usize {
        1
    }

    fn random(&self) -> u64 {
        random()
    }
}

/// Whether the processor makes random numbers, and the state of the generator that steps in where
/// it does not.
static HAS_RDRAND: AtomicBool = AtomicBool::new(false);
static STATE: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);

/// Looks for the processor's generator; `seed` starts the other one.
pub(crate) fn seed(seed: u64) {
    let leaf = core::arch::x86_64::__cpuid(1);
    HAS_RDRAND.store(leaf.ecx >> 30 & 1 != 0, Ordering::Relaxed);
    STATE.fetch_xor(seed, Ordering::Relaxed);
}

#[target_feature(enable = "rdrand")]
fn hardware_random() -> Option<u64> {
    let mut value = 0;
    (0..10).find_map(|_| (_rdrand64_step(&mut value) == 1).then_some(value))
}

/// A random number.
pub(crate) fn random() -> u64 {
    let drawn = if HAS_RDRAND.load(Ordering::Relaxed) {
        // SAFETY: the processor said that it has the instruction.
        unsafe { hardware_random() }
    } else {
        None
    };
    // splitmix64, where there is nothing better.
    drawn.unwrap_or_else(|| {
        let step = 0x9e37_79b9_7f4a_7c15;
        let z = STATE.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

fn attempt(
    pmap: &X86Pmap<Bare>,
    va: VirtAddr,
    access: Access,
    what: Attempt,
) -> Result<u8, ProbeFault> {
    let fault = ProbeFault { va, access };
    if !is_canonical(va) || !USER.contains(va) {
        return Err(fault);
    }
    hardware::enter(pmap);
    // SAFETY: an address of user memory, which no Rust object lies in; what is called there is
    // `Probe::RETURN`.
    unsafe { traps::probe(va.0, what) }.ok_or(fault)
}

/// The kernel's own accesses to user memory stand for a program's. The space stays loaded from
/// one to the next, so that a flush that was forgotten shows.
impl Probe for Bare {
    fn load(&self, pmap: &X86Pmap<Bare>, va: VirtAddr) -> Result<u8, ProbeFault> {
        attempt(pmap, va, Access::Read, Attempt::Load)
    }

    fn store(&self, pmap: &X86Pmap<Bare>, va: VirtAddr, value: u8) -> Result<(), ProbeFault> {
        attempt(pmap, va, Access::Write, Attempt::Store(value)).map(drop)
    }

    fn fetch(&self, pmap: &X86Pmap<Bare>, va: VirtAddr) -> Result<(), ProbeFault> {
        attempt(pmap, va, Access::Execute, Attempt::Call).map(drop)
    }
}
