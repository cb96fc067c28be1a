//! Finding a program as a shell does.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why no program was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NotFound {
    /// There is none of that name.
    Missing,
    /// There is something of that name, but it cannot be executed: why.
    Unfit(&'static str),
}

/// The file that `name` means: itself when there is a slash in it, otherwise the first fitting
/// one of that name in the directories of `path`.
pub(crate) fn find(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, NotFound> {
    if name.is_empty() {
        return Err(NotFound::Missing);
    }
    if name.as_bytes().contains(&b'/') {
        let file = PathBuf::from(name);
        return judge(&file).map(|()| file);
    }
    let mut unfit = None;
    let path = path.unwrap_or_else(|| OsStr::new("/usr/local/bin:/usr/bin:/bin"));
    for dir in std::env::split_paths(path) {
        // An empty element is the working directory.
        let file = if dir.as_os_str().is_empty() {
            Path::new(".").join(name)
        } else {
            dir.join(name)
        };
        match judge(&file) {
            Ok(()) => return Ok(file),
            Err(NotFound::Unfit(why)) => unfit = Some(NotFound::Unfit(why)),
            Err(NotFound::Missing) => {}
        }
    }
    Err(unfit.unwrap_or(NotFound::Missing))
}

/// What can be said of a file without opening it; its contents are judged when it is loaded.
fn judge(file: &Path) -> Result<(), NotFound> {
    let Ok(meta) = std::fs::metadata(file) else {
        return Err(NotFound::Missing);
    };
    if meta.is_dir() {
        return Err(NotFound::Unfit("is a directory"));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(NotFound::Unfit("permission denied"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let sh = find(OsStr::new("sh"), Some(OsStr::new("/nowhere:/bin"))).unwrap();
        assert_eq!(sh, Path::new("/bin/sh"));
        assert_eq!(
            find(OsStr::new("/bin/sh"), None).unwrap(),
            Path::new("/bin/sh")
        );
        let missing = Err(NotFound::Missing);
        assert_eq!(find(OsStr::new("no-such-program"), None), missing);
        assert_eq!(find(OsStr::new(""), None), missing);
        assert_eq!(
            find(OsStr::new("/"), None),
            Err(NotFound::Unfit("is a directory"))
        );
        let passwd = find(OsStr::new("passwd"), Some(OsStr::new("/etc")));
        assert_eq!(passwd, Err(NotFound::Unfit("permission denied")));
    }
}
