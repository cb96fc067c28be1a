//! Bytes of the fuzzer as operations of the model: a byte for what, and one for each number.
//!
//! An operation takes the same bytes wherever it stands, so that a byte that changes leaves the
//! operations after it as they are.

#![allow(dead_code, reason = "each target uses a part")]

use crate::common::model::{FILE_PAGES, SPAN};
use crate::common::op::{Op, What, Where};

/// Operations of one run at most.
pub const MOST: usize = 160;

/// Frames of the machine: enough for what four spaces can hold, as memory runs short only where a
/// failure is asked for; no more, as every step looks at all of them.
pub const FRAMES: u32 = 1200;

/// The bytes that are left.
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Bytes<'a> {
        Bytes(data)
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn below(&mut self, bound: u64) -> Option<u64> {
        Some(u64::from(self.byte()?) % bound)
    }

    fn small(&mut self, bound: usize) -> Option<usize> {
        Some(usize::from(self.byte()?) % bound)
    }

    /// One page of the map and a length of one to eight pages.
    fn range(&mut self) -> Option<(u64, u64)> {
        Some((self.below(SPAN)?, 1 + self.below(8)?))
    }

    /// Not zero, so that it differs from what was never written.
    fn value(&mut self) -> Option<u64> {
        Some(u64::from(self.byte()?) + 1)
    }

    fn place(&mut self) -> Option<Where> {
        let kind = self.byte()?;
        let page = self.below(SPAN)?;
        Some(match kind % 4 {
            0 => Where::At(page),
            1 => Where::Replace(page),
            2 => Where::Up(page),
            _ => Where::Down(page),
        })
    }

    fn what(&mut self) -> Option<What> {
        let kind = self.byte()?;
        let from = self.below(FILE_PAGES - 8)?;
        let file = usize::from(kind >> 7);
        Some(match kind % 4 {
            0 => What::Anonymous,
            1 => What::AnonymousShared,
            2 => What::FilePrivate { file, from },
            _ => What::FileShared { file, from },
        })
    }

    /// Mostly readable and writable.
    fn prot(&mut self) -> Option<u8> {
        let byte = self.byte()?;
        Some(if byte < 128 { 3 } else { byte % 8 })
    }
}

/// Which allocation of an operation fails; mostly none.
pub fn failure(bytes: &mut Bytes<'_>) -> u64 {
    match bytes.byte() {
        Some(byte @ 240..) => u64::from(byte - 239),
        _ => 0,
    }
}

/// Prints an operation where `FUZZ_TELL` is set: what a finding does.
pub fn tell(op: &Op, fail: u64) {
    if std::env::var_os("FUZZ_TELL").is_some() {
        eprintln!("{op:?} {fail}");
    }
}

/// Any operation, each as likely as the others; `None` when the bytes are used up.
pub fn any_op(bytes: &mut Bytes<'_>) -> Option<Op> {
    let kind = bytes.byte()? % 23;
    draw(kind, bytes)
}

/// Mostly stores, loads, forks, exits and page-out.
pub fn fault_op(bytes: &mut Bytes<'_>) -> Option<Op> {
    const KINDS: [u8; 32] = [
        0, 0, 0, 1, 2, 4, 5, 6, 7, 8, 9, 9, 9, 9, 10, 10, 10, 14, 14, 14, 14, 14, 14, 15, 15, 15,
        20, 20, 20, 20, 21, 18,
    ];
    let kind = KINDS[usize::from(bytes.byte()? % 32)];
    draw(kind, bytes)
}

fn draw(kind: u8, bytes: &mut Bytes<'_>) -> Option<Op> {
    match kind {
        0..9 | 19 | 21 | 22 => map_op(kind, bytes),
        _ => data_op(kind, bytes),
    }
}

fn map_op(kind: u8, bytes: &mut Bytes<'_>) -> Option<Op> {
    let space = bytes.small(4)?;
    let (first, len) = bytes.range()?;
    Some(match kind {
        0 => Op::Map {
            space,
            len,
            place: bytes.place()?,
            what: bytes.what()?,
            prot: bytes.prot()?,
        },
        1 => Op::Remove { space, first, len },
        2 => Op::Protect {
            space,
            first,
            len,
            prot: bytes.prot()?,
        },
        3 => Op::ProtectMax {
            space,
            first,
            len,
            prot: bytes.prot()?,
        },
        4 => Op::Inherit {
            space,
            first,
            len,
            inherit: bytes.byte()?,
        },
        5 => Op::Discard { space, first, len },
        6 => Op::Wire { space, first, len },
        7 => Op::Unwire { space, first, len },
        8 => {
            let (new_len, place) = (1 + bytes.below(8)?, bytes.place()?);
            Op::Move {
                space,
                first,
                len,
                new_len,
                place,
            }
        }
        19 => Op::Clean {
            space,
            first,
            len,
            invalidate: bytes.byte()? > 127,
        },
        21 => Op::Drop { space, first, len },
        _ => Op::Residency { space, first, len },
    })
}

fn data_op(kind: u8, bytes: &mut Bytes<'_>) -> Option<Op> {
    let space = bytes.small(4)?;
    Some(match kind {
        9 => Op::Fork { space },
        10 => Op::Exit { space },
        11 => Op::Create,
        20 => Op::PageOut {
            want: 1 + bytes.below(40)? as u32,
        },
        12 => Op::Write {
            space,
            page: bytes.below(SPAN)?,
            place: bytes.small(4)?,
            value: bytes.value()?,
        },
        13 => Op::Read {
            space,
            page: bytes.below(SPAN)?,
            place: bytes.small(4)?,
        },
        14 => {
            let (page, place) = (bytes.below(SPAN)?, bytes.byte()?);
            let (cpu, place) = (usize::from(place >> 7), usize::from(place % 4));
            Op::Store {
                space,
                cpu,
                page,
                place,
                value: bytes.value()?,
            }
        }
        15 => {
            let (page, place) = (bytes.below(SPAN)?, bytes.byte()?);
            let (cpu, place) = (usize::from(place >> 7), usize::from(place % 4));
            Op::Load {
                space,
                cpu,
                page,
                place,
            }
        }
        16 => Op::FileWrite {
            file: space % 2,
            page: bytes.below(SPAN)?,
            place: bytes.small(4)?,
            value: bytes.value()?,
        },
        17 => Op::FileRead {
            file: space % 2,
            page: bytes.below(SPAN)?,
            place: bytes.small(4)?,
        },
        _ => {
            // In eighths of a page, up to twice the file.
            let eighths = bytes.below(2 * 8 * FILE_PAGES)?;
            Op::Resize {
                file: space % 2,
                bytes: eighths * 512 + u64::from(bytes.byte()?),
            }
        }
    })
}
