//! Requests and answers as bytes: numbers lowest byte first, strings with their length in two
//! bytes before them.

use alloc::vec::Vec;
use bsdvm_linux::Errno;

/// Bytes before the contents: length of all, kind, tag.
pub(super) const HEADER: usize = 7;
/// The tag of every request, since one is under way at a time.
const TAG: u16 = 1;
/// The tag of the request that agrees on the version.
const NO_TAG: u16 = u16::MAX;

/// The kinds of requests; the answer to each is one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    StatFs = 8,
    Open = 12,
    Create = 14,
    Symlink = 16,
    MakeNode = 18,
    ReadLink = 22,
    GetAttr = 24,
    SetAttr = 26,
    ReadDir = 40,
    Sync = 50,
    Link = 70,
    MakeDir = 72,
    RenameAt = 74,
    UnlinkAt = 76,
    Version = 100,
    Attach = 104,
    Walk = 110,
    Read = 116,
    Write = 118,
    Clunk = 120,
}

/// The kind of an answer that is an error number.
const ERROR: u8 = 7;

/// What the server knows a file by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Qid {
    kind: u8,
    /// Its number on the server.
    pub(crate) path: u64,
}

impl Qid {
    /// Whether it is a directory.
    pub(crate) fn is_directory(self) -> bool {
        self.kind & 0x80 != 0
    }

    /// Whether it is a symbolic link.
    pub(crate) fn is_link(self) -> bool {
        self.kind & 0x02 != 0
    }
}

/// A request that is being written.
pub(super) struct Out<'a>(&'a mut Vec<u8>);

impl<'a> Out<'a> {
    /// Begins a request in `buffer`.
    pub(super) fn new(buffer: &'a mut Vec<u8>, kind: Kind) -> Out<'a> {
        buffer.clear();
        buffer.extend([0; 4]);
        buffer.push(kind as u8);
        let tag = if kind == Kind::Version { NO_TAG } else { TAG };
        buffer.extend(tag.to_le_bytes());
        Out(buffer)
    }

    /// Writes the length: the request is complete.
    pub(super) fn finish(self) {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_le_bytes());
    }

    pub(super) fn u16(&mut self, n: u16) -> &mut Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    pub(super) fn u32(&mut self, n: u32) -> &mut Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, n: u64) -> &mut Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    /// A string. The caller bounds its length: paths and names are shorter than 2^16.
    pub(super) fn string(&mut self, s: &[u8]) -> &mut Self {
        self.u16(s.len() as u16);
        self.0.extend_from_slice(s);
        self
    }

    /// Bytes with their length in four bytes before them.
    pub(super) fn data(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
        self
    }
}

/// An answer that is being read. What is missing is an I/O error.
pub(super) struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    /// The contents of the answer to a request of `kind`.
    ///
    /// Errors: the server's, or `EIO` where it is no such answer.
    pub(super) fn new(bytes: &'a [u8], kind: Kind) -> Result<In<'a>, Errno> {
        let (header, rest) = bytes.split_at_checked(HEADER).ok_or(Errno::EIO)?;
        let mut answer = In(rest);
        match header[4] {
            ERROR => Err(Errno(answer.u32()?.cast_signed())),
            k if k == kind as u8 + 1 => Ok(answer),
            _ => Err(Errno::EIO),
        }
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Errno> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Errno::EIO)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Errno::EIO)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Errno> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Errno> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Errno> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Errno> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8], Errno> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    pub(super) fn qid(&mut self) -> Result<Qid, Errno> {
        let kind = self.u8()?;
        let _version = self.u32()?;
        let path = self.u64()?;
        Ok(Qid { kind, path })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
