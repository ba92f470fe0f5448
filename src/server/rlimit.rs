//! Descriptor limit: gives the number of pairs allowed by RLIMIT_NOFILE, and raises it on request.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors of a served pair: one for each FIFO (docs/pipes.md#descriptors-of-a-pair).
const OF_A_PAIR: u64 = 2;

/// Descriptors for everything else: the loop, the log, the link, the status socket, and those open for a
/// moment while a pair is made or a pipe is drained.
const RESERVE: u64 = 48;

/// Raises the soft limit of descriptors of this process to its hard limit. A program calls it before it
/// starts servers: a server takes the limit as it finds it.
pub fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::warn!("cannot raise the limit of descriptors above {soft}: {}", errno.desc());
    }
}

/// The number of pairs allowed by the limit.
pub(super) fn most_pairs() -> usize {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) => {
            usize::try_from(soft.saturating_sub(RESERVE) / OF_A_PAIR).unwrap_or(usize::MAX)
        }
        // No pair is refused beforehand then; each fails by itself, with the error of the system.
        Err(errno) => {
            log::warn!("cannot read the limit of descriptors: {}", errno.desc());
            usize::MAX
        }
    }
}
