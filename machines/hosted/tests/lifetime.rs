//! Stubs die, and are gone when they should be. One test, since it counts this program's children.

mod common;

use bsdvm_hosted::{GuestThread, HostedError, Registers, Trap};
use bsdvm_machine::Machine;
use common::{Guest, children, machine};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Set for the copy of this program that is to be killed.
const VICTIM: &str = "BSDVM_HOSTED_VICTIM";

/// Makes a guest that spins, and tells the numbers of the stubs.
fn victim() {
    let m = machine(4);
    let mut g = Guest::new(&m, &[0xeb, 0xfe]);
    println!("stubs {:?}", children());
    g.run();
}

/// A program that is killed leaves no stub behind.
fn a_killed_program_leaves_nothing() {
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "stubs_come_and_go"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let told = lines
        .map(Result::unwrap)
        .find(|l| l.contains("stubs ["))
        .unwrap();
    let list = told.split(['[', ']']).nth(1).unwrap();
    let stubs: Vec<i32> = list.split(", ").map(|p| p.parse().unwrap()).collect();
    assert_eq!(stubs.len(), 2);
    program.kill().unwrap();
    program.wait().unwrap();
    let alive = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    let end = Instant::now() + Duration::from_secs(10);
    while stubs.iter().any(|&p| alive(p)) {
        assert!(Instant::now() < end, "stubs {stubs:?} are left");
        std::thread::yield_now();
    }
}

fn kill(pid: i32) {
    let done = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(done.unwrap().success());
}

#[test]
fn stubs_come_and_go() {
    if std::env::var_os(VICTIM).is_some() {
        return victim();
    }
    a_killed_program_leaves_nothing();
    let m = machine(4);
    let zygote = children();
    assert_eq!(zygote.len(), 1);
    let stub_of = |g: &Guest<'_>| {
        let _ = g;
        let new: Vec<_> = children()
            .into_iter()
            .filter(|p| !zygote.contains(p))
            .collect();
        assert_eq!(new.len(), 1, "{new:?}");
        new[0]
    };

    // A stub that is killed while it is parked.
    let mut g = Guest::new(&m, &[0x0f, 0x05, 0xeb, 0xfc]);
    assert_eq!(g.run(), Trap::Syscall);
    let pid = stub_of(&g);
    let fds: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .map(|e| std::fs::read_link(e.path()).unwrap().display().to_string())
        .collect();
    assert_eq!(fds.len(), 2, "{fds:?}");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    // Code, slot and the guest's page; what begins with v is the host's own: vDSO, its data, vsyscall.
    let ours = maps.lines().filter(|l| !l.contains("[v"));
    assert!(ours.count() <= 4, "{maps}");
    kill(pid);
    assert_eq!(g.run(), Trap::Gone);
    assert_eq!(g.run(), Trap::Gone);
    // The pmap lives on: the next thread makes a new stub.
    let mut again = GuestThread::spawn(&m, &g.pmap).unwrap();
    assert_eq!(again.run(&m, &g.pmap, &mut g.regs), Trap::Syscall);
    drop(again);
    drop(g);
    assert_eq!(children(), zygote);

    // A stub that is killed while it runs, and a pmap that is dropped while its guest runs.
    let mut g = Guest::new(&m, &[0xeb, 0xfe]);
    let pid = stub_of(&g);
    std::thread::scope(|s| {
        s.spawn(|| assert_eq!(g.run(), Trap::Gone));
        std::thread::sleep(std::time::Duration::from_millis(20));
        kill(pid);
    });
    drop(g);

    // The stub ends with its pmap, before its thread.
    let g = Guest::new(&m, &[0xeb, 0xfe]);
    let Guest { pmap, thread, .. } = g;
    drop(pmap);
    assert_eq!(children(), zygote);
    drop(thread);

    // A stub that goes to another pmap with its thread, and ends with that one.
    let mut g = Guest::new(&m, &[0x0f, 0x05]);
    assert_eq!(g.run(), Trap::Syscall);
    let pid = stub_of(&g);
    let pmap = m.pmap_create().unwrap();
    assert!(g.thread.move_to(&pmap));
    drop(std::mem::replace(&mut g.pmap, pmap));
    assert_eq!(stub_of(&g), pid);
    drop(g);
    assert_eq!(children(), zygote);

    // Many at once, dropped in the wrong order too.
    let guests: Vec<_> = (0..20).map(|_| Guest::new(&m, &[0x0f, 0x05])).collect();
    assert_eq!(children().len(), 21);
    drop(guests);
    assert_eq!(children(), zygote);

    // A machine that goes before its pmaps takes every stub along.
    let pmap = m.pmap_create().unwrap();
    let mut thread = GuestThread::spawn(&m, &pmap).unwrap();
    drop(m);
    let other = machine(4);
    let mut regs = Registers::default();
    assert_eq!(thread.run(&other, &pmap, &mut regs), Trap::Gone);
    let refused = GuestThread::spawn(&other, &pmap).unwrap_err();
    assert!(matches!(refused, HostedError::MachineGone), "{refused}");
    drop((other, pmap, thread));
    assert_eq!(children(), []);
}
