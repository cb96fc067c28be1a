//! Programs on the kernel in QEMU: what they say and how they end, natively and under
//! `bsdvm run --machine qemu`.
//!
//! Where QEMU or the kernel's target is missing each test says so and ends: `cargo xtask test`
//! installs them where it can.

mod common;

use common::{bsdvm, busybox, ended, guest, native, same_with, status, text};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const QEMU: &[&str] = &["--machine", "qemu"];

/// Whether the kernel can be run here, once it was built; says why not.
fn ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        // The first run builds the kernel, which may take longer than a program may.
        can_build() && {
            let mut first = Command::new(env!("CARGO_BIN_EXE_bsdvm"));
            let first = first.args(["run", "--machine", "qemu", "--", busybox(), "true"]);
            assert!(first.status().unwrap().success(), "the kernel does not run");
            true
        }
    })
}

fn can_build() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_qemu = std::env::split_paths(&path).any(|p| p.join("qemu-system-x86_64").is_file());
    let target = [
        "--print",
        "target-libdir",
        "--target",
        "x86_64-unknown-none",
    ];
    let libraries = Command::new("rustc").args(target).output();
    let has_target = libraries.is_ok_and(|o| std::path::Path::new(text(&o.stdout).trim()).is_dir());
    if !(has_qemu && has_target) {
        eprintln!("SKIPPED: QEMU {has_qemu}, target x86_64-unknown-none {has_target}");
    }
    has_qemu && has_target
}

#[test]
fn busybox_lists_directories() {
    if !ready() {
        return;
    }
    for folder in ["/usr", "/etc", "/usr/bin"] {
        same_with(QEMU, &[busybox(), "ls", "-l", folder]);
    }
    // The root holds what changes: processes are counted in `/proc`, `/tmp` is written.
    let steady = |listing: &[u8]| {
        let lines = text(listing);
        let lines = lines.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.last() {
                Some(&("proc" | "tmp")) => "(changes)".to_owned(),
                _ => words.join(" "),
            }
        });
        lines.collect::<Vec<_>>()
    };
    let program = [busybox(), "ls", "-lin", "/"];
    let (got, expected) = (bsdvm(QEMU, &program), native(&program));
    assert_eq!(steady(&got.stdout), steady(&expected.stdout));
}

#[test]
fn scripts_say_and_end_the_same() {
    if !ready() {
        return;
    }
    let scripts = [
        "echo hello; exit 7",
        "i=0; while [ $i -lt 20 ]; do i=$((i+1)); busybox true; done; echo $i",
        "for i in 1 2 3; do echo $i; done | busybox wc -l",
        "busybox yes | busybox head -n 3",
        "busybox seq 1 30000 | busybox sort -rn | busybox head -n 1",
        "(echo a; echo b >&2) 2>&1 | busybox cat; echo c >&2",
        "busybox sleep 0.1 & wait $!; echo waited $?",
        "kill -9 $$",
        "kill -TERM $$",
        "trap 'echo trapped' USR1; kill -USR1 $$; echo after",
        "trap 'echo bye' EXIT; exit 4",
        "busybox false; echo $?; no_such_command_here; echo $?",
        "cd /usr && busybox pwd && cd - && busybox pwd",
        "busybox cat /etc/passwd /etc/group | busybox md5sum",
        "busybox dd if=/dev/zero bs=1000 count=300 2>/dev/null | busybox wc -c",
        "echo lost > /dev/null; echo $?; echo full > /dev/full; echo $?",
        "busybox sh -c 'busybox sh -c \"exit 9\"; exit $?'; echo $?",
        "busybox cat <<X\nheredoc\nX",
        "busybox find /etc -maxdepth 1 -type d | busybox sort",
        "busybox cat /no/such/file /etc /etc/passwd/x",
    ];
    for script in scripts {
        same_with(QEMU, &[busybox(), "sh", "-c", script]);
    }
}

#[test]
fn dynamic_programs_run_too() {
    if !ready() {
        return;
    }
    let script = "echo $((6*7)); /bin/ls /etc | wc -l; /usr/bin/env -i A=1 /usr/bin/env";
    same_with(QEMU, &["/bin/sh", "-c", script]);
}

#[test]
fn arguments_may_hold_any_byte() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    if !ready() {
        return;
    }
    let odd = OsStr::from_bytes(b"a \"b\" 'c' $d \\ \n \xff \xc3\x28,=");
    let echo: [&OsStr; 5] = [
        busybox().as_ref(),
        "printf".as_ref(),
        "%s|".as_ref(),
        odd,
        "".as_ref(),
    ];
    same_with(QEMU, &echo);
}

#[test]
fn files_are_made_changed_and_removed() {
    if !ready() {
        return;
    }
    let script = "d=$(busybox mktemp -d) && cd $d && echo one > a && busybox cp a b && \
        echo two >> b && busybox mv b c && busybox ln -s c l && busybox cat l && busybox ls && \
        busybox ln c h && busybox stat -c '%h %s' c && busybox ln -s l m && busybox cat m && \
        busybox readlink m && busybox ln -s loop loop; busybox cat loop; \
        busybox chmod 600 a && busybox stat -c %a a && busybox mkdir s && busybox ls s/../s && \
        busybox touch -d @5 a && busybox stat -c %Y a && busybox truncate -s 2 a && \
        busybox cat a && busybox mkdir s; busybox rmdir s && busybox rm a c h l m loop && \
        busybox ls -a && cd / && busybox rmdir $d && echo gone";
    same_with(QEMU, &[busybox(), "sh", "-c", script]);
}

#[test]
fn signals_threads_and_faults_are_as_on_the_host() {
    if !ready() {
        return;
    }
    same_with(QEMU, &[guest("signals")]);
    let acts = guest("acts");
    let acts = acts.to_str().unwrap();
    same_with(QEMU, &[acts, "churn"]);
    for act in ["jump", "overflow"] {
        let got = bsdvm(QEMU, &[acts, act]);
        assert_eq!(status(&got), 139, "{act}");
        assert_eq!(text(&got.stderr), "", "{act}");
    }
}

#[test]
fn programs_that_cannot_be_run_say_why() {
    if !ready() {
        return;
    }
    let cases = [
        ("/no/such/program", 127),
        ("no-such-program", 127),
        ("/etc", 126),
        ("/etc/passwd", 126),
    ];
    for (program, expected) in cases {
        let (got, hosted) = (bsdvm(QEMU, &[program]), bsdvm(&[], &[program]));
        assert_eq!(text(&got.stderr), text(&hosted.stderr));
        assert_eq!(status(&got), expected, "{program}");
    }
    // A file that is executable and no program: the kernel finds that out.
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-program");
    std::fs::write(&file, "neither\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&file, mode).unwrap();
    let (got, hosted) = (bsdvm(QEMU, &[&file]), bsdvm(&[], &[&file]));
    assert_eq!(text(&got.stderr), text(&hosted.stderr));
    assert_eq!(status(&got), 126);
    let huge = bsdvm(
        &["--machine", "qemu", "--memory", "900000G"],
        &[busybox(), "true"],
    );
    let said = text(&huge.stderr);
    assert!(
        said.starts_with("bsdvm: the kernel in QEMU failed: qemu-system-x86_64: "),
        "{said}"
    );
    assert_eq!((said.lines().count(), status(&huge)), (1, 125));
    let tiny = bsdvm(&["--machine", "qemu", "--memory", "4K"], &[busybox()]);
    assert_eq!(
        (text(&tiny.stderr).as_str(), status(&tiny)),
        ("bsdvm: --memory 4K: too small to run anything in\n", 125)
    );
}

#[test]
fn memory_is_as_much_as_was_asked_for() {
    if !ready() {
        return;
    }
    let acts = guest("acts");
    let acts = acts.to_str().unwrap();
    let small = ["--machine", "qemu", "--memory", "32M"];
    let fits = bsdvm(&small, &[acts, "touch", "4096"]);
    assert_eq!((text(&fits.stderr).as_str(), status(&fits)), ("", 0));
    let greedy = bsdvm(&small, &[acts, "touch", "16384"]);
    let said = text(&greedy.stderr);
    assert!(
        said.starts_with("bsdvm: out of memory (32M): killed process ")
            && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!(status(&greedy), 137);
    let script = format!("{acts} touch 16384; echo $?; echo still here");
    let shell = bsdvm(&small, &[busybox(), "sh", "-c", &script]);
    assert_eq!(text(&shell.stdout), "137\nstill here\n");
}

#[test]
fn what_the_vm_counted_and_the_last_map_are_shown() {
    if !ready() {
        return;
    }
    let acts = guest("acts");
    let acts = acts.to_str().unwrap();
    let map = bsdvm(&["--machine", "qemu", "--map"], &[acts, "maps"]);
    assert_eq!(text(&map.stdout), text(&map.stderr));
    assert!(text(&map.stdout).contains("[stack]"));
    let zeroed = |pages: &str| {
        let options = ["--machine", "qemu", "--stats"];
        let table = text(&bsdvm(&options, &[acts, "touch", pages]).stderr);
        let line = table.lines().find(|l| l.contains("demand-zero faults"));
        let number = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or_else(|| panic!("no count: {table}"))
    };
    assert_eq!(zeroed("100") - zeroed("0"), 100);
}

/// A runner whose program has said `ready`.
fn shell(script: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bsdvm"))
        .args(["run", "--machine", "qemu", "--check", "--"])
        .args([busybox(), "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, out)
}

#[test]
fn input_is_read_to_its_end_however_slowly_it_comes() {
    if !ready() {
        return;
    }
    let (mut child, mut out) = shell("echo ready; read line; echo got $line; busybox wc -c");
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"first\n").unwrap();
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "got first\n");
    input.write_all(&[b'x'; 300_000]).unwrap();
    drop(input);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "300000\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn output_that_nobody_reads_any_more_ends_the_program() {
    if !ready() {
        return;
    }
    let (mut child, out) = shell("echo ready; exec busybox yes");
    drop(out);
    assert_eq!(ended(child.wait().unwrap()), -13);
}

#[test]
fn signals_reach_the_program() {
    if !ready() {
        return;
    }
    let ends = [
        ("INT", "echo ready; exec busybox sleep 50", "", -2),
        ("TERM", "echo ready; while :; do :; done", "", -15),
        (
            "INT",
            "trap 'echo caught; exit 5' INT; echo ready; while :; do busybox sleep 0.05; done",
            "caught\n",
            5,
        ),
    ];
    for (signal, script, said, status) in ends {
        let (mut child, mut out) = shell(script);
        let pid = child.id().to_string();
        let mut kill = Command::new("kill");
        assert!(kill.args(["-s", signal, &pid]).status().unwrap().success());
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        let end = ended(child.wait().unwrap());
        assert_eq!((rest.as_str(), end), (said, status), "{script}");
    }
}

#[test]
fn a_runner_that_is_killed_takes_qemu_along() {
    if !ready() {
        return;
    }
    let (mut child, _out) = shell("echo ready; exec busybox sleep 50");
    let folder = format!("/proc/{0}/task/{0}/children", child.id());
    let children = std::fs::read_to_string(folder).unwrap();
    let qemu = children.split_whitespace().next().expect("QEMU runs");
    let name = std::fs::read_to_string(format!("/proc/{qemu}/comm")).unwrap();
    assert!(name.starts_with("qemu-system"), "{name}");
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::fs::read_to_string(format!("/proc/{qemu}/stat")).is_ok_and(|s| !s.contains(") Z ")) {
        assert!(Instant::now() < deadline, "QEMU outlives its runner");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_host_without_qemu_is_told_how_to_get_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bsdvm"));
    let output = command
        .args(["run", "--machine", "qemu", "--", busybox(), "true"])
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    let said = "bsdvm: qemu-system-x86_64 is not installed: apt-get install qemu-system-x86\n";
    assert_eq!(text(&output.stderr), said);
    assert_eq!(output.status.code(), Some(125));
}
