//! Whose rights the calling thread has for files.
//!
//! On Linux identities belong to threads. A supervisor takes on its guest's user, group and groups
//! for files alone (`setfsuid`, `setfsgid`), and stays who it is for everything else.

use crate::errno;
use bsdvm_linux::Errno;
use bsdvm_linux::platform::Identity;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use std::cell::RefCell;

/// User, group and further groups.
type Who = (u32, u32, Vec<u32>);

thread_local! {
    /// What this thread has taken on; nothing before the first time.
    static ASSUMED: RefCell<Option<Who>> = const { RefCell::new(None) };
}

/// The runner's own identity.
pub(crate) fn own() -> Identity {
    let groups = rustix::process::getgroups().unwrap_or_default();
    let sets = rustix::thread::capabilities(None);
    Identity {
        uid: rustix::process::getuid().as_raw(),
        euid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        egid: rustix::process::getegid().as_raw(),
        groups: groups.into_iter().map(|g| g.as_raw()).collect(),
        capabilities: sets.map_or(0, |s| s.effective.bits()),
        withheld: crate::standing::withheld(),
    }
}

/// Takes on an identity for files, until the next one. Threads that this one makes begin with it.
pub(crate) fn assume(user: u32, group: u32, groups: &[u32]) -> Result<(), Errno> {
    let wanted = (user, group, groups.to_vec());
    if ASSUMED.with_borrow(|now| now.as_ref() == Some(&wanted)) {
        return Ok(());
    }
    let before = rustix::process::getgroups().unwrap_or_default();
    if !before.iter().map(|g| g.as_raw()).eq(groups.iter().copied()) {
        let groups: Vec<_> = groups
            .iter()
            .map(|&g| rustix::process::Gid::from_raw(g))
            .collect();
        rustix::thread::set_thread_groups(&groups).map_err(errno)?;
    }
    // These give back what was, and say nothing of a refusal: ask once more.
    setfsgid(Gid::from_raw(group));
    setfsuid(Uid::from_raw(user));
    let (no_user, no_group) = (Uid::from_raw(u32::MAX), Gid::from_raw(u32::MAX));
    if setfsuid(no_user).as_raw() != user || setfsgid(no_group).as_raw() != group {
        return Err(Errno::EPERM);
    }
    ASSUMED.set(Some(wanted));
    Ok(())
}
