use std::collections::BTreeMap;

use fifogate::{
    internal::{agent_update, parts},
    limits::MAX_NESTING,
    pb::ank_base::config_item::ConfigItemEnum,
    state::{Mask, convert},
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    super::large::{self, Head},
    *,
};
use crate::model::{self, Update};

fn keys() -> Keys {
    Keys::new("p")
}

fn entry(change: &Change, revision: i64) -> Entry {
    let Write { key, value } = keys().write(change);
    Entry { key, value, revision }
}

fn state_of(agent: &str, workload: &str, state: Option<State>) -> Change {
    let name = pb::WorkloadInstanceName {
        workload_name: workload.to_owned(),
        agent_name: agent.to_owned(),
        id: "1".to_owned(),
    };
    let state = state.map(|own| pb::ExecutionState {
        additional_info: Some(String::new()),
        execution_state_enum: Some(own),
    });
    Change::WorkloadState(name, state)
}

fn running() -> Option<State> {
    Some(State::Running(pb::Running::Ok.into()))
}

fn config(name: &str, value: &str) -> Change {
    let item = pb::ConfigItem { config_item_enum: Some(ConfigItemEnum::String(value.to_owned())) };
    Change::Config(name.to_owned(), Some(item))
}

fn workload(name: &str, config: Option<&str>) -> Change {
    let configs = config
        .map(|own| pb::ConfigMappings { configs: [("alias".to_owned(), own.to_owned())].into() });
    let own = pb::Workload {
        agent: Some("a".to_owned()),
        runtime: Some("process".to_owned()),
        runtime_config: Some("x".to_owned()),
        configs,
        ..Default::default()
    };
    Change::Workload(name.to_owned(), Some(Box::new(own)))
}

fn any_change(rng: &mut ChaCha8Rng) -> Change {
    let name = (*["k", "l", "m"].choose(rng).unwrap()).to_owned();
    let agent = (*["a", "b"].choose(rng).unwrap()).to_owned();
    let there = rng.random_bool(0.7);
    match rng.random_range(0..5) {
        0 if there => config(&name, &rng.random_range(0..3).to_string()),
        0 => Change::Config(name, None),
        1 if there => workload(&name, None),
        1 => Change::Workload(name, None),
        2 => Change::Agent(agent, there.then(pb::AgentAttributes::default)),
        3 => {
            let initial = State::Pending(pb::Pending::Initial.into());
            state_of(&agent, &name, there.then_some(initial))
        }
        _ => state_of(&agent, &name, if there { running() } else { None }),
    }
}

#[test]
fn what_is_followed_step_by_step_is_what_is_read_at_once() {
    let mut by_changes = 0;
    for seed in 0..30 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut view = View::new(keys(), 0, Vec::new()).unwrap();
        let mut told = view.current.tree().clone();
        let mut kept = BTreeMap::new();
        for revision in 1..200 {
            let count = rng.random_range(1..4);
            let mut some = BTreeMap::new();
            // A transaction writes each key once, and etcd tells of no key that goes and was not there.
            for own in (0..count).map(|_| entry(&any_change(&mut rng), revision)) {
                if own.value.is_some() || kept.contains_key(&own.key) {
                    some.insert(own.key.clone(), own);
                }
            }
            for own in some.values() {
                match own.value {
                    Some(_) => kept.insert(own.key.clone(), own.clone()),
                    None => kept.remove(&own.key),
                };
            }
            if let Some((tree, changes)) = view.advance(revision, some.into_values().collect()) {
                assert_ne!(tree, told, "nobody is told of what is the same");
                if let Some((state, masks)) = model::update_of(&told, &tree, changes) {
                    let masks: Vec<_> = masks.iter().map(|mask| Mask::parse(mask)).collect();
                    let state = convert::from_pb(&state).unwrap();
                    let heard = agent_update::update(&told, &state, &masks).unwrap();
                    assert_eq!(heard, tree, "{masks:?}");
                    by_changes += 1;
                }
                told = tree;
            }
            let all = kept.values().cloned().collect();
            let fresh = View::new(keys(), revision, all).unwrap();
            assert_eq!(
                view.current.tree(),
                fresh.current.tree(),
                "seed {seed}, revision {revision}"
            );
            assert_eq!(&told, view.current.tree(), "seed {seed}, revision {revision}");
            assert_eq!(
                (view.current.bytes(), &view.written),
                (fresh.current.bytes(), &fresh.written)
            );
        }
    }
    assert!(by_changes > 100, "{by_changes} steps were told by what changed");
}

/// A large update on its way through etcd, one step a revision.
enum Stage {
    Prepared,
    Written(usize),
    Counts(Vec<Staged>),
}

/// The entries of the next revision, as agents write them.
fn next_of_large(
    rng: &mut ChaCha8Rng,
    revision: i64,
    kept: &BTreeMap<String, Entry>,
    stage: &mut Option<Stage>,
) -> Vec<Entry> {
    let put = |key: String, value: Vec<u8>| Entry { key, value: Some(value), revision };
    let head = |head: Head| put(keys().large(), head.encode().into_bytes());
    let delete = |key: &String| Entry { key: key.clone(), value: None, revision };
    match stage.take() {
        None => {
            *stage = Some(Stage::Prepared);
            vec![head(Head::Preparing)]
        }
        Some(Stage::Prepared) => {
            let staged = (0..rng.random_range(1..6)).filter_map(|_| {
                let change = any_change(rng);
                let write = keys().write(&change);
                let known = kept.get(&write.key).map_or(0, |own| own.revision);
                match change {
                    Change::Agent(..) => None,
                    Change::WorkloadState(..) => Some(Staged { write, known: Some(known) }),
                    _ => Some(Staged { write, known: None }),
                }
            });
            // An update writes each item once.
            let staged: BTreeMap<_, _> = staged.map(|own| (own.write.key.clone(), own)).collect();
            let parts = large::parts(&keys(), staged.into_values().collect());
            *stage = Some(Stage::Written(parts.len()));
            parts.into_iter().map(|own| put(own.key, own.value.unwrap())).collect()
        }
        Some(Stage::Written(parts)) => {
            let mut view = View::new(keys(), revision, kept.values().cloned().collect()).unwrap();
            let done = head(Head::Done { parts });
            view.large.take(&keys(), &done.key, done.value.as_deref(), revision);
            *stage = Some(Stage::Counts(view.large.writes(&keys()).unwrap()));
            vec![done]
        }
        Some(Stage::Counts(mut left)) => match left.pop() {
            Some(Staged { write: Write { key, value }, known }) => {
                *stage = Some(Stage::Counts(left));
                let now = kept.get(&key).map_or(0, |own| own.revision);
                match known.is_none_or(|known| known == now) {
                    true => vec![Entry { key, value, revision }],
                    false => Vec::new(),
                }
            }
            None => {
                kept.keys().filter(|key| key.starts_with(&keys().large())).map(delete).collect()
            }
        },
    }
}

#[test]
fn large_update_counts_from_its_head_on_and_is_read_the_same_at_every_revision() {
    let mut counted = 0;
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut view = View::new(keys(), 0, Vec::new()).unwrap();
        let (mut kept, mut stage): (BTreeMap<String, Entry>, _) = (BTreeMap::new(), None);
        for revision in 1..100 {
            let mut some = Vec::new();
            if stage.is_none() && rng.random_bool(0.8) {
                some.push(entry(&any_change(&mut rng), revision));
            } else if rng.random_bool(0.3) {
                // Agents come and go, and report states, whatever is under way; a removal follows an update.
                let change = any_change(&mut rng);
                if matches!(change, Change::Agent(..) | Change::WorkloadState(_, Some(_))) {
                    some.push(entry(&change, revision));
                }
            } else {
                some = next_of_large(&mut rng, revision, &kept, &mut stage);
                counted += usize::from(matches!(stage, Some(Stage::Counts(_))));
            }
            some.retain(|own| own.value.is_some() || kept.contains_key(&own.key));
            for own in &some {
                match own.value {
                    Some(_) => kept.insert(own.key.clone(), own.clone()),
                    None => kept.remove(&own.key),
                };
            }
            let before = view.current.tree().clone();
            let told = view.advance(revision, some.clone());
            if let (Some(Stage::Counts(_)), None) = (&stage, some.first()) {
                assert!(told.is_none());
            }
            let fresh = View::new(keys(), revision, kept.values().cloned().collect()).unwrap();
            let place = format!("seed {seed}, revision {revision}: {some:?} after {before:?}");
            assert_eq!(view.current.tree(), fresh.current.tree(), "{place}");
            assert_eq!(
                (&view.written, view.current.bytes()),
                (&fresh.written, fresh.current.bytes())
            );
        }
    }
    assert!(counted > 1000, "{counted}");
}

#[test]
fn what_an_absent_agent_said_counts_as_disconnected_until_it_is_back() {
    let is = |view: &View, workload: &str| {
        let path = ["workloadStates", "a", workload, "1"];
        view.current.tree().get(&path).and_then(|own| own.str_at("state").map(ToOwned::to_owned))
    };
    let initial = Some(State::Pending(pb::Pending::Initial.into()));
    let begin = [state_of("a", "w", running()), state_of("a", "new", initial)];
    let begin = begin.iter().map(|own| entry(own, 1)).collect();
    let mut view = View::new(keys(), 1, begin).unwrap();
    assert_eq!(is(&view, "w").as_deref(), Some("AgentDisconnected"));
    assert_eq!(is(&view, "new").as_deref(), Some("Pending"), "nobody has begun with it");
    let agent =
        |there: bool| Change::Agent("a".to_owned(), there.then(pb::AgentAttributes::default));
    let told = view.advance(2, vec![entry(&agent(true), 2)]);
    assert!(told.is_some_and(|(tree, _)| tree == *view.current.tree()));
    assert_eq!(is(&view, "w").as_deref(), Some("Running"));
    view.advance(3, vec![entry(&agent(false), 3)]);
    assert_eq!(is(&view, "w").as_deref(), Some("AgentDisconnected"));
}

#[test]
fn a_plan_compares_what_makes_it_valid() {
    let start = [config("k", "v"), config("l", "v"), workload("w", Some("k"))];
    let start = start.iter().zip(1..).map(|(own, revision)| entry(own, revision)).collect();
    let view = View::new(keys(), 3, start).unwrap();
    let plan = |change: Change| {
        let changes = [change];
        let (tree, _) = view.current.apply(&changes).unwrap();
        let Plan { compares, writes } = view.plan(&tree, &changes);
        (compares, writes.into_iter().map(|own| own.key).collect::<Vec<_>>())
    };
    let (keys, guard) = (keys(), keys().guard());
    let (compares, writes) = plan(config("l", "2"));
    assert_eq!(compares, BTreeMap::from([(keys.config("l"), 2), (guard.clone(), 0)]));
    assert_eq!(writes, [keys.config("l")], "nobody refers to it");
    let (_, writes) = plan(config("k", "2"));
    assert_eq!(writes, [keys.config("k"), guard.clone()], "who renders it has to know");
    let (compares, writes) = plan(workload("new", Some("l")));
    let expected = [(keys.workload("new"), 0), (keys.config("l"), 2), (guard.clone(), 0)];
    assert_eq!(compares, BTreeMap::from(expected));
    assert_eq!(writes, [keys.workload("new"), guard]);
}

#[test]
fn plan_of_an_update_compares_the_entry_of_its_sender_where_its_rights_stand() {
    let rule = pb::StateRule { operation: 2, filter_masks: vec!["desiredState".to_owned()] };
    let kind = pb::access_rights_rule::AccessRightsRuleEnum::StateRule(rule);
    let rule = pb::AccessRightsRule { access_rights_rule_enum: Some(kind) };
    let access = pb::ControlInterfaceAccess { allow_rules: vec![rule], deny_rules: Vec::new() };
    let Change::Workload(name, Some(mut sender)) = workload("sender", None) else { panic!() };
    sender.control_interface_access = Some(access);
    let start = [config("k", "v"), Change::Workload(name, Some(sender))];
    let start = start.iter().zip(1..).map(|(own, revision)| entry(own, revision)).collect();
    let view = View::new(keys(), 2, start).unwrap();
    let compares = |by: &str, value: &str, masks: &[&str]| {
        let Change::Config(name, Some(item)) = config("k", value) else { panic!() };
        let configs = Some(pb::ConfigMap { configs: [(name, item)].into() });
        let state = pb::State { api_version: "v1".to_owned(), configs, ..Default::default() };
        let new_state = pb::CompleteState { desired_state: Some(state), ..Default::default() };
        let masks = masks.iter().map(|&mask| mask.to_owned()).collect();
        let update = Update { by: by.to_owned(), new_state, masks };
        let plan = view.plan_update(&update, &view.current.update(&update).unwrap());
        plan.compares.get(&keys().workload("sender")).copied()
    };
    let all: [(&str, &[&str]); 4] = [
        ("2", &["desiredState.configs.k"]),
        ("v", &["desiredState.configs.k"]),
        ("2", &["desiredState.configs"]),
        ("2", &["desiredState.configs.k", "desiredState.workloads.sender.tags"]),
    ];
    for (value, masks) in all {
        assert_eq!(compares("sender", value, masks), Some(2), "{value} {masks:?}");
    }
    assert_eq!(compares("", "2", &["desiredState.configs.k"]), None, "the agent has no entry");
}

#[test]
fn a_plan_of_an_update_compares_what_it_finds_as_it_wants_it_and_not_what_it_determines() {
    let start = [config("k", "v"), config("l", "v")];
    let start = start.iter().zip(1..).map(|(own, revision)| entry(own, revision)).collect();
    let view = View::new(keys(), 2, start).unwrap();
    let plan = |values: &[(&str, &str)], masks: &[&str]| {
        let configs = values.iter().map(|(name, value)| match config(name, value) {
            Change::Config(name, Some(item)) => (name, item),
            other => panic!("{other:?}"),
        });
        let configs = Some(pb::ConfigMap { configs: configs.collect() });
        let state = pb::State { api_version: "v1".to_owned(), configs, ..Default::default() };
        let new_state = pb::CompleteState { desired_state: Some(state), ..Default::default() };
        let masks = masks.iter().map(|&mask| mask.to_owned()).collect();
        let update = Update { by: String::new(), new_state, masks };
        let Plan { compares, writes } =
            view.plan_update(&update, &view.current.update(&update).unwrap());
        (compares, writes.into_iter().map(|own| own.key).collect::<Vec<_>>())
    };
    let (keys, guard) = (keys(), (keys().guard(), 0));
    let (k, l) = ("desiredState.configs.k", "desiredState.configs.l");
    let (compares, writes) = plan(&[("k", "2")], &[k]);
    assert_eq!((compares, writes), (BTreeMap::from([guard.clone()]), vec![keys.config("k")]));
    let (compares, writes) = plan(&[("k", "v")], &[k]);
    assert_eq!((compares, writes), (BTreeMap::from([(keys.config("k"), 1)]), vec![]));
    let (compares, writes) = plan(&[("k", "2"), ("l", "v")], &[k, l]);
    let expected = BTreeMap::from([guard.clone(), (keys.config("l"), 2)]);
    assert_eq!((compares, writes), (expected, vec![keys.config("k")]));
    let (compares, writes) = plan(&[], &[k]);
    let expected = BTreeMap::from([guard, (keys.config("k"), 1)]);
    assert_eq!((compares, writes), (expected, vec![keys.config("k")]), "it may be gone already");
}

/// A config of so many levels, each a mapping or a sequence.
fn nested(name: &str, levels: usize, mut is_mapping: impl FnMut() -> bool) -> Change {
    let value = (0..levels).fold(Node::text("x"), |value, _| match is_mapping() {
        true => Node::map([("k", value)]),
        false => Node::seq([value, Node::text("y")]),
    });
    Change::Config(name.to_owned(), Some(parts::config_to_pb(&value)))
}

fn names(view: &View, part: &str) -> Vec<String> {
    let entries = view.current.tree().entries(&[DESIRED_STATE, part]);
    entries.keys().map(ToString::to_string).collect()
}

#[test]
fn config_that_nests_to_the_bound_comes_back_from_its_key_and_value() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for levels in 0..=MAX_NESTING {
        for mappings in [0.0, 0.5, 0.5, 1.0] {
            let change = nested("k", levels, || rng.random_bool(mappings));
            let Write { key, value } = keys().write(&change);
            assert_eq!(keys().read(&key, value.as_deref()), Meaning::Item(change.clone()));
            let view = View::new(keys(), 1, vec![entry(&change, 1)]).unwrap();
            let Change::Config(_, Some(item)) = change else { unreachable!() };
            let found = view.current.tree().get(&[DESIRED_STATE, "configs", "k"]).unwrap();
            assert_eq!(parts::config_to_pb(found), item);
        }
    }
}

/// Agents check before they write: somebody else did not.
#[test]
fn value_that_somebody_else_wrote_wrong_is_left_out_until_it_is_mended() {
    let garbage = |key: String| Entry { key, value: Some(b"\xff\xff".to_vec()), revision: 1 };
    let deep = |name: &str, levels| nested(name, levels, || true);
    let good = [config("good", "v"), workload("w", None), workload("of_good", Some("good"))];
    let wrong = [
        deep("above", MAX_NESTING + 1),
        deep("far", 40),
        config("not a name", "x"),
        workload("of_above", Some("above")),
        workload("of_broken", Some("broken")),
        workload("of_nothing", Some("nothing")),
    ];
    let mut start: Vec<_> = good.iter().chain(&wrong).map(|own| entry(own, 1)).collect();
    start.extend([keys().config("broken"), keys().workload("broken")].map(garbage));
    start.push(garbage(keys().agent("a")));
    let mut view = View::new(keys(), 1, start).unwrap();
    assert_eq!(names(&view, "configs"), ["good"]);
    assert_eq!(names(&view, "workloads"), ["of_good", "w"]);

    // Others change meanwhile, and what is mended comes with what waited for it.
    let (_, changes) = view.advance(2, vec![entry(&config("good", "2"), 2)]).unwrap();
    assert_eq!(changes, [config("good", "2")]);
    let (tree, changes) = view.advance(3, vec![entry(&config("above", "x"), 3)]).unwrap();
    let paths: Vec<_> = changes.iter().map(Change::path).collect();
    assert_eq!(paths, ["desiredState.configs.above", "desiredState.workloads.of_above"]);
    assert_eq!(&tree, view.current.tree());
    view.advance(4, vec![entry(&config("broken", "x"), 4)]).unwrap();
    assert_eq!(names(&view, "configs"), ["above", "broken", "good"]);
    assert_eq!(names(&view, "workloads"), ["of_above", "of_broken", "of_good", "w"]);
}

#[test]
fn value_that_is_written_wrong_over_one_that_is_there_counts_as_none() {
    let start = [config("k", "v"), config("l", "v"), workload("w", Some("k"))];
    let mut view = View::new(keys(), 1, start.iter().map(|own| entry(own, 1)).collect()).unwrap();
    let garbage = |key: String| Entry { key, value: Some(b"\xff\xff".to_vec()), revision: 2 };
    let both = vec![entry(&nested("k", 25, || false), 2), entry(&config("l", "2"), 2)];
    let (_, changes) = view.advance(2, both).unwrap();
    let gone =
        [Change::Config("k".into(), None), config("l", "2"), Change::Workload("w".into(), None)];
    assert_eq!(changes, gone, "a workload without its config is no part of a state");
    view.advance(3, vec![entry(&config("k", "v"), 3)]).unwrap();
    assert_eq!(
        (names(&view, "configs"), names(&view, "workloads")),
        (vec!["k".to_owned(), "l".to_owned()], vec!["w".to_owned()],)
    );
    view.advance(4, vec![garbage(keys().workload("w"))]).unwrap();
    assert_eq!(names(&view, "workloads"), Vec::<String>::new());
    view.advance(5, vec![entry(&workload("w", Some("k")), 5)]).unwrap();
    view.advance(6, vec![entry(&Change::Config("k".to_owned(), None), 6)]).unwrap();
    assert_eq!(
        (names(&view, "configs"), names(&view, "workloads")),
        (vec!["l".to_owned()], vec![])
    );
}

/// Also such as no agent writes: that do not fit, alone or together, and that nobody can read.
fn any_entry(rng: &mut ChaCha8Rng, revision: i64) -> Entry {
    let name = *["k", "l", "m"].choose(rng).unwrap();
    let change = match rng.random_range(0..12) {
        0 => nested(name, MAX_NESTING + 1, || true),
        1..3 => workload(name, ["k", "l", "m", "none"].choose(rng).copied()),
        3..6 => {
            let Change::Workload(name, Some(mut own)) = workload(name, None) else { panic!() };
            let other = (*["k", "l", "m"].choose(rng).unwrap()).to_owned();
            let condition = pb::AddCondition::AddCondRunning.into();
            let dependencies = [(other, condition)].into();
            own.dependencies = Some(pb::Dependencies { dependencies });
            Change::Workload(name, Some(own))
        }
        6 => {
            let Change::Workload(name, Some(mut own)) = workload(name, Some(name)) else {
                panic!()
            };
            own.runtime_config = Some("{{alias.none}}".to_owned());
            Change::Workload(name, Some(own))
        }
        _ => any_change(rng),
    };
    let entry = entry(&change, revision);
    match entry.value {
        Some(_) if rng.random_bool(0.1) => Entry { value: Some(b"\xff\xff".to_vec()), ..entry },
        _ => entry,
    }
}

#[test]
fn state_depends_on_what_is_in_etcd_and_not_on_the_way_there() {
    let (mut left_out, mut fitted) = (0, 0);
    for seed in 0..60 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut view = View::new(keys(), 0, Vec::new()).unwrap();
        let mut kept = BTreeMap::new();
        for revision in 1..100 {
            let some: BTreeMap<_, _> = (0..rng.random_range(1..4))
                .map(|_| any_entry(&mut rng, revision))
                .filter(|own| own.value.is_some() || kept.contains_key(&own.key))
                .map(|own| (own.key.clone(), own))
                .collect();
            for own in some.values() {
                match own.value {
                    Some(_) => kept.insert(own.key.clone(), own.clone()),
                    None => kept.remove(&own.key),
                };
            }
            let before = view.current.tree().clone();
            let all: Vec<_> = some.values().cloned().collect();
            if let Some((tree, changes)) = view.advance(revision, all.clone()) {
                let told: Vec<_> = changes.iter().map(Change::path).collect();
                let differs = model::changes_between(&before, &tree);
                assert!(
                    differs.iter().all(|own| told.contains(&own.path())),
                    "{differs:?} {told:?}"
                );
            }
            let fresh = View::new(keys(), revision, kept.values().cloned().collect()).unwrap();
            let (now, anew) = (view.current.tree(), fresh.current.tree());
            assert_eq!(now, anew, "seed {seed}, revision {revision}: {all:?}");
            let left_outs =
                [&view, &fresh].map(|own| own.left_out.keys().cloned().collect::<Vec<_>>());
            assert_eq!(left_outs[0], left_outs[1], "seed {seed}, revision {revision}: {all:?}");
            assert_eq!(view.current.bytes(), fresh.current.bytes());
            *if view.left_out.is_empty() { &mut fitted } else { &mut left_out } += 1;
        }
    }
    assert!(left_out > 1000 && fitted > 100, "{left_out} {fitted}");
}

#[test]
fn state_that_etcd_lost_again_before_it_was_seen_there_is_said_again() {
    let report = |state| {
        let Change::WorkloadState(name, state) = state_of("a", "w", state) else { panic!() };
        pb::WorkloadState { instance_name: Some(name), execution_state: state }
    };
    let initial = Some(State::Pending(pb::Pending::Initial.into()));
    let restored = [entry(&state_of("a", "w", initial), 7)];
    let said = keys().write(&state_of("a", "w", running()));
    let mut view = View::new(keys(), 7, restored.to_vec()).unwrap();
    view.note_reports(&[report(running())]);
    assert_eq!(view.lost_states(&[entry(&state_of("a", "w", running()), 8)]), []);
    for _ in 0..2 {
        assert_eq!(view.lost_states(&restored), [(said.clone(), 7)]);
        let mut next = View::new(keys(), 7, restored.to_vec()).unwrap();
        next.remember(&view);
        view = next;
    }
    let removed = Some(State::Removed(pb::Removed::Removed.into()));
    view.note_reports(&[report(removed)]);
    assert_eq!(view.lost_states(&restored), []);
}

#[test]
fn workload_that_cannot_be_rendered_is_told_although_items_beside_it_are_left_out() {
    let wrong = |name: &str| {
        let Change::Workload(name, Some(mut own)) = workload(name, Some("k")) else { panic!() };
        own.runtime_config = Some("{{alias.none}}".to_owned());
        Change::Workload(name, Some(own))
    };
    let items = |more: &[Change]| {
        let mut all = vec![nested("above", MAX_NESTING + 1, || true), wrong("broken")];
        all.extend([workload("good", None), workload("dangling", Some("none"))]);
        all.extend_from_slice(more);
        all
    };
    let mut current = StateModel::default();
    current.set(current.apply(&[config("k", "v")]).unwrap().0);
    let told = |changes: Vec<Change>| {
        let Fitted { tree, faults, left_out, .. } = current.apply_what_fits(changes);
        let faults: Vec<_> = faults.into_iter().map(|own| own.workload).collect();
        assert!(faults.iter().all(|name| lacks(&tree, name)));
        (faults, left_out.len())
    };
    assert_eq!(told(items(&[])), (vec!["broken".to_owned()], 2));
    let more = [wrong("also"), workload("last", None)];
    assert_eq!(told(items(&more)), (vec!["also".to_owned(), "broken".to_owned()], 2));
    assert_eq!(told(items(&[Change::Workload("broken".to_owned(), None)])), (vec![], 2));
    let mut view = View::new(keys(), 0, vec![entry(&config("k", "v"), 0)]).unwrap();
    view.advance(1, items(&[]).iter().map(|own| entry(own, 1)).collect());
    let unrendered = |view: &View| view.unrendered.iter().map(|own| own.0.clone()).collect();
    let names: Vec<String> = unrendered(&view);
    assert_eq!(names, ["broken"]);
    view.advance(2, vec![entry(&config("other", "v"), 2)]);
    assert_eq!(unrendered(&view), names, "it is remembered while it is so");
    view.advance(3, vec![entry(&workload("broken", None), 3)]);
    assert_eq!(unrendered(&view), Vec::<String>::new());
}
