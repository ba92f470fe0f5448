//! The effect of an update by `set`, path by path: changed, unchanged or removed.
//!
//! The response to an update names only the instances that it started and ended. So the parts to be
//! changed are read before, as far as the workload may read them, and compared with the new ones.

use serde_json::json;

use super::{args::OutcomeFormat, client::Client, error::CliError, masks};
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

/// The state of these paths before an update, or the reason why it is unknown.
pub(super) struct Before(Result<Tree, CliError>);

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
    /// Reads the paths, as far as the workload may: all of them, or none.
    ///
    /// # Errors
    /// fifogate is missing or does not answer. Nothing was changed then.
    pub(super) fn read(client: &mut Client, paths: &[String]) -> Result<Self, CliError> {
        match read(client, paths) {
            Err(error) if error.is_away() => Err(error),
            state => Ok(Self(state)),
        }
    }

    /// Refuses paths that would remove something, where there is nothing. Where the workload may
    /// not read, nothing is refused.
    ///
    /// # Errors
    /// One of `paths` is not in the state.
    pub(super) fn refuse_missing(&self, paths: &[String]) -> Result<(), CliError> {
        let Ok(tree) = &self.0 else { return Ok(()) };
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
        let known = self.0.and_then(|before| Ok((before, readable(new)?)));
        let (before, new) = match known {
            Ok(known) => known,
            Err(error) => {
                note_unknown(&error);
                return Effects { accepted: paths.to_vec(), ..Effects::default() };
            }
        };
        let mut effects = Effects::default();
        for path in paths {
            let old = at(&before, path);
            if !is_of_agent(path) {
                effects.add(path, old, at(&new, path));
                continue;
            }
            // Tags of an agent that is not there are ignored: only the state shows it.
            match read(client, std::slice::from_ref(path)) {
                Ok(after) => effects.add(path, old, at(&after, path)),
                Err(error) => {
                    note_unknown(&error);
                    effects.accepted.push(path.clone());
                }
            }
        }
        effects
    }

    /// The effects that an update of `paths` to the values in `new` would have.
    ///
    /// # Errors
    /// The workload may not read all of the paths, or an agent among them.
    pub(super) fn forecast(
        self,
        client: &mut Client,
        paths: &[String],
        new: Option<&CompleteState>,
    ) -> Result<Effects, CliError> {
        let hint = || {
            "--dry-run compares with the state: this workload has to have the right to read each \
             of the paths, and the agents whose tags are set"
                .to_owned()
        };
        let before = self.0.map_err(|error| error.hint_if_denied(hint))?;
        let new = readable(new)?;
        let mut effects = Effects::default();
        for path in paths {
            let (old, mut new) = (at(&before, path), at(&new, path));
            if is_of_agent(path) && old.is_none() && new.is_some() {
                // As above; without its tags only the agent itself shows whether it is there.
                let agent = path.split('.').take(2).collect::<Vec<_>>().join(".");
                let found = read(client, std::slice::from_ref(&agent));
                let found = found.map_err(|error| error.hint_if_denied(hint))?;
                new = new.filter(|_| at(&found, &agent).is_some());
            }
            effects.add(path, old, new);
        }
        Ok(effects)
    }
}

/// The new state as a tree.
fn readable(new: Option<&CompleteState>) -> Result<Tree, CliError> {
    let new = convert::new_state_from_pb(new.unwrap_or(&CompleteState::default()));
    new.map_err(|error| CliError::failed(format!("the new state is none: {error}")))
}

fn is_of_agent(path: &str) -> bool {
    path.starts_with("agents.")
}

/// Notes why the effect of an update is unknown. A denial is no news: `accepted` says it.
fn note_unknown(error: &CliError) {
    if !error.is_denied() {
        masks::put_note(&format!("the effect of the update is unknown: {error}"));
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

    /// The effects in this format, with the instances of an update that was made.
    pub(super) fn print(
        &self,
        instances: Option<&UpdateStateSuccess>,
        format: OutcomeFormat,
    ) -> String {
        let Self { changed, unchanged, removed, accepted } = self;
        if format == OutcomeFormat::Json {
            let mut outcome = json!({
                "changed": changed,
                "unchanged": unchanged,
                "removed": removed,
                "accepted": accepted,
            });
            if let Some(instances) = instances {
                outcome["addedWorkloads"] = json!(instances.added_workloads);
                outcome["deletedWorkloads"] = json!(instances.deleted_workloads);
            }
            return format!("{outcome}\n");
        }
        let own = [
            ("changed", changed),
            ("unchanged", unchanged),
            ("removed", removed),
            ("accepted", accepted),
        ];
        let instances = instances.map(|instances| {
            [("added", &instances.added_workloads), ("deleted", &instances.deleted_workloads)]
        });
        let lines = |(word, list): (&str, &Vec<String>)| {
            list.iter().map(|name| format!("{word}: {name}\n")).collect::<String>()
        };
        own.into_iter().chain(instances.into_iter().flatten()).map(lines).collect()
    }
}

fn read(client: &mut Client, paths: &[String]) -> Result<Tree, CliError> {
    let question = CompleteStateRequest { field_mask: paths.to_vec(), subscribe_for_events: false };
    match client.ask(RequestContent::CompleteStateRequest(question))? {
        ResponseContent::CompleteStateResponse(answer) => {
            convert::from_pb(&answer.complete_state.unwrap_or_default())
                .map_err(|error| CliError::failed(format!("the state is unreadable: {error}")))
        }
        other => Err(client.unexpected(&other)),
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
        assert_eq!(Effects::default().print(Some(&outcome), OutcomeFormat::Text), text);
        let json = "{\"changed\":[],\"unchanged\":[],\"removed\":[],\"accepted\":[],\
                    \"addedWorkloads\":[\"a.1.x\",\"b.2.x\"],\"deletedWorkloads\":[\"a.0.x\"]}\n";
        assert_eq!(Effects::default().print(Some(&outcome), OutcomeFormat::Json), json);
        assert_eq!(
            Effects::default().print(Some(&UpdateStateSuccess::default()), OutcomeFormat::Text),
            ""
        );
        let json = "{\"changed\":[],\"unchanged\":[],\"removed\":[],\"accepted\":[]}\n";
        assert_eq!(Effects::default().print(None, OutcomeFormat::Json), json);
    }
}
