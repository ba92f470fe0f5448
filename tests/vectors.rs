//! Conformance: input and output pairs recorded from Eclipse Ankaios (`fixtures/vectors/`).
//!
//! Every row is checked, in full, but for those that this project decides otherwise on purpose;
//! each of these is listed by its name with the number of the decision (`docs/differences.md`), checked
//! against what is right here, and counted. `VECTORS=DIR` takes the rows from another folder.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod vectors {
    pub(crate) mod authorization;
    pub(crate) mod events;
    pub(crate) mod rows;
    pub(crate) mod state;
    pub(crate) mod update;
}
