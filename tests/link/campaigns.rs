//! Log campaigns: how they end, what they cost, and what becomes of a slow collector.

use fifogate::pb::{
    agent_link::{AddWorkload, Phase, RejectCode, from_agent, to_agent},
    ank_base::{self as pb, request::RequestContent, response::ResponseContent},
};

use super::forwarding::{entries, forwarded, logs, respond, try_respond};
use testkit::{BOTH, LinkAgent, Session, Transport, instance};

fn accepted() -> ResponseContent {
    let workload_names = vec![instance("other")];
    ResponseContent::LogsRequestAccepted(pb::LogsRequestAccepted { workload_names })
}

fn cancel(workload: &mut Session, id: &str) {
    workload.request(id, RequestContent::LogsCancelRequest(pb::LogsCancelRequest {}));
}

fn cancelled() -> ResponseContent {
    ResponseContent::LogsCancelAccepted(pb::LogsCancelAccepted {})
}

fn failed() -> ResponseContent {
    ResponseContent::Error(pb::Error { message: "the runtime has gone".to_owned() })
}

/// A campaign `l` of the workload `w`, with its first entries delivered.
fn campaign(agent: &mut LinkAgent, workload: &mut Session) {
    logs(workload, "l");
    assert_eq!(forwarded(agent).request_id, "l");
    for content in [accepted(), entries(&["first".to_owned()])] {
        respond(agent, "l", content.clone()).unwrap();
        assert_eq!(workload.response(), ("l".to_owned(), content));
    }
}

/// Entries of a campaign that has ended are refused.
fn assert_over(agent: &mut LinkAgent) {
    let late = respond(agent, "l", entries(&["late".to_owned()])).unwrap_err();
    assert!(late.contains("no request 'l'"), "{late}");
}

#[test]
fn campaign_ends_by_a_cancel_or_an_error_and_never_goes_on() {
    for transport in BOTH {
        let mut agent = LinkAgent::start(transport, &[]);
        let mut workload = agent.workload("w");
        campaign(&mut agent, &mut workload);
        cancel(&mut workload, "l");
        let request = forwarded(&mut agent);
        let content = request.request_content;
        assert!(matches!(content, Some(RequestContent::LogsCancelRequest(_))));
        // Entries on their way at the cancellation are delivered.
        let on_its_way = entries(&["on its way".to_owned()]);
        for content in [on_its_way, cancelled()] {
            respond(&mut agent, "l", content.clone()).unwrap();
            assert_eq!(workload.response(), ("l".to_owned(), content));
        }
        assert_over(&mut agent);

        campaign(&mut agent, &mut workload);
        respond(&mut agent, "l", failed()).unwrap();
        assert_eq!(workload.response(), ("l".to_owned(), failed()));
        assert_over(&mut agent);
    }
}

#[test]
fn campaign_ends_with_its_session_and_the_agent_hears_of_it() {
    let mut agent = LinkAgent::start(Transport::Stdio, &[]);
    let mut workload = agent.workload("w");
    campaign(&mut agent, &mut workload);
    let sessions = |message| match message {
        to_agent::Content::Session(change) => Some(change.phase()),
        _ => None,
    };
    workload.hello();
    // `campaign` skipped what was told of the session before.
    assert_eq!(agent.expect(sessions), Phase::Connected);
    assert_over(&mut agent);
    campaign(&mut agent, &mut workload);
    agent.remove("w").unwrap();
    let gone = respond(&mut agent, "l", entries(&["late".to_owned()])).unwrap_err();
    assert_eq!(gone, "unknown instance w.1.agent_A");
}

#[test]
fn campaigns_count_as_requests_that_wait_and_can_be_cancelled_at_the_limit() {
    let mut agent = LinkAgent::start(Transport::Unix, &["--max-forwarded", "1"]);
    let mut workload = agent.workload("w");
    campaign(&mut agent, &mut workload);
    let most = "Too many requests wait for the agent, at most 1 are allowed";
    logs(&mut workload, "m");
    assert_eq!(workload.error(), ("m".into(), most.into()));
    cancel(&mut workload, "m");
    assert_eq!(workload.error(), ("m".into(), most.into()), "there is nothing to cancel");
    cancel(&mut workload, "l");
    assert_eq!(forwarded(&mut agent).request_id, "l");
    cancel(&mut workload, "l");
    assert_eq!(workload.error(), ("l".into(), most.into()), "it is being cancelled");
    respond(&mut agent, "l", cancelled()).unwrap();
    assert_eq!(workload.response(), ("l".to_owned(), cancelled()));
    logs(&mut workload, "m");
    assert_eq!(forwarded(&mut agent).request_id, "m", "the place is free again");
}

#[test]
fn entries_over_2_mib_come_in_several_messages_in_order() {
    let mut agent = LinkAgent::start(Transport::Stdio, &[]);
    let mut workload = agent.workload("w");
    campaign(&mut agent, &mut workload);
    let texts: Vec<_> = (0..5).map(|n| n.to_string().repeat(900_000)).collect();
    respond(&mut agent, "l", entries(&texts)).unwrap();
    let mut came = Vec::new();
    for count in [2, 2, 1] {
        let (_, ResponseContent::LogEntriesResponse(part)) = workload.response() else { panic!() };
        assert_eq!(part.log_entries.len(), count);
        came.extend(part.log_entries.into_iter().map(|entry| entry.message));
    }
    assert!(came == texts);
}

#[test]
fn collector_that_does_not_read_makes_the_agent_wait_and_loses_nothing() {
    let mut agent = LinkAgent::start(Transport::Unix, &["--outbox-bytes", "200000"]);
    let mut slow = agent.workload("w");
    let mut other = agent.workload("other");
    campaign(&mut agent, &mut slow);
    // More than its pipe and its budget take.
    let text = |n: usize| format!("{n} {}", "x".repeat(20_000));
    let mut taken = 0;
    let refused = loop {
        match try_respond(&mut agent, "l", entries(&[text(taken)])) {
            Ok(()) => taken += 1,
            Err(why) => break why,
        }
        assert!(taken < 1_000, "nothing bounds them");
    };
    assert!(refused.reason.contains("does not keep up with its logs"), "{refused}");
    assert_eq!(refused.code, RejectCode::RetryLater);
    // A retry would never help here.
    let unknown = try_respond(&mut agent, "none", entries(&[text(0)])).unwrap_err();
    assert_eq!(unknown.code, RejectCode::NoSuchRequest);
    other.read("r", &["agents"], false);
    assert_eq!(other.response().0, "r");
    for n in 0..taken {
        assert_eq!(slow.response(), ("l".to_owned(), entries(&[text(n)])), "{n} of {taken}");
    }
    respond(&mut agent, "l", entries(&["again".to_owned()])).unwrap();
    assert_eq!(slow.response().1, entries(&["again".to_owned()]));
}

/// Gives `w` rules by which it may read the logs of these workloads.
fn narrow(agent: &mut LinkAgent, logs: &[&str]) {
    let (instance_name, access) = (Some(instance("w")), Some(rules(logs)));
    let add = AddWorkload { instance_name, access, ..AddWorkload::default() };
    agent.call(from_agent::Content::AddWorkload(add)).unwrap();
}

fn rules(logs: &[&str]) -> pb::ControlInterfaceAccess {
    use pb::access_rights_rule::AccessRightsRuleEnum as Kind;
    let rule = |kind| pb::AccessRightsRule { access_rights_rule_enum: Some(kind) };
    let workload_names = logs.iter().map(|name| (*name).to_owned()).collect();
    let filter_masks = vec!["desiredState.configs".to_owned()];
    let operation = pb::ReadWriteEnum::RwRead.into();
    pb::ControlInterfaceAccess {
        allow_rules: vec![
            rule(Kind::StateRule(pb::StateRule { operation, filter_masks })),
            rule(Kind::LogRule(pb::LogRule { workload_names })),
        ],
        deny_rules: Vec::new(),
    }
}

#[test]
fn campaign_ends_when_new_rules_do_not_allow_it_and_nothing_of_it_is_delivered_after_their_ack() {
    // Still allowed by name or by pattern; not any more by another name, a pattern beside it, or no rule.
    let narrowed: [(&[&str], bool); 6] = [
        (&["other"], true),
        (&["x", "oth*"], true),
        (&["others"], false),
        (&["other1*"], false),
        (&["w"], false),
        (&[], false),
    ];
    for (logs, goes_on) in narrowed {
        let mut agent = LinkAgent::start(Transport::Stdio, &[]);
        let mut workload = agent.workload("w");
        campaign(&mut agent, &mut workload);
        narrow(&mut agent, logs);
        if goes_on {
            let more = entries(&["more".to_owned()]);
            respond(&mut agent, "l", more.clone()).unwrap();
            assert_eq!(workload.response(), ("l".to_owned(), more));
            continue;
        }
        let denied = ResponseContent::Error(pb::Error { message: "Access denied".to_owned() });
        assert_eq!(workload.response(), ("l".to_owned(), denied), "{logs:?}");
        let request = forwarded(&mut agent);
        assert_eq!(request.request_id, "l");
        let content = request.request_content;
        assert!(matches!(content, Some(RequestContent::LogsCancelRequest(_))));
        assert_over(&mut agent);
        // The agent's answer to the cancel is taken, and is no answer to the workload.
        respond(&mut agent, "l", cancelled()).unwrap();
        assert_over(&mut agent);
        workload.request("e", RequestContent::EventsCancelRequest(pb::EventsCancelRequest {}));
        assert_eq!(workload.response().0, "e");
    }
}

#[test]
fn request_for_logs_that_waits_for_the_agent_ends_with_the_rule_that_allowed_it() {
    let mut agent = LinkAgent::start(Transport::Stdio, &[]);
    let mut workload = agent.workload("w");
    logs(&mut workload, "l");
    assert_eq!(forwarded(&mut agent).request_id, "l");
    narrow(&mut agent, &[]);
    let denied = ResponseContent::Error(pb::Error { message: "Access denied".to_owned() });
    assert_eq!(workload.response(), ("l".to_owned(), denied));
    let late = respond(&mut agent, "l", accepted()).unwrap_err();
    assert!(late.contains("no request 'l'"), "{late}");
}
