//! The desired state kept in a store, beside the one of a manifest. The kept one counts: it has the updates
//! since. An operator who changed the manifest has to hear that it has no effect.

use fifogate::{
    internal::state::DESIRED_STATE,
    state::{Node, Tree},
};

/// Most names told of a kind; an operator looks the others up.
const MOST_NAMES: usize = 5;

/// Logs the use of the state kept at `place`, as a warning with the differences if the manifest has
/// another one.
pub(super) fn tell(place: &str, kept: &Tree, manifest: &Tree) {
    match differences(place, kept, manifest) {
        None => log::info!("using the desired state {place} instead of the manifest"),
        Some(text) => {
            log::warn!(
                "using the desired state {place} instead of the manifest; they differ: {text}"
            );
        }
    }
}

fn differences(place: &str, kept: &Tree, manifest: &Tree) -> Option<String> {
    let (mut only_manifest, mut only_kept, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for (part, kind) in [("workloads", "workload"), ("configs", "config")] {
        let own = |tree: &Tree| tree.entries(&[DESIRED_STATE, part]).clone();
        own(kept).diff(&own(manifest), |name, was, is| match (was, is) {
            (Some(was), Some(is)) if same(was, is) => {}
            (Some(_), Some(_)) => both.push(format!("{kind} {name}")),
            (Some(_), None) => only_kept.push(format!("{kind} {name}")),
            (None, _) => only_manifest.push(format!("{kind} {name}")),
        });
    }
    let only_place = format!("only {place}");
    let all = [
        ("only in the manifest", only_manifest),
        (only_place.as_str(), only_kept),
        ("changed", both),
    ];
    let told = all.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| {
        let more = names.len().saturating_sub(MOST_NAMES);
        let shown = names[..names.len() - more].join(", ");
        if more > 0 {
            format!("{what}: {shown} and {more} more")
        } else {
            format!("{what}: {shown}")
        }
    });
    let told: Vec<_> = told.collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// Equal but for empty collections, which stores leave out.
fn same(one: &Node, other: &Node) -> bool {
    let (Some(own), Some(others)) = (one.as_map(), other.as_map()) else { return one == other };
    let mut equal = true;
    own.diff(others, |_, was, is| {
        let filled = |node: Option<&Node>| node.filter(|node| !node.is_empty_collection()).cloned();
        equal &= match (filled(was), filled(is)) {
            (Some(was), Some(is)) => same(&was, &is),
            (was, is) => was == is,
        };
    });
    equal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(parts: &str) -> Tree {
        let text = format!("apiVersion: v1\n{parts}");
        fifogate::manifest::parse("test.yaml", &text).unwrap().updated.tree
    }

    #[test]
    fn differences_name_what_is_where() {
        let told =
            |kept: &str, manifest: &str| differences("on disk", &tree(kept), &tree(manifest));
        let w = |name: &str, config: &str| {
            format!("  {name}: {{agent: a, runtime: process, runtimeConfig: {config}}}\n")
        };
        let workloads = |own: &[String]| format!("workloads:\n{}", own.concat());
        let one = workloads(&[w("one", "x")]);
        assert_eq!(told(&one, &one), None);
        let with_tags =
            format!("{one}    \n").replace("runtimeConfig: x", "runtimeConfig: x, tags: {}");
        assert_eq!(told(&one, &with_tags), None, "an empty mapping is none");
        let other = workloads(&[w("one", "y"), w("two", "x")]);
        let text = "only in the manifest: workload two; changed: workload one";
        assert_eq!(told(&one, &other).as_deref(), Some(text));
        let none = "workloads: {}\nconfigs: {c: 1}\n".replace('1', "\"1\"");
        let text = "only in the manifest: config c; only on disk: workload one";
        assert_eq!(told(&one, &none).as_deref(), Some(text));
        let many: Vec<_> = (0..9).map(|n| w(&format!("w{n}"), "x")).collect();
        let text = told("workloads: {}\n", &workloads(&many)).unwrap();
        assert!(text.ends_with("workload w4 and 4 more"), "{text}");
    }
}
