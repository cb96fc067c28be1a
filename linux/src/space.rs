//! An address space with the bounds that Linux keeps for it.

use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::{Machine, Space, SpaceId, VirtAddr, VirtRange};
use core::sync::atomic::{AtomicU32, Ordering};

/// What `exec` decides about a space and `fork` copies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    /// Where the heap begins.
    pub(crate) brk_start: u64,
    /// Where it ends now.
    pub(crate) brk: u64,
    /// The top of the main stack.
    pub(crate) stack_top: u64,
    /// Mappings are placed below.
    pub(crate) mmap_top: u64,
    /// Whether new mappings are locked (`mlockall(MCL_FUTURE)`).
    pub(crate) lock_future: bool,
    /// Where the arguments lie, for `/proc/self/cmdline`.
    pub(crate) args: (u64, u64),
    /// The environment of it.
    pub(crate) env: (u64, u64),
    /// Where the program's instructions and its data lie.
    pub(crate) code: (u64, u64),
    pub(crate) data: (u64, u64),
    /// Where the stack pointer was at first.
    pub(crate) stack_start: u64,
    /// The auxiliary vector, for `/proc/self/auxv`.
    pub(crate) auxv: Vec<u8>,
}

/// One address space of the core, shared by the threads of a process and by a `vfork` child. The
/// core's space goes when the last holder does.
pub(crate) struct AddressSpace<P: Platform> {
    sys: &'static Linux<P>,
    id: SpaceId,
    pub(crate) bounds: Lock<P, Bounds, { rank::SPACE }>,
    /// What `membarrier` was told to be ready for.
    pub(crate) barriers: AtomicU32,
}

impl<P: Platform> Linux<P> {
    /// The size of a page in bytes.
    pub(crate) const PAGE_BYTES: u64 = <P::Machine as Machine>::PAGE.bytes();

    /// The addresses that a guest may have.
    pub(crate) fn user_range(&self) -> VirtRange {
        self.vm.machine().user_range()
    }
}

impl<P: Platform> AddressSpace<P> {
    /// A new empty space.
    pub(crate) fn create(sys: &'static Linux<P>) -> Result<Arc<AddressSpace<P>>, Errno> {
        let id = sys.vm.space_create(sys.user_range())?;
        Ok(Arc::new(AddressSpace {
            sys,
            id,
            bounds: Lock::<P, _, { rank::SPACE }>::new(Bounds::default()),
            barriers: AtomicU32::new(0),
        }))
    }

    /// A copy for a forked child.
    pub(crate) fn fork(&self) -> Result<Arc<AddressSpace<P>>, Errno> {
        let bounds = self.bounds.lock().clone();
        let id = self.core().fork()?;
        Ok(Arc::new(AddressSpace {
            sys: self.sys,
            id,
            bounds: Lock::<P, _, { rank::SPACE }>::new(bounds),
            barriers: AtomicU32::new(self.barriers.load(Ordering::SeqCst)),
        }))
    }

    /// The core's number of the space.
    pub(crate) fn id(&self) -> SpaceId {
        self.id
    }

    /// The core's space.
    pub(crate) fn core(&self) -> Space<'static, P::Machine> {
        self.sys.vm.space(self.id)
    }

    /// The range of whole pages that a guest means by `addr` and `len`: `addr` must be aligned
    /// (`EINVAL`), the end must not wrap and must be a user address (`wraps`).
    pub(crate) fn pages(&self, addr: u64, len: u64, wraps: Errno) -> Result<VirtRange, Errno> {
        let page = <P::Machine as Machine>::PAGE;
        if !page.is_aligned(VirtAddr(addr)) {
            return Err(Errno::EINVAL);
        }
        let len = page.round_up(len).ok_or(wraps)?;
        let range = VirtRange::from_len(VirtAddr(addr), len).ok_or(wraps)?;
        if range.end() > self.sys.user_range().end() {
            return Err(wraps);
        }
        Ok(range)
    }
}

impl<P: Platform> Drop for AddressSpace<P> {
    fn drop(&mut self) {
        self.core().release();
        self.sys.wake(crate::blocking::memory_channel());
    }
}
