//! Waiting for children.

use crate::blocking::{Unfinished, child_channel};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::{ExitStatus, Life, Processes, Record, Report};
use crate::thread::Task;
use crate::usage::Used;
use linux_raw_sys::general as abi;

/// Which children are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Any,
    Pid(u32),
    Group(u32),
}

/// What a child did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Ended(ExitStatus),
    Stopped(u8),
    Continued,
}

impl Event {
    /// As `wait4` stores it.
    pub(crate) fn wait_word(self) -> u32 {
        match self {
            Event::Ended(status) => status.wait_word(),
            Event::Stopped(n) => u32::from(n) << 8 | 0x7f,
            Event::Continued => 0xffff,
        }
    }
}

/// A child that did something, and what it used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waited {
    pub(crate) pid: u32,
    pub(crate) event: Event,
    pub(crate) used: Used,
    pub(crate) uid: u32,
}

/// What a wait finds in the table.
enum Look {
    Found(Waited),
    NotYet,
    NoChildren,
}

fn event_of<P: Platform>(record: &Record<P>, options: u32) -> Option<Event> {
    match (record.life, record.report) {
        (Life::Ended(status), _) if options & abi::WEXITED != 0 => Some(Event::Ended(status)),
        (Life::Alive, Some(Report::Stopped(n))) if options & abi::WUNTRACED != 0 => {
            Some(Event::Stopped(n))
        }
        (Life::Alive, Some(Report::Continued)) if options & abi::WCONTINUED != 0 => {
            Some(Event::Continued)
        }
        _ => None,
    }
}

/// Whether a child that ends with this signal is waited for: one with another signal than
/// `SIGCHLD` only by who asks for such.
fn is_meant(exit_signal: u32, options: u32) -> bool {
    let unusual = exit_signal != abi::SIGCHLD;
    options & abi::__WALL != 0 || unusual == (options & abi::__WCLONE != 0)
}

impl<P: Platform> Processes<P> {
    /// Looks for a child of `parent`, and takes what it found unless it is to be left.
    fn look(&mut self, parent: u32, which: Which, options: u32) -> Look {
        let wanted = |r: &&mut Record<P>| {
            r.parent == parent
                && is_meant(r.exit_signal, options)
                && match which {
                    Which::Any => true,
                    Which::Pid(pid) => r.process.pid == pid,
                    Which::Group(pgid) => r.pgid == pgid,
                }
        };
        let mut any = false;
        let mut found = None;
        for record in self.records.values_mut().filter(wanted) {
            any = true;
            if let Some(event) = event_of(record, options) {
                let process = &record.process;
                let own = *process.used.lock();
                let used = own.with(*process.child_used.lock());
                let uid = process.creds.lock().user.real;
                found = Some(Waited {
                    pid: record.process.pid,
                    event,
                    used,
                    uid,
                });
                if options & abi::WNOWAIT == 0 {
                    record.report = None;
                }
                break;
            }
        }
        match found {
            Some(waited) => {
                if matches!(waited.event, Event::Ended(_)) && options & abi::WNOWAIT == 0 {
                    self.records.remove(&waited.pid);
                }
                Look::Found(waited)
            }
            None if any => Look::NotYet,
            None => Look::NoChildren,
        }
    }
}

impl<P: Platform> Task<P> {
    /// Waits for a child to do something that `options` (as of `waitid`) ask for; `None` when none
    /// did and `WNOHANG` is among them.
    pub(crate) fn wait_child(&self, which: Which, options: u32) -> Result<Option<Waited>, Errno> {
        let pid = self.process.pid;
        let waited = self.wait_on(child_channel(pid), None, || {
            match self.sys.processes.lock().look(pid, which, options) {
                Look::Found(waited) => Some(Ok(Some(waited))),
                Look::NoChildren => Some(Err(Errno::ECHILD)),
                Look::NotYet if options & abi::WNOHANG != 0 => Some(Ok(None)),
                Look::NotYet => None,
            }
        });
        let waited = match waited {
            Ok(result) => result?,
            Err(Unfinished::Signal | Unfinished::Deadline) => return Err(Errno::RESTART),
        };
        if let Some(Waited {
            event: Event::Ended(_),
            used,
            ..
        }) = waited
            && options & abi::WNOWAIT == 0
        {
            let mut all = self.process.child_used.lock();
            *all = all.with(used);
        }
        Ok(waited)
    }
}
