//! The listing of the core's unsafe blocks: one line for each, so that all of them are seen at once.

use super::code::{code, is_name, lines_with};
use super::tree::Tree;

/// Where the listing is.
pub(super) const LISTING: &str = "docs/unsafe.md";

/// The most lines that it may have: those of one screen.
const SCREEN: usize = 50;

/// The most characters of a reason.
const REASON: usize = 76;

const HEAD: &str = "\
# Unsafe code in the core

Every `unsafe` of `vm/`, with the beginning of its reason; the whole of it stands above the block.
`cargo xtask tidy` compares this page with the code, `cargo xtask tidy --renew` writes it.

| file | where | because |
|---|---|---|
";

/// The listing as it should be.
pub(super) fn listing(tree: &Tree) -> String {
    let core = tree
        .sources()
        .filter(|(path, _)| path.starts_with("vm/") && !path.ends_with("tests.rs"));
    let lines = core.flat_map(|(path, text)| blocks(path, text));
    let mut out = HEAD.to_owned();
    out.extend(lines);
    out
}

pub(super) fn listing_is_current(tree: &Tree) -> Vec<String> {
    let wanted = listing(tree);
    let mut broken = Vec::new();
    if tree.text(LISTING) != Some(&wanted) {
        broken.push(format!("{LISTING} is stale: cargo xtask tidy --renew"));
    }
    let lines = wanted.lines().count();
    if lines > SCREEN {
        broken.push(format!(
            "{LISTING}: {lines} lines are more than a screen has"
        ));
    }
    broken
}

/// A line of the table for each `unsafe` in a file.
fn blocks(path: &str, text: &str) -> Vec<String> {
    let plain = code(text);
    let plain: Vec<&str> = plain.lines().collect();
    let lines: Vec<&str> = text.lines().collect();
    let found = lines_with(text, "unsafe").into_iter().map(|n| {
        let place = place(&plain[..n]);
        let reason = reason(&lines[..n - 1]);
        format!("| `{path}` | `{place}` | {reason} |\n")
    });
    found.collect()
}

/// What the last of `lines` is part of: the name of a function, or its own words for an `impl`.
fn place(lines: &[&str]) -> String {
    let last = lines.last().map_or("", |line| line.trim());
    if let Some((_, implemented)) = last.split_once("unsafe impl") {
        // Without its parameters: `Sync for Pool`.
        let mut depth = 0;
        let bare = implemented.chars().filter(|&c| {
            depth += i32::from(c == '<');
            let inside = depth > 0;
            depth -= i32::from(c == '>');
            !inside
        });
        let bare: String = bare.collect();
        return format!("impl {}", bare.trim_matches([' ', '{', '}']));
    }
    let functions = lines.iter().rev().filter_map(|line| {
        let (_, rest) = line.trim().split_once("fn ")?;
        let end = rest.bytes().position(|b| !is_name(b)).unwrap_or(rest.len());
        (end > 0).then(|| rest[..end].to_owned())
    });
    let mut functions = functions;
    functions.next().unwrap_or_default()
}

/// The beginning of the SAFETY comment that `lines` end with.
fn reason(lines: &[&str]) -> String {
    let comment = lines.iter().rev().map(|line| line.trim());
    // An attribute or the first half of a statement may stand between.
    let mut comment: Vec<&str> = comment
        .skip_while(|line| !line.is_empty() && !line.starts_with("//"))
        .map_while(|line| line.strip_prefix("//"))
        .collect();
    comment.reverse();
    let words = comment.join(" ");
    let Some((_, words)) = words.split_once("SAFETY:") else {
        return "**no reason is given**".to_owned();
    };
    let mut out = String::new();
    for word in words.split_whitespace() {
        if out.len() + word.len() > REASON {
            out.push_str(" …");
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_has_a_line() {
        let text = "\
// SAFETY: it owns what it has. Further words.
unsafe impl<M: Machine, T: Send> Sync for Pool<M, T> {}
fn first() {
    // SAFETY: the record lives
    // as long as the pool, which is a long time and needs many more words than these to be said.
    let x = unsafe { f() };
}
fn second() {
    // unsafe in words is none.
    let y =
        unsafe { g() };
}
";
        let tree = Tree::of(&[
            ("vm/src/slab/pool.rs", text),
            ("vm/src/slab/tests.rs", "fn t() { unsafe {} }"),
            ("machines/sim/src/lib.rs", "fn t() { unsafe {} }"),
        ]);
        let listing = listing(&tree);
        let rows: Vec<&str> = listing.strip_prefix(HEAD).unwrap().lines().collect();
        let file = "| `vm/src/slab/pool.rs` |";
        let long = "the record lives as long as the pool, which is a long time and needs many …";
        let expected = [
            format!("{file} `impl Sync for Pool` | it owns what it has. Further words. |"),
            format!("{file} `first` | {long} |"),
            format!("{file} `second` | **no reason is given** |"),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_stale_or_long_listing_is_found() {
        let pool = (
            "vm/src/slab/pool.rs",
            "fn f() {\n// SAFETY: so.\nunsafe {}\n}",
        );
        let stale = Tree::of(&[pool, (LISTING, HEAD)]);
        let line = "docs/unsafe.md is stale: cargo xtask tidy --renew";
        assert_eq!(listing_is_current(&stale), [line]);
        let current = listing(&stale);
        let tree = Tree::of(&[pool, (LISTING, &current)]);
        assert_eq!(listing_is_current(&tree), [""; 0]);
        let many = "unsafe {}\n".repeat(50);
        let many = Tree::of(&[("vm/src/slab/pool.rs", &many)]);
        assert_eq!(listing_is_current(&many).len(), 2);
    }
}
