//! Workloads and an agent at a running fifogate: what is nested too deep is an error for its sender.

use fifogate::pb::{
    agent_link::{ReplaceState, UpdateState, from_agent::Content, to_agent},
    ank_base::{self as pb, response::ResponseContent},
};

use super::values::{LIMIT, MASK, above, config_of, for_each, state, tower, update, within};
use testkit::{BOTH, LinkAgent, configs, instance};

/// All of them are above the bound; of each kind the last that a decoder takes and the first that it does
/// not, at the workload's door or at the agent's behind it.
const DEEP: [(usize, usize); 14] = [
    (21, 0),
    (0, 21),
    (30, 0),
    (31, 0),
    (32, 0),
    (33, 0),
    (0, 45),
    (0, 46),
    (0, 47),
    (0, 48),
    (29, 3),
    (3, 42),
    (200, 0),
    (0, 300),
];

#[test]
fn update_that_is_nested_too_deep_is_an_error_for_its_sender_and_never_reaches_the_agent() {
    for transport in BOTH {
        let mut agent = LinkAgent::start(transport, &["--updates", "forward"]);
        agent.link.replace_state(configs(&[("k", "v")])).unwrap();
        let mut neighbour = agent.workload("neighbour");
        let mut workload = agent.workload("w");
        for (mappings, sequences) in DEEP {
            workload.request("deep", update(&tower(mappings, sequences)));
            let (id, why) = workload.error();
            assert!(id == "deep" && why.contains(LIMIT), "{mappings}, {sequences}: {why}");
        }
        // The next that the agent hears of is the next that is in order.
        let fits = update(&tower(13, 7));
        workload.request("fits", fits.clone());
        let request = agent.expect(|message| match message {
            to_agent::Content::Request(forwarded) => forwarded.request,
            _ => None,
        });
        assert_eq!((request.request_id, request.request_content), ("fits".to_owned(), Some(fits)));
        let done = ResponseContent::UpdateStateSuccess(pb::UpdateStateSuccess::default());
        let response =
            pb::Response { request_id: "fits".to_owned(), response_content: Some(done.clone()) };
        agent.link.respond(instance("w"), response).unwrap();
        assert_eq!(workload.response(), ("fits".to_owned(), done));
        neighbour.read("n", &[MASK], false);
        neighbour.state_response();
    }
}

#[test]
fn agent_that_sends_what_is_nested_too_deep_hears_so_and_is_served_on() {
    for transport in BOTH {
        let mut agent = LinkAgent::start(transport, &[]);
        agent.link.replace_state(configs(&[("k", "v")])).unwrap();
        let before = agent.read(&[]);
        for (mappings, sequences) in DEEP {
            let value = tower(mappings, sequences);
            let (new_state, update_mask) = (Some(state(&value)), vec![MASK.to_owned()]);
            let commands = [
                Content::ReplaceState(ReplaceState { state: Some(state(&value)) }),
                Content::UpdateState(UpdateState { new_state, update_mask }),
            ];
            for command in commands {
                let rejected = agent.call(command).unwrap_err();
                assert!(rejected.reason.contains(LIMIT), "{mappings}, {sequences}: {rejected}");
            }
            let own =
                pb::Request { request_id: "own".to_owned(), request_content: Some(update(&value)) };
            // Above what the decoder takes, the command is rejected; else the request has an answer.
            let why = match agent.call(Content::Request(own)) {
                Err(rejected) => rejected.reason,
                Ok(()) => match agent.response("own") {
                    ResponseContent::Error(error) => error.message,
                    other => panic!("{other:?}"),
                },
            };
            assert!(why.contains(LIMIT), "{mappings}, {sequences}: {why}");
        }
        assert_eq!(agent.read(&[]), before);
    }
}

/// A value that comes in at one end of fifogate goes out at all others.
#[test]
fn value_that_a_workload_or_the_agent_brings_in_is_read_by_both() {
    let mut agent = LinkAgent::start(BOTH[0], &["--max-malformed", "1000000"]);
    let mut workload = agent.workload("w");
    let mut last = None;
    for_each(64, within(), |value| {
        workload.request("u", update(value));
        let (_, done) = workload.response();
        assert!(matches!(done, ResponseContent::UpdateStateSuccess(_)), "{done:?}");
        assert_eq!(config_of(&agent.read(&[MASK])), config_of(&state(value)));
        agent.link.replace_state(configs(&[])).unwrap();
        agent.link.update_state(state(value), vec![MASK.to_owned()]).unwrap();
        workload.read("r", &[MASK], false);
        let read = workload.state_response();
        let read = read.complete_state.unwrap();
        assert_eq!(config_of(&read), config_of(&state(value)));
        last = Some(read);
    });
    for_each(64, above(), |value| {
        workload.request("u", update(value));
        let (_, why) = workload.error();
        assert!(why.contains(LIMIT), "{why}");
    });
    assert_eq!(config_of(&agent.read(&[MASK])), config_of(&last.unwrap()));
}
