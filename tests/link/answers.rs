//! One answer to each command that wants one, in the order of the commands.

use fifogate::{
    frame::encode,
    link::MessageReceiver,
    pb::{
        agent_link::{
            AgentHello, ForwardedResponse, FromAgent, RemoveWorkload, ReplaceState, Shutdown,
            UpdateState, UpdateWorkloadStates, from_agent::Content, to_agent,
        },
        ank_base::{self as pb, ReadWriteEnum, request::RequestContent},
    },
};
use prost::Message;

use testkit::{BOTH, add, configs, end_of, instance, spawn};

/// A message as a test compares it.
fn told(message: to_agent::Content) -> String {
    match message {
        to_agent::Content::Hello(_) => "hello".to_owned(),
        to_agent::Content::Ack(ack) => format!("ack {}", ack.id),
        to_agent::Content::Rejected(rejected) => format!("rejected {}", rejected.id),
        to_agent::Content::WorkloadReady(ready) => {
            format!("ready {}", ready.instance_name.unwrap().workload_name)
        }
        to_agent::Content::WorkloadRemoved(removed) => {
            format!("removed {}", removed.instance_name.unwrap().workload_name)
        }
        to_agent::Content::Response(response) => format!("response {}", response.request_id),
        other => panic!("{other:?}"),
    }
}

/// A read of the agent's own.
fn read(id: &str) -> Content {
    let ask = pb::CompleteStateRequest::default();
    Content::Request(pb::Request {
        request_id: id.to_owned(),
        request_content: Some(RequestContent::CompleteStateRequest(ask)),
    })
}

/// Commands of every kind and with ids of every kind, each with what is told of it.
fn commands() -> Vec<(u64, Option<Content>, &'static [&'static str])> {
    let hello = AgentHello { protocol_version: "1.9.0".into(), agent_name: "agent_A".into() };
    let rejected = || Content::Response(ForwardedResponse::default());
    let remove =
        |name| Content::RemoveWorkload(RemoveWorkload { instance_name: Some(instance(name)) });
    let update_mask = vec!["desiredState.configs".to_owned()];
    let update = UpdateState { new_state: Some(configs(&[("k", "v")])), update_mask };
    let replace = ReplaceState { state: Some(configs(&[])) };
    let states = UpdateWorkloadStates { workload_states: Vec::new() };
    vec![
        (7, Some(Content::Hello(hello)), &["ack 7"]),
        (3, Some(Content::AddWorkload(add("a", ReadWriteEnum::RwRead, &["*"]))), &["ack 3"]),
        (3, Some(Content::ReplaceState(replace)), &["ack 3"]),
        (u64::MAX, Some(Content::UpdateState(update)), &["ack 18446744073709551615"]),
        (0, Some(Content::UpdateWorkloadStates(states.clone())), &[]),
        (0, Some(rejected()), &[]),
        (1, Some(rejected()), &["rejected 1"]),
        (2, Some(read("own")), &["response own", "ack 2"]),
        (0, Some(read("quiet")), &["response quiet"]),
        (4, Some(remove("a")), &["removed a", "ack 4"]),
        (5, Some(remove("a")), &["rejected 5"]),
        (6, None, &["rejected 6"]),
        (0, None, &[]),
        (8, Some(Content::UpdateWorkloadStates(states)), &["ack 8"]),
        (9, Some(Content::Shutdown(Shutdown {})), &["ack 9"]),
    ]
}

#[test]
fn every_command_gets_one_answer_in_its_turn_and_one_without_an_id_gets_none() {
    for (transport, rejections_only) in [(BOTH[0], false), (BOTH[1], false), (BOTH[0], true)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, reader, mut writer) = spawn(transport, &dir.path().join("run"), &[]);
        // All at once: the answers keep the order although a pair takes its time.
        let frame =
            |id, content| encode(&FromAgent { id, content, rejections_only }.encode_to_vec());
        let frames = commands().into_iter().map(|(id, content, _)| frame(id, content));
        writer.write_all(&frames.collect::<Vec<_>>().concat()).unwrap();
        let mut receiver = MessageReceiver::new(reader);
        let mut came = Vec::new();
        while let Some(message) = receiver.recv().unwrap() {
            came.push(told(message));
        }
        let (mut answers, mut expected) = (came.clone(), vec!["hello"]);
        expected.extend(commands().into_iter().flat_map(|(_, _, told)| told));
        // A notice may overtake other messages, an answer never. Whether the pair was ready
        // before it was removed again is up to chance.
        let is_answer = |told: &str| !told.starts_with("ready") && !told.starts_with("response");
        answers.retain(|told| is_answer(told));
        let is_wanted = |told: &str| !rejections_only || !told.starts_with("ack");
        let in_turn: Vec<_> =
            expected.iter().copied().filter(|told| is_answer(told) && is_wanted(told)).collect();
        assert_eq!(answers, in_turn);
        let responses = |told: &&String| told.starts_with("response");
        assert_eq!(came.iter().filter(responses).count(), 2, "{came:?}");
        assert_eq!(end_of(&mut child), (Some(0), String::new()));
    }
}
