//! Conversion between protobuf and the tree (docs/protocol.md#fields, docs/protocol.md#reads).
//!
//! The decoder makes a tree of a message's bytes, the encoder makes bytes of a tree; both walk the table
//! of fields in `state/schema`. Wrapper messages of the schema are dissolved on the way in and rebuilt
//! on the way out. On the way in every number of an enum must be known; on the way out a tree is taken
//! as it is, so a part of a state makes a part of a message. The functions for generated types convert
//! by way of the bytes.

use std::fmt;

use prost::Message;

#[cfg(test)]
use super::schema::Record;
use super::{
    Node, Tree,
    schema::{COMPLETE_STATE, Kind},
};
use crate::{limits::too_deep, pb::ank_base as pb};

mod decode;
mod encode;
mod leaf_cache;
mod len;
pub(crate) mod parts;

use decode::{ReadOnly, decode};

pub(crate) use encode::{Writer, write_state};
pub(crate) use leaf_cache::LeafCache;
pub(crate) use len::encoded_len;
pub(crate) use parts::{access_from_pb, execution_state_from_pb};

/// Reason why a message makes no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
pub(crate) fn state_from_bytes(bytes: &[u8]) -> Result<Tree, ConvertError> {
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
pub(crate) fn new_state_from_bytes(bytes: &[u8]) -> Result<Tree, ConvertError> {
    decode(&Kind::Record(&COMPLETE_STATE), bytes, ReadOnly::Lenient).map(tree)
}

fn tree(node: Node) -> Tree {
    Tree::from_root(node.entries().clone())
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

#[cfg(test)]
mod tests;
