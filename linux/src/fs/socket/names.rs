//! Which socket has which name, and every inbox there is.

use super::inbox::{Address, Inbox};
use super::{Socket, SocketKind};
use crate::fs::inode::Key;
use crate::platform::Platform;
use crate::{Lock, rank};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// What a name leads to a socket by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Name {
    /// A node of a file system of the host, by its number.
    Node(Key),
    /// A name that no file system has, among sockets of one kind.
    Abstract(SocketKind, Address),
}

struct Table<P: Platform> {
    named: BTreeMap<Name, Weak<Socket<P>>>,
    inboxes: Vec<Weak<Inbox<P>>>,
    next: u32,
}

/// The sockets of the system.
pub(crate) struct Sockets<P: Platform> {
    table: Lock<P, Table<P>, { rank::IPC }>,
}

impl<P: Platform> Sockets<P> {
    pub(crate) fn new() -> Self {
        let table = Table {
            named: BTreeMap::new(),
            inboxes: Vec::new(),
            next: 0,
        };
        Sockets {
            table: Lock::<P, _, { rank::IPC }>::new(table),
        }
    }

    /// The socket with this name, if it is open.
    pub(crate) fn find(&self, name: &Name) -> Option<Arc<Socket<P>>> {
        let found = self.table.lock().named.get(name).cloned();
        found.and_then(|w| w.upgrade())
    }

    /// Gives a socket a name that no open socket has: whether it is free. A node is always the
    /// caller's own.
    pub(crate) fn claim(&self, name: Name, socket: &Arc<Socket<P>>) -> bool {
        let mut table = self.table.lock();
        table.named.retain(|_, w| w.strong_count() > 0);
        if matches!(name, Name::Abstract(..)) && table.named.contains_key(&name) {
            return false;
        }
        table.named.insert(name, Arc::downgrade(socket));
        true
    }

    /// Gives a socket a name that the system chooses: five digits behind a zero.
    pub(crate) fn claim_any(&self, socket: &Arc<Socket<P>>) -> Option<Address> {
        const NAMES: u32 = 1 << 20;
        for _ in 0..NAMES {
            let n = {
                let mut table = self.table.lock();
                table.next = (table.next + 1) % NAMES;
                table.next
            };
            let address = [b"\0", format!("{n:05x}").as_bytes()].concat();
            if self.claim(Name::Abstract(socket.kind, address.clone()), socket) {
                return Some(address);
            }
        }
        None
    }

    /// Notes an inbox.
    pub(crate) fn enter(&self, inbox: &Arc<Inbox<P>>) {
        let mut table = self.table.lock();
        if table.inboxes.len() == table.inboxes.capacity() {
            table.inboxes.retain(|w| w.strong_count() > 0);
        }
        table.inboxes.push(Arc::downgrade(inbox));
    }

    /// Takes everything that was on its way out of all inboxes: sockets that hold each other that
    /// way would never end.
    pub(crate) fn end(&self) {
        let inboxes = core::mem::take(&mut self.table.lock().inboxes);
        for inbox in inboxes.iter().filter_map(Weak::upgrade) {
            inbox.close();
        }
    }
}
