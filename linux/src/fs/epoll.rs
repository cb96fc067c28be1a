//! Lists of files that are waited for: `epoll`.
//!
//! What is edge-triggered is told again after each change of an object of ours; a file of the
//! host is told for as long as it is ready. A list may hold other lists, which are ready when
//! something on them is.

use super::file::{Kind, OpenFile};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::thread::Task;
use crate::{Lock, rank};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as abi;

/// How many lists may lie within one another.
const DEEPEST: u32 = 4;
/// What may be said of an interest beside `EPOLLEXCLUSIVE`.
const EXCLUSIVE_KNOWN: u32 = abi::EPOLLIN
    | abi::EPOLLOUT
    | abi::EPOLLERR
    | abi::EPOLLHUP
    | abi::EPOLLWAKEUP
    | abi::EPOLLET
    | abi::EPOLLEXCLUSIVE;

/// A file on the list.
pub(crate) struct Interest<P: Platform> {
    fd: u32,
    pub(crate) file: Weak<OpenFile<P>>,
    pub(crate) events: u32,
    pub(crate) data: u64,
    /// The change up to which it has been told, if it is edge-triggered.
    pub(crate) told: u64,
}

impl<P: Platform> Clone for Interest<P> {
    fn clone(&self) -> Self {
        Interest {
            fd: self.fd,
            file: self.file.clone(),
            events: self.events,
            data: self.data,
            told: self.told,
        }
    }
}

impl<P: Platform> Interest<P> {
    /// The bits of `poll` that it waits for.
    pub(crate) fn wanted(&self) -> u16 {
        const BITS: u32 = 0xffff;
        const ALWAYS: u32 = abi::POLLERR | abi::POLLHUP | abi::POLLNVAL;
        (self.events & BITS | ALWAYS) as u16
    }

    /// Whether it was told the only time that it asked for.
    pub(crate) fn is_spent(&self) -> bool {
        self.events & !(abi::EPOLLONESHOT | abi::EPOLLET) == 0
            && self.events & abi::EPOLLONESHOT != 0
    }

    pub(crate) fn is_edge(&self) -> bool {
        self.events & abi::EPOLLET != 0
    }

    fn is(&self, fd: u32, file: &Arc<OpenFile<P>>) -> bool {
        self.fd == fd && core::ptr::eq(self.file.as_ptr(), Arc::as_ptr(file))
    }
}

/// The list.
pub(crate) struct Epoll<P: Platform> {
    list: Lock<P, Vec<Interest<P>>, { rank::FILE }>,
    version: AtomicU64,
}

impl<P: Platform> Epoll<P> {
    pub(crate) fn new() -> Self {
        Epoll {
            list: Lock::<P, _, { rank::FILE }>::new(Vec::new()),
            version: AtomicU64::new(0),
        }
    }

    /// Changes with the list.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// What is on the list and still open.
    pub(crate) fn list(&self) -> Vec<Interest<P>> {
        let mut list = self.list.lock();
        list.retain(|i| i.file.strong_count() > 0);
        list.clone()
    }

    pub(crate) fn control(
        &self,
        operation: u32,
        (fd, file): (u32, &Arc<OpenFile<P>>),
        (events, data): (u32, u64),
    ) -> Result<(), Errno> {
        let mut list = self.list.lock();
        list.retain(|i| i.file.strong_count() > 0);
        let found = list.iter().position(|i| i.is(fd, file));
        let interest = Interest {
            fd,
            file: Arc::downgrade(file),
            events,
            data,
            told: 0,
        };
        match (operation, found) {
            (abi::EPOLL_CTL_ADD, None) => list.push(interest),
            (abi::EPOLL_CTL_ADD, Some(_)) => return Err(Errno::EEXIST),
            // Who alone is woken stays so, and nobody becomes it.
            (abi::EPOLL_CTL_MOD, Some(n))
                if (list[n].events | events) & abi::EPOLLEXCLUSIVE != 0 =>
            {
                return Err(Errno::EINVAL);
            }
            (abi::EPOLL_CTL_MOD, Some(n)) => list[n] = interest,
            (abi::EPOLL_CTL_DEL, Some(n)) => drop(list.remove(n)),
            (abi::EPOLL_CTL_MOD | abi::EPOLL_CTL_DEL, None) => return Err(Errno::ENOENT),
            _ => return Err(Errno::EINVAL),
        }
        self.version.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Refuses to be the only one that a file wakes, where that makes no sense.
    pub(crate) fn check_exclusive(events: u32, file: &OpenFile<P>) -> Result<(), Errno> {
        let exclusive = events & abi::EPOLLEXCLUSIVE != 0;
        let nested = matches!(file.kind, Kind::Epoll(_));
        match exclusive && (nested || events & !EXCLUSIVE_KNOWN != 0) {
            true => Err(Errno::EINVAL),
            false => Ok(()),
        }
    }

    /// Refuses to put `file` on the list when the lists would lie too deep within one another, or
    /// in a ring.
    pub(crate) fn check_nesting(&self, file: &OpenFile<P>) -> Result<(), Errno> {
        match &file.kind {
            Kind::Epoll(inner) if inner.depth_without(self, 0) >= DEEPEST => Err(Errno::ELOOP),
            _ => Ok(()),
        }
    }

    /// How deep lists lie in this one: too deep when `outer` is among them.
    fn depth_without(&self, outer: &Epoll<P>, above: u32) -> u32 {
        if core::ptr::eq(self, outer) || above > DEEPEST {
            return DEEPEST;
        }
        let files = self.list().into_iter().filter_map(|i| i.file.upgrade());
        let depths = files.filter_map(|f| match &f.kind {
            Kind::Epoll(inner) => Some(inner.depth_without(outer, above + 1) + 1),
            _ => None,
        });
        depths.max().unwrap_or(0)
    }

    /// The files of the host on this list and those within it.
    pub(crate) fn hosts(&self) -> Vec<(Arc<OpenFile<P>>, u16)> {
        let mut hosts = Vec::new();
        for interest in self.list().iter().filter(|i| !i.is_spent()) {
            let Some(file) = interest.file.upgrade() else {
                continue;
            };
            match &file.kind {
                Kind::Host(_) => hosts.push((file, interest.wanted())),
                Kind::Epoll(inner) => hosts.extend(inner.hosts()),
                _ => {}
            }
        }
        hosts
    }

    /// When something on the list becomes ready by itself.
    pub(crate) fn due(&self, task: &Task<P>) -> Option<u64> {
        let files = self.list().into_iter().filter_map(|i| i.file.upgrade());
        files.filter_map(|f| f.due(task)).min()
    }

    /// The changes of all that is on the list, and of the list; 0 where they are not counted.
    pub(crate) fn changes(&self) -> u64 {
        let files = self.list().into_iter().filter_map(|i| i.file.upgrade());
        let sum = files.map(|f| f.changes()).try_fold(1u64, |sum, n| match n {
            0 => None,
            n => Some(sum.wrapping_add(n)),
        });
        sum.map_or(0, |sum| sum.wrapping_add(self.version()).max(1))
    }

    /// The bits of `poll`: readable when something on the list is ready.
    pub(crate) fn poll(&self, task: &Task<P>) -> u16 {
        let ready = |interest: &Interest<P>| {
            let Some(file) = interest.file.upgrade() else {
                return false;
            };
            let told = interest.is_edge() && interest.told != 0 && interest.told == file.changes();
            let bits = match &file.kind {
                Kind::Host(_) => task.host_ready(&file, interest.wanted()),
                _ => file.poll(task),
            };
            !told && !interest.is_spent() && bits & interest.wanted() != 0
        };
        match self.list().iter().any(ready) {
            true => (abi::POLLIN | abi::POLLRDNORM) as u16,
            false => 0,
        }
    }

    /// Notes that an interest was told, up to the change `told`.
    pub(crate) fn note(&self, told: &Interest<P>, change: u64) {
        let mut list = self.list.lock();
        let same = |i: &&mut Interest<P>| i.fd == told.fd && Weak::ptr_eq(&i.file, &told.file);
        if let Some(interest) = list.iter_mut().find(same) {
            interest.told = change;
            if interest.events & abi::EPOLLONESHOT != 0 {
                interest.events &= abi::EPOLLONESHOT | abi::EPOLLET;
            }
        }
    }
}
