//! Physical memory: what the kernel keeps for itself, and the frames that the core gets.
//!
//! The tables of the direct map are cut from the first free memory, and after them what devices
//! reach. What is left is frames: numbers from 0 over all of it, so that a gap in physical memory
//! is none in the numbers.

use crate::dma;
use crate::layout::{DIRECT, IMAGE, KERNEL, direct, early, physical_of};
use crate::start_info::Start;
use bsdvm::{Frame, FrameRun, Memory, MemoryAttr, Prot, VirtAddr};
use bsdvm_machine::Kind;
use bsdvm_x86_64::{ENTRIES, Entry, PAGE, entry::Bits};
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::machine::Bare;

const LARGE: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
/// Where devices of a PC lie: mapped uncached.
const DEVICES: (u64, u64) = (0xc000_0000, 0x4000_0000);
/// The address in an entry of a table.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// How many separate ranges of memory are used.
const REGIONS: usize = 8;

/// The number that stands for the frame of the kernel's root table, which is in the image.
pub(crate) const ROOT: Frame = Frame(u32::MAX - 1);
/// Numbers from here on stand for the tables that were made at boot. The core gets none of them.
const BOOT_TABLES: u32 = 0xf000_0000;

// Places that the linker script and the boot code name.
unsafe extern "C" {
    static boot_root: u8;
    static image_end: u8;
    static text_start: u8;
    static rodata_start: u8;
    static data_start: u8;
    static data_end: u8;
    static boot_stack_guard: u8;
}

/// Where something of the image is.
macro_rules! place {
    ($name:ident) => {
        (&raw const $name).addr() as u64
    };
}

/// Frames that lie together.
#[derive(Clone, Copy, Default)]
struct Region {
    first: u32,
    count: u32,
    physical: u64,
}

/// The ranges of the core's frames, and the tables made at boot.
struct Regions(UnsafeCell<[Region; REGIONS + 1]>);

// SAFETY: written once, while the only processor boots.
unsafe impl Sync for Regions {}

static REGION: Regions = Regions(UnsafeCell::new(
    [Region {
        first: 0,
        count: 0,
        physical: 0,
    }; REGIONS + 1],
));
static FRAMES: AtomicU32 = AtomicU32::new(0);

fn regions() -> &'static [Region; REGIONS + 1] {
    // SAFETY: only read after `init`.
    unsafe { &*REGION.0.get() }
}

/// The physical address of the kernel's root table.
pub(crate) fn root() -> u64 {
    // It is linked where it is loaded.
    place!(boot_root)
}

/// Takes memory apart and maps all of it.
///
/// Panics when there is too little.
pub(crate) fn init(start: &Start) {
    let image = place!(image_end);
    let mut ranges = [(0, 0); REGIONS];
    let usable = start.memory().filter_map(|(first, bytes)| {
        let low = first.max(image).next_multiple_of(PAGE.bytes());
        let high = (first + bytes) & !(PAGE.bytes() - 1);
        (low < high).then_some((low, high))
    });
    ranges.iter_mut().zip(usable).for_each(|(to, r)| *to = r);
    let top = ranges.iter().map(|r| r.1).max().unwrap_or(0);
    let tables = ranges[0].0;
    let mut free = tables;
    map_all(top, &mut free);
    let devices = free;
    assert!(
        devices + dma::BYTES <= ranges[0].1,
        "too little memory for the kernel"
    );
    ranges[0].0 = devices + dma::BYTES;
    dma::init(devices);
    number(&ranges, (tables, free));
}

/// Gives numbers to the frames of `ranges`, and to the tables.
fn number(ranges: &[(u64, u64); REGIONS], tables: (u64, u64)) {
    let region = |first, (low, high): (u64, u64)| Region {
        first,
        count: PAGE.index(high - low) as u32,
        physical: low,
    };
    // SAFETY: nobody reads them yet.
    let all = unsafe { &mut *REGION.0.get() };
    let mut next = 0;
    for (to, range) in all.iter_mut().zip(ranges) {
        *to = region(next, *range);
        next += to.count;
    }
    all[REGIONS] = region(BOOT_TABLES, tables);
    FRAMES.store(next, Ordering::Relaxed);
}

/// A table that is being built: before there is a direct map.
type Early = *mut [u64; ENTRIES];

/// A new table, cut from `free`.
fn new_table(free: &mut u64) -> u64 {
    let at = *free;
    *free += PAGE.bytes();
    // SAFETY: free memory that the boot code mapped.
    unsafe { (early(at) as Early).write([0; ENTRIES]) };
    at
}

/// Writes an entry of a table.
fn set(table: u64, index: usize, entry: Entry) {
    // SAFETY: a table that was made here, or the root; the processor looks at it again later.
    unsafe { (*(early(table) as Early))[index] = entry.0 };
}

/// Which entry of a table of `level` (1 is the lowest) is for `address`.
fn slot(level: u32, address: u64) -> usize {
    (address >> (PAGE.shift() + (level - 1) * 9)) as usize % ENTRIES
}

/// Builds the kernel's half up to physical address `top`, with tables cut from `free`, and lets go
/// of what the boot code mapped.
fn map_all(top: u64, free: &mut u64) {
    let pointers = new_table(free);
    set(root(), slot(4, DIRECT), Entry::table(pointers, false));
    let end = top.max(DEVICES.0 + DEVICES.1);
    for gib in 0..end.div_ceil(GIB) {
        let directory = new_table(free);
        set(pointers, gib as usize, Entry::table(directory, false));
        for i in 0..ENTRIES {
            set(directory, i, large(gib * GIB + i as u64 * LARGE));
        }
    }
    // The core's kernel memory: its entry is there before any user root copies the root.
    let kernel = Entry::table(new_table(free), false);
    set(root(), slot(4, KERNEL.start().0), kernel);
    let image = map_image(free);
    set(root(), slot(4, IMAGE), Entry::table(image, false));
    set(root(), 0, Entry::EMPTY);
    crate::hardware::load_root(root());
}

/// Maps the image page by page, each with the rights that it needs, and the page below the boot
/// stack with none.
fn map_image(free: &mut u64) -> u64 {
    let (pointers, directory) = (new_table(free), new_table(free));
    set(pointers, slot(3, IMAGE), Entry::table(directory, false));
    let parts = [
        (place!(text_start), place!(rodata_start), Prot::RX),
        (place!(rodata_start), place!(data_start), Prot::READ),
        (place!(data_start), place!(data_end), Prot::RW),
    ];
    let mut lowest = None;
    for (start, end, prot) in parts {
        for va in (start..end).step_by(PAGE.len()) {
            if va == place!(boot_stack_guard) {
                continue;
            }
            let table = match lowest {
                Some((table, slot2)) if slot2 == slot(2, va) => table,
                _ => {
                    let table = new_table(free);
                    set(directory, slot(2, va), Entry::table(table, false));
                    table
                }
            };
            lowest = Some((table, slot(2, va)));
            let (attr, kind) = (MemoryAttr::WriteBack, Kind::Manual);
            let page = Entry::leaf(va - IMAGE, prot, attr, kind, false);
            set(table, slot(1, va), page);
        }
    }
    pointers
}

/// A large page of the direct map.
fn large(physical: u64) -> Entry {
    let device = physical >= DEVICES.0 && physical < DEVICES.0 + DEVICES.1;
    let mut bits = Bits::PRESENT | Bits::WRITE | Bits::PAT_OR_LARGE | Bits::GLOBAL | Bits::NO_EXEC;
    bits.set(Bits::PCD | Bits::PWT, device);
    Entry(physical | bits.bits())
}

/// The physical address of a frame.
///
/// Panics when there is none of that number.
pub(crate) fn physical(frame: Frame) -> u64 {
    if frame == ROOT {
        return root();
    }
    let holds = |r: &&Region| frame.0 >= r.first && frame.0 - r.first < r.count;
    match regions().iter().find(holds) {
        Some(r) => r.physical + (u64::from(frame.0 - r.first) << PAGE.shift()),
        None => panic!("there is no {frame:?}"),
    }
}

/// The frame at a physical address.
///
/// Panics when there is none.
pub(crate) fn frame(physical: u64) -> Frame {
    if physical == root() {
        return ROOT;
    }
    let bytes = |r: &Region| u64::from(r.count) << PAGE.shift();
    let holds = |r: &&Region| physical >= r.physical && physical - r.physical < bytes(r);
    match regions().iter().find(holds) {
        Some(r) => Frame(r.first + PAGE.index(physical - r.physical) as u32),
        None => panic!("no frame is at {physical:#x}"),
    }
}

/// Where the kernel reaches a frame.
pub(crate) fn at<T>(frame: Frame) -> NonNull<T> {
    direct(physical(frame))
}

/// The bytes of a frame from `offset`, of which `len` are to be touched.
fn bytes(frame: Frame, offset: usize, len: usize) -> NonNull<u8> {
    assert!(
        offset.checked_add(len).is_some_and(|end| end <= PAGE.len()),
        "{len} bytes at {offset} of a frame"
    );
    // SAFETY: within the frame.
    unsafe { at::<u8>(frame).add(offset) }
}

fn word(frame: Frame, offset: usize) -> &'static AtomicU32 {
    assert!(offset.is_multiple_of(4), "a word at {offset}");
    // SAFETY: memory of a frame lives as long as the machine, and a word of it that programs
    // change, too, is reached by atomic accesses.
    unsafe { bytes(frame, offset, 4).cast().as_ref() }
}

/// Programs may change a frame while the kernel copies from it, as another processor may; no
/// reference to a frame is ever made, and nothing depends on what such a copy holds.
impl Memory for Bare {
    fn frames(&self) -> u32 {
        FRAMES.load(Ordering::Relaxed)
    }

    fn zero(&self, frame: Frame) {
        // SAFETY: a whole frame, in words.
        unsafe {
            core::arch::asm!("rep stosq", inout("rcx") ENTRIES => _,
                inout("rdi") at::<u64>(frame).as_ptr() => _, in("rax") 0, options(nostack));
        }
    }

    fn copy(&self, from: Frame, to: Frame) {
        // SAFETY: whole frames, in words.
        unsafe {
            core::arch::asm!("rep movsq", inout("rcx") ENTRIES => _,
                inout("rsi") at::<u64>(from).as_ptr() => _,
                inout("rdi") at::<u64>(to).as_ptr() => _, options(nostack));
        }
    }

    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]) {
        let from = bytes(frame, offset, buf.len());
        // SAFETY: within the frame, and `buf` is elsewhere.
        unsafe { from.copy_to_nonoverlapping(NonNull::from(&mut *buf).cast(), buf.len()) };
    }

    fn write(&self, frame: Frame, offset: usize, buf: &[u8]) {
        let to = bytes(frame, offset, buf.len());
        // SAFETY: within the frame, and `buf` is elsewhere.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(buf).cast(), buf.len()) };
    }

    fn load_u32(&self, frame: Frame, offset: usize) -> u32 {
        word(frame, offset).load(Ordering::SeqCst)
    }

    fn compare_exchange_u32(
        &self,
        frame: Frame,
        offset: usize,
        old: u32,
        new: u32,
    ) -> Result<u32, u32> {
        word(frame, offset).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    fn discard(&self, _run: FrameRun) {}

    fn record_memory(&self, frame: Frame) -> NonNull<u8> {
        at(frame)
    }
}

/// The physical address of kernel memory that lies together there, too; `None` for what does not.
pub(crate) fn together(memory: NonNull<[u8]>) -> Option<u64> {
    let address = memory.as_ptr().expose_provenance() as u64;
    if !KERNEL.contains(VirtAddr(address)) {
        return Some(physical_of(memory.as_ptr()));
    }
    let first = translate(address);
    let next = (address | (PAGE.bytes() - 1)) + 1;
    let mut pages = (next..address + memory.len() as u64).step_by(PAGE.len());
    pages
        .all(|va| translate(va) == first + (va - address))
        .then_some(first)
}

/// The physical address of kernel memory that the core has mapped.
///
/// Panics where nothing is mapped.
fn translate(va: u64) -> u64 {
    let mut table = root();
    for level in (1..=4).rev() {
        let entries: NonNull<u64> = direct(table);
        // SAFETY: a table of the kernel's half, which stays as long as the memory at `va` does.
        let entry = unsafe { entries.add(slot(level, va)).read_volatile() };
        assert!(
            Bits::from_bits_retain(entry).contains(Bits::PRESENT),
            "nothing is mapped at {va:#x}"
        );
        table = entry & ADDRESS;
    }
    table + PAGE.within(va) as u64
}
