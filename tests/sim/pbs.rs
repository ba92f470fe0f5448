//! The naive model's trees as protobuf messages (docs/protocol.md#state-messages, docs/protocol.md#fields).

use std::collections::BTreeMap;

use fifogate::pb::ank_base as pb;
use serde_json::Value;

/// The message of a tree. `full`: with every sub-message, as without masks; else what the tree lacks
/// is lacking.
pub(crate) fn complete_state(tree: &Value, full: bool) -> pb::CompleteState {
    pb::CompleteState {
        desired_state: tree.get("desiredState").map(|own| state(own, full)),
        effective_state: tree.get("effectiveState").map(|own| state(own, full)),
        workload_states: tree.get("workloadStates").map(|own| pb::WorkloadStatesMap {
            agent_state_map: map(own, |own| pb::ExecutionsStatesOfWorkload {
                wl_name_state_map: map(own, |own| pb::ExecutionsStatesForId {
                    id_state_map: map(own, execution_state),
                }),
            }),
        }),
        agents: tree
            .get("agents")
            .map(|own| pb::AgentMap { agents: map(own, |own| agent(own, full)) }),
    }
}

fn map<T>(node: &Value, make: impl Fn(&Value) -> T) -> BTreeMap<String, T> {
    node.as_object().unwrap().iter().map(|(key, own)| (key.clone(), make(own))).collect()
}

fn list<T>(node: Option<&Value>, make: impl Fn(&Value) -> T) -> Vec<T> {
    node.and_then(Value::as_array).into_iter().flatten().map(make).collect()
}

fn text(node: &Value) -> String {
    node.as_str().unwrap().to_owned()
}

/// The collection `name`; if all is wanted, an empty one for one that is not there.
fn wrap<T: Default>(node: &Value, name: &str, full: bool, make: impl Fn(&Value) -> T) -> Option<T> {
    node.get(name).map(make).or_else(|| full.then(T::default))
}

fn state(node: &Value, full: bool) -> pb::State {
    pb::State {
        api_version: node.get("apiVersion").map(text).unwrap_or_default(),
        workloads: wrap(node, "workloads", full, |own| pb::WorkloadMap {
            workloads: map(own, |own| workload(own, full)),
        }),
        configs: wrap(node, "configs", full, |own| pb::ConfigMap { configs: map(own, config) }),
    }
}

fn workload(node: &Value, full: bool) -> pb::Workload {
    pb::Workload {
        agent: node.get("agent").map(text),
        restart_policy: node
            .get("restartPolicy")
            .map(|own| number(own, &["NEVER", "ON_FAILURE", "ALWAYS"])),
        dependencies: wrap(node, "dependencies", full, |own| pb::Dependencies {
            dependencies: map(own, |own| {
                number(own, &["ADD_COND_RUNNING", "ADD_COND_SUCCEEDED", "ADD_COND_FAILED"])
            }),
        }),
        tags: wrap(node, "tags", full, |own| pb::Tags { tags: map(own, text) }),
        runtime: node.get("runtime").map(text),
        runtime_config: node.get("runtimeConfig").map(text),
        control_interface_access: wrap(node, "controlInterfaceAccess", full, access),
        configs: wrap(node, "configs", full, |own| pb::ConfigMappings { configs: map(own, text) }),
        files: wrap(node, "files", full, |own| pb::Files { files: list(Some(own), file) }),
    }
}

fn number(node: &Value, names: &[&str]) -> i32 {
    let at = names.iter().position(|name| node.as_str() == Some(*name)).unwrap();
    i32::try_from(at).unwrap()
}

pub(crate) fn access(node: &Value) -> pb::ControlInterfaceAccess {
    pb::ControlInterfaceAccess {
        allow_rules: list(node.get("allowRules"), rule),
        deny_rules: list(node.get("denyRules"), rule),
    }
}

fn rule(node: &Value) -> pb::AccessRightsRule {
    use pb::access_rights_rule::AccessRightsRuleEnum as Rule;
    let rule = match node["type"].as_str() {
        Some("StateRule") => Some(Rule::StateRule(pb::StateRule {
            operation: number(
                &node["operation"],
                &["Nothing", "Read", "Write", "", "", "ReadWrite"],
            ),
            filter_masks: list(node.get("filterMasks"), text),
        })),
        Some(_) => Some(Rule::LogRule(pb::LogRule {
            workload_names: list(node.get("workloadNames"), text),
        })),
        None => None,
    };
    pb::AccessRightsRule { access_rights_rule_enum: rule }
}

fn file(node: &Value) -> pb::File {
    use pb::file::FileContent;
    let data = node.get("data").map(|own| FileContent::Data(text(own)));
    let binary = node.get("binaryData").map(|own| FileContent::BinaryData(text(own)));
    pb::File { mount_point: text(&node["mountPoint"]), file_content: data.or(binary) }
}

fn config(node: &Value) -> pb::ConfigItem {
    use pb::config_item::ConfigItemEnum as Item;
    let item = match node {
        Value::String(text) => Some(Item::String(text.clone())),
        Value::Array(_) => Some(Item::Array(pb::ConfigArray { values: list(Some(node), config) })),
        Value::Object(_) => Some(Item::Object(pb::ConfigObject { fields: map(node, config) })),
        _ => None,
    };
    pb::ConfigItem { config_item_enum: item }
}

/// The states that the worlds use.
pub(crate) const EXECUTION: [(&str, &str); 6] = [
    ("Pending", "Initial"),
    ("Pending", "StartingFailed"),
    ("Running", "Ok"),
    ("Stopping", "DeleteFailed"),
    ("Failed", "Lost"),
    ("NotScheduled", "NotScheduled"),
];

pub(crate) fn execution_state(node: &Value) -> pb::ExecutionState {
    use pb::execution_state::ExecutionStateEnum as State;
    let halves = node.get("state").map(|state| (text(state), text(&node["subState"])));
    let state = halves.map(|(state, sub)| match (state.as_str(), sub.as_str()) {
        ("Pending", "Initial") => State::Pending(0),
        ("Pending", "StartingFailed") => State::Pending(8),
        ("Running", "Ok") => State::Running(0),
        ("Stopping", "DeleteFailed") => State::Stopping(8),
        ("Failed", "Lost") => State::Failed(2),
        ("NotScheduled", "NotScheduled") => State::NotScheduled(0),
        other => panic!("the model knows no {other:?}"),
    });
    pb::ExecutionState {
        additional_info: node.get("additionalInfo").map(text),
        execution_state_enum: state,
    }
}

fn agent(node: &Value, full: bool) -> pb::AgentAttributes {
    let number = |node: &Value| node.as_u64().unwrap();
    pb::AgentAttributes {
        status: node.get("status").map(|own| pb::AgentStatus {
            cpu_usage: own
                .get("cpuUsage")
                .map(|own| pb::CpuUsage { cpu_usage: u32::try_from(number(own)).unwrap() }),
            free_memory: own
                .get("freeMemory")
                .map(|own| pb::FreeMemory { free_memory: number(own) }),
        }),
        tags: wrap(node, "tags", full, |own| pb::Tags { tags: map(own, text) }),
    }
}
