//! Conversion between protobuf and the tree (docs/protocol.md#fields, docs/protocol.md#reads).
//!
//! The decoder makes a tree of a message's bytes, the encoder makes bytes of a tree; both walk the table
//! of fields in [`super::schema`]. Wrapper messages of the schema are dissolved on the way in and rebuilt
//! on the way out. On the way in every number of an enum must be known; on the way out a tree is taken
//! as it is, so a part of a state makes a part of a message. The functions for generated types convert
//! by way of the bytes.

use std::fmt;

use prost::Message;

#[cfg(test)]
use super::schema::Record;
use super::{
    DESIRED_STATE, Node, Tree,
    schema::{ACCESS, AGENT, COMPLETE_STATE, EXECUTION_STATE, Kind, WORKLOAD},
};
use crate::{limits::too_deep, pb::ank_base as pb};

mod decode;
mod encode;
mod leaf_cache;

use decode::{ReadOnly, decode, within};

pub use encode::{Writer, write_state};
pub use leaf_cache::LeafCache;

/// Reason why a message makes no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConvertError {
    /// An unknown number of an enum.
    UnknownEnum(i32),
    /// The config at this path has more than [`crate::limits::MAX_NESTING`] levels.
    TooDeep(String),
    /// The bytes are no encoding of the message, or the generated types have to merge a field first.
    /// They never encode such a message themselves.
    Malformed,
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownEnum(number) => write!(f, "unknown enumeration value {number}"),
            Self::TooDeep(path) => f.write_str(&too_deep(path)),
            Self::Malformed => f.write_str("the message does not decode"),
        }
    }
}

impl std::error::Error for ConvertError {}

/// The tree of a complete state. Parts missing from the message are missing from the tree.
///
/// # Errors
/// An unknown number of an enum, or a config that is nested too deep.
pub fn from_pb(state: &pb::CompleteState) -> Result<Tree, ConvertError> {
    state_from_bytes(&state.encode_to_vec())
}

/// As [`from_pb`], from an encoded complete state.
///
/// # Errors
/// As [`from_pb`]; an encoding that says a field twice is malformed.
pub fn state_from_bytes(bytes: &[u8]) -> Result<Tree, ConvertError> {
    decode(&Kind::Record(&COMPLETE_STATE), bytes, ReadOnly::Checked).map(tree)
}

/// The tree of a new state in a request to update. Parts that an update cannot set need not be valid
/// (docs/differences.md#11-updates): an invalid one is left out.
///
/// # Errors
/// An unknown number of an enum in a settable part, or a config in any part that is nested too deep:
/// the agent that decides the update decodes all of the message.
pub fn new_state_from_pb(state: &pb::CompleteState) -> Result<Tree, ConvertError> {
    new_state_from_bytes(&state.encode_to_vec())
}

/// As [`new_state_from_pb`], from an encoded complete state.
///
/// # Errors
/// As [`new_state_from_pb`]; an encoding that says a field twice is malformed.
pub fn new_state_from_bytes(bytes: &[u8]) -> Result<Tree, ConvertError> {
    decode(&Kind::Record(&COMPLETE_STATE), bytes, ReadOnly::Lenient).map(tree)
}

fn tree(node: Node) -> Tree {
    Tree::from_root(node.entries().clone())
}

/// Checks the bound of [`crate::limits::MAX_NESTING`] for every config of the state.
///
/// # Errors
/// The path of the first config over the bound.
pub fn check_nesting(state: &pb::CompleteState) -> Result<(), ConvertError> {
    match from_pb(state) {
        Err(error @ ConvertError::TooDeep(_)) => Err(error),
        _ => Ok(()),
    }
}

/// Filling of a message with sub-messages missing from the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    /// None: absent stays absent, as in the answer to a list of masks.
    Sparse,
    /// Every sub-message, empty ones too, as in the answer to a request without masks.
    Full,
}

/// The message of a tree. Values without a place in the schema are left out.
#[must_use]
pub fn to_pb(tree: &Tree, fill: Fill) -> pb::CompleteState {
    message(fill, |writer| write_state(writer, tree, fill))
}

/// The message written by `write`. A decoder takes it, because a valid tree is not nested too deep for
/// one.
fn message<M: Message + Default>(fill: Fill, write: impl FnOnce(&mut Writer<'_>)) -> M {
    let mut writer = Writer::default();
    write(&mut writer);
    let (buffer, start) = writer.finish(fill);
    M::decode(&buffer[start..]).unwrap_or_default()
}

/// The node of access rules as the tree holds them; `None` if there is no rule.
///
/// # Errors
/// An unknown number of an enum.
pub fn access_from_pb(access: &pb::ControlInterfaceAccess) -> Result<Option<Node>, ConvertError> {
    let node = decode(&Kind::Record(&ACCESS), &access.encode_to_vec(), ReadOnly::Checked)?;
    Ok((!node.is_empty_collection()).then_some(node))
}

/// The node of a workload of a desired state.
///
/// # Errors
/// An unknown number of an enum.
pub fn workload_from_pb(workload: &pb::Workload) -> Result<Node, ConvertError> {
    decode(&Kind::Record(&WORKLOAD), &workload.encode_to_vec(), ReadOnly::Checked)
}

/// The node of the config of this name in the desired state.
///
/// # Errors
/// It is nested too deep.
pub fn config_from_pb(name: &str, item: &pb::ConfigItem) -> Result<Node, ConvertError> {
    let node = decode(&Kind::Config, &item.encode_to_vec(), ReadOnly::Checked);
    let path = [name, "configs", DESIRED_STATE];
    node.map_err(|error| path.iter().fold(error, |error, name| within(name, error)))
}

/// The node of an agent.
#[must_use]
pub fn agent_from_pb(agent: &pb::AgentAttributes) -> Node {
    // No value of it can be unknown.
    let node = decode(&Kind::Record(&AGENT), &agent.encode_to_vec(), ReadOnly::Checked);
    node.unwrap_or_else(|_| Node::map::<&str>([]))
}

/// The node of one execution state.
///
/// # Errors
/// An unknown number of an enum.
pub fn execution_state_from_pb(state: &pb::ExecutionState) -> Result<Node, ConvertError> {
    decode(&EXECUTION_STATE, &state.encode_to_vec(), ReadOnly::Checked)
}

/// The message of an execution state.
#[must_use]
pub fn execution_state_to_pb(node: &Node) -> pb::ExecutionState {
    message(Fill::Sparse, |own| own.body(&EXECUTION_STATE, node, Fill::Sparse))
}

/// The message of a workload.
#[must_use]
pub fn workload_to_pb(workload: &Node, fill: Fill) -> pb::Workload {
    message(fill, |own| own.body(&Kind::Record(&WORKLOAD), workload, fill))
}

/// The message of an agent.
#[must_use]
pub fn agent_to_pb(agent: &Node, fill: Fill) -> pb::AgentAttributes {
    message(fill, |own| own.body(&Kind::Record(&AGENT), agent, fill))
}

/// Bytes of any record to its node and back.
#[cfg(test)]
pub(crate) fn recode(
    record: &'static Record,
    bytes: &[u8],
) -> Result<(Node, Vec<u8>), ConvertError> {
    let kind = Kind::Record(record);
    let node = decode(&kind, bytes, ReadOnly::Checked)?;
    let mut writer = Writer::default();
    writer.body(&kind, &node, Fill::Sparse);
    let (buffer, start) = writer.finish(Fill::Sparse);
    Ok((node, buffer[start..].to_vec()))
}

/// The message of a config. It takes values of any depth: tests check that doors reject them.
#[must_use]
pub fn config_to_pb(item: &Node) -> pb::ConfigItem {
    use pb::config_item::ConfigItemEnum as Item;
    let kind = match item {
        Node::Str(value) => Some(Item::String(value.as_ref().to_owned())),
        Node::Seq(values) => {
            Some(Item::Array(pb::ConfigArray { values: values.iter().map(config_to_pb).collect() }))
        }
        Node::Map(fields) => {
            let fields =
                fields.iter().map(|(key, own)| (key.as_str().to_owned(), config_to_pb(own)));
            Some(Item::Object(pb::ConfigObject { fields: fields.collect() }))
        }
        Node::Uint(_) | Node::Unset => None,
    };
    pb::ConfigItem { config_item_enum: kind }
}

#[cfg(test)]
mod tests;
