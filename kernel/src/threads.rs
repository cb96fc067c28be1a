//! The kernel's threads: each has a stack and gives way only where it sleeps or says so.
//!
//! There is no idle thread: a thread that goes to sleep while nobody is ready waits, on its own
//! stack, until somebody is.

use crate::locks::SpinLock;
use crate::stack::{NoStack, Stack};
use crate::{clock, heap, link};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm_machine::{Channel, Locks, Ticket, Wait};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use x86_64::instructions::interrupts;

use crate::machine::Bare;

/// How many threads there may be: the lists have room for as many from the start, as threads are
/// woken where nothing can be allocated.
const MOST: usize = 1000;
/// How often the waiting loop looks before it halts until the next tick.
const PATIENCE: u32 = 2_000;

unsafe extern "C" {
    fn switch_stacks(from: *mut u64, to: u64);
}

/// What a thread runs.
type Body = Box<dyn FnOnce() + Send>;

/// A thread. The first one has the stack of the boot code.
struct Thread {
    /// Kept as long as the thread.
    _stack: Option<Stack>,
    /// The stack pointer while it does not run.
    pointer: UnsafeCell<u64>,
    body: SpinLock<Option<Body>>,
    /// Nanoseconds that it ran, up to the last time it gave way.
    ran: AtomicU64,
}

// SAFETY: the stack pointer is touched by the switch only, on the one processor.
unsafe impl Sync for Thread {}
// SAFETY: as above.
unsafe impl Send for Thread {}

struct Sleeper {
    thread: Arc<Thread>,
    bucket: usize,
    deadline: Option<u64>,
}

struct Threads {
    current: Option<Arc<Thread>>,
    ready: VecDeque<Arc<Thread>>,
    sleepers: Vec<Sleeper>,
    /// The one that ended last: its stack goes when another one runs.
    ended: Option<Arc<Thread>>,
    /// When the current one began to run.
    since: u64,
}

static THREADS: SpinLock<Threads> = SpinLock::new(Threads {
    current: None,
    ready: VecDeque::new(),
    sleepers: Vec::new(),
    ended: None,
    since: 0,
});

/// Makes a thread of whoever calls, once, at boot.
pub(crate) fn init() {
    let first = Thread {
        _stack: None,
        pointer: UnsafeCell::new(0),
        body: SpinLock::new(None),
        ran: AtomicU64::new(0),
    };
    let first = Arc::new(first);
    let (ready, sleepers) = (
        VecDeque::with_capacity(MOST + 1),
        Vec::with_capacity(MOST + 1),
    );
    let mut threads = THREADS.lock();
    threads.current = Some(first);
    threads.ready = ready;
    threads.sleepers = sleepers;
}

/// There are too many threads already, or there is no memory for a stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoThread;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Runs `body` on a new thread, some time after this one gave way.
pub(crate) fn spawn(body: Body) -> Result<(), NoThread> {
    if COUNT.load(Ordering::Relaxed) >= MOST {
        return Err(NoThread);
    }
    let stack = Stack::new().map_err(|NoStack| NoThread)?;
    COUNT.fetch_add(1, Ordering::Relaxed);
    // What `switch_stacks` takes off: six registers and where to go on.
    // SAFETY: words of the stack, which nobody runs on yet.
    let pointer = unsafe {
        let place = stack.top().sub(1);
        place.sub(6).write_bytes(0, 6);
        place.write(begin as *const () as u64);
        place.sub(6).addr().get() as u64
    };
    let thread = Thread {
        _stack: Some(stack),
        pointer: UnsafeCell::new(pointer),
        body: SpinLock::new(Some(body)),
        ran: AtomicU64::new(0),
    };
    let thread = Arc::new(thread);
    THREADS.lock().ready.push_back(thread);
    Ok(())
}

/// Where a new thread begins.
extern "C" fn begin() -> ! {
    settle();
    let body = current().body.lock().take();
    if let Some(body) = body {
        body();
    }
    end()
}

fn current() -> Arc<Thread> {
    let current = THREADS.lock().current.clone();
    current.unwrap_or_else(|| panic!("no thread runs"))
}

/// What the thread that goes on does for the one that gave way.
fn settle() {
    let ended = THREADS.lock().ended.take();
    drop(ended);
}

fn end() -> ! {
    COUNT.fetch_sub(1, Ordering::Relaxed);
    let own = current();
    THREADS.lock().ended = Some(own.clone());
    // The list holds it until it no longer needs its stack.
    drop(own);
    let next = wait_for_ready();
    switch_to(next);
    unreachable!("a thread that ended goes on")
}

/// Lets others run that are ready.
pub(crate) fn give_way() {
    Bare::assert_none_held();
    let next = {
        let mut threads = THREADS.lock();
        let Some(next) = threads.ready.pop_front() else {
            return;
        };
        let own = threads.current.clone();
        threads.ready.extend(own);
        next
    };
    switch_to(next);
}

/// Lets others run, or waits a little when there is nobody: for those who look again and again.
/// `looks` counts how often they have.
pub(crate) fn rest(looks: &mut u32) {
    Bare::assert_none_held();
    expire();
    if THREADS.lock().ready.is_empty() {
        wait_a_little(looks);
    } else {
        give_way();
    }
}

/// Spins at first, for what comes at once, and then until the next tick.
fn wait_a_little(looks: &mut u32) {
    *looks += 1;
    if *looks < PATIENCE {
        core::hint::spin_loop();
    } else if *looks == PATIENCE {
        heap::tidy_idle();
    } else {
        interrupts::enable_and_hlt();
        interrupts::disable();
    }
}

/// Goes on as `next`.
fn switch_to(next: Arc<Thread>) {
    let (from, to) = {
        let mut threads = THREADS.lock();
        let now = clock::now();
        let ran = now.saturating_sub(threads.since);
        threads.since = now;
        let Some(own) = threads.current.replace(next.clone()) else {
            panic!("no thread runs");
        };
        own.ran.fetch_add(ran, Ordering::Relaxed);
        if Arc::ptr_eq(&own, &next) {
            return;
        }
        // Both live: the next one is current now, and this one is in a list.
        (own.pointer.get(), next.pointer.get())
    };
    drop(next);
    // SAFETY: the next thread's pointer is where its own switch, or `spawn`, left it.
    unsafe { switch_stacks(from, to.read()) };
    settle();
}

/// The next thread that can run, waited for.
fn wait_for_ready() -> Arc<Thread> {
    let mut looks = 0;
    loop {
        link::attend();
        expire();
        if let Some(next) = THREADS.lock().ready.pop_front() {
            return next;
        }
        wait_a_little(&mut looks);
    }
}

/// Wakes those whose deadline has passed.
pub(crate) fn expire() {
    let mut threads = THREADS.lock();
    if threads.sleepers.iter().all(|s| s.deadline.is_none()) {
        return;
    }
    let now = clock::now();
    wake_those(&mut threads, |s| s.deadline.is_some_and(|d| d <= now));
}

fn wake_those(threads: &mut Threads, which: impl Fn(&Sleeper) -> bool) {
    let mut i = 0;
    while i < threads.sleepers.len() {
        if which(&threads.sleepers[i]) {
            let sleeper = threads.sleepers.swap_remove(i);
            threads.ready.push_back(sleeper.thread);
        } else {
            i += 1;
        }
    }
}

/// Nanoseconds that the calling thread has run.
pub(crate) fn time_used() -> u64 {
    let threads = THREADS.lock();
    let before = threads
        .current
        .as_ref()
        .map_or(0, |t| t.ran.load(Ordering::Relaxed));
    before + clock::now().saturating_sub(threads.since)
}

/// Channels, hashed: a wake-up raises the number of its bucket. Two channels in one bucket cost
/// each other a needless wake-up, never a lost one.
const BUCKETS: usize = 256;
static GENERATIONS: [AtomicU64; BUCKETS] = [const { AtomicU64::new(0) }; BUCKETS];

fn bucket(channel: Channel) -> usize {
    (channel.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % BUCKETS
}

impl Wait for Bare {
    fn ticket(&self, channel: Channel) -> Ticket {
        Ticket(GENERATIONS[bucket(channel)].load(Ordering::Relaxed))
    }

    fn sleep(&self, channel: Channel, ticket: Ticket, deadline: Option<u64>) {
        Bare::assert_none_held();
        let bucket = bucket(channel);
        // Nothing runs between this look and the entry in the list.
        let late = deadline.is_some_and(|d| d <= clock::now());
        if late || GENERATIONS[bucket].load(Ordering::Relaxed) != ticket.0 {
            return;
        }
        let thread = current();
        THREADS.lock().sleepers.push(Sleeper {
            thread,
            bucket,
            deadline,
        });
        let next = wait_for_ready();
        switch_to(next);
    }

    fn wake(&self, channel: Channel) {
        let bucket = bucket(channel);
        GENERATIONS[bucket].fetch_add(1, Ordering::Relaxed);
        let mut threads = THREADS.lock();
        wake_those(&mut threads, |s| s.bucket == bucket);
    }
}
