//! Past the host's limits: mappings, memory; ranks of locks.

mod common;

use bsdvm_hosted::{Hosted, HostedError, Trap};
use bsdvm_machine::{Frame, FrameRun, Memory, Pmap, Prot};
use common::{DATA, Guest, enter, machine};

#[test]
fn seventy_thousand_scattered_pages_can_be_read_again() {
    const PAGES: u32 = 70_000;
    let m = machine(300);
    // 1: mov eax, [rdi]; cmp eax, [rsi]; ... the guest adds up: add rbx, [rdi]; add rdi, rdx;
    // dec rcx; jnz 1b; syscall
    let code = [
        0x48, 0x03, 0x1f, 0x48, 0x01, 0xd7, 0x48, 0xff, 0xc9, 0x75, 0xf5, 0x0f, 0x05,
    ];
    let mut g = Guest::new(&m, &code);
    let mut sum = 0u64;
    for i in 0..PAGES {
        // Every second page, frames in descending order: no two can share a host mapping.
        let f = 1_000 + PAGES - i;
        m.write(Frame(f), 0, &u64::from(i + 1).to_le_bytes());
        enter(&g.pmap, DATA + u64::from(i) * 8192, f, Prot::RW);
        sum += u64::from(i + 1);
    }
    assert_eq!(g.pmap.resident(), u64::from(PAGES) + 1);
    let entry = g.regs.rip;
    for _ in 0..2 {
        (g.regs.rip, g.regs.rbx) = (entry, 0);
        (g.regs.rdi, g.regs.rdx, g.regs.rcx) = (DATA, 8192, u64::from(PAGES));
        assert_eq!(g.run(), Trap::Syscall);
        assert_eq!(g.regs.rbx, sum);
    }
}

#[test]
fn the_host_gives_memory_as_it_is_touched_and_takes_it_back() {
    let m = machine(16);
    assert!(m.allocated_bytes() < 1 << 20);
    for f in 0..4096 {
        m.write(Frame(f), 4095, &[1]);
    }
    assert_eq!(m.allocated_bytes(), 16 << 20);
    m.discard(FrameRun {
        first: Frame(1024),
        count: 2048,
    });
    assert_eq!(m.allocated_bytes(), 8 << 20);
    let mut byte = [7];
    m.read(Frame(1024), 4095, &mut byte);
    assert_eq!(byte, [0]);
}

#[test]
fn frames_are_memory() {
    let m = machine(1);
    m.write(Frame(3), 8, &[1, 2, 3, 4]);
    assert_eq!(m.load_u32(Frame(3), 8), 0x0403_0201);
    assert_eq!(m.compare_exchange_u32(Frame(3), 8, 5, 6), Err(0x0403_0201));
    assert_eq!(
        m.compare_exchange_u32(Frame(3), 8, 0x0403_0201, 6),
        Ok(0x0403_0201)
    );
    m.copy(Frame(3), Frame(4));
    assert_eq!(m.load_u32(Frame(4), 8), 6);
    m.zero(Frame(3));
    assert_eq!(m.load_u32(Frame(3), 8), 0);
    let p = m.record_memory(Frame(4));
    assert_eq!(p, m.record_memory(Frame(4)));
    assert_eq!(p.as_ptr() as usize % 4096, 0);
}

#[test]
fn sizes_that_are_none_are_refused() {
    for bytes in [0, 1, 4097, 1 << 45, u64::MAX] {
        let e = Hosted::new(bytes).unwrap_err();
        assert!(matches!(e, HostedError::BadSize(_)), "{e}");
    }
}

#[test]
#[cfg(debug_assertions)]
fn ranks_are_asserted() {
    use bsdvm_machine::{Locks, sync::Mutex};
    let low = Mutex::<Hosted, (), 1>::new(());
    let high = Mutex::<Hosted, (), 2>::new(());
    drop((low.lock(), high.lock()));
    let wrong = std::thread::scope(|s| {
        s.spawn(|| {
            let _high = high.lock();
            let _low = low.lock();
        })
        .join()
    });
    assert!(wrong.is_err());
    Hosted::assert_none_held();
    drop((high.lock(), high.try_lock()));
}
