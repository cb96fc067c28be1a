//! Each rule on a small tree that breaks it, and on one that does not.

use super::code::{code, lines_with};
use super::tree::Tree;
use super::{manifests, prose, sources};

#[test]
fn comments_and_literals_are_no_code() {
    let text =
        "a // unsafe\n\"unsafe \\\" unsafe\" b /* unsafe /* */ unsafe */ c r#\"unsafe\"# 'u'";
    let left: String = code(text).split_whitespace().collect();
    assert_eq!(left, "abc");
    assert_eq!(code("let r#type = x;"), "let r#type = x;");
    assert_eq!(code("f::<'a>('\\'', 'b')").replace(' ', ""), "f::<'a>(,)");
    assert_eq!(lines_with("unsafe_code\n\nunsafe {", "unsafe"), [3]);
    assert_eq!(lines_with("&'static str\nstatic X: u8 = 0;", "static"), [2]);
}

#[test]
fn unsafe_code_is_found_where_it_may_not_be() {
    let tree = Tree::of(&[
        ("vm/src/slab/raw.rs", "unsafe {}"),
        ("machines/sim/src/record.rs", "unsafe {}"),
        ("vm/benches/map.rs", "unsafe {}"),
        ("vm/src/map.rs", "// unsafe\nfn f() { unsafe { g() } }"),
    ]);
    let broken = sources::unsafe_has_few_addresses(&tree);
    assert_eq!(broken, ["vm/src/map.rs:2: unsafe"]);
}

#[test]
fn crate_attributes_are_asked_for() {
    let tree = Tree::of(&[
        ("linux/src/lib.rs", "#![no_std]\n// #![forbid(unsafe_code)]"),
        ("link/src/lib.rs", "#![no_std]\n#![forbid(unsafe_code)]"),
        ("machine/src/lib.rs", "#![no_std]\n#![forbid(unsafe_code)]"),
        ("vm/src/lib.rs", ""),
    ]);
    let broken = sources::safe_rooms_forbid_unsafe(&tree);
    assert_eq!(broken, ["linux/src/lib.rs: no #![forbid(unsafe_code)]"]);
    assert_eq!(
        sources::rooms_without_std(&tree),
        ["vm/src/lib.rs: no no_std"]
    );
}

#[test]
fn sources_break_rules_one_by_one() {
    let long = "\n".repeat(801);
    let tree = Tree::of(&[
        ("vm/src/util.rs", ""),
        ("vm/src/long.rs", &long),
        ("vm/src/map.rs", "static A: u8 = 0; fn f() { todo!() }"),
        ("vm/tests/x.rs", "static A: u8 = 0; #[ignore]\nfn x() {}"),
    ]);
    assert_eq!(sources::no_util(&tree), ["vm/src/util.rs"]);
    assert_eq!(sources::short_files(&tree), ["vm/src/long.rs: 801 lines"]);
    assert_eq!(
        sources::no_statics_in_the_core(&tree),
        ["vm/src/map.rs:1: static"]
    );
    let undone = sources::nothing_left_undone(&tree);
    assert_eq!(
        undone,
        ["vm/src/map.rs:1: todo!", "vm/tests/x.rs:1: #[ignore"]
    );
}

#[test]
fn an_import_uphill_is_found() {
    let tree = Tree::of(&[
        (
            "vm/Cargo.toml",
            "[dependencies]\nbsdvm-machine.workspace = true\n\
             [dev-dependencies]\nbsdvm-sim.workspace = true\nbsdvm-cli = \"0\"",
        ),
        (
            "machines/sim/Cargo.toml",
            "[target.'cfg(loom)'.dependencies]\nx = { package = \"bsdvm\", version = \"0\" }",
        ),
        (
            "linux/Cargo.toml",
            "[features]\ndefault = []\na = []\nb = []\nc = []\nd = []",
        ),
    ]);
    let broken = manifests::imports_run_downhill(&tree);
    let expected = [
        "machines/sim/Cargo.toml: dependencies: bsdvm",
        "vm/Cargo.toml: dev-dependencies: bsdvm-cli",
    ];
    assert_eq!(broken, expected);
    assert_eq!(
        manifests::few_features(&tree),
        ["linux/Cargo.toml: 4 features"]
    );
}

#[test]
fn a_package_without_words_is_found() {
    let whole = "[package]\ndescription = ''\nreadme = ''\ncategories = []\nkeywords = []";
    let tree = Tree::of(&[
        ("machine/Cargo.toml", whole),
        (
            "vm/Cargo.toml",
            "[package]\nname = 'x'\nreadme = 'y'\nkeywords = []",
        ),
        ("cli/Cargo.toml", "[package]\nname = 'x'"),
    ]);
    let expected = [
        "vm/Cargo.toml: no description",
        "vm/Cargo.toml: no categories",
    ];
    assert_eq!(manifests::packages_say_what_they_are(&tree), expected);
}

#[test]
fn the_map_and_the_tree_are_compared() {
    let tree = Tree::of(&[
        (
            "ARCHITECTURE.md",
            "`vm/src/map/` and `vm/gone.rs`, `a + b`, `cargo xtask`",
        ),
        ("vm/src/map/mod.rs", ""),
        ("vm/src/pageout/mod.rs", ""),
        (
            "linux/src/lib.rs",
            concat!("// see /wo", "rk/x, net/wo", "rk/y"),
        ),
    ]);
    let gone = prose::map_names_what_exists(&tree);
    assert_eq!(gone, ["ARCHITECTURE.md:1: vm/gone.rs does not exist"]);
    let missing = prose::rooms_are_on_the_map(&tree);
    let expected = [
        "linux/ is not named in ARCHITECTURE.md",
        "vm/src/pageout/ is not named in ARCHITECTURE.md",
    ];
    assert_eq!(missing, expected);
    assert_eq!(prose::no_machine_paths(&tree).len(), 1);
    assert_eq!(prose::map_names_what_exists(&Tree::default()).len(), 1);
}
