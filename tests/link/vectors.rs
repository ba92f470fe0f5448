//! The recorded cases a second time: over the link and a real pair of FIFOs.
//!
//! What `tests/vectors.rs` checks of functions is checked here of a running fifogate. Rows that are
//! decided otherwise are checked there.

use std::collections::BTreeSet;

use fifogate::{
    pb::{
        agent_link::{ReplaceState, from_agent::Content},
        ank_base::{self as pb, ReadWriteEnum, request::RequestContent, response::ResponseContent},
        control_api::{Hello, from_ankaios::FromAnkaiosEnum, to_ankaios::ToAnkaiosEnum},
    },
    state::{Node, convert},
};
use serde_json::Value;

use testkit::{LinkAgent, Session, Transport, add};

use crate::rows::{Count, access, has_quirk, message, name, rows, same, strings};

fn replace(agent: &mut LinkAgent, state: Option<pb::CompleteState>) -> Result<(), String> {
    agent.call(Content::ReplaceState(ReplaceState { state })).map_err(|rejected| rejected.reason)
}

fn read(workload: &mut Session, masks: &[String], subscribe: bool) -> pb::CompleteStateResponse {
    let masks: Vec<_> = masks.iter().map(String::as_str).collect();
    workload.read("r", &masks, subscribe);
    workload.state_response()
}

/// A pair of sessions: one may do everything.
fn start() -> (LinkAgent, Session) {
    let mut agent = LinkAgent::start(
        Transport::Stdio,
        &["--subscribe-grace-ms", "0", "--max-frame", "100000000"],
    );
    let workload = agent.workload("observer");
    (agent, workload)
}

#[test]
fn events_over_the_link_are_those_of_the_functions() {
    let (mut agent, mut workload) = start();
    let (mut count, mut refused) = (Count::default(), 0);
    for row in rows("events") {
        if ["dotted-key", "star-key"].iter().any(|quirk| has_quirk(&row, quirk)) {
            continue; // docs/differences.md#10-paths-lead-somewhere
        }
        let states = ["old_pb", "new_pb"].map(|name| message(&row[name]));
        // The agent is held to the rules for names and references; some rows are not.
        let [old, new] = states;
        if replace(&mut agent, new.clone()).is_err() || replace(&mut agent, old).is_err() {
            refused += 1;
            continue;
        }
        read(&mut workload, &strings(&row["masks"]), true);
        replace(&mut agent, new).unwrap();
        // Behind an event, if there is one, comes the answer to this.
        workload.request("r", RequestContent::EventsCancelRequest(pb::EventsCancelRequest {}));
        let event = match workload.response().1 {
            ResponseContent::EventsCancelAccepted(_) => None,
            ResponseContent::CompleteStateResponse(event) => {
                assert!(matches!(workload.response().1, ResponseContent::EventsCancelAccepted(_)));
                Some(event)
            }
            other => panic!("{other:?}"),
        };
        count.row(&row, check_event(&row, event));
    }
    tell(refused, "events", "hold states that no update could make");
    count.finish("events.jsonl over the link");
}

fn check_event(row: &Value, event: Option<pb::CompleteStateResponse>) -> Result<(), String> {
    let lists = row.get("intended").filter(|value| !value.is_null()).unwrap_or(row);
    let list = |name: &str| strings(&lists[name]).into_iter().collect::<BTreeSet<_>>();
    let expected = ["added", "updated", "removed"].map(list);
    let Some(event) = event else {
        return same("lists", &<[BTreeSet<String>; 3]>::default(), &expected);
    };
    let altered = event.altered_fields.unwrap();
    let ours = [altered.added_fields, altered.updated_fields, altered.removed_fields];
    assert!(ours.iter().all(|list| list.is_sorted_by(|a, b| a < b)), "{}", name(row));
    same("lists", &ours.map(BTreeSet::from_iter), &expected)?;
    let recorded = |name: &str| strings(&row[name]).into_iter().collect::<BTreeSet<_>>();
    if ["added", "updated", "removed"].map(recorded) != expected {
        return Ok(()); // the recorded state belongs to other lists
    }
    same("state", &event.complete_state, &message(&row["event_pb"]))
}

#[test]
fn reads_over_the_link_are_those_of_the_functions() {
    let (mut agent, mut workload) = start();
    let (mut count, mut refused) = (Count::default(), 0);
    for row in rows("state") {
        if !row["quirk"].is_null() {
            continue; // docs/differences.md#8-no-mask-means-everything
        }
        if replace(&mut agent, message(&row["state_pb"])).is_err() {
            refused += 1;
            continue;
        }
        let ours = read(&mut workload, &strings(&row["masks"]), false).complete_state;
        count.row(&row, same("read", &ours, &message(&row["result_pb"])));
    }
    tell(refused, "state", "hold states that no update could make");
    count.finish("state.jsonl over the link");
}

#[test]
fn updates_over_the_link_are_those_of_the_functions() {
    let (mut agent, mut workload) = start();
    let (mut count, mut left_out) = (Count::default(), 0);
    for row in rows("update") {
        let template =
            row["old"].to_string().contains("{{") || row["new_state"].to_string().contains("{{");
        let wildcard = strings(&row["masks"]).iter().any(|mask| mask.contains('*'));
        let otherwise =
            ["trim/empty-mask", "empty/agents-without-tags", "other/workload-states-partial"];
        let decided =
            template || wildcard || !row["quirk"].is_null() || otherwise.contains(&name(&row));
        if decided && !has_quirk(&row, "array-index-creates-object") {
            left_out += 1;
            continue;
        }
        if replace(&mut agent, message(&row["old_pb"])).is_err() {
            left_out += 1;
            continue;
        }
        let update_mask = strings(&row["masks"]);
        let ask = pb::UpdateStateRequest { new_state: message(&row["new_state_pb"]), update_mask };
        workload.request("u", RequestContent::UpdateStateRequest(ask));
        let answer = workload.response().1;
        let result = check_update(&row, answer, &mut workload);
        count.row(&row, result);
    }
    tell(
        left_out,
        "update",
        "are decided otherwise, or begin with a state that no update could make",
    );
    count.finish("update.jsonl over the link");
}

fn check_update(
    row: &Value,
    answer: ResponseContent,
    workload: &mut Session,
) -> Result<(), String> {
    let parser = "Could not parse into CompleteState: '";
    let before = |text: &str| text.split(parser).next().unwrap_or_default().to_owned();
    match (row["error"].as_str().or(row["apply_error"].as_str()), answer) {
        (Some(theirs), ResponseContent::Error(ours)) => {
            same("text", &before(&ours.message), &before(theirs))
        }
        (None, ResponseContent::UpdateStateSuccess(done)) => {
            same("added", &done.added_workloads, &strings(&row["apply_added"]))?;
            same("deleted", &done.deleted_workloads, &strings(&row["apply_deleted"]))?;
            let desired = |state: &pb::CompleteState| {
                convert::from_pb(state).unwrap().get(&["desiredState"]).cloned()
            };
            let ours = read(workload, &["desiredState".to_owned()], false).complete_state.unwrap();
            same("desired", &desired(&ours), &desired(&message(&row["result_pb"]).unwrap()))
        }
        (theirs, ours) => Err(format!("{ours:?} is not {theirs:?}")),
    }
}

/// The rules of a row, as the message that the agent sends.
fn rules(row: &Value) -> pb::ControlInterfaceAccess {
    let workload = Node::map([("controlInterfaceAccess", access(row))]);
    let workloads = Node::map([("workloads", Node::map([("w", workload)]))]);
    let tree = fifogate::state::Tree::default().with("desiredState", Some(workloads));
    let state = convert::to_pb(&tree, convert::Fill::Full).desired_state.unwrap();
    let workload = state.workloads.unwrap().workloads.remove("w").unwrap();
    workload.control_interface_access.unwrap()
}

fn ask(request: &Value) -> Option<RequestContent> {
    let masks = strings(&request["masks"]);
    Some(match request["kind"].as_str().unwrap() {
        "complete_state" => RequestContent::CompleteStateRequest(pb::CompleteStateRequest {
            field_mask: masks,
            subscribe_for_events: false,
        }),
        "update_state" => RequestContent::UpdateStateRequest(pb::UpdateStateRequest {
            new_state: None,
            update_mask: masks,
        }),
        "logs" => RequestContent::LogsRequest(pb::LogsRequest {
            workload_names: strings(&request["workloads"])
                .into_iter()
                .map(|workload_name| pb::WorkloadInstanceName {
                    workload_name,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
        "logs_cancel" => RequestContent::LogsCancelRequest(pb::LogsCancelRequest {}),
        "events_cancel" => RequestContent::EventsCancelRequest(pb::EventsCancelRequest {}),
        _ => return None,
    })
}

#[test]
fn authorization_over_the_link_is_that_of_the_functions() {
    // Forwarded requests fail at once: of interest is only whether it was denied.
    let mut agent = LinkAgent::start(Transport::Unix, &["--forward-timeout", "0.001"]);
    let (mut count, mut rejected) = (Count::default(), 0);
    let mut workload = agent.workload("w");
    for (file, column) in [("authz", "allowed"), ("authz-weak", "sound")] {
        for row in rows(file) {
            let mut command = add("w", ReadWriteEnum::RwRead, &[]);
            command.access = Some(rules(&row));
            if agent.call(Content::AddWorkload(command)).is_err() {
                // The agent's rules have to be ones that a manifest could hold.
                let valid = row["valid_rules"].as_bool().unwrap();
                assert!(!valid, "{} has good rules", name(&row));
                rejected += 1;
                continue;
            }
            let request_content = ask(&row["request"]);
            workload.send(ToAnkaiosEnum::Request(pb::Request {
                request_id: "r".into(),
                request_content,
            }));
            let answer = workload.response().1;
            let denied = matches!(&answer, ResponseContent::Error(error) if error.message == "Access denied");
            count.row(&row, same("allowed", &!denied, &row[column].as_bool().unwrap()));
        }
    }
    tell(rejected, "authz", "hold rules that are rejected");
    count.finish("authz.jsonl and authz-weak.jsonl over the link");
}

#[test]
fn versions_over_a_real_pair_are_accepted_as_recorded() {
    let (_agent, mut workload) = start();
    let mut count = Count::default();
    for mut row in rows("hello") {
        let protocol_version = row["version"].as_str().unwrap().to_owned();
        workload.send(ToAnkaiosEnum::Hello(Hello { protocol_version }));
        let reason = match workload.receive() {
            FromAnkaiosEnum::ControlInterfaceAccepted(_) => None,
            FromAnkaiosEnum::ConnectionClosed(closed) => Some(closed.reason),
            other => panic!("{other:?}"),
        };
        row["name"] = row["version"].clone();
        count.row(&row, same("reason", &reason, &row["reason"].as_str().map(str::to_owned)));
    }
    count.finish("hello.jsonl over a real pair");
}

#[allow(clippy::print_stdout)] // the counts are part of what the test is for
fn tell(count: usize, file: &str, why: &str) {
    println!("{file}.jsonl: {count} rows {why}");
}
