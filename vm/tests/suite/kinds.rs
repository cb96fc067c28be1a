//! Kinds of objects: what each shows, where it goes, what is refused. A name begins with the row
//! of the capability that it shows.

use crate::common::scripted::{Stage, frame_of, is_resident, until};
use crate::common::{
    Files, MemorySwap, PAGE, TestVm, anon, at, check, check_empty, get, map_at, pages, put, space,
    touch, vm,
};
use bsdvm::{
    Access, Config, DevicePage, FaultError, Faulted, Frame, Inherit, MapError, Mapping, MemoryAttr,
    ObjectError, ObjectId, ObjectKind, PageBytes, Pager, PagerError, PagerOps, Prot, Sharing, Vm,
};
use bsdvm_sim::{Sim, SimConfig};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A device that shows frames in a table.
#[derive(Default)]
struct Device {
    frames: Mutex<Vec<Option<Frame>>>,
    attr: Mutex<MemoryAttr>,
    asked: AtomicU64,
    closed: AtomicU64,
    on_ask: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Device {
    fn leak(frames: impl IntoIterator<Item = Frame>) -> &'static Device {
        Box::leak(Box::new(Device {
            frames: Mutex::new(frames.into_iter().map(Some).collect()),
            ..Device::default()
        }))
    }

    fn pager(&'static self) -> Pager {
        Pager {
            ops: self,
            cookie: 7,
        }
    }
}

impl PagerOps for Device {
    fn get(&self, _: u64, _: u64, _: &mut [&mut dyn PageBytes]) -> Result<usize, PagerError> {
        panic!("a device has no pages to read")
    }

    fn put(&self, _: u64, _: u64, _: &dyn PageBytes, _: usize) -> Result<(), PagerError> {
        panic!("a device has no pages to write")
    }

    fn device(&self, cookie: u64, offset: u64) -> Result<DevicePage, PagerError> {
        assert_eq!(cookie, 7);
        self.asked.fetch_add(1, Ordering::Relaxed);
        let frame = self.frames.lock().unwrap()[(offset / PAGE) as usize];
        let hook = self.on_ask.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        Ok(DevicePage {
            frame: frame.ok_or(PagerError::Io(6))?,
            attr: *self.attr.lock().unwrap(),
        })
    }

    fn closed(&self, cookie: u64) {
        assert_eq!(cookie, 7);
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// The first frame of the machine that the VM of [`vm_beside_device`] does not have.
const BEYOND: u32 = 1000;

/// A VM that leaves the machine's last eight frames to a device.
fn vm_beside_device() -> TestVm {
    let machine = Sim::new(SimConfig {
        frames: BEYOND + 8,
        cpus: 2,
        ..SimConfig::default()
    });
    let config = Config {
        frame_limit: Some(BEYOND),
        ..Config::default()
    };
    Vm::new(machine, config).unwrap()
}

fn device_frames() -> impl Iterator<Item = Frame> {
    (BEYOND..BEYOND + 4).map(Frame)
}

fn shared(object: ObjectId) -> Mapping {
    Mapping::object(object, 0, Sharing::Shared, Prot::RW)
}

#[test]
fn o01_a_device_shows_its_frames_and_has_no_pages() {
    let vm = vm_beside_device();
    let device = Device::leak(device_frames());
    *device.attr.lock().unwrap() = MemoryAttr::Uncached;
    let object = vm.object_create_device(device.pager(), 4 * PAGE).unwrap();
    assert_eq!(vm.object(object).kind(), ObjectKind::Device);
    let s = space(&vm, 64);
    map_at(s, 0, 4, shared(object)).unwrap();
    touch(&vm, s.id(), 0, at(1), Some(0x11)).unwrap();
    assert_eq!(frame_of(s, 1), Some(Frame(BEYOND + 1)));
    let mut bytes = [0; 8];
    bsdvm::Memory::read(vm.machine(), Frame(BEYOND + 1), 0, &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes), 0x11, "no copy lies between");
    assert_eq!(get(s, 1), 0x11);
    vm.object(object).write(2 * PAGE, &[5]).unwrap();
    assert_eq!(touch(&vm, s.id(), 1, at(2), None), Ok(5));
    assert_eq!(vm.object(object).resident_pages(), 0);
    assert!(!is_resident(s, 1));
    assert_eq!(vm.pageout_step(100), 0, "nothing of it can go");
    check(&vm);
    // Wiring, cleaning and discarding are nothing to it.
    s.wire(pages(0, 4)).unwrap();
    s.clean(pages(0, 4), true).unwrap();
    s.unwire(pages(0, 4)).unwrap();
    s.discard(pages(0, 4)).unwrap();
    assert_eq!(get(s, 1), 0x11);
    check(&vm);
    s.release();
    vm.object(object).release();
    assert_eq!(device.closed.load(Ordering::Relaxed), 1);
    check_empty(&vm);
}

#[test]
fn o01_the_attribute_of_a_device_is_in_its_translations() {
    let vm = vm_beside_device();
    let device = Device::leak(device_frames());
    *device.attr.lock().unwrap() = MemoryAttr::WriteCombining;
    let object = vm.object_create_device(device.pager(), PAGE).unwrap();
    let s = space(&vm, 64);
    map_at(s, 0, 1, shared(object)).unwrap();
    anon(s, 1, 1);
    s.fault(at(0), Access::Read).unwrap();
    s.fault(at(1), Access::Read).unwrap();
    let attr = |page| s.with_pmap(|p| p.attr(at(page))).unwrap();
    assert_eq!(attr(0), Some(MemoryAttr::WriteCombining));
    assert_eq!(attr(1), Some(MemoryAttr::WriteBack));
    s.release();
    vm.object(object).release();
    check_empty(&vm);
}

#[test]
fn o01_a_device_is_shared_whatever_the_inheritance() {
    let vm = vm_beside_device();
    let device = Device::leak(device_frames());
    let object = vm.object_create_device(device.pager(), 2 * PAGE).unwrap();
    let s = space(&vm, 64);
    let private = Mapping::object(object, 0, Sharing::Private, Prot::RW);
    assert_eq!(map_at(s, 0, 2, private), Err(MapError::InvalidArgument));
    assert_eq!((s.entries(), vm.object(object).references()), (0, 1));
    assert_eq!(vm.counters().charged_pages, 0);
    map_at(s, 0, 2, shared(object)).unwrap();
    put(s, 0, 1);
    s.inherit(pages(0, 2), Inherit::Copy).unwrap();
    let child = vm.space(s.fork().unwrap());
    assert_eq!(child.entry(at(0)).unwrap().object, Some(object));
    put(child, 0, 2);
    assert_eq!(get(s, 0), 2);
    s.inherit(pages(0, 2), Inherit::None).unwrap();
    let other = vm.space(s.fork().unwrap());
    assert_eq!(other.entries(), 0);
    check(&vm);
    for space in [s, child, other] {
        space.release();
    }
    vm.object(object).release();
    check_empty(&vm);
}

#[test]
fn o01_a_device_that_fails_or_lies_is_refused() {
    let vm = vm_beside_device();
    let device = Device::leak(device_frames());
    let object = vm.object_create_device(device.pager(), 4 * PAGE).unwrap();
    let s = space(&vm, 64);
    map_at(s, 0, 6, shared(object)).unwrap();
    let fault = |page| s.fault(at(page), Access::Read);
    device.frames.lock().unwrap()[0] = None;
    assert_eq!(fault(0), Err(FaultError::Pager(PagerError::Io(6))));
    // A frame of the VM itself must not be shown: neither a page nor a record of its own.
    for frame in [Frame(0), Frame(BEYOND - 1)] {
        device.frames.lock().unwrap()[0] = Some(frame);
        assert_eq!(fault(0), Err(FaultError::Pager(PagerError::BadFrame)));
        let read = vm.object(object).read(0, &mut [0]);
        assert_eq!(read, Err(ObjectError::Pager(PagerError::BadFrame)));
    }
    assert_eq!(fault(4), Err(FaultError::BeyondEnd));
    assert_eq!(s.resident(), 0);
    let grabbed = vm.object(object).grab(0, Access::Read);
    assert_eq!(grabbed.err(), Some(ObjectError::Device));
    // An object that is no device has no answer.
    let file = vm
        .object_create_device(Files::leak().pager(0), PAGE)
        .unwrap();
    map_at(s, 8, 1, shared(file)).unwrap();
    assert_eq!(fault(8), Err(FaultError::Pager(PagerError::BadFrame)));
    check(&vm);
    s.release();
    vm.object(object).release();
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn o01_revoking_takes_every_translation_of_a_device() {
    let vm = vm_beside_device();
    let device = Device::leak(device_frames());
    let object = vm.object_create_device(device.pager(), 4 * PAGE).unwrap();
    let (a, b) = (space(&vm, 64), space(&vm, 64));
    map_at(a, 0, 4, shared(object)).unwrap();
    let second = Mapping::object(object, PAGE, Sharing::Shared, Prot::RW);
    map_at(b, 10, 3, second).unwrap();
    for page in 0..4 {
        touch(&vm, a.id(), 0, at(page), Some(page)).unwrap();
    }
    for page in 10..13 {
        touch(&vm, b.id(), 1, at(page), None).unwrap();
    }
    let asked = device.asked.load(Ordering::Relaxed);
    vm.object(object).revoke(PAGE, 2 * PAGE);
    assert_eq!(
        [0, 1, 2, 3].map(|p| frame_of(a, p).is_some()),
        [true, false, false, true]
    );
    assert_eq!(
        [10, 11, 12].map(|p| frame_of(b, p).is_some()),
        [false, false, true]
    );
    // The device shows something else there from now on.
    device.frames.lock().unwrap()[1] = Some(Frame(BEYOND + 6));
    assert_eq!(touch(&vm, a.id(), 0, at(1), None), Ok(0));
    assert_eq!(touch(&vm, b.id(), 1, at(10), None), Ok(0));
    assert_eq!(frame_of(a, 1), Some(Frame(BEYOND + 6)));
    assert_eq!(device.asked.load(Ordering::Relaxed), asked + 2);
    // Cutting the object takes what lies beyond, too.
    vm.object(object).set_size(PAGE).unwrap();
    assert_eq!((a.resident(), b.resident()), (1, 0));
    let beyond = touch(&vm, a.id(), 0, at(1), None);
    assert_eq!(beyond, Err(FaultError::BeyondEnd));
    check(&vm);
    for space in [a, b] {
        space.release();
    }
    vm.object(object).release();
    check_empty(&vm);
}

/// What a device said before its translations were revoked is not entered after.
#[test]
fn o01_an_answer_older_than_a_revocation_is_dropped() {
    let vm: &'static TestVm = Box::leak(Box::new(vm_beside_device()));
    let device = Device::leak(device_frames());
    let object = vm.object_create_device(device.pager(), 4 * PAGE).unwrap();
    let s = space(vm, 64);
    map_at(s, 0, 4, shared(object)).unwrap();
    *device.on_ask.lock().unwrap() = Some(Box::new(move || {
        device.frames.lock().unwrap()[0] = Some(Frame(BEYOND + 5));
        vm.object(object).revoke(0, PAGE);
    }));
    assert_eq!(s.fault(at(0), Access::Write), Ok(Faulted::Resident));
    assert_eq!(frame_of(s, 0), Some(Frame(BEYOND + 5)));
    assert_eq!(device.asked.load(Ordering::Relaxed), 2);
    // The same for an object that is used directly.
    *device.on_ask.lock().unwrap() = Some(Box::new(move || {
        device.frames.lock().unwrap()[0] = Some(Frame(BEYOND + 6));
        vm.object(object).revoke(0, PAGE);
    }));
    vm.object(object).write(0, &[9]).unwrap();
    assert_eq!(get(s, 0), 9);
    assert_eq!(frame_of(s, 0), None, "read through the object's pager");
    check(vm);
    s.release();
    vm.object(object).release();
    check_empty(vm);
}

#[test]
fn o01_a_managed_device_shows_wired_frames_until_they_are_freed() {
    let vm = vm(1000);
    let buffer = vm.object_create_physical(2 * PAGE).unwrap();
    let frame = |page| {
        let grabbed = vm.object(buffer).grab(page * PAGE, Access::Write);
        grabbed.unwrap().frame()
    };
    let device = Device::leak([frame(0), frame(1)]);
    let object = vm
        .object_create_managed_device(device.pager(), 2 * PAGE)
        .unwrap();
    assert_eq!(vm.object(object).kind(), ObjectKind::ManagedDevice);
    let s = space(&vm, 64);
    map_at(s, 0, 2, shared(object)).unwrap();
    touch(&vm, s.id(), 0, at(0), Some(77)).unwrap();
    touch(&vm, s.id(), 0, at(1), Some(78)).unwrap();
    let mut bytes = [0; 8];
    vm.object(buffer).read(0, &mut bytes).unwrap();
    assert_eq!(u64::from_le_bytes(bytes), 77);
    check(&vm);
    s.wire(pages(0, 2)).unwrap();
    s.unwire(pages(0, 2)).unwrap();
    check(&vm);
    vm.object(object).revoke(0, PAGE);
    assert_eq!((frame_of(s, 0), s.resident()), (None, 1));
    touch(&vm, s.id(), 0, at(0), None).unwrap();
    // The frames go: their translations go first, and are not made again.
    vm.object(buffer).release();
    assert_eq!(s.resident(), 0);
    let gone = touch(&vm, s.id(), 0, at(0), None);
    assert_eq!(gone, Err(FaultError::Pager(PagerError::BadFrame)));
    // Nor may it show a frame that is not the VM's, or that can be paged out.
    device.frames.lock().unwrap()[0] = Some(Frame(5000));
    assert_eq!(
        s.fault(at(0), Access::Read),
        Err(FaultError::Pager(PagerError::BadFrame))
    );
    anon(s, 4, 1);
    put(s, 4, 1);
    s.fault(at(4), Access::Read).unwrap();
    device.frames.lock().unwrap()[0] = frame_of(s, 4);
    assert_eq!(
        s.fault(at(0), Access::Read),
        Err(FaultError::Pager(PagerError::BadFrame))
    );
    s.wire(pages(4, 1)).unwrap();
    assert_eq!(s.fault(at(0), Access::Read), Ok(Faulted::Resident));
    check(&vm);
    s.release();
    vm.object(object).release();
    check_empty(&vm);
}

#[test]
fn o01_physical_memory_is_never_paged_out() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(100)).unwrap();
    let object = vm.object_create_physical(4 * PAGE - 5).unwrap();
    assert_eq!(vm.object(object).size(), 4 * PAGE);
    assert_eq!(vm.object(object).kind(), ObjectKind::Physical);
    assert_eq!(vm.counters().charged_pages, 4);
    let s = space(&vm, 64);
    map_at(s, 0, 4, shared(object)).unwrap();
    assert_eq!(get(s, 0), 0, "zero-filled");
    put(s, 1, 5);
    vm.object(object).write(2 * PAGE, &[6]).unwrap();
    assert_eq!(vm.object(object).resident_pages(), 3);
    while vm.pageout_step(1000) > 0 {}
    assert_eq!(vm.object(object).resident_pages(), 3);
    assert_eq!([0, 1, 2].map(|page| get(s, page)), [0, 5, 6]);
    // The user's wiring comes and goes; the object's stays.
    s.wire(pages(0, 4)).unwrap();
    vm.object(object).set_size(3 * PAGE).unwrap();
    vm.object(object).set_size(4 * PAGE).unwrap();
    let faults = vm.counters().faults;
    touch(&vm, s.id(), 0, at(3), None).unwrap();
    touch(&vm, s.id(), 0, at(3), Some(0)).unwrap();
    assert_eq!(vm.counters().faults, faults + 1, "the first may write");
    s.unwire(pages(0, 4)).unwrap();
    while vm.pageout_step(1000) > 0 {}
    assert_eq!(vm.object(object).resident_pages(), 4);
    assert_eq!([0, 1, 2, 3].map(|page| get(s, page)), [0, 5, 6, 0]);
    assert_eq!(vm.counters().swap_used, 0);
    check(&vm);
    s.release();
    vm.object(object).release();
    check_empty(&vm);
}

#[test]
fn o01_private_and_copied_physical_memory_is_ordinary() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(100)).unwrap();
    let object = vm.object_create_physical(2 * PAGE).unwrap();
    vm.object(object).write(0, &[1]).unwrap();
    let s = space(&vm, 64);
    let private = Mapping::object(object, 0, Sharing::Private, Prot::RW);
    map_at(s, 0, 2, private).unwrap();
    put(s, 0, 2);
    put(s, 1, 3);
    assert_eq!(vm.object(object).read(0, &mut [0]), Ok(1));
    let mut bytes = [0; 1];
    vm.object(object).read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [1], "the copy was written");
    map_at(s, 4, 2, shared(object)).unwrap();
    s.inherit(pages(4, 2), Inherit::Copy).unwrap();
    let child = vm.space(s.fork().unwrap());
    put(s, 4, 9);
    put(s, 5, 9);
    assert_eq!([4, 5].map(|page| get(child, page)), [1, 0], "as it was");
    while vm.pageout_step(1000) > 0 {}
    assert!(vm.counters().swap_used >= 2, "copies are paged out");
    assert_eq!([0, 1, 4, 5].map(|page| get(s, page)), [2, 3, 9, 9]);
    check(&vm);
    s.release();
    child.release();
    vm.object(object).release();
    check_empty(&vm);
}

#[test]
fn o01_physical_memory_that_cannot_be_had_is_refused() {
    let vm = vm(1000);
    vm.set_charge_limit(3);
    let refused = vm.object_create_physical(4 * PAGE);
    assert_eq!(refused, Err(ObjectError::ChargeLimit));
    assert_eq!(vm.counters().objects, 0);
    let refused = vm.object_create_physical(u64::MAX);
    assert!(refused.is_err());
    let object = vm.object_create_physical(3 * PAGE).unwrap();
    let grown = vm.object(object).set_size(4 * PAGE);
    assert_eq!(grown, Err(ObjectError::ChargeLimit));
    assert_eq!(vm.object(object).size(), 3 * PAGE);
    let most = vm.object(object).write(0, &[0; 3 * PAGE as usize]);
    assert_eq!(most, Ok(3 * PAGE as usize));
    vm.object(object).release();
    check_empty(&vm);
    vm.set_charge_limit(u64::MAX);
    let object = vm.object_create_physical(2000 * PAGE).unwrap();
    let all = vm.object(object).write(0, &vec![1; 2000 * PAGE as usize]);
    assert_eq!(all, Err(ObjectError::NoMemory));
    check(&vm);
    vm.object(object).release();
    check_empty(&vm);
}

#[test]
fn o01_an_object_is_what_became_of_it() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(100)).unwrap();
    let memory = vm.object_create_anonymous(2 * PAGE).unwrap();
    let file = vm.object_create(Files::leak().pager(0), PAGE).unwrap();
    assert_eq!(vm.object(memory).kind(), ObjectKind::Default);
    assert_eq!(vm.object(file).kind(), ObjectKind::Vnode);
    vm.object(memory).write(0, &[1]).unwrap();
    while vm.pageout_step(100) > 0 {}
    assert_eq!(vm.object(memory).kind(), ObjectKind::Swap);
    vm.object(memory).write(0, &[2]).unwrap();
    assert_eq!(vm.object(memory).kind(), ObjectKind::Default);
    vm.object(memory).release();
    assert_eq!(vm.object(memory).kind(), ObjectKind::Dead);
    assert!(!vm.object(memory).reference());
    vm.object(file).release();
    check_empty(&vm);
}

#[test]
fn o11_a_grabbed_page_stays_where_it_is() {
    let stage = Stage::new(1000);
    let vm = stage.vm;
    let file = stage.file(4);
    let page = vm.object(file).grab(PAGE, Access::Read).unwrap();
    let mut bytes = [0; 8];
    bsdvm::Memory::read(vm.machine(), page.frame(), 0, &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes), crate::common::scripted::word(1));
    stage.page_out_all();
    assert_eq!(vm.object(file).resident_pages(), 1, "the others have gone");
    // Whoever faults on it waits until it is let go.
    let s = stage.space();
    map_at(s, 0, 4, shared(file)).unwrap();
    let id = s.id();
    assert!(!is_resident(s, 1), "it is somebody's");
    let before = vm.counters().faults;
    let reader = stage.spawn(move || get(vm.space(id), 1));
    until(|| vm.counters().faults > before);
    let device_writes = [0xab; 8];
    bsdvm::Memory::write(vm.machine(), page.frame(), 0, &device_writes);
    drop(page);
    assert_eq!(reader.join().unwrap(), u64::from_le_bytes(device_writes));
    // Cut off meanwhile, the frame lives until it is let go.
    let page = vm.object(file).grab(2 * PAGE, Access::Write).unwrap();
    assert!(page.is_current());
    vm.object(file).set_size(PAGE).unwrap();
    assert!(!page.is_current());
    bsdvm::Memory::write(vm.machine(), page.frame(), 0, &[1]);
    drop(page);
    stage.end(&[s], &[file]);
}

#[test]
fn o11_grabbing_brings_a_page_or_says_why_not() {
    let vm = vm(1000);
    let files = Files::leak();
    let file = vm.object_create(files.pager(0), 2 * PAGE).unwrap();
    files.fail_get.store(true, Ordering::Relaxed);
    let failed = vm.object(file).grab(0, Access::Read).err();
    assert_eq!(failed, Some(ObjectError::Pager(PagerError::Io(5))));
    let beyond = vm.object(file).grab(2 * PAGE, Access::Read).err();
    assert_eq!(beyond, Some(ObjectError::BeyondEnd));
    assert_eq!(vm.object(file).references(), 1);
    files.fail_get.store(false, Ordering::Relaxed);
    // Written by a device, it goes to the file.
    let page = vm.object(file).grab(0, Access::Write).unwrap();
    bsdvm::Memory::write(vm.machine(), page.frame(), 0, &[3]);
    drop(page);
    vm.object(file).clean(0, PAGE).unwrap();
    assert_eq!(files.pages.lock().unwrap()[&(0, 0)][0], 3);
    // Memory that nobody has written is zeroes.
    let memory = vm.object_create_anonymous(PAGE).unwrap();
    let page = vm.object(memory).grab(0, Access::Read).unwrap();
    assert_eq!(vm.object(memory).references(), 2, "it keeps the object");
    drop(page);
    assert_eq!(vm.object(memory).resident_pages(), 1);
    vm.object(memory).release();
    vm.object(file).release();
    check_empty(&vm);
}
