//! Decoder: bytes of a protobuf message in, the node of its kind out.
//!
//! It walks the table of fields, so no generated type is built on the way. Two encodings of one message
//! can differ in the order of fields; both decode. A field said twice has to be merged with its first
//! value: the decoder reports such a message as malformed, and its caller lets the generated types
//! merge it ([`super::from_pb`]). So does a group, which only a message with unknown fields can have.
//! The decoder accepts no message that the generated types reject.

use prost::encoding::{WireType, decode_key, decode_varint};

use super::ConvertError::{self, Malformed, TooDeep};
use crate::{
    limits::MAX_NESTING,
    state::{
        Key, Map, Node,
        schema::{Choice, ExecutionKind, Kind, MOST_FIELDS, Presence, Record, Variant},
        validate::MAX_NAME,
    },
};

/// Whether a read-only part with an unknown enum value rejects the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadOnly {
    /// It does.
    Checked,
    /// The part is left out instead: an update cannot set it anyway.
    Lenient,
}

/// Decodes a message of this kind.
pub(super) fn decode(kind: &Kind, bytes: &[u8], read_only: ReadOnly) -> Result<Node, ConvertError> {
    let mut decoder = Decoder { read_only, unknown: None, levels: MAX_NESTING };
    let node = decoder.message(kind, bytes)?;
    // Only here: a message that is malformed as well has that fault first.
    decoder.unknown.map_or(Ok(node), |number| Err(ConvertError::UnknownEnum(number)))
}

struct Decoder {
    read_only: ReadOnly,
    /// The first unknown enum value.
    unknown: Option<i32>,
    /// Levels that a config may still have below this place: the bound of all recursion.
    levels: usize,
}

/// The fields of a message in the order of the wire.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed length: no field of the state.
    Fixed,
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u32, Value<'a>), ConvertError> {
        let bytes = &mut self.0;
        let (number, wire_type) = decode_key(bytes).map_err(|_| Malformed)?;
        let (len, is_text) = match wire_type {
            WireType::Varint => {
                let value = decode_varint(bytes).map_err(|_| Malformed)?;
                return Ok((number, Value::Number(value)));
            }
            WireType::LengthDelimited => {
                let len = decode_varint(bytes).map_err(|_| Malformed)?;
                (usize::try_from(len).map_err(|_| Malformed)?, true)
            }
            WireType::ThirtyTwoBit => (4, false),
            WireType::SixtyFourBit => (8, false),
            WireType::StartGroup | WireType::EndGroup => return Err(Malformed),
        };
        let (value, rest) = bytes.split_at_checked(len).ok_or(Malformed)?;
        *bytes = rest;
        Ok((number, if is_text { Value::Bytes(value) } else { Value::Fixed }))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), ConvertError>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.read())
    }
}

impl<'a> Value<'a> {
    fn bytes(self) -> Result<&'a [u8], ConvertError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed) }
    }

    fn text(self) -> Result<&'a str, ConvertError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    fn number(self) -> Result<u64, ConvertError> {
        if let Self::Number(number) = self { Ok(number) } else { Err(Malformed) }
    }

    /// As a decoder of protobuf reads an enum: the lower 32 bits.
    fn choice(self) -> Result<i32, ConvertError> {
        Ok(self.number()? as i32)
    }
}

/// Sets a value once.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), ConvertError> {
    if place.replace(value).is_some() { Err(Malformed) } else { Ok(()) }
}

impl Decoder {
    fn message(&mut self, kind: &Kind, bytes: &[u8]) -> Result<Node, ConvertError> {
        match kind {
            Kind::Record(record) => Ok(Node::Map(self.record(record, bytes)?)),
            Kind::Map(value) | Kind::LargeMap(value) => self.map(value, bytes),
            Kind::List(value) => self.list(value, bytes),
            Kind::OneOf(variants) => self.one_of(variants, bytes),
            Kind::Execution(kinds) => self.execution(kinds, bytes),
            Kind::Config => self.config(bytes),
            Kind::Number(most) => {
                // As a decoder reads a scalar: the last one counts, and spare high bits are cut.
                let mut number = 0;
                for field in Fields(bytes) {
                    if let (1, value) = field? {
                        number = value.number()? & most;
                    }
                }
                Ok(Node::Uint(number))
            }
            Kind::Text | Kind::Choice(_) | Kind::Repeated(_) => Err(Malformed),
        }
    }

    fn value(&mut self, kind: &Kind, value: Value<'_>) -> Result<Node, ConvertError> {
        match kind {
            Kind::Text => Ok(Node::text(value.text()?)),
            Kind::Choice(choices) => Ok(self.choice(choices, value.choice()?)),
            message => self.message(message, value.bytes()?),
        }
    }

    fn default(&mut self, kind: &Kind) -> Result<Node, ConvertError> {
        match kind {
            Kind::Text => Ok(Node::text("")),
            Kind::Choice(choices) => Ok(self.choice(choices, 0)),
            Kind::Repeated(_) => Ok(Node::seq([])),
            // An absent value is the default, and the default of a message has no bytes.
            message => self.message(message, &[]),
        }
    }

    fn choice(&mut self, choices: &[Choice], number: i32) -> Node {
        match choices.iter().find(|(own, _)| *own == number) {
            Some((_, name)) => Node::text(name),
            None => {
                self.unknown.get_or_insert(number);
                Node::Unset
            }
        }
    }

    fn record(&mut self, record: &Record, bytes: &[u8]) -> Result<Map<Node>, ConvertError> {
        // By place in the table: one pass over the bytes, in any order of fields.
        let mut values: [Option<Node>; MOST_FIELDS] = [const { None }; MOST_FIELDS];
        let mut lists: Vec<(usize, Vec<Node>)> = Vec::new();
        for entry in Fields(bytes) {
            let (number, value) = entry?;
            // A field of a later version is skipped, as by the generated types.
            let Some((place, field)) = record.by_number(number) else { continue };
            // The items of a repeated field need not stand side by side.
            if let Kind::Repeated(kind) = field.kind {
                let item = self.value(kind, value)?;
                match lists.iter_mut().find(|(own, _)| *own == place) {
                    Some((_, list)) => list.push(item),
                    None => lists.push((place, vec![item])),
                }
                continue;
            }
            // An unknown number from before rejects the message, with or without this part.
            let before = self.unknown;
            let mut node =
                self.value(&field.kind, value).map_err(|error| within(field.name, error))?;
            if self.unknown != before && field.read_only && self.read_only == ReadOnly::Lenient {
                self.unknown = before;
                node = Node::Unset;
            }
            once(&mut values[place], node)?;
        }
        for (place, list) in lists {
            values[place] = Some(Node::seq(list));
        }
        let fields = || record.fields.iter().zip(&values);
        if fields().filter(|(own, node)| own.presence == Presence::Either && node.is_some()).count()
            > 1
        {
            return Err(Malformed); // the last one on the wire counts
        }
        let mut entries = Vec::with_capacity(record.fields.len());
        for (field, value) in record.fields.iter().zip(values) {
            let value = match value {
                // Emptied above by `ReadOnly::Lenient`.
                Some(Node::Unset) if field.read_only => continue,
                Some(node)
                    if field.presence == Presence::Collection && node.is_empty_collection() =>
                {
                    continue;
                }
                Some(node) => node,
                None if field.presence == Presence::Always => self.default(&field.kind)?,
                None => continue,
            };
            entries.push((Key::from(field.name), value));
        }
        Ok(entries.into_iter().collect())
    }

    fn map(&mut self, kind: &Kind, bytes: &[u8]) -> Result<Node, ConvertError> {
        let mut entries = Vec::new();
        for field in Fields(bytes) {
            let (1, entry) = field? else { continue };
            let (mut key, mut value) = (None, None);
            for field in Fields(entry.bytes()?) {
                match field? {
                    (1, name) => once(&mut key, name.text()?)?,
                    (2, own) => once(&mut value, own)?,
                    _ => {}
                }
            }
            let key = key.unwrap_or_default();
            let value = match value {
                Some(value) => self.value(kind, value),
                None => self.default(kind),
            };
            entries.push((Key::from(key), value.map_err(|error| within(key, error))?));
        }
        map_of(entries)
    }

    fn list(&mut self, kind: &Kind, bytes: &[u8]) -> Result<Node, ConvertError> {
        let mut values = Vec::new();
        for field in Fields(bytes) {
            if let (1, value) = field? {
                values.push(self.value(kind, value)?);
            }
        }
        Ok(Node::seq(values))
    }

    fn one_of(&mut self, variants: &[Variant], bytes: &[u8]) -> Result<Node, ConvertError> {
        let mut node = None;
        for field in Fields(bytes) {
            let (number, value) = field?;
            let variant = variants.iter().find(|(own, ..)| *own == number);
            let Some((_, name, record)) = variant else { continue };
            // The variant's fields and its name make one record in the tree.
            let mut fields = self.record(record, value.bytes()?)?;
            fields.insert("type", Node::text(name));
            once(&mut node, Node::Map(fields))?;
        }
        // Also for a variant of a later version: validation refuses a rule without a kind.
        Ok(node.unwrap_or(Node::Unset))
    }

    fn execution(&mut self, kinds: &[ExecutionKind], bytes: &[u8]) -> Result<Node, ConvertError> {
        let (mut info, mut state) = (None, None);
        for field in Fields(bytes) {
            let (number, value) = field?;
            if number == 1 {
                once(&mut info, ("additionalInfo", Node::text(value.text()?)))?;
            } else if let Some((_, name, sub_states)) = kinds.iter().find(|own| own.0 == number) {
                let sub_state = self.choice(sub_states, value.choice()?);
                once(&mut state, [("state", Node::text(name)), ("subState", sub_state)])?;
            }
        }
        Ok(Node::map(info.into_iter().chain(state.into_iter().flatten())))
    }

    fn config(&mut self, bytes: &[u8]) -> Result<Node, ConvertError> {
        let mut node = None;
        for field in Fields(bytes) {
            let own = match field? {
                (1, value) => Node::text(value.text()?),
                (2, value) => self.config_below(&Kind::List(&Kind::Config), value.bytes()?)?,
                (3, value) => self.config_below(&Kind::Map(&Kind::Config), value.bytes()?)?,
                _ => continue,
            };
            once(&mut node, own)?;
        }
        Ok(node.unwrap_or(Node::Unset))
    }

    /// A sequence or mapping in a config: one more level.
    fn config_below(&mut self, kind: &Kind, bytes: &[u8]) -> Result<Node, ConvertError> {
        // The path of the error ends at the config's own name.
        let too_deep = || TooDeep(String::new());
        self.levels = self.levels.checked_sub(1).ok_or_else(too_deep)?;
        let node = self.message(kind, bytes);
        self.levels += 1;
        node.map_err(|error| if let TooDeep(_) = error { too_deep() } else { error })
    }
}

/// A key that a map has twice replaces the first: that is left to the generated types.
fn map_of(entries: Vec<(Key, Node)>) -> Result<Node, ConvertError> {
    let len = entries.len();
    let map: Map<Node> = entries.into_iter().collect();
    if map.len() == len { Ok(Node::Map(map)) } else { Err(Malformed) }
}

/// The error with one more name in front of its path.
pub(super) fn within(name: &str, error: ConvertError) -> ConvertError {
    let TooDeep(path) = error else { return error };
    // A longer name is invalid, and need not be repeated whole.
    let name: String = name.chars().take(MAX_NAME).collect();
    TooDeep(if path.is_empty() { name } else { format!("{name}.{path}") })
}
