//! The message of a tree as its bytes, without making the message first.
//!
//! Bytes are written from the last to the first: then the length of a message, which stands before
//! it, is known when it is due. The bytes are those that the generated types would give: fields by
//! number, map entries by key, defaults left out.

use super::{
    super::{
        AGENTS, API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, Key, Map, Node, Tree, WORKLOAD_STATES,
    },
    Enum, Fill,
    enums::execution_state_numbers,
    leaf_cache::{Kind, LeafCache},
};

/// Kinds of fields on the wire.
const VARINT: u32 = 0;
const LENGTH_DELIMITED: u32 = 2;

/// A buffer that is filled from its end.
#[derive(Debug, Default)]
pub struct Writer<'p> {
    buffer: Vec<u8>,
    /// Where the bytes begin that were written.
    start: usize,
    /// What was encoded before.
    leaf_cache: Option<&'p mut LeafCache>,
}

impl<'p> Writer<'p> {
    /// A writer that takes what it can from `leaf_cache`, and leaves there what others may take.
    #[must_use]
    pub fn with(leaf_cache: &'p mut LeafCache, fill: Fill) -> Self {
        let mut writer = Self::default();
        writer.reserve(leaf_cache.expected(fill));
        Self { leaf_cache: Some(leaf_cache), ..writer }
    }

    /// What was written, from this place of the buffer on; the rest is a small part of it.
    #[must_use]
    pub fn finish(self, fill: Fill) -> (Vec<u8>, usize) {
        let Self { mut buffer, mut start, leaf_cache } = self;
        let len = buffer.len() - start;
        if let Some(leaf_cache) = leaf_cache {
            leaf_cache.end_answer(fill, len);
        }
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
    fn reserve(&mut self, more: usize) {
        if self.start >= more {
            return;
        }
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

    fn put_varint(&mut self, value: u64) {
        if value < 0x80 {
            return self.put(&[value.to_le_bytes()[0]]);
        }
        let mut bytes = [0; 10];
        let mut rest = value;
        let mut len = 0;
        loop {
            bytes[len] = (rest & 0x7f) as u8 | 0x80;
            len += 1;
            rest >>= 7;
            if rest == 0 {
                break;
            }
        }
        bytes[len - 1] &= 0x7f;
        self.put(&bytes[..len]);
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
    pub fn text(&mut self, field: u32, text: &str) {
        self.put(text.as_bytes());
        self.put_varint(text.len() as u64);
        self.put_key(field, LENGTH_DELIMITED);
    }

    /// Texts in their order.
    pub fn texts<'a>(&mut self, field: u32, texts: impl DoubleEndedIterator<Item = &'a str>) {
        texts.rev().for_each(|text| self.text(field, text));
    }

    /// A message whose fields `write` writes, the last first.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let before = self.len();
        write(self);
        self.put_varint((self.len() - before) as u64);
        self.put_key(field, LENGTH_DELIMITED);
    }

    /// A map from texts to messages.
    fn map(&mut self, field: u32, map: &Map<Node>, write: impl Fn(&mut Self, &Node)) {
        map.for_each_reversed(&mut |key, node| self.map_entry(field, key, node, &write));
    }

    fn map_entry(&mut self, field: u32, key: &Key, node: &Node, write: &impl Fn(&mut Self, &Node)) {
        self.entry(field, key.as_str(), |entry| {
            let before = entry.len();
            write(entry, node);
            let len = entry.len() - before;
            if len > 0 {
                entry.put_varint(len as u64);
                entry.put_key(2, LENGTH_DELIMITED);
            }
        });
    }

    /// A map from texts to messages of one kind, which may be large.
    fn kept_map(
        &mut self,
        kind: Kind,
        field: u32,
        map: &Map<Node>,
        write: impl Fn(&mut Self, &Node),
    ) {
        let Some(leaf_cache) = self.leaf_cache.take_if(|_| map.is_large()) else {
            return self.map(field, map, write);
        };
        map.for_each_leaf_reversed(&mut |leaf| {
            if let Some(bytes) = leaf_cache.get(leaf, kind) {
                return self.put(bytes);
            }
            let before = self.len();
            for (key, node) in leaf.iter().rev() {
                self.map_entry(field, key, node, &write);
            }
            let len = self.len() - before;
            leaf_cache.keep(leaf, kind, &self.buffer[self.start..self.start + len]);
        });
        self.leaf_cache = Some(leaf_cache);
    }

    /// A map from texts to texts.
    fn text_map(&mut self, field: u32, map: &Map<Node>) {
        map.for_each_reversed(&mut |key, node| {
            self.entry(field, key.as_str(), |entry| {
                if let Some(text) = node.as_str().filter(|text| !text.is_empty()) {
                    entry.text(2, text);
                }
            });
        });
    }

    fn entry(&mut self, field: u32, key: &str, value: impl FnOnce(&mut Self)) {
        self.message(field, |entry| {
            value(entry);
            if !key.is_empty() {
                entry.text(1, key);
            }
        });
    }

    /// The field for the collection `name`: with what is there, or empty if all shall be there.
    fn wrapped(
        &mut self,
        field: u32,
        value: Option<&Node>,
        fill: Fill,
        write: impl FnOnce(&mut Self, &Node),
    ) {
        if let Some(value) = value {
            self.message(field, |own| write(own, value));
        } else if fill == Fill::Full {
            self.message(field, |_| {});
        }
    }

    fn optional_text(&mut self, field: u32, value: Option<&Node>) {
        if let Some(text) = value.and_then(Node::as_str) {
            self.text(field, text);
        }
    }
}

/// Writes the fields of the complete state that [`super::to_pb`] would give.
pub fn write_state(writer: &mut Writer, tree: &Tree, fill: Fill) {
    let part = |name| tree.root().get(name);
    if let Some(effective) = part(EFFECTIVE_STATE) {
        writer.message(4, |own| state(own, effective, fill));
    }
    if let Some(agents) = part(AGENTS) {
        writer.message(3, |own| own.map(1, entries(agents), |own, node| agent(own, node, fill)));
    }
    if let Some(states) = part(WORKLOAD_STATES) {
        let of_workload =
            |own: &mut Writer, node: &Node| own.map(1, entries(node), execution_state);
        let of_agent = |own: &mut Writer, node: &Node| {
            own.kept_map(Kind::States, 1, entries(node), of_workload);
        };
        writer.message(2, |own| own.map(1, entries(states), of_agent));
    }
    if let Some(desired) = part(DESIRED_STATE) {
        writer.message(1, |own| state(own, desired, fill));
    }
}

const NOTHING: &Map<Node> = &Map::new();

fn entries(node: &Node) -> &Map<Node> {
    node.as_map().unwrap_or(NOTHING)
}

fn state(writer: &mut Writer, node: &Node, fill: Fill) {
    let get = |name| node.get(name);
    writer.wrapped(3, get("configs"), fill, |own, configs| {
        own.kept_map(Kind::Configs, 1, entries(configs), config);
    });
    writer.wrapped(2, get("workloads"), fill, |own, workloads| {
        let kind = Kind::Workloads(fill);
        own.kept_map(kind, 1, entries(workloads), |own, node| workload(own, node, fill));
    });
    if let Some(version) = node.str_at(API_VERSION).filter(|version| !version.is_empty()) {
        writer.text(1, version);
    }
}

fn workload(writer: &mut Writer, node: &Node, fill: Fill) {
    let get = |name| node.get(name);
    writer.wrapped(9, get("files"), fill, |own, files| {
        sequence(files).iter().rev().for_each(|node| own.message(1, |own| file(own, node)));
    });
    writer.wrapped(8, get("configs"), fill, |own, configs| own.text_map(1, entries(configs)));
    writer.wrapped(7, get("controlInterfaceAccess"), fill, |own, access| {
        for (field, name) in [(2, "denyRules"), (1, "allowRules")] {
            let rules = access.get(name).map_or(&[][..], sequence);
            rules.iter().rev().for_each(|node| own.message(field, |own| rule(own, node)));
        }
    });
    writer.optional_text(6, get("runtimeConfig"));
    writer.optional_text(5, get("runtime"));
    writer.wrapped(4, get("tags"), fill, |own, tags| own.text_map(1, entries(tags)));
    writer.wrapped(3, get("dependencies"), fill, |own, dependencies| {
        entries(dependencies).for_each_reversed(&mut |key, node| {
            own.entry(1, key.as_str(), |entry| match number(Enum::AddCondition, node) {
                0 => {}
                condition => entry.number(2, condition),
            });
        });
    });
    if let Some(policy) = get("restartPolicy") {
        writer.number(2, number(Enum::RestartPolicy, policy));
    }
    writer.optional_text(1, get("agent"));
}

fn number(kind: Enum, node: &Node) -> u64 {
    u64::try_from(kind.number(node)).unwrap_or(0)
}

fn sequence(node: &Node) -> &[Node] {
    node.as_seq().unwrap_or_default()
}

fn rule(writer: &mut Writer, node: &Node) {
    let list = |name| node.get(name).map_or(&[][..], sequence).iter().filter_map(Node::as_str);
    match node.str_at("type") {
        Some("StateRule") => writer.message(1, |own| {
            own.texts(2, list("filterMasks"));
            match node.get("operation").map_or(0, |node| number(Enum::ReadWrite, node)) {
                0 => {}
                operation => own.number(1, operation),
            }
        }),
        Some("LogRule") => writer.message(2, |own| own.texts(1, list("workloadNames"))),
        _ => {}
    }
}

fn file(writer: &mut Writer, node: &Node) {
    if let Some(data) = node.str_at("data") {
        writer.text(2, data);
    } else {
        writer.optional_text(3, node.get("binaryData"));
    }
    if let Some(mount_point) = node.str_at("mountPoint").filter(|path| !path.is_empty()) {
        writer.text(1, mount_point);
    }
}

fn config(writer: &mut Writer, node: &Node) {
    match node {
        Node::Str(text) => writer.text(1, text),
        Node::Seq(values) => writer.message(2, |own| {
            values.iter().rev().for_each(|node| own.message(1, |own| config(own, node)));
        }),
        Node::Map(fields) => writer.message(3, |own| own.map(1, fields, config)),
        Node::Uint(_) | Node::Unset => {}
    }
}

fn execution_state(writer: &mut Writer, node: &Node) {
    if let Some((field, sub_state)) = execution_state_numbers(node) {
        writer.number(field, sub_state);
    }
    writer.optional_text(1, node.get("additionalInfo"));
}

fn agent(writer: &mut Writer, node: &Node, fill: Fill) {
    writer.wrapped(2, node.get("tags"), fill, |own, tags| own.text_map(1, entries(tags)));
    let Some(status) = node.get("status") else { return };
    let load = |writer: &mut Writer, field, name, most: u64| {
        let Some(node) = status.get(name) else { return };
        let value = if let Node::Uint(value) = node { *value } else { 0 };
        writer.message(field, |own| match value.min(most) {
            0 => {}
            value => own.number(1, value),
        });
    };
    writer.message(1, |own| {
        load(own, 2, "freeMemory", u64::MAX);
        load(own, 1, "cpuUsage", u32::MAX.into());
    });
}
