//! The kernel's half of the addresses, which every user root shares.

use bsdvm_machine::*;
use bsdvm_x86_64::walk::{Mode, WalkFault, walk};
use bsdvm_x86_64::{Entry, Flushes, Hardware, PlainMachine, X86Pmap};

const ROOT: Frame = Frame(0);
const VA: VirtAddr = VirtAddr(0xffff_9000_0040_0000);

/// Tables in plain memory, with a kernel root.
#[derive(Clone)]
struct WithKernel(PlainMachine);

impl Hardware for WithKernel {
    fn load(&self, table: Frame, index: usize) -> Entry {
        Hardware::load(&self.0, table, index)
    }
    fn store(&self, table: Frame, index: usize, entry: Entry) {
        Hardware::store(&self.0, table, index, entry);
    }
    fn swap(&self, table: Frame, index: usize, entry: Entry) -> Entry {
        self.0.swap(table, index, entry)
    }
    fn compare_exchange(
        &self,
        table: Frame,
        index: usize,
        old: Entry,
        new: Entry,
    ) -> Result<(), Entry> {
        self.0.compare_exchange(table, index, old, new)
    }
    fn flush(&self, work: &Flushes) {
        self.0.flush(work);
    }
    fn kernel_root(&self) -> Option<Frame> {
        Some(ROOT)
    }
}

fn enter<H: Hardware>(pmap: &X86Pmap<H>, va: VirtAddr, frame: u32) -> Result<(), EnterError> {
    let run = FrameRun::one(Frame(frame));
    let (attr, kind) = (MemoryAttr::WriteBack, Kind::Manual);
    pmap.enter(va, run, Prot::RW, attr, kind, &mut |_| ())?
        .wait();
    Ok(())
}

#[test]
fn what_the_kernel_maps_is_seen_in_every_space() {
    let hardware = WithKernel(PlainMachine::new(32, 1));
    let range = VirtRange::from_len(VirtAddr(0xffff_9000_0000_0000), 2 << 39).unwrap();
    let kernel = X86Pmap::kernel(hardware.clone(), 1, ROOT, range);
    assert_eq!(kernel.prepare(), Err(EnterError::NeedFrames(2)));
    (1..3).for_each(|f| kernel.donate(Frame(f)));
    assert_eq!(kernel.prepare(), Ok(()));
    assert_eq!(kernel.prepare(), Ok(()), "a second time nothing is missing");

    let user = X86Pmap::user(hardware.clone(), 2);
    (3..7).for_each(|f| user.donate(Frame(f)));
    enter(&user, VirtAddr(0x40_0000), 20).unwrap();

    // The kernel maps a page after the user's root was made.
    assert_eq!(enter(&kernel, VA, 21), Err(EnterError::NeedFrames(2)));
    (7..9).for_each(|f| kernel.donate(Frame(f)));
    enter(&kernel, VA, 21).unwrap();
    let root = user.root().unwrap();
    let seen = walk(&hardware, root, VA, Access::Write, Mode::Kernel).unwrap();
    assert_eq!(hardware.frame(seen.physical()), Frame(21));
    let program = walk(&hardware, root, VA, Access::Read, Mode::User);
    assert_eq!(program, Err(WalkFault::Forbidden));
    assert_eq!(kernel.extract(VA).map(|t| t.usage), Some(Usage::all()));
    let odd = walk(&hardware, root, VirtAddr(1 << 47), Access::Read, Mode::User);
    assert_eq!(odd, Err(WalkFault::NotCanonical));

    // A user pmap gives back its own tables and leaves the kernel's alone.
    user.remove(bsdvm_x86_64::USER, &mut |_| ()).wait();
    let mut back = Vec::new();
    let flush = user.reclaim(&mut |f| back.push(f.0));
    assert!(!flush.is_done(), "processors may remember the tables");
    flush.wait();
    back.sort_unstable();
    assert_eq!(back, [3, 4, 5, 6]);
    assert!(user.root().is_none());
    assert!(walk(&hardware, ROOT, VA, Access::Read, Mode::Kernel).is_ok());

    // The kernel's own keeps what its root leads to.
    kernel.remove(range, &mut |r| assert_eq!(r.va, VA)).wait();
    let mut back = Vec::new();
    kernel.reclaim(&mut |f| back.push(f.0)).wait();
    back.sort_unstable();
    assert_eq!(back.len(), 2);
    assert_eq!(kernel.prepare(), Ok(()));
    assert_eq!(
        enter(&kernel, VirtAddr(0x1000), 1),
        Err(EnterError::BadAddress)
    );
}
