//! `fcntl`: what is asked and said of an open file.

use super::{Answer, Args, Calls};
use crate::creds::cap;
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::fs::pipe::PipeEnd;
use crate::fs::table::OnExec;
use crate::fs::told::Listener;
use crate::platform::Platform;
use crate::thread::Task;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

const F_DUPFD_QUERY: u32 = 1027;
const F_DUPFD_CLOEXEC: u32 = 1030;
const F_SETPIPE_SZ: u32 = 1031;
const F_GETPIPE_SZ: u32 = 1032;
const F_GET_RW_HINT: u32 = 1035;
const F_SET_RW_HINT: u32 = 1036;
/// `RWH_WRITE_LIFE_EXTREME`.
const LAST_HINT: u64 = 5;

impl<P: Platform> Task<P> {
    pub(super) const FCNTL: Calls<P> = &[(abi::__NR_fcntl, Self::fcntl)];

    fn fcntl(&mut self, [fd, command, arg, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let files = self.process.files();
        let duplicate = |on_exec| {
            if arg >= self.descriptor_limit() {
                return Err(Errno::EINVAL);
            }
            let limit = self.descriptor_limit();
            files
                .install(file.clone(), on_exec, arg, limit)
                .map(u64::from)
        };
        if let Some(answer) = self.lock_command(&file, command as u32, arg) {
            return answer;
        }
        match command as u32 {
            abi::F_DUPFD => duplicate(OnExec::Keep),
            F_DUPFD_CLOEXEC => duplicate(OnExec::Close),
            abi::F_GETFD => Ok(u64::from(files.on_exec(fd as u32)? == OnExec::Close)),
            abi::F_SETFD => {
                let close = arg as u32 & abi::FD_CLOEXEC != 0;
                let on_exec = if close { OnExec::Close } else { OnExec::Keep };
                files.set_on_exec(fd as u32, on_exec)?;
                Ok(0)
            }
            abi::F_GETFL => Ok(u64::from(file.flags())),
            abi::F_SETFL => file.set_flags(arg as u32).map(|()| 0),
            abi::F_ADD_SEALS => self.add_seals(&file, arg as u32),
            abi::F_GET_SEALS => match &file.kind {
                Kind::Memory(memory) => memory.seals().map(u64::from).ok_or(Errno::EINVAL),
                _ => Err(Errno::EINVAL),
            },
            F_GETPIPE_SZ | F_SETPIPE_SZ => match &file.kind {
                Kind::Pipe(pipe) if command as u32 == F_GETPIPE_SZ => Ok(pipe.capacity() as u64),
                Kind::Pipe(pipe) => self.set_pipe_size(pipe, arg as u32),
                _ => Err(Errno::EBADF),
            },
            F_DUPFD_QUERY => {
                let other = self.file(arg)?;
                Ok(u64::from(Arc::ptr_eq(&file, &other)))
            }
            command => self.told_command(&file, command, arg),
        }
    }

    /// What is kept to be told again.
    fn told_command(&self, file: &OpenFile<P>, command: u32, arg: u64) -> Answer {
        let told = *file.told.lock();
        match command {
            F_GET_RW_HINT => self.put(arg, &told.hint).map(|()| 0),
            F_SET_RW_HINT => {
                let hint: u64 = self.get(arg)?;
                if hint > LAST_HINT {
                    return Err(Errno::EINVAL);
                }
                file.told.lock().hint = hint;
                Ok(0)
            }
            abi::F_GETSIG => Ok(u64::from(told.signal)),
            abi::F_SETSIG => {
                if arg > u64::from(abi::_NSIG) {
                    return Err(Errno::EINVAL);
                }
                file.told.lock().signal = arg as u32;
                Ok(0)
            }
            abi::F_GETOWN => Ok(match told.listener.map(Listener::parts) {
                None => 0,
                Some((abi::F_OWNER_PGRP, n)) => u64::from(n).wrapping_neg(),
                Some((_, n)) => u64::from(n),
            }),
            abi::F_SETOWN => match arg as i32 {
                i32::MIN => Err(Errno::EINVAL),
                n @ ..0 => self.set_listener(file, Listener::Group(n.unsigned_abs())),
                n => self.set_listener(file, Listener::Process(n as u32)),
            },
            abi::F_GETOWN_EX => {
                let (kind, n) = told.listener.map_or((abi::F_OWNER_PID, 0), Listener::parts);
                self.put(arg, &[kind, n]).map(|()| 0)
            }
            abi::F_SETOWN_EX => {
                let [kind, n]: [u32; 2] = self.get(arg)?;
                self.set_listener(file, Listener::new(kind, n).ok_or(Errno::EINVAL)?)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whoever is named is to hear of a file; number 0 is nobody.
    fn set_listener(&self, file: &OpenFile<P>, listener: Listener) -> Answer {
        let (kind, number) = listener.parts();
        let known = {
            let table = self.sys.processes.lock();
            let mut records = table.records.values();
            number == 0
                || match kind {
                    abi::F_OWNER_TID => {
                        records.any(|r| r.threads.iter().any(|t| t.tid() == number))
                    }
                    abi::F_OWNER_PID => table.get(number).is_some(),
                    _ => records.any(|r| r.pgid == number),
                }
        };
        if !known {
            return Err(Errno::ESRCH);
        }
        file.told.lock().listener = (number != 0).then_some(listener);
        Ok(0)
    }

    /// Whole pages, a power of two of them.
    fn set_pipe_size(&self, pipe: &PipeEnd<P>, wanted: u32) -> Answer {
        const MOST: u32 = 1 << 20;
        if wanted > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        if wanted > MOST && !self.capable(cap::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        let bytes = wanted.max(4096).next_power_of_two();
        if pipe.set_capacity(bytes as usize) {
            Ok(u64::from(bytes))
        } else {
            Err(Errno::EBUSY)
        }
    }
}
