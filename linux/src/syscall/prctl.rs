//! `prctl`: what a process or thread says about itself.

use super::{Answer, Args, Calls};
use crate::creds::{KEEP_CAPS, cap};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::signal::SIGNALS;
use crate::thread::Task;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use linux_raw_sys::{general as abi, prctl as pr};

/// Nanoseconds by which a sleep may be late unless a program says otherwise.
pub(crate) const SLACK: u64 = 50_000;
/// `PR_MCE_KILL_DEFAULT`.
const MCE_KILL_DEFAULT: u64 = 2;

/// What a process has said of itself.
#[derive(Debug)]
pub(crate) struct Traits {
    /// The signal it wants when its parent ends; 0 for none.
    pub(crate) death_signal: AtomicU32,
    /// Whose orphans become its children.
    pub(crate) subreaper: AtomicBool,
    dumpable: AtomicU32,
    no_huge_pages: AtomicBool,
    /// `personality`.
    pub(crate) personality: AtomicU32,
    /// `oom_score_adj`.
    pub(crate) oom_adjust: AtomicU32,
}

impl Traits {
    pub(crate) fn new() -> Traits {
        Traits {
            death_signal: AtomicU32::new(0),
            subreaper: AtomicBool::new(false),
            dumpable: AtomicU32::new(1),
            no_huge_pages: AtomicBool::new(false),
            personality: AtomicU32::new(0),
            oom_adjust: AtomicU32::new(0),
        }
    }

    /// What a forked child has.
    pub(crate) fn forked(&self) -> Traits {
        let new = Traits::new();
        let copy = |to: &AtomicU32, from: &AtomicU32| {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        copy(&new.dumpable, &self.dumpable);
        copy(&new.personality, &self.personality);
        copy(&new.oom_adjust, &self.oom_adjust);
        let huge = self.no_huge_pages.load(Ordering::Relaxed);
        new.no_huge_pages.store(huge, Ordering::Relaxed);
        new
    }

    /// Whether others of the same user may look into it (`PR_SET_DUMPABLE`).
    pub(crate) fn may_be_dumped(&self) -> bool {
        self.dumpable.load(Ordering::Relaxed) == 1
    }

    /// What `exec` sets back.
    pub(crate) fn executed(&self) {
        self.dumpable.store(1, Ordering::Relaxed);
    }
}

fn all_zero(args: &[u64]) -> Result<(), Errno> {
    if args.iter().all(|&a| a == 0) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

fn one_if(yes: bool) -> Answer {
    Ok(u64::from(yes))
}

impl<P: Platform> Task<P> {
    pub(super) const PRCTL: Calls<P> = &[
        (abi::__NR_prctl, Self::prctl),
        (abi::__NR_personality, Self::personality),
    ];

    fn prctl(&mut self, args: Args) -> Answer {
        let [option, arg, rest @ ..] = args;
        let rest = &rest[..3];
        let traits = &self.process.traits;
        match option as u32 {
            pr::PR_SET_NAME => self.set_name(arg),
            pr::PR_GET_NAME => self.get_name(arg),
            pr::PR_SET_PDEATHSIG if arg <= u64::from(SIGNALS) => {
                traits.death_signal.store(arg as u32, Ordering::SeqCst);
                Ok(0)
            }
            pr::PR_GET_PDEATHSIG => {
                let signal = traits.death_signal.load(Ordering::SeqCst);
                self.put(arg, &signal).map(|()| 0)
            }
            pr::PR_SET_DUMPABLE if arg <= 1 => {
                traits.dumpable.store(arg as u32, Ordering::Relaxed);
                Ok(0)
            }
            pr::PR_GET_DUMPABLE => Ok(u64::from(traits.dumpable.load(Ordering::Relaxed))),
            pr::PR_SET_CHILD_SUBREAPER => {
                traits.subreaper.store(arg != 0, Ordering::SeqCst);
                Ok(0)
            }
            pr::PR_GET_CHILD_SUBREAPER => {
                let on = u32::from(traits.subreaper.load(Ordering::SeqCst));
                self.put(arg, &on).map(|()| 0)
            }
            pr::PR_SET_THP_DISABLE => {
                all_zero(rest)?;
                traits.no_huge_pages.store(arg != 0, Ordering::Relaxed);
                Ok(0)
            }
            pr::PR_GET_THP_DISABLE => {
                all_zero(&args[1..5])?;
                one_if(traits.no_huge_pages.load(Ordering::Relaxed))
            }
            _ => self.prctl_thread(args),
        }
    }

    /// What belongs to the thread and to the processor.
    fn prctl_thread(&mut self, args: Args) -> Answer {
        let [option, arg, rest @ ..] = args;
        let slack = &self.thread.slack;
        match option as u32 {
            pr::PR_SET_TIMERSLACK => {
                let nanos = if (arg as i64) <= 0 { SLACK } else { arg };
                slack.store(nanos, Ordering::Relaxed);
                Ok(0)
            }
            pr::PR_GET_TIMERSLACK => Ok(slack.load(Ordering::Relaxed)),
            pr::PR_GET_TIMING | pr::PR_GET_SECCOMP => Ok(0),
            pr::PR_SET_TIMING if arg == 0 => Ok(0),
            pr::PR_GET_TSC => self.put(arg, &pr::PR_TSC_ENABLE).map(|()| 0),
            pr::PR_SET_TSC if arg == u64::from(pr::PR_TSC_ENABLE) => Ok(0),
            pr::PR_TASK_PERF_EVENTS_DISABLE | pr::PR_TASK_PERF_EVENTS_ENABLE => Ok(0),
            pr::PR_MCE_KILL_GET => {
                all_zero(&args[1..5])?;
                Ok(MCE_KILL_DEFAULT)
            }
            pr::PR_GET_TID_ADDRESS => {
                let at = self.thread.clear_tid.load(Ordering::SeqCst);
                self.put(arg, &at).map(|()| 0)
            }
            pr::PR_GET_AUXV => {
                all_zero(&rest[1..3])?;
                let auxv = self.space.bounds.lock().auxv.clone();
                let n = auxv.len().min(rest[0] as usize);
                self.write_user(arg, &auxv[..n])?;
                Ok(auxv.len() as u64)
            }
            pr::PR_SET_MM => {
                if !self.capable(cap::SYS_RESOURCE) {
                    return Err(Errno::EPERM);
                }
                Err(Errno::EINVAL)
            }
            // Names of memory are not kept.
            pr::PR_SET_VMA if arg == u64::from(pr::PR_SET_VMA_ANON_NAME) => Ok(0),
            _ => self.prctl_identity(args),
        }
    }

    /// What belongs to the identity.
    fn prctl_identity(&mut self, args: Args) -> Answer {
        let [option, arg, rest @ ..] = args;
        let mut creds = self.creds();
        let bit = |n: u64| {
            1u64.checked_shl(n as u32)
                .filter(|_| n < u64::from(cap::COUNT))
        };
        match option as u32 {
            pr::PR_GET_KEEPCAPS => return one_if(creds.secure_bits & KEEP_CAPS != 0),
            pr::PR_SET_KEEPCAPS if arg <= 1 => {
                creds.secure_bits &= !KEEP_CAPS;
                creds.secure_bits |= KEEP_CAPS * arg as u32;
            }
            pr::PR_SET_NO_NEW_PRIVS if arg == 1 => {
                all_zero(&rest[..3])?;
                creds.no_new_privileges = true;
            }
            pr::PR_GET_NO_NEW_PRIVS => {
                all_zero(&args[1..5])?;
                return one_if(creds.no_new_privileges);
            }
            pr::PR_CAPBSET_READ => {
                let bit = bit(arg).ok_or(Errno::EINVAL)?;
                return one_if(creds.caps.bounding & bit != 0);
            }
            pr::PR_CAPBSET_DROP => {
                if !creds.capable(cap::SETPCAP) {
                    return Err(Errno::EPERM);
                }
                creds.caps.bounding &= !bit(arg).ok_or(Errno::EINVAL)?;
            }
            pr::PR_GET_SECUREBITS => return Ok(u64::from(creds.secure_bits)),
            pr::PR_SET_SECUREBITS => {
                if !creds.capable(cap::SETPCAP) || arg & !0xff != 0 {
                    return Err(Errno::EPERM);
                }
                creds.secure_bits = arg as u32;
            }
            pr::PR_CAP_AMBIENT => {
                let n = rest[0];
                all_zero(&rest[1..3])?;
                match arg as u32 {
                    pr::PR_CAP_AMBIENT_CLEAR_ALL if n == 0 => creds.caps.ambient = 0,
                    pr::PR_CAP_AMBIENT_IS_SET => {
                        let bit = bit(n).ok_or(Errno::EINVAL)?;
                        return one_if(creds.caps.ambient & bit != 0);
                    }
                    pr::PR_CAP_AMBIENT_LOWER => {
                        creds.caps.ambient &= !bit(n).ok_or(Errno::EINVAL)?;
                    }
                    pr::PR_CAP_AMBIENT_RAISE => {
                        let bit = bit(n).ok_or(Errno::EINVAL)?;
                        if creds.caps.permitted & creds.caps.inheritable & bit == 0 {
                            return Err(Errno::EPERM);
                        }
                        creds.caps.ambient |= bit;
                    }
                    _ => return Err(Errno::EINVAL),
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        self.become_who(creds).map(|()| 0)
    }

    fn is_first(&self) -> bool {
        self.thread.tid() == self.process.pid
    }

    fn set_name(&self, from: u64) -> Answer {
        const ROOM: usize = 16;
        let name = match self.string(from, ROOM, Errno::EINVAL) {
            Err(Errno::EINVAL) => self.bytes(from, ROOM - 1)?,
            other => other?,
        };
        let name = name[..name.len().min(ROOM - 1)].to_vec();
        if self.is_first() {
            self.process.shared.lock().name = name;
        } else {
            *self.thread.name.lock() = Some(name);
        }
        Ok(0)
    }

    fn get_name(&self, to: u64) -> Answer {
        let own = self.thread.name.lock().clone().filter(|_| !self.is_first());
        let own = own.unwrap_or_else(|| self.process.shared.lock().name.clone());
        let mut name = [0; 16];
        let n = own.len().min(15);
        name[..n].copy_from_slice(&own[..n]);
        self.write_user(to, &name).map(|()| 0)
    }

    /// Kept and told; of its flags, the one against randomisation is true anyway.
    fn personality(&mut self, [wanted, ..]: Args) -> Answer {
        let now = &self.process.traits.personality;
        let old = now.load(Ordering::Relaxed);
        if wanted as u32 != u32::MAX {
            now.store(wanted as u32, Ordering::Relaxed);
        }
        Ok(u64::from(old))
    }
}

/// A thread's slack as it begins.
pub(crate) fn slack() -> AtomicU64 {
    AtomicU64::new(SLACK)
}
