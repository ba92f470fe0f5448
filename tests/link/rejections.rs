//! Commands that cannot be obeyed: each is refused with a reason that helps, as a whole, and nobody
//! else hears of it.

use std::fs;

use fifogate::pb::{
    agent_link::{
        AddWorkload, AgentHello, ForwardedResponse, RejectCode, RemoveWorkload, ReplaceState,
        UpdateState, UpdateWorkloadStates, from_agent::Content,
    },
    ank_base::{
        self as pb, ReadWriteEnum, execution_state::ExecutionStateEnum, response::ResponseContent,
    },
};

use testkit::{BOTH, LinkAgent, access, add, configs, instance};

use super::state::{state_of, tagged};

/// A command, and what the reason for refusing it contains.
type Wrong = (Content, &'static str);

fn code_for(reason: &str) -> RejectCode {
    match reason {
        "AgentHello was said before" => RejectCode::OutOfStep,
        "unknown instance unknown.1.agent_A" => RejectCode::UnknownInstance,
        "no request 'r' of this instance waits" => RejectCode::NoSuchRequest,
        _ => RejectCode::Invalid,
    }
}

fn wrong_names() -> Vec<Wrong> {
    let with = |change: fn(&mut pb::WorkloadInstanceName)| {
        let mut wrong = add("w", ReadWriteEnum::RwRead, &["agents"]);
        change(wrong.instance_name.as_mut().unwrap());
        Content::AddWorkload(wrong)
    };
    vec![
        (with(|name| name.workload_name = "../w".into()), "unsupported workloadName '../w'"),
        (with(|name| name.workload_name = "..".into()), "unsupported workloadName '..'"),
        (with(|name| name.workload_name = "a/b".into()), "unsupported workloadName 'a/b'"),
        (with(|name| name.workload_name = "a\nb".into()), "unsupported workloadName 'a\\nb'"),
        (with(|name| name.workload_name = "a\u{202e}".into()), "workloadName 'a\\u{202e}'"),
        (with(|name| name.workload_name = "w".repeat(64)), "Length 64 exceeds"),
        (with(|name| name.workload_name.clear()), "unsupported workloadName ''"),
        (with(|name| name.agent_name = "..".into()), "unsupported agentName '..'"),
        (with(|name| name.agent_name = "a\0b".into()), "unsupported agentName 'a\\0b'"),
        (with(|name| name.agent_name = "a".repeat(64)), "unsupported agentName"),
        (with(|name| name.id = "/".into()), "unsupported id '/'"),
        (with(|name| name.id = "..".into()), "unsupported id '..'"),
        (with(|name| name.id = "1\u{7f}".into()), "unsupported id '1\\u{7f}'"),
        (with(|name| name.id = "1".repeat(129)), "unsupported id"),
        (with(|name| name.id.clear()), "unsupported id ''"),
    ]
}

fn wrong_rules() -> Vec<Wrong> {
    let with = |change: fn(&mut AddWorkload)| {
        let mut wrong = add("w", ReadWriteEnum::RwRead, &["agents"]);
        change(&mut wrong);
        Content::AddWorkload(wrong)
    };
    let masks = |masks: &'static [&'static str]| {
        let access = Some(access(ReadWriteEnum::RwRead, masks));
        let wrong = AddWorkload { access, ..add("w", ReadWriteEnum::RwRead, &[]) };
        Content::AddWorkload(wrong)
    };
    let logs = with(|add| {
        use pb::access_rights_rule::AccessRightsRuleEnum::LogRule;
        let rule = pb::LogRule { workload_names: vec!["a*b*".to_owned()] };
        add.access.as_mut().unwrap().deny_rules =
            vec![pb::AccessRightsRule { access_rights_rule_enum: Some(LogRule(rule)) }];
    });
    let empty = with(|add| {
        add.access.as_mut().unwrap().allow_rules[0].access_rights_rule_enum = None;
    });
    let deny = with(|add| {
        let foreign = access(ReadWriteEnum::RwRead, &["agents", "*.foo", "workloadstates.*"]);
        add.access.as_mut().unwrap().deny_rules = foreign.allow_rules;
    });
    vec![
        (
            masks(&["agents", "desiredstate"]),
            "unknown mask 'desiredstate': a mask begins with one of",
        ),
        (masks(&["configs.*.bar"]), "unknown mask 'configs.*.bar'"),
        (deny, "unknown mask 'workloadstates.*'"),
        (with(|add| add.instance_name = None), "instanceName is missing"),
        (masks(&["a..b"]), "Unsupported filter mask 'a..b'"),
        (masks(&["agents", "a/b"]), "Unsupported filter mask 'a/b'"),
        (masks(&[""]), "Empty filter masks"),
        (logs, "Expected at most one '*' symbol"),
        (empty, "neither a StateRule nor a LogRule"),
    ]
}

fn wrong_states() -> Vec<Wrong> {
    let replace = |state| Content::ReplaceState(ReplaceState { state });
    let update = |masks: &[&str]| {
        let update_mask = masks.iter().map(|mask| (*mask).to_owned()).collect();
        let new_state = Some(configs(&[("k", "other")]));
        Content::UpdateState(UpdateState { new_state, update_mask })
    };
    let mut unknown_enum = state_of(10, &[]);
    let map = unknown_enum.desired_state.as_mut().unwrap().workloads.as_mut().unwrap();
    map.workloads.get_mut("w5").unwrap().restart_policy = Some(99);
    let mut bad_name = configs(&[("other", "v")]);
    let workloads = [("a b".to_owned(), tagged("t"))].into();
    bad_name.desired_state.as_mut().unwrap().workloads = Some(pb::WorkloadMap { workloads });
    let missing = UpdateState { new_state: None, update_mask: Vec::new() };
    vec![
        (replace(None), "state is missing"),
        (replace(Some(unknown_enum)), "state does not convert: unknown enumeration value 99"),
        (replace(Some(bad_name)), "Unsupported workload name 'a b'"),
        (Content::UpdateState(missing), "newState is missing"),
        (update(&["desiredState.configs.k", "nowhere.x"]), "unknown mask 'nowhere.x'"),
        (update(&["desiredState.configs.k", ""]), "unknown mask ''"),
        (update(&["desiredState.configs.k", "agents.*"]), "wildcards are not allowed"),
        (update(&["desiredState.configs.k", "desiredState.apiVersion.x"]), "no mapping"),
    ]
}

/// In each of them the first is right, and must not be taken over either.
fn wrong_workload_states() -> Vec<Wrong> {
    let states = |instance_name, execution_state| {
        let running = pb::ExecutionState {
            additional_info: None,
            execution_state_enum: Some(ExecutionStateEnum::Running(0)),
        };
        let right = pb::WorkloadState {
            instance_name: Some(instance("w")),
            execution_state: Some(running),
        };
        let workload_states = vec![right, pb::WorkloadState { instance_name, execution_state }];
        Content::UpdateWorkloadStates(UpdateWorkloadStates { workload_states })
    };
    let says = |execution_state_enum| {
        Some(pb::ExecutionState { additional_info: None, execution_state_enum })
    };
    let name = Some(instance("v"));
    vec![
        (states(name.clone(), None), "executionState is missing"),
        (states(name.clone(), says(None)), "executionState of v.1.agent_A says nothing"),
        (
            states(name, says(Some(ExecutionStateEnum::Running(99)))),
            "executionState of v.1.agent_A",
        ),
        (states(None, says(Some(ExecutionStateEnum::Running(0)))), "instanceName is missing"),
    ]
}

fn wrong_others() -> Vec<Wrong> {
    let respond = |instance_name, content: Option<ResponseContent>| {
        let response = pb::Response { request_id: "r".to_owned(), response_content: content };
        Content::Response(ForwardedResponse { instance_name, response: Some(response) })
    };
    let observer = || Some(instance("observer"));
    let done = || Some(ResponseContent::UpdateStateSuccess(pb::UpdateStateSuccess::default()));
    let state = ResponseContent::CompleteStateResponse(pb::CompleteStateResponse::default());
    let remove = |instance_name| Content::RemoveWorkload(RemoveWorkload { instance_name });
    let hello = AgentHello { protocol_version: "1.0.0".into(), agent_name: "other".into() };
    let nothing = ForwardedResponse { instance_name: observer(), response: None };
    vec![
        (Content::Hello(hello), "AgentHello was said before"),
        (remove(None), "instanceName is missing"),
        (remove(Some(instance("unknown"))), "unknown instance unknown.1.agent_A"),
        (respond(Some(instance("unknown")), done()), "unknown instance unknown.1.agent_A"),
        (respond(None, done()), "instanceName is missing"),
        (respond(observer(), None), "the response has no content"),
        (respond(observer(), done()), "no request 'r' of this instance waits"),
        (respond(observer(), Some(state)), "answers no forwarded request"),
        (Content::Response(nothing), "response is missing"),
    ]
}

#[test]
fn command_that_is_rejected_changes_nothing_and_no_workload_notices() {
    for transport in BOTH {
        let mut agent = LinkAgent::start(transport, &["--subscribe-grace-ms", "0"]);
        agent.link.replace_state(configs(&[("k", "v")])).unwrap();
        let mut observer = agent.workload("observer");
        observer.read("s", &[], true);
        observer.response();
        let before = agent.read(&[]);
        let all =
            [wrong_names(), wrong_rules(), wrong_states(), wrong_workload_states(), wrong_others()];
        for (wrong, reason) in all.concat() {
            let rejected = agent.call(wrong).unwrap_err();
            assert!(rejected.reason.contains(reason), "{rejected} is not {reason}");
            assert_eq!(rejected.code, code_for(reason), "{rejected}");
        }
        assert_eq!(agent.read(&[]), before);
        let names = fs::read_dir(&agent.run_dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["observer.1", "status.sock"]);
        // The next that the workload hears is the next that happens.
        agent.link.replace_state(configs(&[("k", "new")])).unwrap();
        let event = observer.state_response();
        let altered = event.altered_fields.unwrap();
        assert_eq!(altered.updated_fields, ["desiredState.configs.k"]);
        assert!(altered.added_fields.is_empty() && altered.removed_fields.is_empty());
        agent.workload("w");
    }
}

#[test]
fn rules_that_do_not_validate_leave_a_workload_that_is_there_with_those_it_has() {
    let mut agent = LinkAgent::start(BOTH[0], &[]);
    let mut workload = agent.workload("w");
    for (wrong, _) in wrong_rules() {
        agent.call(wrong).unwrap_err();
    }
    workload.read("r", &["*"], false);
    workload.state_response();
}
