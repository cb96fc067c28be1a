//! What the files of `/proc` say about guest processes and about memory.

use super::path::Own;
use crate::errno::Errno;
use crate::maps;
use crate::platform::Platform;
use crate::process::{Life, Process};
use crate::system::Linux;
use crate::thread::Task;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Makes the text of a file when it is read from its beginning, as Linux does: who opened it may
/// have executed another program since.
pub(crate) type Maker = Box<dyn Fn() -> Result<Vec<u8>, Errno> + Send + Sync>;

/// What is at the end of a path of ours.
pub(crate) enum Node {
    /// A file whose text this makes.
    Text(Maker),
    /// A symbolic link.
    Link(Vec<u8>),
    /// A directory.
    Dir,
}

impl<P: Platform> Task<P> {
    /// What `own` leads to. Descriptors are links to the names of their files.
    pub(crate) fn node(&self, own: &Own) -> Result<Node, Errno> {
        match own {
            Own::SelfLink => Ok(Node::Link(format!("{}", self.process.pid).into_bytes())),
            Own::MemInfo => {
                let sys = self.sys;
                Ok(Node::Text(Box::new(move || Ok(meminfo(sys).into_bytes()))))
            }
            Own::KernelPage => Ok(Node::Text(Box::new(|| Ok(Vec::new())))),
            Own::Fd(fd) => Ok(Node::Link(self.file(u64::from(*fd))?.name()?)),
            Own::Process(pid, name) => self.process_node(*pid, name),
        }
    }

    fn process_node(&self, pid: u32, name: &[u8]) -> Result<Node, Errno> {
        let process = {
            let table = self.sys.processes.lock();
            table.get(pid).ok_or(Errno::ENOENT)?.process.clone()
        };
        match name {
            b"" | b"fd" | b"task" => return Ok(Node::Dir),
            b"exe" => return Ok(Node::Link(process.shared.lock().exe.clone())),
            b"cwd" => {
                let cwd = process.cwd();
                return Ok(Node::Link(cwd.path(&self.sys.platform)?));
            }
            b"root" => return Ok(Node::Link(b"/".to_vec())),
            _ => {}
        }
        let known = TEXTS.iter().find(|known| **known == name);
        let (sys, name) = (self.sys, *known.ok_or(Errno::ENOENT)?);
        Ok(Node::Text(Box::new(move || text(sys, &process, name))))
    }
}

/// The files of a process that are text.
const TEXTS: [&[u8]; 7] = [
    b"maps", b"cmdline", b"auxv", b"comm", b"stat", b"statm", b"status",
];

/// The text of one of [`TEXTS`] as it is now.
fn text<P: Platform>(
    sys: &'static Linux<P>,
    process: &Arc<Process<P>>,
    name: &[u8],
) -> Result<Vec<u8>, Errno> {
    Ok(match name {
        b"maps" => match process.space() {
            Some(space) => maps::text(sys, &space).into_bytes(),
            None => Vec::new(),
        },
        b"cmdline" => cmdline(process)?,
        b"auxv" => process
            .space()
            .map(|s| s.bounds.lock().auxv.clone())
            .unwrap_or_default(),
        b"comm" => [&process.shared.lock().name[..], b"\n"].concat(),
        b"stat" => stat_line(sys, process)?.into_bytes(),
        b"statm" => statm::<P>(process).into_bytes(),
        b"status" => status(sys, process)?.into_bytes(),
        _ => return Err(Errno::ENOENT),
    })
}

fn stat_line<P: Platform>(sys: &Linux<P>, process: &Arc<Process<P>>) -> Result<String, Errno> {
    let (size, resident) = figures(process);
    let name = String::from_utf8_lossy(&process.shared.lock().name).into_owned();
    let ticks = sys.used(process).time() / 10_000_000;
    let table = sys.processes.lock();
    let record = table.get(process.pid).ok_or(Errno::ENOENT)?;
    let state = state_letter(record.life, process.stopped.load(Ordering::Relaxed));
    Ok(format!(
        "{} ({name}) {state} {} {} {} 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 {} 0 0 {} {resident} \
         18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        process.pid,
        record.parent,
        record.pgid,
        record.sid,
        record.threads.len(),
        size * Linux::<P>::PAGE_BYTES,
    ))
}

fn status<P: Platform>(sys: &Linux<P>, process: &Arc<Process<P>>) -> Result<String, Errno> {
    let (size, resident) = figures(process);
    let kib = Linux::<P>::PAGE_BYTES / 1024;
    let name = String::from_utf8_lossy(&process.shared.lock().name).into_owned();
    let locked = process.space().map_or(0, |s| s.locked_bytes()) / 1024;
    let creds = process.creds.lock().clone();
    let (u, g) = (creds.user, creds.group);
    let table = sys.processes.lock();
    let record = table.get(process.pid).ok_or(Errno::ENOENT)?;
    let state = state_letter(record.life, process.stopped.load(Ordering::Relaxed));
    Ok(format!(
        "Name:\t{name}\nState:\t{state}\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t{}\n\
         Uid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\n\
         VmSize:\t{:8} kB\nVmLck:\t{locked:8} kB\nVmRSS:\t{:8} kB\nThreads:\t{}\n",
        record.parent,
        u.real,
        u.effective,
        u.saved,
        u.files,
        g.real,
        g.effective,
        g.saved,
        g.files,
        size * kib,
        resident * kib,
        record.threads.len(),
        pid = process.pid,
    ))
}

fn state_letter(life: Life, stopped: bool) -> char {
    match life {
        Life::Ended(_) => 'Z',
        Life::Alive if stopped => 'T',
        Life::Alive => 'R',
    }
}

/// Pages mapped and pages resident.
fn figures<P: Platform>(process: &Process<P>) -> (u64, u64) {
    process.space().map_or((0, 0), |space| {
        (
            space.core().size() / Linux::<P>::PAGE_BYTES,
            space.core().resident(),
        )
    })
}

fn statm<P: Platform>(process: &Process<P>) -> String {
    let (size, resident) = figures(process);
    format!("{size} {resident} 0 0 0 {size} 0\n")
}

fn cmdline<P: Platform>(process: &Process<P>) -> Result<Vec<u8>, Errno> {
    let Some(space) = process.space() else {
        return Ok(Vec::new());
    };
    let (start, end) = space.bounds.lock().args;
    let mut text = alloc::vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
    space.copy_in(start, &mut text).map_err(|_| Errno::EIO)?;
    Ok(text)
}

fn meminfo<P: Platform>(sys: &Linux<P>) -> String {
    let c = sys.vm.counters();
    let kib = Linux::<P>::PAGE_BYTES / 1024;
    let free = c.frames_free * kib;
    format!(
        "MemTotal:       {:8} kB\nMemFree:        {free:8} kB\nMemAvailable:   {free:8} kB\n\
         Buffers:               0 kB\nCached:                0 kB\nSwapTotal:             0 kB\n\
         SwapFree:              0 kB\nCommitted_AS:   {:8} kB\n",
        c.frames_total * kib,
        c.charged_pages * kib,
    )
}
