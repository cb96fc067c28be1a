//! Pipes: bytes in the order in which they were written.
//!
//! A write of at most [`ATOMIC`] bytes is never mixed with others'. The last reader's end makes
//! writers fail, the last writer's end makes readers find the end.

use crate::blocking::pipe_channel;
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::Channel;
use core::sync::atomic::{AtomicU64, Ordering};

/// How much a pipe holds.
pub(crate) const CAPACITY: usize = 65536;
/// `PIPE_BUF`.
pub(crate) const ATOMIC: usize = 4096;

/// The bytes, and how many ends of each kind are open.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: VecDeque<u8>,
    /// How much it holds, less [`CAPACITY`].
    more: isize,
    readers: u32,
    writers: u32,
}

/// What became of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attempt<T> {
    Done(T),
    /// It would have to wait.
    Wait,
    /// Nobody is at the other end.
    Broken,
}

impl Buffer {
    fn capacity(&self) -> usize {
        CAPACITY.saturating_add_signed(self.more)
    }

    fn room(&self) -> usize {
        self.capacity().saturating_sub(self.bytes.len())
    }

    /// Takes up to `max` bytes; none when nobody will write any more.
    fn take(&mut self, max: usize) -> Attempt<Vec<u8>> {
        if self.bytes.is_empty() && max > 0 {
            return if self.writers == 0 {
                Attempt::Broken
            } else {
                Attempt::Wait
            };
        }
        let n = max.min(self.bytes.len());
        Attempt::Done(self.bytes.drain(..n).collect())
    }

    /// Adds what fits of `bytes`: all or nothing up to [`ATOMIC`].
    fn add(&mut self, bytes: &[u8]) -> Attempt<usize> {
        // Nothing is written anywhere, also where nobody reads.
        if bytes.is_empty() {
            return Attempt::Done(0);
        }
        if self.readers == 0 {
            return Attempt::Broken;
        }
        let fits = self.room().min(bytes.len());
        if fits == 0 || (bytes.len() <= ATOMIC && fits < bytes.len()) {
            return Attempt::Wait;
        }
        self.bytes.extend(&bytes[..fits]);
        Attempt::Done(fits)
    }
}

/// A pipe, as both its ends share it.
pub(crate) struct Pipe<P: Platform> {
    sys: &'static Linux<P>,
    id: u64,
    buffer: Lock<P, Buffer, { rank::PIPE }>,
    changes: AtomicU64,
}

/// Which end of a pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Read,
    Write,
}

/// One end of a pipe; it closes when it is dropped.
pub(crate) struct PipeEnd<P: Platform> {
    pipe: Arc<Pipe<P>>,
    end: End,
}

impl<P: Platform> Pipe<P> {
    /// A new pipe's two ends.
    pub(crate) fn create(sys: &'static Linux<P>) -> (PipeEnd<P>, PipeEnd<P>) {
        let pipe = Arc::new(Pipe {
            sys,
            id: sys.next_id(),
            buffer: Lock::<P, _, { rank::PIPE }>::new(Buffer {
                bytes: VecDeque::new(),
                more: 0,
                readers: 1,
                writers: 1,
            }),
            changes: AtomicU64::new(1),
        });
        let reader = PipeEnd {
            pipe: pipe.clone(),
            end: End::Read,
        };
        (
            reader,
            PipeEnd {
                pipe,
                end: End::Write,
            },
        )
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.sys.wake(pipe_channel(self.id));
        self.sys.wake_pollers();
    }
}

impl<P: Platform> PipeEnd<P> {
    /// The number that both ends have.
    pub(crate) fn id(&self) -> u64 {
        self.pipe.id
    }

    /// Woken when the pipe changes.
    pub(crate) fn channel(&self) -> Channel {
        pipe_channel(self.pipe.id)
    }

    /// How often the pipe has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.pipe.changes.load(Ordering::SeqCst)
    }

    /// What [`PipeEnd::take`] would take, left where it is.
    pub(crate) fn peek(&self, max: usize) -> Attempt<Vec<u8>> {
        let buffer = self.pipe.buffer.lock();
        if buffer.bytes.is_empty() {
            return if buffer.writers == 0 {
                Attempt::Broken
            } else {
                Attempt::Wait
            };
        }
        Attempt::Done(buffer.bytes.iter().take(max).copied().collect())
    }

    pub(crate) fn take(&self, max: usize) -> Attempt<Vec<u8>> {
        let got = self.pipe.buffer.lock().take(max);
        if matches!(&got, Attempt::Done(bytes) if !bytes.is_empty()) {
            self.pipe.changed();
        }
        got
    }

    pub(crate) fn add(&self, bytes: &[u8]) -> Attempt<usize> {
        let put = self.pipe.buffer.lock().add(bytes);
        if matches!(put, Attempt::Done(n) if n > 0) {
            self.pipe.changed();
        }
        put
    }

    /// How much the pipe holds.
    pub(crate) fn capacity(&self) -> usize {
        self.pipe.buffer.lock().capacity()
    }

    /// Makes it hold so much, unless there is more in it: `false`.
    pub(crate) fn set_capacity(&self, bytes: usize) -> bool {
        let mut buffer = self.pipe.buffer.lock();
        if buffer.bytes.len() > bytes {
            return false;
        }
        buffer.more = bytes as isize - CAPACITY as isize;
        drop(buffer);
        self.pipe.changed();
        true
    }

    /// The bytes that can be read now.
    pub(crate) fn readable(&self) -> usize {
        self.pipe.buffer.lock().bytes.len()
    }

    /// The bits of `poll`.
    pub(crate) fn poll(&self) -> u16 {
        use linux_raw_sys::general as abi;
        let buffer = self.pipe.buffer.lock();
        let mut bits = 0;
        match self.end {
            End::Read => {
                if !buffer.bytes.is_empty() {
                    bits |= abi::POLLIN | abi::POLLRDNORM;
                }
                if buffer.writers == 0 {
                    bits |= abi::POLLHUP;
                }
            }
            End::Write => {
                if buffer.room() >= ATOMIC {
                    bits |= abi::POLLOUT | abi::POLLWRNORM;
                }
                if buffer.readers == 0 {
                    bits |= abi::POLLERR;
                }
            }
        }
        bits as u16
    }
}

impl<P: Platform> Drop for PipeEnd<P> {
    fn drop(&mut self) {
        {
            let mut buffer = self.pipe.buffer.lock();
            match self.end {
                End::Read => buffer.readers -= 1,
                End::Write => buffer.writers -= 1,
            }
        }
        self.pipe.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Buffer {
        Buffer {
            bytes: VecDeque::new(),
            more: 0,
            readers: 1,
            writers: 1,
        }
    }

    #[test]
    fn bytes_come_out_in_order() {
        let mut b = open();
        assert_eq!(b.take(10), Attempt::Wait);
        assert_eq!(b.add(b"hello"), Attempt::Done(5));
        assert_eq!(b.take(2), Attempt::Done(b"he".to_vec()));
        assert_eq!(b.take(10), Attempt::Done(b"llo".to_vec()));
        assert_eq!(b.take(0), Attempt::Done(Vec::new()));
    }

    #[test]
    fn small_writes_are_whole_and_large_ones_fill_the_pipe() {
        let mut b = open();
        assert_eq!(
            b.add(&alloc::vec![1; CAPACITY - 10]),
            Attempt::Done(CAPACITY - 10)
        );
        assert_eq!(b.add(&[2; 11]), Attempt::Wait);
        assert_eq!(b.add(&[2; 5000]), Attempt::Done(10));
        assert_eq!(b.add(&[2; 5000]), Attempt::Wait);
        assert_eq!(b.add(&[]), Attempt::Done(0));
    }

    #[test]
    fn ends_are_noticed() {
        let mut b = open();
        b.add(b"x");
        b.writers = 0;
        assert_eq!(b.take(5), Attempt::Done(b"x".to_vec()));
        assert_eq!(b.take(5), Attempt::Broken);
        b.readers = 0;
        assert_eq!(b.add(b"y"), Attempt::Broken);
        assert_eq!(b.add(b""), Attempt::Done(0));
    }
}
