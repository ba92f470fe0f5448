//! Workloads that come: until the pair of the last one can be opened.

use std::{
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use fifogate::{
    link::AgentLink,
    manifest,
    pb::{
        agent_link::{AddWorkload, from_agent::Content, to_agent},
        ank_base as pb,
    },
    state::convert::{Fill, to_pb},
};
use tempfile::TempDir;
use testkit::{fifogate, memory_kib};

use crate::{
    messages,
    report::{Row, Section},
    series::Series,
    world::{World, most_pairs},
};

use super::Settings;

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("Adding workloads, their pairs in memory");
    let (most, each) = most_pairs();
    let count = settings.added.min(most);
    if count < settings.added {
        let wanted = settings.added;
        section.note(format!("{wanted} workloads: descriptors, at {each} a pair, do for {count}"));
    }
    let [mut linked, mut first, mut last, mut manifest] = [(); 4].map(|()| Series::default());
    for _ in 0..settings.runs {
        let (fifogate, Times { all, of_first, of_last }) = Linked::start(count);
        linked.push(all);
        first.push(of_first);
        last.push(of_last);
        fifogate.end();
        let begin = Instant::now();
        let world = World::start(0, count, &[]);
        manifest.push(begin.elapsed().as_secs_f64() * 1_000.0);
        assert_eq!(world.pair_count(), count);
    }
    section.rows.push(Row::new(format!("{count} by an agent, one after the other"), "ms", linked));
    let row = Row::new("of these, each of the last tenth", "us", last);
    section.rows.push(row.against("of the first tenth", first).at_most_times(1.3));
    section.rows.push(Row::new(format!("{count} by a manifest, from the start"), "ms", manifest));
    section
}

/// How long it took until workloads were acknowledged.
pub(super) struct Times {
    /// All of them, in milliseconds.
    all: f64,
    /// Each of the first tenth, in microseconds.
    of_first: f64,
    /// Each of the last tenth.
    of_last: f64,
}

/// A fifogate whose agent we are.
pub(super) struct Linked {
    link: AgentLink<ChildStdout, ChildStdin>,
    child: Child,
    _dir: TempDir,
}

impl Linked {
    /// With this many workloads; also how long it took.
    pub(super) fn start(count: usize) -> (Self, Times) {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(fifogate());
        let run_dir = dir.path().join("run");
        command.args(["-q", "run", "--run-dir"]).arg(run_dir).stderr(Stdio::inherit());
        let (mut link, child) = AgentLink::spawn(&mut command, "agent_a").unwrap();
        let begin = Instant::now();
        let (mut sent, mut acknowledged) = (0, 0);
        let tenth = count.div_ceil(10);
        let mut ends = Vec::new();
        while acknowledged < count {
            // Some are on their way at any time, and never so many that both sides wait to write.
            while sent < count && sent - acknowledged < 64 {
                link.send(Content::AddWorkload(workload(sent))).unwrap();
                sent += 1;
            }
            match link.recv().unwrap().expect("fifogate hung up") {
                to_agent::Content::Ack(_) => {
                    acknowledged += 1;
                    if acknowledged == tenth || acknowledged == count - tenth {
                        ends.push(begin.elapsed());
                    }
                }
                to_agent::Content::Rejected(why) => panic!("{why:?}"),
                _ => {}
            }
        }
        let all = begin.elapsed();
        let each = |time: Duration| time.as_secs_f64() * 1_000_000.0 / tenth as f64;
        let times = Times {
            all: all.as_secs_f64() * 1_000.0,
            of_first: each(ends[0]),
            of_last: each(all - *ends.last().unwrap()),
        };
        (Self { link, child, _dir: dir }, times)
    }

    /// Sends a state with these workloads.
    pub(super) fn send_state(&mut self, count: usize) {
        let text = messages::manifest(0, count);
        let tree = manifest::parse("manifest", &text).unwrap().updated.tree;
        self.link.replace_state(to_pb(&tree, Fill::Full)).unwrap();
    }

    pub(super) fn memory_kib(&self) -> f64 {
        memory_kib(self.child.id(), "VmRSS:") as f64
    }

    pub(super) fn end(self) {
        let Self { link, mut child, _dir } = self;
        drop(link);
        assert!(child.wait().unwrap().success());
    }
}

fn workload(index: usize) -> AddWorkload {
    use pb::access_rights_rule::AccessRightsRuleEnum;
    let instance = pb::WorkloadInstanceName {
        workload_name: format!("p{index}"),
        agent_name: "agent_a".to_owned(),
        id: "1".to_owned(),
    };
    let operation = pb::ReadWriteEnum::RwRead.into();
    let rule = pb::StateRule { operation, filter_masks: vec!["desiredState.configs".to_owned()] };
    let rule = AccessRightsRuleEnum::StateRule(rule);
    let rules = vec![pb::AccessRightsRule { access_rights_rule_enum: Some(rule) }];
    let access = pb::ControlInterfaceAccess { allow_rules: rules, deny_rules: Vec::new() };
    AddWorkload { instance_name: Some(instance), access: Some(access), uid: None, gid: None }
}
