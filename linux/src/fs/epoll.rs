//! Lists of files that are waited for: `epoll`.
//!
//! What is edge-triggered is told again after each change of an object of ours; a file of the
//! host is told for as long as it is ready.

use super::file::OpenFile;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::{Lock, rank};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as abi;

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
            (abi::EPOLL_CTL_MOD, Some(n)) => list[n] = interest,
            (abi::EPOLL_CTL_DEL, Some(n)) => drop(list.remove(n)),
            (abi::EPOLL_CTL_MOD | abi::EPOLL_CTL_DEL, None) => return Err(Errno::ENOENT),
            _ => return Err(Errno::EINVAL),
        }
        self.version.fetch_add(1, Ordering::SeqCst);
        Ok(())
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
