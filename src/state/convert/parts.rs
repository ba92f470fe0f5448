//! Parts of a state to protobuf and back, one by one: an agent stores and forwards them so.

use prost::Message;

use super::{
    ConvertError, Fill,
    decode::{ReadOnly, decode, within},
    from_pb, message,
};
use crate::{
    pb::ank_base as pb,
    state::{
        DESIRED_STATE, Node,
        schema::{ACCESS, AGENT, EXECUTION_STATE, Kind, WORKLOAD},
    },
};

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
