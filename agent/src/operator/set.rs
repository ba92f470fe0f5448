//! `set` and `restart`: updates of single values.

use fifogate::{
    internal::{masks, state::DESIRED_STATE},
    pb::ank_base as pb,
    state::{
        Node, Tree,
        convert::{self, Fill},
    },
};

use super::{
    args::{RestartArgs, SetArgs},
    connect,
    outcome::carry_out,
};
use crate::{cli::CliError, entries::RESTARTED};

pub(super) async fn set(args: SetArgs) -> Result<(), CliError> {
    let update = update(&args.changes)?;
    let client = connect(&args.update.connect).await?;
    carry_out(client, &args.update, update).await
}

/// The update of all changes, and its masks.
fn update(changes: &[String]) -> Result<(pb::CompleteState, Vec<String>), CliError> {
    let (mut tree, mut masks) = (Tree::default(), Vec::new());
    for change in changes {
        let unusable = |what: &str| CliError::Unusable(format!("{change}: {what}"));
        let (path, value) = match (change.split_once('='), change.strip_suffix('-')) {
            (Some((path, value)), _) => (path, Some(value)),
            (None, Some(path)) => (path, None),
            (None, None) => return Err(unusable("expected PATH=TEXT, or PATH- to remove")),
        };
        let names: Vec<_> = path.split('.').collect();
        if names.contains(&"*") || names.contains(&"") {
            return Err(unusable("each part of the path is a name"));
        }
        if !matches!(names[..], [DESIRED_STATE, _, ..] | ["agents", _, "tags", _]) {
            return Err(unusable("a path begins with desiredState or is agents.NAME.tags.KEY"));
        }
        if let Some(value) = value {
            tree = with_text(&tree, &names, value);
            let read = convert::from_pb(&convert::to_pb(&tree, Fill::Sparse));
            let taken = read.ok().and_then(|read| read.get(&names).cloned());
            if taken.as_ref().and_then(Node::as_str) != Some(value) {
                let why = masks::why_nothing(path);
                return Err(unusable(
                    why.as_deref().unwrap_or("this path takes no text, or not this one"),
                ));
            }
        }
        masks.push(path.to_owned());
    }
    if let Some((outer, inner)) = masks::overlap(&masks) {
        let text = format!("{inner}: is changed by {outer} already; give one of the two");
        return Err(CliError::Unusable(text));
    }
    Ok((convert::to_pb(&tree, Fill::Sparse), masks))
}

/// The tree with a text at this path.
fn with_text(tree: &Tree, path: &[&str], value: &str) -> Tree {
    fn node(old: Option<&Node>, path: &[&str], value: &str) -> Node {
        let Some((first, rest)) = path.split_first() else { return Node::text(value) };
        let mut entries = old.map(Node::entries).cloned().unwrap_or_default();
        let inner = node(old.and_then(|old| old.get(first)), rest, value);
        entries.insert(*first, inner);
        Node::Map(entries)
    }
    let old = tree.get(&path[..1]);
    tree.with(path[0], Some(node(old, &path[1..], value)))
}

pub(super) async fn restart(args: RestartArgs) -> Result<(), CliError> {
    let mut client = connect(&args.update.connect).await?;
    let workloads = format!("{DESIRED_STATE}.workloads");
    let current = client.read(&[&workloads]).await?;
    let now = jiff::Timestamp::now().to_string();
    let (mut tree, mut masks) = (Tree::default(), Vec::new());
    for name in &args.names {
        if current.get(&[DESIRED_STATE, "workloads", name]).is_none() {
            let text = format!("there is no workload {name}; nothing was restarted");
            return Err(CliError::Failed(text));
        }
        tree = with_text(&tree, &[DESIRED_STATE, "workloads", name, "tags", RESTARTED], &now);
        masks.push(format!("{workloads}.{name}.tags.{RESTARTED}"));
    }
    let update = (convert::to_pb(&tree, Fill::Sparse), masks);
    carry_out(client, &args.update, update).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_become_one_update_and_what_is_no_text_is_refused() {
        let all = ["desiredState.configs.a=1", "desiredState.configs.b-", "agents.x.tags.t=u"];
        let (state, masks) = update(&all.map(str::to_owned)).unwrap();
        assert_eq!(masks, ["desiredState.configs.a", "desiredState.configs.b", "agents.x.tags.t"]);
        assert!(state.desired_state.unwrap().configs.unwrap().configs.contains_key("a"));
        for wrong in [
            "desiredState.configs.a",
            "desiredState.workloads.w=x",
            "desiredState.workloads.w.nothing=x",
            "desiredState.*.a=x",
            "workloadStates.a.b=x",
            "desiredState.workloads.w.restartPolicy=SOMETIMES",
        ] {
            assert!(update(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
        let two = ["desiredState.configs.a.b=1", "desiredState.configs.a-"].map(str::to_owned);
        let Err(CliError::Unusable(text)) = update(&two) else { panic!("taken") };
        assert!(text.contains("a.b: is changed by desiredState.configs.a already"), "{text}");
    }
}
