use super::*;
use crate::object::ObjectId;
use crate::{Config, Inherit, Mapping, Placement, Prot, Sharing};
use bsdvm_machine::{VirtAddr, VirtRange};
use bsdvm_sim::{Sim, SimConfig};

/// A caller that takes reference after reference is refused while there is room for those of the
/// core: mapping, clipping and fork go on, and nothing ends early.
#[test]
fn a_reference_count_does_not_overflow() {
    let vm = Vm::new(Sim::<12>::new(SimConfig::default()), Config::default()).unwrap();
    let id = vm.object_create_anonymous(4 * 4096).unwrap();
    let (handle, object) = (id.0, vm.object(id));
    object.write(0, &[7]).unwrap();
    vm.object_rec(handle)
        .refs
        .store(MOST_OF_CALLERS - 1, Ordering::Relaxed);
    assert!(object.reference());
    assert!(!object.reference(), "the count is full for callers");
    let range = VirtRange::new(VirtAddr(0x10_0000), VirtAddr(0x20_0000)).unwrap();
    let space = vm.space(vm.space_create(range).unwrap());
    let what = Mapping {
        inherit: Inherit::Share,
        ..Mapping::object(ObjectId(handle), 0, Sharing::Shared, Prot::RW)
    };
    space
        .map(4 * 4096, Placement::At(range.start()), what)
        .unwrap();
    let second = VirtRange::from_len(VirtAddr(0x10_1000), 4096).unwrap();
    space.protect(second, Prot::READ).unwrap();
    let child = vm.space(space.fork().unwrap());
    assert_eq!(
        object.references(),
        MOST_OF_CALLERS + 6,
        "two maps with three entries each"
    );
    space.release();
    child.release();
    assert_eq!(object.references(), MOST_OF_CALLERS);
    let mut seen = [0];
    object.read(0, &mut seen).unwrap();
    assert_eq!(seen, [7]);
    vm.object_rec(handle).refs.store(1, Ordering::Relaxed);
    object.release();
    vm.check().unwrap();
    assert_eq!(vm.frames_in_use(), 0);
}
