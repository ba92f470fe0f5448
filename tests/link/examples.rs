//! The examples, run as a reader would run them.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use testkit::fifogate;

/// Reads what the agent says up to where it waits for an update, is the workload that sends one, and
/// reads on to the end.
fn run(mut agent: Child, run_dir: &Path) {
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    for line in lines.by_ref() {
        said.push(line);
        if said.last().unwrap() == "workloads added" {
            break;
        }
    }
    let pair = run_dir.join("writer.1/control_interface");
    let set = Command::new(fifogate())
        .args(["set", "-d"])
        .args([pair.as_os_str(), "desiredState.configs.speed=60".as_ref()])
        .output()
        .unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    said.extend(lines);
    assert!(agent.wait().unwrap().success(), "{said:#?}");
    let updates = said.iter().filter(|line| line.starts_with("writer updates ["));
    assert_eq!(updates.count(), 1, "{said:#?}");
    assert!(said.iter().any(|line| line == "writer connected"), "{said:#?}");
}

/// Beside this test's own program are those of the examples.
fn example(name: &str) -> PathBuf {
    Path::new(fifogate()).parent().unwrap().join("examples").join(name)
}

/// Starts an example in Rust, at most 99 lines long.
fn run_example(name: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let lines = fs::read_to_string(source.with_extension("rs")).unwrap().lines().count();
    assert!(lines < 100, "{name} has {lines} lines");
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let agent = Command::new(example(name))
        .args([Path::new(fifogate()), &run_dir])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    run(agent, &run_dir);
}

#[test]
fn blocking_agent_tells_its_story() {
    run_example("agent_blocking");
}

#[cfg(feature = "tokio")]
#[test]
fn agent_on_tokio_tells_its_story() {
    run_example("agent_tokio");
}

#[test]
fn agent_in_python_tells_the_same_with_nothing_but_protobuf() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let (run_dir, generated) = (dir.path().join("run"), dir.path().join("generated"));
    fs::create_dir(&generated).unwrap();
    let protos = ["agent_link", "ank_base"]
        .map(|name| root.join("proto").join(name).with_extension("proto"));
    let protoc = Command::new("protoc")
        .arg("--proto_path")
        .arg(root.join("proto"))
        .arg("--python_out")
        .arg(&generated)
        .args(protos)
        .status();
    assert!(protoc.is_ok_and(|status| status.success()), "no protoc: run tests/sdk/setup.sh");
    let python: PathBuf = root.join("target/sdk-venv/bin/python");
    assert!(python.exists(), "no Python with protobuf: run tests/sdk/setup.sh");
    let agent = Command::new(python)
        .arg(root.join("examples/agent.py"))
        .args([Path::new(fifogate()), &generated, &run_dir])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    run(agent, &run_dir);
}

#[test]
fn embedded_server_serves_a_workload_until_it_is_shut_down() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let mut server = Command::new(example("embed_server"))
        .arg(&run_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    let ready = lines.find_map(|line| line.strip_prefix("ready ").map(PathBuf::from)).unwrap();
    let get = Command::new(fifogate())
        .args(["get", "-d"])
        .args([ready.as_os_str(), "desiredState.configs".as_ref()])
        .output()
        .unwrap();
    // The end of its standard input is a line, too.
    drop(server.stdin.take());
    let rest: Vec<_> = lines.collect();
    let got = String::from_utf8_lossy(&get.stdout).into_owned();
    assert!(got.contains("speed: \"50\""), "{got}");
    assert!(server.wait().unwrap().success(), "{rest:#?}");
    assert_eq!(rest.last().map(String::as_str), Some("ended"));
    let status: serde_json::Value = serde_json::from_str(&rest[0]).unwrap();
    assert_eq!(status["workloads"][0]["name"], "reader");
}

#[test]
fn embedded_core_answers_over_a_socket() {
    let output = Command::new(example("embed_core")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains("ControlInterfaceAccepted"), "{text}");
    assert!(lines[1].contains("node_a") && lines.len() == 4, "{text}");
    assert!(lines[2].contains("UpdateStateSuccess"), "{text}");
    // Its grace time ends without any input: only the driver's tick at the deadline brings the event.
    assert!(lines[3].contains("added_fields: [\"desiredState.configs"), "{text}");
}
