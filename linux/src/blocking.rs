//! Waiting for something of ours, interruptibly.
//!
//! A waiter takes the moment of a channel, tells its thread record where it will sleep, looks at
//! its condition and at its signals, and only then sleeps. Whoever posts a signal first makes it
//! pending and then wakes the channel that the record names, so that one of the two sees the other.

use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::thread::Task;
use bsdvm::{Channel, Host};
use bsdvm_machine::{Ticket, Wait};
use core::sync::atomic::Ordering;

const fn tagged(tag: u64, id: u64) -> Channel {
    Channel((tag << 56) | (id & ((1 << 56) - 1)))
}

/// Children of process `pid` changed state.
pub(crate) const fn child_channel(pid: u32) -> Channel {
    tagged(0xc1, pid as u64)
}

/// A process ended or one of its threads did.
pub(crate) const fn all_channel() -> Channel {
    tagged(0xc2, 0)
}

/// Something that is polled changed.
pub(crate) const fn poll_channel() -> Channel {
    tagged(0xc3, 0)
}

/// A pipe changed.
pub(crate) const fn pipe_channel(id: u64) -> Channel {
    tagged(0xc4, id)
}

/// A futex waiter was woken.
pub(crate) const fn futex_channel(id: u64) -> Channel {
    tagged(0xc5, id)
}

/// A thread waits for a signal only.
pub(crate) const fn thread_channel(tid: u32) -> Channel {
    tagged(0xc6, tid as u64)
}

/// An inode's object is on its way out.
pub(crate) const fn inode_channel() -> Channel {
    tagged(0xc7, 0)
}

/// Memory came back after the out-of-memory killer struck.
pub(crate) const fn memory_channel() -> Channel {
    tagged(0xc8, 0)
}

/// What is planned has changed.
pub(crate) const fn alarms_channel() -> Channel {
    tagged(0xc9, 0)
}

/// A set of semaphores changed.
pub(crate) const fn semaphore_channel(id: i32) -> Channel {
    tagged(0xca, id as u64)
}

/// A queue of messages changed.
pub(crate) const fn message_channel(id: i32) -> Channel {
    tagged(0xcb, id as u64)
}

impl<P: Platform> Linux<P> {
    pub(crate) fn ticket(&self, channel: Channel) -> Ticket {
        self.vm.machine().ticket(channel)
    }

    pub(crate) fn sleep(&self, channel: Channel, ticket: Ticket, deadline: Option<u64>) {
        self.vm.machine().sleep(channel, ticket, deadline);
    }

    pub(crate) fn wake(&self, channel: Channel) {
        self.vm.machine().wake(channel);
    }

    pub(crate) fn now(&self) -> u64 {
        self.vm.machine().now()
    }
}

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unfinished {
    /// A signal wants to be delivered.
    Signal,
    /// The deadline has passed.
    Deadline,
}

impl From<Unfinished> for Errno {
    fn from(u: Unfinished) -> Errno {
        match u {
            Unfinished::Signal => Errno::RESTART,
            Unfinished::Deadline => Errno::ETIMEDOUT,
        }
    }
}

impl<P: Platform> Task<P> {
    /// Sleeps on `channel` until `ready` has an answer, a signal is to be delivered, or
    /// `deadline` has passed.
    pub(crate) fn wait_on<T>(
        &self,
        channel: Channel,
        deadline: Option<u64>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, Unfinished> {
        let result = loop {
            let ticket = self.sys.ticket(channel);
            self.thread.sleeping.store(channel.0, Ordering::SeqCst);
            if let Some(answer) = ready() {
                break Ok(answer);
            }
            if self.is_interrupted() {
                break Err(Unfinished::Signal);
            }
            if deadline.is_some_and(|d| self.sys.now() >= d) {
                break Err(Unfinished::Deadline);
            }
            self.sys.sleep(channel, ticket, deadline);
        };
        self.thread.sleeping.store(0, Ordering::SeqCst);
        result
    }
}
