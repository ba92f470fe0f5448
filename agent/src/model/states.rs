//! Execution states reported by this agent (docs/protocol.md#workload-states), with texts of bounded
//! length.

use fifogate::pb::ank_base::{
    ExecutionState, Failed, Pending, Removed, Running, Stopping, Succeeded,
    execution_state::ExecutionStateEnum as State,
};

/// Bound on the bytes of additional information. It quotes commands and paths of any length, is kept
/// for each instance, and goes to all readers of execution states.
const MOST_INFO: usize = 1024;

fn state(state: State, info: impl Into<String>) -> ExecutionState {
    let info = shortened(info.into());
    ExecutionState { additional_info: Some(info), execution_state_enum: Some(state) }
}

fn shortened(mut info: String) -> String {
    if info.len() > MOST_INFO {
        let len = info.len();
        // `truncate` panics within a character.
        let end = (0..=MOST_INFO).rev().find(|at| info.is_char_boundary(*at)).unwrap_or(0);
        info.truncate(end);
        info.push_str(&format!("... ({} bytes more)", len - end));
    }
    info
}

pub(crate) fn waiting_to_start() -> ExecutionState {
    state(State::Pending(Pending::WaitingToStart.into()), "")
}

pub(crate) fn starting(info: impl Into<String>) -> ExecutionState {
    state(State::Pending(Pending::Starting.into()), info)
}

pub(crate) fn starting_failed(info: impl Into<String>) -> ExecutionState {
    state(State::Pending(Pending::StartingFailed.into()), info)
}

pub(crate) fn running() -> ExecutionState {
    state(State::Running(Running::Ok.into()), "")
}

pub(crate) fn succeeded() -> ExecutionState {
    state(State::Succeeded(Succeeded::Ok.into()), "")
}

pub(crate) fn failed(info: impl Into<String>) -> ExecutionState {
    state(State::Failed(Failed::ExecFailed.into()), info)
}

pub(crate) fn failed_unknown(info: impl Into<String>) -> ExecutionState {
    state(State::Failed(Failed::Unknown.into()), info)
}

pub(crate) fn lost(info: impl Into<String>) -> ExecutionState {
    state(State::Failed(Failed::Lost.into()), info)
}

pub(crate) fn waiting_to_stop() -> ExecutionState {
    state(State::Stopping(Stopping::WaitingToStop.into()), "")
}

pub(crate) fn stop_requested() -> ExecutionState {
    state(State::Stopping(Stopping::RequestedAtRuntime.into()), "")
}

pub(crate) fn stopping(info: impl Into<String>) -> ExecutionState {
    state(State::Stopping(Stopping::Stopping.into()), info)
}

pub(crate) fn delete_failed(info: impl Into<String>) -> ExecutionState {
    state(State::Stopping(Stopping::DeleteFailed.into()), info)
}

pub(crate) fn removed() -> ExecutionState {
    state(State::Removed(Removed::Removed.into()), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additional_information_is_cut_between_characters_and_says_what_is_missing() {
        let info = |text: &str| failed(text).additional_info.unwrap();
        for short in ["", "exit status 3", &"x".repeat(MOST_INFO), &"ü".repeat(MOST_INFO / 2)] {
            assert_eq!(info(short), short);
        }
        let over = format!("{}... (1 bytes more)", "x".repeat(MOST_INFO));
        assert_eq!(info(&"x".repeat(MOST_INFO + 1)), over);
        let cut = info(&format!("x{}", "ü".repeat(MOST_INFO / 2)));
        assert_eq!(cut, format!("x{}... (2 bytes more)", "ü".repeat(MOST_INFO / 2 - 1)));
        let command = "/bin/x".repeat(200_000);
        for state in [starting(&command), starting_failed(&command), lost(&command)] {
            let info = state.additional_info.unwrap();
            assert!(info.len() < MOST_INFO + 64 && info.ends_with(" bytes more)"), "{info}");
        }
    }
}
