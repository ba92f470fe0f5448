use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::state::{AGENTS, DESIRED_STATE, EFFECTIVE_STATE, Key, WORKLOAD_STATES};

fn state(pending: i32) -> pb::CompleteState {
    let execution = pb::ExecutionState {
        additional_info: Some(String::new()),
        execution_state_enum: Some(pb::execution_state::ExecutionStateEnum::Pending(pending)),
    };
    let by_id = pb::ExecutionsStatesForId { id_state_map: [("1".to_owned(), execution)].into() };
    let by_name =
        pb::ExecutionsStatesOfWorkload { wl_name_state_map: [("w".to_owned(), by_id)].into() };
    let by_agent = pb::WorkloadStatesMap { agent_state_map: [(String::new(), by_name)].into() };
    pb::CompleteState { workload_states: Some(by_agent), ..Default::default() }
}

#[test]
fn execution_state_comes_back_with_value_zero_on_the_wire() {
    let message = state(0);
    let tree = from_pb(&message).unwrap();
    assert_eq!(
        tree.get(&[WORKLOAD_STATES, "", "w", "1", "subState"]).and_then(Node::as_str),
        Some("Initial")
    );
    let back = to_pb(&tree, Fill::Sparse);
    assert_eq!(back, message);
    assert!(back.encode_to_vec().ends_with(&[0x0a, 0x00, 0x18, 0x00]));
}

#[test]
fn number_that_an_enum_lacks_is_named() {
    assert_eq!(from_pb(&state(3)), Err(ConvertError::UnknownEnum(3)));
    assert_eq!(ConvertError::UnknownEnum(3).to_string(), "unknown enumeration value 3");
}

#[test]
fn full_answer_has_every_empty_message_and_a_sparse_one_none() {
    let tree = Tree::initial();
    let full = to_pb(&tree, Fill::Full);
    assert_eq!(full.desired_state.unwrap().configs, Some(pb::ConfigMap::default()));
    let sparse = to_pb(&tree, Fill::Sparse).desired_state.unwrap();
    assert_eq!(sparse.configs, None);
    assert_eq!(sparse.workloads, Some(pb::WorkloadMap::default()));
}

#[test]
fn part_that_an_update_cannot_set_need_not_be_right() {
    assert_eq!(new_state_from_pb(&state(99)).unwrap(), Tree::default());
}

/// Names and values of the schema, so random nodes often stand in a valid place.
const WORDS: [&str; 36] = [
    "apiVersion",
    "workloads",
    "configs",
    "agent",
    "restartPolicy",
    "dependencies",
    "tags",
    "runtime",
    "runtimeConfig",
    "controlInterfaceAccess",
    "files",
    "allowRules",
    "denyRules",
    "type",
    "operation",
    "filterMasks",
    "workloadNames",
    "mountPoint",
    "data",
    "binaryData",
    "status",
    "cpuUsage",
    "freeMemory",
    "state",
    "subState",
    "additionalInfo",
    "",
    "v1",
    "NEVER",
    "ALWAYS",
    "ADD_COND_FAILED",
    "StateRule",
    "LogRule",
    "ReadWrite",
    "Stopping",
    "DeleteFailed",
];

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&WORDS[..])
}

fn node() -> impl Strategy<Value = Node> {
    let long = prop::collection::vec(word(), 0..40).prop_map(|words| Node::text(&words.concat()));
    let scalar = prop_oneof![
        4 => word().prop_map(Node::text),
        1 => long,
        1 => any::<u64>().prop_map(Node::Uint),
        1 => Just(Node::Unset),
    ];
    scalar.prop_recursive(6, 200, 12, |inner| {
        let map = prop::collection::vec((word(), inner.clone()), 0..12).prop_map(Node::map);
        let seq = prop::collection::vec(inner, 0..5).prop_map(Node::seq);
        prop_oneof![4 => map, 1 => seq]
    })
}

proptest! {
    #[test]
    fn bytes_of_any_tree_are_those_of_its_message(parts in prop::collection::vec(node(), 4)) {
        let names = [DESIRED_STATE, WORKLOAD_STATES, AGENTS, EFFECTIVE_STATE];
        let parts = names.iter().zip(parts).map(|(name, node)| (Key::from(*name), node));
        let tree = Tree::from_root(parts.collect());
        for fill in [Fill::Sparse, Fill::Full] {
            prop_assert_eq!(written(&tree, fill, None), to_pb(&tree, fill).encode_to_vec());
        }
    }
}

fn named<T: Clone>(value: &T) -> BTreeMap<String, T> {
    ["", "a", "b"].map(|name| (name.to_owned(), value.clone())).into()
}

fn access() -> pb::ControlInterfaceAccess {
    use pb::access_rights_rule::AccessRightsRuleEnum as Rule;
    let rule = |rule| pb::AccessRightsRule { access_rights_rule_enum: Some(rule) };
    let state_rule = pb::StateRule { operation: 5, filter_masks: vec!["a".into(), "b.*".into()] };
    let log_rule = pb::LogRule { workload_names: vec!["a*".into(), "b".into()] };
    pb::ControlInterfaceAccess {
        allow_rules: vec![rule(Rule::StateRule(state_rule)), rule(Rule::LogRule(log_rule))],
        deny_rules: vec![rule(Rule::StateRule(pb::StateRule::default()))],
    }
}

/// A state with every field of the schema set.
fn everything() -> pb::CompleteState {
    use pb::{
        config_item::ConfigItemEnum as Item, execution_state::ExecutionStateEnum as Execution,
        file::FileContent,
    };
    let text = "t".repeat(200);
    let item = |item| pb::ConfigItem { config_item_enum: Some(item) };
    let file = |content| pb::File { mount_point: text.clone(), file_content: Some(content) };
    let (data, binary) = (FileContent::Data(text.clone()), FileContent::BinaryData("x".into()));
    let workload = pb::Workload {
        agent: Some("a".into()),
        restart_policy: Some(2),
        dependencies: Some(pb::Dependencies { dependencies: named(&2) }),
        tags: Some(pb::Tags { tags: named(&text) }),
        runtime: Some(String::new()),
        runtime_config: Some(text.clone()),
        control_interface_access: Some(access()),
        configs: Some(pb::ConfigMappings { configs: named(&"c".to_owned()) }),
        files: Some(pb::Files { files: vec![file(data), file(binary)] }),
    };
    let fields = named(&item(Item::String(String::new())));
    let object = item(Item::Object(pb::ConfigObject { fields }));
    let configs = named(&item(Item::Array(pb::ConfigArray { values: vec![object] })));
    let state = pb::State {
        api_version: "v1".into(),
        workloads: Some(pb::WorkloadMap { workloads: named(&workload) }),
        configs: Some(pb::ConfigMap { configs }),
    };
    let executions = [
        Execution::AgentDisconnected(0),
        Execution::Pending(8),
        Execution::Running(0),
        Execution::Stopping(2),
        Execution::Succeeded(0),
        Execution::Failed(1),
        Execution::NotScheduled(0),
        Execution::Removed(0),
    ];
    let executions = executions.map(|own| {
        let (additional_info, execution_state_enum) = (Some(text.clone()), Some(own));
        pb::ExecutionState { additional_info, execution_state_enum }
    });
    let executions = executions.into_iter().enumerate().map(|(id, own)| (id.to_string(), own));
    let by_id = pb::ExecutionsStatesForId { id_state_map: executions.collect() };
    let by_name = pb::ExecutionsStatesOfWorkload { wl_name_state_map: named(&by_id) };
    let status = pb::AgentStatus {
        cpu_usage: Some(pb::CpuUsage { cpu_usage: 42 }),
        free_memory: Some(pb::FreeMemory { free_memory: 1 << 40 }),
    };
    let agent = pb::AgentAttributes { status: Some(status), tags: workload.tags };
    pb::CompleteState {
        desired_state: Some(state.clone()),
        workload_states: Some(pb::WorkloadStatesMap { agent_state_map: named(&by_name) }),
        agents: Some(pb::AgentMap { agents: named(&agent) }),
        effective_state: Some(state),
    }
}

#[test]
fn bytes_of_every_field_are_those_of_the_message() {
    let message = everything();
    let tree = from_pb(&message).unwrap();
    assert_eq!(to_pb(&tree, Fill::Sparse), message);
    for fill in [Fill::Sparse, Fill::Full] {
        assert_eq!(written(&tree, fill, None), to_pb(&tree, fill).encode_to_vec());
    }
}

fn written(tree: &Tree, fill: Fill, leaf_cache: Option<&mut LeafCache>) -> Vec<u8> {
    let mut writer = leaf_cache.map_or_else(Writer::default, |own| Writer::with(own, fill));
    write_state(&mut writer, tree, fill);
    let (buffer, start) = writer.finish(fill);
    buffer[start..].to_vec()
}

/// A state of so many workloads on one agent.
fn many(count: usize) -> Tree {
    let all = |value: fn(usize) -> Node| Node::map((0..count).map(|n| (format!("w{n}"), value(n))));
    let workloads =
        all(|n| Node::map([("agent", Node::text("a")), ("runtime", Node::text(&n.to_string()))]));
    let configs = all(|n| Node::text(&n.to_string()));
    let states = all(|n| {
        let state = [("state", Node::text("Running")), ("subState", Node::text("Ok"))];
        Node::map([(n.to_string(), Node::map(state))])
    });
    let desired = Node::map([("workloads", workloads), ("configs", configs)]);
    Tree::from_root(
        [(DESIRED_STATE, desired), (WORKLOAD_STATES, Node::map([("a", states)]))]
            .map(|(name, node)| (Key::from(name), node))
            .into_iter()
            .collect(),
    )
}

#[test]
fn what_did_not_change_is_copied_and_the_bytes_are_the_same() {
    let mut leaf_cache = LeafCache::default();
    let mut tree = many(1_000);
    let mut encoded = 0;
    for round in 0..50 {
        for fill in [Fill::Full, Fill::Sparse] {
            let bytes = written(&tree, fill, Some(&mut leaf_cache));
            assert_eq!(bytes, to_pb(&tree, fill).encode_to_vec(), "round {round}");
        }
        // Of each of the three maps one leaf at most, and workloads in two fillings.
        let new = leaf_cache.encoded() - encoded;
        assert!(round == 0 || new <= 4, "{new} leaves were encoded anew");
        encoded = leaf_cache.encoded();
        let desired = tree.root().get(DESIRED_STATE).unwrap();
        let name = format!("w{}", round * 17);
        let mut workloads = desired.get("workloads").and_then(Node::as_map).unwrap().clone();
        let changed = Node::map([("agent", Node::text("b")), ("runtime", Node::text("r"))]);
        workloads.insert(Key::from(&*name), changed);
        let mut parts = desired.as_map().unwrap().clone();
        parts.insert(Key::from("workloads"), Node::Map(workloads));
        tree = tree.with(DESIRED_STATE, Some(Node::Map(parts)));
    }
    let kept = leaf_cache.bytes();
    assert!(
        kept < 3 * written(&tree, Fill::Full, None).len(),
        "what is no part of it goes: {kept}"
    );
}

/// The generated types are the reference: they accept all bytes accepted by the decoder, and both mean
/// the same tree.
fn check_against_generated_types(bytes: &[u8]) {
    for from_bytes in [state_from_bytes, new_state_from_bytes] {
        if let Ok(tree) = from_bytes(bytes) {
            let message = pb::CompleteState::decode(bytes).unwrap();
            assert_eq!(from_bytes(&message.encode_to_vec()).unwrap(), tree);
        }
    }
}

proptest! {
    #[test]
    fn decoder_accepts_no_bytes_that_the_generated_types_reject_or_merge(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        let mut bytes = everything().encode_to_vec();
        for (place, byte, edit) in edits {
            let place = place.index(bytes.len());
            match edit {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
            check_against_generated_types(&bytes);
        }
    }

    #[test]
    fn decoder_takes_short_messages_as_the_generated_types_do(bytes in small_message(3)) {
        check_against_generated_types(&bytes);
    }
}

/// A message of a few fields with small numbers, in any order and said any number of times.
fn small_message(levels: u32) -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        (1u8..5, 0u8..4).prop_map(|(field, value)| vec![field << 3, value]),
        (1u8..5).prop_map(|field| vec![field << 3 | 2, 1, b'a']),
    ];
    leaf.prop_recursive(levels + 4, 64, 4, |inner| {
        (1u8..5, prop::collection::vec(inner, 0..4)).prop_map(|(field, parts)| {
            let content = parts.concat();
            let mut bytes = vec![field << 3 | 2];
            prost::encoding::encode_varint(content.len() as u64, &mut bytes);
            [bytes, content].concat()
        })
    })
}

#[test]
fn field_or_key_said_twice_is_left_to_the_generated_types() {
    let one = |name: &str, text: &str| {
        let item = pb::config_item::ConfigItemEnum::String(text.to_owned());
        let item = pb::ConfigItem { config_item_enum: Some(item) };
        let configs = Some(pb::ConfigMap { configs: [(name.to_owned(), item)].into() });
        let state = pb::State { configs, ..Default::default() };
        pb::CompleteState { desired_state: Some(state), ..Default::default() }.encode_to_vec()
    };
    let twice = [one("a", "1"), one("b", "2")].concat();
    assert_eq!(state_from_bytes(&twice), Err(ConvertError::Malformed));
    let merged = from_pb(&pb::CompleteState::decode(&twice[..]).unwrap()).unwrap();
    assert_eq!(merged.entries(&[DESIRED_STATE, "configs"]).len(), 2);
}
