//! Whole programs: what they say and how they end, natively and under `bsdvm run`.

mod common;

use common::{bsdvm, busybox, guest, native, same, status, text};

/// The listing without what the run itself changes: `/proc` counts processes, `/tmp` is written.
fn steady(listing: &[u8]) -> String {
    let lines = text(listing);
    let lines = lines
        .lines()
        .map(|line| match line.split_whitespace().last() {
            Some("proc" | "tmp") => "(changes)",
            _ => line,
        });
    lines.collect::<Vec<_>>().join("\n")
}

fn same_listing(program: &[&str]) {
    let (got, expected) = (bsdvm(&[], program), native(program));
    assert_eq!(steady(&got.stdout), steady(&expected.stdout));
    assert_eq!(text(&got.stderr), "");
    assert_eq!(status(&got), status(&expected));
}

#[test]
fn static_busybox_lists_the_root() {
    same_listing(&[busybox(), "ls", "-l", "/"]);
}

#[test]
fn the_hosts_own_ls_lists_the_root() {
    same_listing(&["/bin/ls", "-l", "/"]);
    same_listing(&["/bin/ls", "-la", "/etc"]);
}

#[test]
fn shell_scripts_say_and_end_the_same() {
    let scripts = [
        "echo hello",
        "exit 7",
        "for i in 1 2 3; do echo $i; done",
        "i=0; while [ $i -lt 20 ]; do i=$((i+1)); busybox true; done; echo $i",
        "for i in 1 2 3; do echo $i; done | busybox wc -l",
        "busybox yes | busybox head -n 3",
        "busybox seq 1 30000 | busybox sort -rn | busybox head -n 1",
        "(echo a; echo b >&2) 2>&1 | busybox cat",
        "x=$(echo inner); echo got $x",
        "busybox sleep 0.1 & wait $!; echo waited $?",
        "(exit 3) || echo failed $?",
        "kill -9 $$",
        "kill -TERM $$",
        "trap 'echo trapped' USR1; kill -USR1 $$; echo after",
        "trap 'echo bye' EXIT; exit 4",
        "busybox false; echo $?",
        "no_such_command_here; echo $?",
        "cd /usr && busybox pwd && cd - ",
        "read line < /etc/passwd; echo $line",
        "busybox cat /etc/passwd /etc/group | busybox md5sum",
        "busybox dd if=/dev/zero bs=1000 count=300 2>/dev/null | busybox wc -c",
        "exec busybox echo replaced",
        "set -e; busybox false; echo not reached",
        "f() { echo in $1; return 5; }; f x; echo $?",
        "busybox cat <<X\nheredoc\nX",
        "busybox sh -c 'busybox sh -c \"exit 9\"; exit $?'; echo $?",
        "busybox find /etc -maxdepth 1 -type d | busybox sort",
        "busybox echo aXb | busybox sed s/X/-/ | busybox tr a-z A-Z",
    ];
    for script in scripts {
        same(&[busybox(), "sh", "-c", script]);
    }
}

#[test]
fn files_are_made_changed_and_removed() {
    let script = "d=$(busybox mktemp -d) && cd $d && echo one > a && busybox cp a b && \
        echo two >> b && busybox mv b c && busybox ln -s c l && busybox cat l && busybox ls && \
        busybox chmod 600 a && busybox stat -c %a a && busybox mkdir s && busybox rmdir s && \
        busybox rm a c l && cd / && busybox rmdir $d && echo gone";
    same(&[busybox(), "sh", "-c", script]);
}

#[test]
fn dynamic_programs_run() {
    same(&["/bin/echo", "hello"]);
    same(&["/bin/cat", "/etc/passwd"]);
    same(&["/bin/cat", "/no/such/file"]);
    same(&["/bin/sh", "-c", "echo $((6*7)); /bin/ls / | wc -l"]);
    same(&["/usr/bin/env", "-i", "A=1", "/usr/bin/env"]);
    same(&["/usr/bin/id"]);
    same(&["/bin/uname", "-a"]);
}

#[test]
fn memory_calls_answer_as_the_hosts_do() {
    same(&[guest("memory")]);
}

#[test]
fn signals_and_threads_work_as_on_the_host() {
    same(&[guest("signals")]);
}

#[test]
fn threads_come_and_go() {
    let acts = guest("acts");
    for _ in 0..5 {
        same(&[acts.to_str().unwrap(), "churn"]);
    }
}

#[test]
fn wild_jumps_and_endless_stacks_kill_as_on_the_host() {
    let acts = guest("acts");
    let acts = acts.to_str().unwrap();
    for act in ["jump", "overflow"] {
        let got = bsdvm(&[], &[acts, act]);
        assert_eq!(status(&got), 139, "{act}");
        assert_eq!(text(&got.stderr), "", "{act}");
    }
}

#[test]
fn input_is_read_and_output_broken_off() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_bsdvm"))
        .args(["run", "--", busybox(), "wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&[b'x'; 100_000])
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "100000\n");
    // A reader that goes away: SIGPIPE comes from the host's pipe too.
    let script = format!(
        "{} run -- {} yes | head -n 1; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_bsdvm"),
        busybox()
    );
    let output = native(&["/bin/bash", "-c", &script]);
    assert_eq!(
        (text(&output.stdout).as_str(), status(&output)),
        ("y\n", 128 + 13)
    );
}
