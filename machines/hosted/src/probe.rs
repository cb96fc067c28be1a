//! The hosted machine as the conformance tests use it: loads, stores and fetches by a guest thread
//! of each space, which stays between them, so that what the host still maps would show.

use crate::{GuestThread, Hosted, HostedPmap, Registers, Trap, stub};
use bsdvm_machine::VirtAddr;
use bsdvm_machine::conformance::{Probe, ProbeFault};
use std::cell::RefCell;
use std::sync::Arc;

struct Prober {
    pmap: HostedPmap,
    thread: GuestThread,
}

thread_local! {
    static PROBERS: RefCell<Vec<Prober>> = const { RefCell::new(Vec::new()) };
}

/// Ends the guest threads that probes of the calling thread have started. Call it before the
/// machine goes.
pub fn forget() {
    PROBERS.with_borrow_mut(Vec::clear);
}

impl Hosted {
    /// Runs from `rip` until something happens, with `rdi` and `rax` set; gives what came and
    /// `rax`.
    fn probe(&self, pmap: &HostedPmap, rip: u64, va: VirtAddr, rax: u64) -> (Trap, u64) {
        PROBERS.with_borrow_mut(|probers| {
            let known = |p: &Prober| Arc::ptr_eq(&p.pmap.space, &pmap.space);
            let at = probers.iter().position(known).unwrap_or_else(|| {
                probers.push(Prober {
                    pmap: pmap.clone(),
                    thread: GuestThread::spawn(self, pmap).expect("a guest thread"),
                });
                probers.len() - 1
            });
            let mut regs = Registers {
                rip,
                rax,
                rdi: va.0,
                ..Registers::default()
            };
            let trap = probers[at].thread.run(self, pmap, &mut regs);
            (trap, regs.rax)
        })
    }
}

/// What a probe's trap means: the breakpoint behind the access, or a fault.
fn outcome(trap: &Trap) -> Result<(), ProbeFault> {
    match *trap {
        Trap::Exception { signal: 5, .. } => Ok(()),
        Trap::Fault {
            address, access, ..
        } => Err(ProbeFault {
            va: address,
            access,
        }),
        ref other => panic!("a probe ended by {other:?}"),
    }
}

impl Probe for Hosted {
    /// A breakpoint.
    const RETURN: &'static [u8] = &[0xcc];

    /// The host's own bits say nothing, so a page that can be written counts as written.
    const USAGE_IS_EXACT: bool = false;

    fn load(&self, pmap: &HostedPmap, va: VirtAddr) -> Result<u8, ProbeFault> {
        let (trap, rax) = self.probe(pmap, stub::probe_load(), va, 0);
        outcome(&trap).map(|()| rax as u8)
    }

    fn store(&self, pmap: &HostedPmap, va: VirtAddr, value: u8) -> Result<(), ProbeFault> {
        let (trap, _) = self.probe(pmap, stub::probe_store(), va, u64::from(value));
        outcome(&trap)
    }

    fn fetch(&self, pmap: &HostedPmap, va: VirtAddr) -> Result<(), ProbeFault> {
        let (trap, _) = self.probe(pmap, va.0, va, 0);
        outcome(&trap)
    }
}
