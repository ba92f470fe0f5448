//! Requests of workloads: reads are answered here, updates and log requests go to the server.

use std::time::Duration;

use fifogate::pb::ank_base::{
    self as pb, LogsRequest, UpdateStateSuccess, execution_state::ExecutionStateEnum as State,
    request::RequestContent, response::ResponseContent,
};
use prost::Message;
use testkit::{Session, altered, configs, update, wait_for, workload_with};

use super::{
    joined::{Joined, answer_subscription, state, with_states},
    server::{FromServer, FromServerContent, Port, ToServerContent, instance_name, workload_state},
};

const RIGHTS: &str = ", controlInterfaceAccess: {allowRules: [\
                      {type: StateRule, operation: ReadWrite, filterMasks: [desiredState.configs, workloadStates, agents]}, \
                      {type: LogRule, workloadNames: ['*']}]}";

fn asker() -> String {
    workload_with("ask", "exec sleep 1000", "", RIGHTS)
}

fn joined() -> (Joined, Session) {
    joined_with_grace("0")
}

fn joined_with_grace(milliseconds: &str) -> (Joined, Session) {
    let options = ["--insecure", "--", "--subscribe-grace-ms", milliseconds];
    let joined = Joined::start(Port::open(), &options, &asker());
    joined.wait_for_state("ask", "Running(Ok)");
    let session = joined.agent.connect_as("ask");
    (joined, session)
}

fn set(key: &str, value: &str) -> RequestContent {
    update(&format!("configs: {{{key}: '{value}'}}"), &[&format!("desiredState.configs.{key}")])
}

fn config_of(response: &pb::CompleteStateResponse, key: &str) -> Option<String> {
    let configs = response.complete_state.as_ref()?.desired_state.as_ref()?.configs.as_ref()?;
    match configs.configs.get(key)?.config_item_enum.as_ref()? {
        pb::config_item::ConfigItemEnum::String(text) => Some(text.clone()),
        _ => None,
    }
}

#[test]
fn update_is_forwarded_with_its_id_and_answered_after_its_event() {
    let (mut joined, mut session) = joined();
    session.read("events", &["desiredState.configs"], true);
    assert_eq!(config_of(&session.state_response(), "a"), None);
    // An id with the separator in it.
    session.request("x@1", set("a", "one"));
    let request = joined.forwarded();
    assert_eq!(request.request_id, "ask@x@1");
    let Some(RequestContent::UpdateStateRequest(asked)) = request.request_content else {
        panic!("{:?}", request.request_content)
    };
    assert_eq!(asked.update_mask, ["desiredState.configs.a"]);
    let done = ResponseContent::UpdateStateSuccess(UpdateStateSuccess::default());
    // The server answers an update of configs alone before it tells its event.
    joined.stream.send(FromServer::response("ask@x@1", done));
    joined.tell(configs(&[("a", "one")]), altered(&["desiredState.configs"], &[], &[]));
    joined.answer_read();
    let event = session.state_response();
    assert_eq!(config_of(&event, "a").as_deref(), Some("one"));
    assert_eq!(session.response().0, "x@1");
    // An error is passed on as it is.
    session.request("2", set("a", "two"));
    assert_eq!(joined.forwarded().request_id, "ask@2");
    let message = "Update rejected: 'x'".to_owned();
    let error = ResponseContent::Error(pb::Error { message: message.clone() });
    joined.stream.send(FromServer::response("ask@2", error));
    assert_eq!(session.error(), ("2".to_owned(), message));
}

#[test]
fn update_without_a_right_to_it_never_reaches_the_server() {
    let (mut joined, mut session) = joined();
    session.request("1", update("workloads: {}", &["desiredState.workloads.ask"]));
    assert_eq!(session.error(), ("1".to_owned(), "Access denied".to_owned()));
    let large = "x".repeat(1 << 20);
    session.request("2", set("a", &large));
    assert_eq!(joined.forwarded().request_id, "ask@2", "the first request that it sees");
}

#[test]
fn answer_to_an_update_comes_before_its_event_in_the_grace_time_of_a_subscription() {
    let (mut joined, mut session) = joined_with_grace("600000");
    session.read("events", &["desiredState.configs"], true);
    session.state_response();
    session.request("1", set("a", "1"));
    assert_eq!(joined.forwarded().request_id, "ask@1");
    joined.tell(configs(&[("a", "1")]), altered(&["desiredState.configs"], &[], &[]));
    let success = ResponseContent::UpdateStateSuccess(UpdateStateSuccess::default());
    joined.stream.send(FromServer::response("ask@1", success));
    joined.answer_read();
    assert_eq!(session.response().0, "1");
    // A read has it.
    session.read("read", &["desiredState.configs"], false);
    assert_eq!(config_of(&session.state_response(), "a").as_deref(), Some("1"));
}

#[test]
fn update_that_is_too_large_with_its_masks_is_refused_and_the_next_one_is_not() {
    let (mut joined, mut session) = joined();
    let update_mask: Vec<_> = (0..200).map(|n| format!("desiredState.configs.{n:0>900}")).collect();
    let of_size = |bytes| {
        let new_state = Some(configs(&[("a", &"x".repeat(bytes))]));
        let update_mask = update_mask.clone();
        RequestContent::UpdateStateRequest(pb::UpdateStateRequest { new_state, update_mask })
    };
    // The largest frame that fifogate takes, with 5 bytes around the request.
    let request =
        pb::Request { request_id: "1".to_owned(), request_content: Some(of_size(3 << 20)) };
    let left = (4 << 20) - 5 - request.encoded_len();
    session.request("1", of_size((3 << 20) + left));
    let text = "The update is larger than the 4 MiB that the server reads";
    assert_eq!(session.error(), ("1".to_owned(), text.to_owned()));
    session.request("2", set("a", "1"));
    assert_eq!(joined.forwarded().request_id, "ask@2", "the first request that it sees");
}

#[test]
fn reads_and_events_are_answered_without_the_server_and_updates_refused_while_it_is_away() {
    let (joined, mut session) = joined();
    session.read("events", &["desiredState.configs"], true);
    session.state_response();
    joined.tell(configs(&[("a", "1")]), altered(&["desiredState.configs"], &[], &[]));
    assert_eq!(config_of(&session.state_response(), "a").as_deref(), Some("1"));
    joined.port.close();
    wait_for("trouble", || (!joined.agent.trouble().is_empty()).then_some(()));
    session.read("read", &["desiredState.configs"], false);
    assert_eq!(config_of(&session.state_response(), "a").as_deref(), Some("1"));
    session.request("update", set("a", "2"));
    assert_eq!(session.error(), ("update".to_owned(), "The server cannot be reached".to_owned()));
    // Meanwhile another one has changed it twice: subscribers are told the difference, once.
    joined.port.reopen();
    let mut stream = joined.port.accept();
    stream.greet(super::joined::added(&asker()));
    let mut now = state(&asker());
    let desired = now.desired_state.as_mut().unwrap();
    desired.configs = configs(&[("a", "3"), ("b", "1")]).desired_state.unwrap().configs;
    answer_subscription(&mut stream, now);
    let event = session.state_response();
    assert_eq!(config_of(&event, "a").as_deref(), Some("3"));
    let told = event.altered_fields.unwrap();
    assert_eq!(told.added_fields, ["desiredState.configs.b"]);
    assert_eq!(told.updated_fields, ["desiredState.configs.a"]);
    assert!(told.removed_fields.is_empty());
    wait_for("no trouble", || joined.agent.trouble().is_empty().then_some(()));
    assert!(session.receive_within(Duration::from_millis(200)).is_none());
}

#[test]
fn answer_to_an_update_is_not_waited_for_when_the_connection_is_lost() {
    let (mut joined, mut session) = joined();
    session.request("1", set("a", "1"));
    assert_eq!(joined.forwarded().request_id, "ask@1");
    joined.port.reset_all();
    let (id, text) = session.error();
    assert_eq!(id, "1");
    assert!(text.contains("it may have done the update"), "{text}");
}

#[test]
fn states_of_others_come_with_the_state_and_by_messages_of_their_own() {
    let (joined, mut session) = joined();
    session.read("events", &["workloadStates.agent_B"], true);
    session.state_response();
    let far = workload_state("far.1.agent_B", State::Running(0), "");
    joined.stream.send(FromServer::states(vec![far.clone()]));
    let event = session.state_response();
    assert_eq!(event.altered_fields.unwrap().added_fields, ["workloadStates.agent_B"]);
    // The same as an event of the subscription: nothing has changed.
    let told = with_states(pb::CompleteState::default(), &[far]);
    joined.tell(told, altered(&["workloadStates.agent_B"], &[], &[]));
    let removed = workload_state("far.1.agent_B", State::Removed(0), "");
    joined.stream.send(FromServer::states(vec![removed]));
    let event = session.state_response();
    assert_eq!(event.altered_fields.unwrap().removed_fields, ["workloadStates.agent_B"]);
}

#[test]
fn event_that_does_not_fit_makes_the_agent_read_everything_again() {
    let (mut joined, mut session) = joined();
    session.read("events", &["desiredState.configs"], true);
    session.state_response();
    let before = joined.subscription.clone();
    joined.tell(pb::CompleteState::default(), altered(&[], &[], &["desiredState.configs.gone"]));
    let cancelled = joined.port.record().wait("a cancellation", |all| {
        all.iter().find_map(|own| match &own.message.content {
            Some(ToServerContent::Request(request)) => match request.request_content {
                Some(RequestContent::EventsCancelRequest(_)) => Some(request.request_id.clone()),
                _ => None,
            },
            _ => None,
        })
    });
    assert_eq!(cancelled, before);
    let mut now = state(&asker());
    now.desired_state.as_mut().unwrap().configs =
        configs(&[("a", "1")]).desired_state.unwrap().configs;
    // Its first subscription is answered already: this is the second one.
    joined.subscription = answer_subscription(&mut joined.stream, now);
    assert_ne!(joined.subscription, before);
    assert_eq!(config_of(&session.state_response(), "a").as_deref(), Some("1"));
}

#[test]
fn logs_of_another_agent_come_through_the_server_and_are_cancelled_there() {
    let (mut joined, mut session) = joined();
    let far = instance_name("far.1.agent_B");
    let ask = |follow| {
        RequestContent::LogsRequest(LogsRequest {
            workload_names: vec![far.clone()],
            follow: Some(follow),
            tail: Some(5),
            ..Default::default()
        })
    };
    let accept = |joined: &Joined, id: &str| {
        let names = vec![far.clone()];
        let accepted = pb::LogsRequestAccepted { workload_names: names };
        joined
            .stream
            .send(FromServer::response(id, ResponseContent::LogsRequestAccepted(accepted)));
        let entry = pb::LogEntry { workload_name: Some(far.clone()), message: "a line".to_owned() };
        let entries = pb::LogEntriesResponse { log_entries: vec![entry] };
        joined.stream.send(FromServer::response(id, ResponseContent::LogEntriesResponse(entries)));
    };
    session.request("l1", ask(false));
    let request = joined.forwarded();
    assert_eq!(request.request_id, "ask@l1");
    let Some(RequestContent::LogsRequest(asked)) = request.request_content else { panic!() };
    assert_eq!((asked.workload_names, asked.tail), (vec![far.clone()], Some(5)));
    accept(&joined, "ask@l1");
    let stop = pb::LogsStopResponse { workload_name: Some(far.clone()) };
    joined
        .stream
        .send(FromServer::response("ask@l1", ResponseContent::LogsStopResponse(stop.clone())));
    assert!(matches!(session.response().1, ResponseContent::LogsRequestAccepted(_)));
    assert!(matches!(session.response().1, ResponseContent::LogEntriesResponse(_)));
    assert_eq!(session.response(), ("l1".to_owned(), ResponseContent::LogsStopResponse(stop)));
    // One that is followed, and cancelled.
    session.request("l2", ask(true));
    assert_eq!(joined.forwarded().request_id, "ask@l2");
    accept(&joined, "ask@l2");
    assert!(matches!(session.response().1, ResponseContent::LogsRequestAccepted(_)));
    assert!(matches!(session.response().1, ResponseContent::LogEntriesResponse(_)));
    session.request("l2", RequestContent::LogsCancelRequest(pb::LogsCancelRequest {}));
    assert!(matches!(session.response().1, ResponseContent::LogsCancelAccepted(_)));
    let cancel = joined.forwarded();
    assert_eq!(cancel.request_id, "ask@l2");
    assert!(matches!(cancel.request_content, Some(RequestContent::LogsCancelRequest(_))));
    // One whose rest is lost with the connection: told, not silent.
    session.request("l3", ask(true));
    assert_eq!(joined.forwarded().request_id, "ask@l3");
    accept(&joined, "ask@l3");
    assert!(matches!(session.response().1, ResponseContent::LogsRequestAccepted(_)));
    assert!(matches!(session.response().1, ResponseContent::LogEntriesResponse(_)));
    joined.port.reset_all();
    let ResponseContent::LogEntriesResponse(last) = session.response().1 else { panic!() };
    assert!(last.log_entries[0].message.contains("the connection to the server was lost"));
    assert!(matches!(session.response().1, ResponseContent::LogsStopResponse(_)));
}

#[test]
fn log_request_with_the_server_away_is_an_error_and_no_silence() {
    let (joined, mut session) = joined();
    joined.port.close();
    wait_for("trouble", || (!joined.agent.trouble().is_empty()).then_some(()));
    let workload_names = vec![instance_name("far.1.agent_B")];
    session.request(
        "l",
        RequestContent::LogsRequest(LogsRequest { workload_names, ..Default::default() }),
    );
    let (id, text) = session.error();
    assert_eq!(id, "l");
    assert!(text.contains("the server cannot be reached"), "{text}");
}

#[test]
fn answer_of_a_response_that_nobody_waits_for_is_ignored() {
    let (joined, mut session) = joined();
    for id in ["ask@never", "nobody@1", "x", ""] {
        let success = ResponseContent::UpdateStateSuccess(UpdateStateSuccess::default());
        joined.stream.send(FromServer::response(id, success));
    }
    joined.stream.send(FromServerContent::Response(pb::Response::default()));
    joined.tell(configs(&[("a", "1")]), altered(&["desiredState.configs"], &[], &[]));
    session.read("r", &["desiredState.configs"], true);
    let mut response = session.state_response();
    while config_of(&response, "a").is_none() {
        response = session.state_response();
    }
}
