//! Addresses of sockets: `sockaddr_un`, in and out, and the names that they stand for.

use crate::errno::Errno;
use crate::fs::inode::key_of;
use crate::fs::socket::inbox::Address;
use crate::fs::socket::names::Name;
use crate::fs::socket::{Socket, SocketKind};
use crate::platform::{Follow, HostFile, PathChange, Platform};
use crate::syscall::Answer;
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec;
use linux_raw_sys::general as abi;

pub(super) const AF_UNSPEC: u16 = 0;
pub(super) const AF_UNIX: u16 = 1;
/// The family alone.
const FAMILY: usize = 2;
/// `struct sockaddr_un`.
const LONGEST: usize = 110;
const W_OK: u32 = 2;

impl<P: Platform> Task<P> {
    /// An address of the guest's: its family, and what follows.
    pub(super) fn socket_address(&self, at: u64, len: u64) -> Result<(u16, Address), Errno> {
        let len = usize::try_from(len as i32).map_err(|_| Errno::EINVAL)?;
        if !(FAMILY..=LONGEST).contains(&len) {
            return Err(Errno::EINVAL);
        }
        let mut bytes = self.bytes(at, len)?;
        let rest = bytes.split_off(FAMILY);
        Ok((u16::from_le_bytes([bytes[0], bytes[1]]), rest))
    }

    /// The same, of the one family there is and with a name.
    pub(super) fn named_address(&self, at: u64, len: u64) -> Result<Address, Errno> {
        match self.socket_address(at, len)? {
            (AF_UNIX, name) if !name.is_empty() => Ok(name),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Tells a guest an address: what fits, and how long it is.
    pub(super) fn put_address(
        &self,
        to: u64,
        len_at: u64,
        address: Option<&Address>,
    ) -> Result<(), Errno> {
        let room: i32 = self.get(len_at)?;
        let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
        let bytes = match address {
            None => vec![],
            Some(name) => [&AF_UNIX.to_le_bytes()[..], name].concat(),
        };
        self.write_user(to, &bytes[..bytes.len().min(room)])?;
        self.put(len_at, &(bytes.len() as u32))
    }

    /// The socket that an address leads to for one of `kind`, which the caller may write to.
    pub(super) fn socket_at(
        &self,
        kind: SocketKind,
        address: &Address,
    ) -> Result<Arc<Socket<P>>, Errno> {
        if address.first() == Some(&0) {
            let name = Name::Abstract(kind, address.clone());
            return self.sys.sockets.find(&name).ok_or(Errno::ECONNREFUSED);
        }
        let path = path_of(address);
        let start = self.start_for(abi::AT_FDCWD as u64, path)?;
        let platform = &self.sys.platform;
        let stat = platform.stat(start.base()?, path, Follow::Yes)?;
        platform.access(start.base()?, path, W_OK, abi::AT_EACCESS)?;
        if stat.kind() != abi::S_IFSOCK {
            return Err(Errno::ECONNREFUSED);
        }
        let found = self.sys.sockets.find(&Name::Node(key_of(&stat)));
        found.ok_or(Errno::ECONNREFUSED)
    }

    pub(super) fn bind_socket(&self, socket: &Arc<Socket<P>>, at: u64, len: u64) -> Answer {
        let (family, address) = self.socket_address(at, len)?;
        if family != AF_UNIX {
            return Err(Errno::EINVAL);
        }
        let bound = !socket.state.lock().address.is_empty();
        if address.is_empty() {
            return match bound {
                true => Ok(0),
                false => self.bind_anywhere(socket),
            };
        }
        if address.first() == Some(&0) {
            if bound {
                return Err(Errno::EINVAL);
            }
            let name = Name::Abstract(socket.kind, address.clone());
            if !self.sys.sockets.claim(name, socket) {
                return Err(Errno::EADDRINUSE);
            }
            socket.state.lock().address = address;
            return Ok(0);
        }
        self.bind_to_node(socket, &address)
    }

    /// Gives a socket a name of the system's choice.
    pub(super) fn bind_anywhere(&self, socket: &Arc<Socket<P>>) -> Answer {
        let address = self.sys.sockets.claim_any(socket);
        socket.state.lock().address = address.ok_or(Errno::ENOSPC)?;
        Ok(0)
    }

    /// Makes a node for the name.
    fn bind_to_node(&self, socket: &Arc<Socket<P>>, address: &Address) -> Answer {
        let path = path_of(address);
        let start = self.start_for(abi::AT_FDCWD as u64, path)?;
        let platform = &self.sys.platform;
        let mode = abi::S_IFSOCK | 0o777 & !self.process.umask();
        let made = platform.change(start.base()?, path, PathChange::MakeNode(mode));
        made.map_err(|e| match e {
            Errno::EEXIST => Errno::EADDRINUSE,
            other => other,
        })?;
        if !socket.state.lock().address.is_empty() {
            platform.change(start.base()?, path, PathChange::Unlink)?;
            return Err(Errno::EINVAL);
        }
        let flags = abi::O_PATH | abi::O_NOFOLLOW;
        let node = platform.open(start.base()?, path, flags, 0)?;
        let key = key_of(&node.stat()?);
        self.sys.sockets.claim(Name::Node(key), socket);
        let mut state = socket.state.lock();
        // As Linux tells it: with one zero at its end.
        state.address = [path, &[0]].concat();
        state.node = Some(node);
        Ok(0)
    }
}

/// The path in an address, which ends with its first zero.
fn path_of(address: &Address) -> &[u8] {
    let end = address.iter().position(|&b| b == 0);
    &address[..end.unwrap_or(address.len())]
}
