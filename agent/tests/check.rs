//! `fifogate-agent check`: faults of manifests that the agent would find only later.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use testkit::fifogate_agent;

/// Status, standard output and standard error.
type Said = (i32, String, String);

fn check(args: &[&str], input: &str) -> Said {
    let mut command = Command::new(fifogate_agent());
    command.arg("check").args(args).stdin(Stdio::piped());
    command.env_remove("RUST_LOG").env_remove("XDG_RUNTIME_DIR");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The command may end before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|own| String::from_utf8(own).unwrap());
    (output.status.code().unwrap(), out, err)
}

const GOOD: &str = "\
apiVersion: v1
workloads:
  a: { agent: agent_A, runtime: process, runtimeConfig: 'command: sleep' }
  b:
    agent: agent_A
    runtime: process
    configs: { c: c }
    runtimeConfig: |
      command: '{{c.program}}'
    files: [{ mountPoint: /etc/x, binaryData: QUJD }]
    dependencies: { a: ADD_COND_RUNNING }
  c: { agent: agent_B, runtime: podman, runtimeConfig: 'image: x' }
configs: { c: { program: sleep } }
";

#[test]
fn good_manifest_is_told_with_the_workloads_of_the_agent() {
    let ok = "<stdin>: ok (3 workloads, 2 of agent_A: a, b)\n".to_owned();
    assert_eq!(check(&["-"], GOOD), (0, ok, String::new()));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.yaml");
    fs::write(&file, GOOD).unwrap();
    let path = file.to_str().unwrap();
    let (status, out, err) = check(&["--name", "agent_C", path], "");
    assert_eq!((status, out), (0, format!("{path}: ok (3 workloads, 0 of agent_C)\n")));
    let note = "0 of 3 workloads are of agent_C; the manifest names agent_A, agent_B";
    assert!(err.contains(&format!("{path}: {note}")), "{err}");
}

/// A manifest with a fault for each check.
const FAULTY: &str = "\
apiVersion: v1
workloads:
  a:
    agent: agent_A
    runtime: process
    runtimeConfig: |
      command: sleep
      arg: [1]
    files:
      - { mountPoint: x, data: y }
      - { mountPoint: /x, binaryData: '*' }
      - { mountPoint: /x/y/z, data: y }
  b: { agent: agent_A, runtime: containerd, runtimeConfig: x }
  c:
    agent: agent_B
    runtime: process
    configs: { c: c }
    runtimeConfig: 'command: {{c.missing}}'
  d: { agent: agent_B, runtime: process, runtimeConfig: '' }
  v: { agent: agent_B, runtime: process, runtimeConfig: '{command: x, workingDir: y}' }
  u:
    agent: agent_A
    runtime: process
    runtimeConfig: '{command: x, user: 1:4294967295}'
    files: [{ mountPoint: /, data: y }]
  p: { agent: agent_A, runtime: podman, runtimeConfig: 'image: 5' }
  e:
    agent: '{{c'
    runtime: process
    configs: { c: c }
    runtimeConfig: 'command: x'
configs: { c: { program: sleep } }
";

#[test]
fn each_fault_is_told_with_its_place() {
    let (status, out, err) = check(&["-"], FAULTY);
    assert_eq!((status, out.as_str()), (2, ""), "{err}");
    let lines: Vec<_> = err.lines().filter(|line| line.starts_with("error: ")).collect();
    let expected = [
        ("7:7", "runtimeConfig, line 2, column 1: unknown key 'arg'; there are command"),
        (
            "10:9",
            "file with mountPoint 'x': a mountPoint is an absolute path of a file without `..`",
        ),
        ("11:9", "file with mountPoint '/x': binaryData is no base64"),
        ("12:9", "file with mountPoint '/x/y/z': another file is at /x"),
        (
            "13:33",
            "unknown runtime 'containerd'; this agent has 'podman', 'podman-kube', 'process'",
        ),
        ("15:5", "Failed to render field 'runtimeConfig'"),
        ("19:57", "runtimeConfig, is empty"),
        ("20:57", "runtimeConfig, line 1, column 26: workingDir is an absolute path"),
        ("24:20", "runtimeConfig, line 1, column 20: user: 4294967295 is no number of a group"),
        ("25:13", "file with mountPoint '/': a mountPoint is an absolute path of a file"),
        ("26:56", "runtimeConfig, line 1, column 8: expected a text: put 5 in quotes"),
        ("28:5", "Failed to render field 'agent'"),
    ];
    assert_eq!(lines.len(), expected.len(), "{err}");
    for (line, (place, part)) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("error: <stdin>:{place}: {part}")), "{place}: {err}");
    }
}

#[test]
fn faults_of_the_manifest_and_of_usage_have_status_2_and_warnings_none() {
    let (status, _, err) = check(&["-"], "apiVersion: v2\nworkload: {}\n");
    assert_eq!((status, err.lines().count()), (2, 2), "{err}");
    assert!(err.lines().all(|line| line.starts_with("error: <stdin>:")), "{err}");
    let (status, _, err) = check(&["/nonexistent/m.yaml", "-"], GOOD);
    assert_eq!(status, 2);
    assert!(err.starts_with("error: /nonexistent/m.yaml: cannot read the manifest"), "{err}");
    assert_eq!(check(&[], "").0, 2);
    let (status, _, err) = check(&["--name", "a b", "-"], GOOD);
    assert!(status == 2 && err.starts_with("error: --name 'a b': "), "{err}");
    let rules = "[{ type: StateRule, operation: Read, filterMasks: [desiredStates] }]";
    let access = format!("controlInterfaceAccess: {{ allowRules: {rules} }}");
    let text = format!(
        "apiVersion: v1\nworkloads:\n  a: {{ agent: agent_A, runtime: process, runtimeConfig: \
         'command: x', dependencies: {{ b: ADD_COND_RUNNING }}, {access} }}\n"
    );
    let (status, out, err) = check(&["-"], &text);
    assert_eq!((status, out.as_str()), (0, "<stdin>: ok (1 workload, 1 of agent_A: a)\n"));
    assert!(err.contains("<stdin>:3:"), "{err}");
    assert!(err.contains("the mask 'desiredStates' of a rule names nothing"), "{err}");
    assert!(err.contains("a waits for b, which is no workload of the manifest"), "{err}");
}

#[test]
fn lost_output_is_a_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = Command::new(fifogate_agent())
        .args(["check", "-"])
        .stdin(Stdio::piped())
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(GOOD.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
}

#[test]
fn faults_of_pods_are_told_as_a_start_tells_them() {
    let workload = |name: &str, config: &str, fields: &str| {
        let config = config.replace('\n', "\n      ");
        format!(
            "  {name}:\n    agent: agent_A\n    runtime: podman-kube\n    {fields}\n    runtimeConfig: |\n      {config}\n"
        )
    };
    let manifest = |containers: &str| {
        format!(
            "manifest: |\n  kind: Pod\n  metadata: {{name: p}}\n  spec: {{containers: [{containers}]}}"
        )
    };
    let good = manifest("{name: c}");
    let rules = "controlInterfaceAccess: { allowRules: [{ type: StateRule, operation: Read, \
                 filterMasks: ['*'] }] }";
    let text = "apiVersion: v1\nworkloads:\n".to_owned()
        + &workload("good", &format!("{good}\ncontrolInterfaceTarget: p/c"), rules)
        + &workload("file", &good, "files: [{ mountPoint: /a, data: x }]")
        + &workload("rules", &good, rules)
        + &workload("target", &format!("{good}\ncontrolInterfaceTarget: p/x"), rules)
        + &workload("none", "manifest: 'kind: Service'", "");
    let (status, out, err) = check(&["-"], &text);
    assert_eq!((status, out.as_str()), (2, ""), "{err}");
    let told = [
        "16:12: Workload files are not supported for podman-kube runtime. Use ConfigMaps instead.",
        "27:7: Control interface target not specified in runtime config.",
        "36:7: manifest, controlInterfaceTarget: pod 'p' has no container 'x'",
        "46:7: manifest, it has neither a Pod nor a Deployment with a name",
    ];
    let expected: String = told.map(|own| format!("error: <stdin>:{own}\n")).concat();
    assert_eq!(err, expected);
}

#[test]
fn advice_is_that_of_fifogate_and_strict_counts_its_warnings() {
    let text = GOOD.replace("{ c: c }\n", "{ c: c, d: c }\n");
    let unused =
        "no template of b uses its reference `d` to config `c`: write {{d}}, or leave it out";
    let (status, out, err) = check(&["-"], &text);
    assert_eq!((status, out.lines().count()), (0, 1), "{err}");
    assert!(
        err.lines().count() == 1
            && err.contains(&format!("WARN  fifogate_agent::check] <stdin>:7:25: {unused}")),
        "{err}"
    );
    let (status, out, err) = check(&["--strict", "-"], &text);
    assert_eq!((status, out.as_str()), (2, ""), "{err}");
    assert!(err.ends_with("error: <stdin>: refused for 1 warning (--strict)\n"), "{err}");
    assert_eq!(check(&["--strict", "-"], GOOD).0, 0);
}

#[test]
fn renderings_are_shown_to_those_who_ask_for_more() {
    let (status, _, err) = check(&["-v", "-"], GOOD);
    assert_eq!(status, 0, "{err}");
    assert!(err.contains("<stdin>:9:7: renders to command: 'sleep'\\n"), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

/// No false alarm: if a template can be rendered, no name in it is called missing.
#[test]
fn template_that_renders_has_no_missing_name() {
    let (mut rendered, mut alarms) = (0, Vec::new());
    for template in [
        "{{c}}",
        "{{c.program}}",
        "{{ c.program }}",
        "{{~c.program~}}",
        "{{{c.program}}}",
        "{{c.list.0}}",
        "{{c.list.[0]}}",
        "{{lookup c 'program'}}",
        "{{#if c}}{{x}}{{/if}}",
        "{{#with c}}{{program}}{{/with}}",
        "{{#each c.list}}{{this}}{{/each}}",
        "{{#each c.list as |own|}}{{own}}{{/each}}",
        "{{else}}",
        "{{this}}",
        "\\{{nothing}}",
        "{{!-- nothing --}}",
        "{{! nothing }}",
        "{{@root.c.program}}",
        "{{eq c c}}",
        "{{and}}",
        "{{or}}",
        "{{not}}",
        "{{len c.list}}",
        "{{this.c.program}}",
        "{{./c.program}}",
        "{{c/program}}",
        "{{nothing}}",
        "{{c.nothing}}",
        "{{{{raw}}}}{{nothing}}{{{{/raw}}}}",
        "{{true}}",
        "{{null}}",
        "{{#unless c}}{{nothing}}{{/unless}}",
        "{{c.program.deeper}}",
        "{{c.list.program}}",
        "{{undefined}}",
        "{{false}}",
    ] {
        let text = format!(
            "apiVersion: v1\nworkloads:\n  w:\n    agent: agent_B\n    runtime: r\n    configs: {{ c: c }}\n    \
             runtimeConfig: |-\n      {template}\nconfigs: {{ c: {{ program: sleep, list: [a] }} }}\n"
        );
        let (_, _, err) = check(&["-"], &text);
        let fails = err.contains("error: ");
        rendered += u32::from(!fails);
        if !fails && err.contains(" has no `") {
            alarms.push(template);
        }
    }
    assert_eq!(alarms, [""; 0]);
    assert!(rendered > 15, "{rendered}");
}
