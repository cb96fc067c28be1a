//! What belongs nowhere else: the system's name and limits, chance, the scheduler.

use super::{Answer, Args, Calls};
use crate::creds::cap;
use crate::errno::Errno;
use crate::fs::proc::settings::SystemOwn;
use crate::platform::Platform;
use crate::system::Linux;
use crate::thread::{Task, Thread};
use alloc::sync::Arc;
use alloc::vec;
use bsdvm::Host;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

const RANDOM_CHUNK: usize = 4096;
const UTS_FIELD: usize = 65;

impl<P: Platform> Task<P> {
    pub(super) const MISC: Calls<P> = &[
        (abi::__NR_uname, Self::uname),
        (abi::__NR_sethostname, Self::sethostname),
        (abi::__NR_setdomainname, Self::setdomainname),
        (abi::__NR_getrandom, Self::getrandom),
        (abi::__NR_sysinfo, Self::sysinfo),
        (abi::__NR_sched_yield, Self::sched_yield),
        (abi::__NR_sched_getaffinity, Self::sched_getaffinity),
        (abi::__NR_sched_setaffinity, Self::sched_setaffinity),
        (abi::__NR_getcpu, Self::getcpu),
        (abi::__NR_rseq, Self::rseq),
        (abi::__NR_sync, Self::sync),
    ];

    fn uname(&mut self, [to, ..]: Args) -> Answer {
        let name = self.sys.platform.system_name();
        let fields = [
            name.system,
            self.sys.called(SystemOwn::Host),
            name.release,
            name.version,
            name.machine,
            self.sys.called(SystemOwn::Domain),
        ];
        let mut out = [0u8; UTS_FIELD * 6];
        for (place, field) in out.chunks_exact_mut(UTS_FIELD).zip(&fields) {
            let n = field.len().min(UTS_FIELD - 1);
            place[..n].copy_from_slice(&field[..n]);
        }
        self.write_user(to, &out).map(|()| 0)
    }

    fn sethostname(&mut self, [name, len, ..]: Args) -> Answer {
        self.call_it(SystemOwn::Host, name, len)
    }

    fn setdomainname(&mut self, [name, len, ..]: Args) -> Answer {
        self.call_it(SystemOwn::Domain, name, len)
    }

    fn call_it(&self, which: SystemOwn, name: u64, len: u64) -> Answer {
        if !self.capable(cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let len = usize::try_from(len as i32).map_err(|_| Errno::EINVAL)?;
        if len >= UTS_FIELD {
            return Err(Errno::EINVAL);
        }
        let name = self.bytes(name, len)?;
        self.sys.set_called(which, name);
        Ok(0)
    }

    fn getrandom(&mut self, [to, len, flags, ..]: Args) -> Answer {
        let known = abi::GRND_NONBLOCK | abi::GRND_RANDOM | abi::GRND_INSECURE;
        // What is certain and what need not be seeded exclude each other.
        let both = abi::GRND_RANDOM | abi::GRND_INSECURE;
        if flags as u32 & !known != 0 || flags as u32 & both == both {
            return Err(Errno::EINVAL);
        }
        let len = len.min(0x1ff_ffff);
        let mut done = 0;
        while done < len {
            let mut bytes = vec![0; ((len - done) as usize).min(RANDOM_CHUNK)];
            self.sys.platform.random(&mut bytes);
            self.write_user(to.checked_add(done).ok_or(Errno::EFAULT)?, &bytes)?;
            done += bytes.len() as u64;
        }
        Ok(done)
    }

    fn sysinfo(&mut self, [to, ..]: Args) -> Answer {
        let c = self.sys.vm.counters();
        let page = Linux::<P>::PAGE_BYTES;
        let processes = self.sys.processes.lock().alive().len() as u64;
        // uptime, three loads, total, free, shared, buffers, swap total and free, processes,
        // high memory total and free, unit
        let mut words = [0u64; 14];
        words[0] = self.sys.now() / 1_000_000_000;
        words[4] = c.frames_total * page;
        words[5] = c.frames_free * page;
        words[8] = c.swap_total * page;
        words[9] = (c.swap_total - c.swap_used) * page;
        words[10] = processes & 0xffff;
        words[13] = 1;
        self.put(to, &words).map(|()| 0)
    }

    fn sched_yield(&mut self, _: Args) -> Answer {
        // The supervisor's way through the machine has yielded already.
        Ok(0)
    }

    /// A thread by number, 0 being this one.
    pub(super) fn scheduled(&self, pid: u64) -> Result<Arc<Thread<P>>, Errno> {
        if pid as u32 == 0 {
            return Ok(self.thread.clone());
        }
        let table = self.sys.processes.lock();
        let mut threads = table.records.values().flat_map(|r| r.threads.iter());
        let found = threads.find(|t| t.tid() == pid as u32);
        found.cloned().ok_or(Errno::ESRCH)
    }

    fn sched_getaffinity(&mut self, [pid, len, to, ..]: Args) -> Answer {
        let cpus = self.sys.vm.machine().cpus();
        let need = cpus.div_ceil(64) * 8;
        if (len as u32 as usize) < need || len % 8 != 0 {
            return Err(Errno::EINVAL);
        }
        let allowed = self.scheduled(pid)?.affinity.load(Ordering::Relaxed);
        let mut mask = vec![0u8; need];
        for cpu in (0..cpus).filter(|c| *c >= 64 || allowed >> c & 1 != 0) {
            mask[cpu / 8] |= 1 << (cpu % 8);
        }
        self.write_user(to, &mask)?;
        Ok(need as u64)
    }

    /// Where threads run is the machine's choice: a set with a processor in it is kept and told.
    fn sched_setaffinity(&mut self, [pid, len, from, ..]: Args) -> Answer {
        let cpus = self.sys.vm.machine().cpus();
        let mask = self.bytes(from, (len as u32 as usize).min(128))?;
        let thread = self.scheduled(pid)?;
        if !Arc::ptr_eq(&thread, &self.thread) {
            let (me, other) = (self.creds(), thread.creds.lock().clone());
            if !me.owns(&other) && !me.capable(cap::SYS_NICE) {
                return Err(Errno::EPERM);
            }
        }
        let has = |c: usize| mask.get(c / 8).is_some_and(|b| b >> (c % 8) & 1 != 0);
        if !(0..cpus).any(has) {
            return Err(Errno::EINVAL);
        }
        let low = (0..cpus.min(64)).filter(|&c| has(c));
        let allowed = low.fold(0u64, |set, c| set | 1 << c);
        thread.affinity.store(allowed, Ordering::Relaxed);
        Ok(0)
    }

    fn getcpu(&mut self, [cpu, node, ..]: Args) -> Answer {
        let now = self.sys.vm.machine().cpu() as u32;
        self.put_optional(cpu, &now)?;
        self.put_optional(node, &0u32).map(|()| 0)
    }

    /// Restartable sequences need the scheduler's help, which the machine does not give.
    fn rseq(&mut self, _: Args) -> Answer {
        Err(Errno::ENOSYS)
    }

    fn sync(&mut self, _: Args) -> Answer {
        Ok(0)
    }
}
