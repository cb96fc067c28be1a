//! Pairs of connected stream sockets: a pipe each way.

use super::pipe::{Pipe, PipeEnd};
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

const POLLRDHUP: u32 = 0x2000;

type Way<P> = Lock<P, Option<Arc<PipeEnd<P>>>, { rank::FILE }>;

/// One end of a pair.
pub(crate) struct Socket<P: Platform> {
    id: u64,
    /// What comes in; `None` after `shutdown`.
    incoming: Way<P>,
    /// What goes out, likewise.
    outgoing: Way<P>,
}

impl<P: Platform> Socket<P> {
    /// Two sockets that are connected.
    pub(crate) fn pair(sys: &'static Linux<P>) -> (Socket<P>, Socket<P>) {
        let (one, other) = (Pipe::create(sys), Pipe::create(sys));
        let make = |incoming, outgoing| Socket {
            id: sys.next_id(),
            incoming: Way::<P>::new(Some(Arc::new(incoming))),
            outgoing: Way::<P>::new(Some(Arc::new(outgoing))),
        };
        (make(one.0, other.1), make(other.0, one.1))
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The end that is read.
    pub(crate) fn incoming(&self) -> Option<Arc<PipeEnd<P>>> {
        self.incoming.lock().clone()
    }

    /// The end that is written.
    pub(crate) fn outgoing(&self) -> Option<Arc<PipeEnd<P>>> {
        self.outgoing.lock().clone()
    }

    /// Ends one or both directions.
    pub(crate) fn shut(&self, incoming: bool, outgoing: bool) {
        let gone_in = incoming.then(|| self.incoming.lock().take());
        let gone_out = outgoing.then(|| self.outgoing.lock().take());
        // Closing an end wakes the other: with no lock held.
        drop((gone_in, gone_out));
    }

    /// How often it has changed.
    pub(crate) fn changes(&self) -> u64 {
        let changes = |end: Option<Arc<PipeEnd<P>>>| end.map_or(1 << 32, |e| e.changes());
        changes(self.incoming()).wrapping_add(changes(self.outgoing()))
    }

    /// The bits of `poll`.
    pub(crate) fn poll(&self) -> u16 {
        let incoming = self.incoming().map(|e| u32::from(e.poll()));
        let outgoing = self.outgoing().map(|e| u32::from(e.poll()));
        let no_more = incoming.is_none_or(|bits| bits & abi::POLLHUP != 0);
        let unheard = outgoing.is_none_or(|bits| bits & abi::POLLERR != 0);
        let mut bits = incoming.unwrap_or(0) & (abi::POLLIN | abi::POLLRDNORM);
        bits |= outgoing.unwrap_or(0) & (abi::POLLOUT | abi::POLLWRNORM);
        if no_more {
            bits |= abi::POLLIN | abi::POLLRDNORM | POLLRDHUP;
        }
        if no_more && unheard {
            bits |= abi::POLLHUP;
        }
        bits as u16
    }
}
