//! How a link begins and ends, and what is left when it ends badly.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    time::Instant,
};

use fifogate::{
    frame::encode,
    link::{CommandSender, MessageReceiver},
    pb::{
        agent_link::{
            AgentHello, FromAgent, RejectCode, RemoveWorkload, ReplaceState, Shutdown,
            from_agent::Content, to_agent,
        },
        ank_base::{self as pb, ReadWriteEnum, request::RequestContent},
    },
};
use nix::{libc::O_NONBLOCK, sys::signal::Signal};
use prost::Message;

use testkit::{BOTH, LinkAgent, Transport, add, configs, end_of, instance, spawn};
use testkit::{PATIENCE, Session, fifogate};

/// A way to end it: gives the status, and what was said on standard error.
type Way = fn(LinkAgent) -> (Option<i32>, String);

fn hello(version: &str) -> Content {
    let (protocol_version, agent_name) = (version.to_owned(), "agent_A".to_owned());
    Content::Hello(AgentHello { protocol_version, agent_name })
}

#[test]
fn message_before_the_hello_is_rejected_and_a_wrong_version_ends_with_status_1() {
    for transport in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, reader, writer) = spawn(transport, &dir.path().join("run"), &[]);
        let (mut receiver, mut sender) = (MessageReceiver::new(reader), CommandSender::new(writer));
        let Some(to_agent::Content::Hello(greeting)) = receiver.recv().unwrap() else { panic!() };
        assert_eq!(greeting.protocol_version, "1.2.0");
        let early =
            sender.send(Content::AddWorkload(add("w", ReadWriteEnum::RwRead, &["*"]))).unwrap();
        let Some(to_agent::Content::Rejected(rejected)) = receiver.recv().unwrap() else {
            panic!()
        };
        assert_eq!(rejected.id, early);
        assert!(rejected.reason.contains("AgentHello is missing"));
        assert_eq!(rejected.code(), RejectCode::OutOfStep);
        let wrong = sender.send(hello("2.0.0")).unwrap();
        let Some(to_agent::Content::Rejected(rejected)) = receiver.recv().unwrap() else {
            panic!()
        };
        assert_eq!(rejected.id, wrong);
        let reason = "Unsupported protocol version '2.0.0'. Currently supported '1'";
        assert_eq!(rejected.reason, reason);
        assert_eq!(rejected.code(), RejectCode::UnsupportedVersion);
        let (status, said) = end_of(&mut child);
        assert_eq!(status, Some(1));
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn stream_that_cannot_be_trusted_ends_with_status_1_and_says_why() {
    let command = |content| {
        FromAgent { id: 9, content: Some(content), rejections_only: false }.encode_to_vec()
    };
    let frame = encode(&command(Content::Shutdown(Shutdown {})));
    let table: [(&[u8], &[&str], &str); 4] = [
        (&frame[..frame.len() - 1], &[], "it ended in the middle of a message"),
        (
            &[0xe9, 0x07],
            &["--max-link-frame", "1000"],
            "Frame of 1001 bytes exceeds the maximum frame size of 1000 bytes",
        ),
        (&[0xff; 10], &[], "Frame length is not a varint"),
        (&[3, 0xff, 0xff, 0xff], &[], "a message of the agent does not decode"),
    ];
    for transport in BOTH {
        for (bytes, options, reason) in table {
            let dir = tempfile::tempdir().unwrap();
            let (mut child, reader, mut writer) =
                spawn(transport, &dir.path().join("run"), options);
            writer.write_all(bytes).unwrap();
            drop((reader, writer));
            let (status, said) = end_of(&mut child);
            assert_eq!(status, Some(1), "{said}");
            assert!(said.contains(reason), "{said} is not {reason}");
        }
    }
}

/// A socket that is closed with something unread resets the connection, instead of ending it.
#[test]
fn agent_that_goes_and_leaves_something_unread_has_hung_up() {
    for transport in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, mut reader, writer) = spawn(transport, &dir.path().join("run"), &[]);
        // More of the greeting is there.
        reader.read_exact(&mut [0]).unwrap();
        drop((reader, writer));
        let (status, said) = end_of(&mut child);
        assert_eq!(status, Some(0), "{said}");
    }
}

#[test]
fn agent_that_reads_no_more_is_obeyed_until_it_hangs_up() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let (mut child, mut reader, writer) = spawn(Transport::Stdio, &run_dir, &[]);
    let mut sender = CommandSender::new(writer);
    // More than a pipe holds, so that it is cut off in the middle.
    let large = ReplaceState { state: Some(configs(&[("k", &"v".repeat(4 << 20))])) };
    let field_mask = vec!["desiredState.configs".to_owned()];
    let ask = pb::CompleteStateRequest { field_mask, subscribe_for_events: false };
    let ask = pb::Request {
        request_id: "r".to_owned(),
        request_content: Some(RequestContent::CompleteStateRequest(ask)),
    };
    let mut receiver = MessageReceiver::new(&mut reader);
    for content in [hello("1.0.0"), Content::ReplaceState(large)] {
        receiver.recv().unwrap().unwrap();
        sender.send(content).unwrap();
    }
    receiver.recv().unwrap().unwrap();
    sender.send(Content::Request(ask)).unwrap();
    reader.read_exact(&mut [0]).unwrap();
    drop(reader);
    for name in ["one", "two"] {
        sender.send(Content::AddWorkload(add(name, ReadWriteEnum::RwRead, &["*"]))).unwrap();
    }
    // The pair of the last is there, so all before was done.
    let pair = run_dir.join("two.1/control_interface");
    let end = Instant::now() + PATIENCE;
    let mut served = OpenOptions::new();
    served.write(true).custom_flags(O_NONBLOCK);
    while served.open(pair.join("output")).is_err() {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "not obeyed");
        std::thread::yield_now();
    }
    Session::connect(&pair);
    drop(sender);
    assert_eq!(end_of(&mut child), (Some(0), String::new()));
}

#[test]
fn hanging_up_a_shutdown_and_sigterm_end_with_status_0_and_what_was_queued_is_delivered() {
    let ways: [Way; 3] = [
        LinkAgent::hang_up,
        |mut agent| {
            agent.call(Content::Shutdown(Shutdown {})).unwrap();
            end_of(&mut agent.child)
        },
        |mut agent| {
            agent.child.signal(Signal::SIGTERM);
            end_of(&mut agent.child)
        },
    ];
    for transport in BOTH {
        for end in ways {
            let mut agent = LinkAgent::start(transport, &["--subscribe-grace-ms", "0"]);
            let mut workload = agent.workload("w");
            workload.read("s", &["desiredState.configs"], true);
            workload.response();
            agent.link.replace_state(configs(&[("k", "v")])).unwrap();
            assert_eq!(end(agent), (Some(0), String::new()));
            let event = workload.state_response();
            assert!(event.altered_fields.is_some());
        }
    }
}

#[test]
#[allow(clippy::print_stdout)] // a number for the reader; it is not what is tested
fn thousand_workloads_ten_times_leave_no_descriptor_file_or_memory() {
    let mut agent = LinkAgent::start(Transport::Unix, &[]);
    let pid = agent.child.id();
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    let before = descriptors();
    let mut residents = Vec::new();
    for round in 0..10 {
        let names: Vec<_> = (0..1_000).map(|n| format!("w{n}")).collect();
        let began = Instant::now();
        let mut last = 0;
        for name in &names {
            let command = add(name, ReadWriteEnum::RwRead, &["agents"]);
            last = agent.link.send(Content::AddWorkload(command)).unwrap();
        }
        wait_for(&mut agent, last);
        println!("added 1,000 workloads in {:?}", began.elapsed());
        assert!(descriptors() >= before + 2_000);
        for name in &names {
            let command = RemoveWorkload { instance_name: Some(instance(name)) };
            last = agent.link.send(Content::RemoveWorkload(command)).unwrap();
        }
        wait_for(&mut agent, last);
        // The last is closed when its removal was acknowledged: closing may take as long as it likes.
        let end = Instant::now() + PATIENCE;
        while descriptors() > before {
            assert!(Instant::now() < end, "round {round} leaves descriptors");
            std::thread::yield_now();
        }
        assert_eq!(fs::read_dir(&agent.run_dir).unwrap().count(), 1, "status.sock alone");
        residents.push(resident());
    }
    // A leak makes every round dearer. Commands that pile up once, because the machine is slow, do
    // not: the median of the rounds is 128 bytes a workload at most.
    let mut grown: Vec<_> = residents.windows(2).map(|of| of[1].saturating_sub(of[0])).collect();
    grown.sort_unstable();
    assert!(grown[grown.len() / 2] < 125, "KiB after each round: {residents:?}");
}

/// Until the command is done; none before it may have been rejected.
fn wait_for(agent: &mut LinkAgent, id: u64) {
    agent.expect(|message| match message {
        to_agent::Content::Rejected(rejected) => panic!("{rejected:?}"),
        to_agent::Content::Ack(ack) => (ack.id == id).then_some(()),
        _ => None,
    });
}

#[test]
fn killed_fifogate_is_replaced_and_its_workloads_go_on() {
    for transport in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let mut agent = LinkAgent::start_at(transport, &run_dir, &["--subscribe-grace-ms", "0"]);
        agent.link.replace_state(configs(&[("k", "v")])).unwrap();
        let mut workload = agent.workload("w");
        workload.read("s", &["desiredState.configs"], true);
        workload.response();
        agent.child.kill();
        while agent.link.recv().unwrap().is_some() {}
        // As an SDK: end-of-file, and Hello again on the same descriptors.
        workload.end_of_file();

        let mut agent = LinkAgent::start_at(transport, &run_dir, &["--subscribe-grace-ms", "0"]);
        agent.add("w", ReadWriteEnum::RwReadWrite, &["*"]);
        agent.link.replace_state(configs(&[("k", "v")])).unwrap();
        workload.hello();
        workload.read("s", &["desiredState.configs"], true);
        assert_eq!(altered(&mut workload), None, "the state, first");
        agent.link.replace_state(configs(&[("k", "v")])).unwrap();
        agent.link.replace_state(configs(&[("k", "new")])).unwrap();
        let updated_fields = vec!["desiredState.configs.k".to_owned()];
        let expected = pb::AlteredFields { updated_fields, ..Default::default() };
        assert_eq!(altered(&mut workload), Some(expected), "no false event");
        Session::open(&agent.pair("w")).hello();
    }
}

#[test]
fn pairs_that_the_next_agent_does_not_add_in_time_are_removed_and_nothing_else() {
    for transport in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let mut agent = LinkAgent::start_at(transport, &run_dir, &[]);
        let pairs =
            ["again", "gone", "late"].map(|name| agent.add(name, ReadWriteEnum::RwRead, &["*"]));
        agent.child.kill();
        // Neither a folder without FIFOs nor a foreign file in a pair's folder is ours.
        fs::create_dir_all(run_dir.join("other.1/control_interface")).unwrap();
        fs::write(pairs[1].join("note"), "foreign").unwrap();

        let mut agent = LinkAgent::start_at(transport, &run_dir, &["--keep-old-pairs", "0.5"]);
        agent.add("again", ReadWriteEnum::RwRead, &["*"]);
        testkit::wait_for("the end of an old pair", || {
            // In any order.
            let gone = !pairs[2].exists() && !pairs[1].join("input").exists();
            gone.then_some(())
        });
        assert!(!run_dir.join("late.1").exists());
        assert!(pairs[0].join("input").exists());
        assert!(pairs[1].join("note").exists());
        assert!(run_dir.join("other.1/control_interface").exists());
        agent.workload("late").read("r", &["agents"], false);
    }
}

/// The altered fields of the next response.
fn altered(workload: &mut Session) -> Option<pb::AlteredFields> {
    workload.state_response().altered_fields
}

#[test]
fn longest_message_of_an_agent_is_taken_and_one_byte_more_ends_the_process() {
    const LONGEST: usize = 1_000;
    let options = ["--max-link-frame", &LONGEST.to_string()];
    for transport in BOTH {
        for (len, status) in [(LONGEST, 0), (LONGEST + 1, 1)] {
            let dir = tempfile::tempdir().unwrap();
            let run_dir = dir.path().join("run");
            let (mut child, reader, mut writer) = spawn(transport, &run_dir, &options);
            let message = |name: usize| {
                let (protocol_version, agent_name) = ("1.0.0".to_owned(), "a".repeat(name));
                let hello = Content::Hello(AgentHello { protocol_version, agent_name });
                FromAgent { id: 1, content: Some(hello), rejections_only: false }.encode_to_vec()
            };
            let around = message(len).len() - len;
            let message = message(len - around);
            assert_eq!(message.len(), len);
            writer.write_all(&encode(&message)).unwrap();
            let mut receiver = MessageReceiver::new(reader);
            receiver.recv().unwrap().unwrap();
            let answer = receiver.recv().unwrap();
            assert_eq!(matches!(answer, Some(to_agent::Content::Ack(_))), status == 0);
            drop((receiver, writer));
            assert_eq!(end_of(&mut child).0, Some(status));
        }
    }
}

#[test]
fn manifest_is_the_start_of_the_state_and_the_agent_says_what_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manifest.yaml");
    let manifest = "apiVersion: v1\nworkloads:\n  own:\n    runtime: r\n    agent: agent_A\n    \
        runtimeConfig: ''\n    controlInterfaceAccess:\n      allowRules:\n      - type: StateRule\n        \
        operation: Read\n        filterMasks: ['*']\nconfigs:\n  k: v\n";
    fs::write(&file, manifest).unwrap();
    for transport in BOTH {
        let mut agent = LinkAgent::start(transport, &["--manifest", file.to_str().unwrap()]);
        assert!(!agent.pair("own").exists() && fs::read_dir(&agent.run_dir).unwrap().count() == 1);
        let desired = agent.read(&["desiredState"]).desired_state.unwrap();
        assert!(desired.workloads.unwrap().workloads.contains_key("own"));
        let mut workload = agent.workload("w");
        workload.read("r", &["desiredState.configs"], false);
        let read = workload.state_response();
        let expected = configs(&[("k", "v")]).desired_state.unwrap().configs;
        assert_eq!(read.complete_state.unwrap().desired_state.unwrap().configs, expected);
    }
}

#[test]
fn agent_that_is_not_there_is_told_by_the_path_where_it_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let told = std::process::Command::new(fifogate())
        .args(["run", "--agent-link", &format!("unix:{}", socket.display()), "--run-dir"])
        .arg(dir.path().join("run"))
        .output()
        .unwrap();
    assert_eq!(told.status.code(), Some(1));
    let said = String::from_utf8(told.stderr).unwrap();
    assert!(said.contains(socket.to_str().unwrap()), "{said}");
}
