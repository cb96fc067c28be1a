//! The files of a process below `/proc/PID`, and of a thread below `/proc/PID/task/TID`.

use super::memory::{self, Figures};
use super::{DT_DIR, DT_LNK, DT_REG, Maker, Names, Node, Taker, fixed, number_in};
use crate::errno::Errno;
use crate::maps;
use crate::platform::Platform;
use crate::policy::Policy;
use crate::process::{Life, Process, Record};
use crate::signal::{SIG_DFL, SIG_IGN, SIGNALS, SigSet};
use crate::system::Linux;
use crate::thread::{Task, Thread};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::Host;
use core::fmt::Write;
use core::sync::atomic::Ordering;

/// Nanoseconds of a clock tick.
const TICK: u64 = 10_000_000;
/// Names of a process's directory that lead to texts of ours.
const TEXTS: [&[u8]; 20] = [
    b"maps",
    b"smaps",
    b"smaps_rollup",
    b"cmdline",
    b"environ",
    b"auxv",
    b"comm",
    b"stat",
    b"statm",
    b"status",
    b"limits",
    b"io",
    b"oom_score",
    b"oom_score_adj",
    b"wchan",
    b"schedstat",
    b"personality",
    b"coredump_filter",
    b"timerslack_ns",
    b"oom_adj",
];
/// Those that only a process's own directory has, or that are no texts.
const OTHERS: [(&[u8], u8); 11] = [
    (b"exe", DT_LNK),
    (b"cwd", DT_LNK),
    (b"root", DT_LNK),
    (b"fd", DT_DIR),
    (b"fdinfo", DT_DIR),
    (b"task", DT_DIR),
    (b"pagemap", DT_REG),
    (b"mem", DT_REG),
    (b"clear_refs", DT_REG),
    (b"mounts", DT_REG),
    (b"mountinfo", DT_REG),
];
/// What the host says of the runner holds for its guests too.
const OF_THE_HOST: [&[u8]; 13] = [
    b"mounts",
    b"mountinfo",
    b"mountstats",
    b"cgroup",
    b"cpuset",
    b"net",
    b"ns",
    b"uid_map",
    b"gid_map",
    b"setgroups",
    b"loginuid",
    b"sessionid",
    b"attr",
];

/// A process, or one thread of it.
pub(super) struct Whose<P: Platform> {
    pub(super) sys: &'static Linux<P>,
    pub(super) process: Arc<Process<P>>,
    thread: Option<Arc<Thread<P>>>,
}

impl<P: Platform> Clone for Whose<P> {
    fn clone(&self) -> Self {
        Whose {
            sys: self.sys,
            process: self.process.clone(),
            thread: self.thread.clone(),
        }
    }
}

fn names_of(numbers: impl Iterator<Item = u32>, kind: u8) -> Names {
    let dots = [(b".".to_vec(), DT_DIR), (b"..".to_vec(), DT_DIR)];
    let numbers = numbers.map(|n| (format!("{n}").into_bytes(), kind));
    dots.into_iter().chain(numbers).collect()
}

fn number(text: &[u8]) -> Option<u32> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

impl<P: Platform> Task<P> {
    pub(super) fn process_node(&self, pid: u32, name: &[u8]) -> Result<Node, Errno> {
        let (process, threads) = {
            let table = self.sys.processes.lock();
            // A thread's number names its process too, though no listing shows it.
            let has = |r: &&Record<P>| r.threads.iter().any(|t| t.tid() == pid);
            let record = table.get(pid).or_else(|| table.records.values().find(has));
            let record = record.ok_or(Errno::ENOENT)?;
            (record.process.clone(), record.threads.clone())
        };
        let mut whose = Whose {
            sys: self.sys,
            process,
            thread: None,
        };
        let mut name = name;
        if let Some(rest) = name.strip_prefix(b"task/") {
            let mut parts = rest.splitn(2, |&b| b == b'/');
            let tid = parts.next().and_then(number).ok_or(Errno::ENOENT)?;
            let thread = threads.iter().find(|t| t.tid() == tid);
            whose.thread = Some(thread.ok_or(Errno::ENOENT)?.clone());
            name = parts.next().unwrap_or_default();
            if name == b"task" {
                return Err(Errno::ENOENT);
            }
        } else if name == b"task" {
            let (sys, pid) = (self.sys, whose.process.pid);
            return Ok(Node::Dir(Box::new(move || {
                let table = sys.processes.lock();
                let threads = table.get(pid).into_iter().flat_map(|r| r.threads.iter());
                names_of(threads.map(|t| t.tid()), DT_DIR)
            })));
        }
        self.file_of(whose, name)
    }

    fn file_of(&self, whose: Whose<P>, name: &[u8]) -> Result<Node, Errno> {
        let process = &whose.process;
        match name {
            b"" => return Ok(Node::Dir(Box::new(own_names))),
            b"exe" => {
                let exe = process.shared.lock().exe.clone();
                return if process.space().is_some() {
                    Ok(Node::Link(exe))
                } else {
                    Err(Errno::ENOENT)
                };
            }
            b"cwd" => {
                let cwd = process.cwd();
                return Ok(Node::Link(cwd.path(&self.sys.platform)?));
            }
            b"root" => return Ok(Node::Link(b"/".to_vec())),
            b"fd" | b"fdinfo" => {
                self.check_looking(process)?;
                let kind = if name == b"fd" { DT_LNK } else { DT_REG };
                let process = process.clone();
                return Ok(Node::Dir(Box::new(move || {
                    let numbers = process.files().numbers();
                    names_of(numbers.into_iter(), kind)
                })));
            }
            b"pagemap" => return Ok(memory::pagemap(whose.clone())),
            b"mem" => {
                self.check_looking(process)?;
                return Ok(memory::mem(whose.clone()));
            }
            b"clear_refs" => {
                return Ok(Node::Order(Box::new(|bytes| match number_in(bytes)? {
                    1..=5 => Ok(()),
                    _ => Err(Errno::EINVAL),
                })));
            }
            _ => {}
        }
        if let Some(n) = name.strip_prefix(b"fd/").and_then(number) {
            self.check_looking(process)?;
            let file = process.files().get(n).map_err(|_| Errno::ENOENT)?;
            return Ok(Node::Link(file.name()?));
        }
        if let Some(n) = name.strip_prefix(b"fdinfo/").and_then(number) {
            self.check_looking(process)?;
            let text = self.descriptor_info(process, n)?;
            return Ok(fixed(text.into_bytes()));
        }
        if let Some(known) = TEXTS.iter().find(|known| **known == name) {
            let taker = taker(&whose, known);
            let maker: Maker = Box::new(move || text(&whose, known));
            return Ok(Node::Text(maker, taker));
        }
        let first = name.split(|&b| b == b'/').next().unwrap_or_default();
        if OF_THE_HOST.contains(&first) {
            return Ok(Node::Host([b"/proc/self/", name].concat()));
        }
        Err(Errno::ENOENT)
    }

    /// Whether this thread may look at what another process has open and in its memory.
    fn check_looking(&self, process: &Process<P>) -> Result<(), Errno> {
        let other = process.creds.lock().clone();
        if process.pid == self.process.pid || self.creds().may_attach(&other) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    fn descriptor_info(&self, process: &Process<P>, fd: u32) -> Result<String, Errno> {
        let files = process.files();
        let file = files.get(fd).map_err(|_| Errno::ENOENT)?;
        let close = files.on_exec(fd).map_err(|_| Errno::ENOENT)?;
        let mut flags = file.flags();
        if close == crate::fs::table::OnExec::Close {
            flags |= linux_raw_sys::general::O_CLOEXEC;
        }
        let position = file.position();
        let ino = file.stat().map_or(0, |s| s.ino);
        let mut out = format!("pos:\t{position}\nflags:\t0{flags:o}\nmnt_id:\t15\nino:\t{ino}\n");
        out.push_str(&file.info(self));
        Ok(out)
    }
}

fn own_names() -> Names {
    let dots = [(b".".to_vec(), DT_DIR), (b"..".to_vec(), DT_DIR)];
    let texts = TEXTS.iter().map(|n| (n.to_vec(), DT_REG));
    let others = OTHERS.iter().map(|(n, kind)| (n.to_vec(), *kind));
    dots.into_iter().chain(texts).chain(others).collect()
}

/// What takes writes to one of [`TEXTS`].
fn taker<P: Platform>(whose: &Whose<P>, name: &'static [u8]) -> Option<Taker> {
    let whose = whose.clone();
    match name {
        b"comm" => Some(Box::new(move |bytes| {
            let end = bytes.iter().position(|&b| b == 0);
            let text = &bytes[..end.unwrap_or(bytes.len()).min(15)];
            match &whose.thread {
                Some(t) if t.tid() != whose.process.pid => {
                    *t.name.lock() = Some(text.to_vec());
                }
                _ => whose.process.shared.lock().name = text.to_vec(),
            }
            Ok(())
        })),
        b"oom_score_adj" => Some(Box::new(move |bytes| {
            let wanted = number_in(bytes)?;
            if !(-1000..=1000).contains(&wanted) {
                return Err(Errno::EINVAL);
            }
            let place = &whose.process.traits.oom_adjust;
            place.store(wanted as i32 as u32, Ordering::Relaxed);
            Ok(())
        })),
        b"coredump_filter" | b"timerslack_ns" | b"oom_adj" => {
            Some(Box::new(|bytes| number_in(bytes).map(|_| ()).or(Ok(()))))
        }
        _ => None,
    }
}

/// One of [`TEXTS`] as it is now.
fn text<P: Platform>(whose: &Whose<P>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let Whose { sys, process, .. } = whose;
    let sys = *sys;
    let space = process.space();
    let of_space = |make: &dyn Fn(&crate::space::AddressSpace<P>) -> String| {
        space
            .as_ref()
            .map(|s| make(s).into_bytes())
            .unwrap_or_default()
    };
    Ok(match name {
        b"maps" => of_space(&|s| maps::text(sys, s)),
        b"smaps" => of_space(&|s| memory::smaps(sys, s)),
        b"smaps_rollup" => of_space(&|s| memory::rollup(sys, s)),
        b"cmdline" => strings(process, |b| b.args)?,
        b"environ" => strings(process, |b| b.env)?,
        b"auxv" => space
            .map(|s| s.bounds.lock().auxv.clone())
            .unwrap_or_default(),
        b"comm" => [&name_of(whose)[..], b"\n"].concat(),
        b"stat" => stat_line(whose)?.into_bytes(),
        b"statm" => memory::statm(sys, process).into_bytes(),
        b"status" => status(whose)?.into_bytes(),
        b"limits" => limits(process).into_bytes(),
        b"io" => b"rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\n\
                   cancelled_write_bytes: 0\n"
            .to_vec(),
        b"oom_score" => format!("{}\n", badness(sys, process)).into_bytes(),
        b"oom_score_adj" => {
            let adjust = process.traits.oom_adjust.load(Ordering::Relaxed) as i32;
            format!("{adjust}\n").into_bytes()
        }
        b"oom_adj" => b"0\n".to_vec(),
        b"wchan" => b"0".to_vec(),
        b"schedstat" => format!("{} 0 0\n", sys.used(process).time()).into_bytes(),
        b"personality" => {
            let bits = process.traits.personality.load(Ordering::Relaxed);
            format!("{bits:08x}\n").into_bytes()
        }
        b"coredump_filter" => b"00000033\n".to_vec(),
        b"timerslack_ns" => b"50000\n".to_vec(),
        _ => return Err(Errno::ENOENT),
    })
}

fn badness<P: Platform>(sys: &Linux<P>, process: &Process<P>) -> i64 {
    let c = sys.vm.counters();
    let share = process.pages_held() * 1000 / (c.frames_total + c.swap_total).max(1);
    let adjust = process.traits.oom_adjust.load(Ordering::Relaxed) as i32;
    (share as i64 + i64::from(adjust) + 666).clamp(0, 2000)
}

fn name_of<P: Platform>(whose: &Whose<P>) -> Vec<u8> {
    let own = whose.thread.as_ref().and_then(|t| t.name.lock().clone());
    own.unwrap_or_else(|| whose.process.shared.lock().name.clone())
}

fn strings<P: Platform>(
    process: &Process<P>,
    which: impl Fn(&crate::space::Bounds) -> (u64, u64),
) -> Result<Vec<u8>, Errno> {
    let Some(space) = process.space() else {
        return Ok(Vec::new());
    };
    let (start, end) = which(&space.bounds.lock());
    let mut text = alloc::vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
    space.copy_in(start, &mut text).map_err(|_| Errno::EIO)?;
    Ok(text)
}

fn state_of<P: Platform>(
    process: &Process<P>,
    record: &Record<P>,
    one: Option<&Thread<P>>,
) -> char {
    let sleeps = |t: &Thread<P>| t.sleeping.load(Ordering::SeqCst) != 0 || t.is_waiting();
    match record.life {
        Life::Ended(_) => 'Z',
        Life::Alive if process.stopped.load(Ordering::Relaxed) => 'T',
        Life::Alive => {
            let thread = one.or(record.threads.first().map(|t| &**t));
            if thread.is_some_and(sleeps) { 'S' } else { 'R' }
        }
    }
}

/// What the lines of a process need of the table.
struct Seen {
    state: char,
    parent: u32,
    pgid: u32,
    sid: u32,
    threads: usize,
    exit_signal: u32,
}

fn seen<P: Platform>(whose: &Whose<P>) -> Result<Seen, Errno> {
    let table = whose.sys.processes.lock();
    let record = table.get(whose.process.pid).ok_or(Errno::ESRCH)?;
    Ok(Seen {
        state: state_of(&whose.process, record, whose.thread.as_deref()),
        parent: record.parent,
        pgid: record.pgid,
        sid: record.sid,
        threads: record.threads.len(),
        exit_signal: record.exit_signal,
    })
}

fn stat_line<P: Platform>(whose: &Whose<P>) -> Result<String, Errno> {
    let Whose { sys, process, .. } = whose;
    let figures = Figures::of(process);
    let name = String::from_utf8_lossy(&name_of(whose)).into_owned();
    let used = match &whose.thread {
        Some(thread) => thread.used(),
        None => sys.used(process),
    };
    let children = *process.child_used.lock();
    let nice = i64::from(process.nice.load(Ordering::Relaxed));
    let id = whose.thread.as_ref().map_or(process.pid, |t| t.tid());
    let policy = policy_of(whose);
    let bounds = process
        .space()
        .map(|s| s.bounds.lock().clone())
        .unwrap_or_default();
    let sets = signal_sets(whose);
    let s = seen(whose)?;
    let (terminal, foreground) = sys.terminal_numbers(s.sid);
    let mut out = format!(
        "{id} ({name}) {} {} {} {} {terminal} {foreground} 4194304",
        s.state, s.parent, s.pgid, s.sid
    );
    let (args, env) = (bounds.args, bounds.env);
    let words = [
        used.minor,
        children.minor,
        used.major,
        children.major,
        used.user / TICK,
        used.system / TICK,
        children.user / TICK,
        children.system / TICK,
    ];
    for word in words {
        let _ = write!(out, " {word}");
    }
    let _ = write!(
        out,
        " {} {nice} {} 0 {} {} {} {}",
        policy.shown(nice),
        s.threads,
        process.born / TICK,
        figures.mapped_bytes,
        figures.resident,
        process.limit(5),
    );
    let rest = [
        bounds.code.0,
        bounds.code.1,
        bounds.stack_start,
        0,
        0,
        sets[0].0 & 0x7fff_ffff,
        sets[1].0 & 0x7fff_ffff,
        sets[2].0 & 0x7fff_ffff,
        sets[3].0 & 0x7fff_ffff,
        0,
        0,
        0,
        u64::from(s.exit_signal),
        sys.vm.machine().cpu() as u64,
        u64::from(policy.priority),
        u64::from(policy.number),
        0,
        0,
        0,
        bounds.data.0,
        bounds.data.1,
        bounds.brk_start,
        args.0,
        args.1,
        env.0,
        env.1,
        0,
    ];
    for word in rest {
        let _ = write!(out, " {word}");
    }
    out.push('\n');
    Ok(out)
}

/// How the thread asked to be scheduled, or the first one.
fn policy_of<P: Platform>(whose: &Whose<P>) -> Policy {
    let first = || {
        let table = whose.sys.processes.lock();
        table.get(whose.process.pid)?.threads.first().cloned()
    };
    let thread = whose.thread.clone().or_else(first);
    thread.map_or(Policy::default(), |t| *t.policy.lock())
}

/// Pending for the thread, blocked, ignored, caught; and pending for the process.
fn signal_sets<P: Platform>(whose: &Whose<P>) -> [SigSet; 5] {
    let thread = whose.thread.clone().or_else(|| {
        let table = whose.sys.processes.lock();
        table.get(whose.process.pid)?.threads.first().cloned()
    });
    let shared = whose.process.signals.lock();
    let (mut ignored, mut caught) = (SigSet(0), SigSet(0));
    for signal in 1..=SIGNALS {
        match shared.action(signal).handler {
            SIG_DFL => {}
            SIG_IGN => ignored = ignored.union(SigSet::of(signal)),
            _ => caught = caught.union(SigSet::of(signal)),
        }
    }
    let all = shared.pending.set();
    let (pending, blocked) = thread.map_or((SigSet(0), SigSet(0)), |t| {
        let own = t.signals.lock();
        (own.pending.set(), own.mask)
    });
    [pending, blocked, ignored, caught, all]
}

fn status<P: Platform>(whose: &Whose<P>) -> Result<String, Errno> {
    let Whose { sys, process, .. } = whose;
    let creds = match &whose.thread {
        Some(thread) => thread.creds.lock().clone(),
        None => process.creds.lock().clone(),
    };
    let name = String::from_utf8_lossy(&name_of(whose))
        .replace('\\', "\\\\")
        .replace('\n', "\\n");
    let umask = process.umask();
    let id = whose.thread.as_ref().map_or(process.pid, |t| t.tid());
    let descriptors = process
        .files()
        .numbers()
        .last()
        .map_or(64, |n| (n + 1).max(64));
    let sets = signal_sets(whose);
    let s = seen(whose)?;
    let state = match s.state {
        'Z' => "Z (zombie)",
        'T' => "T (stopped)",
        'S' => "S (sleeping)",
        _ => "R (running)",
    };
    let (u, g) = (creds.user, creds.group);
    let groups: String = creds.groups.iter().map(|n| format!("{n} ")).collect();
    let mut out = format!(
        "Name:\t{name}\nUmask:\t{umask:04o}\nState:\t{state}\nTgid:\t{tgid}\nNgid:\t0\n\
         Pid:\t{id}\nPPid:\t{}\nTracerPid:\t0\n\
         Uid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\nFDSize:\t{}\nGroups:\t{groups}\n\
         NStgid:\t{tgid}\nNSpid:\t{id}\nNSpgid:\t{}\nNSsid:\t{}\nKthread:\t0\n",
        s.parent,
        u.real,
        u.effective,
        u.saved,
        u.files,
        g.real,
        g.effective,
        g.saved,
        g.files,
        descriptors.next_power_of_two(),
        s.pgid,
        s.sid,
        tgid = process.pid,
    );
    if process.space().is_some() {
        out.push_str(&memory::status(sys, process));
    }
    let _ = write!(
        out,
        "Threads:\t{}\nSigQ:\t0/{}\n",
        s.threads,
        process.limit(11)
    );
    let [pending, blocked, ignored, caught, all] = sets;
    let masks = [
        ("SigPnd", pending.0),
        ("ShdPnd", all.0),
        ("SigBlk", blocked.0),
        ("SigIgn", ignored.0),
        ("SigCgt", caught.0),
        ("CapInh", creds.caps.inheritable),
        ("CapPrm", creds.caps.permitted),
        ("CapEff", creds.caps.effective),
        ("CapBnd", creds.caps.bounding),
        ("CapAmb", creds.caps.ambient),
    ];
    for (label, mask) in masks {
        let _ = writeln!(out, "{label}:\t{mask:016x}");
    }
    let cpus = sys.vm.machine().cpus();
    let mask = (1u64 << cpus.min(63)) - 1;
    let list = if cpus > 1 {
        format!("0-{}", cpus - 1)
    } else {
        "0".into()
    };
    let _ = write!(
        out,
        "NoNewPrivs:\t{}\nSeccomp:\t0\nSeccomp_filters:\t0\n\
         Speculation_Store_Bypass:\tvulnerable\nSpeculationIndirectBranch:\talways enabled\n\
         Cpus_allowed:\t{mask:x}\nCpus_allowed_list:\t{list}\nMems_allowed:\t1\n\
         Mems_allowed_list:\t0\nvoluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n",
        u8::from(creds.no_new_privileges)
    );
    Ok(out)
}

fn limits<P: Platform>(process: &Process<P>) -> String {
    const ROWS: [(&str, &str); 16] = [
        ("Max cpu time", "seconds"),
        ("Max file size", "bytes"),
        ("Max data size", "bytes"),
        ("Max stack size", "bytes"),
        ("Max core file size", "bytes"),
        ("Max resident set", "bytes"),
        ("Max processes", "processes"),
        ("Max open files", "files"),
        ("Max locked memory", "bytes"),
        ("Max address space", "bytes"),
        ("Max file locks", "locks"),
        ("Max pending signals", "signals"),
        ("Max msgqueue size", "bytes"),
        ("Max nice priority", ""),
        ("Max realtime priority", ""),
        ("Max realtime timeout", "us"),
    ];
    let limits = process.shared.lock().limits;
    let shown = |n: u64| {
        if n == u64::MAX {
            "unlimited".into()
        } else {
            format!("{n}")
        }
    };
    let mut out = String::from(
        "Limit                     Soft Limit           Hard Limit           Units     \n",
    );
    for ((name, unit), (soft, hard)) in ROWS.iter().zip(limits) {
        let _ = write!(out, "{name:<25} {:<20} {:<20} ", shown(soft), shown(hard));
        if !unit.is_empty() {
            let _ = write!(out, "{unit:<10}");
        }
        out.push('\n');
    }
    out
}
