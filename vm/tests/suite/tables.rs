//! Virtual page tables (M18), whose translations a program keeps itself, and pages that the
//! kernel provides (M19).

use crate::common::{
    Files, MemorySwap, PAGE, TestVm, anon, at, check, check_empty, draw, map_at, pages, space,
    touch, vm,
};
use bsdvm::{
    Access, Advice, Backing, DevicePage, FaultError, Inherit, KernelConfig, MapError, Mapping,
    MemoryAttr, ObjectId, PageBytes, Pager, PagerError, PagerOps, Placement, Prot, Sharing, Space,
    TableEntry,
};
use bsdvm_sim::Sim;

/// A mapping of what the tables of `object` translate from page `first` on.
fn table(object: ObjectId, first: u64) -> Mapping {
    Mapping {
        backing: Backing::PageTable {
            object,
            offset: first * PAGE,
        },
        inherit: Inherit::Share,
        ..Mapping::object(object, 0, Sharing::Shared, Prot::RW)
    }
}

fn entry(page: u64, flags: TableEntry) -> TableEntry {
    TableEntry::to(page * PAGE, flags)
}

const VALID: TableEntry = TableEntry::VALID;
const RW: TableEntry = TableEntry::VALID.union(TableEntry::WRITABLE);

fn write_entry(vm: &TestVm, object: ObjectId, page: u64, slot: u64, value: TableEntry) {
    let bytes = value.bits().to_le_bytes();
    vm.object(object)
        .write(page * PAGE + slot * 8, &bytes)
        .unwrap();
}

fn read_entry(vm: &TestVm, object: ObjectId, page: u64, slot: u64) -> TableEntry {
    let mut bytes = [0; 8];
    vm.object(object)
        .read(page * PAGE + slot * 8, &mut bytes)
        .unwrap();
    TableEntry::from_bits_retain(u64::from_le_bytes(bytes))
}

/// An object of 64 pages with tables in pages 1 to 4 that show, for virtual page 3, page 10 of the
/// object to read, for page 4 page 11 to write, and for page 5 nothing.
fn object_with_tables(vm: &TestVm) -> ObjectId {
    let object = vm.object_create_anonymous(64 * PAGE).unwrap();
    for level in 1..4 {
        write_entry(vm, object, level, 0, entry(level + 1, RW));
    }
    write_entry(vm, object, 4, 3, entry(10, VALID));
    write_entry(vm, object, 4, 4, entry(11, RW));
    for page in 8..20 {
        vm.object(object)
            .write(page * PAGE, &page.to_le_bytes())
            .unwrap();
    }
    object
}

fn directory() -> TableEntry {
    entry(1, RW)
}

#[test]
fn m18_a_range_shows_what_its_tables_say() {
    let vm = vm(1000);
    let object = object_with_tables(&vm);
    let s = space(&vm, 64);
    map_at(s, 0, 16, table(object, 0)).unwrap();
    let t = |page, write| touch(&vm, s.id(), 0, at(page), write);
    assert_eq!(
        t(3, None),
        Err(FaultError::InvalidAddress),
        "no directory yet"
    );
    s.set_page_directory(pages(0, 16), directory()).unwrap();
    let line = format!(", page table ({:#x})\n", directory().bits());
    assert!(s.show().to_string().contains(&line), "{}", s.show());
    assert_eq!(t(3, None), Ok(10));
    assert_eq!(t(4, None), Ok(11));
    assert_eq!(t(5, None), Err(FaultError::InvalidAddress));
    assert_eq!(t(3, Some(1)), Err(FaultError::Protection));
    check(&vm);

    // Use is written back: the last entry of a store is modified, each on the way is accessed.
    let read = VALID | TableEntry::ACCESSED;
    assert_eq!(read_entry(&vm, object, 4, 3), entry(10, read));
    assert_eq!(
        read_entry(&vm, object, 4, 4),
        entry(11, RW | TableEntry::ACCESSED)
    );
    assert_eq!(t(4, Some(77)), Ok(77));
    let written = RW | TableEntry::ACCESSED | TableEntry::MODIFIED;
    assert_eq!(read_entry(&vm, object, 4, 4), entry(11, written));
    assert_eq!(
        read_entry(&vm, object, 3, 0),
        entry(4, RW | TableEntry::ACCESSED)
    );
    let mut bytes = [0; 8];
    vm.object(object).read(11 * PAGE, &mut bytes).unwrap();
    assert_eq!(u64::from_le_bytes(bytes), 77, "it is a page of the object");

    // A changed entry is seen after the translation was taken away, and not before.
    write_entry(&vm, object, 4, 3, entry(12, VALID));
    assert_eq!(t(3, None), Ok(10));
    s.advise(pages(0, 16), Advice::Invalidate).unwrap();
    assert_eq!(t(3, None), Ok(12));
    check(&vm);
    s.release();
    vm.object(object).release();
    check_empty(&vm);
}

#[test]
fn m18_an_entry_above_the_last_level_can_end_the_walk() {
    let vm = vm(1000);
    let object = object_with_tables(&vm);
    let s = space(&vm, 64);
    map_at(s, 0, 16, table(object, 0)).unwrap();
    // The third level shows pages 8 to 519 as they lie.
    write_entry(&vm, object, 3, 0, entry(8, RW | TableEntry::LARGE));
    s.set_page_directory(pages(0, 16), directory()).unwrap();
    for page in [0, 3, 11] {
        assert_eq!(touch(&vm, s.id(), 0, at(page), None), Ok(8 + page));
    }
    touch(&vm, s.id(), 0, at(2), Some(5)).unwrap();
    assert!(read_entry(&vm, object, 3, 0).contains(TableEntry::MODIFIED));
    // The directory itself: everything from page 9 on.
    s.set_page_directory(pages(0, 16), entry(9, VALID | TableEntry::LARGE))
        .unwrap();
    assert_eq!(touch(&vm, s.id(), 0, at(3), None), Ok(12));
    assert_eq!(
        touch(&vm, s.id(), 0, at(3), Some(1)),
        Err(FaultError::Protection)
    );
    check(&vm);

    // Tables and pages that the object does not have.
    s.set_page_directory(pages(0, 16), entry(70, RW)).unwrap();
    assert_eq!(
        touch(&vm, s.id(), 0, at(0), None),
        Err(FaultError::BeyondEnd)
    );
    s.set_page_directory(pages(0, 16), entry(60, RW | TableEntry::LARGE))
        .unwrap();
    assert_eq!(
        touch(&vm, s.id(), 0, at(6), None),
        Err(FaultError::BeyondEnd)
    );
    s.set_page_directory(pages(0, 16), entry(30, RW)).unwrap();
    assert_eq!(
        touch(&vm, s.id(), 0, at(0), None),
        Err(FaultError::InvalidAddress)
    );
    let far = TableEntry::from_bits_retain(u64::MAX);
    s.set_page_directory(pages(0, 16), far).unwrap();
    assert_eq!(
        touch(&vm, s.id(), 0, at(0), None),
        Err(FaultError::BeyondEnd)
    );
    check(&vm);
    s.release();
    vm.object(object).release();
    check_empty(&vm);
}

#[test]
fn m18_clipped_ranges_keep_their_place_and_may_have_directories_of_their_own() {
    let vm = vm(1000);
    let object = object_with_tables(&vm);
    let s = space(&vm, 64);
    // The range begins with virtual page 2.
    map_at(s, 0, 8, table(object, 2)).unwrap();
    s.set_page_directory(pages(0, 8), directory()).unwrap();
    assert_eq!(touch(&vm, s.id(), 0, at(1), None), Ok(10));
    s.set_page_directory(pages(2, 2), entry(13, RW | TableEntry::LARGE))
        .unwrap();
    assert_eq!(draw(s, 9), "AABBCCCC.");
    assert_eq!(
        touch(&vm, s.id(), 0, at(2), None),
        Ok(17),
        "page 4 of what begins with page 13"
    );
    assert_eq!(s.entry(at(5)).unwrap().page_directory, Some(directory()));
    s.set_page_directory(pages(2, 2), directory()).unwrap();
    assert_eq!(draw(s, 9), "AAAAAAAA.", "they agree again");
    assert_eq!(touch(&vm, s.id(), 0, at(2), None), Ok(11));
    check(&vm);
    s.release();
    vm.object(object).release();
    check_empty(&vm);
}

#[test]
fn m18_a_directory_is_set_on_tables_alone() {
    let vm = vm(1000);
    let object = object_with_tables(&vm);
    let s = space(&vm, 64);
    map_at(s, 0, 4, table(object, 0)).unwrap();
    anon(s, 4, 2);
    map_at(s, 6, 4, table(object, 0)).unwrap();
    let before = draw(s, 12);
    // Part of the range is something else: nothing is changed, not even what is right.
    let done = s.set_page_directory(pages(0, 10), directory());
    assert_eq!(done, Err(MapError::InvalidArgument));
    for page in [0, 6] {
        let seen = s.entry(at(page)).unwrap().page_directory;
        assert_eq!(seen, Some(TableEntry::empty()));
    }
    assert_eq!(s.entry(at(4)).unwrap().page_directory, None);
    assert_eq!(draw(s, 12), before);
    // Holes are skipped, and the range is cut to the map.
    s.remove(pages(4, 2)).unwrap();
    s.set_page_directory(pages(0, 1 << 30), directory())
        .unwrap();
    assert_eq!(s.entry(at(8)).unwrap().page_directory, Some(directory()));
    let odd = bsdvm::VirtRange::from_len(bsdvm::VirtAddr(at(0).0 + 1), PAGE).unwrap();
    assert_eq!(
        s.set_page_directory(odd, directory()),
        Err(MapError::InvalidAddress)
    );

    // What a table shows has no place of its own: verbs that need one refuse it.
    let refused = Err(MapError::InvalidArgument);
    assert_eq!(s.wire(pages(0, 2)), refused);
    assert_eq!(s.wire_quick(pages(0, 2)), refused);
    assert_eq!(s.discard(pages(0, 2)), refused);
    assert_eq!(s.inherit(pages(0, 2), Inherit::Copy), refused);
    let private = Mapping {
        sharing: Sharing::Private,
        ..table(object, 0)
    };
    assert_eq!(map_at(s, 20, 2, private).map(drop), refused);
    let copied = Mapping {
        inherit: Inherit::Copy,
        ..table(object, 0)
    };
    assert_eq!(map_at(s, 20, 2, copied).map(drop), refused);
    check(&vm);
    s.release();
    vm.object(object).release();
    check_empty(&vm);
}

#[test]
fn m18_tables_are_paged_like_other_pages() {
    let vm = vm(1000);
    vm.swap_on(MemorySwap::leak(200)).unwrap();
    let object = object_with_tables(&vm);
    let s = space(&vm, 64);
    map_at(s, 0, 16, table(object, 0)).unwrap();
    s.set_page_directory(pages(0, 16), directory()).unwrap();
    assert_eq!(touch(&vm, s.id(), 0, at(4), Some(5)), Ok(5));
    for _ in 0..4 {
        vm.pageout_step(1000);
    }
    assert_eq!(vm.object(object).resident_pages(), 0);
    assert_eq!(s.resident(), 0);
    check(&vm);
    assert_eq!(touch(&vm, s.id(), 0, at(4), None), Ok(5));
    assert_eq!(touch(&vm, s.id(), 0, at(3), None), Ok(10));
    // Tables and data behind a pager: what is stored goes back to it.
    let files = Files::leak();
    let file = vm.object_create(files.pager(3), 64 * PAGE).unwrap();
    for level in 1..4 {
        write_entry(&vm, file, level, 0, entry(level + 1, RW));
    }
    write_entry(&vm, file, 4, 0, entry(9, RW));
    vm.object(file).clean(0, 64 * PAGE).unwrap();
    map_at(s, 20, 4, table(file, 0)).unwrap();
    s.set_page_directory(pages(20, 4), directory()).unwrap();
    touch(&vm, s.id(), 0, at(20), Some(31)).unwrap();
    vm.object(file).clean(0, 64 * PAGE).unwrap();
    let stored = files.pages.lock().unwrap()[&(3, 9)][..8].to_vec();
    assert_eq!(stored, 31u64.to_le_bytes());
    let bits = files.pages.lock().unwrap()[&(3, 4)][0];
    assert_eq!(
        u64::from(bits) & TableEntry::MODIFIED.bits(),
        TableEntry::MODIFIED.bits()
    );
    check(&vm);

    // A child shares them.
    let child = vm.space(s.fork().unwrap());
    touch(&vm, child.id(), 0, at(4), Some(6)).unwrap();
    assert_eq!(touch(&vm, s.id(), 0, at(4), None), Ok(6));
    check(&vm);
    child.release();
    s.release();
    vm.object(object).release();
    vm.object(file).release();
    check_empty(&vm);
}

/// A kernel that provides pages: frame `first + index`, for the first `count`.
struct Provider {
    first: u32,
    count: u64,
}

impl PagerOps for Provider {
    fn get(&self, _: u64, _: u64, _: &mut [&mut dyn PageBytes]) -> Result<usize, PagerError> {
        Err(PagerError::Io(5))
    }

    fn put(&self, _: u64, _: u64, _: &dyn PageBytes, _: usize) -> Result<(), PagerError> {
        Err(PagerError::Io(5))
    }

    fn device(&self, _: u64, offset: u64) -> Result<DevicePage, PagerError> {
        let index = offset / PAGE;
        if index >= self.count {
            return Err(PagerError::Io(6));
        }
        Ok(DevicePage {
            frame: bsdvm::Frame(self.first + index as u32),
            attr: MemoryAttr::WriteBack,
        })
    }
}

fn provided(object: ObjectId, inherit: Inherit) -> Mapping {
    Mapping {
        backing: Backing::Provided { object, offset: 0 },
        inherit,
        ..Mapping::object(object, 0, Sharing::Shared, Prot::RW)
    }
}

/// Wired memory of the kernel, and a device that shows it.
fn kernel_pages(vm: &TestVm, count: u64) -> (bsdvm::VirtAddr, ObjectId) {
    let kmem = vm.kmem().unwrap();
    let how = bsdvm::Malloc {
        wait: bsdvm::Wait::No,
        fill: bsdvm::Fill::Zeroed,
    };
    let physical = bsdvm::Physical {
        within: bsdvm::Within::ANY,
        attr: MemoryAttr::WriteBack,
    };
    let va = kmem
        .map()
        .alloc_contig(count * PAGE, how, physical)
        .unwrap();
    let first = kmem
        .map()
        .space()
        .with_pmap(|pmap| bsdvm::Pmap::extract(pmap, va).unwrap().frame.0);
    let first = first.unwrap();
    let provider: &'static Provider = Box::leak(Box::new(Provider { first, count }));
    let pager = Pager {
        ops: provider,
        cookie: 0,
    };
    let device = vm
        .object_create_managed_device(pager, count * PAGE)
        .unwrap();
    (va, device)
}

fn kernel_word(vm: &TestVm, va: bsdvm::VirtAddr) -> u64 {
    let mut bytes = [0; 8];
    let kernel: Space<'_, Sim<12>> = vm.kmem().unwrap().map().space();
    kernel.read(va, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

#[test]
fn m19_pages_of_the_kernel_are_shared_with_programs_and_their_children() {
    let vm = vm(1000);
    let config = KernelConfig {
        zero_region: 0,
        ..KernelConfig::of(vm.machine())
    };
    let kmem = vm.kmem_init(config).unwrap();
    let (va, device) = kernel_pages(&vm, 4);
    let s = space(&vm, 64);
    for (first, inherit) in [
        (0, Inherit::None),
        (4, Inherit::Copy),
        (8, Inherit::Zero),
        (12, Inherit::Share),
    ] {
        map_at(s, first, 4, provided(device, inherit)).unwrap();
        assert!(s.show().to_string().contains(", uksmap\n"), "{}", s.show());
    }
    assert_eq!(draw(s, 17), "AAAABBBBCCCCDDDD.", "never merged");
    assert!(s.entry(at(5)).unwrap().provided);
    kmem.map().space().write(va, &7u64.to_le_bytes()).unwrap();
    assert_eq!(touch(&vm, s.id(), 0, at(0), None), Ok(7));
    touch(&vm, s.id(), 0, at(5), Some(9)).unwrap();
    assert_eq!(kernel_word(&vm, bsdvm::VirtAddr(va.0 + PAGE)), 9);
    check(&vm);

    // By reference, whatever was said.
    let child = vm.space(s.fork().unwrap());
    assert_eq!(draw(child, 17), "AAAABBBBCCCCDDDD.");
    for page in [2, 6, 10, 14] {
        touch(&vm, child.id(), 0, at(page), Some(page)).unwrap();
        assert_eq!(touch(&vm, s.id(), 0, at(page), None), Ok(page));
        assert_eq!(kernel_word(&vm, bsdvm::VirtAddr(va.0 + 2 * PAGE)), page);
    }
    assert_eq!(vm.counters().charged_pages, 0);
    check(&vm);

    // Beyond what the kernel provides; and what it does not provide is not mapped so.
    let anonymous = vm.object_create_anonymous(PAGE).unwrap();
    let refused = map_at(s, 20, 1, provided(anonymous, Inherit::Share));
    assert_eq!(refused.map(drop), Err(MapError::InvalidArgument));
    let private = Mapping {
        sharing: Sharing::Private,
        ..provided(device, Inherit::Share)
    };
    assert_eq!(
        map_at(s, 20, 1, private).map(drop),
        Err(MapError::InvalidArgument)
    );
    s.map(
        8 * PAGE,
        Placement::At(at(20)),
        provided(device, Inherit::Share),
    )
    .unwrap();
    assert_eq!(s.fault(at(25), Access::Read), Err(FaultError::BeyondEnd));
    check(&vm);
    child.release();
    s.release();
    vm.object(anonymous).release();
    vm.object(device).release();
    kmem.end();
    check_empty(&vm);
}
