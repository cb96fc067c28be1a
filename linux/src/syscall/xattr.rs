//! Extended attributes: the host's.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::file::OpenFile;
use crate::platform::{AttributeChange, Follow, HostFile, Platform};
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// `XATTR_LIST_MAX`.
pub(super) const LIST_MAX: u64 = 65536;
const SET_KNOWN: u32 = abi::XATTR_CREATE | abi::XATTR_REPLACE;

impl<P: Platform> Task<P> {
    pub(super) const XATTR: Calls<P> = &[
        (abi::__NR_getxattr, Self::getxattr),
        (abi::__NR_lgetxattr, Self::lgetxattr),
        (abi::__NR_fgetxattr, Self::fgetxattr),
        (abi::__NR_listxattr, Self::listxattr),
        (abi::__NR_llistxattr, Self::llistxattr),
        (abi::__NR_flistxattr, Self::flistxattr),
        (abi::__NR_setxattr, Self::setxattr),
        (abi::__NR_lsetxattr, Self::lsetxattr),
        (abi::__NR_fsetxattr, Self::fsetxattr),
        (abi::__NR_removexattr, Self::removexattr),
        (abi::__NR_lremovexattr, Self::lremovexattr),
        (abi::__NR_fremovexattr, Self::fremovexattr),
    ];

    fn getxattr(&mut self, args: Args) -> Answer {
        self.xattr(args, Follow::Yes)
    }

    fn lgetxattr(&mut self, args: Args) -> Answer {
        self.xattr(args, Follow::No)
    }

    fn xattr(&self, [path, name, to, len, ..]: Args, follow: Follow) -> Answer {
        let name = self.xattr_name(name)?;
        let path = self.attribute_path(path)?;
        self.xattr_answer(to, len, u64::from(abi::XATTR_SIZE_MAX), |buf| {
            self.sys.platform.xattr(&path, &name, follow, buf)
        })
    }

    /// The path of a file that may have attributes.
    fn attribute_path(&self, path: u64) -> Result<Vec<u8>, Errno> {
        let path = self.path(path)?;
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if self.own_path(&path).is_some() {
            return Err(Errno::EOPNOTSUPP);
        }
        self.absolute(&path)
    }

    fn host_of(&self, fd: u64) -> Result<Arc<OpenFile<P>>, Errno> {
        let file = self.file(fd)?;
        if file.flags() & abi::O_PATH != 0 {
            return Err(Errno::EBADF);
        }
        if file.as_host().is_none() {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(file)
    }

    pub(super) fn fgetxattr(&mut self, [fd, name, to, len, ..]: Args) -> Answer {
        let file = self.host_of(fd)?;
        let name = self.xattr_name(name)?;
        let host = file.as_host().ok_or(Errno::EOPNOTSUPP)?;
        self.xattr_answer(to, len, u64::from(abi::XATTR_SIZE_MAX), |buf| {
            host.file.xattr(&name, buf)
        })
    }

    pub(super) fn xattr_name(&self, name: u64) -> Result<Vec<u8>, Errno> {
        let name = self.string(name, abi::XATTR_NAME_MAX as usize + 1, Errno::ERANGE)?;
        if name.is_empty() {
            Err(Errno::ERANGE)
        } else {
            Ok(name)
        }
    }

    pub(super) fn xattr_answer(
        &self,
        to: u64,
        len: u64,
        most: u64,
        ask: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> Answer {
        let mut buf = vec![0; len.min(most) as usize];
        let n = ask(&mut buf)?;
        if !buf.is_empty() {
            self.write_user(to, buf.get(..n).ok_or(Errno::ERANGE)?)?;
        }
        Ok(n as u64)
    }

    fn list(&self, [path, to, len, ..]: Args, follow: Follow) -> Answer {
        let path = self.attribute_path(path)?;
        self.xattr_answer(to, len, LIST_MAX, |buf| {
            self.sys.platform.list_xattr(&path, follow, buf)
        })
    }

    fn listxattr(&mut self, args: Args) -> Answer {
        self.list(args, Follow::Yes)
    }

    fn llistxattr(&mut self, args: Args) -> Answer {
        self.list(args, Follow::No)
    }

    pub(super) fn flistxattr(&mut self, [fd, to, len, ..]: Args) -> Answer {
        let file = self.host_of(fd)?;
        let path = file.as_host().ok_or(Errno::EOPNOTSUPP)?.file.path()?;
        self.xattr_answer(to, len, LIST_MAX, |buf| {
            self.sys.platform.list_xattr(&path, Follow::Yes, buf)
        })
    }

    /// Name, value and flags of an attribute to be set.
    pub(super) fn new_value(
        &self,
        name: u64,
        from: u64,
        len: u64,
        flags: u64,
    ) -> Result<NewValue, Errno> {
        let flags = flags as u32;
        if flags & !SET_KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let name = self.xattr_name(name)?;
        if len > u64::from(abi::XATTR_SIZE_MAX) {
            return Err(Errno::E2BIG);
        }
        let value = self.bytes(from, len as usize)?;
        Ok((name, value, flags))
    }

    fn set(&self, [path, name, from, len, flags, _]: Args, follow: Follow) -> Answer {
        let (name, value, flags) = self.new_value(name, from, len, flags)?;
        let path = self.attribute_path(path)?;
        let change = AttributeChange::Set(&value, flags);
        self.sys
            .platform
            .change_xattr(&path, &name, follow, change)
            .map(|()| 0)
    }

    fn setxattr(&mut self, args: Args) -> Answer {
        self.set(args, Follow::Yes)
    }

    fn lsetxattr(&mut self, args: Args) -> Answer {
        self.set(args, Follow::No)
    }

    pub(super) fn fsetxattr(&mut self, [fd, name, from, len, flags, _]: Args) -> Answer {
        let file = self.host_of(fd)?;
        let (name, value, flags) = self.new_value(name, from, len, flags)?;
        let path = file.as_host().ok_or(Errno::EOPNOTSUPP)?.file.path()?;
        let change = AttributeChange::Set(&value, flags);
        self.sys
            .platform
            .change_xattr(&path, &name, Follow::Yes, change)
            .map(|()| 0)
    }

    fn remove(&self, [path, name, ..]: Args, follow: Follow) -> Answer {
        let name = self.xattr_name(name)?;
        let path = self.attribute_path(path)?;
        self.sys
            .platform
            .change_xattr(&path, &name, follow, AttributeChange::Remove)
            .map(|()| 0)
    }

    fn removexattr(&mut self, args: Args) -> Answer {
        self.remove(args, Follow::Yes)
    }

    fn lremovexattr(&mut self, args: Args) -> Answer {
        self.remove(args, Follow::No)
    }

    pub(super) fn fremovexattr(&mut self, [fd, name, ..]: Args) -> Answer {
        let file = self.host_of(fd)?;
        let name = self.xattr_name(name)?;
        let path = file.as_host().ok_or(Errno::EOPNOTSUPP)?.file.path()?;
        self.sys
            .platform
            .change_xattr(&path, &name, Follow::Yes, AttributeChange::Remove)
            .map(|()| 0)
    }
}

pub(super) type NewValue = (Vec<u8>, Vec<u8>, u32);
