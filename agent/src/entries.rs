//! The entries of a desired state in manifests, workloads and configs, and the differences of two states.

use fifogate::{
    internal::state::DESIRED_STATE,
    state::{Map, Node, Tree},
};

/// The parts of a desired state in manifests, and the words for their entries.
pub(crate) const PARTS: [(&str, &str); 2] = [("workloads", "workload"), ("configs", "config")];

/// The tag of a restart: a workload with another tag is another one, and replaces the old one.
pub(crate) const RESTARTED: &str = "restartedAt";

/// Most names told of a kind; an operator looks the others up.
const MOST_NAMES: usize = 20;

/// The mask of an entry.
pub(crate) fn mask(part: &str, name: &str) -> String {
    format!("{DESIRED_STATE}.{part}.{name}")
}

/// A mask for each entry of a desired state.
pub(crate) fn masks(desired: &Tree) -> Vec<String> {
    let masks = PARTS.iter().flat_map(|(part, _)| {
        let entries = desired.entries(&[DESIRED_STATE, part]);
        entries.iter().map(move |(name, _)| mask(part, name.as_str()))
    });
    masks.collect()
}

/// A workload with the tag of the restart of another one, unless it has its own.
pub(crate) fn restarted_as(workload: &Node, other: &Node) -> Node {
    let tags = |own: &Node| own.get("tags").map(|tags| tags.entries().clone()).unwrap_or_default();
    let Some(at) = tags(other).get(RESTARTED).cloned() else { return workload.clone() };
    let (mut fields, mut own) = (workload.entries().clone(), tags(workload));
    if own.get(RESTARTED).is_none() {
        own.insert(RESTARTED, at);
    }
    fields.insert("tags", Node::Map(own));
    Node::Map(fields)
}

/// An entry of one state alone, or with different content in two.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    part: &'static str,
    noun: &'static str,
    name: String,
    kind: Kind,
}

/// How an entry differs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    OnlyOld,
    OnlyNew,
    /// With the names of its differing fields; a config of one value has none.
    Both(Vec<String>),
}

/// The differing entries of two desired states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences(Vec<Difference>);

impl Differences {
    /// Compares the entries of two desired states. Empty collections count as none, as stores leave them out.
    pub(crate) fn between(old: &Tree, new: &Tree) -> Self {
        let mut found = Vec::new();
        for (part, noun) in PARTS {
            let own = |tree: &Tree| tree.entries(&[DESIRED_STATE, part]).clone();
            own(old).diff(&own(new), |name, was, is| {
                let kind = match (was, is) {
                    (Some(was), Some(is)) if are_same(was, is) => return,
                    (Some(was), Some(is)) => Kind::Both(fields_that_differ(was, is)),
                    (Some(_), None) => Kind::OnlyOld,
                    (None, _) => Kind::OnlyNew,
                };
                found.push(Difference { part, noun, name: name.as_str().to_owned(), kind });
            });
        }
        Self(found)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A mask for each of them.
    pub(crate) fn masks(&self) -> Vec<String> {
        self.0.iter().map(|own| mask(own.part, &own.name)).collect()
    }

    /// Their names behind the words for entries of the new state alone, of the old one alone, and of both.
    pub(crate) fn text(&self, [only_new, only_old, both]: [&str; 3]) -> String {
        let groups = [
            (only_new, self.named(|kind| (*kind == Kind::OnlyNew).then(String::new))),
            (only_old, self.named(|kind| (*kind == Kind::OnlyOld).then(String::new))),
            (both, self.named(changed)),
        ];
        let told = groups.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| {
            let more = names.len().saturating_sub(MOST_NAMES);
            let shown = names[..names.len() - more].join(", ");
            if more > 0 {
                format!("{what}: {shown} and {more} more")
            } else {
                format!("{what}: {shown}")
            }
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// The names of one kind, each with a detail.
    fn named(&self, detail: impl Fn(&Kind) -> Option<String>) -> Vec<String> {
        let named = |own: &Difference| {
            detail(&own.kind).map(|detail| format!("{} {}{detail}", own.noun, own.name))
        };
        self.0.iter().filter_map(named).collect()
    }
}

fn changed(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Both(fields) if fields.is_empty() => Some(String::new()),
        Kind::Both(fields) => Some(format!(" ({})", fields.join(", "))),
        Kind::OnlyNew | Kind::OnlyOld => None,
    }
}

/// Whether two nodes are equal but for empty collections.
pub(crate) fn are_same(one: &Node, other: &Node) -> bool {
    let (Some(own), Some(others)) = (one.as_map(), other.as_map()) else { return one == other };
    let mut equal = true;
    differing(own, others, |_| equal = false);
    equal
}

/// The names of the differing fields of two mappings.
fn fields_that_differ(one: &Node, other: &Node) -> Vec<String> {
    let mut names = Vec::new();
    if let (Some(own), Some(others)) = (one.as_map(), other.as_map()) {
        differing(own, others, |name| names.push(name.to_owned()));
    }
    names
}

fn differing(own: &Map<Node>, others: &Map<Node>, mut found: impl FnMut(&str)) {
    own.diff(others, |name, was, is| {
        let filled = |node: Option<&Node>| node.filter(|node| !node.is_empty_collection()).cloned();
        let equal = match (filled(was), filled(is)) {
            (Some(was), Some(is)) => are_same(&was, &is),
            (was, is) => was == is,
        };
        if !equal {
            found(name.as_str());
        }
    });
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
        let told = |old: &str, new: &str| {
            let differences = Differences::between(&tree(old), &tree(new));
            (!differences.is_empty()).then(|| differences.text(["new", "old", "changed"]))
        };
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
        let text = "new: workload two; changed: workload one (runtimeConfig)";
        assert_eq!(told(&one, &other).as_deref(), Some(text));
        let none = "workloads: {}\nconfigs: {c: '1'}\n";
        let text = "new: config c; old: workload one";
        assert_eq!(told(&one, none).as_deref(), Some(text));
        assert_eq!(told(none, &none.replace('1', "2")).as_deref(), Some("changed: config c"));
        let many: Vec<_> = (0..24).map(|n| w(&format!("w{n:02}"), "x")).collect();
        let text = told("workloads: {}\n", &workloads(&many)).unwrap();
        assert!(text.ends_with("workload w19 and 4 more"), "{text}");
    }

    #[test]
    fn masks_name_the_entries() {
        let both = tree("workloads: {}\nconfigs: {c: '1', d: '2'}\n");
        assert_eq!(masks(&both), ["desiredState.configs.c", "desiredState.configs.d"]);
        let one = tree("workloads: {}\nconfigs: {c: '1', d: '3'}\n");
        assert_eq!(Differences::between(&both, &one).masks(), ["desiredState.configs.d"]);
    }
}
