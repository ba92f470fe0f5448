//! Messages of a workload: frame bodies in, checked messages out (docs/protocol.md#phases,
//! docs/protocol.md#messages). No generated type leaves this module.

use bytes::Bytes;
use prost::{Message, encoding::decode_varint};

use crate::{
    limits::Limits,
    pb::{
        ank_base::{self as pb, request::RequestContent},
        control_api::{ToAnkaios, to_ankaios::ToAnkaiosEnum},
    },
    state::{Instance, Mask, MaskSet, Tree, convert},
};

use super::{fault::Undecodable, outline};

/// A message of a workload, made by [`FromWorkload::decode`] for [`Input::Message`](crate::broker::Input).
#[derive(Debug)]
#[non_exhaustive]
pub enum FromWorkload {
    /// It wants to start a session.
    Hello {
        /// Its protocol version, unchecked.
        version: String,
    },
    /// It asks for something.
    #[doc(hidden)] // its content is internal
    Request(Request),
    /// An update with its new state still encoded.
    #[doc(hidden)] // its content is internal
    Sealed(SealedUpdate),
    /// A decodable message without meaning.
    Empty,
    /// An undecodable message.
    Undecodable {
        /// The id of the request, where it could still be read.
        request_id: Option<String>,
        /// The reason.
        reason: String,
    },
}

/// An update with its new state still encoded: the rules are asked about its masks before anything is
/// spent on its state.
#[derive(Debug)]
pub struct SealedUpdate {
    /// The id of the request.
    pub id: String,
    /// The parts to write; empty for all.
    pub masks: Vec<Mask>,
    /// The encoded new state, a slice of the body.
    new_state: Option<Bytes>,
    /// The encoded request, a slice of the body.
    request: Bytes,
    body: Bytes,
    /// Most masks of an update of its sender.
    most_masks: usize,
}

impl SealedUpdate {
    fn new(outline: outline::Update<'_>, body: &Bytes, most_masks: usize) -> Self {
        Self {
            masks: outline.masks.iter().map(|mask| Mask::parse(mask)).collect(),
            new_state: outline.new_state.map(|bytes| body.slice_ref(bytes)),
            request: body.slice_ref(outline.request),
            id: outline.id,
            // For `open`: an encoding with a field said twice has to be decoded as a whole.
            body: body.clone(),
            most_masks,
        }
    }

    /// The message with its new state decoded. A request among the results has the same masks.
    #[must_use]
    pub fn open(self, limits: &Limits) -> FromWorkload {
        let new_state = match self.new_state.as_deref().map(convert::new_state_from_bytes) {
            None => NewState::Missing,
            Some(Ok(tree)) => NewState::Given(tree),
            // The generated types merge fields that are said twice, and name the error.
            Some(Err(_)) => return FromWorkload::decode_all(&self.body, limits, self.most_masks),
        };
        let ask = RequestKind::Update { new_state, masks: self.masks };
        FromWorkload::Request(Request { id: self.id, ask, original: self.request })
    }
}

/// A request after all checks without the state.
#[derive(Debug)]
pub struct Request {
    /// Id for the answers; chosen by the workload, may be empty.
    pub id: String,
    /// Kind and content.
    pub ask: RequestKind,
    /// The encoded request, if it may have to be forwarded; else empty. Of an update it is a slice of the
    /// received bytes. A small request is encoded again, and so is an update with an unusual encoding:
    /// the agent's decoder cannot take every message that ours takes.
    pub original: Bytes,
}

/// Kind and content of a request.
#[derive(Debug)]
pub enum RequestKind {
    /// Reads the parts of the state at the masks, and subscribes to their changes if asked to.
    State {
        /// The masks.
        masks: MaskSet,
        /// Whether changes are to be told.
        subscribe: bool,
    },
    /// To take parts of a new state.
    Update {
        /// Where the parts come from.
        new_state: NewState,
        /// The masks; none means all parts.
        masks: Vec<Mask>,
    },
    /// The logs of these instances.
    Logs(Vec<Instance>),
    /// No more logs under this id.
    CancelLogs,
    /// No more events under this id.
    CancelEvents,
    /// A request without a known content.
    Nothing,
    /// More than a limit allows.
    OverLimit(String),
}

/// The new state of an update.
#[derive(Debug)]
pub enum NewState {
    /// The decoded state.
    Given(Tree),
    /// The request has none.
    Missing,
    /// It has an unknown number of an enum.
    Unknown(convert::ConvertError),
}

impl FromWorkload {
    /// Decodes the message in `body`, a frame without its length in front. An update stays sealed: its
    /// state is decoded after its rights are known. A faulty message is a message as well: the broker
    /// answers it.
    #[must_use]
    pub fn decode(body: &Bytes, limits: &Limits) -> Self {
        Self::decode_within(body, limits, limits.max_masks)
    }

    /// As [`decode`](Self::decode), with the bound of a commander for the masks of an update.
    #[must_use]
    pub fn decode_of_commander(body: &Bytes, limits: &Limits) -> Self {
        Self::decode_within(body, limits, limits.max_commander_masks)
    }

    fn decode_within(body: &Bytes, limits: &Limits, most_masks: usize) -> Self {
        let most = limits.max_fields;
        // Before anything is decoded: decoding is what the limit bounds.
        if outline::has_more_fields(body, most) {
            let reason =
                format!("Request has too many fields, at most {most} in one message are allowed");
            // An id lets the workload match the error with its request.
            let id = salvage_id(body).filter(|id| id.len() <= limits.max_request_id);
            return match id {
                Some(id) => Self::Request(Request {
                    id,
                    ask: RequestKind::OverLimit(reason),
                    original: Bytes::new(),
                }),
                None => Self::Undecodable { request_id: None, reason },
            };
        }
        if let Some(sealed) = Self::sealed(body, limits, most_masks) {
            return sealed;
        }
        match ToAnkaios::decode(&body[..]) {
            // An update of an unusual encoding: with the usual one it can be sealed as well, so nothing
            // of its state is converted before its rights are known.
            Ok(message) if is_update(&message) => {
                let usual: Bytes = message.encode_to_vec().into();
                // Over a limit: `Request::check` has the words for it.
                Self::sealed(&usual, limits, most_masks)
                    .unwrap_or_else(|| Self::decode_all(&usual, limits, most_masks))
            }
            message => Self::checked(message, body, limits, most_masks),
        }
    }

    /// The update in `body` with its state still encoded; `None` for any other message, for an unusual
    /// encoding, and over a limit.
    fn sealed(body: &Bytes, limits: &Limits, most_masks: usize) -> Option<Self> {
        let update = outline::update(body)?;
        let is_within = update.id.len() <= limits.max_request_id
            && over(&update.masks, most_masks, limits).is_none();
        is_within.then(|| Self::Sealed(SealedUpdate::new(update, body, most_masks)))
    }

    fn decode_all(body: &[u8], limits: &Limits, most_masks: usize) -> Self {
        Self::checked(ToAnkaios::decode(body), body, limits, most_masks)
    }

    fn checked(
        message: Result<ToAnkaios, prost::DecodeError>,
        body: &[u8],
        limits: &Limits,
        most_masks: usize,
    ) -> Self {
        match message.map(|message| message.to_ankaios_enum) {
            Ok(None) => Self::Empty,
            Ok(Some(ToAnkaiosEnum::Hello(hello))) => {
                Self::Hello { version: hello.protocol_version }
            }
            Ok(Some(ToAnkaiosEnum::Request(request))) => {
                Self::Request(Request::check_within(request, limits, most_masks))
            }
            Err(error) => Self::Undecodable {
                request_id: salvage_id(body).filter(|id| id.len() <= limits.max_request_id),
                reason: Undecodable(error).to_string(),
            },
        }
    }
}

impl Request {
    pub(super) fn check(request: pb::Request, limits: &Limits) -> Self {
        Self::check_within(request, limits, limits.max_masks)
    }

    /// With another bound for the masks of an update.
    fn check_within(request: pb::Request, limits: &Limits, most_masks: usize) -> Self {
        // Other kinds are never forwarded.
        let original = match &request.request_content {
            Some(
                RequestContent::UpdateStateRequest(_)
                | RequestContent::LogsRequest(_)
                | RequestContent::LogsCancelRequest(_),
            ) => request.encode_to_vec().into(),
            _ => Bytes::new(),
        };
        let ask = match request.request_content {
            _ if request.request_id.len() > limits.max_request_id => {
                let (len, most) = (request.request_id.len(), limits.max_request_id);
                RequestKind::OverLimit(format!(
                    "Request has an id of {len} bytes, at most {most} are allowed"
                ))
            }
            // Also of a content that a later version added: the decoder skips it.
            None => RequestKind::Nothing,
            Some(RequestContent::CompleteStateRequest(ask)) => {
                match over(&ask.field_mask, limits.max_masks, limits) {
                    Some(reason) => RequestKind::OverLimit(reason),
                    None => RequestKind::State {
                        masks: MaskSet::parse(&ask.field_mask),
                        subscribe: ask.subscribe_for_events,
                    },
                }
            }
            Some(RequestContent::UpdateStateRequest(ask)) => update(&ask, most_masks, limits),
            Some(RequestContent::LogsRequest(ask)) => {
                RequestKind::Logs(ask.workload_names.into_iter().map(instance).collect())
            }
            Some(RequestContent::LogsCancelRequest(_)) => RequestKind::CancelLogs,
            Some(RequestContent::EventsCancelRequest(_)) => RequestKind::CancelEvents,
        };
        Self { id: request.request_id, ask, original }
    }
}

fn is_update(message: &ToAnkaios) -> bool {
    let Some(ToAnkaiosEnum::Request(request)) = &message.to_ankaios_enum else { return false };
    matches!(request.request_content, Some(RequestContent::UpdateStateRequest(_)))
}

fn instance(name: pb::WorkloadInstanceName) -> Instance {
    Instance { workload: name.workload_name, agent: name.agent_name, id: name.id }
}

/// The limit exceeded by a list of masks.
fn over(masks: &[String], most: usize, limits: &Limits) -> Option<String> {
    let longest = limits.max_mask_length;
    if masks.len() > most {
        return Some(format!("Request has {} masks, at most {most} are allowed", masks.len()));
    }
    let long = masks.iter().find(|mask| mask.len() > longest)?;
    Some(format!("Request has a mask of {} bytes, at most {longest} are allowed", long.len()))
}

/// The request to update. If nested too deep, it is over a limit and not forwarded: the message to the
/// agent has one more level around it than the message of the workload.
fn update(ask: &pb::UpdateStateRequest, most_masks: usize, limits: &Limits) -> RequestKind {
    if let Some(reason) = over(&ask.update_mask, most_masks, limits) {
        return RequestKind::OverLimit(reason);
    }
    let new_state = match ask.new_state.as_ref().map(convert::new_state_from_pb) {
        None => NewState::Missing,
        Some(Ok(tree)) => NewState::Given(tree),
        Some(Err(error @ convert::ConvertError::TooDeep(_))) => {
            return RequestKind::OverLimit(format!("Could not take the new state: {error}"));
        }
        Some(Err(error)) => NewState::Unknown(error),
    };
    RequestKind::Update {
        new_state,
        // No `MaskSet`: the order counts, as each mask is applied to the result of those before.
        masks: ask.update_mask.iter().map(|mask| Mask::parse(mask)).collect(),
    }
}

/// The request id in an undecodable body.
fn salvage_id(body: &[u8]) -> Option<String> {
    const REQUEST: u64 = 3;
    const REQUEST_ID: u64 = 1;
    let request = field(body, REQUEST)?;
    String::from_utf8(field(request, REQUEST_ID)?.to_vec()).ok()
}

/// Most fields searched for a request's id: there are not that many in front of it.
const MOST_FIELDS: usize = 16;

/// The first length-delimited field `wanted` in front of anything unreadable; cut short if the bytes
/// end inside it.
fn field(mut bytes: &[u8], wanted: u64) -> Option<&[u8]> {
    for _ in 0..MOST_FIELDS {
        let key = decode_varint(&mut bytes).ok()?;
        match key & 7 {
            0 => {
                decode_varint(&mut bytes).ok()?;
            }
            1 => bytes = bytes.get(8..)?,
            2 => {
                let len = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                let value = &bytes[..len.min(bytes.len())];
                if key >> 3 == wanted {
                    return Some(value);
                }
                bytes = bytes.get(len..)?;
            }
            5 => bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(request: pb::Request) -> Vec<u8> {
        ToAnkaios { to_ankaios_enum: Some(ToAnkaiosEnum::Request(request)) }.encode_to_vec()
    }

    fn read(masks: Vec<String>) -> pb::Request {
        let ask = pb::CompleteStateRequest { field_mask: masks, subscribe_for_events: false };
        pb::Request {
            request_id: "r1".to_owned(),
            request_content: Some(RequestContent::CompleteStateRequest(ask)),
        }
    }

    #[test]
    fn id_is_read_from_what_does_not_decode() {
        let mut body = encode(read(vec!["mask".to_owned()]));
        let len = body.len();
        body[len - 2] = 0xff; // the mask is no UTF-8 now
        let FromWorkload::Undecodable { request_id, .. } =
            FromWorkload::decode(&body.clone().into(), &Limits::default())
        else {
            panic!("decoded");
        };
        assert_eq!(request_id.as_deref(), Some("r1"));
        for cut in 0..body.len() {
            let _ = FromWorkload::decode(&Bytes::copy_from_slice(&body[..cut]), &Limits::default());
        }
    }

    /// Rights are asked before a state is converted, however the update is encoded.
    #[test]
    fn update_of_any_encoding_is_sealed() {
        let state = pb::CompleteState::default();
        let update = |masks: &[&str]| {
            let update_mask = masks.iter().map(|mask| (*mask).to_owned()).collect();
            let update = pb::UpdateStateRequest { new_state: Some(state.clone()), update_mask };
            pb::Request {
                request_id: "r1".to_owned(),
                request_content: Some(RequestContent::UpdateStateRequest(update)),
            }
        };
        let plain = encode(update(&["a", "b"]));
        let inside = |behind: &[u8]| {
            let inner = [&plain[2..], behind].concat();
            [&[0x1a, u8::try_from(inner.len()).unwrap()][..], &inner].concat()
        };
        let group = [0x7b, 0x7c];
        for body in [
            plain.clone(),
            // An unknown field and a group, beside the request and in it; the id said twice; and one
            // more mask in a second update, as decoders merge both.
            [&plain[..], &[0x78, 0]].concat(),
            [&group, &plain[..]].concat(),
            inside(&[0x38, 1]),
            inside(&group),
            inside(&[0x0a, 2, b'r', b'1']),
            [&encode(update(&["a"]))[..], &encode(update(&["b"]))].concat(),
        ] {
            let limits = Limits::default();
            let FromWorkload::Sealed(sealed) = FromWorkload::decode(&body.clone().into(), &limits)
            else {
                panic!("{body:?}");
            };
            assert_eq!((sealed.id.as_str(), sealed.masks.len()), ("r1", 2), "{body:?}");
            let FromWorkload::Request(request) = sealed.open(&limits) else { panic!("{body:?}") };
            assert_eq!(request.id, "r1");
            assert!(matches!(
                request.ask,
                RequestKind::Update { new_state: NewState::Given(_), .. }
            ));
            let original = pb::Request::decode(&request.original[..]).unwrap();
            assert_eq!(original, update(&["a", "b"]));
            let few = Limits { max_masks: 1, ..Limits::default() };
            let FromWorkload::Request(request) = FromWorkload::decode(&body.into(), &few) else {
                panic!("over the limit");
            };
            assert!(matches!(request.ask, RequestKind::OverLimit(_)));
        }
    }

    #[test]
    fn id_of_what_does_not_decode_is_within_its_limit() {
        let mut request = read(vec!["mask".to_owned()]);
        request.request_id = "x".repeat(100);
        let mut body = encode(request);
        let len = body.len();
        body[len - 2] = 0xff; // the mask is no UTF-8 now
        for (most, known) in [(100, true), (99, false)] {
            let limits = Limits { max_request_id: most, ..Limits::default() };
            let decoded = FromWorkload::decode(&body.clone().into(), &limits);
            let FromWorkload::Undecodable { request_id, .. } = decoded else { panic!("decoded") };
            assert_eq!(request_id.is_some(), known);
        }
    }

    #[test]
    fn masks_at_their_limits_pass_and_one_above_is_over() {
        let limits = Limits { max_masks: 2, max_mask_length: 3, ..Limits::default() };
        let ask = |masks: &[&str]| {
            let masks = masks.iter().map(|mask| (*mask).to_owned()).collect();
            match FromWorkload::decode(&encode(read(masks)).into(), &limits) {
                FromWorkload::Request(request) => request.ask,
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(ask(&["abc", "abc"]), RequestKind::State { .. }));
        assert!(matches!(ask(&["a", "b", "c"]), RequestKind::OverLimit(_)));
        assert!(matches!(ask(&["abcd"]), RequestKind::OverLimit(_)));
    }

    #[test]
    fn commander_has_a_limit_of_its_own_for_the_masks_of_an_update_and_of_nothing_else() {
        let limits = Limits { max_masks: 1, max_commander_masks: 3, ..Limits::default() };
        let update = |masks: usize| {
            let update_mask = vec!["configs.c".to_owned(); masks];
            let ask = pb::UpdateStateRequest { new_state: None, update_mask };
            let request_content = Some(RequestContent::UpdateStateRequest(ask));
            encode(pb::Request { request_id: "r1".to_owned(), request_content })
        };
        // The same in an encoding that cannot stay sealed: the id is said twice.
        let unusual = |masks| {
            let plain = update(masks);
            let inner = [&plain[2..], &[0x0a, 2, b'r', b'1']].concat();
            [&[0x1a, u8::try_from(inner.len()).unwrap()][..], &inner].concat()
        };
        for body in [update(3), unusual(3)] {
            let decoded = FromWorkload::decode_of_commander(&body.into(), &limits);
            let FromWorkload::Sealed(sealed) = decoded else { panic!("{decoded:?}") };
            let FromWorkload::Request(opened) = sealed.open(&limits) else { panic!("not opened") };
            assert!(matches!(opened.ask, RequestKind::Update { .. }));
        }
        let is_over = |message| match message {
            FromWorkload::Request(request) => matches!(request.ask, RequestKind::OverLimit(_)),
            _ => false,
        };
        for body in [update(4), unusual(4), encode(read(vec!["a".into(), "b".into()]))] {
            assert!(is_over(FromWorkload::decode_of_commander(&body.into(), &limits)));
        }
        assert!(is_over(FromWorkload::decode(&update(3).into(), &limits)));
    }

    #[test]
    fn fields_at_their_limit_pass_and_one_above_is_over_under_the_id_of_the_request() {
        // The request, its id and content, and the masks.
        let body = encode(read(vec!["m".to_owned(); 50])).into();
        let ask = |max_fields| {
            let limits = Limits { max_fields, ..Limits::default() };
            match FromWorkload::decode(&body, &limits) {
                FromWorkload::Request(request) => (request.id, request.ask),
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(ask(53), (id, RequestKind::State { .. }) if id == "r1"));
        assert!(
            matches!(ask(52), (id, RequestKind::OverLimit(why)) if id == "r1" && why.contains("52"))
        );
    }

    #[test]
    fn id_at_its_limit_passes_and_one_above_is_over() {
        let limits = |max_request_id| Limits { max_request_id, ..Limits::default() };
        let over = |limits: &Limits| match FromWorkload::decode(
            &encode(read(Vec::new())).into(),
            limits,
        ) {
            FromWorkload::Request(request) => matches!(request.ask, RequestKind::OverLimit(_)),
            other => panic!("{other:?}"),
        };
        assert!(!over(&limits(2)) && over(&limits(1)));
    }

    #[test]
    fn message_without_content_is_empty_and_a_request_without_content_asks_nothing() {
        assert!(matches!(
            FromWorkload::decode(&Bytes::new(), &Limits::default()),
            FromWorkload::Empty
        ));
        let body = encode(pb::Request { request_id: "x".to_owned(), request_content: None });
        let FromWorkload::Request(request) =
            FromWorkload::decode(&body.clone().into(), &Limits::default())
        else {
            panic!("no request");
        };
        assert!(matches!(request.ask, RequestKind::Nothing));
    }
}
