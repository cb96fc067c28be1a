//! What people take: packed, unpacked elsewhere, and built from that.
//!
//! `cargo package` can build what it packed by itself. But it unpacks a package once for each
//! version, and so sees the old one of each later run at the same version; here every run
//! unpacks anew.

use crate::steps::{Outcome, Steps, cargo};
use std::path::Path;
use std::process::Command;

/// Packages that people take, in an order in which they can be published.
const PUBLISHED: [&str; 6] = [
    "bsdvm-machine",
    "bsdvm-sim",
    "bsdvm",
    "bsdvm-x86_64",
    "bsdvm-hosted",
    "bsdvm-linux",
];

/// Where `cargo package` leaves them.
const PACKED: &str = "target/package";
/// Where they are unpacked.
const UNPACKED: &str = "target/package/unpacked";

/// Packs and builds them. What they need from elsewhere was fetched for the tests.
pub(crate) fn run(steps: &mut Steps) -> Outcome {
    let mut pack = cargo("package --no-verify --offline --allow-dirty --quiet");
    for name in PUBLISHED {
        pack.args(["--package", name]);
    }
    steps.command("packages: pack", &mut pack)?;
    let root = steps.root().to_path_buf();
    steps.check("packages: unpack", || match unpack(&root) {
        Ok(()) => Vec::new(),
        Err(why) => vec![why],
    })?;
    for name in PUBLISHED {
        // One by one: together, one would get what only another asked for.
        let mut build = cargo("check --offline --quiet --target-dir target/unpacked");
        build.args(["--manifest-path", &format!("{UNPACKED}/Cargo.toml")]);
        steps.command(
            &format!("packages: {name}"),
            build.args(["--package", name]),
        )?;
    }
    Ok(())
}

/// Unpacks every package into a workspace of its own, in which they stand for what would be
/// published.
fn unpack(root: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| e.to_string();
    let unpacked = root.join(UNPACKED);
    if unpacked.exists() {
        std::fs::remove_dir_all(&unpacked).map_err(failed)?;
    }
    std::fs::create_dir_all(&unpacked).map_err(failed)?;
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).map_err(failed)?;
    let version = version(&manifest).ok_or("Cargo.toml: no version")?;
    for name in PUBLISHED {
        let file = root.join(PACKED).join(format!("{name}-{version}.crate"));
        let mut tar = Command::new("tar");
        let status = tar.arg("-xzf").arg(file).arg("-C").arg(&unpacked).status();
        let status = status.map_err(|e| format!("tar: {e}"))?;
        if !status.success() {
            return Err(format!("{name}: tar: {status}"));
        }
    }
    std::fs::write(unpacked.join("Cargo.toml"), workspace(&version)).map_err(failed)?;
    // The versions of what comes from elsewhere that the tests ran with.
    std::fs::copy(root.join("Cargo.lock"), unpacked.join("Cargo.lock")).map_err(failed)?;
    Ok(())
}

/// The version that all packages share.
fn version(manifest: &str) -> Option<String> {
    let manifest: toml::Table = manifest.parse().ok()?;
    let package = manifest.get("workspace")?.get("package")?;
    Some(package.get("version")?.as_str()?.to_owned())
}

/// The manifest of the workspace of unpacked packages.
fn workspace(version: &str) -> String {
    let folders = PUBLISHED.map(|name| format!("{name}-{version}"));
    let members = folders.each_ref().map(|folder| format!("{folder:?}"));
    let mut out = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{}]\n",
        members.join(", ")
    );
    out.push_str("\n[patch.crates-io]\n");
    for (name, folder) in PUBLISHED.iter().zip(&folders) {
        out.push_str(&format!("{name} = {{ path = {folder:?} }}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacked_packages_stand_for_the_published() {
        let manifest = "[workspace.package]\nversion = \"1.2.3\"";
        assert_eq!(version(manifest).as_deref(), Some("1.2.3"));
        assert_eq!(version("[workspace]"), None);
        let table: toml::Table = workspace("1.2.3").parse().expect("a manifest");
        let path = &table["patch"]["crates-io"]["bsdvm-sim"]["path"];
        assert_eq!(path.as_str(), Some("bsdvm-sim-1.2.3"));
        let members = table["workspace"]["members"].as_array().expect("a list");
        assert_eq!(members.len(), PUBLISHED.len());
    }
}
