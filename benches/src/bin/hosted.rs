//! The hosted machine against the Linux below it: a system call and a fault of a program that we
//! run, and the same of a program that Linux runs.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("the hosted machine needs Linux on x86-64");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use bsdvm_benches::rounds::{Contender, alternate};
    use bsdvm_benches::table;
    use bsdvm_hosted::{GuestThread, Hosted, HostedPmap, Registers, Trap};
    use bsdvm_machine::{
        Flush, Frame, FrameRun, Kind, Machine, Memory, MemoryAttr, Pmap, Prot, VirtAddr, VirtRange,
    };
    use std::cell::RefCell;
    use std::error::Error;
    use std::ptr;

    const CODE: u64 = 0x10_0000;
    const DATA: u64 = 0x4000_0000;
    /// Where in the page of code the program is that writes to page after page.
    const WRITES: u64 = 16;
    /// System calls, and pages, of a round.
    const N: u32 = 4096;
    const PAGE: usize = 4096;

    /// A program that runs on the hosted machine.
    struct Guest {
        machine: Hosted,
        pmap: HostedPmap,
        thread: GuestThread,
        regs: Registers,
    }

    impl Guest {
        fn new() -> Result<Guest, Box<dyn Error>> {
            let machine = Hosted::new(64 << 20)?;
            let pmap = machine.pmap_create().map_err(|e| format!("{e:?}"))?;
            let thread = GuestThread::spawn(&machine, &pmap)?;
            // syscall; jmp back; at 16: mov [rdi], rdi; add rdi, 4096; jmp back
            machine.write(Frame(0), 0, &[0x0f, 0x05, 0xeb, 0xfc]);
            let writes = [
                0x48, 0x89, 0x3f, 0x48, 0x81, 0xc7, 0, 0x10, 0, 0, 0xeb, 0xf4,
            ];
            machine.write(Frame(0), WRITES as usize, &writes);
            let guest = Guest {
                machine,
                pmap,
                thread,
                regs: Registers::default(),
            };
            guest.enter(CODE, FrameRun::one(Frame(0)), Prot::RX);
            Ok(guest)
        }

        fn enter(&self, va: u64, run: FrameRun, prot: Prot) {
            let attr = MemoryAttr::WriteBack;
            self.pmap
                .enter(VirtAddr(va), run, prot, attr, Kind::Managed, &mut |_| ())
                .expect("a usable address")
                .wait();
        }

        fn run(&mut self) -> Trap {
            self.thread.run(&self.machine, &self.pmap, &mut self.regs)
        }

        fn calls(&mut self) -> u64 {
            self.regs.rip = CODE;
            for _ in 0..N {
                assert_eq!(self.run(), Trap::Syscall);
            }
            N.into()
        }

        /// Writes to fresh pages; every fault enters `cluster` of them.
        fn faults(&mut self, cluster: u32) -> u64 {
            (self.regs.rip, self.regs.rdi) = (CODE + WRITES, DATA);
            for i in 0..N / cluster {
                let trap = self.run();
                let Trap::Fault { address, .. } = trap else {
                    panic!("{trap:?}")
                };
                let first = Frame(1 + i * cluster);
                (0..cluster).for_each(|f| self.machine.zero(Frame(first.0 + f)));
                let run = FrameRun {
                    first,
                    count: cluster,
                };
                self.enter(address.0, run, Prot::RW);
            }
            N.into()
        }

        /// Takes the pages away again, and makes the program see it.
        fn remove(&mut self) -> u64 {
            let all = VirtRange::from_len(VirtAddr(DATA), u64::from(N) * PAGE as u64);
            self.pmap.remove(all.expect("a range"), &mut |_| ()).wait();
            self.regs.rip = CODE;
            assert_eq!(self.run(), Trap::Syscall);
            N.into()
        }
    }

    /// Fresh memory of this process.
    fn fresh() -> *mut u8 {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address that nothing uses.
        let at = unsafe { libc::mmap(ptr::null_mut(), N as usize * PAGE, prot, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        // SAFETY: the mapping is ours. No huge pages: a fault a page is what is measured.
        unsafe { libc::madvise(at, N as usize * PAGE, libc::MADV_NOHUGEPAGE) };
        at.cast()
    }

    fn touch(at: *mut u8) -> u64 {
        for page in 0..N as usize {
            // SAFETY: `at` is a mapping of `N` pages that nobody else uses.
            unsafe { at.add(page * PAGE).write_volatile(1) };
        }
        N.into()
    }

    fn unmap(at: *mut u8) -> u64 {
        // SAFETY: `at` is a mapping of `N` pages that nobody uses any more.
        assert_eq!(unsafe { libc::munmap(at.cast(), N as usize * PAGE) }, 0);
        N.into()
    }

    pub(super) fn main() -> Result<(), Box<dyn Error>> {
        let guest = RefCell::new(Guest::new()?);
        let memory = RefCell::new(ptr::null_mut());
        let head = ["operation", "to native", "hosted, ns", "native, ns"];
        table::head("The hosted machine", &head);
        let calls = alternate(&mut [
            Contender::new("hosted", || guest.borrow_mut().calls()),
            Contender::new("native", || {
                for _ in 0..N {
                    // SAFETY: it has no arguments and no effect.
                    unsafe { libc::syscall(libc::SYS_getpid) };
                }
                N.into()
            }),
        ]);
        table::comparison("system call", &calls);
        // Each pair is taken down by the next one, which is measured too.
        for (what, gone, cluster) in [
            (
                "demand-zero fault, a page at a time",
                "unmap, each such page",
                1,
            ),
            (
                "demand-zero, 16 pages a fault, each page",
                "unmap, each of those",
                16,
            ),
        ] {
            let stats = alternate(&mut [
                Contender::new("hosted", || guest.borrow_mut().faults(cluster)),
                Contender::new("hosted, unmap", || guest.borrow_mut().remove()),
                Contender::new("native, map", || {
                    *memory.borrow_mut() = fresh();
                    1
                }),
                Contender::new("native", || touch(*memory.borrow())),
                Contender::new("native, unmap", || unmap(*memory.borrow())),
            ]);
            table::comparison(what, &[stats[0], stats[3]]);
            table::comparison(gone, &[stats[1], stats[4]]);
        }
        Ok(())
    }
}
