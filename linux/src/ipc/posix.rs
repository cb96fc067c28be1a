//! Queues of messages with priorities and names: those of POSIX.

use crate::blocking::pipe_channel;
use crate::creds::{Creds, cap};
use crate::errno::Errno;
use crate::fs::file::made_up;
use crate::fs::socket::Socket;
use crate::fs::special::Special;
use crate::platform::{FileStat, Platform};
use crate::system::Linux;
use crate::thread::Task;
use crate::{Lock, rank};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::Channel;
use core::cmp::Reverse;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as abi;

/// One more than the highest priority.
pub(crate) const PRIORITIES: u32 = 32_768;
/// `HARD_MSGMAX` and `HARD_MSGSIZEMAX`: what nobody may go beyond.
const HARD_MESSAGES: i64 = 65_536;
const HARD_BYTES: i64 = 16 << 20;
/// What the kernel keeps for a message, and for a priority in use.
const RECORD: u64 = 48;

/// How many messages a queue holds, and of how many bytes each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size {
    pub(crate) messages: i64,
    pub(crate) bytes: i64,
}

impl Size {
    /// Whether a queue may have it, `most` being what the unprivileged may ask for.
    pub(crate) fn check(&self, most: Size, privileged: bool) -> Result<(), Errno> {
        let most = match privileged {
            true => Size {
                messages: HARD_MESSAGES,
                bytes: HARD_BYTES,
            },
            false => most,
        };
        let has = (1..=most.messages).contains(&self.messages);
        match has && (1..=most.bytes).contains(&self.bytes) {
            true => Ok(()),
            false => Err(Errno::EINVAL),
        }
    }

    /// What it counts for against `RLIMIT_MSGQUEUE`, in bytes.
    pub(crate) fn charge(&self) -> u64 {
        let (messages, bytes) = (self.messages as u64, self.bytes as u64);
        messages * (RECORD + bytes) + messages.min(u64::from(PRIORITIES)) * RECORD
    }
}

/// How a process is told that a queue is empty no more.
pub(crate) enum Notice<P: Platform> {
    Nothing,
    Signal {
        number: u32,
        value: u64,
    },
    /// These bytes, by this socket.
    Bytes(Arc<Socket<P>>, Vec<u8>),
}

/// What is in a queue.
pub(crate) struct Contents<P: Platform> {
    /// By priority, the highest first.
    messages: BTreeMap<Reverse<u32>, VecDeque<Vec<u8>>>,
    count: i64,
    bytes: u64,
    /// How many wait for a message.
    pub(crate) receivers: u32,
    /// Which process is to be told, and how.
    pub(crate) notice: Option<(u32, Notice<P>)>,
}

/// What became of a message that was sent.
pub(crate) enum Sent<P: Platform> {
    Full,
    Queued,
    /// This process is to be told.
    Tell(u32, Notice<P>),
}

impl<P: Platform> Contents<P> {
    /// How many messages there are.
    pub(crate) fn count(&self) -> i64 {
        self.count
    }

    fn add(&mut self, size: Size, priority: u32, bytes: &[u8]) -> Sent<P> {
        if self.count >= size.messages {
            return Sent::Full;
        }
        let line = self.messages.entry(Reverse(priority)).or_default();
        line.push_back(bytes.to_vec());
        self.count += 1;
        self.bytes += bytes.len() as u64;
        // Whoever waits takes it; the queue stays empty then.
        if self.count > 1 || self.receivers > 0 {
            return Sent::Queued;
        }
        match self.notice.take() {
            Some((pid, notice)) => Sent::Tell(pid, notice),
            None => Sent::Queued,
        }
    }

    /// Takes the oldest message of the highest priority.
    fn take(&mut self) -> Option<(u32, Vec<u8>)> {
        let mut line = self.messages.first_entry()?;
        let priority = line.key().0;
        let bytes = line.get_mut().pop_front()?;
        if line.get().is_empty() {
            line.remove();
        }
        self.count -= 1;
        self.bytes -= bytes.len() as u64;
        Some((priority, bytes))
    }
}

/// A queue. It lives as long as its name or an open descriptor.
pub(crate) struct MessageQueue<P: Platform> {
    sys: &'static Linux<P>,
    id: u64,
    pub(crate) size: Size,
    mode: u32,
    pub(crate) user: u32,
    group: u32,
    pub(crate) contents: Lock<P, Contents<P>, { rank::PIPE }>,
    changes: AtomicU64,
}

impl<P: Platform> MessageQueue<P> {
    pub(crate) fn new(
        sys: &'static Linux<P>,
        size: Size,
        mode: u32,
        creds: &Creds,
    ) -> Arc<MessageQueue<P>> {
        Arc::new(MessageQueue {
            sys,
            id: sys.next_id(),
            size,
            mode,
            user: creds.user.files,
            group: creds.group.files,
            contents: Lock::<P, _, { rank::PIPE }>::new(Contents {
                messages: BTreeMap::new(),
                count: 0,
                bytes: 0,
                receivers: 0,
                notice: None,
            }),
            changes: AtomicU64::new(1),
        })
    }

    /// Woken when the queue changes.
    pub(crate) fn channel(&self) -> Channel {
        pipe_channel(self.id)
    }

    /// Whether `creds` may open it with the access mode of `flags`: `EACCES` when not.
    pub(crate) fn check(&self, creds: &Creds, flags: u32) -> Result<(), Errno> {
        let wanted = match flags & abi::O_ACCMODE {
            abi::O_RDONLY => 4,
            abi::O_WRONLY => 2,
            abi::O_RDWR => 6,
            _ => return Err(Errno::EINVAL),
        };
        let granted = if creds.user.files == self.user {
            self.mode >> 6
        } else if creds.group.files == self.group || creds.groups.contains(&self.group) {
            self.mode >> 3
        } else {
            self.mode
        };
        match wanted & !granted == 0 || creds.capable(cap::DAC_OVERRIDE) {
            true => Ok(()),
            false => Err(Errno::EACCES),
        }
    }

    pub(crate) fn add(&self, priority: u32, bytes: &[u8]) -> Sent<P> {
        let sent = self.contents.lock().add(self.size, priority, bytes);
        if !matches!(sent, Sent::Full) {
            self.changed();
        }
        sent
    }

    pub(crate) fn take(&self) -> Option<(u32, Vec<u8>)> {
        let taken = self.contents.lock().take();
        if taken.is_some() {
            self.changed();
        }
        taken
    }

    /// A process has closed a descriptor of the queue: it is told nothing any more.
    pub(crate) fn forget(&self, pid: u32) {
        let gone = {
            let mut contents = self.contents.lock();
            let mine = contents.notice.as_ref().is_some_and(|n| n.0 == pid);
            if mine { contents.notice.take() } else { None }
        };
        drop(gone);
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.sys.wake(self.channel());
        self.sys.wake_pollers();
    }
}

/// An open descriptor of a queue.
pub(crate) struct QueueFile<P: Platform> {
    pub(crate) queue: Arc<MessageQueue<P>>,
}

impl<P: Platform> Special<P> for QueueFile<P> {
    /// What there is to be known of it, as text.
    fn read(&self, _: &Task<P>, buf: &mut [u8]) -> Option<Result<usize, Errno>> {
        let text = {
            let contents = self.queue.contents.lock();
            let (signal, number, pid) = match &contents.notice {
                None => (0, 0, 0),
                Some((pid, Notice::Signal { number, .. })) => (abi::SIGEV_SIGNAL, *number, *pid),
                Some((pid, Notice::Nothing)) => (abi::SIGEV_NONE, 0, *pid),
                Some((pid, Notice::Bytes(..))) => (abi::SIGEV_THREAD, 0, *pid),
            };
            format!(
                "QSIZE:{:<10} NOTIFY:{signal:<5} SIGNO:{number:<5} NOTIFY_PID:{pid:<6}\n",
                contents.bytes
            )
        };
        let n = text.len().min(buf.len());
        buf[..n].copy_from_slice(&text.as_bytes()[..n]);
        Some(Ok(n))
    }

    fn channel(&self, _: &Task<P>) -> Channel {
        self.queue.channel()
    }

    fn poll(&self, _: &Task<P>) -> u16 {
        let count = self.queue.contents.lock().count;
        let mut bits = 0;
        if count > 0 {
            bits |= abi::POLLIN | abi::POLLRDNORM;
        }
        if count < self.queue.size.messages {
            bits |= abi::POLLOUT | abi::POLLWRNORM;
        }
        bits as u16
    }

    fn changes(&self) -> u64 {
        self.queue.changes.load(Ordering::SeqCst)
    }

    fn name(&self) -> &'static str {
        "/mqueue"
    }

    fn stat(&self) -> FileStat {
        const BYTES: u64 = 80;
        FileStat {
            uid: self.queue.user,
            gid: self.queue.group,
            ..made_up(abi::S_IFREG | self.queue.mode, self.queue.id, BYTES)
        }
    }

    fn as_queue(&self) -> Option<&Arc<MessageQueue<P>>> {
        Some(&self.queue)
    }
}

/// The queues that have names.
pub(crate) struct NamedQueues<P: Platform> {
    pub(crate) table: Lock<P, BTreeMap<Vec<u8>, Arc<MessageQueue<P>>>, { rank::IPC }>,
}

impl<P: Platform> NamedQueues<P> {
    pub(crate) fn new() -> Self {
        NamedQueues {
            table: Lock::<P, _, { rank::IPC }>::new(BTreeMap::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_bounds() {
        let size = |messages, bytes| Size { messages, bytes };
        let most = size(10, 8192);
        assert_eq!(size(10, 8192).check(most, false), Ok(()));
        assert_eq!(size(11, 1).check(most, false), Err(Errno::EINVAL));
        assert_eq!(size(11, 1).check(most, true), Ok(()));
        assert_eq!(size(0, 1).check(most, true), Err(Errno::EINVAL));
        assert_eq!(size(1, -1).check(most, true), Err(Errno::EINVAL));
        assert_eq!(
            size(1, (16 << 20) + 1).check(most, true),
            Err(Errno::EINVAL)
        );
        assert_eq!(size(10, 8192).charge(), 10 * (8192 + 96));
    }
}
