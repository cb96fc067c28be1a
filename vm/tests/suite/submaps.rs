//! Submaps (M06): a range that another map says the contents of.

use crate::common::{
    Files, PAGE, anon, at, check, check_empty, draw, get, map_at, pages, put, space, touch, vm,
};
use bsdvm::{Access, FaultError, MapError, Mapping, Placement, Prot, Sharing, SpaceError};

#[test]
fn m06_lookups_pass_through_a_submap() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 12);
    put(s, 0, 1);
    map_at(s, 16, 8, Mapping::anonymous(Prot::NONE)).unwrap();
    let sub = vm.submap_create(s.id(), pages(18, 4)).unwrap();
    s.submap(pages(18, 4), sub).unwrap();
    assert_eq!(draw(s, 25), "AAAAAAAAAAAA....BBCCCCDD.");
    assert_eq!(s.entry(at(18)).unwrap().submap, Some(sub));
    assert_eq!(vm.space(sub).references(), 2);

    // What is there is the submap's to say: contents, protection, and that there is nothing.
    let below = vm.space(sub);
    assert_eq!(
        s.fault(at(18), Access::Read),
        Err(FaultError::InvalidAddress)
    );
    let place = Placement::FirstFit {
        from: at(0),
        align: PAGE,
    };
    let got = below
        .map(2 * PAGE, place, Mapping::anonymous(Prot::RW))
        .unwrap();
    assert_eq!(got, at(18), "a submap is an allocator of its own");
    put(s, 19, 7);
    assert_eq!(get(below, 19), 7);
    assert_eq!(
        touch(&vm, s.id(), 0, at(19), None),
        Ok(7),
        "one pmap translates both"
    );
    assert_eq!(below.resident(), s.resident());
    below.protect(pages(18, 2), Prot::READ).unwrap();
    assert_eq!(s.fault(at(18), Access::Write), Err(FaultError::Protection));
    check(&vm);
    below.remove(pages(18, 2)).unwrap();
    assert_eq!(
        s.fault(at(19), Access::Read),
        Err(FaultError::InvalidAddress)
    );
    check(&vm);
    below.release();
    s.release();
    check_empty(&vm);
}

#[test]
fn m06_what_will_not_do_is_refused_before_anything_is_clipped() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 8);
    put(s, 3, 1);
    anon(s, 12, 4);
    let files = Files::leak();
    let file = vm.object_create(files.pager(0), 4 * PAGE).unwrap();
    map_at(
        s,
        20,
        4,
        Mapping::object(file, 0, Sharing::Private, Prot::READ),
    )
    .unwrap();
    let before = draw(s, 32);
    let sub = |first, count| vm.submap_create(s.id(), pages(first, count)).unwrap();
    for (first, count, why) in [
        (2, 2, MapError::InvalidArgument), // it has an object
        (14, 4, MapError::Hole),
        (30, 2, MapError::Hole),
        (20, 4, MapError::InvalidArgument), // copied on write
    ] {
        let made = sub(first, count);
        assert_eq!(s.submap(pages(first, count), made), Err(why), "{first}");
        assert_eq!(draw(s, 32), before);
        vm.space(made).release();
    }
    // A map of another range, of another space, or this map itself.
    let other = sub(12, 2);
    assert_eq!(
        s.submap(pages(12, 4), other),
        Err(MapError::InvalidArgument)
    );
    let stranger = space(&vm, 32);
    anon(stranger, 12, 4);
    assert_eq!(
        stranger.submap(pages(12, 2), other),
        Err(MapError::InvalidArgument)
    );
    assert_eq!(
        s.submap(pages(0, 32), s.id()),
        Err(MapError::InvalidArgument)
    );
    assert_eq!(
        vm.submap_create(s.id(), pages(30, 4)),
        Err(SpaceError::NoResources)
    );
    assert_eq!(draw(s, 32), before);

    // A map that covers all of this one could come to hold it: a circle without an end.
    let whole = space(&vm, 32);
    map_at(whole, 0, 32, Mapping::anonymous(Prot::RW)).unwrap();
    let twin = vm.submap_create(whole.id(), pages(0, 32)).unwrap();
    assert_eq!(
        whole.submap(pages(0, 32), twin),
        Err(MapError::InvalidArgument)
    );
    vm.space(twin).release();
    whole.release();
    check(&vm);
    stranger.release();
    vm.space(other).release();
    s.release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn m06_a_submap_stays_and_is_not_forked() {
    let vm = vm(1000);
    let s = space(&vm, 32);
    anon(s, 0, 4);
    map_at(s, 8, 4, Mapping::anonymous(Prot::RW)).unwrap();
    let charged = vm.counters().charged_pages;
    let sub = vm.submap_create(s.id(), pages(8, 4)).unwrap();
    s.submap(pages(8, 4), sub).unwrap();
    assert_eq!(
        vm.counters().charged_pages,
        charged - 4,
        "nothing is promised for it"
    );
    let below = vm.space(sub);
    anon(below, 8, 2);
    put(s, 8, 5);
    let refused = Err(MapError::Submap);
    let range = pages(6, 4);
    let replace = Placement::Replace(at(9));
    let what = Mapping::anonymous(Prot::RW);
    assert_eq!(s.remove(range), refused);
    assert_eq!(s.map(PAGE, replace, what).map(drop), refused);
    assert_eq!(s.protect(range, Prot::NONE), refused);
    assert_eq!(s.inherit(range, bsdvm::Inherit::None), refused);
    assert_eq!(s.discard(range), refused);
    assert_eq!(s.wire(pages(8, 1)), refused);
    assert_eq!(s.wire_quick(pages(8, 1)), refused);
    assert_eq!(s.unwire(pages(8, 1)), refused);
    assert_eq!(s.clean(pages(8, 1), false), refused);
    assert_eq!(
        s.move_(pages(8, 1), PAGE, Placement::At(at(20))).map(drop),
        refused
    );
    assert_eq!(s.move_(pages(0, 1), PAGE, replace).map(drop), refused);
    assert_eq!(s.fork().map(drop), Err(SpaceError::Submap));
    assert_eq!(draw(s, 13), "AAAA....BBBB.");
    assert_eq!(get(s, 8), 5);
    check(&vm);

    // It goes when the space ends; whoever refers to it has an empty map then.
    s.release_exit();
    assert_eq!(below.references(), 1);
    check(&vm);
    below.release();
    s.unhold();
    check_empty(&vm);
}
