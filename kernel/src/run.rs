//! What the kernel runs: the program that the runner names, or its own tests.

use crate::exit::{End, exit};
use crate::link;
use crate::machine::{self, Bare};
use crate::ninep::Client;
use crate::platform::BarePlatform;
use crate::tests;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use bsdvm::{BootError, Config, Memory, Vm};
use bsdvm_link::{Answer, Ask, Boot, Counts, Ending, Outcome};
use bsdvm_linux::{Linux, Options, Program};
use bsdvm_x86_64::PAGE;
use core::sync::atomic::{AtomicPtr, Ordering};

/// The system that runs, for signals that come in.
static SYSTEM: AtomicPtr<Linux<BarePlatform>> = AtomicPtr::new(core::ptr::null_mut());

/// Runs what the command line says to its end.
pub(crate) fn run(command_line: &[u8]) -> ! {
    for word in command_line.split(|b| *b == b' ') {
        match word {
            b"test" => tests::run(),
            b"panic" => tests::ends::panic(),
            b"overflow" => tests::ends::overflow(),
            b"double-fault" => tests::ends::double_fault(),
            _ => {}
        }
    }
    link::init();
    let boot = match link::ask(Ask::Boot) {
        Answer::Boot(boot) => *boot,
        other => panic!("the runner says {other:?} and not what to run"),
    };
    machine::seed(boot.seed);
    let ending = program(boot);
    link::tell(Ask::Ended(Box::new(ending)));
    exit(End::Good)
}

/// Passes a signal on to the programs. Whether somebody got it.
pub(crate) fn signal(number: u32) -> bool {
    // SAFETY: null, or what `Linux::new` gave, which lives for ever.
    let linux = unsafe { SYSTEM.load(Ordering::Relaxed).as_ref() };
    linux.is_some_and(|linux| linux.pass_signal(number).is_ok())
}

fn early(outcome: Outcome) -> Ending {
    Ending {
        outcome,
        map: None,
        counts: Counts::default(),
    }
}

fn program(mut boot: Boot) -> Ending {
    let frames = u32::try_from(PAGE.index(boot.memory)).unwrap_or(u32::MAX);
    assert!(
        frames <= Bare.frames(),
        "{frames} frames are wanted of {}",
        Bare.frames()
    );
    let config = Config {
        frame_limit: Some(frames),
        ..Config::default()
    };
    let vm = match Vm::new(Bare, config) {
        Ok(vm) => vm,
        Err(BootError::NoMemory) => return early(Outcome::NoMemory),
    };
    let options = Options {
        verbose: boot.verbose,
        keep_map: boot.map,
        memory: boot.memory_text.clone(),
    };
    let program = Program {
        path: core::mem::take(&mut boot.path),
        args: core::mem::take(&mut boot.args),
        env: core::mem::take(&mut boot.env),
    };
    let check_wanted = boot.check;
    let client: &'static Client = Box::leak(Box::new(Client::connect()));
    let platform = match BarePlatform::new(client, boot) {
        Ok(platform) => platform,
        Err(e) => return early(Outcome::NotStarted(e.0)),
    };
    let linux = Linux::new(vm, platform, options);
    SYSTEM.store(core::ptr::from_ref(linux).cast_mut(), Ordering::Relaxed);
    let mut outcome = match linux.run(program) {
        Ok(status) => Outcome::Status(status.shell()),
        Err(e) => Outcome::NotStarted(e.0),
    };
    if let (true, Outcome::Status(_), Some(what)) = (check_wanted, &outcome, check(linux)) {
        outcome = Outcome::Broken(what);
    }
    Ending {
        outcome,
        map: linux.last_map(),
        counts: Counts::from(&linux.vm.counters()),
    }
}

/// What is wrong after everything has ended, if anything is.
fn check(linux: &Linux<BarePlatform>) -> Option<String> {
    if let Err(e) = linux.vm.check() {
        return Some(format!("{e:?}"));
    }
    let c = linux.vm.counters();
    let left = [
        ("spaces", c.spaces),
        ("objects", c.objects),
        ("entries", c.entries),
        ("pages charged", c.charged_pages),
    ];
    let wrong = left.iter().find(|(_, number)| *number != 0);
    wrong.map(|(what, number)| format!("{number} {what} left at the end"))
}
