//! Waiting for files: `poll`, `ppoll`, `select`, `pselect6`.

use super::{Answer, Args, Calls};
use crate::blocking::poll_channel;
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::platform::Platform;
use crate::process::UNSTOPPABLE;
use crate::signal::SigSet;
use crate::syscall::time::Timespec;
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

pub(super) const ALWAYS: u16 = (abi::POLLERR | abi::POLLHUP | abi::POLLNVAL) as u16;
const READ_BITS: u16 = (abi::POLLIN | abi::POLLRDNORM | abi::POLLHUP | abi::POLLERR) as u16;
const WRITE_BITS: u16 = (abi::POLLOUT | abi::POLLWRNORM | abi::POLLERR) as u16;

/// One file that is asked about.
pub(super) struct Asked<P: Platform> {
    file: Option<Arc<OpenFile<P>>>,
    want: u16,
    pub(super) got: u16,
    /// The change of the file at the last look.
    pub(super) change: u64,
    /// A file that has not changed since this is not ready; 0 for any.
    pub(super) told: u64,
}

impl<P: Platform> Asked<P> {
    pub(super) fn new(file: Option<Arc<OpenFile<P>>>, want: u16) -> Self {
        Asked {
            file,
            want,
            got: 0,
            change: 0,
            told: 0,
        }
    }
}

impl<P: Platform> Task<P> {
    pub(super) const POLL: Calls<P> = &[
        (abi::__NR_poll, Self::poll),
        (abi::__NR_ppoll, Self::ppoll),
        (abi::__NR_select, Self::select),
        (abi::__NR_pselect6, Self::pselect6),
    ];

    fn poll(&mut self, [fds, count, timeout, ..]: Args) -> Answer {
        let deadline = self.millis_deadline(timeout);
        self.poll_list(fds, count, deadline)
    }

    /// A deadline that is given in milliseconds from now; none when that is negative.
    pub(super) fn millis_deadline(&self, timeout: u64) -> Option<u64> {
        let millis = u64::try_from(timeout as i32).ok()?;
        Some(self.sys.now().saturating_add(millis * 1_000_000))
    }

    fn ppoll(&mut self, [fds, count, timeout, mask, mask_size, _]: Args) -> Answer {
        let deadline = self.relative_deadline(timeout)?;
        self.mask_for_call(mask, mask_size)?;
        let answer = self.poll_list(fds, count, deadline);
        self.put_time_left(timeout, deadline);
        answer
    }

    pub(super) fn relative_deadline(&self, at: u64) -> Result<Option<u64>, Errno> {
        if at == 0 {
            return Ok(None);
        }
        let nanos = self.get::<Timespec>(at)?.nanos()?;
        Ok(Some(self.sys.now().saturating_add(nanos)))
    }

    /// Sets a mask that lasts until the call returns.
    pub(super) fn mask_for_call(&self, mask: u64, size: u64) -> Result<(), Errno> {
        if mask == 0 {
            return Ok(());
        }
        if size != 8 {
            return Err(Errno::EINVAL);
        }
        let mask: SigSet = self.get(mask)?;
        let mut own = self.thread.signals.lock();
        own.saved_mask = Some(own.mask);
        own.mask = mask.without(UNSTOPPABLE);
        Ok(())
    }

    fn poll_list(&self, fds: u64, count: u64, deadline: Option<u64>) -> Answer {
        if count > self.process.limit(7).min(1 << 20) {
            return Err(Errno::EINVAL);
        }
        let mut raw = self.bytes(fds, count as usize * 8)?;
        let files = self.process.files();
        let mut asked: Vec<Asked<P>> = raw
            .chunks_exact(8)
            .map(|e| {
                let fd = i32::from_le_bytes([e[0], e[1], e[2], e[3]]);
                let want = u16::from_le_bytes([e[4], e[5]]);
                let file = files.get(fd as u32).ok();
                let missing = fd >= 0 && file.is_none();
                let mut asked = Asked::new(file.filter(|_| fd >= 0), want | ALWAYS);
                if missing {
                    asked.got = abi::POLLNVAL as u16;
                }
                asked
            })
            .collect();
        let ready = self.poll_until(&mut asked, deadline, &|| false)?;
        for (entry, asked) in raw.chunks_exact_mut(8).zip(&asked) {
            entry[6..8].copy_from_slice(&asked.got.to_le_bytes());
        }
        self.write_user(fds, &raw)?;
        Ok(ready)
    }

    /// Waits until something is ready or `stale` says that the question is out of date; gives
    /// back how many are ready. An interruption is told as one that no restart follows, as for
    /// Linux.
    pub(super) fn poll_until(
        &self,
        asked: &mut [Asked<P>],
        deadline: Option<u64>,
        stale: &dyn Fn() -> bool,
    ) -> Answer {
        // A list may be given files of the host while it is waited for.
        let kinds = asked.iter().filter_map(|a| a.file.as_ref());
        let hosts = kinds
            .map(|f| &f.kind)
            .any(|k| matches!(k, Kind::Host(_) | Kind::Epoll(_)));
        let ticket = self.sys.next_id();
        if hosts {
            // Whoever changes something of ours rings the bell beside the host's files.
            let bell = (ticket, self.thread.kicker());
            self.sys.mixed.lock().push(bell);
        }
        self.sys.pollers.fetch_add(1, Ordering::SeqCst);
        let result = self.poll_loop(asked, deadline, stale, hosts);
        self.thread.sleeping.store(0, Ordering::SeqCst);
        self.sys.pollers.fetch_sub(1, Ordering::SeqCst);
        if hosts {
            self.sys.mixed.lock().retain(|(id, _)| *id != ticket);
        }
        result
    }

    fn poll_loop(
        &self,
        asked: &mut [Asked<P>],
        deadline: Option<u64>,
        stale: &dyn Fn() -> bool,
        hosts: bool,
    ) -> Answer {
        loop {
            let ticket = self.sys.ticket(poll_channel());
            self.thread
                .sleeping
                .store(poll_channel().0, Ordering::SeqCst);
            let ready = self.look(asked)?;
            if ready > 0 || stale() {
                return Ok(ready);
            }
            let now = self.sys.now();
            if deadline.is_some_and(|d| now >= d) {
                return Ok(0);
            }
            let files = asked.iter().filter_map(|a| a.file.as_ref());
            let due = files.filter_map(|f| f.due(self)).chain(deadline).min();
            if self.is_interrupted() {
                return Err(Errno::RESTART_NO_HANDLER);
            }
            if hosts {
                self.wait_hosts(asked, due)?;
            } else {
                self.sys.sleep(poll_channel(), ticket, due);
            }
        }
    }

    /// What is ready now.
    fn look(&self, asked: &mut [Asked<P>]) -> Answer {
        self.wait_hosts(asked, Some(0))?;
        for a in asked.iter_mut() {
            let Some(file) = &a.file else { continue };
            if file.as_host().is_some() {
                continue;
            }
            // The change is taken first: what comes between is told once more.
            a.change = file.changes();
            let old = a.told != 0 && a.told == a.change;
            a.got = if old { 0 } else { file.poll(self) & a.want };
        }
        Ok(asked.iter().filter(|a| a.got != 0).count() as u64)
    }

    /// The bits of `poll` of a file of the host, now.
    pub(crate) fn host_ready(&self, file: &OpenFile<P>, want: u16) -> u16 {
        let Some(host) = file.as_host() else { return 0 };
        let files = [(&*host.file, want & !ALWAYS)];
        let kicker = self.thread.kicker();
        let bits = self.sys.platform.wait_files(&kicker, &files, Some(0));
        bits.map_or(0, |b| b.first().copied().unwrap_or(0))
    }

    fn wait_hosts(&self, asked: &mut [Asked<P>], deadline: Option<u64>) -> Result<(), Errno> {
        let hosts: Vec<(usize, Arc<OpenFile<P>>, u16)> = asked
            .iter()
            .enumerate()
            .filter_map(|(i, a)| {
                let file = a.file.as_ref().filter(|f| f.as_host().is_some())?;
                Some((i, file.clone(), a.want))
            })
            .collect();
        let lists = asked.iter().filter_map(|a| match &a.file.as_ref()?.kind {
            Kind::Epoll(list) => Some(list.hosts()),
            _ => None,
        });
        let listed: Vec<_> = lists.flatten().collect();
        if hosts.is_empty() && listed.is_empty() && deadline == Some(0) {
            return Ok(());
        }
        let direct = hosts.iter().map(|(_, f, want)| (f, *want));
        let all = direct.chain(listed.iter().map(|(f, want)| (f, *want)));
        let files: Vec<(&P::File, u16)> = all
            .filter_map(|(f, want)| Some((&*f.as_host()?.file, want & !ALWAYS)))
            .collect();
        let kicker = self.thread.kicker();
        let ready = self.sys.platform.wait_files(&kicker, &files, deadline)?;
        for ((i, _, want), bits) in hosts.iter().zip(ready) {
            if let Some(a) = asked.get_mut(*i) {
                a.got = bits & *want;
            }
        }
        Ok(())
    }

    fn select(&mut self, [count, read, write, except, timeout, _]: Args) -> Answer {
        let deadline = if timeout == 0 {
            None
        } else {
            // `struct timeval`: microseconds, perhaps more than a second of them.
            let [seconds, micros]: [i64; 2] = self.get(timeout)?;
            let time = Timespec {
                seconds: seconds.saturating_add(micros / 1_000_000),
                nanos: micros % 1_000_000 * 1000,
            };
            Some(self.sys.now().saturating_add(time.nanos()?))
        };
        let answer = self.select_sets(count, [read, write, except], deadline);
        let left = self.time_left(deadline);
        let left = [left.seconds, left.nanos / 1000];
        self.put_optional(timeout, &left).ok();
        answer
    }

    fn pselect6(&mut self, [count, read, write, except, timeout, mask]: Args) -> Answer {
        let deadline = self.relative_deadline(timeout)?;
        if mask != 0 {
            let [set, size]: [u64; 2] = self.get(mask)?;
            self.mask_for_call(set, size)?;
        }
        let answer = self.select_sets(count, [read, write, except], deadline);
        self.put_time_left(timeout, deadline);
        answer
    }

    fn time_left(&self, deadline: Option<u64>) -> Timespec {
        let now = self.sys.now();
        Timespec::of(deadline.map_or(0, |d| d.saturating_sub(now)))
    }

    /// Tells what is left of a time, where Linux does: a place that cannot be written is left.
    fn put_time_left(&self, to: u64, deadline: Option<u64>) {
        self.put_optional(to, &self.time_left(deadline)).ok();
    }

    fn select_sets(&self, count: u64, sets: [u64; 3], deadline: Option<u64>) -> Answer {
        if (count as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        // What the table has no place for is not looked at.
        let count = u64::from(count as u32).min(self.process.files().places());
        const BITS: [u16; 3] = [READ_BITS, WRITE_BITS, abi::POLLPRI as u16];
        let bytes = (count as usize).div_ceil(64) * 8;
        let mut wanted = Vec::new();
        for at in sets {
            wanted.push(if at == 0 {
                vec![0; bytes]
            } else {
                self.bytes(at, bytes)?
            });
        }
        let has = |set: &[u8], fd: usize| set.get(fd / 8).is_some_and(|b| b >> (fd % 8) & 1 != 0);
        let files = self.process.files();
        let mut numbers = Vec::new();
        let mut asked = Vec::new();
        for fd in 0..count as usize {
            let pairs = wanted.iter().zip(BITS);
            let want = pairs.filter(|(s, _)| has(s, fd)).fold(0, |w, (_, b)| w | b);
            if want != 0 {
                numbers.push(fd);
                asked.push(Asked::new(Some(files.get(fd as u32)?), want));
            }
        }
        self.poll_until(&mut asked, deadline, &|| false)?;
        let mut total = 0;
        for ((at, set), bits) in sets.into_iter().zip(&wanted).zip(BITS) {
            let mut out = vec![0u8; bytes];
            for (&fd, a) in numbers.iter().zip(&asked) {
                if a.got & bits != 0 && has(set, fd) {
                    out[fd / 8] |= 1 << (fd % 8);
                    total += 1;
                }
            }
            if at != 0 {
                self.write_user(at, &out)?;
            }
        }
        Ok(total)
    }
}
