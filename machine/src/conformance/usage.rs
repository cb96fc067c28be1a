//! What a pmap knows of its translations.

use super::rig::hold;
use super::{Probe, Rig};
use crate::{Flush, FrameRun, Kind, Pmap, Prot, Usage, VirtAddr};

/// Whether `seen` is right where `done` was done.
fn agrees<M: Probe>(seen: Usage, done: Usage) -> bool {
    match M::USAGE_IS_EXACT {
        true => seen == done,
        false => seen.contains(done),
    }
}

/// `extract` gives the frame, protection and kind that were entered, and nothing elsewhere.
pub fn extract_tells_what_was_entered<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), rig.frames(3, 0));
    let kinds = [Kind::Managed, Kind::Manual, Kind::Managed];
    let prots = [Prot::READ, Prot::RW, Prot::NONE];
    for i in 0..3 {
        let one = FrameRun::one(run.get(i as u32).unwrap_or_default());
        space.enter_telling(rig.va(i as i64), one, prots[i], kinds[i], &mut |_| ());
    }
    for i in 0..3 {
        let t = space.pmap.extract(rig.va(i as i64));
        let right = t.is_some_and(|t| {
            Some(t.frame) == run.get(i as u32) && t.prot == prots[i] && t.kind == kinds[i]
        });
        hold!(rig, right, "page {i}: {t:?}");
    }
    for i in [-1, 3, 512] {
        let t = space.pmap.extract(rig.va(i));
        hold!(rig, t.is_none(), "page {i}, where nothing is: {t:?}");
    }
    space.end();
}

/// `scan` tells what `extract` tells, in ascending order and from its range only.
pub fn scan_is_in_order_and_agrees_with_extract<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), rig.frames(3, 0));
    let pages = [-3, 0, 513];
    for (i, frame) in pages.into_iter().zip(run.frames()) {
        space.enter(rig.va(i), FrameRun::one(frame), Prot::READ);
    }
    space.enter(rig.va(900), FrameRun::one(rig.frame(0)), Prot::READ);
    let mut seen = 0;
    let mut told = [None; 3];
    space.pmap.scan(rig.range(rig.va(-3), 903), &mut |va, t| {
        if let Some(place) = told.get_mut(seen) {
            *place = Some((va, t));
        }
        seen += 1;
    });
    hold!(rig, seen == 3, "{seen} of 3 were told");
    for (place, (va, t)) in pages.into_iter().zip(told.into_iter().flatten()) {
        hold!(rig, va == rig.va(place), "{va:?} is told for {place}");
        hold!(rig, space.pmap.extract(va) == Some(t), "{va:?}: {t:?}");
    }
    space.end();
}

/// `resident` is the number of pages that are mapped.
pub fn resident_counts_pages<M: Probe>(rig: &Rig<'_, M>) {
    let space = rig.space();
    let count = |n, when| {
        let r = space.pmap.resident();
        hold!(rig, r == n, "{r} pages {when}, not {n}");
    };
    count(0, "at first");
    space.enter(rig.va(-1), rig.frames(3, 0), Prot::READ);
    count(3, "after a run of three");
    space.enter_telling(
        rig.va(0),
        rig.frames(1, 0),
        Prot::RW,
        Kind::Managed,
        &mut |_| (),
    );
    count(3, "after one was replaced");
    space
        .pmap
        .protect(rig.range(rig.va(-1), 2), Prot::NONE)
        .wait();
    count(3, "after two were lowered");
    space.remove(rig.range(rig.va(-5), 5), &mut |_| ());
    count(2, "after one was removed");
    space.end();
}

/// A load shows as REFERENCED, a store as MODIFIED too, and no use as none.
pub fn use_is_seen<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), rig.frames(3, 0));
    space.enter(rig.va(0), run, Prot::RW);
    space.load(rig.va(1));
    space.store(rig.va(2), 1);
    let done = [Usage::empty(), Usage::REFERENCED, Usage::all()];
    for (i, done) in done.into_iter().enumerate() {
        let seen = space.pmap.extract(rig.va(i as i64)).map(|t| t.usage);
        let right = seen.is_some_and(|seen| agrees::<M>(seen, done));
        hold!(rig, right, "page {i}: {seen:?} where {done:?} was done");
    }
    space.end();
}

/// Usage is given once; the next use after the flush is seen again, a store after a store too.
pub fn use_is_taken_once_and_seen_again<M: Probe>(rig: &Rig<'_, M>) {
    let (space, frame) = (rig.space(), rig.frame(0));
    let va = rig.va(0);
    let take = || {
        let (seen, flush) = space.pmap.take_usage(va, Usage::all());
        flush.wait();
        seen
    };
    space.enter(va, FrameRun::one(frame), Prot::RW);
    for round in 0..3 {
        space.store(va, round);
        let seen = take();
        hold!(
            rig,
            seen == Usage::all(),
            "round {round}: {seen:?} after a store"
        );
        let again = take();
        let gone = agrees::<M>(again, Usage::empty());
        hold!(rig, gone, "round {round}: {again:?} was given twice");
        space.load(va);
        let seen = take();
        let right = agrees::<M>(seen, Usage::REFERENCED);
        hold!(rig, right, "round {round}: {seen:?} after a load");
    }
    let (seen, flush) = space.pmap.take_usage(rig.va(1), Usage::all());
    flush.wait();
    hold!(
        rig,
        seen.is_empty(),
        "{seen:?} of a page that is not mapped"
    );
    space.end();
}

/// `take_usage` leaves the bits that were not named.
pub fn only_the_named_bits_are_taken<M: Probe>(rig: &Rig<'_, M>) {
    let (space, frame) = (rig.space(), rig.frame(0));
    let va = rig.va(0);
    space.enter(va, FrameRun::one(frame), Prot::RW);
    space.store(va, 1);
    let (seen, flush) = space.pmap.take_usage(va, Usage::REFERENCED);
    flush.wait();
    hold!(
        rig,
        seen == Usage::REFERENCED,
        "{seen:?} was given for REFERENCED"
    );
    let (seen, flush) = space.pmap.take_usage(va, Usage::MODIFIED);
    flush.wait();
    hold!(
        rig,
        seen == Usage::MODIFIED,
        "{seen:?} was given for MODIFIED"
    );
    space.end();
}

/// A removed or replaced translation tells of the use that was not taken.
pub fn remove_and_replace_tell_of_use<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), rig.frames(3, 0));
    space.enter(rig.va(0), run, Prot::RW);
    space.load(rig.va(1));
    space.store(rig.va(2), 1);
    let done = |va: VirtAddr| match va {
        va if va == rig.va(1) => Usage::REFERENCED,
        va if va == rig.va(2) => Usage::all(),
        _ => Usage::empty(),
    };
    let check = &mut |r: crate::Removed| {
        let right = agrees::<M>(r.usage, done(r.va));
        hold!(rig, right, "{r:?} where {:?} was done", done(r.va));
    };
    let other = FrameRun::one(rig.frame(0));
    space.enter_telling(rig.va(2), other, Prot::READ, Kind::Managed, check);
    let fresh = space.pmap.extract(rig.va(2)).map(|t| t.usage);
    let right = fresh.is_some_and(|u| agrees::<M>(u, Usage::empty()));
    hold!(rig, right, "the new translation begins with {fresh:?}");
    space.remove(rig.range(rig.va(0), 2), check);
    space.end();
}

/// Lowering a translation loses nothing of its usage.
pub fn protect_keeps_use<M: Probe>(rig: &Rig<'_, M>) {
    let (space, frame) = (rig.space(), rig.frame(0));
    let va = rig.va(0);
    space.enter(va, FrameRun::one(frame), Prot::RW);
    space.store(va, 1);
    for prot in [Prot::READ, Prot::NONE] {
        space.pmap.protect(rig.range(va, 1), prot).wait();
        let seen = space.pmap.extract(va).map(|t| t.usage);
        hold!(
            rig,
            seen == Some(Usage::all()),
            "{seen:?} after lowering to {prot}"
        );
    }
    space.end();
}

/// Entering the same frame again tells of the store before it, and the store after it is seen.
pub fn a_store_after_entering_again_is_seen<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), FrameRun::one(rig.frame(0)));
    let va = rig.va(0);
    space.enter(va, run, Prot::RW);
    space.store(va, 1);
    let mut told = Usage::empty();
    let tell = &mut |r: crate::Removed| told = r.usage;
    space.enter_telling(va, run, Prot::ALL, Kind::Managed, tell);
    hold!(
        rig,
        told == Usage::all(),
        "{told:?} was told of a page that was written"
    );
    space.store(va, 2);
    let seen = space.pmap.extract(va).map(|t| t.usage);
    let right = seen.is_some_and(|seen| seen.contains(Usage::MODIFIED));
    hold!(rig, right, "{seen:?} after the second store");
    space.end();
}
