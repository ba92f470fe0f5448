//! Workloads that come, change and go by the agent's command.

use std::{fs, os::unix::fs::MetadataExt};

use fifogate::pb::{
    agent_link::{AddWorkload, Phase, RejectCode, RemoveWorkload, from_agent::Content, to_agent},
    ank_base::ReadWriteEnum,
};

use testkit::Session;
use testkit::{BOTH, LinkAgent, Transport, add, configs, instance, is_root_or_skip};

#[test]
fn workload_is_announced_served_and_removed_with_its_pair() {
    for transport in BOTH {
        let mut agent = LinkAgent::start(transport, &[]);
        let pair = agent.add("w", ReadWriteEnum::RwRead, &["agents"]);
        let dir = agent.expect(|message| match message {
            to_agent::Content::WorkloadReady(ready) => Some(ready.control_interface_dir),
            _ => None,
        });
        assert_eq!(dir, pair.to_str().unwrap());
        let mut workload = Session::connect(&pair);
        let phase = |message| match message {
            to_agent::Content::Session(change) => Some((change.phase(), change.reason)),
            _ => None,
        };
        assert_eq!(agent.expect(phase), (Phase::Connected, String::new()));
        workload.write(&[0xff; 10]);
        let (phase, reason) = agent.expect(phase);
        assert_eq!(phase, Phase::Closed);
        assert_eq!(workload.closed(), reason);
        agent.remove("w").unwrap();
        let removed = agent.expect(|message| match message {
            to_agent::Content::WorkloadRemoved(removed) => removed.instance_name,
            _ => None,
        });
        assert_eq!(removed, instance("w"));
        assert!(!pair.parent().unwrap().exists());
        workload.end_of_file();
        assert_eq!(agent.hang_up().0, Some(0));
    }
}

#[test]
fn rules_count_at_once_when_they_are_narrowed_and_widened() {
    for transport in BOTH {
        let mut agent = LinkAgent::start(transport, &["--subscribe-grace-ms", "0"]);
        let (x, y) = ("desiredState.configs.x", "desiredState.configs.y");
        let pair = agent.add("w", ReadWriteEnum::RwRead, &[x, y]);
        let mut workload = Session::connect(&pair);
        workload.read("x", &[x], true);
        workload.read("y", &[y], true);
        assert_eq!((workload.response().0, workload.response().0), ("x".into(), "y".into()));
        agent.add("w", ReadWriteEnum::RwRead, &[y]);
        assert_eq!(workload.error(), ("x".into(), "Access denied".into()));
        agent.link.replace_state(configs(&[("x", "1"), ("y", "1")])).unwrap();
        assert_eq!(workload.response().0, "y", "and nothing of x");
        workload.read("z", &["agents"], false);
        assert_eq!(workload.error(), ("z".into(), "Access denied".into()));
        agent.add("w", ReadWriteEnum::RwRead, &[y, "agents"]);
        workload.read("z", &["agents"], false);
        workload.state_response();
    }
}

#[test]
fn another_id_is_another_instance_and_the_same_folder_is_refused() {
    let mut agent = LinkAgent::start(Transport::Stdio, &[]);
    agent.add("w", ReadWriteEnum::RwRead, &["*"]);
    let mut second = add("w", ReadWriteEnum::RwRead, &["*"]);
    second.instance_name.as_mut().unwrap().id = "2".into();
    agent.call(Content::AddWorkload(second)).unwrap();
    assert!(agent.run_dir.join("w.1").exists() && agent.run_dir.join("w.2").exists());
    let mut same = add("w", ReadWriteEnum::RwRead, &["*"]);
    same.instance_name.as_mut().unwrap().agent_name = "agent_B".into();
    let rejected = agent.call(Content::AddWorkload(same)).unwrap_err();
    assert!(rejected.reason.contains("w.1.agent_A has this workload name and id already"));
    assert_eq!(rejected.code, RejectCode::InstanceConflict);
}

#[test]
fn fifos_belong_to_whom_the_agent_says() {
    if !is_root_or_skip() {
        return;
    }
    let mut agent = LinkAgent::start(Transport::Stdio, &[]);
    let owned = AddWorkload {
        uid: Some(65_534),
        gid: Some(65_533),
        ..add("w", ReadWriteEnum::RwRead, &["*"])
    };
    agent.call(Content::AddWorkload(owned)).unwrap();
    for name in ["input", "output"] {
        let fifo = fs::metadata(agent.pair("w").join(name)).unwrap();
        assert_eq!((fifo.uid(), fifo.gid(), fifo.mode() & 0o777), (65_534, 65_533, 0o600));
    }
}

#[test]
fn pair_that_cannot_be_made_is_rejected_in_its_turn_and_later_commands_wait_for_it() {
    let mut agent = LinkAgent::start(Transport::Stdio, &[]);
    let taken = agent.run_dir.join("bad.1");
    fs::write(&taken, "").unwrap();
    let bad =
        agent.link.send(Content::AddWorkload(add("bad", ReadWriteEnum::RwRead, &["*"]))).unwrap();
    let good =
        agent.link.send(Content::AddWorkload(add("good", ReadWriteEnum::RwRead, &["*"]))).unwrap();
    let remove = RemoveWorkload { instance_name: Some(instance("good")) };
    let gone = agent.link.send(Content::RemoveWorkload(remove)).unwrap();
    let answer = |message| match message {
        to_agent::Content::Ack(ack) => Some((ack.id, true)),
        to_agent::Content::Rejected(rejected) => {
            assert_eq!(rejected.code(), RejectCode::PairFailed);
            Some((rejected.id, false))
        }
        _ => None,
    };
    let answers = [agent.expect(answer), agent.expect(answer), agent.expect(answer)];
    assert_eq!(answers, [(bad, false), (good, true), (gone, true)]);
    fs::remove_file(taken).unwrap();
    agent.workload("bad");
}
