//! `ioctl` on terminals: settings, sizes, and whose they are.

use super::Answer;
use crate::creds::cap;
use crate::errno::Errno;
use crate::fs::file::HostOpen;
use crate::platform::{HostFile, Platform, TerminalAnswer, TerminalCall};
use crate::process::INIT;
use crate::terminal::Controlling;
use crate::thread::Task;
use linux_raw_sys::general as abi;
use linux_raw_sys::ioctl;

impl<P: Platform> Task<P> {
    /// What `ioctl` asks of a file of the host.
    pub(super) fn terminal(&self, host: &HostOpen<P>, request: u32, arg: u64) -> Answer {
        let call = match request {
            ioctl::TCGETS => TerminalCall::Get,
            ioctl::TIOCGWINSZ => TerminalCall::WindowSize,
            ioctl::FIONREAD => TerminalCall::Readable,
            ioctl::TIOCGPTN => TerminalCall::Number,
            ioctl::TIOCSPTLCK if self.get::<u32>(arg)? == 0 => TerminalCall::Unlock,
            ioctl::TIOCSWINSZ => return self.set_window_size(host, arg),
            ioctl::TIOCGPGRP => return self.get_foreground(host, arg),
            ioctl::TIOCSPGRP => return self.set_foreground(host, arg),
            ioctl::TIOCGSID => return self.get_session(host, arg),
            ioctl::TIOCSCTTY => return self.set_controlling(host, arg),
            ioctl::TIOCNOTTY => return self.give_up_terminal(host),
            _ => self.terminal_change(host, request, arg)?,
        };
        match host.file.terminal(call)? {
            TerminalAnswer::Done => {}
            TerminalAnswer::Termios(t) => self.put(arg, &t)?,
            TerminalAnswer::WindowSize(w) => self.put(arg, &w)?,
            TerminalAnswer::Count(n) => self.put(arg, &n)?,
        }
        Ok(0)
    }

    /// Requests that a process in the background is stopped for.
    fn terminal_change(
        &self,
        host: &HostOpen<P>,
        request: u32,
        arg: u64,
    ) -> Result<TerminalCall, Errno> {
        let byte = u8::try_from(arg).map_err(|_| Errno::EINVAL);
        let call = match request {
            ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
                TerminalCall::Set((request - ioctl::TCSETS) as u8, self.get(arg)?)
            }
            ioctl::TCSBRK if arg != 0 => TerminalCall::Drain,
            ioctl::TCSBRK | ioctl::TCSBRKP => TerminalCall::Break,
            ioctl::TCFLSH => TerminalCall::Flush(byte?),
            ioctl::TCXONC => TerminalCall::Flow(byte?),
            _ => return Err(Errno::ENOTTY),
        };
        self.job_control(host, abi::SIGTTOU)?;
        Ok(call)
    }

    fn set_window_size(&self, host: &HostOpen<P>, arg: u64) -> Answer {
        let size: [u16; 4] = self.get(arg)?;
        let before = host.file.terminal(TerminalCall::WindowSize)?;
        host.file.terminal(TerminalCall::SetWindowSize(size))?;
        let own = self.controlling().map(|c| c.device);
        let device = match &host.master {
            Some(master) => Some(master.device),
            None => host.terminal(own),
        };
        if let Some(device) = device
            && before != TerminalAnswer::WindowSize(size)
        {
            self.sys.resized(device);
        }
        Ok(0)
    }

    /// Who controls the terminal: of the caller's own, or of the one behind a master.
    fn controlled(&self, host: &HostOpen<P>) -> Result<(u32, Controlling), Errno> {
        let (_, sid) = self.group_and_session();
        let terminals = self.sys.terminals.lock();
        if let Some(master) = &host.master {
            return terminals.of_device(master.device).ok_or(Errno::ENOTTY);
        }
        let own = terminals.of_session(sid).ok_or(Errno::ENOTTY)?;
        match host.terminal(Some(own.device)) == Some(own.device) {
            true => Ok((sid, own)),
            false => Err(Errno::ENOTTY),
        }
    }

    fn get_foreground(&self, host: &HostOpen<P>, arg: u64) -> Answer {
        let (_, own) = self.controlled(host)?;
        // From the background of the host the group in front is none of ours.
        let group = match self.runner_is_in_front(host, own.device) {
            true => own.foreground,
            false => INIT,
        };
        self.put(arg, &group).map(|()| 0)
    }

    fn set_foreground(&self, host: &HostOpen<P>, arg: u64) -> Answer {
        self.job_control(host, abi::SIGTTOU).map_err(|e| match e {
            Errno::EIO => Errno::ENOTTY,
            other => other,
        })?;
        let (sid, own) = self.controlled(host)?;
        let foreground: u32 = self.get(arg)?;
        if (foreground as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        let session = {
            let table = self.sys.processes.lock();
            let member = table.records.values().find(|r| r.pgid == foreground);
            member.map(|r| r.sid)
        };
        // The group of whoever started the runner has no member that we know.
        match session {
            Some(s) if s != sid => return Err(Errno::EPERM),
            None => return Err(Errno::ESRCH),
            Some(_) => {}
        }
        let next = Controlling { foreground, ..own };
        self.sys.terminals.lock().set(sid, next);
        Ok(0)
    }

    fn get_session(&self, host: &HostOpen<P>, arg: u64) -> Answer {
        let (sid, _) = self.controlled(host)?;
        self.put(arg, &sid).map(|()| 0)
    }

    fn set_controlling(&self, host: &HostOpen<P>, steal: u64) -> Answer {
        host.file.terminal(TerminalCall::Get)?;
        let (pgid, sid) = self.group_and_session();
        let device = host.terminal(None);
        let superuser = self.creds().capable(cap::SYS_ADMIN);
        let mut terminals = self.sys.terminals.lock();
        let own = terminals.of_session(sid);
        if own.is_some() && own.map(|o| o.device) == device {
            return Ok(0);
        }
        let device = device.ok_or(Errno::EPERM)?;
        if sid != self.process.pid || own.is_some() {
            return Err(Errno::EPERM);
        }
        if let Some((other, _)) = terminals.of_device(device) {
            if steal != 1 || !superuser {
                return Err(Errno::EPERM);
            }
            terminals.remove(other);
        }
        let foreground = pgid;
        terminals.set(sid, Controlling { device, foreground });
        Ok(0)
    }

    fn give_up_terminal(&self, host: &HostOpen<P>) -> Answer {
        let (sid, _) = self.controlled(host)?;
        if host.master.is_some() {
            return Err(Errno::ENOTTY);
        }
        if sid == self.process.pid {
            self.sys.leave_terminal(sid, |_| false);
        }
        Ok(0)
    }
}
