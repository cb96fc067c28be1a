//! Messages from and to bytes.

use alloc::vec::Vec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The length before each message.
const PREFIX: usize = 4;
/// No message is longer: what claims to be is not one of ours.
const LIMIT: usize = 16 << 20;

/// The bytes of a message.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::from([0; PREFIX]);
    // It can fail for want of room only, and a vector grows.
    if let Ok(body) = postcard::to_allocvec(message) {
        bytes.extend(body);
    }
    let len = (bytes.len() - PREFIX) as u32;
    bytes[..PREFIX].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// The other side sent what is no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Garbled;

/// What came in and is not taken out yet.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Where the first message begins.
    start: usize,
}

impl Inbox {
    /// An empty one.
    pub const fn new() -> Inbox {
        Inbox {
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// Adds what came in.
    pub fn add(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, once it is there as a whole.
    ///
    /// Errors: [`Garbled`].
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Garbled> {
        let held = &self.bytes[self.start..];
        let Some((prefix, rest)) = held.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*prefix) as usize;
        if len > LIMIT {
            return Err(Garbled);
        }
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let message = postcard::from_bytes(body).map_err(|_| Garbled)?;
        self.start += PREFIX + len;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Act, Answer, Ask, Request, Stat, ToKernel};
    use alloc::boxed::Box;
    use bsdvm_linux::platform::{FileStat, Moment};

    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let requests = [
            Request {
                tag: 7,
                ask: Ask::File {
                    file: 1,
                    act: Act::Write(b"any \0 byte \xff".to_vec()),
                },
            },
            Request {
                tag: 0,
                ask: Ask::Message("line".into()),
            },
        ];
        let bytes: Vec<u8> = requests.iter().flat_map(encode).collect();
        for piece in [1, 2, 3, 5, bytes.len()] {
            let mut inbox = Inbox::new();
            let mut seen = Vec::new();
            for part in bytes.chunks(piece) {
                inbox.add(part);
                while let Some(request) = inbox.take::<Request>().unwrap() {
                    seen.push(request);
                }
            }
            assert_eq!(seen, requests, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut inbox = Inbox::new();
        inbox.add(&[0xff; 8]);
        assert_eq!(inbox.take::<Request>(), Err(Garbled));
        let mut inbox = Inbox::new();
        inbox.add(&[1, 0, 0, 0, 99]);
        assert_eq!(inbox.take::<ToKernel>(), Err(Garbled));
    }

    #[test]
    fn a_file_is_the_same_on_the_other_side() {
        let stat = FileStat {
            size: 12,
            rdev: (4, 64),
            mtime: Moment {
                seconds: -5,
                nanos: 7,
            },
            ..FileStat::default()
        };
        let answer = ToKernel::Answer(3, Answer::Stat(Box::new(Stat::from(&stat))));
        let mut inbox = Inbox::new();
        inbox.add(&encode(&answer));
        let Ok(Some(ToKernel::Answer(3, Answer::Stat(back)))) = inbox.take() else {
            panic!("another message came out");
        };
        assert_eq!(FileStat::from(&*back), stat);
    }
}
