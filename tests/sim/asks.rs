//! What workloads say, as the bytes that they write.

use std::fmt;

use fifogate::pb::{
    ank_base::{self as pb, request::RequestContent},
    control_api::{Hello, ToAnkaios, to_ankaios::ToAnkaiosEnum},
};
use prost::Message;
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::{access::Rules, pbs, words};

/// What a request asks for.
#[derive(Clone)]
pub(crate) enum RequestKind {
    State { masks: Vec<String>, subscribe: bool },
    Update { new: Option<Value>, masks: Vec<String>, unknown: Unknown },
    Logs(Vec<String>),
    CancelLogs,
    CancelEvents,
    Nothing,
}

/// Where a new state holds a number that its enum does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    Nowhere,
    Desired,
    /// Where an update can set nothing.
    Effective,
}

/// Something that is said.
#[derive(Clone, Debug)]
pub(crate) enum Saying {
    Hello(&'static str),
    Request {
        id: String,
        ask: RequestKind,
    },
    /// A request of which all but the id is spoiled.
    Spoiled {
        id: String,
    },
    /// Nothing that decodes.
    Noise,
    Empty,
}

impl fmt::Debug for RequestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { masks, subscribe: true } => write!(f, "to be told of {masks:?}"),
            Self::State { masks, .. } => write!(f, "for {masks:?}"),
            Self::Update { new, masks, unknown } => {
                let new = new.as_ref().map(Value::to_string);
                write!(f, "to take {masks:?} of {} (unknown: {unknown:?})", new.unwrap_or_default())
            }
            Self::Logs(names) => write!(f, "for the logs of {names:?}"),
            Self::CancelLogs => f.write_str("for no more logs"),
            Self::CancelEvents => f.write_str("to be told no more"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

impl Saying {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let whole = |content| ToAnkaios { to_ankaios_enum: Some(content) }.encode_to_vec();
        match self {
            Self::Hello(version) => {
                whole(ToAnkaiosEnum::Hello(Hello { protocol_version: (*version).to_owned() }))
            }
            Self::Request { id, ask } => whole(ToAnkaiosEnum::Request(ask.request(id))),
            Self::Spoiled { id } => {
                let ask = RequestKind::State { masks: vec!["mask".to_owned()], subscribe: false };
                let mut bytes = whole(ToAnkaiosEnum::Request(ask.request(id)));
                *bytes.last_mut().unwrap() = 0xff; // the mask is no UTF-8 now
                bytes
            }
            Self::Noise => vec![0x0f, 0xff, 0xff],
            Self::Empty => Vec::new(),
        }
    }
}

impl RequestKind {
    pub(crate) fn request(&self, id: &str) -> pb::Request {
        let content = match self {
            Self::State { masks, subscribe } => {
                Some(RequestContent::CompleteStateRequest(pb::CompleteStateRequest {
                    field_mask: masks.clone(),
                    subscribe_for_events: *subscribe,
                }))
            }
            Self::Update { new, masks, unknown } => {
                Some(RequestContent::UpdateStateRequest(pb::UpdateStateRequest {
                    new_state: new.as_ref().map(|new| new_state(new, *unknown)),
                    update_mask: masks.clone(),
                }))
            }
            Self::Logs(names) => Some(RequestContent::LogsRequest(pb::LogsRequest {
                workload_names: names.iter().map(|name| instance(name)).collect(),
                ..pb::LogsRequest::default()
            })),
            Self::CancelLogs => Some(RequestContent::LogsCancelRequest(pb::LogsCancelRequest {})),
            Self::CancelEvents => {
                Some(RequestContent::EventsCancelRequest(pb::EventsCancelRequest {}))
            }
            Self::Nothing => None,
        };
        pb::Request { request_id: id.to_owned(), request_content: content }
    }

    /// The masks, if the request has such.
    pub(crate) fn masks(&self) -> &[String] {
        match self {
            Self::State { masks, .. } | Self::Update { masks, .. } => masks,
            _ => &[],
        }
    }
}

fn instance(name: &str) -> pb::WorkloadInstanceName {
    pb::WorkloadInstanceName {
        workload_name: name.to_owned(),
        agent_name: "n1".to_owned(),
        id: "1".to_owned(),
    }
}

fn new_state(new: &Value, unknown: Unknown) -> pb::CompleteState {
    let mut state = pbs::complete_state(new, false);
    let spoil = |state: &mut pb::State| {
        let workload = pb::Workload { restart_policy: Some(7), ..pb::Workload::default() };
        let workloads = &mut state.workloads.get_or_insert_default().workloads;
        workloads.insert("unknown".to_owned(), workload);
    };
    match unknown {
        Unknown::Nowhere => {}
        Unknown::Desired => spoil(state.desired_state.get_or_insert_default()),
        Unknown::Effective => spoil(state.effective_state.get_or_insert_default()),
    }
    state
}

/// Something that a workload with these rules may say in this state.
pub(crate) fn saying(rng: &mut ChaCha8Rng, state: &Value, access: Option<&Value>) -> Saying {
    let id = match rng.random_range(0..30) {
        0 => String::new(),
        _ => words::one_of(rng, &words::IDS).to_owned(),
    };
    match rng.random_range(0..200) {
        0..2 => Saying::Hello("1.99.7-pre+b"),
        2 => Saying::Hello(words::one_of(rng, &["2.0.0", "", "v1.0.0"])),
        3..6 => Saying::Spoiled { id },
        6..8 => Saying::Noise,
        8..10 => Saying::Empty,
        _ => Saying::Request { id, ask: allowed_ask(rng, state, access) },
    }
}

/// Something to ask for; most of the time, something that is allowed.
fn allowed_ask(rng: &mut ChaCha8Rng, state: &Value, access: Option<&Value>) -> RequestKind {
    let rules = Rules::of(access);
    let mut found = ask(rng, state, access);
    for _ in 0..*[0, 10, 30].choose(rng).unwrap() {
        let allowed = match &found {
            RequestKind::State { masks, .. } => rules.may_read(masks),
            RequestKind::Update { masks, .. } => rules.may_write(masks),
            _ => true,
        };
        if allowed {
            break;
        }
        found = ask(rng, state, access);
    }
    found
}

fn ask(rng: &mut ChaCha8Rng, state: &Value, access: Option<&Value>) -> RequestKind {
    match rng.random_range(0..100) {
        0..15 => RequestKind::State { masks: masks(rng, access), subscribe: false },
        15..35 => RequestKind::State { masks: masks(rng, access), subscribe: true },
        35..88 => update(rng, state),
        88..93 => RequestKind::CancelEvents,
        93..96 => {
            let names = (0..rng.random_range(0..3)).map(|_| words::one_of(rng, &words::WORKLOADS));
            RequestKind::Logs(names.map(str::to_owned).collect())
        }
        96..98 => RequestKind::CancelLogs,
        _ => RequestKind::Nothing,
    }
}

pub(crate) fn masks(rng: &mut ChaCha8Rng, access: Option<&Value>) -> Vec<String> {
    let count = *[0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3].choose(rng).unwrap();
    let mut masks: Vec<_> = (0..count)
        .map(|_| match rng.random_bool(0.5) {
            true => words::mask(rng),
            false => words::mask_within(rng, access),
        })
        .collect();
    match rng.random_range(0..100) {
        0 => masks.push("m".repeat(101)),
        1 => masks = vec!["*".to_owned(); 9],
        _ => {}
    }
    masks
}

pub(crate) fn update(rng: &mut ChaCha8Rng, state: &Value) -> RequestKind {
    let change = words::change(rng, state);
    let unknown = match rng.random_range(0..60) {
        0 => Unknown::Desired,
        1 => Unknown::Effective,
        _ => Unknown::Nowhere,
    };
    let new = (!rng.random_bool(0.01)).then_some(change.new);
    RequestKind::Update { new, masks: change.masks, unknown }
}
