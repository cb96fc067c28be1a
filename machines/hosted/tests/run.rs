//! One guest thread: traps, registers, faults, floating-point state.

mod common;

use bsdvm_hosted::{Answer, GuestThread, Registers, Trap};
use bsdvm_machine::{Access, Flush, Frame, Machine, Memory, Pmap, Prot, Usage, VirtAddr};
use common::{CODE, DATA, Guest, enter, frame, machine, range};

#[test]
fn system_calls_come_with_their_registers() {
    let m = machine(4);
    // 1: inc rbx; syscall; jmp 1b
    let mut g = Guest::new(&m, &[0x48, 0xff, 0xc3, 0x0f, 0x05, 0xeb, 0xf9]);
    g.regs = Registers {
        rax: 39,
        rdi: 0x1111_2222_3333_4444,
        rsi: 2,
        rdx: 3,
        r10: 4,
        r8: 5,
        r9: 6,
        r12: 12,
        r13: 13,
        r14: 14,
        r15: 15,
        rbp: 7,
        rsp: 0xdead_beef_0000, // a wild stack is harmless
        rip: CODE,
        ..Registers::default()
    };
    for i in 1..100 {
        let before = g.regs;
        assert_eq!(g.run(), Trap::Syscall);
        assert_eq!(g.regs.rip, CODE + 5);
        assert_eq!(g.regs.rcx, CODE + 5);
        let expected = Registers {
            rbx: i,
            rip: g.regs.rip,
            rcx: g.regs.rcx,
            r11: g.regs.r11,
            rflags: g.regs.rflags,
            ..before
        };
        assert_eq!(g.regs, expected);
        g.regs.rax = u64::MAX - i; // any number, -1 too
    }
}

#[test]
fn calls_are_answered_where_they_are_made() {
    let m = machine(4);
    // mov eax, 39; syscall; mov ebx, eax; mov eax, 24; syscall; mov ebp, eax; mov eax, 110; syscall
    let code = [
        0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0x89, 0xc3, 0xb8, 24, 0, 0, 0, 0x0f, 0x05, 0x89, 0xc5, 0xb8,
        110, 0, 0, 0, 0x0f, 0x05,
    ];
    let mut g = Guest::new(&m, &code);
    let values = [1234, 77];
    for value in values {
        // Told anew, it is the new value that counts, and takes no more room.
        for _ in 0..100 {
            assert!(g.thread.answer(39, Answer::Value(value)));
        }
        assert!(g.thread.answer(24, Answer::Host));
        g.regs.rip = CODE;
        g.regs.rbp = 1;
        assert_eq!(g.run(), Trap::Syscall);
        assert_eq!((g.regs.rax, g.regs.rip), (110, CODE + code.len() as u64));
        assert_eq!((g.regs.rbx, g.regs.rbp), (value, 0));
    }
    // A list that is full refuses more, and those trap.
    let taken = (1000..1100).filter(|n| g.thread.answer(*n, Answer::Value(0)));
    assert_eq!(taken.count(), 13);
    g.regs.rip = CODE + 23;
    g.regs.rax = 1099;
    assert_eq!(g.run(), Trap::Syscall);
    // A new thread in the same slot knows none of them.
    drop(g);
    let mut g = Guest::new(&m, &code);
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(g.regs.rax, 39);
}

/// A thread goes to another pmap with its stub: registers, memory and state are new.
#[test]
fn a_thread_moves_to_another_space_and_takes_nothing_along() {
    let m = machine(4);
    // inc byte ptr [rdi]; syscall; movq rax, xmm0; syscall; jmp back
    let code = [
        0xfe, 0x07, 0x0f, 0x05, 0x66, 0x48, 0x0f, 0x7e, 0xc0, 0x0f, 0x05, 0xeb, 0xf3,
    ];
    let mut g = Guest::new(&m, &code);
    let f = frame();
    m.zero(Frame(f));
    enter(&g.pmap, DATA, f, Prot::RW);
    g.regs.rdi = DATA;
    assert_eq!(g.run(), Trap::Syscall);
    g.thread.fpu()[160] = 0x77; // xmm0
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(g.regs.rax, 0x77);
    // Two threads: neither can go.
    let pmap = m.pmap_create().unwrap();
    let second = GuestThread::spawn(&m, &g.pmap).unwrap();
    assert!(!g.thread.move_to(&pmap));
    drop(second);
    // The slot of the other one is to be unmapped first.
    assert!(!g.thread.move_to(&pmap));
    assert_eq!(g.run(), Trap::Syscall);
    let old_kicker = g.thread.kicker();
    assert!(g.thread.move_to(&pmap));
    assert!(!g.thread.move_to(&pmap), "to where it is");
    old_kicker.kick();
    let old = std::mem::replace(&mut g.pmap, pmap);
    // Nothing is mapped there, not even code.
    g.regs.rip = CODE;
    g.expect_fault(CODE, Access::Execute, false);
    let text = frame();
    m.zero(Frame(text));
    m.write(Frame(text), 0, &code);
    enter(&g.pmap, CODE, text, Prot::RX);
    g.expect_fault(DATA, Access::Write, false);
    let new = frame();
    m.zero(Frame(new));
    enter(&g.pmap, DATA, new, Prot::RW);
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(g.regs.rax, 0, "the floating-point state is fresh");
    g.thread.kicker().kick();
    assert_eq!(g.run(), Trap::Kicked);
    // The old one is as good as new.
    let mut other = GuestThread::spawn(&m, &old).unwrap();
    g.regs.rip = CODE;
    assert_eq!(other.run(&m, &old, &mut g.regs), Trap::Syscall);
    let byte = |frame| {
        let mut byte = [9];
        m.read(Frame(frame), 0, &mut byte);
        byte[0]
    };
    assert_eq!((byte(f), byte(new)), (3, 1));
    drop(old);
    drop(other);
    assert_eq!(g.run(), Trap::Syscall);
}

/// The host's vDSO is an ELF image that the guest can read.
#[test]
fn the_vdso_can_be_read_and_lies_outside() {
    let m = machine(4);
    let Some(vdso) = m.vdso() else { return };
    // mov eax, [rdi]; syscall
    let mut g = Guest::new(&m, &[0x8b, 0x07, 0x0f, 0x05]);
    g.regs.rdi = vdso.start().0;
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(g.regs.rax as u32, u32::from_le_bytes(*b"\x7fELF"));
    let run = bsdvm_machine::FrameRun::one(Frame(frame()));
    let attr = bsdvm_machine::MemoryAttr::WriteBack;
    let kind = bsdvm_machine::Kind::Managed;
    let refused = g
        .pmap
        .enter(vdso.start(), run, Prot::RW, attr, kind, &mut |_| ());
    assert!(refused.is_err());
}

#[test]
fn a_store_faults_until_the_page_is_entered() {
    let m = machine(4);
    // mov byte ptr [rdi], 0x5a; syscall; mov al, [rdi]; syscall
    let code = [0xc6, 0x07, 0x5a, 0x0f, 0x05, 0x8a, 0x07, 0x0f, 0x05];
    let mut g = Guest::new(&m, &code);
    g.regs.rdi = DATA + 0x123;
    g.expect_fault(DATA + 0x123, Access::Write, false);
    assert_eq!(g.regs.rip, CODE);
    let f = frame();
    m.zero(Frame(f));
    enter(&g.pmap, DATA, f, Prot::RW);
    assert_eq!(g.run(), Trap::Syscall);
    let mut byte = [0];
    m.read(Frame(f), 0x123, &mut byte);
    assert_eq!(byte, [0x5a]);
    let mut gone = Vec::new();
    g.pmap.remove(range(DATA, 1), &mut |r| gone.push(r)).wait();
    assert_eq!((gone.len(), gone[0].frame), (1, Frame(f)));
    assert_eq!(gone[0].usage, Usage::all());
    g.expect_fault(DATA + 0x123, Access::Read, false);
}

#[test]
fn protection_is_kept_and_execution_asked_for() {
    let m = machine(4);
    // mov byte ptr [rdi], 1; jmp rdi
    let mut g = Guest::new(&m, &[0xc6, 0x07, 0x01, 0xff, 0xe7]);
    g.regs.rdi = DATA;
    let f = frame();
    enter(&g.pmap, DATA, f, Prot::RW);
    g.pmap.protect(range(DATA, 1), Prot::READ).wait();
    g.expect_fault(DATA, Access::Write, true);
    enter(&g.pmap, DATA, f, Prot::RW);
    g.expect_fault(DATA, Access::Execute, true);
    m.write(Frame(f), 0, &[0x0f, 0x05]);
    enter(&g.pmap, DATA, f, Prot::RX);
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(g.regs.rip, DATA + 2);
    g.pmap.protect(range(DATA, 1), Prot::NONE).wait();
    g.regs.rip = DATA;
    g.expect_fault(DATA, Access::Execute, true);
    assert_eq!(g.pmap.extract(VirtAddr(DATA)).unwrap().prot, Prot::NONE);
}

#[test]
fn bases_of_fs_and_gs_are_the_guests() {
    let m = machine(4);
    // syscall; mov rax, fs:[0]; syscall; mov rax, gs:[8]; syscall
    let code = [
        0x0f, 0x05, 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x0f, 0x05, 0x65, 0x48, 0x8b, 0x04,
        0x25, 8, 0, 0, 0, 0x0f, 0x05,
    ];
    let mut g = Guest::new(&m, &code);
    let f = frame();
    m.write(Frame(f), 0, &7u64.to_le_bytes());
    m.write(Frame(f), 16, &9u64.to_le_bytes());
    enter(&g.pmap, DATA, f, Prot::RW);
    g.regs.fs_base = DATA;
    g.regs.gs_base = DATA + 8;
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!((g.regs.fs_base, g.regs.gs_base), (DATA, DATA + 8));
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(g.regs.rax, 7);
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(g.regs.rax, 9);
    g.regs.fs_base = 1 << 60; // no address at all: must not harm the stub
    g.regs.rip = CODE;
    assert_eq!(g.run(), Trap::Syscall);
}

#[test]
fn floating_point_state_survives_traps_and_can_be_set() {
    let m = machine(4);
    // movq xmm3, rdi; syscall; movq rax, xmm3; syscall; movq rax, xmm3; syscall
    let code = [
        0x66, 0x48, 0x0f, 0x6e, 0xdf, 0x0f, 0x05, 0x66, 0x48, 0x0f, 0x7e, 0xd8, 0x0f, 0x05, 0x66,
        0x48, 0x0f, 0x7e, 0xd8, 0x0f, 0x05,
    ];
    let mut g = Guest::new(&m, &code);
    g.regs.rdi = 0x0123_4567_89ab_cdef;
    assert_eq!(g.run(), Trap::Syscall);
    let saved = g.thread.fpu().to_vec();
    assert_eq!(
        saved[160 + 48..160 + 56],
        0x0123_4567_89ab_cdefu64.to_le_bytes()
    );
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(g.regs.rax, 0x0123_4567_89ab_cdef);
    g.thread.reset_fpu();
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(g.regs.rax, 0);
    g.thread.fpu().copy_from_slice(&saved);
    g.regs.rip = CODE + 7;
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(g.regs.rax, 0x0123_4567_89ab_cdef);
    g.thread.fpu().fill(0xff); // nonsense: must not harm the stub
    g.regs.rip = CODE + 5;
    assert_eq!(g.run(), Trap::Syscall);
}

#[test]
fn exceptions_say_what_they_are() {
    let m = machine(4);
    // ud2; int3; div ecx; mov al, [rdi]; int 0x80
    let code = [0x0f, 0x0b, 0xcc, 0xf7, 0xf1, 0x8a, 0x07, 0xcd, 0x80];
    let mut g = Guest::new(&m, &code);
    let signal = |t| match t {
        Trap::Exception { signal, code, .. } => (signal, code),
        other => panic!("{other:?}"),
    };
    let t = g.run();
    assert!(
        matches!(
            t,
            Trap::Exception {
                signal: 4,
                address: CODE,
                ..
            }
        ),
        "{t:?}"
    );
    g.regs.rip = CODE + 2;
    assert_eq!(signal(g.run()).0, 5);
    g.regs.rip = CODE + 3;
    g.regs.rcx = 0;
    assert_eq!(signal(g.run()).0, 8);
    g.regs.rip = CODE + 5;
    g.regs.rdi = 0x8000_0000_0000_0000;
    assert_eq!(signal(g.run()), (11, 128));
    g.regs.rip = CODE + 7;
    assert_eq!(signal(g.run()), (11, 128));
    g.regs.rip = 0x8000_0000_0000_0000;
    let t = g.run();
    assert!(
        matches!(t, Trap::Exception { .. } | Trap::Fault { .. }),
        "{t:?}"
    );
    g.regs.rip = 0x7fff_0000_0000;
    g.expect_fault(0x7fff_0000_0000, Access::Execute, false);
}

#[test]
fn usage_bits_are_seen_again_after_they_were_taken() {
    let m = machine(4);
    // syscall; mov al, [rdi]; syscall; mov [rdi], al; syscall
    let code = [0x0f, 0x05, 0x8a, 0x07, 0x0f, 0x05, 0x88, 0x07, 0x0f, 0x05];
    let mut g = Guest::new(&m, &code);
    g.regs.rdi = DATA;
    let f = frame();
    enter(&g.pmap, DATA, f, Prot::RW);
    assert_eq!(g.run(), Trap::Syscall);
    let usage = |g: &Guest<'_>| g.pmap.extract(VirtAddr(DATA)).unwrap().usage;
    let (taken, flush) = g.pmap.take_usage(VirtAddr(DATA), Usage::all());
    flush.wait();
    assert_eq!((taken, usage(&g)), (Usage::all(), Usage::empty()));
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(usage(&g), Usage::REFERENCED);
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(usage(&g), Usage::all());
    let (taken, flush) = g.pmap.take_usage(VirtAddr(DATA), Usage::MODIFIED);
    flush.wait();
    assert_eq!((taken, usage(&g)), (Usage::MODIFIED, Usage::REFERENCED));
    g.regs.rip = CODE + 6;
    assert_eq!(g.run(), Trap::Syscall);
    assert_eq!(usage(&g), Usage::all());
}

#[test]
fn addresses_outside_the_range_are_refused() {
    use bsdvm_machine::{EnterError, FrameRun, Kind, Machine, MemoryAttr};
    let m = machine(4);
    let pmap = m.pmap_create().unwrap();
    let end = m.user_range().end();
    for va in [
        VirtAddr(0),
        end,
        end.checked_sub(4096).unwrap(),
        VirtAddr(!0xfff),
    ] {
        let run = FrameRun {
            first: Frame(0),
            count: 2,
        };
        let attr = MemoryAttr::WriteBack;
        let r = pmap.enter(va, run, Prot::RW, attr, Kind::Managed, &mut |_| ());
        assert_eq!(r.err(), Some(EnterError::BadAddress), "{va:?}");
    }
}
