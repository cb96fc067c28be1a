//! Controlling terminals: which session has which, whom its signals reach, and who may use it.
//!
//! A terminal is a device of the host, known by its number. The runner's own belongs to the
//! session of the first process, and its line discipline signals the runner, which passes that on
//! ([`Linux::pass_signal`]). Of a pseudo-terminal that guests opened the host knows no session:
//! what its keys mean is found here, as they are written to its master.

use crate::errno::Errno;
use crate::fs::file::HostOpen;
use crate::platform::{Device, HostFile, Platform, TerminalAnswer, TerminalCall};
use crate::process::{INIT, Life, Processes, Record};
use crate::signal::{SIG_IGN, SigInfo, SigSet};
use crate::system::Linux;
use crate::thread::Task;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// `/dev/tty`: the controlling terminal of whoever opens it.
const OWN_TERMINAL: Device = (5, 0);
/// `/dev/ptmx`: a master.
const MASTER: Device = (5, 2);
const CONSOLE: Device = (5, 1);
/// The first and the last major number of the other ends of masters, 256 of them each.
const PTY_MAJORS: core::ops::RangeInclusive<u32> = 136..=143;
const VIRTUAL_MAJOR: u32 = 4;

/// The terminal of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Controlling {
    pub(crate) device: Device,
    /// The process group in its foreground.
    pub(crate) foreground: u32,
}

/// The sessions that have a controlling terminal, by number.
#[derive(Debug, Default)]
pub(crate) struct Terminals {
    sessions: BTreeMap<u32, Controlling>,
}

impl Terminals {
    pub(crate) fn of_session(&self, sid: u32) -> Option<Controlling> {
        self.sessions.get(&sid).copied()
    }

    /// The session that a terminal controls.
    pub(crate) fn of_device(&self, device: Device) -> Option<(u32, Controlling)> {
        let mut all = self.sessions.iter();
        let found = all.find(|(_, c)| c.device == device);
        found.map(|(&sid, &c)| (sid, c))
    }

    /// Gives a session a terminal, or another group its foreground.
    pub(crate) fn set(&mut self, sid: u32, controlling: Controlling) {
        self.sessions.insert(sid, controlling);
    }

    pub(crate) fn remove(&mut self, sid: u32) -> Option<Controlling> {
        self.sessions.remove(&sid)
    }
}

/// The device behind number `n` of the pseudo-terminals.
pub(crate) fn pty_device(n: u32) -> Device {
    (PTY_MAJORS.start() + n / 256, n % 256)
}

/// The path of a terminal, for one that is a pseudo-terminal's other end.
pub(crate) fn pty_path(device: Device) -> Option<Vec<u8>> {
    let n = device.0.checked_sub(*PTY_MAJORS.start())? * 256 + device.1;
    PTY_MAJORS
        .contains(&device.0)
        .then(|| alloc::format!("/dev/pts/{n}").into_bytes())
}

/// Closing the last descriptor of a master hangs its terminal up.
pub(crate) struct MasterEnd<P: Platform> {
    sys: &'static Linux<P>,
    pub(crate) device: Device,
}

impl<P: Platform> Drop for MasterEnd<P> {
    fn drop(&mut self) {
        self.sys.hang_up(self.device);
    }
}

impl<P: Platform> HostOpen<P> {
    /// The terminal that this is, for a caller whose session has `own`; a master is none.
    pub(crate) fn terminal(&self, own: Option<Device>) -> Option<Device> {
        if self.kind != abi::S_IFCHR {
            return None;
        }
        match self.rdev {
            OWN_TERMINAL => own,
            CONSOLE => Some(self.rdev),
            (major, _) if major == VIRTUAL_MAJOR || PTY_MAJORS.contains(&major) => Some(self.rdev),
            _ => None,
        }
    }

    /// What is to be dropped with this file if it is a master.
    pub(crate) fn master_end(&self, sys: &'static Linux<P>) -> Option<MasterEnd<P>> {
        if self.kind != abi::S_IFCHR || self.rdev != MASTER {
            return None;
        }
        match self.file.terminal(TerminalCall::Number) {
            Ok(TerminalAnswer::Count(n)) => Some(MasterEnd {
                sys,
                device: pty_device(n),
            }),
            _ => None,
        }
    }
}

impl<P: Platform> Processes<P> {
    /// Whether nobody outside of the group but in its session could continue its members: then
    /// job control does not stop them.
    pub(crate) fn is_orphaned(&self, pgid: u32) -> bool {
        self.is_orphaned_without(pgid, INIT)
    }

    /// The same as if process `gone` had ended.
    fn is_orphaned_without(&self, pgid: u32, gone: u32) -> bool {
        let connects = |r: &Record<P>| {
            // The first process has a parent outside: who started the runner.
            let outside = r.process.pid == self.main && r.sid == INIT;
            let parent = self.get(r.parent).filter(|p| p.process.pid != gone);
            outside || parent.is_some_and(|p| p.pgid != r.pgid && p.sid == r.sid)
        };
        let alive = |r: &&Record<P>| r.life == Life::Alive && r.process.pid != gone;
        let mut members = self
            .records
            .values()
            .filter(|r| r.pgid == pgid)
            .filter(alive);
        !members.any(connects)
    }

    /// The groups with stopped members that the end of `pid` leaves orphaned.
    pub(crate) fn left_alone_by(&self, pid: u32) -> Vec<u32> {
        let own = self.get(pid).map(|r| r.pgid);
        let children = self.records.values().filter(|r| r.parent == pid);
        let mut groups: Vec<u32> = children.map(|r| r.pgid).chain(own).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.retain(|&g| {
            let mut members = self.records.values().filter(|r| r.pgid == g);
            members.any(|r| r.process.pid != pid && r.process.stopped.load(Ordering::SeqCst))
                && !self.is_orphaned(g)
                && self.is_orphaned_without(g, pid)
        });
        groups
    }
}

impl<P: Platform> Linux<P> {
    /// Passes on a signal that the runner got. What a terminal sends to its foreground goes to the
    /// group in the foreground of the runner's terminal, a continuation to the group of the first
    /// process, anything else to that process alone.
    ///
    /// Errors: [`Errno::ESRCH`] while nobody runs who could get it.
    pub fn pass_signal(&self, signal: u32) -> Result<(), Errno> {
        let (main, group) = {
            let table = self.processes.lock();
            let record = table.get(table.main).ok_or(Errno::ESRCH)?;
            let terminal = self.terminals.lock().of_session(record.sid);
            let group = match signal {
                abi::SIGCONT => record.pgid,
                _ => terminal.map_or(record.pgid, |t| t.foreground),
            };
            (table.main, group)
        };
        let uid = self.platform.identity().uid;
        let info = SigInfo::sent(signal, abi::SI_USER as i32, 0, uid);
        let by_key = SigInfo::sent(signal, abi::SI_KERNEL as i32, 0, 0);
        match signal {
            abi::SIGINT | abi::SIGQUIT | abi::SIGTSTP | abi::SIGWINCH => {
                self.signal_many(by_key, |r| r.pgid == group)
            }
            abi::SIGCONT => self.signal_many(info, |r| r.pgid == group),
            abi::SIGHUP => self.signal_many(by_key, |r| r.pgid == group || r.process.pid == main),
            _ => self.signal_process(main, info),
        }
    }

    /// The signal of a terminal's key reaches its foreground group.
    fn terminal_signal(&self, device: Device, signal: u32) {
        let found = self.terminals.lock().of_device(device);
        if let Some((_, controlling)) = found {
            let info = SigInfo::sent(signal, abi::SI_KERNEL as i32, 0, 0);
            self.signal_many(info, |r| r.pgid == controlling.foreground)
                .ok();
        }
    }

    /// The size of a terminal has changed. The host tells the runner of its own.
    pub(crate) fn resized(&self, device: Device) {
        if self.platform.standing().terminal != Some(device) {
            self.terminal_signal(device, abi::SIGWINCH);
        }
    }

    /// A terminal's other side is gone: its session loses it.
    pub(crate) fn hang_up(&self, device: Device) {
        let found = self.terminals.lock().of_device(device);
        if let Some((sid, _)) = found {
            self.leave_terminal(sid, |r| r.process.pid == sid);
        }
    }

    /// Takes a session's terminal away; who was in its foreground, and whoever else is meant,
    /// learns that it is gone.
    pub(crate) fn leave_terminal(&self, sid: u32, others: impl Fn(&Record<P>) -> bool) {
        let Some(lost) = self.terminals.lock().remove(sid) else {
            return;
        };
        self.hang_up_group(|r| r.pgid == lost.foreground || others(r));
    }

    /// `SIGHUP`, and `SIGCONT` for those that are stopped.
    pub(crate) fn hang_up_group(&self, which: impl Fn(&Record<P>) -> bool) {
        for signal in [abi::SIGHUP, abi::SIGCONT] {
            let info = SigInfo::sent(signal, abi::SI_KERNEL as i32, 0, 0);
            self.signal_many(info, &which).ok();
        }
    }

    /// What is written to a master is typed at its terminal: keys that mean a signal send it. The
    /// host's line discipline has taken them out of the input by the same settings.
    pub(crate) fn typed(&self, host: &HostOpen<P>, bytes: &[u8]) {
        let Some(device) = host.master.as_ref().map(|m| m.device) else {
            return;
        };
        if self.terminals.lock().of_device(device).is_none() {
            return;
        }
        let Ok(TerminalAnswer::Termios(settings)) = host.file.terminal(TerminalCall::Get) else {
            return;
        };
        for signal in bytes.iter().filter_map(|&b| settings_signal(&settings, b)) {
            self.terminal_signal(device, signal);
        }
    }
}

/// Where the control characters stand in `struct termios`.
const CODES_AT: usize = 17;

/// The local modes of `struct termios`.
fn local_modes(settings: &[u8; 36]) -> u32 {
    let [.., a, b, c, d] = *settings.first_chunk::<16>().unwrap_or(&[0; 16]);
    u32::from_ne_bytes([a, b, c, d])
}

/// The signal that a key sends under these settings.
fn settings_signal(settings: &[u8; 36], key: u8) -> Option<u32> {
    const DISABLED: u8 = 0;
    if local_modes(settings) & abi::ISIG == 0 || key == DISABLED {
        return None;
    }
    let keys = [
        (abi::VINTR, abi::SIGINT),
        (abi::VQUIT, abi::SIGQUIT),
        (abi::VSUSP, abi::SIGTSTP),
    ];
    let found = keys
        .iter()
        .find(|(at, _)| settings.get(CODES_AT + *at as usize) == Some(&key));
    found.map(|&(_, signal)| signal)
}

impl<P: Platform> Task<P> {
    /// The caller's process group and session.
    pub(crate) fn group_and_session(&self) -> (u32, u32) {
        let table = self.sys.processes.lock();
        table
            .get(self.process.pid)
            .map_or((0, 0), |r| (r.pgid, r.sid))
    }

    /// The caller's controlling terminal.
    pub(crate) fn controlling(&self) -> Option<Controlling> {
        let (_, sid) = self.group_and_session();
        self.sys.terminals.lock().of_session(sid)
    }

    /// The caller's group, if `host` is its controlling terminal and another has the foreground.
    fn background_group(&self, host: &HostOpen<P>) -> Option<u32> {
        let (pgid, sid) = self.group_and_session();
        let own = self.sys.terminals.lock().of_session(sid)?;
        if host.terminal(Some(own.device)) != Some(own.device) {
            return None;
        }
        let front = own.foreground == pgid && self.runner_is_in_front(host, own.device);
        (!front).then_some(pgid)
    }

    /// Whether the host's terminal, if it is that, would let the runner read it.
    pub(crate) fn runner_is_in_front(&self, host: &HostOpen<P>, device: Device) -> bool {
        if self.sys.platform.standing().terminal != Some(device) {
            return true;
        }
        let asked = host.file.terminal(TerminalCall::Foreground);
        asked != Ok(TerminalAnswer::Count(0))
    }

    /// Before a terminal is read (`SIGTTIN`) or changed (`SIGTTOU`): from the background the
    /// caller's group is stopped instead.
    ///
    /// Errors: [`Errno::RESTART`] with the signal on its way, [`Errno::EIO`] where nobody would
    /// continue the group, or where a reader will not have the signal.
    pub(crate) fn job_control(&self, host: &HostOpen<P>, signal: u32) -> Result<(), Errno> {
        let Some(pgid) = self.background_group(host) else {
            return Ok(());
        };
        let unwanted = {
            let shared = self.process.signals.lock();
            let blocked = self
                .thread
                .signals
                .lock()
                .mask
                .intersect(SigSet::of(signal));
            !blocked.is_empty() || shared.action(signal).handler == SIG_IGN
        };
        if unwanted && signal == abi::SIGTTOU {
            return Ok(());
        }
        if unwanted || self.sys.processes.lock().is_orphaned(pgid) {
            return Err(Errno::EIO);
        }
        let info = SigInfo::sent(signal, abi::SI_KERNEL as i32, 0, 0);
        self.sys.signal_many(info, |r| r.pgid == pgid)?;
        Err(Errno::RESTART)
    }

    /// The same before a terminal is written, which its settings allow or not (`TOSTOP`).
    pub(crate) fn job_control_of_output(&self, host: &HostOpen<P>) -> Result<(), Errno> {
        if self.background_group(host).is_none() {
            return Ok(());
        }
        match host.file.terminal(TerminalCall::Get) {
            Ok(TerminalAnswer::Termios(t)) if local_modes(&t) & abi::TOSTOP != 0 => {
                self.job_control(host, abi::SIGTTOU)
            }
            _ => Ok(()),
        }
    }

    /// A session leader without a terminal gets the first one that it opens to read, unless it
    /// asked for that not to happen.
    pub(crate) fn adopt_terminal(&self, host: &HostOpen<P>) {
        let (pgid, sid) = self.group_and_session();
        let Some(device) = host.terminal(None) else {
            return;
        };
        let mut terminals = self.sys.terminals.lock();
        let free = sid == self.process.pid
            && terminals.of_session(sid).is_none()
            && terminals.of_device(device).is_none();
        if free {
            let foreground = pgid;
            terminals.set(sid, Controlling { device, foreground });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(modes: u32) -> [u8; 36] {
        let mut t = [0; 36];
        t[12..16].copy_from_slice(&modes.to_ne_bytes());
        t[CODES_AT + abi::VINTR as usize] = 3;
        t[CODES_AT + abi::VSUSP as usize] = 26;
        t
    }

    #[test]
    fn keys_mean_signals_where_the_settings_say_so() {
        let on = settings(abi::ISIG);
        assert_eq!(settings_signal(&on, 3), Some(abi::SIGINT));
        assert_eq!(settings_signal(&on, 26), Some(abi::SIGTSTP));
        assert_eq!(settings_signal(&on, 0), None); // VQUIT is switched off
        assert_eq!(settings_signal(&on, b'a'), None);
        assert_eq!(settings_signal(&settings(0), 3), None);
    }

    #[test]
    fn pseudo_terminals_are_found_by_number() {
        assert_eq!(pty_device(3), (136, 3));
        assert_eq!(pty_device(258), (137, 2));
        assert_eq!(pty_path((137, 2)), Some(b"/dev/pts/258".to_vec()));
        assert_eq!(pty_path((4, 1)), None);
        assert_eq!(pty_path((200, 1)), None);
    }

    #[test]
    fn a_terminal_belongs_to_one_session() {
        let mut terminals = Terminals::default();
        let controlling = Controlling {
            device: (136, 1),
            foreground: 9,
        };
        terminals.set(7, controlling);
        assert_eq!(terminals.of_device((136, 1)), Some((7, controlling)));
        assert_eq!(terminals.of_session(9), None);
        assert_eq!(terminals.remove(7), Some(controlling));
        assert_eq!(terminals.of_device((136, 1)), None);
    }
}
