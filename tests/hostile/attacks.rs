//! One attack a time, and twenty at once.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use super::attacked::{AttackedServer, Budget, StopWhen};

/// Workloads in a state that is large enough to make a request for all of it expensive.
const MANY: usize = 2_000;

/// One attack against a fifogate with a small state, and all that has to hold.
fn survives(name: &str, arguments: &[&str], stop_when: StopWhen) {
    fight(AttackedServer::start(&["bad"], 0, &[]), name, arguments, stop_when);
}

/// The same with a large state.
fn survives_with_many(name: &str, arguments: &[&str], stop_when: StopWhen) {
    fight(AttackedServer::start(&["bad"], MANY, &[]), name, arguments, stop_when);
}

fn fight(mut server: AttackedServer, name: &str, arguments: &[&str], stop_when: StopWhen) {
    server.attack("bad", name, arguments);
    let cost = server.measure(stop_when);
    cost.check(&Budget::OF_ONE);
    server.everything_goes_on(&["bad"]);
    server.ends_when_told();
}

#[test]
fn splicing_from_an_idle_socket_into_output_holds_up_nobody_else() {
    survives("held_output", &["socket"], StopWhen::Stuck);
}

#[test]
fn splicing_from_a_terminal_into_output_holds_up_nobody_else() {
    survives("held_output", &["tty"], StopWhen::Stuck);
}

#[test]
fn sendfile_from_an_idle_socket_into_output_holds_up_nobody_else() {
    survives("held_output", &["sendfile"], StopWhen::Stuck);
}

#[test]
fn splicing_from_input_into_a_full_socket_holds_up_nobody_else() {
    survives("held_input", &[], StopWhen::Stuck);
}

#[test]
fn lock_that_is_held_and_let_go_again_and_again_holds_up_nobody_else() {
    survives("held_output", &["socket", "0.15", "1"], StopWhen::After(30));
}

#[test]
fn endless_garbage_holds_up_nobody_else() {
    survives("garbage", &["random"], StopWhen::After(1 << 20));
}

#[test]
fn endless_zeros_of_which_each_is_a_message_hold_up_nobody_else() {
    survives("garbage", &["zeros"], StopWhen::After(1 << 16));
}

#[test]
fn flood_of_hellos_holds_up_nobody_else() {
    survives("hello_flood", &["silent"], StopWhen::After(1));
    survives("hello_flood", &["reading"], StopWhen::After(10_000));
}

#[test]
fn flood_of_frames_that_make_no_sense_holds_up_nobody_else() {
    survives("malformed", &["silent"], StopWhen::After(1));
    survives("malformed", &["reading"], StopWhen::After(10_000));
}

#[test]
fn long_frame_that_comes_one_byte_a_time_holds_up_nobody_else() {
    survives("dribble", &[], StopWhen::After(10_000));
}

#[test]
fn halves_of_long_frames_hold_up_nobody_else() {
    survives("half_frames", &[], StopWhen::After(20));
}

#[test]
fn requests_of_the_dearest_masks_that_are_not_read_hold_up_nobody_else() {
    survives_with_many("expensive_requests", &["masks", "silent"], StopWhen::After(1));
}

#[test]
fn requests_of_the_dearest_masks_that_are_read_slowly_hold_up_nobody_else() {
    survives_with_many("expensive_requests", &["masks", "slow"], StopWhen::After(1));
}

#[test]
fn requests_of_the_dearest_masks_that_are_read_at_once_hold_up_nobody_else() {
    survives_with_many("expensive_requests", &["masks", "reading"], StopWhen::After(2));
}

#[test]
fn thousands_of_short_requests_for_everything_hold_up_nobody_else() {
    survives_with_many("expensive_requests", &["short", "silent"], StopWhen::After(64));
}

#[test]
fn subscriptions_that_are_left_behind_at_many_versions_of_a_large_state_cost_bounded_memory() {
    // It reads none of its answers, so it is itself not read after some hundreds of them.
    survives("subscriptions", &[], StopWhen::After(150));
}

#[test]
fn opening_and_closing_output_without_end_holds_up_nobody_else() {
    survives("open_close", &["output"], StopWhen::After(20_000));
}

#[test]
fn opening_and_closing_input_without_end_holds_up_nobody_else() {
    survives("open_close", &["input"], StopWhen::After(20_000));
}

#[test]
fn thousand_ends_that_are_held_open_hold_up_nobody_else() {
    survives("open_close", &["hold"], StopWhen::After(500));
}

#[test]
fn writing_into_its_own_input_holds_up_nobody_else() {
    survives("own_input", &[], StopWhen::After(1_000));
}

#[test]
fn pipes_that_shrink_and_grow_hold_up_nobody_else() {
    survives("resize_pipe", &[], StopWhen::After(100));
}

#[test]
fn names_that_are_replaced_lead_nowhere_and_hold_up_nobody_else() {
    let mut server = AttackedServer::start(&["bad", "other"], 0, &[]);
    let host = tempfile::tempdir().unwrap();
    let victim = host.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    fs::set_permissions(&victim, Permissions::from_mode(0o666)).unwrap();
    let (pair, other) = (server.gate.pair("bad"), server.gate.pair("other"));
    fs::set_permissions(&pair, Permissions::from_mode(0o777)).unwrap();
    let arguments = [victim.to_str().unwrap(), other.to_str().unwrap()];
    server.attack("bad", "replaced_names", &arguments);
    server.measure(StopWhen::After(100)).check(&Budget::OF_ONE);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    // The attacked pair has lost its names; the one that it pointed at has heard nothing.
    let mut beside = testkit::Session::open(&other);
    assert_eq!(beside.receive_within(std::time::Duration::ZERO), None);
    beside.hello();
    drop(beside);
    server.everything_goes_on(&["other"]);
    server.ends_when_told();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
}

#[test]
fn reader_of_one_byte_a_time_holds_up_nobody_else() {
    survives_with_many("one_byte_reader", &[], StopWhen::After(10_000));
}

#[test]
fn readers_that_are_killed_in_the_middle_of_a_frame_hold_up_nobody_else() {
    survives_with_many("killed_reader", &[], StopWhen::After(50));
}

#[test]
fn state_that_grows_is_refused_at_its_limit_and_holds_up_nobody_else() {
    let server = AttackedServer::start(&["bad"], 0, &["--max-state-bytes", "8388608"]);
    fight(server, "state_growth", &[], StopWhen::After(3));
}

#[test]
fn flood_of_updates_that_a_hundred_of_its_own_subscriptions_watch_holds_up_nobody_else() {
    survives("update_flood", &[], StopWhen::After(500));
}

#[test]
fn masks_and_request_ids_of_any_length_hold_up_nobody_else() {
    survives("long_masks", &[], StopWhen::After(16));
}

#[test]
fn writers_and_readers_that_are_stopped_in_the_middle_of_a_frame_hold_up_nobody_else() {
    survives_with_many("stopped", &[], StopWhen::After(5));
}

#[test]
fn flood_of_events_of_its_own_pipes_holds_up_nobody_else() {
    survives_with_many("inotify_flood", &[], StopWhen::After(20_000));
}

#[test]
fn twenty_attackers_of_all_kinds_at_once_hold_up_nobody_else() {
    let attacks: [(&str, &[&str]); 20] = [
        ("held_output", &["socket"]),
        ("held_output", &["tty"]),
        ("held_output", &["sendfile", "0.15", "1"]),
        ("held_input", &[]),
        ("garbage", &["random"]),
        ("hello_flood", &["silent"]),
        ("hello_flood", &["reading"]),
        ("malformed", &["reading"]),
        ("dribble", &[]),
        ("half_frames", &[]),
        ("expensive_requests", &["masks", "slow"]),
        ("subscriptions", &[]),
        ("open_close", &["output"]),
        ("open_close", &["input"]),
        ("own_input", &[]),
        ("resize_pipe", &[]),
        ("one_byte_reader", &[]),
        ("killed_reader", &[]),
        ("update_flood", &[]),
        ("inotify_flood", &[]),
    ];
    let names: Vec<_> = (0..attacks.len()).map(|number| format!("bad{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut server = AttackedServer::start(&names, MANY, &[]);
    for (workload, (name, arguments)) in names.iter().zip(attacks) {
        server.attack(workload, name, arguments);
    }
    server.measure(StopWhen::After(1)).check(&Budget::OF_TWENTY);
    server.everything_goes_on(&names);
    server.ends_when_told();
}
