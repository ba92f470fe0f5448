//! A server that fails in any way: the agent and the server agree at the end, and workloads notice nothing else.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use fifogate::{
    pb::ank_base::{
        self as pb, execution_state::ExecutionStateEnum as State, request::RequestContent,
        response::ResponseContent,
    },
    state::{Tree, convert},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use testkit::{Agent, Session, configs, number, processes_with, wait_for, workload};

use super::{
    joined::{US, state},
    server::{Ankaios, BreakBy, with_workloads, workload as bare, workload_state},
};

const CTL: &str = ", controlInterfaceAccess: {allowRules: [\
                   {type: StateRule, operation: ReadWrite, filterMasks: ['*']}, \
                   {type: LogRule, workloadNames: ['*']}]}";

fn ctl() -> String {
    workload("ctl", "exec sleep 1000", CTL)
}

fn join(server: &Ankaios) -> (Agent, Session) {
    let agent = Agent::join(&server.url(), &["--insecure", "--", "--subscribe-grace-ms", "0"]);
    server.wait_for_state("ctl", "Running(Ok)");
    let session = agent.connect_as("ctl");
    (agent, session)
}

/// A process of its own for each number.
fn sleeper(seconds: u32) -> pb::Workload {
    bare(US, "process", &format!("command: sleep\nargs: ['{seconds}']"))
}

/// The state without what changes all the time.
fn calm(tree: &Tree) -> Tree {
    let mut agents = tree.entries(&["agents"]).clone();
    let names: Vec<_> = agents.keys().map(ToString::to_string).collect();
    for name in names {
        let mut own = agents.get(&name).unwrap().entries().clone();
        own.remove("status");
        agents.insert(name.as_str(), fifogate::state::Node::Map(own));
    }
    tree.with("agents", Some(fifogate::state::Node::Map(agents)))
}

/// Waits until the workload reads what the server has.
fn until_same(server: &Ankaios, session: &mut Session) {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let all = server.read(&[]);
        let (theirs, ours) = (calm(&convert::from_pb(&all).unwrap()), calm(&session.state()));
        if theirs == ours {
            return;
        }
        assert!(Instant::now() < end, "server: {theirs:#?}\nagent: {ours:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn stream_that_breaks_at_any_message_loses_nothing() {
    let server = Ankaios::start_with(&state(&ctl()));
    let (_agent, mut session) = join(&server);
    let hows = [BreakBy::Reset, BreakBy::End, BreakBy::Unavailable];
    for message in 0..12 {
        let how = hows[message % 3];
        server.break_next_stream(message, how);
        // The next stream is the one that breaks.
        server.reset_connections();
        let key = format!("k{message}");
        let name = format!("w{message}");
        server.update(configs(&[(&key, "1")]), &[&format!("desiredState.configs.{key}")]).unwrap();
        server.apply(&name, sleeper(20_000 + u32::try_from(message).unwrap()));
        server.wait_for_state(&name, "Running(Ok)");
        if message > 0 {
            let gone = format!("w{}", message - 1);
            server.delete(&gone);
            server.wait_for_removal(&gone);
        }
        until_same(&server, &mut session);
    }
    assert_eq!(server.subscriptions().len(), 1, "{:?}", server.subscriptions());
    // The process that was there all the time.
    assert!(server.states_of("ctl").iter().all(|(_, own)| own == "Running(Ok)"));
}

#[test]
fn workloads_run_on_while_the_server_is_stopped_and_end_if_it_comes_back_with_nothing() {
    let all = ctl() + &workload("one", "exec sleep 20101", "");
    let server = Ankaios::start_with(&state(&all));
    let (agent, mut session) = join(&server);
    server.wait_for_state("one", "Running(Ok)");
    let processes = processes_with("sleep\u{0}20101");
    assert_eq!(processes.len(), 1);
    server.stop();
    wait_for("trouble", || (!agent.trouble().is_empty()).then_some(()));
    // One that ends meanwhile is told of later, and not started again.
    let before = session.state();
    server.start_again(&state(&all));
    server.wait_for_state("one", "Running(Ok)");
    assert_eq!(processes_with("sleep\u{0}20101"), processes);
    until_same(&server, &mut session);
    assert_eq!(calm(&before), calm(&session.state()));
    server.stop();
    server.start_again(&pb::CompleteState::default());
    wait_for("the end of all", || processes_with("sleep\u{0}20101").is_empty().then_some(()));
    server.wait_for_agent(US);
    server.wait_for_removal("one");
    wait_for("the end of pairs", || agent.pairs_of("ctl").is_empty().then_some(()));
}

#[test]
fn process_that_ends_while_the_server_is_away_is_told_of_and_not_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let (runs, pipe) = (folder.path().join("runs"), folder.path().join("pipe"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("echo x >> {}; read line < {}; exit 4", runs.display(), pipe.display());
    let server = Ankaios::start_with(&state(&(ctl() + &workload("one", &script, ""))));
    let (agent, mut session) = join(&server);
    server.wait_for_state("one", "Running(Ok)");
    server.disconnect();
    wait_for("trouble", || (!agent.trouble().is_empty()).then_some(()));
    std::fs::write(&pipe, "end\n").unwrap();
    session.until("its end", |tree| {
        let (_, state, _) = testkit::state_of(tree, "one")?;
        (state == "Failed(ExecFailed)").then_some(())
    });
    server.connect();
    server.wait_for_state("one", "Failed(ExecFailed) exit status 4");
    until_same(&server, &mut session);
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), "x\n");
}

#[test]
fn more_than_four_mebibytes_of_workloads_are_received() {
    let large = |n: u32| {
        let mut own = sleeper(20_200 + n);
        own.tags = Some(pb::Tags { tags: [("t".to_owned(), "x".repeat(900_000))].into() });
        own
    };
    let names: Vec<_> = (0..6).map(|n| format!("w{n}")).collect();
    let mut all = with_workloads(names.iter().map(String::as_str).zip((0..6).map(large)));
    let own = state(&ctl()).desired_state.unwrap().workloads.unwrap().workloads;
    all.desired_state.as_mut().unwrap().workloads.as_mut().unwrap().workloads.extend(own);
    let server = Ankaios::start_with(&all);
    let (_agent, _session) = join(&server);
    for name in &names {
        server.wait_for_state(name, "Running(Ok)");
    }
}

#[test]
fn agents_of_one_name_throw_each_other_out_and_say_so() {
    let server = Ankaios::start_with(&state(&ctl()));
    let (agent, mut session) = join(&server);
    let other = server.agent(US);
    other.until_hello();
    wait_for("word of it", || agent.log().contains("it has ended the connection").then_some(()));
    server.wait_for_state("ctl", "Running(Ok)");
    until_same(&server, &mut session);
}

#[test]
fn tags_are_known_although_the_server_tells_no_event_about_them() {
    let server = Ankaios::start_with(&state(&ctl()));
    let (_agent, mut session) = join(&server);
    let tagged = |text: &str| {
        let tags = pb::Tags { tags: [("t".to_owned(), text.to_owned())].into() };
        let own = pb::AgentAttributes { tags: Some(tags), status: None };
        let agents = pb::AgentMap { agents: [(US.to_owned(), own)].into() };
        pb::CompleteState { agents: Some(agents), ..Default::default() }
    };
    let masks = vec![format!("agents.{US}.tags")];
    let update = |text: &str| pb::UpdateStateRequest {
        new_state: Some(tagged(text)),
        update_mask: masks.clone(),
    };
    session.read("tags", &[&masks[0]], true);
    session.state_response();
    let tag = |event: pb::CompleteStateResponse| {
        let agents = event.complete_state.unwrap().agents.unwrap().agents;
        agents[US].tags.as_ref().unwrap().tags["t"].clone()
    };
    // By a workload of this agent, at once.
    let begun = Instant::now();
    let id = session.ask(RequestContent::UpdateStateRequest(update("mine")));
    assert_eq!(tag(session.state_response()), "mine");
    assert!(matches!(session.answer(&id), ResponseContent::UpdateStateSuccess(_)));
    assert!(begun.elapsed() < Duration::from_secs(15));
    // By an operator, some time later.
    server.update(tagged("theirs"), &[&masks[0]]).unwrap();
    let (_, content) = session.response_within(Duration::from_secs(60)).expect("an event");
    let ResponseContent::CompleteStateResponse(event) = content else { panic!() };
    assert_eq!(tag(event), "theirs");
}

#[test]
fn operator_of_this_agent_changes_the_state_of_the_server() {
    let server = Ankaios::start_with(&state(&ctl()));
    let (agent, _session) = join(&server);
    let file = agent.path("more.yaml");
    let text = format!("apiVersion: v1\nworkloads:\n{}", workload("one", "exec sleep 20301", ""));
    std::fs::write(&file, text).unwrap();
    let socket = format!("unix:{}", agent.path("run/command.sock").display());
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(testkit::fifogate_agent());
        let output = command.args(args).args(["--connect", &socket]).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        said
    };
    run(&["apply", file.to_str().unwrap()]);
    assert_eq!(server.states_of("one")[0].1, "Running(Ok)");
    assert!(run(&["get", "workloads"]).contains("one"));
    run(&["delete", "workload", "one"]);
    assert!(server.states_of("one").is_empty());
}

/// Follows a subscription, and applies each event to what it has seen.
struct Mirror {
    id: String,
    masks: Vec<String>,
    seen: Tree,
    events: usize,
}

impl Mirror {
    fn new(session: &mut Session, masks: &[&str]) -> Self {
        let id = format!("mirror {masks:?}");
        session.read(&id, masks, true);
        let ResponseContent::CompleteStateResponse(first) = session.answer(&id) else { panic!() };
        let seen = convert::from_pb(&first.complete_state.unwrap_or_default()).unwrap();
        let masks = masks.iter().map(|&own| own.to_owned()).collect();
        Self { id, masks, seen, events: 0 }
    }

    /// Each altered path has to differ from what was seen before: a change that did not happen is none.
    fn apply(&mut self, event: &pb::CompleteStateResponse) {
        let altered = event.altered_fields.as_ref().expect("an event");
        let new = convert::from_pb(&event.complete_state.clone().unwrap_or_default()).unwrap();
        self.events += 1;
        let split = |path: &String| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        for path in &altered.removed_fields {
            let names = split(path);
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            assert!(self.seen.get(&names).is_some(), "{path} was not there");
            self.seen = with(&self.seen, &names, None);
        }
        for (paths, is_new) in [(&altered.added_fields, true), (&altered.updated_fields, false)] {
            for path in paths {
                let names = split(path);
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                let (old, value) = (self.seen.get(&names), new.get(&names));
                assert!(value.is_some(), "{path} has no value: {event:?}");
                assert_eq!(old.is_none(), is_new, "{path}: {event:?}");
                assert_ne!(old, value, "{path} has not changed");
                self.seen = with(&self.seen, &names, value.cloned());
            }
        }
    }
}

/// `tree` with another value at a path; parents that become empty are gone.
fn with(tree: &Tree, path: &[&str], value: Option<fifogate::state::Node>) -> Tree {
    use fifogate::state::{Map, Node};
    fn at(map: &Map<Node>, path: &[&str], value: Option<Node>) -> Map<Node> {
        let mut map = map.clone();
        match (path, value) {
            ([last], Some(value)) => map.insert(*last, value),
            ([last], None) => drop(map.remove(last)),
            ([first, rest @ ..], value) => {
                let below = map.get(first).map(Node::entries).cloned().unwrap_or_default();
                let below = at(&below, rest, value);
                if below.is_empty() {
                    map.remove(first);
                } else {
                    map.insert(*first, Node::Map(below));
                }
            }
            ([], _) => {}
        }
        map
    }
    Tree::from_root(at(tree.root(), path, value))
}

#[test]
fn after_any_sequence_of_changes_and_failures_events_have_told_the_state_of_the_server() {
    for seed in number("SEED", 1)..number("SEED", 1) + number("SEEDS", 3) {
        eprintln!("seed {seed}");
        Sequence::run(seed);
    }
}

/// Random changes by an operator, another agent and a workload, and failures between them.
struct Sequence {
    random: StdRng,
    server: Ankaios,
    session: Session,
    mirrors: Vec<Mirror>,
    away: bool,
    far: BTreeSet<u32>,
}

const MASKS: [&[&str]; 4] = [
    &["desiredState"],
    &["workloadStates"],
    &["desiredState.configs.*", "agents.*.tags"],
    &["workloadStates.agent_A", "desiredState.workloads.*.agent"],
];

impl Sequence {
    fn run(seed: u64) {
        let server = Ankaios::start_with(&state(&ctl()));
        let (_agent, mut session) = join(&server);
        until_same(&server, &mut session);
        let mirrors = MASKS.iter().map(|masks| Mirror::new(&mut session, masks)).collect();
        let random = StdRng::seed_from_u64(seed);
        let far = BTreeSet::new();
        let mut own = Self { random, server, session, mirrors, away: false, far };
        for _ in 0..60 {
            own.step();
        }
        own.check();
    }

    fn step(&mut self) {
        let n = self.random.random_range(0..4_u32);
        match self.random.random_range(0..100) {
            0..30 => {
                let key = format!("c{n}");
                let mask = format!("desiredState.configs.{key}");
                let value = self.random.random_range(0..3_u32).to_string();
                let new = if value == "0" {
                    pb::CompleteState::default()
                } else {
                    configs(&[(&key, &value)])
                };
                self.server.update(new, &[&mask]).unwrap();
            }
            30..45 => {
                let seconds = 21_000 + self.random.random_range(0..2_u32);
                self.server.apply(&format!("w{n}"), sleeper(seconds));
            }
            45..55 => self.server.delete(&format!("w{n}")),
            55..75 => {
                let name = format!("far{n}");
                let agent = if n % 2 == 0 { "agent_B" } else { "agent_C" };
                if self.far.insert(n) {
                    self.server.apply(&name, bare(agent, "podman", "image: x"));
                }
                let Some((instance, _)) = self.server.states_of(&name).pop() else { return };
                let states = [State::Running(0), State::Pending(2), State::Failed(0)];
                let own = *states.choose(&mut self.random).unwrap();
                let other = self.server.agent(agent);
                other.report(vec![workload_state(&instance, own, "x")]);
                if self.random.random() {
                    other.leave();
                }
            }
            75..85 => {
                // A workload's own update is part of its next read, once it is acknowledged.
                let (key, value) = (format!("own{n}"), self.random.random_range(1..1000_u32));
                let text = format!("configs: {{{key}: '{value}'}}");
                let done = self.update(&text, &format!("desiredState.configs.{key}"));
                if done {
                    let path = ["desiredState", "configs", &key];
                    let read = self.read();
                    let read = read.get(&path).and_then(|own| own.as_str().map(str::to_owned));
                    assert_eq!(read, Some(value.to_string()));
                }
            }
            85..93 => self.server.reset_connections(),
            93..97 if self.away => {
                self.server.connect();
                self.away = false;
            }
            _ if !self.away => {
                self.server.disconnect();
                self.away = true;
            }
            _ => {}
        }
    }

    /// The response to a request of this id; events that come before it are applied.
    fn answer(&mut self, id: &str) -> ResponseContent {
        loop {
            let (from, content) = self.session.response();
            if from == id {
                return content;
            }
            let mirror = self.mirrors.iter_mut().find(|own| own.id == from).unwrap();
            let ResponseContent::CompleteStateResponse(event) = content else { panic!() };
            mirror.apply(&event);
        }
    }

    fn update(&mut self, text: &str, mask: &str) -> bool {
        let id = self.session.ask(testkit::update(text, &[mask]));
        match self.answer(&id) {
            ResponseContent::UpdateStateSuccess(_) => true,
            ResponseContent::Error(error) => {
                let told = error.message;
                assert!(told.contains("server"), "{told}");
                false
            }
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self) -> Tree {
        self.session.read("read", &[], false);
        let ResponseContent::CompleteStateResponse(read) = self.answer("read") else { panic!() };
        convert::from_pb(&read.complete_state.unwrap_or_default()).unwrap()
    }

    /// All is well again: the workload reads what the server has, and its events have told the same.
    fn check(&mut self) {
        self.server.connect();
        let end = Instant::now() + Duration::from_secs(40);
        loop {
            let all = self.server.read(&[]);
            let (theirs, ours) = (calm(&convert::from_pb(&all).unwrap()), calm(&self.read()));
            if theirs == ours {
                break;
            }
            assert!(Instant::now() < end, "server: {theirs:#?}\nagent: {ours:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        for at in 0..self.mirrors.len() {
            let masks: Vec<_> = self.mirrors[at].masks.clone();
            let masks: Vec<_> = masks.iter().map(String::as_str).collect();
            // Events that are under way come before the answer.
            self.session.read("now", &masks, false);
            let ResponseContent::CompleteStateResponse(now) = self.answer("now") else { panic!() };
            let now = convert::from_pb(&now.complete_state.unwrap_or_default()).unwrap();
            let mirror = &self.mirrors[at];
            assert_eq!(mirror.seen, now, "{masks:?} after {} events", mirror.events);
        }
    }
}
