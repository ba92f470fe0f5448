use fifogate::state::{Mask, agent_update};

use super::*;
use crate::store::Refused;

const TWO: &str = "apiVersion: v1\nworkloads:\n  w:\n    agent: a\n    runtime: process\n    \
                   runtimeConfig: x\n    tags: {t.u: '1', k: v}\n  n: {agent: '', runtime: process, \
                   runtimeConfig: y}\nconfigs:\n  c: {d: [x]}\n";

fn seeded(text: &str) -> Tree {
    let tree = fifogate::manifest::parse("t.yaml", text).unwrap().updated.tree;
    let new_state = convert::to_pb(&tree, Fill::Full);
    let update = Update { new_state, ..Update::default() };
    Current::new(Tree::initial()).update(&update).unwrap().tree
}

/// Whoever has `old` and is told the difference has `new`; so has whoever is told the changes.
fn assert_told(old: &Tree, new: &Tree) {
    let (state, masks) = difference(old, new).unwrap();
    let masks: Vec<_> = masks.iter().map(|mask| Mask::parse(mask)).collect();
    let told = agent_update::update(old, &convert::from_pb(&state).unwrap(), &masks).unwrap();
    assert!(told == *new, "{:?}\n{:?}", told.root(), new.root());
    if let Some((state, masks)) = update_of(old, new, changes_between(old, new)) {
        let masks: Vec<_> = masks.iter().map(|mask| Mask::parse(mask)).collect();
        let told = agent_update::update(old, &convert::from_pb(&state).unwrap(), &masks).unwrap();
        assert!(told == *new, "{:?}\n{:?}", told.root(), new.root());
    }
    let (applied, faults) = Current::new(old.clone()).apply(&changes_between(old, new)).unwrap();
    assert!(applied == *new && faults.is_empty(), "{:?}\n{:?}", applied.root(), new.root());
}

fn running(workload: &str, agent: &str, id: &str, state: i32) -> pb::WorkloadState {
    use pb::execution_state::ExecutionStateEnum as State;
    let kind = if state == 0 { State::Running(0) } else { State::Removed(0) };
    pb::WorkloadState {
        instance_name: Some(pb::WorkloadInstanceName {
            workload_name: workload.into(),
            agent_name: agent.into(),
            id: id.into(),
        }),
        execution_state: Some(pb::ExecutionState {
            additional_info: Some(String::new()),
            execution_state_enum: Some(kind),
        }),
    }
}

#[test]
fn every_step_of_a_state_can_be_told_as_a_difference() {
    let mut states = vec![empty(), seeded(TWO)];
    let last = |states: &[Tree]| states.last().unwrap().clone();
    states.push(set_agent(&last(&states), "a", Some(pb::AgentStatus::default())));
    states.push(report(&last(&states), &[running("w", "a", "1", 0)]).unwrap());
    states.push(report(&last(&states), &[running("w", "a", "1", 1)]).unwrap());
    states.push(seeded("apiVersion: v1"));
    states.push(seeded(&TWO.replace("t.u: '1', k: v", "t.u: '2'")));
    states.push(seeded(&TWO.replace("[x]", "[]")));
    // A file that is rendered of a config is another one with it, in an instance that is the same.
    let files = "configs: {a: c}\n    files: [{mountPoint: /f, data: '{{a.d}}'}]\n    tags:";
    let renders = TWO.replace("tags:", files);
    states.push(seeded(&renders));
    states.push(seeded(&renders.replace("[x]", "[y]")));
    for pair in states.windows(2) {
        assert_told(&pair[0], &pair[1]);
        assert_told(&pair[1], &pair[0]);
    }
}

#[test]
fn a_removed_workload_stays_until_its_agent_says_so_unless_it_never_began() {
    let seeded = seeded(TWO);
    let remove = |tree: &Tree| {
        let masks = vec!["desiredState.workloads".to_owned()];
        Current::new(tree.clone()).update(&Update { masks, ..Update::default() }).unwrap().tree
    };
    let entries = |tree: &Tree| tree.entries(&[WORKLOAD_STATES]).len();
    assert_eq!(entries(&seeded), 2);
    assert_eq!(entries(&remove(&seeded)), 0);
    let there = set_agent(&seeded, "a", Some(pb::AgentStatus::default()));
    let left = remove(&there);
    assert_eq!(entries(&left), 1, "the agent will say when it is gone");
}

#[test]
fn an_update_determines_a_config_that_a_mask_names_whole() {
    let cases: [(&[&str], bool); 9] = [
        (&[], true),
        (&["desiredState"], true),
        (&["desiredState.configs"], true),
        (&["desiredState.configs.c"], true),
        (&["desiredState.configs.c.d"], false),
        (&["desiredState.configs.c.d", "desiredState.configs.c"], true),
        (&["desiredState.configs.other"], false),
        (&["desiredState.configs.cc"], false),
        (&["desiredState.workloads"], false),
    ];
    let set = Change::Config("c".to_owned(), Some(pb::ConfigItem::default()));
    for (masks, is_determined) in cases {
        let masks = masks.iter().map(|&mask| mask.to_owned()).collect();
        let update = Update { masks, ..Update::default() };
        assert_eq!(Named::by(&update.masks).determines(&set), is_determined, "{:?}", update.masks);
        // That is so because it becomes the same, whatever it was.
        let from = |value: &str| {
            seeded(&TWO.replace("{d: [x]}", &format!("{value}\n  other: o\n  cc: o")))
        };
        let update = Update { new_state: convert::to_pb(&from("{d: new}"), Fill::Full), ..update };
        let made = |before: &str| {
            let tree = Current::new(from(before)).update(&update).unwrap().tree;
            tree.get(&[DESIRED_STATE, "configs", "c"]).cloned()
        };
        let is_same = made("{d: x, e: y}") == made("{d: x, e: z}");
        assert_eq!(is_same, is_determined, "{:?}", update.masks);
    }
    let all = Named::by(&[]);
    assert!(!all.determines(&Change::Config("c".to_owned(), None)), "it may be gone already");
    assert!(!all.determines(&Change::Workload("w".to_owned(), Some(Box::default()))));
}

#[test]
fn an_update_names_the_items_of_its_masks_once() {
    let masks = [
        "agents.a.tags",
        "desiredState.configs.c.d",
        "desiredState.configs.c",
        "desiredState.configs.c.e.f",
        "desiredState.workloads.w.tags.k",
        "desiredState.apiVersion",
        "desiredState.workloads",
    ];
    let masks = masks.map(ToOwned::to_owned);
    let named = Named::by(&masks);
    let items: Vec<_> = named.items().collect();
    assert_eq!(items, [Item::Agent("a"), Item::Config("c"), Item::Workload("w")]);
}

#[test]
fn nobody_sets_its_own_rights() {
    let tree = seeded(TWO);
    let access = "desiredState.workloads.w.controlInterfaceAccess";
    let rule = pb::StateRule { operation: 5, filter_masks: vec!["*".to_owned()] };
    let kind = pb::access_rights_rule::AccessRightsRuleEnum::StateRule(rule);
    let rule = pb::AccessRightsRule { access_rights_rule_enum: Some(kind) };
    let rules = pb::ControlInterfaceAccess { allow_rules: vec![rule], deny_rules: Vec::new() };
    let workload = pb::Workload { control_interface_access: Some(rules), ..Default::default() };
    let workloads = pb::WorkloadMap { workloads: [("w".to_owned(), workload)].into() };
    let desired = pb::State { workloads: Some(workloads), ..Default::default() };
    let new_state = pb::CompleteState { desired_state: Some(desired), ..Default::default() };
    let ask = |by: &str| {
        let asked = Update {
            by: by.to_owned(),
            new_state: new_state.clone(),
            masks: vec![access.to_owned()],
        };
        Current::new(tree.clone()).update(&asked).map(drop)
    };
    assert_eq!(ask("w"), Err(Refused::Invalid("Access denied".to_owned())));
    assert_eq!(ask("n"), Ok(()));
}
