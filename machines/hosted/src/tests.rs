//! Tests that need the inside of the machine.

use crate::space::unmap;
use crate::{GuestThread, Hosted, Registers, Trap};
use bsdvm_machine::{
    Flush, Frame, FrameRun, Kind, Machine, Memory, MemoryAttr, Pmap, Prot, VirtAddr, VirtRange,
};

const CODE: VirtAddr = VirtAddr(0x10_0000);

fn enter(pmap: &crate::HostedPmap, va: VirtAddr, frame: u32, prot: Prot) {
    let run = FrameRun::one(Frame(frame));
    let attr = MemoryAttr::WriteBack;
    pmap.enter(va, run, prot, attr, Kind::Managed, &mut |_| ())
        .unwrap()
        .wait();
}

#[test]
fn bases_can_be_set_by_order() {
    let m = Hosted::with(1 << 20, false).unwrap();
    let pmap = m.pmap_create().unwrap();
    // mov rax, fs:[0]; syscall
    let code = [0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x0f, 0x05];
    m.write(Frame(0), 0, &code);
    m.write(Frame(1), 64, &77u64.to_le_bytes());
    enter(&pmap, CODE, 0, Prot::RX);
    enter(&pmap, VirtAddr(0x20_0000), 1, Prot::RW);
    let mut t = GuestThread::spawn(&m, &pmap).unwrap();
    let mut regs = Registers {
        rip: CODE.0,
        fs_base: 0x20_0040,
        ..Registers::default()
    };
    assert_eq!(t.run(&m, &pmap, &mut regs), Trap::Syscall);
    assert_eq!((regs.rax, regs.fs_base), (77, 0x20_0040));
}

/// The host refuses an order in three ways; the guest never runs on a wrong mapping.
#[test]
fn a_failed_order_is_mended_or_ends_the_stub() {
    let m = Hosted::new(1 << 20).unwrap();
    let pmap = m.pmap_create().unwrap();
    m.write(Frame(0), 0, &[0x0f, 0x05, 0xeb, 0xfc]);
    enter(&pmap, CODE, 0, Prot::RX);
    let mut t = GuestThread::spawn(&m, &pmap).unwrap();
    let mut regs = Registers {
        rip: CODE.0,
        ..Registers::default()
    };
    assert_eq!(t.run(&m, &pmap, &mut regs), Trap::Syscall);
    // An address that no host maps: the batch stops there.
    let bad = VirtRange::new(VirtAddr(1 << 60), VirtAddr((1 << 60) + 4096)).unwrap();
    pmap.space.order(&mut pmap.space.lock(), unmap(bad));
    assert_eq!(t.run(&m, &pmap, &mut regs), Trap::Syscall);
    // With two threads the queue is emptied before either goes on.
    let other = GuestThread::spawn(&m, &pmap).unwrap();
    pmap.space.order(&mut pmap.space.lock(), unmap(bad));
    assert_eq!(t.run(&m, &pmap, &mut regs), Trap::Syscall);
    drop(other);
    assert_eq!(t.run(&m, &pmap, &mut regs), Trap::Syscall);
}

/// A guest that overwrites its own mailbox harms itself only.
#[test]
fn a_spoilt_mailbox_is_noticed() {
    let m = Hosted::new(1 << 20).unwrap();
    let pmap = m.pmap_create().unwrap();
    // rep stosb; syscall
    m.write(Frame(0), 0, &[0xf3, 0xaa, 0x0f, 0x05]);
    enter(&pmap, CODE, 0, Prot::RX);
    let mut t = GuestThread::spawn(&m, &pmap).unwrap();
    let mut regs = Registers {
        rip: CODE.0,
        rax: 0x41,
        rdi: crate::stub::SLOT_VA,
        rcx: crate::mailbox::SLOT_BYTES,
        ..Registers::default()
    };
    // The handler writes its part anew; whatever comes of the rest, it comes to an end.
    t.run(&m, &pmap, &mut regs);
    drop(t);
    let mut t = GuestThread::spawn(&m, &pmap).unwrap();
    regs.rip = CODE.0 + 2;
    assert_eq!(t.run(&m, &pmap, &mut regs), Trap::Syscall);
}

/// A host that seals its vDSO leaves a hole: nothing is entered there, and no order touches it.
#[test]
fn a_hole_is_left_alone() {
    let mut m = Hosted::new(1 << 20).unwrap();
    let hole = VirtRange::from_len(VirtAddr(0x50_0000), 0x2000).unwrap();
    let engine = std::sync::Arc::get_mut(&mut m.engine).unwrap();
    engine.holes.push(hole);
    let range = |start, end| VirtRange::new(VirtAddr(start), VirtAddr(end)).unwrap();
    let parts = |r| m.engine.parts(r);
    assert_eq!(
        parts(range(0x40_0000, 0x60_0000)),
        [range(0x40_0000, 0x50_0000), range(0x50_2000, 0x60_0000)]
    );
    assert_eq!(
        parts(range(0x50_1000, 0x60_0000)),
        [range(0x50_2000, 0x60_0000)]
    );
    assert_eq!(parts(range(0x50_0000, 0x50_2000)), []);
    assert_eq!(parts(range(0x1000, 0x2000)), [range(0x1000, 0x2000)]);
    let pmap = m.pmap_create().unwrap();
    let run = FrameRun {
        first: Frame(0),
        count: 2,
    };
    let attr = MemoryAttr::WriteBack;
    let va = VirtAddr(0x50_1000);
    let refused = pmap.enter(va, run, Prot::RW, attr, Kind::Managed, &mut |_| ());
    assert_eq!(refused.err(), Some(bsdvm_machine::EnterError::BadAddress));
}

#[test]
fn errors_are_one_line_with_a_remedy() {
    use crate::HostedError::*;
    let e = || std::io::Error::from_raw_os_error(libc::EPERM);
    for error in [
        BadSize(1),
        Memory(1, e()),
        View(1, e()),
        Process(e()),
        Exec(e()),
        Seccomp(e()),
        Proc(e()),
        Stub("close", e()),
        StubDied,
        TooManyThreads,
        MachineGone,
    ] {
        let text = error.to_string();
        assert!(!text.contains('\n') && text.contains(": "), "{text}");
    }
}
