//! The runner's place among the host's processes.

use bsdvm_linux::platform::{Device, Standing};
use nix::unistd::{getpgrp, getpid, getsid};

/// `SIGPIPE`: Rust's runtime ignores it before we can look.
const SIGPIPE: u32 = 13;

/// The runner's place as it is now. A host without `/proc` shows no terminal and nothing ignored.
///
/// Where the runner is in a namespace of processes that does not contain the leader of its group
/// or session, the host's numbers for them are 0: the first process of a container has such ones.
pub fn standing() -> Standing {
    let own = getpid();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    Standing {
        pid: own.as_raw().unsigned_abs(),
        leads_group: getpgrp() == own,
        leads_session: getsid(None) == Ok(own),
        terminal: terminal(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default()),
        umask: umask(&status),
        ignored: ignored(&status),
        nice: rustix::process::getpriority_process(None).unwrap_or(0),
    }
}

/// The controlling terminal as the line of `/proc/PID/stat` names it: the fifth number behind the
/// name, with the minor number's low byte, the major number and the rest of the minor one.
fn terminal(stat: &str) -> Option<Device> {
    let (_, fields) = stat.rsplit_once(')')?;
    let number: u32 = fields.split_whitespace().nth(4)?.parse().ok()?;
    let device = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    (number != 0).then_some(device)
}

/// A line of `/proc/PID/status`.
fn line<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    line.map(str::trim)
}

fn umask(status: &str) -> u32 {
    let mask = line(status, "Umask:");
    let mask = mask.and_then(|m| u32::from_str_radix(m, 8).ok());
    mask.unwrap_or(Standing::default().umask)
}

/// A set of a line of `/proc/PID/status`.
fn set(status: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(line(status, name)?, 16).ok()
}

fn ignored(status: &str) -> u64 {
    set(status, "SigIgn:").unwrap_or(0) & !(1 << (SIGPIPE - 1))
}

/// The capabilities that the runner's bounding set lacks.
pub(crate) fn withheld() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    set(&status, "CapBnd:").map_or(0, |bounding| !bounding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_is_read_from_the_line_of_the_process() {
        let line = |n| format!("7 (a b) c) S 1 7 7 {n} 7 0");
        assert_eq!(terminal(&line(0)), None);
        assert_eq!(terminal(&line(0x8803)), Some((136, 3)));
        assert_eq!(terminal(&line(0x0010_8801)), Some((136, 0x101)));
        assert_eq!(terminal(""), None);
    }

    #[test]
    fn masks_are_read_from_the_status() {
        assert_eq!(umask("Name:\tx\nUmask:\t0027\n"), 0o27);
        assert_eq!(umask(""), 0o22);
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\n"), 1);
        assert_eq!(ignored(""), 0);
        assert_eq!(
            set("CapPrm:\t3\nCapBnd:\t00000000000000ff\n", "CapBnd:"),
            Some(255)
        );
    }
}
