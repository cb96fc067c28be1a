//! What people run: each ordinary program says and ends the same as natively, with no memory in its
//! host process but ours, and with every invariant of the VM intact at its end.

mod common;

use common::stubs::{below, mappings_of_ours};
use common::{native, status, text};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A folder of its own for one test, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("programs-{name}-{}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn file(&self, name: &str, contents: &[u8]) {
        std::fs::write(self.0.join(name), contents).expect("a file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `script` in a shell in `folder`, natively and under `bsdvm`, and compares.
fn same_in(folder: &Folder, script: &str) {
    let script = format!("cd {} && {script}", folder.0.display());
    same(&["sh", "-c", &script]);
}

fn same(program: &[&str]) {
    let expected = native(program);
    // A hang is a failure: these programs take seconds natively.
    let mut runner = Command::new("timeout");
    runner.args(["-k", "5", "150", env!("CARGO_BIN_EXE_bsdvm")]);
    runner
        .args(["run", "--check", "--stats", "--"])
        .args(program);
    runner.env("LC_ALL", "C").stdin(Stdio::null());
    runner.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = runner.spawn().expect("coreutils' timeout starts");
    let timeout = child.id();
    let ended = AtomicBool::new(false);
    let (got, seen) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch(timeout, &ended));
        let got = child.wait_with_output().expect("an end");
        ended.store(true, Ordering::SeqCst);
        (got, watch.join().expect("only our memory"))
    });
    assert_eq!(text(&got.stdout), text(&expected.stdout), "{program:?}");
    let errors = text(&got.stderr);
    let said = errors.strip_prefix(text(&expected.stderr).as_str());
    let table = said.unwrap_or_else(|| panic!("{program:?} says {errors}"));
    assert_eq!(status(&got), status(&expected), "{program:?}: {table}");
    assert!(seen > 0, "{program:?}: no page was seen in a stub");
    for counter in ["demand-zero faults", "faults"] {
        let line = table.lines().find(|l| l.contains(counter));
        let number = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
        assert!(number > Some(0), "{program:?}: {counter}: {table}");
    }
}

/// Looks at all stubs of the runner below `timeout` until it has ended: how many mappings there
/// were, none of which was anybody else's.
fn watch(timeout: u32, ended: &AtomicBool) -> usize {
    let mut seen = 0;
    while !ended.load(Ordering::SeqCst) {
        let runners = below(timeout);
        let stubs = runners.into_iter().flat_map(below);
        seen += stubs.map(mappings_of_ours).sum::<usize>();
        std::thread::sleep(Duration::from_millis(10));
    }
    seen
}

#[test]
fn ls_lists_all_documents() {
    same(&["ls", "-lR", "/usr/share/doc"]);
}

#[test]
fn a_shell_starts_500_processes() {
    same(&["sh", "-c", "for i in $(seq 500); do /bin/true; done"]);
}

#[test]
fn two_million_lines_are_sorted() {
    same(&["sh", "-c", "seq 2000000 | sort -r | md5sum"]);
}

#[test]
fn gzip_packs_and_unpacks_50_megabytes() {
    let folder = Folder::new("gzip");
    // Half of it repeats itself.
    let mut state = 1u32;
    let mut data = Vec::with_capacity(50 << 20);
    while data.len() < 50 << 20 {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        data.extend(state.to_le_bytes());
        if data.len() % 4096 == 2048 {
            data.extend_from_within(data.len() - 2048..);
        }
    }
    folder.file("data", &data);
    same_in(
        &folder,
        "gzip -9 < data | gzip -d | cmp - data && echo same",
    );
}

#[test]
fn tar_packs_all_documents() {
    same(&["sh", "-c", "tar c /usr/share/doc 2>/dev/null | tar t"]);
}

#[test]
fn perl_hashes_a_million_entries() {
    let program = "my %h; $h{$_} = $_ * 2 for 1..1000000; my $s = 0; $s += $h{$_} for keys %h; \
        delete $h{$_} for 1..500000; print scalar(keys %h), \" $s\\n\"";
    same(&["perl", "-e", program]);
}

#[test]
fn python_hashes_a_million_entries() {
    let program = "d = {i: i * 2 for i in range(1000000)}; print(len(d), sum(d.values())); \
        s = {str(i) for i in range(300000)}; print(len(s))";
    same(&["python3", "-c", program]);
}

#[test]
fn python_runs_threads() {
    let folder = Folder::new("threads");
    folder.file(
        "t.py",
        b"import threading, queue\n\
        d, q = {}, queue.Queue()\n\
        def work(k):\n    for i in range(20000):\n        d[(k, i)] = i\n    q.put(k)\n\
        ts = [threading.Thread(target=work, args=(k,)) for k in range(4)]\n\
        [t.start() for t in ts]\n[t.join() for t in ts]\n\
        print(len(d), sum(d.values()), sorted(q.get() for _ in ts))\n",
    );
    same_in(&folder, "python3 t.py");
}

#[test]
fn python_forks_workers() {
    let folder = Folder::new("fork");
    folder.file(
        "m.py",
        b"import multiprocessing\n\
        m = multiprocessing.get_context('fork')\n\
        def square(x):\n    return x * x\n\
        if __name__ == '__main__':\n\
        \x20   with m.Pool(4) as pool:\n        print(sum(pool.map(square, range(2000))))\n\
        \x20   q = m.Queue()\n\
        \x20   p = m.Process(target=q.put, args=('from the child',))\n\
        \x20   p.start(); print(q.get()); p.join(); print(p.exitcode)\n\
        \x20   a = m.Array('i', 100)\n\
        \x20   def fill(k):\n        for i in range(k, 100, 4):\n            a[i] = i\n\
        \x20   ps = [m.Process(target=fill, args=(k,)) for k in range(4)]\n\
        \x20   [p.start() for p in ps]; [p.join() for p in ps]; print(sum(a))\n",
    );
    same_in(&folder, "python3 m.py");
}

const ROWS: &str =
    "with recursive c(x) as (select 1 union all select x + 1 from c where x < 200000)";

#[test]
fn sqlite_keeps_a_journal() {
    let folder = Folder::new("journal");
    let sql = format!(
        "pragma journal_mode = delete; create table t(a integer primary key, b text); \
        insert into t {ROWS} select x, hex(x * 7) from c; create index i on t(b); \
        begin; delete from t where a % 2; rollback; update t set b = b || 1 where a % 5 = 0; \
        select count(*), sum(a), max(b) from t; pragma integrity_check;"
    );
    same_in(
        &folder,
        &format!("rm -f x.db && sqlite3 x.db '{sql}' && md5sum x.db"),
    );
}

#[test]
fn sqlite_keeps_a_log_that_is_mapped() {
    let folder = Folder::new("wal");
    let sql = format!(
        "pragma mmap_size = 268435456; pragma journal_mode = wal; \
        create table t(a integer primary key, b text); \
        insert into t {ROWS} select x, hex(x * 7) from c; update t set b = b || 1 where a % 3 = 0; \
        select count(*), sum(a), max(b) from t; pragma wal_checkpoint; pragma integrity_check;"
    );
    let again = "pragma mmap_size = 268435456; select count(*), max(b) from t;";
    same_in(
        &folder,
        &format!("rm -f y.db* && sqlite3 y.db '{sql}' && sqlite3 y.db '{again}'"),
    );
}

#[test]
fn xz_packs_with_two_threads() {
    let folder = Folder::new("xz");
    let lines: String = (0..900_000u64)
        .map(|i| format!("{}\n", i * 7919 % 65_521))
        .collect();
    folder.file("data", lines.as_bytes());
    same_in(
        &folder,
        "xz -T2 -2 -k --block-size=1MiB -c data | xz -d | md5sum",
    );
}

const HELLO: &[u8] = b"#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
    int main(int n, char **v) { char *p = malloc(1 << 20); memset(p, n, 1 << 20);\n\
    printf(\"%d %s %d\\n\", n, v[n - 1], p[12345]); free(p); return 7; }\n";

#[test]
fn gcc_compiles_links_and_the_program_runs() {
    let folder = Folder::new("gcc");
    folder.file("h.c", HELLO);
    same_in(&folder, "gcc -O2 -Wall -o h h.c && ./h one two; echo $?");
}

#[test]
fn static_programs_of_two_libraries_run() {
    let folder = Folder::new("static");
    folder.file("h.c", HELLO);
    let script = "gcc -static -o glibc h.c && musl-gcc -static -o musl h.c";
    assert_eq!(
        status(&native(&[
            "sh",
            "-c",
            &format!("cd {} && {script}", folder.0.display())
        ])),
        0
    );
    same_in(
        &folder,
        "./glibc a; ./musl b; musl-gcc -O1 -o dynamic h.c && ./dynamic c",
    );
}

#[test]
fn git_keeps_a_repository() {
    let folder = Folder::new("git");
    let script = "rm -rf r; export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 \
        GIT_AUTHOR_DATE=2020-01-01T00:00:00Z GIT_COMMITTER_DATE=2020-01-01T00:00:00Z; \
        git -c init.defaultBranch=m init -q r && cd r && \
        git config user.email a@b && git config user.name n && \
        seq 5000 > f && git add f && git commit -qm one && seq 2 4000 > f && echo new > g && \
        git add . && git commit -qm two && git branch side HEAD~ && git log --stat && \
        git diff --shortstat side && git gc -q && git fsck && git status --short";
    same_in(&folder, script);
}

#[test]
fn find_walks_all_of_usr() {
    same(&["sh", "-c", "find /usr | wc -l"]);
}
