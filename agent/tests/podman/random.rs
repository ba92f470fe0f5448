//! Random operations on ten workloads of all runtimes, while containers, podman and the agent are killed and
//! podman fails. At the end what runs is what is desired, and nothing else is there.
//!
//! `SEED` chooses the operations, `OPERATIONS` how many there are. `make soak-podman` runs 200 of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use testkit::{Agent, IMAGE, Podman, Session, number, processes_with, state_of, wait_for};

/// So many names of workloads.
const NAMES: usize = 10;
const RUNTIMES: [&str; 3] = ["process", "podman", "podman-kube"];
/// The first argument behind the script is the mark of its workload. It has an end of each kind.
const SCRIPT: &str = "trap 'exit 0' USR1; trap 'exit 143' TERM; sleep 100000 & wait";
const READS: &str = ", controlInterfaceAccess: {allowRules: [{type: StateRule, operation: Read, \
                     filterMasks: ['desiredState.configs']}]}";

/// What is desired of one name.
#[derive(Clone, Debug)]
struct Wanted {
    runtime: &'static str,
    /// On the command line of its process, and of no other one.
    mark: String,
    has_pair: bool,
}

impl Wanted {
    /// The workload as it stands in a manifest.
    fn text(&self, name: &str) -> String {
        let command = ["sh", "-c", SCRIPT, &self.mark];
        let config = match self.runtime {
            "process" => json!({"command": "sh", "args": command[1..]}),
            "podman" => json!({"image": IMAGE, "commandArgs": command}),
            _ => json!({
                "manifest": pod(&self.pod(name), &command),
                "playOptions": ["--network=none"],
                "controlInterfaceTarget": format!("{}/c", self.pod(name)),
            }),
        };
        let config = serde_json::Value::from(config.to_string());
        let rights = if self.has_pair { READS } else { "" };
        format!(
            "  {name}: {{runtime: {}, agent: agent_A, restartPolicy: ALWAYS, runtimeConfig: {config}{rights}}}\n",
            self.runtime
        )
    }

    fn pod(&self, name: &str) -> String {
        format!("pod-{name}")
    }
}

fn pod(name: &str, command: &[&str]) -> String {
    let container = json!({
        "name": "c", "image": IMAGE, "command": command,
        "env": [{"name": "PATH", "value": "/bin"}],
    });
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container],
        },
    })
    .to_string()
}

/// The processes with a mark, without those that only start them.
fn processes_of(mark: &str) -> Vec<i32> {
    let is_own = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"sh\0-c\0") && line.ends_with(format!("\0{mark}\0").as_bytes())
    };
    processes_with(mark).into_iter().filter(is_own).collect()
}

struct Run {
    random: ChaCha8Rng,
    podman: Podman,
    agent: Agent,
    ctl: Session,
    wanted: BTreeMap<String, Wanted>,
    /// Marks that were given out.
    marks: usize,
    /// Processes with such a mark are of this run.
    tag: String,
    /// Operations until podman works again.
    fails_for: usize,
}

impl Run {
    /// `None`, and the test is skipped, where podman cannot start a container.
    fn start(seed: u64) -> Option<Self> {
        let podman = Podman::new()?;
        let broken = podman.path("broken");
        let script = format!(
            "if [ -e {} ]; then echo 'Error: the storage is broken' >&2; exit 125; fi",
            broken.display()
        );
        let agent =
            Agent::start_with(podman.env_before(&script), "", &["--state-dir", "$dir/state"]);
        let tag = agent.dir.path().file_name().unwrap().to_string_lossy().into_owned();
        let random = ChaCha8Rng::seed_from_u64(seed);
        let (wanted, ctl) = (BTreeMap::new(), agent.connect());
        Some(Self { random, podman, agent, ctl, wanted, marks: 0, tag, fails_for: 0 })
    }

    fn operate(&mut self) -> String {
        let name = format!("w{}", self.random.random_range(0..NAMES));
        self.fails_for = self.fails_for.saturating_sub(1);
        if self.fails_for == 0 {
            self.mend_podman();
        }
        match self.random.random_range(0..22) {
            0..6 => self.set(&name),
            6..9 => self.remove(&name),
            9..13 => self.kill_process(),
            13..15 => self.kill_podman(false),
            15 => self.kill_podman(true),
            16 => self.restart(Signal::SIGKILL),
            17 => self.restart(Signal::SIGTERM),
            18 => {
                self.fails_for = self.random.random_range(1..8);
                fs::write(self.podman.path("broken"), "").unwrap();
                format!("break podman for {} operations", self.fails_for)
            }
            _ => self.await_one(),
        }
    }

    fn mend_podman(&self) {
        let _ = fs::remove_file(self.podman.path("broken"));
    }

    fn set(&mut self, name: &str) -> String {
        self.marks += 1;
        let wanted = Wanted {
            runtime: RUNTIMES.choose(&mut self.random).unwrap(),
            mark: format!("{}-{}", self.tag, self.marks),
            has_pair: self.random.random(),
        };
        let text = format!("workloads:\n{}", wanted.text(name));
        self.ctl.update(&text, &[&format!("desiredState.workloads.{name}")]).unwrap();
        let done = format!("set {name} to {} {}", wanted.runtime, self.marks);
        self.wanted.insert(name.to_owned(), wanted);
        done
    }

    fn remove(&mut self, name: &str) -> String {
        if self.wanted.remove(name).is_none() {
            return self.set(name);
        }
        self.ctl.remove_workload(name);
        format!("remove {name}")
    }

    /// Ends the process of a workload, wherever it runs.
    fn kill_process(&mut self) -> String {
        let running = self.wanted.iter().map(|(name, own)| (name, processes_of(&own.mark)));
        let running: Vec<_> = running.filter(|(_, processes)| !processes.is_empty()).collect();
        let Some((name, processes)) = running.choose(&mut self.random) else {
            return "nothing is there to be killed".to_owned();
        };
        let signal =
            *[Signal::SIGKILL, Signal::SIGTERM, Signal::SIGUSR1].choose(&mut self.random).unwrap();
        for pid in processes {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(*pid), signal);
        }
        format!("{signal} to {name}")
    }

    /// Kills the processes of this podman: all of them, or those for events.
    fn kill_podman(&mut self, all: bool) -> String {
        let own = self.podman.path("containers.conf").display().to_string();
        let is_own = |pid: &i32| {
            let of = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            of("comm") == b"podman\n"
                && String::from_utf8_lossy(&of("environ")).contains(&own)
                && (all || String::from_utf8_lossy(&of("cmdline")).contains("events"))
        };
        let processes: Vec<_> = processes_with("podman").into_iter().filter(is_own).collect();
        for pid in &processes {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        format!("kill {} processes of podman", processes.len())
    }

    fn restart(&mut self, signal: Signal) -> String {
        self.agent.signal(signal);
        self.agent.child.wait_end();
        // Not for what it has started of podman: that goes on beside the next agent.
        let run_dir = self.agent.path("run").display().to_string();
        let is_gate = |pid: &i32| {
            fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == b"fifogate\n")
        };
        wait_for("the end of fifogate", || {
            (!processes_with(&run_dir).iter().any(is_gate)).then_some(())
        });
        self.agent.restart();
        self.ctl = self.agent.connect();
        format!("{signal} to the agent")
    }

    /// Waits until one workload runs, so that not only starts are disturbed.
    fn await_one(&mut self) -> String {
        self.mend_podman();
        let all: Vec<_> = self.wanted.keys().cloned().collect();
        let Some(name) = all.choose(&mut self.random) else { return "nothing runs".to_owned() };
        self.ctl.until_state(name, "Running(Ok)");
        format!("{name} runs")
    }

    /// Waits until what is there is what is desired.
    fn agrees(&mut self) {
        self.mend_podman();
        let names: BTreeSet<_> = self.wanted.keys().map(String::as_str).chain(["ctl"]).collect();
        let ids: BTreeMap<_, _> = self.ctl.until("the states of all", |tree| {
            let all = tree.entries(&["workloadStates", "agent_A"]).iter();
            let all: BTreeSet<_> = all.map(|(name, _)| name.to_string()).collect();
            let id = |name: &&str| {
                let (id, state, _) = state_of(tree, name)?;
                (state == "Running(Ok)").then(|| ((*name).to_owned(), id))
            };
            let ids: Option<BTreeMap<_, _>> = names.iter().map(id).collect();
            ids.filter(|_| all.iter().map(String::as_str).eq(names.iter().copied()))
        });
        let instances = || self.wanted.keys().map(|name| format!("{name}.{}", ids[name]));
        let of = |runtime| self.wanted.iter().filter(move |(_, own)| own.runtime == runtime);
        self.comes(
            "the processes",
            || {
                let all = processes_with(&self.tag).into_iter().filter_map(|pid| {
                    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
                    let mark = line
                        .strip_prefix("sh\0-c\0")?
                        .trim_end_matches('\0')
                        .rsplit('\0')
                        .next()?;
                    Some(mark.to_owned())
                });
                let mut all: Vec<_> = all.collect();
                all.sort();
                all
            },
            sorted(self.wanted.values().map(|own| own.mark.clone())),
        );
        let containers = of("podman").map(|(name, _)| format!("{name}.{}.agent_A", ids[name]));
        let of_pods = of("podman-kube")
            .flat_map(|(name, own)| [format!("{}-c", own.pod(name)), "infra".to_owned()]);
        self.comes(
            "the containers",
            || {
                let name = |own: serde_json::Value| match own["Labels"]["name"].as_str() {
                    _ if own["IsInfra"] == true => "infra".to_owned(),
                    Some(name) => name.to_owned(),
                    None => own["Names"][0].as_str().unwrap_or_default().to_owned(),
                };
                sorted(self.podman.containers().into_iter().map(name))
            },
            sorted(containers.chain(of_pods)),
        );
        self.comes(
            "what is left of cut off creations",
            || {
                let all = "{{.Names}} {{.State}}";
                let all = self.lines(&["ps", "--all", "--external", &format!("--format={all}")]);
                all.into_iter().filter(|own| own.to_lowercase().ends_with(" storage")).collect()
            },
            Vec::new(),
        );
        self.comes(
            "the pods",
            || self.lines(&["pod", "ps", "--format={{.Name}}"]),
            sorted(of("podman-kube").map(|(name, own)| own.pod(name))),
        );
        let volumes = of("podman-kube").flat_map(|(name, _)| {
            ["config", "pods"].map(|kind| format!("{name}.{}.agent_A.{kind}", ids[name]))
        });
        self.comes(
            "the volumes",
            || self.lines(&["volume", "ls", "--format={{.Name}}"]),
            sorted(volumes),
        );
        let is_own = |name: &String| name.starts_with('w') && name.contains('.');
        self.comes(
            "the folders of the agent",
            || {
                let all = names_in(&self.agent.path("run/agent"))
                    .into_iter()
                    .filter(is_own)
                    .collect::<Vec<_>>();
                all.into_iter().filter(|name| !instances().any(|own| own == *name)).collect()
            },
            Vec::new(),
        );
        let with_pair = self.wanted.iter().filter(|(_, own)| own.has_pair);
        let pairs = sorted(with_pair.map(|(name, _)| format!("{name}.{}", ids[name])));
        self.comes(
            "the pairs",
            || sorted(names_in(&self.agent.path("run")).into_iter().filter(is_own)),
            pairs,
        );
    }

    fn lines(&self, command: &[&str]) -> Vec<String> {
        sorted(self.podman.run(command).lines().map(str::to_owned))
    }

    /// Waits until a list is as expected.
    fn comes(&self, what: &str, look: impl Fn() -> Vec<String>, expected: Vec<String>) {
        let end = testkit::soon();
        loop {
            let found = look();
            if found == expected {
                return;
            }
            assert!(std::time::Instant::now() < end, "{what}: {found:?}\nexpected: {expected:?}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

fn sorted(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}

fn names_in(folder: &Path) -> Vec<String> {
    let all = fs::read_dir(folder).unwrap();
    all.map(|own| own.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_runs_after_random_operations_is_what_is_desired_and_nothing_else_is_left() {
    let seed = number("SEED", 1);
    let Some(mut run) = Run::start(seed) else { return };
    println!("SEED={seed}");
    for _ in 0..number("OPERATIONS", 60) {
        println!("{}", run.operate());
    }
    run.agrees();
    for name in run.wanted.keys().cloned().collect::<Vec<_>>() {
        run.remove(&name);
    }
    run.agrees();
    let log = run.agent.log();
    assert!(!log.contains("panicked"), "{log}");
}
