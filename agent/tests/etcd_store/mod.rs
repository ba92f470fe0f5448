//! Options of a store that the tests open at an etcd of their own.

use std::time::Duration;

use fifogate_agent::store::etcd::{Options, Place};
use testkit::Etcd;

/// For an agent of this name, in a hurry: a lost name is free after 2 s, and taken after one more.
pub(crate) fn options(server: &Etcd, agent: &str) -> Options {
    Options {
        endpoints: vec![server.endpoint()],
        prefix: "test".to_owned(),
        agent: agent.to_owned(),
        ca: None,
        identity: None,
        user: None,
        lease: Duration::from_secs(2),
        takeover_after: Some(Duration::from_secs(1)),
        place: Place::default(),
        address: None,
        needs_state: false,
    }
}
