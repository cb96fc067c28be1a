//! `cargo xtask tidy`: the rules of the house as checks, each with a name and a reason.

pub(crate) mod code;
mod danger;
mod manifests;
mod prose;
mod sources;
pub(crate) mod tree;

#[cfg(test)]
mod tests;

use crate::steps::{Outcome, Steps};
use clap::Args;
use tree::Tree;

/// One rule: a name, why we have it, and a check that gives one line for each place that breaks
/// it.
struct Rule {
    name: &'static str,
    reason: &'static str,
    check: fn(&Tree) -> Vec<String>,
}

const RULES: [Rule; 14] = [
    Rule {
        name: "imports run downhill",
        reason: "a room that knows the rooms above it cannot be used without them",
        check: manifests::imports_run_downhill,
    },
    Rule {
        name: "at most three features",
        reason: "each feature doubles what has to be tested",
        check: manifests::few_features,
    },
    Rule {
        name: "packages say what they are",
        reason: "who finds one without its house has nothing else to go by",
        check: manifests::packages_say_what_they_are,
    },
    Rule {
        name: "danger has few addresses",
        reason: "unsafe code is read again and again; it must be findable",
        check: sources::unsafe_has_few_addresses,
    },
    Rule {
        name: "the core's danger is on one screen",
        reason: "what is seen at once is read again",
        check: danger::listing_is_current,
    },
    Rule {
        name: "safe rooms forbid unsafe code",
        reason: "a forbidden thing needs no review",
        check: sources::safe_rooms_forbid_unsafe,
    },
    Rule {
        name: "the core needs no standard library",
        reason: "it stands under the allocator and runs on bare metal",
        check: sources::rooms_without_std,
    },
    Rule {
        name: "the core has no statics",
        reason: "two of them live in one process",
        check: sources::no_statics_in_the_core,
    },
    Rule {
        name: "no file over 800 lines",
        reason: "a file that nobody reads whole hides its mistakes",
        check: sources::short_files,
    },
    Rule {
        name: "no util.rs",
        reason: "a name that says nothing collects everything",
        check: sources::no_util,
    },
    Rule {
        name: "nothing left undone",
        reason: "what is not written fails at run time, and a test that is ignored tests nothing",
        check: sources::nothing_left_undone,
    },
    Rule {
        name: "no paths of one machine",
        reason: "the tree is built elsewhere too",
        check: prose::no_machine_paths,
    },
    Rule {
        name: "the map names what exists",
        reason: "a map with places that are gone misleads",
        check: prose::map_names_what_exists,
    },
    Rule {
        name: "what exists is on the map",
        reason: "a room that the map omits is not found",
        check: prose::rooms_are_on_the_map,
    },
];

/// What to do beside checking.
#[derive(Args, Default)]
pub(crate) struct Tidy {
    /// Writes the pages that are made from the code, so that they are current.
    #[arg(long)]
    renew: bool,
}

/// Checks every rule, also after one is broken.
pub(crate) fn run(steps: &mut Steps, args: &Tidy) -> Outcome {
    if args.renew {
        let listing = danger::listing(&Tree::read(steps.root()));
        let path = steps.root().join(danger::LISTING);
        steps.check(danger::LISTING, || match std::fs::write(path, listing) {
            Ok(()) => Vec::new(),
            Err(why) => vec![why.to_string()],
        })?;
    }
    let tree = Tree::read(steps.root());
    let mut outcome = Ok(());
    for rule in &RULES {
        let held = steps.check(&format!("tidy: {}", rule.name), || {
            let mut broken = (rule.check)(&tree);
            if !broken.is_empty() {
                broken.push(format!("the reason for the rule: {}", rule.reason));
            }
            broken
        });
        outcome = outcome.and(held);
    }
    outcome
}
