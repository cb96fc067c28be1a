//! Other processes' memory: `process_vm_readv`, `process_vm_writev`, `process_madvise`; and what is
//! asked of all threads at once: `membarrier`.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::process::{INIT, Process};
use crate::space::AddressSpace;
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use bsdvm::Advice;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// What is moved at once.
const CHUNK: u64 = 64 << 10;
/// What `membarrier` can do here: the commands of one bit each.
const BARRIERS: u64 = 0x7f;
/// Those that ask to be allowed another: register before use.
const BARRIER_QUERY: u32 = 0;
const BARRIER_GLOBAL: u32 = 1;
const BARRIER_GLOBAL_EXPEDITED: u32 = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: u32 = 1 << 2;
const BARRIER_PRIVATE: u32 = 1 << 3;
const REGISTER_PRIVATE: u32 = 1 << 4;
const BARRIER_SYNC_CORE: u32 = 1 << 5;
const REGISTER_SYNC_CORE: u32 = 1 << 6;
const GET_REGISTRATIONS: u32 = 1 << 9;

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Here,
    There,
}

/// A list of buffers as one run of bytes.
struct Run {
    buffers: Vec<(u64, u64)>,
    at: usize,
    done: u64,
}

impl Run {
    fn new(buffers: Vec<(u64, u64)>) -> Run {
        Run {
            buffers,
            at: 0,
            done: 0,
        }
    }

    /// Where the next byte is and how many follow it there; `None` at the end.
    fn next(&mut self) -> Option<(u64, u64)> {
        while let Some(&(base, len)) = self.buffers.get(self.at) {
            if self.done < len {
                return Some((base.wrapping_add(self.done), len - self.done));
            }
            (self.at, self.done) = (self.at + 1, 0);
        }
        None
    }
}

impl<P: Platform> Task<P> {
    pub(super) const PROCESS_VM: Calls<P> = &[
        (abi::__NR_process_vm_readv, Self::process_vm_readv),
        (abi::__NR_process_vm_writev, Self::process_vm_writev),
        (abi::__NR_process_madvise, Self::process_madvise),
        (abi::__NR_membarrier, Self::membarrier),
    ];

    fn process_vm_readv(&mut self, args: Args) -> Answer {
        self.process_vm(args, Way::Here)
    }

    fn process_vm_writev(&mut self, args: Args) -> Answer {
        self.process_vm(args, Way::There)
    }

    fn process_vm(&self, args: Args, way: Way) -> Answer {
        let [pid, local, local_count, remote, remote_count, flags] = args;
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        let local = self.vectors(local, local_count)?;
        if local.iter().all(|v| v.1 == 0) {
            return Ok(0);
        }
        let remote = self.vectors(remote, remote_count)?;
        if remote.iter().all(|v| v.1 == 0) {
            return Ok(0);
        }
        let space = self.space_of(pid as u32)?;
        let (mut mine, mut theirs) = (Run::new(local), Run::new(remote));
        let mut total = 0;
        while let (Some(here), Some(there)) = (mine.next(), theirs.next()) {
            // Up to the end of a page, so that what lies before a hole is moved.
            let page = crate::system::Linux::<P>::PAGE_BYTES;
            let rest = page - there.0 % page;
            let len = here.1.min(there.1).min(CHUNK).min(rest);
            match self.move_between(&space, here.0, there.0, len, way) {
                Ok(()) => {}
                Err(e) if total == 0 => return Err(e),
                Err(_) => break,
            }
            mine.done += len;
            theirs.done += len;
            total += len;
        }
        Ok(total)
    }

    fn move_between(
        &self,
        other: &AddressSpace<P>,
        here: u64,
        there: u64,
        len: u64,
        way: Way,
    ) -> Result<(), Errno> {
        match way {
            Way::Here => {
                let mut bytes = vec![0; len as usize];
                other.copy_in(there, &mut bytes)?;
                self.write_user(here, &bytes)
            }
            Way::There => {
                let bytes = self.bytes(here, len as usize)?;
                other.copy_out(there, &bytes)?;
                Ok(())
            }
        }
    }

    /// The process that has a thread `tid`.
    pub(super) fn process_with(&self, tid: u32) -> Result<Arc<Process<P>>, Errno> {
        let table = self.sys.processes.lock();
        let has = |r: &&crate::process::Record<P>| {
            r.process.pid == tid || r.threads.iter().any(|t| t.tid() == tid)
        };
        match table.records.values().find(has) {
            Some(found) => Ok(found.process.clone()),
            // It is there, and is nobody's to look into.
            None if tid == INIT => Err(Errno::EPERM),
            None => Err(Errno::ESRCH),
        }
    }

    /// The space of another process, if this one may look into it.
    fn space_of(&self, tid: u32) -> Result<Arc<AddressSpace<P>>, Errno> {
        let process = self.process_with(tid)?;
        let other = process.creds.lock().clone();
        if process.pid != self.process.pid && !self.creds().may_attach(&other) {
            return Err(Errno::EPERM);
        }
        process.space().ok_or(Errno::ESRCH)
    }

    fn membarrier(&mut self, [command, flags, ..]: Args) -> Answer {
        let command = command as u32;
        if flags as u32 != 0 {
            return Err(Errno::EINVAL);
        }
        let registered = &self.space.barriers;
        let may = |register: u32| {
            if registered.load(Ordering::SeqCst) & register == 0 {
                Err(Errno::EPERM)
            } else {
                Ok(())
            }
        };
        match command {
            BARRIER_QUERY => return Ok(BARRIERS | u64::from(GET_REGISTRATIONS)),
            BARRIER_GLOBAL | BARRIER_GLOBAL_EXPEDITED => {}
            REGISTER_GLOBAL_EXPEDITED | REGISTER_PRIVATE | REGISTER_SYNC_CORE => {
                registered.fetch_or(command, Ordering::SeqCst);
                return Ok(0);
            }
            BARRIER_PRIVATE => may(REGISTER_PRIVATE)?,
            BARRIER_SYNC_CORE => may(REGISTER_SYNC_CORE)?,
            GET_REGISTRATIONS => return Ok(u64::from(registered.load(Ordering::SeqCst))),
            _ => return Err(Errno::EINVAL),
        }
        self.sys.platform.barrier();
        Ok(0)
    }

    fn process_madvise(&mut self, [fd, iov, count, advice, flags, _]: Args) -> Answer {
        if flags as u32 != 0 {
            return Err(Errno::EINVAL);
        }
        let vectors = self.vectors(iov, count)?;
        let process = self.process_of(fd)?;
        if process.pid == self.process.pid {
            return self.advise_self(&vectors, advice);
        }
        let advice = match advice as u32 {
            abi::MADV_COLD => Advice::DontNeed,
            abi::MADV_PAGEOUT => Advice::PageOut,
            abi::MADV_WILLNEED => Advice::WillNeed,
            _ => return Err(Errno::EINVAL),
        };
        let other = process.creds.lock().clone();
        let creds = self.creds();
        let allowed = creds.may_attach(&other) && creds.capable(crate::creds::cap::SYS_NICE);
        if !allowed {
            return Err(Errno::EPERM);
        }
        let space = process.space().ok_or(Errno::ESRCH)?;
        let mut done = 0;
        for (base, len) in vectors {
            match self.advise_there(&space, base, len, advice) {
                Ok(()) => done += len,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Any advice is a process's to take for itself.
    fn advise_self(&mut self, vectors: &[(u64, u64)], advice: u64) -> Answer {
        let mut done = 0;
        for &(base, len) in vectors {
            match self.madvise([base, len, advice, 0, 0, 0]) {
                Ok(_) => done += len,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn advise_there(
        &self,
        space: &Arc<AddressSpace<P>>,
        base: u64,
        len: u64,
        advice: Advice,
    ) -> Result<(), Errno> {
        let range = space.pages(base, len, Errno::EINVAL)?;
        if range.is_empty() {
            return Ok(());
        }
        if !space.core().covered(range) {
            return Err(Errno::ENOMEM);
        }
        Ok(space.core().advise(range, advice)?)
    }
}
