//! From a path to a file of the host.
//!
//! The server follows no symbolic link: it says which names of a walk were links, and the walk
//! goes on from there with what the link says.

use crate::files::File;
use crate::ninep::client::{NAMES, Walked};
use crate::ninep::{Client, Fid, Qid};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{Base, Follow};

/// How many links one path may go through.
const LINKS: u32 = 40;
/// The longest name.
const NAME_MAX: usize = 255;

/// A place in the tree: a file of the server and its path.
pub(crate) struct Place {
    pub(crate) fid: Fid,
    pub(crate) qid: Qid,
    /// Absolute, without `.`, `..` and links.
    pub(crate) path: Vec<u8>,
}

/// The tree of the host's files.
pub(crate) struct Tree {
    root: Place,
    /// The runner's working directory.
    directory: Option<Place>,
    /// The group of what is made.
    pub(crate) gid: u32,
}

/// The directory that a path's last name is in, and that name.
pub(crate) struct Parent<'a> {
    pub(crate) place: Place,
    pub(crate) name: &'a [u8],
    /// There are slashes after the name: it means a directory.
    pub(crate) slash: bool,
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let parts = path.split(|&b| b == b'/');
    parts.filter(|part| !part.is_empty() && *part != b".")
}

fn join(path: &mut Vec<u8>, name: &[u8]) {
    if name == b".." {
        let end = path.iter().rposition(|&b| b == b'/').unwrap_or(0);
        path.truncate(end.max(1));
        return;
    }
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

impl Place {
    /// The same place once more.
    pub(crate) fn again(&self) -> Result<Place, Errno> {
        Ok(Place {
            fid: self.fid.again()?,
            qid: self.qid,
            path: self.path.clone(),
        })
    }

    /// What `names` lead to, none of them a link.
    fn below(&self, names: &[&[u8]]) -> Result<Place, Errno> {
        match self.fid.walk(names)? {
            Walked::All(fid, qids) => Ok(self.reached(fid, &qids, names)),
            Walked::Part(_) => Err(Errno::ENOENT),
        }
    }

    fn reached(&self, fid: Fid, qids: &[Qid], names: &[&[u8]]) -> Place {
        let mut path = self.path.clone();
        names.iter().for_each(|name| join(&mut path, name));
        Place {
            fid,
            qid: qids.last().copied().unwrap_or(self.qid),
            path,
        }
    }
}

impl Tree {
    /// The tree of `client` as a user sees it, with a working directory.
    ///
    /// Errors: the server's. A working directory that cannot be reached is none.
    pub(crate) fn new(
        client: &'static Client,
        (uid, gid): (u32, u32),
        directory: &[u8],
    ) -> Result<Tree, Errno> {
        let fid = client.attach(uid)?;
        let (root, qid) = match fid.walk(&[b".."])? {
            Walked::All(root, qids) => (root, qids.last().copied().unwrap_or_default()),
            Walked::Part(_) => return Err(Errno::EIO),
        };
        let root = Place {
            fid: root,
            qid,
            path: b"/".to_vec(),
        };
        let mut tree = Tree {
            root,
            directory: None,
            gid,
        };
        tree.directory = tree.walk(None, directory, Follow::Yes).ok();
        Ok(tree)
    }

    fn start<'a>(&'a self, base: Base<'a, File>, path: &[u8]) -> Result<&'a Place, Errno> {
        match (path.first(), base) {
            (None, _) => Err(Errno::ENOENT),
            (Some(b'/'), _) => Ok(&self.root),
            (_, Some(file)) => file.place().ok_or(Errno::ENOTDIR),
            (_, None) => self.directory.as_ref().ok_or(Errno::ENOENT),
        }
    }

    /// What `path` leads to. A link at its end is followed, or not.
    pub(crate) fn walk(
        &self,
        base: Base<'_, File>,
        path: &[u8],
        follow: Follow,
    ) -> Result<Place, Errno> {
        let slash = path.ends_with(b"/");
        let follow = if slash { Follow::Yes } else { follow };
        let place = self.resolve(self.start(base, path)?, parts(path), follow)?;
        if slash && !place.qid.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        Ok(place)
    }

    /// The directory that the last name of `path` is in.
    pub(crate) fn parent<'a>(
        &self,
        base: Base<'_, File>,
        path: &'a [u8],
    ) -> Result<Parent<'a>, Errno> {
        let start = self.start(base, path)?;
        let mut names = parts(path);
        let name = names.next_back().unwrap_or(b".");
        let place = self.resolve(start, names, Follow::Yes)?;
        let slash = path.ends_with(b"/");
        Ok(Parent { place, name, slash })
    }

    fn resolve<'a>(
        &self,
        start: &Place,
        names: impl Iterator<Item = &'a [u8]>,
        follow: Follow,
    ) -> Result<Place, Errno> {
        let mut left: VecDeque<Box<[u8]>> = names.map(Box::from).collect();
        // Where the walk is: still at its start, or at a place that it reached.
        let mut reached: Option<Place> = None;
        let mut links = 0;
        while !left.is_empty() {
            let at = reached.as_ref().unwrap_or(start);
            if left.iter().any(|name| name.len() > NAME_MAX) {
                return Err(Errno::ENAMETOOLONG);
            }
            let names: Vec<&[u8]> = left.iter().take(NAMES).map(|name| &**name).collect();
            let walked = at.fid.walk(&names)?;
            let qids = match &walked {
                Walked::All(_, qids) | Walked::Part(qids) => qids,
            };
            let is_end = |i: usize| i + 1 == left.len() && follow == Follow::No;
            let link = (0..qids.len()).find(|i| qids[*i].is_link() && !is_end(*i));
            let next = match (link, walked) {
                (Some(i), _) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::ELOOP);
                    }
                    let (from, to) = self.follow(at, &names[..=i])?;
                    left.drain(..=i);
                    let parts = parts(&to).rev();
                    parts.for_each(|part| left.push_front(part.into()));
                    from
                }
                (None, Walked::All(fid, qids)) => {
                    let place = at.reached(fid, &qids, &names);
                    let done = names.len();
                    left.drain(..done);
                    place
                }
                (None, Walked::Part(qids)) => return Err(at.why_not(&names[..=qids.len()], &qids)),
            };
            reached = Some(next);
        }
        reached.map_or_else(|| start.again(), Ok)
    }

    /// What the link says that `names` lead to, and where that begins.
    fn follow(&self, at: &Place, names: &[&[u8]]) -> Result<(Place, Vec<u8>), Errno> {
        let to = at.below(names)?.fid.read_link()?;
        let from = match to.first() {
            None => return Err(Errno::ENOENT),
            Some(b'/') => self.root.again()?,
            Some(_) => at.below(&names[..names.len() - 1])?,
        };
        Ok((from, to))
    }
}

impl Place {
    /// Why the last of `names` leads nowhere, while those before it led to `qids`.
    fn why_not(&self, names: &[&[u8]], qids: &[Qid]) -> Errno {
        if qids.last().is_some_and(|qid| !qid.is_directory()) {
            return Errno::ENOTDIR;
        }
        let Some((last, before)) = names.split_last() else {
            return Errno::EIO;
        };
        let walked = self.below(before).and_then(|dir| dir.fid.walk(&[last]));
        walked.err().unwrap_or(Errno::ENOENT)
    }
}
