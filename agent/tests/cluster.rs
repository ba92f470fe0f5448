//! Many nodes: agents with their fifogates and workloads in network namespaces of their own, around a
//! real etcd, and what holds whatever becomes of any of them.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod cluster {
    mod checks;
    mod events;
    mod faults;
    pub(crate) mod follower;
    pub(crate) mod history;
    mod load;
    pub(crate) mod network;
    mod tutorial;
    pub(crate) mod view;
    pub(crate) mod world;
    pub(crate) mod writer;
}
