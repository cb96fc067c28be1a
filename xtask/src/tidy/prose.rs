//! Rules about what is written beside the code.

use super::tree::Tree;

/// The map of the house.
const MAP: &str = "ARCHITECTURE.md";

/// Where this project was written: no other machine has it. In two parts, as this file is read too.
const MACHINE_PATH: &str = concat!("/wo", "rk/");

/// Folders that the map need not name.
const UNNAMED: [&str; 0] = [];

pub(super) fn no_machine_paths(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in tree.files() {
        let lines = text.lines().zip(1..);
        let bad = lines.filter(|(line, _)| {
            line.match_indices(MACHINE_PATH).any(|(i, _)| {
                // In the middle of a longer path it is nobody's root.
                let before = line[..i].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-".contains(c))
            })
        });
        found.extend(bad.map(|(_, n)| format!("{path}:{n}: {MACHINE_PATH}")));
    }
    found
}

pub(super) fn map_names_what_exists(tree: &Tree) -> Vec<String> {
    let Some(map) = tree.text(MAP) else {
        return vec![format!("{MAP} is missing")];
    };
    let mut gone = Vec::new();
    for (line, n) in map.lines().zip(1..) {
        // Every second piece between back quotes is a code span.
        let spans = line.split('`').skip(1).step_by(2);
        let paths = spans.filter(|span| is_path(span) && !tree.has(span));
        gone.extend(paths.map(|path| format!("{MAP}:{n}: {path} does not exist")));
    }
    gone
}

/// Whether a code span names a place in the tree: letters, digits and the marks of paths, and
/// either a slash or the ending of a file that we write.
fn is_path(span: &str) -> bool {
    let endings = [".rs", ".md", ".toml", ".S", ".ld"];
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
    span.chars().all(plain)
        && !span.starts_with(['/', '-', '.'])
        && (span.contains('/') || endings.iter().any(|e| span.ends_with(e)))
}

pub(super) fn rooms_are_on_the_map(tree: &Tree) -> Vec<String> {
    let Some(map) = tree.text(MAP) else {
        return vec![format!("{MAP} is missing")];
    };
    let tops = tree.folders_in("").map(|name| (name, name.to_owned()));
    let core = tree.folders_in("vm/src");
    let core = core.map(|name| (name, format!("vm/src/{name}")));
    let missing = tops.chain(core).filter(|(name, _)| {
        // `page/` names `vm/src/page` too, since the map draws the core as a tree.
        !UNNAMED.contains(name) && !names(map, name)
    });
    missing
        .map(|(_, path)| format!("{path}/ is not named in {MAP}"))
        .collect()
}

/// Whether `map` holds `name/`, and not as the end of another name.
fn names(map: &str, name: &str) -> bool {
    let wanted = format!("{name}/");
    map.match_indices(&wanted).any(|(i, _)| {
        let before = map[..i].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-')
    })
}
