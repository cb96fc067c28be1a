//! Programs from start to end, under `bsdvm run` and natively, in turn: what a user waits for.
//!
//! The small ones are this program itself, run again with the name of what it is to do; it prints
//! the nanoseconds of each operation.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("bsdvm runs programs on Linux on x86-64");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        Some(what) => linux::act(&what),
        None => linux::main(),
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use bsdvm_benches::programs::{Clock, Under, compare, has_gvisor};
    use bsdvm_benches::table;
    use std::error::Error;
    use std::ffi::OsString;
    use std::io::{Read, Write, pipe};
    use std::process::Command;
    use std::ptr;
    use std::sync::{Arc, Condvar, Mutex};
    use std::time::Instant;

    type Done = Result<(), Box<dyn Error>>;

    const PAGE: usize = 4096;

    /// What this program does when it is told to, and what the table calls it.
    const ACTS: [(&str, &str); 9] = [
        ("call", "system call that the supervisor answers"),
        (
            "known",
            "system call that the guest's thread knows the answer of",
        ),
        ("clock", "`clock_gettime`"),
        ("order", "demand-zero, pages in order, each"),
        ("scattered", "demand-zero, pages in no order, each"),
        ("true", "fork + exec + exit of `/bin/true`"),
        ("fork", "fork + exit"),
        ("threads", "thread switch, there and back"),
        ("pipe", "pipe between processes, there and back"),
    ];

    /// Programs that are there already.
    const SHELL: [(&str, &str); 6] = [
        (
            "seq 2000000 \\| sort -r",
            "seq 2000000 | sort -r >/dev/null",
        ),
        ("python3 -c pass", "python3 -c pass"),
        (
            "python3, a million entries",
            "python3 -c 'd={i:i*2 for i in range(1000000)}'",
        ),
        ("compile and link a small program", COMPILE),
        (
            "sh, /bin/true 200 times",
            "for i in $(seq 200); do /bin/true; done",
        ),
        (
            "xz -T2, 4 MB",
            "seq 600000 | xz -T2 --block-size=1MiB -1 >/dev/null",
        ),
    ];
    const COMPILE: &str = r#"printf '#include <stdio.h>\n#include <stdlib.h>\nint main(void){return puts("hello")<0;}\n' | gcc -O2 -x c - -o /dev/null"#;

    pub(super) fn main() -> Done {
        let head = [
            "program",
            "to native",
            "to gVisor",
            "under bsdvm, ns",
            "native, ns",
            "under gVisor, ns",
        ];
        table::head("Programs on the hosted machine", &head);
        let gvisor = has_gvisor();
        let own = std::env::current_exe()?;
        for (act, what) in ACTS {
            let program = [own.clone().into_os_string(), act.into()];
            print(what, Clock::Printed, &program, gvisor)?;
        }
        for (what, script) in SHELL {
            let program = ["/bin/sh", "-c", script].map(OsString::from);
            print(what, Clock::Whole, &program, gvisor)?;
        }
        Ok(())
    }

    /// A row for a program that this system has; what it lacks is said.
    fn print(what: &str, clock: Clock, program: &[OsString], gvisor: bool) -> Done {
        let all = [Under::Ours, Under::Native, Under::Gvisor];
        if gvisor && let Ok(times) = compare(all, clock, program) {
            let names = ["ours", "native", "gVisor"];
            let stats: Vec<_> = names.into_iter().zip(times).collect();
            table::comparison(what, &stats);
            return Ok(());
        }
        match compare([Under::Ours, Under::Native], clock, program) {
            Ok([ours, native]) => {
                let none = || "–".to_owned();
                let (to, ours, native) = (
                    table::ratio(ours, native),
                    table::stat(ours),
                    table::stat(native),
                );
                table::row(&[what.to_owned(), to, none(), ours, native, none()]);
            }
            Err(why) => table::row(&[what.to_owned(), why.to_string()]),
        }
        Ok(())
    }

    /// Does what this program was told to.
    pub(super) fn act(what: &str) -> Done {
        let ns = match what {
            "call" => calls(libc::SYS_getppid),
            "known" => calls(libc::SYS_getpid),
            "clock" => each(200_000, || {
                std::hint::black_box(Instant::now());
            }),
            "order" => pages(|i, _| i),
            // Steps of an odd number of pages, that many apart, over a power of two.
            "scattered" => pages(|i, count| i * 2049 % count),
            "true" => each(100, || assert!(run("/bin/true"))),
            "fork" => each(200, fork),
            "threads" => threads(),
            "pipe" => pipes()?,
            _ => return Err("no such act".into()),
        };
        println!("{ns}");
        Ok(())
    }

    fn each(times: u32, mut f: impl FnMut()) -> f64 {
        let start = Instant::now();
        (0..times).for_each(|_| f());
        start.elapsed().as_nanos() as f64 / f64::from(times)
    }

    fn calls(number: i64) -> f64 {
        each(50_000, || {
            // SAFETY: a call without arguments or effect.
            unsafe { libc::syscall(number) };
        })
    }

    fn pages(order: impl Fn(usize, usize) -> usize) -> f64 {
        const COUNT: usize = 8192;
        let (prot, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping at an address that nothing uses, without huge pages.
        let at = unsafe {
            let at = libc::mmap(ptr::null_mut(), COUNT * PAGE, prot, flags, -1, 0);
            libc::madvise(at, COUNT * PAGE, libc::MADV_NOHUGEPAGE);
            at.cast::<u8>()
        };
        let mut i = 0;
        each(COUNT as u32, || {
            // SAFETY: a page of the mapping.
            unsafe { at.add(order(i, COUNT) * PAGE).write_volatile(1) };
            i += 1;
        })
    }

    fn run(program: &str) -> bool {
        Command::new(program).status().is_ok_and(|s| s.success())
    }

    fn fork() {
        // SAFETY: the child does nothing but end.
        unsafe {
            match libc::fork() {
                0 => libc::_exit(0),
                child => assert_eq!(libc::waitpid(child, ptr::null_mut(), 0), child),
            }
        }
    }

    const TURNS: u32 = 5_000;

    fn threads() -> f64 {
        let shared = Arc::new((Mutex::new(0u32), Condvar::new()));
        let play = |mine: u32, shared: &(Mutex<u32>, Condvar)| {
            let (turn, bell) = shared;
            for _ in 0..TURNS {
                let guard = turn.lock().expect("nobody panics");
                let waited = bell.wait_while(guard, |t| *t % 2 != mine);
                *waited.expect("nobody panics") += 1;
                bell.notify_one();
            }
        };
        let theirs = shared.clone();
        let other = std::thread::spawn(move || play(1, &theirs));
        let start = Instant::now();
        play(0, &shared);
        other.join().expect("nobody panics");
        start.elapsed().as_nanos() as f64 / f64::from(TURNS)
    }

    fn pipes() -> Result<f64, Box<dyn Error>> {
        let ((mut here, mut out), (mut there, mut back)) = (pipe()?, pipe()?);
        // SAFETY: the child reads and writes until its pipe ends, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(out);
            drop(there);
            let mut byte = [0];
            while here.read_exact(&mut byte).is_ok() && back.write_all(&byte).is_ok() {}
            // SAFETY: nothing else of this process is to run.
            unsafe { libc::_exit(0) };
        }
        let ns = each(TURNS, || {
            let mut byte = [7];
            let done = out
                .write_all(&byte)
                .and_then(|()| there.read_exact(&mut byte));
            assert!(done.is_ok());
        });
        drop(out);
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
        Ok(ns)
    }
}
