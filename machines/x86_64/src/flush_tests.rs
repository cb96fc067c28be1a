use super::*;

fn page(i: u64) -> VirtAddr {
    VirtAddr(i * PAGE.bytes())
}

#[test]
fn pages_that_follow_each_other_are_one_range() {
    let mut f = Flushes::default();
    assert!(f.is_empty());
    (3..9).for_each(|i| f.add_page(1, page(i)));
    let range = VirtRange::new(page(3), page(9)).unwrap();
    assert!(f.list().eq([Forget::Pages { pmap: 1, range }]));
    f.add_page(2, page(9));
    assert_eq!(f.list().count(), 2);
}

#[test]
fn a_full_list_becomes_all_of_a_pmap_and_then_everything() {
    let mut f = Flushes::default();
    (0..RANGES as u64).for_each(|i| f.add_page(1, page(2 * i)));
    assert_eq!(f.list().count(), RANGES);
    f.add_page(1, page(100));
    assert!(f.list().eq([Forget::Pmap(1)]));
    f.add_page(1, page(200));
    assert_eq!(f.list().count(), 1, "all of it is in the list already");
    (2..9).for_each(|pmap| f.add_page(pmap, page(0)));
    assert!(!f.everything());
    f.add_page(9, page(0));
    assert!(f.everything() && !f.is_empty());
    f.add_page(10, page(0));
    assert_eq!(f.list().count(), 0);
}

#[test]
fn joined_lists_hold_what_both_held() {
    let (mut a, mut b) = (Flushes::default(), Flushes::default());
    a.add_page(1, page(1));
    b.add_page(2, page(2));
    b.add_tables(3);
    a.join(&b);
    assert_eq!(a.list().count(), 3);
    assert!(a.tables());
}
