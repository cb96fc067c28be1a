//! Sockets of the family `AF_UNIX` between guests: streams, messages in order, and datagrams.
//!
//! * `inbox`: what has come in at a socket;
//! * `names`: which socket has which name.
//!
//! A socket sends by adding to the inbox of its peer, which it holds; it is told of the peer's end
//! in its own inbox. The inbox's channel is also the one that an accept, or a connect to a full
//! backlog, waits on. A name in a file system is a node that the host keeps; who listens there is
//! known here only, so the host's own sockets are not reached.

pub(crate) mod inbox;
pub(crate) mod names;

use crate::errno::Errno;
use crate::fs::pipe::Attempt;
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use inbox::{Address, Inbox, Sender};
use linux_raw_sys::general as abi;

const POLLRDHUP: u32 = 0x2000;

/// The three kinds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum SocketKind {
    Stream = 1,
    Datagram = 2,
    /// Messages in order between two ends.
    Packets = 5,
}

impl SocketKind {
    /// Whether what is sent keeps its bounds.
    pub(crate) fn has_messages(self) -> bool {
        self != SocketKind::Stream
    }

    /// Whether two ends are connected before anything is sent.
    pub(crate) fn connects(self) -> bool {
        self != SocketKind::Datagram
    }
}

/// The other end.
pub(crate) struct Peer<P: Platform> {
    pub(crate) inbox: Arc<Inbox<P>>,
    pub(crate) address: Address,
    /// Who it was when the two were connected.
    pub(crate) who: Sender,
}

impl<P: Platform> Clone for Peer<P> {
    fn clone(&self) -> Self {
        Peer {
            inbox: self.inbox.clone(),
            address: self.address.clone(),
            who: self.who,
        }
    }
}

/// What a listener keeps.
pub(crate) struct Listening<P: Platform> {
    /// Connected, and not accepted yet.
    pub(crate) waiting: VecDeque<Arc<Socket<P>>>,
    pub(crate) backlog: usize,
    /// Who called `listen`.
    pub(crate) who: Sender,
}

/// The options that have an effect or are told back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) passes_sender: bool,
    /// How long a read or a write waits, in nanoseconds; 0 for ever.
    pub(crate) read_time: u64,
    pub(crate) write_time: u64,
    pub(crate) send_bytes: u32,
    pub(crate) receive_bytes: u32,
    /// Flags that only are told back, by number.
    pub(crate) flags: u64,
}

/// What changes about a socket.
pub(crate) struct State<P: Platform> {
    pub(crate) address: Address,
    /// The node of its name: held, so that its number is nobody else's.
    pub(crate) node: Option<P::File>,
    pub(crate) peer: Option<Peer<P>>,
    pub(crate) listening: Option<Listening<P>>,
    /// Nothing is sent any more.
    pub(crate) mute: bool,
    pub(crate) options: SocketOptions,
}

/// A socket; it closes when it is dropped.
pub(crate) struct Socket<P: Platform> {
    pub(crate) kind: SocketKind,
    pub(crate) inbox: Arc<Inbox<P>>,
    pub(crate) state: Lock<P, State<P>, { rank::FILE }>,
}

impl<P: Platform> Socket<P> {
    pub(crate) fn new(sys: &'static Linux<P>, kind: SocketKind) -> Arc<Socket<P>> {
        let buffer = inbox::CAPACITY as u32;
        let state = State {
            address: Address::new(),
            node: None,
            peer: None,
            listening: None,
            mute: false,
            options: SocketOptions {
                passes_sender: false,
                read_time: 0,
                write_time: 0,
                send_bytes: buffer,
                receive_bytes: buffer,
                flags: 0,
            },
        };
        Arc::new(Socket {
            kind,
            inbox: Inbox::new(sys),
            state: Lock::<P, _, { rank::FILE }>::new(state),
        })
    }

    /// Two sockets that are connected, made by `who`.
    pub(crate) fn pair(
        sys: &'static Linux<P>,
        kind: SocketKind,
        who: Sender,
    ) -> (Arc<Socket<P>>, Arc<Socket<P>>) {
        let (one, other) = (Socket::new(sys, kind), Socket::new(sys, kind));
        one.set_peer(&other.inbox, Address::new(), who);
        other.set_peer(&one.inbox, Address::new(), who);
        (one, other)
    }

    /// Connects this end.
    pub(crate) fn set_peer(&self, inbox: &Arc<Inbox<P>>, address: Address, who: Sender) {
        let peer = Peer {
            inbox: inbox.clone(),
            address,
            who,
        };
        let old = self.state.lock().peer.replace(peer);
        drop(old);
    }

    pub(crate) fn id(&self) -> u64 {
        self.inbox.id()
    }

    pub(crate) fn peer(&self) -> Option<Peer<P>> {
        self.state.lock().peer.clone()
    }

    /// A connection to the listener `target`: waits where its backlog is full.
    ///
    /// Errors: `ECONNREFUSED` where nobody listens.
    pub(crate) fn connect_to(
        self: &Arc<Self>,
        sys: &'static Linux<P>,
        target: &Weak<Socket<P>>,
        who: Sender,
    ) -> Attempt<Result<(), Errno>> {
        let Some(target) = target.upgrade() else {
            return Attempt::Done(Err(Errno::ECONNREFUSED));
        };
        let own_address = self.state.lock().address.clone();
        let address = target.state.lock().address.clone();
        let server = Socket::new(sys, self.kind);
        server.state.lock().address.clone_from(&address);
        server.set_peer(&self.inbox, own_address, who);
        let inbox = server.inbox.clone();
        let listener = {
            let mut state = target.state.lock();
            match &mut state.listening {
                None => Err(Attempt::Done(Err(Errno::ECONNREFUSED))),
                Some(l) if l.waiting.len() > l.backlog => Err(Attempt::Wait),
                Some(l) => {
                    l.waiting.push_back(server.clone());
                    Ok(l.who)
                }
            }
        };
        match listener {
            Err(refusal) => {
                // Nobody was told of this end: its own end tells nobody either.
                drop(server.state.lock().peer.take());
                refusal
            }
            Ok(who) => {
                self.set_peer(&inbox, address, who);
                self.inbox.changed();
                target.inbox.changed();
                Attempt::Done(Ok(()))
            }
        }
    }

    /// The next connection of a listener.
    ///
    /// Errors: `EINVAL` where nobody listens.
    pub(crate) fn accept(&self) -> Attempt<Result<Arc<Socket<P>>, Errno>> {
        let next = {
            let mut state = self.state.lock();
            match &mut state.listening {
                None => return Attempt::Done(Err(Errno::EINVAL)),
                Some(listening) => listening.waiting.pop_front(),
            }
        };
        let Some(next) = next else {
            return match self.inbox.condition().deaf {
                true => Attempt::Done(Err(Errno::EINVAL)),
                false => Attempt::Wait,
            };
        };
        self.inbox.changed();
        Attempt::Done(Ok(next))
    }

    /// Ends one or both directions.
    pub(crate) fn shut(&self, incoming: bool, outgoing: bool) {
        let peer = self.peer();
        if incoming {
            self.inbox.stop_listening();
        }
        if outgoing {
            self.state.lock().mute = true;
            if let Some(peer) = &peer
                && self.kind.connects()
            {
                peer.inbox.end();
            }
            self.inbox.changed();
        }
        if let Some(peer) = peer {
            // Who polls at the other end for room learns that nobody reads.
            peer.inbox.changed();
        }
    }

    /// How often it has changed.
    pub(crate) fn changes(&self) -> u64 {
        let peer = self.peer().map_or(0, |p| p.inbox.changes());
        self.inbox.changes().wrapping_add(peer)
    }

    /// The bits of `poll`.
    pub(crate) fn poll(&self) -> u16 {
        const IN: u32 = abi::POLLIN | abi::POLLRDNORM;
        const OUT: u32 = abi::POLLOUT | abi::POLLWRNORM | abi::POLLWRBAND;
        let own = self.inbox.condition();
        let (peer, mute, waiting, limit) = {
            let state = self.state.lock();
            let waiting = state.listening.as_ref().map(|l| !l.waiting.is_empty());
            let limit = state.options.send_bytes as usize;
            (state.peer.clone(), state.mute, waiting, limit)
        };
        if let Some(waiting) = waiting {
            return if waiting { IN as u16 } else { 0 };
        }
        let theirs = peer.map(|p| p.inbox.condition());
        let mut bits = 0;
        if own.error {
            bits |= abi::POLLERR;
        }
        if own.readable {
            bits |= IN;
        }
        if own.ended || own.deaf {
            bits |= IN | POLLRDHUP;
        }
        let closed = self.kind.connects() && (theirs.is_none() || (own.ended && mute));
        let lost = self.kind.connects() && own.ended && theirs.is_some_and(|t| t.deaf);
        if closed || lost || ((own.ended || own.deaf) && mute) {
            bits |= abi::POLLHUP;
        }
        if theirs.is_none_or(|t| t.used <= limit / 4 * 3 || t.deaf) {
            bits |= OUT;
        }
        bits as u16
    }
}

impl<P: Platform> Drop for Socket<P> {
    fn drop(&mut self) {
        let (peer, listening, node) = {
            let mut state = self.state.lock();
            (state.peer.take(), state.listening.take(), state.node.take())
        };
        let unread = self.inbox.close();
        if let Some(peer) = &peer
            && self.kind.connects()
        {
            if unread {
                peer.inbox.fail(Errno::ECONNRESET);
            }
            peer.inbox.end();
        }
        if let Some(listening) = &listening {
            for waiting in &listening.waiting {
                if let Some(client) = waiting.peer() {
                    client.inbox.fail(Errno::ECONNRESET);
                }
            }
        }
        drop((peer, listening, node));
    }
}
