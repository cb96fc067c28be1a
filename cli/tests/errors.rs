//! Bad input gives one clear line and a status, never a panic.

mod common;

use common::{bsdvm, busybox, guest, native, status, text};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

fn scratch(name: &str) -> PathBuf {
    let name = format!("{name}.{}", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn executable(name: &str, contents: &[u8]) -> PathBuf {
    let path = scratch(name);
    std::fs::write(&path, contents).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// One line that begins with our name, and this status.
fn refused(output: &Output, expected: i32, what: &str) {
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{what}: {said}");
    assert!(said.starts_with("bsdvm: "), "{what}: {said}");
    assert_eq!(status(output), expected, "{what}: {said}");
    assert_eq!(text(&output.stdout), "", "{what}");
}

#[test]
fn programs_that_cannot_be_run_say_why() {
    refused(&bsdvm(&[], &["/no/such/program"]), 127, "missing");
    refused(&bsdvm(&[], &["no-such-program"]), 127, "missing in PATH");
    refused(&bsdvm(&[], &["/etc"]), 126, "directory");
    refused(&bsdvm(&[], &["/etc/passwd"]), 126, "not executable");
    let plain = executable("plain-text", b"echo hello\n");
    refused(&bsdvm(&[], &[plain]), 126, "text without #!");
    let empty = executable("empty", b"");
    refused(&bsdvm(&[], &[empty]), 126, "empty");
    let lost = executable("lost-interpreter", b"#!/no/such/interpreter\n");
    refused(&bsdvm(&[], &[lost]), 127, "interpreter missing");
    let own = scratch("own-interpreter");
    let own = executable(
        "own-interpreter",
        format!("#!{}\n", own.display()).as_bytes(),
    );
    refused(&bsdvm(&[], &[own]), 126, "its own interpreter");
    refused(&bsdvm(&["--memory", "1K"], &[busybox()]), 125, "1K");
    refused(&bsdvm(&["--memory", "4K"], &[busybox()]), 125, "4K");
    let small = bsdvm(&["--memory", "96K"], &[busybox(), "true"]);
    refused(&small, 137, "96K");
}

#[test]
fn swap_that_cannot_be_had_is_named() {
    let swap = |size: &str| bsdvm(&["--swap", size], &[busybox(), "true"]);
    for size in ["0", "1", "4095"] {
        refused(&swap(size), 125, size);
    }
    // A file with holes: as large as anybody says.
    for size in ["4K", "1T", "8000T"] {
        let output = swap(size);
        assert_eq!(
            (text(&output.stderr).as_str(), status(&output)),
            ("", 0),
            "{size}"
        );
    }
    let run = env!("CARGO_BIN_EXE_bsdvm");
    for directory in ["/no/such/directory", "/proc", "/etc/passwd"] {
        let variable = format!("TMPDIR={directory}");
        let command = [
            "env",
            &variable,
            run,
            "run",
            "--swap",
            "1M",
            "--",
            "/bin/true",
        ];
        let output = native(&command);
        refused(&output, 125, directory);
        let said = text(&output.stderr);
        assert!(
            said.contains("--swap 1M") && said.contains(directory),
            "{said}"
        );
    }
    let output = bsdvm(&["--machine", "qemu", "--swap", "1M"], &["/bin/true"]);
    refused(&output, 125, "qemu");
}

#[test]
fn scripts_run_by_their_first_line() {
    let script = format!("#!{} sh\necho script $0 $1\n", busybox());
    let script = executable("script", script.as_bytes());
    let output = bsdvm(&[], &[script.as_os_str(), "argument".as_ref()]);
    let expected = format!("script {} argument\n", script.display());
    assert_eq!((text(&output.stdout), status(&output)), (expected, 0));
}

#[test]
fn truncated_programs_are_refused() {
    let whole = std::fs::read(busybox()).unwrap();
    for n in [
        1,
        4,
        16,
        63,
        64,
        65,
        119,
        120,
        400,
        4096,
        1 << 20,
        whole.len() / 2,
    ] {
        let file = executable(&format!("truncated-{n}"), &whole[..n]);
        refused(&bsdvm(&[], &[&file]), 126, &format!("{n} bytes"));
        std::fs::remove_file(file).unwrap();
    }
}

/// A program of one page: it ends with status 0, and everything else in it traps.
fn tiny() -> Vec<u8> {
    let mut f = vec![0xcc; 4096];
    f[..120].fill(0);
    f[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    let mut put = |at: usize, value: u64, len: usize| {
        f[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    put(16, 2, 2);
    put(18, 62, 2);
    put(20, 1, 4);
    put(24, 0x40_0078, 8);
    put(32, 64, 8);
    put(52, 64, 2);
    put(54, 56, 2);
    put(56, 1, 2);
    put(64, 1, 4);
    put(68, 5, 4);
    put(80, 0x40_0000, 8);
    put(88, 0x40_0000, 8);
    put(96, 4096, 8);
    put(104, 4096, 8);
    put(112, 4096, 8);
    // mov eax, 60; xor edi, edi; syscall
    f[120..129].copy_from_slice(&[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]);
    f
}

#[test]
fn hostile_programs_end_without_a_panic() {
    let whole = tiny();
    assert_eq!(status(&bsdvm(&[], &[executable("tiny", &whole)])), 0);
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let file = scratch("hostile");
    for round in 0..60 {
        let mut bytes = whole.clone();
        for _ in 0..1 + next() % 3 {
            let at = 16 + (next() % 104) as usize;
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, next() as u8][(next() % 6) as usize];
        }
        executable("hostile", &bytes);
        let output = bsdvm(&[], &[&file]);
        let said = text(&output.stderr);
        assert!(
            !said.contains("panicked") && !said.contains("internal"),
            "round {round}: {said}"
        );
        assert!(said.lines().count() <= 1, "round {round}: {said}");
    }
}

#[test]
fn a_program_that_wants_more_memory_than_there_is_is_killed_and_named() {
    let acts = guest("acts");
    let acts = acts.to_str().unwrap();
    let output = bsdvm(&["--memory", "32M"], &[acts, "touch", "16384"]);
    let said = text(&output.stderr);
    assert!(
        said.starts_with("bsdvm: out of memory (32M): killed process "),
        "{said}"
    );
    assert!(
        said.trim_end().ends_with("(acts)") && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!(status(&output), 137);
    // What fits runs in the same memory.
    assert_eq!(
        status(&bsdvm(&["--memory", "32M"], &[acts, "touch", "4096"])),
        0
    );
}

#[test]
fn only_the_greedy_one_of_several_is_killed() {
    let acts = guest("acts");
    let script = format!("{} touch 16384; echo $?; echo still here", acts.display());
    let output = bsdvm(&["--memory", "32M"], &[busybox(), "sh", "-c", &script]);
    assert_eq!(
        text(&output.stdout),
        "137\nstill here\n",
        "{}",
        text(&output.stderr)
    );
    assert_eq!(status(&output), 0);
}

/// A host that refuses us one call, by number: what the line has to name.
const REFUSALS: [(&str, &str); 5] = [
    ("317", "seccomp(SECCOMP_SET_MODE_FILTER)"),
    ("157", "prctl(PR_SET_NO_NEW_PRIVS)"),
    ("322", "execveat"),
    ("56", "clone"),
    ("302", "prlimit64"),
];

#[test]
fn a_host_without_the_rights_that_we_need_is_named() {
    let deny = guest("deny");
    let deny = deny.to_str().unwrap();
    let run = env!("CARGO_BIN_EXE_bsdvm");
    for (number, named) in REFUSALS {
        let output = native(&[deny, number, run, "run", "--", "/bin/true"]);
        refused(&output, 125, named);
        assert!(text(&output.stderr).contains(named), "call {number}");
    }
    // Without memfd_create there is a way around it.
    let output = native(&[deny, "319", run, "run", "--", "/bin/true"]);
    assert_eq!((text(&output.stderr).as_str(), status(&output)), ("", 0));
}

#[test]
fn limits_that_are_too_small_are_named() {
    let run = env!("CARGO_BIN_EXE_bsdvm");
    let output = native(&["prlimit", "--as=300000000", run, "run", "--", "/bin/true"]);
    refused(&output, 125, "address space");
    assert!(text(&output.stderr).contains("ulimit -v"));
    let output = native(&["prlimit", "--nofile=5", run, "run", "--", "/bin/true"]);
    refused(&output, 125, "open files");
}

#[test]
fn a_mapping_beyond_all_memory_is_refused_and_the_program_goes_on() {
    let acts = guest("acts");
    let output = bsdvm(&[], &[acts.to_str().unwrap(), "huge"]);
    assert_eq!(text(&output.stdout), "Cannot allocate memory\nstill here\n");
    assert_eq!((text(&output.stderr).as_str(), status(&output)), ("", 0));
}
