//! The least machine that the core's containers run on: memory in one piece, one processor, and no
//! translations. What is measured on it is the core alone.

use bsdvm_machine::{
    Channel, EnterError, Flush, Frame, FrameRun, Host, Kind, Locks, Machine, Memory, MemoryAttr,
    PageSize, Pmap, Prot, Removed, Ticket, Translation, Usage, VirtAddr, VirtRange, Wait,
};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

const PAGE: usize = 4096;

/// The machine.
pub struct Flat {
    memory: NonNull<u8>,
    frames: u32,
}

// SAFETY: the memory belongs to the machine alone, and it hands out nothing but addresses.
unsafe impl Send for Flat {}
// SAFETY: as above.
unsafe impl Sync for Flat {}

impl Flat {
    /// A machine with `frames` frames, at least one.
    pub fn new(frames: u32) -> Flat {
        assert!(frames > 0, "a machine has memory");
        let layout = Flat::layout(frames);
        // SAFETY: the layout has a size, as there is a frame.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) });
        let memory = memory.unwrap_or_else(|| handle_alloc_error(layout));
        Flat { memory, frames }
    }

    fn layout(frames: u32) -> Layout {
        Layout::from_size_align(frames as usize * PAGE, PAGE).expect("fewer bytes than isize::MAX")
    }
}

impl Drop for Flat {
    fn drop(&mut self) {
        // SAFETY: the memory was allocated with this layout, and nothing that the machine gave out
        // outlives it.
        unsafe { dealloc(self.memory.as_ptr(), Flat::layout(self.frames)) };
    }
}

impl Locks for Flat {
    type RawMutex = parking_lot::RawMutex;
    type RawRwLock = parking_lot::RawRwLock;
}

impl Wait for Flat {
    fn ticket(&self, _: Channel) -> Ticket {
        Ticket(0)
    }
    fn sleep(&self, _: Channel, _: Ticket, _: Option<u64>) {}
    fn wake(&self, _: Channel) {}
}

impl Host for Flat {
    fn now(&self) -> u64 {
        0
    }
    fn cpu(&self) -> usize {
        0
    }
    fn cpus(&self) -> usize {
        1
    }
    fn random(&self) -> u64 {
        0
    }
}

impl Memory for Flat {
    fn frames(&self) -> u32 {
        self.frames
    }
    fn zero(&self, _: Frame) {}
    fn copy(&self, _: Frame, _: Frame) {}
    fn read(&self, _: Frame, _: usize, _: &mut [u8]) {}
    fn write(&self, _: Frame, _: usize, _: &[u8]) {}
    fn load_u32(&self, _: Frame, _: usize) -> u32 {
        0
    }
    fn compare_exchange_u32(&self, _: Frame, _: usize, old: u32, _: u32) -> Result<u32, u32> {
        Ok(old)
    }
    fn record_memory(&self, frame: Frame) -> NonNull<u8> {
        assert!(frame.0 < self.frames, "no such frame");
        // SAFETY: the frame lies within the memory.
        unsafe { self.memory.add(frame.0 as usize * PAGE) }
    }
}

/// Translations that nobody keeps.
#[derive(Default)]
pub struct Nothing;

impl Flush for Nothing {
    fn join(&mut self, _: Self) {}
    fn wait(self) {}
    fn is_done(&self) -> bool {
        true
    }
}

impl Pmap for Nothing {
    type Flush = Nothing;
    fn enter(
        &self,
        _: VirtAddr,
        _: FrameRun,
        _: Prot,
        _: MemoryAttr,
        _: Kind,
        _: &mut dyn FnMut(Removed),
    ) -> Result<Nothing, EnterError> {
        Ok(Nothing)
    }
    fn remove(&self, _: VirtRange, _: &mut dyn FnMut(Removed)) -> Nothing {
        Nothing
    }
    fn protect(&self, _: VirtRange, _: Prot) -> Nothing {
        Nothing
    }
    fn extract(&self, _: VirtAddr) -> Option<Translation> {
        None
    }
    fn scan(&self, _: VirtRange, _: &mut dyn FnMut(VirtAddr, Translation)) {}
    fn take_usage(&self, _: VirtAddr, _: Usage) -> (Usage, Nothing) {
        (Usage::empty(), Nothing)
    }
    fn donate(&self, _: Frame) {}
    fn reclaim(&self, _: &mut dyn FnMut(Frame)) -> Nothing {
        Nothing
    }
    fn resident(&self) -> u64 {
        0
    }
}

impl Machine for Flat {
    const PAGE: PageSize = PageSize::KIB4;
    type Pmap = Nothing;

    fn pmap_create(&self) -> Result<Nothing, EnterError> {
        Ok(Nothing)
    }
    fn user_range(&self) -> VirtRange {
        VirtRange::new(VirtAddr(0x1_0000), VirtAddr(0x7fff_ffff_0000)).unwrap_or_default()
    }
}
