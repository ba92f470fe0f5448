//! `fifogate check` beyond faults: warnings, notes, `--strict` and `--may`.

use crate::fifogate;

const MANIFEST: &str = "\
apiVersion: v1
workloads:
  watcher:
    runtime: process
    agent: agent_A
    configs: { img: image, speed: speed }
    runtimeConfig: 'command: {{img.name}}'
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: ReadWrite, filterMasks: [desiredState.configs] }
        - { type: StateRule, operation: Read, filterMasks: [workloadStates.*.bd] }
        - { type: LogRule, workloadNames: ['d*'] }
      denyRules:
        - { type: StateRule, operation: Write, filterMasks: [desiredState.configs.image, agents] }
  db: { runtime: process, agent: agent_A, runtimeConfig: 'command: db' }
configs: { image: { name: sleep }, speed: '3' }
";

/// Status, standard output, and the lines of standard error without their time.
fn check(args: &[&str]) -> (i32, String, Vec<String>) {
    let args = [&["check", "-"], args].concat();
    let output = fifogate(&args).write_stdin(MANIFEST).assert().get_output().clone();
    let [out, err] = [output.stdout, output.stderr].map(|own| String::from_utf8(own).unwrap());
    let line = |line: &str| match line.strip_prefix('[') {
        Some(rest) => rest.split_once(' ').unwrap().1.to_owned(),
        None => line.to_owned(),
    };
    (output.status.code().unwrap(), out, err.lines().map(line).collect())
}

#[test]
fn warnings_and_notes_have_places_and_only_strict_counts_warnings() {
    let said = [
        "WARN  fifogate::cli::check] <stdin>:6:35: no template of watcher uses its reference `speed` to config \
         `speed`: write {{speed}}, or leave it out",
        "WARN  fifogate::cli::check] <stdin>:14:90: 'agents' denies nothing: no rule allows any of it, so leave \
         it out",
        "INFO  fifogate::cli::check] <stdin>:11:61: the mask 'workloadStates.*.bd' names nothing until an update \
         adds it: the manifest has no workload `bd` (did you mean `db`?)",
    ];
    let ok = "<stdin>: ok (2 workloads, 1 with a control interface)\n";
    assert_eq!(check(&[]), (0, ok.to_owned(), said.map(str::to_owned).to_vec()));
    let refused = "error: <stdin>: refused for 2 warnings (--strict)";
    let with = said.into_iter().chain([refused]).map(str::to_owned).collect();
    assert_eq!(check(&["--strict"]), (2, String::new(), with));
    assert_eq!(check(&["-qq"]), (0, ok.to_owned(), Vec::new()));
}

#[test]
fn question_is_answered_with_the_place_of_the_rule_that_decides() {
    let ask = |question: &str| {
        let question: Vec<_> = question.split(' ').collect();
        let (status, out, err) = check(&[&["--may"], &question[..]].concat());
        (status, out + &err.join("\n"))
    };
    let covers = |place: &str, may: &str, rule: &str| {
        (0, format!("<stdin>:{place}: watcher may {may}: the allow rule '{rule}' covers it\n"))
    };
    let not = |place: &str, text: &str| (1, format!("error: <stdin>:{place}: {text}"));
    let configs = "desiredState.configs";
    assert_eq!(
        ask("watcher read desiredState.configs.x"),
        covers("10:66", "read desiredState.configs.x", configs)
    );
    assert_eq!(
        ask("watcher WRITE desiredState.configs.speed"),
        covers("10:66", "write desiredState.configs.speed", configs)
    );
    assert_eq!(ask("watcher logs db"), covers("12:44", "read the logs of db", "d*"));
    assert_eq!(
        ask("watcher write desiredState.configs"),
        not(
            "14:62",
            "watcher may not write desiredState.configs: the deny rule desiredState.configs.image forbids it"
        )
    );
    assert_eq!(
        ask("watcher read desiredState"),
        not(
            "9:7",
            "watcher may not read desiredState: no rule allows it (allowed to read: desiredState.configs, \
             workloadStates.*.bd); an allow rule is missing: { type: StateRule, operation: Read, filterMasks: \
             ['desiredState'] }"
        )
    );
    assert_eq!(
        ask("watcher write desiredState.configs.*"),
        not(
            "9:7",
            "watcher may not write desiredState.configs.*: the masks of an update have no `*`"
        )
    );
    assert_eq!(
        ask("db read agents"),
        not(
            "15:7",
            "db may not read agents: it has no control interface, as it has no `allowRules`"
        )
    );
    let unusable = |text: &str| (2, format!("error: {text}"));
    assert_eq!(
        ask("wacher read agents"),
        unusable("<stdin>: the manifest has no workload `wacher` (did you mean `watcher`?)")
    );
    assert_eq!(ask("watcher see agents"), unusable("--may: `see` is none of read, write, logs"));
    let (status, fault) = ask("watcher read desiredStat");
    assert!(status == 2 && fault.contains("desiredStat"), "{fault}");
    // One that may not is enough, and both answers are given.
    let two = ["--may", "watcher", "logs", "db", "--may", "watcher", "logs", "w"];
    let (status, out, err) = check(&two);
    assert_eq!((status, out.lines().count(), err.len()), (1, 1, 1), "{out} {err:?}");
}
