//! What has come in at a socket and was not read: bytes or messages, with what travels beside them.

use crate::blocking::pipe_channel;
use crate::errno::Errno;
use crate::fs::file::OpenFile;
use crate::fs::pipe::Attempt;
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::Channel;
use core::sync::atomic::{AtomicU64, Ordering};

/// How many bytes of a sender that did not say otherwise (`SO_SNDBUF`) wait at most. A message
/// counts as some more than it has.
pub(crate) const CAPACITY: usize = 212_992;
/// What each message costs beside its bytes.
const OVERHEAD: usize = 512;

/// Who sent something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sender {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The address of a socket: what follows the family in `sockaddr_un`. Empty for none.
pub(crate) type Address = Vec<u8>;

/// A piece of a stream, or a message.
pub(crate) struct Message<P: Platform> {
    pub(crate) bytes: Vec<u8>,
    /// Files that travel with it.
    pub(crate) files: Vec<Arc<OpenFile<P>>>,
    pub(crate) sender: Sender,
    pub(crate) from: Address,
}

/// What was read.
pub(crate) struct Received<P: Platform> {
    pub(crate) bytes: Vec<u8>,
    /// What the message had, of which `bytes` may be a part.
    pub(crate) whole: usize,
    pub(crate) files: Vec<Arc<OpenFile<P>>>,
    pub(crate) sender: Option<Sender>,
    pub(crate) from: Address,
}

impl<P: Platform> Received<P> {
    /// The end of what comes in.
    pub(crate) fn end() -> Self {
        Received {
            bytes: Vec::new(),
            whole: 0,
            files: Vec::new(),
            sender: None,
            from: Address::new(),
        }
    }
}

/// Whether what is read is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    Take,
    Peek,
}

struct Queue<P: Platform> {
    messages: VecDeque<Message<P>>,
    /// The bytes of all messages.
    bytes: usize,
    /// Nothing will come any more.
    ended: bool,
    /// Nobody reads any more.
    deaf: bool,
    /// The socket is gone.
    closed: bool,
    /// What is told once, to whoever asks first.
    error: Option<Errno>,
}

impl<P: Platform> Queue<P> {
    fn used(&self) -> usize {
        self.bytes + self.messages.len() * OVERHEAD
    }

    /// What reading finds when there is nothing.
    fn nothing(&self) -> Attempt<Received<P>> {
        match self.ended || self.deaf {
            true => Attempt::Broken,
            false => Attempt::Wait,
        }
    }
}

/// The queue of one socket, which those who send to it hold too.
pub(crate) struct Inbox<P: Platform> {
    sys: &'static Linux<P>,
    id: u64,
    queue: Lock<P, Queue<P>, { rank::PIPE }>,
    changes: AtomicU64,
}

impl<P: Platform> Inbox<P> {
    pub(crate) fn new(sys: &'static Linux<P>) -> Arc<Self> {
        let queue = Queue {
            messages: VecDeque::new(),
            bytes: 0,
            ended: false,
            deaf: false,
            closed: false,
            error: None,
        };
        let inbox = Arc::new(Inbox {
            sys,
            id: sys.next_id(),
            queue: Lock::<P, _, { rank::PIPE }>::new(queue),
            changes: AtomicU64::new(1),
        });
        sys.sockets.enter(&inbox);
        inbox
    }

    /// The number that stands for the socket.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Woken when anything about it changes.
    pub(crate) fn channel(&self) -> Channel {
        pipe_channel(self.id)
    }

    /// How often it has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Tells those who wait that something about the socket is new.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.sys.wake(self.channel());
        self.sys.wake_pollers();
    }

    /// Adds to a stream what fits into `limit`; gives back how much. Files go with the first byte.
    pub(crate) fn add_bytes(&self, message: &mut Message<P>, limit: usize) -> Attempt<usize> {
        let added = {
            let mut queue = self.queue.lock();
            if queue.deaf {
                return Attempt::Broken;
            }
            let room = limit.saturating_sub(queue.used());
            let fits = room.min(message.bytes.len());
            if fits == 0 && !message.bytes.is_empty() {
                return Attempt::Wait;
            }
            let rest = message.bytes.split_off(fits);
            let bytes = core::mem::replace(&mut message.bytes, rest);
            let files = core::mem::take(&mut message.files);
            queue.bytes += fits;
            match queue.messages.back_mut() {
                Some(last) if files.is_empty() && last.sender == message.sender => {
                    last.bytes.extend_from_slice(&bytes);
                }
                _ if bytes.is_empty() => {}
                _ => queue.messages.push_back(Message {
                    bytes,
                    files,
                    sender: message.sender,
                    from: message.from.clone(),
                }),
            }
            fits
        };
        self.changed();
        Attempt::Done(added)
    }

    /// Adds a whole message, or leaves it where it is as long as it would not fit into `limit`.
    pub(crate) fn add_message(
        &self,
        message: &mut Option<Message<P>>,
        limit: usize,
    ) -> Attempt<()> {
        {
            let mut queue = self.queue.lock();
            if queue.deaf {
                return Attempt::Broken;
            }
            let needs = message.as_ref().map_or(0, |m| m.bytes.len() + OVERHEAD);
            if queue.used() + needs > limit && !queue.messages.is_empty() {
                return Attempt::Wait;
            }
            let Some(message) = message.take() else {
                return Attempt::Done(());
            };
            queue.bytes += message.bytes.len();
            queue.messages.push_back(message);
        }
        self.changed();
        Attempt::Done(())
    }

    /// Reads up to `max` bytes of a stream, `skip` bytes of it passed over (which only makes sense
    /// for a look). What has files of its own begins a new read.
    pub(crate) fn read_bytes(&self, max: usize, skip: usize, how: Reading) -> Attempt<Received<P>> {
        let mut out = Received::end();
        {
            let mut queue = self.queue.lock();
            let mut skip = skip;
            let mut at = 0;
            while out.bytes.len() < max {
                let Some(message) = queue.messages.get_mut(at) else {
                    break;
                };
                if skip >= message.bytes.len() {
                    skip -= message.bytes.len();
                    at += 1;
                    continue;
                }
                let begins = out.sender.is_none();
                if !begins && (!message.files.is_empty() || out.sender != Some(message.sender)) {
                    break;
                }
                let n = (message.bytes.len() - skip).min(max - out.bytes.len());
                out.bytes.extend_from_slice(&message.bytes[skip..skip + n]);
                out.sender = Some(message.sender);
                if begins {
                    out.from.clone_from(&message.from);
                }
                match how {
                    Reading::Peek => {
                        out.files.extend(message.files.iter().cloned());
                        at += 1;
                    }
                    Reading::Take => {
                        out.files.append(&mut message.files);
                        message.bytes.drain(..n);
                        let empty = message.bytes.is_empty();
                        queue.bytes -= n;
                        if empty {
                            queue.messages.remove(at);
                        }
                    }
                }
                skip = 0;
            }
            if out.bytes.is_empty() && max > 0 {
                return queue.nothing();
            }
        }
        if how == Reading::Take {
            self.changed();
        }
        out.whole = out.bytes.len();
        Attempt::Done(out)
    }

    /// Reads one message; what is longer than `max` loses the rest.
    pub(crate) fn read_message(&self, max: usize, how: Reading) -> Attempt<Received<P>> {
        let taken = {
            let mut queue = self.queue.lock();
            let Some(first) = queue.messages.front() else {
                return queue.nothing();
            };
            let n = first.bytes.len().min(max);
            let mut out = Received {
                bytes: first.bytes[..n].to_vec(),
                whole: first.bytes.len(),
                files: first.files.clone(),
                sender: Some(first.sender),
                from: first.from.clone(),
            };
            let taken = match how {
                Reading::Peek => None,
                Reading::Take => queue.messages.pop_front(),
            };
            if let Some(message) = &taken {
                queue.bytes -= message.bytes.len();
            }
            out.whole = out.whole.max(n);
            (out, taken)
        };
        if taken.1.is_some() {
            self.changed();
        }
        Attempt::Done(taken.0)
    }

    /// The bytes that a read would find: of the first message, where there are messages.
    pub(crate) fn readable(&self, messages: bool) -> usize {
        let queue = self.queue.lock();
        match messages {
            true => queue.messages.front().map_or(0, |m| m.bytes.len()),
            false => queue.bytes,
        }
    }

    /// Nothing will come any more.
    pub(crate) fn end(&self) {
        self.queue.lock().ended = true;
        self.changed();
    }

    /// Nobody reads any more. What waits stays for who reads all the same.
    pub(crate) fn stop_listening(&self) {
        self.queue.lock().deaf = true;
        self.changed();
    }

    /// Nobody will ever read what waits: it goes. Whether there was anything.
    pub(crate) fn close(&self) -> bool {
        let left = {
            let mut queue = self.queue.lock();
            queue.deaf = true;
            queue.closed = true;
            queue.bytes = 0;
            core::mem::take(&mut queue.messages)
        };
        self.changed();
        // Files that were on their way are closed with no lock held.
        !left.is_empty()
    }

    /// Something is to be told to the one who reads here.
    pub(crate) fn fail(&self, error: Errno) {
        self.queue.lock().error = Some(error);
        self.changed();
    }

    /// What is to be told, once.
    pub(crate) fn take_error(&self) -> Option<Errno> {
        self.queue.lock().error.take()
    }

    /// What `poll` wants to know.
    pub(crate) fn condition(&self) -> Condition {
        let queue = self.queue.lock();
        Condition {
            readable: !queue.messages.is_empty(),
            used: queue.used(),
            ended: queue.ended,
            deaf: queue.deaf,
            closed: queue.closed,
            error: queue.error.is_some(),
        }
    }
}

/// The state of an inbox at one moment.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct Condition {
    pub(crate) readable: bool,
    /// What waits, as it counts against the limit of who sends.
    pub(crate) used: usize,
    pub(crate) ended: bool,
    pub(crate) deaf: bool,
    pub(crate) closed: bool,
    pub(crate) error: bool,
}
