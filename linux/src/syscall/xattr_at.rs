//! Extended attributes by directory and path: `setxattrat` and its kin.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::{AttributeChange, Follow, Platform};
use crate::system::Linux;
use crate::thread::Task;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// The size of `struct xattr_args`: where the value is, how long, and flags.
const ARGUMENTS: u64 = 16;

/// What a directory, a path and flags mean.
enum Place {
    /// The file behind the descriptor.
    Open(u64),
    Named(Vec<u8>, Follow),
}

impl<P: Platform> Task<P> {
    pub(super) const XATTR_AT: Calls<P> = &[
        (abi::__NR_setxattrat, Self::setxattrat),
        (abi::__NR_getxattrat, Self::getxattrat),
        (abi::__NR_listxattrat, Self::listxattrat),
        (abi::__NR_removexattrat, Self::removexattrat),
    ];

    fn attribute_place(&self, dir: u64, path: u64, flags: u64) -> Result<Place, Errno> {
        let flags = flags as u32;
        let empty_allowed = flags & abi::AT_EMPTY_PATH != 0;
        let path = match path {
            0 if empty_allowed => Vec::new(),
            at => self.path(at)?,
        };
        let here = dir as i32 == abi::AT_FDCWD;
        let follow = match flags & abi::AT_SYMLINK_NOFOLLOW {
            0 => Follow::Yes,
            _ => Follow::No,
        };
        match path.first() {
            None if !empty_allowed => Err(Errno::ENOENT),
            None if !here => Ok(Place::Open(dir)),
            None => Ok(Place::Named(self.absolute(b".")?, follow)),
            Some(_) if self.own_path_at(dir, &path).is_some() => Err(Errno::EOPNOTSUPP),
            Some(b'/') => Ok(Place::Named(path, follow)),
            Some(_) if here => Ok(Place::Named(self.absolute(&path)?, follow)),
            Some(_) => {
                let base = self.file(dir)?.name()?;
                Ok(Place::Named([&base[..], b"/", &path].concat(), follow))
            }
        }
    }

    /// Refuses flags that there are not.
    fn check_attribute_flags(flags: u64) -> Result<(), Errno> {
        match flags as u32 & !(abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH) {
            0 => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// `struct xattr_args`: where the value is, its length, and flags.
    fn attribute_arguments(&self, at: u64, size: u64) -> Result<(u64, u64, u64), Errno> {
        if size < ARGUMENTS {
            return Err(Errno::EINVAL);
        }
        if size > Linux::<P>::PAGE_BYTES {
            return Err(Errno::E2BIG);
        }
        let rest = self.bytes(at.wrapping_add(ARGUMENTS), (size - ARGUMENTS) as usize)?;
        if rest.iter().any(|&b| b != 0) {
            return Err(Errno::E2BIG);
        }
        let [value, words]: [u64; 2] = self.get(at)?;
        Ok((value, u64::from(words as u32), words >> 32))
    }

    fn setxattrat(&mut self, [dir, path, at_flags, name, args, size]: Args) -> Answer {
        Self::check_attribute_flags(at_flags)?;
        let (value, len, flags) = self.attribute_arguments(args, size)?;
        let (path, follow) = match self.attribute_place(dir, path, at_flags)? {
            Place::Open(fd) => return self.fsetxattr([fd, name, value, len, flags, 0]),
            Place::Named(path, follow) => (path, follow),
        };
        let (name, value, flags) = self.new_value(name, value, len, flags)?;
        let change = AttributeChange::Set(&value, flags);
        self.sys
            .platform
            .change_xattr(&path, &name, follow, change)
            .map(|()| 0)
    }

    fn getxattrat(&mut self, [dir, path, at_flags, name, args, size]: Args) -> Answer {
        Self::check_attribute_flags(at_flags)?;
        let (value, len, flags) = self.attribute_arguments(args, size)?;
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        let (path, follow) = match self.attribute_place(dir, path, at_flags)? {
            Place::Open(fd) => return self.fgetxattr([fd, name, value, len, 0, 0]),
            Place::Named(path, follow) => (path, follow),
        };
        let name = self.xattr_name(name)?;
        self.xattr_answer(value, len, u64::from(abi::XATTR_SIZE_MAX), |buf| {
            self.sys.platform.xattr(&path, &name, follow, buf)
        })
    }

    fn listxattrat(&mut self, [dir, path, at_flags, to, len, _]: Args) -> Answer {
        Self::check_attribute_flags(at_flags)?;
        match self.attribute_place(dir, path, at_flags)? {
            Place::Open(fd) => self.flistxattr([fd, to, len, 0, 0, 0]),
            Place::Named(path, follow) => {
                self.xattr_answer(to, len, super::xattr::LIST_MAX, |buf| {
                    self.sys.platform.list_xattr(&path, follow, buf)
                })
            }
        }
    }

    fn removexattrat(&mut self, [dir, path, at_flags, name, ..]: Args) -> Answer {
        Self::check_attribute_flags(at_flags)?;
        let (path, follow) = match self.attribute_place(dir, path, at_flags)? {
            Place::Open(fd) => return self.fremovexattr([fd, name, 0, 0, 0, 0]),
            Place::Named(path, follow) => (path, follow),
        };
        let name = self.xattr_name(name)?;
        self.sys
            .platform
            .change_xattr(&path, &name, follow, AttributeChange::Remove)
            .map(|()| 0)
    }
}
