//! Containers outlive their agent, and the next one takes over what it wants of them.

use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;
use testkit::{Agent, Podman, container, state_of, wait_for};

const SLEEP: &str = "exec sleep 100000";
/// The right to read the desired state, and so a pair.
const READS: &str = ", controlInterfaceAccess: {allowRules: [{type: StateRule, operation: Read, \
                     filterMasks: ['desiredState']}]}";

/// Kills the agent, and waits until its fifogate has followed: a session of before would be its.
fn names(podman: &Podman) -> Vec<String> {
    let all = podman.containers();
    let mut names: Vec<_> =
        all.iter().filter_map(|own| Some(own["Names"][0].as_str()?.to_owned())).collect();
    names.sort();
    names
}

#[test]
fn next_agent_takes_over_what_runs_and_removes_what_is_not_wanted() {
    let Some(podman) = Podman::new() else { return };
    let texts = [
        container("runs", SLEEP, "[]", READS),
        container("changes", SLEEP, "[]", ""),
        container("goes", SLEEP, "[]", ""),
        container("fails", "exit 3", "[]", ""),
        container("done", "exit 0", "[]", ""),
    ];
    let mut agent = Agent::start_with(podman.env(), &texts.concat(), &[]);
    let mut ctl = agent.connect();
    for name in ["runs", "changes", "goes"] {
        ctl.until_state(name, "Running(Ok)");
    }
    ctl.until_state("fails", "Failed(ExecFailed)");
    ctl.until_state("done", "Succeeded(Ok)");
    let id = |name: &str| podman.id_of(name).unwrap();
    let before = ["runs", "changes", "fails", "done"].map(id);
    // Of an agent whose name ends like ours.
    let labels = "--label=name=other.0123456789.my_agent_A --label=agent=my_agent_A --name=other";
    let args = labels.split(' ').chain([testkit::IMAGE, "sleep", "100000"]);
    podman.run(&["run", "--detach"].into_iter().chain(args).collect::<Vec<_>>());
    agent.kill_with_gate();
    // Another text, another id: the instance is not the one that runs.
    let changed = texts[1].replace(SLEEP, "exec sleep 200000");
    agent.edit_manifest(|text| text.replace(&texts[1], &changed).replace(&texts[2], ""));
    let known = agent.log().len();
    agent.restart();
    let mut ctl = agent.connect();
    ctl.until_state("runs", "Running(Ok)");
    ctl.until_state("changes", "Running(Ok)");
    wait_for("the removal of what is not wanted", || podman.id_of("goes").is_none().then_some(()));
    ctl.until_state("fails", "Failed(ExecFailed)");
    ctl.until_state("done", "Succeeded(Ok)");
    wait_for("one container of each", || {
        ["runs", "changes", "fails", "done"]
            .iter()
            .all(|own| podman.id_of(own).is_some())
            .then_some(())
    });
    let after = ["runs", "changes", "fails", "done"].map(id);
    assert_eq!(after[0], before[0], "it is not touched");
    for line in ["] runs taken over from an earlier agent\n", "] changes started\n"] {
        wait_for(line, || agent.log()[known..].contains(line).then_some(()));
    }
    assert!(!agent.log()[known..].contains("] runs started"), "{}", agent.log());
    assert_ne!(after[1], before[1]);
    assert_ne!(after[2], before[2], "a failed one is made anew");
    assert_eq!(after[3], before[3], "one that was done is started again");
    assert!(names(&podman).contains(&"other".to_owned()));
    // Asked for after the removal: the pair still belongs to the container.
    let pair = podman.run(&["exec", &after[0], "ls", "/run/ankaios/control_interface"]);
    assert_eq!(pair, "input\noutput");
}

#[test]
fn end_of_the_agent_keeps_containers_and_their_pairs_unless_told_otherwise() {
    let Some(podman) = Podman::new() else { return };
    let text = container("w", SLEEP, r#"["--stop-timeout=0"]"#, READS);
    let mut agent = Agent::start_with(podman.env(), &text, &[]);
    agent.connect().until_state("w", "Running(Ok)");
    let id = podman.id_of("w").unwrap();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
    assert_eq!(podman.container_of("w").unwrap()["State"], "running");
    agent.restart();
    agent.connect().until_state("w", "Running(Ok)");
    assert_eq!(podman.id_of("w").unwrap(), id);
    // Its pair is the one that is served now.
    let inside = podman.run(&["exec", &id, "ls", "-i", "/run/ankaios/control_interface/input"]);
    let [folder] = &agent.pairs_of("w")[..] else { panic!("one pair is expected") };
    let inode = std::fs::metadata(folder.join("input")).unwrap().ino();
    assert!(inside.starts_with(&inode.to_string()), "{inside}: {inode}");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
    podman.run(&["rm", "--all", "--force", "--time=0"]);

    let mut agent = Agent::start_with(podman.env(), &text, &["--on-exit", "end"]);
    agent.connect().until_state("w", "Running(Ok)");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
    assert!(podman.containers().is_empty());
}

#[test]
fn container_of_ankaios_is_taken_over_or_replaced_for_its_pair() {
    let Some(podman) = Podman::new() else { return };
    let foreign = tempfile::tempdir().unwrap();
    let texts = [container("plain", SLEEP, "[]", ""), container("reads", SLEEP, "[]", READS)];
    let mut agent = Agent::start_with(podman.env(), &texts.concat(), &[]);
    let mut ctl = agent.connect();
    let instances = ["plain", "reads"].map(|name| ctl.until_state(name, "Running(Ok)"));
    agent.kill_with_gate();
    podman.run(&["rm", "--all", "--force", "--time=0"]);
    let made = [("plain", &instances[0]), ("reads", &instances[1])].map(|(name, id)| {
        let label = format!("--label=name={name}.{id}.agent_A");
        let pair = format!("--volume={}:/run/ankaios/control_interface", foreign.path().display());
        let short = format!("{name}.{}.agent_A", &id[..7]);
        podman.run(&[
            "run",
            "--detach",
            "--name",
            &short,
            &label,
            "--label=agent=agent_A",
            "--stop-timeout=0",
            &pair,
            testkit::IMAGE,
            "sleep",
            "100000",
        ])
    });
    agent.restart();
    let mut ctl = agent.connect();
    for name in ["plain", "reads"] {
        ctl.until_state(name, "Running(Ok)");
    }
    assert_eq!(podman.id_of("plain").unwrap(), made[0], "it needs no pair");
    assert_ne!(podman.id_of("reads").unwrap(), made[1], "its pair is not ours");
}

#[test]
fn update_and_delete_replace_and_remove_a_container() {
    let Some(podman) = Podman::new() else { return };
    let text = container("w", SLEEP, r#"["--stop-timeout=0"]"#, "");
    let agent = Agent::start_with(podman.env(), &text, &[]);
    let mut ctl = agent.connect();
    let first = ctl.until_state("w", "Running(Ok)");
    let container_id = podman.id_of("w").unwrap();
    let other = container("w", "exec sleep 7", r#"["--stop-timeout=0"]"#, ", tags: {a: b}");
    ctl.update(&format!("workloads:\n{other}"), &["desiredState.workloads.w"]).unwrap();
    ctl.until("the new instance", |tree| {
        let (id, state, _) = state_of(tree, "w")?;
        (id != first && state == "Running(Ok)").then_some(())
    });
    assert_ne!(podman.id_of("w").unwrap(), container_id);
    ctl.remove_workload("w");
    ctl.until("the removal", |tree| state_of(tree, "w").is_none().then_some(()));
    assert_eq!(podman.containers().len(), 0);
    // Nothing of it is in the run directory.
    let left = std::fs::read_dir(agent.path("run/agent")).unwrap();
    let left: Vec<_> = left.map(|own| own.unwrap().file_name()).collect();
    assert!(!left.iter().any(|own| own.to_string_lossy().starts_with("w.")), "{left:?}");
}

/// Restarts the agent with other workloads beside the test's own.
fn restart_with(agent: &mut Agent, workloads: &str) {
    let manifest = std::fs::read_to_string(agent.path("manifest.yaml")).unwrap();
    let head = manifest.find("  w: ").map_or(manifest.as_str(), |at| &manifest[..at]);
    std::fs::write(agent.path("manifest.yaml"), format!("{head}{workloads}")).unwrap();
    agent.restart();
}

#[test]
fn container_of_another_user_that_failed_meanwhile_is_replaced() {
    let Some(podman) = Podman::new() else { return };
    let text = container("w", SLEEP, r#"["--user=1000", "--stop-timeout=0"]"#, READS);
    let mut agent = Agent::start_with(podman.env(), &text, &[]);
    agent.connect().until_state("w", "Running(Ok)");
    let before = podman.id_of("w").unwrap();
    agent.kill_with_gate();
    podman.run(&["stop", &before]);
    agent.restart();
    agent.connect().until_state("w", "Running(Ok)");
    assert_ne!(podman.id_of("w").unwrap(), before);
}

#[test]
fn container_that_is_wanted_no_more_is_removed_even_if_nothing_is_wanted_or_it_is_paused() {
    let Some(podman) = Podman::new() else { return };
    let text = container("w", SLEEP, r#"["--stop-timeout=0"]"#, "");
    let mut agent = Agent::start_with(podman.env(), &text, &[]);
    agent.connect().until_state("w", "Running(Ok)");
    podman.run(&["pause", &podman.id_of("w").unwrap()]);
    agent.kill_with_gate();
    std::fs::write(agent.path("manifest.yaml"), "apiVersion: v1\n").unwrap();
    agent.restart();
    wait_for("its removal", || podman.containers().is_empty().then_some(()));
    let left = agent.path("run/agent");
    wait_for("the removal of its folder", || {
        let mut names = std::fs::read_dir(&left).unwrap().map(|own| own.unwrap().file_name());
        names.all(|own| !own.to_string_lossy().starts_with("w.")).then_some(())
    });
}

#[test]
fn container_of_an_agent_of_this_name_in_another_folder_is_left_alone() {
    let Some(podman) = Podman::new() else { return };
    let text = container("w", SLEEP, "[]", "");
    let agent = Agent::start_with(podman.env(), &text, &[]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    let id = podman.id_of("w").unwrap();
    let other = Agent::start_with(podman.env(), "", &[]);
    other.connect();
    let log = other.log();
    assert!(log.contains("containers of 'agent_A' are left alone (1)"), "{log}");
    let mut another = Agent::start_with(podman.env(), "", &[]);
    restart_with(&mut another, &text);
    another.connect().until("the conflict", |tree| {
        let (_, state, info) = state_of(tree, "w")?;
        (state == "Pending(Starting)" && info.contains("already in use")).then_some(())
    });
    assert_eq!(podman.id_of("w").unwrap(), id);
    ctl.until_state("w", "Running(Ok)");
}
