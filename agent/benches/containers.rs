//! What many containers cost their agent: their start, a time in which nothing happens, and their removal.
//! `make bench-containers` runs it. It ends with a failure if a target is missed or something is left.
//!
//! podman has a storage of its own for it. A script in front of it in `PATH` counts the processes that the
//! agent starts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::{
    fs,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use testkit::{Agent, Harness, Podman, Session, container, state_of};

/// At most so many processes of podman in a minute in which nothing happens.
const MOST_PROCESSES: u64 = 4;
/// At most so much processor time of the agent in such a minute, in ticks.
const MOST_TICKS: u64 = 5;
/// Time in which nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// Silence after which nothing happens any more.
const SILENCE: Duration = Duration::from_secs(5);
/// The longest wait for all containers.
const LONGEST: Duration = Duration::from_secs(900);
/// Every second container has a pair.
const READS: &str = ", controlInterfaceAccess: {allowRules: [{type: StateRule, operation: Read, \
                     filterMasks: ['desiredState.configs']}]}";

/// Measures what many containers cost their agent.
#[derive(Debug, Parser)]
struct Options {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 100)]
    containers: usize,
    #[command(flatten)]
    harness: Harness,
}

fn main() -> ExitCode {
    let Options { containers: count, harness } = Options::parse();
    if !harness.measures("make bench-containers") {
        return ExitCode::SUCCESS;
    }
    let Some(podman) = Podman::new() else { return ExitCode::FAILURE };
    match measure(&podman, count) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Measures and prints; gives whether all targets were met.
fn measure(podman: &Podman, count: usize) -> bool {
    let log = podman.path("calls");
    let env = podman.env_before(&format!("echo >> {}", log.display()));
    let calls = || fs::read(&log).unwrap_or_default().len() as u64;
    let names: Vec<_> = (0..count).map(|number| format!("w{number}")).collect();
    let all: String = names.iter().enumerate().map(|(number, name)| one(number, name)).collect();

    let begin = Instant::now();
    let agent = Agent::start_with(env, &all, &[]);
    let mut ctl = agent.connect();
    until(&mut ctl, "all running", |tree| {
        names
            .iter()
            .all(|name| state_of(tree, name).is_some_and(|(_, state, _)| state == "Running(Ok)"))
    });
    println!("{count} containers, every second with a pair; each is ended by SIGKILL");
    row("all are running after", &format!("{:.1} s", begin.elapsed().as_secs_f64()));
    row("processes of podman until then", &calls().to_string());

    silence(calls);
    let before = (calls(), agent.child.ticks(), agent.child.ticks_of_ended_children());
    thread::sleep(IDLE);
    let (processes, ticks) = (calls() - before.0, agent.child.ticks() - before.1);
    println!("{} s in which nothing happens:", IDLE.as_secs());
    let mut is_met = target("  processes of podman", processes, MOST_PROCESSES);
    is_met &= target("  processor time of the agent, in ticks", ticks, MOST_TICKS);
    let of_podman = agent.child.ticks_of_ended_children() - before.2;
    row("  processor time of these processes, in ticks", &of_podman.to_string());

    let masks: Vec<_> = names.iter().map(|name| format!("desiredState.workloads.{name}")).collect();
    let masks: Vec<_> = masks.iter().map(String::as_str).collect();
    let begin = Instant::now();
    ctl.update("workloads: {}", &masks).unwrap();
    until(&mut ctl, "all removed", |tree| names.iter().all(|name| state_of(tree, name).is_none()));
    row("all are removed after", &format!("{:.1} s", begin.elapsed().as_secs_f64()));
    let folders = ["run", "run/agent"].map(|place| folders_of(&agent, place, &names));
    is_met &= target("containers left", podman.containers().len() as u64, 0);
    is_met &= target("folders left", folders.iter().sum(), 0);
    is_met
}

fn one(number: usize, name: &str) -> String {
    let fields = if number.is_multiple_of(2) { READS } else { "" };
    container(name, "exec sleep 100000", r#"["--stop-signal=KILL"]"#, fields)
}

/// How many folders of workloads are in a folder of the agent.
fn folders_of(agent: &Agent, place: &str, workloads: &[String]) -> u64 {
    let all = fs::read_dir(agent.path(place)).unwrap().map(|own| own.unwrap().file_name());
    let is_one = |name: &str| workloads.iter().any(|own| name.starts_with(&format!("{own}.")));
    all.filter(|name| is_one(&name.to_string_lossy())).count() as u64
}

/// Waits longer than the tests do for one container.
fn until(ctl: &mut Session, what: &str, look: impl Fn(&fifogate::state::Tree) -> bool) {
    let end = Instant::now() + LONGEST;
    while !look(&ctl.state()) {
        assert!(Instant::now() < end, "not {what}: {:?}", ctl.state().get(&["workloadStates"]));
        thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until a count has stayed the same for a while.
fn silence(count: impl Fn() -> u64) {
    let mut last = (count(), Instant::now());
    while last.1.elapsed() < SILENCE {
        thread::sleep(Duration::from_millis(100));
        let now = count();
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
}

/// Prints a value with its target; gives whether it is met.
fn target(name: &str, value: u64, most: u64) -> bool {
    let word = if value <= most { "met" } else { "MISSED" };
    row(name, &format!("{value:<8} at most {most}: {word}"));
    value <= most
}

fn row(name: &str, value: &str) {
    println!("{name:<56}{value}");
}
