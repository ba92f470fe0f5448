use prost::Message;

use super::*;

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
    assert_eq!(from_pb(&state(3)), Err(UnknownEnum(3)));
    assert_eq!(UnknownEnum(3).to_string(), "unknown enumeration value 3");
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
