//! Opening and making files.

use crate::files::File;
use crate::files::device::Device;
use crate::files::nine::NineFile;
use crate::files::walk::{Place, Tree};
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{Base, Follow};
use linux_raw_sys::general as abi;

/// The flags that the server gets.
const SENT: u32 = abi::O_ACCMODE | abi::O_TRUNC | abi::O_APPEND | abi::O_DIRECTORY | abi::O_EXCL;
/// The flags that matter while a file is opened, and not afterwards.
const OPENING: u32 = abi::O_CREAT | abi::O_EXCL | abi::O_NOCTTY | abi::O_TRUNC | abi::O_CLOEXEC;

impl Tree {
    /// `openat`.
    pub(crate) fn open(
        &self,
        base: Base<'_, File>,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<File, Errno> {
        let create = flags & abi::O_CREAT != 0 && flags & abi::O_PATH == 0;
        if create && flags & abi::O_EXCL != 0 {
            return self.create(base, path, flags, mode);
        }
        let follow = match flags & abi::O_NOFOLLOW {
            0 => Follow::Yes,
            _ => Follow::No,
        };
        match self.walk(base, path, follow) {
            Ok(place) => open_place(place, flags),
            Err(Errno::ENOENT) if create => self.create(base, path, flags, mode),
            Err(e) => Err(e),
        }
    }

    fn create(
        &self,
        base: Base<'_, File>,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<File, Errno> {
        let parent = self.parent(base, path)?;
        if parent.slash || matches!(parent.name, b"." | b"..") {
            return Err(Errno::EISDIR);
        }
        let mut place = parent.place;
        // What was a directory is the new file from here on.
        place.qid = place.fid.create(
            parent.name,
            flags & SENT | abi::O_CREAT,
            mode & 0o7777,
            self.gid,
        )?;
        if place.path.last() != Some(&b'/') {
            place.path.push(b'/');
        }
        place.path.extend_from_slice(parent.name);
        let stat = place.fid.stat()?;
        Ok(File::Nine(NineFile::new(place, flags & !OPENING, stat)))
    }
}

/// Opens what is there.
fn open_place(place: Place, flags: u32) -> Result<File, Errno> {
    let stat = place.fid.stat()?;
    let kept = flags & !OPENING;
    if flags & abi::O_DIRECTORY != 0 && !stat.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    if flags & abi::O_PATH != 0 {
        return Ok(File::Nine(NineFile::new(place, kept, stat)));
    }
    match stat.kind() {
        abi::S_IFLNK => return Err(Errno::ELOOP),
        abi::S_IFCHR => return Device::new(stat, kept, place.path).map(File::Device),
        abi::S_IFREG => {}
        abi::S_IFDIR if flags & abi::O_ACCMODE != abi::O_RDONLY => return Err(Errno::EISDIR),
        abi::S_IFDIR => {}
        _ => return Err(Errno::ENXIO),
    }
    place.fid.open(flags & SENT & !abi::O_EXCL)?;
    let file = NineFile::new(place, kept, stat);
    if flags & abi::O_TRUNC != 0 {
        // The size is another now.
        let _ = file.stat();
    }
    Ok(File::Nine(file))
}
