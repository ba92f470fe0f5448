//! The outline of a frame body, read before decoding: its number of fields, and the masks of an update.
//!
//! Bytes go in. Only the texts of an update's masks are allocated, and nothing recurses. A field of two
//! bytes can become a value of some hundred. So the fields of a message are bounded beside its bytes,
//! and the broker can deny an update without a look at its state.

use prost::encoding::decode_varint;

include!(concat!(env!("OUT_DIR"), "/message_fields.rs"));

/// Messages nest at most this deep; decoders refuse more.
const MOST_LEVELS: usize = 100;

/// Key and wire type of `ToAnkaios.request`.
const REQUEST: u64 = 3;
/// Of `Request`: its id, and the kinds of content.
const REQUEST_ID: u64 = 1;
const UPDATE: u64 = 2;
const LAST_CONTENT: u64 = 6;
/// Of `UpdateStateRequest`: its state and masks.
const NEW_STATE: u64 = 1;
const UPDATE_MASK: u64 = 2;

/// A field: its number and, if it is length-delimited, its bytes.
struct Field<'a> {
    number: u64,
    bytes: Option<&'a [u8]>,
}

/// A field, or one end of a group: proto2 has fields between such ends, and decoders skip them.
enum Part<'a> {
    Field(Field<'a>),
    GroupStart,
    GroupEnd,
}

/// Takes the next field from the front of `bytes`; `None` at the end, where a decoder finds no field, and
/// at a group.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<Field<'a>> {
    match next_part(bytes)? {
        Part::Field(field) => Some(field),
        Part::GroupStart | Part::GroupEnd => None,
    }
}

fn next_part<'a>(bytes: &mut &'a [u8]) -> Option<Part<'a>> {
    // As for a decoder: a key has at most 32 bits, and there is no field 0.
    let key = decode_varint(bytes).ok().filter(|key| (8..1 << 32).contains(key))?;
    let number = key >> 3;
    let skip = match key & 7 {
        0 => {
            decode_varint(bytes).ok()?;
            0
        }
        1 => 8,
        2 => {
            let len = usize::try_from(decode_varint(bytes).ok()?).ok()?;
            let (value, rest) = bytes.split_at_checked(len)?;
            *bytes = rest;
            return Some(Part::Field(Field { number, bytes: Some(value) }));
        }
        3 => return Some(Part::GroupStart),
        4 => return Some(Part::GroupEnd),
        5 => 4,
        _ => return None,
    };
    *bytes = bytes.get(skip..)?;
    Some(Part::Field(Field { number, bytes: None }))
}

/// Whether the `ToAnkaios` in `body` has more than `most` fields, counted over all messages inside.
/// Nonsense is left to the decoder.
pub(super) fn has_more_fields(body: &[u8], most: usize) -> bool {
    // Two bytes are the least that a field takes.
    if body.len() / 2 <= most {
        return false;
    }
    let mut count = 0;
    // A stack of its own: the depth of a hostile message must not become a depth of calls.
    let mut open = vec![(body, TO_ANKAIOS)];
    let mut groups = 0_usize;
    while let Some((bytes, kind)) = open.last_mut() {
        let field = match next_part(bytes) {
            Some(Part::GroupEnd) if groups > 0 => {
                groups -= 1;
                continue;
            }
            None | Some(Part::GroupEnd) => {
                // A decoder fails if a group has not ended with its message.
                groups = 0;
                open.pop();
                continue;
            }
            Some(Part::GroupStart) => {
                groups += 1;
                None
            }
            Some(Part::Field(field)) => Some(field),
        };
        count += 1;
        if count > most {
            return true;
        }
        // A decoder skips the fields in a group, whatever their numbers are.
        let Some(field) = field.filter(|_| groups == 0) else { continue };
        let inner = MESSAGE_FIELDS[*kind].iter().find(|(number, _)| *number == field.number);
        if let (Some((_, kind)), Some(bytes)) = (inner, field.bytes)
            // The body itself is no level of a decoder.
            && open.len() <= MOST_LEVELS
        {
            open.push((bytes, *kind));
        }
    }
    false
}

/// The parts of an update, before its new state is decoded.
pub(super) struct Update<'a> {
    /// The id of the request.
    pub(super) id: String,
    /// The masks, maybe too many or too long ones.
    pub(super) masks: Vec<String>,
    /// The encoded `Request`. Decoders take it if they take the new state: the rest is checked here.
    pub(super) request: &'a [u8],
    /// The encoded new state.
    pub(super) new_state: Option<&'a [u8]>,
}

/// The outline of the update in `body`; `None` for any other message, and for an unusual one, such as
/// with a field said twice. The generated types decode these.
pub(super) fn update(body: &[u8]) -> Option<Update<'_>> {
    let request = only(body, REQUEST)?;
    let (mut id, mut content) = (None, None);
    let mut rest = request;
    while !rest.is_empty() {
        let field = next(&mut rest)?;
        let place = match field.number {
            REQUEST_ID => &mut id,
            UPDATE..=LAST_CONTENT => &mut content,
            _ => return None,
        };
        // Said twice: a decoder would merge them, so the outline does not know the content.
        if place.replace(field).is_some() {
            return None;
        }
    }
    let content = content.filter(|content| content.number == UPDATE)?.bytes?;
    let id = id.map_or(Some(String::new()), |id| text(id.bytes?))?;
    let (masks, new_state) = state_and_masks(content)?;
    Some(Update { id, masks, request, new_state })
}

/// Numbers of the content of an agent's message, and of those with a state.
// 1 is the id, and 12 is `rejectionsOnly`: neither is a content.
const FROM_AGENT_CONTENT: std::ops::RangeInclusive<u64> = 2..=11;
pub(super) const REPLACE_STATE: u64 = 5;
pub(super) const UPDATE_STATE: u64 = 6;

/// The content of an agent's message with a state: its number, its masks and the encoded state; `None`
/// for any other message, and for an unusual one.
pub(super) fn agent_state(mut body: &[u8]) -> Option<(u64, Vec<String>, &[u8])> {
    let mut content = None;
    while !body.is_empty() {
        let field = next(&mut body)?;
        if FROM_AGENT_CONTENT.contains(&field.number) && content.replace(field).is_some() {
            return None;
        }
    }
    let content = content.filter(|own| [REPLACE_STATE, UPDATE_STATE].contains(&own.number))?;
    let (masks, state) = state_and_masks(content.bytes?)?;
    Some((content.number, masks, state?))
}

/// The masks and the encoded state of a content with both under these numbers.
fn state_and_masks(mut content: &[u8]) -> Option<(Vec<String>, Option<&[u8]>)> {
    let (mut masks, mut state) = (Vec::new(), None);
    while !content.is_empty() {
        let field = next(&mut content)?;
        match field.number {
            UPDATE_MASK => masks.push(text(field.bytes?)?),
            NEW_STATE if state.is_none() => state = Some(field.bytes?),
            NEW_STATE => return None,
            _ => {}
        }
    }
    Some((masks, state))
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// The bytes of the field, if it is the only one.
fn only(mut bytes: &[u8], number: u64) -> Option<&[u8]> {
    let field = next(&mut bytes).filter(|field| field.number == number)?;
    field.bytes.filter(|_| bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;
    use crate::pb::{
        ank_base::{self as pb, request::RequestContent},
        control_api::{ToAnkaios, to_ankaios::ToAnkaiosEnum},
    };

    fn body(content: RequestContent) -> Bytes {
        let request = pb::Request { request_id: "r".to_owned(), request_content: Some(content) };
        let content = Some(ToAnkaiosEnum::Request(request));
        ToAnkaios { to_ankaios_enum: content }.encode_to_vec().into()
    }

    fn update_of(state: pb::CompleteState, masks: &[&str]) -> Bytes {
        let update_mask = masks.iter().map(|mask| (*mask).to_owned()).collect();
        let update = pb::UpdateStateRequest { new_state: Some(state), update_mask };
        body(RequestContent::UpdateStateRequest(update))
    }

    /// State with `count` empty texts as configs.
    fn configs(count: usize) -> pb::CompleteState {
        let configs = (0..count).map(|n| (format!("k{n}"), pb::ConfigItem::default())).collect();
        let state = pb::State { configs: Some(pb::ConfigMap { configs }), ..Default::default() };
        pb::CompleteState { desired_state: Some(state), ..Default::default() }
    }

    #[test]
    fn fields_of_all_messages_are_counted_and_one_above_the_limit_is_too_many() {
        // Request, its id, the update, its state, the desired state, its configs; an entry and a
        // key for each config, as its value is empty.
        let count = 6 + 2 * 100;
        let body = update_of(configs(100), &[]);
        assert!(!has_more_fields(&body, count) && has_more_fields(&body, count - 1));
        let body = update_of(configs(100), &["a", "b"]);
        assert!(!has_more_fields(&body, count + 2) && has_more_fields(&body, count + 1));
        let masks = vec![String::new(); 500];
        let read = pb::CompleteStateRequest { field_mask: masks, subscribe_for_events: false };
        let read = self::body(RequestContent::CompleteStateRequest(read));
        assert!(!has_more_fields(&read, 503) && has_more_fields(&read, 502));
    }

    #[test]
    fn fields_of_every_kind_are_counted() {
        let empty = |key: u8| [key, 0].repeat(10_000);
        let wrap = |key: u8, bytes: Vec<u8>| {
            let mut all = vec![key];
            prost::encoding::encode_varint(bytes.len() as u64, &mut all);
            [all, bytes].concat()
        };
        // Of a state: workloads, configs; of a workload: tags, dependencies, files, rules.
        let inner = [
            wrap(0x12, empty(0x0a)),
            wrap(0x1a, empty(0x0a)),
            wrap(0x12, wrap(0x0a, wrap(0x12, wrap(0x4a, empty(0x0a))))),
            wrap(0x12, wrap(0x0a, wrap(0x12, wrap(0x3a, empty(0x0a))))),
            wrap(0x12, wrap(0x0a, wrap(0x12, wrap(0x22, empty(0x0a))))),
            // Unknown fields, and scalars said again and again.
            empty(0x78),
            wrap(0x12, wrap(0x0a, wrap(0x12, empty(0x10)))),
        ];
        for state in inner {
            let body = wrap(0x1a, wrap(0x12, wrap(0x0a, wrap(0x0a, state.clone()))));
            assert!(has_more_fields(&body, 9_999), "{:?}", &state[..20]);
            assert!(!has_more_fields(&body, 10_010), "{:?}", &state[..20]);
        }
    }

    /// A decoder skips a group in an unknown field, and goes on behind it.
    #[test]
    fn fields_in_and_behind_groups_are_counted() {
        let fields = |count: usize| [0x1a, 0].repeat(count);
        let group = |inner: &[u8]| [&[0x7b], inner, &[0x7c]].concat();
        for (body, count) in [
            ([group(&[]), fields(100)].concat(), 101),
            ([group(&fields(100)), fields(100)].concat(), 201),
            ([group(&group(&fields(7))), group(&[]), fields(100)].concat(), 110),
            // Inside of a request.
            ([vec![0x1a, 202], vec![1], group(&[]), fields(100)].concat(), 102),
        ] {
            assert!(ToAnkaios::decode(&body[..]).is_ok(), "{body:?}");
            assert!(!has_more_fields(&body, count) && has_more_fields(&body, count - 1), "{count}");
        }
        // The end of a group that did not begin: a decoder fails here.
        assert!(!has_more_fields(&[&[0x7c][..], &fields(100)].concat(), 2));
    }

    #[test]
    fn fields_of_the_deepest_level_that_decodes_are_counted() {
        let wrap = |key: u8, bytes: &[u8]| {
            let mut all = vec![key];
            prost::encoding::encode_varint(bytes.len() as u64, &mut all);
            [&all, bytes].concat()
        };
        let deepest = |levels: usize| {
            // A config is an array of arrays; the innermost one has a thousand empty items.
            let array = [0x0a, 0].repeat(1_000);
            let item =
                (0..levels).fold(wrap(0x12, &array), |item, _| wrap(0x12, &wrap(0x0a, &item)));
            // Entry and name of the configs, the configs, desired state, new state, update, request.
            let path = [0x12, 0x0a, 0x1a, 0x0a, 0x0a, 0x12, 0x1a];
            path.iter().fold(item, |body, key| wrap(*key, &body))
        };
        let decodes = |levels: &usize| ToAnkaios::decode(&deepest(*levels)[..]).is_ok();
        let most = (1..120).filter(decodes).max().unwrap();
        assert!((30..60).contains(&most), "{most}");
        for levels in 1..=most {
            assert!(has_more_fields(&deepest(levels), 1_000), "{levels}");
        }
    }

    #[test]
    fn masks_of_an_update_are_known_before_its_state_is_decoded() {
        let body = update_of(configs(3), &["a.b", ""]);
        let update = update(&body).unwrap();
        assert_eq!(
            (update.id.as_str(), &update.masks[..]),
            ("r", &["a.b".into(), String::new()][..])
        );
        let other = self::body(RequestContent::EventsCancelRequest(pb::EventsCancelRequest {}));
        assert!(super::update(&other).is_none());
    }

    /// A decoder merges a field said twice. The outline must agree with the later decoding, so it gives
    /// up.
    #[test]
    fn update_that_is_said_in_parts_is_left_to_the_decoder() {
        let one = update_of(configs(1), &["a"]);
        let twice = Bytes::from([&one[..], &one[..]].concat());
        assert!(update(&twice).is_none());
        // Twice the content in one request, and another content behind the update.
        for behind in [&one[5..], &[0x32, 0][..]] {
            let inner = [&one[2..], behind].concat();
            let body = [&[0x1a, u8::try_from(inner.len()).unwrap()][..], &inner].concat();
            assert!(update(&Bytes::from(body)).is_none());
        }
        for cut in 1..one.len() {
            assert!(update(&one.slice(..cut)).is_none(), "{cut}");
        }
    }
}
