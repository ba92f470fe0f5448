//! A trial: a fifogate of its own, hostile workloads that play genomes, and a well-behaved one that
//! measures how long it waits.

use std::{
    thread,
    time::{Duration, Instant},
};

use fifogate::pb::ank_base::response::ResponseContent;
use nix::sys::signal::Signal;

use super::{
    attacker::Attacker,
    frames::{Part, Script, state_parts, update_of_part},
    genome::Genome,
};
use testkit::{PATIENCE, Session, TestServer};

/// How long an attacker acts.
const TIME: Duration = Duration::from_millis(300);
/// The end of a trial whose attackers are not done: some are not read any more.
const LONGEST: Duration = Duration::from_millis(1_500);
/// Round trips before anything is measured: the first use of everything takes longer.
const WARM_UP: usize = 20;
/// Round trips beside attackers that have done all that they do.
const AFTERWARDS: usize = 4;
/// Of shorter messages it is not asked how much memory they take for their length.
const A_LONG_MESSAGE: usize = 1 << 20;

/// The result of a trial.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The longest that the well-behaved workload waited for an answer.
    pub(crate) wait: Duration,
    pub(crate) median: Duration,
    /// Growth of the peak of resident memory.
    pub(crate) growth_kib: usize,
    /// Whether fifogate came to its end.
    pub(crate) ended: bool,
    pub(crate) sent: usize,
    pub(crate) answers: usize,
    pub(crate) errors: usize,
    pub(crate) first_error: Option<String>,
}

/// All of these at once against one fifogate; `patience` is for one answer.
pub(crate) fn trial(genomes: &[Genome], patience: Duration) -> Outcome {
    let scripts: Vec<_> = genomes.iter().map(Script::of).collect();
    let (mut gate, mut good) = start(genomes);
    let mut trips = Vec::new();
    for _ in 0..WARM_UP {
        round_trip(&mut good, 0, PATIENCE).expect("not served before any attack");
    }
    let before = gate.process.memory_kib("VmRSS");
    let attackers: Vec<_> = genomes
        .iter()
        .zip(scripts)
        .enumerate()
        .map(|(n, (genome, script))| {
            Attacker::start(genome, script, &gate.pair(&format!("bad{n}")), TIME)
        })
        .collect();
    let (began, mut left) = (Instant::now(), AFTERWARDS);
    while left > 0 {
        let is_over = began.elapsed() > LONGEST || attackers.iter().all(Attacker::is_idle);
        left -= usize::from(is_over);
        let Some(time) = round_trip(&mut good, trips.len(), patience) else {
            trips.push(patience);
            break;
        };
        trips.push(time);
    }
    let ended = gate.process.try_wait().unwrap().is_some();
    let peak = if ended { before } else { gate.process.memory_kib("VmHWM") };
    let growth_kib = peak.saturating_sub(before);
    drop(gate);
    let done: Vec<_> = attackers.into_iter().map(Attacker::end).collect();
    trips.sort_unstable();
    Outcome {
        wait: *trips.last().unwrap(),
        median: trips[trips.len() / 2],
        growth_kib,
        ended,
        sent: done.iter().map(|own| own.sent).sum(),
        answers: done.iter().map(|own| own.answers).sum(),
        errors: done.iter().map(|own| own.errors).sum(),
        first_error: done.into_iter().find_map(|own| own.first_error),
    }
}

/// The memory that the longest message of a genome takes until it is answered, in lengths of it.
pub(crate) fn memory(genome: &Genome, patience: Duration) -> f64 {
    let script = Script::of(genome);
    let Some(piece) = script.rounds[0].iter().max_by_key(|piece| piece.bytes.len()) else {
        return 0.0;
    };
    let (mut gate, mut good) = start(std::slice::from_ref(genome));
    let mut bad = gate.open("bad0");
    bad.hello();
    round_trip(&mut good, 0, PATIENCE).expect("not served before any attack");
    let before = gate.process.memory_kib("VmRSS");
    bad.write(&piece.bytes);
    if piece.answered {
        bad.receive_within(patience);
    }
    round_trip(&mut good, 0, patience);
    let ended = gate.process.try_wait().unwrap().is_some();
    let peak = if ended { before } else { gate.process.memory_kib("VmHWM") };
    let bytes = peak.saturating_sub(before) << 10;
    bytes as f64 / piece.bytes.len().max(A_LONG_MESSAGE) as f64
}

/// A fifogate in the state that the largest of these wants, and a session of the well-behaved one.
fn start(genomes: &[Genome]) -> (TestServer, Session) {
    let gate = TestServer::with(&manifest(genomes), &[]);
    let good = gate.connect("good");
    if let Some(genome) = genomes.iter().max_by_key(|genome| genome.number("state.size")) {
        let mut keeper = gate.connect("keeper");
        let mut parts = state_parts(genome);
        while let Some(mut part) = parts.pop() {
            if !brings(&mut keeper, genome, &part) && part.len() > 1 {
                let rest = part.split_off(part.len() / 2);
                parts.extend([part, rest]);
            }
        }
    }
    (gate, good)
}

/// Whether a part of the state was accepted. One that is no state is not, whatever its size.
fn brings(keeper: &mut Session, genome: &Genome, part: &Part) -> bool {
    keeper.write(&update_of_part(genome, part).bytes);
    matches!(keeper.response(), (_, ResponseContent::UpdateStateSuccess(_)))
}

/// By turns a small read and a small update of the workload's own.
fn round_trip(good: &mut Session, number: usize, patience: Duration) -> Option<Duration> {
    let began = Instant::now();
    match number % 2 {
        0 => good.read("g", &["desiredState.configs.good"], false),
        _ => good.set_config("g", "good", &format!("small {number}")),
    }
    good.receive_within(patience).map(|_| began.elapsed())
}

/// `good` and `keeper` may do everything; each attacker has the rights that its genome names.
fn manifest(genomes: &[Genome]) -> String {
    let mut text = "apiVersion: v1\nconfigs: { good: small }\nworkloads:\n".to_owned();
    let mut add = |name: &str, rules: &str| {
        text += &format!("  {name}:\n    runtime: r\n    agent: a\n    runtimeConfig: {name}\n");
        text += &format!("    controlInterfaceAccess:\n{rules}");
    };
    add("good", &("      allowRules:\n".to_owned() + &rule("ReadWrite", "*")));
    add("keeper", &("      allowRules:\n".to_owned() + &rule("ReadWrite", "*")));
    for (n, genome) in genomes.iter().enumerate() {
        add(&format!("bad{n}"), &rules(genome.choice("rights"), genomes.len()));
    }
    text
}

fn rule(operation: &str, mask: &str) -> String {
    format!("        - {{ type: StateRule, operation: {operation}, filterMasks: [\"{mask}\"] }}\n")
}

fn rules(rights: &str, attackers: usize) -> String {
    let mut rules = "      allowRules:\n".to_owned();
    rules += &match rights {
        // Without any rule there would be no pair.
        "blind" => rule("Read", "desiredState.configs.nothing"),
        _ => rule("Read", "*") + "        - { type: LogRule, workloadNames: [\"*\"] }\n",
    };
    if ["configs", "workloads"].contains(&rights) {
        rules += &rule("ReadWrite", "desiredState.configs");
    }
    if rights == "workloads" {
        rules += &rule("ReadWrite", "desiredState.workloads");
        // To remove others is not what is measured here.
        rules += "      denyRules:\n";
        let bad = (0..attackers).map(|n| format!("bad{n}"));
        for name in ["good", "keeper"].map(str::to_owned).into_iter().chain(bad) {
            rules += &rule("Write", &format!("desiredState.workloads.{name}"));
        }
    }
    rules
}

/// For a reader: what there is of it beside the wait.
pub(crate) fn details(outcome: &Outcome) -> String {
    let Outcome { median, growth_kib, sent, answers, errors, .. } = outcome;
    let ended = if outcome.ended { "; FIFOGATE ENDED" } else { "" };
    format!(
        "median {median:.1?}, memory +{growth_kib} KiB, {sent} frames, {answers} messages back, \
         {errors} of them errors{ended}"
    )
}

/// How long an answer takes of a fifogate whose process is stopped for this time.
pub(crate) fn wait_of_a_stopped_gate(time: Duration) -> Duration {
    let (gate, mut good) = start(&[]);
    round_trip(&mut good, 0, PATIENCE).unwrap();
    gate.process.signal(Signal::SIGSTOP);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(time);
            gate.process.signal(Signal::SIGCONT);
        });
        round_trip(&mut good, 0, PATIENCE).unwrap()
    })
}
