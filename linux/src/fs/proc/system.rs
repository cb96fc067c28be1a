//! Figures of the whole: memory as the VM has it, System V objects.

use super::{DT_DIR, DT_REG, Maker, Node};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::thread::Task;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::fmt::Write;

impl<P: Platform> Task<P> {
    pub(super) fn system_node(&self, name: &[u8]) -> Result<Node, Errno> {
        let sys = self.sys;
        let text = |make: fn(&Linux<P>) -> String| {
            let maker: Maker = Box::new(move || Ok(make(sys).into_bytes()));
            Ok(Node::Text(maker, None))
        };
        match name {
            b"meminfo" => text(meminfo),
            b"vmstat" => text(vmstat),
            b"swaps" => text(swaps),
            b"loadavg" => text(loadavg),
            b"sysvipc" => Ok(Node::Dir(Box::new(|| {
                let files = ["msg", "sem", "shm"].map(|n| (n.as_bytes().to_vec(), DT_REG));
                let dots = [(b".".to_vec(), DT_DIR), (b"..".to_vec(), DT_DIR)];
                dots.into_iter().chain(files).collect()
            }))),
            b"sysvipc/shm" => text(segments),
            b"sysvipc/sem" => text(sets),
            b"sysvipc/msg" => text(queues),
            name => match name.strip_prefix(b"sys/") {
                Some(setting) => self.setting_node(setting),
                None => Err(Errno::ENOENT),
            },
        }
    }
}

fn meminfo<P: Platform>(sys: &Linux<P>) -> String {
    let c = sys.vm.counters();
    let kib = Linux::<P>::PAGE_BYTES / 1024;
    let (total, free) = (c.frames_total * kib, c.frames_free * kib);
    let (active, inactive) = (c.active * kib, (c.inactive + c.laundry) * kib);
    let files = sys.inodes.resident(sys) * kib;
    let segments = {
        let table = sys.segments.table.lock();
        let pages = table
            .all()
            .map(|(_, e)| sys.vm.object(e.value.object).resident_pages());
        pages.sum::<u64>() * kib
    };
    let used = total.saturating_sub(free);
    let anonymous = used.saturating_sub(files + segments);
    let limit = total / 100 * sys.settings.number("vm/overcommit_ratio") as u64;
    let rows: [(&str, u64); 34] = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", (free + files).min(total)),
        ("Buffers", 0),
        ("Cached", files + segments),
        ("SwapCached", c.swap_cached * kib),
        ("Active", active),
        ("Inactive", inactive),
        ("Active(anon)", active.min(anonymous)),
        (
            "Inactive(anon)",
            anonymous.saturating_sub(active).min(inactive),
        ),
        ("Active(file)", active.saturating_sub(anonymous)),
        ("Inactive(file)", inactive.min(files)),
        ("Unevictable", c.wired * kib),
        ("Mlocked", c.wired * kib),
        ("SwapTotal", c.swap_total * kib),
        ("SwapFree", (c.swap_total - c.swap_used) * kib),
        ("Dirty", c.laundry * kib),
        ("Writeback", 0),
        ("AnonPages", anonymous),
        ("Mapped", files),
        ("Shmem", segments),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", limit),
        ("Committed_AS", c.charged_pages * kib),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
    ];
    let mut out = String::new();
    for (name, n) in rows {
        let label = format!("{name}:");
        let _ = writeln!(out, "{label:<16}{n:>8} kB");
    }
    out.push_str(
        "VmallocChunk:          0 kB\nAnonHugePages:         0 kB\nShmemHugePages:        0 kB\n\
         ShmemPmdMapped:        0 kB\nHugePages_Total:       0\nHugePages_Free:        0\n\
         HugePages_Rsvd:        0\nHugePages_Surp:        0\nHugepagesize:       2048 kB\n\
         Hugetlb:               0 kB\n",
    );
    out
}

/// The one place to swap to, if there is one.
fn swaps<P: Platform>(sys: &Linux<P>) -> String {
    let c = sys.vm.counters();
    let kib = Linux::<P>::PAGE_BYTES / 1024;
    let mut out = String::from("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
    if c.swap_total > 0 {
        let (total, used) = (c.swap_total * kib, c.swap_used * kib);
        let _ = writeln!(
            out,
            "{:<40}file\t\t{total}\t\t{used}\t\t-2",
            "/swap\\040(deleted)"
        );
    }
    out
}

fn vmstat<P: Platform>(sys: &Linux<P>) -> String {
    let c = sys.vm.counters();
    let files = sys.inodes.resident(sys);
    let anonymous = (c.frames_total - c.frames_free).saturating_sub(files);
    let rows = [
        ("nr_free_pages", c.frames_free),
        ("nr_zone_inactive_anon", 0),
        ("nr_inactive_anon", c.inactive),
        ("nr_active_anon", c.active),
        ("nr_inactive_file", 0),
        ("nr_active_file", 0),
        ("nr_unevictable", c.wired),
        ("nr_mlock", c.wired),
        ("nr_anon_pages", anonymous),
        ("nr_mapped", files),
        ("nr_file_pages", files),
        ("nr_dirty", c.laundry),
        ("nr_writeback", 0),
        ("nr_shmem", 0),
        ("pgpgin", c.page_in * 4),
        ("pgpgout", c.page_out * 4),
        ("pswpin", c.swap_in),
        ("pswpout", c.swap_out),
        ("pgalloc_normal", c.zero_fill + c.cow_copied + c.page_in),
        ("pgfree", 0),
        ("pgactivate", c.reactivated),
        ("pgdeactivate", 0),
        ("pgfault", c.faults),
        ("pgmajfault", c.page_in),
        ("oom_kill", 0),
    ];
    let mut out = String::new();
    for (name, n) in rows {
        let _ = writeln!(out, "{name} {n}");
    }
    out
}

/// The host's load, the guests' processes.
fn loadavg<P: Platform>(sys: &Linux<P>) -> String {
    let host = sys
        .host_text(b"/proc/loadavg")
        .unwrap_or_else(|_| b"0.00 0.00 0.00 1/1 1".to_vec());
    let text = String::from_utf8_lossy(&host).into_owned();
    let loads: alloc::vec::Vec<&str> = text.split(' ').take(3).collect();
    let table = sys.processes.lock();
    let threads: usize = table.records.values().map(|r| r.threads.len()).sum();
    let last = table.records.keys().next_back().copied().unwrap_or(1);
    format!("{} 1/{threads} {last}\n", loads.join(" "))
}

fn segments<P: Platform>(sys: &Linux<P>) -> String {
    let mut out = String::from(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  \
         cgid      atime      dtime      ctime                   rss                  swap\n",
    );
    let table = sys.segments.table.lock();
    for (id, entry) in table.all() {
        let p = &entry.perm;
        let s = sys.segments.stat(sys, entry);
        let resident = sys.vm.object(entry.value.object).resident_pages();
        let _ = writeln!(
            out,
            "{:>10} {id:>10}  {:>4o} {:>21} {:>5} {:>5}  {:>5} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10} {:>10} {:>21} {:>21}",
            p.key,
            p.mode,
            s.bytes,
            s.creator,
            s.last,
            s.attached,
            p.uid,
            p.gid,
            p.cuid,
            p.cgid,
            s.attached_at,
            s.detached_at,
            s.changed_at,
            resident * Linux::<P>::PAGE_BYTES,
            0
        );
    }
    out
}

fn sets<P: Platform>(sys: &Linux<P>) -> String {
    let mut out = String::from(
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
    );
    let table = sys.sets.table.lock();
    for (id, entry) in table.all() {
        let p = &entry.perm;
        let _ = writeln!(
            out,
            "{:>10} {id:>10}  {:>4o} {:>10} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10}",
            p.key,
            p.mode,
            entry.value.semaphores.len(),
            p.uid,
            p.gid,
            p.cuid,
            p.cgid,
            entry.value.operated_at,
            entry.value.changed_at
        );
    }
    out
}

fn queues<P: Platform>(sys: &Linux<P>) -> String {
    let mut out = String::from(
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      \
         stime      rtime      ctime\n",
    );
    let table = sys.queues.table.lock();
    for (id, entry) in table.all() {
        let (p, q) = (&entry.perm, &entry.value);
        let _ = writeln!(
            out,
            "{:>10} {id:>10}  {:>4o}  {:>10} {:>10} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10} {:>10}",
            p.key,
            p.mode,
            q.bytes,
            q.messages.len(),
            q.sender,
            q.receiver,
            p.uid,
            p.gid,
            p.cuid,
            p.cgid,
            q.sent_at,
            q.received_at,
            q.changed_at
        );
    }
    out
}
