use fifogate::{internal::agent_update, state::Mask};

use super::*;
use crate::store::Refused;

const TWO: &str = "apiVersion: v1\nworkloads:\n  w:\n    agent: a\n    runtime: process\n    \
                   runtimeConfig: x\n    tags: {t.u: '1', k: v}\n  n: {agent: '', runtime: process, \
                   runtimeConfig: y}\nconfigs:\n  c: {d: [x]}\n";

fn seeded(text: &str) -> Tree {
    let tree = fifogate::manifest::parse("t.yaml", text).unwrap().updated.tree;
    let new_state = convert::to_pb(&tree, Fill::Full);
    let update = Update { new_state, ..Update::default() };
    StateModel::new(Tree::initial()).update(&update).unwrap().tree
}

/// Applying the difference to `old` gives `new`; so does applying the changes.
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
    let (applied, faults) = StateModel::new(old.clone()).apply(&changes_between(old, new)).unwrap();
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
        StateModel::new(tree.clone()).update(&Update { masks, ..Update::default() }).unwrap().tree
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
        assert_eq!(
            UpdateTargets::by(&update.masks).overwrites(&set),
            is_determined,
            "{:?}",
            update.masks
        );
        // The result is the same for every previous value.
        let from = |value: &str| {
            seeded(&TWO.replace("{d: [x]}", &format!("{value}\n  other: o\n  cc: o")))
        };
        let update = Update { new_state: convert::to_pb(&from("{d: new}"), Fill::Full), ..update };
        let made = |before: &str| {
            let tree = StateModel::new(from(before)).update(&update).unwrap().tree;
            tree.get(&[DESIRED_STATE, "configs", "c"]).cloned()
        };
        let is_same = made("{d: x, e: y}") == made("{d: x, e: z}");
        assert_eq!(is_same, is_determined, "{:?}", update.masks);
    }
    let all = UpdateTargets::by(&[]);
    assert!(!all.overwrites(&Change::Config("c".to_owned(), None)), "it may be gone already");
    assert!(!all.overwrites(&Change::Workload("w".to_owned(), Some(Box::default()))));
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
    let named = UpdateTargets::by(&masks);
    let items: Vec<_> = named.items().collect();
    assert_eq!(items, [Item::Agent("a"), Item::Config("c"), Item::Workload("w")]);
}

fn rights(operation: pb::ReadWriteEnum, masks: &[&str]) -> pb::AccessRightsRule {
    let filter_masks = masks.iter().map(|&mask| mask.to_owned()).collect();
    let rule = pb::StateRule { operation: operation.into(), filter_masks };
    let kind = pb::access_rights_rule::AccessRightsRuleEnum::StateRule(rule);
    pb::AccessRightsRule { access_rights_rule_enum: Some(kind) }
}

fn with_rights(operation: pb::ReadWriteEnum, masks: &[&str], own: pb::Workload) -> pb::Workload {
    let allow_rules = vec![rights(operation, masks)];
    let access = pb::ControlInterfaceAccess { allow_rules, deny_rules: Vec::new() };
    pb::Workload { control_interface_access: Some(access), ..own }
}

fn ask(tree: &Tree, by: &str, desired: pb::State, masks: &[&str]) -> Result<Tree, Refused> {
    let new_state = pb::CompleteState { desired_state: Some(desired), ..Default::default() };
    let masks = masks.iter().map(|&mask| mask.to_owned()).collect();
    let update = Update { by: by.to_owned(), new_state, masks };
    let planned = StateModel::new(tree.clone()).update(&update);
    planned.map(|planned| planned.tree).map_err(|refused| match refused {
        Refused::Denied(_) => denied(),
        other => other,
    })
}

/// Whatever the reason in the log.
fn denied() -> Refused {
    Refused::Denied(String::new())
}

fn workloads<const N: usize>(all: [(&str, pb::Workload); N]) -> pb::State {
    let workloads = all.into_iter().map(|(name, own)| (name.to_owned(), own)).collect();
    let workloads = Some(pb::WorkloadMap { workloads });
    pb::State { api_version: "v1".to_owned(), workloads, ..Default::default() }
}

/// All of `TWO`, with rights to write for `w` and `n`.
fn two_that_may_write() -> Tree {
    let writes = |mask| {
        format!(
            "controlInterfaceAccess: {{allowRules: [{{type: StateRule, operation: Write, \
                 filterMasks: [{mask}]}}]}}"
        )
    };
    let text =
        TWO.replace("    tags:", &format!("    {}\n    tags:", writes("desiredState.workloads")));
    seeded(&text.replace("runtimeConfig: y", &format!("runtimeConfig: y, {}", writes("'*'"))))
}

#[test]
fn nobody_sets_its_own_rights() {
    let tree = two_that_may_write();
    let access = "desiredState.workloads.w.controlInterfaceAccess";
    let new = || {
        let everything = pb::ReadWriteEnum::RwReadWrite;
        workloads([("w", with_rights(everything, &["*"], pb::Workload::default()))])
    };
    assert_eq!(ask(&tree, "w", new(), &[access]), Err(denied()));
    assert!(ask(&tree, "n", new(), &[access]).is_ok());
}

#[test]
fn update_is_decided_by_the_rights_that_its_sender_has_in_the_state_and_not_by_those_it_had() {
    let tree = two_that_may_write();
    let tag = |value: &str| {
        let tags = Some(pb::Tags { tags: [("k".to_owned(), value.to_owned())].into() });
        workloads([("w", pb::Workload { tags, ..Default::default() })])
    };
    let mask = "desiredState.workloads.w.tags.k";
    assert!(ask(&tree, "w", tag("1"), &[mask]).is_ok());
    assert_eq!(ask(&tree, "w", tag("1"), &[mask, "desiredState.configs.c"]), Err(denied()));
    assert_eq!(ask(&tree, "w", tag("1"), &[]), Err(denied()), "no mask is every mask");
    assert_eq!(ask(&tree, "gone", tag("1"), &[mask]), Err(denied()));
    assert!(ask(&tree, "", tag("1"), &[mask]).is_ok(), "the agent itself");
    let reads = with_rights(pb::ReadWriteEnum::RwRead, &["*"], pb::Workload::default());
    let access = "desiredState.workloads.w.controlInterfaceAccess";
    let narrowed = ask(&tree, "n", workloads([("w", reads)]), &[access]).unwrap();
    assert_eq!(ask(&narrowed, "w", tag("1"), &[mask]), Err(denied()));
}

#[test]
fn config_is_referred_to_by_those_who_may_read_it_and_a_missing_one_is_not_told_to_others() {
    let tree = two_that_may_write();
    let refers = |config: &str| {
        let configs = Some(pb::ConfigMappings { configs: [("a".into(), config.into())].into() });
        workloads([("n", pb::Workload { configs, ..Default::default() })])
    };
    let mask = "desiredState.workloads.n.configs";
    for config in ["c", "missing", "a.b", "*", ""] {
        assert_eq!(ask(&tree, "w", refers(config), &[mask]), Err(denied()), "{config}");
    }
    assert!(ask(&tree, "", refers("c"), &[mask]).is_ok());
    let rule = rights(pb::ReadWriteEnum::RwRead, &["desiredState.configs.c"]);
    let writes = rights(pb::ReadWriteEnum::RwWrite, &["desiredState.workloads"]);
    let access =
        pb::ControlInterfaceAccess { allow_rules: vec![rule, writes], deny_rules: Vec::new() };
    let own = pb::Workload { control_interface_access: Some(access), ..Default::default() };
    let own_access = "desiredState.workloads.w.controlInterfaceAccess";
    let tree = ask(&tree, "", workloads([("w", own)]), &[own_access]).unwrap();
    assert!(ask(&tree, "w", refers("c"), &[mask]).is_ok());
    assert_eq!(ask(&tree, "w", refers("missing"), &[mask]), Err(denied()));
}

#[test]
fn place_at_which_a_rendered_text_is_over_a_bound_is_told_only_to_those_who_may_read_its_configs() {
    let renders =
        "runtimeConfig: '{{x.d}}{{y.d}}'\n    configs: {x: c, y: e}\n    restartPolicy: NEVER";
    let rule = |operation: &str, masks: &str| {
        format!("{{type: StateRule, operation: {operation}, filterMasks: [{masks}]}}")
    };
    for (read, is_told) in [
        ("desiredState.configs.c", false),
        ("desiredState.configs", false),
        ("'desiredState.configs.c', 'desiredState.workloads'", false),
        ("'desiredState.configs', 'desiredState.workloads.w'", true),
    ] {
        let rules = [rule("Write", "desiredState.configs"), rule("Read", read)].join(", ");
        let sender = format!(
            "  s: {{agent: '', runtime: x, runtimeConfig: x, controlInterfaceAccess: \
             {{allowRules: [{rules}]}}}}\n"
        );
        let text = TWO.replace("runtimeConfig: x", renders);
        let text =
            text.replace("configs:\n  c:", &format!("{sender}configs:\n  e: {{d: secret}}\n  c:"));
        let tree = seeded(&text);
        let deep = format!("{}x", "- ".repeat(21));
        let new = fifogate::manifest::parse(
            "t.yaml",
            &format!("apiVersion: v1\nconfigs: {{c: {{d: '{deep}'}}}}"),
        );
        let new = convert::to_pb(&new.unwrap().updated.tree, Fill::Full).desired_state.unwrap();
        let refused = ask(&tree, "s", new.clone(), &["desiredState.configs.c"]).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("desiredState.workloads.w"), "{text}");
        assert_eq!(text.contains("line 1, column 41: nests"), is_told, "{read}: {text}");
        assert!(ask(&tree, "", new, &["desiredState.configs.c"]).is_ok(), "the agent itself");
    }
}

#[test]
fn state_over_its_bound_is_refused_whoever_makes_it_and_can_shrink() {
    let text = |bytes: usize| "x".repeat(bytes);
    let config = |name: &str, bytes: usize| {
        let item = pb::config_item::ConfigItemEnum::String(text(bytes));
        Change::Config(name.into(), Some(pb::ConfigItem { config_item_enum: Some(item) }))
    };
    let full: Vec<_> = (0..16).map(|n| config(&format!("c{n}"), 4_100_000)).collect();
    let mut model = StateModel::default();
    model.set(model.apply(&full).unwrap().0);
    let left = fifogate::limits::MAX_STATE_BYTES - model.bytes();
    let around = {
        let (with, _) = model.apply(&[config("rest", 0)]).unwrap();
        model.bytes_with(&with) - model.bytes()
    };
    let (at_bound, _) = model.apply(&[config("rest", left - around)]).unwrap();
    assert_eq!(model.bytes_with(&at_bound), fifogate::limits::MAX_STATE_BYTES);
    let over = config("rest", left - around + 1);
    let why = model.apply(std::slice::from_ref(&over)).unwrap_err().to_string();
    assert_eq!(why, "The state would take more than 67108864 bytes");
    // Of the items of a store the others count.
    let mut items = full.clone();
    items.push(over);
    let fitted = StateModel::default().apply_what_fits(items);
    assert_eq!((fitted.taken.len(), fitted.left_out.len()), (16, 1));
    // What templates make of a config counts too, also of a manifest.
    let workloads: String = (0..70)
        .map(|n| {
            format!(
                "  w{n}: {{agent: a, runtime: process, runtimeConfig: '{{{{c}}}}', configs: {{c: c}}}}\n"
            )
        })
        .collect();
    let manifest =
        format!("apiVersion: v1\nworkloads:\n{workloads}configs: {{c: {}}}\n", text(1_000_000));
    let tree = fifogate::manifest::parse("t.yaml", &manifest).unwrap().updated.tree;
    let update = Update { new_state: convert::to_pb(&tree, Fill::Full), ..Update::default() };
    let why = StateModel::default().update(&update).unwrap_err();
    assert_eq!(why.to_string(), "The state would take more than 67108864 bytes");
    // A state over the bound, as of an earlier version, can shrink.
    let mut large = StateModel::new(at_bound.clone());
    large.set(at_bound.with("agents", Some(Node::map([("x", Node::text(&text(1_000)))]))));
    let smaller = Change::Config("c0".into(), None);
    assert!(large.apply(&[smaller]).is_ok());
}
