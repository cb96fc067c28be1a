//! Physical memory: what the kernel keeps for itself, and the frames that the core gets.
//!
//! The heap is cut from the first free memory; the tables of the direct map before it. What is
//! left is frames: numbers from 0 over all of it, so that a gap in physical memory is none in the
//! numbers.

use crate::layout::{DIRECT, direct, early, physical_of};
use crate::start_info::Start;
use bsdvm::{Frame, FrameRun, Memory};
use bsdvm_x86_64::{ENTRIES, Entry, PAGE, entry::Bits};
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::machine::Bare;

/// The size of the heap.
const HEAP_BYTES: u64 = 64 << 20;
const LARGE: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
/// Where devices of a PC lie: mapped uncached.
const DEVICES: (u64, u64) = (0xc000_0000, 0x4000_0000);
/// How many separate ranges of memory are used.
const REGIONS: usize = 8;

/// The number that stands for the frame of the kernel's root table, which is in the image.
pub(crate) const ROOT: Frame = Frame(u32::MAX - 1);

unsafe extern "C" {
    static boot_root: u8;
    static image_end: u8;
}

/// Frames that lie together.
#[derive(Clone, Copy, Default)]
struct Region {
    first: u32,
    count: u32,
    physical: u64,
}

struct Regions(UnsafeCell<[Region; REGIONS]>);

// SAFETY: written once, while the only processor boots.
unsafe impl Sync for Regions {}

static REGION: Regions = Regions(UnsafeCell::new(
    [Region {
        first: 0,
        count: 0,
        physical: 0,
    }; REGIONS],
));
static FRAMES: AtomicU32 = AtomicU32::new(0);

fn regions() -> &'static [Region; REGIONS] {
    // SAFETY: only read after `init`.
    unsafe { &*REGION.0.get() }
}

/// The physical address of the kernel's root table.
pub(crate) fn root() -> u64 {
    // It is linked where it is loaded.
    (&raw const boot_root).addr() as u64
}

/// Takes memory apart and maps all of it. Gives back the heap.
///
/// Panics when there is too little.
pub(crate) fn init(start: &Start) -> (NonNull<u8>, usize) {
    let image = (&raw const image_end).addr() as u64;
    let mut ranges = [(0, 0); REGIONS];
    let usable = start.memory().filter_map(|(first, bytes)| {
        let low = first.max(image).next_multiple_of(PAGE.bytes());
        let high = (first + bytes) & !(PAGE.bytes() - 1);
        (low < high).then_some((low, high))
    });
    ranges.iter_mut().zip(usable).for_each(|(to, r)| *to = r);
    let top = ranges.iter().map(|r| r.1).max().unwrap_or(0);
    let mut free = ranges[0].0;
    map_all(top, &mut free);
    let heap = free.next_multiple_of(LARGE);
    assert!(
        heap + HEAP_BYTES <= ranges[0].1,
        "too little memory for the kernel"
    );
    ranges[0].0 = heap + HEAP_BYTES;
    number(&ranges);
    (direct(heap), HEAP_BYTES as usize)
}

/// Gives numbers to the frames of `ranges`.
fn number(ranges: &[(u64, u64); REGIONS]) {
    let mut next = 0;
    for (i, (low, high)) in ranges.iter().enumerate() {
        let count = PAGE.index(high - low) as u32;
        let region = Region {
            first: next,
            count,
            physical: *low,
        };
        // SAFETY: nobody reads them yet.
        unsafe { (*REGION.0.get())[i] = region };
        next += count;
    }
    FRAMES.store(next, Ordering::Relaxed);
}

/// Builds the direct map up to `top`, with tables cut from `free`, and lets go of the identity map
/// that the boot code made.
fn map_all(top: u64, free: &mut u64) {
    let mut table = || -> u64 {
        let at = *free;
        *free += PAGE.bytes();
        // SAFETY: free memory that the boot code mapped.
        unsafe { early::<[u64; ENTRIES]>(at).write([0; ENTRIES]) };
        at
    };
    let set = |table: u64, index: usize, entry: Entry| {
        // SAFETY: a table that was made here, or the root; the processor looks at it again later.
        unsafe { (*early::<[u64; ENTRIES]>(table))[index] = entry.0 };
    };
    let pointers = table();
    let root_slot = (DIRECT >> 39) as usize % ENTRIES;
    set(root(), root_slot, Entry::table(pointers, false));
    let mut gibs = 0;
    let end = top.max(DEVICES.0 + DEVICES.1);
    while gibs * GIB < end {
        let directory = table();
        set(pointers, gibs as usize, Entry::table(directory, false));
        for i in 0..ENTRIES {
            let at = gibs * GIB + i as u64 * LARGE;
            set(directory, i, large(at));
        }
        gibs += 1;
    }
    set(root(), 0, Entry::EMPTY);
    crate::hardware::load_root(root());
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

/// The physical address of kernel memory that a device is to reach.
pub(crate) fn device_address(memory: NonNull<[u8]>) -> u64 {
    physical_of(memory.as_ptr())
}
