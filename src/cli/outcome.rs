//! The effect of an update by `set`, path by path: changed, unchanged or removed.
//!
//! The response to an update names only the instances that it started and ended. So the parts to be
//! changed are read before, as far as the workload may read them, and compared with the new ones.

use serde_json::json;

use super::{args::OutcomeFormat, client::Client, error::CliError};
use crate::{
    pb::ank_base::{
        CompleteState, CompleteStateRequest, UpdateStateSuccess, request::RequestContent,
        response::ResponseContent,
    },
    state::{
        Node, Tree, convert,
        schema::{Presence, WORKLOAD},
    },
};

/// The state of these paths before an update; `None` if the workload may not read all of them.
pub(super) struct Before(Option<Tree>);

/// The effects of an update, each a list of paths in the order of the request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    changed: Vec<String>,
    unchanged: Vec<String>,
    removed: Vec<String>,
    /// Accepted, with an unknown effect.
    accepted: Vec<String>,
}

impl Before {
    pub(super) fn read(client: &mut Client, paths: &[String]) -> Self {
        Self(read(client, paths))
    }

    /// Refuses paths that would remove something, where there is nothing.
    ///
    /// # Errors
    /// One of `paths` is not in the state.
    pub(super) fn refuse_missing(&self, paths: &[String]) -> Result<(), CliError> {
        let Some(tree) = &self.0 else { return Ok(()) };
        let missing = paths.iter().filter(|path| at(tree, path).is_none());
        match missing.map(String::as_str).collect::<Vec<_>>().join(", ") {
            missing if missing.is_empty() => Ok(()),
            missing => Err(CliError::unusable(format!(
                "--mask {missing}: this is neither in FILE nor in the state; nothing was changed"
            ))),
        }
    }

    /// The effects of an accepted update of `paths` to the values in `new`.
    pub(super) fn effects(
        self,
        client: &mut Client,
        paths: &[String],
        new: Option<&CompleteState>,
    ) -> Effects {
        let new = new.and_then(|new| convert::new_state_from_pb(new).ok());
        let (Self(Some(before)), Some(new)) = (self, new) else {
            return Effects { accepted: paths.to_vec(), ..Effects::default() };
        };
        let mut effects = Effects::default();
        for path in paths {
            // Tags of an agent that is not there are ignored: only the state shows it.
            let after =
                path.starts_with("agents.").then(|| read(client, std::slice::from_ref(path)));
            match after {
                Some(None) => effects.accepted.push(path.clone()),
                Some(Some(after)) => effects.add(path, at(&before, path), at(&after, path)),
                None => effects.add(path, at(&before, path), at(&new, path)),
            }
        }
        effects
    }
}

impl Effects {
    fn add(&mut self, path: &str, old: Option<&Node>, new: Option<&Node>) {
        let mut removed = Vec::new();
        if !differ(path, old, new, &mut removed) {
            self.unchanged.push(path.to_owned());
        } else if new.is_some() {
            self.changed.push(path.to_owned());
        }
        self.removed.append(&mut removed);
    }

    /// The effects and the instances of an update in this format.
    pub(super) fn print(&self, instances: &UpdateStateSuccess, format: OutcomeFormat) -> String {
        let (added, deleted) = (&instances.added_workloads, &instances.deleted_workloads);
        let Self { changed, unchanged, removed, accepted } = self;
        if format == OutcomeFormat::Json {
            let outcome = json!({
                "changed": changed,
                "unchanged": unchanged,
                "removed": removed,
                "accepted": accepted,
                "addedWorkloads": added,
                "deletedWorkloads": deleted,
            });
            return format!("{outcome}\n");
        }
        let lists = [
            ("changed", changed),
            ("unchanged", unchanged),
            ("removed", removed),
            ("accepted", accepted),
            ("added", added),
            ("deleted", deleted),
        ];
        let lines = |(word, list): (&str, &Vec<String>)| {
            list.iter().map(|name| format!("{word}: {name}\n")).collect::<String>()
        };
        lists.map(lines).concat()
    }
}

fn read(client: &mut Client, paths: &[String]) -> Option<Tree> {
    let question = CompleteStateRequest { field_mask: paths.to_vec(), subscribe_for_events: false };
    match client.ask(RequestContent::CompleteStateRequest(question)) {
        Ok(ResponseContent::CompleteStateResponse(answer)) => {
            convert::from_pb(&answer.complete_state.unwrap_or_default()).ok()
        }
        // The update itself shows whether the pair is served.
        other => {
            log::debug!("the effect of the update cannot be told: {other:?}");
            None
        }
    }
}

fn at<'a>(tree: &'a Tree, path: &str) -> Option<&'a Node> {
    tree.get(&path.split('.').collect::<Vec<_>>())
}

/// Whether two values at `path` differ. Collects the paths that are missing in the new one.
fn differ(path: &str, old: Option<&Node>, new: Option<&Node>, removed: &mut Vec<String>) -> bool {
    // An empty collection of a workload is as good as none; an empty config is a value.
    let is_nothing = |node: &Node| node.is_empty_collection() && !is_in_configs(path);
    match (old, new) {
        (None, None) => false,
        (None, Some(new)) => !is_nothing(new),
        (Some(old), None) if is_nothing(old) || is_default(path, old) => false,
        (Some(_), None) => {
            removed.push(path.to_owned());
            true
        }
        (Some(Node::Map(old)), Some(Node::Map(new))) => {
            let added = new.iter().filter(|(name, _)| old.get(name.as_str()).is_none());
            let names = old.iter().chain(added).map(|(name, _)| name.as_str());
            names.fold(false, |differs, name| {
                let path = format!("{path}.{name}");
                differ(&path, old.get(name), new.get(name), removed) || differs
            })
        }
        (Some(old), Some(new)) => old != new,
    }
}

fn is_in_configs(path: &str) -> bool {
    path.starts_with("desiredState.configs.")
}

/// Whether a field of a workload has the value that it gets by itself.
fn is_default(path: &str, node: &Node) -> bool {
    match path.split('.').collect::<Vec<_>>()[..] {
        ["desiredState", "workloads", _, name] => WORKLOAD.field(name).is_some_and(
            |field| matches!(field.presence, Presence::Default(own) if node.as_str() == Some(own)),
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(yaml: &str) -> Node {
        let text = format!("apiVersion: v1\nworkloads: {{}}\nconfigs: {{c: {yaml}}}\n");
        let tree = crate::manifest::parse("t.yaml", &text).unwrap().updated.tree;
        tree.get(&["desiredState", "configs", "c"]).unwrap().clone()
    }

    fn effects(path: &str, old: Option<&str>, new: Option<&str>) -> Effects {
        let mut effects = Effects::default();
        let (old, new) = (old.map(node), new.map(node));
        effects.add(path, old.as_ref(), new.as_ref());
        effects
    }

    #[test]
    fn what_is_missing_in_the_new_value_is_removed_at_its_highest_path() {
        let list = |own: &[&str]| own.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let cases: [(_, _, _, &[&str], &[&str], &[&str]); 10] = [
            ("a", None, None, &[], &["a"], &[]),
            ("a", None, Some("x"), &["a"], &[], &[]),
            ("a", Some("x"), None, &[], &[], &["a"]),
            ("a", Some("x"), Some("x"), &[], &["a"], &[]),
            ("a", Some("x"), Some("y"), &["a"], &[], &[]),
            ("a", Some("[x]"), Some("[x, y]"), &["a"], &[], &[]),
            ("a", Some("{k: {x: '1', y: '2'}, l: z}"), Some("{l: z}"), &["a"], &[], &["a.k"]),
            ("a", Some("{k: {x: '1', y: '2'}}"), Some("{k: {x: '1'}}"), &["a"], &[], &["a.k.y"]),
            ("a", Some("{k: {}}"), Some("{l: []}"), &[], &["a"], &[]),
            (
                "desiredState.configs.a",
                Some("{k: {}}"),
                Some("{}"),
                &["desiredState.configs.a"],
                &[],
                &["desiredState.configs.a.k"],
            ),
        ];
        for (path, old, new, changed, unchanged, removed) in cases {
            let expected = Effects {
                changed: list(changed),
                unchanged: list(unchanged),
                removed: list(removed),
                accepted: Vec::new(),
            };
            assert_eq!(effects(path, old, new), expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn default_of_a_workload_is_not_removed_where_a_file_leaves_it_out() {
        let path = "desiredState.workloads.w";
        let whole = "{runtime: process, restartPolicy: NEVER}";
        let given = Some("{runtime: process}");
        assert_eq!(effects(path, Some(whole), given).unchanged, [path]);
        let other = "{runtime: process, restartPolicy: ALWAYS}";
        assert_eq!(effects(path, Some(other), given).removed, [format!("{path}.restartPolicy")]);
    }

    #[test]
    fn outcome_is_a_line_for_each_instance_or_one_of_json() {
        let outcome = UpdateStateSuccess {
            added_workloads: vec!["a.1.x".to_owned(), "b.2.x".to_owned()],
            deleted_workloads: vec!["a.0.x".to_owned()],
        };
        let text = "added: a.1.x\nadded: b.2.x\ndeleted: a.0.x\n";
        assert_eq!(Effects::default().print(&outcome, OutcomeFormat::Text), text);
        let json = "{\"changed\":[],\"unchanged\":[],\"removed\":[],\"accepted\":[],\
                    \"addedWorkloads\":[\"a.1.x\",\"b.2.x\"],\"deletedWorkloads\":[\"a.0.x\"]}\n";
        assert_eq!(Effects::default().print(&outcome, OutcomeFormat::Json), json);
        assert_eq!(
            Effects::default().print(&UpdateStateSuccess::default(), OutcomeFormat::Text),
            ""
        );
    }
}
