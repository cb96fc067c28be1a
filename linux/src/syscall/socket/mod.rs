//! Sockets of the family `AF_UNIX`. There is no networking beyond them.

mod address;
mod beside;
mod message;
mod options;

use super::{Answer, Args, Calls};
use crate::blocking::Unfinished;
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::fs::pipe::Attempt;
use crate::fs::socket::{Listening, Socket, SocketKind};
use crate::fs::table::OnExec;
use crate::platform::Platform;
use crate::thread::Task;
use address::{AF_UNIX, AF_UNSPEC};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;
use linux_raw_sys::net;

/// One more than the highest family that Linux knows.
const FAMILIES: u64 = 46;
const AF_NETLINK: u64 = 16;
/// The bits of a kind of socket.
const KIND: u32 = 0xf;
/// The highest kind that Linux knows, and the raw one, which is one of datagrams here.
const SOCK_PACKET: u32 = 10;
const SOCK_RAW: u32 = 3;
/// `net.core.somaxconn`.
const BACKLOG_MAX: u32 = 4096;

impl<P: Platform> Task<P> {
    pub(super) const SOCKET: Calls<P> = &[
        (abi::__NR_socket, Self::socket),
        (abi::__NR_socketpair, Self::socketpair),
        (abi::__NR_connect, Self::connect),
        (abi::__NR_bind, Self::bind),
        (abi::__NR_listen, Self::listen),
        (abi::__NR_accept, Self::accept),
        (abi::__NR_accept4, Self::accept4),
        (abi::__NR_sendto, Self::sendto),
        (abi::__NR_recvfrom, Self::recvfrom),
        (abi::__NR_sendmsg, Self::sendmsg),
        (abi::__NR_recvmsg, Self::recvmsg),
        (abi::__NR_sendmmsg, Self::sendmmsg),
        (abi::__NR_recvmmsg, Self::recvmmsg),
        (abi::__NR_shutdown, Self::shutdown),
        (abi::__NR_getpeername, Self::getpeername),
        (abi::__NR_getsockname, Self::getsockname),
        (abi::__NR_getsockopt, Self::getsockopt),
        (abi::__NR_setsockopt, Self::setsockopt),
    ];

    /// What `socket` and its kin ask for.
    fn wanted_socket(family: u64, kind: u64, protocol: u64) -> Result<SocketKind, Errno> {
        let (family, kind) = (u64::from(family as u32), kind as u32);
        if kind & !(KIND | abi::O_CLOEXEC | abi::O_NONBLOCK) != 0 {
            return Err(Errno::EINVAL);
        }
        if family >= FAMILIES {
            return Err(Errno::EAFNOSUPPORT);
        }
        if kind & KIND > SOCK_PACKET {
            return Err(Errno::EINVAL);
        }
        // One that a queue of messages tells by, and that is never bound.
        if family == AF_NETLINK && kind & KIND == SOCK_RAW && protocol == 0 {
            return Ok(SocketKind::Datagram);
        }
        if family != u64::from(AF_UNIX) {
            return Err(Errno::EAFNOSUPPORT);
        }
        if protocol as u32 > u32::from(AF_UNIX) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        match kind & KIND {
            net::SOCK_STREAM => Ok(SocketKind::Stream),
            net::SOCK_DGRAM | SOCK_RAW => Ok(SocketKind::Datagram),
            net::SOCK_SEQPACKET => Ok(SocketKind::Packets),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        }
    }

    /// An open file for a socket, with what the bits of a kind ask for beside it.
    fn socket_file(socket: Arc<Socket<P>>, flags: u32) -> (Arc<OpenFile<P>>, OnExec) {
        let file = OpenFile::own(Kind::Socket(socket), flags & abi::O_NONBLOCK);
        (Arc::new(file), OnExec::from_flags(flags))
    }

    fn socket(&mut self, [family, kind, protocol, ..]: Args) -> Answer {
        let wanted = Self::wanted_socket(family, kind, protocol)?;
        let socket = Socket::new(self.sys, wanted);
        let (file, on_exec) = Self::socket_file(socket, kind as u32);
        self.install(file, on_exec)
    }

    fn socketpair(&mut self, [family, kind, protocol, to, ..]: Args) -> Answer {
        let wanted = Self::wanted_socket(family, kind, protocol)?;
        let (one, other) = Socket::pair(self.sys, wanted, self.sender());
        let (one, on_exec) = Self::socket_file(one, kind as u32);
        let (other, _) = Self::socket_file(other, kind as u32);
        let first = self.install(one, on_exec)? as u32;
        let second = self.install(other, on_exec).map(|fd| fd as u32);
        let stored = second.and_then(|s| {
            self.put(to, &[first, s]).inspect_err(|_| {
                drop(self.process.files().remove(s));
            })
        });
        if stored.is_err() {
            drop(self.process.files().remove(first));
        }
        stored.map(|()| 0)
    }

    /// The socket that a file is.
    fn as_socket(file: &OpenFile<P>) -> Result<Arc<Socket<P>>, Errno> {
        match &file.kind {
            Kind::Socket(socket) => Ok(socket.clone()),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    /// The socket behind a descriptor.
    fn socket_of(&self, fd: u64) -> Result<Arc<Socket<P>>, Errno> {
        Self::as_socket(&*self.file(fd)?)
    }

    fn bind(&mut self, [fd, at, len, ..]: Args) -> Answer {
        let socket = self.socket_of(fd)?;
        self.bind_socket(&socket, at, len)
    }

    fn listen(&mut self, [fd, backlog, ..]: Args) -> Answer {
        let socket = self.socket_of(fd)?;
        if !socket.kind.connects() {
            return Err(Errno::EOPNOTSUPP);
        }
        let who = self.sender();
        let backlog = (backlog as u32).min(BACKLOG_MAX) as usize;
        {
            let mut state = socket.state.lock();
            if state.address.is_empty() || state.peer.is_some() {
                return Err(Errno::EINVAL);
            }
            match &mut state.listening {
                Some(listening) => listening.backlog = backlog,
                none => {
                    *none = Some(Listening {
                        waiting: VecDeque::new(),
                        backlog,
                        who,
                    });
                }
            }
        }
        socket.inbox.changed();
        Ok(0)
    }

    fn connect(&mut self, [fd, at, len, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let socket = Self::as_socket(&file)?;
        let (family, address) = self.socket_address(at, len)?;
        if family != AF_UNIX && (family != AF_UNSPEC || socket.kind.connects()) {
            return Err(Errno::EINVAL);
        }
        if !socket.kind.connects() {
            return self.connect_datagrams(&socket, family, &address);
        }
        if address.is_empty() {
            return Err(Errno::EINVAL);
        }
        let target = self.socket_at(socket.kind, &address)?;
        let (connected, listens, nanos) = {
            let state = socket.state.lock();
            let nanos = state.options.write_time;
            (state.peer.is_some(), state.listening.is_some(), nanos)
        };
        if target.kind != socket.kind {
            return Err(Errno::EPROTOTYPE);
        }
        if target.state.lock().listening.is_none() {
            return Err(Errno::ECONNREFUSED);
        }
        if connected {
            return Err(Errno::EISCONN);
        }
        if listens {
            return Err(Errno::EINVAL);
        }
        let channel = target.inbox.channel();
        // Not held while waiting: the listener may close.
        let target = {
            let weak = Arc::downgrade(&target);
            drop(target);
            weak
        };
        let who = self.sender();
        let deadline = self.socket_deadline(nanos, self.socket_flags(&file, 0));
        let done = self.wait_on(channel, deadline, || {
            match socket.connect_to(self.sys, &target, who) {
                Attempt::Done(result) => Some(result),
                Attempt::Broken | Attempt::Wait => None,
            }
        });
        match done {
            Ok(result) => result.map(|()| 0),
            Err(Unfinished::Deadline) => Err(Errno::EAGAIN),
            Err(Unfinished::Signal) => Err(Errno::RESTART),
        }
    }

    fn accept(&mut self, [fd, at, len, ..]: Args) -> Answer {
        self.accept4([fd, at, len, 0, 0, 0])
    }

    fn accept4(&mut self, [fd, at, len, flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        if flags & !(abi::O_CLOEXEC | abi::O_NONBLOCK) != 0 {
            return Err(Errno::EINVAL);
        }
        let file = self.file(fd)?;
        let socket = Self::as_socket(&file)?;
        if !socket.kind.connects() {
            return Err(Errno::EOPNOTSUPP);
        }
        let nanos = socket.state.lock().options.read_time;
        let deadline = self.socket_deadline(nanos, self.socket_flags(&file, 0));
        let accepted = self.wait_on(socket.inbox.channel(), deadline, || match socket.accept() {
            Attempt::Done(result) => Some(result),
            Attempt::Broken | Attempt::Wait => None,
        });
        let accepted = match accepted {
            Ok(result) => result?,
            Err(Unfinished::Deadline) => return Err(Errno::EAGAIN),
            Err(Unfinished::Signal) => return Err(Errno::RESTART),
        };
        let peer = accepted.peer();
        let (file, on_exec) = Self::socket_file(accepted, flags);
        if at != 0 {
            self.put_address(at, len, peer.as_ref().map(|p| &p.address))?;
        }
        self.install(file, on_exec)
    }

    fn shutdown(&mut self, [fd, how, ..]: Args) -> Answer {
        let socket = self.socket_of(fd)?;
        let (incoming, outgoing) = match how as u32 {
            net::SHUT_RD => (true, false),
            net::SHUT_WR => (false, true),
            net::SHUT_RDWR => (true, true),
            _ => return Err(Errno::EINVAL),
        };
        socket.shut(incoming, outgoing);
        Ok(0)
    }

    fn getsockname(&mut self, [fd, to, len_at, ..]: Args) -> Answer {
        let socket = self.socket_of(fd)?;
        let address = socket.state.lock().address.clone();
        self.put_address(to, len_at, Some(&address)).map(|()| 0)
    }

    fn getpeername(&mut self, [fd, to, len_at, ..]: Args) -> Answer {
        let socket = self.socket_of(fd)?;
        let peer = socket.peer().ok_or(Errno::ENOTCONN)?;
        self.put_address(to, len_at, Some(&peer.address))
            .map(|()| 0)
    }
}
