//! Chains stay short, objects stay few, and no page is kept that nobody can reach (O02, law 8).

use crate::common::{
    Files, MemorySwap, PAGE, anon, at, check, check_empty, get, pages, put, space, vm,
};
use bsdvm::{Inherit, Mapping, Placement, Prot, Sharing};

/// A process that forks, lets the child write and go, and writes itself, over and over.
#[test]
fn o02_a_process_that_forks_in_a_loop_keeps_one_object() {
    let vm = vm(2000);
    let parent = space(&vm, 64);
    anon(parent, 0, 16);
    for page in 0..16 {
        put(parent, page, page);
    }
    for round in 0..200 {
        let child = vm.space(parent.fork().unwrap());
        put(child, round % 16, 1000 + round);
        put(parent, (round + 3) % 16, round);
        child.release();
        check(&vm);
        let c = vm.counters();
        assert_eq!(c.objects, 1, "round {round}");
        assert_eq!(vm.frames_in_use(), 16, "round {round}");
    }
    parent.release();
    check_empty(&vm);
}

/// The parent goes, the child stays: a shell that execs, a daemon that detaches.
#[test]
fn o02_a_line_of_descendants_keeps_one_object() {
    let vm = vm(2000);
    let mut last = space(&vm, 64);
    anon(last, 0, 8);
    for round in 0..200 {
        for page in 0..8 {
            put(last, page, round * 10 + page);
        }
        let child = vm.space(last.fork().unwrap());
        last.release();
        last = child;
        check(&vm);
        assert!(vm.counters().objects <= 2, "round {round}");
    }
    for page in 0..8 {
        assert_eq!(get(last, page), 199 * 10 + page);
    }
    last.release();
    check_empty(&vm);
}

/// A family of 100, all alive, each the child of the one before and each writing a page.
#[test]
fn o02_a_living_family_of_100_is_bounded() {
    let vm = vm(8000);
    let mut family = vec![space(&vm, 64)];
    anon(family[0], 0, 8);
    for page in 0..8 {
        put(family[0], page, page);
    }
    for n in 1..100u64 {
        let child = vm.space(family[n as usize - 1].fork().unwrap());
        put(child, n % 8, n * 100);
        put(family[n as usize - 1], (n + 4) % 8, n);
        family.push(child);
        let c = vm.counters();
        assert!(
            c.objects <= 2 * (n + 1),
            "{} objects for {} spaces",
            c.objects,
            n + 1
        );
    }
    check(&vm);
    // Whoever looks through the longest chain still sees the right thing.
    assert_eq!(get(family[99], 99 % 8), 9900);
    while let Some(s) = family.pop() {
        s.release();
        check(&vm);
    }
    check_empty(&vm);
}

/// One parent with 100 living children, writing between forks.
#[test]
fn o02_a_parent_of_100_living_children_is_bounded() {
    let vm = vm(8000);
    let parent = space(&vm, 64);
    anon(parent, 0, 8);
    let mut children = Vec::new();
    for n in 0..100u64 {
        put(parent, n % 8, n + 1);
        children.push(vm.space(parent.fork().unwrap()));
        assert!(vm.counters().objects <= 2 * (n + 2));
    }
    check(&vm);
    for (n, child) in children.iter().enumerate() {
        assert_eq!(get(*child, n as u64 % 8), n as u64 + 1);
    }
    // The middle ones go first.
    for n in (30..70).chain(0..30).chain(70..100) {
        children[n].release();
        check(&vm);
    }
    assert!(vm.counters().objects <= 1, "{}", vm.counters().objects);
    assert!(vm.frames_in_use() <= 8, "a page that nobody can reach");
    parent.release();
    check_empty(&vm);
}

/// Both sides of a fork write everything: the page behind them goes when the second one hides it.
#[test]
fn o02_a_page_that_both_hide_goes() {
    let vm = vm(2000);
    let parent = space(&vm, 64);
    anon(parent, 0, 16);
    for page in 0..16 {
        put(parent, page, page);
    }
    let child = vm.space(parent.fork().unwrap());
    for page in 0..16 {
        put(parent, page, 100 + page);
        put(child, page, 200 + page);
        check(&vm);
    }
    assert_eq!(vm.frames_in_use(), 32, "a page behind both is kept");
    for page in 0..16 {
        assert_eq!(
            (get(parent, page), get(child, page)),
            (100 + page, 200 + page)
        );
    }
    child.release();
    parent.release();
    check_empty(&vm);
}

/// A mapping of a file that is private, forked in a loop.
#[test]
fn o02_a_private_file_forked_in_a_loop_stays_short() {
    let vm = vm(2000);
    let files = Files::leak();
    let file = vm.object_create(files.pager(0), 8 * PAGE).unwrap();
    let parent = space(&vm, 64);
    parent
        .map(
            8 * PAGE,
            Placement::At(at(0)),
            Mapping::object(file, 0, Sharing::Private, Prot::RW),
        )
        .unwrap();
    for round in 0..100 {
        let child = vm.space(parent.fork().unwrap());
        put(child, round % 8, round);
        put(parent, (round + 1) % 8, round);
        child.release();
        check(&vm);
        assert!(vm.counters().objects <= 2, "the file and one shadow");
    }
    parent.release();
    vm.object(file).release();
    check_empty(&vm);
}

/// Swap goes with collapsed objects, in every order of ends.
#[test]
fn o02_swap_of_collapsed_objects_comes_back() {
    let vm = vm(2000);
    vm.swap_on(MemorySwap::leak(256)).unwrap();
    for order in [true, false] {
        let parent = space(&vm, 64);
        anon(parent, 0, 8);
        for page in 0..8 {
            put(parent, page, page);
        }
        let child = vm.space(parent.fork().unwrap());
        put(parent, 0, 50);
        put(child, 1, 60);
        for _ in 0..3 {
            vm.pageout_step(100);
        }
        assert_eq!(vm.counters().swap_used, 10);
        check(&vm);
        let (first, second) = if order {
            (parent, child)
        } else {
            (child, parent)
        };
        first.release();
        check(&vm);
        assert_eq!(vm.counters().swap_used, 8, "what nobody can reach is kept");
        assert_eq!(get(second, 0), if order { 0 } else { 50 });
        assert_eq!(get(second, 1), if order { 60 } else { 1 });
        assert_eq!(get(second, 5), 5);
        second.release();
        check_empty(&vm);
    }
}

/// Entries that grew over several parts of one object get their own at fork (S06), and removing
/// one frees its pages.
#[test]
fn s06_split_at_fork_lets_pages_go() {
    let vm = vm(2000);
    let parent = space(&vm, 64);
    anon(parent, 0, 12);
    for page in 0..12 {
        put(parent, page, page + 1);
    }
    // Three entries of one object.
    parent.protect(pages(4, 4), Prot::READ).unwrap();
    assert_eq!(vm.counters().objects, 1);
    let child = vm.space(parent.fork().unwrap());
    assert_eq!(vm.counters().objects, 3, "one for each entry");
    check(&vm);
    parent.remove(pages(0, 4)).unwrap();
    child.remove(pages(0, 4)).unwrap();
    check(&vm);
    assert_eq!(vm.counters().objects, 2);
    assert_eq!(vm.frames_in_use(), 8, "pages that nobody maps");
    for page in 4..12 {
        assert_eq!((get(parent, page), get(child, page)), (page + 1, page + 1));
    }
    child.release();
    parent.release();
    check_empty(&vm);
}

/// Ranges that are shared on purpose stay shared, however often the family forks.
#[test]
fn o02_shared_ranges_stay_shared_over_generations() {
    let vm = vm(2000);
    let mut family = vec![space(&vm, 64)];
    anon(family[0], 0, 4);
    put(family[0], 0, 1);
    family[0].inherit(pages(0, 4), Inherit::Share).unwrap();
    for n in 1..20u64 {
        let child = vm.space(family[n as usize - 1].fork().unwrap());
        family.push(child);
        put(family[n as usize / 2], 1, n);
        for s in &family {
            assert_eq!((get(*s, 0), get(*s, 1)), (1, n));
        }
        check(&vm);
        assert_eq!(vm.counters().objects, 1);
    }
    for s in family {
        s.release();
    }
    check_empty(&vm);
}

/// Each of a family writes a page that nobody else has written, and all stay alive: no object on
/// the way can be gone past, so at some depth what is behind is copied.
#[test]
fn o02_a_family_that_writes_one_page_each_stays_short() {
    const FAMILY: u64 = 40;
    let vm = crate::common::vm(4000);
    let first = crate::common::space(&vm, FAMILY);
    crate::common::anon(first, 0, FAMILY);
    (0..FAMILY).for_each(|page| crate::common::put(first, page, 1000 + page));
    let mut family = vec![first];
    for member in 1..FAMILY {
        let parent = family[family.len() - 1];
        let child = vm.space(parent.fork().unwrap());
        crate::common::put(child, member, member);
        family.push(child);
        crate::common::check(&vm);
    }
    for (member, space) in family.iter().enumerate() {
        for page in 0..FAMILY {
            let own = (1..=member as u64).contains(&page);
            let expected = if own { page } else { 1000 + page };
            assert_eq!(crate::common::get(*space, page), expected);
        }
    }
    family.iter().for_each(|space| space.release());
    crate::common::check_empty(&vm);
}
