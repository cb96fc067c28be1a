//! The parser against hostile files.

use super::*;
use alloc::vec;

const LIMIT: u64 = 1 << 47;

fn put(bytes: &mut [u8], at: usize, value: u64, len: usize) {
    bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
}

/// A small right program: two segments and an interpreter.
fn sample() -> Vec<u8> {
    let mut f = vec![0u8; 0x2000];
    f[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(&mut f, 16, 2, 2);
    put(&mut f, 18, 62, 2);
    put(&mut f, 20, 1, 4);
    put(&mut f, 24, 0x40_1000, 8);
    put(&mut f, 32, 64, 8);
    put(&mut f, 52, 64, 2);
    put(&mut f, 54, 56, 2);
    put(&mut f, 56, 3, 2);
    let segments = [
        (1u64, 5u64, 0u64, 0x40_0000u64, 0x1000u64, 0x1000u64),
        (1, 6, 0x1000, 0x40_1000, 0x800, 0x3000),
        (3, 4, 0x300, 0x40_0300, 16, 16),
    ];
    for (i, s) in segments.into_iter().enumerate() {
        let at = 64 + i * 56;
        put(&mut f, at, s.0, 4);
        put(&mut f, at + 4, s.1, 4);
        put(&mut f, at + 8, s.2, 8);
        put(&mut f, at + 16, s.3, 8);
        put(&mut f, at + 32, s.4, 8);
        put(&mut f, at + 40, s.5, 8);
        put(&mut f, at + 48, 0x1000, 8);
    }
    f
}

fn parse(file: &[u8]) -> Result<Layout, Errno> {
    let h = header(file)?;
    let from = usize::try_from(h.phdr_offset).map_err(|_| Errno::ENOEXEC)?;
    let table = file.get(from..).ok_or(Errno::ENOEXEC)?;
    h.layout(table, file.len() as u64, 4096, LIMIT)
}

#[test]
fn a_right_file_is_understood() {
    let layout = parse(&sample()).unwrap();
    assert_eq!(layout.segments.len(), 2);
    assert_eq!(layout.span, (0x40_0000, 0x40_4000));
    assert_eq!(layout.interpreter, Some((0x300, 16)));
    assert_eq!(layout.phdr_address, 0x40_0040);
    assert_eq!(layout.segments[1].prot, Prot::RW);
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_understood_but_never_a_panic() {
    let whole = sample();
    for n in 0..whole.len() {
        let result = parse(&whole[..n]);
        if n < 0x1800 {
            assert_eq!(result, Err(Errno::ENOEXEC), "cut at {n}");
        }
    }
}

#[test]
fn numbers_that_contradict_each_other_are_refused() {
    let cases: [(usize, u64, usize); 12] = [
        (4, 1, 1),                  // 32 bits
        (5, 2, 1),                  // big-endian
        (16, 1, 2),                 // relocatable
        (18, 3, 2),                 // another processor
        (54, 55, 2),                // size of a program header
        (56, 0, 2),                 // none
        (56, 0xffff, 2),            // too many
        (32, u64::MAX, 8),          // where they are
        (64 + 8, u64::MAX, 8),      // offset
        (64 + 16, u64::MAX - 4, 8), // address
        (64 + 40, u64::MAX, 8),     // size in memory
        (64 + 16, 0x40_0001, 8),    // not congruent
    ];
    for (at, value, len) in cases {
        let mut file = sample();
        put(&mut file, at, value, len);
        assert_eq!(parse(&file), Err(Errno::ENOEXEC), "{value:#x} at {at}");
    }
}

#[test]
fn no_mutation_of_one_or_two_bytes_panics() {
    let whole = sample();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200_000 {
        let mut file = whole.clone();
        for _ in 0..1 + next() % 3 {
            let at = (next() % 232) as usize;
            file[at] = [0, 1, 0x7f, 0x80, 0xff, next() as u8][(next() % 6) as usize];
        }
        if let Ok(layout) = parse(&file) {
            assert!(layout.span.0 < layout.span.1 && layout.span.1 <= LIMIT);
        }
    }
}
