//! Programs' threads: a few instructions in user mode, and what they trap with.

use super::{check, map, page, small_vm, space};
use crate::guest::BareThread;
use crate::machine::Bare;
use crate::threads;
use alloc::boxed::Box;
use bsdvm::{Access, Prot, Space, VirtAddr, Vm};
use bsdvm_linux::platform::{GuestThread, Kicker, Registers, Trap};

/// A space with `code` in a page and a page of data after it, and registers to run it.
fn program(vm: &'static Vm<Bare>, code: &[u8]) -> (Space<'static, Bare>, Registers) {
    let own = space(vm);
    let at = map(own, 4096, Prot::ALL);
    assert_eq!(own.write(at, code), Ok(()));
    let data = map(own, 4096, Prot::RW);
    assert_eq!(data, page(at, 1));
    let regs = Registers {
        rip: at.0,
        rsp: data.0 + 4096,
        rbx: data.0,
        r15: 0x0123_4567_89ab_cdef,
        rflags: 0x202,
        ..Registers::default()
    };
    (own, regs)
}

/// Runs until something other than a fault that the core resolves.
fn run(vm: &'static Vm<Bare>, own: Space<'_, Bare>, t: &mut BareThread, r: &mut Registers) -> Trap {
    for _ in 0..16 {
        match t.run(vm, r) {
            Trap::Fault {
                address, access, ..
            } if own.fault(address, access).is_ok() => {}
            other => return other,
        }
    }
    panic!("the program faults again and again");
}

/// A system call arrives with its registers, and what it is given goes back.
pub(super) fn a_call_comes_through() {
    let vm = small_vm();
    // mov eax, 42; syscall; mov [rbx], rax; mov eax, 43; syscall
    let code = [
        0xb8, 42, 0, 0, 0, 0x0f, 0x05, 0x48, 0x89, 0x03, 0xb8, 43, 0, 0, 0, 0x0f, 0x05,
    ];
    let (own, mut regs) = program(vm, &code);
    let start = regs;
    let mut thread = BareThread::new(own.id());
    assert_eq!(run(vm, own, &mut thread, &mut regs), Trap::Syscall);
    assert_eq!((regs.rax, regs.rip), (42, start.rip + 7));
    assert_eq!(
        (regs.rsp, regs.rbx, regs.r15),
        (start.rsp, start.rbx, start.r15)
    );
    regs.rax = 0x1234;
    assert_eq!(run(vm, own, &mut thread, &mut regs), Trap::Syscall);
    assert_eq!(regs.rax, 43);
    let mut word = [0; 8];
    assert_eq!(own.read(VirtAddr(start.rbx), &mut word), Ok(()));
    assert_eq!(u64::from_le_bytes(word), 0x1234);
    drop(thread);
    check(vm);
    own.release();
}

/// Page faults say where, how, and whether a translation was there.
pub(super) fn faults_are_told() {
    let vm = small_vm();
    // mov [rbx], rax; and a load of the kernel's own memory: mov rax, [rcx]
    let (own, mut regs) = program(vm, &[0x48, 0x89, 0x03, 0x48, 0x8b, 0x01, 0xeb, 0xfe]);
    regs.rcx = crate::layout::DIRECT + 0x10_0000;
    let mut thread = BareThread::new(own.id());
    let code = VirtAddr(regs.rip);
    let fetch = Trap::Fault {
        address: code,
        access: Access::Execute,
        present: false,
    };
    assert_eq!(thread.run(vm, &mut regs), fetch);
    assert_eq!(own.fault(code, Access::Execute).map(drop), Ok(()));
    let store = Trap::Fault {
        address: VirtAddr(regs.rbx),
        access: Access::Write,
        present: false,
    };
    assert_eq!(thread.run(vm, &mut regs), store);
    assert_eq!(
        own.fault(VirtAddr(regs.rbx), Access::Write).map(drop),
        Ok(())
    );
    let kernel = Trap::Fault {
        address: VirtAddr(regs.rcx),
        access: Access::Read,
        present: true,
    };
    assert_eq!(thread.run(vm, &mut regs), kernel);
    drop(thread);
    own.release();
}

/// Exceptions become the signals that Linux makes of them.
pub(super) fn exceptions_are_told() {
    let vm = small_vm();
    let divide: &[u8] = &[0x31, 0xc9, 0xf7, 0xf1];
    let cases: [(&[u8], i32); 4] = [
        (divide, 8),
        // ud2
        (&[0x0f, 0x0b], 4),
        // hlt
        (&[0xf4], 11),
        // int3
        (&[0xcc], 5),
    ];
    for (code, expected) in cases {
        let (own, mut regs) = program(vm, code);
        let mut thread = BareThread::new(own.id());
        let trap = run(vm, own, &mut thread, &mut regs);
        let Trap::Exception { signal, .. } = trap else {
            panic!("{trap:?} and not signal {expected}");
        };
        assert_eq!(signal, expected);
        // An address that no program has is not gone to.
        regs.rip = 0x8000_0000_0000_0000;
        let trap = thread.run(vm, &mut regs);
        assert!(
            matches!(trap, Trap::Exception { signal: 11, .. }),
            "{trap:?}"
        );
        drop(thread);
        own.release();
    }
}

/// A program that never traps lets other threads run, and is kicked out of its loop.
pub(super) fn a_loop_is_interrupted() {
    let vm = small_vm();
    // jmp self
    let (own, mut regs) = program(vm, &[0xeb, 0xfe]);
    let mut thread = BareThread::new(own.id());
    let kicker = thread.kicker();
    assert_eq!(threads::spawn(Box::new(move || kicker.kick())), Ok(()));
    assert_eq!(run(vm, own, &mut thread, &mut regs), Trap::Kicked);
    drop(thread);
    own.release();
}

/// Two programs that take turns keep their vector registers, and a change from outside holds.
pub(super) fn vector_registers_are_kept() {
    let vm = small_vm();
    // movq xmm0, rax; syscall; movq rax, xmm0; syscall
    let code = [
        0x66, 0x48, 0x0f, 0x6e, 0xc0, 0x0f, 0x05, 0x66, 0x48, 0x0f, 0x7e, 0xc0, 0x0f, 0x05,
    ];
    let mut both = [1u64, 2].map(|mark| {
        let (own, mut regs) = program(vm, &code);
        regs.rax = mark;
        (own, regs, BareThread::new(own.id()))
    });
    for (own, regs, thread) in &mut both {
        assert_eq!(run(vm, *own, thread, regs), Trap::Syscall);
    }
    // XMM0 lies at byte 160 of the area.
    assert_eq!(both[1].2.fpu()[160], 2);
    both[1].2.fpu()[160] = 9;
    for ((own, regs, thread), expected) in both.iter_mut().zip([1, 9]) {
        assert_eq!(run(vm, *own, thread, regs), Trap::Syscall);
        assert_eq!(regs.rax, expected);
    }
    for (own, _, thread) in both {
        drop(thread);
        own.release();
    }
}
