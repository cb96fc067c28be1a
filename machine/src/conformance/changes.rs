//! Removing, lowering, copying and taking back.

use super::rig::hold;
use super::{Probe, Rig};
use crate::{Flush, Frame, FrameRun, Kind, Pmap, Prot};

/// `remove` tells about each translation once, in ascending order, across holes.
pub fn remove_tells_each_once_in_order<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), rig.frames(3, 0));
    let one = |i| FrameRun::one(run.get(i).unwrap_or_default());
    // Entered out of order, on both sides of a table boundary and with holes.
    let pages = [(-1, 1), (-40, 0), (600, 2)];
    for (i, n) in pages {
        space.enter(rig.va(i), one(n), Prot::READ);
    }
    let mut told = 0;
    space.remove(rig.range(rig.va(-50), 700), &mut |r| {
        let (i, n) = [pages[1], pages[0], pages[2]][told.min(2)];
        let right = r.va == rig.va(i) && r.frame == one(n).first && r.kind == Kind::Managed;
        hold!(rig, right && told < 3, "{r:?} was told as number {told}");
        told += 1;
    });
    hold!(rig, told == 3, "{told} of 3 translations were told");
    space.remove(rig.range(rig.va(-50), 700), &mut |r| {
        rig.fail(format_args!("{r:?} was told again"))
    });
    space.end();
}

/// `remove` takes what lies in its range and nothing beside it.
pub fn remove_leaves_the_rest<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), rig.frames(3, 70));
    space.enter(rig.va(0), run, Prot::READ);
    space.remove(rig.range(rig.va(1), 1), &mut |_| ());
    hold!(rig, space.load(rig.va(0)) == 70, "the page before changed");
    hold!(rig, space.load(rig.va(2)) == 72, "the page after changed");
    let middle = space.pmap.extract(rig.va(1));
    hold!(rig, middle.is_none(), "{middle:?} is left");
    space.remove(rig.range(rig.va(0), 0), &mut |_| {
        rig.fail(format_args!("an empty range"))
    });
    space.end();
}

/// After the flush no access reaches a removed page, even right after it was used.
pub fn removed_pages_cannot_be_reached<M: Probe>(rig: &Rig<'_, M>) {
    let (space, frame) = (rig.space(), rig.frame(5));
    let va = rig.va(0);
    space.enter(va, FrameRun::one(frame), Prot::RW);
    space.store(va, 6);
    space.remove(rig.range(va, 1), &mut |_| ());
    hold!(
        rig,
        rig.machine.load(&space.pmap, va).is_err(),
        "the page can be read"
    );
    hold!(
        rig,
        rig.machine.store(&space.pmap, va, 7).is_err(),
        "the page can be written"
    );
    hold!(rig, rig.byte(frame) == 6, "the frame was written");
    space.end();
}

/// After the flush every access reaches the new frame, even right after the old one was used.
pub fn a_flush_ends_the_use_of_a_replaced_frame<M: Probe>(rig: &Rig<'_, M>) {
    let (space, old, new) = (rig.space(), rig.frame(1), rig.frame(2));
    let va = rig.va(0);
    space.enter(va, FrameRun::one(old), Prot::RW);
    space.store(va, 9);
    space.enter_telling(va, FrameRun::one(new), Prot::RW, Kind::Managed, &mut |_| ());
    hold!(rig, space.load(va) == 2, "the old frame is read");
    space.store(va, 3);
    hold!(
        rig,
        (rig.byte(old), rig.byte(new)) == (9, 3),
        "the old frame was written"
    );
    space.end();
}

/// The work of two flushes, of two pmaps, can be waited for at once; a default flush is done.
pub fn flushes_join<M: Probe>(rig: &Rig<'_, M>) {
    let (a, b) = (rig.space(), rig.space());
    let va = rig.va(0);
    let nothing = <M::Pmap as Pmap>::Flush::default();
    hold!(rig, nothing.is_done(), "a default flush has work");
    let mut all = nothing;
    for space in [&a, &b] {
        space.enter(va, FrameRun::one(rig.frame(1)), Prot::RW);
        space.store(va, 2);
        all.join(space.pmap.remove(rig.range(va, 1), &mut |_| ()));
    }
    all.wait();
    for space in [&a, &b] {
        hold!(
            rig,
            rig.machine.load(&space.pmap, va).is_err(),
            "the page can be read"
        );
    }
    a.end();
    b.end();
}

/// `protect` takes rights away, from used translations too, and from its range only.
pub fn protect_lowers<M: Probe>(rig: &Rig<'_, M>) {
    let (space, run) = (rig.space(), rig.frames(3, 1));
    space.enter(rig.va(0), run, Prot::RW);
    for i in 0..3 {
        space.store(rig.va(i), 8);
    }
    space
        .pmap
        .protect(rig.range(rig.va(1), 1), Prot::READ)
        .wait();
    space.allows_just(rig.va(0), Prot::RW);
    space.allows_just(rig.va(1), Prot::READ);
    space.allows_just(rig.va(2), Prot::RW);
    let prot = space.pmap.extract(rig.va(1)).map(|t| t.prot);
    hold!(rig, prot == Some(Prot::READ), "extract sees {prot:?}");
    space.end();
}

/// `protect` gives no right that a translation does not have.
pub fn protect_never_raises<M: Probe>(rig: &Rig<'_, M>) {
    let (space, frame) = (rig.space(), rig.frame(1));
    let va = rig.va(0);
    space.enter(va, FrameRun::one(frame), Prot::READ);
    space.pmap.protect(rig.range(va, 1), Prot::ALL).wait();
    space.allows_just(va, Prot::READ);
    space.pmap.protect(rig.range(va, 1), Prot::NONE).wait();
    space.pmap.protect(rig.range(va, 1), Prot::RW).wait();
    space.allows_just(va, Prot::NONE);
    // Less of one right does not mean more of another.
    space.enter_telling(
        va,
        FrameRun::one(frame),
        Prot::RX,
        Kind::Managed,
        &mut |_| (),
    );
    space.pmap.protect(rig.range(va, 1), Prot::RW).wait();
    space.allows_just(va, Prot::READ);
    space.end();
}

/// Lowered to `NONE`, a translation allows nothing and is still there.
pub fn protect_none_keeps_translations<M: Probe>(rig: &Rig<'_, M>) {
    let (space, frame) = (rig.space(), rig.frame(1));
    let va = rig.va(0);
    space.enter(va, FrameRun::one(frame), Prot::ALL);
    space.store(va, 2);
    space.pmap.protect(rig.range(va, 1), Prot::NONE).wait();
    space.allows_just(va, Prot::NONE);
    let t = space.pmap.extract(va);
    let kept = t.is_some_and(|t| t.frame == frame && t.prot == Prot::NONE);
    hold!(
        rig,
        kept && space.pmap.resident() == 1,
        "extract sees {t:?}"
    );
    let mut told = None;
    space.remove(rig.range(va, 1), &mut |r| told = Some(r.frame));
    hold!(rig, told == Some(frame), "remove tells {told:?}");
    space.end();
}

/// What `copy` enters shows the frames of the source, without the right to write; what it does
/// not tell of is not there.
pub fn a_copy_cannot_be_written<M: Probe>(rig: &Rig<'_, M>) {
    let (from, to, run) = (rig.space(), rig.space(), rig.frames(3, 80));
    from.enter(rig.va(0), run, Prot::RW);
    // A table there, so that a machine which copies only what fits has room.
    to.enter(rig.va(5), FrameRun::one(rig.frame(0)), Prot::READ);
    let mut told = 0u64;
    let range = rig.range(rig.va(0), 3);
    let entered = &mut |va, frame: Frame| {
        told += 1;
        let source = from.pmap.extract(va).map(|t| t.frame);
        hold!(
            rig,
            source == Some(frame),
            "{frame:?} at {va:?} is not the source's"
        );
    };
    to.pmap.copy(&from.pmap, range, entered).wait();
    hold!(
        rig,
        to.pmap.resident() == 1 + told,
        "{told} told, others entered"
    );
    to.pmap.scan(range, &mut |va, t| {
        let source = from.pmap.extract(va).map(|t| t.frame);
        let right = Some(t.frame) == source && !t.prot.contains(Prot::WRITE);
        hold!(rig, right, "{t:?} at {va:?}");
    });
    for va in rig.page().pages(range) {
        let store = rig.machine.store(&to.pmap, va, 1);
        hold!(rig, store.is_err(), "the copy can be written at {va:?}");
    }
    from.end();
    to.end();
}

/// With nothing mapped, every donated frame comes back, used or not, each once.
pub fn reclaim_gives_all_frames_back<M: Probe>(rig: &Rig<'_, M>) {
    let space = rig.space();
    space.donate(2);
    for i in [0, -1, 5000, -5000] {
        space.enter(rig.va(i), FrameRun::one(rig.frame(0)), Prot::READ);
    }
    space.donate(1);
    // The count and the identity of each frame are looked at there.
    space.end();
}

/// `reclaim` with pages mapped leaves them usable, and more can be entered after it.
pub fn reclaim_leaves_what_is_mapped<M: Probe>(rig: &Rig<'_, M>) {
    let space = rig.space();
    space.enter(rig.va(0), FrameRun::one(rig.frame(7)), Prot::RW);
    space.enter(rig.va(5000), FrameRun::one(rig.frame(8)), Prot::RW);
    hold!(rig, space.load(rig.va(5000)) == 8, "a wrong byte");
    space.remove(rig.range(rig.va(5000), 1), &mut |_| ());
    space.reclaim();
    hold!(
        rig,
        space.load(rig.va(0)) == 7,
        "the page that stayed is damaged"
    );
    hold!(
        rig,
        rig.machine.load(&space.pmap, rig.va(5000)).is_err(),
        "the page came back"
    );
    space.enter(rig.va(5000), FrameRun::one(rig.frame(9)), Prot::RW);
    hold!(
        rig,
        space.load(rig.va(5000)) == 9,
        "the page cannot be entered again"
    );
    space.end();
}
