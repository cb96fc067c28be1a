//! Files as a guest sees them.
//!
//! * `table`: descriptors, with close-on-exec;
//! * `file`: open file descriptions, shared over `dup` and `fork`;
//! * `pipe`: pipes, which are ours;
//! * `inode`: host files that have pages: one object of the core for each, and its pager;
//! * `memfile`, `meminode`: files that are memory only (`memfd_create`);
//! * `made`: text and directories of ours, made when they are read;
//! * `told`: what is kept about an open file to be told again;
//! * `special`: files that stand for something else: `timerfile`, `sigfile`, `pidfile`;
//! * `locks`: locks of files; `busy`: which are executed, and which are written;
//! * `path`: where a path leads: to the host, or to us (`/proc/self`, `/dev/fd`);
//! * `proc`: what the files of `/proc` say.

pub(crate) mod busy;
pub(crate) mod epoll;
pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod inode;
pub(crate) mod kernel_page;
pub(crate) mod locks;
pub(crate) mod made;
pub(crate) mod memfile;
pub(crate) mod meminode;
pub(crate) mod path;
pub(crate) mod pidfile;
pub(crate) mod pipe;
pub(crate) mod proc;
pub(crate) mod sigfile;
pub(crate) mod socket;
pub(crate) mod special;
pub(crate) mod table;
pub(crate) mod timerfile;
pub(crate) mod told;
