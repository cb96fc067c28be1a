//! Names: links, directories, permissions, the working directory.

use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::fs::file::Kind;
use crate::fs::path::{Own, WorkingDir};
use crate::fs::proc::Node;
use crate::platform::{Follow, HostFile, PathChange, Platform};
use crate::syscall::time::Timespec;
use crate::thread::Task;
use linux_raw_sys::general as abi;

const HERE: u64 = abi::AT_FDCWD as u64;
/// `UTIME_NOW`.
const NOW: i64 = 0x3fff_ffff;

/// How the host marks the name of a directory that has none any more.
const REMOVED: &[u8] = b" (deleted)";

/// An owner as the calls pass it: -1 leaves as it is.
fn owner(id: u64) -> Option<u32> {
    (id as u32 != u32::MAX).then_some(id as u32)
}

fn follow_unless(nofollow: bool) -> Follow {
    if nofollow { Follow::No } else { Follow::Yes }
}

impl<P: Platform> Task<P> {
    pub(super) const NAMES: Calls<P> = &[
        (abi::__NR_access, Self::access),
        (abi::__NR_faccessat, Self::faccessat),
        (abi::__NR_faccessat2, Self::faccessat2),
        (abi::__NR_readlink, Self::readlink),
        (abi::__NR_readlinkat, Self::readlinkat),
        (abi::__NR_getcwd, Self::getcwd),
        (abi::__NR_chdir, Self::chdir),
        (abi::__NR_fchdir, Self::fchdir),
        (abi::__NR_mkdir, Self::mkdir),
        (abi::__NR_mkdirat, Self::mkdirat),
        (abi::__NR_mknod, Self::mknod),
        (abi::__NR_mknodat, Self::mknodat),
        (abi::__NR_rmdir, Self::rmdir),
        (abi::__NR_unlink, Self::unlink),
        (abi::__NR_unlinkat, Self::unlinkat),
        (abi::__NR_rename, Self::rename),
        (abi::__NR_renameat, Self::renameat),
        (abi::__NR_renameat2, Self::renameat2),
        (abi::__NR_link, Self::link),
        (abi::__NR_linkat, Self::linkat),
        (abi::__NR_symlink, Self::symlink),
        (abi::__NR_symlinkat, Self::symlinkat),
        (abi::__NR_chmod, Self::chmod),
        (abi::__NR_fchmod, Self::fchmod),
        (abi::__NR_fchmodat, Self::fchmodat),
        (abi::__NR_chown, Self::chown),
        (abi::__NR_lchown, Self::lchown),
        (abi::__NR_fchown, Self::fchown),
        (abi::__NR_fchownat, Self::fchownat),
        (abi::__NR_utimensat, Self::utimensat),
        (abi::__NR_utime, Self::utime),
        (abi::__NR_utimes, Self::utimes),
        (abi::__NR_futimesat, Self::futimesat),
        (abi::__NR_fchmodat2, Self::fchmodat2),
        (abi::__NR_umask, Self::umask),
    ];

    fn access(&mut self, [path, mode, ..]: Args) -> Answer {
        self.faccessat2([HERE, path, mode, 0, 0, 0])
    }

    fn faccessat(&mut self, [dir, path, mode, ..]: Args) -> Answer {
        self.faccessat2([dir, path, mode, 0, 0, 0])
    }

    fn faccessat2(&mut self, [dir, path, mode, flags, ..]: Args) -> Answer {
        let (mode, flags) = (mode as u32, flags as u32);
        let known = abi::AT_EACCESS | abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH;
        if mode & !7 != 0 || flags & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let mut path = self.path(path)?;
        if path.is_empty() {
            path = self.empty_path(dir, flags)?;
        }
        if let Some((own, _)) = self.own_path_at(dir, &path) {
            let node = self.node(&own)?;
            let rights = node.mode() >> 6 & 7;
            // The superuser may write to what nobody may, but not execute it.
            let is_file = !matches!(node, Node::Dir(_) | Node::Host(_) | Node::Link(_));
            let refused = is_file && mode & !rights & (abi::W_OK | abi::X_OK) != 0;
            return if refused { Err(Errno::EACCES) } else { Ok(0) };
        }
        let start = self.start_for(dir, &path)?;
        let ask = || {
            let flags = flags & !abi::AT_EMPTY_PATH | abi::AT_EACCESS;
            self.sys.platform.access(start.base()?, &path, mode, flags)
        };
        let creds = self.creds();
        let (user, group) = (creds.user, creds.group);
        if flags & abi::AT_EACCESS != 0 || (user.real == user.files && group.real == group.files) {
            return ask().map(|()| 0);
        }
        // The question is meant for the real numbers.
        let platform = &self.sys.platform;
        platform.assume(user.real, group.real, &creds.groups)?;
        let answer = ask();
        platform.assume(user.files, group.files, &creds.groups)?;
        answer.map(|()| 0)
    }

    /// The name that the host has for the file that an empty path stands for.
    fn empty_path(&self, dir: u64, flags: u32) -> Result<alloc::vec::Vec<u8>, Errno> {
        if flags & abi::AT_EMPTY_PATH == 0 {
            return Err(Errno::ENOENT);
        }
        if dir as i32 == abi::AT_FDCWD {
            return Ok(b".".to_vec());
        }
        let file = self.file(dir)?;
        file.as_host().ok_or(Errno::EINVAL)?.file.path()
    }

    fn readlink(&mut self, [path, to, len, ..]: Args) -> Answer {
        self.readlinkat([HERE, path, to, len, 0, 0])
    }

    fn readlinkat(&mut self, [dir, path, to, len, ..]: Args) -> Answer {
        if (len as i32) <= 0 {
            return Err(Errno::EINVAL);
        }
        let path = self.path(path)?;
        let link = match self.own_path_at(dir, &path) {
            Some((own, _)) => match self.node(&own)? {
                Node::Link(link) => link,
                Node::Host(at) => self.sys.platform.read_link(None, &at)?,
                _ => return Err(Errno::EINVAL),
            },
            None => {
                let start = self.start_for(dir, &path)?;
                self.sys.platform.read_link(start.base()?, &path)?
            }
        };
        let n = link.len().min(len as usize);
        self.write_user(to, &link[..n])?;
        Ok(n as u64)
    }

    fn getcwd(&mut self, [to, len, ..]: Args) -> Answer {
        let cwd = self.process.cwd();
        let mut path = cwd.path(&self.sys.platform)?;
        if path.ends_with(REMOVED) && cwd.is_removed()? {
            return Err(Errno::ENOENT);
        }
        path.push(0);
        if path.len() as u64 > len {
            return Err(Errno::ERANGE);
        }
        self.write_user(to, &path)?;
        Ok(path.len() as u64)
    }

    fn chdir(&mut self, [path, ..]: Args) -> Answer {
        let path = self.path(path)?;
        if let Some((own, full)) = self.own_path_at(HERE, &path) {
            return self.enter_own(&own, full);
        }
        let start = self.start_for(HERE, &path)?;
        let base = start.base()?;
        let dir = self
            .sys
            .platform
            .open(base, &path, abi::O_PATH | abi::O_DIRECTORY, 0)?;
        self.sys
            .platform
            .access(Some(&dir), b".", abi::X_OK, abi::AT_EACCESS)?;
        self.enter(dir)
    }

    fn fchdir(&mut self, [fd, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        if let Kind::Listing(listing) = &file.kind {
            let (own, full) = self
                .own_path_at(HERE, listing.name())
                .ok_or(Errno::ENOENT)?;
            return self.enter_own(&own, full);
        }
        let host = file
            .as_host()
            .filter(|h| h.is_directory())
            .ok_or(Errno::ENOTDIR)?;
        self.enter(host.file.duplicate()?)
    }

    /// Makes a directory of ours the working one.
    fn enter_own(&self, own: &Own, path: alloc::vec::Vec<u8>) -> Answer {
        let flags = abi::O_PATH | abi::O_DIRECTORY;
        let open = |at: &[u8]| self.sys.platform.open(None, at, flags, 0);
        match self.node(own)? {
            Node::Dir(_) => {
                let dir = WorkingDir::own(open(b"/proc")?, path);
                self.enter_dir(dir)
            }
            Node::Host(at) => self.enter(open(&at)?),
            Node::Link(to) if matches!(own, Own::SelfLink | Own::ThreadLink) => {
                let to = [b"/proc/", &to[..]].concat();
                let (own, path) = self.own_path_at(HERE, &to).ok_or(Errno::ENOENT)?;
                self.enter_own(&own, path)
            }
            Node::Link(to) => self.enter(open(&to)?),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn enter(&self, dir: P::File) -> Answer {
        self.enter_dir(WorkingDir::at(dir))
    }

    fn enter_dir(&self, dir: WorkingDir<P>) -> Answer {
        drop(self.process.set_cwd(dir));
        Ok(0)
    }

    fn change(&self, dir: u64, path: u64, change: PathChange<'_>) -> Answer {
        let path = self.path(path)?;
        if self.own_path_at(dir, &path).is_some() {
            return Err(Errno::EACCES);
        }
        let start = self.start_for(dir, &path)?;
        self.sys
            .platform
            .change(start.base()?, &path, change)
            .map(|()| 0)
    }

    fn masked(&self, mode: u64) -> u32 {
        mode as u32 & !self.process.umask()
    }

    fn mkdir(&mut self, [path, mode, ..]: Args) -> Answer {
        self.change(HERE, path, PathChange::MakeDir(self.masked(mode) & 0o7777))
    }

    fn mkdirat(&mut self, [dir, path, mode, ..]: Args) -> Answer {
        self.change(dir, path, PathChange::MakeDir(self.masked(mode) & 0o7777))
    }

    fn mknod(&mut self, [path, mode, ..]: Args) -> Answer {
        self.mknodat([HERE, path, mode, 0, 0, 0])
    }

    fn mknodat(&mut self, [dir, path, mode, ..]: Args) -> Answer {
        match mode as u32 & abi::S_IFMT {
            0 | abi::S_IFREG | abi::S_IFIFO | abi::S_IFSOCK => {
                self.change(dir, path, PathChange::MakeNode(self.masked(mode)))
            }
            abi::S_IFCHR | abi::S_IFBLK | abi::S_IFDIR => Err(Errno::EPERM),
            _ => Err(Errno::EINVAL),
        }
    }

    fn rmdir(&mut self, [path, ..]: Args) -> Answer {
        self.change(HERE, path, PathChange::RemoveDir)
    }

    fn unlink(&mut self, [path, ..]: Args) -> Answer {
        self.change(HERE, path, PathChange::Unlink)
    }

    fn unlinkat(&mut self, [dir, path, flags, ..]: Args) -> Answer {
        match flags as u32 {
            0 => self.change(dir, path, PathChange::Unlink),
            abi::AT_REMOVEDIR => self.change(dir, path, PathChange::RemoveDir),
            _ => Err(Errno::EINVAL),
        }
    }

    fn rename(&mut self, [from, to, ..]: Args) -> Answer {
        self.renameat2([HERE, from, HERE, to, 0, 0])
    }

    fn renameat(&mut self, [from_dir, from, to_dir, to, ..]: Args) -> Answer {
        self.renameat2([from_dir, from, to_dir, to, 0, 0])
    }

    fn renameat2(&mut self, [from_dir, from, to_dir, to, flags, _]: Args) -> Answer {
        let (from, to) = (self.path(from)?, self.path(to)?);
        let (a, b) = (
            self.start_for(from_dir, &from)?,
            self.start_for(to_dir, &to)?,
        );
        let flags = flags as u32;
        self.sys
            .platform
            .rename((a.base()?, &from), (b.base()?, &to), flags)
            .map(|()| 0)
    }

    fn link(&mut self, [from, to, ..]: Args) -> Answer {
        self.linkat([HERE, from, HERE, to, 0, 0])
    }

    fn linkat(&mut self, [from_dir, from, to_dir, to, flags, _]: Args) -> Answer {
        let (from, to) = (self.path(from)?, self.path(to)?);
        let (a, b) = (
            self.start_for(from_dir, &from)?,
            self.start_for(to_dir, &to)?,
        );
        let flags = flags as u32;
        self.sys
            .platform
            .link((a.base()?, &from), (b.base()?, &to), flags)
            .map(|()| 0)
    }

    fn symlink(&mut self, [to, path, ..]: Args) -> Answer {
        self.symlinkat([to, HERE, path, 0, 0, 0])
    }

    fn symlinkat(&mut self, [to, dir, path, ..]: Args) -> Answer {
        let to = self.path(to)?;
        self.change(dir, path, PathChange::Symlink(&to))
    }

    fn chmod(&mut self, [path, mode, ..]: Args) -> Answer {
        self.change(HERE, path, PathChange::Mode(mode as u32 & 0o7777))
    }

    fn fchmodat(&mut self, [dir, path, mode, ..]: Args) -> Answer {
        self.change(dir, path, PathChange::Mode(mode as u32 & 0o7777))
    }

    fn fchmod(&mut self, [fd, mode, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        if let Kind::Memory(memory) = &file.kind {
            return memory.set_mode(mode as u32 & 0o7777).map(|()| 0);
        }
        let host = file.as_host().ok_or(Errno::EINVAL)?;
        host.file.chmod(mode as u32 & 0o7777).map(|()| 0)
    }

    fn chown(&mut self, [path, uid, gid, ..]: Args) -> Answer {
        self.change(
            HERE,
            path,
            PathChange::Owner(owner(uid), owner(gid), Follow::Yes),
        )
    }

    fn lchown(&mut self, [path, uid, gid, ..]: Args) -> Answer {
        self.change(
            HERE,
            path,
            PathChange::Owner(owner(uid), owner(gid), Follow::No),
        )
    }

    fn fchownat(&mut self, [dir, path, uid, gid, flags, _]: Args) -> Answer {
        let flags = flags as u32;
        if flags & !(abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH) != 0 {
            return Err(Errno::EINVAL);
        }
        if flags & abi::AT_EMPTY_PATH != 0
            && dir as i32 != abi::AT_FDCWD
            && self.path(path)?.is_empty()
        {
            return self.fchown([dir, uid, gid, 0, 0, 0]);
        }
        let follow = follow_unless(flags & abi::AT_SYMLINK_NOFOLLOW != 0);
        self.change(dir, path, PathChange::Owner(owner(uid), owner(gid), follow))
    }

    fn fchown(&mut self, [fd, uid, gid, ..]: Args) -> Answer {
        let file = self.file(fd)?;
        let host = file.as_host().ok_or(Errno::EINVAL)?;
        host.file.chown(owner(uid), owner(gid)).map(|()| 0)
    }

    fn utimensat(&mut self, [dir, path, times, flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        if flags & !(abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH) != 0 {
            return Err(Errno::EINVAL);
        }
        let times = if times == 0 {
            [(0, NOW); 2]
        } else {
            let [a, m]: [Timespec; 2] = [self.get(times)?, self.get(times.wrapping_add(16))?];
            [(a.seconds, a.nanos), (m.seconds, m.nanos)]
        };
        let follow = follow_unless(flags & abi::AT_SYMLINK_NOFOLLOW != 0);
        if path != 0 {
            return self.change(dir, path, PathChange::Times(times, follow));
        }
        // No path: the descriptor itself, by the name that the host has for it.
        let file = self.file(dir)?;
        let name = file.as_host().ok_or(Errno::EINVAL)?.file.path()?;
        self.sys
            .platform
            .change(None, &name, PathChange::Times(times, follow))
            .map(|()| 0)
    }

    /// Times in seconds.
    fn utime(&mut self, [path, times, ..]: Args) -> Answer {
        let times = match times {
            0 => [(0, NOW); 2],
            at => {
                let [a, m]: [i64; 2] = self.get(at)?;
                [(a, 0), (m, 0)]
            }
        };
        self.change(HERE, path, PathChange::Times(times, Follow::Yes))
    }

    fn utimes(&mut self, [path, times, ..]: Args) -> Answer {
        self.futimesat([HERE, path, times, 0, 0, 0])
    }

    /// Times in microseconds.
    fn futimesat(&mut self, [dir, path, times, ..]: Args) -> Answer {
        let times = match times {
            0 => [(0, NOW); 2],
            at => {
                let [asec, amicro, msec, mmicro]: [i64; 4] = self.get(at)?;
                if [amicro, mmicro].iter().any(|m| !(0..1_000_000).contains(m)) {
                    return Err(Errno::EINVAL);
                }
                [(asec, amicro * 1000), (msec, mmicro * 1000)]
            }
        };
        if path == 0 {
            let file = self.file(dir)?;
            let name = file.as_host().ok_or(Errno::EINVAL)?.file.path()?;
            let change = PathChange::Times(times, Follow::Yes);
            return self.sys.platform.change(None, &name, change).map(|()| 0);
        }
        self.change(dir, path, PathChange::Times(times, Follow::Yes))
    }

    fn fchmodat2(&mut self, [dir, path, mode, flags, ..]: Args) -> Answer {
        let flags = flags as u32;
        if flags & !(abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH) != 0 {
            return Err(Errno::EINVAL);
        }
        if flags & abi::AT_EMPTY_PATH != 0 && self.path(path)?.is_empty() {
            return self.fchmod([dir, mode, 0, 0, 0, 0]);
        }
        if flags & abi::AT_SYMLINK_NOFOLLOW != 0 {
            let name = self.path(path)?;
            let start = self.start_for(dir, &name)?;
            if self.sys.platform.read_link(start.base()?, &name).is_ok() {
                return Err(Errno::EOPNOTSUPP);
            }
        }
        self.fchmodat([dir, path, mode, 0, 0, 0])
    }

    fn umask(&mut self, [mask, ..]: Args) -> Answer {
        let new = mask as u32 & 0o777;
        Ok(u64::from(self.process.set_umask(new)))
    }

    /// The path to give to `exec`: what a link of ours leads to, or the path itself.
    pub(super) fn program_path(
        &self,
        path: alloc::vec::Vec<u8>,
    ) -> Result<alloc::vec::Vec<u8>, Errno> {
        match self.own_path(&path) {
            Some(own @ (Own::Process(..) | Own::Fd(_))) => match self.node(&own)? {
                Node::Link(to) => Ok(to),
                _ => Err(Errno::EACCES),
            },
            Some(_) => Err(Errno::EACCES),
            None => Ok(path),
        }
    }
}
