//! Memory, waiting, locks and the rest of the outside.

use super::rig::hold;
use super::{Probe, Rig};
use crate::sync::{Mutex, RwLock};
use crate::{Channel, Frame, FrameRun};

/// Visits the bytes of a frame in pieces.
fn each_piece<M: Probe>(rig: &Rig<'_, M>, frame: Frame, look: &mut dyn FnMut(usize, &[u8])) {
    let mut piece = [0; 64];
    for at in (0..rig.page().len()).step_by(piece.len()) {
        rig.machine.read(frame, at, &mut piece);
        look(at, &piece);
    }
}

/// Writes a pattern, different for each `mark`, over a frame.
fn fill<M: Probe>(rig: &Rig<'_, M>, frame: Frame, mark: usize) {
    for at in (0..rig.page().len()).step_by(64) {
        let piece = core::array::from_fn::<u8, 64, _>(|i| (mark + at / 64 + i) as u8);
        rig.machine.write(frame, at, &piece);
    }
}

/// `zero` clears every byte of its frame and none of its neighbours.
pub fn zero_clears_all_of_a_frame<M: Probe>(rig: &Rig<'_, M>) {
    let run = rig.frames(3, 0);
    run.frames().for_each(|f| fill(rig, f, 1));
    let middle = run.get(1).unwrap_or_default();
    rig.machine.zero(middle);
    for frame in run.frames() {
        each_piece(rig, frame, &mut |at, piece| {
            let clear = piece.iter().all(|b| *b == 0);
            hold!(rig, clear == (frame == middle), "{frame:?} at {at}");
        });
    }
}

/// `copy` copies every byte and leaves the source alone.
pub fn copy_copies_all_of_a_frame<M: Probe>(rig: &Rig<'_, M>) {
    let (from, to) = (rig.frame(0), rig.frame(0));
    fill(rig, from, 7);
    rig.machine.copy(from, to);
    for frame in [from, to] {
        each_piece(rig, frame, &mut |at, piece| {
            let right = (0..64).all(|i| piece[i] == (7 + at / 64 + i) as u8);
            hold!(rig, right, "{frame:?} at {at}");
        });
    }
}

/// Bytes are read as they were written, at any offset and length, to the last byte of a frame.
pub fn bytes_are_read_as_written<M: Probe>(rig: &Rig<'_, M>) {
    let frame = rig.frame(0);
    let end = rig.page().len();
    for (offset, len) in [
        (0, 1),
        (1, 2),
        (3, 7),
        (4, 16),
        (end - 1, 1),
        (end - 13, 13),
    ] {
        rig.machine.zero(frame);
        let source = [0xa5; 16];
        rig.machine.write(frame, offset, &source[..len]);
        let mut back = [0; 16];
        rig.machine.read(frame, offset, &mut back[..len]);
        hold!(
            rig,
            back[..len] == source[..len],
            "{len} bytes at {offset}: {back:?}"
        );
        if offset > 0 {
            rig.machine.read(frame, offset - 1, &mut back[..1]);
            hold!(rig, back[0] == 0, "the byte before {offset} was written");
        }
        if offset + len < end {
            rig.machine.read(frame, offset + len, &mut back[..1]);
            hold!(
                rig,
                back[0] == 0,
                "the byte after {offset}+{len} was written"
            );
        }
    }
    rig.machine.write(frame, end, &[]);
}

/// A word is replaced only where it is what the caller expects, and both agree with the bytes.
pub fn words_are_exchanged_in_one_piece<M: Probe>(rig: &Rig<'_, M>) {
    let (m, frame) = (rig.machine, rig.frame(0));
    for offset in [0, 4, rig.page().len() - 4] {
        m.write(frame, offset, &0x0102_0304u32.to_ne_bytes());
        hold!(
            rig,
            m.load_u32(frame, offset) == 0x0102_0304,
            "a load at {offset}"
        );
        let refused = m.compare_exchange_u32(frame, offset, 5, 6);
        hold!(
            rig,
            refused == Err(0x0102_0304),
            "{refused:?} for a wrong guess"
        );
        let done = m.compare_exchange_u32(frame, offset, 0x0102_0304, 6);
        hold!(rig, done == Ok(0x0102_0304), "{done:?} for a right guess");
        let mut bytes = [0; 4];
        m.read(frame, offset, &mut bytes);
        hold!(
            rig,
            bytes == 6u32.to_ne_bytes(),
            "the bytes at {offset} are {bytes:?}"
        );
    }
}

/// A discarded frame holds whatever it likes, until it is written again.
pub fn a_discarded_frame_can_be_used_again<M: Probe>(rig: &Rig<'_, M>) {
    let run = rig.frames(3, 1);
    let two = FrameRun { count: 2, ..run };
    rig.machine.discard(two);
    let last = run.get(2).unwrap_or_default();
    hold!(
        rig,
        rig.byte(last) == 3,
        "a frame beside the run was discarded"
    );
    for frame in two.frames() {
        rig.machine.zero(frame);
        hold!(rig, rig.byte(frame) == 0, "{frame:?} cannot be cleared");
        rig.machine.write(frame, 0, &[4]);
        hold!(rig, rig.byte(frame) == 4, "{frame:?} cannot be written");
    }
}

/// Record memory is aligned to a page, each frame's is its own, and it stays where it is.
pub fn record_memory_is_a_page_that_stays<M: Probe>(rig: &Rig<'_, M>) {
    let (a, b) = (rig.frame(0), rig.frame(0));
    let at = |frame| rig.machine.record_memory(frame).addr().get();
    let (first, second) = (at(a), at(b));
    for place in [first, second] {
        hold!(
            rig,
            place.is_multiple_of(rig.page().len()),
            "{place:#x} is not aligned"
        );
    }
    hold!(
        rig,
        first.abs_diff(second) >= rig.page().len(),
        "two frames overlap"
    );
    hold!(rig, (at(a), at(b)) == (first, second), "the memory moved");
}

/// A wake-up between ticket and sleep ends the sleep: none is lost.
pub fn a_wake_before_the_sleep_ends_it<M: Probe>(rig: &Rig<'_, M>) {
    let m = rig.machine;
    for channel in [Channel(0), Channel(1), Channel(u64::MAX)] {
        let ticket = m.ticket(channel);
        m.wake(channel);
        // A machine that loses the wake-up stays here for ever.
        m.sleep(channel, ticket, None);
    }
}

/// A sleep whose deadline is past returns.
pub fn a_deadline_that_is_past_ends_a_sleep<M: Probe>(rig: &Rig<'_, M>) {
    let m = rig.machine;
    let ticket = m.ticket(Channel(3));
    m.sleep(Channel(3), ticket, Some(m.now()));
}

/// A lock has one holder, or readers only.
pub fn locks_exclude<M: Probe>(rig: &Rig<'_, M>) {
    let mutex: Mutex<M, u32, 1> = Mutex::new(0);
    {
        let mut held = mutex.lock();
        *held += 1;
        hold!(rig, mutex.try_lock().is_none(), "a held mutex was taken");
        hold!(rig, mutex.is_locked(), "a held mutex says that it is free");
    }
    let again = mutex.try_lock().map(|value| *value);
    hold!(rig, again == Some(1), "a free mutex gives {again:?}");
    hold!(rig, !mutex.is_locked(), "a free mutex says that it is held");

    let lock: RwLock<M, u32, 1> = RwLock::new(0);
    *lock.write() += 1;
    let value = *lock.read();
    hold!(rig, value == 1, "the write is lost");
    *lock.write_nested() += 1;
    let value = *lock.read();
    hold!(rig, value == 2, "the second write is lost");
}

/// Time does not run backwards, and there is a processor.
pub fn time_and_processors_make_sense<M: Probe>(rig: &Rig<'_, M>) {
    let m = rig.machine;
    let mut last = m.now();
    for _ in 0..100 {
        let now = m.now();
        hold!(rig, now >= last, "time runs from {last} to {now}");
        last = now;
    }
    hold!(rig, m.cpus() >= 1, "no processor");
    hold!(
        rig,
        m.cpu() < m.cpus(),
        "processor {} of {}",
        m.cpu(),
        m.cpus()
    );
    let some = m.random();
    hold!(
        rig,
        (0..64).any(|_| m.random() != some),
        "random numbers repeat"
    );
}
