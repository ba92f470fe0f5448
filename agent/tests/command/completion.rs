//! Completion of names, as a shell asks for it.

use std::{
    path::Path,
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

fn printed(args: &[&str]) -> String {
    let Output { status, stdout, .. } = Command::new(fifogate_agent()).args(args).output().unwrap();
    assert!(status.success(), "{args:?}");
    String::from_utf8(stdout).unwrap()
}

#[test]
fn manual_page_has_every_command_and_option_and_no_hidden_one() {
    let man = printed(&["man"]).replace("\\-", "-");
    let commands = [
        "run",
        "check",
        "apply",
        "delete",
        "get",
        "watch",
        "logs",
        "set",
        "restart",
        "completions",
        "man",
    ];
    for command in commands {
        let section = format!(".SH \"FIFOGATE-AGENT {}\"", command.to_uppercase());
        assert!(man.contains(&section), "{command}");
        let words: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let help = printed(&words);
        let flags = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
        for flag in flags
            .filter(|flag| flag[2..].bytes().all(|own| own.is_ascii_lowercase() || own == b'-'))
        {
            assert!(man.contains(flag), "{flag} of {command}");
        }
    }
    for hidden in ["LAUNCH", "KEEP", "WATCHDOG"] {
        assert!(!man.contains(&format!("FIFOGATE-AGENT {hidden}")), "{hidden}");
    }
}

#[test]
fn script_of_a_package_asks_the_program_in_path() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("fifogate-agent") && !script.contains("target/"), "{script}");
    }
    let folder = Path::new(fifogate_agent()).parent().unwrap();
    let script = "source <(fifogate-agent completions bash); COMP_WORDS=(fifogate-agent rest); \
                  COMP_CWORD=1; COMP_TYPE=9; _clap_complete_fifogate_agent fifogate-agent rest \
                  fifogate-agent; echo ${COMPREPLY[@]}";
    let mut bash = Command::new("bash");
    let output = bash
        .args(["--norc", "-c", script])
        .env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
    let output = output.output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "restart");
}
