//! What the kernel runs: the program that the runner names, or its own tests.

use crate::exit::{End, exit};
use crate::heap;
use crate::link;
use crate::machine::{self, Bare};
use crate::ninep::Client;
use crate::platform::BarePlatform;
use crate::tests;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use bsdvm::{Memory, SubmapName, Vm};
use bsdvm_link::{Answer, Ask, Boot, Counts, Ending, Outcome};
use bsdvm_linux::{ExitStatus, Linux, Options, Program};
use bsdvm_x86_64::PAGE;
use core::sync::atomic::{AtomicPtr, Ordering};

/// The system that runs, for signals that come in.
static SYSTEM: AtomicPtr<Linux<BarePlatform>> = AtomicPtr::new(core::ptr::null_mut());

/// Frames that the kernel has beside those that it is asked to give to programs: its heap and the
/// records of the core.
const OWN: u32 = 2048;
/// Frames for programs when nobody says how many: 16 MiB.
const FEW: u32 = 4096;
/// Fewer frames than this are no memory to run a program in.
const FEWEST: u64 = 16;

/// The frames that the VM gets: as `memory=BYTES` on the command line says, and some more.
///
/// Panics when the machine has fewer.
pub(crate) fn frames(command_line: &[u8]) -> u32 {
    let mut words = command_line.split(|b| *b == b' ');
    let said = words.find_map(|word| word.strip_prefix(b"memory="));
    let bytes: Option<u64> = said.and_then(|n| str::from_utf8(n).ok()?.parse().ok());
    let wanted = bytes.map_or(FEW, |n| u32::try_from(PAGE.index(n)).unwrap_or(u32::MAX));
    let frames = wanted.saturating_add(OWN);
    assert!(
        frames <= Bare.frames(),
        "{frames} frames are wanted of {}",
        Bare.frames()
    );
    frames
}

/// Runs what the command line says to its end.
pub(crate) fn run(command_line: &[u8]) -> ! {
    for word in command_line.split(|b| *b == b' ') {
        match word {
            b"test" => tests::run(),
            b"panic" => tests::ends::panic(),
            b"thread-overflow" => tests::ends::thread_overflow(),
            b"full-heap" => tests::ends::full_heap(),
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
    if PAGE.index(boot.memory) < FEWEST {
        return early(Outcome::NoMemory);
    }
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
    let before = Left::of(heap::vm());
    let linux = Linux::new(heap::vm(), platform, options);
    SYSTEM.store(core::ptr::from_ref(linux).cast_mut(), Ordering::Relaxed);
    let mut outcome = match linux.run(program) {
        Ok(ExitStatus::Code(code)) => Outcome::Status(code),
        Ok(ExitStatus::Signal(number)) => Outcome::Killed(number),
        Err(e) => Outcome::NotStarted(e.0),
    };
    if let (true, Outcome::Status(_) | Outcome::Killed(_), Some(what)) =
        (check_wanted, &outcome, check(linux, &before))
    {
        outcome = Outcome::Broken(what);
    }
    Ending {
        outcome,
        map: linux.last_map(),
        counts: Counts::from(&linux.vm.counters()),
    }
}

/// What is wrong after everything has ended, if anything is.
fn check(linux: &Linux<BarePlatform>, before: &Left) -> Option<String> {
    if let Err(e) = linux.vm.check() {
        return Some(format!("{e:?}"));
    }
    let mut each = Left::of(linux.vm).0.into_iter().zip(before.0);
    let wrong = each.find(|((_, now), (_, before))| now != before);
    wrong.map(|((what, now), (_, before))| format!("{now} {what} at the end, {before} before"))
}

/// What programs leave behind, counted without the kernel's own maps.
struct Left([(&'static str, u64); 4]);

impl Left {
    fn of(vm: &Vm<Bare>) -> Left {
        let c = vm.counters();
        let kmem = heap::kmem();
        let maps = [Some(kmem.map()), kmem.named(SubmapName::Kmem)];
        let own = maps
            .into_iter()
            .flatten()
            .map(|m| m.space().entries())
            .sum();
        Left([
            ("spaces", c.spaces),
            ("objects", c.objects),
            ("entries", c.entries.saturating_sub(own)),
            ("pages charged", c.charged_pages),
        ])
    }
}
