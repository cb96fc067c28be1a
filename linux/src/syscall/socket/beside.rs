//! What travels beside the bytes of a message: files, and who sent it.

use super::message::MSG_CMSG_CLOEXEC;
use crate::creds::cap;
use crate::errno::Errno;
use crate::fs::file::OpenFile;
use crate::fs::socket::Socket;
use crate::fs::socket::inbox::{Received, Sender};
use crate::fs::table::OnExec;
use crate::platform::Platform;
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MSG_CTRUNC: u32 = 8;
const SOL_SOCKET: u32 = 1;
const SCM_RIGHTS: u32 = 1;
const SCM_CREDENTIALS: u32 = 2;
/// `SCM_MAX_FD`.
const FILES_MAX: usize = 253;
/// The longest list of things that travel beside.
const CONTROL_MAX: u64 = 20_480;

/// `struct msghdr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) name: u64,
    pub(super) name_len: u32,
    pad: u32,
    pub(super) iov: u64,
    pub(super) iov_len: u64,
    pub(super) control: u64,
    pub(super) control_len: u64,
    pub(super) flags: u32,
    pad2: u32,
}

/// What goes with a message.
pub(super) struct Beside<P: Platform> {
    pub(super) files: Vec<Arc<OpenFile<P>>>,
    pub(super) sender: Sender,
}

impl<P: Platform> Task<P> {
    /// What a message carries beside its bytes.
    pub(super) fn beside(&self, header: &Header) -> Result<Beside<P>, Errno> {
        const HEAD: usize = 16;
        let mut out = Beside {
            files: Vec::new(),
            sender: self.sender(),
        };
        if header.control_len > CONTROL_MAX {
            return Err(Errno::ENOBUFS);
        }
        let control = match header.control {
            0 => Vec::new(),
            at => self.bytes(at, header.control_len as usize)?,
        };
        let mut rest = control.as_slice();
        while let Some((head, _)) = rest.split_at_checked(HEAD) {
            let word = |at: usize| {
                let bytes = head.get(at..at + 4).and_then(|b| b.try_into().ok());
                bytes.map_or(0, u32::from_le_bytes)
            };
            let len = word(0) as usize;
            if word(4) != 0 || len < HEAD || len > rest.len() {
                return Err(Errno::EINVAL);
            }
            let data = &rest[HEAD..len];
            match (word(8), word(12)) {
                (SOL_SOCKET, SCM_RIGHTS) => self.add_files(data, &mut out.files)?,
                (SOL_SOCKET, SCM_CREDENTIALS) => out.sender = self.claimed(data)?,
                (SOL_SOCKET, _) => return Err(Errno::EINVAL),
                _ => {}
            }
            rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
        }
        Ok(out)
    }

    fn add_files(&self, data: &[u8], files: &mut Vec<Arc<OpenFile<P>>>) -> Result<(), Errno> {
        let numbers = data.chunks_exact(4).filter_map(|b| b.try_into().ok());
        for fd in numbers.map(u32::from_le_bytes) {
            if files.len() >= FILES_MAX {
                return Err(Errno::EINVAL);
            }
            files.push(self.file(u64::from(fd))?);
        }
        Ok(())
    }

    /// Who the caller says it is, if it may.
    fn claimed(&self, data: &[u8]) -> Result<Sender, Errno> {
        let words: [u32; 3] = match data.try_into() {
            Ok::<[u8; 12], _>(bytes) => zerocopy::transmute!(bytes),
            Err(_) => return Err(Errno::EINVAL),
        };
        let [pid, uid, gid] = words;
        let creds = self.creds();
        let user = [creds.user.real, creds.user.effective, creds.user.saved];
        let group = [creds.group.real, creds.group.effective, creds.group.saved];
        let allowed = (pid == self.process.pid || creds.capable(cap::SYS_ADMIN))
            && (user.contains(&uid) || creds.capable(cap::SETUID))
            && (group.contains(&gid) || creds.capable(cap::SETGID));
        match allowed {
            true => Ok(Sender { pid, uid, gid }),
            false => Err(Errno::EPERM),
        }
    }

    /// Stores what came beside a message, as far as there is room.
    pub(super) fn tell_beside(
        &self,
        socket: &Socket<P>,
        got: Received<P>,
        header: &mut Header,
        flags: u32,
    ) -> Result<(), Errno> {
        const HEAD: usize = 16;
        let mut room = match header.control {
            0 => 0,
            _ => header.control_len as usize,
        };
        let mut out: Vec<u8> = Vec::new();
        let mut put = |kind: u32, data: &[u8], room: &mut usize| {
            let head = [
                (HEAD + data.len()) as u64,
                u64::from(SOL_SOCKET) | u64::from(kind) << 32,
            ];
            out.extend(head.as_bytes());
            out.extend(data);
            let padded = out.len().next_multiple_of(8);
            let used = (HEAD + data.len()).next_multiple_of(8).min(*room);
            *room -= used;
            // The last one need not be padded where there is no room for that.
            out.resize(padded, 0);
        };
        if socket.state.lock().options.passes_sender {
            let who = got.sender.unwrap_or_default();
            let data = [who.pid, who.uid, who.gid];
            match room >= HEAD + 12 {
                true => put(SCM_CREDENTIALS, data.as_bytes(), &mut room),
                false => header.flags |= MSG_CTRUNC,
            }
        }
        if !got.files.is_empty() {
            let fit = (room.saturating_sub(HEAD) / 4).min(got.files.len());
            let on_exec = match flags & MSG_CMSG_CLOEXEC {
                0 => OnExec::Keep,
                _ => OnExec::Close,
            };
            let mut numbers = Vec::new();
            for file in &got.files[..fit] {
                match self.install(file.clone(), on_exec) {
                    Ok(fd) => numbers.push(fd as u32),
                    Err(_) => break,
                }
            }
            if numbers.len() < got.files.len() {
                header.flags |= MSG_CTRUNC;
            }
            if !numbers.is_empty() {
                put(SCM_RIGHTS, numbers.as_bytes(), &mut room);
            }
        }
        let most = match header.control {
            0 => 0,
            _ => header.control_len as usize,
        };
        out.truncate(most);
        self.write_user(header.control, &out)?;
        header.control_len = out.len() as u64;
        Ok(())
    }
}
