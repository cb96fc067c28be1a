//! Any open file, as the personality has it.

use crate::files::device::Device;
use crate::files::nine::NineFile;
use crate::files::standard::Standard;
use crate::files::walk::Place;
use crate::ninep::SetAttr;
use alloc::vec::Vec;
use bsdvm_link::Act;
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{
    DirEntry, FileStat, FsStat, HostFile, PollBits, TerminalAnswer, TerminalCall,
};
use linux_raw_sys::general as abi;

/// An open file.
#[derive(Clone)]
pub(crate) enum File {
    /// One of the host.
    Nine(NineFile),
    /// A memory device.
    Device(Device),
    /// The runner's standard input, output or error.
    Standard(Standard),
}

impl File {
    /// Where it is in the tree, if it is.
    pub(crate) fn place(&self) -> Option<&Place> {
        match self {
            File::Nine(file) => Some(file.place()),
            File::Device(_) | File::Standard(_) => None,
        }
    }

    /// Those of the bits of `poll` that are on.
    pub(crate) fn poll(&self, bits: PollBits) -> Result<PollBits, Errno> {
        const READY: u32 = abi::POLLIN | abi::POLLRDNORM | abi::POLLOUT | abi::POLLWRNORM;
        match self {
            File::Nine(_) | File::Device(_) => Ok(READY as u16 & bits),
            File::Standard(file) => file.number(Act::Poll(bits)).map(|n| n as u16),
        }
    }
}

impl HostFile for File {
    fn read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        match self {
            File::Nine(file) => file.read(buf),
            File::Device(device) => Ok(device.read(buf)),
            File::Standard(file) => file.fill(buf, Act::Read),
        }
    }

    fn write(&self, buf: &[u8]) -> Result<usize, Errno> {
        match self {
            File::Nine(file) => file.write(buf),
            File::Device(device) => device.write(buf),
            File::Standard(file) => file.write(buf, Act::Write),
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        match self {
            File::Nine(file) => file.read_at(offset, buf),
            File::Device(device) => Ok(device.read(buf)),
            File::Standard(file) => file.fill(buf, |most| Act::ReadAt(offset, most)),
        }
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<usize, Errno> {
        match self {
            File::Nine(file) => file.write_at(offset, buf),
            File::Device(device) => device.write(buf),
            File::Standard(file) => file.write(buf, |bytes| Act::WriteAt(offset, bytes)),
        }
    }

    fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno> {
        match self {
            File::Nine(file) => file.seek(offset, whence),
            File::Device(_) => Ok(0),
            File::Standard(file) => file.number(Act::Seek(offset, whence)),
        }
    }

    fn stat(&self) -> Result<FileStat, Errno> {
        match self {
            File::Nine(file) => file.stat(),
            File::Device(device) => Ok(device.stat),
            File::Standard(file) => file.stat(),
        }
    }

    fn truncate(&self, bytes: u64) -> Result<(), Errno> {
        match self {
            File::Nine(file) => file.set(&SetAttr {
                size: Some(bytes),
                ..SetAttr::default()
            }),
            File::Device(_) => Err(Errno::EINVAL),
            File::Standard(file) => file.act(Act::Truncate(bytes)),
        }
    }

    fn sync(&self, data_only: bool) -> Result<(), Errno> {
        match self {
            File::Nine(file) => file.place().fid.sync(u32::from(data_only)),
            File::Device(_) => Err(Errno::EINVAL),
            File::Standard(file) => file.act(Act::Sync(data_only)),
        }
    }

    /// The protocol has no such request.
    fn allocate(&self, _mode: u32, _offset: u64, _bytes: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn entries(&self, bytes: usize) -> Result<Vec<DirEntry>, Errno> {
        match self {
            File::Nine(file) => file.entries(bytes),
            File::Device(_) | File::Standard(_) => Err(Errno::ENOTDIR),
        }
    }

    fn path(&self) -> Result<Vec<u8>, Errno> {
        match self {
            File::Nine(file) => Ok(file.place().path.clone()),
            File::Device(device) => Ok(device.path.clone()),
            File::Standard(file) => file.bytes(Act::Path),
        }
    }

    fn statfs(&self) -> Result<FsStat, Errno> {
        match self {
            File::Nine(file) => file.place().fid.stat_fs(),
            File::Device(_) => Err(Errno::ENOSYS),
            File::Standard(file) => file.stat_fs(),
        }
    }

    fn chmod(&self, mode: u32) -> Result<(), Errno> {
        match self {
            File::Nine(file) => file.set(&SetAttr {
                mode: Some(mode),
                ..SetAttr::default()
            }),
            File::Device(_) => Err(Errno::EPERM),
            File::Standard(file) => file.act(Act::Chmod(mode)),
        }
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        match self {
            File::Nine(file) => file.set(&SetAttr {
                uid,
                gid,
                ..SetAttr::default()
            }),
            File::Device(_) => Err(Errno::EPERM),
            File::Standard(file) => file.act(Act::Chown(uid, gid)),
        }
    }

    fn terminal(&self, call: TerminalCall) -> Result<TerminalAnswer, Errno> {
        match (self, call) {
            (File::Standard(file), call) => file.terminal(call),
            (File::Nine(file), TerminalCall::Readable) => {
                let left = file
                    .stat()?
                    .size
                    .saturating_sub(file.seek(0, abi::SEEK_CUR)?);
                Ok(TerminalAnswer::Count(
                    u32::try_from(left).unwrap_or(u32::MAX),
                ))
            }
            (File::Nine(_) | File::Device(_), _) => Err(Errno::ENOTTY),
        }
    }

    /// The client of the protocol has no such request.
    fn xattr(&self, _name: &[u8], _buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn flags(&self) -> Result<u32, Errno> {
        match self {
            File::Nine(file) => Ok(file.flags()),
            File::Device(device) => Ok(device.flags),
            File::Standard(file) => file.number(Act::Flags).map(|n| n as u32),
        }
    }

    /// A standard file keeps the flags that it has on the host, where others share them.
    fn set_flags(&self, flags: u32) -> Result<(), Errno> {
        if let File::Nine(file) = self {
            file.set_flags(flags);
        }
        Ok(())
    }

    fn duplicate(&self) -> Result<File, Errno> {
        Ok(self.clone())
    }
}
