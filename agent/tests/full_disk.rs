//! A disk that is full for a while: what is refused then, and what goes on afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use fifogate::pb::ank_base::response::ResponseContent;
use testkit::{Agent, Session, SmallDisk, is_done_elsewhere, update};

/// Sets a config and returns the error, if there is one.
fn set(ctl: &mut Session, name: &str, value: &str) -> Result<(), String> {
    let mask = format!("desiredState.configs.{name}");
    let id = ctl.ask(update(&format!("configs: {{{name}: '{value}'}}"), &[&mask]));
    match ctl.answer(&id) {
        ResponseContent::UpdateStateSuccess(_) => Ok(()),
        ResponseContent::Error(error) => Err(error.message),
        other => panic!("{other:?}"),
    }
}

fn get(ctl: &mut Session, name: &str) -> Option<usize> {
    let tree = ctl.state();
    let config = tree.get(&["desiredState", "configs", name])?;
    config.as_str().map(str::len)
}

#[test]
fn updates_are_taken_again_when_there_is_room_and_refused_ones_left_nothing() {
    if is_done_elsewhere(&["--mount"]) {
        return;
    }
    let disk = SmallDisk::mount(4);
    let state = disk.path("state");
    let mut agent = Agent::start("", &["--state-dir", state.to_str().unwrap()]);
    let mut ctl = agent.connect();
    let large = "x".repeat(100_000);
    set(&mut ctl, "before", "1").unwrap();
    for round in 0..3 {
        let full = disk.fill();
        for _ in 0..3 {
            let error = set(&mut ctl, "large", &large).unwrap_err();
            assert!(error.contains("No space left on device"), "{error}");
        }
        assert_eq!(get(&mut ctl, "large"), None, "a refused update is not shown");
        drop(full);
        set(&mut ctl, &format!("after{round}"), "1").unwrap();
    }
    agent.kill();
    drop(ctl);
    agent.restart();
    let mut ctl = agent.connect();
    for name in ["before", "after0", "after1", "after2"] {
        assert_eq!(get(&mut ctl, name), Some(1), "{name}");
    }
    assert_eq!(get(&mut ctl, "large"), None, "a refused update was kept");
}
