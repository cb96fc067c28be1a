//! Files that are executed, and files that are written: none is both (`ETXTBSY`).

use super::inode::{Key, key_of};
use crate::errno::Errno;
use crate::platform::{Base, Follow, Platform};
use crate::system::Linux;
use crate::{Lock, rank};
use alloc::collections::BTreeMap;

/// What is done with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    Executed,
    Written,
}

/// How many use a file, and all of them in which way.
type Users = (Use, u32);

/// Counts users by file.
fn enter(files: &mut BTreeMap<Key, Users>, key: Key, how: Use) -> Result<(), Errno> {
    let users = files.entry(key).or_insert((how, 0));
    if users.0 != how {
        return Err(Errno::ETXTBSY);
    }
    users.1 += 1;
    Ok(())
}

fn leave(files: &mut BTreeMap<Key, Users>, key: Key) {
    if let Some(users) = files.get_mut(&key) {
        users.1 -= 1;
        if users.1 == 0 {
            files.remove(&key);
        }
    }
}

/// The files in use.
pub(crate) struct Busy<P: Platform> {
    files: Lock<P, BTreeMap<Key, Users>, { rank::LOCKS }>,
}

/// One use of a file; it ends when this is dropped.
pub(crate) struct InUse<P: Platform> {
    sys: &'static Linux<P>,
    key: Key,
    how: Use,
}

impl<P: Platform> Busy<P> {
    pub(crate) fn new() -> Self {
        Busy {
            files: Lock::<P, _, { rank::LOCKS }>::new(BTreeMap::new()),
        }
    }

    fn is_executed(&self, key: Key) -> bool {
        let files = self.files.lock();
        files.get(&key).is_some_and(|u| u.0 == Use::Executed)
    }
}

impl<P: Platform> Linux<P> {
    /// Uses a file; `ETXTBSY` where others use it in the other way.
    pub(crate) fn use_file(&'static self, key: Key, how: Use) -> Result<InUse<P>, Errno> {
        enter(&mut self.busy.files.lock(), key, how)?;
        Ok(InUse {
            sys: self,
            key,
            how,
        })
    }

    /// Refuses what is executed, before it is opened to be written: that might cut it. What is not
    /// there, or may not be looked at, is for the opening to tell.
    pub(crate) fn refuse_executed(
        &self,
        base: Base<'_, P::File>,
        path: &[u8],
    ) -> Result<(), Errno> {
        match self.platform.stat(base, path, Follow::Yes) {
            Ok(stat) if self.busy.is_executed(key_of(&stat)) => Err(Errno::ETXTBSY),
            _ => Ok(()),
        }
    }
}

impl<P: Platform> InUse<P> {
    /// The same use by one more.
    pub(crate) fn again(&self) -> Option<InUse<P>> {
        self.sys.use_file(self.key, self.how).ok()
    }
}

impl<P: Platform> Drop for InUse<P> {
    fn drop(&mut self) {
        leave(&mut self.sys.busy.files.lock(), self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_while_it_is_executed() {
        let mut files = BTreeMap::new();
        let key = (1, 2, 3);
        assert_eq!(enter(&mut files, key, Use::Executed), Ok(()));
        assert_eq!(enter(&mut files, key, Use::Executed), Ok(()));
        assert_eq!(enter(&mut files, key, Use::Written), Err(Errno::ETXTBSY));
        leave(&mut files, key);
        assert_eq!(enter(&mut files, key, Use::Written), Err(Errno::ETXTBSY));
        leave(&mut files, key);
        assert_eq!(enter(&mut files, key, Use::Written), Ok(()));
        assert_eq!(enter(&mut files, key, Use::Executed), Err(Errno::ETXTBSY));
        leave(&mut files, key);
        assert!(files.is_empty());
    }
}
