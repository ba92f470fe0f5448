//! Somebody deletes all keys of a cluster: its workloads run on, and everybody is told why nothing else does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use testkit::{Agent, Etcd, Session, processes_with, wait_for, workload};

fn agent(etcd: &Etcd, name: &str, number: u32) -> (Agent, i32) {
    let text = workload("w", &format!("exec sleep {number}"), "");
    let agent = Agent::start(&text, &["--name", name, "--etcd", &etcd.endpoint()]);
    let process = wait_for("the workload", || process(number));
    (agent, process)
}

fn process(number: u32) -> Option<i32> {
    processes_with(&format!("sleep\u{0}{number}")).first().copied()
}

fn set(session: &mut Session, value: &str) -> Result<(), String> {
    let text = format!("configs: {{k: {value}}}");
    session.update(&text, &["desiredState.configs.k"]).map(drop)
}

/// Waits until an agent tells the reason, and until it has looked often.
fn emptied(etcd: &Etcd, agent: &Agent) {
    etcd.delete_all("fifogate");
    let reason = "fifogate/layout is not there any more";
    let trouble = wait_for("the trouble", || {
        // The agent may first notice the loss of its lease.
        Some(agent.trouble()).filter(|own| own.ends_with(reason))
    });
    assert!(!trouble.contains("cannot be reached"), "{trouble}");
    // It may find the loss of its lease only now, and connects again then.
    let refused = wait_for("a refusal with the reason", || {
        let refused = set(&mut agent.connect(), "during").unwrap_err();
        refused.ends_with(reason).then_some(refused)
    });
    assert!(!refused.contains("cannot be reached"), "{refused}");
    let reads = etcd.reads();
    wait_for("many attempts", || (etcd.reads() > reads + 20).then_some(()));
    let log = agent.log();
    // Once more if its lease was found to be gone in between.
    assert!((1..=2).contains(&log.matches(reason).count()), "{log}");
    assert!(!log.contains("read again"), "{log}");
}

#[test]
fn workloads_of_an_emptied_etcd_run_on_until_its_backup_is_back() {
    let mut etcd = Etcd::start();
    let (agent, own) = agent(&etcd, "agent_A", 79_001);
    let mut session = agent.connect();
    set(&mut session, "before").unwrap();
    let backup = etcd.backup();
    wait_for("another update", || set(&mut session, "after").ok());
    emptied(&etcd, &agent);
    etcd.restore(backup.path());
    wait_for("the end of the trouble", || agent.trouble().is_empty().then_some(()));
    session.until("the backup", |tree| {
        let config = tree.get(&["desiredState", "configs", "k"])?.as_str()?;
        (config == "before").then_some(())
    });
    wait_for("an update", || set(&mut session, "again").ok());
    assert_eq!(process(79_001), Some(own));
}

#[test]
fn workloads_of_an_emptied_etcd_run_on_if_another_agent_begins_with_the_same_manifest() {
    let etcd = Etcd::start();
    let (first, own) = agent(&etcd, "agent_A", 79_002);
    set(&mut first.connect(), "before").unwrap();
    emptied(&etcd, &first);
    // It runs nothing itself: the manifest's workloads are of the first one.
    let _second = agent(&etcd, "agent_B", 79_002);
    wait_for("the end of the trouble", || first.trouble().is_empty().then_some(()));
    let mut session = first.connect();
    session.until("the manifest", |tree| {
        tree.get(&["desiredState", "configs", "k"]).is_none().then_some(())
    });
    session.until_state("w", "Running(Ok)");
    wait_for("an update", || set(&mut session, "again").ok());
    assert_eq!(process(79_002), Some(own));
}
