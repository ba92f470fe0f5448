//! A thousand updates, and what workloads of both agents are told of them.

use std::{collections::BTreeMap, thread};

use fifogate::{
    pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent},
    state::{Map, Node, convert},
};
use serde_json::json;
use testkit::{Podman, Session, removal_of};

use crate::{
    cluster::Cluster,
    manifest::{LIVES, Workload, manifest},
};

/// What both subscribe to.
const MASKS: [&str; 3] =
    ["desiredState.configs", "desiredState.workloads", "workloadStates.nowhere"];

/// Updates of each of the two writers.
const UPDATES: u32 = 500;

/// Without effect on a process: its agent is never there.
fn nowhere(name: &str, number: u32) -> RequestContent {
    let tags = pb::Tags { tags: [("n".to_owned(), number.to_string())].into_iter().collect() };
    let workload = pb::Workload {
        agent: Some("nowhere".to_owned()),
        runtime: Some("none".to_owned()),
        runtime_config: Some(String::new()),
        tags: Some(tags),
        ..Default::default()
    };
    let workloads = [(name.to_owned(), workload)].into_iter().collect();
    let workloads = Some(pb::WorkloadMap { workloads });
    let desired = pb::State { api_version: "v1".to_owned(), workloads, ..Default::default() };
    RequestContent::UpdateStateRequest(pb::UpdateStateRequest {
        new_state: Some(pb::CompleteState { desired_state: Some(desired), ..Default::default() }),
        update_mask: vec![format!("desiredState.workloads.{name}")],
    })
}

/// Writes configs and workloads whose names begin with `own`, each with the number of its update.
fn write(mut session: Session, own: &str) {
    for number in 0..UPDATES {
        let id = format!("u{number}");
        let key = number / 5 % 7;
        match number % 5 {
            0..3 => session.set_config(&id, &format!("{own}{key}"), &number.to_string()),
            3 => session.request(&id, nowhere(&format!("{own}{key}"), number)),
            // Each third of them is written again and again.
            _ if key % 3 == 0 => session.request(&id, nowhere(&format!("{own}{key}"), number)),
            _ => session.request(&id, removal_of(&format!("{own}{key}"))),
        }
        let answer = session.answer(&id);
        assert!(matches!(answer, ResponseContent::UpdateStateSuccess(_)), "{answer:?}");
    }
    session.set_config("end", &format!("{own}-end"), "x");
    session.answer("end");
}

/// The state by what a workload was told.
#[derive(Default)]
pub(crate) struct Told {
    root: Map<Node>,
    pub(crate) events: usize,
    /// What was told, and did not happen.
    pub(crate) untrue: Vec<String>,
    /// The last number told for each name.
    pub(crate) last: BTreeMap<String, u32>,
}

impl Told {
    /// Takes the first answer, or an event.
    pub(crate) fn take(&mut self, own: pb::CompleteStateResponse) {
        let tree = convert::from_pb(&own.complete_state.unwrap_or_default()).unwrap();
        let Some(altered) = own.altered_fields else {
            self.root = tree.root().clone();
            return;
        };
        self.events += 1;
        for path in altered.removed_fields {
            let names: Vec<_> = path.split('.').collect();
            if change(&mut self.root, &names, None).is_none() {
                self.untrue.push(format!("{path} is removed, and was not there"));
            }
        }
        let added = altered.added_fields.into_iter().map(|path| (path, true));
        for (path, is_new) in
            added.chain(altered.updated_fields.into_iter().map(|own| (own, false)))
        {
            let names: Vec<_> = path.split('.').collect();
            let Some(value) = tree.get(&names) else {
                self.untrue.push(format!("{path} has no value"));
                continue;
            };
            self.follow(&path, value);
            let before = change(&mut self.root, &names, Some(value.clone()));
            if before.is_some() == is_new || before.as_ref() == Some(value) {
                self.untrue.push(format!("{path}: {before:?} became {value:?}, new: {is_new}"));
            }
        }
    }

    /// Numbers of one name only grow: what was written before is not told after what was written later.
    fn follow(&mut self, path: &str, value: &Node) {
        let number = match value {
            Node::Str(text) => text.parse().ok(),
            own => own.get("tags").and_then(|tags| tags.str_at("n")?.parse().ok()),
        };
        let Some(number) = number else { return };
        let path = path.trim_end_matches(".tags.n");
        match self.last.insert(path.to_owned(), number) {
            Some(before) if before >= number => {
                self.untrue.push(format!("{path}: {number} is told after {before}"));
            }
            _ => {}
        }
    }

    /// The configs, as far as they were told.
    pub(crate) fn configs(&self) -> Map<Node> {
        let configs = self.root.get("desiredState").and_then(|own| own.get("configs"));
        configs.map(|own| own.entries().clone()).unwrap_or_default()
    }

    /// Reads events until the last updates of both writers are known.
    fn until_end(mut self, session: &mut Session) -> Self {
        let is_known = |own: &Self, name: &str| own.configs().get(name).is_some();
        while !(is_known(&self, "a-end") && is_known(&self, "b-end")) {
            if let (_, ResponseContent::CompleteStateResponse(own)) = session.response() {
                self.take(own);
            }
        }
        self
    }
}

/// Sets or removes what is at a path; gives what was there.
fn change(map: &mut Map<Node>, path: &[&str], value: Option<Node>) -> Option<Node> {
    let (first, rest) = path.split_first()?;
    let before = map.get(first).cloned();
    if rest.is_empty() {
        match value {
            Some(value) => map.insert(*first, value),
            None => _ = map.remove(first),
        }
        return before;
    }
    let mut below = before.map(|own| own.entries().clone()).unwrap_or_default();
    let before = change(&mut below, rest, value);
    map.insert(*first, Node::Map(below));
    before
}

/// Without empty mappings, which a read leaves out.
fn calm(map: &Map<Node>) -> Map<Node> {
    let all = map.iter().map(|(name, own)| match own {
        Node::Map(own) => (name.clone(), Node::Map(calm(own))),
        own => (name.clone(), own.clone()),
    });
    all.filter(|(_, own)| !own.is_empty_collection()).collect()
}

#[test]
fn both_end_at_the_same_state_and_ours_is_told_no_change_that_did_not_happen() {
    let [mine, theirs] = [Workload::process("ours", LIVES), Workload::container("real", LIVES)]
        .map(Workload::spoken_for);
    let stays = Workload::process("nowhere", LIVES);
    let text = manifest(
        [
            ("mine", mine.clone()),
            ("my-writer", mine),
            ("theirs", theirs.clone()),
            ("their-writer", theirs),
            ("stays", stays),
        ],
        &json!({"stays": "x"}),
    );
    let Some(cluster) = Cluster::of(&text) else { return };
    let Some(podman) = Podman::new() else { return };
    let (ours, real) = (cluster.ours("ours", &[]), cluster.real("real", &podman));
    for name in ["theirs", "their-writer"] {
        cluster.until("real", name, "Running(Ok)");
    }
    let followers = [ours.connect("mine"), real.connect("theirs")].map(|mut session| {
        session.subscribe(&MASKS);
        let mut told = Told::default();
        told.take(session.state_response());
        thread::spawn(move || (told.until_end(&mut session), session))
    });
    let writers = [(ours.connect("my-writer"), "a"), (real.connect("their-writer"), "b")]
        .map(|(session, own)| thread::spawn(move || write(session, own)));
    for own in writers {
        own.join().unwrap();
    }
    let [(mine, mut session), (theirs, mut their_session)] =
        followers.map(|own| own.join().unwrap());
    println!("{} events at ours, of which {} untrue", mine.events, mine.untrue.len());
    println!("{} events at the real one, of which {} untrue", theirs.events, theirs.untrue.len());
    assert_eq!(mine.untrue, [""; 0]);
    for (told, session) in [(&mine, &mut session), (&theirs, &mut their_session)] {
        session.read("last", &MASKS, false);
        let ResponseContent::CompleteStateResponse(own) = session.answer("last") else { panic!() };
        let read = convert::from_pb(&own.complete_state.unwrap()).unwrap();
        assert_eq!(calm(&told.root), calm(read.root()));
    }
    assert_eq!(calm(&mine.root), calm(&theirs.root));
}
