//! Many nodes: agents with their fifogates and workloads in network namespaces of their own, around a
//! real etcd, and what holds whatever becomes of any of them.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

mod cluster {
    pub(crate) mod bed;
    mod checks;
    mod events;
    mod faults;
    pub(crate) mod follower;
    pub(crate) mod history;
    mod load;
    pub(crate) mod network;
    pub(crate) mod session;
    mod tutorial;
    pub(crate) mod view;
    pub(crate) mod writer;
}
