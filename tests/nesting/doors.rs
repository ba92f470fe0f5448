//! Doors of the library that need no process: messages of workloads and of the agent, manifests, and
//! what becomes of a value behind them.

use fifogate::{
    frame::encode,
    internal::{Command, NewState, RequestKind, agent_update, parts, state::DESIRED_STATE},
    limits::{Limits, MAX_NESTING},
    link::MessageReceiver,
    manifest,
    message::{FromAgent, FromWorkload, ResponseBody, ToAgent, ToWorkload},
    pb::{
        agent_link::{self as link, from_agent, to_agent},
        ank_base::{self as pb, response::ResponseContent},
        control_api::{
            FromAnkaios, ToAnkaios, from_ankaios::FromAnkaiosEnum, to_ankaios::ToAnkaiosEnum,
        },
    },
    state::{
        Instance, Map, Mask, Node, Tree,
        convert::{self, Fill},
        update,
    },
};
use prost::Message;

use super::values::{
    self, LIMIT, MASK, above, block_of, config_of, for_each, json_of, state, tower, within,
};

const PATH: [&str; 3] = ["desiredState", "configs", "k"];

fn request_of(value: &Node) -> pb::Request {
    let request_content = Some(values::update(value));
    pb::Request { request_id: "r".to_owned(), request_content }
}

/// The message that a workload's update is decoded to.
fn by_workload(value: &Node) -> RequestKind {
    let request = ToAnkaiosEnum::Request(request_of(value));
    let body = ToAnkaios { to_ankaios_enum: Some(request) }.encode_to_vec();
    let limits = Limits::default();
    let message = match FromWorkload::decode(&body.into(), &limits) {
        FromWorkload::Sealed(update) => update.open(&limits),
        other => other,
    };
    match message {
        FromWorkload::Request(request) => {
            if let RequestKind::Update { .. } = request.ask {
                forwarded(&request.original);
            }
            request.ask
        }
        FromWorkload::Undecodable { request_id: Some(id), reason } if id == "r" => {
            RequestKind::OverLimit(reason)
        }
        other => panic!("{other:?}"),
    }
}

/// A forwarded request arrives at an agent as it was sent.
fn forwarded(original: &bytes::Bytes) {
    let instance = Instance { workload: "w".into(), agent: "a".into(), id: "1".into() };
    let frame = ToAgent::Request(instance, original.clone()).into_frame().to_vec();
    let Some(to_agent::Content::Request(arrived)) =
        MessageReceiver::new(&frame[..]).recv().unwrap()
    else {
        panic!("it did not arrive")
    };
    assert_eq!(arrived.request.unwrap(), pb::Request::decode(&original[..]).unwrap());
}

/// The messages that the commands of an agent that carry a state are decoded to.
fn by_agent(value: &Node) -> [Command; 3] {
    use from_agent::Content;
    let update =
        link::UpdateState { new_state: Some(state(value)), update_mask: vec![MASK.into()] };
    let contents = [
        Content::ReplaceState(link::ReplaceState { state: Some(state(value)) }),
        Content::UpdateState(update),
        Content::Request(request_of(value)),
    ];
    contents.map(|content| {
        let message = link::FromAgent { id: 7, content: Some(content), rejections_only: false };
        let message = FromAgent::decode(&message.encode_to_vec(), &Limits::default()).unwrap();
        assert_eq!(message.id, 7);
        message.command
    })
}

fn updated(new_state: &Tree) -> Tree {
    update::apply(&Tree::initial(), new_state, &[Mask::parse(MASK)]).unwrap().tree
}

fn manifests(value: &Node) -> [Result<Tree, String>; 3] {
    let flow = json_of(value);
    let texts = [
        format!("apiVersion: v1\nconfigs: {{\"k\": {flow}}}\n"),
        format!("{{apiVersion: v1, configs: {{\"k\": {flow}}}}}\n"),
        format!("apiVersion: v1\nconfigs:\n  k:{}", block_of(value, 3)),
    ];
    texts.map(|text| match manifest::parse("m.yaml", &text) {
        Ok(manifest) => Ok(manifest.updated.tree),
        Err(error) => Err(error.to_string()),
    })
}

/// Every message that a state with the value is in can be decoded.
fn check_messages(tree: &Tree, value: &Node) {
    let item = parts::config_to_pb(value);
    let body = ResponseBody::state(tree, Fill::Full, None);
    let to_workload = ToWorkload::Response { request_id: "r".into(), body: body.clone() };
    let frame = to_workload.into_frame().to_vec();
    let answer = FromAnkaios::decode_length_delimited(&frame[..]).unwrap();
    let Some(FromAnkaiosEnum::Response(answer)) = answer.from_ankaios_enum else { panic!() };
    let Some(ResponseContent::CompleteStateResponse(answer)) = answer.response_content else {
        panic!()
    };
    let whole = answer.complete_state.unwrap();
    assert_eq!(config_of(&whole), Some(&item));
    assert_eq!(convert::from_pb(&whole).unwrap().get(&PATH), Some(value));

    let frame = ToAgent::Response { request_id: "r".into(), body }.into_frame().to_vec();
    let message = link::ToAgent::decode_length_delimited(&frame[..]).unwrap();
    assert!(matches!(message.content, Some(to_agent::Content::Response(_))));

    let replace = link::ReplaceState { state: Some(convert::to_pb(tree, Fill::Full)) };
    let content = Some(from_agent::Content::ReplaceState(replace));
    let message = link::FromAgent { id: 1, content, rejections_only: false }.encode_to_vec();
    let command = FromAgent::decode(&message, &Limits::default()).unwrap().command;
    assert!(matches!(command, Command::ReplaceState(arrived) if arrived.get(&PATH) == Some(value)));
}

#[test]
fn value_within_the_bound_passes_each_door_and_all_messages_that_it_is_in() {
    for_each(256, within(), |value| {
        let RequestKind::Update { new_state: NewState::Given(given), .. } = by_workload(value)
        else {
            panic!("refused to a workload")
        };
        let tree = updated(&given);
        assert_eq!(tree.get(&PATH), Some(value));
        check_messages(&tree, value);

        let [replace, update, own] = by_agent(value);
        let Command::ReplaceState(given) = replace else { panic!("{replace:?}") };
        let tree = agent_update::replace(&Tree::initial(), &given).unwrap();
        assert_eq!(tree.get(&PATH), Some(value));
        let Command::UpdateState { new_state, masks } = update else { panic!("{update:?}") };
        let tree = agent_update::update(&Tree::initial(), &new_state, &masks).unwrap();
        assert_eq!(tree.get(&PATH), Some(value));
        assert!(
            matches!(own, Command::Request(own) if matches!(own.ask, RequestKind::Update { .. }))
        );

        for tree in manifests(value) {
            assert_eq!(tree.unwrap().get(&PATH), Some(value));
        }
    });
}

#[test]
fn value_above_the_bound_is_refused_at_each_door_by_a_message_that_names_it() {
    for_each(256, above(), |value| {
        let RequestKind::OverLimit(reason) = by_workload(value) else { panic!("accepted") };
        assert!(reason.contains(LIMIT), "{reason}");
        for command in by_agent(value) {
            let reason = match command {
                Command::Refused(rejected) => rejected.reason,
                Command::Request(own) => match own.ask {
                    RequestKind::OverLimit(reason) => reason,
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            };
            assert!(reason.contains(LIMIT), "{reason}");
        }
        for refused in manifests(value) {
            let reason = refused.unwrap_err();
            assert!(reason.starts_with("m.yaml:") && reason.contains(LIMIT), "{reason}");
        }
    });
}

#[test]
fn refusal_names_the_config_whose_value_it_is() {
    let value = tower(MAX_NESTING + 1, 0);
    let RequestKind::OverLimit(reason) = by_workload(&value) else { panic!("accepted") };
    assert!(reason.contains("desiredState.configs.k is nested too deep"), "{reason}");
    let mut effective = state(&Node::text("x"));
    effective.effective_state = state(&value).desired_state;
    let refused = convert::from_pb(&effective).unwrap_err().to_string();
    assert!(refused.starts_with("effectiveState.configs.k is nested too deep"), "{refused}");
    // An update cannot set it, but whoever it is forwarded to decodes all of it.
    assert_eq!(convert::new_state_from_pb(&effective).unwrap_err().to_string(), refused);
    assert_eq!(parts::check_nesting(&effective).unwrap_err().to_string(), refused);
}

/// The state after an update keeps to the bound, whatever way led to it: a mask that ends deep inside of a
/// value, through sequences, and below what is there already.
#[test]
fn no_mask_makes_a_state_that_is_nested_deeper_than_the_bound() {
    let whole = tower(MAX_NESTING, 0);
    let below = ".k".repeat(MAX_NESTING);
    let new_state = convert::new_state_from_pb(&state(&whole)).unwrap();
    for end in (0..=below.len()).step_by(2) {
        let mask = Mask::parse(&format!("{MASK}{}", &below[..end]));
        let tree = update::apply(&Tree::initial(), &new_state, &[mask]).unwrap().tree;
        assert_eq!(tree.get(&PATH), Some(&whole));
    }
    for deeper in [format!("{MASK}{below}.k"), format!("{MASK}{}", ".k".repeat(500))] {
        let masks = [Mask::parse(&deeper)];
        update::apply(&Tree::initial(), &new_state, &masks).unwrap_err();
        let deepest = update::apply(&Tree::initial(), &new_state, &[Mask::parse(MASK)]).unwrap();
        update::apply(&deepest.tree, &new_state, &masks).unwrap_err();
        agent_update::update(&deepest.tree, &new_state, &masks).unwrap_err();
    }
}

/// Code that puts a state together by itself meets the bound where that becomes the state.
#[test]
fn state_that_was_put_together_too_deep_is_refused_where_it_is_checked() {
    let given = |value: Node| {
        let desired = Node::map([
            ("apiVersion", Node::text("v1")),
            ("workloads", Node::Map(Map::new())),
            ("configs", Node::map([("k", value)])),
        ]);
        Tree::default().with(DESIRED_STATE, Some(desired))
    };
    for (mappings, sequences) in [(20, 0), (0, 20), (13, 7)] {
        let fits = given(tower(mappings, sequences));
        update::apply(&Tree::initial(), &fits, &[]).unwrap();
        agent_update::replace(&Tree::initial(), &fits).unwrap();
    }
    for (mappings, sequences) in [(21, 0), (0, 21), (14, 7), (7, 14), (40, 0)] {
        let deep = given(tower(mappings, sequences));
        let refused = update::apply(&Tree::initial(), &deep, &[]).unwrap_err().to_string();
        assert!(refused.contains("desiredState.configs.k is nested too deep"), "{refused}");
        let refused = agent_update::replace(&Tree::initial(), &deep).unwrap_err().to_string();
        assert!(refused.contains(LIMIT), "{refused}");
        let items = [(PATH.to_vec(), deep.get(&PATH).cloned())];
        agent_update::set_items(&Tree::initial(), items).unwrap_err();
    }
}

/// The framing is intact, so one message that does not decode is one command that is refused.
#[test]
fn message_of_the_agent_that_does_not_decode_is_rejected_under_its_id() {
    let decode = |body: &[u8]| FromAgent::decode(body, &Limits::default());
    let replace = link::ReplaceState { state: Some(state(&tower(200, 0))) };
    let content = Some(from_agent::Content::ReplaceState(replace));
    let message = link::FromAgent { id: 9, content, rejections_only: true }.encode_to_vec();
    let FromAgent { id, rejections_only, command } = decode(&message).unwrap();
    assert_eq!((id, rejections_only), (9, true));
    assert!(matches!(&command, Command::Refused(why) if why.reason.contains(LIMIT)), "{command:?}");

    // A text that is none, in a message whose own fields can be told apart.
    let body = [&[0x08, 9, 0x12, 3, 0x0a, 1, 0xff][..], &[0x60, 0]].concat();
    let FromAgent { id, command, .. } = decode(&body).unwrap();
    assert!(matches!((id, command), (9, Command::Refused(_))));
    // Their lengths do not fit: nothing can be told apart.
    decode(&[0x08, 9, 0x12, 30, 0x0a]).unwrap_err();
    decode(&encode(&message)[..4]).unwrap_err();
}

/// The most levels of mappings, and of sequences, that a decoder takes.
fn most_of(decodes: Decodes) -> (usize, usize) {
    let most = |tower: fn(usize) -> Node| {
        (0..100).take_while(|levels| decodes(&tower(*levels))).last().unwrap()
    };
    (most(|levels| tower(levels, 0)), most(|levels| tower(0, levels)))
}

fn decodes<M: Message + Default>(message: &M) -> bool {
    M::decode(&message.encode_to_vec()[..]).is_ok()
}

fn response_with(value: &Node) -> pb::Response {
    let complete_state = Some(state(value));
    let response = pb::CompleteStateResponse { complete_state, ..Default::default() };
    pb::Response {
        request_id: "r".to_owned(),
        response_content: Some(ResponseContent::CompleteStateResponse(response)),
    }
}

type Decodes = fn(&Node) -> bool;

/// Messages that a value is in, and whether they can be decoded.
const DECODERS: [(&str, Decodes); 6] = [
    ("a request of a workload", |value| {
        let request = Some(ToAnkaiosEnum::Request(request_of(value)));
        decodes(&ToAnkaios { to_ankaios_enum: request })
    }),
    ("the same, forwarded to an agent", |value| {
        let request = Some(request_of(value));
        let forwarded = link::ForwardedRequest { instance_name: None, request };
        decodes(&link::ToAgent { content: Some(to_agent::Content::Request(forwarded)) })
    }),
    ("a state of an agent", |value| {
        let replace = link::ReplaceState { state: Some(state(value)) };
        let content = Some(from_agent::Content::ReplaceState(replace));
        decodes(&link::FromAgent { id: 1, content, rejections_only: false })
    }),
    ("an answer or event to a workload", |value| {
        let response = Some(FromAnkaiosEnum::Response(response_with(value)));
        decodes(&FromAnkaios { from_ankaios_enum: response })
    }),
    ("an answer or event to an agent", |value| {
        decodes(&link::ToAgent { content: Some(to_agent::Content::Response(response_with(value))) })
    }),
    ("an item in redb or etcd", |value| decodes(&parts::config_to_pb(value))),
];

/// The numbers of the documentation are measured here.
#[test]
fn every_decoder_behind_a_door_takes_more_levels_than_the_bound_as_documented() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let document = std::fs::read_to_string(path).unwrap();
    for (what, decodes) in DECODERS {
        let (mappings, sequences) = most_of(decodes);
        assert!(mappings > MAX_NESTING && sequences > MAX_NESTING, "{what}");
        let row = format!("| {what} | {mappings} | {sequences} |");
        assert!(document.contains(&row), "docs/operations.md lacks {row}");
    }
}
