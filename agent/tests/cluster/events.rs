//! An update of a workload on one node reaches the subscribers on all.

use fifogate::pb::ank_base::response::ResponseContent;

use super::{
    network::is_done_elsewhere,
    world::{Cluster, NAMES},
};
use testkit::{Session, update};

const EACH: usize = 20;

#[test]
fn a_config_that_one_workload_sets_is_told_to_sixty_on_three_nodes() {
    if is_done_elsewhere() {
        return;
    }
    let cluster = Cluster::start(EACH);
    let all = (0..NAMES.len()).flat_map(|node| (0..EACH).map(move |number| (node, number)));
    let mut sessions: Vec<_> = all.map(|(node, number)| cluster.session(node, number)).collect();
    let ids: Vec<_> = sessions
        .iter_mut()
        .map(|own| {
            let id = own.subscribe(&["desiredState.configs"]);
            own.answer(&id);
            id
        })
        .collect();
    for (node, name) in NAMES.into_iter().enumerate() {
        // Each node's own is told too, before its success.
        let value = format!("from {name}");
        let text = format!("configs: {{event: {value}}}");
        let asked = update(&text, &["desiredState.configs.event"]);
        let asker = node * EACH + 7;
        let asked = sessions[asker].ask(asked);
        for (at, session) in sessions.iter_mut().enumerate() {
            assert_eq!(event(session, &ids[at]), value, "workload {at}");
        }
        let success = sessions[asker].answer(&asked);
        assert!(matches!(success, ResponseContent::UpdateStateSuccess(_)), "{success:?}");
    }
    drop(sessions);
    cluster.agree();
}

/// The value that the next event tells.
fn event(session: &mut Session, id: &str) -> String {
    let (own_id, content) = session.response();
    assert_eq!(own_id, id);
    let ResponseContent::CompleteStateResponse(own) = content else { panic!("{content:?}") };
    let altered = own.altered_fields.clone().unwrap();
    let fields = [altered.added_fields, altered.updated_fields, altered.removed_fields].concat();
    let state = fifogate::state::convert::from_pb(&own.complete_state.unwrap()).unwrap();
    let value = state.get(&["desiredState", "configs", "event"]).and_then(|own| own.as_str());
    assert!(fields.iter().all(|field| field.starts_with("desiredState.configs")), "{fields:?}");
    value.unwrap().to_owned()
}
