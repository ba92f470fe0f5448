//! The owner of a pair, for the client of the agent link as well as for the server.

/// Owner of the FIFOs of a pair. fifogate's own user or group stands for a missing one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Numeric user id.
    pub uid: Option<u32>,
    /// Numeric group id.
    pub gid: Option<u32>,
}
