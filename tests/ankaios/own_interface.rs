//! The real `ank` at the command interface of an agent of ours, without any server of Ankaios.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use testkit::{Agent, Process, skip, wait_for, workload};

struct Ank {
    bin: PathBuf,
    agent: Agent,
    url: String,
}

impl Ank {
    fn new(workloads: &str) -> Option<Self> {
        let Some(bin) = std::env::var_os("ANK_BIN_DIR").map(PathBuf::from) else {
            skip("ANK_BIN_DIR is not set, the folder of ank, ank-server and ank-agent");
            return None;
        };
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let agent = Agent::start(workloads, &["--listen", &address, "--insecure"]);
        agent.connect();
        Some(Self { bin, agent, url: format!("http://{address}") })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("ank"));
        command.args(["--insecure", "--server-url", &self.url]).args(args);
        command.env("HOME", self.agent.path("")).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        said
    }

    /// Runs one that goes on, with its output in a file.
    fn begin(&self, args: &[&str], file: &str) -> Process {
        let file = File::create(self.agent.path(file)).unwrap();
        Process::start(self.command(args).stdout(file.try_clone().unwrap()).stderr(file))
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.agent.path(name), text).unwrap();
        self.agent.path(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.agent.path(name)).unwrap_or_default()
    }
}

#[test]
fn each_command_of_ank_does_at_our_interface_what_it_does_at_a_server() {
    let talker = workload("talker", "echo one; echo two; exec sleep 1000", "");
    let Some(ank) = Ank::new(&talker) else { return };
    assert!(ank.run(&["get", "state"]).contains("talker:"));
    assert!(ank.run(&["get", "state", "-o", "json"]).contains("\"talker\": {"));
    assert!(ank.run(&["get", "workloads"]).contains("talker"));
    assert!(ank.run(&["get", "agents"]).contains("agent_A"));
    wait_for("both lines", || (ank.run(&["logs", "talker"]) == "one\ntwo\n").then_some(()));
    assert_eq!(ank.run(&["logs", "-t", "1", "talker"]), "two\n");
    let followed = ank.begin(&["logs", "-f", "talker"], "followed");
    wait_for("both lines again", || (ank.read("followed") == "one\ntwo\n").then_some(()));
    let watched = ank.begin(&["get", "events", "-o", "json", "desiredState.configs"], "events");
    let file = ank.file(
        "new.yaml",
        &format!("apiVersion: v1\nworkloads:\n{}", workload("new", "exec sleep 1000", "")),
    );
    assert!(ank.run(&["apply", &file]).contains("Running(Ok)"));
    let config = "command: 'true'";
    let run = ["run", "workload", "done", "--runtime", "process", "--agent", "agent_A", "--config"];
    ank.run(&[&run[..], &[config]].concat());
    let file = ank.file("state.yaml", "desiredState: {apiVersion: v1, configs: {c: '2'}}\n");
    // It subscribes at some time.
    wait_for("an event", || {
        ank.run(&["set", "state", "desiredState.configs.c", &file]);
        ank.run(&["delete", "configs", "c"]);
        ank.read("events").contains("desiredState.configs").then_some(())
    });
    assert!(ank.run(&["get", "configs"]).trim() == "CONFIG");
    assert!(ank.run(&["delete", "workload", "new", "done"]).contains("Removed"));
    ank.run(&["delete", "workload", "talker"]);
    // The log has ended, and so has its reader.
    let mut followed = followed;
    assert!(followed.wait_end().success());
    watched.signal(Signal::SIGINT);
    let mut watched = watched;
    watched.wait_end();
    let bad = ank
        .file("bad.yaml", "apiVersion: v1\nworkloads:\n  b: {agent: agent_A, runtime: process}\n");
    let output = ank.command(&["apply", &bad]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}
