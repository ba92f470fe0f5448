//! The load of etcd by the subscribers of a node.

use super::{
    network::is_done_elsewhere,
    world::{Cluster, NAMES},
};
use testkit::update;

/// Metrics of etcd: watches, and streams that hold them.
const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";
const STREAMS: &str = "etcd_debugging_mvcc_watch_stream_total";

#[test]
fn two_hundred_subscribers_of_a_node_are_one_watch_in_etcd() {
    if is_done_elsewhere() {
        return;
    }
    const SUBSCRIBERS: usize = 200;
    let cluster = Cluster::start(4);
    let metric = |name| cluster.network.hub.enter(|| cluster.etcd.metric(name));
    let load = || [metric(WATCHERS), metric(STREAMS)];
    // The history's own is one of them.
    let nodes = NAMES.len() as f64;
    assert_eq!(load(), [nodes + 1.0, nodes + 1.0]);
    let mut session = cluster.session(0, 3);
    let ids: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| {
            let id = session.subscribe(&["desiredState.configs"]);
            session.answer(&id);
            id
        })
        .collect();
    let mut other = cluster.session(1, 3);
    let set = update("configs: {event: told}", &["desiredState.configs.event"]);
    other.ask(set);
    let mut told: Vec<_> = ids.iter().map(|_| session.response().0).collect();
    told.sort_by_key(|id| id.parse::<u32>().unwrap());
    assert_eq!(told, ids);
    assert_eq!(load(), [nodes + 1.0, nodes + 1.0]);
}
