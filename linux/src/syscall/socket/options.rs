//! Options of sockets.

use crate::errno::Errno;
use crate::fs::socket::inbox::Sender;
use crate::fs::socket::{Socket, SocketKind};
use crate::platform::Platform;
use crate::syscall::{Answer, Args};
use crate::thread::Task;
use alloc::vec::Vec;
use linux_raw_sys::net;
use zerocopy::IntoBytes;

const SOL_SOCKET: u64 = 1;
const SO_PASSCRED: u32 = 16;
const SO_PEERCRED: u32 = 17;
const SO_RCVTIMEO: u32 = 20;
const SO_SNDTIMEO: u32 = 21;
const SO_PEERSEC: u32 = 31;
const AF_UNIX: u32 = 1;
const SECOND: u64 = 1_000_000_000;
/// The least that Linux makes of a wish for less.
const LEAST_SENT: u32 = 4608;
const LEAST_RECEIVED: u32 = 2304;
/// `net.core.wmem_max`, and its kin.
const MOST: u32 = 212_992;
/// Options that are switched on and off and have no effect here.
const FLAGS: [u32; 9] = [
    net::SO_DEBUG,
    net::SO_REUSEADDR,
    net::SO_DONTROUTE,
    net::SO_BROADCAST,
    net::SO_KEEPALIVE,
    net::SO_OOBINLINE,
    net::SO_REUSEPORT,
    net::SO_TIMESTAMP,
    net::SO_RCVLOWAT,
];

impl<P: Platform> Task<P> {
    pub(super) fn getsockopt(&mut self, [fd, level, name, to, len_at, _]: Args) -> Answer {
        let socket = self.socket_of(fd)?;
        let room: i32 = self.get(len_at)?;
        let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
        if level as u32 as u64 != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let value = option(&socket, name as u32)?;
        let n = value.len().min(room);
        self.write_user(to, &value[..n])?;
        self.put(len_at, &(n as u32)).map(|()| 0)
    }

    pub(super) fn setsockopt(&mut self, [fd, level, name, from, len, _]: Args) -> Answer {
        let socket = self.socket_of(fd)?;
        if (len as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        if level as u32 as u64 != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let name = name as u32;
        if len < 4 {
            return Err(Errno::EINVAL);
        }
        let number: u32 = self.get(from)?;
        let time = match name {
            SO_RCVTIMEO | SO_SNDTIMEO if len < 16 => return Err(Errno::EINVAL),
            SO_RCVTIMEO | SO_SNDTIMEO => {
                let [seconds, micros]: [i64; 2] = self.get(from)?;
                if !(0..1_000_000).contains(&micros) {
                    return Err(Errno::EDOM);
                }
                let seconds = u64::try_from(seconds).unwrap_or(0);
                seconds
                    .saturating_mul(SECOND)
                    .saturating_add(micros as u64 * 1000)
            }
            _ => 0,
        };
        let mut state = socket.state.lock();
        let options = &mut state.options;
        match name {
            SO_PASSCRED => options.passes_sender = number != 0,
            SO_RCVTIMEO => options.read_time = time,
            SO_SNDTIMEO => options.write_time = time,
            net::SO_SNDBUF => options.send_bytes = (number.min(MOST) * 2).max(LEAST_SENT),
            net::SO_RCVBUF => options.receive_bytes = (number.min(MOST) * 2).max(LEAST_RECEIVED),
            net::SO_LINGER if len < 8 => return Err(Errno::EINVAL),
            net::SO_LINGER | net::SO_PRIORITY => {}
            flag => match FLAGS.iter().position(|&f| f == flag) {
                Some(n) if number != 0 => options.flags |= 1 << n,
                Some(n) => options.flags &= !(1 << n),
                None => return Err(Errno::ENOPROTOOPT),
            },
        }
        Ok(0)
    }
}

/// The value of an option as bytes.
fn option<P: Platform>(socket: &Socket<P>, name: u32) -> Result<Vec<u8>, Errno> {
    let state = socket.state.lock();
    let options = &state.options;
    let time = |t: u64| [t / SECOND, t % SECOND / 1000].as_bytes().to_vec();
    let number = match name {
        net::SO_TYPE => socket.kind as u32,
        net::SO_DOMAIN => AF_UNIX,
        net::SO_PROTOCOL | net::SO_PRIORITY => 0,
        net::SO_ACCEPTCONN => u32::from(state.listening.is_some()),
        net::SO_ERROR => {
            drop(state);
            socket.inbox.take_error().map_or(0, |e| e.0.unsigned_abs())
        }
        net::SO_SNDBUF => options.send_bytes,
        net::SO_RCVBUF => options.receive_bytes,
        SO_PASSCRED => u32::from(options.passes_sender),
        SO_RCVTIMEO => return Ok(time(options.read_time)),
        SO_SNDTIMEO => return Ok(time(options.write_time)),
        net::SO_LINGER => return Ok([0u32; 2].as_bytes().to_vec()),
        SO_PEERCRED => {
            let nobody = Sender {
                pid: 0,
                uid: u32::MAX,
                gid: u32::MAX,
            };
            let who = match (&state.peer, &state.listening) {
                (Some(peer), _) if socket.kind != SocketKind::Datagram || peer.who.pid != 0 => {
                    peer.who
                }
                (_, Some(listening)) => listening.who,
                _ => nobody,
            };
            return Ok([who.pid, who.uid, who.gid].as_bytes().to_vec());
        }
        SO_PEERSEC => return Err(Errno::ENOPROTOOPT),
        flag => match FLAGS.iter().position(|&f| f == flag) {
            Some(n) => (options.flags >> n & 1) as u32 | u32::from(flag == net::SO_RCVLOWAT),
            None => return Err(Errno::ENOPROTOOPT),
        },
    };
    Ok(number.to_le_bytes().to_vec())
}
