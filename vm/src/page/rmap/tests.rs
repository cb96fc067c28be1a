use super::*;
use bsdvm_sim::Sim;

type M = Sim<12>;

fn range(first: u64, last: u64) -> VirtRange {
    VirtRange::new(VirtAddr(first), VirtAddr(last)).unwrap()
}

fn space(number: u32) -> SpaceHandle {
    Handle::from_raw(number).unwrap()
}

/// 24 bits of space and 40 bits of a signed page number: one more of either is refused.
#[test]
fn what_a_mapping_can_say_is_checked() {
    const HALF: u64 = 1 << 51;
    let most = space((1 << 24) - 1);
    assert!(can_record::<M>(most, range(0, HALF)));
    assert!(!can_record::<M>(space(1 << 24), range(0, HALF)));
    assert!(!can_record::<M>(most, range(0, HALF + 4096)));
    assert!(can_record::<M>(most, range(HALF.wrapping_neg(), u64::MAX)));
    assert!(!can_record::<M>(
        most,
        range(HALF.wrapping_neg() - 4096, u64::MAX)
    ));
    for va in [0, 0x1000, HALF - 4096, HALF.wrapping_neg(), u64::MAX - 4095] {
        let mapping = Mapping {
            space: most,
            va: VirtAddr(va),
        };
        assert_eq!(unpack::<M>(pack::<M>(mapping)), Some(mapping));
    }
}
