//! Contents given up.

use super::*;

#[test]
fn discard_above_a_shadowed_page_never_brings_older_data_back() {
    for paged_out in [false, true] {
        let s = Stage::new(256);
        let parent = s.space();
        anon(parent, 0, 4);
        for page in 0..4 {
            s.store(parent, 0, page, 1);
        }
        let child = s.fork(parent.id());
        s.store(parent, 0, 1, 2);
        s.store(child, 1, 1, 3);
        s.store(child, 1, 2, 3);
        if paged_out {
            s.page_out_all();
        }
        child.discard(pages(1, 2)).unwrap();
        check(s.vm);
        assert_eq!([0, 1, 2, 3].map(|p| s.load(child, 1, p)), [1, 0, 0, 1]);
        assert_eq!([0, 1, 2, 3].map(|p| s.load(parent, 0, p)), [1, 2, 1, 1]);
        parent.discard(pages(1, 1)).unwrap();
        check(s.vm);
        assert_eq!([0, 1, 2, 3].map(|p| s.load(parent, 0, p)), [1, 0, 1, 1]);
        // Nor when the chain becomes shorter.
        parent.release();
        check(s.vm);
        assert_eq!([0, 1, 2, 3].map(|p| s.load(child, 1, p)), [1, 0, 0, 1]);
        child.discard(pages(0, 4)).unwrap();
        assert_eq!([0, 1, 2, 3].map(|p| s.load(child, 1, p)), [0; 4]);
        s.end(&[child], &[]);
    }
}

#[test]
fn discard_of_a_private_copy_shows_the_file_again_and_no_older_copy() {
    let s = Stage::new(256);
    let file = s.file(2);
    let parent = s.space();
    map(
        parent,
        0,
        2,
        Mapping::object(file, 0, Sharing::Private, Prot::RW),
    );
    s.store(parent, 0, 0, 1);
    let child = s.fork(parent.id());
    s.store(child, 1, 0, 2);
    child.discard(pages(0, 1)).unwrap();
    check(s.vm);
    assert_eq!((s.load(child, 1, 0), s.load(parent, 0, 0)), (word(0), 1));
    s.end(&[child, parent], &[file]);
}

#[test]
fn discard_during_a_page_in_leaves_zeroes() {
    let s = Stage::new(256);
    let space = s.space();
    anon(space, 0, 1);
    put(space, 0, 1);
    s.page_out_all();
    s.in_swap_read(move || space.discard(pages(0, 1)).unwrap());
    assert_eq!(s.load(space, 0, 0), 0);
    check(s.vm);
    assert_eq!(s.vm.counters().swap_used, 0);
    s.end(&[space], &[]);
}

#[test]
fn discard_during_the_write_of_a_page_frees_its_slot() {
    let s = Stage::new(256);
    let space = s.space();
    anon(space, 0, 1);
    put(space, 0, 1);
    s.in_swap_write(move || space.discard(pages(0, 1)).unwrap());
    s.page_out_all();
    check(s.vm);
    assert_eq!(s.vm.counters().swap_used, 0);
    assert_eq!(s.load(space, 0, 0), 0);
    s.end(&[space], &[]);
}
