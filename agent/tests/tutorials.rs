//! The tutorial for one node, pasted block by block into a shell, as a reader does.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{env, fmt::Write, fs, path::Path, process::Command};

use testkit::{fifogate_agent, repository};

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
    let programs = Path::new(fifogate_agent()).parent().unwrap();
    let path = format!("{}:{}", programs.display(), env::var("PATH").unwrap());
    // A file: the tutorial kills a process by a word of its command line.
    fs::write(dir.path().join("steps.sh"), script(&markdown, &here)).unwrap();
    let output = Command::new("bash")
        .arg(dir.path().join("steps.sh"))
        .current_dir(&here)
        .env("PATH", path)
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
