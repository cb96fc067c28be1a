//! Kicks, flushes against running threads, several threads a space.

mod common;

use bsdvm_hosted::{Answer, GuestThread, Registers, Trap};
use bsdvm_machine::{Flush, Frame, Machine, Memory, Pmap, Prot};
use common::{CODE, DATA, Guest, enter, frame, machine, range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// jmp self
const SPIN: [u8; 2] = [0xeb, 0xfe];

#[test]
fn a_kick_ends_a_spinning_guest() {
    let m = machine(4);
    let mut g = Guest::new(&m, &SPIN);
    let kicker = g.thread.kicker();
    for _ in 0..20 {
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(Duration::from_millis(2));
                kicker.kick();
            });
            assert_eq!(g.run(), Trap::Kicked);
        });
        assert_eq!(g.regs.rip, CODE);
    }
}

#[test]
fn a_kick_before_a_run_is_not_lost_and_counts_once() {
    let m = machine(4);
    let mut g = Guest::new(&m, &[0x0f, 0x05, 0xeb, 0xfc]);
    let kicker = g.thread.kicker();
    kicker.kick();
    kicker.kick();
    assert_eq!(g.run(), Trap::Kicked);
    assert_eq!(g.run(), Trap::Syscall);
    drop(g);
    kicker.kick();
}

/// A guest that only makes calls that never come back is stopped by a kick all the same.
#[test]
fn a_kick_ends_a_guest_whose_calls_are_answered() {
    let m = machine(4);
    let mut g = Guest::new(&m, &[0x0f, 0x05, 0xeb, 0xfc]);
    g.regs.rax = 39;
    assert!(g.thread.answer(39, Answer::Value(39)));
    let kicker = g.thread.kicker();
    for _ in 0..20 {
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(Duration::from_millis(2));
                kicker.kick();
            });
            assert_eq!(g.run(), Trap::Kicked);
        });
        assert_eq!(g.regs.rax, 39);
    }
}

#[test]
fn kicks_race_with_system_calls() {
    let m = machine(4);
    let mut g = Guest::new(&m, &[0x0f, 0x05, 0xeb, 0xfc]);
    let (kicker, done) = (g.thread.kicker(), AtomicBool::new(false));
    std::thread::scope(|s| {
        s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                kicker.kick();
                std::thread::yield_now();
            }
        });
        for _ in 0..5_000 {
            let trap = g.run();
            assert!(matches!(trap, Trap::Syscall | Trap::Kicked), "{trap:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_flush_takes_a_page_from_a_running_thread() {
    let m = machine(4);
    // 1: inc dword ptr [rdi]; jmp 1b
    let mut g = Guest::new(&m, &[0xff, 0x07, 0xeb, 0xfc]);
    g.regs.rdi = DATA;
    let f = frame();
    m.zero(Frame(f));
    enter(&g.pmap, DATA, f, Prot::RW);
    let Guest {
        pmap, thread, regs, ..
    } = &mut g;
    std::thread::scope(|s| {
        let (m, pmap) = (&m, &*pmap);
        let guest = s.spawn(move || thread.run(m, pmap, regs));
        while m.load_u32(Frame(f), 0) == 0 {
            std::thread::yield_now();
        }
        let flush = pmap.remove(range(DATA, 1), &mut |_| ());
        flush.wait();
        let last = m.load_u32(Frame(f), 0);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(m.load_u32(Frame(f), 0), last);
        assert!(matches!(guest.join().unwrap(), Trap::Fault { .. }));
    });
}

#[test]
fn threads_of_one_space_share_it_and_end_one_by_one() {
    let m = machine(4);
    // 1: lock inc dword ptr [rdi]; syscall; jmp 1b
    let g = Guest::new(&m, &[0xf0, 0xff, 0x07, 0x0f, 0x05, 0xeb, 0xf9]);
    let f = frame();
    m.zero(Frame(f));
    enter(&g.pmap, DATA, f, Prot::RW);
    let mut threads: Vec<_> = (0..4)
        .map(|_| GuestThread::spawn(&m, &g.pmap).unwrap())
        .collect();
    std::thread::scope(|s| {
        for t in &mut threads {
            let (m, pmap) = (&m, &g.pmap);
            s.spawn(move || {
                let mut regs = Registers {
                    rip: CODE,
                    rdi: DATA,
                    ..Registers::default()
                };
                for _ in 0..500 {
                    assert_eq!(t.run(m, pmap, &mut regs), Trap::Syscall);
                }
            });
        }
    });
    assert_eq!(m.load_u32(Frame(f), 0), 2_000);
    let Guest {
        pmap, mut thread, ..
    } = g;
    let mut regs = Registers {
        rip: CODE,
        rdi: DATA,
        ..Registers::default()
    };
    threads.truncate(1);
    drop(threads.pop());
    assert_eq!(thread.run(&m, &pmap, &mut regs), Trap::Syscall);
    let mut again = GuestThread::spawn(&m, &pmap).unwrap();
    regs.rip = CODE;
    assert_eq!(again.run(&m, &pmap, &mut regs), Trap::Syscall);
    drop(thread); // the stub's first thread: the others live on
    regs.rip = CODE;
    assert_eq!(again.run(&m, &pmap, &mut regs), Trap::Syscall);
    assert_eq!(m.load_u32(Frame(f), 0), 2_003);
    drop(again);
    // A stub of its own again, with what the table has.
    let mut third = GuestThread::spawn(&m, &pmap).unwrap();
    regs.rip = CODE;
    assert_eq!(third.run(&m, &pmap, &mut regs), Trap::Syscall);
    assert_eq!(m.load_u32(Frame(f), 0), 2_004);
}

#[test]
fn a_thread_can_be_made_while_all_others_run() {
    let m = machine(4);
    let mut g = Guest::new(&m, &SPIN);
    let kicker = g.thread.kicker();
    let Guest {
        pmap, thread, regs, ..
    } = &mut g;
    std::thread::scope(|s| {
        let (m, pmap) = (&m, &*pmap);
        s.spawn(move || assert_eq!(thread.run(m, pmap, regs), Trap::Kicked));
        for _ in 0..10 {
            drop(GuestThread::spawn(m, pmap).unwrap());
        }
        kicker.kick();
    });
}

/// Two threads of a space read a page that is taken away and given to another frame all the
/// time; none may ever see the contents that a frame gets after its flush.
#[test]
fn no_thread_sees_a_frame_after_its_flush() {
    let m = machine(4);
    // 1: mov eax, [rdi]; test eax, eax; jns 1b; syscall
    let code = [0x8b, 0x07, 0x85, 0xc0, 0x79, 0xfa, 0x0f, 0x05];
    let g = Guest::new(&m, &code);
    let frames = [frame(), frame()];
    let done = AtomicBool::new(false);
    let mut threads: Vec<_> = (0..2)
        .map(|_| GuestThread::spawn(&m, &g.pmap).unwrap())
        .collect();
    std::thread::scope(|s| {
        for t in &mut threads {
            let (m, pmap, done) = (&m, &g.pmap, &done);
            let kicker = t.kicker();
            s.spawn(move || {
                let mut regs = Registers {
                    rip: CODE,
                    rdi: DATA,
                    ..Registers::default()
                };
                while !done.load(Ordering::Relaxed) {
                    match t.run(m, pmap, &mut regs) {
                        Trap::Fault { .. } => std::thread::yield_now(),
                        Trap::Kicked => {}
                        other => panic!("a foreign value was read: {other:?} {regs:x?}"),
                    }
                }
            });
            s.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                }
                for _ in 0..10 {
                    kicker.kick();
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(2);
        let mut rounds = 0;
        while Instant::now() < end {
            let f = frames[rounds % 2];
            m.write(Frame(f), 0, &1u32.to_le_bytes());
            enter(&g.pmap, DATA, f, Prot::RW);
            g.pmap.remove(range(DATA, 1), &mut |_| ()).wait();
            m.write(Frame(f), 0, &u32::MAX.to_le_bytes());
            rounds += 1;
        }
        done.store(true, Ordering::Relaxed);
        assert!(rounds > 100, "only {rounds} rounds");
    });
}

#[test]
fn two_spaces_run_at_once() {
    let m = machine(4);
    let guests: Vec<_> = (0..2)
        .map(|_| Guest::new(&m, &[0x48, 0xff, 0xc3, 0x0f, 0x05, 0xeb, 0xf9]))
        .collect();
    assert_eq!(m.user_range().end().0, 0x7fff_f000_0000);
    std::thread::scope(|s| {
        for mut g in guests {
            s.spawn(move || {
                for i in 1..2_000 {
                    assert_eq!(g.run(), Trap::Syscall);
                    assert_eq!(g.regs.rbx, i);
                }
            });
        }
    });
}
