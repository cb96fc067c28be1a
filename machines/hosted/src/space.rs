//! A space: the table of a pmap, the queue of orders, and the stub threads that carry them out.
//!
//! One lock guards all of it. What it promises:
//!
//! * orders are decided (table changed, order queued) under the lock and carried out in that
//!   order, by one executor at a time: `executing` is the executor's token;
//! * a guest thread is marked running only while the queue is empty and no executor is at work,
//!   or together with the last orders, which it carries out itself on its way (`in_flight`);
//! * so, while no thread runs, what is queued cannot be seen by a guest, and a flush is done.
//!
//! The lock is never held while waiting for a stub.

use crate::engine::Engine;
use crate::mailbox::{BATCH, Report, Slot, Then};
use crate::orders::{Decided, Order, Queue};
use crate::seat::StubWait;
use crate::stub::KICK_SIGNAL;
use crate::sys::{self, Process};
use crate::table::Table;
use bsdvm_machine::VirtRange;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;

/// More orders than this are not worth carrying out one by one when nobody runs.
const LONG_QUEUE: usize = 4096;
/// How long a waiter sleeps before it looks (and kicks) again. Wake-ups come earlier.
const PATIENCE: Duration = Duration::from_millis(20);
/// The same, while a thread carries out orders on its way into the guest and tells nobody.
const SHORT_PATIENCE: Duration = Duration::from_micros(100);

/// A stub thread of a space.
pub(crate) struct Member {
    /// Never used again in the space.
    pub(crate) id: u64,
    /// Its slot's place among those of the space.
    pub(crate) place: u64,
    pub(crate) slot: Arc<Slot>,
    pub(crate) tid: i32,
    pub(crate) running: bool,
    pub(crate) kicked: bool,
    /// The latest decision when it went into the guest last.
    pub(crate) knew: Decided,
}

/// What the lock of a space guards.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) table: Table,
    pub(crate) queue: Queue,
    /// `None`: no stub; then nothing is mapped anywhere and no order is queued.
    pub(crate) process: Option<Process>,
    pub(crate) members: Vec<Member>,
    /// Places of threads that are ending: their slots are still mapped in the stub.
    pub(crate) leaving: Vec<u64>,
    pub(crate) next_id: u64,
    pub(crate) running: usize,
    /// The pmap is gone: no stub will come again.
    pub(crate) closed: bool,
    /// Counts the stubs that the space has had: whoever let go of the lock meanwhile sees by it
    /// whether its stub is still the space's.
    pub(crate) epoch: u64,
    executing: bool,
    /// The last of the orders that a thread carries out on its way into the guest, and the thread.
    in_flight: Option<(Decided, u64)>,
    /// Threads that need a parked stub thread.
    wanted: usize,
    /// Threads that sleep on `changed`.
    sleepers: usize,
    /// Host mappings, at most.
    estimate: usize,
    /// Orders that the host has refused, ever.
    pub(crate) refusals: u64,
}

/// A space; see the module.
pub(crate) struct Space {
    pub(crate) engine: Arc<Engine>,
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").finish_non_exhaustive()
    }
}

pub(crate) type Guard<'a> = MutexGuard<'a, State>;

/// The right to carry out orders of a space, for the stub of one epoch.
#[must_use]
pub(crate) struct Token(u64);

/// How an attempt to run a guest thread began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begun {
    Running,
    Kicked,
    Gone,
}

/// How a run of a guest thread ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Trapped,
    /// An order failed before the guest ran; it is mended, try again.
    NotResumed,
    Gone,
}

impl State {
    /// Whether an executor is at work.
    pub(crate) fn is_executing(&self) -> bool {
        self.executing
    }

    /// The index of member `id`.
    pub(crate) fn member(&self, id: u64) -> Option<usize> {
        self.members.iter().position(|m| m.id == id)
    }

    /// The index of a thread that can carry out orders.
    pub(crate) fn parked(&self) -> Option<usize> {
        self.members.iter().position(|m| !m.running)
    }

    fn token(&mut self) -> Token {
        self.executing = true;
        Token(self.epoch)
    }

    /// Kicks one running thread.
    fn kick_one(&self) {
        if let (Some(p), Some(m)) = (&self.process, self.members.iter().find(|m| m.running)) {
            p.signal_thread(m.tid, KICK_SIGNAL);
        }
    }

    /// Notices that a thread has carried out what it was given on its way.
    pub(crate) fn settle(&mut self) {
        if let Some((last, id)) = self.in_flight
            && let Some(me) = self.member(id)
            && self.members[me].slot.get32(crate::mailbox::at::COUNT) == 0
        {
            self.in_flight = None;
            self.executing = false;
            self.queue.complete(last);
        }
    }

    /// The stub process is dead: nothing is mapped, nobody runs.
    pub(crate) fn bury(&mut self) -> Option<Process> {
        self.epoch += 1;
        self.running = 0;
        self.executing = false;
        self.in_flight = None;
        self.estimate = 0;
        self.leaving.clear();
        self.table.forget_host();
        self.queue.abandon();
        self.process.take()
    }
}

impl Space {
    /// An empty space without a stub.
    pub(crate) fn new(engine: Arc<Engine>) -> Arc<Space> {
        Arc::new(Space {
            engine,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Takes the lock.
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.state.lock()
    }

    /// Queues an order that has just been decided. Keeps the stub below its budget of mappings
    /// and the queue short, by dropping every mapping if need be: the table still has them, and
    /// the stub faults for what it uses.
    pub(crate) fn order(&self, st: &mut State, order: Order) -> Option<Decided> {
        st.process.as_ref()?;
        let decided = st.queue.push(order);
        st.estimate += 1;
        if st.estimate > self.engine.budget {
            st.estimate = st.table.host_mappings();
            if st.estimate > self.engine.budget / 2 {
                return Some(self.drop_mappings(st));
            }
        }
        if st.queue.len() > LONG_QUEUE {
            return Some(self.drop_mappings(st));
        }
        Some(decided)
    }

    /// Makes room for one more mapping, to be ordered next, so that it is not dropped at once.
    pub(crate) fn make_room(&self, st: &mut State) {
        if st.estimate + 1 > self.engine.budget {
            st.estimate = st.table.host_mappings();
            if st.estimate > self.engine.budget / 2 {
                self.drop_mappings(st);
            }
        }
    }

    /// The host has refused an order: most likely it has no mapping left to give.
    fn refused(&self, st: &mut State) {
        st.refusals += 1;
        self.drop_mappings(st);
    }

    /// Has the stub drop all that it has mapped. What is queued is void by that.
    pub(crate) fn drop_mappings(&self, st: &mut State) -> Decided {
        st.table.forget_host();
        st.queue.supersede();
        st.estimate = 0;
        let mut last = Decided::default();
        for part in self.engine.parts(self.engine.user) {
            last = st.queue.push(unmap(part));
        }
        last
    }

    /// Sleeps while an executor is at work, or less.
    pub(crate) fn pause(&self, st: &mut Guard<'_>) {
        if st.in_flight.is_some() {
            // A matter of microseconds, and nobody will tell.
            MutexGuard::unlocked(st, std::thread::yield_now);
            st.settle();
        }
        match st.in_flight {
            Some(_) => self.sleep(st, SHORT_PATIENCE),
            None if st.executing => self.sleep(st, PATIENCE),
            None => {}
        }
    }

    fn sleep(&self, st: &mut Guard<'_>, patience: Duration) {
        st.sleepers += 1;
        self.changed.wait_for(st, patience);
        st.sleepers -= 1;
    }

    /// Wakes everybody who waits for something here.
    pub(crate) fn notify_all(&self) {
        self.changed.notify_all();
    }

    fn notify(&self, st: &State) {
        if st.sleepers > 0 {
            self.changed.notify_all();
        }
    }

    /// Takes the executor's token, with a parked thread there to use or no stub at all.
    pub(crate) fn take_token(&self, st: &mut Guard<'_>) -> Token {
        loop {
            st.settle();
            if !st.executing && (st.members.is_empty() || st.parked().is_some()) {
                return st.token();
            }
            st.wanted += 1;
            if st.executing {
                self.pause(st);
            } else {
                st.kick_one();
                self.sleep(st, PATIENCE);
            }
            st.wanted -= 1;
        }
    }

    /// Gives the executor's token back.
    pub(crate) fn give_token(&self, st: &mut Guard<'_>, token: Token) {
        if st.epoch == token.0 {
            st.executing = false;
        }
        self.notify(st);
    }

    /// Carries out `calls` on thread `index`, apart from the queue. The caller has the token.
    /// Gives the last answer, or `None` if the stub died.
    pub(crate) fn carry_out(
        &self,
        st: &mut Guard<'_>,
        index: usize,
        calls: &[crate::mailbox::Call],
    ) -> Option<i64> {
        let (slot, tid) = (st.members[index].slot.clone(), st.members[index].tid);
        for (i, call) in calls.iter().enumerate() {
            slot.put(i, *call);
        }
        if !self.perform(st, &slot, tid, calls.len()) {
            return None;
        }
        let left = slot.get32(crate::mailbox::at::COUNT) as usize;
        Some(slot.result(calls.len().saturating_sub(left.max(1)).min(BATCH - 1)))
    }

    /// Has thread `tid` carry out the first `count` orders of its slot. `false` if the stub died.
    fn perform(&self, st: &mut Guard<'_>, slot: &Slot, tid: i32, count: usize) -> bool {
        let epoch = st.epoch;
        let report = MutexGuard::unlocked(st, || {
            slot.command(tid, count, Then::Report, StubWait::SLEEP);
            slot.wait(|| self.is_over(epoch))
        });
        if report == Report::Gone && st.epoch == epoch {
            self.lost(st);
        }
        st.epoch == epoch
    }

    /// Empties the queue by way of thread `index`. The caller has the token. `false` if the stub
    /// died.
    pub(crate) fn drain(&self, st: &mut Guard<'_>, index: usize) -> bool {
        let (slot, tid) = (st.members[index].slot.clone(), st.members[index].tid);
        let mut failures = 0;
        while !st.queue.is_empty() {
            let (count, last) = st.queue.give(&slot);
            if !self.perform(st, &slot, tid, count) {
                return false;
            }
            if slot.get32(crate::mailbox::at::COUNT) == 0 {
                st.queue.complete(last);
                failures = 0;
            } else if failures < 2 {
                failures += 1;
                self.refused(st);
            } else {
                // Whatever it refuses, a guest must not run on mappings that we do not know.
                self.lost(st);
                return false;
            }
        }
        true
    }

    /// The stub is dead, or must be.
    pub(crate) fn lost(&self, st: &mut Guard<'_>) {
        let process = st.bury();
        let members = std::mem::take(&mut st.members);
        self.changed.notify_all();
        MutexGuard::unlocked(st, || {
            drop(process); // killed and reaped before its slots are free
            drop(members);
        });
    }

    /// Whether the stub of `epoch` has ended.
    pub(crate) fn is_over(&self, epoch: u64) -> bool {
        let st = self.lock();
        st.epoch != epoch || st.process.as_ref().is_none_or(Process::is_dead)
    }

    /// Waits until thread `id`, which runs, has trapped. `meanwhile` is called now and then.
    pub(crate) fn await_trap(&self, id: u64, slot: &Slot, meanwhile: impl Fn()) -> Report {
        slot.wait(|| {
            meanwhile();
            let st = self.lock();
            st.member(id).is_none() || st.process.as_ref().is_none_or(Process::is_dead)
        })
    }

    /// Sends thread `id` into the guest, after all that is queued. At its next trap the stub waits
    /// as `wait` says.
    pub(crate) fn begin(&self, id: u64, wait: StubWait) -> Begun {
        let mut st = self.lock();
        loop {
            st.settle();
            let Some(me) = st.member(id) else {
                return Begun::Gone;
            };
            if std::mem::take(&mut st.members[me].kicked) {
                return Begun::Kicked;
            }
            if st.executing {
                self.pause(&mut st);
                continue;
            }
            if st.wanted > 0 {
                self.sleep(&mut st, PATIENCE);
                continue;
            }
            if st.queue.len() <= BATCH {
                self.resume(&mut st, me, wait);
                return Begun::Running;
            }
            let token = st.token();
            let alive = self.drain(&mut st, me);
            self.give_token(&mut st, token);
            if !alive {
                return Begun::Gone;
            }
        }
    }

    fn resume(&self, st: &mut State, me: usize, wait: StubWait) {
        let slot = st.members[me].slot.clone();
        let mut count = 0;
        if !st.queue.is_empty() {
            let last;
            (count, last) = st.queue.give(&slot);
            st.in_flight = Some((last, st.members[me].id));
            st.executing = true;
        }
        st.running += 1;
        st.members[me].running = true;
        st.members[me].knew = st.queue.latest();
        slot.command(st.members[me].tid, count, Then::Resume, wait);
    }

    /// Thread `id` has trapped (or died, by `report`).
    pub(crate) fn end(&self, id: u64, report: Report) -> Ended {
        let mut st = self.lock();
        let Some(me) = st.member(id) else {
            return Ended::Gone;
        };
        if report == Report::Gone {
            self.lost(&mut st);
            return Ended::Gone;
        }
        st.settle();
        st.running -= 1;
        st.members[me].running = false;
        let failed = st.in_flight.is_some_and(|(_, thread)| thread == id);
        if failed {
            st.in_flight = None;
            st.executing = false;
            self.refused(&mut st);
        }
        self.notify(&st);
        if failed {
            Ended::NotResumed
        } else {
            Ended::Trapped
        }
    }

    /// Waits until no guest code can use what order `decided` took away.
    pub(crate) fn wait_for(&self, decided: Decided) {
        let mut st = self.lock();
        loop {
            st.settle();
            if st.running == 0 || st.queue.is_done(decided) {
                return;
            }
            if st.executing {
                self.pause(&mut st);
            } else if let Some(parked) = st.parked() {
                let token = st.token();
                self.drain(&mut st, parked);
                self.give_token(&mut st, token);
            } else {
                st.kick_one();
                self.sleep(&mut st, PATIENCE);
            }
        }
    }

    /// Whether no guest code can use what order `decided` took away.
    pub(crate) fn is_flushed(&self, decided: Decided) -> bool {
        let mut st = self.lock();
        st.settle();
        st.running == 0 || st.queue.is_done(decided)
    }

    /// The host's numbers of member `id`: process and thread.
    pub(crate) fn place_of(&self, id: u64) -> Option<(i32, i32)> {
        let st = self.state.lock();
        let member = &st.members[st.member(id)?];
        Some((st.process.as_ref()?.pid(), member.tid))
    }

    /// Confines the stub's thread of member `id` to the processor at `place`.
    pub(crate) fn pin(&self, id: u64, place: usize) {
        if let Some((_, tid)) = self.place_of(id) {
            sys::pin(tid, &[self.engine.cpus[place].number()]);
        }
    }

    /// Makes the next (or the present) run of thread `id` end.
    pub(crate) fn kick(&self, id: u64) {
        let mut st = self.lock();
        if let Some(i) = st.member(id) {
            st.members[i].kicked = true;
            if st.members[i].running
                && let Some(p) = &st.process
            {
                p.signal_thread(st.members[i].tid, KICK_SIGNAL);
            }
        }
    }
}

/// The order that unmaps `range`.
pub(crate) fn unmap(range: VirtRange) -> Order {
    Order::Unmap {
        page: range.start().0 >> 12,
        pages: range.len() >> 12,
    }
}
