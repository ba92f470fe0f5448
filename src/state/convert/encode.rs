//! Encoder: tree in, bytes of its message out, without a generated type in between.
//!
//! Bytes are written from the last to the first: then the length in front of a message is known in
//! time. They equal the encoding by the generated types: fields by number, map entries by key, defaults
//! left out.

use super::{Fill, LeafCache};
use crate::state::{
    Key, Map, Node, Tree,
    schema::{COMPLETE_STATE, Choice, ExecutionKind, Field, Kind, Presence, Record},
};

/// Kinds of fields on the wire.
const VARINT: u32 = 0;
const LENGTH_DELIMITED: u32 = 2;

/// A buffer filled from its end.
#[derive(Debug, Default)]
pub(crate) struct Writer<'p> {
    buffer: Vec<u8>,
    /// Start of the written bytes.
    start: usize,
    /// Encoded leaves of earlier answers.
    leaf_cache: Option<&'p mut LeafCache>,
}

impl<'p> Writer<'p> {
    /// A writer with a cache: it copies known leaves from `leaf_cache`, and adds new ones.
    #[must_use]
    pub(crate) fn with(leaf_cache: &'p mut LeafCache, fill: Fill) -> Self {
        let mut writer = Self::default();
        writer.reserve(leaf_cache.expected(fill));
        Self { leaf_cache: Some(leaf_cache), ..writer }
    }

    /// The written bytes start at this place of the buffer; the rest is a small part of it.
    #[must_use]
    pub(crate) fn finish(self, fill: Fill) -> (Vec<u8>, usize) {
        let Self { mut buffer, mut start, leaf_cache } = self;
        let len = buffer.len() - start;
        if let Some(leaf_cache) = leaf_cache {
            leaf_cache.end_answer(fill, len);
        }
        // An answer may wait long in an outbox, so more than an eighth unused is given back.
        if start > len / 8 {
            buffer.drain(..start);
            buffer.shrink_to_fit();
            start = 0;
        }
        (buffer, start)
    }

    fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Makes room for this many more bytes.
    #[inline]
    fn reserve(&mut self, more: usize) {
        if self.start < more {
            self.grow(more);
        }
    }

    // Apart from `reserve`, so that writing a few bytes is a comparison and a copy.
    #[cold]
    fn grow(&mut self, more: usize) {
        let len = self.len();
        let capacity = (2 * self.buffer.len()).max(len + more).max(128);
        let mut larger = vec![0; capacity];
        larger[capacity - len..].copy_from_slice(&self.buffer[self.start..]);
        self.buffer = larger;
        self.start = capacity - len;
    }

    fn put(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let end = self.start;
        self.start -= bytes.len();
        self.buffer[self.start..end].copy_from_slice(bytes);
    }

    #[inline]
    fn put_byte(&mut self, byte: u8) {
        self.reserve(1);
        self.start -= 1;
        self.buffer[self.start] = byte;
    }

    #[inline]
    fn put_varint(&mut self, value: u64) {
        // Nearly all are keys and short lengths.
        if value < 0x80 { self.put_byte(value as u8) } else { self.put_long_varint(value) }
    }

    fn put_long_varint(&mut self, value: u64) {
        let groups = prost::encoding::encoded_len_varint(value);
        for group in (0..groups).rev() {
            let more = if group + 1 < groups { 0x80 } else { 0 };
            self.put_byte((value >> (7 * group) & 0x7f) as u8 | more);
        }
    }

    fn put_key(&mut self, field: u32, kind: u32) {
        self.put_varint((field << 3 | kind).into());
    }

    /// A number, also if it is zero.
    fn number(&mut self, field: u32, value: u64) {
        self.put_varint(value);
        self.put_key(field, VARINT);
    }

    /// A text, also if it is empty.
    pub(crate) fn text(&mut self, field: u32, text: &str) {
        self.put(text.as_bytes());
        self.put_varint(text.len() as u64);
        self.put_key(field, LENGTH_DELIMITED);
    }

    /// Texts in their order.
    pub(crate) fn texts<'a>(
        &mut self,
        field: u32,
        texts: impl DoubleEndedIterator<Item = &'a str>,
    ) {
        texts.rev().for_each(|text| self.text(field, text));
    }

    /// Writes a message with the fields written by `write`, the last first.
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let before = self.len();
        write(self);
        self.put_varint((self.len() - before) as u64);
        self.put_key(field, LENGTH_DELIMITED);
    }

    /// The fields of a record, the last first.
    fn record(&mut self, record: &Record, node: &Node, fill: Fill) {
        for field in record.fields.iter().rev() {
            match node.get(field.name) {
                Some(value) => self.field(record, field, node, value, fill),
                None if fill == Fill::Full && field.is_filled() => {
                    self.message(field.number, |_| {})
                }
                None => {}
            }
        }
    }

    fn field(&mut self, record: &Record, field: &Field, node: &Node, value: &Node, fill: Fill) {
        let leaves_out_default = field.presence == Presence::Always;
        match &field.kind {
            Kind::Text => {
                let text = value.as_str().filter(|text| !(leaves_out_default && text.is_empty()));
                let mut before = record.fields.iter().take_while(|own| own.number < field.number);
                let is_second = field.presence == Presence::Either
                    && before.any(|own| {
                        own.presence == Presence::Either && node.str_at(own.name).is_some()
                    });
                if let Some(text) = text.filter(|_| !is_second) {
                    self.text(field.number, text);
                }
            }
            Kind::Choice(choices) => match number_of(choices, value) {
                // Other enums are optional: with an unwritten 0, the value would be absent.
                0 if leaves_out_default => {}
                number => self.number(field.number, number),
            },
            Kind::Repeated(kind) => self.items(field.number, kind, value, fill),
            kind => self.message(field.number, |own| own.body(kind, value, fill)),
        }
    }

    /// The content of a message of this kind.
    pub(super) fn body(&mut self, kind: &Kind, node: &Node, fill: Fill) {
        match kind {
            Kind::Record(record) => self.record(record, node, fill),
            Kind::Map(kind) => self.map(kind, node.entries(), fill),
            Kind::LargeMap(kind) => self.large_map(kind, node.entries(), fill),
            Kind::List(kind) => self.items(1, kind, node, fill),
            Kind::OneOf(_) => {
                if let Some((number, _, record)) = kind.variant(node) {
                    self.message(*number, |own| own.record(record, node, fill));
                }
            }
            Kind::Execution(kinds) => {
                if let Some((field, number)) = execution_state(kinds, node) {
                    // Also 0: an unwritten member of a oneof is an unset one
                    // (docs/protocol.md#requests-and-responses).
                    self.number(field, number);
                }
                if let Some(info) = node.str_at("additionalInfo") {
                    self.text(1, info);
                }
            }
            Kind::Config => match node {
                Node::Str(text) => self.text(1, text),
                Node::Seq(_) => self.message(2, |own| own.items(1, kind, node, fill)),
                Node::Map(fields) => self.message(3, |own| own.map(kind, fields, fill)),
                Node::Uint(_) | Node::Unset => {}
            },
            Kind::Number(most) => match node {
                Node::Uint(0) => {}
                Node::Uint(number) => self.number(1, *number.min(most)),
                _ => {}
            },
            // These are no messages.
            Kind::Text | Kind::Choice(_) | Kind::Repeated(_) => {}
        }
    }

    fn items(&mut self, number: u32, kind: &Kind, node: &Node, fill: Fill) {
        for item in node.as_seq().unwrap_or_default().iter().rev() {
            match kind {
                Kind::Text => item.as_str().into_iter().for_each(|text| self.text(number, text)),
                kind => self.message(number, |own| own.body(kind, item, fill)),
            }
        }
    }

    fn map(&mut self, kind: &Kind, map: &Map<Node>, fill: Fill) {
        map.for_each_reversed(&mut |key, node| self.entry(kind, key, node, fill));
    }

    fn entry(&mut self, kind: &Kind, key: &Key, node: &Node, fill: Fill) {
        self.message(1, |entry| {
            match kind {
                Kind::Text => {
                    let text = node.as_str().filter(|text| !text.is_empty());
                    text.into_iter().for_each(|text| entry.text(2, text));
                }
                Kind::Choice(choices) => match number_of(choices, node) {
                    0 => {}
                    number => entry.number(2, number),
                },
                kind => {
                    let before = entry.len();
                    entry.body(kind, node, fill);
                    let len = entry.len() - before;
                    // An empty message is a default, and left out by the generated types, too.
                    if len > 0 {
                        entry.put_varint(len as u64);
                        entry.put_key(2, LENGTH_DELIMITED);
                    }
                }
            }
            // As everywhere in proto3, a default has no field.
            if !key.as_str().is_empty() {
                entry.text(1, key.as_str());
            }
        });
    }

    fn large_map(&mut self, kind: &Kind, map: &Map<Node>, fill: Fill) {
        // Taken out for the loop: a map inside of an entry is cached with it, not by itself.
        let Some(leaf_cache) = self.leaf_cache.take_if(|_| map.is_large()) else {
            return self.map(kind, map, fill);
        };
        // Only a record can have sub-messages that a full answer adds.
        let fill_of_kind = if matches!(kind, Kind::Record(_)) { fill } else { Fill::Sparse };
        // The table is static, so this address stands for the kind for good.
        let own_kind = (std::ptr::from_ref(kind) as usize, fill_of_kind);
        map.for_each_leaf_reversed(&mut |leaf| {
            if let Some(bytes) = leaf_cache.get(leaf, own_kind) {
                return self.put(bytes);
            }
            let before = self.len();
            for (key, node) in leaf.iter().rev() {
                self.entry(kind, key, node, fill);
            }
            let len = self.len() - before;
            leaf_cache.keep(leaf, own_kind, &self.buffer[self.start..self.start + len]);
        });
        self.leaf_cache = Some(leaf_cache);
    }
}

/// Writes the fields of the complete state, as in [`super::to_pb`].
pub(crate) fn write_state(writer: &mut Writer, tree: &Tree, fill: Fill) {
    for field in COMPLETE_STATE.fields.iter().rev() {
        // A full answer adds no part either: `effectiveState` may be missing
        // (docs/protocol.md#reads).
        if let Some(part) = tree.root().get(field.name) {
            writer.message(field.number, |own| own.body(&field.kind, part, fill));
        }
    }
}

/// The number of a spelling; 0 for an unknown one.
fn number_of(choices: &[Choice], node: &Node) -> u64 {
    let found = choices.iter().find(|(_, name)| node.as_str() == Some(name));
    found.and_then(|(number, _)| u64::try_from(*number).ok()).unwrap_or(0)
}

/// Field and number of an execution state; `None` for an unknown spelling.
fn execution_state(kinds: &[ExecutionKind], node: &Node) -> Option<(u32, u64)> {
    let (state, sub_state) = (node.str_at("state")?, node.str_at("subState")?);
    let (field, _, sub_states) = kinds.iter().find(|(_, name, _)| *name == state)?;
    let (number, _) = sub_states.iter().find(|(_, name)| *name == sub_state)?;
    Some((*field, u64::try_from(*number).ok()?))
}
