//! First fit as the documents do it: from the hint on, entry after entry.

use super::red_black::{NIL, RedBlack};

/// The lowest free place for `len` bytes, aligned to `align` (a power of two), within `[min, max)`.
pub fn first_fit(map: &RedBlack, min: u64, max: u64, len: u64, align: u64) -> Option<u64> {
    let mut start = min;
    let mut next = map.first();
    loop {
        start = start.checked_next_multiple_of(align)?;
        let end = start.checked_add(len)?;
        if end > max {
            return None;
        }
        if next == NIL || map.start(next) >= end {
            return Some(start);
        }
        start = map.end(next);
        next = map.next(next);
    }
}
