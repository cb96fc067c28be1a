//! Queues of messages with types.

use super::{Perm, Table};
use crate::platform::Platform;
use crate::{Lock, rank};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `MSGMNI`.
const QUEUES: u32 = 32_000;
/// `MSGMAX`.
const LONGEST: u64 = 8192;
/// `MSGMNB`.
const IN_A_QUEUE: u64 = 16_384;

/// A message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) kind: i64,
    pub(crate) text: Vec<u8>,
}

/// A queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) messages: VecDeque<Message>,
    pub(crate) bytes: u64,
    pub(crate) most: u64,
    pub(crate) sent_at: u64,
    pub(crate) received_at: u64,
    pub(crate) changed_at: u64,
    pub(crate) sender: u32,
    pub(crate) receiver: u32,
}

/// `struct msqid64_ds`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct QueueStat {
    pub(crate) perm: Perm,
    pub(crate) sent_at: u64,
    pub(crate) received_at: u64,
    pub(crate) changed_at: u64,
    pub(crate) bytes: u64,
    pub(crate) count: u64,
    pub(crate) most: u64,
    pub(crate) sender: u32,
    pub(crate) receiver: u32,
    pub(crate) unused: [u64; 2],
}

/// Which message is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    Any,
    Kind(i64),
    Not(i64),
    /// The lowest type up to this.
    UpTo(i64),
    /// The one at this place, which stays there.
    Copy(i64),
}

impl Queue {
    /// Whether a message of so many bytes fits.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        bytes + self.bytes <= self.most && (self.messages.len() as u64) < self.most
    }

    /// Where the wanted message is.
    pub(crate) fn find(&self, wanted: Wanted) -> Option<usize> {
        let position = |is: &dyn Fn(i64) -> bool| self.messages.iter().position(|m| is(m.kind));
        match wanted {
            Wanted::Any => position(&|_| true),
            Wanted::Kind(kind) => position(&|k| k == kind),
            Wanted::Not(kind) => position(&|k| k != kind),
            Wanted::UpTo(most) => {
                let kinds = self.messages.iter().map(|m| m.kind);
                let lowest = kinds.filter(|&k| k <= most).min()?;
                position(&|k| k == lowest)
            }
            Wanted::Copy(place) => {
                let place = usize::try_from(place).ok()?;
                (place < self.messages.len()).then_some(place)
            }
        }
    }
}

/// Every queue, and what is allowed of one.
pub(crate) struct Queues<P: Platform> {
    pub(crate) table: Lock<P, Table<Queue>, { rank::IPC }>,
    /// `/proc/sys/kernel/msgmax`.
    pub(crate) longest: AtomicU64,
    /// `/proc/sys/kernel/msgmnb`.
    pub(crate) in_a_queue: AtomicU64,
    /// `/proc/sys/kernel/msgmni`.
    pub(crate) most: AtomicU32,
}

impl<P: Platform> Queues<P> {
    pub(crate) fn new() -> Self {
        Queues {
            table: Lock::<P, _, { rank::IPC }>::new(Table::new(QUEUES)),
            longest: AtomicU64::new(LONGEST),
            in_a_queue: AtomicU64::new(IN_A_QUEUE),
            most: AtomicU32::new(QUEUES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_by_type() {
        let kinds = [5, 2, 9, 2];
        let queue = Queue {
            messages: kinds
                .map(|kind| Message {
                    kind,
                    text: Vec::new(),
                })
                .into(),
            ..Queue::default()
        };
        let cases = [
            (Wanted::Any, Some(0)),
            (Wanted::Kind(2), Some(1)),
            (Wanted::Kind(3), None),
            (Wanted::Not(5), Some(1)),
            (Wanted::UpTo(8), Some(1)),
            (Wanted::UpTo(1), None),
            (Wanted::Copy(3), Some(3)),
            (Wanted::Copy(4), None),
        ];
        for (wanted, place) in cases {
            assert_eq!(queue.find(wanted), place, "{wanted:?}");
        }
        assert_eq!(size_of::<QueueStat>(), 120);
    }
}
