//! `get`, `watch` and `set` where the other end of the pipes is missing, or says odd things.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Read},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::Child,
};

use fifogate::pb::{
    ank_base::{
        AlteredFields, CompleteStateResponse, Error, EventsCancelAccepted, UpdateStateSuccess,
        request::RequestContent, response::ResponseContent,
    },
    control_api::{ConnectionClosed, from_ankaios::FromAnkaiosEnum},
};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use predicates::str::contains;

use super::stand_in::{StandIn, make_pair, pair};
use crate::{fifogate, start};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The rest of what a program says, and its status.
fn end(mut child: Child) -> (Option<i32>, String, String) {
    let mut texts = [String::new(), String::new()];
    child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut texts[0]).unwrap());
    child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut texts[1]).unwrap());
    let [stdout, stderr] = texts;
    (child.wait().unwrap().code(), stdout, stderr)
}

/// Starts `command` in the pair of `dir` and opens the session for it.
fn accepted(command: &[&str], dir: &Path) -> (Child, StandIn) {
    let mut gate = StandIn::open(dir);
    let child = start(&[command, &["-d", text(dir)]].concat());
    gate.hear_hello();
    gate.accept();
    (child, gate)
}

#[test]
fn what_is_no_control_interface_is_told_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    for command in [&["get"][..], &["watch"], &["set", "desiredState.configs.a=b"]] {
        let run = |dir: &Path| {
            let mut run = fifogate(&[command, &["-d", text(dir)]].concat());
            run.assert().code(1).stdout("")
        };
        let no_folder = format!("error: {}: no such folder; -d names", text(&missing));
        run(&missing).stderr(contains(no_folder));
        let no_file = format!("error: {}: no such file; -d names", text(&dir.path().join("input")));
        run(dir.path()).stderr(contains(no_file));
    }
}

#[test]
fn regular_file_where_a_fifo_belongs_is_told_and_left_alone() {
    for name in ["input", "output"] {
        let dir = pair();
        let file = dir.path().join(name);
        fs::remove_file(&file).unwrap();
        fs::write(&file, "mine").unwrap();
        let said = fifogate(&["get", "-d", text(dir.path())]).assert().code(1);
        said.stderr(contains(format!("{} is no named pipe (FIFO)", text(&file))));
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }
}

#[test]
fn folder_that_the_user_may_not_enter_is_named_with_its_owner() {
    let dir = pair();
    let below = dir.path().join("below");
    make_pair(&below);
    let owner = fs::metadata(dir.path()).unwrap().uid();
    // Root enters every folder.
    let program = tempfile::tempdir().unwrap();
    fs::set_permissions(program.path(), Permissions::from_mode(0o755)).unwrap();
    fs::copy(testkit::fifogate(), program.path().join("fifogate")).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o000)).unwrap();
    for pair in [dir.path(), &below] {
        let mut command = std::process::Command::new(program.path().join("fifogate"));
        if testkit::is_root() {
            command.uid(65_534).gid(65_534);
        }
        let output = command.args(["get", "-d", text(pair)]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = format!(
            "error: {}: Permission denied (os error 13); run this command as the owner of this folder, \
             user {owner}, or as root\n",
            text(dir.path())
        );
        assert_eq!((output.status.code(), said), (Some(1), expected));
    }
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn nobody_at_the_other_end_is_told_at_once() {
    let dir = pair();
    let said = fifogate(&["get", "-d", text(dir.path())]).assert().code(1);
    said.stderr(contains("nobody serves this control interface; start fifogate"));
}

#[test]
fn silence_after_the_hello_ends_after_the_timeout() {
    let dir = pair();
    let _gate = StandIn::open(dir.path());
    for command in ["get", "watch"] {
        let mut run = fifogate(&[command, "-d", text(dir.path()), "--timeout", "0.05"]);
        run.assert().code(1).stderr(contains("not answered within 0.05 s (--timeout)"));
    }
}

#[test]
fn silence_after_a_request_ends_after_the_timeout() {
    for command in ["get", "watch"] {
        let dir = pair();
        let (child, mut gate) = accepted(&[command, "--timeout", "0.5"], dir.path());
        gate.hear_request();
        let (status, stdout, stderr) = end(child);
        assert_eq!((status, &*stdout), (Some(1), ""));
        assert!(stderr.contains("no answer within 0.5 s (--timeout)"), "{stderr}");
    }
}

#[test]
fn refused_hello_and_closed_session_are_told_with_their_reason() {
    let closed = |reason: &str| {
        FromAnkaiosEnum::ConnectionClosed(ConnectionClosed { reason: reason.to_owned() })
    };
    let dir = pair();
    let mut gate = StandIn::open(dir.path());
    let child = start(&["get", "-d", text(dir.path())]);
    gate.hear_hello();
    gate.say(closed("too old"));
    let (status, _, stderr) = end(child);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("the Hello was refused: too old"), "{stderr}");

    for command in ["get", "watch"] {
        let dir = pair();
        let (child, mut gate) = accepted(&[command], dir.path());
        gate.hear_request();
        gate.say(closed("too long"));
        let (status, _, stderr) = end(child);
        assert_eq!(status, Some(1));
        assert!(stderr.contains("the session was closed: too long"), "{stderr}");
    }
}

#[test]
fn error_response_is_told_and_is_a_failure() {
    let dir = pair();
    let (child, mut gate) = accepted(&["get"], dir.path());
    let (id, _) = gate.hear_request();
    gate.respond(&id, ResponseContent::Error(Error { message: "Access denied".to_owned() }));
    let (status, stdout, stderr) = end(child);
    assert_eq!((status, &*stdout), (Some(1), ""));
    let error = format!("error: {}: Access denied\nhint: ", text(dir.path()));
    assert!(stderr.starts_with(&error) && stderr.lines().count() == 2, "{stderr}");
}

#[test]
fn leftovers_of_an_earlier_session_are_skipped() {
    let dir = pair();
    let mut gate = StandIn::open(dir.path());
    // Half a frame of somebody who was killed, before we come; whole frames after that.
    gate.say_bytes(b"\x7f\x1a\x7d\x0a");
    let child = start(&["get", "-d", text(dir.path())]);
    gate.hear_hello();
    gate.respond_state("fifogate-1-1", "old");
    gate.accept();
    let (id, _) = gate.hear_request();
    gate.respond_state("fifogate-1-1", "old");
    gate.accept();
    gate.respond_state(&id, "new");
    let (status, stdout, stderr) = end(child);
    assert_eq!((status, &*stdout, &*stderr), (Some(0), "desiredState:\n  apiVersion: new\n", ""));
}

#[test]
fn request_ids_of_two_runs_differ() {
    let dir = pair();
    let id = || {
        let (child, mut gate) = accepted(&["get"], dir.path());
        let (id, _) = gate.hear_request();
        gate.respond_state(&id, "v1");
        assert_eq!(end(child).0, Some(0));
        id
    };
    assert_ne!(id(), id());
}

#[test]
fn end_of_file_is_a_failure_of_get_and_set() {
    for command in [&["get"][..], &["set", "desiredState.configs.a=b"]] {
        let dir = pair();
        let (child, mut gate) = accepted(command, dir.path());
        gate.hear_request();
        drop(gate);
        let (status, stdout, stderr) = end(child);
        assert_eq!((status, &*stdout), (Some(1), ""));
        assert!(stderr.contains("fifogate went away"), "{stderr}");
    }
}

#[test]
fn watch_waits_for_fifogate_to_be_back_and_subscribes_again() {
    let dir = pair();
    let (mut child, mut gate) =
        accepted(&["watch", "--output", "json", "desiredState"], dir.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut notes = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    let mut note = || notes.next().unwrap().unwrap();
    let (first, _) = gate.hear_request();
    gate.respond_state(&first, "v1");
    assert_eq!(next(), r#"{"completeState":{"desiredState":{"apiVersion":"v1"}}}"#);
    drop(gate);
    assert!(note().contains("went away; waiting for fifogate"));

    let mut gate = StandIn::open(dir.path());
    gate.hear_hello();
    gate.accept();
    assert!(note().contains("connected again"));
    let (second, content) = gate.hear_request();
    let RequestContent::CompleteStateRequest(ask) = content else { panic!("{content:?}") };
    assert_eq!(
        (&*ask.field_mask, ask.subscribe_for_events),
        (&["desiredState".to_owned()][..], true)
    );
    assert_ne!(first, second);
    gate.respond_state(&second, "v2");
    assert_eq!(next(), r#"{"completeState":{"desiredState":{"apiVersion":"v2"}}}"#);

    // Also while it waits, Ctrl-C ends it.
    drop(gate);
    assert!(note().contains("went away"));
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn watch_notices_a_fifogate_that_was_replaced_while_it_could_not_look() {
    let dir = pair();
    let (mut child, mut gate) = accepted(&["watch"], dir.path());
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (first, _) = gate.hear_request();
    gate.respond_state(&first, "v1");
    stdout.read_line(&mut String::new()).unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    drop(gate);
    let mut gate = StandIn::open(dir.path());
    // From here on the pipes show nothing of the gap.
    kill(pid, Signal::SIGCONT).unwrap();
    gate.hear_hello();
    gate.accept();
    assert_ne!(gate.hear_request().0, first);
    drop(stdout);
    assert!(matches!(gate.hear_request().1, RequestContent::EventsCancelRequest(_)));
    gate.say(FromAnkaiosEnum::ConnectionClosed(ConnectionClosed::default()));
    assert_eq!(end(child).0, Some(0));
}

#[test]
fn watch_subscribes_again_if_somebody_else_opened_a_session() {
    let dir = pair();
    let (mut child, mut gate) = accepted(&["watch", "--count", "1"], dir.path());
    let (first, _) = gate.hear_request();
    gate.respond_state(&first, "v1");
    gate.accept();
    let (second, content) = gate.hear_request();
    assert!(matches!(content, RequestContent::CompleteStateRequest(_)), "{content:?}");
    assert_ne!(first, second);
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let (id, content) = gate.hear_request();
    assert_eq!((id, content), (second, RequestContent::EventsCancelRequest(Default::default())));
    assert!(child.try_wait().unwrap().is_none(), "it does not wait for the confirmation");
    let confirmed = ResponseContent::EventsCancelAccepted(EventsCancelAccepted {});
    gate.respond(&first, confirmed.clone());
    assert_eq!(end(child).0, Some(0)); // after a second without a confirmation
}

#[test]
fn ctrl_c_cancels_the_subscription_and_takes_no_event_for_the_confirmation() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let dir = pair();
        let (mut child, mut gate) = accepted(&["watch"], dir.path());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (id, _) = gate.hear_request();
        gate.respond_state(&id, "v1");
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let cancel = gate.hear_request();
        assert_eq!(cancel, (id.clone(), RequestContent::EventsCancelRequest(Default::default())));
        let event = CompleteStateResponse {
            altered_fields: Some(AlteredFields::default()),
            ..Default::default()
        };
        gate.respond(&id, ResponseContent::CompleteStateResponse(event));
        gate.respond(&id, ResponseContent::EventsCancelAccepted(EventsCancelAccepted {}));
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "  desiredState:\n    apiVersion: v1\n");
        assert_eq!(end(child), (Some(0), String::new(), String::new()));
    }
}

#[test]
fn watch_ends_and_cancels_when_nobody_reads_its_output_though_no_event_comes() {
    let dir = pair();
    let (mut child, mut gate) = accepted(&["watch"], dir.path());
    let (id, _) = gate.hear_request();
    gate.respond_state(&id, "v1");
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    let (cancelled, content) = gate.hear_request();
    assert!(matches!(content, RequestContent::EventsCancelRequest(_)), "{content:?}");
    assert_eq!(cancelled, id);
    gate.respond(&id, ResponseContent::EventsCancelAccepted(EventsCancelAccepted {}));
    assert_eq!(end(child), (Some(0), String::new(), String::new()));
}

#[test]
fn update_is_not_sent_to_a_fifogate_that_does_not_answer_the_read_before_it() {
    let dir = pair();
    let set = ["set", "desiredState.configs.a=b", "--timeout", "0.5"];
    let (child, mut gate) = accepted(&set, dir.path());
    assert!(matches!(gate.hear_request().1, RequestContent::CompleteStateRequest(_)));
    let (status, stdout, stderr) = end(child);
    assert_eq!((status, &*stdout), (Some(1), ""));
    assert!(stderr.contains("no answer within 0.5 s (--timeout)"), "{stderr}");
    assert!(gate.has_heard_all());
}

#[test]
fn reason_of_an_unknown_effect_is_noted_unless_it_is_a_denial() {
    for (message, note) in [
        ("Access denied", String::new()),
        ("too much", "note: the effect of the update is unknown: DIR: too much\n".to_owned()),
    ] {
        let dir = pair();
        let (child, mut gate) = accepted(&["set", "desiredState.configs.a=b"], dir.path());
        let (id, _) = gate.hear_request();
        gate.respond(&id, ResponseContent::Error(Error { message: message.to_owned() }));
        let (id, content) = gate.hear_request();
        assert!(matches!(content, RequestContent::UpdateStateRequest(_)), "{content:?}");
        gate.respond(&id, ResponseContent::UpdateStateSuccess(UpdateStateSuccess::default()));
        let note = note.replace("DIR", text(dir.path()));
        let said = "accepted: desiredState.configs.a\n".to_owned();
        assert_eq!(end(child), (Some(0), said, note));
    }
}

#[test]
fn request_that_does_not_fit_the_pipe_at_once_arrives_whole() {
    let dir = pair();
    let value = format!("desiredState.configs.big={}", "x".repeat(100_000));
    let (child, mut gate) = accepted(&["set", &value], dir.path());
    // First it asks what is there.
    let (id, content) = gate.hear_request();
    let RequestContent::CompleteStateRequest(ask) = content else { panic!("{content:?}") };
    assert_eq!(ask.field_mask, ["desiredState.configs.big"]);
    gate.respond_state(&id, "v1");
    let (id, content) = gate.hear_request();
    let RequestContent::UpdateStateRequest(update) = content else { panic!("{content:?}") };
    assert_eq!(update.update_mask, ["desiredState.configs.big"]);
    gate.respond(&id, ResponseContent::UpdateStateSuccess(UpdateStateSuccess::default()));
    let said = "changed: desiredState.configs.big\n".to_owned();
    assert_eq!(end(child), (Some(0), said, String::new()));
}
