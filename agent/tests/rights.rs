//! The rights of workloads: to act, to be told, and to write into the agent's log.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use fifogate::pb::ank_base::{self as pb, response::ResponseContent};
use testkit::{Agent, Session, processes_with, state_of, wait_for, workload};

/// Ignores that it is to end, so it takes all of its grace.
const DEAF: &str = "trap '' TERM; while :; do sleep 98761; done";

fn access(rules: &str) -> String {
    format!(", controlInterfaceAccess: {{allowRules: [{rules}]}}")
}

fn rule(operation: &str, masks: &str) -> String {
    format!("{{type: StateRule, operation: {operation}, filterMasks: [{masks}]}}")
}

/// Whether a session may write a config, and read.
fn may(session: &mut Session) -> (bool, bool) {
    let wrote = session.update("configs: {k: v}", &["desiredState.configs.k"]);
    assert!(wrote.is_ok() || wrote == Err("Access denied".to_owned()), "{wrote:?}");
    let ask = pb::CompleteStateRequest {
        field_mask: vec!["desiredState.configs".to_owned()],
        ..Default::default()
    };
    let id = session.ask(pb::request::RequestContent::CompleteStateRequest(ask));
    let read = match session.answer(&id) {
        ResponseContent::CompleteStateResponse(_) => true,
        ResponseContent::Error(error) => {
            assert_eq!(error.message, "Access denied");
            false
        }
        other => panic!("{other:?}"),
    };
    (wrote.is_ok(), read)
}

#[test]
fn narrowed_rules_count_before_the_answer_also_for_who_takes_its_grace() {
    let all = access(&rule("ReadWrite", "'*'"));
    let reads = access(&rule("Read", "desiredState.configs"));
    let needed = format!("{all}, dependencies: {{deaf: ADD_COND_RUNNING}}");
    // The workload after the update, and its rights then: to write, to read.
    let rights_alone = workload("deaf", DEAF, &reads);
    let command_too = workload("deaf", &format!(": ; {DEAF}"), &reads);
    let moved = rights_alone.replace("agent_A", "agent_B");
    let more =
        workload("deaf", &format!(": ; {DEAF}"), &access(&rule("ReadWrite", "desiredState")));
    let cases = [
        ("its rights alone", rights_alone, (false, true)),
        ("its rights and its command", command_too, (false, true)),
        ("another agent", moved, (false, true)),
        ("other rights that allow the same", more, (true, true)),
        ("nothing", String::new(), (false, false)),
    ];
    for (what, then, allowed) in cases {
        let workloads = [workload("deaf", DEAF, &all), workload("needs", DEAF, &needed)];
        let agent = Agent::start(
            &workloads.concat(),
            &["--grace", "60", "--", "--subscribe-grace-ms", "0"],
        );
        let mut ctl = agent.connect();
        ctl.until_state("needs", "Running(Ok)");
        // Only then do they ignore it.
        wait_for("both", || (processes_with("sleep\u{0}98761").len() >= 2).then_some(()));
        let mut deaf = agent.connect_as("deaf");
        assert_eq!(may(&mut deaf), (true, true));
        let events = deaf.subscribe(&["agents"]);
        deaf.answer(&events);
        let desired = if then.is_empty() { then } else { format!("workloads:\n{then}") };
        let masks = ["desiredState.workloads.deaf", "desiredState.workloads.needs"];
        // Where it is removed, it goes together with one that needs it, which takes its grace too.
        let masks = if desired.is_empty() { &masks[..] } else { &masks[..1] };
        ctl.update(&desired, masks).unwrap();
        assert_eq!(may(&mut deaf), allowed, "{what}");
        // It has not ended meanwhile.
        ctl.until(what, |tree| {
            let mut all = tree.entries(&["workloadStates", "agent_A", "deaf"]).iter();
            all.any(|(_, own)| own.str_at("state") == Some("Stopping")).then_some(())
        });
        if !allowed.0 {
            deaf.hello_again();
            let again = deaf.subscribe(&["agents"]);
            let ResponseContent::Error(error) = deaf.answer(&again) else { panic!("{what}") };
            assert_eq!(error.message, "Access denied");
        }
    }
}

#[test]
fn lost_right_ends_what_was_subscribed_to_before_anything_of_the_new_state_is_told() {
    let all = access(&rule("ReadWrite", "'*'"));
    let script = DEAF.replace("98761", "98762");
    let agent = Agent::start(
        &workload("deaf", &script, &all),
        &["--grace", "60", "--", "--subscribe-grace-ms", "0"],
    );
    let mut ctl = agent.connect();
    ctl.until_state("deaf", "Running(Ok)");
    let mut deaf = agent.connect_as("deaf");
    let events = deaf.subscribe(&["desiredState.configs"]);
    deaf.answer(&events);
    // The update that takes the right also sets what it is not to see.
    let own = workload("deaf", &script, &access(&rule("Read", "agents")));
    let text = format!("workloads:\n{own}configs: {{secret: TOPSECRET}}");
    ctl.update(&text, &["desiredState.workloads.deaf", "desiredState.configs.secret"]).unwrap();
    let next = deaf.answer(&events);
    assert!(
        matches!(&next, ResponseContent::Error(own) if own.message == "Access denied"),
        "{next:?}"
    );
    assert_eq!(deaf.response_within(Duration::from_millis(300)), None);
}

#[test]
fn rights_that_are_given_count_before_the_answer_too() {
    let reads = access(&rule("Read", "desiredState.configs"));
    let agent = Agent::start(&workload("w", "exec sleep 1000", &reads), &[]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    let mut session = agent.connect_as("w");
    assert_eq!(may(&mut session), (false, true));
    let more = access(&rule("ReadWrite", "desiredState.configs"));
    let text = format!("workloads:\n{}", workload("w", "exec sleep 1000", &more));
    ctl.update(&text, &["desiredState.workloads.w"]).unwrap();
    assert_eq!(may(&mut session), (true, true));
}

#[test]
fn workload_refers_to_a_config_only_if_it_may_read_it() {
    let writes = rule("Write", "desiredState.workloads.w");
    let reads = rule("Read", "desiredState.configs.public");
    let own = format!("{{allowRules: [{writes}, {reads}]}}");
    let old = format!(", controlInterfaceAccess: {own}");
    let text = format!(
        "{}  other: {{runtime: process, agent: agent_A, configs: {{s: secret}}, runtimeConfig: \
         '{{command: sleep, args: [\"1000\", \"{{{{s}}}}\"]}}'}}\nconfigs: {{secret: '7', public: p}}\n",
        workload("w", "exec sleep 1000", &old)
    );
    let agent = Agent::start(&text, &[]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    let mut w = agent.connect_as("w");
    let before = ctl.state().get(&["desiredState"]).cloned();
    let mut ask = |fields: &str| {
        // Only its mask counts, but what it refers to has to be there to be understood.
        let own = workload("w", "exec sleep 1000", &format!("{old}{fields}"));
        let text = format!("workloads:\n{own}configs: {{secret: x, public: x, missing: x}}");
        w.update(&text, &["desiredState.workloads.w"]).map(drop)
    };
    for fields in [
        ", configs: {s: secret}",
        ", configs: {p: public, s: secret}",
        ", configs: {s: secret}, files: [{mountPoint: /f, data: '{{s}}'}]",
        // Neither is it told whether there is a config of a name.
        ", configs: {s: missing}",
    ] {
        assert_eq!(ask(fields), Err("Access denied".to_owned()), "{fields}");
    }
    assert_eq!(ctl.state().get(&["desiredState"]).cloned(), before);
    ask(", configs: {p: public}, tags: {k: v}").unwrap();
}

#[test]
fn error_shows_a_workload_nothing_of_configs_that_it_may_not_read() {
    let writes = rule("Write", "desiredState.configs.name");
    let own = workload("w", "exec sleep 1000", &access(&writes));
    let config = |what: &str| format!("'{{command: sleep, args: [\"1000\", \"{what}\"]}}'");
    let text = format!(
        "{own}  named: {{runtime: process, agent: '{{{{n}}}}', configs: {{n: name, s: secret}}, \
         runtimeConfig: {0}}}\n  fails: {{runtime: process, agent: agent_A, configs: {{s: secret}}, \
         runtimeConfig: '{{command: \"/{{{{s}}}}/x\"}}'}}\nconfigs: {{secret: TOPSECRET, name: agent_A}}\n",
        config("{{s}} {{#if n.bad}}{{n.worse}}{{/if}}")
    );
    let agent = Agent::start(&text, &[]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    let mut w = agent.connect_as("w");
    for value in ["'is no name'", "{bad: TOPSECRET}", "[]"] {
        let text = format!("configs: {{name: {value}}}");
        let refused = w.update(&text, &["desiredState.configs.name"]).unwrap_err();
        let expected = "Update rejected: 'Resulting State is invalid, reason: 'Failed to render \
                        desiredState.workloads.named; why is not told, ";
        assert!(refused.starts_with(expected) && !refused.contains("no name"), "{refused}");
        let refused = ctl.update(&text, &["desiredState.configs.name"]).unwrap_err();
        assert!(!refused.contains("why is not told"), "{refused}");
    }
    // Those who may read how workloads are doing may not read all configs.
    ctl.until_state("fails", "Pending(StartingFailed)");
    let info = state_of(&ctl.state(), "fails").unwrap().2;
    assert!(info.starts_with("No more retries: ") && !info.contains("TOPSECRET"), "{info}");
    let said = agent.log();
    assert!(said.contains("fails cannot be started: command '/TOPSECRET/x'"), "{said}");
}

#[test]
fn log_is_bounded_and_stays_in_its_lines_whatever_workloads_say() {
    let agent =
        Agent::start(&workload("evil", "exec sleep 1000", &access(&rule("Read", "agents"))), &[]);
    let mut ctl = agent.connect();
    ctl.until_state("evil", "Running(Ok)");
    let mut evil = agent.connect_as("evil");
    let text = format!("9.0\n[2026] forged\u{1b}[2J{}", "x".repeat(100_000));
    for _ in 0..200 {
        evil.refused_hello(&text);
    }
    // The log of fifogate itself stands in the same file; each line says whose it is.
    let ours = || {
        let said = agent.log();
        let lines = said.lines().filter(|line| line.contains("fifogate_agent"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let counted =
        |lines: &[String]| lines.iter().any(|line| line.contains("lines about workload evil"));
    let lines = wait_for("the number of lines that were left out", || {
        let lines = ours();
        counted(&lines).then_some(lines)
    });
    let about: Vec<_> = lines.iter().filter(|line| line.contains("session of evil")).collect();
    assert!((1..100).contains(&about.len()), "{}", about.len());
    for line in &lines {
        assert!(line.len() < 1000 && !line.contains('\u{1b}'), "{line}");
    }
    // fifogate has cut the version that it quotes.
    assert!(about[0].contains(r"9.0\n[2026] forged\u{1b}[2Jxxx") && about[0].contains("x...'"));
}
