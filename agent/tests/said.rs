//! The agent says why something does not happen: in its log, in the status, or to who asked.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use fifogate::pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent};
use testkit::{Agent, Session, wait_for, workload};

fn access(rules: &str) -> String {
    format!(", controlInterfaceAccess: {{allowRules: [{rules}]}}")
}

fn rule(operation: &str, masks: &str) -> String {
    format!("{{type: StateRule, operation: {operation}, filterMasks: [{masks}]}}")
}

fn lines(agent: &Agent, part: &str) -> Vec<String> {
    agent.log().lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
}

const SLEEP: &str = "exec sleep 100000";

#[test]
fn update_that_the_agent_denies_is_logged_with_its_reason_and_counted() {
    let own = workload("own", SLEEP, &access(&rule("ReadWrite", "'*'")));
    let refers = workload("refers", SLEEP, &access(&rule("Write", "desiredState.workloads")));
    let configs = "configs: {secret: hush}\n";
    let cases = [
        (
            "own",
            workload("own", SLEEP, &access(&rule("Read", "'*'"))),
            "update of desiredState.workloads.own.controlInterfaceAccess: a workload cannot change \
             its own access rules",
        ),
        (
            "own",
            workload("own", SLEEP, ""),
            "update of desiredState.workloads.own.controlInterfaceAccess: a workload cannot change \
             its own access rules",
        ),
        (
            "refers",
            workload("other", SLEEP, ", configs: {s: secret}"),
            "update of desiredState.workloads.other: it refers to desiredState.configs.secret: no \
             rule allows it (allowed to read: nothing)",
        ),
    ];
    let agent = Agent::start(&[own, refers, configs.to_owned()].concat(), &[]);
    let mut ctl = agent.connect();
    let mut denied = [("own", 0), ("refers", 0)];
    for (by, then, reason) in cases {
        ctl.until_state(by, "Running(Ok)");
        let name = then.trim_start().split(':').next().unwrap().to_owned();
        let mask = format!("desiredState.workloads.{name}");
        let mut session = agent.connect_as(by);
        let told =
            session.update(&format!("workloads:\n{then}configs: {{secret: hush}}"), &[&mask]);
        assert_eq!(told, Err("Access denied".to_owned()));
        let text = format!(".agent_A: denied {reason}");
        wait_for(reason, || lines(&agent, &text).pop());
        assert!(lines(&agent, &text).iter().all(|line| line.contains(&format!(" {by}."))));
        let count = denied.iter_mut().find(|(name, _)| *name == by).unwrap();
        count.1 += 1;
        let own = agent.status_of(by);
        assert_eq!(own["denied"], count.1, "{own}");
        assert_eq!(own["last_denial"]["request"], "update");
        assert!(own["last_denial"]["reason"].as_str().unwrap().contains("its log has the reason"));
    }
    // What fifogate denies by itself does not come to the agent.
    let told = agent.connect_as("refers").update("configs: {k: v}", &["desiredState.configs.k"]);
    assert_eq!(told, Err("Access denied".to_owned()));
    let reason = "no rule allows it (allowed to write: desiredState.workloads)";
    assert_eq!(agent.status_of("refers")["last_denial"]["reason"], reason);
}

#[test]
fn verbosity_of_the_agent_is_that_of_its_fifogate_too() {
    for (options, says_ready, says_messages) in [
        (&[][..], true, false),
        (&["-q"], false, false),
        (&["-v"], true, false),
        (&["-vv"], true, true),
        (&["-q", "--", "-v"], true, false),
        (&["-v", "--", "-qq"], false, false),
        (&["-q", "--", "--window", "2"], false, false),
    ] {
        let agent = Agent::start("", options);
        let mut ctl = agent.connect();
        ctl.state();
        let said = |part: &str| !lines(&agent, part).is_empty();
        assert_eq!(said("fifogate::cli::run] ready"), says_ready, "{options:?}");
        assert_eq!(said(".agent_A sent Hello, version"), says_messages, "{options:?}");
    }
}

#[test]
fn agent_without_a_workload_in_its_manifest_says_whose_they_are() {
    let text = |source: &str, named: &str, count: usize| {
        format!("0 of {count} workloads are of agent_B; the {source} names {named}")
    };
    let others = workload("w", SLEEP, "").replace("agent_A", "agent_C");
    let template = workload("t", SLEEP, ", configs: {c: node}")
        .replace("agent: agent_A", "agent: '{{c.name}}'");
    let with_template = format!("{template}configs: {{node: {{name: agent_B}}}}\n");
    for (workloads, options, expected) in [
        (String::new(), &["--name", "agent_B"][..], Some(text("manifest", "agent_A", 1))),
        (others.clone(), &["--name", "agent_B"], Some(text("manifest", "agent_A, agent_C", 2))),
        (
            others.clone(),
            &["--name", "agent_B", "--state-dir", "$dir/state"],
            Some(text("manifest", "agent_A, agent_C", 2)),
        ),
        (with_template, &["--name", "agent_B"], None),
        (others, &[], None),
    ] {
        let agent = Agent::start(&workloads, options);
        wait_for("its start", || lines(&agent, " runs; pairs are in ").pop());
        let said = || lines(&agent, "workloads are of");
        match &expected {
            Some(text) => {
                let line = wait_for(text, || said().pop());
                assert!(line.ends_with(text) && line.contains(" WARN "), "{line}");
            }
            None => {
                wait_for("ready", || lines(&agent, "ready").pop());
                assert_eq!(said(), [""; 0], "{options:?}");
            }
        }
    }
}

#[test]
fn state_is_said_to_be_kept_from_the_second_start_on() {
    let options = ["--name", "agent_B", "--state-dir", "$dir/state"];
    let mut agent = Agent::start("", &options);
    let said = |agent: &Agent, count: usize| {
        wait_for("the line about its workloads", || {
            let lines = lines(agent, "0 of 1 workloads are of agent_B; the ");
            (lines.len() == count).then(|| lines[count - 1].clone())
        })
    };
    let line = said(&agent, 1);
    assert!(line.ends_with("the manifest names agent_A"), "{line}");
    agent.kill();
    agent.restart();
    let line = said(&agent, 2);
    assert!(line.ends_with("the kept state names agent_A"), "{line}");
}

fn ask_logs(session: &mut Session, named: &[(&str, &str)]) -> ResponseContent {
    let name = |(workload, agent): &(&str, &str)| pb::WorkloadInstanceName {
        workload_name: (*workload).to_owned(),
        agent_name: (*agent).to_owned(),
        id: "1".to_owned(),
    };
    let workload_names = named.iter().map(name).collect();
    let id = session.ask(RequestContent::LogsRequest(pb::LogsRequest {
        workload_names,
        follow: Some(true),
        ..Default::default()
    }));
    session.answer(&id)
}

#[test]
fn logs_of_another_node_are_refused_with_the_name_of_its_agent() {
    let away = workload("away", SLEEP, "").replace("agent_A", "agent_B");
    let agent = Agent::start(&away, &[]);
    let mut ctl = agent.connect();
    let here = ("ctl", "agent_A");
    let no_way = "which does not run or was started without --listen";
    for (named, text) in [
        (&[("away", "agent_B")][..], "The log of 'away' is kept by 'agent_B', "),
        (&[("nobody", "agent_C")], "The log of 'nobody' is kept by 'agent_C', "),
        (&[here, ("away", "agent_B")], "The log of 'away' is kept by 'agent_B', "),
        (
            &[("b", "agent_C"), ("away", "agent_B"), ("more", "agent_B"), here],
            "The log of 'away' and 1 more is kept by 'agent_B', ",
        ),
    ] {
        match ask_logs(&mut ctl, named) {
            ResponseContent::Error(error) => {
                assert_eq!(error.message, format!("{text}{no_way}"), "{named:?}");
            }
            other => panic!("{named:?}: {other:?}"),
        }
    }
    // An instance that is nowhere is left out, as in Ankaios.
    for nowhere in [("nobody", "agent_A"), ("nobody", "")] {
        let answer = ask_logs(&mut ctl, &[nowhere]);
        assert_eq!(
            answer,
            ResponseContent::LogsRequestAccepted(pb::LogsRequestAccepted::default())
        );
    }
}

#[test]
fn rule_about_no_part_of_the_state_keeps_no_workload_from_its_pair_and_is_logged() {
    let masks = "desiredstate, agents, configs.bar";
    let own = workload("own", SLEEP, &access(&rule("Read", masks)));
    let agent = Agent::start(&own, &[]);
    let mut ctl = agent.connect();
    ctl.until_state("own", "Running(Ok)");
    let mut session = agent.connect_as("own");
    session.read("r", &["agents"], false);
    session.state_response();
    for mask in ["desiredstate", "configs.bar"] {
        let text = format!("the mask '{mask}' of a rule of own begins with no part of the state");
        wait_for(&text, || lines(&agent, &text).pop());
        assert!(!lines(&agent, &format!("the mask '{mask}' of a rule names nothing")).is_empty());
    }
    // Set by a workload, it is as well.
    let more = workload("more", SLEEP, &access(&rule("Read", "Agents, agents")));
    ctl.update(&format!("workloads:\n{more}"), &["desiredState.workloads.more"]).unwrap();
    ctl.until_state("more", "Running(Ok)");
    let mut session = agent.connect_as("more");
    session.read("r", &["agents"], false);
    session.state_response();
    assert_eq!(lines(&agent, "the mask 'Agents' of a rule of more begins").len(), 1);
    // Changed rules are not sent with it either.
    let other = more.replace("Agents, agents", "Agents, workloadStates");
    ctl.update(
        &format!("workloads:\n{other}"),
        &["desiredState.workloads.more.controlInterfaceAccess"],
    )
    .unwrap();
    session.read("s", &["workloadStates"], false);
    session.state_response();
}
