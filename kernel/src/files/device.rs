//! The memory devices: `/dev/null` and its kin. The server opens no devices.

use crate::machine::random;
use bsdvm_linux::Errno;
use bsdvm_linux::platform::FileStat;

/// The major number of the memory devices.
const MEMORY: u32 = 1;

/// What a device does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

/// An open device.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    kind: Kind,
    pub(crate) stat: FileStat,
    pub(crate) flags: u32,
    pub(crate) path: alloc::vec::Vec<u8>,
}

impl Device {
    /// The device that `stat` describes.
    ///
    /// Errors: `ENXIO` where the kernel has none of the kind.
    pub(crate) fn new(
        stat: FileStat,
        flags: u32,
        path: alloc::vec::Vec<u8>,
    ) -> Result<Device, Errno> {
        let kind = match stat.rdev {
            (MEMORY, 3) => Kind::Null,
            (MEMORY, 5) => Kind::Zero,
            (MEMORY, 7) => Kind::Full,
            (MEMORY, 8 | 9) => Kind::Random,
            _ => return Err(Errno::ENXIO),
        };
        Ok(Device {
            kind,
            stat,
            flags,
            path,
        })
    }

    pub(crate) fn read(&self, buf: &mut [u8]) -> usize {
        match self.kind {
            Kind::Null => return 0,
            Kind::Zero | Kind::Full => buf.fill(0),
            Kind::Random => fill_random(buf),
        }
        buf.len()
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self.kind {
            Kind::Full => Err(Errno::ENOSPC),
            Kind::Null | Kind::Zero | Kind::Random => Ok(bytes.len()),
        }
    }
}

/// Fills a buffer with random bytes.
pub(crate) fn fill_random(buf: &mut [u8]) {
    for piece in buf.chunks_mut(8) {
        let bytes = random().to_le_bytes();
        piece.copy_from_slice(&bytes[..piece.len()]);
    }
}
