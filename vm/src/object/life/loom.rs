//! The count of references in every interleaving of a few steps.

use super::{MOST_OF_CALLERS, add_reference, drop_reference};
use bsdvm_machine::sync::atomic::{AtomicU32, Ordering};
use loom::sync::Arc;
use loom::thread;

fn count(references: u32) -> Arc<AtomicU32> {
    let count = AtomicU32::new(references);
    // Loom knows it from its first use on.
    count.load(Ordering::Acquire);
    Arc::new(count)
}

#[test]
fn an_object_ends_once_and_is_not_brought_back() {
    loom::model(|| {
        let refs = count(1);
        let other = thread::spawn({
            let refs = refs.clone();
            // Somebody who knows the number, and has no reference.
            move || add_reference(&refs, MOST_OF_CALLERS) && drop_reference(&refs) == 1
        });
        let ended = drop_reference(&refs) == 1;
        let other_ended = other.join().unwrap();
        assert!(ended != other_ended, "one of them ends it");
        assert_eq!(refs.load(Ordering::Acquire), 0);
        assert!(!add_reference(&refs, MOST_OF_CALLERS), "it has ended");
    });
}

#[test]
fn a_full_count_is_not_passed() {
    loom::model(|| {
        let refs = count(MOST_OF_CALLERS - 1);
        let others = [0, 1].map(|_| {
            let refs = refs.clone();
            thread::spawn(move || add_reference(&refs, MOST_OF_CALLERS))
        });
        let taken = others.map(|other| other.join().unwrap());
        assert!(taken[0] != taken[1], "there was one to be had");
        assert_eq!(refs.load(Ordering::Acquire), MOST_OF_CALLERS);
    });
}
