//! Attributes of its process that the agent changes for itself. Its workloads get those of its starter.

use nix::{
    errno::Errno,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::{Mode, umask},
    },
};
use serde::{Deserialize, Serialize};

/// Attributes as the starter of the agent gave them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    umask: u32,
    /// Soft limit of descriptors; `None` if the system did not tell it.
    descriptors: Option<u64>,
}

impl Inherited {
    /// Makes each file that this process creates private to its user, lets it have as many descriptors
    /// as its hard limit allows, and returns what there was before.
    pub fn replace() -> Self {
        let umask = umask(Mode::from_bits_truncate(0o077)).bits();
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft);
        // One for each commander, pipe of a workload's output and stream to another agent.
        fifogate::server::raise_descriptor_limit();
        Self { umask, descriptors }
    }

    /// Gives them to this process, as it becomes a workload.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn restore(self) -> Result<(), Errno> {
        umask(Mode::from_bits_truncate(self.umask));
        let Some(descriptors) = self.descriptors else { return Ok(()) };
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        // Somebody may have lowered the hard limit since.
        setrlimit(Resource::RLIMIT_NOFILE, descriptors.min(hard), hard)
    }
}
