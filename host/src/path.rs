//! Calls that take a path. A path is the guest's bytes; one with a zero in it is refused.

use crate::errno;
use crate::file::OpenHostFile;
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{AttributeChange, Base, FileStat, Follow, FsStat, Moment, PathChange};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Statx, StatxFlags, Timespec,
    Timestamps, Uid, XattrFlags,
};

type At<'a> = Base<'a, OpenHostFile>;

/// The descriptor that a relative path begins at.
fn dir<'a>(base: At<'a>) -> BorrowedFd<'a> {
    base.map_or(CWD, |f| f.as_fd())
}

fn at_flags(follow: Follow) -> AtFlags {
    match follow {
        Follow::Yes => AtFlags::empty(),
        Follow::No => AtFlags::SYMLINK_NOFOLLOW,
    }
}

pub(crate) fn open(
    base: At<'_>,
    path: &[u8],
    flags: u32,
    mode: u32,
) -> Result<OpenHostFile, Errno> {
    // A terminal that the guest opens never becomes the runner's own.
    let flags = OFlags::from_bits_retain(flags) | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd =
        rustix::fs::openat(dir(base), path, flags, Mode::from_raw_mode(mode)).map_err(errno)?;
    Ok(OpenHostFile::new(fd))
}

pub(crate) fn stat(base: At<'_>, path: &[u8], follow: Follow) -> Result<FileStat, Errno> {
    let all = StatxFlags::ALL | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(dir(base), path, at_flags(follow), all).map_err(errno)?;
    Ok(from_statx(&stat))
}

pub(crate) fn from_statx(s: &Statx) -> FileStat {
    let moment = |t: rustix::fs::StatxTimestamp| Moment {
        seconds: t.tv_sec,
        nanos: t.tv_nsec,
    };
    FileStat {
        mask: s.stx_mask,
        block_size: s.stx_blksize,
        attributes: s.stx_attributes.bits(),
        attributes_mask: s.stx_attributes_mask.bits(),
        links: s.stx_nlink,
        uid: s.stx_uid,
        gid: s.stx_gid,
        mode: s.stx_mode,
        ino: s.stx_ino,
        size: s.stx_size,
        blocks: s.stx_blocks,
        atime: moment(s.stx_atime),
        btime: moment(s.stx_btime),
        ctime: moment(s.stx_ctime),
        mtime: moment(s.stx_mtime),
        rdev: (s.stx_rdev_major, s.stx_rdev_minor),
        dev: (s.stx_dev_major, s.stx_dev_minor),
        mount: s.stx_mnt_id,
    }
}

pub(crate) fn read_link(base: At<'_>, path: &[u8]) -> Result<Vec<u8>, Errno> {
    let link = rustix::fs::readlinkat(dir(base), path, Vec::new()).map_err(errno)?;
    Ok(link.into_bytes())
}

pub(crate) fn access(base: At<'_>, path: &[u8], mode: u32, flags: u32) -> Result<(), Errno> {
    let mode = Access::from_bits_retain(mode);
    let flags = AtFlags::from_bits_retain(flags);
    rustix::fs::accessat(dir(base), path, mode, flags).map_err(errno)
}

pub(crate) fn change(base: At<'_>, path: &[u8], change: PathChange<'_>) -> Result<(), Errno> {
    let at = dir(base);
    let done = match change {
        PathChange::MakeDir(mode) => rustix::fs::mkdirat(at, path, Mode::from_raw_mode(mode)),
        PathChange::Unlink => rustix::fs::unlinkat(at, path, AtFlags::empty()),
        PathChange::RemoveDir => rustix::fs::unlinkat(at, path, AtFlags::REMOVEDIR),
        PathChange::Symlink(to) => rustix::fs::symlinkat(to, at, path),
        PathChange::Mode(mode) => {
            rustix::fs::chmodat(at, path, Mode::from_raw_mode(mode), AtFlags::empty())
        }
        PathChange::Owner(uid, gid, follow) => {
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            rustix::fs::chownat(at, path, uid, gid, at_flags(follow))
        }
        PathChange::Times([(asec, ansec), (msec, mnsec)], follow) => {
            let times = Timestamps {
                last_access: Timespec {
                    tv_sec: asec,
                    tv_nsec: ansec,
                },
                last_modification: Timespec {
                    tv_sec: msec,
                    tv_nsec: mnsec,
                },
            };
            rustix::fs::utimensat(at, path, &times, at_flags(follow))
        }
        PathChange::MakeNode(mode) => {
            let kind = match mode & 0o170000 {
                0 => FileType::RegularFile,
                bits => FileType::from_raw_mode(bits),
            };
            rustix::fs::mknodat(at, path, kind, Mode::from_raw_mode(mode & 0o7777), 0)
        }
    };
    done.map_err(errno)
}

pub(crate) fn rename(from: (At<'_>, &[u8]), to: (At<'_>, &[u8]), flags: u32) -> Result<(), Errno> {
    let flags = RenameFlags::from_bits_retain(flags);
    rustix::fs::renameat_with(dir(from.0), from.1, dir(to.0), to.1, flags).map_err(errno)
}

pub(crate) fn link(from: (At<'_>, &[u8]), to: (At<'_>, &[u8]), flags: u32) -> Result<(), Errno> {
    let flags = AtFlags::from_bits_retain(flags);
    rustix::fs::linkat(dir(from.0), from.1, dir(to.0), to.1, flags).map_err(errno)
}

pub(crate) fn xattr(
    path: &[u8],
    name: &[u8],
    follow: Follow,
    buf: &mut [u8],
) -> Result<usize, Errno> {
    let got = match (follow, buf.is_empty()) {
        (Follow::Yes, true) => rustix::fs::getxattr_query(path, name),
        (Follow::Yes, false) => rustix::fs::getxattr(path, name, buf),
        (Follow::No, true) => rustix::fs::lgetxattr_query(path, name),
        (Follow::No, false) => rustix::fs::lgetxattr(path, name, buf),
    };
    got.map_err(errno)
}

pub(crate) fn list_xattr(path: &[u8], follow: Follow, buf: &mut [u8]) -> Result<usize, Errno> {
    let got = match (follow, buf.is_empty()) {
        (Follow::Yes, true) => rustix::fs::listxattr_query(path),
        (Follow::Yes, false) => rustix::fs::listxattr(path, buf),
        (Follow::No, true) => rustix::fs::llistxattr_query(path),
        (Follow::No, false) => rustix::fs::llistxattr(path, buf),
    };
    got.map_err(errno)
}

pub(crate) fn change_xattr(
    path: &[u8],
    name: &[u8],
    follow: Follow,
    change: AttributeChange<'_>,
) -> Result<(), Errno> {
    let done = match (change, follow) {
        (AttributeChange::Set(value, flags), Follow::Yes) => {
            rustix::fs::setxattr(path, name, value, XattrFlags::from_bits_retain(flags))
        }
        (AttributeChange::Set(value, flags), Follow::No) => {
            rustix::fs::lsetxattr(path, name, value, XattrFlags::from_bits_retain(flags))
        }
        (AttributeChange::Remove, Follow::Yes) => rustix::fs::removexattr(path, name),
        (AttributeChange::Remove, Follow::No) => rustix::fs::lremovexattr(path, name),
    };
    done.map_err(errno)
}

pub(crate) fn statfs(path: &[u8]) -> Result<FsStat, Errno> {
    rustix::fs::statfs(path)
        .map(|s| from_statfs(&s))
        .map_err(errno)
}

pub(crate) fn from_statfs(s: &rustix::fs::StatFs) -> FsStat {
    FsStat {
        kind: s.f_type as u64,
        block_size: s.f_bsize as u64,
        blocks: s.f_blocks,
        blocks_free: s.f_bfree,
        blocks_available: s.f_bavail,
        files: s.f_files,
        files_free: s.f_ffree,
        fsid: [0; 2],
        name_len: s.f_namelen as u64,
        fragment_size: s.f_frsize as u64,
        flags: s.f_flags as u64,
    }
}
