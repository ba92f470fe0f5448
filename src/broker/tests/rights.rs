//! Rights of workloads, and the time of their check.

use super::*;

#[test]
fn nobody_gives_itself_rights_but_others_can_if_a_rule_names_them() {
    let writer = || vec![rule("ReadWrite", &["desiredState.workloads"])];
    let reader = || vec![rule("Read", &["agents"])];
    let mut world =
        World::new(&[("a", workload("", writer(), vec![])), ("b", workload("", reader(), vec![]))]);
    let (a, b) = (world.hello("a"), world.hello("b"));
    let wish = |name| desired(&[(name, workload("", anything(), vec![]))], &[]);
    world.update(a, wish("a"), &["desiredState.workloads.a"]);
    world.update(a, wish("a"), &["desiredState.workloads.a.controlInterfaceAccess"]);
    assert_eq!(world.heard(a), ["u error: Access denied", "u error: Access denied"]);
    world.subscribe(b, "s", &["agents"]);
    world.update(a, wish("b"), &["desiredState.workloads.b.controlInterfaceAccess"]);
    assert_eq!(world.heard(a), ["u done +1 -1"]);
    world.set(b, "k", "v");
    assert_eq!(world.heard(b), ["s state", "u done +0 -0"]);
}

#[test]
fn narrowed_rules_end_a_subscription_under_its_id_and_leave_the_others() {
    let rules = |masks: &[&str]| vec![rule("Read", masks)];
    let both = ["desiredState.configs.x", "desiredState.configs.y"];
    let mut world = World::new(&[
        ("a", workload("", anything(), vec![])),
        ("b", workload("", rules(&both), vec![])),
    ]);
    let (a, b) = (world.hello("a"), world.hello("b"));
    world.subscribe(b, "x", &both[..1]);
    world.subscribe(b, "y", &both[1..]);
    world.heard(b);
    let narrowed = desired(&[("b", workload("", rules(&both[1..]), vec![]))], &[]);
    world.update(a, narrowed, &["desiredState.workloads.b.controlInterfaceAccess"]);
    world.set(a, "x", "1");
    world.set(a, "y", "1");
    assert_eq!(world.heard(b), ["x error: Access denied", "y event +y y=1"]);
}

#[test]
fn update_without_the_right_to_it_is_denied_before_its_state_is_decoded() {
    // The state is malformed: decoding it would give another answer than "denied".
    let request = [0x0a, 1, b'u', 0x12, 8, 0x0a, 1, 0xff, 0x12, 3, b'a', b'.', b'b'];
    let body = [&[0x1a, request.len() as u8][..], &request].concat().into();
    let limits = Limits::default();
    let with = |allow| {
        let mut world = World::new(&[("a", workload("", allow, vec![]))]);
        let a = world.hello("a");
        world.say(a, FromWorkload::decode(&body, &limits));
        let counters = world.broker.report()[0].counters;
        (world.heard(a), counters.denied, counters.malformed)
    };
    let denied = (vec!["u error: Access denied".to_owned()], 1, 0);
    assert_eq!(with(vec![rule("Read", &["*"])]), denied);
    assert_eq!(with(vec![rule("ReadWrite", &["a.c"])]), denied);
    let (heard, denied, malformed) = with(vec![rule("Write", &["a.b"])]);
    assert!(heard[0].starts_with("u error: Could not decode the request"), "{heard:?}");
    assert_eq!((denied, malformed), (0, 1));
}
