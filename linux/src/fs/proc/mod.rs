//! What the files of `/proc` say.
//!
//! * `process`: the files of a process;
//! * `memory`: those about its memory, page by page and mapping by mapping;
//! * `system`: figures of the whole;
//! * `settings`: what can be set below `/proc/sys`.
//!
//! What is neither here nor about processes is the host's, and can be read only.

pub(crate) mod memory;
mod process;
pub(crate) mod settings;
mod system;

use super::path::Own;
use crate::errno::Errno;
use crate::platform::{HostFile, Platform};
use crate::system::Linux;
use crate::thread::Task;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// Makes the text of a file when it is read from its beginning, as Linux does: who opened it may
/// have executed another program since.
pub(crate) type Maker = Box<dyn Fn() -> Result<Vec<u8>, Errno> + Send + Sync>;
/// Takes what is written to a file, at once.
pub(crate) type Taker = Box<dyn Fn(&[u8]) -> Result<(), Errno> + Send + Sync>;
/// Reads a file that has no end to speak of, at an offset.
pub(crate) type Reader = Box<dyn Fn(u64, &mut [u8]) -> Result<usize, Errno> + Send + Sync>;
/// Writes to one.
pub(crate) type Writer = Box<dyn Fn(u64, &[u8]) -> Result<usize, Errno> + Send + Sync>;
/// Names of a directory, with their `DT_*`.
pub(crate) type Names = Vec<(Vec<u8>, u8)>;
/// Makes them when a directory is read from its beginning.
pub(crate) type Lister = Box<dyn Fn() -> Names + Send + Sync>;

pub(crate) const DT_DIR: u8 = 4;
pub(crate) const DT_REG: u8 = 8;
pub(crate) const DT_LNK: u8 = 10;

/// What is at the end of a path of ours.
pub(crate) enum Node {
    /// A file whose text this makes, and what takes what is written to it.
    Text(Maker, Option<Taker>),
    /// A file that is written only.
    Order(Taker),
    /// A file that is read, and perhaps written, at an offset.
    Raw(Reader, Option<Writer>),
    /// A symbolic link.
    Link(Vec<u8>),
    /// A directory.
    Dir(Lister),
    /// A file or directory of the host's `/proc`, to be read.
    Host(Vec<u8>),
}

impl Node {
    /// Type and rights.
    pub(crate) fn mode(&self) -> u32 {
        match self {
            Node::Text(_, None) => abi::S_IFREG | 0o444,
            Node::Text(_, Some(_)) => abi::S_IFREG | 0o644,
            Node::Order(_) => abi::S_IFREG | 0o200,
            Node::Raw(_, None) => abi::S_IFREG | 0o400,
            Node::Raw(_, Some(_)) => abi::S_IFREG | 0o600,
            Node::Link(_) => abi::S_IFLNK | 0o777,
            Node::Dir(_) | Node::Host(_) => abi::S_IFDIR | 0o555,
        }
    }
}

impl<P: Platform> Task<P> {
    /// What `own` leads to. Descriptors are links to the names of their files.
    pub(crate) fn node(&self, own: &Own) -> Result<Node, Errno> {
        match own {
            Own::SelfLink => Ok(Node::Link(format!("{}", self.process.pid).into_bytes())),
            Own::ThreadLink => {
                let (pid, tid) = (self.process.pid, self.thread.tid());
                Ok(Node::Link(format!("{pid}/task/{tid}").into_bytes()))
            }
            Own::KernelPage => Ok(Node::Text(Box::new(|| Ok(Vec::new())), None)),
            Own::Fd(fd) => Ok(Node::Link(self.file(u64::from(*fd))?.name()?)),
            Own::Process(pid, name) => self.process_node(*pid, name),
            Own::System(name) if name.is_empty() => {
                let sys = self.sys;
                Ok(Node::Dir(Box::new(move || proc_names(sys))))
            }
            Own::System(name) => self.system_node(name),
        }
    }
}

/// The names of `/proc`: the host's, but for processes, which are the guests'.
fn proc_names<P: Platform>(sys: &Linux<P>) -> Names {
    let mut names = alloc::vec![(b".".to_vec(), DT_DIR), (b"..".to_vec(), DT_DIR)];
    let flags = abi::O_RDONLY | abi::O_DIRECTORY;
    if let Ok(dir) = sys.platform.open(None, b"/proc", flags, 0) {
        while let Ok(entries) = dir.entries(1 << 15) {
            if entries.is_empty() {
                break;
            }
            let theirs = |n: &[u8]| n.first().is_some_and(|b| !b.is_ascii_digit() && *b != b'.');
            let kept = entries.into_iter().filter(|e| theirs(&e.name));
            names.extend(kept.map(|e| (e.name, e.kind)));
        }
    }
    let table = sys.processes.lock();
    let pids = table.records.keys();
    names.extend(pids.map(|pid| (format!("{pid}").into_bytes(), DT_DIR)));
    names
}

/// A text that is the same whenever it is made.
fn fixed(text: Vec<u8>) -> Node {
    Node::Text(Box::new(move || Ok(text.clone())), None)
}

/// A decimal number as programs write it: with blanks around it.
fn number_in(bytes: &[u8]) -> Result<i64, Errno> {
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0');
    text.parse().map_err(|_| Errno::EINVAL)
}
