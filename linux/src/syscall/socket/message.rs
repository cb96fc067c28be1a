//! Sending and receiving, with what travels beside the bytes: files and who sent them.

use super::address::AF_UNSPEC;
use super::beside::{Beside, Header};
use crate::blocking::Unfinished;
use crate::errno::Errno;
use crate::fs::file::OpenFile;
use crate::fs::pipe::Attempt;
use crate::fs::socket::inbox::{Address, Inbox, Message, Reading, Received, Sender};
use crate::fs::socket::{Socket, SocketKind};
use crate::platform::Platform;
use crate::syscall::{Answer, Args};
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::size_of;

const MSG_OOB: u32 = 1;
const MSG_PEEK: u32 = 2;
const MSG_TRUNC: u32 = 0x20;
const MSG_DONTWAIT: u32 = 0x40;
const MSG_WAITALL: u32 = 0x100;
const MSG_NOSIGNAL: u32 = 0x4000;
const MSG_WAITFORONE: u32 = 0x1_0000;
pub(super) const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
/// `UIO_MAXIOV`, for messages too.
const MESSAGES_MAX: u64 = 1024;
/// What is copied at once.
const CHUNK: usize = 64 << 10;
/// The longest message.
const MESSAGE_MAX: u64 = 212_992 - 32;

/// `struct mmsghdr`, behind its header.
const MMSG_BYTES: u64 = size_of::<Header>() as u64 + 8;

/// A buffer of the guest's.
type Buffer = (u64, u64);

fn total(iov: &[Buffer]) -> u64 {
    iov.iter().fold(0, |sum, v| sum.saturating_add(v.1))
}

impl<P: Platform> Task<P> {
    pub(super) fn sendto(&mut self, [fd, from, len, flags, name, name_len]: Args) -> Answer {
        let file = self.file(fd)?;
        let socket = Self::as_socket(&file)?;
        let to = match name {
            0 => None,
            at => Some(self.named_address(at, name_len)?),
        };
        let beside = Beside {
            files: Vec::new(),
            sender: self.sender(),
        };
        let flags = self.socket_flags(&file, flags);
        self.send(&socket, to, &[(from, len.min(0x7fff_f000))], beside, flags)
    }

    pub(super) fn recvfrom(&mut self, [fd, to, len, flags, name, name_len]: Args) -> Answer {
        let file = self.file(fd)?;
        let socket = Self::as_socket(&file)?;
        let flags = self.socket_flags(&file, flags);
        let iov = [(to, len.min(0x7fff_f000))];
        let got = self.receive(&socket, &iov, flags)?;
        if name != 0 {
            let from = (!got.from.is_empty()).then_some(&got.from);
            self.put_address(name, name_len, from)?;
        }
        Ok(told_length(&got, flags))
    }

    pub(super) fn sendmsg(&mut self, [fd, message, flags, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let socket = Self::as_socket(&file)?;
        let flags = self.socket_flags(&file, flags);
        let header: Header = self.get(message)?;
        self.send_header(&socket, &header, flags)
    }

    pub(super) fn recvmsg(&mut self, [fd, message, flags, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let socket = Self::as_socket(&file)?;
        let flags = self.socket_flags(&file, flags);
        self.receive_header(&socket, message, flags)
    }

    pub(super) fn sendmmsg(&mut self, [fd, at, count, flags, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let socket = Self::as_socket(&file)?;
        let flags = self.socket_flags(&file, flags);
        self.each_message(at, count, |place, _| {
            let header: Header = self.get(place)?;
            self.send_header(&socket, &header, flags)
        })
    }

    pub(super) fn recvmmsg(&mut self, [fd, at, count, flags, timeout, _]: Args) -> Answer {
        let file = self.file(fd)?;
        let socket = Self::as_socket(&file)?;
        let flags = self.socket_flags(&file, flags);
        let deadline = self.relative_deadline(timeout)?;
        self.each_message(at, count, |place, done| {
            if done > 0 && deadline.is_some_and(|d| self.sys.now() >= d) {
                return Err(Errno::EAGAIN);
            }
            let later = done > 0 && flags & MSG_WAITFORONE != 0;
            let flags = flags | if later { MSG_DONTWAIT } else { 0 };
            self.receive_header(&socket, place, flags)
        })
    }

    /// Carries out `act` for each of a list of messages, and stores what it gives back.
    fn each_message(&self, at: u64, count: u64, act: impl Fn(u64, u64) -> Answer) -> Answer {
        let count = u64::from(count as u32).min(MESSAGES_MAX);
        let mut done = 0;
        while done < count {
            let place = at.checked_add(done * MMSG_BYTES).ok_or(Errno::EFAULT)?;
            match act(place, done) {
                Ok(n) => self.put(place + size_of::<Header>() as u64, &(n as u32))?,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
            done += 1;
        }
        Ok(done)
    }

    /// The flags of a call, with the file's own way of not waiting.
    pub(super) fn socket_flags(&self, file: &OpenFile<P>, flags: u64) -> u32 {
        let own = if file.is_nonblocking() {
            MSG_DONTWAIT
        } else {
            0
        };
        flags as u32 | own
    }

    /// Who the caller is, for the other side.
    pub(super) fn sender(&self) -> Sender {
        let creds = self.creds();
        Sender {
            pid: self.process.pid,
            uid: creds.user.real,
            gid: creds.group.real,
        }
    }

    fn send_header(&self, socket: &Arc<Socket<P>>, header: &Header, flags: u32) -> Answer {
        let iov = self.vectors(header.iov, header.iov_len)?;
        let to = match (header.name, header.name_len) {
            (0, _) | (_, 0) => None,
            (at, len) => Some(self.named_address(at, u64::from(len))?),
        };
        let beside = self.beside(header)?;
        self.send(socket, to, &iov, beside, flags)
    }

    fn send(
        &self,
        socket: &Arc<Socket<P>>,
        to: Option<Address>,
        iov: &[Buffer],
        beside: Beside<P>,
        flags: u32,
    ) -> Answer {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        match socket.kind {
            SocketKind::Stream => self.send_bytes(socket, to.is_some(), iov, beside, flags),
            _ => self.send_message(socket, to, iov, beside, flags),
        }
    }

    /// Until when a call waits.
    pub(super) fn socket_deadline(&self, nanos: u64, flags: u32) -> Option<u64> {
        let now = self.sys.now();
        match (flags & MSG_DONTWAIT, nanos) {
            (0, 0) => None,
            (0, nanos) => Some(now.saturating_add(nanos)),
            _ => Some(now),
        }
    }

    fn send_bytes(
        &self,
        socket: &Arc<Socket<P>>,
        addressed: bool,
        iov: &[Buffer],
        beside: Beside<P>,
        flags: u32,
    ) -> Answer {
        let peer = socket.peer();
        if addressed {
            return Err(match peer {
                Some(_) => Errno::EISCONN,
                None => Errno::EOPNOTSUPP,
            });
        }
        let peer = peer.ok_or(Errno::ENOTCONN)?;
        let (mute, nanos, limit) = {
            let state = socket.state.lock();
            let options = &state.options;
            (state.mute, options.write_time, options.send_bytes)
        };
        let deadline = self.socket_deadline(nanos, flags);
        let mut message = Message {
            bytes: Vec::new(),
            files: beside.files,
            sender: beside.sender,
            from: socket.state.lock().address.clone(),
        };
        let mut done = 0;
        for &(at, len) in iov {
            let mut sent = 0;
            while sent < len {
                let place = at.checked_add(sent).ok_or(Errno::EFAULT)?;
                let n = (len - sent).min(CHUNK as u64) as usize;
                let added = match mute {
                    true => Err(Errno::EPIPE),
                    false => self.bytes(place, n).and_then(|bytes| {
                        message.bytes = bytes;
                        self.add_to_stream(&peer.inbox, &mut message, (limit, deadline))
                    }),
                };
                match added {
                    Ok(n) => {
                        sent += n as u64;
                        done += n as u64;
                    }
                    Err(_) if done > 0 => return Ok(done),
                    Err(Errno::EPIPE) if flags & MSG_NOSIGNAL == 0 => {
                        return self.broken_pipe(Err(Errno::EPIPE)).map(|n| n as u64);
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(done)
    }

    fn add_to_stream(
        &self,
        inbox: &Arc<Inbox<P>>,
        message: &mut Message<P>,
        (limit, deadline): (u32, Option<u64>),
    ) -> Result<usize, Errno> {
        let added = self.wait_on(inbox.channel(), deadline, || {
            match inbox.add_bytes(message, limit as usize) {
                Attempt::Done(n) => Some(Ok(n)),
                Attempt::Broken => Some(Err(Errno::EPIPE)),
                Attempt::Wait => None,
            }
        });
        added.map_err(would_block)?
    }

    fn send_message(
        &self,
        socket: &Arc<Socket<P>>,
        to: Option<Address>,
        iov: &[Buffer],
        beside: Beside<P>,
        flags: u32,
    ) -> Answer {
        let own = socket.peer();
        let packets = socket.kind == SocketKind::Packets;
        if packets && own.is_none() {
            return Err(Errno::ENOTCONN);
        }
        let len = total(iov);
        let (mute, nanos, limit) = {
            let state = socket.state.lock();
            let options = &state.options;
            (state.mute, options.write_time, options.send_bytes)
        };
        if len > MESSAGE_MAX.min(u64::from(limit).saturating_sub(32)) {
            return Err(Errno::EMSGSIZE);
        }
        let mut bytes = Vec::with_capacity(len as usize);
        for &(at, len) in iov {
            bytes.extend(self.bytes(at, len as usize)?);
        }
        let inbox = match (to, own) {
            (Some(address), _) if !packets => self.addressed_inbox(socket, &address)?,
            (_, Some(peer)) => peer.inbox,
            (_, None) => return Err(Errno::ENOTCONN),
        };
        if mute {
            return Err(Errno::EPIPE);
        }
        if socket.state.lock().options.passes_sender && socket.state.lock().address.is_empty() {
            self.bind_anywhere(socket)?;
        }
        let message = Message {
            bytes,
            files: beside.files,
            sender: beside.sender,
            from: socket.state.lock().address.clone(),
        };
        let deadline = self.socket_deadline(nanos, flags);
        let sent = self.add_message(socket.kind, &inbox, message, (limit, deadline));
        if sent == Err(Errno::ECONNREFUSED) {
            let lost = socket.state.lock().peer.take();
            drop(lost);
        }
        sent.map(|()| len)
    }

    fn add_message(
        &self,
        kind: SocketKind,
        inbox: &Arc<Inbox<P>>,
        message: Message<P>,
        (limit, deadline): (u32, Option<u64>),
    ) -> Result<(), Errno> {
        let mut message = Some(message);
        let added = self.wait_on(inbox.channel(), deadline, || {
            match inbox.add_message(&mut message, limit as usize) {
                Attempt::Done(()) => Some(Ok(())),
                Attempt::Broken => Some(Err(refusal(kind, inbox))),
                Attempt::Wait => None,
            }
        });
        added.map_err(would_block)?
    }

    /// Where a datagram goes that says so itself.
    fn addressed_inbox(
        &self,
        socket: &Socket<P>,
        address: &Address,
    ) -> Result<Arc<Inbox<P>>, Errno> {
        let target = self.socket_at(socket.kind, address)?;
        if target.kind != socket.kind {
            return Err(Errno::EPROTOTYPE);
        }
        // A socket that is connected takes messages from its peer alone.
        match target.peer() {
            Some(peer) if peer.inbox.id() != socket.id() => Err(Errno::EPERM),
            _ => Ok(target.inbox.clone()),
        }
    }

    pub(super) fn connect_datagrams(
        &self,
        socket: &Socket<P>,
        family: u16,
        address: &Address,
    ) -> Answer {
        if family == AF_UNSPEC {
            let old = socket.state.lock().peer.take();
            drop(old);
            return Ok(0);
        }
        let inbox = self.addressed_inbox(socket, address)?;
        let name = self
            .socket_at(socket.kind, address)?
            .state
            .lock()
            .address
            .clone();
        socket.set_peer(&inbox, name, Sender::default());
        socket.inbox.changed();
        Ok(0)
    }

    /// Reads what has come in, into `iov`.
    fn receive(
        &self,
        socket: &Arc<Socket<P>>,
        iov: &[Buffer],
        flags: u32,
    ) -> Result<Received<P>, Errno> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let nanos = socket.state.lock().options.read_time;
        let deadline = self.socket_deadline(nanos, flags);
        let how = match flags & MSG_PEEK {
            0 => Reading::Take,
            _ => Reading::Peek,
        };
        let want = total(iov).min(1 << 20) as usize;
        let mut got = self.read_once(socket, want, 0, how, deadline)?;
        if flags & MSG_WAITALL != 0 && flags & MSG_DONTWAIT == 0 && !socket.kind.has_messages() {
            self.read_rest(socket, want, how, deadline, &mut got);
        }
        let mut rest = got.bytes.as_slice();
        for &(to, len) in iov {
            let (now, later) = rest.split_at(rest.len().min(len as usize));
            self.write_user(to, now)?;
            rest = later;
        }
        Ok(got)
    }

    /// Goes on until everything that was asked for is there, or something else comes first.
    fn read_rest(
        &self,
        socket: &Arc<Socket<P>>,
        want: usize,
        how: Reading,
        deadline: Option<u64>,
        got: &mut Received<P>,
    ) {
        while got.bytes.len() < want && !got.bytes.is_empty() && got.files.is_empty() {
            let have = got.bytes.len();
            let skip = if how == Reading::Peek { have } else { 0 };
            match self.read_once(socket, want - have, skip, how, deadline) {
                Ok(more) if !more.bytes.is_empty() => {
                    got.bytes.extend_from_slice(&more.bytes);
                    got.files = more.files;
                }
                _ => break,
            }
        }
        got.whole = got.bytes.len();
    }

    fn read_once(
        &self,
        socket: &Arc<Socket<P>>,
        want: usize,
        skip: usize,
        how: Reading,
        deadline: Option<u64>,
    ) -> Result<Received<P>, Errno> {
        let connected = socket.state.lock().peer.is_some();
        let inbox = &socket.inbox;
        let read = self.wait_on(inbox.channel(), deadline, || {
            if let Some(error) = inbox.take_error() {
                return Some(Err(error));
            }
            let attempt = match socket.kind {
                SocketKind::Stream => inbox.read_bytes(want, skip, how),
                _ => inbox.read_message(want, how),
            };
            match attempt {
                Attempt::Done(got) => Some(Ok(got)),
                Attempt::Broken => Some(Ok(Received::end())),
                Attempt::Wait if !connected && socket.kind.connects() => {
                    Some(Err(match socket.kind {
                        SocketKind::Stream => Errno::EINVAL,
                        _ => Errno::ENOTCONN,
                    }))
                }
                Attempt::Wait => None,
            }
        });
        read.map_err(would_block)?
    }

    fn receive_header(&self, socket: &Arc<Socket<P>>, at: u64, flags: u32) -> Answer {
        let mut header: Header = self.get(at)?;
        let iov = self.vectors(header.iov, header.iov_len)?;
        let got = self.receive(socket, &iov, flags)?;
        if header.name != 0 {
            let name = match got.from.as_slice() {
                [] => Vec::new(),
                from => [&super::address::AF_UNIX.to_le_bytes()[..], from].concat(),
            };
            let n = name.len().min(header.name_len as usize);
            self.write_user(header.name, &name[..n])?;
            header.name_len = name.len() as u32;
        }
        let length = told_length(&got, flags);
        header.flags = flags & MSG_CMSG_CLOEXEC;
        if got.whole > got.bytes.len() {
            header.flags |= MSG_TRUNC;
        }
        self.tell_beside(socket, got, &mut header, flags)?;
        self.put(at, &header)?;
        Ok(length)
    }

    /// `read` of a socket.
    pub(in crate::syscall) fn read_socket(
        &self,
        file: &OpenFile<P>,
        socket: &Arc<Socket<P>>,
        want: usize,
    ) -> Result<Vec<u8>, Errno> {
        let flags = self.socket_flags(file, 0);
        let nanos = socket.state.lock().options.read_time;
        let deadline = self.socket_deadline(nanos, flags);
        let got = self.read_once(socket, want, 0, Reading::Take, deadline)?;
        Ok(got.bytes)
    }

    /// `write` to a socket.
    pub(in crate::syscall) fn write_socket(
        &self,
        file: &OpenFile<P>,
        socket: &Arc<Socket<P>>,
        bytes: Vec<u8>,
    ) -> Result<usize, Errno> {
        let flags = self.socket_flags(file, 0);
        let peer = socket.peer().ok_or(Errno::ENOTCONN)?;
        let (mute, nanos, limit, from) = {
            let state = socket.state.lock();
            let (address, options) = (state.address.clone(), &state.options);
            (state.mute, options.write_time, options.send_bytes, address)
        };
        if mute {
            return Err(Errno::EPIPE);
        }
        let deadline = self.socket_deadline(nanos, flags);
        let len = bytes.len();
        let mut message = Message {
            bytes,
            files: Vec::new(),
            sender: self.sender(),
            from,
        };
        if socket.kind == SocketKind::Stream {
            return self.add_to_stream(&peer.inbox, &mut message, (limit, deadline));
        }
        if len as u64 > MESSAGE_MAX {
            return Err(Errno::EMSGSIZE);
        }
        self.add_message(socket.kind, &peer.inbox, message, (limit, deadline))
            .map(|()| len)
    }
}

/// The length that a call tells: the whole message's, if that was asked for.
fn told_length<P: Platform>(got: &Received<P>, flags: u32) -> u64 {
    match flags & MSG_TRUNC {
        0 => got.bytes.len() as u64,
        _ => got.whole as u64,
    }
}

/// What sending a message finds where nobody reads.
fn refusal<P: Platform>(kind: SocketKind, inbox: &Inbox<P>) -> Errno {
    match kind == SocketKind::Datagram && inbox.condition().closed {
        true => Errno::ECONNREFUSED,
        false => Errno::EPIPE,
    }
}

/// A wait that was given up: a socket's time is over as if it did not wait at all.
fn would_block(unfinished: Unfinished) -> Errno {
    match unfinished {
        Unfinished::Signal => Errno::RESTART,
        Unfinished::Deadline => Errno::EAGAIN,
    }
}
