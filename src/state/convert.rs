//! Protobuf state to tree and back (docs/protocol.md#fields, docs/protocol.md#reads); the only file of the
//! room that
//! names the generated types.
//!
//! The wrapper messages of the schema are dissolved on the way in and rebuilt on the way out. On the
//! way in every number of an enum must be known; on the way out a tree is taken as it is, so that a
//! part of a state makes a part of a message.

use std::{collections::BTreeMap, fmt};

use super::{
    AGENTS, API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, Key, Map, Node, Tree, WORKLOAD_STATES,
    validate::MAX_NAME,
};
use crate::{
    limits::{MAX_NESTING, too_deep},
    pb::ank_base as pb,
};

mod encode;
mod enums;
mod leaf_cache;

use enums::Enum;

pub use encode::{Writer, write_state};
pub use enums::{execution_state_from_pb, execution_state_to_pb};
pub use leaf_cache::LeafCache;

/// Why a message is no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConvertError {
    /// A number that an enum of the schema does not have.
    UnknownEnum(i32),
    /// The config at this path has more than [`MAX_NESTING`] levels.
    TooDeep(String),
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownEnum(number) => write!(f, "unknown enumeration value {number}"),
            Self::TooDeep(path) => f.write_str(&too_deep(path)),
        }
    }
}

impl std::error::Error for ConvertError {}

/// The tree of a complete state; a part that the message lacks is lacking.
///
/// # Errors
/// A number that an enum does not have, or a config that is nested too deep.
pub fn from_pb(state: &pb::CompleteState) -> Result<Tree, ConvertError> {
    let mut root = settable_parts(state)?;
    root.put(WORKLOAD_STATES, states_from_pb(state).transpose()?);
    let effective = state.effective_state.as_ref();
    let effective = effective.map(|own| state_from_pb(EFFECTIVE_STATE, own));
    root.put(EFFECTIVE_STATE, effective.transpose()?);
    Ok(Tree::from_root(root.map()))
}

/// The tree of a new state in a request to update. What an update cannot set need not be right
/// (docs/differences.md#11-updates): such a part is left out then.
///
/// # Errors
/// A number that an enum does not have, in what an update can set; a config that is nested too deep
/// anywhere, since whoever decides the update gets all of the message.
pub fn new_state_from_pb(state: &pb::CompleteState) -> Result<Tree, ConvertError> {
    check_nesting(state)?;
    let mut root = settable_parts(state)?;
    root.put(WORKLOAD_STATES, states_from_pb(state).and_then(Result::ok));
    let effective = state.effective_state.as_ref();
    let effective = effective.map(|own| state_from_pb(EFFECTIVE_STATE, own));
    root.put(EFFECTIVE_STATE, effective.and_then(Result::ok));
    Ok(Tree::from_root(root.map()))
}

/// Whether every config of the state keeps to [`MAX_NESTING`]. It allocates nothing and stops at the
/// first level over the bound, so it may be asked before anything else is done with a message.
///
/// # Errors
/// The path of the first config that does not.
pub fn check_nesting(state: &pb::CompleteState) -> Result<(), ConvertError> {
    let parts = [(DESIRED_STATE, &state.desired_state), (EFFECTIVE_STATE, &state.effective_state)];
    for (part, state) in parts {
        for (name, item) in state.iter().flat_map(|own| &own.configs).flat_map(|own| &own.configs) {
            check_config(part, name, item)?;
        }
    }
    Ok(())
}

fn check_config(part: &str, name: &str, item: &pb::ConfigItem) -> Result<(), ConvertError> {
    if fits(item, MAX_NESTING) {
        return Ok(());
    }
    // A name that is longer is none, and need not be repeated whole.
    let name: String = name.chars().take(MAX_NAME).collect();
    Err(ConvertError::TooDeep(format!("{part}.configs.{name}")))
}

/// Whether the value has at most so many levels.
fn fits(item: &pb::ConfigItem, levels: usize) -> bool {
    use pb::config_item::ConfigItemEnum as Kind;
    match (&item.config_item_enum, levels.checked_sub(1)) {
        (None | Some(Kind::String(_)), _) => true,
        (Some(_), None) => false,
        (Some(Kind::Array(array)), Some(below)) => array.values.iter().all(|own| fits(own, below)),
        (Some(Kind::Object(object)), Some(below)) => {
            object.fields.values().all(|own| fits(own, below))
        }
    }
}

fn settable_parts(state: &pb::CompleteState) -> Result<Entries, ConvertError> {
    let mut root = Entries::default();
    let desired = state.desired_state.as_ref();
    root.put(DESIRED_STATE, desired.map(|own| state_from_pb(DESIRED_STATE, own)).transpose()?);
    root.put(AGENTS, state.agents.as_ref().map(|agents| texts(&agents.agents, agent_from_pb)));
    Ok(root)
}

fn states_from_pb(state: &pb::CompleteState) -> Option<Result<Node, ConvertError>> {
    let states = state.workload_states.as_ref()?;
    Some(mapping(&states.agent_state_map, |of_agent| {
        mapping(&of_agent.wl_name_state_map, |of_workload| {
            mapping(&of_workload.id_state_map, execution_state_from_pb)
        })
    }))
}

/// How much of the message is there for what the tree lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    /// Nothing: what is absent stays absent, as in the answer to a list of masks.
    Sparse,
    /// Every sub-message, empty ones too, as in the answer to a request without masks.
    Full,
}

/// The message of a tree. What the schema has no place for is left out.
#[must_use]
pub fn to_pb(tree: &Tree, fill: Fill) -> pb::CompleteState {
    let part = |name| tree.root().get(name);
    pb::CompleteState {
        desired_state: part(DESIRED_STATE).map(|state| state_to_pb(state, fill)),
        effective_state: part(EFFECTIVE_STATE).map(|state| state_to_pb(state, fill)),
        workload_states: part(WORKLOAD_STATES).map(|states| pb::WorkloadStatesMap {
            agent_state_map: messages(states, |of_agent| pb::ExecutionsStatesOfWorkload {
                wl_name_state_map: messages(of_agent, |of_workload| pb::ExecutionsStatesForId {
                    id_state_map: messages(of_workload, execution_state_to_pb),
                }),
            }),
        }),
        agents: part(AGENTS).map(|agents| pb::AgentMap {
            agents: messages(agents, |agent| agent_to_pb(agent, fill)),
        }),
    }
}

/// The node of access rules as the tree holds them; `None` if there is no rule.
///
/// # Errors
/// A number that an enum does not have.
pub fn access_from_pb(access: &pb::ControlInterfaceAccess) -> Result<Option<Node>, ConvertError> {
    let mut entries = Entries::default();
    entries.put("allowRules", rules_from_pb(&access.allow_rules)?);
    entries.put("denyRules", rules_from_pb(&access.deny_rules)?);
    Ok(entries.filled())
}

// ---- protobuf -> tree ----

/// Entries of a mapping in the making.
#[derive(Default)]
struct Entries(Vec<(Key, Node)>);

impl Entries {
    fn put(&mut self, name: &str, value: Option<Node>) {
        self.0.extend(value.map(|value| (Key::from(name), value)));
    }

    fn map(self) -> Map<Node> {
        self.0.into_iter().collect()
    }

    fn node(self) -> Node {
        Node::Map(self.map())
    }

    /// The mapping, unless it is empty: most collections have no key in the tree then.
    fn filled(self) -> Option<Node> {
        (!self.0.is_empty()).then(|| self.node())
    }
}

fn mapping<T>(
    entries: &BTreeMap<String, T>,
    convert: impl Fn(&T) -> Result<Node, ConvertError>,
) -> Result<Node, ConvertError> {
    let entries = entries.iter().map(|(key, value)| Ok((Key::from(key.as_str()), convert(value)?)));
    Ok(Node::Map(entries.collect::<Result<_, _>>()?))
}

fn texts<T>(entries: &BTreeMap<String, T>, convert: impl Fn(&T) -> Node) -> Node {
    Node::map(entries.iter().map(|(key, value)| (key.as_str(), convert(value))))
}

fn filled(node: Node) -> Option<Node> {
    (!node.is_empty_collection()).then_some(node)
}

fn text(value: &str) -> Node {
    Node::text(value)
}

fn state_from_pb(part: &str, state: &pb::State) -> Result<Node, ConvertError> {
    let mut entries = Entries::default();
    entries.put(API_VERSION, Some(text(&state.api_version)));
    let workloads = state.workloads.as_ref();
    entries.put(
        "workloads",
        workloads.map(|map| mapping(&map.workloads, workload_from_pb)).transpose()?,
    );
    if let Some(map) = &state.configs {
        map.configs.iter().try_for_each(|(name, item)| check_config(part, name, item))?;
        entries.put("configs", filled(texts(&map.configs, config_node)));
    }
    Ok(entries.node())
}

/// The node of a workload of a desired state.
///
/// # Errors
/// A number that an enum does not have.
pub fn workload_from_pb(workload: &pb::Workload) -> Result<Node, ConvertError> {
    let mut entries = Entries::default();
    let optional = |value: &Option<String>| value.as_deref().map(text);
    entries.put("agent", optional(&workload.agent));
    let policy = workload.restart_policy.map(Enum::RestartPolicy.reader());
    entries.put("restartPolicy", policy.transpose()?);
    let dependencies = workload.dependencies.as_ref();
    let dependencies = dependencies
        .map(|map| mapping(&map.dependencies, |number| Enum::AddCondition.reader()(*number)));
    entries.put("dependencies", dependencies.transpose()?.and_then(filled));
    let tags = workload.tags.as_ref().map(|tags| texts(&tags.tags, |tag| text(tag)));
    entries.put("tags", tags.and_then(filled));
    entries.put("runtime", optional(&workload.runtime));
    entries.put("runtimeConfig", optional(&workload.runtime_config));
    let access = workload.control_interface_access.as_ref().map(access_from_pb);
    entries.put("controlInterfaceAccess", access.transpose()?.flatten());
    let configs = workload.configs.as_ref().map(|map| texts(&map.configs, |key| text(key)));
    entries.put("configs", configs.and_then(filled));
    let files =
        workload.files.as_ref().map(|files| Node::seq(files.files.iter().map(file_from_pb)));
    entries.put("files", files.and_then(filled));
    Ok(entries.node())
}

fn rules_from_pb(rules: &[pb::AccessRightsRule]) -> Result<Option<Node>, ConvertError> {
    let rules = rules.iter().map(rule_from_pb).collect::<Result<Vec<_>, _>>()?;
    Ok(filled(Node::seq(rules)))
}

fn rule_from_pb(rule: &pb::AccessRightsRule) -> Result<Node, ConvertError> {
    use pb::access_rights_rule::AccessRightsRuleEnum as Kind;
    let list = |values: &[String]| Node::seq(values.iter().map(|value| text(value)));
    Ok(match &rule.access_rights_rule_enum {
        None => Node::Unset,
        Some(Kind::StateRule(rule)) => Node::map([
            ("type", text("StateRule")),
            ("operation", Enum::ReadWrite.reader()(rule.operation)?),
            ("filterMasks", list(&rule.filter_masks)),
        ]),
        Some(Kind::LogRule(rule)) => {
            Node::map([("type", text("LogRule")), ("workloadNames", list(&rule.workload_names))])
        }
    })
}

fn file_from_pb(file: &pb::File) -> Node {
    use pb::file::FileContent;
    let mut entries = Entries::default();
    entries.put("mountPoint", Some(text(&file.mount_point)));
    match &file.file_content {
        None => {}
        Some(FileContent::Data(data)) => entries.put("data", Some(text(data))),
        Some(FileContent::BinaryData(data)) => entries.put("binaryData", Some(text(data))),
    }
    entries.node()
}

/// The node of the config of this name in the desired state.
///
/// # Errors
/// It is nested too deep.
pub fn config_from_pb(name: &str, item: &pb::ConfigItem) -> Result<Node, ConvertError> {
    check_config(DESIRED_STATE, name, item)?;
    Ok(config_node(item))
}

/// The node of a config that was checked: it recurses once for each level.
fn config_node(item: &pb::ConfigItem) -> Node {
    use pb::config_item::ConfigItemEnum as Kind;
    match &item.config_item_enum {
        None => Node::Unset,
        Some(Kind::String(value)) => text(value),
        Some(Kind::Array(array)) => Node::seq(array.values.iter().map(config_node)),
        Some(Kind::Object(object)) => texts(&object.fields, config_node),
    }
}

/// The node of an agent.
#[must_use]
pub fn agent_from_pb(agent: &pb::AgentAttributes) -> Node {
    let mut entries = Entries::default();
    if let Some(status) = &agent.status {
        let mut values = Entries::default();
        let cpu = status.cpu_usage.as_ref();
        values.put("cpuUsage", cpu.map(|cpu| Node::Uint(cpu.cpu_usage.into())));
        let memory = status.free_memory.as_ref();
        values.put("freeMemory", memory.map(|memory| Node::Uint(memory.free_memory)));
        entries.put("status", Some(values.node()));
    }
    let tags = agent.tags.as_ref().map(|tags| texts(&tags.tags, |tag| text(tag)));
    entries.put("tags", tags.and_then(filled));
    entries.node()
}

// ---- tree -> protobuf ----

fn messages<T>(node: &Node, convert: impl Fn(&Node) -> T) -> BTreeMap<String, T> {
    let entries = node.as_map().into_iter().flatten();
    entries.map(|(key, value)| (key.as_str().to_owned(), convert(value))).collect()
}

fn strings(node: &Node) -> BTreeMap<String, String> {
    messages(node, |value| value.as_str().unwrap_or_default().to_owned())
}

/// The message for the collection `name`: of what is there, or an empty one if all shall be there.
fn wrapped<T: Default>(
    node: &Node,
    name: &str,
    fill: Fill,
    convert: impl FnOnce(&Node) -> T,
) -> Option<T> {
    match node.get(name) {
        Some(value) => Some(convert(value)),
        None => (fill == Fill::Full).then(T::default),
    }
}

fn state_to_pb(state: &Node, fill: Fill) -> pb::State {
    pb::State {
        api_version: state.str_at(API_VERSION).unwrap_or_default().to_owned(),
        workloads: wrapped(state, "workloads", fill, |workloads| pb::WorkloadMap {
            workloads: messages(workloads, |workload| workload_to_pb(workload, fill)),
        }),
        configs: wrapped(state, "configs", fill, |configs| pb::ConfigMap {
            configs: messages(configs, config_to_pb),
        }),
    }
}

/// The message of a workload.
#[must_use]
pub fn workload_to_pb(workload: &Node, fill: Fill) -> pb::Workload {
    let string = |name| workload.str_at(name).map(str::to_owned);
    pb::Workload {
        agent: string("agent"),
        restart_policy: workload.get("restartPolicy").map(|node| Enum::RestartPolicy.number(node)),
        dependencies: wrapped(workload, "dependencies", fill, |map| pb::Dependencies {
            dependencies: messages(map, |node| Enum::AddCondition.number(node)),
        }),
        tags: wrapped(workload, "tags", fill, |tags| pb::Tags { tags: strings(tags) }),
        runtime: string("runtime"),
        runtime_config: string("runtimeConfig"),
        control_interface_access: wrapped(workload, "controlInterfaceAccess", fill, access_to_pb),
        configs: wrapped(workload, "configs", fill, |configs| pb::ConfigMappings {
            configs: strings(configs),
        }),
        files: wrapped(workload, "files", fill, |files| pb::Files {
            files: files.as_seq().unwrap_or_default().iter().map(file_to_pb).collect(),
        }),
    }
}

fn access_to_pb(access: &Node) -> pb::ControlInterfaceAccess {
    let rules = |name| {
        let rules = access.get(name).and_then(Node::as_seq).unwrap_or_default();
        rules.iter().map(rule_to_pb).collect()
    };
    pb::ControlInterfaceAccess { allow_rules: rules("allowRules"), deny_rules: rules("denyRules") }
}

fn rule_to_pb(rule: &Node) -> pb::AccessRightsRule {
    use pb::access_rights_rule::AccessRightsRuleEnum as Kind;
    let list = |name| {
        let values = rule.get(name).and_then(Node::as_seq).unwrap_or_default();
        values.iter().filter_map(Node::as_str).map(str::to_owned).collect()
    };
    let kind = match rule.str_at("type") {
        Some("StateRule") => Some(Kind::StateRule(pb::StateRule {
            operation: rule.get("operation").map_or(0, |node| Enum::ReadWrite.number(node)),
            filter_masks: list("filterMasks"),
        })),
        Some("LogRule") => {
            Some(Kind::LogRule(pb::LogRule { workload_names: list("workloadNames") }))
        }
        _ => None,
    };
    pb::AccessRightsRule { access_rights_rule_enum: kind }
}

fn file_to_pb(file: &Node) -> pb::File {
    use pb::file::FileContent;
    let string = |name| file.str_at(name).map(str::to_owned);
    let data = string("data").map(FileContent::Data);
    pb::File {
        mount_point: string("mountPoint").unwrap_or_default(),
        file_content: data.or_else(|| string("binaryData").map(FileContent::BinaryData)),
    }
}

/// The message of a config.
#[must_use]
pub fn config_to_pb(item: &Node) -> pb::ConfigItem {
    use pb::config_item::ConfigItemEnum as Kind;
    let kind = match item {
        Node::Str(value) => Some(Kind::String(value.as_ref().to_owned())),
        Node::Seq(values) => {
            Some(Kind::Array(pb::ConfigArray { values: values.iter().map(config_to_pb).collect() }))
        }
        Node::Map(_) => {
            Some(Kind::Object(pb::ConfigObject { fields: messages(item, config_to_pb) }))
        }
        Node::Uint(_) | Node::Unset => None,
    };
    pb::ConfigItem { config_item_enum: kind }
}

/// The message of an agent.
#[must_use]
pub fn agent_to_pb(agent: &Node, fill: Fill) -> pb::AgentAttributes {
    let number = |node: &Node| if let Node::Uint(number) = node { *number } else { 0 };
    pb::AgentAttributes {
        status: agent.get("status").map(|status| pb::AgentStatus {
            cpu_usage: status.get("cpuUsage").map(|node| pb::CpuUsage {
                cpu_usage: u32::try_from(number(node)).unwrap_or(u32::MAX),
            }),
            free_memory: status
                .get("freeMemory")
                .map(|node| pb::FreeMemory { free_memory: number(node) }),
        }),
        tags: wrapped(agent, "tags", fill, |tags| pb::Tags { tags: strings(tags) }),
    }
}

#[cfg(test)]
mod tests;
