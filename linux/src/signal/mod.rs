//! Signals: sets, dispositions, what is pending.
//!
//! * `post`: making a signal pending and waking whoever should take it;
//! * `deliver`: what happens before a thread returns to its program;
//! * `frame`: the record on the guest's stack that a handler runs on, and the way back.

mod deliver;
mod frame;
mod post;

pub(crate) use frame::AltStack;

use crate::platform::Platform;
use crate::{Lock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::Access;
use core::fmt;
use linux_raw_sys::general as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The number of signals: 1 to 64.
pub(crate) const SIGNALS: u32 = 64;
/// How many instances of queued (real-time) signals may wait for one process or thread.
const QUEUE_MAX: usize = 1024;

pub(crate) const SIG_DFL: u64 = 0;
pub(crate) const SIG_IGN: u64 = 1;

/// A set of signals, as the kernel's `sigset_t`: bit n-1 is signal n.
#[derive(Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(crate) struct SigSet(pub(crate) u64);

impl SigSet {
    /// The set of one signal; the empty set for a number that is none.
    pub(crate) const fn of(signal: u32) -> SigSet {
        if signal == 0 || signal > SIGNALS {
            SigSet(0)
        } else {
            SigSet(1 << (signal - 1))
        }
    }

    pub(crate) const fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    pub(crate) const fn intersect(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    pub(crate) const fn contains(self, signal: u32) -> bool {
        self.0 & SigSet::of(signal).0 != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The signal to take first: those that the program's own acts raise, then the lowest.
    pub(crate) fn first(self) -> Option<u32> {
        let synchronous = self.intersect(SYNCHRONOUS);
        let from = if synchronous.is_empty() {
            self
        } else {
            synchronous
        };
        (!from.is_empty()).then(|| from.0.trailing_zeros() + 1)
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = (1..=SIGNALS).filter(|&s| self.contains(s));
        f.debug_set().entries(members).finish()
    }
}

const SYNCHRONOUS: SigSet = SigSet::of(abi::SIGSEGV)
    .union(SigSet::of(abi::SIGBUS))
    .union(SigSet::of(abi::SIGILL))
    .union(SigSet::of(abi::SIGTRAP))
    .union(SigSet::of(abi::SIGFPE))
    .union(SigSet::of(abi::SIGSYS));

/// The signals that stop a process.
pub(crate) const STOPPING: SigSet = SigSet::of(abi::SIGSTOP)
    .union(SigSet::of(abi::SIGTSTP))
    .union(SigSet::of(abi::SIGTTIN))
    .union(SigSet::of(abi::SIGTTOU));

/// What a signal does when nothing was set for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DefaultAction {
    Ignore,
    Stop,
    Continue,
    Kill,
}

/// See `signal(7)`.
pub(crate) fn default_action(signal: u32) -> DefaultAction {
    match signal {
        abi::SIGCHLD | abi::SIGURG | abi::SIGWINCH => DefaultAction::Ignore,
        abi::SIGCONT => DefaultAction::Continue,
        _ if STOPPING.contains(signal) => DefaultAction::Stop,
        _ => DefaultAction::Kill,
    }
}

/// `siginfo_t`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct SigInfo {
    pub(crate) signal: u32,
    pub(crate) errno: i32,
    pub(crate) code: i32,
    pad: i32,
    /// The union, by 64-bit words.
    pub(crate) fields: [u64; 14],
}

impl fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signal {} code {}", self.signal, self.code)
    }
}

impl SigInfo {
    fn new(signal: u32, code: i32) -> SigInfo {
        SigInfo {
            signal,
            errno: 0,
            code,
            pad: 0,
            fields: [0; 14],
        }
    }

    /// Sent by process `pid` of user `uid` with `kill` or `tgkill`, as the code says.
    pub(crate) fn sent(signal: u32, code: i32, pid: u32, uid: u32) -> SigInfo {
        let mut info = SigInfo::new(signal, code);
        info.fields[0] = u64::from(pid) | u64::from(uid) << 32;
        info
    }

    /// Raised by an instruction that touched `address`.
    pub(crate) fn fault(signal: u32, code: i32, address: u64) -> SigInfo {
        let mut info = SigInfo::new(signal, code);
        info.fields[0] = address;
        info
    }

    /// A child changed state.
    pub(crate) fn child(signal: u32, code: i32, pid: u32, uid: u32, status: u32) -> SigInfo {
        let mut info = SigInfo::sent(signal, code, pid, uid);
        info.fields[1] = u64::from(status);
        info
    }

    /// Timer `id` of the process has run out, `overrun` times besides the one.
    pub(crate) fn timer(signal: u32, id: i32, overrun: u32, value: u64) -> SigInfo {
        let mut info = SigInfo::new(signal, abi::SI_TIMER);
        info.fields[0] = u64::from(id as u32) | u64::from(overrun) << 32;
        info.fields[1] = value;
        info
    }

    /// Notes for the frame how the address was touched. The kernel keeps it beside the record,
    /// not in it; the last word of the union is not used by any fault.
    pub(crate) fn set_access(&mut self, access: Access) {
        self.fields[13] = match access {
            Access::Read => 4,
            Access::Write => 6,
            Access::Execute => 20,
        };
    }

    /// Takes out what [`SigInfo::set_access`] noted: the processor's error code.
    pub(crate) fn take_access(&mut self) -> u64 {
        if self.is_fault() {
            core::mem::take(&mut self.fields[13])
        } else {
            0
        }
    }

    /// Whether the processor raised it.
    pub(crate) fn is_fault(&self) -> bool {
        self.code > 0 && SYNCHRONOUS.contains(self.signal) && self.code < 128
    }
}

/// The kernel's `struct sigaction`.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct Action {
    pub(crate) handler: u64,
    pub(crate) flags: u64,
    pub(crate) restorer: u64,
    pub(crate) mask: SigSet,
}

impl Action {
    /// The flags that are kept; a program that asks what is known finds the others gone.
    pub(crate) const KNOWN: u64 = (abi::SA_NOCLDSTOP
        | abi::SA_NOCLDWAIT
        | abi::SA_SIGINFO
        | abi::SA_ONSTACK
        | abi::SA_RESTART
        | abi::SA_NODEFER
        | abi::SA_RESETHAND
        | abi::SA_EXPOSE_TAGBITS
        | abi::SA_RESTORER) as u64;

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & u64::from(flag) != 0
    }

    /// Whether `signal` with this disposition does nothing at all.
    pub(crate) fn ignores(&self, signal: u32) -> bool {
        match self.handler {
            SIG_IGN => true,
            SIG_DFL => default_action(signal) == DefaultAction::Ignore,
            _ => false,
        }
    }
}

/// Signals that wait to be taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    queue: Vec<SigInfo>,
}

impl Pending {
    /// The signals that wait.
    pub(crate) fn set(&self) -> SigSet {
        self.queue
            .iter()
            .fold(SigSet(0), |set, i| set.union(SigSet::of(i.signal)))
    }

    /// Adds one. A standard signal that waits already is not added again; `false` when the queue
    /// of real-time signals is full.
    pub(crate) fn add(&mut self, info: SigInfo) -> bool {
        if info.signal < abi::SIGRTMIN && self.set().contains(info.signal) {
            return true;
        }
        if self.queue.len() >= QUEUE_MAX {
            return false;
        }
        self.queue.push(info);
        true
    }

    /// Adds to what timer `id` missed, if its signal still waits; whether it does.
    pub(crate) fn overrun(&mut self, id: i32, more: u32) -> bool {
        let of_timer =
            |i: &&mut SigInfo| i.code == abi::SI_TIMER && i.fields[0] as u32 == id as u32;
        let Some(info) = self.queue.iter_mut().find(of_timer) else {
            return false;
        };
        let count = ((info.fields[0] >> 32) as u32).saturating_add(more);
        let count = count.min(i32::MAX as u32);
        info.fields[0] = u64::from(id as u32) | u64::from(count) << 32;
        true
    }

    /// Takes the first of `allowed` in the order of delivery.
    pub(crate) fn take(&mut self, allowed: SigSet) -> Option<SigInfo> {
        let signal = self.set().intersect(allowed).first()?;
        let at = self.queue.iter().position(|i| i.signal == signal)?;
        Some(self.queue.remove(at))
    }

    /// Drops every instance of `set`.
    pub(crate) fn discard(&mut self, set: SigSet) {
        self.queue.retain(|i| !set.contains(i.signal));
    }
}

/// What is done about each signal.
#[derive(Clone, Debug)]
pub(crate) struct Actions([Action; SIGNALS as usize]);

impl Default for Actions {
    fn default() -> Self {
        Actions([Action::default(); SIGNALS as usize])
    }
}

impl Actions {
    fn get(&self, signal: u32) -> Action {
        let index = (signal as usize).wrapping_sub(1);
        self.0.get(index).copied().unwrap_or_default()
    }

    fn set(&mut self, signal: u32, action: Action) {
        if let Some(slot) = self.0.get_mut((signal as usize).wrapping_sub(1)) {
            *slot = action;
        }
    }

    /// Ignores every signal of `set`.
    fn ignore(&mut self, set: SigSet) {
        for signal in (1..=SIGNALS).filter(|&s| set.contains(s)) {
            let handler = SIG_IGN;
            self.set(
                signal,
                Action {
                    handler,
                    ..Action::default()
                },
            );
        }
    }

    /// What is left after `exec`: what was caught is as by default, what was ignored stays so.
    fn reset(&mut self) {
        for action in &mut self.0 {
            let handler = if action.handler == SIG_IGN {
                SIG_IGN
            } else {
                SIG_DFL
            };
            *action = Action {
                handler,
                ..Action::default()
            };
        }
    }
}

/// What the threads of a process share.
pub(crate) struct ProcessSignals<P: Platform> {
    /// Shared with other processes after `CLONE_SIGHAND`.
    actions: Arc<Lock<P, Actions, { rank::ACTIONS }>>,
    pub(crate) pending: Pending,
}

impl<P: Platform> Default for ProcessSignals<P> {
    fn default() -> Self {
        ProcessSignals::with(Actions::default())
    }
}

impl<P: Platform> ProcessSignals<P> {
    /// These dispositions, and nothing pending.
    fn with(actions: Actions) -> Self {
        ProcessSignals {
            actions: Arc::new(Lock::<P, _, { rank::ACTIONS }>::new(actions)),
            pending: Pending::default(),
        }
    }

    /// The disposition of `signal`, which is one.
    pub(crate) fn action(&self, signal: u32) -> Action {
        self.actions.lock().get(signal)
    }

    pub(crate) fn set_action(&mut self, signal: u32, action: Action) {
        self.actions.lock().set(signal, action);
    }

    /// Ignores every signal of `set`.
    pub(crate) fn ignore(&mut self, set: SigSet) {
        self.actions.lock().ignore(set);
    }

    /// What a forked child has: the dispositions, nothing pending.
    pub(crate) fn forked(&self) -> ProcessSignals<P> {
        ProcessSignals::with(self.actions.lock().clone())
    }

    /// What a child has that shares the dispositions themselves.
    pub(crate) fn shared(&self) -> ProcessSignals<P> {
        ProcessSignals {
            actions: self.actions.clone(),
            pending: Pending::default(),
        }
    }

    /// Where the dispositions are: the same for those who share them.
    pub(crate) fn place(&self) -> usize {
        Arc::as_ptr(&self.actions).addr()
    }

    /// What is left after `exec`; whoever shared the dispositions keeps them.
    pub(crate) fn reset_for_exec(&mut self) {
        let mut actions = self.actions.lock().clone();
        actions.reset();
        self.actions = Arc::new(Lock::<P, _, { rank::ACTIONS }>::new(actions));
    }

    /// Whether children leave no zombie.
    pub(crate) fn reaps_itself(&self) -> bool {
        let action = self.action(abi::SIGCHLD);
        action.handler == SIG_IGN || action.has(abi::SA_NOCLDWAIT)
    }

    /// Whether `SIGCHLD` is wanted for children that stop.
    pub(crate) fn wants_stops(&self) -> bool {
        !self.action(abi::SIGCHLD).has(abi::SA_NOCLDSTOP)
    }
}

/// What each thread has for itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadSignals {
    pub(crate) mask: SigSet,
    pub(crate) pending: Pending,
    pub(crate) alt_stack: AltStack,
    /// The mask to go back to when the call that changed it for its duration returns.
    pub(crate) saved_mask: Option<SigSet>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_signals_1_to_64_only() {
        assert!(SigSet::of(0).is_empty());
        assert!(SigSet::of(65).is_empty());
        assert!(SigSet::of(64).contains(64));
        let set = SigSet::of(2).union(SigSet::of(17));
        assert_eq!(set.first(), Some(2));
        assert_eq!(set.without(SigSet::of(2)).first(), Some(17));
        assert_eq!(SigSet(0).first(), None);
    }

    #[test]
    fn faults_are_taken_before_lower_signals() {
        let mut pending = Pending::default();
        assert!(pending.add(SigInfo::sent(1, 0, 5, 0)));
        assert!(pending.add(SigInfo::fault(abi::SIGSEGV, 1, 0x1000)));
        let all = SigSet(!0);
        assert_eq!(pending.take(all).map(|i| i.signal), Some(abi::SIGSEGV));
        assert_eq!(pending.take(all).map(|i| i.signal), Some(1));
        assert!(pending.take(all).is_none());
    }

    #[test]
    fn standard_signals_merge_and_real_time_ones_queue_up_to_a_bound() {
        let mut pending = Pending::default();
        assert!(pending.add(SigInfo::sent(10, 0, 1, 0)));
        assert!(pending.add(SigInfo::sent(10, 0, 2, 0)));
        assert!(pending.take(SigSet::of(10)).is_some());
        assert!(pending.take(SigSet::of(10)).is_none());
        for _ in 0..QUEUE_MAX {
            assert!(pending.add(SigInfo::sent(40, 0, 1, 0)));
        }
        assert!(!pending.add(SigInfo::sent(40, 0, 1, 0)));
    }

    #[test]
    fn exec_keeps_what_was_ignored() {
        let mut signals = Actions::default();
        signals.set(
            2,
            Action {
                handler: SIG_IGN,
                ..Action::default()
            },
        );
        signals.set(
            3,
            Action {
                handler: 0x1234,
                flags: 4,
                ..Action::default()
            },
        );
        signals.set(
            0,
            Action {
                handler: 7,
                ..Action::default()
            },
        );
        signals.set(
            65,
            Action {
                handler: 7,
                ..Action::default()
            },
        );
        signals.reset();
        assert_eq!(signals.get(2).handler, SIG_IGN);
        assert_eq!(signals.get(3), Action::default());
        assert_eq!(signals.get(65), Action::default());
    }

    #[test]
    fn the_kernel_record_is_128_bytes() {
        assert_eq!(size_of::<SigInfo>(), 128);
        assert_eq!(size_of::<Action>(), 32);
    }
}
