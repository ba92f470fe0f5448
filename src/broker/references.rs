//! Access check of references from workloads to configs.
//!
//! A reference counts as a read: the started process, or an error about it, shows the content of the
//! config. In go the sender's rules and the workloads before and after its update; out comes whether
//! the update is allowed, or the first reference that is not. Pure. Only workloads with a change in
//! [`SHOWING`] are checked, so setting a tag needs no right to read.

use crate::state::{DESIRED_STATE, Map, Node};

use super::Rules;

/// The fields with an influence on the rendered configs, or on their use: another command could print a
/// file rendered before.
const SHOWING: [&str; 5] = ["agent", "runtime", "runtimeConfig", "files", "configs"];

impl Rules {
    /// True if the references in `new` are allowed to a sender with these rules, where `old` are the
    /// workloads before. `new` need not be validated: a value without the shape of a workload has no
    /// references.
    #[must_use]
    pub fn may_refer(&self, old: &Map<Node>, new: &Map<Node>) -> bool {
        self.unreadable_reference(old, new).is_none()
    }

    /// The first reference that is not allowed, as the names of its workload and of its config.
    pub(super) fn unreadable_reference(
        &self,
        old: &Map<Node>,
        new: &Map<Node>,
    ) -> Option<(String, String)> {
        let mut found = None;
        // Unchanged workloads cost little: nodes shared by both maps are skipped.
        old.diff(new, |name, was, is| {
            // A removed workload shows nothing any more.
            let Some(is) = is else { return };
            // `diff` has no early end: after a denial the other workloads are skipped here.
            if found.is_none()
                && SHOWING.iter().any(|part| given(was, part) != given(Some(is), part))
            {
                let config = references(is).find(|config| !self.may_read_config(config));
                found = config.map(|config| (name.to_string(), config.to_owned()));
            }
        });
        found
    }

    fn may_read_config(&self, name: &str) -> bool {
        self.may_read_path(&[DESIRED_STATE, "configs", name])
    }
}

/// A field of a workload. An empty collection counts as absent: updates add such ones while masks are
/// applied.
fn given<'a>(workload: Option<&'a Node>, part: &str) -> Option<&'a Node> {
    workload?.get(part).filter(|part| !part.is_empty_collection())
}

/// The names of the configs referred to by a workload.
fn references(workload: &Node) -> impl Iterator<Item = &str> {
    let own = workload.get("configs").and_then(Node::as_map);
    own.into_iter().flatten().filter_map(|(_, config)| config.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Mask, Tree, update};

    fn workloads(text: &str) -> Map<Node> {
        let configs = "configs: {secret: {k: v}, other: x, public: y}";
        let text = format!("apiVersion: v1\nworkloads: {text}\n{configs}\n");
        let tree = crate::manifest::parse("t.yaml", &text).unwrap().updated.tree;
        tree.entries(&[DESIRED_STATE, "workloads"]).clone()
    }

    fn own(fields: &str) -> Map<Node> {
        workloads(&format!("{{w: {{agent: a, runtime: process, runtimeConfig: x{fields}}}}}"))
    }

    /// Rules with all workloads writable, and these masks readable.
    fn reads(allow: &[&str], deny: &[&str]) -> Rules {
        let rule = |operation, masks: &[&str]| {
            Node::map([
                ("type", Node::text("StateRule")),
                ("operation", Node::text(operation)),
                ("filterMasks", Node::seq(masks.iter().map(|mask| Node::text(mask)))),
            ])
        };
        let writes = rule("Write", &["desiredState.workloads"]);
        Rules::compile(&Node::map([
            ("allowRules", Node::seq([writes, rule("Read", allow)])),
            ("denyRules", Node::seq([rule("Read", deny)])),
        ]))
    }

    #[test]
    fn whoever_makes_a_workload_refer_to_a_config_has_to_be_allowed_to_read_all_of_it() {
        let (old, new) = (own(""), own(", configs: {s: secret}"));
        for (allow, deny, may) in [
            (&[][..], &[][..], false),
            (&["desiredState.workloads", "workloadStates"], &[], false),
            (&["desiredState.configs.secret.k"], &[], false),
            (&["desiredState.configs.secrets"], &[], false),
            (&["desiredState.configs.secret"], &[], true),
            (&["desiredState.configs"], &[], true),
            (&["desiredState.*.secret"], &[], true),
            (&["*"], &[], true),
            (&["*"], &["desiredState.configs.secret"], false),
            (&["*"], &["desiredState.configs.secret.k"], false),
            (&["*"], &["desiredState.configs.other"], true),
        ] {
            let rules = reads(allow, deny);
            assert_eq!(rules.may_refer(&old, &new), may, "{allow:?} {deny:?}");
            assert_eq!(rules.may_refer(&Map::new(), &new), may, "a new one: {allow:?} {deny:?}");
            assert!(rules.may_refer(&new, &old), "a reference that goes shows nothing any more");
        }
    }

    #[test]
    fn change_of_what_shows_a_config_counts_as_a_reference_and_no_other_change_does() {
        let refers = "configs: {s: secret, p: public}";
        let old = own(&format!(", {refers}"));
        let cases = [
            (format!(", {refers}, tags: {{k: v}}"), true),
            (format!(", {refers}, restartPolicy: ALWAYS"), true),
            (format!(", {refers}, files: [{{mountPoint: /f, data: '{{{{s.k}}}}'}}]"), false),
            (format!(", {refers}, files: [{{mountPoint: /f, data: plain}}]"), false),
            (", configs: {s: public, p: secret}".to_owned(), false),
            (", configs: {s: secret, p: public, q: public}".to_owned(), false),
            (", configs: {s: secret}".to_owned(), false),
            (", configs: {p: public}".to_owned(), true),
        ];
        let rules = reads(&["desiredState.configs.public"], &[]);
        for (fields, may) in cases {
            assert_eq!(rules.may_refer(&old, &own(&fields)), may, "{fields}");
        }
        let texts = |fields: &str| workloads(&format!("{{w: {{{fields}, {refers}}}}}"));
        let plain = texts("agent: a, runtime: process, runtimeConfig: x");
        for changed in [
            "agent: b, runtime: process, runtimeConfig: x",
            "agent: a, runtime: podman, runtimeConfig: x",
            "agent: a, runtime: process, runtimeConfig: 'cat /f'",
            "agent: '{{s.k}} is none', runtime: process, runtimeConfig: x",
        ] {
            assert!(!rules.may_refer(&plain, &texts(changed)), "{changed}");
        }
        assert!(rules.may_refer(&old, &old) && rules.may_refer(&old, &Map::new()));
    }

    #[test]
    fn workload_that_is_written_again_as_it_stood_refers_to_nothing_new() {
        let text = "apiVersion: v1\nworkloads: {w: {agent: a, runtime: process, runtimeConfig: x, \
                    configs: {s: secret}}}\nconfigs: {secret: v}\n";
        let tree = crate::manifest::parse("t.yaml", text).unwrap().updated.tree;
        let path = [DESIRED_STATE, "workloads"];
        let rules = reads(&[], &[]);
        // With the empty collections added by the masks.
        for mask in ["desiredState.workloads.w", "desiredState.workloads.w.tags.k", "desiredState"]
        {
            let proposed = update::propose(&tree, &tree, &[Mask::parse(mask)]).unwrap();
            let proposed =
                Tree::default().with(DESIRED_STATE, proposed.get(DESIRED_STATE).cloned());
            assert!(rules.may_refer(tree.entries(&path), proposed.entries(&path)), "{mask}");
        }
        let none = Tree::initial();
        assert!(!rules.may_refer(none.entries(&path), tree.entries(&path)));
    }

    #[test]
    fn what_has_no_shape_of_a_workload_yet_refers_to_nothing() {
        let rules = reads(&[], &[]);
        for configs in [Node::text("secret"), Node::seq([Node::text("secret")]), Node::Unset] {
            let own = Node::map([("configs", configs)]);
            assert!(rules.may_refer(&Map::new(), &[("w".into(), own)].into_iter().collect()));
        }
    }
}
