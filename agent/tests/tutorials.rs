//! The tutorials and the commands of the README, pasted block by block into a shell, as a reader does.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use testkit::{Podman, fifogate, fifogate_agent, is_root, repository, skip};

/// A fenced block with its language, and the file that the text before it names last.
struct Block {
    language: String,
    file: Option<String>,
    text: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let (mut blocks, mut before) = (Vec::new(), String::new());
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            writeln!(before, "{line}").unwrap();
            continue;
        };
        let text = lines.by_ref().take_while(|line| *line != "```");
        let text = text.fold(String::new(), |text, line| text + line + "\n");
        let quoted = before.split('`').skip(1).step_by(2);
        let file = quoted.filter(|name| name.ends_with(".yaml") || name.ends_with(".py")).last();
        blocks.push(Block { language: language.to_owned(), file: file.map(str::to_owned), text });
        before.clear();
    }
    blocks
}

/// The tutorial as a script in `dir`, with the programs of this test instead of its first section.
fn script(markdown: &str, dir: &Path) -> String {
    // No agent is left behind if a step fails: it would keep the pipes of this test open.
    let mut script = "set -e\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n".to_owned();
    let from = markdown.find("## 2.").unwrap();
    for Block { language, file, text } in blocks(&markdown[from..]) {
        let text = text.replace("/tmp/tutorial", dir.to_str().unwrap());
        match (language.as_str(), file) {
            ("sh", _) => writeln!(script, "{text}echo ==").unwrap(),
            ("yaml" | "python", Some(file)) => fs::write(dir.join(file), text).unwrap(),
            (language, file) => panic!("a block of {language} for {file:?}: {text}"),
        }
    }
    script
}

fn path_with_programs() -> String {
    let programs = Path::new(fifogate_agent()).parent().unwrap();
    format!("{}:{}", programs.display(), env::var("PATH").unwrap())
}

#[test]
fn one_node_shows_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("here");
    fs::create_dir_all(here.join("venv/bin")).unwrap();
    let python = repository().join("target/sdk-venv/bin/python");
    assert!(python.exists(), "run `make setup` first");
    // A wrapper, as a link would lose the packages beside the program.
    let wrapper = format!("#!/bin/sh\nexec {} \"$@\"\n", python.display());
    fs::write(here.join("venv/bin/python"), wrapper).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(here.join("venv/bin/python"), mode).unwrap();
    let markdown = fs::read_to_string(repository().join("docs/tutorials/one-node.md")).unwrap();
    // A file: the tutorial kills a process by a word of its command line.
    fs::write(dir.path().join("steps.sh"), script(&markdown, &here)).unwrap();
    let output = Command::new("bash")
        .arg(dir.path().join("steps.sh"))
        .current_dir(&here)
        .env("PATH", path_with_programs())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    let steps: Vec<_> = said.split("==\n").collect();
    let shows = |step: usize, all: &[&str]| {
        all.iter().for_each(|text| assert!(steps[step].contains(text), "{step} {text}: {said}"));
    };
    shows(1, &["engine", "operator", "Running"]);
    shows(2, &["engine"]);
    shows(3, &["dashboard RUNNING", "engine RUNNING"]);
    shows(4, &["typo PENDING", "runtimeConfig, line 1, column 1: unknown key 'comand'"]);
    shows(5, &["sleep, args: [\\\"2\\\"]"]);
    shows(6, &["pace: \"3\""]);
    assert!(!here.exists(), "the last step removes its folder");
}

/// A reader who pastes a block again until it shows what the tutorial says, and for at most a minute. A
/// block with a job of its own, or with an end, is pasted once.
const READER: &str = r#"
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
step() {
    end=$((SECONDS + 60))
    while :; do
        . "$1.sh" > "$1.out" 2>&1 && status=0 || status=$?
        if [ ! -e "$1.text" ]; then
            [ "$status" = 0 ] || grep -q '&$\|^kill' "$1.sh" && return
        elif shows "$1.text" "$1.out"; then
            return
        fi
        [ "$SECONDS" -lt "$end" ] || { echo "step $1 does not show it:"; cat "$1.sh" "$1.out"; exit 1; }
        sleep 0.1
    done
}
# Whether the output is the text, with anything where the text has dots.
shows() {
    python3 -c '
import re, sys
text, output = (open(path).read().strip() for path in sys.argv[1:])
pattern = ".*".join(map(re.escape, text.split("…")))
sys.exit(not re.fullmatch(pattern, output, re.DOTALL))' "$1" "$2"
}
"#;

/// A script in `dir` that reads a tutorial in the folder `here`, after a first line.
fn reader(markdown: &str, dir: &Path, here: &Path, first: &str) -> PathBuf {
    let mut steps: Vec<String> = Vec::new();
    for Block { language, file, text } in blocks(markdown) {
        let file_of = |step: &str, kind: &str| dir.join(format!("{step}.{kind}"));
        match (language.as_str(), file) {
            ("sh", _) => {
                let step = format!("{:02}", steps.len());
                fs::write(file_of(&step, "sh"), text).unwrap();
                steps.push(step);
            }
            ("text", _) => fs::write(file_of(steps.last().unwrap(), "text"), text).unwrap(),
            ("yaml", Some(file)) => fs::write(here.join(file), text).unwrap(),
            (language, file) => panic!("a block of {language} for {file:?}: {text}"),
        }
    }
    let folder = dir.display();
    let steps: String = steps.iter().map(|step| format!("step {folder}/{step}\n")).collect();
    let script = dir.join("steps.sh");
    fs::write(&script, format!("{first}\n{READER}\n{steps}")).unwrap();
    script
}

#[test]
fn three_nodes_show_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("three");
    fs::create_dir(&here).unwrap();
    let markdown = fs::read_to_string(repository().join("docs/tutorials/three-nodes.md")).unwrap();
    // The programs are built already, and the folder is this test's.
    let (_, start) = markdown.split_once("mkdir /tmp/three\n").unwrap();
    let markdown = format!("```sh\n{start}").replace("/tmp/three", here.to_str().unwrap());
    let script = reader(&markdown, dir.path(), &here, "ip link set lo up || exit 77");
    // The ports of etcd are those of the tutorial: in a network of its own nobody else has them.
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let command = command.arg("bash").arg(&script).current_dir(&here);
    let output = command.env("PATH", path_with_programs()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("unshare failed") || output.status.code() == Some(77) {
        skip(&format!("it needs root, or user namespaces: {}", errors.trim()));
        return;
    }
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(!here.exists(), "the last step removes its folder");
}

#[test]
fn containers_show_what_they_say() {
    let Some(podman) = Podman::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("containers");
    fs::create_dir_all(here.join("programs")).unwrap();
    for program in [fifogate(), fifogate_agent()] {
        let name = Path::new(program).file_name().unwrap();
        fs::copy(program, here.join("programs").join(name)).unwrap();
    }
    let markdown = fs::read_to_string(repository().join("docs/tutorials/containers.md")).unwrap();
    let markdown = markdown.replace("/tmp/containers", here.to_str().unwrap());
    let from = markdown.find("## 2.").unwrap();
    let script = reader(&markdown[from..], dir.path(), &here, "");
    let path = format!("{}:{}", here.join("programs").display(), env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.arg(&script).current_dir(&here).envs(podman.env()).env("PATH", path);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(!here.exists(), "the last step removes its folder");
    assert!(podman.containers().is_empty());
}

#[test]
fn session_of_an_operator_shows_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("ops");
    fs::create_dir_all(&here).unwrap();
    let markdown = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let (_, section) = markdown.split_once("## At the terminal\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let section = section.replace("/tmp/ops", here.to_str().unwrap());
    let script = reader(&section, dir.path(), &here, "");
    let mut command = Command::new("bash");
    command.arg(&script).current_dir(&here).env("PATH", path_with_programs());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
}

/// The commands of the README's block that holds `text`.
fn commands_of_readme(text: &str) -> String {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let mut found = blocks(&readme).into_iter().filter(|block| block.text.contains(text));
    let block = found.next().expect("a block with these commands").text;
    block
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn commands_of_the_readme_do_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run").display().to_string();
    let cli = commands_of_readme("fifogate run --manifest").replace("/tmp/run", &run_dir);
    let (start, rest) = cli.split_once('\n').unwrap();
    // The frames go to a workload that may subscribe; what comes is printed for ever, so it is ended.
    let shell = commands_of_readme("fifogate encode").replace("PAIR", "$PAIR");
    let frames = dir.path().join("frames").display().to_string();
    let until = format!(
        "> {frames} &\nuntil [ \"$(wc -l < {frames})\" -ge 2 ]; do sleep 0.05; done\nkill $!; cat {frames} #"
    );
    let shell = shell.replace("# prints each", &until);
    let script = format!(
        "set -e\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{start}\n\
         until [ -p {run_dir}/publisher.*/control_interface/input ]; do sleep 0.05; done\n\
         PAIR=$(echo {run_dir}/dashboard.*/control_interface)\n({shell})\necho ==\n{rest}"
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(repository()).env("PATH", path_with_programs());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    let (frames, commands) = said.split_once("==\n").unwrap();
    for text in ["controlInterfaceAccepted", "\"requestId\":\"speed\""] {
        assert!(frames.contains(text), "{text}: {said}");
    }
    assert!(commands.contains("speed: ") && commands.contains("changed: "), "{said}");
}
