//! Prints what the hosted machine costs here: nanoseconds for each system call, fault and stub.

use bsdvm_hosted::{GuestThread, Hosted, HostedPmap, Registers, Trap};
use bsdvm_machine::{
    Flush, Frame, FrameRun, Kind, Machine, Memory, MemoryAttr, Pmap, Prot, VirtAddr, VirtRange,
};
use std::error::Error;
use std::time::Instant;

const CODE: u64 = 0x10_0000;
const DATA: u64 = 0x4000_0000;
const ROUNDS: u32 = 20_000;

fn enter(pmap: &HostedPmap, va: u64, run: FrameRun, prot: Prot) {
    let attr = MemoryAttr::WriteBack;
    pmap.enter(VirtAddr(va), run, prot, attr, Kind::Managed, &mut |_| ())
        .expect("a usable address")
        .wait();
}

fn per(name: &str, rounds: u32, f: impl FnOnce()) {
    let start = Instant::now();
    f();
    let ns = start.elapsed().as_nanos() / u128::from(rounds);
    println!("{name:32} {ns:7} ns");
}

fn main() -> Result<(), Box<dyn Error>> {
    let m = Hosted::new(512 << 20)?;
    let pmap = m.pmap_create().map_err(|e| format!("{e:?}"))?;
    let mut thread = GuestThread::spawn(&m, &pmap)?;
    // syscall; jmp back; at 16: mov [rdi], rdi; add rdi, 4096; jmp back
    m.write(Frame(0), 0, &[0x0f, 0x05, 0xeb, 0xfc]);
    m.write(
        Frame(0),
        16,
        &[
            0x48, 0x89, 0x3f, 0x48, 0x81, 0xc7, 0, 0x10, 0, 0, 0xeb, 0xf4,
        ],
    );
    enter(&pmap, CODE, FrameRun::one(Frame(0)), Prot::RX);
    let mut regs = Registers {
        rip: CODE,
        ..Registers::default()
    };
    for _ in 0..1_000 {
        thread.run(&m, &pmap, &mut regs);
    }
    per("system call", ROUNDS, || {
        for _ in 0..ROUNDS {
            assert_eq!(thread.run(&m, &pmap, &mut regs), Trap::Syscall);
        }
    });
    (regs.rip, regs.rdi) = (CODE + 16, DATA);
    per("demand-zero fault", ROUNDS, || {
        for i in 0..ROUNDS {
            let trap = thread.run(&m, &pmap, &mut regs);
            let Trap::Fault { address, .. } = trap else {
                panic!("{trap:?}")
            };
            m.zero(Frame(i + 1));
            enter(&pmap, address.0, FrameRun::one(Frame(i + 1)), Prot::RW);
        }
    });
    let all = VirtRange::from_len(VirtAddr(DATA), u64::from(ROUNDS) << 12).ok_or("range")?;
    per("remove, a page of many", ROUNDS, || {
        pmap.remove(all, &mut |_| ()).wait();
        (regs.rip, regs.rdi) = (CODE, 0);
        thread.run(&m, &pmap, &mut regs);
    });
    (regs.rip, regs.rdi) = (CODE + 16, DATA);
    per("fault with 16 pages entered, each", ROUNDS, || {
        for i in 0..ROUNDS / 16 {
            let trap = thread.run(&m, &pmap, &mut regs);
            let Trap::Fault { address, .. } = trap else {
                panic!("{trap:?}")
            };
            let first = Frame(i * 16 + 1);
            enter(&pmap, address.0, FrameRun { first, count: 16 }, Prot::RW);
        }
    });
    drop(thread);
    refaults(&m, &pmap)?;
    for name in [
        "zero, a fresh frame",
        "zero, given by the host",
        "zero, a used frame",
    ] {
        per(name, ROUNDS, || {
            (60_000..60_000 + ROUNDS).for_each(|f| m.zero(Frame(f)));
        });
    }
    stubs(&m, &pmap)?;
    Ok(())
}

/// A new stub uses what the pmap has: faults that do not come back.
fn refaults(m: &Hosted, pmap: &HostedPmap) -> Result<(), Box<dyn Error>> {
    let mut thread = GuestThread::spawn(m, pmap)?;
    let mut regs = Registers {
        rip: CODE + 16,
        rdi: DATA,
        ..Registers::default()
    };
    per("refault after loss, a page", ROUNDS, || {
        let trap = thread.run(m, pmap, &mut regs);
        assert!(matches!(trap, Trap::Fault { .. }), "{trap:?}");
    });
    Ok(())
}

/// Stubs come and go, each with a thread of its own as in real use.
fn stubs(m: &Hosted, pmap: &HostedPmap) -> Result<(), Box<dyn Error>> {
    const STUBS: u32 = 200;
    let mut threads = Vec::new();
    let spaces: Vec<_> = (0..STUBS).map(|_| m.pmap_create().unwrap()).collect();
    per("stub made", STUBS, || {
        threads.extend(spaces.iter().map(|p| GuestThread::spawn(m, p).unwrap()));
    });
    per("stub ended", STUBS, || drop(threads));
    let mut first = GuestThread::spawn(m, pmap)?;
    let mut regs = Registers {
        rip: CODE,
        ..Registers::default()
    };
    first.run(m, pmap, &mut regs);
    let mut more = Vec::new();
    per("thread made in a stub", STUBS, || {
        more.extend((0..STUBS).map(|_| GuestThread::spawn(m, pmap).unwrap()));
    });
    per("thread ended", STUBS, || drop(more));
    Ok(())
}
