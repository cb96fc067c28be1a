//! What can be set below `/proc/sys`: kept here, never passed on to the host.

use super::{Maker, Node, Taker, number_in};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::thread::Task;
use crate::{Lock, rank};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// A number with what it is at first, and its bounds.
type Number = (&'static str, i64, i64, i64);

const NUMBERS: [Number; 45] = [
    ("vm/overcommit_memory", 0, 0, 2),
    ("vm/overcommit_ratio", 50, 0, i64::MAX),
    ("vm/overcommit_kbytes", 0, 0, i64::MAX),
    ("vm/max_map_count", 65530, 0, i32::MAX as i64),
    ("vm/nr_overcommit_hugepages", 0, 0, i64::MAX),
    ("vm/swappiness", 60, 0, 200),
    ("vm/min_free_kbytes", 4096, 0, i32::MAX as i64),
    ("vm/admin_reserve_kbytes", 8192, 0, i64::MAX),
    ("vm/user_reserve_kbytes", 131_072, 0, i64::MAX),
    ("vm/panic_on_oom", 0, 0, 2),
    (
        "vm/oom_kill_allocating_task",
        0,
        i32::MIN as i64,
        i32::MAX as i64,
    ),
    ("vm/oom_dump_tasks", 1, i32::MIN as i64, i32::MAX as i64),
    ("vm/dirty_ratio", 20, 0, 100),
    ("vm/dirty_background_ratio", 10, 0, 100),
    ("vm/dirty_bytes", 0, 0, i64::MAX),
    ("vm/dirty_background_bytes", 0, 0, i64::MAX),
    ("vm/dirty_expire_centisecs", 3000, 0, i32::MAX as i64),
    ("vm/dirty_writeback_centisecs", 500, 0, i32::MAX as i64),
    ("vm/vfs_cache_pressure", 100, 0, i32::MAX as i64),
    ("vm/page-cluster", 3, 0, 31),
    ("vm/mmap_min_addr", 4096, 0, i64::MAX),
    ("vm/legacy_va_layout", 0, 0, 1),
    ("vm/laptop_mode", 0, 0, i32::MAX as i64),
    ("vm/zone_reclaim_mode", 0, 0, i32::MAX as i64),
    ("vm/compaction_proactiveness", 20, 0, 100),
    ("vm/memfd_noexec", 0, 0, 2),
    ("vm/unprivileged_userfaultfd", 0, 0, 1),
    ("vm/stat_interval", 1, 0, i32::MAX as i64),
    ("vm/watermark_scale_factor", 10, 1, 3000),
    ("kernel/pid_max", 4_194_304, 301, 4_194_304),
    ("kernel/threads-max", 192_000, 20, i32::MAX as i64),
    ("kernel/randomize_va_space", 0, 0, 2),
    ("kernel/shm_rmid_forced", 0, 0, 1),
    ("kernel/auto_msgmni", 0, 0, 1),
    ("kernel/core_uses_pid", 0, 0, i32::MAX as i64),
    ("kernel/print-fatal-signals", 0, 0, i32::MAX as i64),
    ("kernel/sched_rt_runtime_us", 950_000, -1, 1_000_000),
    ("kernel/sched_rt_period_us", 1_000_000, 1, i32::MAX as i64),
    ("kernel/sched_rr_timeslice_ms", 100, 0, i32::MAX as i64),
    ("fs/mqueue/msg_default", 10, 1, 65_536),
    ("fs/mqueue/msg_max", 10, 1, 65_536),
    ("fs/mqueue/msgsize_default", 8192, 128, 16 << 20),
    ("fs/mqueue/msgsize_max", 8192, 128, 16 << 20),
    ("fs/mqueue/queues_max", 256, 0, i32::MAX as i64),
    ("kernel/tainted", 0, 0, i64::MAX),
];
/// What is only written: what is asked for has nothing to be done.
const ORDERS: [&str; 3] = ["vm/drop_caches", "vm/compact_memory", "vm/stat_refresh"];
/// How many huge pages are wanted: none of them can be had.
const HUGE_PAGES: &str = "vm/nr_hugepages";
const CORE_PATTERN: &str = "kernel/core_pattern";
const SEMAPHORES: &str = "kernel/sem";

/// What was set.
pub(crate) struct Settings<P: Platform> {
    numbers: Lock<P, BTreeMap<&'static str, i64>, { rank::FILE }>,
    core_pattern: Lock<P, Vec<u8>, { rank::FILE }>,
    /// What the system and its domain are called, where it was said.
    names: Lock<P, [Option<Vec<u8>>; 2], { rank::FILE }>,
}

/// A name that can be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SystemOwn {
    Host,
    Domain,
}

impl SystemOwn {
    /// What it is below `/proc/sys`.
    fn of(name: &str) -> Option<SystemOwn> {
        match name {
            "kernel/hostname" => Some(SystemOwn::Host),
            "kernel/domainname" => Some(SystemOwn::Domain),
            _ => None,
        }
    }
}

impl<P: Platform> Settings<P> {
    pub(crate) fn new() -> Self {
        Settings {
            numbers: Lock::<P, _, { rank::FILE }>::new(BTreeMap::new()),
            core_pattern: Lock::<P, _, { rank::FILE }>::new(b"core".to_vec()),
            names: Lock::<P, _, { rank::FILE }>::new([None, None]),
        }
    }

    /// The number under a name of the list, such as `vm/overcommit_memory`.
    pub(crate) fn number(&self, name: &str) -> i64 {
        let set = self.numbers.lock().get(name).copied();
        let usual = NUMBERS.iter().find(|n| n.0 == name).map_or(0, |n| n.1);
        set.unwrap_or(usual)
    }
}

impl<P: Platform> Linux<P> {
    /// What the system, or its domain, is called: the host's name until another is set.
    pub(crate) fn called(&self, which: SystemOwn) -> Vec<u8> {
        let set = self.settings.names.lock()[which as usize].clone();
        set.unwrap_or_else(|| {
            let host = self.platform.system_name();
            match which {
                SystemOwn::Host => host.node,
                SystemOwn::Domain => host.domain,
            }
        })
    }

    /// Calls it something else, for the guests alone.
    pub(crate) fn set_called(&self, which: SystemOwn, name: Vec<u8>) {
        self.settings.names.lock()[which as usize] = Some(name);
    }
}

/// A limit of System V objects, read.
fn limit<P: Platform>(sys: &Linux<P>, name: &str) -> Option<u64> {
    Some(match name {
        "kernel/shmmax" => sys.segments.largest.load(Ordering::Relaxed),
        "kernel/shmall" => sys.segments.pages.load(Ordering::Relaxed),
        "kernel/shmmni" => u64::from(sys.segments.table.lock().most),
        "kernel/msgmax" => sys.queues.longest.load(Ordering::Relaxed),
        "kernel/msgmnb" => sys.queues.in_a_queue.load(Ordering::Relaxed),
        "kernel/msgmni" => u64::from(sys.queues.most.load(Ordering::Relaxed)),
        _ => return None,
    })
}

/// The same, set.
fn set_limit<P: Platform>(sys: &Linux<P>, name: &str, bytes: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    let n: u64 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
    let small = |most: u64| {
        u32::try_from(n.min(most + 1))
            .ok()
            .filter(|&n| u64::from(n) <= most)
    };
    match name {
        "kernel/shmmax" => sys.segments.largest.store(n, Ordering::Relaxed),
        "kernel/shmall" => sys.segments.pages.store(n, Ordering::Relaxed),
        "kernel/shmmni" => {
            sys.segments.table.lock().most = small(1 << 15).ok_or(Errno::EINVAL)?;
        }
        "kernel/msgmax" => sys.queues.longest.store(n, Ordering::Relaxed),
        "kernel/msgmnb" => sys.queues.in_a_queue.store(n, Ordering::Relaxed),
        _ => {
            let most = small(1 << 15).ok_or(Errno::EINVAL)?;
            sys.queues.most.store(most, Ordering::Relaxed);
        }
    }
    Ok(())
}

impl<P: Platform> Task<P> {
    /// A file below `/proc/sys`: kept here, or the host's to be read.
    pub(super) fn setting_node(&self, name: &[u8]) -> Result<Node, Errno> {
        let sys = self.sys;
        let host = || Ok(Node::Host([b"/proc/sys/", name].concat()));
        let Ok(text) = core::str::from_utf8(name) else {
            return host();
        };
        if let Some(&(name, _, low, high)) = NUMBERS.iter().find(|n| n.0 == text) {
            let maker: Maker =
                Box::new(move || Ok(format!("{}\n", sys.settings.number(name)).into_bytes()));
            let taker: Taker = Box::new(move |bytes| {
                let n = number_in(bytes)?;
                if !(low..=high).contains(&n) {
                    return Err(Errno::EINVAL);
                }
                sys.settings.numbers.lock().insert(name, n);
                Ok(())
            });
            return Ok(Node::Text(maker, Some(taker)));
        }
        if ORDERS.contains(&text) {
            return Ok(Node::Order(Box::new(|bytes| number_in(bytes).map(|_| ()))));
        }
        if limit(sys, text).is_some() {
            let name: String = text.into();
            let written = name.clone();
            let maker: Maker = Box::new(move || {
                let n = limit(sys, &name).unwrap_or(0);
                Ok(format!("{n}\n").into_bytes())
            });
            let taker: Taker = Box::new(move |bytes| set_limit(sys, &written, bytes));
            return Ok(Node::Text(maker, Some(taker)));
        }
        if let Some(which) = SystemOwn::of(text) {
            let maker: Maker = Box::new(move || Ok([&sys.called(which)[..], b"\n"].concat()));
            let taker: Taker = Box::new(move |bytes| {
                let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
                sys.set_called(which, line[..line.len().min(64)].to_vec());
                Ok(())
            });
            return Ok(Node::Text(maker, Some(taker)));
        }
        match text {
            CORE_PATTERN => {
                let maker: Maker =
                    Box::new(move || Ok([&sys.settings.core_pattern.lock()[..], b"\n"].concat()));
                let taker: Taker = Box::new(move |bytes| {
                    *sys.settings.core_pattern.lock() = bytes.trim_ascii_end().to_vec();
                    Ok(())
                });
                Ok(Node::Text(maker, Some(taker)))
            }
            HUGE_PAGES => {
                let maker: Maker = Box::new(|| Ok(b"0\n".to_vec()));
                let taker: Taker = Box::new(|bytes| match number_in(bytes)? {
                    0.. => Ok(()),
                    _ => Err(Errno::EINVAL),
                });
                Ok(Node::Text(maker, Some(taker)))
            }
            SEMAPHORES => Ok(super::fixed(b"32000\t1024000000\t500\t32000\n".to_vec())),
            _ => host(),
        }
    }
}
