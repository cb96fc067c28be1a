//! Threads come and go: the first of a space is a new stub, forked from the zygote; the others
//! are cloned inside the stub, by order.

use crate::error::HostedError;
use crate::mailbox::{Call, Report, SLOT_BYTES, Slot, Then, at};
use crate::orders::Decided;
use crate::seat::StubWait;
use crate::space::{Guard, Member, Space};
use crate::stub::{CODE_VA, MAILBOX_FD, SLOT_VA};
use crate::sys;
use crate::zygote::answer;
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The most threads of one space: their slots must fit below what the host puts at the top.
const PLACES: u64 = 2048;

/// A thread that has just come.
pub(crate) struct Attached {
    pub(crate) id: u64,
    pub(crate) slot: Arc<Slot>,
}

impl Space {
    /// Adds a thread to the stub, or makes the stub with its first thread. It is parked, and
    /// confined to processor `cpu`.
    pub(crate) fn attach(&self, cpu: usize) -> Result<Attached, HostedError> {
        let mut st = self.lock();
        let token = self.take_token(&mut st);
        let made = self.make(&mut st, cpu);
        let made = made.and_then(|(slot, tid, place)| {
            if st.closed {
                return Err(HostedError::MachineGone);
            }
            let id = st.next_id;
            st.next_id += 1;
            st.members.push(Member {
                id,
                place,
                slot: slot.clone(),
                tid,
                running: false,
                kicked: false,
                knew: Decided::default(),
            });
            Ok(Attached { id, slot })
        });
        self.give_token(&mut st, token);
        made
    }

    fn make(&self, st: &mut Guard<'_>, cpu: usize) -> Result<(Arc<Slot>, i32, u64), HostedError> {
        let place = (0..PLACES)
            .find(|p| !st.leaving.contains(p) && st.members.iter().all(|m| m.place != *p))
            .ok_or(HostedError::TooManyThreads)?;
        let slot = Arc::new(self.engine.mailbox.slot(SLOT_VA + place * SLOT_BYTES)?);
        slot.set32(at::FSGS, u32::from(self.engine.fsgs));
        let tid = match st.members.is_empty() {
            true => self.make_process(st, &slot)?,
            false => self.make_thread(st, &slot)?,
        };
        sys::pin(tid, &[cpu]);
        Ok((slot, tid, place))
    }

    fn make_process(&self, st: &mut Guard<'_>, slot: &Slot) -> Result<i32, HostedError> {
        let process = MutexGuard::unlocked(st, || {
            let zygote = self.engine.zygote.lock();
            let zygote = zygote.as_ref().ok_or(HostedError::MachineGone)?;
            let process = zygote.fork(slot)?;
            greet(slot, process.pid(), || process.is_dead())?;
            Ok(process)
        })?;
        let tid = process.pid();
        // A pmap that ended meanwhile wants no stub: `process` ends here.
        if !st.closed {
            st.process = Some(process);
        }
        Ok(tid)
    }

    fn make_thread(&self, st: &mut Guard<'_>, slot: &Slot) -> Result<i32, HostedError> {
        let helper = st.parked().ok_or(HostedError::StubDied)?;
        // An order to unmap the slot of a former thread may still be queued for this place.
        if !self.drain(st, helper) {
            return Err(HostedError::StubDied);
        }
        let shared = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
        let offset = slot.file_offset();
        let map = Call::new(
            libc::SYS_mmap,
            [slot.va(), SLOT_BYTES, 3, shared, MAILBOX_FD, offset],
        );
        let flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM;
        // The sixth argument is the stub's own: the new thread finds its slot by it.
        let clone = Call::new(
            libc::SYS_clone,
            [flags as u64, slot.va() + at::SCRATCH, 0, 0, 0, slot.va()],
        );
        let epoch = st.epoch;
        let raw = self
            .carry_out(st, helper, &[map, clone])
            .ok_or(HostedError::StubDied)?;
        let tid = answer(raw).map_err(HostedError::Process)? as i32;
        MutexGuard::unlocked(st, || match slot.wait(|| self.is_over(epoch)) {
            Report::Trapped => greet(slot, tid, || self.is_over(epoch)),
            Report::Gone => Err(HostedError::StubDied),
        })?;
        match st.epoch == epoch {
            true => Ok(tid),
            false => Err(HostedError::StubDied),
        }
    }

    /// Has `other`, which has no stub, take over the stub with its only thread `id`, which is
    /// parked; gives its number there. Nothing of this space is left in the stub when the thread
    /// goes on. `None`, and nothing has changed, where that cannot be.
    pub(crate) fn hand_over(&self, id: u64, other: &Space) -> Option<u64> {
        if std::ptr::eq(self, other) {
            return None;
        }
        let mut st = self.lock();
        st.settle();
        let alone = st.members.len() == 1 && st.member(id).is_some();
        // A slot that is still to be unmapped would stay.
        let clean = st.leaving.is_empty() && !st.queue.reaches(CODE_VA >> 12);
        if !alone || !clean || st.is_executing() || st.process.is_none() {
            return None;
        }
        // Nobody takes the two the other way round: a space without a stub hands nothing over.
        let mut to = other.lock();
        if to.closed || to.process.is_some() || !to.members.is_empty() || to.is_executing() {
            return None;
        }
        to.process = st.bury();
        let number = to.next_id;
        to.next_id += 1;
        to.members = std::mem::take(&mut st.members);
        for member in &mut to.members {
            member.id = number;
            member.kicked = false;
            member.knew = Decided::default();
        }
        other.drop_mappings(&mut to);
        self.notify_all();
        Some(number)
    }

    /// Ends parked thread `id`, and the stub with its last thread.
    pub(crate) fn detach(&self, id: u64) {
        let mut st = self.lock();
        // Somebody may be carrying out orders by way of this thread.
        st.settle();
        while st.is_executing() && st.member(id).is_some() {
            self.pause(&mut st);
        }
        let Some(me) = st.member(id) else { return };
        if st.members.len() == 1 {
            return self.lost(&mut st);
        }
        let epoch = st.epoch;
        let member = st.members.remove(me);
        let (slot, tid, place) = (member.slot, member.tid, member.place);
        // Its place is free when the order to unmap its slot is queued, and not earlier.
        st.leaving.push(place);
        MutexGuard::unlocked(&mut st, || {
            slot.put(0, Call::new(libc::SYS_exit, [0; 6]));
            slot.command(tid, 1, Then::Report, StubWait::SLEEP);
            let word = slot.u32(at::TID);
            while word.load(Ordering::SeqCst) == tid as u32 {
                let late = sys::futex_wait(word, tid as u32, Some(100_000_000));
                if late && self.is_over(epoch) {
                    break;
                }
            }
        });
        if st.epoch == epoch {
            st.leaving.retain(|p| *p != place);
            st.queue.push(crate::orders::Order::Unmap {
                page: slot.va() >> 12,
                pages: SLOT_BYTES >> 12,
            });
        }
    }
}

/// Makes a new stub thread known to the host: its death marks the slot's word, its end clears
/// its number.
fn greet(slot: &Slot, tid: i32, dead: impl Fn() -> bool) -> Result<(), HostedError> {
    slot.set32(at::TID, tid as u32);
    let robust = [slot.va() + at::ROBUST, 24, 0, 0, 0, 0];
    slot.put(0, Call::new(libc::SYS_set_robust_list, robust));
    let number = [slot.va() + at::TID, 0, 0, 0, 0, 0];
    slot.put(1, Call::new(libc::SYS_set_tid_address, number));
    slot.command(tid, 2, Then::Report, StubWait::SLEEP);
    match slot.wait(dead) {
        Report::Trapped if slot.get32(at::COUNT) == 0 => Ok(()),
        Report::Trapped => Err(HostedError::Stub(
            "set_robust_list",
            answer(slot.result(0))
                .err()
                .unwrap_or_else(std::io::Error::last_os_error),
        )),
        Report::Gone => Err(HostedError::StubDied),
    }
}
