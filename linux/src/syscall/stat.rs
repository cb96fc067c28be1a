//! What a file is: `stat` and its relatives.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::file::{Kind, made_up};
use crate::fs::path::Own;
use crate::fs::proc::Node;
use crate::platform::{FileStat, Follow, FsStat, HostFile, Moment, Platform};
use crate::thread::Task;
use alloc::vec;
use linux_raw_sys::general as abi;
use zerocopy::{Immutable, IntoBytes};

/// `struct stat`.
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
struct Stat {
    dev: u64,
    ino: u64,
    links: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    pad: u32,
    rdev: u64,
    size: u64,
    block_size: u64,
    blocks: u64,
    atime: [u64; 2],
    mtime: [u64; 2],
    ctime: [u64; 2],
    unused: [u64; 3],
}

/// `struct statx_timestamp`.
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
struct StatxTime {
    seconds: i64,
    nanos: u32,
    pad: u32,
}

/// `struct statx`.
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
struct Statx {
    mask: u32,
    block_size: u32,
    attributes: u64,
    links: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    times: [StatxTime; 4],
    rdev: [u32; 2],
    dev: [u32; 2],
    mount: u64,
    rest: [u64; 13],
}

/// `struct statfs`.
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
struct StatFs {
    kind: u64,
    block_size: u64,
    blocks: [u64; 3],
    files: [u64; 2],
    fsid: [u32; 2],
    name_len: u64,
    fragment_size: u64,
    flags: u64,
    spare: [u64; 4],
}

/// `makedev`.
fn device((major, minor): (u32, u32)) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

fn pair(m: Moment) -> [u64; 2] {
    [m.seconds as u64, u64::from(m.nanos)]
}

impl From<&FileStat> for Stat {
    fn from(s: &FileStat) -> Stat {
        Stat {
            dev: device(s.dev),
            ino: s.ino,
            links: u64::from(s.links),
            mode: u32::from(s.mode),
            uid: s.uid,
            gid: s.gid,
            rdev: device(s.rdev),
            size: s.size,
            block_size: u64::from(s.block_size),
            blocks: s.blocks,
            atime: pair(s.atime),
            mtime: pair(s.mtime),
            ctime: pair(s.ctime),
            ..Stat::default()
        }
    }
}

impl From<&FileStat> for Statx {
    fn from(s: &FileStat) -> Statx {
        let time = |m: Moment| StatxTime {
            seconds: m.seconds,
            nanos: m.nanos,
            pad: 0,
        };
        Statx {
            mask: s.mask,
            block_size: s.block_size,
            attributes: s.attributes,
            links: s.links,
            uid: s.uid,
            gid: s.gid,
            mode: s.mode,
            ino: s.ino,
            size: s.size,
            blocks: s.blocks,
            attributes_mask: s.attributes_mask,
            times: [time(s.atime), time(s.btime), time(s.ctime), time(s.mtime)],
            rdev: [s.rdev.0, s.rdev.1],
            dev: [s.dev.0, s.dev.1],
            mount: s.mount,
            ..Statx::default()
        }
    }
}

impl From<&FsStat> for StatFs {
    fn from(s: &FsStat) -> StatFs {
        StatFs {
            kind: s.kind,
            block_size: s.block_size,
            blocks: [s.blocks, s.blocks_free, s.blocks_available],
            files: [s.files, s.files_free],
            fsid: s.fsid,
            name_len: s.name_len,
            fragment_size: s.fragment_size,
            flags: s.flags,
            spare: [0; 4],
        }
    }
}

/// Of the directory of queues.
const MQUEUE_MAGIC: u32 = 0x1980_0202;

/// The file system that a file of ours would be in.
fn own_file_system<P: Platform>(kind: &Kind<P>) -> StatFs {
    const LONGEST_NAME: u64 = 255;
    let kind = match kind {
        Kind::Pipe(_) => abi::PIPEFS_MAGIC,
        Kind::Socket(_) => abi::SOCKFS_MAGIC,
        Kind::Memory(_) => abi::TMPFS_MAGIC,
        Kind::Text(_) | Kind::Raw(_) | Kind::Listing(_) => abi::PROC_SUPER_MAGIC,
        Kind::Special(special) if special.as_queue().is_some() => MQUEUE_MAGIC,
        _ => abi::ANON_INODE_FS_MAGIC,
    };
    StatFs {
        kind: u64::from(kind),
        block_size: 4096,
        name_len: LONGEST_NAME,
        fragment_size: 4096,
        ..StatFs::default()
    }
}

impl<P: Platform> Task<P> {
    pub(super) const STAT: Calls<P> = &[
        (abi::__NR_stat, Self::stat),
        (abi::__NR_lstat, Self::lstat),
        (abi::__NR_fstat, Self::fstat),
        (abi::__NR_newfstatat, Self::fstatat),
        (abi::__NR_statx, Self::statx),
        (abi::__NR_statfs, Self::statfs),
        (abi::__NR_fstatfs, Self::fstatfs),
    ];

    /// What `path`, relative to `dir`, leads to; an empty path is `dir` itself where the flags
    /// allow that.
    fn look_up(&self, dir: u64, path: u64, flags: u32) -> Result<FileStat, Errno> {
        let empty_allowed = flags & abi::AT_EMPTY_PATH != 0;
        let path = if path == 0 && empty_allowed {
            vec![]
        } else {
            self.path(path)?
        };
        if path.is_empty() {
            if !empty_allowed {
                return Err(Errno::ENOENT);
            }
            if dir as i32 != abi::AT_FDCWD {
                return self.file(dir)?.stat();
            }
            return self
                .sys
                .platform
                .stat(self.start_at(dir)?.base()?, b".", Follow::Yes);
        }
        let follow = if flags & abi::AT_SYMLINK_NOFOLLOW != 0 {
            Follow::No
        } else {
            Follow::Yes
        };
        if let Some((own, _)) = self.own_path_at(dir, &path) {
            // What ends in a slash is meant to be a directory.
            let follow = if path.ends_with(b"/") {
                Follow::Yes
            } else {
                follow
            };
            return self.stat_own(&own, follow);
        }
        let start = self.start_for(dir, &path)?;
        self.sys.platform.stat(start.base()?, &path, follow)
    }

    fn stat_own(&self, own: &Own, follow: Follow) -> Result<FileStat, Errno> {
        if let (Own::Fd(fd), Follow::Yes) = (own, follow) {
            return self.file(u64::from(*fd)).map_err(|_| Errno::ENOENT)?.stat();
        }
        let node = self.node(own)?;
        let owner = match own {
            Own::Process(pid, _) => {
                let process = self.process_with(*pid).map_err(|_| Errno::ENOENT)?;
                let creds = process.creds.lock();
                (creds.user.effective, creds.group.effective)
            }
            _ => (0, 0),
        };
        match (node, follow) {
            (Node::Link(to), Follow::Yes) => match own {
                Own::SelfLink | Own::ThreadLink => Ok(made_up(abi::S_IFDIR | 0o555, 1, 0)),
                _ => self.sys.platform.stat(None, &to, Follow::Yes),
            },
            (Node::Host(at), follow) => self.sys.platform.stat(None, &at, follow),
            (node, _) => {
                let size = if matches!(node, Node::Link(_)) { 64 } else { 0 };
                let ino = own.number();
                let made = made_up(node.mode(), ino, size);
                let now = self.sys.platform.wall_clock() / 1_000_000_000;
                let moment = Moment {
                    seconds: now as i64,
                    nanos: 0,
                };
                Ok(FileStat {
                    uid: owner.0,
                    gid: owner.1,
                    atime: moment,
                    mtime: moment,
                    ctime: moment,
                    ..made
                })
            }
        }
    }

    fn put_stat(&self, to: u64, stat: &FileStat) -> Answer {
        self.put(to, &Stat::from(stat)).map(|()| 0)
    }

    fn stat(&mut self, [path, to, ..]: Args) -> Answer {
        let stat = self.look_up(abi::AT_FDCWD as u64, path, 0)?;
        self.put_stat(to, &stat)
    }

    fn lstat(&mut self, [path, to, ..]: Args) -> Answer {
        let stat = self.look_up(abi::AT_FDCWD as u64, path, abi::AT_SYMLINK_NOFOLLOW)?;
        self.put_stat(to, &stat)
    }

    fn fstat(&mut self, [fd, to, ..]: Args) -> Answer {
        let stat = self.file(fd)?.stat()?;
        self.put_stat(to, &stat)
    }

    fn fstatat(&mut self, [dir, path, to, flags, ..]: Args) -> Answer {
        let known = abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH | abi::AT_NO_AUTOMOUNT;
        if flags as u32 & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let stat = self.look_up(dir, path, flags as u32)?;
        self.put_stat(to, &stat)
    }

    fn statx(&mut self, [dir, path, flags, mask, to, _]: Args) -> Answer {
        let known = abi::AT_SYMLINK_NOFOLLOW
            | abi::AT_EMPTY_PATH
            | abi::AT_NO_AUTOMOUNT
            | abi::AT_STATX_SYNC_TYPE;
        // Which of both kinds of freshness is meant is not to be guessed.
        let both = flags as u32 & abi::AT_STATX_SYNC_TYPE == abi::AT_STATX_SYNC_TYPE;
        if flags as u32 & !known != 0 || both || mask as u32 & abi::STATX__RESERVED != 0 {
            return Err(Errno::EINVAL);
        }
        let stat = self.look_up(dir, path, flags as u32)?;
        self.put(to, &Statx::from(&stat)).map(|()| 0)
    }

    fn statfs(&mut self, [path, to, ..]: Args) -> Answer {
        let path = self.path(path)?;
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let stat = self.sys.platform.statfs(&self.absolute(&path)?)?;
        self.put(to, &StatFs::from(&stat)).map(|()| 0)
    }

    fn fstatfs(&mut self, [fd, to, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let stat = match file.as_host() {
            Some(host) => StatFs::from(&host.file.statfs()?),
            None => own_file_system(&file.kind),
        };
        self.put(to, &stat).map(|()| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Stat>(), 144);
        assert_eq!(size_of::<Statx>(), 256);
        assert_eq!(size_of::<StatFs>(), 120);
        assert_eq!(device((8, 1)), 0x801);
        assert_eq!(device((259, 0x12345)), 0x1231_0345);
    }
}
