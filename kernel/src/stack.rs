//! Stacks of threads: pages of the kernel's memory above a page that is never there.

use crate::heap;
use crate::locks::SpinLock;
use bsdvm::{Fill, Frame, MemoryAttr, Prot, VirtAddr, VirtRange};
use bsdvm_x86_64::PAGE;
use core::ptr::NonNull;

/// Pages of a stack: 32 KiB. Programs were seen to need a third of it.
const PAGES: usize = 8;
const BYTES: u64 = PAGES as u64 * PAGE.bytes();
/// Stacks that are kept for the next threads.
const KEPT: usize = 8;

/// There is no memory for a stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoStack;

/// The pages of a stack. The page below them is not mapped: who overflows the stack faults there,
/// and as there is no stack to tell that on, it is a double fault.
struct Pages {
    guard: VirtAddr,
    frames: [Option<Frame>; PAGES],
}

/// A stack, as long as this is there.
pub(crate) struct Stack(Option<Pages>);

/// Stacks of threads that ended.
static SPARE: SpinLock<[Option<Pages>; KEPT]> = SpinLock::new([const { None }; KEPT]);

impl Pages {
    fn make() -> Result<Pages, NoStack> {
        let kmem = heap::kmem();
        let guard = kmem.map().alloc_nofault(BYTES + PAGE.bytes());
        let mut pages = Pages {
            guard: guard.map_err(|_| NoStack)?,
            frames: [None; PAGES],
        };
        match pages.fill() {
            Ok(()) => Ok(pages),
            Err(NoStack) => {
                pages.free();
                Err(NoStack)
            }
        }
    }

    fn range(&self) -> VirtRange {
        let low = VirtAddr(self.guard.0 + PAGE.bytes());
        match VirtRange::from_len(low, BYTES) {
            Some(range) => range,
            None => unreachable!("a stack that wraps"),
        }
    }

    fn fill(&mut self) -> Result<(), NoStack> {
        let kmem = heap::kmem();
        for (va, slot) in PAGE.pages(self.range()).zip(&mut self.frames) {
            let frame = kmem.frame_alloc(Fill::AsIs).map_err(|_| NoStack)?;
            *slot = Some(frame);
            let entered = kmem
                .map()
                .qenter(va, &[frame], Prot::RW, MemoryAttr::WriteBack);
            entered.map_err(|_| NoStack)?;
        }
        Ok(())
    }

    /// Gives everything back: translations first, then pages, then addresses.
    fn free(self) {
        let kmem = heap::kmem();
        let gone = kmem.map().qremove(self.range());
        debug_assert!(gone.is_ok(), "a stack is not mapped by hand: {gone:?}");
        for frame in self.frames.into_iter().flatten() {
            kmem.frame_free(frame);
        }
        let freed = kmem.map().free(self.guard, BYTES + PAGE.bytes());
        debug_assert!(freed.is_ok(), "a stack is not the kernel's: {freed:?}");
    }
}

impl Stack {
    /// A stack with anything in it. No lock is held.
    ///
    /// Errors: [`NoStack`].
    pub(crate) fn new() -> Result<Stack, NoStack> {
        let spare = SPARE.lock().iter_mut().find_map(Option::take);
        let pages = spare.map_or_else(Pages::make, Ok)?;
        Ok(Stack(Some(pages)))
    }

    /// The last word of it.
    pub(crate) fn top(&self) -> NonNull<u64> {
        let end = self.0.as_ref().map_or(0, |pages| pages.range().end().0);
        let at = core::num::NonZeroUsize::new(end as usize - size_of::<u64>());
        NonNull::with_exposed_provenance(at.unwrap_or(core::num::NonZeroUsize::MIN))
    }
}

/// No lock is held, and nobody runs on it.
impl Drop for Stack {
    fn drop(&mut self) {
        let Some(pages) = self.0.take() else {
            return;
        };
        let mut spare = SPARE.lock();
        if let Some(slot) = spare.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(pages);
            return;
        }
        drop(spare);
        pages.free();
    }
}
