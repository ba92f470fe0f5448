use proptest::prelude::*;

use super::*;
use crate::{
    broker::Rules,
    manifest::parse,
    state::{Mask, MaskSet},
};

fn advice(text: &str) -> Advice {
    let manifest = parse("m", text).unwrap_or_else(|error| panic!("{error}"));
    advise("m", text, &manifest.updated.tree)
}

fn texts(faults: &[Fault]) -> Vec<String> {
    faults
        .iter()
        .map(|fault| format!("{}:{} {}", fault.line, fault.column, fault.message))
        .collect()
}

/// A manifest of two workloads; these lines are the rest of the first one.
fn workload(rest: &str) -> String {
    format!(
        "apiVersion: v1\nconfigs: {{ speed: '3', place: {{ lat: '1', lon: '2' }} }}\nworkloads:\n  \
         db: {{ agent: agent_A, runtime: process, runtimeConfig: x }}\n  w:\n    agent: agent_B\n    \
         runtime: process\n{rest}"
    )
}

fn rules(allow: &str, deny: &str) -> String {
    workload(&format!(
        "    runtimeConfig: x\n    controlInterfaceAccess:\n      allowRules: [{allow}]\n      \
         denyRules: [{deny}]\n"
    ))
}

fn rule(operation: &str, masks: &str) -> String {
    format!("{{ type: StateRule, operation: {operation}, filterMasks: [{masks}] }}")
}

/// The messages about rules: warnings, then notes.
fn about(allow: &str, deny: &str) -> (Vec<String>, Vec<String>) {
    let advice = advice(&rules(allow, deny));
    let messages = |faults: Vec<Fault>| faults.into_iter().map(|fault| fault.message).collect();
    (messages(advice.warnings), messages(advice.notes))
}

#[test]
fn rules_that_come_to_nothing_are_warned_of() {
    let none: [&str; 0] = [];
    for (allow, deny, warnings) in [
        (
            rule("Read", "desiredState.configs"),
            rule("Read", "agents"),
            vec!["'agents' denies nothing: no rule allows any of it, so leave it out"],
        ),
        (
            rule("Read", "desiredState.configs"),
            rule("Write", "desiredState.configs.speed"),
            vec![
                "'desiredState.configs.speed' denies nothing: no rule allows any of it, so leave it out",
            ],
        ),
        (
            rule("ReadWrite", "desiredState.configs.speed"),
            rule("ReadWrite", "desiredState.configs"),
            vec![
                "'desiredState.configs.speed' allows nothing: 'desiredState.configs' denies all of it; leave \
                 out one of them",
            ],
        ),
        (
            rule("Nothing", "agents"),
            rule("Read", ""),
            vec![
                "this rule has no effect: its `operation` is Nothing, not Read, Write or ReadWrite",
                "this rule has no effect: its `filterMasks` is empty; name one, or leave it out",
            ],
        ),
        (
            "{ type: LogRule, workloadNames: [db] }".to_owned(),
            "{ type: LogRule, workloadNames: ['d*', 'x*'] }".to_owned(),
            vec![
                "'db' allows nothing: 'd*' denies all of it; leave out one of them",
                "'x*' denies nothing: no rule allows any of it, so leave it out",
            ],
        ),
        // A part of it stays.
        (rule("ReadWrite", "desiredState.configs"), rule("Write", "desiredState.configs"), vec![]),
        (rule("Read", "desiredState"), rule("Read", "desiredState.configs.speed"), vec![]),
        (
            rule("Read", "desiredState.configs.speed"),
            rule("ReadWrite", "desiredState.*.speed.x"),
            vec![],
        ),
    ] {
        let (warned, noted) = about(&allow, &deny);
        assert_eq!(warned, warnings, "{allow} {deny}");
        assert_eq!(noted, none, "{allow} {deny}");
    }
}

#[test]
fn names_that_an_update_may_add_are_noted_with_the_nearest_one() {
    for (mask, absent) in [
        (
            "desiredState.configs.spede",
            Some("the manifest has no config `spede` (did you mean `speed`?)"),
        ),
        (
            "desiredState.configs.place.lot",
            Some("the config `place` of the manifest has no `lot` (did you mean `lat`?)"),
        ),
        ("desiredState.configs.speed.x", Some("the config `speed` of the manifest has no `x`")),
        ("desiredState.workloads.logger.tags", Some("the manifest has no workload `logger`")),
        (
            "effectiveState.workloads.bd",
            Some("the manifest has no workload `bd` (did you mean `db`?)"),
        ),
        ("workloadStates.*.nothing", Some("the manifest has no workload `nothing`")),
        (
            "workloadStates.agent_A.w",
            Some("the workload `w` is of the agent `agent_B`, not of `agent_A`"),
        ),
        (
            "agents.agent_C",
            Some("no workload of the manifest is of the agent `agent_C` (did you mean `agent_A`?)"),
        ),
        ("desiredState.configs.place.lat", None),
        ("desiredState.configs.*.nothing", None),
        ("workloadStates.agent_A.db.*.state", None),
        ("agents.agent_B.status", None),
        ("'*'", None),
    ] {
        let (warned, noted) = about(&rule("Read", mask), "");
        assert!(warned.is_empty(), "{warned:?}");
        let said = "names nothing until an update adds it";
        let expected: Vec<_> =
            absent.iter().map(|absent| format!("the mask '{mask}' {said}: {absent}")).collect();
        assert_eq!(noted, expected, "{mask}");
    }
    let (_, noted) = about("{ type: LogRule, workloadNames: ['d*', 'q*'] }", "");
    assert_eq!(noted, ["no workload of the manifest is named 'q*' until an update adds it"]);
    let (_, noted) = about(&rule("Read", "agents, agents.agent_A, agents"), "");
    let adds = |mask: &str| format!("'{mask}' adds nothing: 'agents' of allowRules includes it");
    assert_eq!(noted, [adds("agents.agent_A"), adds("agents")]);
}

#[test]
fn templates_are_compared_with_the_references_and_configs_of_the_manifest() {
    let text = |template: &str| {
        workload(&format!(
            "    configs: {{ here: place, v: speed }}\n    runtimeConfig: \"{template}\"\n"
        ))
    };
    let unused = |alias: &str, key: &str| {
        format!(
            "no template of w uses its reference `{alias}` to config `{key}`: write {{{{{alias}}}}}, or leave \
             it out"
        )
    };
    for (template, warnings) in [
        ("{{here.lat}} {{ v }}", vec![]),
        ("{{#each here}}{{this}}{{foo}}{{/each}} {{{v}}}", vec![]),
        ("{{lookup here 'lat'}} {{~v~}} {{foo bar}}", vec![]),
        ("{{here.lat}}", vec![unused("v", "speed")]),
        (
            "{{her.lat}} {{v}} {{here.log}}",
            vec![
                "{{her.lat}}: `configs` of the workload has no `her` (did you mean `here`?)"
                    .to_owned(),
                "{{here.log}}: the config `place` has no `log` (did you mean `lon`?)".to_owned(),
            ],
        ),
    ] {
        let found: Vec<_> = advice(&text(template)).warnings;
        let found: Vec<_> = found.into_iter().map(|fault| fault.message).collect();
        assert_eq!(found, warnings, "{template}");
    }
    let plain = advice(&workload("    runtimeConfig: \"{{.Names}}\"\n"));
    assert_eq!(texts(&plain.notes), ["8:20 {{.Names}} stays as it is written: w has no `configs`"]);
}

#[test]
fn many_faults_are_bounded_and_counted() {
    let masks: Vec<_> = (0..300).map(|n| format!("desiredState.configs.c{n}")).collect();
    let advice = advice(&rules(&rule("Read", &masks.join(", ")), ""));
    assert_eq!((advice.warnings.len(), advice.notes.len(), advice.left_out), (0, 100, 200));
}

/// Thousands of masks of one workload are compared with each other, up to a bound.
#[test]
fn large_manifests_are_judged_within_a_bound() {
    let masks: Vec<_> = (0..20_000).map(|n| format!("desiredState.configs.c{n}")).collect();
    let (allow, deny) = (rule("Read", &masks.join(", ")), rule("Write", &masks.join(", ")));
    let start = std::time::Instant::now();
    advice(&rules(&allow, &deny));
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

fn mask() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["configs", "workloads", "*"]);
    let name = prop::sample::select(vec!["speed", "w", "db", "*"]);
    (part, prop::collection::vec(name, 0..3), 0..3u8).prop_map(|(part, names, kind)| match kind {
        0 => "desiredState".to_owned(),
        _ => [&["desiredState", part][..], &names].concat().join("."),
    })
}

type Given = Vec<(bool, &'static str, String)>;

fn given() -> impl Strategy<Value = Given> {
    let operation = prop::sample::select(vec!["Read", "Write", "ReadWrite"]);
    prop::collection::vec((any::<bool>(), operation, mask()), 1..6)
}

fn text_of(given: &Given) -> String {
    let list = |is_deny: bool| {
        let own = given.iter().filter(|(deny, ..)| *deny == is_deny);
        own.map(|(_, operation, mask)| rule(operation, &format!("'{mask}'")))
            .collect::<Vec<_>>()
            .join(", ")
    };
    rules(&list(false), &list(true))
}

/// The answers to reads and writes of masks of every kind.
fn verdicts(text: &str) -> Vec<bool> {
    let manifest = parse("m", text).unwrap();
    let path = [DESIRED_STATE, "workloads", "w", "controlInterfaceAccess"];
    let none = Node::map::<&str>([]);
    let rules = Rules::compile(manifest.updated.tree.get(&path).unwrap_or(&none));
    let parts = ["", ".configs", ".workloads", ".*", ".apiVersion"];
    let names = ["", ".speed", ".w", ".db", ".*", ".other", ".speed.w", ".w.other", ".*.db"];
    let masks = parts.iter().flat_map(|part| names.map(|name| format!("desiredState{part}{name}")));
    let verdict = |mask: String| {
        [rules.may_read(&MaskSet::parse([&mask])), rules.may_write(&[Mask::parse(&mask)])]
    };
    masks.flat_map(verdict).collect()
}

proptest! {
    /// No false alarm: without the mask, the workload may do the same.
    #[test]
    fn masks_that_come_to_nothing_can_be_left_out(given in given()) {
        let text = text_of(&given);
        let advice = advice(&text);
        let all = verdicts(&text);
        for fault in advice.warnings.iter().chain(&advice.notes) {
            let Some((mask, _)) = ["' allows nothing", "' denies nothing", "' adds nothing"]
                .iter()
                .find_map(|end| fault.message.strip_prefix('\'')?.split_once(end))
            else {
                continue;
            };
            // The one at the place of the fault.
            let line = text.lines().nth(fault.line - 1).unwrap();
            let before: String = line.chars().take(fault.column - 1).collect();
            let index = before.matches("type: StateRule").count() - 1;
            let is_deny = line.contains("denyRules");
            let mut kept = given.clone();
            let mut own = kept.iter().enumerate().filter(|(_, (deny, ..))| *deny == is_deny);
            let (place, (.., own)) = own.nth(index).unwrap();
            prop_assert_eq!(own, mask);
            kept.remove(place);
            prop_assert_eq!(verdicts(&text_of(&kept)), all.clone(), "{}\n{}", text, fault);
        }
    }

    #[cfg(feature = "cli")]
    #[test]
    fn answers_about_rules_are_those_of_the_broker(given in given(), asked in mask()) {
        let text = text_of(&given);
        let manifest = parse("m", &text).unwrap();
        let tree = &manifest.updated.tree;
        let none = Node::map::<&str>([]);
        let path = [DESIRED_STATE, "workloads", "w", "controlInterfaceAccess"];
        let rules = Rules::compile(tree.get(&path).unwrap_or(&none));
        let ask = |operation| answer(("m", &text), tree, ("w", operation, &asked)).unwrap();
        let (may_read, reads) = ask(Operation::Read);
        prop_assert_eq!(may_read, rules.may_read(&MaskSet::parse([&asked])), "{}", reads);
        let (may_write, writes) = ask(Operation::Write);
        let expected = !asked.contains('*') && rules.may_write(&[Mask::parse(&asked)]);
        prop_assert_eq!(may_write, expected, "{}", writes);
        for (may, answer) in [(may_read, reads), (may_write, writes)] {
            let list = text.lines().nth(answer.line - 1).unwrap();
            // The place of the rule that decides.
            if may {
                prop_assert!(list.contains("allowRules"), "{}\n{}", text, answer);
                prop_assert!(answer.message.contains("the allow rule"));
            } else if answer.message.contains("the deny rule") {
                prop_assert!(list.contains("denyRules"), "{}\n{}", text, answer);
            }
        }
    }
}
