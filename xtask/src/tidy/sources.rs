//! Rules about Rust files.

use super::code::{code, lines_with};
use super::tree::Tree;

/// Where unsafe code may be.
const UNSAFE: [&str; 5] = [
    "vm/src/slab/",
    "vm/src/kmem/global.rs",
    "vm/src/kmem/global/",
    "machines/",
    "kernel/",
];

/// The most lines of a file.
const LINES: usize = 800;

pub(super) fn unsafe_has_few_addresses(tree: &Tree) -> Vec<String> {
    let elsewhere = tree.sources().filter(|(path, _)| {
        let allowed = UNSAFE.iter().any(|place| path.starts_with(place));
        !allowed && !path.split('/').any(|folder| folder == "benches")
    });
    elsewhere
        .flat_map(|(path, text)| places(path, text, &["unsafe"]))
        .collect()
}

pub(super) fn safe_rooms_forbid_unsafe(tree: &Tree) -> Vec<String> {
    crates_that_lack(
        tree,
        &["linux", "link", "machine"],
        "#![forbid(unsafe_code)]",
    )
}

pub(super) fn rooms_without_std(tree: &Tree) -> Vec<String> {
    crates_that_lack(tree, &["linux", "link", "machine", "vm"], "no_std")
}

fn crates_that_lack(tree: &Tree, rooms: &[&str], what: &str) -> Vec<String> {
    let lacks = |room: &&&str| {
        let text = tree.text(&format!("{room}/src/lib.rs"));
        !text.is_some_and(|text| code(text).contains(what))
    };
    let rooms = rooms.iter().filter(lacks);
    rooms
        .map(|room| format!("{room}/src/lib.rs: no {what}"))
        .collect()
}

pub(super) fn no_statics_in_the_core(tree: &Tree) -> Vec<String> {
    let core = tree.sources().filter(|(path, _)| {
        path.starts_with("vm/src/") && !path.ends_with("tests.rs") && !path.contains("/tests/")
    });
    core.flat_map(|(path, text)| places(path, text, &["static"]))
        .collect()
}

pub(super) fn short_files(tree: &Tree) -> Vec<String> {
    let counted = tree
        .sources()
        .map(|(path, text)| (path, text.lines().count()));
    let long = counted.filter(|(_, lines)| *lines > LINES);
    long.map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect()
}

pub(super) fn no_util(tree: &Tree) -> Vec<String> {
    const NAMES: [&str; 4] = ["util", "utils", "helper", "helpers"];
    let named = tree.sources().filter(|(path, _)| {
        let parts = path.trim_end_matches(".rs").split('/');
        parts.into_iter().any(|part| NAMES.contains(&part))
    });
    named.map(|(path, _)| path.to_owned()).collect()
}

pub(super) fn nothing_left_undone(tree: &Tree) -> Vec<String> {
    let words = ["todo!", "unimplemented!", "#[ignore"];
    tree.sources()
        .flat_map(|(path, text)| places(path, text, &words))
        .collect()
}

/// One line for each place where one of `words` stands in the code of a file.
fn places(path: &str, text: &str, words: &[&str]) -> Vec<String> {
    let found = words.iter().flat_map(|word| {
        let lines = lines_with(text, word);
        lines
            .into_iter()
            .map(move |n| format!("{path}:{n}: {word}"))
    });
    found.collect()
}
