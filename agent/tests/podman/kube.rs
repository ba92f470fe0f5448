//! Pods of Kubernetes manifests.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use testkit::{
    Agent, Etcd, IMAGE, Podman, Process, container, fifogate, processes_with, state_of, wait_for,
};

use super::logs::{ask, lines};

const SETS: &str = ", controlInterfaceAccess: {allowRules: [{type: StateRule, operation: ReadWrite, \
                    filterMasks: ['desiredState.configs']}]}";
const SLEEP: &str = "exec sleep 100000";

/// The spec of a pod with the container `c`, which runs a script as a user and sees the node's programs.
fn spec(script: &str, user: u32) -> Value {
    let own = Path::new(fifogate()).parent().unwrap().canonicalize().unwrap();
    let own = own.display().to_string();
    let shown = [("usr", "/usr"), ("lib", "/lib"), ("lib64", "/lib64"), ("programs", own.as_str())];
    let mounts = shown.map(|(name, _)| json!({"name": name, "mountPath": format!("/{name}")}));
    let volumes = shown.map(|(name, path)| json!({"name": name, "hostPath": {"path": path}}));
    json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", script],
            "env": [{"name": "PATH", "value": "/bin"}],
            "securityContext": {"runAsUser": user}, "volumeMounts": mounts,
        }],
        "volumes": volumes,
    })
}

fn pod(name: &str, script: &str, user: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec(script, user)})
}

fn deployment(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec(script, 0)},
        },
    })
}

fn workload(name: &str, documents: &[Value], target: Option<&str>, fields: &str) -> String {
    let texts: Vec<_> = documents.iter().map(Value::to_string).collect();
    let mut config = json!({"manifest": texts.join("\n---\n"), "playOptions": ["--network=none"]});
    if let Some(target) = target {
        config["controlInterfaceTarget"] = target.into();
    }
    let config = Value::from(config.to_string()).to_string();
    format!("  {name}: {{runtime: podman-kube, agent: agent_A, runtimeConfig: {config}{fields}}}\n")
}

/// Names and ids of all pods.
fn pods(podman: &Podman) -> Vec<String> {
    let text = podman.run(&["pod", "ps", "--no-trunc", "--format={{.Name}} {{.ID}}"]);
    let mut all: Vec<_> = text.lines().map(str::to_owned).collect();
    all.sort();
    all
}

fn volumes(podman: &Podman) -> String {
    podman.run(&["volume", "ls", "--format={{.Name}}"])
}

fn config_is(agent: &Agent, name: &str, expected: &str) {
    agent.connect().until(name, |tree| {
        let value = tree.get(&["desiredState", "configs", name])?.as_str()?.to_owned();
        (value == expected).then_some(())
    });
}

#[test]
fn pods_of_any_user_use_their_pairs_and_go_with_their_workloads() {
    let Some(podman) = Podman::new() else { return };
    let client = "/programs/fifogate set -d /run/ankaios/control_interface desiredState.configs";
    let script = |name: &str| format!("{client}.{name}=$(id -u); {SLEEP}");
    let text = workload("root", &[pod("p0", &script("root"), 0)], Some("p0/c"), SETS)
        + &workload("user", &[pod("p1", &script("user"), 1000)], Some("p1/c"), SETS)
        + &workload("depl", &[deployment("d", &script("depl"))], Some("d-pod/c"), SETS)
        + &workload("plain", &[pod("p2", SLEEP, 0), pod("p3", SLEEP, 0)], None, "");
    let agent = Agent::start_with(podman.env(), &text, &[]);
    let mut ctl = agent.connect();
    for name in ["root", "user", "depl", "plain"] {
        ctl.until_state(name, "Running(Ok)");
    }
    for (name, user) in [("root", "0"), ("user", "1000"), ("depl", "0")] {
        config_is(&agent, name, user);
    }
    podman.run(&["kill", "p3-c"]);
    ctl.until("the end of one container", |tree| {
        let (_, state, info) = state_of(tree, "plain")?;
        (state == "Failed(ExecFailed)" && info == "Exit code: '137'").then_some(())
    });
    for name in ["root", "user", "depl", "plain"] {
        ctl.remove_workload(name);
        ctl.until("the removal", |tree| state_of(tree, name).is_none().then_some(()));
    }
    assert_eq!((pods(&podman).len(), volumes(&podman).as_str()), (0, ""));
}

#[test]
fn next_agent_takes_over_pods_and_removes_unwanted_ones_but_no_other_agents() {
    let Some(podman) = Podman::new() else { return };
    let kept = workload("kept", &[pod("p0", SLEEP, 1000)], Some("p0/c"), SETS);
    let goes = workload("goes", &[pod("p1", SLEEP, 0)], None, "");
    let mut agent = Agent::start_with(podman.env(), &(kept.clone() + &goes), &[]);
    let mut ctl = agent.connect();
    ctl.until_state("kept", "Running(Ok)");
    ctl.until_state("goes", "Running(Ok)");
    let before = pods(&podman);
    podman.run(&["volume", "create", "--label=data=e30", "w.0123456789.my_agent_A.config"]);
    agent.kill_with_gate();
    agent.edit_manifest(|text| text.replace(&goes, ""));
    agent.restart();
    agent.connect().until_state("kept", "Running(Ok)");
    wait_for("the removal", || (pods(&podman).len() == 1).then_some(()));
    assert_eq!(pods(&podman)[0], before[0], "it is not touched");
    wait_for("the removal of volumes", || (volumes(&podman).lines().count() == 3).then_some(()));
    assert!(volumes(&podman).contains("my_agent_A"));
    let ask =
        "/programs/fifogate set -d /run/ankaios/control_interface desiredState.configs.again=yes";
    wait_for("an update from the same pod", || {
        podman.output(&["exec", "p0-c", "/bin/sh", "-c", ask]).status.success().then_some(())
    });
    config_is(&agent, "again", "yes");
}

#[test]
fn what_cannot_start_says_why_and_leaves_nothing() {
    let Some(podman) = Podman::new() else { return };
    let good = || [pod("p0", SLEEP, 0)];
    let file = ", files: [{mountPoint: /a, data: x}]";
    let mut image = pod("p1", SLEEP, 0);
    image["spec"]["containers"][0]["image"] = "localhost/none".into();
    // podman makes the pod before it and not the one behind it.
    let mut bad = pod("p5", SLEEP, 0);
    bad["spec"]["volumes"][0]["hostPath"]["type"] = "Nonsense".into();
    podman.run(&["pod", "create", "--infra=false", "p2"]);
    let text = workload("file", &good(), None, file)
        + &workload("rules", &good(), None, SETS)
        + &workload("target", &good(), Some("p0/x"), SETS)
        + &workload("twice", &[good(), good()].concat(), None, "")
        + &workload("image", &[pod("p3", SLEEP, 0), image], None, "")
        + &workload("foreign", &[pod("p2", SLEEP, 0)], None, "")
        + &workload("half", &[pod("p4", SLEEP, 0), bad, pod("p6", SLEEP, 0)], None, "");
    let agent = Agent::start_with(podman.env(), &text, &[]);
    let mut ctl = agent.connect();
    for (name, wanted, text) in [
        ("file", "Pending(StartingFailed)", "Use ConfigMaps instead."),
        ("rules", "Pending(StartingFailed)", "Control interface target not specified"),
        ("target", "Pending(StartingFailed)", "pod 'p0' has no container 'x'"),
        ("twice", "Pending(StartingFailed)", "a second Pod 'p0' begins here"),
        ("image", "Pending(Starting)", "localhost/none"),
        ("half", "Pending(Starting)", "invalid HostPath type"),
        ("foreign", "Pending(Starting)", "a pod 'p2' is there already"),
    ] {
        ctl.until(name, |tree| {
            let (_, state, info) = state_of(tree, name)?;
            (state == wanted && info.contains(text)).then_some(())
        });
    }
    for name in ["image", "half", "foreign"] {
        ctl.remove_workload(name);
        ctl.until("the removal", |tree| state_of(tree, name).is_none().then_some(()));
    }
    let left = pods(&podman);
    assert!(left.len() == 1 && left[0].starts_with("p2 "), "{left:?}");
    assert_eq!(volumes(&podman), "");
}

#[test]
fn removal_leaves_a_pod_of_somebody_else_that_has_the_name_of_a_removed_one() {
    let Some(podman) = Podman::new() else { return };
    let text = workload("w", &[pod("p0", SLEEP, 0), pod("p1", SLEEP, 0)], None, "");
    let agent = Agent::start_with(podman.env(), &text, &[]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    podman.run(&["pod", "rm", "--force", "--time=0", "p0"]);
    podman.run(&["pod", "create", "--infra=false", "p0"]);
    let foreign = pods(&podman)[0].clone();
    ctl.remove_workload("w");
    ctl.until("the removal", |tree| state_of(tree, "w").is_none().then_some(()));
    assert_eq!(pods(&podman), [foreign]);
    assert_eq!(volumes(&podman), "");
}

/// The `runtimeConfig` of a workload as it stands in a manifest.
fn config_of(workload: &str) -> String {
    let (_, rest) = workload.split_once("runtimeConfig: ").unwrap();
    let mut texts = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    texts.next().unwrap().unwrap()
}

/// Plays the manifest of a workload as Ankaios does. Returns the ids of its pods.
fn play_as_ankaios(podman: &Podman, workload: &str, instance: &str) -> Vec<String> {
    let config = config_of(workload);
    let parsed: Value = serde_json::from_str(&config).unwrap();
    let file = podman.path("played.yaml");
    std::fs::write(&file, parsed["manifest"].as_str().unwrap()).unwrap();
    let said = podman.run(&["kube", "play", "--quiet", "--network=none", file.to_str().unwrap()]);
    let lines: Vec<_> = said.lines().collect();
    let pods = lines.windows(2).filter(|two| two[0] == "Pod:").map(|two| two[1].to_owned());
    let pods: Vec<_> = pods.collect();
    for (kind, content) in [("config", config), ("pods", json!(pods).to_string())] {
        let label = format!("--label=data={}", STANDARD_NO_PAD.encode(content));
        podman.run(&["volume", "create", &label, &format!("{instance}.agent_A.{kind}")]);
    }
    pods
}

#[test]
fn pods_of_ankaios_are_taken_over_replaced_for_their_pair_or_removed_with_their_volumes() {
    let Some(podman) = Podman::new() else { return };
    let plain = workload("plain", &[pod("p0", SLEEP, 0), deployment("d", SLEEP)], None, "");
    let reads = workload("reads", &[pod("p1", SLEEP, 0)], Some("p1/c"), SETS);
    let goes = workload("goes", &[pod("p2", SLEEP, 0)], None, "");
    let texts = [plain, reads, goes];
    let mut agent = Agent::start_with(podman.env(), &texts.concat(), &[]);
    let mut ctl = agent.connect();
    let instances = ["plain", "reads", "goes"].map(|name| {
        let id = ctl.until_state(name, "Running(Ok)");
        format!("{name}.{id}")
    });
    agent.kill_with_gate();
    podman.run(&["pod", "rm", "--all", "--force", "--time=0"]);
    podman.run(&["volume", "rm", "--all", "--force"]);
    let made: Vec<_> = texts
        .iter()
        .zip(&instances)
        .map(|(text, instance)| play_as_ankaios(&podman, text, instance))
        .collect();
    assert_eq!((made[0].len(), made[1].len(), made[2].len()), (2, 1, 1));
    agent.edit_manifest(|text| text.replace(&texts[2], ""));
    agent.restart();
    let mut ctl = agent.connect();
    ctl.until_state("plain", "Running(Ok)");
    ctl.until_state("reads", "Running(Ok)");
    wait_for("the removal", || (pods(&podman).len() == 3).then_some(()));
    let all = pods(&podman).concat();
    assert!(made[0].iter().all(|own| all.contains(own)), "they are not touched: {all}");
    assert!(!all.contains(&made[1][0]), "its pair is not ours: {all}");
    wait_for("the removal of its volumes", || (!volumes(&podman).contains("goes")).then_some(()));
    let of_plain = ["config", "pods"].map(|kind| format!("{}.agent_A.{kind}", instances[0]));
    assert!(of_plain.iter().all(|own| volumes(&podman).contains(own)), "{}", volumes(&podman));
    for name in ["plain", "reads"] {
        ctl.remove_workload(name);
        ctl.until("the removal", |tree| state_of(tree, name).is_none().then_some(()));
    }
    assert_eq!((pods(&podman).len(), volumes(&podman).as_str()), (0, ""));
}

/// Leaves what a podman leaves that is killed while it creates a container: a name that is taken.
fn leave_unfinished(podman: &Podman, name: &str) {
    for millis in (2..200).step_by(2).cycle().take(1_000) {
        let mut podman_process = Command::new("podman");
        podman_process.args(["create", "--name", name, IMAGE, "true"]).envs(podman.env());
        let mut podman_process = Process::start(podman_process.stdout(Stdio::null()));
        thread::sleep(Duration::from_millis(millis));
        podman_process.kill();
        let filter = format!("--filter=name=^{name}$");
        let all = ["ps", "--all", "--external", "--format={{.Status}}", &filter];
        match podman.run(&all).as_str() {
            "Storage" => return,
            "" => {}
            _ => drop(podman.run(&["rm", "--force", name])),
        }
    }
    panic!("it was never killed half way");
}

#[test]
fn name_that_a_killed_podman_has_left_taken_is_free_for_the_next_try() {
    let Some(podman) = Podman::new() else { return };
    let texts = [
        container("c", SLEEP, r#"["--stop-timeout=0"]"#, ""),
        workload("k", &[pod("p0", SLEEP, 0)], None, ""),
    ];
    let agent = Agent::start_with(podman.env(), &texts.concat(), &[]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("c", "Running(Ok)");
    ctl.until_state("k", "Running(Ok)");
    for (workload, text, name) in
        [("c", &texts[0], format!("c.{}.agent_A", &id[..7])), ("k", &texts[1], "p0-c".to_owned())]
    {
        ctl.remove_workload(workload);
        ctl.until("the removal", |tree| state_of(tree, workload).is_none().then_some(()));
        leave_unfinished(&podman, &name);
        let mask = format!("desiredState.workloads.{workload}");
        ctl.update(&format!("workloads:\n{text}"), &[&mask]).unwrap();
        ctl.until_state(workload, "Running(Ok)");
    }
}

#[test]
fn removal_uses_down_options_and_comes_to_its_end_without_them() {
    let Some(podman) = Podman::new() else { return };
    let calls = podman.path("calls");
    let env = podman.env_before(&format!("echo \"$*\" >> {}", calls.display()));
    let with = |name: &str, pod_name: &str, option: &str| {
        let text = workload(name, &[pod(pod_name, SLEEP, 0)], None, "");
        let mut config: Value = serde_json::from_str(&config_of(&text)).unwrap();
        config["downOptions"] = json!([option]);
        let config = Value::from(config.to_string());
        format!("  {name}: {{runtime: podman-kube, agent: agent_A, runtimeConfig: {config}}}\n")
    };
    let text = with("good", "p0", "--log-level=error") + &with("wrong", "p1", "--nonsense");
    let agent = Agent::start_with(env, &text, &[]);
    let mut ctl = agent.connect();
    for name in ["good", "wrong"] {
        ctl.until_state(name, "Running(Ok)");
        ctl.remove_workload(name);
        ctl.until("the removal", |tree| state_of(tree, name).is_none().then_some(()));
    }
    assert_eq!((pods(&podman).len(), volumes(&podman).as_str()), (0, ""));
    let calls = std::fs::read_to_string(calls).unwrap();
    for expected in ["kube down --log-level=error -", "kube down --nonsense -"] {
        assert_eq!(calls.lines().filter(|line| *line == expected).count(), 1, "{calls}");
    }
}

#[test]
fn container_that_podman_restarts_has_not_ended_and_its_state_follows() {
    let Some(podman) = Podman::new() else { return };
    // Kubernetes restarts a container unless told otherwise.
    let mut always = pod("p0", SLEEP, 0);
    always["spec"].as_object_mut().unwrap().remove("restartPolicy");
    let agent = Agent::start_with(podman.env(), &workload("w", &[always], None, ""), &[]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    let before = pods(&podman);
    let pid = || podman.run(&["inspect", "--format={{.State.Pid}}", "p0-c"]);
    let first = pid();
    let status = std::process::Command::new("kill").args(["-9", &first]).status();
    assert!(status.unwrap().success());
    wait_for("the next process", || Some(pid()).filter(|pid| *pid != first && pid != "0"));
    ctl.until_state("w", "Running(Ok)");
    // By hand, and then podman leaves it alone.
    podman.run(&["stop", "--time=0", "p0-c"]);
    ctl.until_state("w", "Failed(ExecFailed)");
    podman.run(&["start", "p0-c"]);
    ctl.until_state("w", "Running(Ok)");
    assert_eq!(pods(&podman), before);
}

#[test]
fn longest_config_is_kept_and_one_byte_more_is_refused() {
    const MOST: usize = 98_240;
    let Some(podman) = Podman::new() else { return };
    let sized = |name: &str, len: usize| {
        let manifest = pod(name, SLEEP, 0).to_string();
        let config = json!({"manifest": manifest, "playOptions": ["--network=none"]}).to_string();
        let comment = "#".repeat(len - config.len() - 1);
        let config = Value::from(format!("{config}\n{comment}")).to_string();
        format!("  {name}: {{runtime: podman-kube, agent: agent_A, runtimeConfig: {config}}}\n")
    };
    let text = sized("fits", MOST) + &sized("over", MOST + 1);
    let agent = Agent::start_with(podman.env(), &text, &[]);
    let mut ctl = agent.connect();
    ctl.until_state("fits", "Running(Ok)");
    ctl.until("the refusal", |tree| {
        let (_, state, info) = state_of(tree, "over")?;
        let expected = format!("more than {MOST} bytes");
        (state == "Pending(StartingFailed)" && info.contains(&expected)).then_some(())
    });
}

#[test]
fn logs_of_all_containers_are_sent_and_those_of_infra_containers_are_not() {
    let Some(podman) = Podman::new() else { return };
    let text = workload("w", &[pod("p0", "echo one", 0), pod("p1", "echo two", 0)], None, "");
    let agent = Agent::start_with(podman.env(), &text, &[]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("w", "Succeeded(Ok)");
    let asked = ask(&mut ctl, "w", &id, |_| {});
    let mut lines = lines(&mut ctl, &asked, usize::MAX);
    lines.sort();
    assert_eq!(lines, ["p0-c one", "p1-c two"]);
}

#[test]
fn end_of_the_agent_ends_pods_only_if_that_is_wanted() {
    let Some(podman) = Podman::new() else { return };
    let text = workload("w", &[pod("p0", SLEEP, 0)], None, "");
    for (options, left) in [(&[][..], 1), (&["--on-exit", "end"][..], 0)] {
        let mut agent = Agent::start_with(podman.env(), &text, options);
        agent.connect().until_state("w", "Running(Ok)");
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.status(), Some(0), "{}", agent.log());
        assert_eq!(pods(&podman).len(), left, "{options:?}");
        // The next one has another run directory, and would leave it alone.
        podman.output(&["pod", "rm", "--all", "--force", "--time=0"]);
        podman.output(&["volume", "rm", "--all", "--force"]);
    }
}

#[test]
fn agent_that_loses_its_name_at_once_leaves_neither_containers_nor_pods() {
    let Some(podman) = Podman::new() else { return };
    let etcd = Etcd::start();
    let text = container("c", SLEEP, "[]", "") + &workload("w", &[pod("p0", SLEEP, 0)], None, "");
    podman.run(&["run", "--detach", "--name=foreign", IMAGE, "sleep", "100000"]);
    let endpoint = etcd.endpoint();
    let options = ["--etcd", &endpoint, "--takeover-after", "77.5"];
    let mut agent = Agent::start_with(podman.env(), &text, &options);
    let mut ctl = agent.connect();
    ctl.until_state("c", "Running(Ok)");
    ctl.until_state("w", "Running(Ok)");
    // An agent without its watchdog cannot say how long its name is its own.
    let [watchdog] = processes_with("watchdog\u{0}77.5")[..] else { panic!("one watchdog") };
    kill(Pid::from_raw(watchdog), Signal::SIGKILL).unwrap();
    assert_eq!(agent.status(), Some(1));
    wait_for("the removal", || {
        let names: Vec<_> = podman.containers().iter().map(|one| one["Names"][0].clone()).collect();
        (names == ["foreign"] && pods(&podman).is_empty()).then_some(())
    });
}
