//! `/dev/kpmap`: a page that the kernel provides to its guests (M19), in DragonFly's manner.
//!
//! The page begins with headers of four bytes, each a type and the byte offset of what is of that
//! type, both of 16 bits, up to a type of 0:
//!
//! | type | at the offset |
//! |---|---|
//! | 1 | version of the page, 32 bits: 1 |
//! | 2 | time since the start, as of the last system call of any guest: two 64-bit numbers, seconds and nanoseconds |
//! | 3 | time since 1970, likewise |
//!
//! It is read-only, can be mapped shared alone, and a child shares it whatever was said of its
//! inheritance. It comes with the first guest that opens it and goes when all have ended.

use crate::errno::Errno;
use crate::platform::Platform;
use crate::system::Linux;
use crate::{Lock, rank};
use bsdvm::{
    Access, DevicePage, Frame, Host, MemoryAttr, ObjectId, PageBytes, Pager, PagerError, PagerOps,
};
use core::sync::atomic::{AtomicBool, Ordering};

const HEADERS: [(u16, u16); 4] = [(1, 64), (2, UPTIME as u16), (3, REALTIME as u16), (0, 0)];
const VERSION: u64 = 64;
const UPTIME: u64 = 72;
const REALTIME: u64 = 88;

/// The page, once there is one.
pub(crate) struct KernelPage<P: Platform> {
    made: Lock<P, Option<Made>, { rank::INODES }>,
    live: AtomicBool,
}

/// The memory behind it, and the device that shows it.
#[derive(Clone, Copy)]
pub(crate) struct Made {
    pub(crate) memory: ObjectId,
    pub(crate) device: ObjectId,
}

/// Shows one frame, whose number is the cookie. The frame stays as long as the device: both go in
/// [`KernelPage::end`].
struct Shown;

static SHOWN: Shown = Shown;

impl PagerOps for Shown {
    fn get(&self, _: u64, _: u64, _: &mut [&mut dyn PageBytes]) -> Result<usize, PagerError> {
        Err(PagerError::Io(Errno::ENXIO.0))
    }

    fn put(&self, _: u64, _: u64, _: &dyn PageBytes, _: usize) -> Result<(), PagerError> {
        Err(PagerError::Io(Errno::ENXIO.0))
    }

    fn device(&self, cookie: u64, offset: u64) -> Result<DevicePage, PagerError> {
        let frame = u32::try_from(cookie).ok().filter(|_| offset == 0);
        Ok(DevicePage {
            frame: Frame(frame.ok_or(PagerError::BadFrame)?),
            attr: MemoryAttr::WriteBack,
        })
    }
}

impl<P: Platform> KernelPage<P> {
    pub(crate) fn new() -> Self {
        KernelPage {
            made: Lock::<P, _, { rank::INODES }>::new(None),
            live: AtomicBool::new(false),
        }
    }

    /// The page, made if there is none.
    pub(crate) fn get(&self, sys: &Linux<P>) -> Result<Made, Errno> {
        let mut made = self.made.lock();
        if let Some(made) = *made {
            return Ok(made);
        }
        let new = make(sys)?;
        *made = Some(new);
        self.live.store(true, Ordering::Release);
        drop(made);
        self.refresh(sys);
        Ok(new)
    }

    /// Writes what the time is, if anybody may look.
    pub(crate) fn refresh(&self, sys: &Linux<P>) {
        if !self.live.load(Ordering::Relaxed) {
            return;
        }
        let Some(Made { memory, .. }) = *self.made.lock() else {
            return;
        };
        let times = [
            (UPTIME, sys.vm.machine().now()),
            (REALTIME, sys.platform.wall_clock()),
        ];
        for (at, nanos) in times {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(nanos / 1_000_000_000).to_le_bytes());
            bytes[8..].copy_from_slice(&(nanos % 1_000_000_000).to_le_bytes());
            // The page is there and stays: nothing can be missing.
            let _ = sys.vm.object(memory).write(at, &bytes);
        }
    }

    /// Gives the page back: no guest is left.
    pub(crate) fn end(&self, sys: &Linux<P>) {
        self.live.store(false, Ordering::Release);
        let made = self.made.lock().take();
        if let Some(Made { memory, device }) = made {
            sys.vm.object(device).release();
            sys.vm.object(memory).release();
        }
    }
}

fn make<P: Platform>(sys: &Linux<P>) -> Result<Made, Errno> {
    let bytes = Linux::<P>::PAGE_BYTES;
    let memory = sys.vm.object_create_physical(bytes)?;
    let device = fill(sys, memory).and_then(|frame| {
        let pager = Pager {
            ops: &SHOWN,
            cookie: u64::from(frame.0),
        };
        Ok(sys.vm.object_create_managed_device(pager, bytes)?)
    });
    match device {
        Ok(device) => Ok(Made { memory, device }),
        Err(e) => {
            sys.vm.object(memory).release();
            Err(e)
        }
    }
}

/// Writes what never changes; gives the frame.
fn fill<P: Platform>(sys: &Linux<P>, memory: ObjectId) -> Result<Frame, Errno> {
    let object = sys.vm.object(memory);
    for (i, (kind, offset)) in HEADERS.into_iter().enumerate() {
        let header = u32::from(kind) | u32::from(offset) << 16;
        object.write(i as u64 * 4, &header.to_le_bytes())?;
    }
    object.write(VERSION, &1u32.to_le_bytes())?;
    Ok(object.grab(0, Access::Read)?.frame())
}
