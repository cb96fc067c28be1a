//! The core on this machine's page tables.

use super::{RANGE, check, load, map, page, small_vm, space, spare_frames, store};
use crate::machine::Bare;
use bsdvm::{FaultError, Memory, Prot, VirtRange};

fn range(at: bsdvm::VirtAddr, pages: u64) -> VirtRange {
    match VirtRange::from_len(at, pages * 4096) {
        Some(range) => range,
        None => panic!("a range that wraps"),
    }
}

/// Pages are zero at first and keep what is stored, each its own.
pub(super) fn zero_fill() {
    let vm = small_vm();
    let before = vm.counters();
    let own = space(vm);
    let at = map(own, 16 * 4096, Prot::RW);
    for i in 0..16 {
        assert_eq!(load(own, page(at, i)), Ok(0));
        assert_eq!(store(own, page(at, i), i as u8 + 1), Ok(()));
    }
    for i in 0..16 {
        assert_eq!(load(own, page(at, i)), Ok(i as u8 + 1));
    }
    assert_eq!(vm.counters().zero_fill - before.zero_fill, 16);
    check(vm);
    own.release();
    assert_eq!(vm.counters().objects, before.objects);
}

/// After a fork each side sees its own stores only, however far the other's translations were
/// remembered.
pub(super) fn fork_copies_on_write() {
    let vm = small_vm();
    let before = vm.counters();
    let own = space(vm);
    let at = map(own, 3 * 4096, Prot::RW);
    (0..3).for_each(|i| assert_eq!(store(own, page(at, i), 1), Ok(())));
    let child = match own.fork() {
        Ok(id) => vm.space(id),
        Err(e) => panic!("no fork: {e:?}"),
    };
    assert_eq!(store(own, at, 2), Ok(()));
    assert_eq!(store(child, page(at, 1), 3), Ok(()));
    let seen = |s| [0, 1, 2].map(|i| load(s, page(at, i)));
    assert_eq!(seen(own), [Ok(2), Ok(1), Ok(1)]);
    assert_eq!(seen(child), [Ok(1), Ok(3), Ok(1)]);
    let copied = vm.counters().cow_copied - before.cow_copied;
    assert_eq!(copied, 2, "pages copied");
    check(vm);
    child.release();
    assert_eq!(store(own, page(at, 2), 4), Ok(()));
    own.release();
    assert_eq!(vm.counters().objects, before.objects);
}

/// What was removed cannot be reached, and its neighbours can.
pub(super) fn removed_is_gone() {
    let vm = small_vm();
    let own = space(vm);
    let at = map(own, 3 * 4096, Prot::RW);
    (0..3).for_each(|i| assert_eq!(store(own, page(at, i), 7), Ok(())));
    assert_eq!(own.remove(range(page(at, 1), 1)), Ok(()));
    assert_eq!(load(own, page(at, 1)), Err(FaultError::InvalidAddress));
    assert_eq!(load(own, at), Ok(7));
    assert_eq!(load(own, page(at, 2)), Ok(7));
    check(vm);
    own.release();
}

/// Removing many pages that lie apart, more than a flush lists one by one, leaves none behind.
pub(super) fn many_removed_pages_are_gone() {
    let vm = small_vm();
    let own = space(vm);
    let at = map(own, 64 * 4096, Prot::RW);
    let apart = || (0..64).step_by(2);
    apart().for_each(|i| assert_eq!(store(own, page(at, i), 7), Ok(())));
    assert_eq!(own.remove(range(at, 64)), Ok(()));
    for i in apart() {
        assert_eq!(load(own, page(at, i)), Err(FaultError::InvalidAddress));
    }
    check(vm);
    own.release();
}

/// A protection that was lowered holds at once, and gives way when it is raised again.
pub(super) fn protection_holds() {
    let vm = small_vm();
    let own = space(vm);
    let at = map(own, 4096, Prot::RW);
    assert_eq!(store(own, at, 7), Ok(()));
    assert_eq!(own.protect(range(at, 1), Prot::READ), Ok(()));
    assert_eq!(store(own, at, 8), Err(FaultError::Protection));
    assert_eq!(load(own, at), Ok(7));
    assert_eq!(own.protect(range(at, 1), Prot::NONE), Ok(()));
    assert_eq!(load(own, at), Err(FaultError::Protection));
    assert_eq!(own.protect(range(at, 1), Prot::RW), Ok(()));
    assert_eq!(store(own, at, 8), Ok(()));
    assert_eq!(load(own, at), Ok(8));
    check(vm);
    own.release();
}

/// A translation may go at any moment: the next access brings it back, with what was there.
pub(super) fn translations_come_back() {
    let vm = small_vm();
    let own = space(vm);
    let at = map(own, 8 * 4096, Prot::RW);
    (0..8).for_each(|i| assert_eq!(store(own, page(at, i), i as u8), Ok(())));
    own.drop_translations(RANGE);
    assert_eq!(own.resident(), 0);
    for i in 0..8 {
        assert_eq!(load(own, page(at, i)), Ok(i as u8));
    }
    assert_eq!(own.resident(), 8);
    check(vm);
    own.release();
}

/// Every frame that the machine offers and the VM does not have is memory of its own: each tells
/// its number again after all were written.
pub(super) fn all_memory_is_reachable() {
    let frames = || spare_frames().map(bsdvm::Frame);
    assert!(frames().len() > 10_000, "most of the memory");
    frames().for_each(|f| Bare.write(f, 4088, &u64::from(f.0).to_ne_bytes()));
    for frame in frames() {
        let mut bytes = [0; 8];
        Bare.read(frame, 4088, &mut bytes);
        assert_eq!(u64::from_ne_bytes(bytes), u64::from(frame.0), "{frame:?}");
    }
}
