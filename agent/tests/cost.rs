//! Inputs that nest without end or cost more than others can wait for: they are refused, and whoever
//! is beside them is served.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use fifogate::pb::ank_base as pb;
use nix::sys::signal::Signal;
use prost::Message;
use redb::{Database, TableDefinition};
use testkit::{Agent, Session, state_of, wait_for, workload};

/// A workload with a text as its `runtimeConfig`, and further fields.
fn with_config(text: &str, fields: &str) -> String {
    let text = serde_json::Value::from(text);
    format!(
        "workloads:\n  evil: {{runtime: process, agent: agent_A, runtimeConfig: {text}{fields}}}\n"
    )
}

const EVIL: &[&str] = &["desiredState.workloads.evil"];

/// Texts that nest `levels` times, as far as the way they are written lets them.
fn nested(levels: usize) -> BTreeMap<&'static str, String> {
    let sequence = format!("command: sleep\nargs:\n  {}x\n", "- ".repeat(levels));
    let keys = format!("command: sleep\nargs:\n  {}x\n", "? ".repeat(levels));
    let mixed = format!("command: sleep\nargs:\n  {}x\n", "- ? ".repeat(levels / 2));
    let flow = "[{a: ".repeat(100.min(levels / 2));
    let flow = format!("command: sleep\nargs: {flow}x{}\n", "}]".repeat(100.min(levels / 2)));
    let few = 400.min(levels);
    let mappings: String = (1..few).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    let mappings = format!("command: sleep\nenv:\n{mappings}{}a: x\n", " ".repeat(few));
    let anchors = (0..100.min(levels)).map(|own| format!("[&a{own} !t ")).collect::<String>();
    let anchors = format!("command: sleep\nargs: {anchors}x{}\n", "]".repeat(100.min(levels)));
    BTreeMap::from([
        ("sequence", sequence),
        ("keys", keys),
        ("mixed", mixed),
        ("flow", flow),
        ("mappings", mappings),
        ("anchors", anchors),
    ])
}

/// Templates that nest so.
fn nested_templates(levels: usize) -> BTreeMap<&'static str, String> {
    let around = |open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
    };
    BTreeMap::from([
        ("calls", format!("{{{{{}}}}}", around("len (", "len c", ")"))),
        ("calls in a hash", format!("{{{{len c {}}}}}", around("a=(len ", "c", ")"))),
        ("blocks", around("{{#if c}}", "", "{{/if}}")),
        ("other blocks", around("{{#each c}}", "", "{{/each}}")),
        ("branches", format!("{{{{#if c}}}}{}{{{{/if}}}}", "{{else if c}}".repeat(levels))),
        ("sequences", format!("{{{{len {}}}}}", around("[", "1", "]"))),
        ("mappings", format!("{{{{len {}}}}}", around("{\"a\":", "1", "}"))),
        ("no end", "{{#if c}}".repeat(levels)),
        ("no end of a call", format!("{{{{{}", "len (".repeat(levels))),
    ])
}

#[test]
fn what_nests_too_deep_is_refused_and_the_agent_goes_on() {
    let agent = Agent::start("", &["--grace", "1"]);
    let mut ctl = agent.connect();
    ctl.update("configs: {c: x}\n", &["desiredState.configs.c"]).unwrap();
    for (name, text) in nested(20_000) {
        let Err(refused) = ctl.update(&with_config(&text, ""), EVIL) else {
            // A collection as a key is a fault of its own, found before its levels.
            assert!(["keys", "mixed"].contains(&name), "{name}");
            ctl.until_state("evil", "Pending(StartingFailed)");
            ctl.update("workloads: {}\n", EVIL).unwrap();
            continue;
        };
        assert!(refused.contains("workloads.evil.runtimeConfig"), "{name}: {refused}");
        assert!(refused.contains("more than 20 levels"), "{name}: {refused}");
    }
    for (name, text) in nested_templates(10_000) {
        let text = format!("command: sleep\nargs: [1000]\n# {text}");
        let workload = with_config(&text, ", configs: {c: c}") + "configs: {c: x}\n";
        let refused = ctl.update(&workload, EVIL).unwrap_err();
        assert!(refused.contains("'runtimeConfig'"), "{name}: {refused}");
        assert!(refused.contains("levels"), "{name}: {refused}");
    }
    assert!(ctl.state().get(&["desiredState", "workloads", "evil"]).is_none());
    ctl.update("configs: {c: y}\n", &["desiredState.configs.c"]).unwrap();
}

const WORKLOADS: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new("workloads");

/// Puts a workload into a state that is kept, as an agent without the bounds would have.
fn keep(state: &Path, name: &str, agent: &str, text: &str, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(alias, key)| ((*alias).to_owned(), (*key).to_owned()));
    let own = pb::Workload {
        agent: Some(agent.to_owned()),
        runtime: Some("process".to_owned()),
        runtime_config: Some(text.to_owned()),
        restart_policy: Some(pb::RestartPolicy::Never.into()),
        configs: Some(pb::ConfigMappings { configs: configs.collect() }),
        ..Default::default()
    };
    let database = Database::open(state.join("desired-state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(WORKLOADS).unwrap();
        table.insert(name, own.encode_to_vec().as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn kept_state_that_nests_too_deep_is_loaded_and_costs_only_the_workload_that_it_is_of() {
    let mut agent = Agent::start(
        &format!("{}configs: {{c: x}}\n", workload("good", "exec sleep 1000", "")),
        &["--state-dir", "$dir/state", "--grace", "1"],
    );
    agent.connect().until_state("good", "Running(Ok)");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
    let state = agent.path("state");
    let mut all = Vec::new();
    for (number, text) in nested(20_000).into_values().enumerate() {
        let name = format!("yaml-{number}");
        keep(&state, &name, "agent_A", &text, &[]);
        all.push(name);
    }
    for (number, text) in nested_templates(10_000).into_values().enumerate() {
        let name = format!("template-{number}");
        let text = format!("command: sleep\nargs: [1000]\n# {text}");
        keep(&state, &name, "agent_A", &text, &[("c", "c")]);
        all.push(name);
    }
    // Nobody can say whose this one is, so it is left out.
    let of = nested_templates(10_000).remove("calls").unwrap();
    keep(&state, "nobodys", &of, "command: sleep", &[("c", "c")]);
    for turn in 0..3 {
        agent.restart();
        let mut ctl = agent.connect();
        ctl.until_state("good", "Running(Ok)");
        for name in &all {
            ctl.until_state(name, "Pending(StartingFailed)");
            let info = state_of(&ctl.state(), name).unwrap().2;
            if name.starts_with("template") {
                // The reason may quote the config, which others may not read.
                assert!(info.contains("only in the agent's log"), "{name}: {info}");
                let line = format!("{name} cannot be started: Failed to render field");
                let log = agent.log();
                let told = log.lines().rev().find(|own| own.contains(&line));
                assert!(told.is_some_and(|own| own.contains("levels")), "{name}: {log}");
            } else {
                let keys = "a key has to be a text, not a collection";
                assert!(info.contains("levels") || info.contains(keys), "{name}: {info}");
            }
        }
        // Others are changed as ever, and so is the config that those use which cannot be made.
        let set = format!("configs: {{c: x{turn}, other: y{turn}}}\n");
        let masks = ["desiredState.configs.c", "desiredState.configs.other"];
        ctl.update(&set, &masks).unwrap();
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.status(), Some(0));
    }
    agent.restart();
    let mut ctl = agent.connect();
    let name = all.last().unwrap();
    let mended = workload(name, "exec sleep 1000", ", configs: {c: c}");
    let mask = format!("desiredState.workloads.{name}");
    ctl.update(&format!("workloads:\n{mended}configs: {{c: x}}\n"), &[&mask]).unwrap();
    ctl.until_state(name, "Running(Ok)");
    ctl.update("", &["desiredState.workloads.yaml-0"]).unwrap();
    ctl.until("its end", |tree| state_of(tree, "yaml-0").is_none().then_some(()));
}

/// The longest that small updates of `neighbour` take while `work` is done.
fn longest_wait(neighbour: &mut Session, work: impl FnOnce() + Send) -> Duration {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            work();
            done.store(true, Ordering::Relaxed);
        });
        let mut longest = Duration::ZERO;
        for turn in 0.. {
            let begun = Instant::now();
            let set = format!("configs: {{n: x{turn}}}\n");
            neighbour.update(&set, &["desiredState.configs.n"]).unwrap();
            longest = longest.max(begun.elapsed());
            if done.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        longest
    })
}

const NEIGHBOUR: &str = "  n:
    runtime: process
    agent: agent_A
    runtimeConfig: '{command: sleep, args: [100000]}'
    controlInterfaceAccess:
      allowRules:
        - {type: StateRule, operation: ReadWrite, filterMasks: ['desiredState.configs.n']}
";

/// The longest that a neighbour may wait: far more than the 250 ms of a release build on a machine of its
/// own, far less than any of these inputs took of the agent's only thread.
const MOST_WAIT: Duration = Duration::from_secs(4);

/// The dearest inputs that are known, by name: the configs that they need, and the workload.
fn dear() -> BTreeMap<&'static str, (String, String)> {
    let ones = |count: usize| format!("command: sleep\nargs: [{}1000]\n", "1,".repeat(count));
    // As much as the fields of a message allow for two of them.
    let large = format!("[{}y]", format!("{},", "y".repeat(70)).repeat(14_000));
    let compare = "{{#if (ne @root.b @root.d)}}{{/if}}".repeat(100);
    let compare = format!("command: sleep\n# {{{{#each l}}}}{compare}{{{{/each}}}}");
    let each = format!("# {}{}", "{{#each @root}}".repeat(500), "{{/each}}".repeat(500));
    let wide = format!(
        "# {}",
        "{{#each @root.l}}{{#each @root.l}}{{#if this}}{{/if}}{{/each}}{{/each}}".repeat(100)
    );
    let not_entered =
        format!("# {{{{#each l}}}}{}{{{{/each}}}}", "{{#if (eq 1 2)}}{{/if}}".repeat(1_000));
    let comments = format!("# {}", "{{!-- }}".repeat(2_000));
    let files: Vec<_> =
        (0..15_000).map(|own| format!("{{mountPoint: /f/{own}, data: x}}")).collect();
    let dependencies: Vec<_> = (0..20_000).map(|own| format!("d{own}: ADD_COND_FAILED")).collect();
    let configs = format!("configs:\n  l: [{}]\n", ["x"; 50].join(", "));
    let two = format!("configs:\n  b: {large}\n  d: {large}\n  l: [{}]\n", ["x"; 50].join(", "));
    let uses = ", configs: {b: b, d: d, l: l}";
    let uses_list = ", configs: {l: l}";
    BTreeMap::from([
        ("arguments", (String::new(), with_config(&ones(300_000), ""))),
        ("most arguments", (String::new(), with_config(&ones(1_500_000), ""))),
        ("comparison", (two.clone(), with_config(&compare, uses))),
        ("nested each", (configs.clone(), with_config(&each, uses_list))),
        ("wide each", (configs.clone(), with_config(&wide, uses_list))),
        ("blocks that are not entered", (configs.clone(), with_config(&not_entered, uses_list))),
        ("comments", (configs.clone(), with_config(&comments, uses_list))),
        (
            "files",
            (
                String::new(),
                with_config("command: sleep", &format!(", files: [{}]", files.join(", "))),
            ),
        ),
        (
            "dependencies",
            (
                String::new(),
                with_config(
                    "command: sleep",
                    &format!(", dependencies: {{{}}}", dependencies.join(", ")),
                ),
            ),
        ),
    ])
}

#[test]
fn dearest_updates_hold_up_no_update_of_a_neighbour() {
    let agent = Agent::start(NEIGHBOUR, &["--grace", "1"]);
    let (mut ctl, mut neighbour) = (agent.connect(), agent.connect_as("n"));
    for (name, (configs, workload)) in dear() {
        if !configs.is_empty() {
            let masks = ["b", "d", "l"].map(|own| format!("desiredState.configs.{own}"));
            let masks = masks
                .iter()
                .filter(|own| configs.contains(&format!("  {}:", own.rsplit('.').next().unwrap())));
            let masks: Vec<_> = masks.map(String::as_str).collect();
            ctl.update(&configs, &masks).unwrap();
        }
        let mut result = String::new();
        let waited = longest_wait(&mut neighbour, || {
            for _ in 0..3 {
                let text = format!("{workload}{configs}");
                result = ctl.update(&text, EVIL).map_or_else(|error| error, |_| "done".into());
                let _ = ctl.update("", EVIL);
            }
        });
        result.truncate(200);
        println!("{name}: {waited:?} {result}");
        assert!(waited < MOST_WAIT, "{name}: {waited:?}: {result}");
    }
}

#[test]
fn agent_ends_in_order_while_something_dear_is_made() {
    let mut agent = Agent::start(NEIGHBOUR, &["--grace", "0"]);
    let mut ctl = agent.connect();
    let inputs = dear();
    let (configs, workload) = &inputs["comparison"];
    let masks = ["desiredState.configs.b", "desiredState.configs.d", "desiredState.configs.l"];
    ctl.update(configs, &masks).unwrap();
    let content = testkit::update(&format!("{workload}{configs}"), EVIL);
    for _ in 0..20 {
        ctl.ask(content.clone());
    }
    wait_for("the first answer", || ctl.response_within(Duration::from_secs(10)));
    let begun = Instant::now();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
    assert!(begun.elapsed() < MOST_WAIT, "{:?}", begun.elapsed());
    assert!(fs::read_to_string(agent.path("log")).unwrap().contains("stopping"));
}
