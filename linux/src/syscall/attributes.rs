//! The newer calls of the scheduler: `sched_setattr`, `sched_getattr`, `sched_rr_get_interval`.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::policy::{BATCH, DEADLINE, FIFO, OTHER, Policy, ROUND_ROBIN};
use crate::syscall::time::Timespec;
use crate::thread::Task;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first `struct sched_attr`, and the size up to which one may be.
const FIRST: u64 = 48;
const LARGEST: u64 = 4096;
const FLAGS_KNOWN: u64 = 0x7f;
/// `SCHED_FLAG_RESET_ON_FORK`.
const RESET_ON_FORK: u64 = 1;
/// `SCHED_FLAG_KEEP_POLICY` and `SCHED_FLAG_KEEP_PARAMS`.
const KEEP_POLICY: u64 = 8;
const KEEP_PARAMS: u64 = 16;
/// How long an ordinary thread runs at a time, as it is told.
const SLICE: u64 = 3_000_000;
const MILLISECOND: u64 = 1_000_000;

/// `struct sched_attr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    deadline: [u64; 3],
    clamps: [u32; 2],
}

impl<P: Platform> Task<P> {
    pub(super) const ATTRIBUTES: Calls<P> = &[
        (abi::__NR_sched_setattr, Self::sched_setattr),
        (abi::__NR_sched_getattr, Self::sched_getattr),
        (abi::__NR_sched_rr_get_interval, Self::sched_rr_get_interval),
    ];

    fn sched_setattr(&mut self, [pid, from, flags, ..]: Args) -> Answer {
        if from == 0 || (pid as i32) < 0 || flags as u32 != 0 {
            return Err(Errno::EINVAL);
        }
        let size = u64::from(self.get::<u32>(from)?);
        let size = if size == 0 { FIRST } else { size };
        if !(FIRST..=LARGEST).contains(&size) {
            self.put(from, &(size_of::<Attributes>() as u32))?;
            return Err(Errno::E2BIG);
        }
        let raw = self.bytes(from, size as usize)?;
        let known = raw.len().min(size_of::<Attributes>());
        if raw[known..].iter().any(|&b| b != 0) {
            return Err(Errno::E2BIG);
        }
        let mut wanted = Attributes::default();
        wanted.as_mut_bytes()[..known].copy_from_slice(&raw[..known]);
        if wanted.flags & !FLAGS_KNOWN != 0 || (wanted.policy as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        let thread = self.scheduled(pid)?;
        let old = *thread.policy.lock();
        let keeps = |flag| wanted.flags & flag != 0;
        let mut policy = Policy {
            number: wanted.policy,
            priority: wanted.priority,
            reset_on_fork: keeps(RESET_ON_FORK),
            deadline: wanted.deadline,
        };
        if keeps(KEEP_POLICY) {
            (policy.number, policy.reset_on_fork) = (old.number, old.reset_on_fork);
        }
        if keeps(KEEP_PARAMS) {
            (policy.priority, policy.deadline) = (old.priority, old.deadline);
        }
        if policy.number != DEADLINE {
            policy.deadline = [0; 3];
        } else if policy.deadline[2] == 0 {
            policy.deadline[2] = policy.deadline[1];
        }
        self.set_policy(&thread, policy)?;
        if keeps(KEEP_PARAMS) || !matches!(policy.number, OTHER | BATCH) {
            return Ok(0);
        }
        self.setpriority([0, pid, wanted.nice as u64, 0, 0, 0])
    }

    fn sched_getattr(&mut self, [pid, to, size, flags, ..]: Args) -> Answer {
        let size = u64::from(size as u32);
        if to == 0 || (pid as i32) < 0 || !(FIRST..=LARGEST).contains(&size) || flags as u32 != 0 {
            return Err(Errno::EINVAL);
        }
        let policy = self.policy_of(pid)?;
        let process = match pid {
            0 => self.process.clone(),
            tid => self.process_with(tid as u32)?,
        };
        let len = size.min(size_of::<Attributes>() as u64);
        let attributes = Attributes {
            size: len as u32,
            policy: policy.number,
            flags: if policy.reset_on_fork {
                RESET_ON_FORK
            } else {
                0
            },
            priority: policy.priority,
            deadline: policy.deadline,
            nice: match policy.number {
                OTHER | BATCH => process.nice.load(Ordering::Relaxed),
                _ => 0,
            },
            clamps: [0, 1024],
        };
        self.write_user(to, &attributes.as_bytes()[..len as usize])
            .map(|()| 0)
    }

    fn sched_rr_get_interval(&mut self, [pid, to, ..]: Args) -> Answer {
        let slice = match self.policy_of(pid)?.number {
            FIFO | DEADLINE => 0,
            ROUND_ROBIN => {
                let millis = self.sys.settings.number("kernel/sched_rr_timeslice_ms");
                u64::try_from(millis).unwrap_or(0) * MILLISECOND
            }
            _ => SLICE,
        };
        self.put(to, &Timespec::of(slice)).map(|()| 0)
    }
}
