//! The tests of rows, found in the sources.

use crate::tidy::code::{code, is_name};
use crate::tidy::tree::Tree;
use std::collections::BTreeSet;

/// Where they are looked for.
const ROOMS: [&str; 7] = [
    "vm/",
    "machine/",
    "machines/",
    "linux/",
    "host/",
    "cli/",
    "kernel/",
];

/// The letters that tags begin with.
const SERIES: &[u8] = b"kemwsod";

/// One test: a function whose name begins with the tag of a row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Test {
    /// The row's tag, in upper case.
    pub(super) tag: String,
    pub(super) name: String,
    /// The file.
    pub(super) path: String,
}

/// Every test of a row, in order of tag and name.
pub(super) fn tests(tree: &Tree) -> Vec<Test> {
    let rooms = tree
        .sources()
        .filter(|(path, _)| ROOMS.iter().any(|room| path.starts_with(room)));
    let mut found: Vec<Test> = rooms
        .flat_map(|(path, text)| {
            let names = names(&code(text));
            names.into_iter().map(|(tag, name)| Test {
                tag,
                name,
                path: path.to_owned(),
            })
        })
        .collect();
    found.sort();
    found
}

/// Tag and name of each function in `code` that is named as a test of a row.
fn names(code: &str) -> Vec<(String, String)> {
    let functions = code.match_indices("fn ").filter_map(|(i, found)| {
        let own = i == 0 || !is_name(code.as_bytes()[i - 1]);
        let rest = code[i + found.len()..].trim_start();
        let end = rest.bytes().position(|b| !is_name(b));
        own.then(|| &rest[..end.unwrap_or(rest.len())])
    });
    let tagged = functions.filter_map(|name| Some((tag(name)?, name.to_owned())));
    tagged.collect()
}

/// The tag at the beginning of a name: `k01_x` has `K01`.
fn tag(name: &str) -> Option<String> {
    match name.as_bytes() {
        [letter, b'0'..=b'9', b'0'..=b'9', b'_', ..] if SERIES.contains(letter) => {
            Some(name[..3].to_uppercase())
        }
        _ => None,
    }
}

/// The packages that have tests of rows, but for those of the bare machine, which `cargo test`
/// cannot run.
pub(super) fn packages(tree: &Tree, tests: &[Test]) -> BTreeSet<String> {
    let hosted = tests.iter().filter(|t| !t.path.starts_with("kernel/"));
    hosted.filter_map(|t| package(tree, &t.path)).collect()
}

/// The package that the file `path` is part of: the manifest above it that is nearest.
fn package(tree: &Tree, path: &str) -> Option<String> {
    let folders = path.rmatch_indices('/').map(|(i, _)| &path[..i]);
    let mut manifests = folders.filter_map(|folder| tree.text(&format!("{folder}/Cargo.toml")));
    let manifest: toml::Table = manifests.next()?.parse().ok()?;
    let name = manifest.get("package")?.get("name")?.as_str()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn functions_named_after_rows_are_found() {
        let tree = Tree::of(&[
            (
                "vm/tests/map.rs",
                "#[test]\nfn m02_b() {}\n// fn m03_c() {}\nfn helper() { often m04_d() }",
            ),
            ("kernel/src/tests.rs", "pub(crate) fn k18_grows() {}"),
            ("kernel/Cargo.toml", "[package]\nname = \"bsdvm-kernel\""),
            ("vm/Cargo.toml", "[package]\nname = \"bsdvm\""),
            ("xtask/src/rows.rs", "fn m05_not_here() {}"),
            ("linux/src/a.rs", "fn x1_y() {} fn x86_64() {} fn m1() {}"),
        ]);
        let tests = tests(&tree);
        assert_eq!(Vec::from_iter(packages(&tree, &tests)), ["bsdvm"]);
        let found = tests.into_iter().map(|t| (t.tag, t.name, t.path));
        let found: Vec<_> = found.collect();
        let expected = [
            ("K18", "k18_grows", "kernel/src/tests.rs"),
            ("M02", "m02_b", "vm/tests/map.rs"),
        ];
        let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(found, expected);
    }
}
