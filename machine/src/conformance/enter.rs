//! Entering translations.

use super::rig::hold;
use super::{Probe, Rig};
use crate::{EnterError, Flush, FrameRun, Kind, MemoryAttr, Pmap, Prot, Usage, VirtAddr};

/// Loads through a translation give the contents of its frame, and stores reach them.
pub fn a_mapped_page_is_its_frame<M: Probe>(rig: &Rig<'_, M>) {
    let (space, frame) = (rig.space(), rig.frame(11));
    let va = rig.va(0);
    hold!(
        rig,
        rig.machine.load(&space.pmap, va).is_err(),
        "an empty space can be read"
    );
    space.enter(va, FrameRun::one(frame), Prot::RW);
    hold!(rig, space.load(va) == 11, "the load does not see the frame");
    space.store(va, 12);
    hold!(
        rig,
        rig.byte(frame) == 12,
        "the frame does not see the store"
    );
    rig.machine.write(frame, 0, &[13]);
    hold!(
        rig,
        space.load(va) == 13,
        "a second load does not see the frame"
    );
    space.end();
}

/// Page `i` of a run maps frame `i` of it.
pub fn a_run_maps_its_frames_in_order<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), rig.frames(3, 20));
    space.enter(rig.va(4), run, Prot::READ);
    for i in 0..3 {
        let byte = space.load(rig.va(4 + i));
        hold!(rig, i64::from(byte) == 20 + i, "page {i} shows {byte}");
    }
    for i in [3, 7] {
        let beside = rig.machine.load(&space.pmap, rig.va(i));
        hold!(
            rig,
            beside.is_err(),
            "page {i} is mapped, which the run does not reach"
        );
    }
    space.end();
}

/// A run may lie across the boundary of tables of every level.
pub fn a_run_crosses_tables<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), rig.frames(3, 30));
    space.enter(rig.va(-1), run, Prot::READ);
    for i in 0..3 {
        let byte = space.load(rig.va(i - 1));
        hold!(rig, i64::from(byte) == 30 + i, "page {i} shows {byte}");
    }
    space.end();
}

/// Two translations of one frame show the same bytes.
pub fn a_frame_can_be_mapped_twice<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), FrameRun::one(rig.frame(1)));
    space.enter(rig.va(0), run, Prot::RW);
    space.enter(rig.va(9), run, Prot::READ);
    space.store(rig.va(0), 44);
    hold!(
        rig,
        space.load(rig.va(9)) == 44,
        "the second translation shows another frame"
    );
    space.allows_just(rig.va(9), Prot::READ);
    space.end();
}

/// A translation allows what it was entered with, and nothing else.
pub fn protection_is_honoured<M: Probe>(rig: &Rig<'_, M>) {
    let space = rig.space();
    let frame = rig.frame(0);
    rig.machine.write(frame, 0, M::RETURN);
    let all = [Prot::NONE, Prot::READ, Prot::RW, Prot::RX, Prot::ALL];
    for (i, prot) in all.into_iter().enumerate() {
        let va = rig.va(i as i64);
        space.enter(va, FrameRun::one(frame), prot);
        space.allows_just(va, prot);
    }
    space.end();
}

/// Entering over a translation tells what it was, once, and maps the new frame.
pub fn what_is_replaced_is_told<M: Probe>(rig: &Rig<'_, M>) {
    let (space, old, new) = (rig.space(), rig.frames(2, 1), rig.frames(3, 5));
    space.enter_telling(rig.va(1), old, Prot::RW, Kind::Manual, &mut |_| ());
    let mut told = 0;
    space.enter_telling(rig.va(0), new, Prot::READ, Kind::Managed, &mut |r| {
        let right = r.va == rig.va(1 + told) && Some(r.frame) == old.get(told as u32);
        hold!(
            rig,
            right && r.kind == Kind::Manual,
            "{r:?} was told as number {told}"
        );
        told += 1;
    });
    hold!(
        rig,
        told == 2,
        "{told} of 2 replaced translations were told"
    );
    for i in 0..3 {
        hold!(
            rig,
            i64::from(space.load(rig.va(i))) == 5 + i,
            "page {i} shows the old frame"
        );
    }
    space.end();
}

/// Entering the same frame with more rights makes the access succeed that faulted.
pub fn a_fault_can_be_answered_with_more_rights<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), FrameRun::one(rig.frame(3)));
    let va = rig.va(0);
    space.enter(va, run, Prot::READ);
    hold!(rig, space.load(va) == 3, "a wrong byte");
    hold!(
        rig,
        rig.machine.store(&space.pmap, va, 4).is_err(),
        "a store through READ"
    );
    space.enter_telling(va, run, Prot::RW, Kind::Managed, &mut |_| ());
    space.store(va, 4);
    hold!(rig, rig.byte(run.first) == 4, "the store is lost");
    space.end();
}

/// The frames that `NeedFrames` names are enough.
pub fn frames_asked_for_are_enough<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), rig.frames(3, 0));
    let enter = || {
        let (prot, attr) = (Prot::READ, MemoryAttr::WriteBack);
        space
            .pmap
            .enter(rig.va(-1), run, prot, attr, Kind::Managed, &mut |_| ())
    };
    match enter() {
        Ok(flush) => flush.wait(),
        Err(EnterError::NeedFrames(n)) => {
            hold!(
                rig,
                n > 0,
                "no frame is needed, and yet nothing was entered"
            );
            space.donate(n);
            match enter() {
                Ok(flush) => flush.wait(),
                Err(e) => rig.fail(format_args!("{e:?} after {n} frames were donated")),
            }
        }
        Err(e) => rig.fail(format_args!("{e:?}")),
    }
    space.end();
}

/// Where frames are missing for a part of the run, nothing is entered and nothing told.
pub fn a_refusal_for_frames_changes_nothing<M: Probe>(rig: &Rig<'_, M>) {
    let (space, old, new) = (rig.space(), rig.frame(1), rig.frames(2, 5));
    space.enter(rig.va(-1), FrameRun::one(old), Prot::RW);
    let (prot, attr) = (Prot::RW, MemoryAttr::WriteBack);
    let mut told = 0;
    let refused = space
        .pmap
        .enter(rig.va(-1), new, prot, attr, Kind::Managed, &mut |_| {
            told += 1
        });
    match refused {
        // This machine needs no tables there.
        Ok(flush) => flush.wait(),
        Err(EnterError::NeedFrames(_)) => {
            hold!(rig, told == 0, "{told} translations were told as replaced");
            hold!(
                rig,
                space.load(rig.va(-1)) == 1,
                "the old translation is gone"
            );
            hold!(rig, space.pmap.resident() == 1, "a part was entered");
        }
        Err(e) => rig.fail(format_args!("{e:?}")),
    }
    space.end();
}

/// The first and the last page of the range can be mapped.
pub fn the_edges_of_the_range_can_be_mapped<M: Probe>(rig: &Rig<'_, M>) {
    let (space, user) = (rig.space(), rig.machine.user_range());
    let last = VirtAddr(user.end().0 - rig.page().bytes());
    for (va, mark) in [(user.start(), 61), (last, 62)] {
        space.enter(va, FrameRun::one(rig.frame(mark)), Prot::RW);
        hold!(rig, space.load(va) == mark, "{va:?} shows another frame");
    }
    space.end();
}

/// What does not lie in the range is a bad address, and nothing of such a run is entered.
pub fn outside_of_the_range_is_a_bad_address<M: Probe>(rig: &Rig<'_, M>) {
    let (space, user, run) = (rig.space(), rig.machine.user_range(), rig.frames(2, 0));
    let page = rig.page().bytes();
    let last = VirtAddr(user.end().0 - page);
    let one = FrameRun::one(run.first);
    let top = VirtAddr(u64::MAX - (page - 1));
    let below = user.start().checked_sub(page).map(|va| (va, run));
    let outside = [
        Some((last, run)),
        Some((user.end(), one)),
        Some((top, run)),
        below,
    ];
    for (va, run) in outside.into_iter().flatten() {
        let (prot, attr) = (Prot::READ, MemoryAttr::WriteBack);
        let entered = space
            .pmap
            .enter(va, run, prot, attr, Kind::Managed, &mut |_| ());
        match entered {
            Err(EnterError::BadAddress) => {}
            Err(e) => rig.fail(format_args!("{run:?} at {va:?}: {e:?}")),
            Ok(flush) => {
                flush.wait();
                rig.fail(format_args!("{run:?} was entered at {va:?}"));
            }
        }
    }
    hold!(rig, space.pmap.resident() == 0, "a part was entered");
    space.end();
}

/// What is entered in one pmap is not seen in another, nor is what is removed or used.
pub fn two_pmaps_know_nothing_of_each_other<M: Probe>(rig: &Rig<'_, M>) {
    let (a, b) = (rig.space(), rig.space());
    let va = rig.va(0);
    a.enter(va, FrameRun::one(rig.frame(1)), Prot::RW);
    hold!(
        rig,
        rig.machine.load(&b.pmap, va).is_err(),
        "the other space can be read"
    );
    b.enter(va, FrameRun::one(rig.frame(2)), Prot::RW);
    hold!(
        rig,
        (a.load(va), b.load(va)) == (1, 2),
        "the spaces show the same frame"
    );
    a.remove(rig.range(va, 1), &mut |_| ());
    hold!(
        rig,
        rig.machine.load(&a.pmap, va).is_err(),
        "the page is still there"
    );
    hold!(rig, b.load(va) == 2, "the other space lost its page");
    a.end();
    b.store(va, 3);
    let usage = b.pmap.extract(va).map(|t| t.usage);
    hold!(rig, usage == Some(Usage::all()), "usage is {usage:?}");
    b.end();
}
