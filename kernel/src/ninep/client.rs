//! One call for each request of the protocol.

use super::message::{In, Kind, Out, Qid};
use crate::dma;
use crate::locks::SpinLock;
use crate::virtio::{self, KernelMemory, Mmio};
use alloc::vec::Vec;
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{DirEntry, FileStat, FsStat, Moment};
use linux_raw_sys::general as abi;
use virtio_drivers::device::virtio_9p::VirtIO9p;
use virtio_drivers::transport::DeviceType;

/// The longest message: room for [`MOST`] bytes and what stands around them.
const MESSAGE: u32 = (MOST + 512) as u32;
/// The most bytes that one read or write moves.
pub(crate) const MOST: usize = 128 << 10;
/// The most names that one walk takes.
pub(crate) const NAMES: usize = 16;
const VERSION: &[u8] = b"9P2000.L";
/// No file: nobody vouches for us.
const NO_FID: u32 = u32::MAX;
/// The attributes that `stat` tells.
const BASIC: u64 = 0x7ff;
/// `AT_REMOVEDIR`.
pub(crate) const REMOVE_DIR: u32 = 0x200;

struct Wire {
    device: VirtIO9p<KernelMemory, Mmio>,
    request: Vec<u8>,
    /// Where the device writes: memory that lies together.
    answer: &'static mut [u8],
    next_fid: u32,
    free_fids: Vec<u32>,
}

/// The server of the host's files.
pub(crate) struct Client(SpinLock<Wire>);

/// A file on the server, as long as this is there.
pub(crate) struct Fid {
    client: &'static Client,
    number: u32,
}

impl Drop for Fid {
    fn drop(&mut self) {
        // The number is free whatever the server says.
        let _ = self
            .client
            .call(Kind::Clunk, |o| o.u32(self.number), |_| Ok(()));
        self.client.0.lock().free_fids.push(self.number);
    }
}

/// A time to set: none, the present one, or this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Time {
    #[default]
    Keep,
    Now,
    At(i64, i64),
}

/// Attributes to set; `None` leaves as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SetAttr {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
}

impl Client {
    /// Finds the device and agrees with the server.
    ///
    /// Panics when there is none: the kernel has no files without it.
    pub(crate) fn connect() -> Client {
        let Some(transport) = virtio::find(DeviceType::_9P) else {
            panic!("no virtio-9p device");
        };
        let device = match VirtIO9p::new(transport) {
            Ok(device) => device,
            Err(e) => panic!("the virtio-9p device does not work: {e}"),
        };
        let client = Client(SpinLock::new(Wire {
            device,
            request: Vec::new(),
            answer: dma::buffer(MESSAGE as usize),
            next_fid: 0,
            free_fids: Vec::new(),
        }));
        let agreed = client.call(
            Kind::Version,
            |o| o.u32(MESSAGE).string(VERSION),
            |i| Ok(i.u32()? == MESSAGE && i.string()? == VERSION),
        );
        assert!(
            agreed == Ok(true),
            "the 9P server speaks otherwise: {agreed:?}"
        );
        client
    }

    /// Sends a request and reads its answer.
    fn call<T>(
        &self,
        kind: Kind,
        write: impl for<'a, 'b> FnOnce(&'a mut Out<'b>) -> &'a mut Out<'b>,
        read: impl FnOnce(&mut In<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut wire = self.0.lock();
        let Wire {
            device,
            request,
            answer,
            ..
        } = &mut *wire;
        let mut out = Out::new(request, kind);
        write(&mut out);
        out.finish();
        let len = device.request(request, answer).map_err(|_| Errno::EIO)?;
        let bytes = answer.get(..len as usize).ok_or(Errno::EIO)?;
        read(&mut In::new(bytes, kind)?)
    }

    fn new_number(&self) -> u32 {
        let mut wire = self.0.lock();
        wire.free_fids.pop().unwrap_or_else(|| {
            wire.next_fid += 1;
            wire.next_fid
        })
    }

    /// Calls what makes a file known as a new number.
    fn make<T>(
        &'static self,
        call: impl FnOnce(u32) -> Result<T, Errno>,
    ) -> Result<(Fid, T), Errno> {
        let number = self.new_number();
        match call(number) {
            Ok(value) => Ok((
                Fid {
                    client: self,
                    number,
                },
                value,
            )),
            Err(e) => {
                self.0.lock().free_fids.push(number);
                Err(e)
            }
        }
    }

    /// The root of the server's files, for a user.
    pub(crate) fn attach(&'static self, uid: u32) -> Result<Fid, Errno> {
        let attach = |fid| {
            self.call(
                Kind::Attach,
                |o| {
                    o.u32(fid)
                        .u32(NO_FID)
                        .string(b"bsdvm")
                        .string(b"/")
                        .u32(uid)
                },
                |i| i.qid(),
            )
        };
        self.make(attach).map(|(fid, _)| fid)
    }
}

/// How far a walk came.
pub(crate) enum Walked {
    /// To the end: the file, and what each name led to.
    All(Fid, Vec<Qid>),
    /// Not to the end: what the first names led to, at least one.
    Part(Vec<Qid>),
}

impl Fid {
    fn call<T>(
        &self,
        kind: Kind,
        write: impl for<'a, 'b> FnOnce(&'a mut Out<'b>) -> &'a mut Out<'b>,
        read: impl FnOnce(&mut In<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let number = self.number;
        self.client.call(kind, |o| write(o.u32(number)), read)
    }

    /// Follows names, at most [`NAMES`], none of which the server takes for a link.
    ///
    /// Errors: why the first name leads nowhere.
    pub(crate) fn walk(&self, names: &[&[u8]]) -> Result<Walked, Errno> {
        let number = self.client.new_number();
        let walked = self.call(
            Kind::Walk,
            |o| {
                o.u32(number).u16(names.len() as u16);
                names.iter().for_each(|name| {
                    o.string(name);
                });
                o
            },
            |i| {
                (0..i.u16()?)
                    .map(|_| i.qid())
                    .collect::<Result<Vec<_>, _>>()
            },
        );
        match walked {
            Ok(qids) if qids.len() == names.len() => {
                let client = self.client;
                Ok(Walked::All(Fid { client, number }, qids))
            }
            other => {
                self.client.0.lock().free_fids.push(number);
                other.map(Walked::Part)
            }
        }
    }

    /// The same file once more.
    pub(crate) fn again(&self) -> Result<Fid, Errno> {
        match self.walk(&[])? {
            Walked::All(fid, _) => Ok(fid),
            Walked::Part(_) => Err(Errno::EIO),
        }
    }

    /// Opens it with Linux's flags.
    pub(crate) fn open(&self, flags: u32) -> Result<(), Errno> {
        self.call(Kind::Open, |o| o.u32(flags), |_| Ok(()))
    }

    /// Makes and opens a file in this directory; this is the file then.
    pub(crate) fn create(
        &self,
        name: &[u8],
        flags: u32,
        mode: u32,
        gid: u32,
    ) -> Result<Qid, Errno> {
        self.call(
            Kind::Create,
            |o| o.string(name).u32(flags).u32(mode).u32(gid),
            |i| i.qid(),
        )
    }

    /// Reads at an offset; at most [`MOST`] bytes.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let want = buf.len().min(MOST) as u32;
        self.call(
            Kind::Read,
            |o| o.u64(offset).u32(want),
            |i| {
                let n = i.u32()? as usize;
                let bytes = i.bytes(n)?;
                buf.get_mut(..n).ok_or(Errno::EIO)?.copy_from_slice(bytes);
                Ok(n)
            },
        )
    }

    /// Writes at an offset; at most [`MOST`] bytes.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let bytes = &bytes[..bytes.len().min(MOST)];
        self.call(
            Kind::Write,
            |o| o.u64(offset).data(bytes),
            |i| Ok(i.u32()? as usize),
        )
    }

    /// Entries of a directory from `offset` (0, or one that an entry names), in `bytes` bytes of
    /// answer.
    pub(crate) fn entries(&self, offset: u64, bytes: usize) -> Result<Vec<DirEntry>, Errno> {
        let count = bytes.min(MOST) as u32;
        self.call(
            Kind::ReadDir,
            |o| o.u64(offset).u32(count),
            |i| {
                let _bytes = i.u32()?;
                let mut entries = Vec::new();
                while !i.is_empty() {
                    entries.push(DirEntry {
                        ino: inode(i.qid()?).0,
                        next: i.u64()?,
                        kind: i.u8()?,
                        name: i.string()?.to_vec(),
                    });
                }
                Ok(entries)
            },
        )
    }

    /// What a symbolic link says.
    pub(crate) fn read_link(&self) -> Result<Vec<u8>, Errno> {
        self.call(Kind::ReadLink, |o| o, |i| Ok(i.string()?.to_vec()))
    }

    /// What the file is.
    pub(crate) fn stat(&self) -> Result<FileStat, Errno> {
        self.call(Kind::GetAttr, |o| o.u64(BASIC), read_stat)
    }

    /// Sets attributes.
    pub(crate) fn set(&self, set: &SetAttr) -> Result<(), Errno> {
        let time = |t: Time, now: u32, at: u32| match t {
            Time::Keep => (0, 0, 0),
            Time::Now => (now, 0, 0),
            Time::At(seconds, nanos) => (now | at, seconds, nanos),
        };
        let (atime, aseconds, ananos) = time(set.atime, 0x10, 0x80);
        let (mtime, mseconds, mnanos) = time(set.mtime, 0x20, 0x100);
        let valid = u32::from(set.mode.is_some())
            | u32::from(set.uid.is_some()) << 1
            | u32::from(set.gid.is_some()) << 2
            | u32::from(set.size.is_some()) << 3
            | atime
            | mtime;
        self.call(
            Kind::SetAttr,
            |o| {
                o.u32(valid).u32(set.mode.unwrap_or(0));
                o.u32(set.uid.unwrap_or(0)).u32(set.gid.unwrap_or(0));
                o.u64(set.size.unwrap_or(0));
                [aseconds, ananos, mseconds, mnanos]
                    .iter()
                    .for_each(|n| _ = o.u64(n.cast_unsigned()));
                o
            },
            |_| Ok(()),
        )
    }

    /// What the file system is.
    pub(crate) fn stat_fs(&self) -> Result<FsStat, Errno> {
        self.call(
            Kind::StatFs,
            |o| o,
            |i| {
                let (kind, block_size) = (u64::from(i.u32()?), u64::from(i.u32()?));
                Ok(FsStat {
                    kind,
                    block_size,
                    blocks: i.u64()?,
                    blocks_free: i.u64()?,
                    blocks_available: i.u64()?,
                    files: i.u64()?,
                    files_free: i.u64()?,
                    fsid: [i.u32()?, i.u32()?],
                    name_len: u64::from(i.u32()?),
                    fragment_size: block_size,
                    flags: 0,
                })
            },
        )
    }

    /// Has the file written to where it stays; its data only where `data_only` is 1.
    pub(crate) fn sync(&self, data_only: u32) -> Result<(), Errno> {
        self.call(Kind::Sync, |o| o.u32(data_only), |_| Ok(()))
    }

    /// Makes a directory in this one.
    pub(crate) fn make_dir(&self, name: &[u8], mode: u32, gid: u32) -> Result<(), Errno> {
        self.call(
            Kind::MakeDir,
            |o| o.string(name).u32(mode).u32(gid),
            |_| Ok(()),
        )
    }

    /// Makes a FIFO or an empty file in this directory.
    pub(crate) fn make_node(&self, name: &[u8], mode: u32, gid: u32) -> Result<(), Errno> {
        self.call(
            Kind::MakeNode,
            |o| o.string(name).u32(mode).u32(0).u32(0).u32(gid),
            |_| Ok(()),
        )
    }

    /// Makes a symbolic link in this directory.
    pub(crate) fn make_link(&self, name: &[u8], to: &[u8], gid: u32) -> Result<(), Errno> {
        self.call(
            Kind::Symlink,
            |o| o.string(name).string(to).u32(gid),
            |_| Ok(()),
        )
    }

    /// Gives `file` another name in this directory.
    pub(crate) fn link(&self, file: &Fid, name: &[u8]) -> Result<(), Errno> {
        self.call(Kind::Link, |o| o.u32(file.number).string(name), |_| Ok(()))
    }

    /// Moves what `name` in this directory names to `new` in `to`.
    pub(crate) fn rename(&self, name: &[u8], to: &Fid, new: &[u8]) -> Result<(), Errno> {
        self.call(
            Kind::RenameAt,
            |o| o.string(name).u32(to.number).string(new),
            |_| Ok(()),
        )
    }

    /// Takes a name out of this directory; `flags` is 0 or [`REMOVE_DIR`].
    pub(crate) fn unlink(&self, name: &[u8], flags: u32) -> Result<(), Errno> {
        self.call(Kind::UnlinkAt, |o| o.string(name).u32(flags), |_| Ok(()))
    }
}

/// The inode number and a device number for a file of the server.
///
/// With `multidevs=remap` the server appends to each inode number a code for its device, an
/// exponential Golomb code with its bits turned around: n zeroes, then n + 1 bits. So both can be
/// told apart again.
fn inode(qid: Qid) -> (u64, u32) {
    let zeroes = qid.path.trailing_zeros().min(15);
    let bits = 2 * zeroes + 1;
    let code = qid.path & ((1 << bits) - 1);
    (qid.path >> bits, code as u32)
}

fn read_stat(i: &mut In<'_>) -> Result<FileStat, Errno> {
    let _valid = i.u64()?;
    let (ino, device) = inode(i.qid()?);
    let (mode, uid, gid) = (i.u32()?, i.u32()?, i.u32()?);
    let (links, rdev, size) = (i.u64()?, i.u64()?, i.u64()?);
    // The server tells the size of its messages as the size of a block.
    let _block_size = i.u64()?;
    let blocks = i.u64()?;
    let mut time = || {
        Ok::<_, Errno>(Moment {
            seconds: i.u64()?.cast_signed(),
            nanos: i.u64()? as u32,
        })
    };
    let (atime, mtime, ctime) = (time()?, time()?, time()?);
    Ok(FileStat {
        mask: abi::STATX_BASIC_STATS,
        block_size: 4096,
        links: links as u32,
        uid,
        gid,
        mode: mode as u16,
        ino,
        size,
        blocks,
        atime,
        mtime,
        ctime,
        rdev: numbers(rdev),
        dev: (0, device),
        ..FileStat::default()
    })
}

/// Major and minor number of a device, as `makedev` packs them.
fn numbers(device: u64) -> (u32, u32) {
    let major = (device >> 8 & 0xfff) | (device >> 32 & !0xfff);
    let minor = (device & 0xff) | (device >> 12 & !0xff);
    (major as u32, minor as u32)
}
