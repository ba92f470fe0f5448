//! Descriptor limit: raises RLIMIT_NOFILE, and gives the number of pairs it allows.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors of a served pair: one for each FIFO (docs/pipes.md#descriptors-of-a-pair).
const OF_A_PAIR: u64 = 2;

/// Descriptors for everything else: the loop, the log, the link, the status socket, and those open for a
/// moment while a pair is made or a pipe is drained.
const RESERVE: u64 = 48;

/// Raises the limit as far as permitted. Returns the number of pairs it allows.
pub(super) fn most_pairs() -> usize {
    let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => {
            let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
            if raised.is_ok() { hard } else { soft }
        }
        Ok((soft, _)) => soft,
        Err(errno) => {
            log::warn!("cannot ask for the limit of descriptors: {}", errno.desc());
            return usize::MAX;
        }
    };
    usize::try_from(limit.saturating_sub(RESERVE) / OF_A_PAIR).unwrap_or(usize::MAX)
}
