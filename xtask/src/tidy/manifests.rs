//! Rules about packages.

use super::tree::Tree;
use toml::{Table, Value};

/// The rooms, and what the library or program of each may import of the project.
const IMPORTS: [(&str, &[&str]); 10] = [
    ("machine", &[]),
    ("machines/sim", &["bsdvm-machine"]),
    ("machines/hosted", &["bsdvm-machine"]),
    ("machines/x86_64", &["bsdvm-machine"]),
    ("vm", &["bsdvm-machine"]),
    ("linux", &["bsdvm-machine", "bsdvm"]),
    ("link", &["bsdvm", "bsdvm-linux"]),
    (
        "host",
        &["bsdvm-machine", "bsdvm", "bsdvm-linux", "bsdvm-hosted"],
    ),
    (
        "kernel",
        &[
            "bsdvm-machine",
            "bsdvm",
            "bsdvm-linux",
            "bsdvm-link",
            "bsdvm-x86_64",
        ],
    ),
    ("xtask", &[]),
];

/// What only programs are made of: no test of a lower room imports it.
const TOP: [&str; 3] = ["bsdvm-cli", "bsdvm-host", "bsdvm-kernel"];

/// The most features of a package, `default` apart.
const FEATURES: usize = 3;

/// The rooms whose packages people take, and what each has to say of itself.
const PUBLISHED: [&str; 6] = [
    "machine",
    "machines/sim",
    "machines/hosted",
    "machines/x86_64",
    "vm",
    "linux",
];
const SAID: [&str; 4] = ["description", "readme", "categories", "keywords"];

pub(super) fn packages_say_what_they_are(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for room in PUBLISHED {
        let Some(manifest) = manifest(tree, room, &mut broken) else {
            continue;
        };
        let package = manifest.get("package");
        let missing = SAID.iter().filter(|field| {
            let field = package.and_then(|package| package.get(field));
            field.is_none()
        });
        broken.extend(missing.map(|field| format!("{room}/Cargo.toml: no {field}")));
    }
    broken
}

pub(super) fn imports_run_downhill(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (room, allowed) in IMPORTS {
        let Some(manifest) = manifest(tree, room, &mut broken) else {
            continue;
        };
        for (section, name) in imports(&manifest) {
            let test = section == "dev-dependencies";
            // A test may name any machine, and no program.
            let good = match test {
                true => !TOP.contains(&name.as_str()),
                false => allowed.contains(&name.as_str()),
            };
            if !good {
                broken.push(format!("{room}/Cargo.toml: {section}: {name}"));
            }
        }
    }
    broken
}

pub(super) fn few_features(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (room, _) in IMPORTS {
        let manifest = manifest(tree, room, &mut broken).unwrap_or_default();
        let features = manifest.get("features").and_then(Value::as_table);
        let names = features.into_iter().flat_map(Table::keys);
        let count = names.filter(|name| *name != "default").count();
        if count > FEATURES {
            broken.push(format!("{room}/Cargo.toml: {count} features"));
        }
    }
    broken
}

/// The manifest of a room; `None` where there is no such room.
fn manifest(tree: &Tree, room: &str, broken: &mut Vec<String>) -> Option<Table> {
    let path = format!("{room}/Cargo.toml");
    match tree.text(&path)?.parse() {
        Ok(table) => Some(table),
        Err(e) => {
            broken.push(format!("{path}: {e}"));
            None
        }
    }
}

/// The sections and names of the project's packages that a manifest asks for.
fn imports(manifest: &Table) -> Vec<(&'static str, String)> {
    const SECTIONS: [&str; 3] = ["dependencies", "build-dependencies", "dev-dependencies"];
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(Table::values);
    let tables = targets.filter_map(Value::as_table).chain([manifest]);
    let mut found = Vec::new();
    for table in tables {
        for section in SECTIONS {
            let packages = table.get(section).and_then(Value::as_table);
            for (key, value) in packages.into_iter().flatten() {
                // A package may go by another name.
                let package = value.get("package").and_then(Value::as_str);
                let name = package.unwrap_or(key);
                if name == "bsdvm" || name.starts_with("bsdvm-") {
                    found.push((section, name.to_owned()));
                }
            }
        }
    }
    found
}
