//! `events.jsonl`: what a change of the state tells a subscriber.

use fifogate::{
    internal::state::{ChangeSet, MaskSet},
    state::convert,
};
use serde_json::Value;

use super::rows::{Count, has_quirk, message, rows, same, strings};

/// Sorted and without duplicates (docs/differences.md#7-altered-fields-are-sorted), by `intended` where the
/// row has it (docs/differences.md#9-no-missed-events).
fn list(row: &Value, name: &str) -> Vec<String> {
    let lists = row.get("intended").filter(|value| !value.is_null()).unwrap_or(row);
    let mut list = strings(&lists[name]);
    list.sort();
    list.dedup();
    list
}

#[test]
fn events_are_as_recorded_or_as_intended() {
    let mut count = Count::default();
    for row in rows("events") {
        if has_quirk(&row, "dotted-key") || has_quirk(&row, "star-key") {
            count.otherwise(&row, "10", parent_is_told_whole(&row));
        } else {
            count.row(&row, check(&row));
        }
    }
    count.finish("events.jsonl");
}

type Event = ([Vec<String>; 3], Option<fifogate::pb::ank_base::CompleteState>);

fn event(row: &Value) -> Event {
    let tree = |name: &str| convert::from_pb(&message(&row[name]).unwrap()).unwrap();
    let (old, new) = (tree("old_pb"), tree("new_pb"));
    let masks = MaskSet::parse(strings(&row["masks"]));
    match ChangeSet::between(&old, &new).altered(&masks) {
        None => (Default::default(), None),
        Some(altered) => {
            let state = new.select(altered.selection());
            let state = convert::to_pb(&state, convert::Fill::Sparse);
            ([altered.added, altered.updated, altered.removed], Some(state))
        }
    }
}

fn check(row: &Value) -> Result<(), String> {
    let (lists, state) = event(row);
    for (name, ours) in ["added", "updated", "removed"].iter().zip(&lists) {
        same(name, ours, &list(row, name))?;
    }
    // Where the recorded lists are not the intended ones, the recorded state does not belong to
    // them; it is then what reading the intended paths gives.
    let recorded = ["added", "updated", "removed"].iter().all(|name| {
        list(row, name) == {
            let mut own = strings(&row[name]);
            own.sort();
            own.dedup();
            own
        }
    });
    if recorded {
        return same("state", &state, &message(&row["event_pb"]));
    }
    let new = convert::from_pb(&message(&row["new_pb"]).unwrap()).unwrap();
    let paths = lists.concat();
    let selection = fifogate::internal::state::Selection::of_masks(MaskSet::parse(&paths).masks());
    let theirs = convert::to_pb(&new.select(&selection), convert::Fill::Sparse);
    same("state", &state, &Some(theirs))
}

/// A tag whose key is no path segment: its mapping is told, and comes whole.
fn parent_is_told_whole(row: &Value) -> Result<(), String> {
    let (lists, state) = event(row);
    let told: Vec<_> = lists.concat();
    let odd = |path: &String| path.contains("my.tag") || path.ends_with(".*");
    if let Some(path) = told.iter().find(|path| odd(path)) {
        return Err(format!("told {path}, which no reader can look up"));
    }
    let state = state.ok_or("no event")?;
    let whole = message(&row["new_pb"]).unwrap().desired_state.unwrap().workloads.unwrap();
    let sent = state.desired_state.unwrap().workloads.unwrap_or_default();
    for (name, workload) in whole.workloads {
        if told.iter().any(|path| path.ends_with(&format!(".{name}.tags"))) {
            same("tags", &sent.workloads[&name].tags, &workload.tags)?;
        }
    }
    Ok(())
}
