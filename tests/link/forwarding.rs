//! Requests that are the agent's to answer.

use std::time::Duration;

use fifogate::{
    link::Rejected,
    pb::{
        agent_link::{ForwardedResponse, from_agent::Content, to_agent},
        ank_base::{self as pb, ReadWriteEnum, request::RequestContent, response::ResponseContent},
    },
};

use testkit::{BOTH, LinkAgent, Session, Transport, instance};

/// The next request that is forwarded.
pub(super) fn forwarded(agent: &mut LinkAgent) -> pb::Request {
    agent.expect(|message| match message {
        to_agent::Content::Request(forwarded) => {
            assert_eq!(forwarded.instance_name, Some(instance("w")));
            forwarded.request
        }
        _ => None,
    })
}

pub(super) fn respond(
    agent: &mut LinkAgent,
    id: &str,
    content: ResponseContent,
) -> Result<(), String> {
    try_respond(agent, id, content).map_err(|rejected| rejected.reason)
}

pub(super) fn try_respond(
    agent: &mut LinkAgent,
    id: &str,
    content: ResponseContent,
) -> Result<(), Rejected> {
    let response = pb::Response { request_id: id.to_owned(), response_content: Some(content) };
    let forwarded =
        ForwardedResponse { instance_name: Some(instance("w")), response: Some(response) };
    agent.call(Content::Response(forwarded))
}

fn success() -> ResponseContent {
    ResponseContent::UpdateStateSuccess(pb::UpdateStateSuccess {
        added_workloads: vec!["a.1.b".to_owned()],
        deleted_workloads: Vec::new(),
    })
}

pub(super) fn logs(workload: &mut Session, id: &str) {
    let workload_names = vec![instance("other")];
    let ask = pb::LogsRequest { workload_names, ..Default::default() };
    workload.request(id, RequestContent::LogsRequest(ask));
}

pub(super) fn entries(texts: &[String]) -> ResponseContent {
    let entry = |text: &String| pb::LogEntry {
        workload_name: Some(instance("other")),
        message: text.clone(),
    };
    ResponseContent::LogEntriesResponse(pb::LogEntriesResponse {
        log_entries: texts.iter().map(entry).collect(),
    })
}

#[test]
fn allowed_update_is_the_agents_to_decide_and_a_denied_one_never_reaches_it() {
    for transport in BOTH {
        let mut agent = LinkAgent::start(transport, &["--updates", "forward"]);
        let pair = agent.add("w", ReadWriteEnum::RwReadWrite, &["desiredState.configs.k"]);
        let mut workload = Session::connect(&pair);
        workload.set_config("denied", "other", "v");
        assert_eq!(workload.error(), ("denied".into(), "Access denied".into()));
        workload.set_config("u", "k", "v");
        let request = forwarded(&mut agent);
        assert_eq!(request.request_id, "u");
        let Some(RequestContent::UpdateStateRequest(update)) = request.request_content else {
            panic!()
        };
        assert_eq!(update.update_mask, ["desiredState.configs.k"]);
        assert!(
            respond(&mut agent, "other", success()).unwrap_err().contains("no request 'other'")
        );
        respond(&mut agent, "u", success()).unwrap();
        assert_eq!(workload.response(), ("u".into(), success()));
        assert!(
            respond(&mut agent, "u", success()).unwrap_err().contains("no request 'u'"),
            "once only"
        );
    }
}

#[test]
fn logs_come_by_the_agent_until_the_campaign_ends() {
    let mut agent = LinkAgent::start(Transport::Stdio, &[]);
    let mut workload = agent.workload("w");
    logs(&mut workload, "l");
    assert!(matches!(forwarded(&mut agent).request_content, Some(RequestContent::LogsRequest(_))));
    let early = respond(&mut agent, "l", entries(&["early".to_owned()]));
    assert!(early.unwrap_err().contains("no request 'l'"), "entries come behind the acceptance");
    let accepted = pb::LogsRequestAccepted { workload_names: vec![instance("other")] };
    let large = "x".repeat(3 << 20);
    let stop = pb::LogsStopResponse { workload_name: Some(instance("other")) };
    for content in [
        ResponseContent::LogsRequestAccepted(accepted),
        entries(&["one".to_owned(), large, "three".to_owned()]),
        ResponseContent::LogsStopResponse(stop),
    ] {
        respond(&mut agent, "l", content).unwrap();
    }
    assert!(matches!(workload.response(), (_, ResponseContent::LogsRequestAccepted(_))));
    let mut texts = Vec::new();
    loop {
        match workload.response().1 {
            ResponseContent::LogEntriesResponse(entries) => {
                texts.extend(entries.log_entries.into_iter().map(|entry| entry.message));
            }
            ResponseContent::LogsStopResponse(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((texts[0].as_str(), texts[3].as_str()), ("one", "three"));
    assert!(texts[1].ends_with(" [truncated]") && texts[1].len() <= 2 << 20);
    assert!(texts[2].starts_with("The previous message was truncated"));
    assert!(respond(&mut agent, "l", entries(&["late".to_owned()])).is_err());

    workload.request("l", RequestContent::LogsCancelRequest(pb::LogsCancelRequest {}));
    forwarded(&mut agent);
    respond(&mut agent, "l", ResponseContent::LogsCancelAccepted(pb::LogsCancelAccepted {}))
        .unwrap();
    assert!(matches!(workload.response(), (_, ResponseContent::LogsCancelAccepted(_))));
}

#[test]
fn agent_that_never_answers_costs_a_bounded_number_of_requests_and_each_gets_an_error() {
    let options = ["--updates", "forward", "--max-forwarded", "3", "--forward-timeout", "0.3"];
    let mut agent = LinkAgent::start(Transport::Unix, &options);
    let mut workload = agent.workload("w");
    for id in ["1", "2", "3", "4"] {
        workload.set_config(id, "k", "v");
    }
    let most = "Too many requests wait for the agent, at most 3 are allowed";
    assert_eq!(workload.error(), ("4".into(), most.into()));
    for id in ["1", "2", "3"] {
        assert_eq!(workload.error(), (id.into(), "The agent did not answer within 0.3 s".into()));
    }
    workload.set_config("5", "k", "v");
    while forwarded(&mut agent).request_id != "5" {}
    respond(&mut agent, "5", success()).unwrap();
    assert_eq!(workload.response().0, "5");
}

#[test]
fn agent_that_does_not_read_holds_up_nobody_who_does_not_need_it() {
    let options = ["--updates", "forward", "--link-bytes", "100000", "--max-forwarded", "1000000"];
    let mut agent = LinkAgent::start(Transport::Unix, &options);
    let mut needs = agent.workload("w");
    let mut other = agent.workload("other");
    // More than the link's buffers and its budget take.
    let text = "v".repeat(10_000);
    let mut refused = None;
    for id in 0..500 {
        needs.set_config(&id.to_string(), "k", &text);
        other.read("r", &["agents"], false);
        assert_eq!(other.response().0, "r");
        if let Some(message) = needs.receive_within(Duration::ZERO) {
            refused = Some(message);
            break;
        }
    }
    let text = format!("{refused:?}");
    assert!(text.contains("The agent does not keep up with requests; try again later"), "{text}");
    assert_eq!(agent.hang_up().0, Some(0), "that it has gone is noticed all the same");
}
