use crate::object::ObjectId;
use crate::object::limbo::Limbo;
use crate::{Config, Mapping, Placement, Prot, Vm};
use bsdvm_machine::{VirtAddr, VirtRange};
use bsdvm_sim::{Sim, SimConfig};

/// A front that hides every page of the object behind it, which others still need, goes past it
/// to what is behind that.
#[test]
fn a_front_goes_past_what_it_hides() {
    let vm = Vm::new(Sim::<12>::new(SimConfig::default()), Config::default()).unwrap();
    let range = VirtRange::new(VirtAddr(0x10_0000), VirtAddr(0x20_0000)).unwrap();
    let at = |page: u64| VirtAddr(range.start().0 + page * 4096);
    let s = vm.space(vm.space_create(range).unwrap());
    s.map(2 * 4096, Placement::At(at(0)), Mapping::anonymous(Prot::RW))
        .unwrap();
    s.write(at(0), b"A").unwrap();
    s.write(at(1), b"A").unwrap();
    let front = || s.entry(at(0)).unwrap().object.unwrap();
    let behind = |object: ObjectId| vm.lock_object(object.0).backing.map(|b| ObjectId(b.object));
    let a = front();
    let first = vm.space(s.fork().unwrap());
    s.write(at(0), b"B").unwrap();
    let b = front();
    let second = vm.space(s.fork().unwrap());
    // The second child keeps `b` by a shadow of its own, which does not hide it.
    second.write(at(1), b"C").unwrap();
    s.write(at(1), b"D").unwrap();
    let c = front();
    assert_eq!((behind(c), behind(b)), (Some(b), Some(a)));
    vm.collapse(c.0, &mut Limbo::new(&vm));
    assert_eq!(behind(c), Some(b), "it does not hide page 0 of b");
    s.write(at(0), b"E").unwrap();
    vm.collapse(c.0, &mut Limbo::new(&vm));
    assert_eq!(behind(c), Some(a));
    vm.check().unwrap();
    let seen = |space: crate::Space<'_, Sim<12>>| {
        let mut bytes = [0; 2];
        space.read(at(0), &mut bytes[..1]).unwrap();
        space.read(at(1), &mut bytes[1..]).unwrap();
        bytes
    };
    assert_eq!(
        [seen(s), seen(first), seen(second)],
        [*b"ED", *b"AA", *b"BC"]
    );
    for space in [s, first, second] {
        space.release();
    }
    assert_eq!(vm.frames_in_use(), 0);
}
