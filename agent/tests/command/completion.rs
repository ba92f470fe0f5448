//! Completion of names, as a shell asks for it.

use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use testkit::{Agent, fifogate_agent, workload};

use super::operator::{command, done};

/// What a shell is offered for the last of these words.
fn offered(mut command: Command, words: &[&str]) -> Vec<String> {
    command.args(["--", "fifogate-agent"]).args(words);
    command.env("COMPLETE", "bash").env("_CLAP_IFS", "\n");
    command.env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success() && stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The names among what is offered for an empty word: options are offered there, too.
fn names(agent: &Agent, words: &[&str]) -> Vec<String> {
    let mut offered = offered(command(agent, &[]), words);
    offered.retain(|own| !own.starts_with('-'));
    offered
}

#[test]
fn names_of_workloads_configs_and_agents_come_from_the_running_agent() {
    let agent =
        Agent::start(&(workload("web", "exec sleep 1", "") + &workload("db", "true", "")), &[]);
    done(&agent, &["set", "desiredState.configs.green=1", "desiredState.configs.blue=2"]);
    let workloads = ["ctl", "db", "web"];
    agent.connect().until_state("db", "Succeeded(Ok)");
    assert_eq!(names(&agent, &["logs", ""]), workloads);
    assert_eq!(names(&agent, &["-q", "restart", "web", ""]), workloads);
    assert_eq!(names(&agent, &["delete", "workload", ""]), workloads);
    assert_eq!(names(&agent, &["delete", "configs", "--no-wait", ""]), ["blue", "green"]);
    assert_eq!(names(&agent, &["get", "workloads", "w"]), ["web"]);
    assert_eq!(names(&agent, &["get", "configs", ""]), [""; 0]);
    assert_eq!(names(&agent, &["apply", "--agent", ""]), ["agent_A"]);
    let glued = offered(command(&agent, &[]), &["get", "workloads", "--agent=a"]);
    assert_eq!(glued, ["--agent=agent_A"]);
}

#[test]
fn address_among_the_words_is_asked_rather_than_that_of_the_environment() {
    let agent = Agent::start("", &[]);
    done(&agent, &["get", "configs"]);
    let address = format!("unix:{}", agent.path("run/command.sock").display());
    let mut elsewhere = Command::new(fifogate_agent());
    elsewhere.env("FIFOGATE_CONNECT", "unix:/nowhere/command.sock");
    assert_eq!(offered(elsewhere, &["logs", "--connect", &address, "c"]), ["ctl"]);
}

#[test]
fn without_an_agent_nothing_is_offered_and_soon() {
    let folder = tempfile::tempdir().unwrap();
    // It accepts connections, and never says a word.
    let silent = folder.path().join("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    for path in [folder.path().join("none.sock"), silent] {
        let mut command = Command::new(fifogate_agent());
        command.env("FIFOGATE_CONNECT", format!("unix:{}", path.display()));
        let begin = Instant::now();
        assert_eq!(offered(command, &["logs", "w"]), [""; 0]);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}

#[test]
fn bash_completes_after_it_has_read_the_registration() {
    let agent = Agent::start("", &[]);
    done(&agent, &["get", "configs"]);
    let script = r#"
        source <(COMPLETE=bash "$PROGRAM") || exit 1
        COMP_WORDS=(fifogate-agent logs c) COMP_CWORD=2
        _clap_complete_fifogate_agent fifogate-agent c logs 2>/dev/null
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).stdin(Stdio::null()).env("PROGRAM", fifogate_agent());
    let socket = agent.path("run/command.sock");
    bash.env("FIFOGATE_CONNECT", format!("unix:{}", socket.display()));
    let Output { stdout, stderr, .. } = bash.output().unwrap();
    let (text, error) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(text, "ctl\n", "{error}");
}
