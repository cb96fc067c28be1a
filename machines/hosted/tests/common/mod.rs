//! A guest for tests: a machine, a pmap, one thread, and frames dealt one after another.
#![allow(dead_code)] // each test file uses a part

use bsdvm_hosted::{GuestThread, Hosted, HostedPmap, Registers, Trap};
use bsdvm_machine::{
    Access, Flush, Frame, FrameRun, Kind, Machine, Memory, MemoryAttr, Pmap, Prot, Removed,
    VirtAddr, VirtRange,
};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const CODE: u64 = 0x10_0000;
pub(crate) const DATA: u64 = 0x4000_0000;

/// Ends the test program when a test hangs.
pub(crate) fn watchdog() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            std::thread::sleep(std::time::Duration::from_secs(120));
            eprintln!("a test hangs");
            std::process::abort();
        });
    });
}

pub(crate) fn machine(mib: u64) -> Hosted {
    watchdog();
    Hosted::new(mib << 20).expect("the host gives what a machine needs")
}

pub(crate) fn range(va: u64, pages: u64) -> VirtRange {
    VirtRange::from_len(VirtAddr(va), pages << 12).unwrap()
}

/// Enters one managed page; gives the flush's state and waits for it.
pub(crate) fn enter(pmap: &HostedPmap, va: u64, frame: u32, prot: Prot) {
    let run = FrameRun::one(Frame(frame));
    let mut none = |_: Removed| ();
    let kind = Kind::Managed;
    pmap.enter(
        VirtAddr(va),
        run,
        prot,
        MemoryAttr::WriteBack,
        kind,
        &mut none,
    )
    .expect("a usable address")
    .wait();
}

pub(crate) struct Guest<'a> {
    pub(crate) machine: &'a Hosted,
    pub(crate) pmap: HostedPmap,
    pub(crate) thread: GuestThread,
    pub(crate) regs: Registers,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A frame that no other test of this program uses, below 1,000.
pub(crate) fn frame() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl<'a> Guest<'a> {
    /// A guest whose code page, at [`CODE`], holds `code`.
    pub(crate) fn new(machine: &'a Hosted, code: &[u8]) -> Guest<'a> {
        let pmap = machine.pmap_create().unwrap();
        let thread = GuestThread::spawn(machine, &pmap).expect("a guest thread");
        let page = frame();
        machine.zero(Frame(page));
        machine.write(Frame(page), 0, code);
        enter(&pmap, CODE, page, Prot::RX);
        let regs = Registers {
            rip: CODE,
            ..Registers::default()
        };
        Guest {
            machine,
            pmap,
            thread,
            regs,
        }
    }

    pub(crate) fn run(&mut self) -> Trap {
        self.thread.run(self.machine, &self.pmap, &mut self.regs)
    }

    /// Runs until something other than a kick comes.
    pub(crate) fn expect_fault(&mut self, address: u64, access: Access, present: bool) {
        let trap = self.run();
        let address = VirtAddr(address);
        assert_eq!(
            trap,
            Trap::Fault {
                address,
                access,
                present
            },
            "{:x?}",
            self.regs
        );
    }
}

/// The children of this process, by number.
pub(crate) fn children() -> Vec<i32> {
    let mut all = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(list.split_whitespace().map(|p| p.parse::<i32>().unwrap()));
    }
    all
}
