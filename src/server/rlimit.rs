//! How many descriptors the process may have, and how many lifecycle that is.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors of a pair that is served: one for each FIFO (docs/pipes.md#descriptors-of-a-pair).
const OF_A_PAIR: u64 = 2;

/// What is needed beside the lifecycle: the loop, the log, the link, answers on the status socket, and those
/// that are open for a moment while a pair is made or a pipe is emptied.
const RESERVE: u64 = 48;

/// Raises the limit as far as we may, and gives the number of lifecycle that it allows.
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
