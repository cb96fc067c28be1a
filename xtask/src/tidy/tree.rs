//! The files of the project, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is made and not written. In a second working tree `.git` is a file.
const MADE: [&str; 6] = [
    "target",
    ".git",
    "corpus",
    "artifacts",
    "mutants.out",
    "mutants.out.old",
];

/// Files with text in them, by path from the root with `/` between folders; and the folders.
#[derive(Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
    folders: BTreeSet<String>,
}

impl Tree {
    /// Reads what is below `root`. Files that are no text count as empty.
    pub(crate) fn read(root: &Path) -> Tree {
        let mut tree = Tree::default();
        tree.visit(root, "");
        tree
    }

    fn visit(&mut self, folder: &Path, prefix: &str) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if MADE.contains(&name.as_str()) {
                continue;
            }
            if kind.is_dir() {
                self.visit(&entry.path(), &format!("{path}/"));
                self.folders.insert(path);
            } else if kind.is_file() {
                let text = std::fs::read_to_string(entry.path());
                self.files.insert(path, text.unwrap_or_default());
            }
        }
    }

    /// A tree for tests.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.files.insert((*path).into(), (*text).into());
            let folders = path.match_indices('/').map(|(i, _)| path[..i].to_owned());
            tree.folders.extend(folders);
        }
        tree
    }

    /// The text of a file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Every file in order of its path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(p, t)| (p.as_str(), t.as_str()))
    }

    /// Every Rust file in order of its path.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// The names of the folders in `folder` (`""`: the root), without hidden ones.
    pub(crate) fn folders_in(&self, folder: &str) -> impl Iterator<Item = &str> {
        let prefix = match folder {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        self.folders.iter().filter_map(move |path| {
            let name = path.strip_prefix(&prefix)?;
            (!name.contains('/') && !name.starts_with('.')).then_some(name)
        })
    }

    /// Whether a file or folder is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.contains_key(path) || self.folders.contains(path)
    }
}
