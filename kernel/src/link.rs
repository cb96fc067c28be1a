//! The link to the runner on the host: messages on a virtio serial port.
//!
//! A thread that asks lets others run until its answer is there. Whoever waits for something, and
//! the timer between two runs of programs, attends to what comes in.

use crate::locks::SpinLock;
use crate::machine::Bare;
use crate::port::Port;
use crate::threads;
use crate::virtio;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bsdvm_link::{Act, Answer, Ask, Inbox, Request, ToKernel, encode};
use bsdvm_machine::{Channel, Wait};
use core::sync::atomic::{AtomicBool, Ordering};
use virtio_drivers::transport::DeviceType;

/// What is woken when something comes in for those that watch files.
pub(crate) const WATCHERS: Channel = Channel(0xf1 << 56);

/// A question that is answered when one of the bits is on for a standard file.
struct Watch {
    tag: u32,
    file: u8,
    bits: u16,
}

struct Link {
    port: Port,
    inbox: Inbox,
    next_tag: u32,
    /// Answers that nobody took yet.
    answers: BTreeMap<u32, Answer>,
    /// The watches that are under way.
    watches: Vec<Watch>,
    /// Signals that were not passed on yet.
    signals: Vec<u32>,
}

static LINK: SpinLock<Option<Link>> = SpinLock::new(None);
/// Signals wait to be passed on.
static SIGNALLED: AtomicBool = AtomicBool::new(false);

/// Finds the port.
///
/// Panics when there is none.
pub(crate) fn init() {
    let Some(transport) = virtio::find(DeviceType::Console) else {
        panic!("no virtio serial device: the kernel is started by `bsdvm run --machine qemu`");
    };
    let port = match Port::open(transport) {
        Ok(port) => port,
        Err(e) => panic!("the virtio serial device does not work: {e}"),
    };
    *LINK.lock() = Some(Link {
        port,
        inbox: Inbox::new(),
        next_tag: 1,
        answers: BTreeMap::new(),
        watches: Vec::new(),
        signals: Vec::new(),
    });
}

impl Link {
    fn send(&mut self, request: &Request) {
        if let Err(e) = self.port.send(&encode(request)) {
            panic!("the link refuses what is sent: {e}");
        }
    }

    fn tag(&mut self) -> u32 {
        let tag = self.next_tag;
        self.next_tag = tag.checked_add(1).unwrap_or(1);
        tag
    }

    /// Takes in what is there. Whether somebody who watches is to look.
    fn receive(&mut self) -> bool {
        let piece = match self.port.receive() {
            Ok(Some(piece)) if piece.is_empty() => return false,
            Ok(Some(piece)) => piece,
            Ok(None) => panic!("the runner is gone"),
            Err(e) => panic!("the link does not work: {e}"),
        };
        self.inbox.add(&piece);
        let mut news = false;
        loop {
            match self.inbox.take() {
                Ok(Some(message)) => news |= self.sort(message),
                Ok(None) => return news,
                Err(e) => panic!("the runner sends nonsense: {e:?}"),
            }
        }
    }

    fn sort(&mut self, message: ToKernel) -> bool {
        match message {
            ToKernel::Signal(number) => {
                self.signals.push(number);
                SIGNALLED.store(true, Ordering::Relaxed);
                false
            }
            ToKernel::Answer(tag, answer) => {
                let watch = self.watches.iter().position(|watch| watch.tag == tag);
                match watch {
                    Some(i) => drop(self.watches.swap_remove(i)),
                    None => drop(self.answers.insert(tag, answer)),
                }
                watch.is_some()
            }
        }
    }
}

fn with<R>(body: impl FnOnce(&mut Link) -> R) -> R {
    match LINK.lock().as_mut() {
        Some(link) => body(link),
        None => panic!("the link is used before it is there"),
    }
}

/// Takes in what came over the link, and wakes whom it concerns.
pub(crate) fn attend() {
    let news = match LINK.lock().as_mut() {
        Some(link) => link.receive(),
        None => false,
    };
    if news {
        Bare.wake(WATCHERS);
    }
    if SIGNALLED.swap(false, Ordering::Relaxed) {
        let signals = with(|link| core::mem::take(&mut link.signals));
        for number in signals {
            if crate::run::signal(number) {
                tell(Ask::Signalled);
            } else {
                // Nobody is there yet who could get it.
                with(|link| link.signals.push(number));
                SIGNALLED.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Asks, and waits for the answer. No lock may be held.
pub(crate) fn ask(ask: Ask) -> Answer {
    let tag = with(|link| {
        let tag = link.tag();
        link.send(&Request { tag, ask });
        tag
    });
    let mut looks = 0;
    loop {
        attend();
        if let Some(answer) = with(|link| link.answers.remove(&tag)) {
            return answer;
        }
        threads::rest(&mut looks);
    }
}

/// Says something that has no answer.
pub(crate) fn tell(ask: Ask) {
    with(|link| link.send(&Request { tag: 0, ask }));
}

/// Has [`WATCHERS`] woken when one of `bits` is on for a standard file.
pub(crate) fn watch(file: u8, bits: u16) {
    with(|link| {
        let same = |w: &Watch| w.file == file && w.bits & bits == bits;
        if link.watches.iter().any(same) {
            return;
        }
        let tag = link.tag();
        link.watches.push(Watch { tag, file, bits });
        let act = Act::Watch(bits);
        link.send(&Request {
            tag,
            ask: Ask::File { file, act },
        });
    });
}
