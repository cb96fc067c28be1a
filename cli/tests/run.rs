//! Whole programs: what they say and how they end, natively and under `bsdvm run`.

mod common;

use common::{bsdvm, busybox, guest, native, same, status, text};

/// The listing without what the run itself changes: `/proc` counts processes, `/tmp` is written,
/// and the columns are as wide as their numbers.
fn steady(listing: &[u8]) -> String {
    let lines = text(listing);
    let lines = lines.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.last() {
            Some(&("proc" | "tmp")) => "(changes)".to_owned(),
            _ => words.join(" "),
        }
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
fn what_needs_no_supervisor_is_answered_as_on_the_host() {
    same(&[guest("short")]);
}

#[test]
fn threads_come_and_go() {
    let acts = guest("acts");
    for _ in 0..5 {
        same(&[acts.to_str().unwrap(), "churn"]);
    }
}

#[test]
fn a_page_that_goes_again_and_again_is_no_lack_of_memory() {
    let acts = guest("acts");
    same(&[acts.to_str().unwrap(), "again"]);
}

#[test]
fn wild_jumps_and_endless_stacks_kill_as_on_the_host() {
    let acts = guest("acts");
    let acts = acts.to_str().unwrap();
    for act in ["jump", "overflow"] {
        let got = bsdvm(&[], &[acts, act]);
        assert_eq!(status(&got), 139, "{act}");
        assert_eq!(status(&native(&[acts, act])), 139, "{act} natively");
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

/// Ordinary commands, each in bash. What a file has in `$d` is removed with it.
const COMMANDS: [&str; 64] = [
    "cat /etc/passwd /etc/group",
    "head -n 3 /etc/passwd; tail -n 2 /etc/passwd; tail -c 20 /etc/passwd",
    "wc /etc/passwd; wc -c < /etc/group",
    "sort -r /etc/passwd; seq 50000 | sort -n | tail -n 1",
    "printf 'a\\na\\nb\\n' | uniq -c",
    "cut -d: -f1 /etc/passwd | paste -s -d,",
    "tr a-z A-Z < /etc/passwd",
    "sed -n '2,4p;s/root/R/p' /etc/passwd",
    "awk -F: '{n+=$3} END {print NR, n}' /etc/passwd",
    "grep -n root /etc/passwd; grep nobody-here /etc/passwd",
    "grep -r root /etc/passwd /etc/group",
    "find /etc -maxdepth 1 -name 'p*' | sort",
    "find /etc/apt -type f 2>&1 | sort | xargs ls -l",
    "echo 1 2 3 | xargs -n1 echo x",
    "tar cf - -C /etc passwd group | tar tvf -",
    "tar czf - -C /etc passwd | tar xzOf - | cmp - /etc/passwd && echo same",
    "gzip -c /etc/passwd | gzip -dc | md5sum",
    "dd if=/etc/passwd bs=16 count=2 2>/dev/null",
    "dd if=/dev/zero bs=1M count=9 2>/dev/null | md5sum",
    "head -c 3000000 /dev/zero | wc -c; head -c 500 /dev/urandom | wc -c",
    "od -A x -t x1z /etc/passwd | head -n 3",
    "md5sum /etc/passwd; sha256sum /bin/ls; cksum /etc/group",
    "date -u -d@0; date -u -d '2020-02-29 12:00' +%s",
    "env -i A=1 env; env -C / pwd",
    "printf '%s %05d %x\\n' a 3 255; expr 3 + 4; expr 1 = 2",
    "echo hi | tee /dev/null /dev/stdout",
    "diff /etc/passwd /etc/group | head -n 4; cmp /etc/passwd /etc/group",
    "stat -c '%n %s %a %U %F' /etc/passwd /etc /dev/null",
    "du -s /etc/apt; ls -R /etc/apt; ls -la /etc /bin/sh",
    "perl -e 'print join(\",\", map {$_*2} 1..5), \"\\n\"'",
    "perl -e 'if(!fork){exit 3} wait; print $?>>8, \"\\n\"; print `echo hi`'",
    "perl -e '$SIG{ALRM}=sub{print \"rang\\n\"; exit}; alarm 1; sleep 5'",
    "a=(x y z); echo ${a[1]} ${#a[@]}; declare -A m=([k]=v); echo ${m[k]}",
    "diff <(echo a) <(echo b); while read -r l; do echo \"[$l]\"; done < <(seq 3)",
    "coproc cat; echo hi >&${COPROC[1]}; read -r -u ${COPROC[0]} x; echo $x",
    "set -o pipefail; false | true; echo $?; yes | head -n 1; echo ${PIPESTATUS[*]}",
    "timeout 0.2 sleep 5; echo $?; (timeout -s KILL 0.1 sleep 5; echo $?) 2>/dev/null",
    "nice -n 5 nice; nice; nproc",
    "basename /a/b; dirname /a/b; readlink -f /bin/sh; realpath /etc/..",
    "tac /etc/passwd | head -n 1; rev /etc/hostname; nl /etc/passwd | tail -n 1",
    "comm <(seq 3) <(seq 2 4); join <(seq 3) <(seq 2 4); paste <(seq 2) <(seq 2)",
    "d=$(mktemp -d); cd $d; split -b 100 /etc/passwd s.; cat s.* | md5sum; ls; rm -r $d",
    "d=$(mktemp -d); touch -d @5 $d/t; stat -c %Y $d/t; chmod 640 $d/t; stat -c %a $d/t; rm -r $d",
    "d=$(mktemp -d); cd $d; mkdir -p a/b; mv a c; ls -R; mkfifo f; ls -l f | cut -c1-10; rm -r $d",
    "d=$(mktemp -d); cp -r /etc/apt $d/apt 2>/dev/null; diff -r /etc/apt $d/apt && echo same; rm -r $d",
    "d=$(mktemp -d); cd $d; mkfifo f; echo through > f & cat f; wait; rm -r $d",
    "d=$(mktemp -d); truncate -s 1M $d/t; stat -c %s $d/t; echo x >> $d/t; wc -c < $d/t; rm -r $d",
    "d=$(mktemp -d); exec 3<>$d/e; echo hi >&3; cat $d/e; rm -r $d",
    "d=$(mktemp -d); flock $d/lock echo locked; install -m 600 /etc/passwd $d/p; stat -c %a $d/p; rm -r $d",
    "id; whoami; hostname; tty; groups; uname -srm; getconf PAGESIZE",
    "ulimit -n; ulimit -s; umask; umask 027; umask; (umask 0; umask)",
    "cat /proc/self/comm; tr '\\0' ' ' < /proc/self/cmdline; readlink /proc/self/exe",
    "shuf -i 1-10 | sort -n | tr '\\n' ' '; factor 123456; base64 /etc/hostname",
    "kill -0 $$ && echo alive; trap 'echo int' INT; kill -INT $$; echo after",
    "for i in $(seq 5); do (echo $i) & done | sort; wait",
    "sleep 0.1 & jobs %1 | wc -l; wait; echo $?",
    "sort --parallel=2 -S 1M /etc/passwd | md5sum",
    "stdbuf -o0 echo hi; setsid -w echo hi; nohup echo hi 2>/dev/null",
    "test -f /etc/passwd -a -d /etc && echo yes; [[ abc =~ b ]] && echo match",
    "cat /no/such/file; ls /no/such/dir; cd /no/such/dir; rmdir /etc; exit 3",
    "echo $((2**40)) ${RANDOM:+r} {1..5} ~root; printf '%(%Y)T\\n' 0",
    "exec 5< /etc/passwd; read -r -u 5 l; echo $l; exec 5<&-; read -r -u 5 l; echo $?",
    "bash -c 'exec sh -c \"exit 9\"'; echo $?; (exec /no/such/program); echo $?",
    "dd if=/dev/full bs=10 count=1 2>/dev/null | wc -c; echo x > /dev/full; echo $?",
];

#[test]
fn ordinary_commands_say_and_end_the_same() {
    for command in COMMANDS {
        same(&["/bin/bash", "-c", command]);
    }
}

/// Commands of programs that a machine may lack: then there is nothing to compare.
#[test]
fn what_else_is_installed_says_and_ends_the_same() {
    let commands = [
        ("bzip2", "bzip2 -c /etc/passwd | bzip2 -dc | md5sum"),
        ("xz", "xz -c /etc/passwd | xz -dc | md5sum"),
        ("git", "git --version; git -C / rev-parse --verify x 2>&1"),
        (
            "cc",
            "d=$(mktemp -d); echo 'int main(){return 3;}' > $d/x.c; cc -o $d/x $d/x.c; $d/x; echo $?; rm -r $d",
        ),
        ("python3", "python3 -c 'print(1+1)'"),
        (
            "python3",
            "python3 -c 'import socket; a,b=socket.socketpair(); a.send(b\"x\"); print(b.recv(1)); a.close(); print(b.recv(1))'",
        ),
        (
            "python3",
            "python3 -c 'import asyncio; asyncio.run(asyncio.sleep(0.01)); print(1)'",
        ),
        (
            "python3",
            "python3 -c 'import threading as t; x=[t.Thread(target=print,args=(i,)) for i in range(3)]; [(y.start(),y.join()) for y in x]'",
        ),
        (
            "python3",
            "python3 -c 'import select,os; e=select.epoll(); r,w=os.pipe(); e.register(r,select.EPOLLIN|select.EPOLLET); print(e.poll(0.01)); os.write(w,b\"x\"); print(len(e.poll(1)),len(e.poll(0.01)))'",
        ),
    ];
    for (program, command) in commands {
        let probe = native(&["/bin/bash", "-c", &format!("command -v {program}")]);
        if status(&probe) == 0 {
            same(&["/bin/bash", "-c", command]);
        }
    }
}

#[test]
fn many_processes_with_many_files_fit() {
    // Each of 40 processes has 50 files open: more than the usual limit of one process.
    let script = "for i in $(busybox seq 40); do (for j in $(busybox seq 10 59); do \
        eval \"exec $j</etc/passwd\"; done; busybox sleep 1; echo $i) & done; wait";
    let command = format!("{{ {script}; }} | sort -n | md5sum");
    let limited = ["prlimit", "--nofile=1024:", "/bin/bash", "-c", &command];
    let expected = native(&limited);
    let run = env!("CARGO_BIN_EXE_bsdvm");
    let ours = [&limited[..2], &[run, "run", "--check", "--"], &limited[2..]].concat();
    let got = native(&ours);
    assert_eq!(text(&got.stderr), "");
    assert_eq!(text(&got.stdout), text(&expected.stdout));
}

#[test]
fn masks_and_ignored_signals_are_inherited() {
    // With `umask 0` nothing is masked but what the program itself asks for.
    for mask in ["0", "027"] {
        let script = "d=$(mktemp -d); umask; touch $d/f; mkdir $d/d; stat -c %a $d/f $d/d; rm -r $d; \
            trap '' USR2; kill -USR1 $$; sh -c 'kill -USR1 $$; kill -USR2 $$; echo alive'";
        let setup = format!("umask {mask}; trap '' USR1; exec \"$@\"");
        let run = |program: &[&str]| native(&[&["sh", "-c", &setup, "sh"][..], program].concat());
        let expected = run(&["sh", "-c", script]);
        let bsdvm = [env!("CARGO_BIN_EXE_bsdvm"), "run", "--check", "--"];
        let got = run(&[&bsdvm[..], &["sh", "-c", script]].concat());
        assert_eq!(text(&got.stderr), text(&expected.stderr));
        assert_eq!(text(&got.stdout), text(&expected.stdout));
        assert!(text(&got.stdout).ends_with("alive\n"));
        assert_eq!(status(&got), status(&expected));
    }
}

#[test]
fn a_namespace_without_the_leader_of_the_group_will_do() {
    // `timeout` leads the group, outside; the number of its group is 0 for those inside.
    let script = "sh -c 'exit 7'; echo $?; setsid true && cut -d ' ' -f 1 /proc/self/stat | wc -l";
    let bsdvm = [env!("CARGO_BIN_EXE_bsdvm"), "run", "--check", "--"];
    let inside = ["unshare", "--pid", "--fork", "--mount-proc"];
    if !native(&[&inside[..], &["true"]].concat()).status.success() {
        eprintln!("not run: the host gives us no namespace");
        return;
    }
    let output = native(&[&inside, &bsdvm, &["sh", "-c", script][..]].concat());
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout), "7\n1\n");
    assert_eq!(status(&output), 0);
}

#[test]
fn children_groups_and_signals_are_as_on_the_host() {
    same(&[guest("family")]);
}

#[test]
fn locks_and_waits_on_words_are_as_on_the_host() {
    same(&[guest("futexes")]);
    same(&[guest("futexes"), "by another thread".into()]);
}

#[test]
fn sockets_are_as_on_the_host() {
    same(&[guest("sockets")]);
}
