//! Sockets: connected pairs of streams. There is no networking beyond them.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::fs::socket::Socket;
use crate::fs::table::OnExec;
use crate::platform::Platform;
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;
use linux_raw_sys::net;

const AF_UNIX: u64 = 1;
const SOCK_STREAM: u32 = 1;
const MSG_PEEK: u32 = 2;
const MSG_DONTWAIT: u32 = 0x40;
const MSG_NOSIGNAL: u32 = 0x4000;
const SOL_SOCKET: u64 = 1;
const BUFFER_BYTES: u32 = 212_992;

/// Address and length of a buffer of the guest's.
type Buffer = (u64, u64);

impl<P: Platform> Task<P> {
    pub(super) const SOCKET: Calls<P> = &[
        (abi::__NR_socket, Self::socket),
        (abi::__NR_socketpair, Self::socketpair),
        (abi::__NR_connect, Self::not_connectable),
        (abi::__NR_bind, Self::not_connectable),
        (abi::__NR_listen, Self::not_connectable),
        (abi::__NR_accept, Self::not_connectable),
        (abi::__NR_accept4, Self::not_connectable),
        (abi::__NR_sendto, Self::sendto),
        (abi::__NR_recvfrom, Self::recvfrom),
        (abi::__NR_sendmsg, Self::sendmsg),
        (abi::__NR_recvmsg, Self::recvmsg),
        (abi::__NR_shutdown, Self::shutdown),
        (abi::__NR_getpeername, Self::socket_name),
        (abi::__NR_getsockname, Self::socket_name),
        (abi::__NR_getsockopt, Self::getsockopt),
        (abi::__NR_setsockopt, Self::setsockopt),
    ];

    fn socket(&mut self, _: Args) -> Answer {
        Err(Errno::EAFNOSUPPORT)
    }

    fn socketpair(&mut self, [family, kind, protocol, to, ..]: Args) -> Answer {
        let kind = kind as u32;
        if family != AF_UNIX {
            return Err(Errno::EAFNOSUPPORT);
        }
        if kind & !(abi::O_CLOEXEC | abi::O_NONBLOCK) != SOCK_STREAM || protocol > AF_UNIX {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let (one, other) = Socket::pair(self.sys);
        let on_exec = OnExec::from_flags(kind);
        let flags = abi::O_RDWR | kind & abi::O_NONBLOCK;
        let file = |socket| Arc::new(OpenFile::own(Kind::Socket(socket), flags));
        let first = self.install(file(one), on_exec)? as u32;
        let both = self
            .install(file(other), on_exec)
            .map(|second| [first, second as u32]);
        let stored = both.and_then(|fds| self.put(to, &fds));
        if stored.is_err() {
            drop(self.process.files().remove(first));
        }
        stored.map(|()| 0)
    }

    fn with_socket<T>(
        &self,
        fd: u64,
        act: impl FnOnce(&OpenFile<P>, &Socket<P>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let file = self.file(fd)?;
        match &file.kind {
            Kind::Socket(socket) => act(&file, socket),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    fn not_connectable(&mut self, [fd, ..]: Args) -> Answer {
        self.with_socket(fd, |_, _| Err(Errno::EINVAL))
    }

    fn sendto(&mut self, [fd, from, len, flags, ..]: Args) -> Answer {
        let iov = [(from, len)];
        self.with_socket(fd, |file, socket| {
            self.send(file, socket, &iov, flags as u32)
        })
    }

    fn recvfrom(&mut self, [fd, to, len, flags, _, address_len]: Args) -> Answer {
        let got = self.with_socket(fd, |file, socket| {
            self.receive(file, socket, &[(to, len)], flags as u32)
        })?;
        if address_len != 0 {
            self.put(address_len, &0u32)?;
        }
        Ok(got)
    }

    /// `struct msghdr`: the buffers of a message.
    fn message(&self, at: u64) -> Result<(Vec<Buffer>, [u64; 7]), Errno> {
        let header: [u64; 7] = self.get(at)?;
        Ok((self.vectors(header[2], header[3])?, header))
    }

    fn sendmsg(&mut self, [fd, message, flags, ..]: Args) -> Answer {
        self.with_socket(fd, |file, socket| {
            let (iov, header) = self.message(message)?;
            if header[5] != 0 {
                // Descriptors and credentials do not travel.
                return Err(Errno::EOPNOTSUPP);
            }
            self.send(file, socket, &iov, flags as u32)
        })
    }

    fn recvmsg(&mut self, [fd, message, flags, ..]: Args) -> Answer {
        self.with_socket(fd, |file, socket| {
            let (iov, mut header) = self.message(message)?;
            let got = self.receive(file, socket, &iov, flags as u32)?;
            (header[1], header[5], header[6]) = (0, 0, 0);
            self.put(message, &header)?;
            Ok(got)
        })
    }

    fn send(&self, file: &OpenFile<P>, socket: &Socket<P>, iov: &[Buffer], flags: u32) -> Answer {
        let nonblocking = file.is_nonblocking() || flags & MSG_DONTWAIT != 0;
        let mut done = 0;
        for &(from, len) in iov {
            match self.send_one(socket, (from, len), nonblocking) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(Errno::EPIPE) if flags & MSG_NOSIGNAL == 0 => {
                    return self.broken_pipe(Err(Errno::EPIPE)).map(|n| n as u64);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn send_one(&self, socket: &Socket<P>, (from, len): Buffer, nonblocking: bool) -> Answer {
        const CHUNK: u64 = 64 << 10;
        let mut done = 0;
        while done < len {
            let place = from.checked_add(done).ok_or(Errno::EFAULT)?;
            let bytes = self.bytes(place, (len - done).min(CHUNK) as usize)?;
            match self.write_socket(socket, &bytes, nonblocking) {
                Ok(n) => done += n as u64,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn receive(
        &self,
        file: &OpenFile<P>,
        socket: &Socket<P>,
        iov: &[Buffer],
        flags: u32,
    ) -> Answer {
        let total = iov.iter().fold(0u64, |sum, v| sum.saturating_add(v.1));
        let want = total.min(1 << 20) as usize;
        let nonblocking = file.is_nonblocking() || flags & MSG_DONTWAIT != 0;
        let bytes = self.read_socket(socket, want, nonblocking, flags & MSG_PEEK != 0)?;
        let mut rest = bytes.as_slice();
        for &(to, len) in iov {
            let (now, later) = rest.split_at(rest.len().min(len as usize));
            self.write_user(to, now)?;
            rest = later;
        }
        Ok(bytes.len() as u64)
    }

    fn shutdown(&mut self, [fd, how, ..]: Args) -> Answer {
        let (incoming, outgoing) = match how as u32 {
            net::SHUT_RD => (true, false),
            net::SHUT_WR => (false, true),
            net::SHUT_RDWR => (true, true),
            _ => return Err(Errno::EINVAL),
        };
        self.with_socket(fd, |_, socket| {
            socket.shut(incoming, outgoing);
            Ok(0)
        })
    }

    /// A pair's sockets have a family and no name.
    fn socket_name(&mut self, [fd, to, len_at, ..]: Args) -> Answer {
        self.with_socket(fd, |_, _| {
            let room: u32 = self.get(len_at)?;
            let family = (AF_UNIX as u16).to_le_bytes();
            self.write_user(to, &family[..family.len().min(room as usize)])?;
            self.put(len_at, &2u32).map(|()| 0)
        })
    }

    fn getsockopt(&mut self, [fd, level, name, to, len_at, _]: Args) -> Answer {
        self.with_socket(fd, |_, _| {
            let room: u32 = self.get(len_at)?;
            let creds = self.creds();
            let words = match (level, name as u32) {
                (SOL_SOCKET, net::SO_TYPE) => [SOCK_STREAM, 0, 0],
                (SOL_SOCKET, net::SO_DOMAIN) => [AF_UNIX as u32, 0, 0],
                (SOL_SOCKET, net::SO_SNDBUF | net::SO_RCVBUF) => [BUFFER_BYTES, 0, 0],
                (SOL_SOCKET, net::SO_PEERCRED) => [
                    self.process.pid,
                    creds.user.effective,
                    creds.group.effective,
                ],
                (SOL_SOCKET, _) => [0; 3],
                _ => return Err(Errno::EOPNOTSUPP),
            };
            let size = if name as u32 == net::SO_PEERCRED {
                12
            } else {
                4
            };
            let size = size.min(room as usize);
            self.write_user(to, &zerocopy::IntoBytes::as_bytes(&words)[..size])?;
            self.put(len_at, &(size as u32)).map(|()| 0)
        })
    }

    fn setsockopt(&mut self, [fd, level, ..]: Args) -> Answer {
        self.with_socket(fd, |_, _| match level {
            SOL_SOCKET => Ok(0),
            _ => Err(Errno::EOPNOTSUPP),
        })
    }
}
