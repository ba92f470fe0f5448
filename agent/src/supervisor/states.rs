//! Execution states as this agent reports them (PROTOCOL 6.6).

use fifogate::pb::ank_base::{
    ExecutionState, Failed, Pending, Removed, Running, Stopping, Succeeded,
    execution_state::ExecutionStateEnum as State,
};

fn state(state: State, info: impl Into<String>) -> ExecutionState {
    ExecutionState { additional_info: Some(info.into()), execution_state_enum: Some(state) }
}

pub(super) fn waiting_to_start() -> ExecutionState {
    state(State::Pending(Pending::WaitingToStart.into()), "")
}

pub(super) fn starting(info: impl Into<String>) -> ExecutionState {
    state(State::Pending(Pending::Starting.into()), info)
}

pub(super) fn starting_failed(info: impl Into<String>) -> ExecutionState {
    state(State::Pending(Pending::StartingFailed.into()), info)
}

pub(super) fn running() -> ExecutionState {
    state(State::Running(Running::Ok.into()), "")
}

pub(super) fn succeeded() -> ExecutionState {
    state(State::Succeeded(Succeeded::Ok.into()), "")
}

pub(super) fn failed(info: impl Into<String>) -> ExecutionState {
    state(State::Failed(Failed::ExecFailed.into()), info)
}

pub(super) fn lost(info: impl Into<String>) -> ExecutionState {
    state(State::Failed(Failed::Lost.into()), info)
}

pub(super) fn waiting_to_stop() -> ExecutionState {
    state(State::Stopping(Stopping::WaitingToStop.into()), "")
}

pub(super) fn stop_requested() -> ExecutionState {
    state(State::Stopping(Stopping::RequestedAtRuntime.into()), "")
}

pub(super) fn removed() -> ExecutionState {
    state(State::Removed(Removed::Removed.into()), "")
}
