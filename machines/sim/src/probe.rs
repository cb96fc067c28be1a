//! The simulated machine as the conformance tests use it.

use crate::{Sim, SimFault, SimPmap};
use bsdvm_machine::conformance::{Probe, ProbeFault};
use bsdvm_machine::{Host, VirtAddr};

impl From<SimFault> for ProbeFault {
    fn from(fault: SimFault) -> ProbeFault {
        ProbeFault {
            va: fault.va,
            access: fault.access,
        }
    }
}

impl<const SHIFT: u32> Probe for Sim<SHIFT> {
    fn load(&self, pmap: &SimPmap, va: VirtAddr) -> Result<u8, ProbeFault> {
        let mut byte = [0];
        Sim::load(self, pmap, self.cpu(), va, &mut byte)?;
        Ok(byte[0])
    }

    fn store(&self, pmap: &SimPmap, va: VirtAddr, value: u8) -> Result<(), ProbeFault> {
        Ok(Sim::store(self, pmap, self.cpu(), va, &[value])?)
    }

    fn fetch(&self, pmap: &SimPmap, va: VirtAddr) -> Result<(), ProbeFault> {
        Sim::fetch(self, pmap, self.cpu(), va)?;
        Ok(())
    }
}
