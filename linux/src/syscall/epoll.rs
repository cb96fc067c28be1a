//! Event counters and lists of files that are waited for: `eventfd2`, `epoll`.

use super::poll::Asked;
use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::epoll::{Epoll, Interest};
use crate::fs::event::EventCounter;
use crate::fs::file::{Kind, OpenFile};
use crate::fs::table::OnExec;
use crate::platform::Platform;
use crate::syscall::time::Timespec;
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// `struct epoll_event`, which is packed on x86-64.
const EVENT_BYTES: u64 = 12;
const EFD_SEMAPHORE: u32 = 1;

impl<P: Platform> Task<P> {
    pub(super) const EPOLL: Calls<P> = &[
        (abi::__NR_eventfd, Self::eventfd),
        (abi::__NR_eventfd2, Self::eventfd2),
        (abi::__NR_epoll_create, Self::epoll_create),
        (abi::__NR_epoll_create1, Self::epoll_create1),
        (abi::__NR_epoll_ctl, Self::epoll_ctl),
        (abi::__NR_epoll_wait, Self::epoll_wait),
        (abi::__NR_epoll_pwait, Self::epoll_pwait),
        (abi::__NR_epoll_pwait2, Self::epoll_pwait2),
    ];

    fn eventfd(&mut self, [count, ..]: Args) -> Answer {
        self.eventfd2([count, 0, 0, 0, 0, 0])
    }

    fn eventfd2(&mut self, [count, flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        if flags & !(EFD_SEMAPHORE | abi::O_CLOEXEC | abi::O_NONBLOCK) != 0 {
            return Err(Errno::EINVAL);
        }
        let semaphore = flags & EFD_SEMAPHORE != 0;
        let counter = EventCounter::new(self.sys, u64::from(count as u32), semaphore);
        let file = OpenFile::own(Kind::Event(counter), flags & abi::O_NONBLOCK);
        self.install(Arc::new(file), OnExec::from_flags(flags))
    }

    fn epoll_create(&mut self, [size, ..]: Args) -> Answer {
        if (size as i32) <= 0 {
            return Err(Errno::EINVAL);
        }
        self.epoll_create1([0; 6])
    }

    fn epoll_create1(&mut self, [flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        if flags & !abi::O_CLOEXEC != 0 {
            return Err(Errno::EINVAL);
        }
        let file = OpenFile::own(Kind::Epoll(Epoll::new()), 0);
        self.install(Arc::new(file), OnExec::from_flags(flags))
    }

    fn epoll_ctl(&mut self, [epoll, operation, fd, event, ..]: Args) -> Answer {
        let operation = operation as u32;
        let word: [u8; EVENT_BYTES as usize] = if operation == abi::EPOLL_CTL_DEL {
            [0; EVENT_BYTES as usize]
        } else {
            self.get(event)?
        };
        let (events, data) = word.split_at(4);
        let events = events.try_into().map_or(0, u32::from_le_bytes);
        let data = data.try_into().map_or(0, u64::from_le_bytes);
        let (list, file) = (self.file(epoll)?, self.file(fd)?);
        match &file.kind {
            Kind::Host(host) if !host.waits() => return Err(Errno::EPERM),
            Kind::Memory(_) | Kind::Text(_) | Kind::Raw(_) | Kind::Listing(_) => {
                return Err(Errno::EPERM);
            }
            _ => {}
        }
        let Kind::Epoll(list) = &list.kind else {
            return Err(Errno::EINVAL);
        };
        if matches!(&file.kind, Kind::Epoll(own) if core::ptr::eq(own, list)) {
            return Err(Errno::EINVAL);
        }
        if operation == abi::EPOLL_CTL_ADD {
            Epoll::check_exclusive(events, &file)?;
            list.check_nesting(&file)?;
        }
        list.control(operation, (fd as u32, &file), (events, data))?;
        self.sys.wake_pollers();
        Ok(0)
    }

    fn epoll_wait(&mut self, [epoll, events, room, timeout, ..]: Args) -> Answer {
        let deadline = self.millis_deadline(timeout);
        self.epoll(epoll, events, room, deadline)
    }

    fn epoll_pwait(&mut self, [epoll, events, room, timeout, mask, size]: Args) -> Answer {
        self.mask_for_call(mask, size)?;
        self.epoll_wait([epoll, events, room, timeout, 0, 0])
    }

    fn epoll_pwait2(&mut self, [epoll, events, room, timeout, mask, size]: Args) -> Answer {
        let deadline = match timeout {
            0 => None,
            at => {
                let nanos = self.get::<Timespec>(at)?.nanos()?;
                Some(self.sys.now().saturating_add(nanos))
            }
        };
        self.mask_for_call(mask, size)?;
        self.epoll(epoll, events, room, deadline)
    }

    fn epoll(&self, epoll: u64, events: u64, room: u64, deadline: Option<u64>) -> Answer {
        let room = room as i32;
        if !(1..=1 << 20).contains(&room) {
            return Err(Errno::EINVAL);
        }
        let list = self.file(epoll)?;
        let Kind::Epoll(list) = &list.kind else {
            return Err(Errno::EINVAL);
        };
        loop {
            let version = list.version();
            let interests = list.list();
            let mut asked: Vec<Asked<P>> = interests.iter().map(asked).collect();
            let stale = || list.version() != version;
            let ready = self.poll_until(&mut asked, deadline, &stale)?;
            if ready == 0 && stale() {
                continue;
            }
            let mut out = Vec::new();
            let told = interests.iter().zip(&asked).filter(|(_, a)| a.got != 0);
            for (interest, a) in told.take(room as usize) {
                out.extend_from_slice(&u32::from(a.got).to_le_bytes());
                out.extend_from_slice(&interest.data.to_le_bytes());
                list.note(interest, a.change);
            }
            self.write_user(events, &out)?;
            return Ok(out.len() as u64 / EVENT_BYTES);
        }
    }
}

/// An interest as a question; one that was told its only time asks nothing.
fn asked<P: Platform>(interest: &Interest<P>) -> Asked<P> {
    let file = interest.file.upgrade().filter(|_| !interest.is_spent());
    let mut asked = Asked::new(file, interest.wanted());
    asked.told = if interest.is_edge() { interest.told } else { 0 };
    asked
}
