//! Changes to names and to what they lead to, and questions by name.

use crate::files::File;
use crate::files::walk::Tree;
use crate::ninep::client::REMOVE_DIR;
use crate::ninep::{SetAttr, Time};
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{Base, FileStat, Follow, Identity, PathChange};
use linux_raw_sys::general as abi;

/// `UTIME_NOW` and `UTIME_OMIT`.
const NOW: i64 = 0x3fff_ffff;
const OMIT: i64 = 0x3fff_fffe;
/// `RENAME_NOREPLACE`.
const NO_REPLACE: u32 = 1;

fn time((seconds, nanos): (i64, i64)) -> Time {
    match nanos {
        NOW => Time::Now,
        OMIT => Time::Keep,
        nanos => Time::At(seconds, nanos),
    }
}

impl Tree {
    /// `stat` or `lstat`.
    pub(crate) fn stat(
        &self,
        base: Base<'_, File>,
        path: &[u8],
        follow: Follow,
    ) -> Result<FileStat, Errno> {
        self.walk(base, path, follow)?.fid.stat()
    }

    /// Changes a name, or what it leads to.
    pub(crate) fn change(
        &self,
        base: Base<'_, File>,
        path: &[u8],
        change: PathChange<'_>,
    ) -> Result<(), Errno> {
        match change {
            PathChange::Mode(mode) => {
                let mode = Some(mode);
                self.set(
                    base,
                    path,
                    Follow::Yes,
                    &SetAttr {
                        mode,
                        ..SetAttr::default()
                    },
                )
            }
            PathChange::Owner(uid, gid, follow) => self.set(
                base,
                path,
                follow,
                &SetAttr {
                    uid,
                    gid,
                    ..SetAttr::default()
                },
            ),
            PathChange::Times([atime, mtime], follow) => {
                let set = SetAttr {
                    atime: time(atime),
                    mtime: time(mtime),
                    ..SetAttr::default()
                };
                self.set(base, path, follow, &set)
            }
            change => self.change_name(base, path, change),
        }
    }

    fn set(
        &self,
        base: Base<'_, File>,
        path: &[u8],
        follow: Follow,
        set: &SetAttr,
    ) -> Result<(), Errno> {
        self.walk(base, path, follow)?.fid.set(set)
    }

    fn change_name(
        &self,
        base: Base<'_, File>,
        path: &[u8],
        change: PathChange<'_>,
    ) -> Result<(), Errno> {
        let parent = self.parent(base, path)?;
        let (fid, name) = (&parent.place.fid, parent.name);
        let special = matches!(name, b"." | b"..");
        match change {
            PathChange::RemoveDir if name == b"." => Err(Errno::EINVAL),
            PathChange::RemoveDir if special => Err(Errno::ENOTEMPTY),
            PathChange::Unlink if special => Err(Errno::EISDIR),
            _ if special => Err(Errno::EEXIST),
            PathChange::MakeDir(mode) => fid.make_dir(name, mode, self.gid),
            PathChange::RemoveDir => fid.unlink(name, REMOVE_DIR),
            _ if parent.slash => Err(Errno::ENOTDIR),
            PathChange::Unlink => fid.unlink(name, 0),
            PathChange::Symlink(to) => fid.make_link(name, to, self.gid),
            PathChange::MakeNode(mode) => {
                let kind = match mode & abi::S_IFMT {
                    0 => abi::S_IFREG,
                    kind => kind,
                };
                fid.make_node(name, kind | mode & 0o7777, self.gid)
            }
            PathChange::Mode(_) | PathChange::Owner(..) | PathChange::Times(..) => {
                Err(Errno::EINVAL)
            }
        }
    }

    /// `renameat2`; of its flags the server has none, and the one against replacing is looked
    /// after here.
    pub(crate) fn rename(
        &self,
        from: (Base<'_, File>, &[u8]),
        to: (Base<'_, File>, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        match flags {
            0 => {}
            NO_REPLACE => match self.walk(to.0, to.1, Follow::No) {
                Ok(_) => return Err(Errno::EEXIST),
                Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            },
            _ => return Err(Errno::EINVAL),
        }
        let (old, new) = (self.parent(from.0, from.1)?, self.parent(to.0, to.1)?);
        if [old.name, new.name]
            .iter()
            .any(|n| matches!(*n, b"." | b".."))
        {
            return Err(Errno::EBUSY);
        }
        old.place.fid.rename(old.name, &new.place.fid, new.name)
    }

    /// `linkat`.
    pub(crate) fn link(
        &self,
        from: (Base<'_, File>, &[u8]),
        to: (Base<'_, File>, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        let follow = match flags {
            0 => Follow::No,
            abi::AT_SYMLINK_FOLLOW => Follow::Yes,
            _ => return Err(Errno::EINVAL),
        };
        let file = self.walk(from.0, from.1, follow)?;
        let new = self.parent(to.0, to.1)?;
        if matches!(new.name, b"." | b"..") {
            return Err(Errno::EEXIST);
        }
        new.place.fid.link(&file.fid, new.name)
    }

    /// `faccessat`, by the bits of the file's mode.
    pub(crate) fn access(
        &self,
        base: Base<'_, File>,
        path: &[u8],
        mode: u32,
        flags: u32,
        who: &Identity,
    ) -> Result<(), Errno> {
        let follow = match flags & abi::AT_SYMLINK_NOFOLLOW {
            0 => Follow::Yes,
            _ => Follow::No,
        };
        let stat = match (path.is_empty(), base) {
            (true, Some(file)) if flags & abi::AT_EMPTY_PATH != 0 => {
                use bsdvm_linux::platform::HostFile;
                file.stat()?
            }
            _ => self.stat(base, path, follow)?,
        };
        let (uid, gid) = match flags & abi::AT_EACCESS {
            0 => (who.uid, who.gid),
            _ => (who.euid, who.egid),
        };
        if may(&stat, mode, uid, gid, &who.groups) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }
}

/// Whether a user may do to a file what the bits of `wanted` (read 4, write 2, execute 1) say.
fn may(stat: &FileStat, wanted: u32, uid: u32, gid: u32, groups: &[u32]) -> bool {
    let mode = u32::from(stat.mode);
    if uid == 0 {
        return wanted & 1 == 0 || stat.is_directory() || mode & 0o111 != 0;
    }
    let allowed = if stat.uid == uid {
        mode >> 6
    } else if stat.gid == gid || groups.contains(&stat.gid) {
        mode >> 3
    } else {
        mode
    };
    wanted & 7 & !allowed == 0
}
