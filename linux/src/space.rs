//! An address space with the bounds that Linux keeps for it.

use crate::errno::Errno;
use crate::fs::busy::InUse;
use crate::platform::Platform;
use crate::process::Process;
use crate::syscall::memory_lock::Pages;
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::{EntryInfo, GrowthLimits, Machine, Space, SpaceId, VirtAddr, VirtRange};
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general as abi;

/// A mark: a child is to get zeroes, once it is to get anything.
pub(crate) const WIPED: u8 = 1;
/// A mark: what is locked comes when it is touched.
pub(crate) const ON_FAULT: u8 = 2;

/// Where Linux's own user addresses end. Those from the machine's end on are nobody's.
pub(crate) const TASK_END: u64 = 0x7fff_ffff_f000;

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
    /// Whether new mappings are locked (`mlockall(MCL_FUTURE)`), and how.
    pub(crate) lock_future: Option<Pages>,
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
    /// The program's file, which nobody writes meanwhile.
    program: Option<InUse<P>>,
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
    /// A new empty space for a program whose file is in use.
    pub(crate) fn create(
        sys: &'static Linux<P>,
        program: InUse<P>,
    ) -> Result<Arc<AddressSpace<P>>, Errno> {
        let id = sys.vm.space_create(sys.user_range())?;
        Ok(Arc::new(AddressSpace {
            sys,
            id,
            bounds: Lock::<P, _, { rank::SPACE }>::new(Bounds::default()),
            barriers: AtomicU32::new(0),
            program: Some(program),
        }))
    }

    /// A copy for a forked child.
    pub(crate) fn fork(&self) -> Result<Arc<AddressSpace<P>>, Errno> {
        let bounds = Bounds {
            // Locks are not inherited.
            lock_future: None,
            ..self.bounds.lock().clone()
        };
        let id = self.core().fork()?;
        Ok(Arc::new(AddressSpace {
            sys: self.sys,
            id,
            bounds: Lock::<P, _, { rank::SPACE }>::new(bounds),
            barriers: AtomicU32::new(self.barriers.load(Ordering::SeqCst)),
            program: self.program.as_ref().and_then(InUse::again),
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

    /// Gives the contents of a piece of an entry up. One that is locked stays so: pages that come
    /// again are locked.
    pub(crate) fn discard(&self, piece: VirtRange, entry: &EntryInfo) -> Result<(), Errno> {
        let core = self.core();
        if !entry.user_wired {
            return Ok(core.discard(piece)?);
        }
        core.unwire(piece).ok();
        core.discard(piece)?;
        Ok(core.wire_on_fault(piece)?)
    }

    /// Limits how far stacks may grow.
    pub(crate) fn limit_growth(&self, stack: u64, space: u64) {
        self.core().set_growth_limits(GrowthLimits { stack, space });
    }

    /// Bytes that are locked in memory.
    pub(crate) fn locked_bytes(&self) -> u64 {
        let mut bytes = 0;
        let mut at = VirtAddr(0);
        while let Some(entry) = self.core().entry(at).filter(|e| e.range.end() > at) {
            if entry.user_wired {
                bytes += entry.range.len();
            }
            at = entry.range.end();
        }
        bytes
    }

    /// The range of whole pages that a guest means by `addr` and `len`: `addr` must be aligned
    /// (`EINVAL`), the end must not wrap and must be a user address of Linux (`wraps`).
    pub(crate) fn pages(&self, addr: u64, len: u64, wraps: Errno) -> Result<VirtRange, Errno> {
        let page = <P::Machine as Machine>::PAGE;
        if !page.is_aligned(VirtAddr(addr)) {
            return Err(Errno::EINVAL);
        }
        let len = page.round_up(len).ok_or(wraps)?;
        let range = VirtRange::from_len(VirtAddr(addr), len).ok_or(wraps)?;
        if range.end().0 > TASK_END {
            return Err(wraps);
        }
        Ok(range)
    }
}

impl<P: Platform> Process<P> {
    /// Tells the space how far its stacks may grow now.
    pub(crate) fn limits_changed(&self) {
        if let Some(space) = self.space() {
            let (stack, all) = (self.limit(abi::RLIMIT_STACK), self.limit(abi::RLIMIT_AS));
            space.limit_growth(stack, all);
        }
    }
}

impl<P: Platform> Drop for AddressSpace<P> {
    fn drop(&mut self) {
        self.core().release();
        self.sys.wake(crate::blocking::memory_channel());
    }
}

/// Whether `b` maps more of what `a` does in the same way and follows it: the core may keep the two
/// apart where Linux has one mapping.
pub(crate) fn continues(a: &EntryInfo, b: &EntryInfo) -> bool {
    let file = match (a.file, b.file) {
        (None, None) => a.stack == b.stack,
        (Some((x, at)), Some((y, then))) => x == y && at.checked_add(a.range.len()) == Some(then),
        _ => false,
    };
    let alike = |e: &EntryInfo| (e.prot, e.max_prot, e.sharing, e.inherit, e.behavior);
    let marks = |e: &EntryInfo| (e.user_wired, e.no_core, e.provided, e.marks);
    let plain = |e: &EntryInfo| e.page_directory.is_none() && e.submap.is_none();
    a.range.end() == b.range.start()
        && file
        && alike(a) == alike(b)
        && marks(a) == marks(b)
        && plain(a)
        && plain(b)
}
