//! Workloads in containers, run by a real podman.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod podman {
    mod commands;
    mod kube;
    mod lifetime;
    mod logs;
    mod pair;
    mod random;
    mod sdk;
    mod states;
}
