//! Help, the man page, completions, wrong usage.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
};

use predicates::prelude::*;

use crate::{fifogate, into_closed_pipe};

const COMMANDS: [&str; 11] = [
    "run",
    "get",
    "watch",
    "set",
    "encode",
    "decode",
    "check",
    "schema",
    "status",
    "completions",
    "man",
];

fn stdout_of(args: &[&str]) -> String {
    let output = fifogate(args).assert().success().stderr("").get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

/// Every `--flag` that a help names at the beginning of a line.
fn flags(help: &str) -> Vec<&str> {
    let words = help.lines().map(str::trim).filter(|line| line.starts_with('-'));
    words.flat_map(str::split_whitespace).filter(|word| word.starts_with("--")).collect()
}

#[test]
fn help_of_every_command_ends_with_examples_that_use_it() {
    for command in COMMANDS {
        let help = stdout_of(&[command, "--help"]);
        let (_, examples) = help.rsplit_once("\nExamples:\n").expect(command);
        assert!(examples.contains(&format!("fifogate {command}")), "{examples}");
        assert!(examples.lines().all(|line| line.is_empty() || line.starts_with("  ")), "{help}");
        assert_eq!(help, stdout_of(&["help", command]));
    }
}

#[test]
fn every_command_of_the_program_is_known_to_these_tests() {
    let help = stdout_of(&["--help"]);
    let (_, list) = help.split_once("\nCommands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let first_words = list.lines().filter_map(|line| line.strip_prefix("  "));
    let first_words = first_words.filter(|line| !line.starts_with(' '));
    let commands: Vec<_> = first_words.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(commands, [&COMMANDS[..], &["help"]].concat());
    assert!(help.contains("\nExit status:\n"), "{help}");
}

#[test]
fn man_page_and_completions_name_every_command_and_flag() {
    let man = stdout_of(&["man"]).replace("\\-", "-");
    let scripts = ["bash", "elvish", "fish", "powershell", "zsh"]
        .map(|shell| (shell, stdout_of(&["completions", shell])));
    for command in COMMANDS {
        let help = stdout_of(&[command, "--help"]);
        let section = format!(".SH \"FIFOGATE {}\"", command.to_uppercase());
        assert!(man.contains(&section), "{command}");
        for flag in flags(&help) {
            let flag = flag.trim_end_matches("...");
            assert!(man.contains(flag), "man page: {flag} of {command}");
            for (shell, script) in &scripts {
                assert!(script.contains(command), "{shell}: {command}");
                assert!(script.contains(flag.trim_start_matches('-')), "{shell}: {flag}");
            }
        }
    }
    assert!(man.starts_with(".ie"), "{man}");
    assert_eq!(man.matches("\n.TH ").count(), 1);
}

#[test]
fn wrong_usage_is_status_2_and_says_what_would_be_right() {
    let expected: &[(&[&str], &str)] = &[
        (&[], "Usage: fifogate"),
        (&["serve"], "unrecognized subcommand 'serve'"),
        (&["run"], "--manifest"),
        (&["run", "--manifest", "m.yaml", "--window", "0"], "1..=1024"),
        (&["run", "--manifest", "m.yaml", "--window", "1025"], "1..=1024"),
        (&["run", "--manifest", "m.yaml", "--max-masks", "0"], "--max-masks"),
        (&["get", "--timeout", "never"], "a number of seconds above 0"),
        (&["get", "--output", "xml"], "[possible values: yaml, json, value]"),
        (&["set"], "Usage: fifogate set [OPTIONS] PATH=VALUE..."),
        (&["set", "-f", "state.yaml"], "--mask"),
        (&["set", "mode"], "PATH=VALUE belongs here"),
        (&["encode", "--type", "Hello"], "[possible values: ToAnkaios, FromAnkaios]"),
        (&["check"], "<FILE>..."),
        (&["completions", "tcsh"], "[possible values: bash"),
        (&["watch", "-v", "-q"], "cannot be used with"),
    ];
    for (args, message) in expected {
        fifogate(args).assert().code(2).stdout("").stderr(predicate::str::contains(*message));
    }
}

#[test]
fn default_run_dir_needs_an_absolute_runtime_folder_unless_root() {
    // Root has a default that needs none, so another user runs a copy of the program that it can reach.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("fifogate");
    fs::copy(testkit::fifogate(), &program).unwrap();
    let mut command = std::process::Command::new(program);
    if testkit::is_root() {
        command.uid(65_534).gid(65_534);
    }
    assert_cmd::Command::from_std(command)
        .args(["run", "--manifest", "/dev/null"])
        .env_remove("XDG_RUNTIME_DIR")
        .assert()
        .code(2)
        .stderr(predicate::str::contains("--run-dir"));
}

#[test]
fn version_is_that_of_the_crate() {
    let version = concat!("fifogate ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(stdout_of(&["--version"]), version);
}

#[test]
fn nobody_reading_the_output_is_no_failure() {
    for args in
        [&["--help"][..], &["get", "--help"], &["man"], &["schema"], &["completions", "bash"]]
    {
        assert_eq!(into_closed_pipe(args, b""), (Some(0), String::new()), "{args:?}");
    }
}
